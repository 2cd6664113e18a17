//! The tables of the page: ranking, comparisons, runs, provenance.
//!
//! Start at [`ranking`]. Each function gives HTML; every text that comes from outside is escaped here.

use super::compare::{Answer, Comparison, Measured};
use super::excess::Known;
use super::pairing::Errors;
use super::stats::Interval;
use super::study::{Cell, Study, axis_title, shown};
use super::text::{decimals_for, duration, escape, fixed, grouped, list, plain, plus_minus, prose, signed_plus_minus, value_of};
use super::theme::Look;
use crate::named::NamedEnum;
use crate::record::Reference;
use crate::store::{Provenance, RunState};
use std::collections::BTreeMap;

/// A table in a box that scrolls sideways where the screen is narrow. Columns marked `true` hold numbers, which carry the number
/// they sort by; `head` is the column that names a row. `id` is the anchor, and ties the table to its caption.
pub(super) fn table(id: &str, caption: &str, columns: &[(&str, bool)], head: Option<usize>, rows: &[Vec<String>]) -> String {
    let class = |number: bool| if number { " class=\"num\"" } else { "" };
    // The caption stands outside the box, so that it wraps where the table scrolls.
    let mut out = format!(
        "<p class=\"caption\" id=\"{id}-caption\">{}</p>\n<div class=\"scroll\" role=\"region\" aria-labelledby=\"{id}-caption\" tabindex=\"0\">\
         <table id=\"{id}\" aria-labelledby=\"{id}-caption\">\n<thead><tr>",
        prose(caption)
    );
    for (name, number) in columns {
        out += &format!("<th scope=\"col\"{}>{}</th>", class(*number), escape(name));
    }
    out += "</tr></thead>\n<tbody>\n";
    for row in rows {
        out += "<tr>";
        for (i, (cell, (_, number))) in row.iter().zip(columns).enumerate() {
            let (open, close) = if head == Some(i) { ("th scope=\"row\"", "th") } else { ("td", "td") };
            out += &format!("<{open}{}{}>{cell}</{close}>", class(*number), if *number { sort_value(cell) } else { String::new() });
        }
        out += "</tr>\n";
    }
    out + "</tbody></table></div>\n"
}

/// What a cell sorts by, as an attribute; nothing where it holds no number.
fn sort_value(cell: &str) -> String {
    let shown = cell.strip_prefix("<b>").unwrap_or(cell);
    match value_of(shown) {
        Some(x) if x.is_finite() => format!(" data-v=\"{}\"", plain(x)),
        Some(x) => format!(" data-v=\"{}Infinity\"", if x < 0.0 { "-" } else { "" }),
        None => String::new(),
    }
}

/// A short line in the look of a cell, as in the figures.
pub(super) fn swatch(look: Look) -> String {
    let dash = if look.dash.is_empty() {
        String::new()
    } else {
        format!(" stroke-dasharray=\"{}\"", look.dash.iter().map(|d| format!("{d}")).collect::<Vec<_>>().join(" "))
    };
    format!(
        "<svg class=\"swatch\" viewBox=\"0 0 30 8\" width=\"30\" height=\"8\" aria-hidden=\"true\"><line x1=\"0\" y1=\"4\" x2=\"30\" y2=\"4\" \
         stroke=\"#{:02x}{:02x}{:02x}\" stroke-width=\"3\"{dash}/></svg> ",
        look.color[0], look.color[1], look.color[2]
    )
}

fn interval(i: &Interval) -> String {
    if i.n == 0 { "–".into() } else { plus_minus(i.mean, i.half) }
}

/// What an interval of a difference allows to say, and how many seeds would allow more.
fn verdict(d: &Interval) -> String {
    match d.n {
        0 => "no common seed".into(),
        1 => "n = 1: no claim".into(),
        _ if d.excludes_zero() => "resolved".into(),
        _ => match d.seeds_short() {
            Some(seeds) => format!("not resolved, {} seeds", escape(&seeds).replace(' ', "\u{a0}")),
            None => "not resolved".into(),
        },
    }
}

