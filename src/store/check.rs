//! Whether everything in a store is what its records say, file by file.
//!
//! Start at [`ResultsStore::examine`]. Every committed file is read and hashed, every table decoded, every configuration
//! held against its run's id. A [`Finding`] says what is wrong and what a sweep that wants the run will do about it.
//! Checkpoints of unfinished runs are not opened here: a resuming run checks them, and goes back where one is damaged.

use super::collect::{is_dead, is_temp, temps_of};
use super::error::StoreError;
use super::index;
use super::recorder::{LOSSES, read_rows};
use super::results::ResultsStore;
use super::run_dir::RunDir;
use super::{Damage, Manifest, PATCHES, Status, fs};
use crate::config::RunConfig;
use crate::named_enum;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

named_enum! {
    pub enum Severity {
        /// Something is lost, or would be read as what it is not.
        Fault = "fault",
        /// Worth knowing, and harmless.
        Remark = "remark",
    }
}

type Checked<T> = std::result::Result<T, StoreError>;

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// Relative to the results folder.
    pub path: PathBuf,
    pub what: String,
    /// What a sweep does about it, or whoever should.
    pub then: String,
}

/// What an examination looked at and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examination {
    pub runs: usize,
    /// Runs that somebody holds: of these only what is finished was looked at.
    pub running: usize,
    /// Files that were hashed or decoded.
    pub files: usize,
    pub bytes: u64,
    /// Faults first, then in the order of the paths.
    pub findings: Vec<Finding>,
}

impl Examination {
    pub fn is_sound(&self) -> bool {
        !self.findings.iter().any(|f| f.severity == Severity::Fault)
    }

    fn fault(&mut self, path: &Path, what: impl Into<String>, then: impl Into<String>) {
        self.findings.push(Finding { severity: Severity::Fault, path: path.to_path_buf(), what: what.into(), then: then.into() });
    }

    fn remark(&mut self, path: &Path, what: impl Into<String>, then: impl Into<String>) {
        self.findings.push(Finding { severity: Severity::Remark, path: path.to_path_buf(), what: what.into(), then: then.into() });
    }

    fn add(&mut self, other: Examination) {
        self.runs += other.runs;
        self.running += other.running;
        self.files += other.files;
        self.bytes += other.bytes;
        self.findings.extend(other.findings);
    }
}

/// What stands in a results folder, and in a run's.
const OWN_IN_STORE: [&str; 7] = ["runs", "sweeps", "reports", PATCHES, "runs.jsonl", ".lock", KEEP_FILE];
const OWN_IN_RUN: [&str; 10] =
    ["config.toml", "run.json", LOSSES, "arrays.h5", "metrics.jsonl", "timing.jsonl", "log.txt", "lock", "checkpoints", "samples"];
/// Names of runs that stay, one a line.
pub const KEEP_FILE: &str = "keep.txt";

impl ResultsStore {
    /// Looks at everything, on every core, and changes nothing.
    ///
    /// # Errors
    /// If a folder cannot be listed or a file not be read at all.
    pub fn examine(&self) -> Checked<Examination> {
        let runs = self.runs()?;
        let each = runs.par_iter().map(|run| self.examine_run(run)).collect::<Checked<Vec<_>>>()?;
        let mut all = Examination::default();
        each.into_iter().for_each(|one| all.add(one));
        self.examine_folders(&mut all)?;
        self.examine_sweeps(&runs, &mut all)?;
        self.examine_patches(&runs, &mut all)?;
        let mut folders: BTreeMap<&str, Vec<&RunDir>> = BTreeMap::new();
        runs.iter().for_each(|run| folders.entry(run.id()).or_default().push(run));
        for several in folders.into_values().filter(|folders| folders.len() > 1) {
            let names: Vec<String> = several.iter().map(|run| self.inside(run.path()).display().to_string()).collect();
            all.fault(
                Path::new(&names[1]),
                format!("a second folder of run {}, beside {}", several[0].id(), names[0]),
                "delete one of them: readers of the tables count its rows twice",
            );
        }
        all.findings.sort_by(|a, b| (a.severity, &a.path).cmp(&(b.severity, &b.path)));
        Ok(all)
    }

