//! The closed-form denoiser of data whose distribution is known: no network can do better.
//!
//! Start at [`MixtureOracle::new`] for a mixture of isotropic Gaussians, at [`MixtureOracle::atoms`] for examples themselves.
//! With it the bound, the samplers and the whole pipeline are checked against analytic numbers; what a network loses against
//! it on the same draws is the part of its loss that a better network would not have.
//!
//! What is a floor, and of what: E[x_0 | x_t] has the least expected eps-MSE, and where the reverse variance is fixed, the
//! least expected term of the bound at every t ≥ 2, and at t = 1 of continuous data. Where it is learned, the oracle also says
//! the best variance of every element. At t = 1 of images the posterior mean is best where it is certain of the image, which it
//! is at any usual β_1. The atoms of a *training set* are a floor of the loss on the training set alone, the one of a network
//! that has memorised it; on held-out images such a network does badly, and a network that generalises does better.

use super::{Denoiser, DenoiserError, GaussianDiffusion};
use crate::ops::{dot_products, weighted_sums};
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
pub struct MixtureOracle {
    diffusion: GaussianDiffusion,
    log_weights: Vec<f64>,
    /// `[K, D]`.
    means: Vec<f64>,
    /// ‖m_k‖².
    squares: Vec<f64>,
    variances: Vec<f64>,
}

/// Rows that go through the products together.
const ROWS: usize = 32;
/// Responsibilities below e^−50 of the largest are no summands in `f64`.
const NEGLIGIBLE: f64 = -50.0;

impl MixtureOracle {
    /// # Panics
    /// If there is no component, or a mean has not the data's dimensions.
    pub fn new(diffusion: &GaussianDiffusion, components: Vec<Component>) -> Self {
        assert!(
            !components.is_empty() && components.iter().all(|c| c.mean.len() == diffusion.shape().dims()),
            "components have the data's shape"
        );
        Self {
            diffusion: diffusion.clone(),
            log_weights: components.iter().map(|c| c.weight.ln()).collect(),
            squares: components.iter().map(|c| c.mean.iter().map(|m| m * m).sum()).collect(),
            variances: components.iter().map(|c| c.variance).collect(),
            means: components.into_iter().flat_map(|c| c.mean).collect(),
        }
    }

    /// The distribution that is nothing but these equally likely examples, D numbers each.
    ///
    /// # Panics
    /// If there is no whole example.
    pub fn atoms(diffusion: &GaussianDiffusion, examples: &[f32]) -> Self {
        let dims = diffusion.shape().dims();
        assert!(!examples.is_empty() && examples.len().is_multiple_of(dims), "atoms are whole examples");
        let count = examples.len() / dims;
        let means: Vec<f64> = examples.iter().map(|&x| f64::from(x)).collect();
        Self {
            diffusion: diffusion.clone(),
            log_weights: vec![0.0; count],
            squares: means.chunks_exact(dims).map(|m| m.iter().map(|x| x * x).sum()).collect(),
            variances: vec![0.0; count],
            means,
        }
    }

    /// Floating-point operations for one example, an exponential counted as twenty.
    pub fn flops(components: usize, dims: usize) -> f64 {
        components as f64 * (4.0 * dims as f64 + 20.0)
    }

    /// E[x_0 | x_t] and, if asked for, Var[x_0 | x_t] of each element, for each row of `x_t`.
    ///
    /// With M_k = ᾱ s_k² + 1 − ᾱ and responsibilities r_k ∝ w_k N(x_t; √ᾱ m_k, M_k): given k, x_0 has the mean
    /// m_k (1 − ᾱ)/M_k + x_t √ᾱ s_k²/M_k and the variance s_k² (1 − ᾱ)/M_k.
    pub fn posterior(&self, t: &[Timestep], x_t: &[f64], with_variance: bool) -> (Vec<f64>, Vec<f64>) {
        let dims = self.diffusion.shape().dims();
        let (mut means, mut variances) = (Vec::with_capacity(x_t.len()), Vec::new());
        for (t, x) in t.chunks(ROWS).zip(x_t.chunks(ROWS * dims)) {
            self.rows(t, x, with_variance, &mut means, &mut variances);
        }
        (means, variances)
    }

