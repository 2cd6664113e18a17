//! What a training step does on the device before and after the network: noise, the loss's slope, the update.

use super::buffer::{Buffer, address};
use super::launch::{Arg, BLOCK, Grid, int, launch};
use crate::rng::Stream;
use candle_core::{DType, Device, Result, Shape, Tensor, bail};

/// Noised examples.
pub struct Diffused {
    pub noise: Tensor,
    pub x_t: Tensor,
}

/// `x_t = a x_0 + b ε` for `x_0 [B, ..]` in f32: ε are the normals of samples `first ..` of `stream`, the same bits as the
/// host's, and `pairs [B, 2]` holds a and b.
///
/// # Errors
/// If shapes do not fit together, or the device fails.
pub fn diffuse(x_0: &Tensor, pairs: &Tensor, stream: Stream, first: u32) -> Result<Diffused> {
    let samples = x_0.dim(0)?;
    if x_0.dtype() != DType::F32 || pairs.dtype() != DType::F32 || pairs.dims() != [samples, 2] {
        bail!("diffuse: examples {:?} and pairs {:?} must be [B, ..] and [B, 2], in f32", x_0.dims(), pairs.dims())
    }
    let dims = x_0.elem_count() / samples;
    let (noise, x_t) = (Buffer::like(x_0)?, Buffer::like(x_0)?);
    int(4 * samples * dims.div_ceil(4))?;
    let [k0, k1, step, tag] = stream.address().map(Arg::Word);
    let args =
        [int(samples)?, int(dims)?, k0, k1, step, tag, Arg::Word(first), address(pairs)?, address(x_0)?, noise.address()?, x_t.address()?];
    launch(x_0.device(), DType::F32, "diffuse", Grid::elements(samples * dims.div_ceil(4)), &args)?;
    Ok(Diffused { noise: noise.tensor(), x_t: x_t.tensor() })
}

/// `scale` times the gradient, in the output, of each sample's mean of (target − output)², in f32 from f64 arithmetic.
/// The target is p ε + q x_0 with `parts [B, 2]` = (p, q) in f64.
///
/// # Errors
/// If shapes do not fit together, or the device fails.
pub fn simple_slope(output: &Tensor, noise: &Tensor, x_0: &Tensor, parts: &Tensor, scale: f64) -> Result<Tensor> {
    let samples = output.dim(0)?;
    let numbers = output.elem_count();
    if [noise, x_0].iter().any(|t| t.elem_count() != numbers || t.dtype() != DType::F32)
        || output.dtype() != DType::F32
        || parts.dtype() != DType::F64
        || parts.dims() != [samples, 2]
    {
        bail!("simple_slope: output {:?}, noise {:?} and examples {:?} must be alike, in f32", output.dims(), noise.dims(), x_0.dims())
    }
    let slope = Buffer::like(output)?;
    let args =
        [int(numbers / samples)?, Arg::Double(scale), address(parts)?, address(noise)?, address(x_0)?, address(output)?, slope.address()?];
    Ok(slope.fill(DType::F32, "simple_slope", &args)?.tensor())
}

/// The constants of one update, as `optim` defines them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    pub beta1: f32,
    pub beta2: f32,
    /// lr / (1 − β₁ᵗ).
    pub rate: f32,
    /// 1 / (1 − β₂ᵗ).
    pub scale: f32,
    pub epsilon: f32,
    /// 1 − lr · weight_decay.
    pub keep: f32,
    pub ema: f32,
    /// Largest norm of the gradient; 0 clips nothing.
    pub grad_clip: f64,
}

/// Weights, their average and the optimizer's moments, on the device between steps.
///
/// The four buffers are flat and f32, whatever the network computes in; the tensors that the network reads are copies of
/// the weights in its own type, which the update writes too.
pub struct DeviceWeights {
    device: Device,
    dtype: DType,
    working: Vec<Tensor>,
    raw: Tensor,
    ema: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    /// Four numbers for each block of the update: parameter, first number in it, how many, place in the flat buffers.
    chunks: Tensor,
    blocks: usize,
    working_addresses: Tensor,
    /// What stands in for the gradient of a parameter that the loss does not depend on.
    zeros: Tensor,
    /// The gradient's norm, and the factor that clips it.
    result: Tensor,
}

/// Numbers that a block updates; fixed, so that the norm's sums have one order.
const CHUNK: usize = 4 * BLOCK;

