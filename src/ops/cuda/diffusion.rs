//! The Gaussian process on the device: a batch from stored examples, and what the loss makes of the network's output.

use super::buffer::{Buffer, address};
use super::fed::{Fed, sent};
use super::launch::{Arg, BLOCK, Grid, int, launch};
use crate::data::{Shape, Stored};
use crate::diffusion::Coefficients;
use crate::rng::Stream;
use crate::units::Timestep;
use candle_core::{DType, Device, Result, Tensor, bail};

/// Examples in device memory, as they are stored.
pub struct DeviceExamples {
    /// `[examples, D]`: levels, or numbers.
    values: Tensor,
    /// What each level stands for; a zero where numbers stand for themselves.
    scaled: Tensor,
    shape: Shape,
}

/// One sample of a batch: which example, at which timestep, under the noise of which sample of which stream.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    pub example: usize,
    /// Left to right.
    pub mirrored: bool,
    pub t: Timestep,
    pub stream: Stream,
    pub sample: u32,
}

/// A batch: `[B, H, W, C]` each, in f32, the same bits as on the host.
pub struct Drawn {
    which: Tensor,
    pub x_0: Tensor,
    pub noise: Tensor,
    pub x_t: Tensor,
}

impl DeviceExamples {
    /// # Errors
    /// If the values are not whole examples, or the device fails.
    pub fn new(device: &Device, shape: Shape, values: Stored<'_>) -> Result<Self> {
        let dims = shape.dims();
        let (values, scaled) = match values {
            Stored::Levels { bytes, scaled } => (sent(bytes, (bytes.len() / dims, dims), device)?, sent(scaled, scaled.len(), device)?),
            Stored::Real(x) => (sent(x, (x.len() / dims, dims), device)?, Tensor::zeros(1, DType::F32, device)?),
        };
        Ok(Self { values, scaled, shape })
    }

    pub fn device(&self) -> &Device {
        self.values.device()
    }
}

/// The process's tables in device memory.
pub struct DeviceProcess {
    coefficients: Coefficients,
    /// `[T, 2]` in f32.
    pairs: Tensor,
    /// `[T, 13]` in f64.
    rows: Tensor,
}

impl DeviceProcess {
    /// # Errors
    /// If the device fails.
    pub fn new(device: &Device, coefficients: Coefficients) -> Result<Self> {
        let timesteps = coefficients.rows.len();
        Ok(Self {
            pairs: sent(&coefficients.pairs.concat(), (timesteps, 2), device)?,
            rows: sent(&coefficients.rows.concat(), (timesteps, Coefficients::ROW), device)?,
            coefficients,
        })
    }

    /// Where `samples` are, as the kernels are told: `[B, 8]` in i32.
    ///
    /// # Errors
    /// If a sample is none of the examples or has no timestep here.
    pub fn places(&self, examples: &DeviceExamples, samples: &[Placed]) -> Result<Vec<i32>> {
        let mut words: Vec<i32> = Vec::with_capacity(8 * samples.len());
        for s in samples {
            if s.example >= examples.values.dim(0)? || s.t.index() >= self.coefficients.rows.len() {
                bail!("sample {} at t = {} is beyond the examples or the timesteps", s.example, s.t.get())
            }
            let [k0, k1, step, tag] = s.stream.address();
            let signed = [s.example as i32, i32::from(s.mirrored), s.t.index() as i32];
            words.extend(signed.into_iter().chain([s.sample, k0, k1, step, tag].map(|word| word as i32)));
        }
        Ok(words)
    }

    /// The batch of the samples whose [places](Self::places) `which [B, 8]` holds.
    ///
    /// # Errors
    /// If the device fails.
    pub fn draw(&self, examples: &DeviceExamples, which: &Tensor) -> Result<Drawn> {
        let Shape { height, width, channels } = examples.shape;
        let (n, dims, device) = (which.dim(0)?, examples.shape.dims(), examples.values.device());
        let [x_0, noise, x_t] = [(); 3].map(|()| Buffer::new(device, (n, height, width, channels), DType::F32));
        let (x_0, noise, x_t) = (x_0?, noise?, x_t?);
        let kernel = if examples.values.dtype() == DType::U8 { "draw_levels" } else { "draw_reals" };
        let threads = n * dims.div_ceil(4);
        int(threads)?;
        let sizes = [int(n)?, int(dims)?, int(width)?, int(channels)?];
        let from = [address(which)?, address(&self.pairs)?, address(&examples.values)?, address(&examples.scaled)?];
        let args = [&sizes[..], &from, &[x_0.address()?, noise.address()?, x_t.address()?]].concat();
        launch(device, DType::F32, kernel, Grid::elements(threads), &args)?;
        Ok(Drawn { which: which.clone(), x_0: x_0.tensor(), noise: noise.tensor(), x_t: x_t.tensor() })
    }

    /// Fills `terms [B, 4]` (f64) with eps-MSE, x_0-MSE, the term of the bound in bits/dim and the loss of each sample; with
    /// `scales [B]` (f64), returns so much of the slope of its loss in the output, for each sample.
    ///
    /// # Errors
    /// If the output is not this batch's, in f32, or the device fails.
    pub fn loss(&self, batch: &Drawn, output: &Tensor, scales: Option<&Fed>, terms: &Tensor) -> Result<Option<Tensor>> {
        let c = &self.coefficients;
        let (samples, numbers) = (batch.x_0.dim(0)?, batch.x_0.elem_count());
        let outputs = if c.learned { 2 * numbers } else { numbers };
        if output.dtype() != DType::F32
            || output.elem_count() != outputs
            || scales.is_some_and(|s| s.tensor().elem_count() != samples || s.tensor().dtype() != DType::F64)
        {
            bail!("the output is {:?} in {:?} where {outputs} numbers in f32 were expected", output.dims(), output.dtype())
        }
        if terms.dtype() != DType::F64 || terms.elem_count() != 4 * samples {
            bail!("{} samples have four terms each, in f64", samples)
        }
        let device = output.device();
        let output = output.contiguous()?;
        let slope = if scales.is_some() { Buffer::like(&output)? } else { Buffer::new(device, 1, DType::F32)? };
        // Without a slope nobody reads the scales.
        let scale_table = scales.map_or(terms, Fed::tensor);
        let flag = |on: bool| Arg::Int(i32::from(on));
        let sizes = [int(numbers / samples)?, int(batch.x_0.dim(3)?)?, flag(c.learned), Arg::Int(c.levels as i32)];
        let flags = [flag(c.erf), flag(c.clip), flag(scales.is_some())];
        let from = [&batch.which, scale_table, &self.rows, &batch.x_0, &batch.x_t, &batch.noise, &output];
        let mut args = [&sizes[..], &flags].concat();
        for tensor in from.into_iter().chain([terms]) {
            args.push(address(tensor)?);
        }
        args.push(slope.address()?);
        // No more threads than an example has numbers.
        let threads = (numbers / samples).next_power_of_two().clamp(32, BLOCK);
        launch(device, DType::F32, "gaussian_loss", Grid { blocks: [samples, 1, 1], threads: [threads, 1] }, &args)?;
        Ok(scales.is_some().then(|| slope.tensor()))
    }
}
