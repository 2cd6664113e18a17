//! Noise schedules: from betas to every coefficient the crate uses.
//!
//! Start at [`NoiseSchedule::new`]. Host-side `f64` only: no tensors, no files.
//! Invariant: a `NoiseSchedule` that exists is valid; nobody re-checks it.

use super::spec::{FirstLogVariance, ScheduleKind, VarianceType};
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
}

/// The forward process and everything derived from it. All tables have length T; index `t - 1`.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    pub kind: ScheduleKind,
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

impl NoiseSchedule {
    /// The schedule of that kind over T timesteps.
    ///
    /// - `linear`: 1e-4 to 0.02. [Ho20]
    /// - `linear_scaled`: the same times 1000 / T, so that x_T is noise at any T above 20. [Nichol21, code]
    /// - `quadratic`: squares of a line from √1e-4 to √0.02. [Ho20, code]
    /// - `cosine`: ᾱ(u) = cos²((u + 0.008)/1.008 · π/2), β ≤ 0.999. [Nichol21, Eq. 17]
    /// - `sigmoid`: ᾱ(u) falls as a logistic from −3 to 3, β ≤ 0.999. [Jabri22]
    /// - `jsd`: β_t = 1/(T − t + 1), so that ᾱ_t = 1 − t/T; β ≤ 0.999. [SohlDickstein15, §2.4.1; Ho20, code]
    ///
    /// # Errors
    /// If T is below 2, or a beta is not strictly between 0 and 1 (`linear_scaled` at T ≤ 20).
    pub fn new(kind: ScheduleKind, timesteps: u32) -> Result<Self, ScheduleError> {
        if timesteps < 2 {
            return Err(ScheduleError::TooShort { timesteps });
        }
        let n = timesteps as usize;
        let scale = 1000.0 / n as f64;
        let betas = match kind {
            ScheduleKind::Linear => linspace(1e-4, 0.02, n),
            ScheduleKind::LinearScaled => linspace(1e-4 * scale, 0.02 * scale, n),
            ScheduleKind::Quadratic => linspace(1e-4_f64.sqrt(), 0.02_f64.sqrt(), n).iter().map(|b| b * b).collect(),
            ScheduleKind::Cosine => betas_of(n, |u| ((u + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2)),
            ScheduleKind::Sigmoid => {
                let (start, end) = (-3.0, 3.0);
                betas_of(n, |u| (logistic(end) - logistic(u * (end - start) + start)) / (logistic(end) - logistic(start)))
            }
            ScheduleKind::Jsd => (0..n).map(|i| (1.0 / (n - i) as f64).min(MAX_BETA)).collect(),
        };
        Self::from_betas(kind, betas)
    }

    pub(super) fn from_betas(kind: ScheduleKind, betas: Vec<f64>) -> Result<Self, ScheduleError> {
        // The comparison also rejects NaN.
        if let Some(i) = betas.iter().position(|beta| !(0.0 < *beta && *beta < 1.0)) {
            return Err(ScheduleError::BetaOutOfRange { t: i + 1, beta: betas[i] });
        }
        let mut product = 1.0;
        let alpha_bars: Vec<f64> = betas
            .iter()
            .map(|beta| {
                product *= 1.0 - beta;
                product
            })
            .collect();
        let alpha_bars_prev: Vec<f64> = std::iter::once(1.0).chain(alpha_bars.iter().copied()).take(betas.len()).collect();
        let table = |f: &dyn Fn(f64, f64, f64) -> f64| {
            (0..betas.len()).map(|i| f(betas[i], alpha_bars[i], alpha_bars_prev[i])).collect::<Vec<f64>>()
        };
        let posterior_variances = table(&|beta, ab, prev| beta * (1.0 - prev) / (1.0 - ab));
        let posterior_x0_coefs = table(&|beta, ab, prev| beta * prev.sqrt() / (1.0 - ab));
        let posterior_xt_coefs = table(&|beta, ab, prev| (1.0 - prev) * (1.0 - beta).sqrt() / (1.0 - ab));
        Ok(Self { kind, betas, alpha_bars, alpha_bars_prev, posterior_variances, posterior_x0_coefs, posterior_xt_coefs })
    }

    /// The schedule over the timesteps `kept` alone, ascending: β'_k = 1 − ᾱ_{t_k} / ᾱ_{t_{k−1}}. [Nichol21, §4]
    ///
    /// # Errors
    /// If fewer than two are kept, or they do not ascend.
    pub fn respaced(&self, kept: &[Timestep]) -> Result<Self, ScheduleError> {
        if kept.len() < 2 {
            return Err(ScheduleError::TooShort { timesteps: kept.len() as u32 });
        }
        let mut before = 1.0;
        let betas = kept.iter().map(|t| {
            let alpha_bar = self.alpha_bars[t.index()];
            1.0 - alpha_bar / std::mem::replace(&mut before, alpha_bar)
        });
        Self::from_betas(self.kind, betas.collect())
    }

    /// T.
    pub fn timesteps(&self) -> usize {
        self.betas.len()
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
        }
    }

    /// The prior term L_T in bits/dim of data whose mean square is `mean_square`:
    /// ½ (ᾱ_T (x² − 1) − ln(1 − ᾱ_T)) / ln 2.
    pub fn prior_bits_per_dim(&self, mean_square: f64) -> f64 {
        let ab = self.alpha_bars[self.timesteps() - 1];
        0.5 * (ab * (mean_square - 1.0) - (-ab).ln_1p()) / LN_2
    }
}