impl DeviceWeights {
    /// From the host's buffers. `shapes` are those of the parameters in the order of the buffers; the network computes in
    /// `dtype`.
    ///
    /// # Errors
    /// If lengths do not fit together, or the device fails.
    pub fn new(device: &Device, dtype: DType, shapes: &[Shape], [raw, ema, first, second]: [&[f32]; 4]) -> Result<Self> {
        let total: usize = shapes.iter().map(Shape::elem_count).sum();
        if [raw, ema, first, second].iter().any(|b| b.len() != total) {
            bail!("the buffers do not hold the {total} numbers of the parameters")
        }
        let flat = |numbers: &[f32]| Tensor::from_slice(numbers, total, device);
        let (mut chunks, mut working, mut place) = (Vec::new(), Vec::with_capacity(shapes.len()), 0);
        for (parameter, shape) in shapes.iter().enumerate() {
            let n = shape.elem_count();
            for first in (0..n).step_by(CHUNK) {
                for number in [parameter, first, CHUNK.min(n - first), place + first] {
                    let Arg::Int(number) = int(number)? else { unreachable!("int gives an integer") };
                    chunks.push(number);
                }
            }
            let numbers = Tensor::from_slice(&raw[place..place + n], shape, device)?.to_dtype(dtype)?;
            working.push(candle_core::Var::from_tensor(&numbers)?.into_inner());
            place += n;
        }
        let blocks = chunks.len() / 4;
        let longest = shapes.iter().map(Shape::elem_count).max().unwrap_or(0);
        Ok(Self {
            raw: flat(raw)?,
            ema: flat(ema)?,
            first_moment: flat(first)?,
            second_moment: flat(second)?,
            chunks: Tensor::from_vec(chunks, (blocks, 4), device)?,
            blocks,
            working_addresses: addresses(working.iter(), device)?,
            zeros: Tensor::zeros(longest, dtype, device)?,
            result: Tensor::zeros(2, DType::F64, device)?,
            working,
            device: device.clone(),
            dtype,
        })
    }

    /// The tensors that the network reads, in the order of the buffers: variables, so that a backward pass finds their
    /// gradients.
    pub fn working(&self) -> &[Tensor] {
        &self.working
    }

    /// One update by the gradients of the parameters, and their global norm before clipping. Where that is not finite,
    /// nothing changes. Waits for the device.
    ///
    /// # Errors
    /// If a gradient has another shape than its parameter, or the device fails.
    pub fn update(&mut self, update: &Update, gradients: &[Option<Tensor>]) -> Result<f64> {
        if gradients.len() != self.working.len() {
            bail!("{} gradients for {} parameters", gradients.len(), self.working.len())
        }
        // Held until the kernels that read them have run: the norm is waited for below.
        let mut held = Vec::with_capacity(gradients.len());
        for (gradient, parameter) in gradients.iter().zip(&self.working) {
            held.push(match gradient {
                None => self.zeros.clone(),
                Some(g) if g.shape() == parameter.shape() && g.dtype() == self.dtype => g.contiguous()?,
                Some(g) => {
                    bail!("a gradient is {:?} in {:?} where {:?} in {:?} was expected", g.dims(), g.dtype(), parameter.dims(), self.dtype)
                }
            });
        }
        let table = addresses(held.iter(), &self.device)?;
        let squares = Buffer::new(&self.device, self.blocks, DType::F64)?;
        let (chunks, table_at, result) = (address(&self.chunks)?, address(&table)?, address(&self.result)?);
        launch(&self.device, self.dtype, "gradient_squares", Grid::blocks(self.blocks), &[chunks, table_at, squares.address()?])?;
        let args = [int(self.blocks)?, Arg::Double(update.grad_clip), squares.address()?, result];
        launch(&self.device, self.dtype, "gradient_norm", Grid::blocks(1), &args)?;
        let constants = [update.beta1, update.beta2, update.rate, update.scale, update.epsilon, update.keep, update.ema].map(Arg::Single);
        let buffers = [&self.raw, &self.ema, &self.first_moment, &self.second_moment];
        let mut args = [&constants[..], &[result, chunks, table_at, address(&self.working_addresses)?]].concat();
        for buffer in buffers {
            args.push(address(buffer)?);
        }
        launch(&self.device, self.dtype, "adamw", Grid::blocks(self.blocks), &args)?;
        Ok(self.result.to_vec1::<f64>()?[0])
    }

    /// Weights, average, first and second moments, copied to the host.
    ///
    /// # Errors
    /// If the device fails.
    pub fn download(&self) -> Result<[Vec<f32>; 4]> {
        let [raw, ema, first, second] = [&self.raw, &self.ema, &self.first_moment, &self.second_moment].map(|t| t.to_vec1::<f32>());
        Ok([raw?, ema?, first?, second?])
    }
}

/// Where tensors begin, as a table on the device.
fn addresses<'a>(tensors: impl Iterator<Item = &'a Tensor>, device: &Device) -> Result<Tensor> {
    let mut table = Vec::new();
    for tensor in tensors {
        let Arg::Address(at) = address(tensor)? else { unreachable!("address gives an address") };
        table.push(at as i64);
    }
    let n = table.len();
    Tensor::from_vec(table, n, device)
}
