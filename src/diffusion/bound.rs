//! The variational bound of a denoiser over a set of examples: every term at every timestep, with its error.
//!
//! Start at [`evaluate`]. Noise comes from [`rng::EVALUATION_SEED`](crate::rng::EVALUATION_SEED) and depends on
//! (t, example, draw) alone, so every run is measured on the same draws and differences between runs are paired.
//! Results are gathered in the order of (t, draw, example), whatever thread computed them. What a denoiser
//! answers that is not finite is asked again, and so are, after the last batch, the first one and the last whole one: another
//! answer then is an error, not a bound. A second denoiser, the best there can be, may run beside the first on the same
//! draws: what lies between them is then known far better than either.

use super::timestep_plan::TimestepPlan;
use super::{Denoiser, DenoiserError, Diffusion, Interrupted, Job, SampleTerms};
use crate::record::Moments;
use crate::rng::{self, Purpose};
use crate::units::Timestep;
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// What the best possible denoiser saw at one timestep, and by how much the other one was worse, draw by draw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FloorEstimate {
    pub mse: Moments,
    pub vb: Moments,
    /// Own less floor.
    pub mse_excess: Moments,
    pub vb_excess: Moments,
}

impl FloorEstimate {
    /// Adds one example, whose floor is finite; where its own terms are not, there is no excess.
    fn push(&mut self, own: &SampleTerms, floor: &SampleTerms) {
        self.mse.push(floor.mse);
        self.vb.push(floor.vb);
        if own.is_finite() {
            self.mse_excess.push(own.mse - floor.mse);
            self.vb_excess.push(own.vb - floor.vb);
        }
    }
}

/// A bound in bits/dim, with the terms it is the sum of.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundEstimate {
    /// (t, weight, what was seen there).
    pub timesteps: Vec<(Timestep, f64, TimestepEstimate)>,
    /// One for each of `timesteps`; empty where no floor was asked for.
    pub floors: Vec<FloorEstimate>,
    /// The prior term over the examples.
    pub prior: Moments,
    /// The term at t = 1 of each example, its terms at t ≥ 2, and its whole bound.
    pub per_example_decoder: Moments,
    pub per_example_kl: Moments,
    pub per_example: Moments,
    /// The bound of each example less that of the floor.
    pub per_example_excess: Moments,
    /// Variance of the bound that comes of visiting some timesteps only: see [`TimestepPlan::choice_variance`].
    pub choice_variance: f64,
    /// The same of the excess.
    pub excess_choice_variance: f64,
    /// The same one by one, in the order of the examples.
    pub by_example: Vec<f64>,
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

    /// Standard error over examples, each with its own noise, and over the choice of timesteps: the whole bound of an
    /// example is one observation, so that what makes an image hard at many timesteps is counted as the one accident it is.
    pub fn standard_error(&self) -> f64 {
        combined(&self.per_example, self.choice_variance)
    }

    /// The part of the standard error that the choice of timesteps has.
    pub fn choice_error(&self) -> f64 {
        self.choice_variance.max(0.0).sqrt()
    }

    /// Standard error of [`kl`](Self::kl).
    pub fn kl_error(&self) -> f64 {
        combined(&self.per_example_kl, self.choice_variance)
    }

    /// The term at t = 1.
    pub fn decoder(&self) -> f64 {
        self.timesteps.iter().filter(|(t, _, _)| *t == Timestep::FIRST).map(|(_, w, e)| w * e.mean_vb()).sum()
    }

    /// The sum of the terms at t ≥ 2.
    pub fn kl(&self) -> f64 {
        self.timesteps.iter().filter(|(t, _, _)| *t != Timestep::FIRST).map(|(_, w, e)| w * e.mean_vb()).sum()
    }

    /// The bound of the best possible denoiser on the same draws; `None` where none was asked for.
    pub fn floor(&self) -> Option<f64> {
        (!self.floors.is_empty())
            .then(|| self.prior.mean + self.timesteps.iter().zip(&self.floors).map(|((_, w, _), f)| w * f.vb.mean).sum::<f64>())
    }

    /// By how much the bound lies above its floor, and the standard error of that; `None` where no floor was asked for.
    pub fn excess(&self) -> Option<(f64, f64)> {
        if self.floors.is_empty() {
            return None;
        }
        let mean = if self.n_nonfinite() > 0 { f64::NAN } else { self.per_example_excess.mean };
        Some((mean, combined(&self.per_example_excess, self.excess_choice_variance)))
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

fn combined(per_example: &Moments, choice_variance: f64) -> f64 {
    // `max` would make a zero of NaN.
    let choice = if choice_variance < 0.0 { 0.0 } else { choice_variance };
    (per_example.standard_error().powi(2) + choice).sqrt()
}

/// How far to look, and whom to tell.
pub struct BoundOptions<'a> {
    pub timesteps: &'a TimestepPlan,
    /// The best possible denoiser of this data, to run on the same draws.
    pub floor: Option<&'a dyn Denoiser>,
    /// Set by another thread to end the evaluation.
    pub stop: &'a AtomicBool,
    /// Called now and then with (network calls made, network calls in all).
    pub progress: &'a mut dyn FnMut(u64, u64),
    /// Called for each visit in its order, with the terms of every example, each the mean over its draws.
    pub each: &'a mut dyn FnMut(usize, &[SampleTerms]),
}

