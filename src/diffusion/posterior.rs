//! What is known of x_0 beside the model: p̃(x_0) ∝ p(x_0) r(x_0). [SohlDickstein15, §2.5]
//!
//! Start at [`Condition`]; [`Sampler::Posterior`](super::sampling::Sampler) walks under it. The method of 2015 multiplies
//! **every** reverse step by the same r: p̃(x_{t−1} | x_t) ∝ p(x_{t−1} | x_t) r(x_{t−1}), as if x_{t−1} were the data. It
//! is exact where r is that of t itself, r_t(x_t) = E[r(x_0) | x_t], which a [`LogFactor`] may know. With r of the data at
//! every t it is not, and more steps do not mend it:
//!
//! - Inpainting shows the network clean pixels among noisy ones. For two standard normals with correlation 0.8, of which one
//!   is observed, the mean of the other comes out 0.76 of what it should be and its variance is 0.495 in place of 0.36.
//!   Going over each step again ([`Condition::rounds`]) does mend that: 0.96 and 0.386 with 5 rounds, 1.00 and 0.362 with 50
//!   (T = 1000, linear schedule).
//!   Of a heartbeat whose first five bits are seen, the rest comes out whole in 70 of 100 samples, in 96 with 10 rounds (T = 200).
//! - Letting what is observed enter at each step's own noise ([`Factor::Renoise`]) has more bias there, not less (0.62 and 0.496;
//!   0.92 and 0.386 with 5 rounds).
//! - Denoising pulls each x_t, which is √ᾱ_t x_0 and noise, towards the observation of x_0: for a standard normal seen with
//!   d = 0.5 the mean is 1.11 of what it should be, the variance 0.111 in place of 0.2. [`from_observation`] is exact up to the
//!   model, since a noisy observation of x_0 is an x_t.
//!
//! `posterior_tests` computes these numbers and holds the samplers to them.

use super::binomial::logistic;
use super::gaussian::ReverseStep;
use super::sampling::{OBSERVATION, noise_of};
use super::{Diffusion, Respaced};
use crate::rng::{self, Purpose, Stream};
use crate::units::Timestep;

/// log r and its gradient, of x at any t.
pub trait LogFactor: Sync {
    /// log r(x) of sample `sample` where x is at timestep `t` (0: the data), up to a constant; writes its gradient. The step
    /// uses the gradient alone.
    fn log_r(&self, sample: usize, t: u32, x: &[f64], gradient: &mut [f64]) -> f64;
}

/// What is known.
#[derive(Clone, Copy)]
pub enum Factor<'a> {
    /// The values that are not hidden, exactly: at every step their mean is the observed one, their variance 0.
    Clamp { observed: &'a [f32], hidden: &'a [bool] },
    /// The same, at the noise of each step: after it what is not hidden is drawn from q(x_{t−1} | observed). [Lugmayr22, Eq. 8]
    Renoise { observed: &'a [f32], hidden: &'a [bool] },
    /// All values, with Gaussian noise of this standard deviation: s̃² = 1/(1/s² + 1/d²), μ̃ = s̃² (μ/s² + observed/d²); of a
    /// bit's rate c, c d/(c d + (1 − c)(1 − d)) with d the observation's own. [SohlDickstein15, Table App. 1]
    Noisy { observed: &'a [f32], deviation: f64 },
    /// Any smooth r, for a Gaussian process: N(μ + Σ ∂log r/∂x at μ, Σ). [SohlDickstein15, Table App. 1]
    Smooth(&'a dyn LogFactor),
}

/// A [`Factor`] for each example, and how many samples are drawn under it.
#[derive(Clone, Copy)]
pub struct Condition<'a> {
    /// Observations are of examples in order, `D` numbers each; a mask is `D` values, the same for all.
    pub factor: Factor<'a>,
    /// Samples of each example, one after the other.
    pub draws: usize,
    /// How often each step is made, going back up by q(x_t | x_{t−1}) in between: 1 in 2015; more let what is hidden settle
    /// under what is not. [Lugmayr22, Alg. 1]
    pub rounds: u32,
}

