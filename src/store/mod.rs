//! The results store: one folder per run, one Parquet file each, readable by anyone at any time.
//!
//! Start at [`ResultsStore`], then [`RunDir`]. What a run is now follows from its folder alone: a held lock, a commit
//! record (`run.json`, written last), a checkpoint. Every system call is in [`fs`]. Deliberately absent: a database,
//! a server, caches, and any word in a file that says "running".

mod error;
pub mod fs;
mod index;
mod lock;
mod recorder;
mod results;
mod run_dir;
mod schema;
#[cfg(test)]
pub(crate) mod testing;

pub use error::StoreError;
pub use lock::RunLock;
pub use recorder::{LOSSES, read_committed_losses, read_losses, read_rows, write_losses, write_rows};
pub use results::ResultsStore;
pub use run_dir::{Damage, RunDir, is_run_id};
pub use schema::{ColumnSpec, RunColumns, columns};

use crate::named_enum;
use crate::record::{Axis, Evaluation, Reference};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the store's layout: `run.json`, `sweeps/*.json`, and the columns of `losses.parquet`.
pub const SCHEMA: u32 = 1;

named_enum! {
    /// How a run's last process left it, as `run.json` says.
    pub enum Status {
        Done = "done",
        /// Stopped on request or killed; its checkpoint goes on.
        Interrupted = "interrupted",
        /// The loss became non-finite: a result, not a failure.
        Diverged = "diverged",
        Failed = "failed",
    }
}

named_enum! {
    /// What a run is now. `Running` is a held lock, never a word in a file.
    pub enum RunState {
        /// Nothing of it exists yet.
        Pending = "pending",
        Running = "running",
        /// A checkpoint exists and nobody holds the lock.
        Resumable = "resumable",
        Done = "done",
        Diverged = "diverged",
        Failed = "failed",
    }
}

/// Where a run's numbers came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    pub version: String,
    pub git_revision: Option<String>,
    pub git_dirty: Option<bool>,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Instruction set the kernels ran on, e.g. `avx512`.
    pub instruction_set: String,
    pub threads: usize,
    pub command: Vec<String>,
}

/// What differs between two equal runs: never compared, never in the Parquet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Volatile {
    /// Seconds since 1970 when the first attempt began and the last one ended.
    pub started: f64,
    pub ended: f64,
    /// Seconds of training and evaluation over all attempts.
    pub seconds: f64,
    pub attempts: u32,
    pub host: String,
}

/// `run.json`: the commit record of a run, written last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the store's layout.
    pub schema: u32,
    pub run_id: String,
    pub slug: String,
    pub status: Status,
    /// Why, where the status wants a reason: the message of a failure, the first bad step of a divergence.
    pub reason: Option<String>,
    pub step: u32,
    pub steps: u32,
    pub first_nonfinite_step: Option<u32>,
    pub parameters: u64,
    /// The last evaluation of each (split, weights).
    pub evaluations: Vec<Evaluation>,
    /// blake3 of the files that this record commits, by path inside the run's folder.
    pub files: BTreeMap<String, String>,
    pub provenance: Provenance,
    pub volatile: Volatile,
}

/// One run of a sweep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepRun {
    pub run_id: String,
    pub slug: String,
    /// What tells this cell from the others, e.g. `schedule = cosine, variant = vlb`; equal for the seeds of a cell.
    pub cell: String,
    /// Axis key and value, in the order of the axes; the seed is not among them.
    pub axes: Vec<(String, String)>,
    pub seed: i64,
}

/// `sweeps/<name>.json`: the runs an experiment file expands to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepRecord {
    pub schema: u32,
    pub name: String,
    /// The heading of its report; the name where empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    pub description: String,
    /// The experiment file's text, so that a report can show and repeat it.
    pub experiment: String,
    /// The path it was read from, as typed.
    pub source: String,
    pub overrides: Vec<String>,
    /// The files that it extends, path and text, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extended: Vec<(String, String)>,
    pub axes: Vec<Axis>,
    pub runs: Vec<SweepRun>,
    /// Published values, to be drawn beside ours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
}

/// `losses.parquet` in columns; an absent value of a nullable column is NaN.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossTable {
    pub split: Vec<crate::record::Split>,
    pub weights: Vec<crate::record::Weights>,
    pub step: Vec<i64>,
    pub t: Vec<u32>,
    pub t_weight: Vec<f64>,
    pub n: Vec<u32>,
    pub n_nonfinite: Vec<u32>,
    pub mse_mean: Vec<f64>,
    pub mse_m2: Vec<f64>,
    pub x0_mse_mean: Vec<f64>,
    pub vb_mean: Vec<f64>,
    pub vb_m2: Vec<f64>,
    pub mse_floor: Vec<f64>,
    pub vb_floor: Vec<f64>,
    pub grad_norm_mean: Vec<f64>,
}
