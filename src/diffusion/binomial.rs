//! The Binomial diffusion process on bits: a forward process that flips them, and the reverse one that is learned.
//! [SohlDickstein15, Table App. 1]
//!
//! Start at [`BinomialDiffusion::new`]. An example is a slice of D bits, −1 for 0 and +1 for 1, and so is x_t: the network
//! sees what a network of a Gaussian process would see. Noise is a slice of D uniform numbers in [0, 1); a draw is
//! 1 where its number lies below the bit's probability, so schedules are paired, and a bit that survives under one
//! survives under a gentler one.
//!
//! The network puts out a logit for each bit of **x_0**, and p(x_{t−1} | x_t) = Σ_{x_0} q(x_{t−1} | x_t, x_0) p̂(x_0 | x_t)
//! bit by bit: the x_0-parameterisation of [Hoogeboom21, Eq. 15] and [Austin21, §3.3]. [SohlDickstein15] puts out the rate of x_{t−1}
//! itself; the best reverse process is the same, since given x_t the bit of x_{t−1} depends on x_0 through its own bit
//! alone, and a rate that q makes impossible cannot be put out.

use super::gaussian::SampleTerms;
use super::schedule::{NoiseSchedule, ScheduleError};
use super::spec::{DiffusionSpec, LossSpec, LossVariant};
use crate::data::Shape;
use crate::units::Timestep;
use std::f64::consts::LN_2;

/// The numbers of one timestep.
#[derive(Clone, Copy, Debug)]
struct At {
    /// ᾱ_t = Π_{s≤t} (1 − β_s): the share of bits that are still those of x_0, unless redrawn alike.
    alpha_bar: f64,
    /// q(x_{t−1} = 1 | x_t, x_0) by `[x_t][x_0]`.
    posterior: [[f64; 2]; 2],
}

/// A schedule of β_t with the probability π that a redrawn bit is 1.
#[derive(Clone, Debug)]
pub struct BinomialDiffusion {
    pub schedule: NoiseSchedule,
    pub pi: f64,
    shape: Shape,
    tables: Vec<At>,
}

impl BinomialDiffusion {
    /// # Errors
    /// Where the schedule does not exist.
    pub fn new(spec: &DiffusionSpec, shape: Shape) -> Result<Self, ScheduleError> {
        let schedule = NoiseSchedule::of(&spec.noise())?;
        let pi = spec.binomial_pi;
        let tables = (0..schedule.timesteps())
            .map(|i| {
                let posterior = |x_t: bool, x_0: bool| {
                    let before = rate(schedule.alpha_bars_prev[i], pi, x_0);
                    let now = |previous: bool| of(rate(1.0 - schedule.betas[i], pi, previous), x_t);
                    let (one, zero) = (now(true) * before, now(false) * (1.0 - before));
                    one / (one + zero)
                };
                At { alpha_bar: schedule.alpha_bars[i], posterior: [false, true].map(|x_t| [false, true].map(|x_0| posterior(x_t, x_0))) }
            })
            .collect();
        Ok(Self { schedule, pi, shape, tables })
    }

    /// T.
    pub fn timesteps(&self) -> usize {
        self.tables.len()
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// q(x_t = 1 | x_0) = ᾱ_t x_0 + (1 − ᾱ_t) π, from q(x_t = 1 | x_{t−1}) = (1 − β_t) x_{t−1} + β_t π.
    /// [SohlDickstein15, Table App. 1]
    pub fn rate(&self, t: Timestep, x_0: bool) -> f64 {
        rate(self.tables[t.index()].alpha_bar, self.pi, x_0)
    }

    /// q(x_{t−1} = 1 | x_t, x_0), by Bayes' rule over the two states of x_{t−1}; x_0 itself at t = 1.
    pub fn posterior(&self, t: Timestep, x_t: bool, x_0: bool) -> f64 {
        self.tables[t.index()].posterior[usize::from(x_t)][usize::from(x_0)]
    }

    /// Draws `x_t ~ q(x_t | x_0)`; `noise` is uniform in [0, 1).
    pub fn q_sample(&self, t: Timestep, x_0: &[f32], noise: &[f32], x_t: &mut [f32]) {
        let rates = [self.rate(t, false), self.rate(t, true)];
        for ((x, &x0), &u) in x_t.iter_mut().zip(x_0).zip(noise) {
            *x = sign(f64::from(u) < rates[usize::from(bit(x0))]);
        }
    }

    /// Draws x_T from p(x_T) = Bernoulli(π), in place of uniform numbers.
    pub fn draw_last(&self, x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = sign(f64::from(*x) < self.pi));
    }

    /// The prior term KL(q(x_T | x_0) ‖ Bernoulli(π)) of one example, in bits/dim.
    pub fn prior_bits_per_dim(&self, x_0: &[f32]) -> f64 {
        let last = self.tables[self.timesteps() - 1].alpha_bar;
        let terms = [false, true].map(|x| kl(rate(last, self.pi, x), (self.pi, 1.0 - self.pi)));
        x_0.iter().map(|&x| terms[usize::from(bit(x))]).sum::<f64>() / (x_0.len() as f64 * LN_2)
    }

    /// p(x_{t−1} = 1 | x_t) and p(x_{t−1} = 0 | x_t) where the network says p̂(x_0 = 1) and p̂(x_0 = 0).
    fn reverse(&self, t: Timestep, x_t: bool, (one, zero): (f64, f64)) -> (f64, f64) {
        let [from_zero, from_one] = self.tables[t.index()].posterior[usize::from(x_t)];
        (one * from_one + zero * from_zero, one * (1.0 - from_one) + zero * (1.0 - from_zero))
    }

