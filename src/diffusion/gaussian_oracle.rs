//! The closed-form denoiser of one Gaussian with any covariance: what sampling under observations is checked against.

use super::{Denoiser, DenoiserError, GaussianDiffusion};
use crate::units::Timestep;

/// The exact posterior mean E[x_0 | x_t] of data from N(m, C).
#[derive(Clone, Debug)]
pub struct GaussianOracle<'a> {
    diffusion: &'a GaussianDiffusion,
    mean: Vec<f64>,
    /// K_t = √ᾱ C (ᾱ C + (1 − ᾱ) I)⁻¹, row by row, by t.
    gains: Vec<Vec<f64>>,
}

impl<'a> GaussianOracle<'a> {
    /// `covariance` holds D × D numbers, row by row.
    ///
    /// # Panics
    /// If mean and covariance have not the data's dimensions.
    pub fn new(diffusion: &'a GaussianDiffusion, mean: Vec<f64>, covariance: &[f64]) -> Self {
        let d = diffusion.shape().dims();
        assert!(mean.len() == d && covariance.len() == d * d, "mean and covariance have the data's shape");
        let gain = |ab: f64| {
            let marginal = (0..d * d).map(|k| ab * covariance[k] + if k / d == k % d { 1.0 - ab } else { 0.0 }).collect();
            // Both are functions of C, so they commute, and K = √ᾱ (…)⁻¹ C.
            solve(marginal, covariance.to_vec(), d).into_iter().map(|x| ab.sqrt() * x).collect()
        };
        let gains = diffusion.schedule.alpha_bars.iter().map(|ab| gain(*ab)).collect();
        Self { diffusion, mean, gains }
    }

    /// E[x_0 | x_t] = m + K_t (x_t − √ᾱ m).
    pub fn posterior_mean(&self, t: Timestep, x_t: &[f64]) -> Vec<f64> {
        let (gain, d) = (&self.gains[t.index()], self.mean.len());
        let scale = self.diffusion.schedule.alpha_bars[t.index()].sqrt();
        (0..d).map(|i| self.mean[i] + (0..d).map(|j| gain[i * d + j] * (x_t[j] - scale * self.mean[j])).sum::<f64>()).collect()
    }
}

impl Denoiser for GaussianOracle<'_> {
    fn predict(&self, x_t: &[f32], t: &[Timestep], output: &mut [f32]) -> Result<(), DenoiserError> {
        let (dims, channels) = (self.mean.len(), self.diffusion.shape().channels);
        let (output_dims, output_channels) = (self.diffusion.output_dims(), self.diffusion.output_channels());
        for ((x, output), t) in x_t.chunks_exact(dims).zip(output.chunks_exact_mut(output_dims)).zip(t) {
            let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            // Of a learned variance the oracle says the posterior's, as if x_0 were known.
            output.fill(self.diffusion.output_for_best_variance(*t, 0.0) as f32);
            for (j, x0) in self.posterior_mean(*t, &x).into_iter().enumerate() {
                output[j / channels * output_channels + j % channels] = self.diffusion.output_for_x0(*t, x[j], x0) as f32;
            }
        }
        Ok(())
    }

    fn batch(&self) -> usize {
        64
    }
}

/// A⁻¹ B for symmetric positive definite A, both n × n, by elimination (no pivots are needed).
fn solve(mut a: Vec<f64>, mut b: Vec<f64>, n: usize) -> Vec<f64> {
    for p in 0..n {
        let pivot = a[p * n + p];
        for k in 0..n {
            a[p * n + k] /= pivot;
            b[p * n + k] /= pivot;
        }
        for row in (0..n).filter(|row| *row != p) {
            let factor = a[row * n + p];
            for k in 0..n {
                a[row * n + k] -= factor * a[p * n + k];
                b[row * n + k] -= factor * b[p * n + k];
            }
        }
    }
    b
}
