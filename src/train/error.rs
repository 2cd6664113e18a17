//! Why a run could not be trained.

use crate::data::DataError;
use crate::diffusion::{DenoiserError, ScheduleError};
use crate::model::ModelError;
use crate::store::StoreError;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the network failed: {0}")]
    Tensor(#[from] candle_core::Error),
    #[error("the network failed: {0}")]
    Denoiser(DenoiserError),
    #[error("the checkpoint {} cannot be used: {reason}", path.display())]
    Checkpoint { path: PathBuf, reason: String },
    #[error("{run} has no checkpoint{}{}", step.map_or(String::new(), |s| format!(" of step {s}")), have(there))]
    NoCheckpoint { run: String, step: Option<u32>, there: Vec<u32> },
    #[error("asked to stop")]
    Stopped,
    #[error("device `{asked}` is not at hand: {reason}")]
    Device { asked: String, reason: String },
    #[error("could not start {threads} threads: {reason}")]
    Threads { threads: usize, reason: String },
}

fn have(steps: &[u32]) -> String {
    if steps.is_empty() { String::new() } else { format!(", but of {}", steps.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")) }
}