    /// Makes a sweep repeat the finished runs that have damaged files: these go, and before them the record that vouches
    /// for them. Returns the ids of the runs; whoever holds one keeps it.
    pub fn repair(&self) -> Checked<Vec<String>> {
        let repair = |run: &RunDir| {
            let Some(held) = run.try_lock()? else { return Ok(None) };
            // A record that cannot be read vouches for nothing: a sweep passes over it.
            let Some(manifest) = run.manifest().ok().flatten().filter(|m| is_finished(m.status)) else { return Ok(None) };
            let broken = broken_files(run, &manifest)?;
            if broken.is_empty() {
                return Ok(None);
            }
            run.discard_manifest(&held)?;
            broken.iter().try_for_each(|b| fs::remove(&run.path().join(&b.file)))?;
            Ok(Some(run.id().to_string()))
        };
        Ok(self.runs()?.par_iter().map(repair).collect::<Checked<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn inside(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.root()).unwrap_or(path).to_path_buf()
    }

    fn examine_run(&self, run: &RunDir) -> Checked<Examination> {
        let mut seen = Examination { runs: 1, ..Examination::default() };
        let running = run.is_locked()?;
        seen.running = usize::from(running);
        let inside = |name: &str| self.inside(&run.path().join(name));
        let manifest = match run.manifest() {
            Ok(manifest) => manifest,
            Err(error) => {
                let then = match &error {
                    StoreError::Corrupt { .. } => goes_on(run)?,
                    StoreError::NewerSchema { .. } => "a sweep that wants this run is refused; use the newer ddpm-lab".to_string(),
                    _ => "a sweep that wants this run is refused".to_string(),
                };
                seen.fault(&inside("run.json"), without_path(&error, &run.path().join("run.json")), then);
                None
            }
        };
        if let Some(manifest) = &manifest {
            let broken = broken_files(run, manifest)?;
            // A plan looks for every committed file, and into none.
            let seen_by_a_plan = !is_finished(manifest.status) || broken.iter().any(|b| b.is_missing);
            for b in broken {
                let then = if seen_by_a_plan { goes_on(run)? } else { TAKEN_FOR_DONE.to_string() };
                seen.fault(&inside(&b.file), b.what, then);
            }
            seen.files += manifest.files.len();
            seen.bytes += manifest.files.keys().map(|file| fs::length(&run.path().join(file))).sum::<Checked<u64>>()?;
        } else if let Some(what) = unreadable_table(run)? {
            seen.fault(&inside(LOSSES), what, "readers of all tables fail on it until a sweep runs this run, which writes it anew");
        }
        let told = |seen: &Examination, path: &Path| seen.findings.iter().any(|f| f.path == path);
        if let Err(error) = run.read_evaluations()
            && !told(&seen, &inside("metrics.jsonl"))
        {
            seen.fault(&inside("metrics.jsonl"), without_path(&error, &run.path().join("metrics.jsonl")), goes_on(run)?);
        }
        let config = inside("config.toml");
        match run.config_text() {
            _ if told(&seen, &config) => {}
            Ok(text) => match RunConfig::from_toml(&run.path().join("config.toml"), &text) {
                Ok(parsed) if parsed.id().0 == run.id() => {}
                Ok(parsed) => {
                    let what = format!("it is the configuration of run {}", parsed.id());
                    seen.fault(&config, what, "somebody edited it; a sweep does not read it once the run is finished");
                }
                Err(error) => seen.fault(&config, error.to_string(), "`report` and `show` cannot say what the run was"),
            },
            Err(_) if manifest.is_none() => {}
            Err(error) => seen.fault(&config, without_path(&error, &run.path().join("config.toml")), goes_on(run)?),
        }
        if !running {
            for temp in temps_of(run.path())? {
                seen.remark(&self.inside(&temp), "what a killed process left", "whoever takes the run next removes it; so does gc");
            }
        }
        for path in fs::list(run.path())? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !OWN_IN_RUN.contains(&name.as_str()) && !is_temp(&path) {
                seen.remark(&self.inside(&path), "not a file of this store", "it stays, and goes with the run");
            }
        }
        Ok(seen)
    }