/// `n` numbers from `a` to `b`, both ends included.
fn linspace(a: f64, b: f64, n: usize) -> Vec<f64> {
    (0..n).map(|i| a + (b - a) * i as f64 / (n - 1) as f64).collect()
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
    #[test]
    fn schedules_give_the_golden_values() {
        use ScheduleKind::*;
        #[rustfmt::skip]
        let golden = [
            // kind, T, beta_1, beta_T, abar_1, abar at index T/2, abar_T, posterior variance at t = 2
            (Linear,       1000, 1e-4,       0.02,  0.9999,      0.0777967, 4.03583e-5,  5.45319e-5),
            (LinearScaled, 4000, 2.5e-5,     0.005, 0.999975,    0.0787465, 4.24665e-5,  1.28036e-5),
            (LinearScaled, 100,  1e-3,       0.2,   0.999,       0.0666656, 2.03901e-5,  7.51194e-4),
            (Linear,       100,  1e-4,       0.02,  0.9999,      0.769291,  0.363563,    7.50686e-5),
            (Cosine,       100,  6.31282e-4, 0.999, 0.999368718, 0.478265,  2.42857e-7,  4.03489e-4),
            (Cosine,       1000, 4.12842e-5, 0.999, 0.999958716, 0.492285,  2.42877e-9,  2.17895e-5),
            (Cosine,       4000, 9.86582e-6, 0.999, 0.999990134, 0.493454,  1.51798e-10, 5.00768e-6),
            (Sigmoid,      1000, 3.00279e-4, 0.999, 0.999699721, 0.498343,  3.00279e-7,  1.50592e-4),
            (Quadratic,    1000, 1e-4,       0.02,  0.9999,      0.331275,  7.33412e-4,  5.0656e-5),
        ];
        for (kind, n, beta_first, beta_last, ab_first, ab_mid, ab_last, variance) in golden {
            let s = NoiseSchedule::new(kind, n).unwrap();
            let n = n as usize;
            let what = format!("{kind} T = {n}");
            close(s.betas[0], beta_first, &what);
            close(s.betas[n - 1], beta_last, &what);
            close(s.alpha_bars[0], ab_first, &what);
            close(s.alpha_bars[n / 2], ab_mid, &what);
            close(s.alpha_bars[n - 1], ab_last, &what);
            close(s.posterior_variances[1], variance, &what);
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
            (Cosine, 1000, 10.095, -19.836, 4.4e-10),
            (Sigmoid, 1000, 8.110, -15.019, 5.4e-8),
            (Quadratic, 1000, 9.210, -7.217, 1.3e-4),
        ] {
            let s = NoiseSchedule::new(kind, n).unwrap();
            assert!((s.snr(Timestep::FIRST).ln() - first).abs() < 6e-4, "{kind} {n}");
            assert!((s.snr(Timestep::from_index(n as usize - 1)).ln() - last).abs() < 6e-4, "{kind} {n}");
            assert!((s.prior_bits_per_dim(0.25) / prior - 1.0).abs() < 0.03, "{kind} {n}: {}", s.prior_bits_per_dim(0.25));
        }
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
    fn a_scaled_line_is_refused_where_its_last_beta_reaches_one() {
        assert_eq!(NoiseSchedule::new(ScheduleKind::LinearScaled, 20), Err(ScheduleError::BetaOutOfRange { t: 20, beta: 1.0 }));
        assert!(NoiseSchedule::new(ScheduleKind::LinearScaled, 21).is_ok());
        assert_eq!(NoiseSchedule::new(ScheduleKind::Cosine, 1), Err(ScheduleError::TooShort { timesteps: 1 }));
    }

    proptest! {
        #[test]
        fn alpha_bar_falls_at_every_step_and_the_posterior_is_narrower_than_beta(kind in 0..ScheduleKind::ALL.len(), t in 2u32..3000) {
            let kind = ScheduleKind::ALL[kind];
            let Ok(s) = NoiseSchedule::new(kind, t) else {
                prop_assert!(kind == ScheduleKind::LinearScaled && t <= 20);
                return Ok(());
            };
            prop_assert_eq!(s.timesteps(), t as usize);
            for i in 0..s.timesteps() {
                prop_assert!(0.0 < s.betas[i] && s.betas[i] < 1.0);
                prop_assert!(s.alpha_bars[i] < s.alpha_bars_prev[i] && s.alpha_bars[i] > 0.0);
                prop_assert!(s.posterior_variances[i] <= s.betas[i]);
                // The posterior mean of a noiseless path is the path itself: coef_x0 + coef_xt √ᾱ_t = √ᾱ_{t−1}.
                let path = s.posterior_x0_coefs[i] + s.posterior_xt_coefs[i] * s.alpha_bars[i].sqrt();
                prop_assert!((path - s.alpha_bars_prev[i].sqrt()).abs() < 1e-9);
            }
            let (low, high) = s.reverse_log_variances(VarianceType::LearnedRange, FirstLogVariance::Copy);
            prop_assert!(low[1..].iter().zip(&high[1..]).all(|(l, h)| l <= h));
        }
    }
}
