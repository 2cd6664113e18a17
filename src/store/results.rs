//! The results folder as a whole: its runs, its sweeps, and how to find one of them.
//!
//! Start at [`ResultsStore::open`]. Nothing is cached: another process may be writing at any time.

use super::error::StoreError;
use super::lock::{self, RunLock};
use super::run_dir::{RunDir, folder_name, is_run_id, parse_versioned, write_json};
use super::{PATCHES, SweepRecord, fs, index};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, StoreError>;

/// A results folder that exists.
#[derive(Clone, Debug)]
pub struct ResultsStore {
    root: PathBuf,
}

impl ResultsStore {
    /// Opens `root`, creating what is missing of it.
    pub fn open(root: &Path) -> Result<Self> {
        for folder in ["runs", "sweeps"] {
            fs::create_dir_all(&root.join(folder))?;
        }
        Ok(Self { root: root.to_path_buf() })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of run `id`. One that exists is found whatever slug it was made with: identity is the id alone.
    pub fn run_dir(&self, slug: &str, id: &str) -> Result<RunDir> {
        let runs = self.root.join("runs");
        let named = self.new_run_dir(slug, id)?;
        if fs::is_dir(named.path()) {
            return Ok(named);
        }
        let existing = fs::list(&runs)?.iter().filter_map(|path| RunDir::at(path)).find(|run| run.id() == id);
        Ok(existing.unwrap_or(named))
    }

    /// The folder that run `id` gets if it has none yet.
    pub(crate) fn new_run_dir(&self, slug: &str, id: &str) -> Result<RunDir> {
        let bad = |name: &str, why| StoreError::BadName { name: name.to_string(), why };
        if !is_run_id(id) {
            return Err(bad(id, "a run id is r and 12 hex digits"));
        }
        if slug.is_empty() || slug.starts_with('.') || slug.contains(['/', '\\', '\0', '\n']) {
            return Err(bad(slug, "a slug must not be empty, hidden, or contain a path separator"));
        }
        let path = self.root.join("runs").join(folder_name(slug, id));
        RunDir::at(&path).ok_or_else(|| bad(slug, "it gives no valid folder name"))
    }

    /// Every run, sorted by folder name. Foreign entries are passed over.
    pub fn runs(&self) -> Result<Vec<RunDir>> {
        let paths = fs::list(&self.root.join("runs"))?;
        Ok(paths.iter().filter(|path| fs::is_dir(path)).filter_map(|path| RunDir::at(path)).collect())
    }

    /// Every run by its id.
    pub fn runs_by_id(&self) -> Result<BTreeMap<String, RunDir>> {
        Ok(self.runs()?.into_iter().map(|run| (run.id().to_string(), run)).collect())
    }

    /// The one run that `pattern` means: a run folder, `latest`, an id or a unique prefix of one (with or without its
    /// `r`), or a slug.
    ///
    /// # Errors
    /// [`StoreError::NoMatch`] or, listing the candidates, [`StoreError::Ambiguous`].
    pub fn find(&self, pattern: &str) -> Result<RunDir> {
        let as_path = Path::new(pattern);
        if let Some(run) = RunDir::at(as_path).filter(|_| fs::is_dir(as_path)) {
            return Ok(run);
        }
        let runs = self.runs()?;
        let no_match = || StoreError::NoMatch { pattern: pattern.to_string(), runs: runs.len(), root: self.root.clone() };
        if pattern == "latest" {
            // For the eye only, so a clock that jumped does no harm. Ties fall to the last name.
            let by_age = |a: &&RunDir, b: &&RunDir| last_touched(a).total_cmp(&last_touched(b));
            return runs.iter().max_by(by_age).cloned().ok_or_else(no_match);
        }
        let name_of = |run: &RunDir| format!("{}-{}", run.slug(), run.id());
        if let Some(run) = runs.iter().find(|run| run.id() == pattern || name_of(run) == pattern.trim_end_matches('/')) {
            return Ok(run.clone());
        }
        let by_slug: Vec<&RunDir> = runs.iter().filter(|run| run.slug() == pattern).collect();
        let by_prefix = |run: &&RunDir| !pattern.is_empty() && (run.id().starts_with(pattern) || run.id()[1..].starts_with(pattern));
        let matches = if by_slug.is_empty() { runs.iter().filter(by_prefix).collect() } else { by_slug };
        match matches.as_slice() {
            [] => Err(no_match()),
            [run] => Ok((*run).clone()),
            several => Err(StoreError::Ambiguous {
                pattern: pattern.to_string(),
                candidates: several.iter().map(|run| format!("{}  {}", run.id(), run.slug())).collect(),
            }),
        }
    }

    fn sweep_path(&self, name: &str) -> Result<PathBuf> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0', '\n']) {
            let why = "a sweep's name must not be empty, hidden, or contain a path separator";
            return Err(StoreError::BadName { name: name.to_string(), why });
        }
        Ok(self.root.join("sweeps").join(format!("{name}.json")))
    }

    /// Records which runs a sweep consists of; nothing is written if that is recorded already.
    pub fn write_sweep(&self, sweep: &SweepRecord) -> Result<()> {
        let path = self.sweep_path(&sweep.name)?;
        let _lock = self.lock()?;
        self.clear_dead_folders()?;
        write_json(&path, sweep)
    }

    /// # Errors
    /// [`StoreError::NoSweep`], listing the names there are, if it was never written.
    pub fn read_sweep(&self, name: &str) -> Result<SweepRecord> {
        let path = self.sweep_path(name)?;
        match fs::read_if_exists(&path)? {
            Some(bytes) => parse_versioned(&path, &bytes),
            None => Err(StoreError::NoSweep { name: name.to_string(), root: self.root.clone(), known: self.sweeps()? }),
        }
    }

    /// The names of all sweeps, sorted.
    pub fn sweeps(&self) -> Result<Vec<String>> {
        let name_of = |path: PathBuf| path.file_name()?.to_str()?.strip_suffix(".json").map(str::to_string);
        Ok(fs::list(&self.root.join("sweeps"))?.into_iter().filter_map(name_of).filter(|name| !name.starts_with('.')).collect())
    }

    /// Rebuilds `runs.jsonl` from the runs' folders; nothing is written if it says the same already.
    pub fn write_index(&self) -> Result<()> {
        let _lock = self.lock()?;
        let path = self.root.join("runs.jsonl");
        let before = fs::read_if_exists(&path)?.unwrap_or_default();
        let text = index::build(&self.runs()?, &String::from_utf8_lossy(&before));
        if text.as_bytes() == before { Ok(()) } else { fs::write_atomic(&path, text.as_bytes()) }
    }

    /// Keeps the text of a patch and returns what it is called, which is its blake3. One that is there is not written again.
    pub fn write_patch(&self, text: &[u8]) -> Result<String> {
        let name = fs::hash(text);
        let path = self.patch_path(&name);
        fs::create_dir_all(&self.root.join(PATCHES))?;
        fs::write_if_changed(&path, text)?;
        Ok(name)
    }

    /// Where the patch of that name is kept.
    pub fn patch_path(&self, name: &str) -> PathBuf {
        self.root.join(PATCHES).join(format!("{name}.patch"))
    }

    /// Guards the files that several sweeps write (`sweeps/`, `runs.jsonl`); held for milliseconds.
    pub(super) fn lock(&self) -> Result<RunLock> {
        let lock = lock::lock(&self.root.join(".lock"))?;
        fs::remove_temps(&self.root)?;
        fs::remove_temps(&self.root.join("sweeps"))?;
        Ok(lock)
    }
}

