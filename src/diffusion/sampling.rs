//! Drawing from the model: the ancestral sampler, DDIM and its inverse, and the posterior of [`Condition`].
//!
//! Start at [`Walk`]. Noise depends on (seed, t, sample) alone, whatever the number of samples and threads: two models are
//! shown on the same noise, and with the default seed, [`rng::EVALUATION_SEED`](crate::rng::EVALUATION_SEED), so are all
//! runs. t is the timestep the network was trained on, so that fewer steps see the noise of the same t.

use super::binomial::draw_bits;
use super::gaussian::ReverseStep;
use super::{BinomialDiffusion, Condition, Denoiser, Diffusion, GaussianDiffusion, Interrupted, Respaced};
use crate::named_enum;
use crate::rng::{self, Purpose, Stream};
use crate::units::Timestep;
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

named_enum! {
    /// Which ε̂ DDIM goes on with where x̂_0 was clipped; elsewhere they are the same.
    pub enum DdimEpsilon {
        /// That of the clipped x̂_0. [Nichol21, code]
        Clipped = "clipped",
        /// What the network put out. [diffusers, `use_clipped_model_output = False`]
        Raw = "raw",
    }
}

/// DDIM. [Song21, Eq. 12, 16]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ddim {
    /// Share of the ancestral sampler's noise: 0 is a deterministic map of x_T, 1 has the variance β̃_t.
    pub eta: f64,
    pub epsilon: DdimEpsilon,
    /// ᾱ that the last step goes to: 1, the data. (diffusers without `set_alpha_to_one`: ᾱ_1.)
    pub last_alpha_bar: f64,
}

impl Ddim {
    /// As improved-diffusion has it.
    pub fn new(eta: f64) -> Self {
        Self { eta, epsilon: DdimEpsilon::Clipped, last_alpha_bar: 1.0 }
    }

    /// σ² = η² (1 − ᾱ_prev)/(1 − ᾱ) · (1 − ᾱ/ᾱ_prev). [Song21, Eq. 16]
    pub fn variance(&self, alpha_bar: f64, before: f64) -> f64 {
        self.eta * self.eta * (1.0 - before) / (1.0 - alpha_bar) * (1.0 - alpha_bar / before)
    }
}

/// How x_{t−1} is made of x_t.
#[derive(Clone, Copy)]
pub enum Sampler<'a> {
    /// x_{t−1} ~ p(x_{t−1} | x_t), without noise at the last step. [Ho20, Alg. 2]
    Ancestral,
    /// Of a Gaussian process.
    Ddim(Ddim),
    /// The ancestral step under what is known of x_0.
    Posterior(&'a Condition<'a>),
}

/// x and what the network made of it, for all samples, before the step at t.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// 0 is the end of the walk.
    pub t: u32,
    pub x_t: Vec<f32>,
    /// x̂_0; of bits 2 p̂(x_0 = 1) − 1.
    pub x0: Vec<f32>,
}

/// What a walk leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// `count · D` numbers.
    pub x: Vec<f32>,
    pub frames: Vec<Frame>,
}

/// The way from noise to data, and back.
#[derive(Clone, Copy)]
pub struct Walk<'a> {
    pub steps: &'a Respaced,
    pub sampler: Sampler<'a>,
    pub seed: u64,
    /// Trained timesteps at which a [`Frame`] is kept; where there are any, the end is kept too.
    pub frames: &'a [Timestep],
    /// Set by another thread to end the walk.
    pub stop: &'a AtomicBool,
}

/// Sequences of one (seed, t): the step's own noise, that of observations, that of going back up.
const STEP: u32 = 0;
pub(super) const OBSERVATION: u32 = 1;
const UP: u32 = 2;
const LANES: u32 = 3;