    /// What stands outside the runs' folders, and tables where none belong.
    fn examine_folders(&self, seen: &mut Examination) -> Checked<()> {
        for path in fs::list(self.root())? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if is_temp(&path) {
                seen.remark(&self.inside(&path), "what a killed process left", "the next sweep removes it");
            } else if !OWN_IN_STORE.contains(&name.as_str()) && !is_table(&path) {
                seen.remark(&self.inside(&path), "not a file of this store", "it stays");
            }
        }
        for path in fs::list(&self.root().join("runs"))? {
            if is_dead(&path) {
                seen.remark(&self.inside(&path), "a run whose deletion was cut short", "the next sweep or gc removes it");
            } else if !is_table(&path) && (RunDir::at(&path).is_none() || !fs::is_dir(&path)) {
                seen.remark(&self.inside(&path), "not a run's folder", "it stays");
            }
        }
        let mut tables = Vec::new();
        walk(self.root(), &mut |path| {
            if is_table(path) {
                tables.push(path.to_path_buf());
            }
        })?;
        for path in tables {
            let own = path.file_name().is_some_and(|name| name == LOSSES)
                && path.parent().is_some_and(|dir| dir.parent() == Some(&self.root().join("runs")) && RunDir::at(dir).is_some());
            if !own {
                let then = "readers of results/**/*.parquet take it for a run's, or fail on its columns; move it out of the results folder";
                seen.fault(&self.inside(&path), "a table that is no run's", then);
            }
        }
        let path = self.root().join("runs.jsonl");
        if seen.running == 0
            && let Some(bytes) = fs::read_if_exists(&path)?
            && bytes != index::build(&self.runs()?, "").as_bytes()
        {
            seen.remark(&self.inside(&path), "it does not say what the runs say", "it is derived; the next sweep writes it anew");
        }
        Ok(())
    }

    fn examine_sweeps(&self, runs: &[RunDir], seen: &mut Examination) -> Checked<()> {
        let ids: HashSet<&str> = runs.iter().map(RunDir::id).collect();
        for name in self.sweeps()? {
            let path = PathBuf::from("sweeps").join(format!("{name}.json"));
            match self.read_sweep(&name) {
                Err(error) => {
                    let then = "the next sweep of that name writes it anew; until then `report` and `gc` refuse it";
                    seen.fault(&path, without_path(&error, &self.root().join(&path)), then);
                }
                Ok(record) => {
                    let there = record.runs.iter().filter(|run| ids.contains(run.run_id.as_str())).count();
                    if there == 0 && !record.runs.is_empty() {
                        let what = format!("none of its {} runs is in the store", record.runs.len());
                        seen.remark(&path, what, "delete it if nobody will run it");
                    }
                }
            }
        }
        Ok(())
    }

    /// Patches that a run's provenance names, and what else lies with them.
    fn examine_patches(&self, runs: &[RunDir], seen: &mut Examination) -> Checked<()> {
        let patch = |run: &RunDir| Some((run.manifest().ok()??.provenance.patch?, run.path().to_path_buf()));
        let mut named: BTreeMap<String, (usize, PathBuf)> = BTreeMap::new();
        for (name, run) in runs.par_iter().filter_map(patch).collect::<Vec<_>>() {
            named.entry(name).or_insert((0, run)).0 += 1;
        }
        for (name, (count, first)) in named {
            let path = self.patch_path(&name);
            let of = format!("of {} and {} more", self.inside(&first).display(), count - 1);
            match fs::read_if_exists(&path)? {
                None => seen.fault(
                    &self.inside(&path),
                    format!("is missing: the changes {of}"),
                    "it cannot be made again; the runs stand without it",
                ),
                Some(bytes) if fs::hash(&bytes) != name => {
                    seen.fault(
                        &self.inside(&path),
                        "its text is not the one it is named by",
                        "it cannot be made again; the runs stand without it",
                    );
                }
                Some(bytes) => {
                    seen.files += 1;
                    seen.bytes += bytes.len() as u64;
                }
            }
        }
        Ok(())
    }
}

/// A committed file that is not what it should be.
struct BrokenFile {
    file: String,
    what: String,
    is_missing: bool,
}

const TAKEN_FOR_DONE: &str = "a sweep takes the run for done; after `doctor --repair` the next one makes it again";

