//! The closed-form denoiser of a Gaussian mixture: no network can do better.
//!
//! With it the bound, the samplers and the whole pipeline are checked against analytic numbers.

use super::{Denoiser, DenoiserError, GaussianDiffusion};
use crate::units::Timestep;

/// One component: weight, mean (D numbers), variance per dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    pub weight: f64,
    pub mean: Vec<f64>,
    pub variance: f64,
}

/// The exact posterior mean E[x_0 | x_t] of data from a mixture of isotropic Gaussians.
#[derive(Clone, Debug)]
pub struct MixtureOracle<'a> {
    diffusion: &'a GaussianDiffusion,
    components: Vec<Component>,
}

impl<'a> MixtureOracle<'a> {
    /// # Panics
    /// If there is no component, or a mean has not the data's dimensions.
    pub fn new(diffusion: &'a GaussianDiffusion, components: Vec<Component>) -> Self {
        assert!(
            !components.is_empty() && components.iter().all(|c| c.mean.len() == diffusion.shape().dims()),
            "components have the data's shape"
        );
        Self { diffusion, components }
    }

    /// E[x_0 | x_t] = Σ_k r_k (m_k + √ᾱ s_k² (x_t − √ᾱ m_k) / (ᾱ s_k² + 1 − ᾱ)), with responsibilities
    /// r_k ∝ w_k N(x_t; √ᾱ m_k, ᾱ s_k² + 1 − ᾱ).
    pub fn posterior_mean(&self, t: Timestep, x_t: &[f64]) -> Vec<f64> {
        let ab = self.diffusion.schedule.alpha_bars[t.index()];
        let marginal = |c: &Component| ab * c.variance + 1.0 - ab;
        let log_weights: Vec<f64> = self
            .components
            .iter()
            .map(|c| {
                let squared: f64 = x_t.iter().zip(&c.mean).map(|(x, m)| (x - ab.sqrt() * m).powi(2)).sum();
                c.weight.ln() - 0.5 * (x_t.len() as f64 * marginal(c).ln() + squared / marginal(c))
            })
            .collect();
        let largest = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = log_weights.iter().map(|w| (w - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        (0..x_t.len())
            .map(|j| {
                self.components
                    .iter()
                    .zip(&weights)
                    .map(|(c, w)| w / total * (c.mean[j] + ab.sqrt() * c.variance * (x_t[j] - ab.sqrt() * c.mean[j]) / marginal(c)))
                    .sum()
            })
            .collect()
    }
}

impl Denoiser for MixtureOracle<'_> {
    fn predict(&self, x_t: &[f32], t: &[Timestep], output: &mut [f32]) -> Result<(), DenoiserError> {
        let dims = self.diffusion.shape().dims();
        let channels = self.diffusion.shape().channels;
        let output_channels = self.diffusion.output_channels();
        // Of a learned variance the oracle says its lower end, the posterior's.
        output.fill(-1.0);
        for (i, t) in t.iter().enumerate() {
            let x: Vec<f64> = x_t[i * dims..(i + 1) * dims].iter().map(|&x| f64::from(x)).collect();
            let x0 = self.posterior_mean(*t, &x);
            let out = &mut output[i * dims / channels * output_channels..][..dims / channels * output_channels];
            for j in 0..dims {
                out[j / channels * output_channels + j % channels] = self.diffusion.output_for_x0(*t, x[j], x0[j]) as f32;
            }
        }
        Ok(())
    }

    fn batch(&self) -> usize {
        64
    }
}
