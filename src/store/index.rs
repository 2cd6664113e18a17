//! `runs.jsonl`: one line per run with its configuration and its final numbers. Derived; never read back.

use super::listing::Listed;
use super::run_dir::RunDir;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

/// The lines for `runs`, in their order. A run that cannot be read becomes a line that says so.
pub(super) fn build(runs: &[RunDir]) -> String {
    runs.par_iter().map(|run| format!("{}\n", Value::Object(line(&Listed::of(run))))).collect::<Vec<_>>().concat()
}

fn line(run: &Listed) -> Map<String, Value> {
    let mut line = Map::new();
    let mut put = |key: &str, value: Value| line.insert(key.to_string(), value);
    put("run_id", json!(run.dir.id()));
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
