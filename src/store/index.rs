//! `runs.jsonl`: one line per run with its configuration and its final numbers. Derived: anyone may delete it.
//!
//! A line of a finished run says which `run.json` it was made from, by blake3. That record vouches for the configuration
//! beside it, which no longer changes, so while its hash is the same the line is, and ten thousand of them are rewritten
//! without being made again.

use super::listing::Listed;
use super::run_dir::RunDir;
use super::{RunState, fs};
use crate::config::keys::KEYS;
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;

/// Raised when a line says something else of the same run: lines of before are then made anew.
const FORM: u32 = 1;

/// The lines for `runs`, in their order. A run that cannot be read becomes a line that says so. What is still true of
/// `before`, the text that is there, is taken over.
pub(super) fn build(runs: &[RunDir], before: &str) -> String {
    let known: HashMap<&str, &str> = before.lines().filter_map(|line| Some((record_in(line)?, line))).collect();
    let text = |run: &RunDir| {
        // Hashed before it is read: were it replaced in between, the line would be made anew the next time.
        let hash = hash_of_record(run);
        match hash.as_deref().and_then(|hash| known.get(hash)).filter(|_| run.is_locked().is_ok_and(|held| !held)) {
            Some(line) => format!("{line}\n"),
            None => format!("{}\n", Value::Object(line(&Listed::of(run), hash))),
        }
    };
    runs.par_iter().map(text).collect::<Vec<_>>().concat()
}

/// blake3 over `run.json`, the form of a line, and the keys of a configuration.
fn hash_of_record(run: &RunDir) -> Option<String> {
    static FORM_AND_KEYS: LazyLock<String> = LazyLock::new(|| {
        let keys = KEYS.iter().map(|spec| spec.key).collect::<Vec<_>>().join(" ");
        format!("{FORM} {} {keys}\n", env!("CARGO_PKG_VERSION"))
    });
    let record = fs::read(&run.manifest_path()).ok()?;
    Some(fs::hash(&[FORM_AND_KEYS.as_bytes(), &record].concat()))
}

/// The hash that a line begins with, after the run's id.
fn record_in(line: &str) -> Option<&str> {
    let rest = line.strip_prefix(r#"{"run_id":""#)?.split_once(r#"","record":""#)?.1;
    rest.split_once('"').map(|(hash, _)| hash).filter(|hash| hash.len() == 64)
}

fn line(run: &Listed, record: Option<String>) -> Map<String, Value> {
    let mut line = Map::new();
    let mut put = |key: &str, value: Value| line.insert(key.to_string(), value);
    put("run_id", json!(run.dir.id()));
    if let Some(hash) = record.filter(|_| matches!(run.state, Some(RunState::Done | RunState::Diverged))) {
        put("record", json!(hash));
    }
    put("slug", json!(run.manifest.as_ref().map_or(run.dir.slug(), |m| &m.slug)));
    put("state", json!(run.state_name()));
    if let Some(problem) = &run.problem {
        put("reason", json!(problem));
    }
    if let Some(manifest) = &run.manifest {
        put("reason", json!(manifest.reason));
        put("step", json!(manifest.step));
        put("steps", json!(manifest.steps));
        put("first_nonfinite_step", json!(manifest.first_nonfinite_step));
        put("parameters", json!(manifest.parameters));
        for e in &manifest.evaluations {
            let columns = [
                ("bits_per_dim", e.bits_per_dim),
                ("bits_per_dim_se", e.bits_per_dim_se),
                ("prior", e.prior),
                ("kl", e.kl),
                ("decoder", e.decoder),
                ("eps_mse", e.eps_mse),
            ];
            for (name, value) in columns {
                put(&format!("{}_{}_{name}", e.split, e.weights), json!(value));
            }
            if let Some(floor) = &e.floor {
                put(&format!("{}_{}_floor", e.split, e.weights), json!(floor.bits_per_dim));
            }
            if let Some(q) = &e.samples {
                put("samples_sliced_wasserstein", json!(q.sliced_wasserstein));
                put("samples_mmd2", json!(q.mmd2));
                put("samples_mmd2_se", json!(q.mmd2_se));
            }
        }
    }
    // The configuration's own keys come last, dotted as in an override; one that cannot be read has none.
    for (spec, value) in run.config.iter().flat_map(|config| config.entries()) {
        put(spec.key, json!(value));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{evaluation, manifest, run_dir};
    use crate::store::{Manifest, Status};

    #[test]
    fn a_line_is_taken_over_while_the_record_is_the_same_and_made_anew_when_it_is_not() {
        let (_dir, run) = run_dir();
        run.create("seeds = [1]\n").unwrap();
        run.write_manifest(&manifest(&run, Status::Done)).unwrap();
        let runs = [run.clone()];
        let text = build(&runs, "");
        assert_eq!(record_in(&text).map(str::len), Some(64));
        // A mark that only the old text has shows where a line comes from.
        let marked = text.replace("\"slug\":\"linear-s0\"", "\"slug\":\"marked\"");
        assert_ne!(marked, text);
        assert_eq!(build(&runs, &marked), marked);
        let held = run.try_lock().unwrap();
        assert!(build(&runs, &marked).contains("\"state\":\"running\""));
        drop(held);
        run.write_manifest(&Manifest { evaluations: vec![evaluation(60, 1.5)], ..manifest(&run, Status::Done) }).unwrap();
        let now = build(&runs, &marked);
        assert!(now.contains("\"test_ema_bits_per_dim\":1.5") && !now.contains("marked"), "{now}");
        // What may yet change says no record.
        run.write_manifest(&manifest(&run, Status::Interrupted)).unwrap();
        assert_eq!(record_in(&build(&runs, "")), None);
    }
}
