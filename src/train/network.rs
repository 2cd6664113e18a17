//! A model with its weights on a device: what evaluation and sampling call.

use crate::data::{Shape, Stored};
use crate::diffusion::{Denoiser, DenoiserError, Diffusion, Job, SampleTerms};
use crate::model::{Model, Params};
use crate::ops::cuda::{self, DeviceExamples, DeviceProcess, Fed, Placed, Recorder};
use crate::units::Timestep;
use candle_core::{DType, Device, Tensor, WithDType};
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

/// A model with detached weights: predictions keep no graph.
pub struct Network<'a> {
    model: &'a Model,
    params: Params,
    shape: Shape,
    device: Device,
    /// What a device needs to compute the bound's terms itself.
    terms: Option<(DeviceProcess, DeviceExamples)>,
    /// On a device: predictions, and terms of the bound, by the size of the batch. One call at a time; the device does no
    /// more than one anyway.
    repeated: Mutex<HashMap<(What, usize), Repeated>>,
    /// In the place of the batch that suits the machine.
    #[cfg(test)]
    pub(super) asked_at_once: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Prediction,
    Terms,
}

/// A batch of one size whose tensors keep their places, so that the device can record what it does with them.
struct Repeated {
    recorder: RefCell<Recorder>,
    /// x_t, or where the samples are.
    input: Fed,
    sinusoids: Fed,
    output: Fed,
}

impl<'a> Network<'a> {
    /// `flat` holds the weights in the layout of the model.
    ///
    /// # Errors
    /// If the device refuses the weights.
    pub fn new(model: &'a Model, flat: &[f32], shape: Shape, device: &Device) -> Result<Self, candle_core::Error> {
        Ok(Self {
            params: model.layout().tensors(flat, device, false)?,
            model,
            shape,
            device: device.clone(),
            terms: None,
            repeated: Mutex::default(),
            #[cfg(test)]
            asked_at_once: None,
        })
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
        let shape = (t.len(), height, width, channels);
        let predicted = if cuda::is_device(&self.device) {
            let made = || Ok((Fed::new(&self.device, shape, DType::F32)?, Fed::new(&self.device, output.len(), DType::F32)?));
            let forward = |r: &Repeated| {
                let y = self.model.forward_embedded(&self.params, r.input.tensor(), r.sinusoids.tensor(), None)?;
                r.output.copy_from(&y)
            };
            self.repeat(What::Prediction, t, made, |r| r.input.write(x_t), forward)?
        } else {
            let x = Tensor::from_slice(x_t, shape, &self.device)?;
            self.model.forward(&self.params, &x, t, None)?.flatten_all()?.to_vec1::<f32>()?
        };
        if predicted.len() != output.len() {
            return Err(format!("the network put out {} numbers where {} were expected", predicted.len(), output.len()).into());
        }
        output.copy_from_slice(&predicted);
        Ok(())
    }

    fn batch(&self) -> usize {
        #[cfg(test)]
        if let Some(batch) = self.asked_at_once {
            return batch;
        }
        if cuda::is_device(&self.device) {
            // Enough to fill a GPU, few enough that a network's images of many channels fit beside each other, and the patches of
            // 900 channels can be counted where a convolution unfolds them.
            return ((1 << 18) / self.shape.dims().max(1)).clamp(16, 2048);
        }
        // Enough examples to fill the matrix products, few enough to stay in cache: an MLP has a row for each, the others images.
        match self.model {
            Model::Mlp(_) => 256,
            _ => (8_192 / self.shape.dims().max(1)).clamp(4, 64),
        }
    }

    fn terms(&self, jobs: &[Job]) -> Option<Result<Vec<SampleTerms>, DenoiserError>> {
        let (process, examples) = self.terms.as_ref()?;
        Some(self.device_terms(process, examples, jobs).map_err(Into::into))
    }
}