/// Mean seconds of a finished run, over all its attempts; with other work on the machine, and so no measure of speed.
fn time_per_run(cell: &Cell) -> String {
    let seconds: Vec<f64> = cell.finished().filter_map(|r| r.data.manifest.as_ref()).map(|m| m.volatile.seconds).collect();
    if seconds.is_empty() { "–".into() } else { duration(seconds.iter().sum::<f64>() / seconds.len() as f64) }
}

/// `3`, or `2 of 3` where runs are missing.
fn seeds_of(cell: &Cell, n: usize) -> String {
    if n == cell.runs.len() { n.to_string() } else { format!("{n}\u{a0}of\u{a0}{}", cell.runs.len()) }
}

/// Columns of the ranking that hold words.
const NAME: usize = 1;
const VERDICT: usize = 5;

/// A number above the half-width of its interval, so that a table of many columns fits a screen.
fn stacked(cell: &str) -> String {
    let (inner, bold) = cell.strip_prefix("<b>").and_then(|c| c.strip_suffix("</b>")).map_or((cell, false), |c| (c, true));
    // In brackets both belong to one power of ten.
    let parts = [" ± ", " (s.e. "].into_iter().filter(|_| !inner.starts_with('(')).find_map(|sign| {
        let (mean, half) = inner.split_once(sign)?;
        Some(format!("{mean} <span class=\"half\">{}\u{a0}{half}</span>", sign.trim()))
    });
    let text = parts.unwrap_or_else(|| inner.replace(' ', "\u{a0}"));
    if bold { format!("<b>{text}</b>") } else { text }
}

/// Why a cell has no result: `3 diverged`, `2 failed and 1 pending`.
fn states_of(cell: &Cell) -> String {
    let counts = RunState::ALL.iter().map(|s| (cell.runs.iter().filter(|r| r.data.state == *s).count(), s));
    // One that is done all the same has a bound that is not finite.
    let word = |s: &RunState| if *s == RunState::Done { "without a finite bound".to_string() } else { s.to_string() };
    list(&counts.filter(|(n, _)| *n > 0).map(|(n, s)| format!("{n} {}", word(s))).collect::<Vec<_>>())
}