impl Walk<'_> {
    /// Draws `count` samples from x_T on.
    ///
    /// # Errors
    /// If the network fails, or `stop` is set meanwhile.
    pub fn draw(&self, denoiser: &dyn Denoiser, count: usize) -> Result<Drawn, Interrupted> {
        self.descend(denoiser, self.latents(count), self.steps.timesteps.len() - 1)
    }

    /// Walks down from given x_T, `D` numbers for each sample.
    ///
    /// # Errors
    /// As [`draw`](Self::draw).
    pub fn decode(&self, denoiser: &dyn Denoiser, latents: Vec<f32>) -> Result<Drawn, Interrupted> {
        self.descend(denoiser, latents, self.steps.timesteps.len() - 1)
    }

    /// The x_T that [`draw`](Self::draw) starts at: step 0 of the stream.
    pub fn latents(&self, count: usize) -> Vec<f32> {
        let process = &self.steps.process;
        let mut x = vec![0.0f32; count * process.shape().dims()];
        let stream = rng::stream(self.seed, Purpose::Sampling, 0);
        for (i, x) in x.chunks_exact_mut(process.shape().dims()).enumerate() {
            match self.sampler {
                Sampler::Posterior(condition) => condition.draw_last(process, &stream, i, x),
                Sampler::Ancestral | Sampler::Ddim(_) => process.draw_last(&stream, i as u32, x),
            }
        }
        x
    }

    /// Walks down from the kept timestep of index `from`.
    ///
    /// # Errors
    /// As [`draw`](Self::draw).
    pub fn descend(&self, denoiser: &dyn Denoiser, mut x: Vec<f32>, from: usize) -> Result<Drawn, Interrupted> {
        let dims = self.steps.process.shape().dims();
        // Parts for the threads; their size depends on the count alone, as the last bits may depend on it.
        let batch = denoiser.batch().min((x.len() / dims).div_ceil(4)).max(1);
        let parts = x
            .par_chunks_mut(batch * dims)
            .enumerate()
            .map(|(chunk, x)| self.part(denoiser, chunk * batch, x, from))
            .collect::<Result<Vec<_>, _>>()?;
        let mut frames: Vec<Frame> = Vec::new();
        for part in parts {
            if frames.is_empty() {
                frames = part;
                continue;
            }
            for (all, of_part) in frames.iter_mut().zip(part) {
                all.x_t.extend(of_part.x_t);
                all.x0.extend(of_part.x0);
            }
        }
        Ok(Drawn { x, frames })
    }

    /// The walk of some samples, of which the first has the number `first`.
    fn part(&self, denoiser: &dyn Denoiser, first: usize, x: &mut [f32], from: usize) -> Result<Vec<Frame>, Interrupted> {
        let process = &self.steps.process;
        let (dims, output_dims) = (process.shape().dims(), process.output_dims());
        let n = x.len() / dims;
        let mut output = vec![0.0f32; n * output_dims];
        let mut scratch = Scratch { noise: vec![0.0; dims], step: ReverseStep::default(), rates: vec![0.0; dims] };
        let mut frames = Vec::new();
        let rounds = match self.sampler {
            Sampler::Posterior(condition) => condition.rounds.max(1),
            Sampler::Ancestral | Sampler::Ddim(_) => 1,
        };
        for index in (0..=from).rev() {
            // The network's t, and the place in the tables of the process.
            let (t, at) = (self.steps.timesteps[index], Timestep::from_index(index));
            for round in 0..rounds {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Interrupted::Stopped);
                }
                denoiser.predict(x, &vec![t; n], &mut output).map_err(Interrupted::Denoiser)?;
                if round == 0 && self.frames.contains(&t) {
                    frames.push(Frame { t: t.get(), x_t: x.to_vec(), x0: predicted(&self.steps.trained, t, x, &output) });
                }
                let lane = |of: u32| rng::stream(self.seed, Purpose::Sampling, t.get()).lane(round * LANES + of);
                for (i, x) in x.chunks_exact_mut(dims).enumerate() {
                    let output = &output[i * output_dims..(i + 1) * output_dims];
                    process.draw_noise(&lane(STEP), (first + i) as u32, &mut scratch.noise);
                    match process {
                        Diffusion::Gaussian(d) => self.gaussian_step(d, index, first + i, x, output, &mut scratch),
                        Diffusion::Binomial(d) => self.binomial_step(d, index, first + i, x, output, &mut scratch),
                    }
                    if let Sampler::Posterior(condition) = self.sampler {
                        condition.renoise(process, index, first + i, &lane(OBSERVATION), x);
                        // Up again, to make another try of the same step; the last try stays, and so does the end.
                        if round + 1 < rounds && index > 0 {
                            process.draw_noise(&lane(UP), (first + i) as u32, &mut scratch.noise);
                            process.q_step(at, x, &scratch.noise);
                            condition.clamp_again(first + i, x);
                        }
                    }
                }
                if index == 0 {
                    break;
                }
            }
        }
        if !self.frames.is_empty() {
            frames.push(Frame { t: 0, x_t: x.to_vec(), x0: x.to_vec() });
        }
        Ok(frames)
    }

    fn gaussian_step(&self, d: &GaussianDiffusion, index: usize, sample: usize, x: &mut [f32], output: &[f32], scratch: &mut Scratch) {
        let Scratch { noise, step, .. } = scratch;
        self.gaussian_moments(d, index, x, output, step);
        match self.sampler {
            Sampler::Ddim(ddim) => {
                let (alpha_bar, before) = (d.schedule.alpha_bars[index], before(d, &ddim, index));
                let variance = if index == 0 { 0.0 } else { ddim.variance(alpha_bar, before) };
                for (j, x) in x.iter_mut().enumerate() {
                    let eps = self.ddim_epsilon(&ddim, index, j, *x, output, step);
                    let mean = before.sqrt() * step.x0[j] + (1.0 - before - variance).max(0.0).sqrt() * eps;
                    *x = (mean + variance.sqrt() * f64::from(noise[j])) as f32;
                }
                return;
            }
            Sampler::Posterior(condition) => condition.bend(self.steps.below(index), sample, step),
            Sampler::Ancestral => {}
        }
        for (j, x) in x.iter_mut().enumerate() {
            let deviation = if index == 0 { 0.0 } else { (0.5 * step.log_variance[j]).exp() };
            *x = (step.mean[j] + deviation * f64::from(noise[j])) as f32;
        }
    }

    /// What the step from the kept timestep of that index is made of, before anything that is known.
    fn gaussian_moments(&self, d: &GaussianDiffusion, index: usize, x: &[f32], output: &[f32], step: &mut ReverseStep) {
        if let Diffusion::Gaussian(trained) = &self.steps.trained {
            trained.predict_x0(self.steps.timesteps[index], x, output, &mut step.x0);
        }
        d.p_mean_variance(Timestep::from_index(index), x, output, step);
    }

    fn ddim_epsilon(&self, ddim: &Ddim, index: usize, j: usize, x_t: f32, output: &[f32], step: &ReverseStep) -> f64 {
        match (ddim.epsilon, &self.steps.trained) {
            (DdimEpsilon::Raw, Diffusion::Gaussian(trained)) => trained.raw_epsilon(self.steps.timesteps[index], j, x_t.into(), output),
            _ => {
                let alpha_bar = self.steps.process.schedule().alpha_bars[index];
                (f64::from(x_t) - alpha_bar.sqrt() * step.x0[j]) / (1.0 - alpha_bar).sqrt()
            }
        }
    }

    fn binomial_step(&self, d: &BinomialDiffusion, index: usize, sample: usize, x: &mut [f32], output: &[f32], scratch: &mut Scratch) {
        d.p_rates(Timestep::from_index(index), x, output, &mut scratch.rates);
        if let Sampler::Posterior(condition) = self.sampler {
            condition.bend_rates(sample, &mut scratch.rates);
        }
        draw_bits(&scratch.rates, &scratch.noise, x);
    }

    /// The x_T that [`decode`](Self::decode) with DDIM at η = 0 would bring back to `x_0`, to first order in the step: each
    /// step of the same equation upwards, with the network asked at the x below it. Exact as steps become many.
    ///
    /// # Errors
    /// As [`draw`](Self::draw).
    ///
    /// # Panics
    /// If the process is not Gaussian: bits have no deterministic map.
    pub fn encode(&self, denoiser: &dyn Denoiser, ddim: &Ddim, x_0: &[f32]) -> Result<Vec<f32>, Interrupted> {
        let d = self.steps.process.gaussian().expect("DDIM is a map of Gaussian processes");
        let (dims, output_dims) = (d.shape().dims(), d.output_dims());
        let mut x = x_0.to_vec();
        let batch = denoiser.batch().min((x.len() / dims).div_ceil(4)).max(1);
        x.par_chunks_mut(batch * dims).try_for_each(|x| {
            let n = x.len() / dims;
            let mut output = vec![0.0f32; n * output_dims];
            let mut step = ReverseStep::default();
            for (index, &t) in self.steps.timesteps.iter().enumerate() {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Interrupted::Stopped);
                }
                denoiser.predict(x, &vec![t; n], &mut output).map_err(Interrupted::Denoiser)?;
                let (alpha_bar, before) = (d.schedule.alpha_bars[index], before(d, ddim, index));
                for (x, output) in x.chunks_exact_mut(dims).zip(output.chunks_exact(output_dims)) {
                    self.gaussian_moments(d, index, x, output, &mut step);
                    for (j, x) in x.iter_mut().enumerate() {
                        let eps = self.ddim_epsilon(ddim, index, j, *x, output, &step);
                        let x0 = (f64::from(*x) - (1.0 - before).sqrt() * eps) / before.sqrt();
                        *x = (alpha_bar.sqrt() * x0 + (1.0 - alpha_bar).sqrt() * eps) as f32;
                    }
                }
            }
            Ok(())
        })?;
        Ok(x)
    }
}