impl Network<'_> {
    /// What `work` puts out for a batch, after `write` has written its input.
    ///
    /// No tensor outlives the lock: while a thread has the device record, whatever another asked of it, a copy to the host or
    /// the end of a tensor, would become part of the recording and not be done.
    fn repeat<T: WithDType>(
        &self,
        what: What,
        t: &[Timestep],
        made: impl Fn() -> candle_core::Result<(Fed, Fed)>,
        write: impl Fn(&Repeated) -> candle_core::Result<()>,
        work: impl Fn(&Repeated) -> candle_core::Result<()>,
    ) -> candle_core::Result<Vec<T>> {
        let sinusoids = self.model.embed(t)?;
        let mut repeated = self.repeated.lock().unwrap_or_else(PoisonError::into_inner);
        let this = match repeated.entry((what, t.len())) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let (input, output) = made()?;
                let sinusoids = Fed::new(&self.device, (t.len(), self.model.embedding_width()), DType::F32)?;
                place.insert(Repeated { recorder: RefCell::default(), input, sinusoids, output })
            }
        };
        write(this)?;
        this.sinusoids.write(&sinusoids)?;
        this.output.forget()?;
        this.recorder.borrow_mut().run(&self.device, || work(this), Ok)?;
        cuda::home(this.output.tensor())
    }

    fn device_terms(&self, process: &DeviceProcess, examples: &DeviceExamples, jobs: &[Job]) -> candle_core::Result<Vec<SampleTerms>> {
        let placed =
            |job: &Job| Placed { example: job.example as usize, mirrored: false, t: job.t, stream: job.noise, sample: job.example };
        let places = process.places(examples, &jobs.iter().map(placed).collect::<Vec<_>>())?;
        let t: Vec<Timestep> = jobs.iter().map(|job| job.t).collect();
        let made = || Ok((Fed::new(&self.device, (jobs.len(), 8), DType::I32)?, Fed::new(&self.device, (jobs.len(), 4), DType::F64)?));
        let work = |r: &Repeated| {
            let batch = process.draw(examples, r.input.tensor())?;
            let output = self.model.forward_embedded(&self.params, &batch.x_t, r.sinusoids.tensor(), None)?;
            process.loss(&batch, &output, None, r.output.tensor()).map(drop)
        };
        let numbers: Vec<f64> = self.repeat(What::Terms, &t, made, |r| r.input.write(&places), work)?;
        Ok(numbers.chunks_exact(4).map(|v| SampleTerms { mse: v[0], x0_mse: v[1], vb: v[2] }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_text;
    use crate::data;
    use crate::ops::cuda::standing_in;
    use std::path::Path;

    #[test]
    fn what_a_device_does_not_do_is_no_number() {
        let inspect = |spec: &data::DataSpec| data::inspect(spec).map_err(|e| e.to_string());
        let config = from_text(Path::new("x.toml"), "[base]\ndata = 'swiss_roll'\nmodel.channels = [4]", &[], &inspect).unwrap();
        let shape = data::inspect(&config.runs[0].config.data).unwrap().shape;
        let model = Model::new(&config.runs[0].config.model, shape, shape.channels).unwrap();
        standing_in(|| {
            let device = Device::Cpu;
            let network = Network::new(&model, &model.layout().init(1), shape, &device).unwrap();
            let made = || Ok((Fed::new(&device, 4, DType::F32)?, Fed::new(&device, 4, DType::F64)?));
            let fours = |r: &Repeated| r.output.write(&[4.0_f64; 4]);
            let answers = |work: &dyn Fn(&Repeated) -> candle_core::Result<()>| {
                network.repeat::<f64>(What::Terms, &[Timestep::FIRST; 2], made, |_| Ok(()), work).unwrap()
            };
            assert_eq!(answers(&fours), [4.0; 4]);
            // Not what was there before.
            assert!(answers(&|_| Ok(())).iter().all(|x| x.is_nan()));
        });
    }
}
