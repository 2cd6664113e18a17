//! Diffusion mathematics on the host: schedules, the Gaussian and the Binomial forward and reverse process, losses, the
//! bound, sampling.
//!
//! Start at [`Diffusion`]; [`bound::evaluate`] and [`sampling::ancestral`] use it with any [`Denoiser`].
//! Everything here works on plain slices, in `f64` wherever a number ends up in a bound: no tensors, no files, no clock.

pub mod binomial;
pub mod bound;
pub mod decoder;
pub mod denoiser;
pub mod gaussian;
pub mod oracle;
pub mod preflight;
pub mod process;
pub mod quality;
pub mod rate;
pub mod sampling;
pub mod schedule;
pub mod spec;
pub mod timestep_plan;
pub mod timesteps;

#[cfg(test)]
mod binomial_tests;
#[cfg(test)]
mod loss_tests;
#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod tests;

pub use binomial::BinomialDiffusion;
pub use denoiser::{Denoiser, DenoiserError, Interrupted};
pub use gaussian::{GaussianDiffusion, SampleTerms};
pub use process::Diffusion;
pub use schedule::{NoiseSchedule, ScheduleError};
pub use spec::{
    DecoderCdf, DiffusionSpec, FirstLogVariance, Kernel, LossSpec, LossVariant, LossWeighting, Prediction, ScheduleKind, ScheduleSpec,
    TimestepSampler, VarianceType,
};
pub use timesteps::TimestepSource;
