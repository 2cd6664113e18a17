//! The Gaussian diffusion process: q(x_t | x_0), the reverse step, and the terms of the bound, one example at a time.
//!
//! Start at [`GaussianDiffusion::new`]. An example is a slice of D numbers, NHWC; a network's output is D numbers, or
//! 2·D where variances are learned (per pixel: the channels of the prediction, then those of the variance).
//! Bounds are computed in `f64` whatever the network computes in.

use super::decoder::Decoder;
use super::schedule::{NoiseSchedule, ScheduleError};
use super::spec::{DiffusionSpec, LossSpec, LossVariant, Prediction, VarianceType};
use crate::data::{Encoding, Shape};
use crate::units::Timestep;
use std::f64::consts::LN_2;

/// One example at one timestep under one noise draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleTerms {
    /// Mean over dimensions of (ε − ε̂)², from the unclipped prediction.
    pub mse: f64,
    /// Mean over dimensions of (x_0 − x̂_0)², from the prediction as the bound uses it (clipped where asked for).
    pub x0_mse: f64,
    /// The term of the bound in bits/dim: the decoder at t = 1, a KL divergence above.
    pub vb: f64,
}

impl SampleTerms {
    pub fn is_finite(&self) -> bool {
        self.mse.is_finite() && self.x0_mse.is_finite() && self.vb.is_finite()
    }
}

/// The mean and log-variance of p(x_{t−1} | x_t), and the x_0 they were made of, for one element.
#[derive(Clone, Copy, Debug)]
struct Reverse {
    x0: f64,
    log_variance: f64,
}

/// The numbers of one timestep.
#[derive(Clone, Copy, Debug)]
struct At {
    sqrt_ab: f64,
    sqrt_one_minus_ab: f64,
    x0_coef: f64,
    xt_coef: f64,
    /// log β̃_t.
    posterior_log_variance: f64,
    /// The reverse log-variance at channel values −1 and +1; equal where it is fixed.
    low: f64,
    high: f64,
    /// ᾱ / (1 − ᾱ).
    snr: f64,
}

/// A noise schedule with the meaning of the network's output, its variances and the data's decoder.
#[derive(Clone, Debug)]
pub struct GaussianDiffusion {
    pub schedule: NoiseSchedule,
    pub prediction: Prediction,
    pub variance: VarianceType,
    shape: Shape,
    clip_x0: bool,
    decoder: Decoder,
    tables: Vec<At>,
}

impl GaussianDiffusion {
    /// # Errors
    /// Where the schedule does not exist, or leaves nothing at T for a prediction of ε to divide by.
    pub fn new(spec: &DiffusionSpec, shape: Shape, encoding: Encoding) -> Result<Self, ScheduleError> {
        let schedule = NoiseSchedule::of(&spec.noise())?;
        if spec.prediction == Prediction::Epsilon && schedule.ends_without_signal() {
            return Err(ScheduleError::EpsilonWithoutSignal);
        }
        let posterior = schedule.posterior_log_variances(spec.first_log_variance);
        let (low, high) = schedule.reverse_log_variances(spec.variance, spec.first_log_variance);
        let tables = (0..schedule.timesteps())
            .map(|i| At {
                sqrt_ab: schedule.alpha_bars[i].sqrt(),
                sqrt_one_minus_ab: (1.0 - schedule.alpha_bars[i]).sqrt(),
                x0_coef: schedule.posterior_x0_coefs[i],
                xt_coef: schedule.posterior_xt_coefs[i],
                posterior_log_variance: posterior[i],
                low: low[i],
                high: high[i],
                snr: schedule.snr(Timestep::from_index(i)),
            })
            .collect();
        Ok(Self {
            prediction: spec.prediction,
            variance: spec.variance,
            shape,
            // Standardised points have no range to clip to.
            clip_x0: spec.clip_x0 && matches!(encoding, Encoding::Discrete { .. }),
            decoder: Decoder::new(encoding, spec.decoder_cdf),
            schedule,
            tables,
        })
    }

