//! What the store no longer needs, and its removal: runs that nobody names, old checkpoints, what a killed process left.
//!
//! Start at [`ResultsStore::garbage`], which only looks, then [`ResultsStore::collect`]. A run is deleted under its own
//! lock, its table first: from then on `**/*.parquet` sees nothing of it, and what is left, should the process die here,
//! is a record without its table, which a sweep that wants the run repeats and the next collection takes. Then the
//! folder gets a hidden name, which is no run's, and goes. (Were the folder moved first, its table would be read twice as
//! soon as a sweep made the run again.) Deliberately absent: ages and sizes; nothing is deleted but what nobody names.

use super::error::StoreError;
use super::lock::{self, RunLock};
use super::recorder::LOSSES;
use super::results::ResultsStore;
use super::run_dir::RunDir;
use super::{Listed, PATCHES, RunState, fs, list};
use rayon::prelude::*;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, StoreError>;

/// What names the runs that stay.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// By id.
    pub runs: HashSet<String>,
    /// Runs of which every checkpoint stays.
    pub checkpoints: HashSet<String>,
}

/// What may go.
#[derive(Clone, Debug, Default)]
pub struct Garbage {
    pub runs: Vec<DeadRun>,
    pub checkpoints: Vec<OldCheckpoints>,
    /// Folders and files that a killed process left, and patches that no run names.
    pub leftovers: Vec<Leftover>,
    /// Runs that nobody names and somebody is running.
    pub held: Vec<RunDir>,
}

/// A run that nobody names.
#[derive(Clone, Debug)]
pub struct DeadRun {
    pub run: Listed,
    pub bytes: u64,
}

/// The checkpoints of a finished run but its last one.
#[derive(Clone, Debug)]
pub struct OldCheckpoints {
    pub run: RunDir,
    pub files: Vec<PathBuf>,
    pub bytes: u64,
}

#[derive(Clone, Debug)]
pub struct Leftover {
    pub path: PathBuf,
    pub bytes: u64,
}

impl Garbage {
    pub fn bytes(&self) -> u64 {
        let runs = self.runs.iter().map(|r| r.bytes);
        runs.chain(self.checkpoints.iter().map(|c| c.bytes)).chain(self.leftovers.iter().map(|l| l.bytes)).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.checkpoints.is_empty() && self.leftovers.is_empty()
    }
}

/// What went, and what did not because somebody had taken it meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    pub runs: usize,
    pub checkpoints: usize,
    pub leftovers: usize,
    pub bytes: u64,
    pub held: Vec<String>,
}

impl ResultsStore {
    /// What of the store `keep` does not name; old checkpoints where `checkpoints` asks for them. Changes nothing.
    pub fn garbage(&self, keep: &Keep, checkpoints: bool) -> Result<Garbage> {
        let mut garbage = Garbage::default();
        let all = list(&self.runs()?);
        let (kept, dead): (Vec<Listed>, Vec<Listed>) = all.into_iter().partition(|run| keep.runs.contains(run.dir.id()));
        let (held, dead): (Vec<Listed>, Vec<Listed>) = dead.into_iter().partition(|run| run.state == Some(RunState::Running));
        garbage.held = held.iter().map(|run| run.dir.clone()).collect();
        if checkpoints {
            let old = kept.par_iter().filter(|run| !keep.checkpoints.contains(run.dir.id())).map(old_checkpoints);
            garbage.checkpoints = old.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        }
        garbage.leftovers = self.leftovers(&kept)?;
        // A run that is going on names its patch only at its end.
        if !kept.iter().chain(&held).any(|run| run.state == Some(RunState::Running)) {
            let named: HashSet<&str> = kept.iter().filter_map(|run| run.manifest.as_ref()?.provenance.patch.as_deref()).collect();
            let stem = |path: &Path| path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            let unnamed = fs::list(&self.root().join(PATCHES))?.into_iter().filter(|path| !named.contains(stem(path).as_str()));
            garbage.leftovers.extend(unnamed.map(sized).collect::<Result<Vec<_>>>()?);
        }
        let size = |run: Listed| Ok(DeadRun { bytes: bytes_in(run.dir.path())?, run });
        garbage.runs = dead.into_par_iter().map(size).collect::<Result<_>>()?;
        Ok(garbage)
    }