/// The cells from best to worst; cells without a result at the end.
pub fn ranking(study: &Study, answer: &Answer) -> String {
    let mut rows = Vec::new();
    let compared = study.cells.iter().any(|cell| !study.published_for(cell, "bits_per_dim").is_empty());
    let add_published = |row: &mut Vec<String>, cell: &Cell| {
        if compared {
            let published = study.published_for(cell, "bits_per_dim");
            let all = |of: &dyn Fn(&(&Reference, f64)) -> String| {
                if published.is_empty() { "–".to_string() } else { published.iter().map(of).collect::<Vec<_>>().join("<br>") }
            };
            row.extend([all(&|(_, value)| plain(*value).replace('-', "−")), all(&|(reference, _)| escape(&reference.source))]);
        }
    };
    let quality = answer.results.iter().any(|r| r.sliced_wasserstein.seeds.n + r.mmd2.seeds.n > 0);
    let excess = answer.excess.as_ref();
    for (i, r) in answer.results.iter().enumerate() {
        let cell = &study.cells[r.cell];
        let (difference, says) = match &r.versus_best {
            None => ("0 (best)".to_string(), String::new()),
            Some(d) => (if d.n == 0 { "–".into() } else { signed_plus_minus(d.mean, d.half) }, verdict(d)),
        };
        let mut row = vec![
            (i + 1).to_string(),
            format!("{}{}", swatch(cell.look), prose(&cell.label)),
            format!("<b>{}</b>", interval(&r.bits)),
            seeds_of(cell, r.bits.n),
            difference,
            says,
            interval(&r.decoder),
            interval(&r.kl),
            plus_minus(r.prior.mean, f64::NAN),
            interval(&r.eps_mse),
        ];
        row.extend(excess.map(|e| {
            let known = e.cell(r.cell).map(|c| Measured { seeds: c.whole, error: c.error });
            known.map_or("–".into(), |m| m.words())
        }));
        if quality {
            row.extend([r.sliced_wasserstein.words(), r.mmd2.words()]);
        }
        row.push(time_per_run(cell));
        row.iter_mut().enumerate().filter(|(i, _)| ![NAME, VERDICT].contains(i)).for_each(|(_, text)| *text = stacked(text));
        add_published(&mut row, cell);
        rows.push(row);
    }
    for cell in study.cells.iter().filter(|c| c.finished().count() == 0) {
        let mut row = vec![
            "–".into(),
            format!("{}{}", swatch(cell.look), prose(&cell.label)),
            "no result".into(),
            seeds_of(cell, 0),
            "–".into(),
            states_of(cell),
        ];
        row.resize(11 + usize::from(excess.is_some()) + if quality { 2 } else { 0 }, "–".into());
        add_published(&mut row, cell);
        rows.push(row);
    }
    let mut columns = vec![
        ("#", true),
        ("cell", false),
        ("bits/dim", true),
        ("n", true),
        ("− best, paired", true),
        ("verdict", false),
        ("decoder", true),
        ("KL", true),
        ("prior", true),
        (study.error_name(), true),
    ];
    let mut notes = String::new();
    if let Some(excess) = excess {
        columns.push(("above floor", true));
        notes += match excess.known {
            Known::Distribution => "; above floor: the bound less that of the exact denoiser of the data's distribution",
            Known::Examples => "; above floor: on training examples at the end of training, the terms less those of having memorised them",
        };
    }
    if quality {
        columns.extend([("sliced W₂", true), ("MMD²", true)]);
        notes += "; sliced W₂ and MMD²: samples against held-out examples";
    }
    if (excess.is_some() || quality) && answer.results.iter().any(|r| r.bits.n == 1) {
        notes += "; s.e. is the standard error within one run";
    }
    columns.push(("time", true));
    if compared {
        columns.extend([("published", true), ("source", false)]);
    }
    table(
        "ranking",
        &format!(
            "Cells by mean bound in {}, lower is better; ± is the half-width of the 95 % t-interval over n seeds (the prior without), decoder + KL + prior \
             the bound's three terms; ≈: seeds that would resolve the difference at this spread{notes}",
            study.unit()
        ),
        &columns,
        Some(NAME),
        &rows,
    )
}

/// Every published value, also those of what is not measured here; nothing where there are none.
pub fn published(study: &Study) -> String {
    let references = &study.data.record.references;
    if references.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = references
        .iter()
        .map(|reference| {
            let values: Vec<String> = reference
                .values
                .iter()
                .map(|(metric, x)| format!("{} {}", escape(&axis_title(metric)), plain(*x).replace('-', "−")))
                .collect();
            let cells = study.cells.iter().filter(|cell| reference.cells.contains(&cell.runs[0].data.run.cell));
            let cells: Vec<String> = cells.map(|cell| escape(&cell.label)).collect();
            vec![
                escape(&reference.name),
                if reference.cells.is_empty() { "all".into() } else { cells.join("<br>") },
                values.join(", "),
                escape(&reference.source),
                escape(&reference.note),
            ]
        })
        .collect();
    format!(
        "<details class=\"paper\"><summary>Published values</summary>\n{}</details>\n",
        table(
            "published",
            "Published values that the experiment file names; data, network and length of training are the publication's own",
            &[("name", false), ("cells", false), ("values", false), ("source", false), ("note", false)],
            Some(0),
            &rows
        )
    )
}

