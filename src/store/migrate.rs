//! From an older layout of the store to this program's.
//!
//! Start at [`ResultsStore::migrate`]. A layout is a number in every `run.json` and `sweeps/*.json` ([`SCHEMA`](super::SCHEMA));
//! a program reads its own layout and refuses any other by name. Each [`Migration`] takes one record, and what lies beside
//! it, from one layout to the next. A run is taken under its lock and its record is written last, so whatever kills a
//! migration leaves runs of the old layout, which the next one takes, and runs of the new one, which it passes over.

use super::error::StoreError;
use super::fs;
use super::results::ResultsStore;
use super::run_dir::{RunDir, without_hash, write_json};
use serde_json::Value;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, StoreError>;

/// One step, from layout `from` to the one after it.
pub struct Migration {
    pub from: u32,
    /// Changes the files in a run's folder, and its record in place. Called again on a folder where it was cut short, so
    /// it must find its own work done.
    pub run: fn(&Path, &mut Value) -> Result<()>,
    /// Changes the record of a sweep in place.
    pub sweep: fn(&mut Value) -> Result<()>,
}

/// Every step there has been. None: layout 1 is the first.
pub const MIGRATIONS: &[Migration] = &[];

/// What a migration found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Records that had the layout wanted.
    pub current: usize,
    /// Records that were brought to it, with the layout they had.
    pub migrated: Vec<(PathBuf, u32)>,
    /// Runs that somebody holds.
    pub held: Vec<RunDir>,
    /// Records that say no layout; what `doctor` is for.
    pub unreadable: Vec<PathBuf>,
}

impl ResultsStore {
    /// Brings every record to layout `wanted` by `migrations`; where `dry`, only says which.
    ///
    /// # Errors
    /// Before anything is changed, if a record has a newer layout, or there is no way from its own.
    pub fn migrate(&self, migrations: &[Migration], wanted: u32, dry: bool) -> Result<Migrated> {
        let mut done = Migrated::default();
        let (mut runs, mut sweeps) = (Vec::new(), Vec::new());
        for run in self.runs()? {
            let path = run.manifest_path();
            if let Some(from) = look(&path, migrations, wanted, &mut done)? {
                runs.push((run, from));
            }
        }
        for name in self.sweeps()? {
            let path = self.root().join("sweeps").join(format!("{name}.json"));
            if let Some(from) = look(&path, migrations, wanted, &mut done)? {
                sweeps.push((path, from));
            }
        }
        for (run, from) in runs {
            let path = run.manifest_path();
            if !dry {
                let Some(_lock) = run.try_lock()? else {
                    done.held.push(run);
                    continue;
                };
                // Another migration may have been faster than the lock.
                if look(&path, migrations, wanted, &mut Migrated::default())?.is_some() {
                    rewrite(&path, migrations, wanted, |step, record| (step.run)(run.path(), record))?;
                }
            }
            done.migrated.push((path, from));
        }
        for (path, from) in sweeps {
            if !dry {
                let _lock = self.lock()?;
                rewrite(&path, migrations, wanted, |step, record| (step.sweep)(record))?;
            }
            done.migrated.push((path, from));
        }
        Ok(done)
    }
}

/// The layout of a record that has to be migrated; `None` for any other, which is counted.
fn look(path: &Path, migrations: &[Migration], wanted: u32, done: &mut Migrated) -> Result<Option<u32>> {
    let Some(bytes) = fs::read_if_exists(path)? else { return Ok(None) };
    let record = serde_json::from_slice::<Value>(&bytes).ok().and_then(|record| without_hash(path, record).ok());
    let found = record.as_ref().and_then(layout);
    match found {
        None => done.unreadable.push(path.to_path_buf()),
        Some(found) if found == wanted => done.current += 1,
        Some(found) if found > wanted => return Err(StoreError::NewerSchema { path: path.to_path_buf(), found, known: wanted }),
        Some(found) if (found..wanted).any(|from| !migrations.iter().any(|step| step.from == from)) => {
            return Err(StoreError::NoMigration { path: path.to_path_buf(), found, known: wanted });
        }
        Some(found) => return Ok(Some(found)),
    }
    Ok(None)
}

fn layout(record: &Value) -> Option<u32> {
    record.get("schema")?.as_u64()?.try_into().ok()
}

