//! The bound of each cell with its three terms, and the spread of its seeds on an axis of their own.

use super::{Drawn, Figure, LINE_OF_NAME, MARGIN};
use crate::record::{Evaluation, Reference};
use crate::report::ReportError;
use crate::report::draw::axis::{Axis, Scale, scale_for};
use crate::report::draw::fonts::{fitted, text_width};
use crate::report::draw::panel::{INK, LABEL_SIZE, MUTED, TICK_SIZE};
use crate::report::draw::{Anchor, Entry, Legend, Panel, Rect, Scene, Stroke, Swatch};
use crate::report::stats::Interval;
use crate::report::study::{Cell, Study};
use crate::report::text::{self, Csv, plain};
use crate::report::theme::{GREY, tint};
use crate::store::RunState;

/// Strength of the cell's colour in the bars of decoder, KL terms and prior.
const STRENGTHS: [(&str, f64); 3] = [("decoder (t = 1)", 1.0), ("KL terms (t ≥ 2)", 0.55), ("prior", 0.25)];
/// Bars stop being readable beside one that is so many times longer.
const LOG_RATIO: f64 = 8.0;

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let rows: Vec<Row> = study
        .cells
        .iter()
        .map(|cell| Row {
            label: cell.label.clone(),
            color: cell.look.color,
            bits: cell.interval(|e| e.bits_per_dim),
            terms: TERMS.map(|term| cell.interval(term)),
            seeds: cell.by_seed(|e| e.bits_per_dim).into_iter().collect(),
            lost: lost(cell),
            published: study.published_for(cell, METRIC).into_iter().map(|(_, value)| value).collect(),
        })
        .collect();
    let Some(metric) = study.metric.filter(|_| rows.iter().any(|r| r.bits.n > 0)) else {
        return Ok(Drawn::skipped("bits_per_dim", "no run has finished with a finite bound"));
    };
    let scale = scale_for(rows.iter().flat_map(|r| &r.seeds).map(|s| s.1), LOG_RATIO);
    let scene = paint(study, &rows, scale);
    let mut csv = Csv::new(&["cell", "series", "n", "bits_per_dim", "low", "high", "decoder", "kl", "prior"]);
    let mut published = |label: &str, (reference, value): (&Reference, f64)| {
        let series = format!("published: {}", reference.source);
        let [none, bits] = [String::new(), plain(value)];
        csv.row(&[label.into(), series, none.clone(), bits, none.clone(), none.clone(), none.clone(), none.clone(), none]);
    };
    for (row, cell) in rows.iter().zip(&study.cells) {
        study.published_for(cell, METRIC).into_iter().for_each(|p| published(&row.label, p));
    }
    study.published_for_all(METRIC).into_iter().for_each(|p| published(&p.0.name, p));
    for (row, cell) in rows.iter().zip(&study.cells) {
        for run in cell.finished() {
            if let Some(e) = run.result {
                let series = format!("seed {}", run.seed());
                let v = [e.bits_per_dim, e.decoder, e.kl, e.prior].map(plain);
                let [bits, decoder, kl, prior] = v;
                csv.row(&[row.label.clone(), series, "1".into(), bits, String::new(), String::new(), decoder, kl, prior]);
            }
        }
        let [decoder, kl, prior] = [0, 1, 2].map(|i| plain(row.terms[i].mean));
        let (low, high) = (plain(row.bits.low()), plain(row.bits.high()));
        csv.row(&[row.label.clone(), "mean".into(), row.bits.n.to_string(), plain(row.bits.mean), low, high, decoder, kl, prior]);
    }
    let axis =
        if scale == Scale::Log { "a logarithmic axis, as the cells span orders of magnitude" } else { "an axis that does not begin at 0" };
    let bars = if rows.iter().any(|r| r.bits.n > 1) {
        "bars are 95 % t-intervals over seeds; where n = 1 there is none"
    } else {
        "n = 1 seed per cell: no interval"
    };
    Ok(Drawn::Figure(Box::new(Figure {
        name: "bits_per_dim".into(),
        title: "The bound by cell".into(),
        caption: format!(
            "Variational bound of the final evaluation ({}) in {}; lower is better; {}. Left: mean over seeds, from 0, split into its three terms (the sum of \
             the bars is the bound). Right: the same bound on {axis}: the large dot is the mean, the small dots below it are the seeds; {bars}.{}",
            metric.words(),
            study.unit(),
            study.seeds_words(),
            sources(study)
        ),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
}

/// What is drawn, as references call it.
const METRIC: &str = "bits_per_dim";
const PUBLISHED: Stroke = Stroke { color: INK, width: 1.8, dash: &[5.0, 3.0] };

/// Where the dashed lines come from; empty where there are none.
fn sources(study: &Study) -> String {
    let mut sources: Vec<String> = Vec::new();
    let references = study.cells.iter().flat_map(|cell| study.published_for(cell, METRIC)).chain(study.published_for_all(METRIC));
    for (reference, _) in references {
        if !sources.contains(&reference.source) {
            sources.push(reference.source.clone());
        }
    }
    if sources.is_empty() { String::new() } else { format!(" Dashed: published values ({}).", sources.join("; ")) }
}

const TERMS: [fn(&Evaluation) -> f64; 3] = [|e| e.decoder, |e| e.kl, |e| e.prior];

struct Row {
    label: String,
    color: [u8; 3],
    bits: Interval,
    terms: [Interval; 3],
    seeds: Vec<(i64, f64)>,
    /// Runs without a result, in words.
    lost: String,
    /// Dashed lines of this row alone.
    published: Vec<f64>,
}

/// `2 diverged, 1 failed`.
fn lost(cell: &Cell) -> String {
    let states = [RunState::Diverged, RunState::Failed].map(|s| (cell.count(s), s));
    states.iter().filter(|(n, _)| *n > 0).map(|(n, s)| format!("{n} {s}")).collect::<Vec<_>>().join(", ")
}

impl Row {
    fn value_label(&self) -> String {
        let value = match self.bits.n {
            0 if self.lost.is_empty() => "no result".into(),
            0 => String::new(),
            1 => format!("{} (n = 1)", text::plus_minus(self.bits.mean, f64::NAN)),
            _ => text::plus_minus(self.bits.mean, self.bits.half),
        };
        [value, self.lost.clone()].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(", ")
    }
}

fn paint(study: &Study, rows: &[Row], scale: Scale) -> Scene {
    let width = study.width - 2.0 * MARGIN;
    let widest = |of: &dyn Fn(&Row) -> String| rows.iter().map(|r| text_width(&of(r), TICK_SIZE, false)).fold(0.0, f64::max);
    let beside = [widest(&|r| r.label.clone()) + 12.0, widest(&Row::value_label) + 12.0];
    // Where names and values would leave too little to the panels, they stand above the bars.
    let above = width - beside.iter().sum::<f64>() < 400.0;
    let ([labels, values], name) = if above { ([0.0; 2], LINE_OF_NAME) } else { (beside, 0.0) };
    let own = (330.0 / rows.len() as f64).clamp(24.0, 54.0);
    let row_height = own + name;
    let common = study.published_for_all(METRIC);
    let mut entries: Vec<Entry> =
        STRENGTHS.iter().map(|(name, s)| Entry { label: (*name).into(), swatch: Swatch::Box(tint(GREY, *s)) }).collect();
    if rows.iter().any(|row| !row.published.is_empty()) {
        entries.push(Entry { label: "published".into(), swatch: Swatch::Line(PUBLISHED) });
    }
    entries.extend(common.iter().map(|(reference, value)| Entry {
        label: fitted(&format!("{}: {}", reference.name, plain(*value)), LABEL_SIZE, false, 300.0f64.min(width - 40.0)),
        swatch: Swatch::Line(PUBLISHED),
    }));
    let legend = Legend { entries };
    let top = MARGIN + legend.height(width) + 4.0;
    let height = 78.0 + row_height * rows.len() as f64;
    let mut scene = Scene::new(study.width, top + height + MARGIN);
    legend.draw(&mut scene, MARGIN, MARGIN, width);
    let room = width - labels - values - 20.0;
    let bars = Rect::new(MARGIN + labels, top, room * 0.52, height);
    let dots = Rect::new(bars.right() + 20.0, top, room * 0.48, height);
    let categories = || Axis { scale: Scale::Linear, low: 0.0, high: rows.len() as f64, ticks: Vec::new() };

    let negative = rows.iter().map(|r| r.terms.iter().map(|t| t.mean.min(0.0)).sum::<f64>()).fold(0.0, f64::min);
    let positive = rows.iter().map(|r| r.terms.iter().map(|t| t.mean.max(0.0)).sum::<f64>()).fold(0.0, f64::max);
    let lines = || rows.iter().flat_map(|r| &r.published).copied().chain(common.iter().map(|(_, value)| *value));
    let x = Axis::linear(lines().fold(negative, f64::min) * 1.03, lines().fold(positive, f64::max) * 1.03, 4);
    let left = Panel::new(&mut scene, bars, "Bound, by term", study.unit(), x, categories());
    let spread = rows.iter().flat_map(|r| r.seeds.iter().map(|s| s.1).chain([r.bits.low(), r.bits.high()]));
    // An interval of two seeds can be wider than everything else: the axis follows the seeds and lets it run out.
    let (low, high) = rows.iter().flat_map(|r| &r.seeds).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), s| (a.min(s.1), b.max(s.1)));
    let room = (high - low).max(1e-3 * high.abs());
    let floor = if scale == Scale::Log { low * 0.7 } else { low - room };
    // A published value far away is drawn on the left alone: here the seeds are to be told apart.
    let near = lines().filter(|v| *v > floor - 2.0 * room && *v < high + 3.0 * room);
    let x = Axis::around(spread.filter(|v| v.is_finite()).map(|v| v.clamp(floor, high + room)).chain(near), scale, 0.05, 4);
    let right = Panel::new(&mut scene, dots, "Bound, mean and seeds", study.unit(), x, categories());

    for (i, row) in rows.iter().enumerate() {
        let at = rows.len() as f64 - i as f64 - 0.5;
        let y = left.area.bottom() - at / rows.len() as f64 * left.area.h + name / 2.0;
        let line = if above { y - own / 2.0 - 3.0 } else { y + 0.36 * TICK_SIZE };
        let value = row.value_label();
        let (at, room, anchor) = if above {
            ((left.area.x + 6.0, line), width - 24.0 - text_width(&value, TICK_SIZE, false), Anchor::Start)
        } else {
            ((MARGIN + labels - 8.0, line), labels, Anchor::End)
        };
        scene.text(at, &fitted(&row.label, TICK_SIZE, false, room), TICK_SIZE, INK, anchor);
        scene.text((study.width - MARGIN, line), &value, TICK_SIZE, if row.bits.n > 0 { INK } else { MUTED }, Anchor::End);
        if row.bits.n > 0 {
            stack(&mut scene, &left, row, y, own * 0.66);
            spread_of(&mut scene, &right, row, y, own);
        }
        for value in &row.published {
            [&left, &right].into_iter().for_each(|panel| dashed(&mut scene, panel, *value, y - own * 0.46, y + own * 0.46));
        }
    }
    for (_, value) in &common {
        [&left, &right].into_iter().for_each(|panel| dashed(&mut scene, panel, *value, panel.area.y, panel.area.bottom()));
    }
    if negative < 0.0
        && let Some((zero, _)) = left.place(0.0, 0.0)
    {
        scene.line(vec![(zero, left.area.y), (zero, left.area.bottom())], Stroke::solid(MUTED, 1.2));
    }
    scene
}

/// A published value, where the panel has a place for it.
fn dashed(scene: &mut Scene, panel: &Panel, value: f64, top: f64, bottom: f64) {
    if let Some((x, _)) = panel.place(value, 0.0).filter(|(x, _)| (panel.area.x..=panel.area.right()).contains(x)) {
        scene.line(vec![(x, top), (x, bottom)], PUBLISHED);
    }
}

/// The three terms end to end: positive ones to the right of 0, negative ones to the left.
fn stack(scene: &mut Scene, panel: &Panel, row: &Row, y: f64, thickness: f64) {
    let (mut up, mut down) = (0.0, 0.0);
    for (term, (_, strength)) in row.terms.iter().zip(STRENGTHS) {
        let from = if term.mean < 0.0 { &mut down } else { &mut up };
        let (a, b) = (*from, *from + term.mean);
        *from = b;
        if let (Some((x0, _)), Some((x1, _))) = (panel.place(a.min(b), 0.0), panel.place(a.max(b), 0.0)) {
            scene.rect(x0, y - thickness / 2.0, x1 - x0, thickness, tint(row.color, strength));
        }
    }
}

/// The mean with its interval above the middle of the row, the seeds in lanes below it, so that equal values stay visible.
fn spread_of(scene: &mut Scene, panel: &Panel, row: &Row, y: f64, row_height: f64) {
    let a = panel.area;
    let at = |v: f64| panel.place(v, 0.0).map(|p| p.0.clamp(a.x, a.right()));
    let several = row.seeds.len() > 1;
    let upper = if several { y - 0.14 * row_height } else { y };
    if row.bits.half.is_finite() {
        let (x0, x1) = (at(row.bits.low()).unwrap_or(a.x), at(row.bits.high()).unwrap_or(a.right()));
        scene.line(vec![(x0, upper), (x1, upper)], Stroke::solid(INK, 1.5));
        for x in [x0, x1] {
            scene.line(vec![(x, upper - 5.0), (x, upper + 5.0)], Stroke::solid(INK, 1.5));
        }
    }
    if several {
        let lanes = row.seeds.len() as f64;
        let step = (row_height * 0.2 / lanes).min(4.0);
        for (i, (_, value)) in row.seeds.iter().enumerate() {
            if let Some(x) = at(*value) {
                let lane = y + row_height * 0.24 + (i as f64 - (lanes - 1.0) / 2.0) * step;
                scene.dot((x, lane), 2.8, tint(row.color, 0.65), None);
            }
        }
    }
    if let Some(x) = at(row.bits.mean) {
        scene.dot((x, upper), 4.2, row.color, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic;

    #[test]
    fn the_csv_holds_means_seeds_and_terms() {
        let data = synthetic::sweep();
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        assert_eq!(figure.csv.lines().count(), 1 + 8 * 4);
        let row: Vec<&str> = figure.csv.lines().find(|l| l.starts_with("sigmoid · simple,mean,")).unwrap().split(',').collect();
        let by_hand = Interval::of(data.runs[18..21].iter().map(|r| r.evaluations.last().unwrap().bits_per_dim));
        assert_eq!(row[2], "3");
        for (field, value) in [(3, by_hand.mean), (4, by_hand.low()), (5, by_hand.high())] {
            assert!((row[field].parse::<f64>().unwrap() - value).abs() < 1e-12);
        }
    }

    #[test]
    fn published_values_are_drawn_dashed_with_their_source_and_stand_in_the_csv() {
        let mut data = synthetic::sweep();
        let lines = |data: &crate::report::SweepData| {
            let Drawn::Figure(figure) = draw(&Study::new(data)).unwrap() else { panic!("no figure") };
            (figure.scene.clone(), figure.caption.clone(), figure.csv.clone())
        };
        let (before, caption, _) = lines(&data);
        assert!(!caption.contains("Dashed"));
        let reference = |name: &str, cells: &[&str], value: f64| Reference {
            name: name.into(),
            cells: cells.iter().map(|c| (*c).into()).collect(),
            values: [("bits_per_dim".to_string(), value), ("fid".to_string(), 3.17)].into(),
            source: format!("{name}, Table 2"),
            note: String::new(),
        };
        let cell = data.runs[3].run.cell.clone();
        data.record.references = vec![reference("Ho", &[&cell], 3.7), reference("entropy", &[], 2.5), reference("FID only", &[], 1.0)];
        data.record.references[2].values.remove("bits_per_dim");
        let (after, caption, csv) = lines(&data);
        assert!(caption.contains("Dashed: published values (Ho, Table 2; entropy, Table 2)."), "{caption}");
        assert!(
            csv.contains("linear · vlb,\"published: Ho, Table 2\",,3.7,,,,,\n")
                && csv.contains("entropy,\"published: entropy, Table 2\",,2.5,"),
            "{csv}"
        );
        let svg = |scene: &Scene| crate::report::draw::svg::render(scene, "", "");
        let dashes = |scene: &Scene| svg(scene).matches("stroke-dasharray").count();
        // One row's value and one common value, each in the left panel at least, and their entries in the legend.
        assert!(dashes(&after) >= dashes(&before) + 4, "{} {}", dashes(&before), dashes(&after));
        assert!(after.text_boxes().iter().any(|(text, _)| text == "entropy: 2.5"));
    }

    #[test]
    fn cells_orders_of_magnitude_apart_get_a_logarithmic_axis_and_negative_bits_do_not() {
        let mut data = synthetic::sweep();
        for run in &mut data.runs[..3] {
            for e in &mut run.evaluations {
                e.bits_per_dim *= 40.0;
                e.kl *= 40.0;
            }
        }
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        assert!(figure.caption.contains("logarithmic"));
        for e in &mut data.runs[8].evaluations {
            e.bits_per_dim = -1.0;
        }
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        assert!(!figure.caption.contains("logarithmic"));
    }
}