fn is_finished(status: Status) -> bool {
    matches!(status, Status::Done | Status::Diverged)
}

/// Files of a run that its record commits and that are gone, changed, or (the table) as it says and no table all the same.
fn broken_files(run: &RunDir, manifest: &Manifest) -> Checked<Vec<BrokenFile>> {
    let damage = run.verify_by(manifest)?.into_iter().map(|damage| match damage {
        Damage::Missing(file) => BrokenFile { file, what: "is missing".to_string(), is_missing: true },
        Damage::Changed(file) => BrokenFile { file, what: "is not what run.json recorded".to_string(), is_missing: false },
    });
    let mut broken: Vec<BrokenFile> = damage.collect();
    if !broken.iter().any(|b| b.file == LOSSES)
        && let Some(what) = unreadable_table(run)?
    {
        broken.push(BrokenFile { file: LOSSES.to_string(), what, is_missing: false });
    }
    Ok(broken)
}

/// Why the run's table cannot be read, if it has one and it cannot.
fn unreadable_table(run: &RunDir) -> Checked<Option<String>> {
    let table = run.path().join(LOSSES);
    if !fs::is_file(&table) {
        return Ok(None);
    }
    match read_rows(run.path()) {
        Ok(_) => Ok(None),
        Err(error) if error.is_corrupt() => Ok(Some(without_path(&error, &table))),
        // Gone meanwhile.
        Err(_) if !fs::is_file(&table) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a sweep does with a run that has no good record.
fn goes_on(run: &RunDir) -> Checked<String> {
    Ok(match run.checkpoints()?.last() {
        Some((step, _)) => {
            format!("a sweep that wants this run goes on from step {step}, if that checkpoint is whole, and ends with the same numbers")
        }
        None => "a sweep that wants this run begins it again".to_string(),
    })
}

/// The message without the path that stands before it anyway.
fn without_path(error: &StoreError, path: &Path) -> String {
    let message = error.to_string();
    let path = path.display().to_string();
    match error {
        StoreError::Corrupt { what, .. } => what.clone(),
        _ => message.strip_prefix(&path).map(str::trim_start).map(str::to_owned).unwrap_or(message),
    }
}

/// Whether `**/*.parquet` matches it.
fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "parquet")
}

