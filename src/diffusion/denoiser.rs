//! What evaluation and sampling need of a network.

use super::SampleTerms;
use crate::rng::Stream;
use crate::units::Timestep;

/// Why a prediction could not be made; the network's own error.
pub type DenoiserError = Box<dyn std::error::Error + Send + Sync>;

/// Why an evaluation or a sampler ended early.
#[derive(Debug, thiserror::Error)]
pub enum Interrupted {
    #[error("the network failed: {0}")]
    Denoiser(DenoiserError),
    #[error("asked to stop")]
    Stopped,
}

/// A network, or a closed form that stands in for one.
pub trait Denoiser: Sync {
    /// Predicts for a batch: `x_t` holds `t.len()` examples of D numbers, `output` as many of the diffusion's
    /// [`output_dims`](super::GaussianDiffusion::output_dims). Called from several threads at once.
    ///
    /// # Errors
    /// Whatever the network meets.
    fn predict(&self, x_t: &[f32], t: &[Timestep], output: &mut [f32]) -> Result<(), DenoiserError>;

    /// Examples that go through together at best.
    fn batch(&self) -> usize;

    /// The terms of the bound of `jobs`, where the network can compute them beside its predictions: it has the examples then,
    /// and draws the same noise. `None` where it cannot, and the caller computes them.
    fn terms(&self, _jobs: &[Job]) -> Option<Result<Vec<SampleTerms>, DenoiserError>> {
        None
    }
}

/// One example at one timestep under one draw of noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    pub t: Timestep,
    /// Its number among those evaluated; the noise is this sample's of `noise`.
    pub example: u32,
    pub noise: Stream,
}