/// Every axis value against the first one, pooled and by the other axes.
pub fn comparisons(answer: &Answer) -> String {
    let row = |c: &Comparison, by: &str, d: &Interval, errors: &Errors| {
        let [seeds, examples] = errors.cells();
        vec![
            escape(&axis_title(&c.key)),
            escape(&c.title()),
            escape(by),
            if d.n == 0 { "–".into() } else { signed_plus_minus(d.mean, d.half) },
            d.n.to_string(),
            verdict(d),
            seeds,
            examples,
        ]
    };
    let mut rows = Vec::new();
    for c in &answer.comparisons {
        rows.push(row(c, if c.strata.is_empty() { "–" } else { "averaged over all" }, &c.pooled, &c.errors));
        for ((name, d), errors) in c.strata.iter().zip(&c.strata_errors) {
            rows.push(row(c, name, d, errors));
        }
    }
    table(
        "comparisons",
        "Differences along each axis in bits/dim, everything else equal, paired by seed; ± is the half-width of the 95 % t-interval, each by itself; \
         ≈: seeds that would resolve the difference at this spread. \
         Standard errors: paired / as if the cells shared nothing, over seeds and over the evaluated examples",
        &[
            ("axis", false),
            ("difference", false),
            ("other axes", false),
            ("bits/dim", true),
            ("n", true),
            ("verdict", false),
            ("s.e. over seeds", true),
            ("s.e. over examples", true),
        ],
        Some(1),
        &rows,
    )
}

/// Every run, finished or not.
pub fn runs(study: &Study) -> String {
    let keys: Vec<String> = study.cells.iter().flat_map(|c| c.axes.iter().map(|(k, _)| k.clone())).fold(Vec::new(), |mut all, k| {
        if !all.contains(&k) {
            all.push(k);
        }
        all
    });
    let titles: Vec<String> = keys.iter().map(|k| axis_title(k)).collect();
    let mut columns: Vec<(&str, bool)> = Vec::new();
    if keys.is_empty() {
        columns.push(("cell", false));
    }
    columns.extend(titles.iter().map(|t| (t.as_str(), false)));
    columns.extend([
        ("seed", true),
        ("state", false),
        ("steps", true),
        ("bits/dim", true),
        ("± s.e. examples", true),
        (study.error_name(), true),
        ("time", true),
        ("id", false),
    ]);
    let mut rows = Vec::new();
    for cell in &study.cells {
        for view in &cell.runs {
            let run = view.data;
            let mut row: Vec<String> = if keys.is_empty() { vec![escape(&cell.label)] } else { Vec::new() };
            for key in &keys {
                row.push(cell.axes.iter().find(|(k, _)| k == key).map_or("–".into(), |(_, v)| prose(&shown(v))));
            }
            let manifest = run.manifest.as_ref();
            let reason = manifest.and_then(|m| m.reason.as_deref()).filter(|_| !matches!(run.state, RunState::Done));
            let at = manifest.and_then(|m| m.first_nonfinite_step).filter(|_| run.state == RunState::Diverged);
            let mut state = format!("<span class=\"state {0}\">{0}</span>", run.state);
            if let Some(step) = at {
                state += &format!(" first non-finite value at step {}", grouped(i64::from(step)));
            }
            if let Some(reason) = reason {
                state += &format!("<br><small>{}</small>", escape(reason.lines().next().unwrap_or_default()));
            }
            if let Some(problem) = &run.problem {
                state += &format!("<br><small>not read in full: {}</small>", escape(problem));
            }
            row.push(run.run.seed.to_string());
            row.push(state);
            row.push(manifest.map_or("–".into(), |m| {
                if m.step == m.steps {
                    grouped(i64::from(m.step))
                } else {
                    format!("{} of {}", grouped(i64::from(m.step)), grouped(i64::from(m.steps)))
                }
            }));
            match view.result {
                Some(e) => {
                    let d = decimals_for(e.bits_per_dim, e.bits_per_dim_se);
                    row.extend([fixed(e.bits_per_dim, d), fixed(e.bits_per_dim_se, d), fixed(e.eps_mse, 5)]);
                }
                None => row.extend(["–".to_string(), "–".into(), "–".into()]),
            }
            row.push(manifest.map_or("–".into(), |m| duration(m.volatile.seconds)));
            row.push(format!("<code>{}</code>", escape(&run.run.run_id)));
            rows.push(row);
        }
    }
    let last = columns.len() - 1;
    table("run-list", "Every run; the standard error is over the evaluated examples of one run", &columns, Some(last), &rows)
}

