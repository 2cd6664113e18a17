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
pub mod floor;
mod gradient;
mod network;
mod pace;
pub mod reverse;
mod samples;
mod trained;
mod trainer;
mod window;

pub use bench::{BenchOptions, Timing, bench};
/// Where weights live; opened by [`DeviceChoice::open`].
pub use candle_core::Device;
pub use checkpoint::NUMERICS;
pub use device::{DeviceChoice, ONE_THREAD, instruction_set, needs_cuda, no_threads_but_ours};
pub use error::TrainError;
pub use evaluation::{rows_of, summary_of};
pub use network::Network;
pub use pace::LEAST_BETWEEN_CHECKPOINTS;
pub use trained::{Inspection, Trained};
pub use trainer::{Outcome, RunOptions, Trainer, columns_of};
