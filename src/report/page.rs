//! `index.html`: one file with its style inside, figures beside it, nothing loaded from anywhere else.
//!
//! Start at [`render`]. The question and the answer come first, then figures, tables, and how to repeat it all.

use super::compare::{Answer, Comparison};
use super::figures::{Drawn, Figure};
use super::study::Study;
use super::tables;
use super::text::{count, escape, list, prose};
use super::warnings::warnings;
use crate::named::NamedEnum;
use crate::store::RunState;
use std::path::Path;

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub fn render(study: &Study, answer: &Answer, drawn: &[Drawn]) -> String {
    let record = &study.data.record;
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{0} · ddpm-lab report</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{0}</h1>\n",
        escape(study.title())
    );
    if !record.description.trim().is_empty() {
        out += &format!("<p class=\"question\">{}</p>\n", escape(record.description.trim()));
    }
    out += &format!("<p class=\"meta\">{}</p>\n</header>\n", escape(&overview(study)));
    out += &contents(drawn);
    out += "<main>\n";
    let warnings = warnings(study);
    if !warnings.is_empty() {
        out += "<section class=\"warnings\" aria-label=\"Warnings\">\n<h2>Before you read on</h2>\n<ul>\n";
        for w in warnings {
            out += &format!("<li>{}</li>\n", escape(&w));
        }
        out += "</ul>\n</section>\n";
    }
    out += &answer_section(study, answer);
    out += "<section id=\"figures\">\n<h2>Figures</h2>\n";
    for d in drawn {
        if let Drawn::Figure(figure) = d {
            out += &figure_html(figure);
        }
    }
    let skipped: Vec<_> =
        drawn.iter().filter_map(|d| if let Drawn::Skipped { name, reason } = d { Some((name, reason)) } else { None }).collect();
    if !skipped.is_empty() {
        out += "<p class=\"note\">Not drawn: ";
        out += &skipped
            .iter()
            .map(|(name, reason)| format!("<code>{}</code> ({})", escape(name), escape(reason)))
            .collect::<Vec<_>>()
            .join(", ");
        out += ".</p>\n";
    }
    out += "</section>\n<section id=\"runs\">\n<h2>Runs</h2>\n";
    out += &tables::runs(study);
    out += &configurations(study);
    out += "</section>\n<section id=\"provenance\">\n<h2>Provenance</h2>\n";
    out += &tables::provenance(study);
    for credit in &study.data.credits {
        out += &format!("<p>Data: {}</p>\n", escape(credit));
    }
    out += "</section>\n";
    out += &reproduce(study);
    out += &data_section(study);
    out += "</main>\n</body>\n</html>\n";
    out
}

