//! What a training step does on the device after the network: the update.

use super::buffer::{Buffer, address, attach1};
use super::launch::{Arg, BLOCK, Grid, int, launch};
use crate::optim::Constants;
use candle_core::{DType, Device, Result, Shape, Tensor, bail};

/// A number whose gradient in `output` is `slope`: what a backward pass starts from where the slope is known.
///
/// # Errors
/// If the shapes differ, or the device fails.
pub fn with_slope(output: &Tensor, slope: Tensor) -> Result<Tensor> {
    if output.shape() != slope.shape() || output.dtype() != slope.dtype() {
        bail!("the slope is {:?} in {:?} where the output is {:?} in {:?}", slope.dims(), slope.dtype(), output.dims(), output.dtype())
    }
    // Its value is nobody's business.
    let value = Buffer::new(output.device(), (), output.dtype())?;
    attach1("with_slope", value, output, move |_, _| Ok([Some(slope.clone())]))
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
    /// The factor that clips the gradient, and whether a norm so far was not finite.
    state: Tensor,
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
            state: Tensor::zeros(2, DType::F64, device)?,
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

    /// One update by the gradients of the parameters, whose global norm before clipping goes to `norm [1]` (f64). From the
    /// first norm on that is not finite, nothing changes any more. Waits for nothing.
    ///
    /// # Errors
    /// If a gradient has another shape than its parameter, or the device fails.
    pub fn update(&mut self, constants: &Constants, grad_clip: f64, gradients: &[Option<Tensor>], norm: &Tensor) -> Result<()> {
        if norm.dtype() != DType::F64 || norm.elem_count() != 1 {
            bail!("a norm is one number in f64")
        }
        if gradients.len() != self.working.len() {
            bail!("{} gradients for {} parameters", gradients.len(), self.working.len())
        }
        // Memory that is given back is used again by what follows on the stream, never by what came before.
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
        let (chunks, table_at, state) = (address(&self.chunks)?, address(&table)?, address(&self.state)?);
        launch(&self.device, self.dtype, "gradient_squares", Grid::blocks(self.blocks), &[chunks, table_at, squares.address()?])?;
        let args = [int(self.blocks)?, Arg::Double(grad_clip), squares.address()?, address(norm)?, state];
        launch(&self.device, self.dtype, "gradient_norm", Grid::blocks(1), &args)?;
        let c = constants;
        let constants = [c.beta1, c.beta2, c.rate, c.scale, c.epsilon, c.keep, c.ema].map(Arg::Single);
        let buffers = [&self.raw, &self.ema, &self.first_moment, &self.second_moment];
        let mut args = [&constants[..], &[state, chunks, table_at, address(&self.working_addresses)?]].concat();
        for buffer in buffers {
            args.push(address(buffer)?);
        }
        launch(&self.device, self.dtype, "adamw", Grid::blocks(self.blocks), &args)
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
