//! How to make the page's numbers again: the commands, the experiment file, the data behind the figures.
//!
//! Start at [`section`]. Absolute paths lose their folder, which is of one machine.

use super::study::Study;
use super::text::{escape, list};
use crate::named::NamedEnum;
use crate::store::{Provenance, SweepRecord};
use std::path::Path;

/// The commands, exactly, and what they read.
pub fn section(study: &Study) -> String {
    let sweeps = study.data.sweeps();
    let mut lines = vec!["# All of it: what the store has already is not run again.".to_string()];
    lines.extend(checkout(study));
    lines.extend(sweeps.iter().map(sweep_command));
    lines.push(format!("ddpm-lab report {}", sweeps.iter().map(|s| quoted(&s.name)).collect::<Vec<_>>().join(" ")));
    if let Some(run) = study.data.runs.first() {
        lines.push("\n# One run by itself: its folder has a complete experiment file.".into());
        lines.push(format!("ddpm-lab sweep {}", quoted(&format!("results/runs/{}-{}/config.toml", run.run.slug, run.run.run_id))));
        lines.push(format!("ddpm-lab show {}", quoted(&run.run.run_id)));
    }
    if study.metric.is_some() {
        lines.push("\n# One figure for a paper.".into());
        let names: Vec<String> = sweeps.iter().map(|s| quoted(&s.name)).collect();
        lines.push(format!("ddpm-lab report {} --figure bits_per_dim --width 170mm --output bits_per_dim.svg", names.join(" ")));
    }
    let mut out = format!("<section id=\"reproduce\">\n<h2>Reproduce</h2>\n<pre tabindex=\"0\">{}</pre>\n", escape(&lines.join("\n")));
    for sweep in sweeps {
        let name = if sweeps.len() > 1 { format!("The experiment file of {}", sweep.name) } else { "The experiment file".into() };
        out += &file(&name, &sweep.experiment);
        for (path, text) in &sweep.extended {
            out += &file(&format!("What it extends: {}", portable(path)), text);
        }
    }
    out + "</section>\n"
}

fn file(name: &str, text: &str) -> String {
    format!("<details><summary>{}</summary>\n<pre tabindex=\"0\">{}</pre></details>\n", escape(name), escape(text.trim_end()))
}

/// The revision of the program, where all runs have the same one.
fn checkout(study: &Study) -> Vec<String> {
    let made: Vec<&Provenance> =
        study.data.runs.iter().filter_map(|r| r.manifest.as_ref()).map(|m| &m.provenance).filter(|p| !p.version.is_empty()).collect();
    let mut revisions: Vec<&str> = made.iter().filter_map(|p| p.git_revision.as_deref()).collect();
    revisions.sort_unstable();
    revisions.dedup();
    let mut lines = Vec::new();
    match revisions.as_slice() {
        [] => {}
        [one] => lines.push(format!("git checkout {one}")),
        several => {
            let short: Vec<String> = several.iter().map(|r| r.chars().take(12).collect()).collect();
            lines.push(format!("# The runs come from several revisions: {}.", list(&short)));
        }
    }
    if made.iter().any(|p| p.git_dirty == Some(true)) {
        lines.push("# Some were made with changes that no commit contains.".into());
    }
    lines
}

fn sweep_command(record: &SweepRecord) -> String {
    let words = std::iter::once(portable(&record.source)).chain(record.overrides.iter().cloned());
    format!("ddpm-lab sweep {}", words.map(|w| quoted(&w)).collect::<Vec<_>>().join(" "))
}

/// A path as a reader elsewhere can use it.
fn portable(source: &str) -> String {
    let path = Path::new(source);
    if path.is_absolute() { path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()) } else { source.to_string() }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=./,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_string() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// Where the numbers are, and how to read them.
pub fn data_section(study: &Study) -> String {
    let (split, weights) = study.metric.map_or(("test", "ema"), |m| (m.split.name(), m.weights.name()));
    let names: Vec<serde_json::Value> = study.data.sweeps().iter().map(|s| s.name.as_str().into()).collect();
    let names = serde_json::Value::from(names);
    let snippet = format!(
        "import json\nimport polars as pl\n\nsweeps = [json.load(open(f\"results/sweeps/{{name}}.json\")) for name in {names}]\n\
         runs = [run[\"run_id\"] for sweep in sweeps for run in sweep[\"runs\"]]\n\
         losses = pl.scan_parquet(\"results/**/*.parquet\").filter(pl.col(\"run_id\").is_in(runs))\n\n\
         # The bound's terms by timestep, of each run.\nterms = (\n    losses.filter(pl.col(\"split\") == \"{split}\", pl.col(\"weights\") == \"{weights}\")\n    \
         .select(\"run_id\", \"slug\", \"seed\", \"t\", \"term\", \"vb_mean\", \"mse_mean\")\n    .sort(\"run_id\", \"t\")\n    .collect()\n)\n"
    );
    format!(
        "<section id=\"data\">\n<h2>Data</h2>\n<p>Every number of every figure is in the csv beside it. The losses by timestep, step and split of each run are in \
         <code>results/runs/&lt;slug&gt;-&lt;id&gt;/losses.parquet</code>, all with the same columns:</p>\n<pre tabindex=\"0\">{}</pre>\n</section>\n",
        escape(&snippet)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic;

    #[test]
    fn words_for_the_shell_are_quoted_where_they_must_be() {
        assert_eq!(
            (quoted("train.lr=1e-4,1e-3"), quoted("a b"), quoted("it's"), quoted("x[0]")),
            ("train.lr=1e-4,1e-3".into(), "'a b'".into(), "'it'\\''s'".into(), "'x[0]'".into())
        );
    }

    #[test]
    fn the_commands_name_the_revision_only_where_there_is_one() {
        let mut data = synthetic::sweep();
        data.record.overrides = vec!["train.lr=1e-3,1e-4".into()];
        data.record.extended = vec![("base.toml".into(), "[base]\n".into())];
        let html = section(&Study::new(&data));
        assert!(
            html.contains("git checkout 0123456789abcdef\nddpm-lab sweep experiments/beta_schedules.toml train.lr=1e-3,1e-4\n"),
            "{html}"
        );
        assert!(html.contains("ddpm-lab report beta_schedules\n") && html.contains("/config.toml") && html.contains("extends: base.toml"));
        let p = &mut data.runs[0].manifest.as_mut().unwrap().provenance;
        (p.git_revision, p.git_dirty) = (Some("fedcba9876543210".into()), Some(true));
        let html = section(&Study::new(&data));
        assert!(!html.contains("git checkout") && html.contains("several revisions") && html.contains("no commit contains"), "{html}");
    }
}
