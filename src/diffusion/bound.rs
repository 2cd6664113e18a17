//! The variational bound of a denoiser over a set of examples: every term at every timestep, with its error.
//!
//! Start at [`evaluate`]. Noise comes from [`rng::EVALUATION_SEED`](crate::rng::EVALUATION_SEED) and depends on
//! (t, example, draw) alone, so every run is measured on the same draws and differences between runs are paired.
//! Results are gathered in the order of (t, draw, example), whatever thread computed them.

use super::{Denoiser, DenoiserError, Diffusion, Interrupted, Job, SampleTerms};
use crate::record::Moments;
use crate::rng::{self, Purpose};
use crate::units::Timestep;
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// The timesteps of an evaluation, each with the number of timesteps it stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct TimestepPlan(pub Vec<(Timestep, f64)>);

impl TimestepPlan {
    /// Every timestep.
    pub fn all(timesteps: usize) -> Self {
        Self((0..timesteps).map(|i| (Timestep::from_index(i), 1.0)).collect())
    }

    /// t = 1 by itself, and one timestep drawn in each of `strata − 1` strata of 2..=T that widen geometrically.
    ///
    /// The terms of the bound fall about as 1/t, so strata of equal ratio keep each of them nearly constant; the first are
    /// single timesteps, where most of the bound lies. The draw is uniform within its stratum, so the weighted sum is an
    /// unbiased estimate of the full one; it comes from the evaluation's own stream, so all evaluations with this T and
    /// this number of strata visit the same t.
    pub fn strided(timesteps: usize, strata: u32) -> Self {
        let mut plan = vec![(Timestep::FIRST, 1.0)];
        let strata = (strata.max(2) as usize - 1).min(timesteps - 1);
        let stream = rng::stream(rng::EVALUATION_SEED, Purpose::Timestep, timesteps as u32);
        // The next stratum is first..end, t counted from 1; `left` strata must reach T and have a timestep each.
        let mut first = 2;
        for left in (1..=strata).rev() {
            let ratio = ((timesteps + 1) as f64 / first as f64).powf(1.0 / left as f64);
            let end = ((first as f64 * ratio).round() as usize).clamp(first + 1, timesteps + 2 - left);
            let size = (end - first) as u32;
            let t = first + stream.below(left as u32, strata as u32, size) as usize;
            plan.push((Timestep::from_index(t - 1), f64::from(size)));
            first = end;
        }
        Self(plan)
    }
}

/// What was seen at one timestep.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TimestepEstimate {
    pub mse: Moments,
    pub x0_mse: Moments,
    pub vb: Moments,
    pub n_nonfinite: u32,
}

impl TimestepEstimate {
    /// The mean term of the bound; NaN where nothing finite was seen, so that a sum over timesteps cannot hide it.
    pub fn mean_vb(&self) -> f64 {
        if self.vb.n == 0 { f64::NAN } else { self.vb.mean }
    }

    /// Adds one example; one with a value that is not finite is counted and left out.
    pub fn push(&mut self, terms: &SampleTerms) {
        if terms.is_finite() {
            self.mse.push(terms.mse);
            self.x0_mse.push(terms.x0_mse);
            self.vb.push(terms.vb);
        } else {
            self.n_nonfinite += 1;
        }
    }
}

/// A bound in bits/dim, with the terms it is the sum of.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundEstimate {
    /// (t, weight, what was seen there).
    pub timesteps: Vec<(Timestep, f64, TimestepEstimate)>,
    /// The prior term over the examples.
    pub prior: Moments,
    /// The whole bound of each example.
    pub per_example: Moments,
    pub examples: u32,
    pub draws: u32,
}

impl BoundEstimate {
    /// Σ weight · mean term, prior included; NaN if any sample was not finite, since what is left speaks of easier ones.
    pub fn bits_per_dim(&self) -> f64 {
        if self.n_nonfinite() > 0 {
            return f64::NAN;
        }
        self.prior.mean + self.decoder() + self.kl()
    }

    /// Standard error over examples, each with its own noise: the whole bound of an example is one observation, so
    /// that what makes an image hard at many timesteps is counted as the one accident it is.
    pub fn standard_error(&self) -> f64 {
        self.per_example.standard_error()
    }

    /// The term at t = 1.
    pub fn decoder(&self) -> f64 {
        self.timesteps.iter().filter(|(t, _, _)| *t == Timestep::FIRST).map(|(_, w, e)| w * e.mean_vb()).sum()
    }

    /// The sum of the terms at t ≥ 2.
    pub fn kl(&self) -> f64 {
        self.timesteps.iter().filter(|(t, _, _)| *t != Timestep::FIRST).map(|(_, w, e)| w * e.mean_vb()).sum()
    }

    /// eps-MSE averaged over uniform t, as training draws it.
    pub fn eps_mse(&self) -> f64 {
        let weight: f64 = self.timesteps.iter().map(|(_, w, _)| w).sum();
        self.timesteps.iter().map(|(_, w, e)| if e.mse.n == 0 { f64::NAN } else { w * e.mse.mean }).sum::<f64>() / weight
    }

