//! Training: one visible loop from a configuration to a finished run.
//!
//! Start at [`Trainer::run`] and read it top to bottom; `engine.rs` says where a step is computed. It never reads another
//! run's results, draws no figure, and its only knowledge of time is for progress and `timing.jsonl`.

mod batch;
mod bench;
mod checkpoint;
mod device;
mod device_engine;
mod engine;
#[cfg(test)]
mod engine_tests;
mod error;
mod evaluation;
mod gradient;
mod network;
mod samples;
mod trainer;
mod window;

pub use bench::{BenchOptions, Timing, bench};
pub use device::{DeviceChoice, ONE_THREAD, instruction_set, needs_cuda, no_threads_but_ours};
pub use error::TrainError;
pub use network::Network;
pub use trainer::{Outcome, RunOptions, Trainer};