    /// Deletes it. A run that somebody holds by now stays.
    pub fn collect(&self, garbage: &Garbage) -> Result<Freed> {
        let mut freed = Freed::default();
        for dead in &garbage.runs {
            if delete(&dead.run.dir)? {
                freed.runs += 1;
                freed.bytes += dead.bytes;
            } else {
                freed.held.push(dead.run.dir.id().to_string());
            }
        }
        for old in &garbage.checkpoints {
            // What was finished stays so; the lock keeps a worker that looks at it just now from missing a file.
            let Some(_lock) = old.run.try_lock()? else {
                freed.held.push(old.run.id().to_string());
                continue;
            };
            old.files.iter().try_for_each(|file| fs::remove(file))?;
            freed.checkpoints += old.files.len();
            freed.bytes += old.bytes;
        }
        for leftover in &garbage.leftovers {
            if fs::is_dir(&leftover.path) {
                clear(&leftover.path)?;
            } else {
                fs::remove(&leftover.path)?;
            }
            freed.leftovers += 1;
            freed.bytes += leftover.bytes;
        }
        Ok(freed)
    }

    /// Removes run folders whose deletion was cut short. Cheap where there are none.
    pub(super) fn clear_dead_folders(&self) -> Result<()> {
        self.dead_folders()?.iter().try_for_each(|path| clear(path))
    }

    fn dead_folders(&self) -> Result<Vec<PathBuf>> {
        Ok(fs::list(&self.root().join("runs"))?.into_iter().filter(|path| is_dead(path)).collect())
    }

    /// Dead folders that nobody is deleting just now, and temporary files that a dead process left in one of `kept`.
    fn leftovers(&self, kept: &[Listed]) -> Result<Vec<Leftover>> {
        let mut paths = Vec::new();
        for path in self.dead_folders()? {
            if !lock::is_held(&path.join("lock"))? {
                paths.push(path);
            }
        }
        let temps = kept.par_iter().filter(|run| run.state != Some(RunState::Running)).map(|run| temps_of(run.dir.path()));
        paths.extend(temps.collect::<Result<Vec<_>>>()?.concat());
        paths.into_iter().map(sized).collect()
    }
}

/// Every temporary file in the folders of a run.
pub(super) fn temps_of(run: &Path) -> Result<Vec<PathBuf>> {
    let mut temps = Vec::new();
    for folder in [run.to_path_buf(), run.join("checkpoints"), run.join("samples")] {
        temps.extend(fs::list(&folder)?.into_iter().filter(|path| is_temp(path)));
    }
    Ok(temps)
}

/// Whether a name is one that this store gives to what is not finished: hidden, with the mark of a temporary file.
pub(super) fn is_temp(path: &Path) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(|name| name.starts_with('.') && name.contains(".tmp-"))
}

/// Whether `path` is a run folder whose deletion was cut short.
pub(super) fn is_dead(path: &Path) -> bool {
    is_temp(path) && fs::is_dir(path)
}

/// Deletes a run; false where somebody holds it.
fn delete(run: &RunDir) -> Result<bool> {
    let Some(lock) = run.try_lock()? else { return Ok(false) };
    let Some(hidden) = withdraw(run)? else { return Ok(true) };
    fs::remove_dir_all(&hidden)?;
    drop(lock);
    Ok(true)
}

/// Takes a run out of the store: no table, then no run. `None` where another process was faster.
fn withdraw(run: &RunDir) -> Result<Option<PathBuf>> {
    fs::remove_synced(&run.path().join(LOSSES))?;
    let Some(name) = run.path().file_name().and_then(|n| n.to_str()) else { return Ok(None) };
    let hidden = run.path().with_file_name(format!(".{name}.tmp-{}", std::process::id()));
    if !fs::is_dir(run.path()) {
        return Ok(None);
    }
    fs::rename_dir(run.path(), &hidden)?;
    Ok(Some(hidden))
}

/// Removes a dead folder, unless somebody is at it.
fn clear(path: &Path) -> Result<()> {
    let lock: Option<RunLock> = match lock::try_lock(&path.join("lock")) {
        Ok(None) => return Ok(()),
        Ok(lock) => lock,
        // It went meanwhile.
        Err(_) if !fs::is_dir(path) => return Ok(()),
        Err(error) => return Err(error),
    };
    fs::remove_dir_all(path)?;
    drop(lock);
    Ok(())
}

