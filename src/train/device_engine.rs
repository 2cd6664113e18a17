//! A step on a device: examples, noise, x_t, network, loss, norm and update without the host seeing any of it.
//!
//! Start at [`DeviceEngine::step`], which reads like the host's. The whole batch goes through at once. Losses whose closed
//! form has no kernel (those of the Binomial process) are computed on the host from the downloaded output.
//!
//! After a few steps the device has recorded one: from then on the host writes what differs (samples, timesteps, constants) to
//! memory that keeps its place, and says "again" ([`Recorder`]). A small network would otherwise wait for the host's
//! hundreds of launches.
//!
//! A ledger of a few steps lies on the device: terms of every sample, norm of every update. It is fetched when it is full
//! or something is due, so the host runs ahead of the device and the device does not wait for it.

use super::TrainError;
use super::engine::Seen;
use super::trainer::Trainer;
use super::window::Window;
use crate::config::Dtype;
use crate::data::{Shape, Stored};
use crate::diffusion::SampleTerms;
use crate::model::{Dropout, Params};
use crate::ops::cuda::{DeviceExamples, DeviceProcess, DeviceWeights, Fed, Placed, Recorder, home, sent, with_step_at};
use crate::ops::{self, Tape};
use crate::optim::{AdamW, Weights};
use crate::units::Timestep;
use candle_core::{DType, Device, Shape as TensorShape, Tensor};
use std::cell::RefCell;

/// Steps between two looks at the ledger.
const LEDGER: usize = 16;

/// Bytes of training examples that are kept on the device; larger sets are sent batch by batch.
const EXAMPLES_KEPT: usize = 4 << 30;

pub(super) struct DeviceEngine {
    device: Device,
    dtype: DType,
    adamw: AdamW,
    weights: DeviceWeights,
    params: Params,
    /// The process's tables and, where they are kept there, all training examples. Without: the batch and the loss are the
    /// host's.
    process: Option<(DeviceProcess, Option<DeviceExamples>)>,
    step: u32,
    recorder: RefCell<Recorder>,
    /// What a step reads: samples, what each one's slope counts, embedded timesteps, the step itself.
    places: Fed,
    scales: Fed,
    sinusoids: Fed,
    step_at: Fed,
    /// What a step leaves, `[B, 4]` and `[1]` in f64, and the ledger of it, `[LEDGER, B, 4]` and `[LEDGER]`.
    terms_now: Fed,
    norm_now: Fed,
    terms: Tensor,
    norms: Tensor,
    pending: Vec<Pending>,
    /// The weights as last fetched, and whether they are still those.
    on_host: Weights,
    current: bool,
}

/// A step in the ledger.
struct Pending {
    step: u32,
    /// Of each sample: its timestep, and what its loss counts by how that was drawn.
    drawn: Vec<(Timestep, f64)>,
    /// Where the host computed the loss: each sample's terms and loss.
    host: Option<Vec<(SampleTerms, f64)>>,
}

/// The network's arithmetic as candle names it.
pub(super) fn dtype(config: Dtype) -> DType {
    match config {
        Dtype::F32 => DType::F32,
        Dtype::Bf16 => DType::BF16,
    }
}