fn overview(study: &Study) -> String {
    let runs = &study.data.runs;
    let states: Vec<String> = RunState::ALL
        .iter()
        .filter_map(|s| {
            let n = runs.iter().filter(|r| r.state == *s).count();
            (n > 0).then(|| format!("{n} {s}"))
        })
        .collect();
    let mut seeds: Vec<i64> = runs.iter().map(|r| r.run.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let seeds: Vec<String> = seeds.iter().map(i64::to_string).collect();
    let metric = study.metric.map_or("no final evaluation yet".into(), |m| format!("judged on the {}", m.words()));
    format!(
        "{} ({}) in {}, {} {}; {metric}.",
        count(runs.len(), "run"),
        states.join(", "),
        count(study.cells.len(), "cell"),
        if seeds.len() == 1 { "seed" } else { "seeds" },
        list(&seeds)
    )
}

fn contents(drawn: &[Drawn]) -> String {
    let mut out = String::from("<nav aria-label=\"Contents\"><a href=\"#answer\">Answer</a> <a href=\"#figures\">Figures</a>");
    for d in drawn {
        if let Drawn::Figure(f) = d {
            out += &format!(" <a class=\"sub\" href=\"#fig-{}\">{}</a>", escape(&f.name), escape(&f.title));
        }
    }
    out + " <a href=\"#runs\">Runs</a> <a href=\"#provenance\">Provenance</a> <a href=\"#reproduce\">Reproduce</a> <a href=\"#data\">Data</a></nav>\n"
}

fn answer_section(study: &Study, answer: &Answer) -> String {
    let mut out = String::from("<section id=\"answer\">\n<h2>Answer</h2>\n");
    for (i, sentence) in answer.sentences.iter().enumerate() {
        out += &format!("<p{}>{}</p>\n", if i == 0 { " class=\"lead\"" } else { "" }, prose(sentence));
    }
    if !answer.results.is_empty() {
        out += &tables::ranking(study, answer);
        out += &tables::published(study);
        out += &format!("<p class=\"note\">{}</p>\n", prose(&reading(study, answer)));
    }
    if !answer.comparisons.is_empty() {
        out += "<h3>Along each axis</h3>\n<ul class=\"said\">\n";
        for c in &answer.comparisons {
            out += &format!("<li>{}</li>\n", prose(&Comparison::sentence(c)));
        }
        out += "</ul>\n<details><summary>All differences</summary>\n";
        out += &tables::comparisons(answer);
        out += "</details>\n";
    }
    out + "</section>\n"
}

/// How the intervals are to be read.
fn reading(study: &Study, answer: &Answer) -> String {
    let se = answer.results.iter().map(|r| r.image_se).filter(|s| s.is_finite()).fold(0.0, f64::max);
    let mut said = String::new();
    if answer.results.iter().any(|r| r.bits.n > 1) {
        said += "Intervals are over training seeds, each 95 % by itself, without correction for their number. ";
    }
    said += "All runs are evaluated on the same examples with the same noise";
    if se > 0.0 {
        said += &format!(
            ", so the sampling error of that choice (standard error over examples up to {} bits/dim in one run) is shared by the cells and largely cancels \
             in differences",
            super::text::fixed(se, super::text::decimals_for(se, se))
        );
    }
    said += ".";
    if answer.comparisons.iter().any(|c| c.attribution.is_some()) {
        said += " Ranges of t were chosen after seeing the data: the shortest that carry at least four fifths of a difference, with ends at 1, 2, 5, 10, 20, 50 and so on.";
    }
    if study.differential() {
        said += " The data is continuous: bits are differential, may be negative, and compare only with those of the same data in the same units.";
    }
    said
}

fn figure_html(figure: &Figure) -> String {
    let name = escape(&figure.name);
    let mut links =
        format!("<a href=\"figures/{name}.svg\">svg</a> <a href=\"figures/{name}.png\">png</a> <a href=\"figures/{name}.csv\">csv</a>");
    for (stem, _) in &figure.more_csv {
        links += &format!(" <a href=\"figures/{0}.csv\">{0}.csv</a>", escape(stem));
    }
    format!(
        "<figure id=\"fig-{name}\">\n<h3>{title}</h3>\n<div class=\"card\" tabindex=\"0\"><img src=\"figures/{name}.svg\" width=\"{w}\" height=\"{h}\" loading=\"lazy\" \
         alt=\"{title}. The caption below says what is drawn; the numbers are in the csv.\"></div>\n<figcaption>{caption} <span class=\"links\">{links}</span></figcaption>\n</figure>\n",
        title = escape(&figure.title),
        caption = prose(&figure.caption),
        w = figure.scene.width.round(),
        h = figure.scene.height.round(),
    )
}

fn configurations(study: &Study) -> String {
    let mut out = String::from("<details><summary>Full configurations</summary>\n");
    for run in study.cells.iter().flat_map(|c| &c.runs) {
        let text = if run.data.config_text.is_empty() { "(not written yet)" } else { run.data.config_text.trim_end() };
        out += &format!(
            "<details><summary><code>{}</code> {}, seed {}</summary>\n<pre>{}</pre></details>\n",
            escape(&run.data.run.run_id),
            escape(&run.data.run.cell),
            run.seed(),
            escape(text)
        );
    }
    out + "</details>\n"
}

/// A path as a reader elsewhere can use it: absolute ones lose their folder, which is of one machine.
fn portable(source: &str) -> String {
    let path = Path::new(source);
    if path.is_absolute() { path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()) } else { source.to_string() }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=./,:+@%[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.contains('[') {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn reproduce(study: &Study) -> String {
    let record = &study.data.record;
    let mut sweep = format!("ddpm-lab sweep {}", quoted(&portable(&record.source)));
    for o in &record.overrides {
        sweep += " ";
        sweep += &quoted(o);
    }
    let report = format!("ddpm-lab report {}", quoted(&record.name));
    let one = study.data.runs.first().map_or(String::new(), |r| format!("ddpm-lab show {}\n", quoted(&r.run.run_id)));
    format!(
        "<section id=\"reproduce\">\n<h2>Reproduce</h2>\n<pre>{}\n{}\n{}</pre>\n<details><summary>The experiment file</summary>\n<pre>{}</pre></details>\n</section>\n",
        escape(&sweep),
        escape(&report),
        escape(&one),
        escape(record.experiment.trim_end())
    )
}

fn data_section(study: &Study) -> String {
    let (split, weights) = study.metric.map_or(("test", "ema"), |m| (m.split.name(), m.weights.name()));
    let name = serde_json::Value::from(study.data.record.name.as_str());
    let snippet = format!(
        "import json\nimport polars as pl\n\nname = {name}\nsweep = json.load(open(f\"results/sweeps/{{name}}.json\"))\nruns = [run[\"run_id\"] for run in sweep[\"runs\"]]\n\
         losses = pl.scan_parquet(\"results/**/*.parquet\").filter(pl.col(\"run_id\").is_in(runs))\n\n\
         # The bound's terms by timestep, of each run.\nterms = (\n    losses.filter(pl.col(\"split\") == \"{split}\", pl.col(\"weights\") == \"{weights}\")\n    \
         .select(\"run_id\", \"slug\", \"seed\", \"t\", \"term\", \"vb_mean\", \"mse_mean\")\n    .sort(\"run_id\", \"t\")\n    .collect()\n)\n"
    );
    format!(
        "<section id=\"data\">\n<h2>Data</h2>\n<p>Every number of every figure is in the csv beside it. The losses by timestep, step and split of each run are in \
         <code>results/runs/&lt;slug&gt;-&lt;id&gt;/losses.parquet</code>, all with the same columns:</p>\n<pre>{}</pre>\n</section>\n",
        escape(&snippet)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figures::draw_all;
    use crate::report::synthetic;

    fn page(data: &crate::report::SweepData) -> String {
        let study = Study::new(data);
        let answer = Answer::of(&study);
        render(&study, &answer, &draw_all(&study).unwrap())
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere_and_no_machine_is_named() {
        let mut data = synthetic::sweep();
        data.record.source = "/home/someone/experiments/x.toml".into();
        let html = page(&data);
        assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("<script"));
        assert!(!html.contains("secret") && !html.contains("/home/"), "host, command line and absolute paths stay out");
        assert!(html.contains("ddpm-lab sweep x.toml"));
    }

    #[test]
    fn text_from_files_cannot_become_markup() {
        let mut data = synthetic::sweep();
        data.record.name = "<b>x</b>".into();
        data.record.description = "is 1 < 2 & \"3\"?".into();
        data.record.experiment = "<script>alert(1)</script>".into();
        data.runs[0].state = RunState::Failed;
        data.runs[0].manifest.as_mut().unwrap().reason = Some("<img src=x>".into());
        let html = page(&data);
        assert!(!html.contains("<b>x</b>") && !html.contains("<script>") && !html.contains("<img src=x>"));
        assert!(html.contains("is 1 &lt; 2 &amp; &quot;3&quot;?"));
    }

    #[test]
    fn every_run_is_listed_with_its_state_and_reason() {
        let mut data = synthetic::sweep();
        data.runs[3].state = RunState::Failed;
        data.runs[3].manifest.as_mut().unwrap().reason = Some("out of memory".into());
        data.runs[4].state = RunState::Diverged;
        data.runs[4].manifest.as_mut().unwrap().first_nonfinite_step = Some(1234);
        data.runs[5].state = RunState::Pending;
        data.runs[5].manifest = None;
        let html = page(&data);
        for run in &data.runs {
            assert!(html.contains(&format!("<code>{}</code>", run.run.run_id)));
        }
        assert!(html.contains("out of memory") && html.contains("step 1234") && html.contains(">pending<"));
    }

    #[test]
    fn a_title_takes_the_place_of_the_name_and_published_values_stand_in_the_tables() {
        let mut data = synthetic::sweep();
        assert!(page(&data).contains("<h1>beta_schedules</h1>") && !page(&data).contains("<th scope=\"col\">source</th>"));
        data.record.title = "Schedules & losses".into();
        data.record.references = vec![crate::record::Reference {
            name: "4k".into(),
            cells: vec![data.runs[3].run.cell.clone()],
            values: [("bits_per_dim".to_string(), 2.94), ("fid".to_string(), 11.47)].into(),
            source: "Nichol & Dhariwal 2021, Table 2".into(),
            note: "CIFAR-10".into(),
        }];
        let html = page(&data);
        assert!(html.contains("<h1>Schedules &amp; losses</h1>") && html.contains("<title>Schedules &amp; losses · "));
        let row =
            html.lines().find(|l| l.contains("linear · vlb</td>") && l.contains("Nichol")).expect("the row of the cell has the source");
        assert!(row.contains("<td class=\"num\">2.94</td>"), "{row}");
        assert!(html.contains("bits per dim 2.94, fid 11.47") && html.contains("CIFAR-10"));
    }

    #[test]
    fn words_for_the_shell_are_quoted_where_they_must_be() {
        assert_eq!(
            (quoted("train.lr=1e-4,1e-3"), quoted("a b"), quoted("it's")),
            ("train.lr=1e-4,1e-3".into(), "'a b'".into(), "'it'\\''s'".into())
        );
    }
}
