//! What a training step does on the device after the network: the update.

use super::buffer::{Buffer, address};
use super::driver;
use super::fed::{Fed, home, sent};
use super::launch::{Arg, BLOCK, Grid, int, launch};
use crate::optim::Constants;
use candle_core::{DType, Device, Result, Shape, Tensor, bail};

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
    /// What the update multiplies with.
    constants: Fed,
    /// Where the gradients lie: those of the last update, and those of a recorded one.
    gradients: [Fed; 2],
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
        let flat = |numbers: &[f32]| sent(numbers, total, device);
        let (mut chunks, mut working, mut place) = (Vec::new(), Vec::with_capacity(shapes.len()), 0);
        for (parameter, shape) in shapes.iter().enumerate() {
            let n = shape.elem_count();
            for first in (0..n).step_by(CHUNK) {
                for number in [parameter, first, CHUNK.min(n - first), place + first] {
                    let Arg::Int(number) = int(number)? else { unreachable!("int gives an integer") };
                    chunks.push(number);
                }
            }
            let numbers = sent(&raw[place..place + n], shape, device)?.to_dtype(dtype)?;
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
            chunks: sent(&chunks, (blocks, 4), device)?,
            blocks,
            working_addresses: sent(&addresses(working.iter())?, working.len(), device)?,
            zeros: Tensor::zeros(longest, dtype, device)?,
            state: Tensor::zeros(2, DType::F64, device)?,
            constants: Fed::new(device, 7, DType::F32)?,
            gradients: [Fed::new(device, shapes.len(), DType::I64)?, Fed::new(device, shapes.len(), DType::I64)?],
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

    /// What the updates that follow multiply with.
    ///
    /// # Errors
    /// If the device fails.
    pub fn set_constants(&self, c: &Constants) -> Result<()> {
        self.constants.write(&[c.beta1, c.beta2, c.rate, c.scale, c.epsilon, c.keep, c.ema])
    }

    /// One update by the gradients of the parameters, whose global norm before clipping goes to `norm [1]` (f64). From the
    /// first norm on that is not finite, nothing changes any more. Waits for nothing. Returns where the gradients lie, for
    /// [`Self::set_recorded`] where the device records it.
    ///
    /// # Errors
    /// If a gradient has another shape than its parameter, or the device fails.
    pub fn update(&self, grad_clip: f64, gradients: &[Option<Tensor>], norm: &Tensor) -> Result<Vec<i64>> {
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
        let addresses = addresses(held.iter())?;
        // A copy from the host would be recorded with the memory it copies from, which is gone when it is done again.
        let recorded = driver::is_recording(&self.device)?;
        let table = &self.gradients[usize::from(recorded)];
        if !recorded {
            table.write(&addresses)?;
        }
        let squares = Buffer::new(&self.device, self.blocks, DType::F64)?;
        let (chunks, table_at, state) = (address(&self.chunks)?, table.address()?, address(&self.state)?);
        launch(&self.device, self.dtype, "gradient_squares", Grid::blocks(self.blocks), &[chunks, table_at, squares.address()?])?;
        let args = [int(self.blocks)?, Arg::Double(grad_clip), squares.address()?, address(norm)?, state];
        launch(&self.device, self.dtype, "gradient_norm", Grid::blocks(1), &args)?;
        let buffers = [&self.raw, &self.ema, &self.first_moment, &self.second_moment];
        let mut args = vec![self.constants.address()?, state, chunks, table_at, address(&self.working_addresses)?];
        for buffer in buffers {
            args.push(address(buffer)?);
        }
        launch(&self.device, self.dtype, "adamw", Grid::blocks(self.blocks), &args)?;
        Ok(addresses)
    }

    /// Where the gradients of the recorded update lie.
    ///
    /// # Errors
    /// If the device fails.
    pub fn set_recorded(&self, addresses: &[i64]) -> Result<()> {
        self.gradients[1].write(addresses)
    }

    /// Weights, average, first and second moments, copied to the host.
    ///
    /// # Errors
    /// If the device fails.
    pub fn download(&self) -> Result<[Vec<f32>; 4]> {
        let [raw, ema, first, second] = [&self.raw, &self.ema, &self.first_moment, &self.second_moment].map(home::<f32>);
        Ok([raw?, ema?, first?, second?])
    }
}

/// Where tensors begin.
fn addresses<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Result<Vec<i64>> {
    let mut table = Vec::new();
    for tensor in tensors {
        let Arg::Address(at) = address(tensor)? else { unreachable!("address gives an address") };
        table.push(at as i64);
    }
    Ok(table)
}
