//! Noise schedules: from betas to every coefficient the crate uses.
//!
//! Start at [`NoiseSchedule::of`]. Host-side `f64` only: no tensors, no files.
//! Invariant: a `NoiseSchedule` that exists is valid; nobody re-checks it.

use super::spec::{FirstLogVariance, ScheduleKind, ScheduleSpec, VarianceType};
use crate::units::Timestep;
use std::f64::consts::{FRAC_PI_2, LN_2};

/// Why a schedule cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    #[error("a schedule needs at least 2 timesteps, not {timesteps}")]
    TooShort { timesteps: u32 },
    /// `t` is 1-based.
    #[error("beta at t = {t} is {beta}, but a beta must lie strictly between 0 and 1")]
    BetaOutOfRange { t: usize, beta: f64 },
    #[error("schedule \"{kind}\" needs {needs}, but T is {timesteps}: {reason}")]
    Timesteps { kind: ScheduleKind, timesteps: u32, needs: &'static str, reason: &'static str },
    #[error("`diffusion.betas` has {betas} values, but T is {timesteps}")]
    BetaCount { betas: usize, timesteps: u32 },
    #[error("-log SNR must rise from t = 1 to t = T, but goes from {first} to {last}")]
    GammaFalls { first: f64, last: f64 },
    /// `t` is 1-based.
    #[error("alpha_bar at t = {t} is {alpha_bar:.2e}, below 1e-100: no arithmetic finds a signal there")]
    NoSignal { t: usize, alpha_bar: f64 },
    /// `t` is 1-based.
    #[error("beta at t = {t} is {beta:.2e}, below 1e-12: double precision cannot tell alpha_bar there from the one before")]
    NoNoise { t: usize, beta: f64 },
    #[error("at zero terminal SNR x_T is noise alone, so a prediction of epsilon says nothing of x_0 there")]
    EpsilonWithoutSignal,
}

/// The forward process and everything derived from it. All tables have length T; index `t - 1`.
///
/// 0 < β_t < 1 and ᾱ_t falls strictly, above 0; with [`ScheduleSpec::zero_terminal_snr`] β_T is 1 and ᾱ_T is 0. Every
/// table is finite either way: they divide by 1 − ᾱ_t, never by ᾱ_t.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    /// β_t, the variance added at step t.
    pub betas: Vec<f64>,
    /// ᾱ_t = Π_{s≤t} (1 − β_s).
    pub alpha_bars: Vec<f64>,
    /// ᾱ_{t−1}, with ᾱ_0 = 1.
    pub alpha_bars_prev: Vec<f64>,
    /// β̃_t = β_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t), the variance of q(x_{t−1} | x_t, x_0); 0 at t = 1. [Ho20, Eq. 7]
    pub posterior_variances: Vec<f64>,
    /// Weight of x_0 in the posterior mean: β_t √ᾱ_{t−1} / (1 − ᾱ_t).
    pub posterior_x0_coefs: Vec<f64>,
    /// Weight of x_t in the posterior mean: (1 − ᾱ_{t−1}) √α_t / (1 − ᾱ_t).
    pub posterior_xt_coefs: Vec<f64>,
}

/// Largest beta of the schedules that are defined by ᾱ. [Nichol21, §3.2]
const MAX_BETA: f64 = 0.999;

/// First and last beta of [Ho20].
const BETA_START: f64 = 1e-4;
const BETA_END: f64 = 0.02;

/// Below this 1 − β loses its digits.
const MIN_BETA: f64 = 1e-12;

/// Below this no network finds a signal, and 1/ᾱ squared leaves the range of doubles.
const MIN_ALPHA_BAR: f64 = 1e-100;

impl NoiseSchedule {
    /// A schedule without options: [`NoiseSchedule::of`] with their defaults.
    ///
    /// # Errors
    /// As [`NoiseSchedule::of`].
    pub fn new(kind: ScheduleKind, timesteps: u32) -> Result<Self, ScheduleError> {
        Self::of(&ScheduleSpec::plain(kind, timesteps))
    }