struct Scratch {
    noise: Vec<f32>,
    step: ReverseStep,
    rates: Vec<f64>,
}

/// ᾱ below the kept timestep of that index.
fn before(d: &GaussianDiffusion, ddim: &Ddim, index: usize) -> f64 {
    if index == 0 { ddim.last_alpha_bar } else { d.schedule.alpha_bars_prev[index] }
}

/// x̂_0 of a batch; of bits 2 p̂(x_0 = 1) − 1.
fn predicted(trained: &Diffusion, t: Timestep, x: &[f32], output: &[f32]) -> Vec<f32> {
    match trained {
        Diffusion::Gaussian(d) => {
            let mut x0 = Vec::new();
            x.chunks_exact(d.shape().dims())
                .zip(output.chunks_exact(d.output_dims()))
                .flat_map(|(x, output)| {
                    d.predict_x0(t, x, output, &mut x0);
                    x0.iter().map(|&v| v as f32).collect::<Vec<_>>()
                })
                .collect()
        }
        Diffusion::Binomial(_) => output.iter().map(|&logit| (2.0 * super::binomial::logistic(logit.into()) - 1.0) as f32).collect(),
    }
}

/// Draws `count` samples with every step from the noise that all runs share. [Ho20, Alg. 2]
///
/// # Errors
/// If the network fails, or `stop` is set meanwhile.
pub fn ancestral(diffusion: &Diffusion, denoiser: &dyn Denoiser, count: usize, stop: &AtomicBool) -> Result<Vec<f32>, Interrupted> {
    let steps = Respaced::all(diffusion);
    let walk = Walk { steps: &steps, sampler: Sampler::Ancestral, seed: rng::EVALUATION_SEED, frames: &[], stop };
    Ok(walk.draw(denoiser, count)?.x)
}

/// Between `a` (at 0) and `b` (at 1) along the great circle through both: normal vectors stay as long as normal vectors
/// are. [Song21, App. D.5]
pub fn slerp(a: &[f32], b: &[f32], share: f64) -> Vec<f32> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let cosine = (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).clamp(-1.0, 1.0);
    let angle = cosine.acos();
    let (from, to) = if angle.sin() < 1e-6 {
        // One direction (or its opposite, which has no shortest way): a straight line.
        (1.0 - share, share)
    } else {
        (((1.0 - share) * angle).sin() / angle.sin(), (share * angle).sin() / angle.sin())
    };
    a.iter().zip(b).map(|(x, y)| (from * f64::from(*x) + to * f64::from(*y)) as f32).collect()
}

/// The noise of one observation or draw, for [`Condition`].
pub(super) fn noise_of(process: &Diffusion, stream: &Stream, sample: usize, dims: usize) -> Vec<f32> {
    let mut noise = vec![0.0; dims];
    process.draw_noise(stream, sample as u32, &mut noise);
    noise
}
