//! Between two steps: the bound of the averaged weights, and samples drawn with them.

use super::trainer::{PROGRESS_EVERY, Trainer};
use super::window::row;
use super::{Network, TrainError, samples};
use crate::config::EvalTimesteps;
use crate::diffusion::bound::{self, BoundEstimate, BoundOptions, TimestepPlan};
use crate::diffusion::{Interrupted, sampling};
use crate::optim::Weights;
use crate::record::{Evaluation, Event, LossRow, Split, Weights as WeightsKind};
use crate::store::fs;
use std::time::Instant;

impl Trainer<'_> {
    pub(super) fn evaluation_is_due(&self, step: u32, last: bool) -> bool {
        let every = self.config.eval.every;
        let due = last || (every > 0 && step.is_multiple_of(every));
        due && !self.evaluations.iter().any(|e| e.split == Split::Val && e.step == i64::from(step))
    }

    /// Evaluates the averaged weights on `val`. False if asked to stop meanwhile.
    pub(super) fn evaluate_validation(&mut self, weights: &Weights) -> Result<bool, TrainError> {
        let timesteps = self.diffusion.timesteps();
        let plan = match self.config.eval.timesteps {
            EvalTimesteps::All => TimestepPlan::all(timesteps),
            EvalTimesteps::Strided(strata) => TimestepPlan::strided(timesteps, strata),
        };
        self.evaluate(weights, Split::Val, &plan, self.config.eval.images)
    }

    /// The full bound of the averaged weights on `test`. False if asked to stop meanwhile.
    pub(super) fn evaluate_test(&mut self, weights: &Weights) -> Result<bool, TrainError> {
        let plan = TimestepPlan::all(self.diffusion.timesteps());
        self.evaluate(weights, Split::Test, &plan, self.config.eval.test_images)
    }

    fn evaluate(&mut self, weights: &Weights, split: Split, plan: &TimestepPlan, images: u32) -> Result<bool, TrainError> {
        let network = Network::new(&self.model, &weights.ema, self.dataset.info.shape, self.options.device)?;
        let examples = if split == Split::Test { &self.dataset.test } else { &self.dataset.val };
        let dims = self.dataset.info.shape.dims();
        let count = (images as usize).min(examples.len());
        let mut x_0 = vec![0.0; count * dims];
        x_0.chunks_exact_mut(dims).enumerate().for_each(|(i, x)| examples.scaled(i, x));

        let network = network.with_terms(&self.diffusion, &x_0)?;
        let (pool, diffusion, stop, draws) = (&self.pool, &self.diffusion, self.options.stop, self.config.eval.draws);
        let emit = &self.emit;
        let mut last = Instant::now();
        let estimate = pool.install(|| {
            let mut progress = |done, total| {
                if last.elapsed().as_secs_f64() > PROGRESS_EVERY || done == total {
                    last = Instant::now();
                    emit(Event::Evaluating { done, total });
                }
            };
            bound::evaluate(diffusion, &network, &x_0, BoundOptions { timesteps: plan, draws, stop, progress: &mut progress })
        });
        let estimate = match estimate {
            Ok(estimate) => estimate,
            Err(Interrupted::Stopped) => return Ok(false),
            Err(Interrupted::Denoiser(error)) => return Err(TrainError::Denoiser(error)),
        };
        let step = i64::from(weights.step);
        self.rows.extend(rows_of(split, step, &estimate));
        let evaluation = summary_of(split, step, &estimate);
        self.evaluations.push(evaluation.clone());
        self.emit(Event::Evaluated { evaluation });
        Ok(true)
    }

    /// Draws samples with the averaged weights from the noise that all runs share, unless they are there. False if asked
    /// to stop meanwhile.
    pub(super) fn draw_samples(&mut self, weights: &Weights) -> Result<bool, TrainError> {
        let (count, path) = (self.config.sample.count as usize, self.dir.sample_path(weights.step));
        if count == 0 || fs::is_file(&path) {
            return Ok(true);
        }
        let network = Network::new(&self.model, &weights.ema, self.dataset.info.shape, self.options.device)?;
        let (pool, diffusion, stop) = (&self.pool, &self.diffusion, self.options.stop);
        let samples = match pool.install(|| sampling::ancestral(diffusion, &network, count, stop)) {
            Ok(samples) => samples,
            Err(Interrupted::Stopped) => return Ok(false),
            Err(Interrupted::Denoiser(error)) => return Err(TrainError::Denoiser(error)),
        };
        fs::write_atomic(&path, &samples::picture(&self.dataset, &samples)?)?;
        Ok(true)
    }
}

/// The rows of an evaluation: the prior at t = 0, then every timestep visited.
fn rows_of(split: Split, step: i64, estimate: &BoundEstimate) -> Vec<LossRow> {
    let prior = LossRow {
        split,
        weights: WeightsKind::Ema,
        step,
        t: 0,
        t_weight: 1.0,
        n: estimate.prior.n as u32,
        n_nonfinite: 0,
        mse: None,
        x0_mse_mean: None,
        vb: (estimate.prior.mean, estimate.prior.m2),
        mse_floor: None,
        vb_floor: None,
        grad_norm_mean: None,
    };
    std::iter::once(prior).chain(estimate.timesteps.iter().map(|(t, w, e)| row(split, WeightsKind::Ema, step, *t, *w, e))).collect()
}

fn summary_of(split: Split, step: i64, estimate: &BoundEstimate) -> Evaluation {
    Evaluation {
        split,
        weights: WeightsKind::Ema,
        step,
        images: estimate.examples,
        timesteps: estimate.timesteps.len() as u32,
        draws: estimate.draws,
        bits_per_dim: estimate.bits_per_dim(),
        bits_per_dim_se: estimate.standard_error(),
        prior: estimate.prior.mean,
        kl: estimate.kl(),
        decoder: estimate.decoder(),
        eps_mse: estimate.eps_mse(),
        n_nonfinite: estimate.n_nonfinite(),
    }
}
