//! What of a grid is done and what is left, read from the runs' folders.

use crate::store::{ResultsStore, RunDir, RunState, StoreError};
use rayon::prelude::*;
use std::collections::HashSet;

/// One run of a grid, as the experiment file expands to it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedRun {
    /// `r` and 12 hex digits.
    pub id: String,
    pub slug: String,
    /// The complete configuration, as it goes into the run's folder.
    pub config_toml: String,
    /// What tells this cell from the others; equal for the seeds of a cell.
    pub cell: String,
    /// Axis key and value, in the order of the axes.
    pub axes: Vec<(String, String)>,
    pub seed: i64,
    /// Optimizer steps of the whole run.
    pub steps: u32,
}

impl PlannedRun {
    /// Values of the axes and the seed, for a line of a progress bar: `cosine vlb s0`.
    pub fn short_name(&self) -> String {
        let values = self.axes.iter().map(|(_, value)| value.as_str());
        values.map(str::to_owned).chain([format!("s{}", self.seed)]).collect::<Vec<_>>().join(" ")
    }

    /// The cell and the seed.
    pub fn name(&self) -> String {
        if self.cell.is_empty() { format!("seed {}", self.seed) } else { format!("{}, seed {}", self.cell, self.seed) }
    }
}

/// A planned run, its folder, and what is there.
#[derive(Clone, Debug)]
pub struct PlanEntry {
    pub run: PlannedRun,
    pub dir: RunDir,
    pub state: RunState,
    /// Steps that need not be repeated.
    pub step: u32,
    /// Why the run is repeated although it has a record.
    pub damage: Option<String>,
}

/// What is in a run's folder.
pub(super) struct Found {
    pub state: RunState,
    pub step: u32,
    pub damage: Option<String>,
}

/// A grid against a results store, in the order of the grid.
#[derive(Clone, Debug)]
pub struct Plan {
    pub entries: Vec<PlanEntry>,
}

/// Runs by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub done: usize,
    pub resumable: usize,
    pub running: usize,
    pub failed: usize,
    pub diverged: usize,
    pub pending: usize,
}

impl Plan {
    /// Looks at every run of `runs`; one that occurs twice counts once. Writes nothing.
    ///
    /// # Errors
    /// If a folder cannot be read, or was written by a newer program.
    pub fn new(store: &ResultsStore, runs: Vec<PlannedRun>) -> Result<Self, StoreError> {
        let existing = store.runs_by_id()?;
        let mut seen = HashSet::new();
        let distinct: Vec<PlannedRun> = runs.into_iter().filter(|run| seen.insert(run.id.clone())).collect();
        // Thousands of folders: on every core, the kernel's time is most of it.
        let entries = distinct.into_par_iter().map(|run| {
            let (dir, found) = match existing.get(&run.id) {
                Some(dir) => (dir.clone(), inspect(dir)?),
                None => (store.new_run_dir(&run.slug, &run.id)?, Found { state: RunState::Pending, step: 0, damage: None }),
            };
            Ok(PlanEntry { run, dir, state: found.state, step: found.step, damage: found.damage })
        });
        Ok(Self { entries: entries.collect::<Result<_, StoreError>>()? })
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for entry in &self.entries {
            *match entry.state {
                RunState::Done => &mut counts.done,
                RunState::Resumable => &mut counts.resumable,
                RunState::Running => &mut counts.running,
                RunState::Failed => &mut counts.failed,
                RunState::Diverged => &mut counts.diverged,
                RunState::Pending => &mut counts.pending,
            } += 1;
        }
        counts
    }

    /// What a sweep started now would run (or wait for, where another process is running it).
    pub fn to_run(&self, retry_failed: bool) -> Vec<&PlanEntry> {
        self.entries.iter().filter(|entry| is_to_run(entry.state, retry_failed)).collect()
    }
}

/// Done and diverged runs have their result; a failed one is repeated only on request.
pub(super) fn is_to_run(state: RunState, retry_failed: bool) -> bool {
    match state {
        RunState::Done | RunState::Diverged => false,
        RunState::Failed => retry_failed,
        RunState::Pending | RunState::Resumable | RunState::Running => true,
    }
}

/// The state of a run's folder, where a record that is torn or lacks files counts as none.
///
/// # Errors
/// If the folder cannot be read, or was written by a newer program.
pub(super) fn inspect(dir: &RunDir) -> Result<Found, StoreError> {
    if dir.is_locked()? {
        return Ok(Found { state: RunState::Running, step: 0, damage: None });
    }
    inspect_files(dir)
}

