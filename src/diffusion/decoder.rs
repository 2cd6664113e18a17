//! −log p(x_0 | x_1): the discretised Gaussian of images, the plain density of continuous data.
//!
//! Start at [`Decoder::nats`]. The published code's convention, kept so that figures compare: probabilities are clamped at
//! 1e-12, so that no element costs more than 39.86 bits. Where the clamp bites the true cost is larger, so the sum is then no
//! bound; it bites where x̂_0 is off by seven deviations and more, as at t = 1 of a network that has not learned anything.
//! Above the clamp both distribution functions are exact to f64 in both tails: the difference of two values near 1 is taken
//! from the other side. Their tails differ, though: where erf has e^−28, the tanh form has e^−38.

use super::spec::DecoderCdf;
use crate::data::Encoding;
use std::f64::consts::{FRAC_2_SQRT_PI, PI, SQRT_2};

/// The smallest probability of a bin. [Ho20, code]
const MIN_PROBABILITY: f64 = 1e-12;

/// The decoder of one data set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decoder {
    pub(super) encoding: Encoding,
    pub(super) cdf: DecoderCdf,
}

impl Decoder {
    pub fn new(encoding: Encoding, cdf: DecoderCdf) -> Self {
        Self { encoding, cdf }
    }

    /// Half the distance between two levels; `None` of continuous values.
    pub fn half_bin(&self) -> Option<f64> {
        match self.encoding {
            Encoding::Discrete { levels } => Some(1.0 / f64::from(levels - 1)),
            Encoding::Continuous => None,
        }
    }

    /// −log p(x | mean, log-variance) of one element in nats, and its slopes in the mean and in the log-variance.
    ///
    /// Discrete values: the Gaussian's mass in the bin of half-width 1/(levels − 1) around `x`, the outer bins open.
    /// [Ho20, Eq. 13] Continuous values: the density.
    pub fn nats(&self, x: f64, mean: f64, log_variance: f64) -> (f64, f64, f64) {
        let inverse_deviation = (-0.5 * log_variance).exp();
        let Encoding::Discrete { levels } = self.encoding else {
            let z = (x - mean) * inverse_deviation;
            return (0.5 * ((2.0 * PI).ln() + log_variance + z * z), -z * inverse_deviation, 0.5 * (1.0 - z * z));
        };
        let half_bin = 1.0 / f64::from(levels - 1);
        let upper = (x - mean + half_bin) * inverse_deviation;
        let lower = (x - mean - half_bin) * inverse_deviation;
        let (lowest, highest) = (x < -1.0 + half_bin, x > 1.0 - half_bin);
        let above = |z: f64| self.distribution(-z).0;
        let (below_upper, density_upper) = if highest { (1.0, 0.0) } else { self.distribution(upper) };
        let (below_lower, density_lower) = if lowest { (0.0, 0.0) } else { self.distribution(lower) };
        let probability = match (lowest, highest) {
            (true, _) => below_upper,
            (_, true) => above(lower),
            // Above the mean both values are near 1; the mirrored difference keeps the digits.
            _ if lower > 0.0 => above(lower) - above(upper),
            _ => below_upper - below_lower,
        };
        if probability < MIN_PROBABILITY {
            return (-MIN_PROBABILITY.ln(), 0.0, 0.0);
        }
        let slope_mean = (density_upper - density_lower) * inverse_deviation / probability;
        let slope_log_variance = 0.5 * (density_upper * upper - density_lower * lower) / probability;
        (-probability.ln(), slope_mean, slope_log_variance)
    }

