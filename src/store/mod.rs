//! The results store: one folder per run, one Parquet file each, readable by anyone at any time.
//!
//! Start at [`ResultsStore`], then [`RunDir`]. What a run is now follows from its folder alone: a held lock, a commit
//! record (`run.json`, written last), a checkpoint. Every system call is in [`fs`]. Care for the whole store has a file each:
//! `check` finds what is damaged, `collect` deletes what nobody names, `migrate` brings an older layout up to date.
//! Deliberately absent: a database, a server, caches, and any word in a file that says "running".
//!
//! # What is promised
//!
//! "The same bytes" are those of `losses.parquet`, `metrics.jsonl`, `config.toml`, the samples and the checkpoints, and of
//! `run.json` all but its volatile part, of a sweep that nothing disturbed (on a CPU; a GPU goes on from the exact checkpoint).
//! The tests are in `tests/it/faults.rs` (F), `tests/it/interruptions.rs` (I), `tests/it/training.rs` (T), and where named.
//!
//! | fault | promise | test |
//! |---|---|---|
//! | SIGKILL of the whole group, at random times | the same bytes; at most the steps since the last checkpoint are repeated | I `random_kills_of_the_whole_group_change_no_byte`, `just kill-test` |
//! | a worker dies at its n-th file-system call, for every n | what it announced is there, no file is torn, the same bytes | F `a_process_that_dies_at_any_call_loses_nothing_it_announced` |
//! | the power goes at the n-th call: what was not flushed is lost | the same | F `power_that_goes_at_any_call_takes_nothing_that_was_announced` |
//! | the disk keeps names before contents | the same | F `names_that_reach_the_disk_before_contents_make_no_torn_file` |
//! | the n-th call fails (no space, input/output error, no permission), once or from then on | the run fails with the errno and the path, earlier data stay readable; afterwards the same bytes | F `a_call_that_fails_once_is_told_with_its_path_and_is_made_good`, `a_disk_that_stays_bad_ends_the_run_with_all_that_was_written_before`, `a_file_that_cannot_be_read_is_not_taken_for_a_damaged_one` |
//! | the sweep's own process dies at its n-th call | its workers leave, the next sweep ends with the same bytes | I `a_sweep_that_dies_at_any_of_its_own_calls_is_taken_up_again` |
//! | the disk is full | one run fails and says how much it takes and how much is free, the others go on | I `a_full_disk_ends_one_run_and_the_next_sweep_with_room_makes_it_good`, `a_file_system_that_is_really_full_tears_nothing` |
//! | SIGKILL of the sweep alone | its workers write a checkpoint and end within 10 s; a sweep started meanwhile doubles nothing | I `workers_whose_sweep_was_killed_write_a_checkpoint_and_leave`, `orphaned_workers_end_within_seconds` |
//! | SIGKILL of a worker; panic, full stack, `abort()`, no memory in one | that run fails with the reason and the end of its log, the others go on, exit 100 | I `a_worker_that_is_killed_is_one_failed_run_with_its_reason`, `every_way_a_worker_can_break_is_told_apart_and_stops_no_other` |
//! | INT, TERM, HUP, USR1, USR2 to the group | a checkpoint at the step they came at; exit 130, 143, 129, 75, 75; twice INT: at once | I `signals_to_the_group_stop_with_a_checkpoint_and_their_exit_code`, `a_second_interrupt_ends_at_once_and_loses_no_checkpoint` |
//! | a sweep that stands still (SIGSTOP) | its runs stay its own | I `a_sweep_that_is_held_up_keeps_its_runs` |
//! | several sweeps on one folder, of one file or of overlapping ones | each run is trained once, all end well | I `four_sweeps_on_one_folder_train_each_run_once` |
//! | files cut short or with flipped bits | never a panic or another number: an older checkpoint, or from the start, and it says so; the same bytes | F `damaged_files_are_noticed_or_harmless_and_the_run_comes_out_equal`, `a_record_cut_or_flipped_anywhere_counts_as_none`, `a_checkpoint_of_another_step_or_another_run_is_not_gone_on_from` |
//! | readers all the while | whole files, rows never fewer | I `readers_see_whole_files_at_any_moment` |
//! | a loss that becomes non-finite | `diverged` with the step; what was finite is kept; the others go on | T `a_diverged_run_is_a_result_and_stops_no_other` |
//! | a clock that jumps | nothing is decided by it | I `a_clock_that_jumps_decides_nothing` |
//! | other code between kill and resume | runs that are done stay; one under way starts again with a notice, or goes on under `--allow-code-change` | F `other_code_does_not_finish_what_this_code_began_unless_asked` |
//! | the experiment file edited between sweeps | only what is new is run; what is gone stays in the store and is told | I `a_file_edited_between_sweeps_costs_only_what_is_new` |
//! | 1, 2 or 4 threads | the same bytes | T `threads_change_no_bit` |
//! | a results folder that is read-only, a file, a link, has spaces, the longest name that is allowed | works, or one clear error and exit 2 | I `results_folders_of_every_kind_work_or_say_why_not` |
//! | no terminal, 20 columns, a closed output | no colour, no panic | I `no_terminal_a_narrow_one_and_a_closed_output_are_all_fine` |
//! | ten thousand runs; a sweep that has nothing to do | seconds, and not one write | T `a_sweep_leaves_complete_runs_and_a_second_one_does_nothing`, `just bench-store` |
//! | a grid spelt otherwise | the same runs by the same identities | properties in `config::combine_laws` and `config::identity` |

