//! Several sweeps as one, to be compared on one page.
//!
//! Start at [`load_compared`]. The sweep becomes the first axis. The axes of each are filled in for the others from their runs'
//! configurations, so that cells of two sweeps that differ in nothing but the sweep can be paired by seed; what differs
//! beyond the axes is the sweep's own, and stands in the table of configurations.

use super::ReportError;
use super::input::{RunData, SweepData};
use super::load::load;
use super::theme::number;
use crate::config::RunConfig;
use crate::config::value::plain;
use crate::record::{Axis, Reference};
use crate::store::{ResultsStore, SweepRecord};
use std::path::Path;

/// The key of the axis that the sweeps are.
pub const SWEEP: &str = "sweep";

/// One sweep as it is, several as one.
///
/// # Errors
/// As [`load`], for any of them.
pub fn load_compared(store: &ResultsStore, names: &[String]) -> Result<SweepData, ReportError> {
    let mut parts: Vec<SweepData> = Vec::new();
    for name in names {
        if !parts.iter().any(|p| p.record.name == *name) {
            parts.push(load(store, name)?);
        }
    }
    Ok(merge(parts))
}

/// The name of a page, and of its folder.
pub fn joined(names: &[String]) -> String {
    let mut distinct: Vec<&str> = Vec::new();
    for name in names {
        if !distinct.contains(&name.as_str()) {
            distinct.push(name);
        }
    }
    distinct.join("+")
}

/// # Panics
/// If there is no sweep.
pub fn merge(mut parts: Vec<SweepData>) -> SweepData {
    assert!(!parts.is_empty(), "nothing to merge");
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let compared: Vec<SweepRecord> = parts.iter().map(|p| p.record.clone()).collect();
    let mut keys: Vec<String> = Vec::new();
    for axis in compared.iter().flat_map(|r| &r.axes) {
        if !keys.contains(&axis.key) {
            keys.push(axis.key.clone());
        }
    }
    let mut axes: Vec<Axis> = keys.iter().map(|key| Axis { key: key.clone(), values: Vec::new() }).collect();
    let (mut runs, mut credits, mut references) = (Vec::new(), Vec::new(), Vec::new());
    let mut forward = Err("no sweep has data that can be read here".to_string());
    for part in parts {
        let name = part.record.name;
        for run in part.runs {
            runs.push(filled(&name, run, &mut axes));
        }
        for credit in part.credits {
            if !credits.contains(&credit) {
                credits.push(credit);
            }
        }
        references.extend(part.record.references.into_iter().map(|r| Reference { cells: cells(&name, &r, &compared), ..r }));
        if forward.is_err() {
            forward = part.forward;
        }
    }
    axes.insert(0, Axis { key: SWEEP.into(), values: compared.iter().map(|r| r.name.clone()).collect() });
    let of = |text: fn(&SweepRecord) -> &str| -> Vec<String> {
        compared.iter().filter(|r| !text(r).trim().is_empty()).map(|r| format!("{}: {}", r.name, text(r).trim())).collect()
    };
    let names: Vec<String> = compared.iter().map(|r| r.name.clone()).collect();
    let record = SweepRecord {
        schema: compared[0].schema,
        name: joined(&names),
        title: super::text::list(&names),
        description: of(|r| &r.description).join("\n\n"),
        experiment: String::new(),
        source: String::new(),
        overrides: Vec::new(),
        extended: Vec::new(),
        axes,
        runs: runs.iter().map(|r| r.run.clone()).collect(),
        references,
    };
    SweepData { record, compared, runs, forward, credits }
}

/// A published value of all cells of its sweep is of those alone, not of the other sweeps'.
fn cells(name: &str, reference: &Reference, compared: &[SweepRecord]) -> Vec<String> {
    let own = || compared.iter().filter(|r| r.name == name).flat_map(|r| &r.runs).map(|run| run.cell.clone());
    let mut cells: Vec<String> = if reference.cells.is_empty() { own().collect() } else { reference.cells.clone() };
    cells.dedup();
    cells.iter().map(|cell| named(name, cell)).collect()
}

fn named(sweep: &str, cell: &str) -> String {
    if cell.is_empty() { sweep.to_string() } else { format!("{sweep}: {cell}") }
}

