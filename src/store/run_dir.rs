//! One run's folder: what is in it, and what state that makes the run.
//!
//! Start at [`RunDir`]. `run.json` is the commit record and is written last; a run without one has no result yet.
//! Only the holder of [`RunDir::try_lock`] writes here, except to `log.txt`.

use super::error::StoreError;
use super::lock::{self, RunLock};
use super::{Manifest, RunState, SCHEMA, Status, fs};
use crate::record::Evaluation;
use serde::Deserialize;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, StoreError>;

/// Longest slug that goes into a folder's name; file systems allow 255 bytes in all.
const SLUG_BYTES: usize = 160;

/// The folder `runs/<slug>-<id>`, which need not exist.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunDir {
    path: PathBuf,
    id: String,
}

/// A file that is not what `run.json` committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    Missing(String),
    Changed(String),
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(file) => write!(f, "{file} is missing"),
            Self::Changed(file) => write!(f, "{file} is not what run.json recorded"),
        }
    }
}

/// Whether `id` is `r` and 12 lower-case hex digits.
pub fn is_run_id(id: &str) -> bool {
    id.len() == 13 && id.starts_with('r') && id[1..].bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// `<slug>-<id>`, the slug cut where it is too long for a file name.
pub(super) fn folder_name(slug: &str, id: &str) -> String {
    let mut end = slug.len().min(SLUG_BYTES);
    while !slug.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{id}", &slug[..end])
}

impl RunDir {
    /// The folder at `path`; `None` unless it is named `<slug>-r<12 hex>`.
    pub fn at(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (_, id) = name.rsplit_once('-')?;
        is_run_id(id).then(|| Self { path: path.to_path_buf(), id: id.to_string() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `r` and 12 hex digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The configuration in words, as the folder's name has it.
    pub fn slug(&self) -> &str {
        let name = self.path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.strip_suffix(self.id.as_str()).and_then(|s| s.strip_suffix('-')).unwrap_or_default()
    }

    /// Makes the folder and its `config.toml`. A run that has its result keeps the configuration it was made with;
    /// any other gets the text given (its paths may have moved).
    pub fn create(&self, config_toml: &str) -> Result<()> {
        fs::create_dir_all(&self.path)?;
        fs::create_dir_all(&self.path.join("checkpoints"))?;
        fs::create_dir_all(&self.path.join("samples"))?;
        let config = self.path.join("config.toml");
        let finished = || Ok(self.manifest()?.is_some_and(|m| matches!(m.status, Status::Done | Status::Diverged)));
        if !fs::is_file(&config) || !finished()? {
            fs::write_if_changed(&config, config_toml.as_bytes())?;
        }
        Ok(())
    }

    pub fn config_text(&self) -> Result<String> {
        fs::read_text(&self.path.join("config.toml"))
    }

    /// Takes the run for this process; `None` while another has it. Removes what dead writers left.
    pub fn try_lock(&self) -> Result<Option<RunLock>> {
        let lock = lock::try_lock(&self.path.join("lock"))?;
        if lock.is_some() {
            fs::remove_temps(&self.path)?;
            fs::remove_temps(&self.path.join("checkpoints"))?;
            fs::remove_temps(&self.path.join("samples"))?;
        }
        Ok(lock)
    }

    /// Whether a process is running this run now.
    pub fn is_locked(&self) -> Result<bool> {
        lock::is_held(&self.path.join("lock"))
    }

    pub(super) fn manifest_path(&self) -> PathBuf {
        self.path.join("run.json")
    }

    /// `run.json`; `None` until something was committed.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is torn or speaks of another run, [`StoreError::NewerSchema`] if this program is too old.
    pub fn manifest(&self) -> Result<Option<Manifest>> {
        let path = self.manifest_path();
        let Some(bytes) = fs::read_if_exists(&path)? else { return Ok(None) };
        let manifest: Manifest = parse_versioned(&path, &bytes)?;
        if manifest.run_id != self.id {
            return Err(StoreError::corrupt(&path, format!("it speaks of run {}, in the folder of {}", manifest.run_id, self.id)));
        }
        Ok(Some(manifest))
    }

    /// Commits the run's state: pretty JSON, keys always in the same order.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        write_json(&self.manifest_path(), manifest)
    }

    /// What the run is now. A held lock counts before anything written.
    ///
    /// # Errors
    /// As [`RunDir::manifest`].
    pub fn state(&self) -> Result<RunState> {
        if self.is_locked()? {
            return Ok(RunState::Running);
        }
        self.recorded_state()
    }

    /// What the run is as far as its files say, whoever holds the lock.
    pub fn recorded_state(&self) -> Result<RunState> {
        self.state_by(self.manifest()?.as_ref())
    }

    /// [`recorded_state`](Self::recorded_state) for whoever has read `run.json` already.
    pub fn state_by(&self, manifest: Option<&Manifest>) -> Result<RunState> {
        Ok(match manifest.map(|m| m.status) {
            Some(Status::Done) => RunState::Done,
            Some(Status::Diverged) => RunState::Diverged,
            Some(Status::Failed) => RunState::Failed,
            Some(Status::Interrupted) => RunState::Resumable,
            None if self.checkpoints()?.is_empty() => RunState::Pending,
            None => RunState::Resumable,
        })
    }

    /// Turns a failed run into one that goes on from its checkpoint, keeping count of its attempts. Does nothing to
    /// a run that is in any other state.
    pub fn reopen_failed(&self, _held: &RunLock) -> Result<()> {
        if let Some(mut manifest) = self.manifest()?
            && manifest.status == Status::Failed
        {
            manifest.status = Status::Interrupted;
            manifest.reason = None;
            self.write_manifest(&manifest)?;
        }
        Ok(())
    }

    /// Removes a record that is torn or speaks of files that are gone, so that the run is repeated.
    pub fn discard_manifest(&self, _held: &RunLock) -> Result<()> {
        fs::remove(&self.manifest_path())
    }

    fn metrics_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Replaces `metrics.jsonl`: one line per evaluation. The whole file at once, so that going back to a checkpoint
    /// is the same call as adding to it.
    pub fn write_evaluations(&self, evaluations: &[Evaluation]) -> Result<()> {
        let path = self.metrics_path();
        let mut bytes = Vec::new();
        for evaluation in evaluations {
            serde_json::to_writer(&mut bytes, evaluation).map_err(|e| StoreError::corrupt(&path, e))?;
            bytes.push(b'\n');
        }
        fs::write_if_changed(&path, &bytes).map(|_| ())
    }

    /// Every evaluation of `metrics.jsonl`, oldest first; none if there is no such file.
    pub fn read_evaluations(&self) -> Result<Vec<Evaluation>> {
        let path = self.metrics_path();
        let Some(bytes) = fs::read_if_exists(&path)? else { return Ok(Vec::new()) };
        let lines = bytes.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
        lines
            .map(|(i, line)| serde_json::from_slice(line).map_err(|e| StoreError::corrupt(&path, format!("line {}: {e}", i + 1))))
            .collect()
    }

    pub fn checkpoint_path(&self, step: u32) -> PathBuf {
        self.path.join(format!("checkpoints/step-{step}.safetensors"))
    }

    /// Rows that the checkpoint of `step` wrote and `losses.parquet` did not have then.
    pub fn rows_path(&self, step: u32) -> PathBuf {
        self.path.join(format!("checkpoints/step-{step}.rows"))
    }

    /// Every checkpoint with its step, oldest first.
    pub fn checkpoints(&self) -> Result<Vec<(u32, PathBuf)>> {
        self.by_step(".safetensors")
    }

    /// Every file of rows with its step, oldest first.
    pub fn row_files(&self) -> Result<Vec<(u32, PathBuf)>> {
        self.by_step(".rows")
    }

    fn by_step(&self, ending: &str) -> Result<Vec<(u32, PathBuf)>> {
        let step_of = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(ending)?.parse().ok();
        let files = fs::list(&self.path.join("checkpoints"))?;
        let mut found: Vec<(u32, PathBuf)> = files.into_iter().filter_map(|path| Some((step_of(&path)?, path))).collect();
        found.sort();
        Ok(found)
    }

    /// Removes all checkpoints but the newest `keep_last`.
    pub fn prune_checkpoints(&self, keep_last: usize) -> Result<()> {
        let checkpoints = self.checkpoints()?;
        let old = checkpoints.len().saturating_sub(keep_last);
        checkpoints[..old].iter().try_for_each(|(_, path)| fs::remove(path))
    }

    pub fn sample_path(&self, step: u32) -> PathBuf {
        self.path.join(format!("samples/step-{step}.png"))
    }

    /// Removes everything that was drawn: by a past that counts no more.
    pub fn remove_samples(&self) -> Result<()> {
        fs::list(&self.path.join("samples"))?.iter().try_for_each(|path| fs::remove(path))
    }

    /// The way of the final samples from noise to data.
    pub fn reverse_path(&self, step: u32, ending: &str) -> PathBuf {
        self.path.join(format!("samples/reverse-{step}.{ending}"))
    }

    pub fn log_path(&self) -> PathBuf {
        self.path.join("log.txt")
    }

    /// Adds one line to `timing.jsonl`, the only file that holds a clock; never compared, not flushed.
    pub fn append_timing(&self, line: &str) -> Result<()> {
        fs::append(&self.path.join("timing.jsonl"), format!("{}\n", line.trim_end()).as_bytes())
    }

    /// What of the files that `manifest` committed is missing, without reading any.
    pub fn missing_of(&self, manifest: &Manifest) -> Vec<Damage> {
        manifest.files.keys().filter(|file| !fs::is_file(&self.path.join(file))).cloned().map(Damage::Missing).collect()
    }

    /// Reads every file that `run.json` committed and compares its blake3. Empty: all as recorded.
    pub fn verify(&self) -> Result<Vec<Damage>> {
        self.manifest()?.map_or(Ok(Vec::new()), |manifest| self.verify_by(&manifest))
    }

    /// [`verify`](Self::verify) for whoever has read `run.json` already.
    pub fn verify_by(&self, manifest: &Manifest) -> Result<Vec<Damage>> {
        let mut damage = Vec::new();
        for (file, hash) in &manifest.files {
            let path = self.path.join(file);
            if !fs::is_file(&path) {
                damage.push(Damage::Missing(file.clone()));
            } else if fs::hash_file(&path)? != *hash {
                damage.push(Damage::Changed(file.clone()));
            }
        }
        Ok(damage)
    }

    /// blake3 of files of this run, by path inside its folder: what [`Manifest::files`] wants.
    pub fn hash_files(&self, files: &[&str]) -> Result<std::collections::BTreeMap<String, String>> {
        files.iter().map(|file| Ok((file.to_string(), fs::hash_file(&self.path.join(file))?))).collect()
    }
}

/// Only the version, to refuse another layout before its unknown shape gives a confusing message.
#[derive(Deserialize)]
struct Versioned {
    schema: u32,
}

/// The key under which a JSON file of the store holds the hash of all its other keys.
const SELF_HASH: &str = "blake3";

/// Parses a JSON file that carries `schema` and, since it is written, the hash of itself: a flipped bit in a number is as
/// much damage as one in a brace.
pub(super) fn parse_versioned<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    let corrupt = |e: serde_json::Error| StoreError::corrupt(path, e);
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(corrupt)?;
    let Versioned { schema } = Versioned::deserialize(&value).map_err(corrupt)?;
    let sealed = value.get(SELF_HASH).is_some();
    let checked = without_hash(path, value);
    // A flipped bit in the layout's number is damage; a layout that seals its records in another way is told by its number.
    if schema != SCHEMA && !(sealed && checked.is_err()) {
        let path = path.to_path_buf();
        return Err(if schema > SCHEMA {
            StoreError::NewerSchema { path, found: schema, known: SCHEMA }
        } else {
            StoreError::OlderSchema { path, found: schema, known: SCHEMA }
        });
    }
    serde_json::from_value(checked?).map_err(corrupt)
}

/// What a JSON file of the store says, its own hash checked and taken out.
pub(super) fn without_hash(path: &Path, mut value: serde_json::Value) -> Result<serde_json::Value> {
    // It comes last and is the only text that does; files of before it was told have none.
    if value.as_object().and_then(|object| object.values().next_back()).is_some_and(serde_json::Value::is_string) {
        let told = value.as_object_mut().and_then(|object| object.shift_remove(SELF_HASH));
        if told != Some(fs::hash(value.to_string().as_bytes()).into()) {
            return Err(StoreError::corrupt(path, "its contents do not match the hash in it"));
        }
    }
    Ok(value)
}

pub(super) fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<()> {
    let corrupt = |e: serde_json::Error| StoreError::corrupt(path, e);
    // Through its text, so that what is hashed is what a reader finds.
    let mut value: serde_json::Value = serde_json::to_string(value).and_then(|text| serde_json::from_str(&text)).map_err(corrupt)?;
    let hash = fs::hash(value.to_string().as_bytes());
    if let Some(object) = value.as_object_mut() {
        object.insert(SELF_HASH.to_string(), hash.into());
    }
    let mut bytes = serde_json::to_vec_pretty(&value).map_err(corrupt)?;
    bytes.push(b'\n');
    fs::write_if_changed(path, &bytes).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{evaluation, manifest, run_dir};

    #[test]
    fn a_folder_name_is_taken_apart_into_slug_and_id() {
        let run = RunDir::at(Path::new("results/runs/cosine-vlb-s0-r0123456789ab")).unwrap();
        assert_eq!((run.slug(), run.id()), ("cosine-vlb-s0", "r0123456789ab"));
        for foreign in ["lost+found", "a-r0123", "a-r0123456789AB", "r0123456789ab", "a-q0123456789ab"] {
            assert_eq!(RunDir::at(Path::new(foreign)), None, "{foreign}");
        }
    }

    #[test]
    fn a_long_slug_still_gives_a_file_name() {
        let name = folder_name(&"ü".repeat(300), "r0123456789ab");
        assert!(name.len() <= 255);
        assert_eq!(RunDir::at(Path::new(&name)).unwrap().id(), "r0123456789ab");
    }

    #[test]
    fn the_state_follows_lock_then_record_then_checkpoint() {
        let (_dir, run) = run_dir();
        assert_eq!(run.state().unwrap(), RunState::Pending, "no folder");
        run.create("seed = 1\n").unwrap();
        assert_eq!(run.state().unwrap(), RunState::Pending, "an empty folder");
        fs::write_atomic(&run.checkpoint_path(10), b"x").unwrap();
        assert_eq!(run.state().unwrap(), RunState::Resumable);
        for (status, state) in [
            (Status::Interrupted, RunState::Resumable),
            (Status::Failed, RunState::Failed),
            (Status::Diverged, RunState::Diverged),
            (Status::Done, RunState::Done),
        ] {
            run.write_manifest(&manifest(&run, status)).unwrap();
            assert_eq!(run.state().unwrap(), state);
        }
        let lock = run.try_lock().unwrap();
        assert!(lock.is_some());
        assert_eq!(run.state().unwrap(), RunState::Running);
        drop(lock);
        assert_eq!(run.state().unwrap(), RunState::Done);
    }

    #[test]
    fn a_finished_run_keeps_its_configuration_and_an_unfinished_one_takes_the_new() {
        let (_dir, run) = run_dir();
        run.create("path = \"old\"\n").unwrap();
        run.create("path = \"new\"\n").unwrap();
        assert_eq!(run.config_text().unwrap(), "path = \"new\"\n");
        run.write_manifest(&manifest(&run, Status::Done)).unwrap();
        run.create("path = \"newer\"\n").unwrap();
        assert_eq!(run.config_text().unwrap(), "path = \"new\"\n");
    }

    #[test]
    fn evaluations_come_back_bit_for_bit_and_not_finite_ones_come_back_as_nan() {
        let (_dir, run) = run_dir();
        run.create("").unwrap();
        assert_eq!(run.read_evaluations().unwrap(), []);
        let mut written: Vec<Evaluation> = (1..2000).map(|i| evaluation(i, (i as f64).sin() / 3.0)).collect();
        run.write_evaluations(&written).unwrap();
        assert!(run.read_evaluations().unwrap() == written);
        written.truncate(1);
        written[0].bits_per_dim_se = f64::NAN;
        run.write_evaluations(&written).unwrap();
        let back = run.read_evaluations().unwrap();
        assert!(back.len() == 1 && back[0].bits_per_dim_se.is_nan() && back[0].bits_per_dim == written[0].bits_per_dim);
    }

    #[test]
    fn bounds_of_single_examples_come_back_and_evaluations_of_before_they_were_told_still_read() {
        let (_dir, run) = run_dir();
        run.create("").unwrap();
        let told = Evaluation { by_example: vec![3.1, 1.0 / 3.0, 2e-17], ..evaluation(60, 1.5) };
        run.write_evaluations(&[told.clone(), told.summary()]).unwrap();
        assert_eq!(run.read_evaluations().unwrap(), [told.clone(), told.summary()]);
        // As versions wrote it that knew nothing of single examples; a summary still has that form.
        let old = r#"{"split":"test","weights":"ema","step":60,"images":4,"timesteps":20,"draws":1,"bits_per_dim":1.5,"bits_per_dim_se":0.125,"prior":0.01,"kl":1.48,"decoder":0.01,"eps_mse":0.1,"n_nonfinite":0}"#;
        assert_eq!(serde_json::to_string(&told.summary()).unwrap(), old);
        std::fs::write(run.path().join("metrics.jsonl"), format!("{old}\n")).unwrap();
        assert_eq!(run.read_evaluations().unwrap(), [told.summary()]);
    }

    #[test]
    fn a_manifest_torn_at_any_byte_is_an_error_that_names_it() {
        let (_dir, run) = run_dir();
        run.create("").unwrap();
        run.write_manifest(&manifest(&run, Status::Done)).unwrap();
        let whole = fs::read(&run.manifest_path()).unwrap();
        for length in 0..whole.len() - 1 {
            std::fs::write(run.manifest_path(), &whole[..length]).unwrap();
            if length + 1 == whole.len() {
                continue; // only the newline is gone
            }
            let error = run.manifest().expect_err(&format!("{length} bytes"));
            assert!(error.is_corrupt() && error.to_string().contains("run.json"), "{error}");
        }
    }

    #[test]
    fn a_newer_layout_is_refused_with_both_versions() {
        let (_dir, run) = run_dir();
        run.create("").unwrap();
        std::fs::write(run.manifest_path(), br#"{"schema": 7, "quite": "different"}"#).unwrap();
        let message = run.manifest().unwrap_err().to_string();
        assert!(message.contains("layout 7") && message.contains("up to 1"), "{message}");
    }

    #[test]
    fn an_older_layout_is_refused_with_the_command_that_helps() {
        let (_dir, run) = run_dir();
        run.create("").unwrap();
        std::fs::write(run.manifest_path(), br#"{"schema": 0, "quite": "different"}"#).unwrap();
        let error = run.manifest().unwrap_err();
        assert!(error.to_string().contains("layout 0") && error.to_string().contains("ddpm-lab migrate"), "{error}");
        assert!(!error.is_corrupt(), "it is not for throwing away");
    }

    #[test]
    fn a_manifest_of_another_run_is_refused() {
        let (_dir, run) = run_dir();
        run.create("").unwrap();
        let mut other = manifest(&run, Status::Done);
        other.run_id = "rffffffffffff".into();
        run.write_manifest(&other).unwrap();
        assert!(run.manifest().unwrap_err().is_corrupt());
    }

    #[test]
    fn checkpoints_are_sorted_by_number_and_the_oldest_are_pruned() {
        let (_dir, run) = run_dir();
        run.create("").unwrap();
        for step in [100, 9, 20] {
            fs::write_atomic(&run.checkpoint_path(step), b"x").unwrap();
        }
        std::fs::write(run.path().join("checkpoints/notes.txt"), b"").unwrap();
        let steps = |run: &RunDir| run.checkpoints().unwrap().iter().map(|c| c.0).collect::<Vec<_>>();
        assert_eq!(steps(&run), [9, 20, 100]);
        run.prune_checkpoints(2).unwrap();
        assert_eq!(steps(&run), [20, 100]);
        run.prune_checkpoints(2).unwrap();
        assert_eq!(steps(&run), [20, 100]);
        assert!(run.path().join("checkpoints/notes.txt").is_file());
    }

    #[test]
    fn a_changed_and_a_missing_file_are_both_found() {
        let (_dir, run) = run_dir();
        run.create("seed = 1\n").unwrap();
        run.write_evaluations(&[]).unwrap();
        let mut record = manifest(&run, Status::Done);
        record.files = run.hash_files(&["config.toml", "metrics.jsonl"]).unwrap();
        run.write_manifest(&record).unwrap();
        assert_eq!(run.verify().unwrap(), []);
        std::fs::write(run.path().join("config.toml"), "seed = 2\n").unwrap();
        std::fs::remove_file(run.metrics_path()).unwrap();
        assert_eq!(run.verify().unwrap(), [Damage::Changed("config.toml".into()), Damage::Missing("metrics.jsonl".into())]);
        assert_eq!(run.missing_of(&record), [Damage::Missing("metrics.jsonl".into())]);
    }

    #[test]
    fn only_a_failed_run_is_reopened_and_it_keeps_its_attempts() {
        let (_dir, run) = run_dir();
        run.create("").unwrap();
        let mut record = manifest(&run, Status::Failed);
        record.reason = Some("killed by SIGKILL".into());
        record.volatile.attempts = 3;
        run.write_manifest(&record).unwrap();
        run.reopen_failed(&run.try_lock().unwrap().unwrap()).unwrap();
        let now = run.manifest().unwrap().unwrap();
        assert_eq!((now.status, now.reason, now.volatile.attempts), (Status::Interrupted, None, 3));
        run.write_manifest(&manifest(&run, Status::Done)).unwrap();
        run.reopen_failed(&run.try_lock().unwrap().unwrap()).unwrap();
        assert_eq!(run.state().unwrap(), RunState::Done);
    }

    #[test]
    fn taking_the_lock_removes_what_dead_writers_left() {
        let (_dir, run) = run_dir();
        run.create("").unwrap();
        let stale = [run.path().join(".losses.parquet.tmp-1"), run.path().join("checkpoints/.step-3.safetensors.tmp-1")];
        stale.iter().for_each(|path| std::fs::write(path, b"half").unwrap());
        drop(run.try_lock().unwrap().unwrap());
        assert!(stale.iter().all(|path| !path.exists()));
    }
}