/// Evaluates the bound of `denoiser` over `examples` (each D numbers, in order), on the current thread pool.
///
/// # Errors
/// If the network fails or contradicts itself, the floor is not finite, or the caller asks to stop.
pub fn evaluate(
    diffusion: &Diffusion,
    denoiser: &dyn Denoiser,
    examples: &[f32],
    options: BoundOptions<'_>,
) -> Result<BoundEstimate, Interrupted> {
    let dims = diffusion.shape().dims();
    let count = examples.len() / dims;
    let plan = options.timesteps;
    let visits = plan.visits();
    let total: u64 = visits.iter().map(|v| u64::from(v.draws) * count as u64).sum();
    let batch = denoiser.batch().max(1);
    let asked = Asked { diffusion, denoiser, floor: options.floor, examples, count };
    // The first batch, which a device is told kernel by kernel, and the last whole one, which it does as recorded.
    let mut to_repeat: [Option<(Vec<Draw>, Vec<Pair>)>; 2] = [None, None];
    let sampled = plan.is_sampled();

    let prior_terms: Vec<f64> = examples.chunks_exact(dims).map(|x_0| diffusion.prior_bits_per_dim(x_0)).collect();
    let mut whole = Whole { decoder: vec![0.0; count], kl: vec![0.0; count], excess: vec![0.0; count] };
    // What the choice of timesteps shows itself in: the terms of each example at the visits of incomplete strata.
    let mut chosen: Vec<Vec<f64>> = vec![Vec::new(); visits.len()];
    let mut chosen_excess = chosen.clone();

    // Blocks of visits bound the memory; within one, batches go to the threads and come back in order.
    let mut timesteps = Vec::with_capacity(visits.len());
    let mut floors = Vec::new();
    let mut done = 0u64;
    let mut next = 0;
    while next < visits.len() {
        let mut jobs: Vec<Draw> = Vec::new();
        let first = next;
        while next < visits.len() && (next == first || jobs.len() < 64 * batch) {
            jobs.extend((0..count * visits[next].draws as usize).map(|i| (visits[next].t, i)));
            next += 1;
        }
        let terms: Vec<Vec<Pair>> = jobs
            .par_chunks(batch)
            .map(|jobs| {
                if options.stop.load(Ordering::Relaxed) {
                    return Err(Interrupted::Stopped);
                }
                let pairs = asked.terms(jobs).map_err(Interrupted::Denoiser)?;
                asked.floor_is_finite(jobs, &pairs).map_err(Interrupted::Denoiser)?;
                if !pairs.iter().all(|(own, _)| own.is_finite()) {
                    asked.again(jobs, &pairs).map_err(Interrupted::Denoiser)?;
                }
                Ok(pairs)
            })
            .collect::<Result<_, _>>()?;
        let mut batches = jobs.chunks(batch).zip(&terms).map(|(jobs, pairs)| (jobs.to_vec(), pairs.clone()));
        let [opening, closing] = &mut to_repeat;
        if opening.is_none() {
            *opening = batches.next();
        }
        *closing = batches.rfind(|(jobs, _)| jobs.len() == batch).or(closing.take());
        let mut terms = terms.into_iter().flatten();
        for (v, visit) in visits.iter().enumerate().take(next).skip(first) {
            let draws = f64::from(visit.draws);
            let (mut estimate, mut floor) = (TimestepEstimate::default(), FloorEstimate::default());
            let mut means = vec![SampleTerms { mse: 0.0, x0_mse: 0.0, vb: 0.0 }; count];
            let mut excess = vec![0.0; count];
            for i in 0..count * visit.draws as usize {
                let (own, best) = terms.next().expect("one result for each job");
                estimate.push(&own);
                let mean = &mut means[i % count];
                mean.mse += own.mse / draws;
                mean.x0_mse += own.x0_mse / draws;
                mean.vb += own.vb / draws;
                if let Some(best) = best {
                    floor.push(&own, &best);
                    excess[i % count] += (own.vb - best.vb) / draws;
                }
            }
            let part = if visit.t == Timestep::FIRST { &mut whole.decoder } else { &mut whole.kl };
            part.iter_mut().zip(&means).for_each(|(sum, terms)| *sum += visit.weight * terms.vb);
            whole.excess.iter_mut().zip(&excess).for_each(|(sum, x)| *sum += visit.weight * x);
            (options.each)(v, &means);
            if sampled[v] {
                chosen[v] = means.iter().map(|terms| terms.vb).collect();
                chosen_excess[v] = excess;
            }
            timesteps.push((visit.t, visit.weight, estimate));
            if options.floor.is_some() {
                floors.push(floor);
            }
        }
        done += jobs.len() as u64;
        (options.progress)(done, total);
    }

    for (jobs, pairs) in to_repeat.iter().flatten() {
        asked.again(jobs, pairs).map_err(Interrupted::Denoiser)?;
    }

    let moments = |values: &mut dyn Iterator<Item = f64>| {
        let mut moments = Moments::default();
        values.filter(|x| x.is_finite()).for_each(|x| moments.push(x));
        moments
    };
    let by_example: Vec<f64> = (0..count).map(|i| prior_terms[i] + whole.decoder[i] + whole.kl[i]).collect();
    Ok(BoundEstimate {
        timesteps,
        prior: moments(&mut prior_terms.iter().copied()),
        per_example_decoder: moments(&mut whole.decoder.iter().copied()),
        per_example_kl: moments(&mut whole.kl.iter().copied()),
        per_example: moments(&mut by_example.iter().copied()),
        by_example,
        per_example_excess: moments(&mut whole.excess.iter().copied().take(if floors.is_empty() { 0 } else { count })),
        choice_variance: plan.choice_variance(&chosen),
        excess_choice_variance: if floors.is_empty() { f64::NAN } else { plan.choice_variance(&chosen_excess) },
        floors,
        examples: count as u32,
        draws: plan.draws(),
    })
}

