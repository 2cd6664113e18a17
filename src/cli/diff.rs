//! `diff`: two runs side by side: the keys in which they differ, what came of each, and where each was made.

use super::output::{Table, duration, print};
use super::runs::{final_evaluation, revision};
use super::{CliError, StoreArgs, exit};
use crate::config::RunConfig;
use crate::record::{Evaluation, Split};
use crate::report::pairing::of_two_runs;
use crate::report::stats::PairedError;
use crate::report::text::{signed, signed_plus_minus};
use crate::store::{Manifest, RunDir, RunState};
use serde_json::{Map, Value, json};

#[derive(clap::Args)]
pub struct DiffArgs {
    /// A run id, a unique prefix of one, a run folder, or `latest`.
    a: String,
    /// Another run. Differences are b − a.
    b: String,
    #[command(flatten)]
    store: StoreArgs,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// One of the two runs.
struct Side {
    dir: RunDir,
    state: RunState,
    config: RunConfig,
    manifest: Option<Manifest>,
    evaluation: Option<Evaluation>,
}

/// A number of both runs.
struct Metric {
    key: &'static str,
    label: &'static str,
    /// Value, and its standard error where there is one.
    sides: [Option<(f64, Option<f64>)>; 2],
    /// Of the difference.
    error: Option<PairedError>,
    decimals: usize,
}

impl Metric {
    fn difference(&self) -> Option<f64> {
        Some(self.sides[1]?.0 - self.sides[0]?.0)
    }
}

pub fn diff(args: &DiffArgs) -> Result<i32, CliError> {
    let store = args.store.existing()?;
    let side = |pattern: &str| Side::read(store.find(pattern)?);
    let (a, b) = (side(&args.a)?, side(&args.b)?);
    let keys = a.config.diff(&b.config);
    let error = match (&a.evaluation, &b.evaluation) {
        (Some(x), Some(y)) => of_two_runs((&a.config.data, x), (&b.config.data, y)),
        _ => None,
    };
    let metrics = metrics(&a, &b, error);
    let origins = origins(&a, &b);
    if args.json {
        print(&format!("{:#}\n", json(&a, &b, &keys, &metrics, &origins)));
        return Ok(exit::DONE);
    }
    let mut text = String::new();
    for (name, side) in [("A", &a), ("B", &b)] {
        text += &format!("{name}  {}  {}  {}\n", side.dir.id(), side.state, side.dir.slug());
    }
    if keys.is_empty() {
        text += "\nThe configurations are equal in every key.\n";
    } else {
        let mut table = Table::new(&["configuration", "A", "B"]);
        keys.iter().for_each(|(key, a, b)| table.row(vec![(*key).to_owned(), a.clone(), b.clone()]));
        text += &format!("\n{}", table.render("  "));
    }
    text += &results(&a, &b, &metrics, error);
    if !origins.is_empty() {
        let mut table = Table::new(&["made with", "A", "B"]);
        for (key, a, b) in &origins {
            table.row(vec![key.replace('_', " "), brief(key, a), brief(key, b)]);
        }
        text += &format!("\n{}", table.render("  "));
    }
    print(&text);
    Ok(exit::DONE)
}

impl Side {
    fn read(dir: RunDir) -> Result<Self, CliError> {
        let (state, manifest) = (dir.state()?, dir.manifest()?);
        let config = RunConfig::from_toml(&dir.path().join("config.toml"), &dir.config_text()?)?;
        // Only metrics.jsonl tells the examples apart.
        let on_test = dir.read_evaluations()?.into_iter().rev().find(|e| e.split == Split::Test);
        let evaluation = on_test.or_else(|| manifest.as_ref().and_then(final_evaluation).cloned());
        Ok(Self { dir, state, config, manifest, evaluation })
    }
}

fn metrics(a: &Side, b: &Side, error: Option<PairedError>) -> Vec<Metric> {
    let of = |number: &dyn Fn(&Evaluation) -> Option<(f64, Option<f64>)>| {
        [a, b].map(|side| side.evaluation.as_ref().and_then(number).filter(|(x, _)| x.is_finite()))
    };
    let plain = |key, label, decimals, number: fn(&Evaluation) -> f64| Metric {
        key,
        label,
        sides: of(&|e| Some((number(e), None))),
        error: None,
        decimals,
    };
    let distance = |e: &Evaluation| e.samples.as_ref().map(|q| (q.sliced_wasserstein, Some(q.sliced_wasserstein_se)));
    let all = [
        Metric {
            key: "bits_per_dim",
            label: "bits/dim",
            sides: of(&|e| Some((e.bits_per_dim, Some(e.bits_per_dim_se)))),
            error,
            decimals: 4,
        },
        plain("decoder", "  decoder", 4, |e| e.decoder),
        plain("kl", "  KL", 4, |e| e.kl),
        plain("prior", "  prior", 6, |e| e.prior),
        plain("eps_mse", "eps-MSE", 4, |e| e.eps_mse),
        Metric { key: "sliced_wasserstein", label: "SWD", sides: of(&distance), error: None, decimals: 4 },
    ];
    all.into_iter().filter(|metric| metric.sides.iter().any(Option::is_some)).collect()
}

/// The table of results, and how well the difference is known.
fn results(a: &Side, b: &Side, metrics: &[Metric], error: Option<PairedError>) -> String {
    let seconds = [a, b].map(|side| side.manifest.as_ref().map(|m| m.volatile.seconds));
    if metrics.is_empty() && seconds.iter().all(Option::is_none) {
        return "\nNeither run has a result yet.\n".to_owned();
    }
    let dash = || "–".to_owned();
    let place = |side: &Side| side.evaluation.as_ref().map(|e| format!("{}, step {}", e.split, e.step));
    let places = [place(a), place(b)];
    let same = places[0] == places[1];
    let head = if same { places[0].clone().unwrap_or_default() } else { "result".to_owned() };
    let mut table = Table::new(&[&head, ">A", ">B", ">B − A"]);
    if !same {
        table.row(vec!["of".to_owned(), places[0].clone().unwrap_or_else(dash), places[1].clone().unwrap_or_else(dash), String::new()]);
    }
    for metric in metrics {
        let d = metric.decimals;
        let cell = |side: Option<(f64, Option<f64>)>| match side {
            Some((x, Some(error))) => format!("{x:.d$} ± {error:.d$}"),
            Some((x, None)) => format!("{x:.d$}"),
            None => dash(),
        };
        let difference = match (metric.difference(), metric.error) {
            (Some(difference), Some(error)) => signed_plus_minus(difference, error.paired),
            (Some(difference), None) => signed(difference, d),
            (None, _) => dash(),
        };
        table.row(vec![metric.label.to_owned(), cell(metric.sides[0]), cell(metric.sides[1]), difference]);
    }
    let [x, y] = seconds;
    let difference = x.zip(y).map(|(x, y)| if y >= x { format!("+{}", duration(y - x)) } else { format!("−{}", duration(x - y)) });
    table.row(vec!["time".to_owned(), x.map_or_else(dash, duration), y.map_or_else(dash, duration), difference.unwrap_or_else(dash)]);
    let mut text = format!("\n{}", table.render("  "));
    text += &match (error, metrics.first().and_then(Metric::difference)) {
        (Some(e), Some(difference)) => format!(
            "\n± is a standard error. That of B − A is over the {} test examples that both were\nevaluated on, under the same noise: {:.1} times it. Unpaired it would be {:.4}.\n",
            e.n,
            difference.abs() / e.paired,
            e.unpaired
        ),
        (None, Some(_)) => "\n± is a standard error over examples. B − A has none: the runs were evaluated on\ndifferent examples, or one does not tell the bounds of its examples apart.\n".to_owned(),
        (_, None) => String::new(),
    };
    text
}

/// What of the provenances differs, key by key of `run.json`: a new key is compared as soon as it is recorded.
fn origins(a: &Side, b: &Side) -> Vec<(String, Value, Value)> {
    let fields = |side: &Side| match side.manifest.as_ref().map(|m| json!(m.provenance)) {
        Some(Value::Object(mut map)) => {
            if let Some(Value::Object(build)) = map.remove("build") {
                map.extend(build.into_iter().map(|(key, value)| (format!("build_{key}"), value)));
            }
            map
        }
        _ => Map::new(),
    };
    let (x, y) = (fields(a), fields(b));
    let mut keys: Vec<&String> = x.keys().collect();
    keys.extend(y.keys().filter(|key| !x.contains_key(*key)));
    let value = |map: &Map<String, Value>, key: &str| map.get(key).cloned().unwrap_or(Value::Null);
    keys.into_iter().map(|key| (key.clone(), value(&x, key), value(&y, key))).filter(|(_, a, b)| a != b).collect()
}

/// A provenance's value in a column.
fn brief(key: &str, value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) if ["git_revision", "build_revision", "build_lock", "patch", "data"].contains(&key) => revision(text),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned)).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