    pub fn n_nonfinite(&self) -> u64 {
        self.timesteps.iter().map(|(_, _, e)| u64::from(e.n_nonfinite)).sum()
    }
}

/// How far to look, and whom to tell.
pub struct BoundOptions<'a> {
    pub timesteps: &'a TimestepPlan,
    pub draws: u32,
    /// Set by another thread to end the evaluation.
    pub stop: &'a AtomicBool,
    /// Called now and then with (network calls made, network calls in all).
    pub progress: &'a mut dyn FnMut(u64, u64),
}

/// Evaluates the bound of `denoiser` over `examples` (each D numbers, in order), on the current thread pool.
///
/// # Errors
/// If the network fails, or the caller asks to stop.
pub fn evaluate(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    examples: &[f32],
    options: BoundOptions<'_>,
) -> Result<BoundEstimate, Interrupted> {
    let dims = diffusion.shape().dims();
    let count = examples.len() / dims;
    let draws = options.draws.max(1) as usize;
    let per_timestep = count * draws;
    let plan = &options.timesteps.0;
    let total = (per_timestep * plan.len()) as u64;
    let batch = denoiser.batch().max(1);

    let mut prior = Moments::default();
    let mut whole: Vec<f64> = Vec::with_capacity(count);
    for x_0 in examples.chunks_exact(dims) {
        let term = diffusion.prior_bits_per_dim(x_0);
        prior.push(term);
        whole.push(term);
    }

    // Blocks of timesteps bound the memory; within one, batches go to the threads and come back in order.
    let block = (64 * batch).div_ceil(per_timestep.max(1)).max(1);
    let mut timesteps = Vec::with_capacity(plan.len());
    let mut done = 0u64;
    for part in plan.chunks(block) {
        let jobs: Vec<(Timestep, usize)> = part.iter().flat_map(|(t, _)| (0..per_timestep).map(move |i| (*t, i))).collect();
        let terms: Vec<Vec<SampleTerms>> = jobs
            .par_chunks(batch)
            .map(|jobs| {
                if options.stop.load(Ordering::Relaxed) {
                    return Err(Interrupted::Stopped);
                }
                evaluate_batch(diffusion, denoiser, examples, count, jobs).map_err(Interrupted::Denoiser)
            })
            .collect::<Result<_, _>>()?;
        let mut terms = terms.into_iter().flatten();
        for (t, weight) in part {
            let mut estimate = TimestepEstimate::default();
            for i in 0..per_timestep {
                let sample = terms.next().expect("one result for each job");
                estimate.push(&sample);
                whole[i % count] += weight * sample.vb / draws as f64;
            }
            timesteps.push((*t, *weight, estimate));
        }
        done += jobs.len() as u64;
        (options.progress)(done, total);
    }

    let mut per_example = Moments::default();
    whole.iter().filter(|x| x.is_finite()).for_each(|x| per_example.push(*x));
    Ok(BoundEstimate { timesteps, prior, per_example, examples: count as u32, draws: draws as u32 })
}

/// One network call: `jobs` are (t, draw · count + example).
fn evaluate_batch(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    examples: &[f32],
    count: usize,
    jobs: &[(Timestep, usize)],
) -> Result<Vec<SampleTerms>, DenoiserError> {
    let noise_of = |t: Timestep, i: usize| rng::stream(rng::EVALUATION_SEED, Purpose::EvaluationNoise, t.get()).lane((i / count) as u32);
    let as_job = |&(t, i): &(Timestep, usize)| Job { t, example: (i % count) as u32, noise: noise_of(t, i) };
    if let Some(terms) = denoiser.terms(&jobs.iter().map(as_job).collect::<Vec<_>>()) {
        return terms;
    }
    let dims = diffusion.shape().dims();
    let output_dims = diffusion.output_dims();
    let mut noise = vec![0.0; jobs.len() * dims];
    let mut x_t = vec![0.0; jobs.len() * dims];
    let mut output = vec![0.0; jobs.len() * output_dims];
    let t: Vec<Timestep> = jobs.iter().map(|(t, _)| *t).collect();
    for (b, (t, i)) in jobs.iter().enumerate() {
        let example = i % count;
        let at = b * dims..(b + 1) * dims;
        diffusion.draw_noise(&noise_of(*t, *i), example as u32, &mut noise[at.clone()]);
        diffusion.q_sample(*t, &examples[example * dims..(example + 1) * dims], &noise[at.clone()], &mut x_t[at]);
    }
    denoiser.predict(&x_t, &t, &mut output)?;
    Ok(jobs
        .iter()
        .enumerate()
        .map(|(b, (t, i))| {
            let at = b * dims..(b + 1) * dims;
            let x_0 = &examples[i % count * dims..(i % count + 1) * dims];
            diffusion.terms(*t, x_0, &x_t[at.clone()], &noise[at], &output[b * output_dims..(b + 1) * output_dims])
        })
        .collect())
}