impl Condition<'_> {
    fn of<'a>(&self, observed: &'a [f32], sample: usize, dims: usize) -> &'a [f32] {
        &observed[sample / self.draws * dims..][..dims]
    }

    /// Draws x_T from p(x_T) r(x_T).
    pub(super) fn draw_last(&self, process: &Diffusion, stream: &Stream, sample: usize, x: &mut [f32]) {
        let dims = x.len();
        match (self.factor, process) {
            (Factor::Noisy { observed, deviation }, Diffusion::Gaussian(_)) => {
                process.draw_last(stream, sample as u32, x);
                let variance = 1.0 / (1.0 + 1.0 / (deviation * deviation));
                for (x, &y) in x.iter_mut().zip(self.of(observed, sample, dims)) {
                    *x = (variance * f64::from(y) / (deviation * deviation) + variance.sqrt() * f64::from(*x)) as f32;
                }
            }
            (Factor::Noisy { .. }, Diffusion::Binomial(d)) => {
                let mut rates = vec![d.pi; dims];
                self.bend_rates(sample, &mut rates);
                super::binomial::draw_bits(&rates, &noise_of(process, stream, sample, dims), x);
            }
            (Factor::Clamp { observed, hidden }, _) => {
                process.draw_last(stream, sample as u32, x);
                clamp(x, self.of(observed, sample, dims), hidden);
            }
            (Factor::Renoise { .. }, _) => {
                process.draw_last(stream, sample as u32, x);
                self.renoise(process, process.timesteps(), sample, &stream.lane(OBSERVATION), x);
            }
            (Factor::Smooth(_), _) => process.draw_last(stream, sample as u32, x),
        }
    }

    /// Multiplies the Gaussian step into timestep `t` by r.
    pub(super) fn bend(&self, t: u32, sample: usize, step: &mut ReverseStep) {
        let dims = step.mean.len();
        match self.factor {
            Factor::Clamp { observed, hidden } => {
                for (j, (&y, _)) in self.of(observed, sample, dims).iter().zip(hidden).enumerate().filter(|(_, (_, hidden))| !**hidden) {
                    step.mean[j] = f64::from(y);
                    step.log_variance[j] = f64::NEG_INFINITY;
                }
            }
            Factor::Noisy { observed, deviation } => {
                let precision = 1.0 / (deviation * deviation);
                for (j, &y) in self.of(observed, sample, dims).iter().enumerate() {
                    let own = (-step.log_variance[j]).exp();
                    let variance = 1.0 / (own + precision);
                    step.mean[j] = variance * (own * step.mean[j] + precision * f64::from(y));
                    step.log_variance[j] = variance.ln();
                }
            }
            Factor::Smooth(factor) => {
                let mut gradient = vec![0.0; dims];
                factor.log_r(sample, t, &step.mean, &mut gradient);
                for (j, slope) in gradient.iter().enumerate() {
                    step.mean[j] += step.log_variance[j].exp() * slope;
                }
            }
            Factor::Renoise { .. } => {}
        }
    }

    /// Multiplies the rates of bits by r.
    pub(super) fn bend_rates(&self, sample: usize, rates: &mut [f64]) {
        let dims = rates.len();
        match self.factor {
            Factor::Clamp { observed, hidden } => {
                for ((rate, &y), _) in rates.iter_mut().zip(self.of(observed, sample, dims)).zip(hidden).filter(|(_, hidden)| !**hidden) {
                    *rate = f64::from(u8::from(super::binomial::bit(y)));
                }
            }
            Factor::Noisy { observed, deviation } => {
                for (rate, &y) in rates.iter_mut().zip(self.of(observed, sample, dims)) {
                    // N(y; 1, d²) against N(y; −1, d²).
                    let (one, zero) = (logistic(2.0 * f64::from(y) / deviation.powi(2)), logistic(-2.0 * f64::from(y) / deviation.powi(2)));
                    *rate = *rate * one / (*rate * one + (1.0 - *rate) * zero);
                }
            }
            Factor::Smooth(_) | Factor::Renoise { .. } => {}
        }
    }

    /// What is observed, after going back up.
    pub(super) fn clamp_again(&self, sample: usize, x: &mut [f32]) {
        if let Factor::Clamp { observed, hidden } = self.factor {
            clamp(x, self.of(observed, sample, x.len()), hidden);
        }
    }

    /// What is observed, at the noise below the kept timestep of that index.
    pub(super) fn renoise(&self, process: &Diffusion, index: usize, sample: usize, stream: &Stream, x: &mut [f32]) {
        let Factor::Renoise { observed, hidden, .. } = self.factor else { return };
        let observed = self.of(observed, sample, x.len());
        if index == 0 {
            return clamp(x, observed, hidden);
        }
        let mut noised = vec![0.0; x.len()];
        process.q_sample(Timestep::from_index(index - 1), observed, &noise_of(process, stream, sample, x.len()), &mut noised);
        clamp(x, &noised, hidden);
    }
}

/// Writes what is not hidden into `x`.
fn clamp(x: &mut [f32], observed: &[f32], hidden: &[bool]) {
    for ((x, &y), _) in x.iter_mut().zip(observed).zip(hidden).filter(|(_, hidden)| !**hidden) {
        *x = y;
    }
}

/// Where a walk starts that samples p(x_0 | y) of y = x_0 + d · z without approximation: √ᾱ_t y is an x_t whose noise is d,
/// at the first kept t that is at least as noisy; noise is added for the little that is missing.
///
/// Gives the index of that t and x_t of `draws` samples of each observation; `None` where y is noisier than x_T.
pub fn from_observation(steps: &Respaced, observed: &[f32], deviation: f64, draws: usize, seed: u64) -> Option<(usize, Vec<f32>)> {
    let dims = steps.process.shape().dims();
    let alpha_bars = &steps.process.schedule().alpha_bars;
    let index = alpha_bars.iter().position(|ab| (1.0 - ab) / ab >= deviation * deviation)?;
    let ab = alpha_bars[index];
    let missing = (1.0 - ab - ab * deviation * deviation).max(0.0).sqrt();
    let stream = rng::stream(seed, Purpose::Sampling, 0).lane(OBSERVATION);
    let x = (0..observed.len() / dims * draws)
        .flat_map(|sample| {
            let noise = noise_of(&steps.process, &stream, sample, dims);
            let y = &observed[sample / draws * dims..][..dims];
            y.iter().zip(noise).map(|(&y, z)| (ab.sqrt() * f64::from(y) + missing * f64::from(z)) as f32).collect::<Vec<_>>()
        })
        .collect();
    Some((index, x))
}