/// Visits every file below `folder`.
fn walk(folder: &Path, visit: &mut dyn FnMut(&Path)) -> Checked<()> {
    for path in fs::list(folder)? {
        if fs::is_dir(&path) { walk(&path, visit)? } else { visit(&path) }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::LossRow;
    use crate::record::{Split, Weights};
    use crate::store::testing::{evaluation, manifest};
    use crate::store::{RunColumns, SCHEMA, StoreError, SweepRecord, SweepRun, write_losses};

    fn columns(run: &RunDir) -> RunColumns {
        RunColumns {
            run_id: run.id().into(),
            slug: run.slug().into(),
            schedule: "linear".into(),
            loss: "simple".into(),
            prediction: "epsilon".into(),
            variance: "fixed_large".into(),
            model: "mlp".into(),
            data: "two_moons".into(),
            timesteps: 4,
            batch_size: 2,
            lr: 1e-3,
            seed: 0,
        }
    }

    fn row(t: u32) -> LossRow {
        LossRow {
            split: Split::Test,
            weights: Weights::Ema,
            step: 60,
            t,
            t_weight: 1.0,
            n: 4,
            n_nonfinite: 0,
            mse: Some((0.5, 0.25)),
            x0_mse_mean: Some(0.1),
            vb: (1.0, 0.5),
            mse_floor: None,
            vb_floor: None,
            grad_norm_mean: None,
        }
    }

    /// A store with two sound, finished runs of a sweep.
    fn sound() -> (tempfile::TempDir, ResultsStore, [RunDir; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let store = ResultsStore::open(&dir.path().join("results")).unwrap();
        let inspect = |spec: &crate::data::DataSpec| crate::data::inspect(spec).map_err(|e| e.to_string());
        let grid = crate::config::from_text(
            Path::new("x.toml"),
            "[base]\ndata.name = 'two_moons'\n[grid]\ntrain.lr = [1e-3, 1e-4]\n",
            &[],
            &inspect,
        );
        let runs: Vec<RunDir> = grid
            .unwrap()
            .runs
            .iter()
            .map(|planned| {
                let run = store.run_dir(&planned.slug, &planned.id.0).unwrap();
                run.create(&planned.config.to_toml()).unwrap();
                write_losses(run.path(), &columns(&run), &[row(1), row(2)]).unwrap();
                run.write_evaluations(&[evaluation(60, 3.25)]).unwrap();
                fs::write_atomic(&run.checkpoint_path(60), b"weights").unwrap();
                let mut record = manifest(&run, Status::Done);
                record.files = run.hash_files(&["config.toml", LOSSES, "metrics.jsonl", "checkpoints/step-60.safetensors"]).unwrap();
                record.provenance.patch = Some(store.write_patch(b"+ a line").unwrap());
                run.write_manifest(&record).unwrap();
                drop(run.try_lock().unwrap());
                run
            })
            .collect();
        let planned =
            |run: &RunDir| SweepRun { run_id: run.id().into(), slug: run.slug().into(), cell: String::new(), axes: vec![], seed: 0 };
        let record = SweepRecord {
            schema: SCHEMA,
            name: "x".into(),
            title: String::new(),
            description: String::new(),
            experiment: String::new(),
            source: "x.toml".into(),
            overrides: vec![],
            extended: vec![],
            axes: vec![],
            runs: runs.iter().map(planned).collect(),
            references: vec![],
        };
        store.write_sweep(&record).unwrap();
        store.write_index().unwrap();
        (dir, store, runs.try_into().unwrap())
    }

    /// `severity path: what`, of every finding.
    fn told(store: &ResultsStore) -> Vec<String> {
        store.examine().unwrap().findings.iter().map(|f| format!("{} {}: {}", f.severity, f.path.display(), f.what)).collect()
    }

    #[test]
    fn a_sound_store_has_no_finding_and_everything_was_read() {
        let (_dir, store, _) = sound();
        let seen = store.examine().unwrap();
        assert_eq!((seen.findings.as_slice(), seen.runs, seen.running, seen.files), (&[][..], 2, 0, 9), "4 of each run and a patch");
        assert!(seen.is_sound() && seen.bytes > 0);
        assert_eq!(store.repair().unwrap(), [""; 0]);
    }

    #[test]
    fn one_flipped_bit_of_any_file_is_found_and_repair_has_it_made_again() {
        let files = ["config.toml", LOSSES, "metrics.jsonl", "checkpoints/step-60.safetensors"];
        for file in files {
            let (_dir, store, [a, _]) = sound();
            let path = a.path().join(file);
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let seen = store.examine().unwrap();
            assert!(!seen.is_sound(), "{file}");
            let finding = seen.findings.iter().find(|f| f.path.ends_with(file)).unwrap();
            assert_eq!((finding.what.as_str(), finding.then.as_str()), ("is not what run.json recorded", TAKEN_FOR_DONE));
            assert_eq!(store.repair().unwrap(), [a.id()]);
            assert!(!path.exists() && a.manifest().unwrap().is_none());
            assert!(store.repair().unwrap().is_empty());
        }
    }

    #[test]
    fn a_missing_file_and_a_torn_record_say_what_a_sweep_does() {
        let (_dir, store, [a, b]) = sound();
        fs::remove(&a.path().join(LOSSES)).unwrap();
        std::fs::write(b.path().join("run.json"), "{\"schema\": 1").unwrap();
        std::fs::remove_file(b.checkpoint_path(60)).unwrap();
        let seen = store.examine().unwrap();
        let then = |file: &str, run: &RunDir| {
            let path = store.inside(&run.path().join(file));
            seen.findings.iter().find(|f| f.path == path && f.severity == Severity::Fault).unwrap().then.clone()
        };
        assert!(then(LOSSES, &a).contains("goes on from step 60"), "{seen:?}");
        assert_eq!(then("run.json", &b), "a sweep that wants this run begins it again");
    }

    #[test]
    fn what_breaks_readers_of_all_tables_is_a_fault_wherever_it_lies() {
        let (_dir, store, [a, b]) = sound();
        for place in ["old.parquet", "reports/x/losses.parquet", "runs/copy/losses.parquet", "runs/notes.parquet"] {
            let path = store.root().join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::copy(a.path().join(LOSSES), path).unwrap();
        }
        let told = told(&store);
        assert_eq!(told.iter().filter(|t| t.starts_with("fault") && t.ends_with("a table that is no run's")).count(), 4, "{told:#?}");
        // A table of other columns under a record that vouches for it.
        let (_dir, store, [_, b2]) = sound();
        std::fs::write(b2.path().join(LOSSES), "PAR1").unwrap();
        let mut record = b2.manifest().unwrap().unwrap();
        record.files = b2.hash_files(&[LOSSES]).unwrap();
        b2.write_manifest(&record).unwrap();
        assert!(!store.examine().unwrap().is_sound());
        assert_eq!(store.repair().unwrap(), [b2.id()]);
        assert_eq!(b.id(), b2.id());
    }

    #[test]
    fn a_newer_layout_an_edited_configuration_and_a_second_folder_are_faults() {
        let (_dir, store, [a, b]) = sound();
        std::fs::write(a.path().join("run.json"), r#"{"schema": 2}"#).unwrap();
        let text = a.config_text().unwrap().replace("lr = 0.001", "lr = 0.5");
        std::fs::write(a.path().join("config.toml"), text).unwrap();
        let twin = store.root().join("runs").join(format!("twin-{}", b.id()));
        fs::create_dir_all(&twin).unwrap();
        let told = told(&store).join("\n");
        for words in ["layout 2", "it is the configuration of run r", "a second folder of run"] {
            assert!(told.contains(words), "{words} is missing in\n{told}");
        }
    }

    #[test]
    fn what_harms_nobody_is_a_remark() {
        let (_dir, store, [a, b]) = sound();
        for place in [".runs.jsonl.tmp-1", "notes.md", "runs/lost+found", "runs/.x-r000000000000.tmp-1/run.json"] {
            let path = store.root().join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::fs::write(a.path().join(".run.json.tmp-1"), "").unwrap();
        std::fs::write(a.path().join("analysis.ipynb"), "").unwrap();
        std::fs::write(store.root().join("runs.jsonl"), "{}\n").unwrap();
        let _running = b.try_lock().unwrap();
        std::fs::write(b.path().join(".run.json.tmp-1"), "").unwrap();
        let mut other = store.read_sweep("x").unwrap();
        (other.name, other.runs) = ("gone".into(), vec![SweepRun { run_id: "rffffffffffff".into(), ..other.runs[0].clone() }]);
        store.write_sweep(&other).unwrap();
        std::fs::write(store.root().join("runs/.y-r000000000000.tmp-1"), "").unwrap();
        let seen = store.examine().unwrap();
        assert!(seen.is_sound(), "{:#?}", seen.findings);
        assert_eq!(seen.running, 1);
        let told: Vec<String> = seen.findings.iter().map(|f| format!("{}: {}", f.path.display(), f.what)).collect();
        assert_eq!(told.len(), 6, "{told:#?}");
        for words in [
            "notes.md: not a file",
            "lost+found: not a run's",
            ".run.json.tmp-1: what a killed",
            "analysis.ipynb: not a file",
            "gone.json: none of its 1 runs",
        ] {
            assert!(told.iter().any(|t| t.contains(words)), "{words} is missing in\n{told:#?}");
        }
    }

    #[test]
    fn a_patch_that_is_gone_or_changed_and_a_torn_sweep_are_faults() {
        let (_dir, store, [a, _]) = sound();
        let path = store.patch_path(&a.manifest().unwrap().unwrap().provenance.patch.unwrap());
        std::fs::write(&path, "other").unwrap();
        std::fs::write(store.root().join("sweeps/x.json"), "{").unwrap();
        assert_eq!(store.examine().unwrap().findings.len(), 2);
        std::fs::remove_file(path).unwrap();
        let told = told(&store).join("\n");
        assert!(told.contains("is missing: the changes of") && told.contains("sweeps/x.json"), "{told}");
        assert!(matches!(store.read_sweep("x"), Err(StoreError::Corrupt { .. })));
    }
}