impl DeviceEngine {
    pub(super) fn new(trainer: &Trainer<'_>, weights: Weights, adamw: AdamW) -> Result<Self, TrainError> {
        let (device, config) = (trainer.options.device, trainer.config);
        let layout = trainer.model.layout();
        let shapes: Vec<TensorShape> = layout.specs().iter().map(|spec| TensorShape::from(spec.shape.as_slice())).collect();
        let dtype = dtype(config.train.dtype);
        let buffers = [&weights.raw, &weights.ema, &weights.first_moment, &weights.second_moment].map(Vec::as_slice);
        let on_device = DeviceWeights::new(device, dtype, &shapes, buffers)?;
        let process = match trainer.diffusion.gaussian() {
            Some(gaussian) => {
                let stored = trainer.dataset.train.stored();
                let bytes = match stored {
                    Stored::Levels { bytes, .. } => bytes.len(),
                    Stored::Real(x) => size_of_val(x),
                };
                let examples =
                    if bytes <= EXAMPLES_KEPT { Some(DeviceExamples::new(device, trainer.dataset.info.shape, stored)?) } else { None };
                Some((DeviceProcess::new(device, gaussian.coefficients(Some(&config.loss)))?, examples))
            }
            None => {
                tracing::info!("the loss of this process has no kernel: batches and losses are computed on the host");
                None
            }
        };
        let batch = config.train.batch_size as usize;
        Ok(Self {
            params: layout.params(on_device.working())?,
            weights: on_device,
            device: device.clone(),
            dtype,
            adamw,
            process,
            step: weights.step,
            recorder: RefCell::default(),
            places: Fed::new(device, (batch, 8), DType::I32)?,
            scales: Fed::new(device, batch, DType::F64)?,
            sinusoids: Fed::new(device, (batch, trainer.model.embedding_width()), DType::F32)?,
            step_at: Fed::new(device, 1, DType::U32)?,
            terms_now: Fed::new(device, (batch, 4), DType::F64)?,
            norm_now: Fed::new(device, 1, DType::F64)?,
            terms: Tensor::zeros((LEDGER, batch, 4), DType::F64, device)?,
            norms: Tensor::zeros(LEDGER, DType::F64, device)?,
            pending: Vec::with_capacity(LEDGER),
            on_host: weights,
            current: true,
        })
    }

    pub(super) fn steps_made(&self) -> u32 {
        self.step
    }

    /// One update. Returns when the device has been told everything, not when it is done.
    pub(super) fn step(&mut self, trainer: &Trainer<'_>, indices: &[usize]) -> Result<(), TrainError> {
        let source = trainer.batch_source();
        let (step, row) = (self.step, self.pending.len());
        let scale = 1.0 / trainer.config.train.batch_size as f64;

        // 1. What differs from step to step.
        let drawn: Vec<(Timestep, f64)> = (0..indices.len()).map(|sample| source.timestep(step, sample as u32)).collect();
        let t: Vec<Timestep> = drawn.iter().map(|(t, _)| *t).collect();
        let [.., dropout_step, _] = source.dropout_stream(step).address();
        self.step_at.write(&[dropout_step])?;
        self.sinusoids.write(&trainer.model.embed(&t)?)?;
        self.weights.set_constants(&self.adamw.constants(step + 1))?;

        // 2. The batch, the network, the slope of the loss, backward, norm, clip, update, average.
        let host = if let Some((process, kept)) = &self.process {
            let noise = source.noise_stream(step);
            let place = |(i, &example): (usize, &usize)| {
                let sample = i as u32;
                Placed { example, mirrored: source.mirrored(step, sample), t: t[i], stream: noise, sample }
            };
            let mut samples: Vec<Placed> = indices.iter().enumerate().map(place).collect();
            self.scales.write(&drawn.iter().map(|(_, weight)| scale * weight).collect::<Vec<f64>>())?;
            if let Some(examples) = kept {
                self.places.write(&process.places(examples, &samples)?)?;
                let compute = || self.compute(trainer, process, examples);
                let recorded = |gradients: Vec<i64>| self.weights.set_recorded(&gradients);
                self.recorder.borrow_mut().run(&self.device, compute, recorded)?;
            } else {
                let examples = self.send(trainer, &mut samples)?;
                self.places.write(&process.places(&examples, &samples)?)?;
                self.compute(trainer, process, &examples)?;
            }
            self.terms_now.copy_to(&self.terms.narrow(0, row, 1)?)?;
            None
        } else {
            let batch = source.draw(step, 0, indices);
            let Shape { height, width, channels } = trainer.dataset.info.shape;
            let x = sent(&batch.x_t, (batch.t.len(), height, width, channels), &self.device)?;
            let (output, tape) = self.forward(trainer, &x)?;
            let values: Vec<f32> = home(&output)?;
            let (slope, terms, _) = trainer.host_loss(&batch, &values, scale);
            self.learn(tape, &output, sent(&slope, output.shape(), &self.device)?)?;
            Some(terms)
        };
        self.norm_now.copy_to(&self.norms.narrow(0, row, 1)?)?;
        self.pending.push(Pending { step, drawn, host });
        self.step += 1;
        self.current = false;
        Ok(())
    }

