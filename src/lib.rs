//! ddpm-lab: a research harness for denoising diffusion models. (Crate documentation is written last.)

pub mod config;
pub mod data;
pub mod diffusion;
pub mod model;
pub mod named;
pub mod ops;
pub mod optim;
pub mod record;
pub mod report;
pub mod rng;
pub mod store;
pub mod sweep;
pub mod train;
pub mod units;