fn json(a: &Side, b: &Side, keys: &[(&'static str, String, String)], metrics: &[Metric], origins: &[(String, Value, Value)]) -> Value {
    let side = |s: &Side| {
        json!({
            "run_id": s.dir.id(), "slug": s.dir.slug(), "state": s.state, "seconds": s.manifest.as_ref().map(|m| m.volatile.seconds),
            "split": s.evaluation.as_ref().map(|e| e.split), "step": s.evaluation.as_ref().map(|e| e.step),
        })
    };
    let configuration: Map<String, Value> = keys
        .iter()
        .map(|(key, _, _)| {
            let value = |s: &Side| s.config.get(key).map(|value| json!(value));
            ((*key).to_owned(), json!({ "a": value(a), "b": value(b) }))
        })
        .collect();
    let metric = |m: &Metric| {
        let value = |side: Option<(f64, Option<f64>)>| side.map(|(x, _)| x);
        let error = |side: Option<(f64, Option<f64>)>| side.and_then(|(_, e)| e);
        json!({
            "a": value(m.sides[0]), "a_se": error(m.sides[0]), "b": value(m.sides[1]), "b_se": error(m.sides[1]),
            "difference": m.difference(), "difference_se": m.error.map(|e| e.paired), "unpaired_se": m.error.map(|e| e.unpaired),
            "examples": m.error.map(|e| e.n),
        })
    };
    json!({
        "a": side(a), "b": side(b), "configuration": configuration,
        "metrics": metrics.iter().map(|m| (m.key.to_owned(), metric(m))).collect::<Map<String, Value>>(),
        "provenance": origins.iter().map(|(key, a, b)| (key.clone(), json!({ "a": a, "b": b }))).collect::<Map<String, Value>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Build, Provenance};

    #[test]
    fn every_key_of_a_provenance_is_compared() {
        let full = |x: &str, n: usize| Provenance {
            version: x.into(),
            git_revision: Some(x.into()),
            git_dirty: Some(n > 0),
            device: x.into(),
            instruction_set: x.into(),
            threads: n,
            command: vec![x.into()],
            patch: Some(x.into()),
            untracked: vec![x.into()],
            build: Some(Build { revision: Some(x.into()), lock: x.into(), features: vec![x.into()] }),
            device_name: Some(x.into()),
            driver: Some(x.into()),
            data: Some(x.into()),
        };
        let (_dir, run) = crate::store::testing::run_dir();
        let side = |provenance| {
            let manifest = Manifest { provenance, ..crate::store::testing::manifest(&run, crate::store::Status::Done) };
            let inspect = |spec: &crate::data::DataSpec| crate::data::inspect(spec).map_err(|e| e.to_string());
            let grid = crate::config::from_text(std::path::Path::new("x.toml"), "seeds = [0]", &[], &inspect).unwrap();
            Side {
                dir: run.clone(),
                state: RunState::Done,
                config: grid.runs[0].config.clone(),
                manifest: Some(manifest),
                evaluation: None,
            }
        };
        assert_eq!(origins(&side(full("x", 1)), &side(full("y", 0))).len(), 15);
        assert_eq!(origins(&side(full("x", 1)), &side(full("x", 1))), []);
        let known = origins(&side(Provenance::default()), &side(full("y", 1)));
        assert!(known.iter().any(|(key, a, b)| (key.as_str(), a, b) == ("patch", &Value::Null, &json!("y"))), "{known:?}");
    }
}