/// Sums over t of each example's terms.
struct Whole {
    decoder: Vec<f64>,
    kl: Vec<f64>,
    excess: Vec<f64>,
}

/// A timestep, and draw · count + example.
type Draw = (Timestep, usize);

/// One draw under the denoiser and, where asked for, under the floor.
type Pair = (SampleTerms, Option<SampleTerms>);

/// Whom an evaluation asks, and about what.
struct Asked<'a> {
    diffusion: &'a Diffusion,
    denoiser: &'a dyn Denoiser,
    floor: Option<&'a dyn Denoiser>,
    examples: &'a [f32],
    count: usize,
}

impl Asked<'_> {
    fn noise(&self, (t, i): Draw) -> rng::Stream {
        rng::stream(rng::EVALUATION_SEED, Purpose::EvaluationNoise, t.get()).lane((i / self.count) as u32)
    }

    /// One network call, which may be the denoiser's own.
    fn terms(&self, draws: &[Draw]) -> Result<Vec<Pair>, DenoiserError> {
        let as_job = |&draw: &Draw| Job { t: draw.0, example: (draw.1 % self.count) as u32, noise: self.noise(draw) };
        let own = self.denoiser.terms(&draws.iter().map(as_job).collect::<Vec<_>>()).transpose()?;
        match (own, self.floor) {
            (Some(own), None) => Ok(own.into_iter().map(|own| (own, None)).collect()),
            (own, floor) => self.terms_here(draws, own, floor),
        }
    }

    /// The same with all but the predictions computed here, and without what is given.
    fn terms_here(&self, draws: &[Draw], own: Option<Vec<SampleTerms>>, floor: Option<&dyn Denoiser>) -> Result<Vec<Pair>, DenoiserError> {
        let (diffusion, count) = (self.diffusion, self.count);
        let (dims, output_dims) = (diffusion.shape().dims(), diffusion.output_dims());
        let x_0 = |i: usize| &self.examples[i % count * dims..(i % count + 1) * dims];
        let mut noise = vec![0.0; draws.len() * dims];
        let mut x_t = vec![0.0; draws.len() * dims];
        let t: Vec<Timestep> = draws.iter().map(|(t, _)| *t).collect();
        for (b, &(t, i)) in draws.iter().enumerate() {
            let at = b * dims..(b + 1) * dims;
            diffusion.draw_noise(&self.noise((t, i)), (i % count) as u32, &mut noise[at.clone()]);
            diffusion.q_sample(t, x_0(i), &noise[at.clone()], &mut x_t[at]);
        }
        let of = |denoiser: &dyn Denoiser| -> Result<Vec<SampleTerms>, DenoiserError> {
            let mut output = vec![0.0; draws.len() * output_dims];
            denoiser.predict(&x_t, &t, &mut output)?;
            let of = |(b, &(t, i)): (usize, &Draw)| {
                let at = b * dims..(b + 1) * dims;
                diffusion.terms(t, x_0(i), &x_t[at.clone()], &noise[at], &output[b * output_dims..(b + 1) * output_dims])
            };
            Ok(draws.iter().enumerate().map(of).collect())
        };
        let own = own.map_or_else(|| of(self.denoiser), Ok)?;
        let Some(floor) = floor else { return Ok(own.into_iter().map(|own| (own, None)).collect()) };
        Ok(own.into_iter().zip(of(floor)?).map(|(own, best)| (own, Some(best))).collect())
    }

    /// A network may be beyond numbers; the best denoiser there can be is not.
    fn floor_is_finite(&self, draws: &[Draw], answers: &[Pair]) -> Result<(), DenoiserError> {
        let lost = draws.iter().zip(answers).find(|(_, (_, best))| best.is_some_and(|best| !best.is_finite()));
        match lost {
            None => Ok(()),
            Some((&(t, i), _)) => Err(format!(
                "the best denoiser of this data has no finite answer for example {} at t = {t}; its bound, and the excess over it, would \
                 leave out what it cannot do",
                i % self.count
            )
            .into()),
        }
    }

    /// Demands the same `answers` a second time, from predictions where the first were the denoiser's own terms; as far as
    /// rounding allows, which differs that way and where a device records what it did.
    fn again(&self, draws: &[Draw], answers: &[Pair]) -> Result<(), DenoiserError> {
        let differ = |a: f64, b: f64| a.is_finite() && b.is_finite() && (a - b).abs() > 1e-3 * (a.abs() + b.abs()) + 1e-4;
        let second = self.terms_here(draws, None, None)?;
        for ((&(t, i), (first, _)), (second, _)) in draws.iter().zip(answers).zip(&second) {
            if first.is_finite() != second.is_finite() || differ(first.mse, second.mse) || differ(first.vb, second.vb) {
                return Err(format!(
                    "example {} at t = {t} was computed twice and differently (mean squared errors {:e} and {:e}, terms of the bound {:e} \
                     and {:e}); no bound is reported from this device",
                    i % self.count,
                    first.mse,
                    second.mse,
                    first.vb,
                    second.vb
                )
                .into());
            }
        }
        Ok(())
    }
}