    /// The schedule of that kind over T timesteps, u being t/T:
    ///
    /// - `linear`: 1e-4 to 0.02. [Ho20]
    /// - `linear_scaled`: the same times 1000 / T, so that x_T is noise at any T above 20. [Nichol21, code]
    /// - `quadratic`: squares of a line from √1e-4 to √0.02. [Ho20, code]
    /// - `cosine`: ᾱ(u) = cos²((u + 0.008)/1.008 · π/2), β ≤ 0.999. [Nichol21, Eq. 17]
    /// - `sigmoid`: ᾱ(u) falls as a logistic from −3 to 3, β ≤ 0.999. [Jabri22]
    /// - `jsd`: β_t = 1/(T − t + 1), so that ᾱ_t = 1 − t/T; the last, which would be 1, is 0.999, so that log(1 − β) is
    ///   finite. [SohlDickstein15, §2.4.1; Ho20, code]
    /// - `sqrt`: ᾱ(u) = 1 − √(u + 1e-4), β ≤ 0.999; it is 0 before the last step from T = 10 000 on. [Li22, App. A]
    /// - `constant`: 0.02 at every t. [Ho20, code]
    /// - `warmup10`, `warmup50`: a line from 1e-4 to 0.02 over the first ⌊T/10⌋ or ⌊T/2⌋ steps, then 0.02. [Ho20, code]
    /// - `laplace`: log SNR λ(u) = −½ sign(½ − u) ln(1 − 2 |½ − u| + 1e-6), β ≤ 0.999, where ᾱ(u) = √sigmoid(λ): diffusers'
    ///   function, square root and all.
    /// - `logsnr_linear`: −log SNR is a line from γ_min at t = 1 to γ_max at t = T, ᾱ = sigmoid(−γ): VDM's fixed schedule,
    ///   whose z_0 is our x_1, so that its ends are kept at any T. [Kingma21, code]
    /// - `explicit`: the betas themselves.
    ///
    /// [`ScheduleSpec::zero_terminal_snr`] then turns √ᾱ_t into (√ᾱ_t − √ᾱ_T) √ᾱ_1 / (√ᾱ_1 − √ᾱ_T): ᾱ_1 stays, ᾱ_T is 0.
    /// [Lin24, Alg. 1]
    ///
    /// # Errors
    /// If T is below 2, or not one the schedule exists at, or a beta is not strictly between 0 and 1 (`linear_scaled` at
    /// T ≤ 20), or nothing that a double can hold is left of the signal or changes.
    pub fn of(spec: &ScheduleSpec) -> Result<Self, ScheduleError> {
        let (kind, timesteps) = (spec.kind, spec.timesteps);
        if timesteps < 2 {
            return Err(ScheduleError::TooShort { timesteps });
        }
        let refuse = |needs, reason| Err(ScheduleError::Timesteps { kind, timesteps, needs, reason });
        let n = timesteps as usize;
        let scale = 1000.0 / n as f64;
        let betas = match kind {
            ScheduleKind::Linear => linspace(BETA_START, BETA_END, n),
            ScheduleKind::LinearScaled => linspace(BETA_START * scale, BETA_END * scale, n),
            ScheduleKind::Quadratic => linspace(BETA_START.sqrt(), BETA_END.sqrt(), n).iter().map(|b| b * b).collect(),
            ScheduleKind::Cosine => betas_of(n, |u| ((u + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2)),
            ScheduleKind::Sigmoid => {
                let (start, end) = (-3.0, 3.0);
                betas_of(n, |u| (logistic(end) - logistic(u * (end - start) + start)) / (logistic(end) - logistic(start)))
            }
            ScheduleKind::Jsd => (0..n).map(|i| (1.0 / (n - i) as f64).min(MAX_BETA)).collect(),
            ScheduleKind::Sqrt if n >= 10_000 => return refuse("fewer than 10000 timesteps", "1 - sqrt(t/T + 1e-4) is 0 before the last"),
            ScheduleKind::Sqrt => betas_of(n, |u| 1.0 - (u + 1e-4).sqrt()),
            ScheduleKind::Constant => vec![BETA_END; n],
            ScheduleKind::Warmup10 if n < 10 => return refuse("at least 10 timesteps", "a tenth of them is the warm-up"),
            ScheduleKind::Warmup10 => warmup(n, n / 10),
            ScheduleKind::Warmup50 => warmup(n, n / 2),
            ScheduleKind::Laplace => betas_of(n, |u| {
                let half = 0.5 - u;
                let log_snr = -0.5 * half.signum() * (1.0 - 2.0 * half.abs() + 1e-6).ln();
                logistic(log_snr).sqrt()
            }),
            ScheduleKind::LogSnrLinear => {
                let (first, last) = spec.gamma;
                if first >= last {
                    return Err(ScheduleError::GammaFalls { first, last });
                }
                log_snr_line(first, last, n)
            }
            ScheduleKind::Explicit if spec.betas.len() != n => {
                return Err(ScheduleError::BetaCount { betas: spec.betas.len(), timesteps });
            }
            ScheduleKind::Explicit => spec.betas.clone(),
        };
        let betas = checked(betas)?;
        if !spec.zero_terminal_snr {
            return Ok(Self::from_betas(betas));
        }
        let roots: Vec<f64> = products(&betas).iter().map(|ab| ab.sqrt()).collect();
        let (first, last) = (roots[0], roots[n - 1]);
        let moved: Vec<f64> = roots.iter().map(|root| ((root - last) * first / (first - last)).powi(2)).collect();
        // The first stays what it was to the last bit; the last is 1.
        let rescaled = (0..n).map(|i| if i == 0 { betas[0] } else { 1.0 - moved[i] / moved[i - 1] }).collect();
        Ok(Self::from_betas(rescaled))
    }

    /// The tables of betas that were [checked].
    fn from_betas(betas: Vec<f64>) -> Self {
        let alpha_bars = products(&betas);
        let alpha_bars_prev: Vec<f64> = std::iter::once(1.0).chain(alpha_bars.iter().copied()).take(betas.len()).collect();
        let table = |f: &dyn Fn(f64, f64, f64) -> f64| {
            (0..betas.len()).map(|i| f(betas[i], alpha_bars[i], alpha_bars_prev[i])).collect::<Vec<f64>>()
        };
        let posterior_variances = table(&|beta, ab, prev| beta * (1.0 - prev) / (1.0 - ab));
        let posterior_x0_coefs = table(&|beta, ab, prev| beta * prev.sqrt() / (1.0 - ab));
        let posterior_xt_coefs = table(&|beta, ab, prev| (1.0 - prev) * (1.0 - beta).sqrt() / (1.0 - ab));
        Self { betas, alpha_bars, alpha_bars_prev, posterior_variances, posterior_x0_coefs, posterior_xt_coefs }
    }

    /// T.
    pub fn timesteps(&self) -> usize {
        self.betas.len()
    }

    /// Whether x_T is noise alone: ᾱ_T = 0.
    pub fn ends_without_signal(&self) -> bool {
        self.alpha_bars.last() == Some(&0.0)
    }

    /// ᾱ_t / (1 − ᾱ_t).
    pub fn snr(&self, t: Timestep) -> f64 {
        let ab = self.alpha_bars[t.index()];
        ab / (1.0 - ab)
    }

    /// log β̃_t; at t = 1, where β̃ is 0, what `first` says.
    pub fn posterior_log_variances(&self, first: FirstLogVariance) -> Vec<f64> {
        let mut log: Vec<f64> = self.posterior_variances.iter().map(|v| v.ln()).collect();
        log[0] = match first {
            FirstLogVariance::Copy => log[1],
            FirstLogVariance::Clamp => 1e-20_f64.ln(),
        };
        log
    }

    /// The log-variance of p(x_{t−1} | x_t) where it is fixed, and the two ends of its range where it is learned:
    /// (at channel value −1, at +1).
    pub fn reverse_log_variances(&self, variance: VarianceType, first: FirstLogVariance) -> (Vec<f64>, Vec<f64>) {
        let small = self.posterior_log_variances(first);
        match variance {
            VarianceType::FixedSmall => (small.clone(), small),
            VarianceType::FixedLarge => {
                let mut large: Vec<f64> = self.betas.iter().map(|b| b.ln()).collect();
                large[0] = self.posterior_variances[1].ln();
                (large.clone(), large)
            }
            VarianceType::LearnedRange => (small, self.betas.iter().map(|b| b.ln()).collect()),
            // The line through (−1, −1) and (1, 1): the channel is the log-variance.
            VarianceType::Learned => (vec![-1.0; self.timesteps()], vec![1.0; self.timesteps()]),
        }
    }

    /// The prior term L_T in bits/dim of data whose mean square is `mean_square`:
    /// ½ (ᾱ_T (x² − 1) − ln(1 − ᾱ_T)) / ln 2.
    pub fn prior_bits_per_dim(&self, mean_square: f64) -> f64 {
        let ab = self.alpha_bars[self.timesteps() - 1];
        0.5 * (ab * (mean_square - 1.0) - (-ab).ln_1p()) / LN_2
    }
}

/// `betas`, if each lies strictly between 0 and 1 and what they leave of the signal falls at every step, above 0.
fn checked(betas: Vec<f64>) -> Result<Vec<f64>, ScheduleError> {
    // The comparison also rejects NaN.
    if let Some(i) = betas.iter().position(|beta| !(0.0 < *beta && *beta < 1.0)) {
        return Err(ScheduleError::BetaOutOfRange { t: i + 1, beta: betas[i] });
    }
    if let Some(i) = betas.iter().position(|beta| *beta < MIN_BETA) {
        return Err(ScheduleError::NoNoise { t: i + 1, beta: betas[i] });
    }
    let alpha_bars = products(&betas);
    match alpha_bars.iter().position(|ab| *ab < MIN_ALPHA_BAR) {
        Some(i) => Err(ScheduleError::NoSignal { t: i + 1, alpha_bar: alpha_bars[i] }),
        None => Ok(betas),
    }
}

/// Π_{s≤t} (1 − β_s).
fn products(betas: &[f64]) -> Vec<f64> {
    let mut product = 1.0;
    betas
        .iter()
        .map(|beta| {
            product *= 1.0 - beta;
            product
        })
        .collect()
}

/// `n` numbers from `a` to `b`, both ends included; `a` where there is one.
fn linspace(a: f64, b: f64, n: usize) -> Vec<f64> {
    (0..n).map(|i| a + (b - a) * i as f64 / (n - 1).max(1) as f64).collect()
}

/// A line over the first `rising` steps, then its end. [Ho20, code]
fn warmup(n: usize, rising: usize) -> Vec<f64> {
    let mut betas = linspace(BETA_START, BETA_END, rising);
    betas.resize(n, BETA_END);
    betas
}

/// β_t = 1 − sigmoid(−γ_t) / sigmoid(−γ_{t−1}) of a line γ, in a form that keeps the digits of small betas:
/// 1 − (1 + e^γ') / (1 + e^γ) = e^γ' expm1(γ − γ') / (1 + e^γ), γ' before γ; before the first, sigmoid is 1.
fn log_snr_line(first: f64, last: f64, n: usize) -> Vec<f64> {
    let gamma = linspace(first, last, n);
    let beta = |i: usize| match i {
        0 => logistic(gamma[0]),
        i => gamma[i - 1].exp() * (gamma[i] - gamma[i - 1]).exp_m1() / (1.0 + gamma[i].exp()),
    };
    (0..n).map(beta).collect()
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// β_t = min(1 − ᾱ(t/T) / ᾱ((t−1)/T), 0.999).
fn betas_of(n: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f64> {
    (0..n).map(|i| (1.0 - alpha_bar((i + 1) as f64 / n as f64) / alpha_bar(i as f64 / n as f64)).min(MAX_BETA)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::named::NamedEnum;
    use proptest::prelude::*;

    /// `a` and `b` agree to the digits that the reference prints.
    fn close(a: f64, b: f64, what: &str) {
        assert!((a - b).abs() <= 6e-6 * b.abs(), "{what}: {a} is not {b}");
    }

    /// Golden values: `tests/reference/schedules.py` prints this table with NumPy.
    fn zero_snr(kind: ScheduleKind, timesteps: u32) -> ScheduleSpec {
        ScheduleSpec { zero_terminal_snr: true, ..ScheduleSpec::plain(kind, timesteps) }
    }

    #[test]
    fn schedules_give_the_golden_values() {
        use ScheduleKind::*;
        #[rustfmt::skip]
        let golden = [
            // kind, T, beta_1, beta_T, abar_1, abar at index T/2, abar_T, posterior variance at t = 2
            (Linear,       1000, 1e-4,       0.02,    0.9999,      0.0777967,  4.03583e-5,  5.45319e-5),
            (LinearScaled, 4000, 2.5e-5,     0.005,   0.999975,    0.0787465,  4.24665e-5,  1.28036e-5),
            (LinearScaled, 100,  1e-3,       0.2,     0.999,       0.0666656,  2.03901e-5,  7.51194e-4),
            (Linear,       100,  1e-4,       0.02,    0.9999,      0.769291,   0.363563,    7.50686e-5),
            (Cosine,       100,  6.31282e-4, 0.999,   0.999368718, 0.478265,   2.42857e-7,  4.03489e-4),
            (Cosine,       1000, 4.12842e-5, 0.999,   0.999958716, 0.492285,   2.42877e-9,  2.17895e-5),
            (Cosine,       4000, 9.86582e-6, 0.999,   0.999990134, 0.493454,   1.51798e-10, 5.00768e-6),
            (Sigmoid,      1000, 3.00279e-4, 0.999,   0.999699721, 0.498343,   3.00279e-7,  1.50592e-4),
            (Quadratic,    1000, 1e-4,       0.02,    0.9999,      0.331275,   7.33412e-4,  5.0656e-5),
            (Jsd,          1000, 1e-3,       0.999,   0.999,       0.499,      1e-6,        5.00501e-4),
            (Sqrt,         1000, 0.0234003,  0.999,   0.97659975,  0.295066,   4.54648e-7,  8.46692e-3),
            (Constant,     1000, 0.02,       0.02,    0.98,        4.02035e-5, 1.68297e-9,  0.010101),
            (Warmup10,     1000, 1e-4,       0.02,    0.9999,      1.10214e-4, 4.61369e-9,  7.50686e-5),
            (Warmup50,     1000, 1e-4,       0.02,    0.9999,      6.22566e-3, 2.60614e-7,  5.83158e-5),
            (Laplace,      1000, 0.0211538,  0.8473,  0.978846243, 0.707283,   0.0316228,   6.22715e-3),
            (LogSnrLinear, 1000, 1.67449e-6, 0.01803, 0.999998326, 0.98434,    6.69285e-3,  3.03946e-8),
        ];
        for (kind, n, beta_first, beta_last, ab_first, ab_mid, ab_last, variance) in golden {
            let s = NoiseSchedule::new(kind, n).unwrap();
            let n = n as usize;
            let what = format!("{kind} T = {n}");
            close(s.betas[0], beta_first, &what);
            assert!((s.betas[n - 1] / beta_last - 1.0).abs() < 6e-5, "{what}: {}", s.betas[n - 1]);
            close(s.alpha_bars[0], ab_first, &what);
            close(s.alpha_bars[n / 2], ab_mid, &what);
            close(s.alpha_bars[n - 1], ab_last, &what);
            close(s.posterior_variances[1], variance, &what);
        }
        for (kind, n, ab_mid, variance) in
            [(Linear, 1000, 0.0752462, 5.46899e-5), (Cosine, 1000, 0.492265, 2.179e-5), (Linear, 100, 0.476778, 8.83543e-5)]
        {
            let s = NoiseSchedule::of(&zero_snr(kind, n)).unwrap();
            close(s.alpha_bars[n as usize / 2], ab_mid, "zero terminal SNR");
            close(s.posterior_variances[1], variance, "zero terminal SNR");
            assert_eq!(s.betas[0], NoiseSchedule::new(kind, n).unwrap().betas[0], "the first step stays");
        }
    }

    #[test]
    fn log_snr_at_both_ends_and_the_prior_term_are_golden() {
        use ScheduleKind::*;
        for (kind, n, first, last, prior) in [
            (Linear, 1000, 9.210, -10.118, 7.28e-6),
            (LinearScaled, 4000, 10.597, -10.067, 7.66e-6),
            (LinearScaled, 100, 6.907, -10.800, 3.68e-6),
            (Linear, 100, 9.210, -0.560, 0.129),
            (Cosine, 100, 7.367, -15.231, 4.4e-8),
            (Cosine, 1000, 10.095, -19.836, 4.4e-10),
            (Cosine, 4000, 11.526, -22.608, 2.7e-11),
            (Sigmoid, 1000, 8.110, -15.019, 5.4e-8),
            (Quadratic, 1000, 9.210, -7.217, 1.3e-4),
            (Jsd, 1000, 6.907, -13.816, 1.8e-7),
            (Sqrt, 1000, 3.731, -14.604, 8.2e-8),
            (Constant, 1000, 3.892, -20.203, 3e-10),
            (Warmup10, 1000, 9.210, -19.194, 8.3e-10),
            (Warmup50, 1000, 9.210, -15.160, 4.7e-8),
            (Laplace, 1000, 3.835, -3.422, 6.07e-3),
            (LogSnrLinear, 1000, 13.300, -5.000, 1.22e-3),
        ] {
            let s = NoiseSchedule::new(kind, n).unwrap();
            assert!((s.snr(Timestep::FIRST).ln() - first).abs() < 6e-4, "{kind} {n}");
            assert!((s.snr(Timestep::from_index(n as usize - 1)).ln() - last).abs() < 6e-4, "{kind} {n}");
            assert!((s.prior_bits_per_dim(0.25) / prior - 1.0).abs() < 0.03, "{kind} {n}: {}", s.prior_bits_per_dim(0.25));
        }
        let none = NoiseSchedule::of(&zero_snr(Linear, 1000)).unwrap();
        assert!(none.ends_without_signal() && none.prior_bits_per_dim(0.25) == 0.0);
        assert_eq!(none.snr(Timestep::new(1000).unwrap()), 0.0);
    }

    #[test]
    fn a_line_of_log_snr_has_the_asked_for_ends_at_every_length() {
        for (timesteps, gamma) in [(2, (-13.3, 5.0)), (50, (-20.0, 20.0)), (1000, (-13.3, 5.0)), (1000, (2.0, 2.5))] {
            let spec = ScheduleSpec { gamma, ..ScheduleSpec::plain(ScheduleKind::LogSnrLinear, timesteps) };
            let s = NoiseSchedule::of(&spec).unwrap();
            for i in 0..timesteps as usize {
                let line = gamma.0 + (gamma.1 - gamma.0) * i as f64 / f64::from(timesteps - 1);
                let log_snr = s.snr(Timestep::from_index(i)).ln();
                assert!((log_snr + line).abs() < 1e-6, "{gamma:?} at {i} of {timesteps}: {log_snr} is not {}", -line);
            }
        }
    }

    #[test]
    fn explicit_betas_are_what_they_are() {
        let betas = vec![0.1, 0.05, 0.4];
        let spec = ScheduleSpec { betas: betas.clone(), ..ScheduleSpec::plain(ScheduleKind::Explicit, 3) };
        let s = NoiseSchedule::of(&spec).unwrap();
        assert_eq!(s.betas, betas);
        assert!((s.alpha_bars[2] - 0.9 * 0.95 * 0.6).abs() < 1e-15);
        let linear = NoiseSchedule::new(ScheduleKind::Linear, 200).unwrap();
        let same = ScheduleSpec { betas: linear.betas.clone(), ..ScheduleSpec::plain(ScheduleKind::Explicit, 200) };
        assert_eq!(NoiseSchedule::of(&same).unwrap(), linear);
    }

    #[test]
    fn posterior_coefficients_are_golden() {
        let s = NoiseSchedule::new(ScheduleKind::Linear, 1000).unwrap();
        close(s.posterior_variances[487], 0.009_791_572_0, "variance 487");
        close(s.posterior_variances[999], 0.019_999_983_5, "variance 999");
        for (i, x0, xt) in
            [(1, 0.545_291_499_5, 0.454_708_499_0), (500, 0.003_058_057_08, 0.994_104_350_76), (999, 1.283_514_87e-4, 0.989_948_678_27)]
        {
            assert!((s.posterior_x0_coefs[i] / x0 - 1.0).abs() < 5e-9, "x0 {i}: {}", s.posterior_x0_coefs[i]);
            assert!((s.posterior_xt_coefs[i] / xt - 1.0).abs() < 5e-9, "x_t {i}: {}", s.posterior_xt_coefs[i]);
        }
        assert_eq!((s.posterior_variances[0], s.posterior_xt_coefs[0]), (0.0, 0.0));
        assert!((s.posterior_x0_coefs[0] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_schedule_is_refused_where_it_does_not_exist() {
        use ScheduleKind::*;
        let refused = |spec: &ScheduleSpec| NoiseSchedule::of(spec).unwrap_err();
        let plain = ScheduleSpec::plain;
        assert_eq!(NoiseSchedule::new(LinearScaled, 20), Err(ScheduleError::BetaOutOfRange { t: 20, beta: 1.0 }));
        assert_eq!(NoiseSchedule::new(Cosine, 1), Err(ScheduleError::TooShort { timesteps: 1 }));
        assert!(matches!(refused(&plain(Sqrt, 10_000)), ScheduleError::Timesteps { kind: Sqrt, timesteps: 10_000, .. }));
        assert!(matches!(refused(&plain(Warmup10, 9)), ScheduleError::Timesteps { kind: Warmup10, timesteps: 9, .. }));
        assert!(
            matches!(refused(&plain(Constant, 20_000)), ScheduleError::NoSignal { t: 11398, .. }),
            "{}",
            refused(&plain(Constant, 20_000))
        );
        assert_eq!(refused(&plain(Explicit, 5)), ScheduleError::BetaCount { betas: 0, timesteps: 5 });
        let explicit = |betas: Vec<f64>| refused(&ScheduleSpec { betas, ..plain(Explicit, 3) });
        assert_eq!(explicit(vec![0.1; 4]), ScheduleError::BetaCount { betas: 4, timesteps: 3 });
        assert_eq!(explicit(vec![0.1, 1e-13, 0.1]), ScheduleError::NoNoise { t: 2, beta: 1e-13 });
        assert_eq!(explicit(vec![0.1, 0.2, 1.0]), ScheduleError::BetaOutOfRange { t: 3, beta: 1.0 });
        assert!(matches!(explicit(vec![0.1, f64::NAN, 0.1]), ScheduleError::BetaOutOfRange { t: 2, .. }));
        let gamma = refused(&ScheduleSpec { gamma: (5.0, 5.0), ..plain(LogSnrLinear, 10) });
        assert_eq!(gamma, ScheduleError::GammaFalls { first: 5.0, last: 5.0 });
        for accepted in [plain(LinearScaled, 21), plain(Sqrt, 9999), plain(Warmup10, 10), plain(Constant, 11_000), plain(Jsd, 2)] {
            assert!(NoiseSchedule::of(&accepted).is_ok(), "{accepted:?}");
        }
    }

    /// Any schedule with any options, at any T it may or may not exist at.
    fn any_spec() -> impl Strategy<Value = ScheduleSpec> {
        let gamma = (-20.0..19.0f64, 0.1..30.0f64).prop_map(|(first, rise)| (first, (first + rise).min(20.0)));
        let betas = proptest::collection::vec(1e-5..0.9f64, 2..40);
        (0..ScheduleKind::ALL.len(), 2u32..3000, gamma, betas, any::<bool>()).prop_map(|(kind, t, gamma, betas, zero_terminal_snr)| {
            let kind = ScheduleKind::ALL[kind];
            let explicit = kind == ScheduleKind::Explicit;
            let timesteps = if explicit { betas.len() as u32 } else { t };
            ScheduleSpec { kind, timesteps, gamma, betas: if explicit { betas } else { Vec::new() }, zero_terminal_snr }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn alpha_bar_falls_at_every_step_and_the_posterior_is_narrower_than_beta(spec in any_spec()) {
            let t = spec.timesteps;
            let s = match NoiseSchedule::of(&spec) {
                Ok(s) => s,
                Err(error) => {
                    prop_assert!(match error {
                        ScheduleError::BetaOutOfRange { .. } => spec.kind == ScheduleKind::LinearScaled && t <= 20,
                        ScheduleError::Timesteps { .. } => spec.kind == ScheduleKind::Warmup10 && t < 10,
                        // A line so flat that its steps are lost in rounding.
                        ScheduleError::NoNoise { .. } => spec.kind == ScheduleKind::LogSnrLinear && spec.gamma.1 - spec.gamma.0 < 2.0,
                        _ => false,
                    }, "{error}");
                    return Ok(());
                }
            };
            prop_assert_eq!(s.timesteps(), t as usize);
            prop_assert_eq!(s.ends_without_signal(), spec.zero_terminal_snr);
            for i in 0..s.timesteps() {
                // The stated exception: nothing is left at T.
                let end = spec.zero_terminal_snr && i + 1 == s.timesteps();
                prop_assert!(0.0 < s.betas[i] && (s.betas[i] < 1.0 || end && s.betas[i] == 1.0), "beta {} at {i}", s.betas[i]);
                prop_assert!(s.alpha_bars[i] < s.alpha_bars_prev[i] && (s.alpha_bars[i] > 0.0 || end));
                prop_assert!(s.posterior_variances[i] <= s.betas[i]);
                prop_assert!(s.snr(Timestep::from_index(i)).is_finite());
                // The posterior mean of a noiseless path is the path itself: coef_x0 + coef_xt √ᾱ_t = √ᾱ_{t−1}.
                let path = s.posterior_x0_coefs[i] + s.posterior_xt_coefs[i] * s.alpha_bars[i].sqrt();
                prop_assert!((path - s.alpha_bars_prev[i].sqrt()).abs() < 1e-6, "{path} at {i}");
            }
            let (low, high) = s.reverse_log_variances(VarianceType::LearnedRange, FirstLogVariance::Copy);
            prop_assert!(low[1..].iter().zip(&high[1..]).all(|(l, h)| l <= h && l.is_finite() && h.is_finite()));
        }
    }
}