mod check;
mod collect;
mod error;
pub mod fault;
pub mod fs;
mod index;
mod listing;
mod lock;
mod migrate;
mod recorder;
mod results;
mod run_dir;
mod schema;
#[cfg(test)]
pub(crate) mod testing;

pub use check::{Examination, Finding, KEEP_FILE, Severity};
pub use collect::{DeadRun, Freed, Garbage, Keep, Leftover, OldCheckpoints};
pub use error::StoreError;
pub use listing::{DAMAGED, Listed, list};
pub use lock::RunLock;
pub use migrate::{MIGRATIONS, Migrated, Migration};
pub use recorder::{LOSSES, read_committed_losses, read_fresh_rows, read_losses, read_rows, write_fresh_rows, write_losses, write_rows};
pub use results::ResultsStore;
pub use run_dir::{Damage, RunDir, is_run_id};
pub use schema::{ColumnSpec, RunColumns, columns};

use crate::named_enum;
use crate::record::{Axis, Evaluation, Reference};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The folder of the patches that provenances name, each called by the blake3 of its text.
pub const PATCHES: &str = "patches";

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

/// Where a run's numbers came from: of the process that ended it. What may be absent is absent from records of earlier
/// versions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    pub version: String,
    /// Of the folder that the command was typed in, when it was typed.
    pub git_revision: Option<String>,
    /// Whether a tracked file there differed from that revision.
    pub git_dirty: Option<bool>,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Instruction set the kernels ran on, e.g. `avx512`.
    pub instruction_set: String,
    pub threads: usize,
    pub command: Vec<String>,
    /// How it differed: the name of a file in [`PATCHES`], which is the blake3 of its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// Files there that git does not know, folders as one; of many the first ones and a count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untracked: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// What the processor or the GPU calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// Version of the GPU's driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// blake3 of the data as it was loaded: shape, encoding, splits and every value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

/// What the program itself was made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Build {
    /// The revision that its sources were at when they were compiled, with `+` and a hash of the difference where they
    /// were not quite; `None` where they were in no git checkout.
    pub revision: Option<String>,
    /// blake3 of `Cargo.lock`: the versions of everything it is built with.
    pub lock: String,
    /// Cargo features, of those that change what computes.
    pub features: Vec<String>,
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
