//! Between two steps: the bound of the averaged weights, and samples drawn with them.

use super::floor::scaled;
use super::trainer::{PROGRESS_EVERY, Trainer};
use super::window::row;
use super::{Network, TrainError, reverse, samples};
use crate::config::EvalTimesteps;
use crate::diffusion::bound::{self, BoundEstimate, BoundOptions};
use crate::diffusion::sampling::{Sampler, Walk};
use crate::diffusion::timestep_plan::{Spread, TimestepPlan};
use crate::diffusion::{Denoiser, Interrupted, Respaced, quality};
use crate::optim::Weights;
use crate::record::{Evaluation, Event, Floor, LossRow, Split, Weights as WeightsKind};
use crate::rng;
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
        let (timesteps, draws) = (self.diffusion.timesteps(), self.config.eval.draws);
        let plan = match self.config.eval.timesteps {
            EvalTimesteps::All => TimestepPlan::all(timesteps, draws),
            EvalTimesteps::Strided(strata) => TimestepPlan::strided(timesteps, strata, draws, Spread::Noise),
        };
        self.evaluate(weights, Split::Val, &plan, self.config.eval.images)
    }

    /// The full bound of the averaged weights on `test`. False if asked to stop meanwhile.
    pub(super) fn evaluate_test(&mut self, weights: &Weights) -> Result<bool, TrainError> {
        let plan = TimestepPlan::all(self.diffusion.timesteps(), self.config.eval.draws);
        self.evaluate(weights, Split::Test, &plan, self.config.eval.test_images)
    }

    fn evaluate(&mut self, weights: &Weights, split: Split, plan: &TimestepPlan, images: u32) -> Result<bool, TrainError> {
        let network = Network::new(&self.model, &weights.ema, self.dataset.info.shape, self.options.device)?;
        let examples = if split == Split::Test { &self.dataset.test } else { &self.dataset.val };
        let x_0 = scaled(examples, &(0..examples.len().min(images as usize)).collect::<Vec<_>>());

        let network = network.with_terms(&self.diffusion, &x_0)?;
        let (pool, diffusion, stop) = (&self.pool, &self.diffusion, self.options.stop);
        let floor = self.floors.population().map(|f| f as &dyn Denoiser);
        let emit = &self.emit;
        let mut last = Instant::now();
        let estimate = pool.install(|| {
            let mut progress = |done, total| {
                if last.elapsed().as_secs_f64() > PROGRESS_EVERY || done == total {
                    last = Instant::now();
                    emit(Event::Evaluating { done, total });
                }
            };
            let options = BoundOptions { timesteps: plan, floor, stop, progress: &mut progress, each: &mut |_, _| {} };
            bound::evaluate(diffusion, &network, &x_0, options)
        });
        let estimate = match estimate {
            Ok(estimate) => estimate,
            Err(Interrupted::Stopped) => return Ok(false),
            Err(Interrupted::Denoiser(error)) => return Err(TrainError::Denoiser(error)),
        };
        let step = i64::from(weights.step);
        self.rows.extend(rows_of(split, WeightsKind::Ema, step, &estimate));
        let evaluation = Evaluation {
            samples: self.quality.clone().filter(|_| split == Split::Test),
            ..summary_of(split, WeightsKind::Ema, step, &estimate)
        };
        self.emit(Event::Evaluated { evaluation: evaluation.summary() });
        self.evaluations.push(evaluation);
        Ok(true)
    }

    /// Draws samples with the averaged weights from the noise that all runs share, unless they are there. False if asked
    /// to stop meanwhile.
    pub(super) fn draw_samples(&mut self, weights: &Weights) -> Result<bool, TrainError> {
        let (count, path) = (self.config.sample.count as usize, self.dir.sample_path(weights.step));
        // The picture may be there from before an interruption; how good the final samples are is then found out again.
        let last = weights.step == self.config.train.steps;
        if count == 0 || fs::is_file(&path) && !last {
            return Ok(true);
        }
        let network = Network::new(&self.model, &weights.ema, self.dataset.info.shape, self.options.device)?;
        let (pool, diffusion, stop) = (&self.pool, &self.diffusion, self.options.stop);
        // The final samples leave their way behind, where there is a picture of it.
        let ending = reverse::ending(self.dataset.info.shape).filter(|_| last);
        let steps = Respaced::all(diffusion);
        let frames = if ending.is_some() { steps.spread(reverse::FRAMES) } else { Vec::new() };
        let walk = Walk { steps: &steps, sampler: Sampler::Ancestral, seed: rng::EVALUATION_SEED, frames: &frames, stop };
        let drawn = match pool.install(|| walk.draw(&network, count)) {
            Ok(drawn) => drawn,
            Err(Interrupted::Stopped) => return Ok(false),
            Err(Interrupted::Denoiser(error)) => return Err(TrainError::Denoiser(error)),
        };
        if let Some(ending) = ending {
            let way = reverse::bytes(&drawn, diffusion, &network)?;
            fs::write_atomic(&self.dir.reverse_path(weights.step, ending), &way)?;
        }
        let samples = drawn.x;
        if last {
            let first = |n: usize, of: usize| (0..of.min(n)).collect::<Vec<_>>();
            let test = scaled(&self.dataset.test, &first(quality::MOST, self.dataset.test.len()));
            let train = scaled(&self.dataset.train, &first(count, self.dataset.train.len()));
            self.quality = pool.install(|| quality::measure(&samples, &test, &train, self.dataset.info.shape.dims()));
        }
        fs::write_atomic(&path, &samples::picture(&self.dataset, &samples)?)?;
        Ok(true)
    }

    /// The irreducible loss on training examples, as far as it is wanted.
    pub(super) fn measure_floor(&mut self) {
        let train = &self.config.train;
        let flops = 3.0 * f64::from(train.batch_size) * f64::from(train.steps) * self.model.forward_flops() as f64;
        let (floors, config, dataset, diffusion, stop) = (&mut self.floors, self.config, &self.dataset, &self.diffusion, self.options.stop);
        self.pool.install(|| floors.measure_training(config, dataset, diffusion, flops, stop));
    }
}

/// The rows of an evaluation: the prior at t = 0, then every timestep visited.
pub fn rows_of(split: Split, weights: WeightsKind, step: i64, estimate: &BoundEstimate) -> Vec<LossRow> {
    let prior = LossRow {
        split,
        weights,
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
    let rows = estimate.timesteps.iter().enumerate().map(|(i, (t, w, e))| {
        let floor = estimate.floors.get(i).filter(|f| f.vb.n > 0);
        LossRow { mse_floor: floor.map(|f| f.mse.mean), vb_floor: floor.map(|f| f.vb.mean), ..row(split, weights, step, *t, *w, e) }
    });
    std::iter::once(prior).chain(rows).collect()
}

/// An evaluation in a line.
pub fn summary_of(split: Split, weights: WeightsKind, step: i64, estimate: &BoundEstimate) -> Evaluation {
    let timesteps: f64 = estimate.timesteps.iter().map(|(_, w, _)| w).sum();
    Evaluation {
        split,
        weights,
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
        timestep_se: ((timesteps.round() as usize) > estimate.timesteps.len()).then(|| estimate.choice_error()),
        floor: estimate.floor().zip(estimate.excess()).map(|(bits_per_dim, (_, excess_se))| Floor { bits_per_dim, excess_se }),
        samples: None,
        by_example: if split == Split::Test && estimate.by_example.iter().all(|x| x.is_finite()) {
            estimate.by_example.clone()
        } else {
            Vec::new()
        },
    }
}