/// Seconds since 1970 at which the run last wrote its record or, before it has one, was last set up.
fn last_touched(run: &RunDir) -> f64 {
    let files = ["run.json", "losses.parquet", "lock", "config.toml"];
    files.iter().filter_map(|file| fs::modified(&run.path().join(file))).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Axis, Reference};
    use crate::store::testing::manifest;
    use crate::store::{SCHEMA, Status, SweepRun};

    fn store() -> (tempfile::TempDir, ResultsStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = ResultsStore::open(&dir.path().join("results")).unwrap();
        (dir, store)
    }

    fn add(store: &ResultsStore, slug: &str, id: &str) -> RunDir {
        let run = store.run_dir(slug, id).unwrap();
        run.create(&format!("seeds = [1]\n[base.diffusion]\nschedule = \"{slug}\"\n")).unwrap();
        run
    }

    #[test]
    fn a_run_is_found_by_id_prefix_slug_folder_and_latest() {
        let (_dir, store) = store();
        let a = add(&store, "linear", "r0aa000000000");
        let b = add(&store, "cosine", "r0ab000000000");
        for pattern in ["r0aa000000000", "r0aa", "0aa", "linear", "linear-r0aa000000000", a.path().to_str().unwrap()] {
            assert_eq!(store.find(pattern).unwrap(), a, "{pattern}");
        }
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        std::fs::File::open(b.path().join("config.toml")).unwrap().set_modified(later).unwrap();
        assert_eq!(store.find("latest").unwrap(), b);
    }

    #[test]
    fn an_ambiguous_pattern_lists_its_candidates_and_an_unknown_one_is_told_apart() {
        let (_dir, store) = store();
        add(&store, "linear-s0", "r0aa000000000");
        add(&store, "linear-s1", "r0ab000000000");
        let error = store.find("r0a").unwrap_err();
        assert!(error.to_string().contains("r0aa000000000  linear-s0") && error.to_string().contains("r0ab"), "{error}");
        assert!(!error.is_no_match());
        for pattern in ["r1", "", "linear", "nonsense"] {
            assert!(store.find(pattern).unwrap_err().is_no_match(), "{pattern}");
        }
    }

    #[test]
    fn latest_of_an_empty_store_matches_nothing() {
        assert!(store().1.find("latest").unwrap_err().is_no_match());
    }

    #[test]
    fn the_same_id_is_the_same_run_under_any_slug() {
        let (_dir, store) = store();
        let run = add(&store, "linear", "r0aa000000000");
        assert_eq!(store.run_dir("renamed", "r0aa000000000").unwrap(), run);
        assert_eq!(store.runs().unwrap(), [run]);
    }

    #[test]
    fn foreign_entries_are_passed_over_and_bad_names_are_refused() {
        let (_dir, store) = store();
        std::fs::create_dir(store.root().join("runs/lost+found")).unwrap();
        std::fs::write(store.root().join("runs/notes.txt"), "").unwrap();
        assert_eq!(store.runs().unwrap(), []);
        for (slug, id) in [("../x", "r0aa000000000"), ("", "r0aa000000000"), ("x", "r0aa"), (".x", "r0aa000000000")] {
            assert!(matches!(store.run_dir(slug, id), Err(StoreError::BadName { .. })), "{slug} {id}");
        }
    }

    #[test]
    fn a_sweep_comes_back_as_written_and_a_newer_one_is_refused() {
        let (_dir, store) = store();
        let sweep = SweepRecord {
            schema: SCHEMA,
            name: "beta schedules".into(),
            title: String::new(),
            description: "?".into(),
            experiment: "[grid]\n".into(),
            source: "experiments/beta.toml".into(),
            overrides: vec!["seed=1".into()],
            extended: vec![("experiments/base.toml".into(), "[base]\n".into())],
            axes: vec![Axis { key: "diffusion.schedule".into(), values: vec!["linear".into()] }],
            runs: vec![SweepRun {
                run_id: "r0aa000000000".into(),
                slug: "linear".into(),
                cell: "schedule = linear".into(),
                axes: vec![("diffusion.schedule".into(), "linear".into())],
                seed: 0,
            }],
            references: vec![Reference {
                name: "the paper".into(),
                cells: vec!["schedule = linear".into()],
                values: [("bits_per_dim".to_string(), 3.7)].into(),
                source: "Table 1".into(),
                note: String::new(),
            }],
        };
        store.write_sweep(&sweep).unwrap();
        assert_eq!(store.read_sweep("beta schedules").unwrap(), sweep);
        assert_eq!(store.sweeps().unwrap(), ["beta schedules"]);
        let missing = store.read_sweep("other").unwrap_err();
        assert!(missing.is_no_match() && missing.to_string().contains("beta schedules"), "{missing}");
        store.write_sweep(&SweepRecord { schema: SCHEMA + 1, ..sweep }).unwrap();
        assert!(matches!(store.read_sweep("beta schedules"), Err(StoreError::NewerSchema { .. })));
    }

    #[test]
    fn the_index_has_a_line_per_run_with_its_configuration_and_final_bits() {
        let (_dir, store) = store();
        let run = add(&store, "linear", "r0aa000000000");
        add(&store, "cosine", "r0ab000000000");
        run.write_manifest(&manifest(&run, Status::Done)).unwrap();
        store.write_index().unwrap();
        let text = fs::read_text(&store.root().join("runs.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["run_id"], "r0ab000000000");
        assert_eq!(lines[0]["state"], "pending");
        assert_eq!(lines[1]["state"], "done");
        assert_eq!((&lines[1]["diffusion.schedule"], &lines[1]["seed"]), (&"linear".into(), &1.into()));
        assert_eq!(lines[1]["test_ema_bits_per_dim"], 3.25);
    }

    #[test]
    fn two_processes_do_not_write_the_same_files_of_the_store_at_once() {
        let (_dir, store) = store();
        let held = store.lock().unwrap();
        std::thread::scope(|s| {
            let second = s.spawn(|| store.write_index());
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(!store.root().join("runs.jsonl").exists() && !second.is_finished(), "it was written under another's lock");
            drop(held);
            second.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_damaged_run_is_a_line_of_the_index_not_an_error() {
        let (_dir, store) = store();
        let run = add(&store, "linear", "r0aa000000000");
        std::fs::write(run.path().join("run.json"), "{").unwrap();
        std::fs::write(run.path().join("config.toml"), "= 3").unwrap();
        store.write_index().unwrap();
        let line: serde_json::Value = serde_json::from_slice(&fs::read(&store.root().join("runs.jsonl")).unwrap()).unwrap();
        assert_eq!(line["state"], "damaged");
        assert!(line["reason"].as_str().unwrap().contains("run.json"));
    }
}
