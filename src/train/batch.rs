//! What a training step draws: examples, timesteps, noise.
//!
//! Every draw is a function of (seed, step, place in the batch), so two runs that differ in the schedule alone see the
//! same images under the same noise, and a batch may be cut anywhere.

use crate::data::{self, Dataset};
use crate::diffusion::{Diffusion, TimestepSource};
use crate::rng::{self, Purpose, Stream};
use crate::units::Timestep;

/// A part of a batch, ready for the network.
pub struct MicroBatch {
    pub t: Vec<Timestep>,
    /// What the loss of each example counts, by how t was drawn.
    pub weights: Vec<f64>,
    pub x_0: Vec<f32>,
    pub noise: Vec<f32>,
    pub x_t: Vec<f32>,
}

/// One pass over the training examples.
pub struct Epoch {
    number: u64,
    order: Vec<u32>,
}

/// The examples of a run in training order.
pub struct BatchSource<'a> {
    pub dataset: &'a Dataset,
    pub diffusion: &'a Diffusion,
    pub timesteps: &'a TimestepSource,
    pub seed: u64,
    pub batch_size: usize,
    pub flip: bool,
}

impl BatchSource<'_> {
    /// The indices of the examples of step `step` (from 0): epochs follow each other, each in its own order. `epoch` keeps
    /// the last order drawn, since most steps stay within one.
    pub fn indices(&self, step: u32, epoch: &mut Option<Epoch>) -> Vec<usize> {
        let n = self.dataset.train.len() as u64;
        let first = u64::from(step) * self.batch_size as u64;
        (first..first + self.batch_size as u64)
            .map(|position| {
                let number = position / n;
                if epoch.as_ref().is_none_or(|e| e.number != number) {
                    *epoch = Some(Epoch { number, order: data::order(self.seed, number as u32, n as u32) });
                }
                epoch.as_ref().expect("set above").order[(position % n) as usize] as usize
            })
            .collect()
    }

    /// Samples `from..from + indices.len()` of the batch of `step`.
    pub fn draw(&self, step: u32, from: usize, indices: &[usize]) -> MicroBatch {
        let dims = self.diffusion.shape().dims();
        let n = indices.len();
        let mut batch = MicroBatch {
            t: Vec::with_capacity(n),
            weights: Vec::with_capacity(n),
            x_0: vec![0.0; n * dims],
            noise: vec![0.0; n * dims],
            x_t: vec![0.0; n * dims],
        };
        self.diffusion.draw_noise(&self.noise_stream(step), from as u32, &mut batch.noise);
        for (i, index) in indices.iter().enumerate() {
            let sample = (from + i) as u32;
            let at = i * dims..(i + 1) * dims;
            self.dataset.train.scaled(*index, &mut batch.x_0[at.clone()]);
            if self.mirrored(step, sample) {
                data::mirror(self.diffusion.shape(), &mut batch.x_0[at.clone()]);
            }
            let (t, weight) = self.timestep(step, sample);
            self.diffusion.q_sample(t, &batch.x_0[at.clone()], &batch.noise[at.clone()], &mut batch.x_t[at]);
            batch.t.push(t);
            batch.weights.push(weight);
        }
        batch
    }

    /// The timestep of a sample, and what its loss counts.
    pub fn timestep(&self, step: u32, sample: u32) -> (Timestep, f64) {
        self.timesteps.draw(&rng::stream(self.seed, Purpose::Timestep, step), sample)
    }

    /// Whether a sample is mirrored left to right.
    pub fn mirrored(&self, step: u32, sample: u32) -> bool {
        self.flip && rng::stream(self.seed, Purpose::Flip, step).below(sample, 0, 2) == 1
    }

    /// The randomness of the noise at `step`.
    pub fn noise_stream(&self, step: u32) -> Stream {
        rng::stream(self.seed, Purpose::Noise, step)
    }

    /// The randomness of dropout at `step`.
    pub fn dropout_stream(&self, step: u32) -> Stream {
        rng::stream(self.seed, Purpose::Dropout, step)
    }
}