    /// The errors and the term of the bound of one example:
    ///
    /// - `mse`: the Brier score of x_0, the mean over bits of (x_0 − p̂)² with bits as 0 and 1;
    /// - `x0_mse`: the share of bits that are wrong if the likelier value is taken (an even chance counts a half);
    /// - `vb`: KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)), at t = 1 −log p̂(x_0 | x_1), in bits/dim.
    pub fn terms(&self, t: Timestep, x_0: &[f32], x_t: &[f32], output: &[f32]) -> SampleTerms {
        self.visit(t, x_0, x_t, output, |_, _, _| {}).0
    }

    /// Calls `each` with (j, slope of the cross-entropy, slope of the term) in the logit, both in nats; also returns the
    /// mean cross-entropy in nats.
    fn visit(&self, t: Timestep, x_0: &[f32], x_t: &[f32], output: &[f32], mut each: impl FnMut(usize, f64, f64)) -> (SampleTerms, f64) {
        assert_eq!((x_0.len(), output.len()), (self.shape.dims(), self.shape.dims()), "example and output have the shapes of the data");
        let (mut brier, mut wrong, mut nats, mut entropy) = (0.0, 0.0, 0.0, 0.0);
        for j in 0..x_0.len() {
            let (x0, xt, logit) = (bit(x_0[j]), bit(x_t[j]), f64::from(output[j]));
            let (one, zero) = (logistic(logit), logistic(-logit));
            let cross_entropy = softplus(if x0 { -logit } else { logit });
            let entropy_slope = one - f64::from(u8::from(x0));
            let (term, slope) = if t == Timestep::FIRST {
                (cross_entropy, entropy_slope)
            } else {
                let [from_zero, from_one] = self.tables[t.index()].posterior[usize::from(xt)];
                let q = if x0 { from_one } else { from_zero };
                let p = self.reverse(t, xt, (one, zero));
                let rate_slope = (from_one - from_zero) * one * zero;
                (kl(q, p), (quotient(1.0 - q, p.1) - quotient(q, p.0)) * rate_slope)
            };
            // NaN stays NaN.
            brier += if x0 { zero * zero } else { one * one };
            wrong += if logit == 0.0 { 0.5 } else { f64::from(u8::from((logit > 0.0) != x0)) };
            nats += term;
            entropy += cross_entropy;
            each(j, entropy_slope, slope);
        }
        let dims = x_0.len() as f64;
        (SampleTerms { mse: brier / dims, x0_mse: wrong / dims, vb: nats / (dims * LN_2) }, entropy / dims)
    }

    /// The training loss of one example, and `scale` times its gradient in the output.
    ///
    /// - `simple`: the cross-entropy of x_0, −log p̂(x_0 | x_t), mean over bits, in nats: the auxiliary loss of
    ///   [Austin21, Eq. 5] by itself. It has the minimum of the bound, with other weights on t.
    /// - `vlb`: T · (term of the bound at t, bits/dim), as for a Gaussian kernel.
    ///
    /// There is no variance to learn, so no `hybrid`: configurations that ask for it are refused.
    #[expect(clippy::too_many_arguments, reason = "the arguments are the paper's symbols")]
    pub fn loss_and_gradient(
        &self,
        loss: &LossSpec,
        t: Timestep,
        x_0: &[f32],
        x_t: &[f32],
        output: &[f32],
        scale: f64,
        gradient: &mut [f32],
    ) -> (f64, SampleTerms) {
        let (simple, bound) = match loss.variant {
            LossVariant::Simple => (1.0, 0.0),
            LossVariant::Vlb | LossVariant::Hybrid => (0.0, loss.horizon(self.timesteps())),
        };
        let scale = scale / x_0.len() as f64;
        let (terms, entropy) = self.visit(t, x_0, x_t, output, |j, entropy_slope, slope| {
            gradient[j] = (scale * (simple * entropy_slope + bound / LN_2 * slope)) as f32;
        });
        (simple * entropy + if bound > 0.0 { bound * terms.vb } else { 0.0 }, terms)
    }

    /// One step of the reverse process, in place: x_{t−1} ~ p(x_{t−1} | x_t), at t = 1 a draw of x_0; `noise` is uniform.
    pub fn p_sample(&self, t: Timestep, x: &mut [f32], output: &[f32], noise: &[f32]) {
        for ((x, &logit), &u) in x.iter_mut().zip(output).zip(noise) {
            let says = (logistic(f64::from(logit)), logistic(-f64::from(logit)));
            *x = sign(f64::from(u) < self.reverse(t, bit(*x), says).0);
        }
    }
}

/// The probability of 1 where a bit is kept with probability `kept` and else redrawn.
fn rate(kept: f64, pi: f64, x: bool) -> f64 {
    if x { kept + (1.0 - kept) * pi } else { (1.0 - kept) * pi }
}

/// The probability of `x` where that of 1 is `rate`.
fn of(rate: f64, x: bool) -> f64 {
    if x { rate } else { 1.0 - rate }
}

/// Bits as the network sees them.
pub(super) fn bit(x: f32) -> bool {
    x > 0.0
}

fn sign(x: bool) -> f32 {
    if x { 1.0 } else { -1.0 }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// log(1 + e^x), exact at both ends.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// KL(Bernoulli(q) ‖ Bernoulli(p)) in nats, `p` given as the probabilities of 1 and of 0.
fn kl(q: f64, (one, zero): (f64, f64)) -> f64 {
    let part = |q: f64, p: f64| if q == 0.0 { 0.0 } else { q * (q / p).ln() };
    part(q, one) + part(1.0 - q, zero)
}

/// q / p, and 0 where q is: both vanish together where a state is impossible.
fn quotient(q: f64, p: f64) -> f64 {
    if q == 0.0 { 0.0 } else { q / p }
}
