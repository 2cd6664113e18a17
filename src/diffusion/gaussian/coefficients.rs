//! The process in numbers alone, for those who compute elsewhere: what the network's output stands for is linear in x_t and
//! the output, whatever the parameterisation, so a few coefficients for each timestep say everything.

use super::{Decoder, GaussianDiffusion};
use crate::data::Encoding;
use crate::diffusion::{DecoderCdf, LossSpec};
use crate::units::Timestep;
use std::f64::consts::LN_2;

/// The coefficients of every timestep.
#[derive(Clone, Debug, PartialEq)]
pub struct Coefficients {
    /// (a, b) of x_t = a x_0 + b ε.
    pub pairs: Vec<[f32; 2]>,
    /// For each timestep, in this order:
    ///
    /// - x̂_0 = r₀ x_t + r₁ out; ε̂ = r₂ x_t + r₃ out; the target of the squared error is r₄ ε + r₅ x_0;
    /// - log σ² = r₆ + r₇ v, where v is the output's variance value;
    /// - the difference of the posterior's means is r₈ (x̂_0 − x_0); r₉ = log β̃_t;
    /// - the loss is r₁₀ times the mean squared error, and r₁₁ (through x̂_0) and r₁₂ (through the variance, and in the
    ///   loss's value) times the mean term of the bound in nats.
    pub rows: Vec<[f64; Coefficients::ROW]>,
    /// Whether the output holds variance values too.
    pub learned: bool,
    /// Of the decoder; 0 is the density of real numbers.
    pub levels: u32,
    /// The decoder's distribution function is erf's, not tanh's.
    pub erf: bool,
    /// Whether x̂_0 is clipped to [-1, 1].
    pub clip: bool,
}

impl Coefficients {
    /// Numbers of a row.
    pub const ROW: usize = 13;
}

impl GaussianDiffusion {
    /// With a loss, as training has it: nothing is clipped. Without, as evaluation has it.
    pub fn coefficients(&self, loss: Option<&LossSpec>) -> Coefficients {
        let Decoder { encoding, cdf } = self.decoder;
        let bound = loss.map_or(0.0, |l| l.horizon(self.timesteps())) / LN_2;
        let row = |(index, at)| {
            let variance = |v| self.reverse(at, 0.0, 0.0, v, false).log_variance;
            let (simple, mean_vb, variance_vb) = loss.map_or((0.0, 0.0, 0.0), |l| self.loss_weights(l, Timestep::from_index(index)));
            [
                self.x0_of(at, 1.0, 0.0),
                self.x0_slope(at),
                self.eps_of(at, 1.0, 0.0),
                self.eps_of(at, 0.0, 1.0),
                self.target(at, 0.0, 1.0),
                self.target(at, 1.0, 0.0),
                variance(0.0),
                variance(1.0) - variance(0.0),
                at.x0_coef,
                at.posterior_log_variance,
                simple,
                mean_vb * bound,
                variance_vb * bound,
            ]
        };
        Coefficients {
            pairs: self.tables.iter().map(|at| [at.sqrt_ab as f32, at.sqrt_one_minus_ab as f32]).collect(),
            rows: self.tables.iter().enumerate().map(row).collect(),
            learned: self.output_channels() != self.shape.channels,
            levels: match encoding {
                Encoding::Discrete { levels } => levels,
                Encoding::Continuous => 0,
            },
            erf: cdf == DecoderCdf::Erf,
            clip: loss.is_none() && self.clip_x0,
        }
    }
}