    /// A step whose numbers have been written. Returns where the gradients lie.
    fn compute(&self, trainer: &Trainer<'_>, process: &DeviceProcess, examples: &DeviceExamples) -> candle_core::Result<Vec<i64>> {
        let batch = process.draw(examples, self.places.tensor())?;
        let (output, tape) = self.forward(trainer, &batch.x_t)?;
        let slope = process.loss(&batch, &output, Some(&self.scales), self.terms_now.tensor())?;
        self.learn(tape, &output, slope.expect("scales were given"))
    }

    /// The network's output, in f32, and how it came about.
    fn forward(&self, trainer: &Trainer<'_>, x: &Tensor) -> candle_core::Result<(Tensor, Tape)> {
        let stream = trainer.batch_source().dropout_stream(self.step);
        let dropout = (trainer.config.model.dropout > 0.0).then_some(Dropout { stream, first_sample: 0 });
        let x = x.to_dtype(self.dtype)?;
        let forward = || {
            let output = trainer.model.forward_embedded(&self.params, &x, self.sinusoids.tensor(), dropout)?;
            ops::to_dtype(&output, DType::F32)
        };
        with_step_at(&self.step_at, || ops::record(forward))
    }

    /// Backward from the slope of the loss in the output, and the update.
    fn learn(&self, tape: Tape, output: &Tensor, slope: Tensor) -> candle_core::Result<Vec<i64>> {
        let gradients = with_step_at(&self.step_at, || tape.backward(output, slope))?;
        let gradients: Vec<Option<Tensor>> = self.weights.working().iter().map(|w| gradients.get(w).cloned()).collect();
        self.weights.update(self.adamw.grad_clip, &gradients, self.norm_now.tensor())
    }

    /// The batch's own examples on the device; the samples' places become those in it.
    fn send(&self, trainer: &Trainer<'_>, samples: &mut [Placed]) -> candle_core::Result<DeviceExamples> {
        let (shape, dims) = (trainer.dataset.info.shape, trainer.dataset.info.shape.dims());
        let rows = samples.iter().map(|s| s.example * dims..(s.example + 1) * dims);
        let sent = match trainer.dataset.train.stored() {
            Stored::Levels { bytes, scaled } => {
                let bytes: Vec<u8> = rows.flat_map(|r| &bytes[r]).copied().collect();
                DeviceExamples::new(&self.device, shape, Stored::Levels { bytes: &bytes, scaled })
            }
            Stored::Real(x) => {
                let x: Vec<f32> = rows.flat_map(|r| &x[r]).copied().collect();
                DeviceExamples::new(&self.device, shape, Stored::Real(&x))
            }
        };
        samples.iter_mut().enumerate().for_each(|(i, s)| s.example = i);
        sent
    }

    /// See [`Engine::seen`](super::engine::Engine::seen).
    pub(super) fn seen(&mut self, due: bool, window: &mut Window) -> Result<Vec<Seen>, TrainError> {
        if self.pending.is_empty() || !(due || self.pending.len() == LEDGER) {
            return Ok(Vec::new());
        }
        let norms: Vec<f64> = home(&self.norms)?;
        let terms = if self.process.is_some() { home::<f64>(&self.terms)? } else { Vec::new() };
        let batch = self.terms.dim(1)?;
        let mut seen = Vec::with_capacity(self.pending.len());
        for (row, pending) in self.pending.drain(..).enumerate() {
            let samples = pending.host.unwrap_or_else(|| {
                let four = terms[row * batch * 4..(row + 1) * batch * 4].chunks_exact(4);
                four.map(|v| (SampleTerms { mse: v[0], x0_mse: v[1], vb: v[2] }, v[3])).collect()
            });
            let mut loss = 0.0;
            for ((t, weight), (terms, sample_loss)) in pending.drawn.iter().zip(&samples) {
                window.push(*t, terms, *sample_loss);
                loss += sample_loss * weight / batch as f64;
            }
            seen.push(Seen { step: pending.step, loss, norm: norms[row] });
            if !norms[row].is_finite() {
                // The device made no update from here on.
                self.step = pending.step;
                break;
            }
        }
        Ok(seen)
    }

    /// The weights, fetched if there are newer ones.
    pub(super) fn weights(&mut self) -> Result<&Weights, TrainError> {
        if !self.current {
            let [raw, ema, first_moment, second_moment] = self.weights.download()?;
            self.on_host = Weights { step: self.step, raw, ema, first_moment, second_moment };
            self.current = true;
        }
        Ok(&self.on_host)
    }
}