/// The checkpoints of a finished run that are neither the last nor in its record.
fn old_checkpoints(run: &Listed) -> Result<Option<OldCheckpoints>> {
    if !matches!(run.state, Some(RunState::Done | RunState::Diverged)) {
        return Ok(None);
    }
    let recorded = |path: &Path| {
        let inside = path.strip_prefix(run.dir.path()).ok().and_then(Path::to_str);
        inside.is_some_and(|inside| run.manifest.as_ref().is_some_and(|m| m.files.contains_key(inside)))
    };
    let mut files: Vec<PathBuf> = run.dir.checkpoints()?.into_iter().map(|(_, path)| path).collect();
    files.pop();
    files.retain(|path| !recorded(path));
    if files.is_empty() {
        return Ok(None);
    }
    let bytes = files.iter().map(|file| fs::length(file)).sum::<Result<u64>>()?;
    Ok(Some(OldCheckpoints { run: run.dir.clone(), files, bytes }))
}

fn sized(path: PathBuf) -> Result<Leftover> {
    Ok(Leftover { bytes: bytes_in(&path)?, path })
}

/// Bytes of every file in and below `path`.
fn bytes_in(path: &Path) -> Result<u64> {
    if fs::is_dir(path) { fs::list(path)?.iter().map(|inside| bytes_in(inside)).sum() } else { fs::length(path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Status;
    use crate::store::testing::manifest;

    /// A store with runs `a` (kept), `b` and `c`, each with a table, a record and three checkpoints.
    fn store() -> (tempfile::TempDir, ResultsStore, [RunDir; 3], Keep) {
        let dir = tempfile::tempdir().unwrap();
        let store = ResultsStore::open(&dir.path().join("results")).unwrap();
        let runs = ["a", "b", "c"].map(|x| {
            let run = store.run_dir("linear", &format!("r{}", x.repeat(12))).unwrap();
            run.create("seeds = [0]\n").unwrap();
            std::fs::write(run.path().join(LOSSES), "a table").unwrap();
            for step in [10, 20, 30] {
                std::fs::write(run.checkpoint_path(step), "weights").unwrap();
            }
            run.write_manifest(&manifest(&run, Status::Done)).unwrap();
            run
        });
        let keep = Keep { runs: HashSet::from([runs[0].id().to_string()]), checkpoints: HashSet::new() };
        (dir, store, runs, keep)
    }

    /// Every file that `**/*.parquet` would match.
    fn tables(path: &Path) -> Vec<PathBuf> {
        let entries = fs::list(path).unwrap().into_iter();
        entries
            .flat_map(|p| if p.is_dir() { tables(&p) } else { vec![p] })
            .filter(|p| p.extension().is_some_and(|e| e == "parquet"))
            .collect()
    }

    #[test]
    fn what_nobody_names_goes_and_looking_changes_nothing() {
        let (_dir, store, [a, b, c], keep) = store();
        let garbage = store.garbage(&keep, false).unwrap();
        let ids = |runs: &[DeadRun]| runs.iter().map(|r| r.run.dir.id().to_string()).collect::<Vec<_>>();
        assert_eq!(ids(&garbage.runs), [b.id(), c.id()]);
        assert!(garbage.checkpoints.is_empty() && garbage.leftovers.is_empty() && garbage.held.is_empty());
        assert!(garbage.bytes() >= 2 * (7 + 3 * 7), "{}", garbage.bytes());
        assert_eq!(tables(store.root()).len(), 3);
        let freed = store.collect(&garbage).unwrap();
        assert_eq!((freed.runs, freed.bytes, freed.held), (2, garbage.bytes(), vec![]));
        assert_eq!(store.runs().unwrap(), [a.clone()]);
        assert_eq!(fs::list(&store.root().join("runs")).unwrap(), [a.path()]);
        assert!(store.garbage(&keep, false).unwrap().is_empty());
    }

    #[test]
    fn a_run_that_somebody_holds_stays() {
        let (_dir, store, [_, b, c], keep) = store();
        let before = store.garbage(&keep, false).unwrap();
        let held = b.try_lock().unwrap().unwrap();
        let garbage = store.garbage(&keep, false).unwrap();
        assert_eq!((garbage.runs.len(), garbage.held.as_slice()), (1, [b.clone()].as_slice()));
        // Taken after the look is as good.
        let freed = store.collect(&before).unwrap();
        assert_eq!((freed.runs, freed.held.as_slice()), (1, [b.id().to_string()].as_slice()));
        assert!(b.path().join(LOSSES).is_file() && b.manifest().unwrap().is_some() && !c.path().exists());
        drop(held);
        assert_eq!(store.collect(&store.garbage(&keep, false).unwrap()).unwrap().runs, 1);
    }

    #[test]
    fn wherever_a_deletion_is_cut_short_no_table_is_left_and_the_next_one_ends_it() {
        for next_is_a_sweep in [false, true] {
            // Killed between the table and the folder's new name.
            let (_dir, store, [_, b, c], keep) = store();
            fs::remove_synced(&b.path().join(LOSSES)).unwrap();
            // Killed after the new name, with some files gone.
            let lock = c.try_lock().unwrap();
            let hidden = withdraw(&c).unwrap().unwrap();
            std::fs::remove_file(hidden.join("run.json")).unwrap();
            drop(lock);
            assert_eq!(tables(store.root()).len(), 1);
            assert_eq!(store.runs().unwrap().len(), 2, "a hidden folder is no run");
            if next_is_a_sweep {
                store.clear_dead_folders().unwrap();
                assert!(!hidden.exists() && b.path().exists());
            }
            let garbage = store.garbage(&keep, false).unwrap();
            assert_eq!((garbage.runs.len(), garbage.leftovers.len()), (1, usize::from(!next_is_a_sweep)));
            store.collect(&garbage).unwrap();
            assert_eq!(fs::list(&store.root().join("runs")).unwrap().len(), 1);
        }
    }

    #[test]
    fn a_folder_that_is_being_deleted_is_left_to_whoever_does_it() {
        let (_dir, store, [_, b, _], keep) = store();
        let _lock = b.try_lock().unwrap().unwrap();
        let hidden = withdraw(&b).unwrap().unwrap();
        assert!(store.garbage(&keep, false).unwrap().leftovers.is_empty());
        store.clear_dead_folders().unwrap();
        assert!(hidden.is_dir());
    }

    #[test]
    fn old_checkpoints_of_finished_runs_go_where_asked_and_the_last_one_and_the_recorded_one_stay() {
        let (_dir, store, [a, b, c], mut keep) = store();
        keep.runs.extend([b.id().to_string(), c.id().to_string()]);
        keep.checkpoints.insert(b.id().to_string());
        let mut record = manifest(&a, Status::Diverged);
        record.files = [("checkpoints/step-20.safetensors".to_string(), String::new())].into();
        a.write_manifest(&record).unwrap();
        c.write_manifest(&manifest(&c, Status::Interrupted)).unwrap();
        assert!(store.garbage(&keep, false).unwrap().is_empty());
        let garbage = store.garbage(&keep, true).unwrap();
        assert_eq!((garbage.checkpoints.len(), garbage.bytes()), (1, 7));
        assert_eq!(store.collect(&garbage).unwrap(), Freed { checkpoints: 1, bytes: 7, ..Freed::default() });
        let steps = |run: &RunDir| run.checkpoints().unwrap().iter().map(|c| c.0).collect::<Vec<_>>();
        assert_eq!([steps(&a), steps(&b), steps(&c)], [vec![20, 30], vec![10, 20, 30], vec![10, 20, 30]]);
    }

    #[test]
    fn temporary_files_and_unnamed_patches_are_leftovers() {
        let (_dir, store, [a, b, c], mut keep) = store();
        keep.runs.extend([b.id().to_string(), c.id().to_string()]);
        let patches = store.root().join(PATCHES);
        fs::create_dir_all(&patches).unwrap();
        for (name, text) in [("aa.patch", "1"), ("bb.patch", "22")] {
            std::fs::write(patches.join(name), text).unwrap();
        }
        let mut record = manifest(&a, Status::Done);
        record.provenance.patch = Some("aa".into());
        a.write_manifest(&record).unwrap();
        std::fs::write(b.path().join("checkpoints/.step-3.safetensors.tmp-1"), "333").unwrap();
        let running = c.try_lock().unwrap().unwrap();
        std::fs::write(c.path().join(".run.json.tmp-1"), "4444").unwrap();
        assert_eq!(store.garbage(&keep, false).unwrap().bytes(), 3, "a running run may yet name a patch");
        drop(running);
        assert_eq!(store.garbage(&keep, false).unwrap().bytes(), 2 + 3 + 4);
        store.collect(&store.garbage(&keep, false).unwrap()).unwrap();
        assert!(store.garbage(&keep, false).unwrap().is_empty() && patches.join("aa.patch").is_file());
    }
}
