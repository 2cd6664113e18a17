//! `index.html`: one file with its style and its script inside, figures beside it, nothing loaded from anywhere else.
//!
//! Start at [`render`]. The question and the answer come first, then figures, tables, and how to repeat it all. The page is whole
//! without its script, which only sorts tables, enlarges figures and, while runs go on, loads the page again.

use super::compare::{Answer, Comparison};
use super::draw::Shape;
use super::figures::{Drawn, Figure};
use super::study::Study;
use super::text::{count, escape, list, prose};
use super::warnings::{unequal, warnings};
use super::{reproduce, settings, tables, trouble};
use crate::named::NamedEnum;
use crate::store::RunState;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The whole page.
pub fn render(study: &Study, answer: &Answer, drawn: &[Drawn]) -> String {
    page(study, answer, drawn, None)
}

/// The page of runs that go on: it loads itself again every so many seconds.
pub fn render_live(study: &Study, answer: &Answer, drawn: &[Drawn], seconds: u32) -> String {
    page(study, answer, drawn, Some(seconds))
}

fn page(study: &Study, answer: &Answer, drawn: &[Drawn], live: Option<u32>) -> String {
    let record = &study.data.record;
    // Without the script the page reloads all the same, only less gently.
    let (refresh, attribute) = live.map_or_else(Default::default, |s| {
        (format!("<noscript><meta http-equiv=\"refresh\" content=\"{s}\"></noscript>\n"), format!(" data-live=\"{s}\""))
    });
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n{refresh}<title>{0} · ddpm-lab report</title>\n<style>\n{STYLE}</style>\n</head>\n<body{attribute}>\n\
         <a class=\"skip\" href=\"#answer\">Skip to the answer</a>\n<header>\n<h1>{0}</h1>\n",
        escape(study.title())
    );
    for question in record.description.trim().split("\n\n").filter(|q| !q.is_empty()) {
        out += &format!("<p class=\"question\">{}</p>\n", escape(question));
    }
    out += &format!("<p class=\"meta\">{}</p>\n", escape(&overview(study)));
    if live.is_some() {
        out += "<p class=\"meta live\">Runs are going on: this page is drawn again as they do, and loads itself.</p>\n";
    }
    out += "</header>\n";
    let troubled = trouble::table(study);
    out += &contents(!troubled.is_empty());
    out += "<main>\n";
    let warnings = warnings(study);
    if !warnings.is_empty() {
        out += "<section class=\"warnings\" aria-labelledby=\"warnings\">\n<h2 id=\"warnings\">Before you read on</h2>\n<ul>\n";
        for w in warnings {
            out += &format!("<li>{}</li>\n", escape(&w));
        }
        out += "</ul>\n</section>\n";
    }
    out += &answer_section(study, answer);
    out += &figures_section(study, drawn);
    if !troubled.is_empty() {
        out += &format!("<section id=\"without-result\">\n<h2>Runs without a result</h2>\n{troubled}</section>\n");
    }
    out += "<section id=\"runs\">\n<h2>Runs</h2>\n";
    out += &tables::runs(study);
    out += "</section>\n<section id=\"configurations\">\n<h2>Configurations</h2>\n";
    out += &settings::differences(study);
    out += &settings::in_full(study);
    out += "</section>\n<section id=\"provenance\">\n<h2>Provenance</h2>\n";
    out += &tables::provenance(study);
    for credit in &study.data.credits {
        out += &format!("<p>Data: {}</p>\n", escape(credit));
    }
    out += "</section>\n";
    out += &reproduce::section(study);
    out += &reproduce::data_section(study);
    out += &format!("</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
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

fn contents(troubled: bool) -> String {
    let links = [
        ("answer", "Answer", true),
        ("figures", "Figures", true),
        ("without-result", "Runs without a result", troubled),
        ("runs", "Runs", true),
        ("configurations", "Configurations", true),
        ("provenance", "Provenance", true),
        ("reproduce", "Reproduce", true),
        ("data", "Data", true),
    ];
    let links = links.iter().filter(|(.., shown)| *shown).map(|(id, name, _)| format!("<li><a href=\"#{id}\">{name}</a></li>"));
    format!("<nav aria-label=\"Contents\"><ul>{}</ul></nav>\n", links.collect::<String>())
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
            let said = Comparison::sentence(c);
            // What was found first, how it was found behind it.
            let (found, how) = said.split_at(said.find(" (paired").unwrap_or(0));
            out += &format!("<li><b>{}</b>{}</li>\n", prose(found), prose(how));
        }
        out += "</ul>\n<details class=\"paper\"><summary>All differences</summary>\n";
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

fn figures_section(study: &Study, drawn: &[Drawn]) -> String {
    let figures = || drawn.iter().filter_map(|d| if let Drawn::Figure(figure) = d { Some(figure) } else { None });
    let mut out = String::from("<section id=\"figures\">\n<h2>Figures</h2>\n");
    let links = figures().map(|f| format!("<li><a href=\"#fig-{}\">{}</a></li>", escape(&f.name), escape(&f.title)));
    out += &format!("<nav class=\"figures\" aria-label=\"Figures\"><ul>{}</ul></nav>\n", links.collect::<String>());
    let note = unequal(study).join(" ");
    for figure in figures() {
        out += &figure_html(figure, if DRAWS_NO_RESULT.contains(&figure.name.as_str()) { "" } else { &note });
    }
    let skipped: Vec<String> = drawn
        .iter()
        .filter_map(|d| if let Drawn::Skipped { name, reason } = d { Some((name, reason)) } else { None })
        .map(|(name, reason)| format!("<code>{}</code> ({})", escape(name), escape(reason)))
        .collect();
    if !skipped.is_empty() {
        out += &format!("<p class=\"note\">Not drawn: {}.</p>\n", skipped.join(", "));
    }
    out + "</section>\n"
}

/// Figures of definitions and data, which no length of training changes.
const DRAWS_NO_RESULT: [&str; 2] = ["schedules", "forward"];

fn figure_html(figure: &Figure, note: &str) -> String {
    let name = escape(&figure.name);
    let title = escape(&figure.title);
    let mut links: String = ["svg", "png", "csv"]
        .iter()
        .map(|format| format!("<a href=\"figures/{name}.{format}\" aria-label=\"{title} as {format}\">{format}</a> "))
        .collect();
    for (stem, _) in &figure.more_csv {
        links += &format!("<a href=\"figures/{0}.csv\">{0}.csv</a> ", escape(stem));
    }
    // Photographs and samples keep their colours on a dark page.
    let pictures = figure.scene.shapes.iter().any(|s| matches!(s, Shape::Picture { .. }));
    let tall = figure.scene.height > 0.8 * figure.scene.width;
    let note = if note.is_empty() { String::new() } else { format!("<p class=\"mixed\">{}</p>\n", escape(note)) };
    format!(
        "<figure id=\"fig-{name}\">\n<h3>{title}</h3>\n<a class=\"card{pictures}{tall}\" href=\"figures/{name}.svg\" title=\"Enlarge\"><picture>\
         <source media=\"screen and (max-width: 46rem)\" srcset=\"figures/{narrow}\"><img src=\"figures/{name}.svg\" \
         width=\"{w}\" height=\"{h}\" decoding=\"async\" alt=\"{title}\" aria-describedby=\"cap-{name}\"></picture></a>\n{note}\
         <figcaption><span id=\"cap-{name}\">{caption}</span> <span class=\"links\">{links}</span></figcaption>\n</figure>\n",
        caption = prose(&figure.caption),
        narrow = escape(&figure.narrow_file()),
        pictures = if pictures { " pictures" } else { "" },
        tall = if tall { " tall" } else { "" },
        w = figure.scene.width.round(),
        h = figure.scene.height.round(),
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
        assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("<link") && !html.contains("@import"));
        assert_eq!(html.matches("<script").count(), 1, "the page's own");
        for source in html.split(" src=\"").skip(1) {
            assert!(source.starts_with("figures/"), "{}", source.chars().take(60).collect::<String>());
        }
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
        assert!(!html.contains("<b>x</b>") && !html.contains("<script>alert") && !html.contains("<img src=x>"));
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
        let html = page(&data).replace('\u{a0}', " ");
        assert!(html.contains("<h1>Schedules &amp; losses</h1>") && html.contains("<title>Schedules &amp; losses · "));
        let row =
            html.lines().find(|l| l.contains("linear · vlb</th>") && l.contains("Nichol")).expect("the row of the cell has the source");
        assert!(row.contains("<td class=\"num\" data-v=\"2.94\">2.94</td>"), "{row}");
        assert!(html.contains("bits per dim 2.94, fid 11.47") && html.contains("CIFAR-10"));
    }

    #[test]
    fn the_script_is_small_and_the_page_reloads_only_where_runs_go_on() {
        assert!(SCRIPT.len() < 10_000, "{} bytes", SCRIPT.len());
        assert!(!SCRIPT.contains("http") && !SCRIPT.contains("fetch(") && !SCRIPT.contains("</"));
        let data = synthetic::sweep();
        let study = Study::new(&data);
        let (answer, drawn) = (Answer::of(&study), draw_all(&study).unwrap());
        let (still, live) = (render(&study, &answer, &drawn), render_live(&study, &answer, &drawn, 5));
        assert!(!still.contains("http-equiv") && !still.contains("data-live="));
        assert!(live.contains("content=\"5\"></noscript>") && live.contains("<body data-live=\"5\">"));
    }

    #[test]
    fn every_anchor_of_the_page_exists_and_every_id_is_given_once() {
        let mut data = synthetic::sweep();
        data.runs[3].state = RunState::Failed;
        let html = page(&data);
        let ids: Vec<&str> = html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        for (i, id) in ids.iter().enumerate() {
            assert!(!ids[..i].contains(id), "two elements have the id {id}");
        }
        for attribute in [" href=\"#", " aria-labelledby=\"", " aria-describedby=\""] {
            for target in html.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(ids.contains(&target), "{attribute}{target} leads nowhere");
            }
        }
        assert!(html.contains("href=\"#without-result\"") && !self::page(&synthetic::sweep()).contains("without-result"));
    }

    #[test]
    fn what_makes_figures_unlike_each_other_stands_below_them() {
        let mut data = synthetic::sweep();
        assert!(!page(&data).contains("class=\"mixed\""));
        data.runs[0].manifest.as_mut().unwrap().provenance.version = "0.2.0".into();
        let html = page(&data);
        for block in html.split("<figure id=\"fig-").skip(1) {
            let (name, block) = block.split_once('"').unwrap();
            let said = block.split("</figure>").next().unwrap().contains("class=\"mixed\">The runs were made by different versions");
            assert_eq!(said, !DRAWS_NO_RESULT.contains(&name), "{name}");
        }
    }
}
