//! What a process is bound to cost before anything is trained.
//!
//! Start at [`Preflight::of`]. Everything is a closed form or a quadrature over the noise; nothing depends on a network.

use super::decoder::Decoder;
use super::schedule::{NoiseSchedule, ScheduleError};
use super::spec::{DiffusionSpec, Kernel, Prediction, VarianceType};
use super::{BinomialDiffusion, LossVariant};
use crate::data::{Encoding, Shape};
use std::f64::consts::{LN_2, PI};

/// What a schedule leaves of the signal, what a fixed variance costs at t = 1, and where a network starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preflight {
    /// ᾱ_T: the share of the signal's power that is left in x_T.
    pub alpha_bar_last: f64,
    /// L_T in bits/dim, of data of mean square ¼ (images), 1 (points), or of bits that are as often 0 as 1.
    pub prior: f64,
    /// L_0 under an exact mean, where the variance is fixed and values are discrete: no network gets below it.
    pub decoder_floor: Option<f64>,
    /// Where a network starts that puts out 0; of a Gaussian kernel.
    pub zero: Option<ZeroNetwork>,
}

/// The expected bound of a network that puts out 0, x̂_0 unclipped as training sees it, for an interior value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ZeroNetwork {
    pub bits_per_dim: f64,
    /// The term at t = T by itself.
    pub last: f64,
}

impl Preflight {
    /// # Errors
    /// Where the schedule does not exist.
    pub fn of(spec: &DiffusionSpec, encoding: Encoding) -> Result<Self, ScheduleError> {
        let schedule = NoiseSchedule::of(&spec.noise())?;
        let alpha_bar_last = *schedule.alpha_bars.last().expect("a schedule has timesteps");
        if spec.kernel == Kernel::Binomial {
            // Of bits that are as often 0 as 1; a decoder of bits has no floor.
            let process = BinomialDiffusion::new(spec, Shape { height: 1, width: 2, channels: 1 })?;
            return Ok(Self { alpha_bar_last, prior: process.prior_bits_per_dim(&[-1.0, 1.0]), decoder_floor: None, zero: None });
        }
        let mean_square = if encoding == Encoding::Continuous { 1.0 } else { 0.25 };
        let prior = schedule.prior_bits_per_dim(mean_square);
        let decoder = Decoder::new(encoding, spec.decoder_cdf);
        let (low, high) = schedule.reverse_log_variances(spec.variance, spec.first_log_variance);
        let decoder_floor = match (encoding, spec.variance) {
            // A mass of 1 has −log 1 = −0.
            (Encoding::Discrete { .. }, VarianceType::FixedSmall | VarianceType::FixedLarge) => {
                Some((decoder.nats(interior(encoding), interior(encoding), low[0]).0 / LN_2).max(0.0))
            }
            _ => None,
        };

        let posterior = schedule.posterior_log_variances(spec.first_log_variance);
        let (mut nats, mut last) = (0.0, 0.0);
        for i in 0..schedule.timesteps() {
            let ab = schedule.alpha_bars[i];
            // E (x_0 − x̂_0)² of an output of 0.
            let error = match spec.prediction {
                Prediction::Epsilon => (1.0 - ab) / ab,
                Prediction::X0 => mean_square,
                Prediction::V => (1.0 - ab).powi(2) * mean_square + ab * (1.0 - ab),
                Prediction::Mean => {
                    let ratio = schedule.posterior_xt_coefs[i] / schedule.posterior_x0_coefs[i];
                    (1.0 + ratio * ab.sqrt()).powi(2) * mean_square + ratio * ratio * (1.0 - ab)
                }
            };
            // A variance channel at 0 is in the middle of its range.
            let log_variance = 0.5 * (low[i] + high[i]);
            last = if i == 0 {
                expected_decoder(&decoder, interior(encoding), error.sqrt(), log_variance)
            } else {
                let c = schedule.posterior_x0_coefs[i];
                0.5 * (log_variance - posterior[i] - 1.0 + (posterior[i] - log_variance).exp() + c * c * error * (-log_variance).exp())
            };
            nats += last;
        }
        Ok(Self { alpha_bar_last, prior, decoder_floor, zero: Some(ZeroNetwork { bits_per_dim: prior + nats / LN_2, last: last / LN_2 }) })
    }

    /// What a careful reader would object to. `clipped` says whether evaluations clip x̂_0.
    pub fn warnings(&self, spec: &DiffusionSpec, loss: LossVariant, clipped: bool) -> Vec<String> {
        let (schedule, timesteps) = (spec.noise(), spec.timesteps);
        let mut out = Vec::new();
        if self.alpha_bar_last > 0.005 {
            out.push(format!(
                "{schedule} at T = {timesteps} leaves abar_T = {}: x_T is not noise, so samples start from the wrong distribution and L_T is {} bits/dim; linear_scaled keeps abar_T at any T",
                short(self.alpha_bar_last),
                short(self.prior)
            ));
        }
        if let Some(floor) = self.decoder_floor.filter(|f| *f > 1.0) {
            out.push(format!(
                "{schedule} at T = {timesteps} with {} pays at least {floor:.2} bits/dim at t = 1 whatever the network; more timesteps, another schedule or learned_range lower it",
                spec.variance
            ));
        }
        if let Some(zero) = self.zero.filter(|z| z.last > 0.5 * z.bits_per_dim) {
            // Clipping takes the step's sting: x̂_0 cannot be off by more than 2.
            let (who, what) = match (loss, clipped) {
                (LossVariant::Simple, true) => return out,
                (LossVariant::Simple, false) => ("every evaluation", "early ones say little else, and their plots want a logarithmic axis"),
                _ => ("training on the bound", "its first steps learn t = T and little else"),
            };
            out.push(format!(
                "{schedule} at T = {timesteps}: the last step (beta = 0.999) weighs {:.0} of the {:.0} bits/dim of a network that says 0, so {who} begins with it: {what}",
                zero.last, zero.bits_per_dim
            ));
        }
        out
    }
}