/// Applies the steps to a record and writes it, last of all.
fn rewrite(path: &Path, migrations: &[Migration], wanted: u32, apply: impl Fn(&Migration, &mut Value) -> Result<()>) -> Result<()> {
    let record: Value = serde_json::from_slice(&fs::read(path)?).map_err(|e| StoreError::corrupt(path, e))?;
    let mut record = without_hash(path, record)?;
    let found = layout(&record).ok_or_else(|| StoreError::corrupt(path, "it says no layout"))?;
    for from in found..wanted {
        let step = migrations.iter().find(|step| step.from == from);
        let step = step.ok_or_else(|| StoreError::NoMigration { path: path.to_path_buf(), found, known: wanted })?;
        apply(step, &mut record)?;
        record["schema"] = Value::from(from + 1);
    }
    write_json(path, &record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::manifest;
    use crate::store::{SCHEMA, Status, StoreError};

    fn store() -> (tempfile::TempDir, ResultsStore, RunDir) {
        let dir = tempfile::tempdir().unwrap();
        let store = ResultsStore::open(&dir.path().join("results")).unwrap();
        let run = store.run_dir("linear", "r0aa000000000").unwrap();
        run.create("seeds = [0]\n").unwrap();
        run.write_manifest(&manifest(&run, Status::Done)).unwrap();
        std::fs::write(store.root().join("sweeps/s.json"), r#"{"name": "s", "schema": 1}"#).unwrap();
        (dir, store, run)
    }

    /// Two made-up steps: a file gets another name, and the record a key in which it is called by it; then a key goes.
    const STEPS: &[Migration] = &[
        Migration {
            from: 1,
            run: |folder, record| {
                let (old, new) = (folder.join("config.toml"), folder.join("configuration.toml"));
                if old.is_file() {
                    std::fs::rename(&old, &new).map_err(|e| StoreError::io("move", &old, e))?;
                }
                record["configuration"] = Value::from("configuration.toml");
                Ok(())
            },
            sweep: |record| {
                record["title"] = Value::from("");
                Ok(())
            },
        },
        Migration {
            from: 2,
            run: |_, record| {
                record.as_object_mut().unwrap().remove("reason");
                Ok(())
            },
            sweep: |_| Ok(()),
        },
    ];

    fn record(run: &RunDir) -> Value {
        serde_json::from_slice(&fs::read(&run.manifest_path()).unwrap()).unwrap()
    }

    #[test]
    fn every_step_is_made_in_turn_and_a_second_time_there_is_nothing_to_do() {
        let (_dir, store, run) = store();
        let dry = store.migrate(STEPS, 3, true).unwrap();
        assert_eq!((dry.migrated.len(), record(&run)["schema"].as_u64()), (2, Some(1)));
        let done = store.migrate(STEPS, 3, false).unwrap();
        assert_eq!(done.migrated, [(run.manifest_path(), 1), (store.root().join("sweeps/s.json"), 1)]);
        let now = record(&run);
        assert_eq!((&now["schema"], &now["configuration"], now.get("reason")), (&3.into(), &"configuration.toml".into(), None));
        assert_eq!(now["run_id"], run.id(), "what no step speaks of stays");
        assert!(run.path().join("configuration.toml").is_file());
        assert_eq!(store.migrate(STEPS, 3, false).unwrap(), Migrated { current: 2, ..Migrated::default() });
    }

    #[test]
    fn a_migration_that_was_cut_short_goes_on() {
        let (_dir, store, run) = store();
        // Killed after the files, before the record.
        std::fs::rename(run.path().join("config.toml"), run.path().join("configuration.toml")).unwrap();
        assert_eq!(store.migrate(STEPS, 2, false).unwrap().migrated.len(), 2);
        assert_eq!((record(&run)["schema"].as_u64(), run.path().join("configuration.toml").is_file()), (Some(2), true));
        assert_eq!(store.migrate(STEPS, 3, false).unwrap().migrated[0].1, 2);
    }

    #[test]
    fn a_run_that_is_held_is_left_for_later() {
        let (_dir, store, run) = store();
        let lock = run.try_lock().unwrap();
        let done = store.migrate(STEPS, 3, false).unwrap();
        assert_eq!((done.held, done.migrated.len(), record(&run)["schema"].as_u64()), (vec![run.clone()], 1, Some(1)));
        drop(lock);
        assert_eq!(store.migrate(STEPS, 3, false).unwrap().migrated.len(), 1);
    }

    #[test]
    fn a_newer_layout_and_one_without_a_way_are_refused_before_anything_is_changed() {
        let (_dir, store, run) = store();
        std::fs::write(store.root().join("sweeps/t.json"), r#"{"schema": 4}"#).unwrap();
        let error = store.migrate(STEPS, 3, false).unwrap_err();
        assert!(matches!(error, StoreError::NewerSchema { found: 4, known: 3, .. }), "{error}");
        std::fs::write(store.root().join("sweeps/t.json"), r#"{"schema": 0}"#).unwrap();
        let error = store.migrate(STEPS, 3, false).unwrap_err();
        assert!(
            error.to_string().contains("t.json has layout 0") && error.to_string().contains("no way from there to layout 3"),
            "{error}"
        );
        assert_eq!(record(&run)["schema"].as_u64(), Some(1));
    }

    #[test]
    fn this_programs_own_steps_end_at_its_own_layout() {
        let ends: Vec<u32> = MIGRATIONS.iter().map(|step| step.from + 1).collect();
        assert_eq!(ends, (2..=SCHEMA).collect::<Vec<_>>(), "a new layout needs a step from the one before");
        let (_dir, store, _) = store();
        std::fs::write(store.root().join("sweeps/torn.json"), "{").unwrap();
        let done = store.migrate(MIGRATIONS, SCHEMA, false).unwrap();
        assert_eq!((done.current, done.migrated.len(), done.unreadable.len()), (2, 0, 1));
    }
}
