//! A model with its weights on a device: what evaluation and sampling call.

use crate::data::{Shape, Stored};
use crate::diffusion::{Denoiser, DenoiserError, Diffusion, Job, SampleTerms};
use crate::model::{Model, Params};
use crate::ops::cuda::{self, DeviceExamples, DeviceProcess, Placed};
use crate::units::Timestep;
use candle_core::{DType, Device, Tensor};

/// A model with detached weights: predictions keep no graph.
pub struct Network<'a> {
    model: &'a Model,
    params: Params,
    shape: Shape,
    device: Device,
    /// What a device needs to compute the bound's terms itself.
    terms: Option<(DeviceProcess, DeviceExamples)>,
}

impl<'a> Network<'a> {
    /// `flat` holds the weights in the layout of the model.
    ///
    /// # Errors
    /// If the device refuses the weights.
    pub fn new(model: &'a Model, flat: &[f32], shape: Shape, device: &Device) -> Result<Self, candle_core::Error> {
        Ok(Self { params: model.layout().tensors(flat, device, false)?, model, shape, device: device.clone(), terms: None })
    }

    /// On a device and for a Gaussian process: computes the terms of the bound of `examples` there.
    ///
    /// # Errors
    /// If the device refuses them.
    pub fn with_terms(self, diffusion: &Diffusion, examples: &[f32]) -> Result<Self, candle_core::Error> {
        let Some(gaussian) = diffusion.gaussian().filter(|_| cuda::is_device(&self.device)) else { return Ok(self) };
        let process = DeviceProcess::new(&self.device, gaussian.coefficients(None))?;
        let examples = DeviceExamples::new(&self.device, self.shape, Stored::Real(examples))?;
        Ok(Self { terms: Some((process, examples)), ..self })
    }
}

impl Denoiser for Network<'_> {
    fn predict(&self, x_t: &[f32], t: &[Timestep], output: &mut [f32]) -> Result<(), DenoiserError> {
        let Shape { height, width, channels } = self.shape;
        let x = Tensor::from_slice(x_t, (t.len(), height, width, channels), &self.device)?;
        let predicted = self.model.forward(&self.params, &x, t, None)?.flatten_all()?.to_vec1::<f32>()?;
        if predicted.len() != output.len() {
            return Err(format!("the network put out {} numbers where {} were expected", predicted.len(), output.len()).into());
        }
        output.copy_from_slice(&predicted);
        Ok(())
    }

    fn batch(&self) -> usize {
        if cuda::is_device(&self.device) {
            // Enough to fill a GPU, few enough that a network's images of many channels fit beside each other.
            return ((1 << 20) / self.shape.dims().max(1)).clamp(16, 2048);
        }
        // Enough examples to fill the matrix products, few enough to stay in cache.
        (16_384 / self.shape.dims().max(1)).clamp(4, 64)
    }

    fn terms(&self, jobs: &[Job]) -> Option<Result<Vec<SampleTerms>, DenoiserError>> {
        let (process, examples) = self.terms.as_ref()?;
        Some(self.device_terms(process, examples, jobs).map_err(Into::into))
    }
}

impl Network<'_> {
    fn device_terms(&self, process: &DeviceProcess, examples: &DeviceExamples, jobs: &[Job]) -> candle_core::Result<Vec<SampleTerms>> {
        let placed =
            |job: &Job| Placed { example: job.example as usize, mirrored: false, t: job.t, stream: job.noise, sample: job.example };
        let places = process.places(examples, &jobs.iter().map(placed).collect::<Vec<_>>())?;
        let batch = process.draw(examples, &Tensor::from_vec(places, (jobs.len(), 8), &self.device)?)?;
        let t: Vec<Timestep> = jobs.iter().map(|job| job.t).collect();
        let output = self.model.forward(&self.params, &batch.x_t, &t, None)?;
        let terms = Tensor::zeros((jobs.len(), 4), DType::F64, &self.device)?;
        process.loss(&batch, &output, None, &terms)?;
        let numbers = terms.flatten_all()?.to_vec1::<f64>()?;
        Ok(numbers.chunks_exact(4).map(|v| SampleTerms { mse: v[0], x0_mse: v[1], vb: v[2] }).collect())
    }
}