    /// T.
    pub fn timesteps(&self) -> usize {
        self.tables.len()
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Channels that the network must put out: those of the data, twice as many where variances are learned.
    pub fn output_channels(&self) -> usize {
        match self.variance {
            VarianceType::FixedSmall | VarianceType::FixedLarge => self.shape.channels,
            VarianceType::LearnedRange | VarianceType::Learned => 2 * self.shape.channels,
        }
    }

    /// Numbers in the network's output for one example.
    pub fn output_dims(&self) -> usize {
        self.shape.height * self.shape.width * self.output_channels()
    }

    /// Draws `x_t ~ q(x_t | x_0)`: √ᾱ_t · x_0 + √(1 − ᾱ_t) · ε. [Ho20, Eq. 4]
    pub fn q_sample(&self, t: Timestep, x_0: &[f32], noise: &[f32], x_t: &mut [f32]) {
        let at = &self.tables[t.index()];
        let (a, b) = (at.sqrt_ab as f32, at.sqrt_one_minus_ab as f32);
        for ((x, &x0), &e) in x_t.iter_mut().zip(x_0).zip(noise) {
            *x = a * x0 + b * e;
        }
    }

    /// The prior term KL(q(x_T | x_0) ‖ N(0, I)) of one example, in bits/dim: the paper's L_T.
    pub fn prior_bits_per_dim(&self, x_0: &[f32]) -> f64 {
        let mean_square = x_0.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x_0.len() as f64;
        self.schedule.prior_bits_per_dim(mean_square)
    }

    /// Where element `j` of the data has its prediction and its variance value in the output.
    fn places(&self, j: usize) -> (usize, usize) {
        match self.variance {
            VarianceType::FixedSmall | VarianceType::FixedLarge => (j, j),
            VarianceType::LearnedRange | VarianceType::Learned => {
                let c = self.shape.channels;
                let place = j / c * 2 * c + j % c;
                (place, place + c)
            }
        }
    }

    /// x̂_0 that the network's output stands for, unclipped.
    fn x0_of(&self, at: &At, x_t: f64, out: f64) -> f64 {
        match self.prediction {
            Prediction::Epsilon => (x_t - at.sqrt_one_minus_ab * out) / at.sqrt_ab,
            Prediction::X0 => out,
            Prediction::V => at.sqrt_ab * x_t - at.sqrt_one_minus_ab * out,
            Prediction::Mean => (out - at.xt_coef * x_t) / at.x0_coef,
        }
    }

    /// ∂x̂_0/∂output.
    fn x0_slope(&self, at: &At) -> f64 {
        match self.prediction {
            Prediction::Epsilon => -at.sqrt_one_minus_ab / at.sqrt_ab,
            Prediction::X0 => 1.0,
            Prediction::V => -at.sqrt_one_minus_ab,
            Prediction::Mean => 1.0 / at.x0_coef,
        }
    }

    /// ε̂ that the network's output stands for.
    fn eps_of(&self, at: &At, x_t: f64, out: f64) -> f64 {
        match self.prediction {
            Prediction::Epsilon => out,
            Prediction::X0 => (x_t - at.sqrt_ab * out) / at.sqrt_one_minus_ab,
            Prediction::V => at.sqrt_ab * out + at.sqrt_one_minus_ab * x_t,
            Prediction::Mean => (x_t - at.sqrt_ab * self.x0_of(at, x_t, out)) / at.sqrt_one_minus_ab,
        }
    }

    /// The output that stands for x̂_0: the inverse of what the bound does with it. Closed-form denoisers use it.
    pub fn output_for_x0(&self, t: Timestep, x_t: f64, x0: f64) -> f64 {
        let at = &self.tables[t.index()];
        match self.prediction {
            Prediction::Epsilon => (x_t - at.sqrt_ab * x0) / at.sqrt_one_minus_ab,
            Prediction::X0 => x0,
            Prediction::V => (at.sqrt_ab * x_t - x0) / at.sqrt_one_minus_ab,
            Prediction::Mean => at.x0_coef * x0 + at.xt_coef * x_t,
        }
    }

    /// The value of a learned variance's channel at which the expected term of the bound is least around the posterior mean,
    /// given Var[x_0 | x_t] of the element: E KL is least at σ² = β̃_t + (weight of x_0 in the posterior mean)² Var[x_0 | x_t],
    /// and the decoder of continuous data at Var[x_0 | x_1] itself. That of images gets as narrow as a bin allows: an eighth of
    /// its half-width holds all of the mass.
    pub fn output_for_best_variance(&self, t: Timestep, variance_of_x0: f64) -> f64 {
        let at = &self.tables[t.index()];
        let best = match (t == Timestep::FIRST, self.decoder.half_bin()) {
            (true, Some(half_bin)) => variance_of_x0.max((half_bin / 8.0).powi(2)),
            (true, None) => variance_of_x0.max(f64::MIN_POSITIVE),
            (false, _) => at.posterior_log_variance.exp() + at.x0_coef * at.x0_coef * variance_of_x0,
        };
        match self.variance {
            VarianceType::FixedSmall | VarianceType::FixedLarge => 0.0,
            VarianceType::LearnedRange => 2.0 * (best.ln() - at.low) / (at.high - at.low) - 1.0,
            VarianceType::Learned => best.ln(),
        }
    }

    /// What the network is trained to put out under the squared error.
    fn target(&self, at: &At, x_0: f64, noise: f64) -> f64 {
        match self.prediction {
            Prediction::Epsilon => noise,
            Prediction::X0 => x_0,
            Prediction::V => at.sqrt_ab * noise - at.sqrt_one_minus_ab * x_0,
            Prediction::Mean => at.x0_coef * x_0 + at.xt_coef * (at.sqrt_ab * x_0 + at.sqrt_one_minus_ab * noise),
        }
    }

    fn reverse(&self, at: &At, x_t: f64, out: f64, variance_out: f64, clip: bool) -> Reverse {
        let x0 = self.x0_of(at, x_t, out);
        let log_variance = match self.variance {
            VarianceType::FixedSmall | VarianceType::FixedLarge => at.low,
            // The fraction is not clamped, as in the published code. [Nichol21, Eq. 15]
            VarianceType::LearnedRange | VarianceType::Learned => at.low + (at.high - at.low) * (variance_out + 1.0) / 2.0,
        };
        Reverse { x0: if clip { x0.clamp(-1.0, 1.0) } else { x0 }, log_variance }
    }

    /// One element's term of the bound in nats, with its slopes in x̂_0 and in the log-variance.
    fn term(&self, t: Timestep, at: &At, x_0: f64, reverse: Reverse) -> (f64, f64, f64) {
        if t == Timestep::FIRST {
            // Here the posterior mean is x̂_0 itself: its coefficients are 1 and 0.
            return self.decoder.nats(x_0, reverse.x0, reverse.log_variance);
        }
        let difference = at.x0_coef * (reverse.x0 - x_0);
        let precision = (-reverse.log_variance).exp();
        let ratio = (at.posterior_log_variance - reverse.log_variance).exp();
        let scaled = difference * difference * precision;
        let kl = 0.5 * (reverse.log_variance - at.posterior_log_variance - 1.0 + ratio + scaled);
        (kl, at.x0_coef * difference * precision, 0.5 * (1.0 - ratio - scaled))
    }

    /// The unweighted errors and the term of the bound of one example, as evaluation defines them
    /// (x̂_0 clipped where the configuration says so).
    pub fn terms(&self, t: Timestep, x_0: &[f32], x_t: &[f32], noise: &[f32], output: &[f32]) -> SampleTerms {
        self.visit(t, x_0, x_t, noise, output, self.clip_x0, |_, _, _, _, _| {})
    }

    /// Calls `each` with (j, output, x̂_0-slope of the term, log-variance slope, target difference) for every element.
    #[expect(clippy::too_many_arguments, reason = "the arguments are the paper's symbols")]
    fn visit(
        &self,
        t: Timestep,
        x_0: &[f32],
        x_t: &[f32],
        noise: &[f32],
        output: &[f32],
        clip: bool,
        mut each: impl FnMut(usize, f64, f64, f64, f64),
    ) -> SampleTerms {
        assert_eq!((x_0.len(), output.len()), (self.shape.dims(), self.output_dims()), "example and output have the shapes of the data");
        let at = &self.tables[t.index()];
        let (mut mse, mut x0_mse, mut nats) = (0.0, 0.0, 0.0);
        for j in 0..x_0.len() {
            let (place, variance_place) = self.places(j);
            let (x0, xt, eps, out) = (f64::from(x_0[j]), f64::from(x_t[j]), f64::from(noise[j]), f64::from(output[place]));
            let reverse = self.reverse(at, xt, out, f64::from(output[variance_place]), clip);
            let (term, slope_x0, slope_log_variance) = self.term(t, at, x0, reverse);
            mse += (eps - self.eps_of(at, xt, out)).powi(2);
            x0_mse += (x0 - reverse.x0).powi(2);
            nats += term;
            each(j, out, slope_x0, slope_log_variance, out - self.target(at, x0, eps));
        }
        let dims = x_0.len() as f64;
        SampleTerms { mse: mse / dims, x0_mse: x0_mse / dims, vb: nats / (dims * LN_2) }
    }

    /// Weights in the loss at t: of the squared error, of the bound through the mean, of the bound through the variance.
    fn loss_weights(&self, loss: &LossSpec, t: Timestep) -> (f64, f64, f64) {
        let at = &self.tables[t.index()];
        let weight = loss.weight(at.snr, self.x0_slope(at));
        match loss.variant {
            LossVariant::Simple => (weight, 0.0, 0.0),
            LossVariant::Vlb => (0.0, 1.0, 1.0),
            LossVariant::Hybrid => (weight, 0.0, loss.vlb_weight),
        }
    }

    /// The training loss of one example, and `scale` times its gradient in the output.
    ///
    /// - `simple`: weight · mean over dimensions of (target − output)². [Ho20, Eq. 14]
    /// - `vlb`: T · (term of the bound at t, bits/dim): its mean over uniform t estimates the bound less L_T.
    /// - `hybrid`: simple + λ · T · term, where the bound moves only the variance. [Nichol21, Eq. 16]
    ///
    /// T is left out of the last two without [`LossSpec::rescale`]. In the names of improved DDPM's code: `simple` is MSE,
    /// `vlb` RESCALED_KL and without T KL, `hybrid` at λ = 0.001 RESCALED_MSE, and without T at λ = 1 what MSE is under
    /// a learned variance.
    ///
    /// x̂_0 is never clipped here. The terms come back unweighted, for the record.
    #[expect(clippy::too_many_arguments, reason = "the arguments are the paper's symbols")]
    pub fn loss_and_gradient(
        &self,
        loss: &LossSpec,
        t: Timestep,
        x_0: &[f32],
        x_t: &[f32],
        noise: &[f32],
        output: &[f32],
        scale: f64,
        gradient: &mut [f32],
    ) -> (f64, SampleTerms) {
        let at = self.tables[t.index()];
        let dims = x_0.len() as f64;
        let (simple, mean_vb, variance_vb) = self.loss_weights(loss, t);
        let horizon = loss.horizon(self.timesteps());
        let x0_slope = self.x0_slope(&at);
        let log_variance_slope = (at.high - at.low) / 2.0;
        let mut squared = 0.0;
        gradient.fill(0.0);
        let terms = self.visit(t, x_0, x_t, noise, output, false, |j, _, slope_x0, slope_log_variance, difference| {
            let (place, variance_place) = self.places(j);
            squared += difference * difference;
            let bound = horizon / LN_2;
            let prediction = simple * 2.0 * difference + mean_vb * bound * slope_x0 * x0_slope;
            gradient[place] += (scale / dims * prediction) as f32;
            if variance_place != place {
                gradient[variance_place] += (scale / dims * variance_vb * bound * slope_log_variance * log_variance_slope) as f32;
            }
        });
        (simple * squared / dims + variance_vb * horizon * terms.vb, terms)
    }

    /// One ancestral step, in place: x_{t−1} = μ(x_t, x̂_0) + σ z, without noise at t = 1. [Ho20, Alg. 2]
    pub fn p_sample(&self, t: Timestep, x: &mut [f32], output: &[f32], noise: &[f32]) {
        let at = &self.tables[t.index()];
        for (j, x) in x.iter_mut().enumerate() {
            let (place, variance_place) = self.places(j);
            let x_t = f64::from(*x);
            let reverse = self.reverse(at, x_t, f64::from(output[place]), f64::from(output[variance_place]), self.clip_x0);
            let mean = at.x0_coef * reverse.x0 + at.xt_coef * x_t;
            let deviation = if t == Timestep::FIRST { 0.0 } else { (0.5 * reverse.log_variance).exp() };
            *x = (mean + deviation * f64::from(noise[j])) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::{DecoderCdf, FirstLogVariance, Kernel, ScheduleKind, ScheduleSpec};
    use crate::named::NamedEnum;
    use proptest::prelude::*;

    fn process(prediction: Prediction, schedule: ScheduleKind, zero_terminal_snr: bool) -> Result<GaussianDiffusion, ScheduleError> {
        let spec = DiffusionSpec {
            kernel: Kernel::Gaussian,
            binomial_pi: 0.5,
            schedule,
            timesteps: 60,
            gamma_min: ScheduleSpec::GAMMA.0,
            gamma_max: ScheduleSpec::GAMMA.1,
            betas: if schedule == ScheduleKind::Explicit { vec![0.1; 60] } else { Vec::new() },
            zero_terminal_snr,
            prediction,
            variance: VarianceType::FixedSmall,
            first_log_variance: FirstLogVariance::Copy,
            decoder_cdf: DecoderCdf::Erf,
            clip_x0: false,
        };
        GaussianDiffusion::new(&spec, Shape { height: 1, width: 1, channels: 1 }, Encoding::Continuous)
    }

    proptest! {
        #[test]
        fn predictions_round_trip_through_x0_and_epsilon(
            kind in 0..ScheduleKind::ALL.len(), zero in any::<bool>(), index in 0..60usize, x_0 in -1.5..1.5f64, eps in -4.0..4.0f64,
        ) {
            for prediction in Prediction::ALL {
                let Ok(d) = process(*prediction, ScheduleKind::ALL[kind], zero) else {
                    prop_assert!(zero && *prediction == Prediction::Epsilon);
                    continue;
                };
                let (t, at) = (Timestep::from_index(index), d.tables[index]);
                let x_t = at.sqrt_ab * x_0 + at.sqrt_one_minus_ab * eps;
                let out = d.output_for_x0(t, x_t, x_0);
                // Where little of x_0 is in x_t, or in the posterior mean, digits are lost on the way back.
                let slope = d.x0_slope(&at);
                let tolerance = 1e-9 * (1.0 + slope.abs());
                prop_assert!((d.x0_of(&at, x_t, out) - x_0).abs() < tolerance, "{prediction} at {t}");
                prop_assert!((d.eps_of(&at, x_t, out) - eps).abs() < tolerance / at.sqrt_one_minus_ab, "{prediction} at {t}");
                prop_assert!((d.target(&at, x_0, eps) - out).abs() < 1e-9 / at.sqrt_one_minus_ab, "{prediction} at {t}");
                let moved = (d.x0_of(&at, x_t, out + 1e-3) - d.x0_of(&at, x_t, out)) / 1e-3;
                prop_assert!((moved / slope - 1.0).abs() < 1e-6, "{prediction} at {t}: {moved} {slope}");
            }
        }
    }
}
