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
    #[error("{}", failed(.0))]
    Tensor(#[from] candle_core::Error),
    #[error("{}", failed(.0))]
    Denoiser(DenoiserError),
    #[error("the checkpoint {} cannot be used: {reason}", path.display())]
    Checkpoint { path: PathBuf, reason: String },
    #[error("{run} has no checkpoint{}{}", step.map_or(String::new(), |s| format!(" of step {s}")), have(there))]
    NoCheckpoint { run: String, step: Option<u32>, there: Vec<u32> },
    #[error("asked to stop")]
    Stopped,
    #[error("device `{asked}` is not at hand: {reason}")]
    Device { asked: String, reason: String },
    #[error("`{setting}` is computed by CUDA only, and this run has the CPU")]
    Precision { setting: &'static str },
    #[error("could not start {threads} threads: {reason}")]
    Threads { threads: usize, reason: String },
}

fn have(steps: &[u32]) -> String {
    if steps.is_empty() { String::new() } else { format!(", but of {}", steps.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")) }
}

/// What CUDA and its libraries say where memory is short.
const NO_MEMORY: [&str; 3] = ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"];

fn failed(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    match text.lines().find(|line| NO_MEMORY.iter().any(|words| line.contains(words))) {
        Some(line) => format!(
            "the GPU ran out of memory ({}); a smaller `train.batch_size` needs less, as do fewer runs at a time (`-j 1`)",
            line.trim()
        ),
        None => format!("the network failed: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gpu_is_named() {
        let driver = candle_core::Error::Msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")\nsome stack".into());
        let said = TrainError::from(driver).to_string();
        assert!(
            said.starts_with("the GPU ran out of memory (DriverError(") && said.contains("train.batch_size") && !said.contains("stack"),
            "{said}"
        );
        let other = TrainError::from(candle_core::Error::Msg("shapes differ".into())).to_string();
        assert_eq!(other, "the network failed: shapes differ");
    }
}
