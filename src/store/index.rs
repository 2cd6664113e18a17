//! `runs.jsonl`: one line per run with its configuration and its final numbers. Derived; never read back.

use super::error::StoreError;
use super::run_dir::RunDir;
use crate::named::NamedEnum;
use serde_json::{Map, Value, json};

/// The lines for `runs`, in their order. A run that cannot be read becomes a line that says so.
pub(super) fn build(runs: &[RunDir]) -> Result<String, StoreError> {
    let mut text = String::new();
    for run in runs {
        text.push_str(&Value::Object(line(run)?).to_string());
        text.push('\n');
    }
    Ok(text)
}

fn line(run: &RunDir) -> Result<Map<String, Value>, StoreError> {
    let mut line = Map::new();
    let mut put = |key: &str, value: Value| line.insert(key.to_string(), value);
    put("run_id", json!(run.id()));
    put("slug", json!(run.slug()));
    let record = run.state().and_then(|state| Ok((state, run.manifest()?)));
    match record {
        Ok((state, None)) => {
            put("state", json!(state.name()));
        }
        Ok((state, Some(manifest))) => {
            put("slug", json!(manifest.slug));
            put("state", json!(state.name()));
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
        Err(error) if error.is_corrupt() || matches!(error, StoreError::NewerSchema { .. }) => {
            put("state", json!("damaged"));
            put("reason", json!(error.to_string()));
        }
        Err(error) => return Err(error),
    }
    // The configuration's own keys come last, dotted as in the experiment file; one that does not parse has none.
    if let Ok(config) = run.config_text()
        && let Ok(table) = config.parse::<toml::Table>()
    {
        flatten("", &table, &mut line);
    }
    Ok(line)
}

fn flatten(prefix: &str, table: &toml::Table, line: &mut Map<String, Value>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, line),
            other => {
                line.insert(key, to_json(other));
            }
        }
    }
}

fn to_json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(s) => json!(s),
        toml::Value::Integer(i) => json!(i),
        toml::Value::Float(f) => json!(f),
        toml::Value::Boolean(b) => json!(b),
        toml::Value::Datetime(d) => json!(d.to_string()),
        toml::Value::Array(items) => Value::Array(items.iter().map(to_json).collect()),
        toml::Value::Table(table) => Value::Object(table.iter().map(|(k, v)| (k.clone(), to_json(v))).collect()),
    }
}
