//! The gradient of a batch on the host: micro-batches over the cores, added in their order.

use super::TrainError;
use super::batch::MicroBatch;
use super::trainer::Trainer;
use super::window::Window;
use crate::diffusion::SampleTerms;
use crate::model::Dropout;
use crate::ops::{Gradients, Places, record};
use crate::optim::Weights;
use candle_core::Tensor;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Mutex;

impl Trainer<'_> {
    /// The gradient of the mean loss over the batch, and that loss. Micro-batches have a fixed size and are added in their
    /// order, so neither depends on the number of threads. Each example's loss counts by how its t was drawn; the window
    /// gets it as it is.
    pub(super) fn gradient(&self, weights: &Weights, indices: &[usize], window: &mut Window) -> Result<(Vec<f32>, f64), TrainError> {
        let source = self.batch_source();
        let micro = self.config.train.micro_batch as usize;
        let params = self.model.layout().tensors(&weights.raw, self.options.device, true)?;
        let places = self.model.layout().places(&params);
        let sum = Mutex::new(OrderedSum { next: 0, waiting: BTreeMap::new(), total: Vec::new(), spare: Vec::new() });

        let parts: Vec<(Vec<_>, f64)> = self.pool.install(|| {
            indices
                .par_chunks(micro)
                .enumerate()
                .map(|(m, indices)| {
                    let first = m * micro;
                    let batch = source.draw(weights.step, first, indices);
                    let shape = self.dataset.info.shape;
                    let x =
                        Tensor::from_slice(&batch.x_t, (batch.t.len(), shape.height, shape.width, shape.channels), self.options.device)?;
                    let dropout = (self.config.model.dropout > 0.0)
                        .then(|| Dropout { stream: source.dropout_stream(weights.step), first_sample: first as u32 });
                    let (output, tape) = record(|| self.model.forward(&params, &x, &batch.t, dropout))?;

                    // The loss and its gradient in the output are exact closed forms; the tape carries it on from there.
                    let values = output.flatten_all()?.to_vec1::<f32>()?;
                    let (slope, terms, loss) = self.host_loss(&batch, &values, 1.0 / self.config.train.batch_size as f64);
                    let terms: Vec<_> = batch.t.iter().zip(terms).map(|(t, (terms, loss))| (*t, terms, loss)).collect();
                    let slope = Tensor::from_vec(slope, output.shape(), self.options.device)?;
                    let buffer = sum.lock().expect("no thread panics while adding").spare.pop().unwrap_or_default();
                    let gradients = places.collect(tape, &output, slope, buffer)?;
                    sum.lock().expect("no thread panics while adding").add(m, gradients, &places)?;
                    Ok((terms, loss))
                })
                .collect::<Result<_, candle_core::Error>>()
        })?;

        let mut loss = 0.0;
        for (terms, part) in parts {
            terms.iter().for_each(|(t, terms, loss)| window.push(*t, terms, *loss));
            loss += part;
        }
        Ok((sum.into_inner().expect("no thread panicked while adding").total, loss))
    }

    /// `scale` times the slope of the loss in the network's output; the terms and the loss of each sample, that without the
    /// weight of its draw; `scale` times the loss.
    pub(super) fn host_loss(&self, batch: &MicroBatch, output: &[f32], scale: f64) -> (Vec<f32>, Vec<(SampleTerms, f64)>, f64) {
        let mut slope = vec![0.0; output.len()];
        let (mut terms, mut loss) = (Vec::with_capacity(batch.t.len()), 0.0);
        let (dims, output_dims) = (self.diffusion.shape().dims(), self.diffusion.output_dims());
        for (i, t) in batch.t.iter().enumerate() {
            let scale = scale * batch.weights[i];
            let at = i * dims..(i + 1) * dims;
            let out = i * output_dims..(i + 1) * output_dims;
            let (sample_loss, sample) = self.diffusion.loss_and_gradient(
                &self.config.loss,
                *t,
                &batch.x_0[at.clone()],
                &batch.x_t[at.clone()],
                &batch.noise[at],
                &output[out.clone()],
                scale,
                &mut slope[out],
            );
            terms.push((sample, sample_loss));
            loss += sample_loss * scale;
        }
        (slope, terms, loss)
    }
}

/// Gradients added in the order of their micro-batches, whichever comes first.
struct OrderedSum {
    next: usize,
    waiting: BTreeMap<usize, Gradients>,
    total: Vec<f32>,
    /// Buffers of micro-batches that are in the sum.
    spare: Vec<Vec<f32>>,
}

impl OrderedSum {
    fn add(&mut self, index: usize, part: Gradients, places: &Places) -> candle_core::Result<()> {
        self.waiting.insert(index, part);
        while let Some(part) = self.waiting.remove(&self.next) {
            let buffer = places.sum(part, &mut self.total)?;
            self.spare.extend((!buffer.is_empty()).then_some(buffer));
            self.next += 1;
        }
        Ok(())
    }
}