    fn rows(&self, t: &[Timestep], x_t: &[f64], with_variance: bool, means: &mut Vec<f64>, variances: &mut Vec<f64>) {
        let dims = self.diffusion.shape().dims();
        let (rows, count) = (t.len(), self.log_weights.len());
        // The responsibilities take the place of the dot products they are made of.
        let mut r = dot_products((rows, count, dims), x_t, &self.means);
        // Per row: Σ_k r_k b_k, Σ_k r_k b_k², Σ_k r_k v_k, with b the factor of x_t and v the variance given k.
        let mut sums = vec![(0.0, 0.0, 0.0); rows];
        let mut of_means = vec![0.0; rows * count];
        let mut of_cross = if with_variance { vec![0.0; rows * count] } else { Vec::new() };
        let mut of_squares = of_cross.clone();
        for (i, t) in t.iter().enumerate() {
            let ab = self.diffusion.schedule.alpha_bars[t.index()];
            let at = i * count..(i + 1) * count;
            let square: f64 = x_t[i * dims..(i + 1) * dims].iter().map(|x| x * x).sum();
            let marginal = |k: usize| ab * self.variances[k] + 1.0 - ab;
            let r = &mut r[at.clone()];
            let mut largest = f64::NEG_INFINITY;
            for (k, r) in r.iter_mut().enumerate() {
                let distance = square - 2.0 * ab.sqrt() * *r + ab * self.squares[k];
                *r = self.log_weights[k] - 0.5 * distance / marginal(k);
                if self.variances[k] > 0.0 {
                    *r -= 0.5 * dims as f64 * (marginal(k) / (1.0 - ab)).ln();
                }
                largest = r.max(largest);
            }
            let mut total = 0.0;
            for r in r.iter_mut() {
                *r = if *r - largest < NEGLIGIBLE { 0.0 } else { (*r - largest).exp() };
                total += *r;
            }
            for (k, r) in r.iter().enumerate().filter(|(_, r)| **r > 0.0) {
                let r = r / total;
                let (m, s2) = (marginal(k), self.variances[k]);
                let (a, b) = ((1.0 - ab) / m, ab.sqrt() * s2 / m);
                of_means[at.start + k] = r * a;
                sums[i].0 += r * b;
                if with_variance {
                    of_squares[at.start + k] = r * a * a;
                    of_cross[at.start + k] = r * a * b;
                    sums[i].1 += r * b * b;
                    sums[i].2 += r * s2 * (1.0 - ab) / m;
                }
            }
        }
        let start = means.len();
        means.extend(weighted_sums((rows, dims, count), &of_means, &self.means));
        for (i, mean) in means[start..].chunks_exact_mut(dims).enumerate() {
            mean.iter_mut().zip(&x_t[i * dims..]).for_each(|(m, x)| *m += sums[i].0 * x);
        }
        if with_variance {
            let squared: Vec<f64> = self.means.iter().map(|m| m * m).collect();
            let squares = weighted_sums((rows, dims, count), &of_squares, &squared);
            let crosses = weighted_sums((rows, dims, count), &of_cross, &self.means);
            for (i, (_, bb, v)) in sums.iter().enumerate() {
                for j in i * dims..(i + 1) * dims {
                    let second = v + squares[j] + 2.0 * x_t[j] * crosses[j] + x_t[j] * x_t[j] * bb;
                    // Differences of near-equal numbers may come out below 0.
                    variances.push((second - means[start + j].powi(2)).max(0.0));
                }
            }
        }
    }
}

impl Denoiser for MixtureOracle {
    fn predict(&self, x_t: &[f32], t: &[Timestep], output: &mut [f32]) -> Result<(), DenoiserError> {
        let dims = self.diffusion.shape().dims();
        let channels = self.diffusion.shape().channels;
        let output_channels = self.diffusion.output_channels();
        let learned = output_channels > channels;
        let x: Vec<f64> = x_t.iter().map(|&x| f64::from(x)).collect();
        let (means, variances) = self.posterior(t, &x, learned);
        for (i, t) in t.iter().enumerate() {
            let out = &mut output[i * dims / channels * output_channels..][..dims / channels * output_channels];
            for j in 0..dims {
                let place = j / channels * output_channels + j % channels;
                out[place] = self.diffusion.output_for_x0(*t, x[i * dims + j], means[i * dims + j]) as f32;
                if learned {
                    out[place + channels] = self.diffusion.output_for_best_variance(*t, variances[i * dims + j]) as f32;
                }
            }
        }
        Ok(())
    }

    fn batch(&self) -> usize {
        64
    }
}
