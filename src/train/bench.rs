//! How long a step and a prediction take on this machine: the trainer's own code, without a store.
//!
//! Start at [`bench`]. A step is what [`Trainer::run`] does between two windows: draw the batch, forward, loss, backward,
//! sum, clip, update, average. A prediction is what evaluation asks of the network.

use super::engine::Engine;
use super::trainer::Trainer;
use super::window::Window;
use super::{Network, RunOptions, TrainError};
use crate::config::RunConfig;
use crate::diffusion::Denoiser;
use crate::optim::Weights;
use crate::rng::{self, Purpose};
use crate::store::RunDir;
use crate::units::Timestep;
use rayon::prelude::*;
use std::time::Instant;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct BenchOptions {
    /// Steps that are timed, after as many as warm the caches.
    pub steps: u32,
    /// Examples of a prediction.
    pub forward_batch: usize,
}

/// Seconds as measured, one for each repetition.
#[derive(Clone, Debug)]
pub struct Timing {
    pub step_seconds: Vec<f64>,
    pub forward_seconds: Vec<f64>,
    pub parameters: u64,
    /// Operations of one step: three times those of the forward pass, over the batch.
    pub step_flops: f64,
    pub forward_flops: f64,
}

/// Steps before the clock starts.
const WARM_UP: u32 = 3;

/// Trains `config` for a few steps and predicts a few times, writing nothing.
///
/// # Errors
/// As training.
pub fn bench(config: &RunConfig, dir: &RunDir, options: RunOptions<'_>, what: BenchOptions) -> Result<Timing, TrainError> {
    let trainer = Trainer::new(config, dir, options, |_| {})?;
    let pool = trainer.pool.clone();
    pool.install(|| measure(config, &trainer, what))
}

fn measure(config: &RunConfig, trainer: &Trainer<'_>, what: BenchOptions) -> Result<Timing, TrainError> {
    let layout = trainer.model.layout();
    let mut engine = Engine::new(trainer, Weights::new(layout.init(config.seed as u64)))?;
    let mut epoch = None;
    let mut window = Window::new(trainer.diffusion.timesteps());
    let mut step_seconds = Vec::new();
    for step in 0..WARM_UP + what.steps {
        let start = Instant::now();
        let indices = trainer.batch_source().indices(step, &mut epoch);
        engine.step(trainer, &indices, &mut window)?;
        // A device is waited for at every step here, which a run does only now and then.
        for seen in engine.seen(true, &mut window)? {
            window.push_step(seen.loss, seen.norm);
        }
        if step >= WARM_UP {
            step_seconds.push(start.elapsed().as_secs_f64());
        }
    }

    let network = Network::new(&trainer.model, &engine.weights()?.ema, trainer.dataset.info.shape, trainer.options.device)?;
    let (dims, output_dims) = (trainer.diffusion.shape().dims(), trainer.diffusion.output_dims());
    let mut x = vec![0.0; what.forward_batch * dims];
    rng::stream(rng::EVALUATION_SEED, Purpose::EvaluationNoise, 0).normals(0, &mut x);
    let mut output = vec![0.0; what.forward_batch * output_dims];
    let batch = network.batch();
    let mut forward_seconds = Vec::new();
    let repetitions = if what.forward_batch == 0 { 0 } else { WARM_UP + what.steps };
    for repetition in 0..repetitions {
        let start = Instant::now();
        x.par_chunks(batch * dims)
            .zip(output.par_chunks_mut(batch * output_dims))
            .try_for_each(|(x, output)| {
                let n = x.len() / dims;
                let t: Vec<Timestep> = (0..n).map(|i| Timestep::from_index(i % trainer.diffusion.timesteps())).collect();
                network.predict(x, &t, output)
            })
            .map_err(TrainError::Denoiser)?;
        if repetition >= WARM_UP {
            forward_seconds.push(start.elapsed().as_secs_f64());
        }
    }
    let flops = trainer.model.forward_flops() as f64;
    Ok(Timing {
        step_seconds,
        forward_seconds,
        parameters: layout.total() as u64,
        step_flops: 3.0 * flops * f64::from(config.train.batch_size),
        forward_flops: flops * what.forward_batch as f64,
    })
}