/// [`inspect`] for the holder of the run's lock.
///
/// # Errors
/// As [`inspect`].
pub(super) fn inspect_files(dir: &RunDir) -> Result<Found, StoreError> {
    let newest = || Ok::<_, StoreError>(dir.checkpoints()?.last().map(|(step, _)| *step));
    let unrecorded = |damage: Option<String>| {
        let newest = newest()?;
        let state = if newest.is_some() { RunState::Resumable } else { RunState::Pending };
        Ok(Found { state, step: newest.unwrap_or(0), damage })
    };
    let manifest = match dir.manifest() {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return unrecorded(None),
        Err(error) if error.is_corrupt() => return unrecorded(Some(error.to_string())),
        Err(error) => return Err(error),
    };
    let state = dir.state_by(Some(&manifest))?;
    if matches!(state, RunState::Done | RunState::Diverged) {
        if let Some(first) = dir.missing_of(&manifest).first() {
            return unrecorded(Some(format!("{}: {first}", dir.path().display())));
        }
        return Ok(Found { state, step: manifest.step, damage: None });
    }
    Ok(Found { state, step: newest()?.unwrap_or(0), damage: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::manifest;
    use crate::store::{Status, fs};

    fn planned(id: &str) -> PlannedRun {
        PlannedRun {
            id: id.into(),
            slug: "linear".into(),
            config_toml: "seed = 0\n".into(),
            cell: "schedule = linear".into(),
            axes: vec![("diffusion.schedule".into(), "linear".into())],
            seed: 0,
            steps: 60,
        }
    }

    #[test]
    fn a_plan_counts_every_state_and_runs_what_has_no_result() {
        let dir = tempfile::tempdir().unwrap();
        let store = ResultsStore::open(dir.path()).unwrap();
        let ids: Vec<String> = (0..7).map(|i| format!("r{i:012x}")).collect();
        let folder = |i: usize| {
            let run = store.run_dir("linear", &ids[i]).unwrap();
            run.create("seed = 0\n").unwrap();
            run
        };
        for (i, status) in [Status::Done, Status::Diverged, Status::Failed, Status::Interrupted].into_iter().enumerate() {
            let run = folder(i);
            run.write_manifest(&manifest(&run, status)).unwrap();
        }
        let checkpointed = folder(4);
        fs::write_atomic(&checkpointed.checkpoint_path(21), b"x").unwrap();
        let running = folder(5);
        let _lock = running.try_lock().unwrap().unwrap();
        let mut runs: Vec<PlannedRun> = ids.iter().map(|id| planned(id)).collect();
        runs.push(planned(&ids[6]));
        let plan = Plan::new(&store, runs).unwrap();
        assert_eq!(plan.counts(), Counts { done: 1, diverged: 1, failed: 1, resumable: 2, running: 1, pending: 1 });
        assert_eq!(plan.entries[4].step, 21);
        let ids_of = |retry| plan.to_run(retry).iter().map(|entry| entry.run.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids_of(false), ids[3..]);
        assert_eq!(ids_of(true), ids[2..]);
        assert!(!store.root().join(format!("runs/linear-{}", ids[6])).exists(), "planning writes nothing");
    }

    #[test]
    fn a_done_run_that_lost_a_file_or_its_record_is_run_again_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let store = ResultsStore::open(dir.path()).unwrap();
        let (a, b) = ("r00000000000a", "r00000000000b");
        for id in [a, b] {
            let run = store.run_dir("linear", id).unwrap();
            run.create("").unwrap();
            run.write_evaluations(&[]).unwrap();
            let mut record = manifest(&run, Status::Done);
            record.files = run.hash_files(&["metrics.jsonl"]).unwrap();
            run.write_manifest(&record).unwrap();
        }
        assert_eq!(Plan::new(&store, vec![planned(a), planned(b)]).unwrap().counts().done, 2);
        fs::remove(&store.run_dir("linear", a).unwrap().path().join("metrics.jsonl")).unwrap();
        std::fs::write(store.run_dir("linear", b).unwrap().path().join("run.json"), "{\"sche").unwrap();
        let plan = Plan::new(&store, vec![planned(a), planned(b)]).unwrap();
        assert_eq!(plan.counts().pending, 2);
        assert!(plan.entries[0].damage.as_ref().unwrap().contains("metrics.jsonl is missing"));
        assert!(plan.entries[1].damage.as_ref().unwrap().contains("run.json"));
    }
}