/// Where the numbers came from, one row for each distinct origin.
pub fn provenance(study: &Study) -> String {
    let mut groups: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for m in study.data.runs.iter().filter_map(|r| r.manifest.as_ref()) {
        *groups.entry(origin(&m.provenance)).or_default() += 1;
    }
    if groups.is_empty() {
        return "<p>No run has left a record yet.</p>\n".into();
    }
    let rows: Vec<Vec<String>> =
        groups.into_iter().map(|(origin, n)| origin.iter().map(|o| escape(o)).chain([n.to_string()]).collect()).collect();
    table(
        "origins",
        "What the runs were made with",
        &[("version", false), ("git revision", false), ("device", false), ("instruction set", false), ("threads", true), ("runs", true)],
        None,
        &rows,
    )
}

fn origin(p: &Provenance) -> Vec<String> {
    // A worker that never began leaves a record without any.
    let known = |word: &str| if word.is_empty() { "unknown".to_string() } else { word.to_string() };
    let threads = if p.threads == 0 { "–".into() } else { p.threads.to_string() };
    vec![known(&p.version), revision(p), known(&p.device), known(&p.instruction_set), threads]
}

/// The git revision, with a word where there were changes that it does not contain.
pub fn revision(p: &Provenance) -> String {
    match (&p.git_revision, p.git_dirty) {
        (Some(r), Some(true)) => format!("{} with uncommitted changes", r.chars().take(12).collect::<String>()),
        (Some(r), _) => r.chars().take(12).collect(),
        (None, _) => "unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Floor, SampleQuality, Split};
    use crate::report::synthetic;

    #[test]
    fn excess_and_sample_quality_are_columns_where_they_are_known() {
        let mut data = synthetic::sweep();
        let html = |data: &crate::report::SweepData| {
            let study = Study::new(data);
            ranking(&study, &Answer::of(&study))
        };
        assert!(!html(&data).contains("above floor") && !html(&data).contains("MMD²"));
        data.runs.retain(|r| r.run.seed == 0);
        for i in 0..data.runs[0].losses.t.len() {
            if data.runs[0].losses.split[i] == Split::Test {
                data.runs[0].losses.vb_floor[i] = 0.0;
            }
        }
        let e = data.runs[0].evaluations.last_mut().unwrap();
        e.floor = Some(Floor { bits_per_dim: e.bits_per_dim - 0.25, excess_se: 0.012 });
        e.samples = Some(SampleQuality {
            samples: 64,
            data: 64,
            sliced_wasserstein: 0.5,
            sliced_wasserstein_se: 0.031,
            sliced_wasserstein_of_data: 0.1,
            mmd2: -0.002,
            mmd2_se: 0.0011,
        });
        let html = html(&data);
        let columns = html.matches("<th scope=\"col\"").count();
        assert_eq!(columns, 14);
        for row in html.lines().filter(|l| l.starts_with("<tr><td")) {
            assert_eq!(row.matches("<td").count() + row.matches("<th scope=\"row\"").count(), columns, "{row}");
        }
        for (mean, error) in [("0.250", "0.012"), ("0.500", "0.031"), ("−0.0020", "0.0011")] {
            let words = format!("{mean} <span class=\"half\">(s.e.\u{a0}{error})</span></td>");
            assert!(html.contains(&words), "{words} is missing in {html}");
        }
    }
}