/// The run with its sweep as an axis and a value on every axis that its configuration has; values that are the same number are
/// spelled alike.
fn filled(sweep: &str, mut run: RunData, axes: &mut [Axis]) -> RunData {
    let config = RunConfig::from_toml(Path::new("config.toml"), &run.config_text).ok();
    let mut own = vec![(SWEEP.to_string(), sweep.to_string())];
    for axis in axes {
        let written = run.run.axes.iter().find(|(key, _)| *key == axis.key).map(|(_, value)| value.clone());
        let Some(value) = written.or_else(|| Some(plain(&config.as_ref()?.get(&axis.key)?))) else { continue };
        let known = axis.values.iter().find(|known| **known == value || number(known).is_some_and(|x| number(&value) == Some(x)));
        let value = match known {
            Some(known) => known.clone(),
            None => {
                axis.values.push(value.clone());
                value
            }
        };
        own.push((axis.key.clone(), value));
    }
    run.run.axes = own;
    run.run.cell = named(sweep, &run.run.cell);
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_text;
    use crate::data::{DataSpec, inspect};
    use crate::report::{Answer, Study, synthetic};

    /// A sweep over schedules and one over learning rates at the cosine schedule, with configurations to fill the axes from.
    fn two() -> Vec<SweepData> {
        let inspect = |spec: &DataSpec| inspect(spec).map_err(|e| e.to_string());
        let config = |text: &str| {
            let text = format!("[base]\ndata.name = \"digits\"\n{text}");
            from_text(Path::new("x.toml"), &text, &[], &inspect).unwrap().runs[0].config.to_toml()
        };
        let mut first = synthetic::sweep();
        first.runs.retain(|r| r.run.axes[1].1 == "simple");
        first.record.name = "a".into();
        first.record.axes.truncate(1);
        for run in &mut first.runs {
            run.run.axes.truncate(1);
            run.config_text = config(&format!("diffusion.schedule = \"{}\"\ntrain.lr = 0.001\n", run.run.axes[0].1));
        }
        let mut second = synthetic::sweep();
        second.record.name = "b".into();
        second.record.description = "And the learning rate?".into();
        second.record.axes = vec![Axis { key: "train.lr".into(), values: vec!["1e-3".into(), "1e-4".into()] }];
        second.runs.retain(|r| r.run.axes[0].1 == "cosine");
        for run in &mut second.runs {
            let lr = if run.run.axes[1].1 == "simple" { "1e-3" } else { "1e-4" };
            run.run.axes = vec![("train.lr".into(), lr.into())];
            run.run.cell = format!("lr = {lr}");
            run.config_text = config(&format!("diffusion.schedule = \"cosine\"\ntrain.lr = {lr}\n"));
            for e in &mut run.evaluations {
                e.bits_per_dim += 0.25;
            }
        }
        vec![first, second]
    }

    #[test]
    fn cells_that_differ_in_the_sweep_alone_are_paired() {
        let data = merge(two());
        assert_eq!((data.record.name.as_str(), data.runs.len(), data.record.runs.len()), ("a+b", 18, 18));
        assert!(data.record.description.ends_with("\n\nb: And the learning rate?"));
        let study = Study::new(&data);
        assert_eq!(study.cells.len(), 6);
        assert!(study.cells[0].label.starts_with("a · linear"), "{}", study.cells[0].label);
        let answer = Answer::of(&study);
        let c = answer.comparisons.iter().find(|c| c.key == SWEEP).expect("cosine at 1e-3 is in both");
        assert_eq!((c.a.as_str(), c.b.as_str(), c.pooled.n), ("a", "b", 3));
        assert!((c.pooled.mean - 0.25).abs() < 1e-12 && c.title() == "b − a");
        assert!(answer.comparisons.iter().any(|c| c.key == "train.lr" && c.pooled.n == 3));
    }

    #[test]
    fn one_sweep_stays_what_it_is_and_published_values_stay_with_their_sweep() {
        let alone = merge(vec![synthetic::sweep()]);
        assert_eq!((alone.record.name.as_str(), alone.sweeps().len()), ("beta_schedules", 1));
        let mut parts = two();
        let reference = |cells: Vec<String>| Reference {
            name: "paper".into(),
            cells,
            values: [("bits_per_dim".to_string(), 2.0)].into(),
            source: "Table 1".into(),
            note: String::new(),
        };
        parts[1].record.references = vec![reference(Vec::new()), reference(vec!["lr = 1e-3".into()])];
        parts[1].record.runs = parts[1].runs.iter().map(|r| r.run.clone()).collect();
        let data = merge(parts);
        assert_eq!(data.record.references[0].cells, ["b: lr = 1e-3", "b: lr = 1e-4"]);
        assert_eq!(data.record.references[1].cells, ["b: lr = 1e-3"]);
        assert_eq!(data.sweeps().iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn names_are_joined_once_each() {
        assert_eq!(joined(&["a".into(), "b".into(), "a".into()]), "a+b");
    }
}
