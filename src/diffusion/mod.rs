//! Diffusion mathematics on the host: schedules, the Gaussian forward and reverse process, losses, the bound, sampling.
//!
//! Start at [`spec::DiffusionSpec`] and [`NoiseSchedule`]. Everything here works on plain slices, in `f64` wherever a
//! number ends up in a bound: no tensors, no files, no clock.

pub mod schedule;
pub mod spec;

pub use schedule::{NoiseSchedule, ScheduleError};
pub use spec::{DecoderCdf, DiffusionSpec, FirstLogVariance, LossSpec, LossVariant, LossWeighting, Prediction, ScheduleKind, TimestepSampler, VarianceType};