    /// The distribution function at `z` and its derivative.
    fn distribution(&self, z: f64) -> (f64, f64) {
        match self.cdf {
            DecoderCdf::Erf => (0.5 * libm::erfc(-z / SQRT_2), 0.5 * FRAC_2_SQRT_PI / SQRT_2 * (-0.5 * z * z).exp()),
            DecoderCdf::Tanh => {
                let c = (2.0 / PI).sqrt();
                let inner = c * (z + 0.044_715 * z.powi(3));
                // ½ (1 + tanh u) = 1 / (1 + e^{−2u}), which keeps its digits in the lower tail; its slope is even in u.
                let value = 1.0 / (1.0 + (-2.0 * inner).exp());
                let e = (-2.0 * inner.abs()).exp();
                let slope = 2.0 * e / (1.0 + e).powi(2) * c * (1.0 + 3.0 * 0.044_715 * z * z);
                (value, if slope.is_finite() { slope } else { 0.0 })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoders() -> [Decoder; 4] {
        [
            Decoder::new(Encoding::Discrete { levels: 256 }, DecoderCdf::Tanh),
            Decoder::new(Encoding::Discrete { levels: 17 }, DecoderCdf::Erf),
            Decoder::new(Encoding::Discrete { levels: 17 }, DecoderCdf::Tanh),
            Decoder::new(Encoding::Continuous, DecoderCdf::Erf),
        ]
    }

    #[test]
    fn bins_sum_to_one() {
        for (decoder, levels) in decoders()[..3].iter().zip([256, 17, 17]) {
            for (mean, log_variance) in [(0.0, -2.0), (0.93, -4.0), (-1.3, 0.0), (0.2, 3.0)] {
                let total: f64 = (0..levels)
                    .map(|v| (-decoder.nats(2.0 * f64::from(v) / f64::from(levels - 1) - 1.0, mean, log_variance).0).exp())
                    .sum();
                // Bins at the clamp add up to 256e-12 at most.
                assert!((total - 1.0).abs() < 1e-9, "{decoder:?} {mean} {log_variance}: {total}");
            }
        }
    }

    #[test]
    fn slopes_equal_finite_differences() {
        for decoder in decoders() {
            for x in [-1.0, -0.5, 0.0, 0.375, 1.0] {
                for (mean, log_variance) in [(0.1, -3.0), (-0.9, -1.0), (1.1, -2.0), (0.3, 0.5)] {
                    let h = 1e-5;
                    let (_, slope_mean, slope_lv) = decoder.nats(x, mean, log_variance);
                    let numeric = |f: &dyn Fn(f64) -> f64| (f(h) - f(-h)) / (2.0 * h);
                    let numeric_mean = numeric(&|d| decoder.nats(x, mean + d, log_variance).0);
                    let numeric_lv = numeric(&|d| decoder.nats(x, mean, log_variance + d).0);
                    assert!((slope_mean - numeric_mean).abs() < 1e-5 * (1.0 + slope_mean.abs()), "{decoder:?} {x} {mean} {log_variance}");
                    assert!((slope_lv - numeric_lv).abs() < 1e-5 * (1.0 + slope_lv.abs()), "{decoder:?} {x} {mean} {log_variance}");
                }
            }
        }
    }

    #[test]
    fn an_impossible_value_costs_the_published_cap() {
        let (nats, slope, _) = decoders()[0].nats(-1.0, 1.0, -10.0);
        assert!((nats / std::f64::consts::LN_2 - 39.863).abs() < 1e-3);
        assert_eq!(slope, 0.0);
    }

    /// Golden values: `tests/reference/decoder_tails.py`, at 60 digits.
    #[test]
    #[expect(clippy::excessive_precision, reason = "as the program prints them")]
    fn the_tails_are_exact_down_to_the_clamp() {
        const PIXEL: f64 = 1.0 / 255.0;
        let [tanh, _, _, _] = decoders();
        let erf = Decoder::new(Encoding::Discrete { levels: 256 }, DecoderCdf::Erf);
        for (x, mean, log_variance, erf_nats, tanh_nats) in [
            (PIXEL, PIXEL, -9.0, 1.2876521916792369, 1.2877483480077122),
            (PIXEL, 0.05, -9.0, 9.560105159132291, 9.97939856422374),
            (PIXEL, -0.05, -9.0, 12.625236010019201, 13.697446156194902),
            (PIXEL, 0.069, -9.0, 17.823044965756125, 20.691912176438954),
            (PIXEL, -0.06, -9.0, 17.238260574312647, 19.86318989348819),
            (PIXEL, 0.5, -4.0, 10.483448840140042, 10.711995637586405),
            (PIXEL, -0.6, -4.0, 13.720963091360248, 14.537824097336702),
            (PIXEL, 0.3, 6.0, 8.767163550884016, 8.767164088590912),
            (-1.0, -0.95, -9.0, 10.995278791922578, 11.711056877556951),
            (-1.0, -0.99, -9.0, 1.2305447586992558, 1.2303957513046607),
            (-1.0, 0.5, -3.0, 25.321143597753091, 32.208135956474746),
            (1.0, 0.94, -9.0, 15.315167263795733, 17.23428347352843),
            (1.0, 1.2, -9.0, 0.0, 0.0),
            (1.0, -0.6, -3.0, 28.488772953933036, 37.531009445153319),
        ] {
            for (decoder, exact) in [(erf, erf_nats), (tanh, tanh_nats)] {
                let (nats, slope, _) = decoder.nats(x, mean, log_variance);
                let (wanted, clamped) = (f64::min(exact, -MIN_PROBABILITY.ln()), exact > -MIN_PROBABILITY.ln());
                assert!((nats - wanted).abs() < 1e-10 * (1.0 + wanted), "{decoder:?} {x} {mean} {log_variance}: {nats}, not {wanted}");
                // In the middle of a bin the slope is 0 too.
                assert!(if clamped { slope == 0.0 } else { slope != 0.0 || x == mean }, "{decoder:?} {x} {mean}: {slope}");
            }
        }
    }

    #[test]
    fn slopes_in_the_tails_equal_finite_differences() {
        // At masses down to e^−25, where 1 − Φ computed from Φ would have few digits left.
        for decoder in [decoders()[0], Decoder::new(Encoding::Discrete { levels: 256 }, DecoderCdf::Erf)] {
            for side in [-1.0, 1.0] {
                for offset in [0.05, 0.06, 0.07] {
                    let mean = 1.0 / 255.0 + side * offset;
                    let nats = |d: f64| decoder.nats(1.0 / 255.0, mean + d, -9.0).0;
                    let (value, slope, _) = decoder.nats(1.0 / 255.0, mean, -9.0);
                    let numeric = (nats(1e-6) - nats(-1e-6)) / 2e-6;
                    assert!(value > 9.0 && (slope / numeric - 1.0).abs() < 1e-7, "{decoder:?} {mean}: {slope} {numeric}");
                }
            }
        }
    }

    #[test]
    fn the_tanh_form_is_as_far_from_erf_as_published() {
        let [tanh, _, _, _] = decoders();
        let erf = Decoder::new(Encoding::Discrete { levels: 256 }, DecoderCdf::Erf);
        let worst = (-6000..6000)
            .map(|i| f64::from(i) / 1000.0)
            .map(|z| (tanh.distribution(z).0 - erf.distribution(z).0).abs())
            .fold(0.0, f64::max);
        assert!((worst - 1.79e-4).abs() < 2e-6, "{worst}");
    }
}
