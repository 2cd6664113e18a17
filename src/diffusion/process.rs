//! A diffusion process, whichever its kernel: what training, evaluation and sampling ask of it.
//!
//! Start at [`Diffusion::new`]. An example is a slice of D numbers, NHWC; noise is a slice of D numbers drawn by
//! [`Diffusion::draw_noise`], whose meaning is the kernel's own.

use super::binomial::BinomialDiffusion;
use super::gaussian::{GaussianDiffusion, SampleTerms};
use super::schedule::ScheduleError;
use super::spec::{DiffusionSpec, Kernel, LossSpec};
use crate::data::{Encoding, Shape};
use crate::rng::Stream;
use crate::units::Timestep;

/// The forward and the reverse process of one kernel.
#[derive(Clone, Debug)]
pub enum Diffusion {
    Gaussian(GaussianDiffusion),
    Binomial(BinomialDiffusion),
}

impl Diffusion {
    /// # Errors
    /// Where the schedule does not exist.
    pub fn new(spec: &DiffusionSpec, shape: Shape, encoding: Encoding) -> Result<Self, ScheduleError> {
        match spec.kernel {
            Kernel::Gaussian => GaussianDiffusion::new(spec, shape, encoding).map(Self::Gaussian),
            Kernel::Binomial => BinomialDiffusion::new(spec, shape).map(Self::Binomial),
        }
    }

    /// The Gaussian process, where this is one.
    pub fn gaussian(&self) -> Option<&GaussianDiffusion> {
        match self {
            Self::Gaussian(d) => Some(d),
            Self::Binomial(_) => None,
        }
    }

    /// T.
    pub fn timesteps(&self) -> usize {
        match self {
            Self::Gaussian(d) => d.timesteps(),
            Self::Binomial(d) => d.timesteps(),
        }
    }

    pub fn shape(&self) -> Shape {
        match self {
            Self::Gaussian(d) => d.shape(),
            Self::Binomial(d) => d.shape(),
        }
    }

    /// Channels that the network must put out.
    pub fn output_channels(&self) -> usize {
        match self {
            Self::Gaussian(d) => d.output_channels(),
            Self::Binomial(d) => d.shape().channels,
        }
    }

    /// Numbers in the network's output for one example.
    pub fn output_dims(&self) -> usize {
        match self {
            Self::Gaussian(d) => d.output_dims(),
            Self::Binomial(d) => d.shape().dims(),
        }
    }

    /// The noise of consecutive examples, `first` being the number of the first: standard normals for a Gaussian kernel,
    /// uniform numbers in [0, 1) for the Binomial one.
    pub fn draw_noise(&self, stream: &Stream, first: u32, noise: &mut [f32]) {
        let each = self.shape().dims();
        match self {
            Self::Gaussian(_) => stream.normals_each(first, each, noise),
            Self::Binomial(_) => stream.uniforms_each(first, each, noise),
        }
    }

    /// A draw of x_T from the reverse process's start.
    pub fn draw_last(&self, stream: &Stream, sample: u32, x: &mut [f32]) {
        match self {
            Self::Gaussian(_) => stream.normals(sample, x),
            Self::Binomial(d) => {
                stream.uniforms(sample, x);
                d.draw_last(x);
            }
        }
    }

    /// Draws x_t ~ q(x_t | x_0) under the given noise.
    pub fn q_sample(&self, t: Timestep, x_0: &[f32], noise: &[f32], x_t: &mut [f32]) {
        match self {
            Self::Gaussian(d) => d.q_sample(t, x_0, noise, x_t),
            Self::Binomial(d) => d.q_sample(t, x_0, noise, x_t),
        }
    }

    /// The prior term KL(q(x_T | x_0) ‖ p(x_T)) of one example, in bits/dim.
    pub fn prior_bits_per_dim(&self, x_0: &[f32]) -> f64 {
        match self {
            Self::Gaussian(d) => d.prior_bits_per_dim(x_0),
            Self::Binomial(d) => d.prior_bits_per_dim(x_0),
        }
    }

    /// The unweighted errors and the term of the bound of one example, as evaluation defines them; of bits, what
    /// [`BinomialDiffusion::terms`] says.
    pub fn terms(&self, t: Timestep, x_0: &[f32], x_t: &[f32], noise: &[f32], output: &[f32]) -> SampleTerms {
        match self {
            Self::Gaussian(d) => d.terms(t, x_0, x_t, noise, output),
            Self::Binomial(d) => d.terms(t, x_0, x_t, output),
        }
    }

    /// The training loss of one example, and `scale` times its gradient in the output.
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
        match self {
            Self::Gaussian(d) => d.loss_and_gradient(loss, t, x_0, x_t, noise, output, scale, gradient),
            Self::Binomial(d) => d.loss_and_gradient(loss, t, x_0, x_t, output, scale, gradient),
        }
    }

    /// One step of the reverse process, in place: x_{t−1} from x_t.
    pub fn p_sample(&self, t: Timestep, x: &mut [f32], output: &[f32], noise: &[f32]) {
        match self {
            Self::Gaussian(d) => d.p_sample(t, x, output, noise),
            Self::Binomial(d) => d.p_sample(t, x, output, noise),
        }
    }
}