/// A value that is neither the lowest nor the highest, near the middle.
fn interior(encoding: Encoding) -> f64 {
    match encoding {
        // The level just above the middle, or the middle itself. (Of two levels both are outer ones.)
        Encoding::Discrete { levels } => 2.0 * f64::from(levels / 2) / f64::from(levels - 1) - 1.0,
        Encoding::Continuous => 0.0,
    }
}

/// E −log p(x | x + deviation · ε, log-variance) over ε ~ N(0, 1), in nats: the midpoint rule on ±8.
fn expected_decoder(decoder: &Decoder, x: f64, deviation: f64, log_variance: f64) -> f64 {
    let (n, width) = (2000, 16.0 / 2000.0);
    (0..n)
        .map(|k| {
            let eps = -8.0 + width * (f64::from(k) + 0.5);
            (-0.5 * eps * eps).exp() / (2.0 * PI).sqrt() * width * decoder.nats(x, x + deviation * eps, log_variance).0
        })
        .sum()
}

fn short(x: f64) -> String {
    if (1e-3..1e4).contains(&x) { format!("{x:.4}") } else { format!("{x:.2e}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::ScheduleKind;

    fn spec(schedule: ScheduleKind, timesteps: u32, variance: VarianceType) -> DiffusionSpec {
        DiffusionSpec::plain(schedule, timesteps, variance)
    }

    const IMAGES: Encoding = Encoding::Discrete { levels: 256 };

    /// Golden values: `tests/reference/schedules.py`.
    #[test]
    fn floors_of_the_decoder_and_bounds_of_zero_are_golden() {
        use ScheduleKind::*;
        use VarianceType::*;
        for (schedule, timesteps, floor, small, large) in [
            (Linear, 1000, 1.306, 17.191, Some(16.509)),
            (LinearScaled, 4000, 0.461, 16.870, Some(16.365)),
            (LinearScaled, 100, 3.136, 19.531, Some(17.470)),
            (Cosine, 1000, 0.740, 741.69, None),
            (Cosine, 100, f64::NAN, 739.11, None),
            (Cosine, 4000, 0.120, f64::NAN, None),
        ] {
            let of = |variance| Preflight::of(&spec(schedule, timesteps, variance), IMAGES).unwrap();
            let what = format!("{schedule} T = {timesteps}");
            let (s, l) = (of(FixedSmall), of(FixedLarge));
            if !floor.is_nan() {
                assert!((s.decoder_floor.unwrap() - floor).abs() < 6e-4, "{what}: {s:?}");
                assert_eq!(s.decoder_floor, l.decoder_floor, "both fixed variances are that of t = 2 at t = 1");
            }
            let close = |p: Preflight, golden: f64| (p.zero.unwrap().bits_per_dim / golden - 1.0).abs() < 6e-5;
            assert!(small.is_nan() || close(s, small), "{what}: {s:?}");
            assert!(large.is_none_or(|large| close(l, large)), "{what}: {l:?}");
        }
        assert_eq!(Preflight::of(&spec(Linear, 1000, LearnedRange), IMAGES).unwrap().decoder_floor, None);
        assert_eq!(Preflight::of(&spec(Linear, 1000, FixedSmall), Encoding::Continuous).unwrap().decoder_floor, None);
    }

    #[test]
    fn predictions_that_agree_at_zero_agree_in_the_bound() {
        // x̂_0 of an output of 0 is x_t/√ᾱ, 0 or √ᾱ x_t: the errors meet where ᾱ makes them the same.
        let bound = |prediction| {
            let spec = DiffusionSpec { prediction, ..spec(ScheduleKind::Cosine, 1000, VarianceType::FixedSmall) };
            Preflight::of(&spec, IMAGES).unwrap().zero.unwrap()
        };
        let (eps, x0, v) = (bound(Prediction::Epsilon), bound(Prediction::X0), bound(Prediction::V));
        assert!(eps.last > 700.0 && x0.last < 1e-3 && v.last < 1e-3, "only dividing by √ᾱ_T blows up: {eps:?} {x0:?} {v:?}");
        assert!(v.bits_per_dim < x0.bits_per_dim, "√ᾱ x_t is a better guess at small t than 0");
    }

    #[test]
    fn warnings_are_for_what_is_wrong() {
        use ScheduleKind::*;
        let said = |schedule, timesteps, loss, clipped| {
            let spec = spec(schedule, timesteps, VarianceType::FixedSmall);
            Preflight::of(&spec, IMAGES).unwrap().warnings(&spec, loss, clipped).join("\n")
        };
        assert_eq!(said(LinearScaled, 4000, LossVariant::Vlb, true), "");
        assert!(said(Linear, 100, LossVariant::Simple, true).contains("abar_T = 0.3636"));
        assert!(said(LinearScaled, 100, LossVariant::Simple, true).contains("at least 3.14 bits/dim"));
        assert_eq!(said(Cosine, 1000, LossVariant::Simple, true), "");
        let bound = said(Cosine, 1000, LossVariant::Vlb, true);
        assert!(bound.contains("of the 742 bits/dim") && bound.contains("training on the bound begins with it"), "{bound}");
        assert!(said(Cosine, 1000, LossVariant::Simple, false).contains("logarithmic axis"));
    }
}
