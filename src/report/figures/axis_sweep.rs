//! The bound against a numeric axis of the sweep, such as the learning rate or T.

use super::{Drawn, Figure, HEIGHT, MARGIN, columns, heading, room_at_ends};
use crate::report::draw::axis::{Axis, Scale, scale_for, scale_of_choices};
use crate::report::draw::{Entry, Legend, Panel, Rect, Rgb, Scene, Stroke, Swatch};
use crate::report::stats::Interval;
use crate::report::study::{Cell, Study, axis_title, value_words};
use crate::report::text::{Csv, plain};
use crate::report::theme::{DASHES, GREY, PALETTE, number};
use crate::store::RunState;

/// Axes with at least two values, all of them numbers.
pub fn keys(study: &Study) -> Vec<String> {
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in study.cells.iter().flat_map(|c| &c.axes) {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    keys.into_iter()
        .filter(|key| {
            let values = study.cells.iter().map(|c| c.axes.iter().find(|(k, _)| k == key).and_then(|(_, v)| number(v)));
            values.clone().all(|v| v.is_some()) && values.collect::<Vec<_>>().windows(2).any(|w| w[0] != w[1])
        })
        .map(String::from)
        .collect()
}

/// Whether [`draw`] may give a figure that name.
pub fn may_be_called(name: &str) -> bool {
    name.strip_prefix("axis_").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

/// Small multiples that fit a figure.
const MULTIPLES: usize = 9;

/// The cells that differ in the axis alone.
struct Line<'a> {
    label: String,
    points: Vec<(f64, &'a Cell<'a>, Interval)>,
    /// Values where runs diverged or failed, and how many of how many.
    lost: Vec<(f64, usize, usize)>,
    color: Rgb,
    dash: &'static [f64],
}

/// The lines that share a value of the second numeric axis.
struct Group<'a> {
    title: String,
    lines: Vec<Line<'a>>,
}

pub fn draw(study: &Study, key: &str) -> Drawn {
    let name = format!("axis_{}", key.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    let title = axis_title(key);
    let second = second(study, key);
    let groups = groups(study, key, second.as_deref());
    let lines = || groups.iter().flat_map(|g| &g.lines);
    let points = || lines().flat_map(|l| &l.points);
    let Some(metric) = study.metric.filter(|_| points().next().is_some()) else {
        return Drawn::skipped(&name, "no run has finished with a finite bound");
    };
    let others = other_axes(study, key, second.as_deref());
    let named: Vec<(&str, Rgb)> = groups[0].lines.iter().map(|l| (l.label.as_str(), l.color)).collect();
    let room = room_at_ends(named.iter().map(|n| n.0), study.width).filter(|_| groups.len() == 1);
    let lost = lines().any(|l| !l.lost.is_empty());
    let legend = legend(&groups[0].lines, &others, room.is_some(), lost);
    let width = study.width - 2.0 * MARGIN;
    let most = if groups.len() == 4 { 2 } else { groups.len().min(3) };
    let columns = columns(study.width, most, 200.0);
    let rows = groups.len().div_ceil(columns);
    let height = [HEIGHT - 60.0, 380.0, 300.0][most - 1].min((0.85 * study.width / columns as f64).max(260.0));
    let top = MARGIN + if legend.entries.is_empty() { 0.0 } else { legend.height(width) + 6.0 };
    let quantity = format!("Bound ({})", study.unit());
    // Above all panels, where they have headings of their own.
    let multiples = groups.len() > 1;
    let top = top + if multiples { 26.0 } else { 0.0 };
    let mut scene = Scene::new(study.width, top + rows as f64 * height + MARGIN);
    legend.draw(&mut scene, MARGIN, MARGIN, width);
    if multiples {
        heading(&mut scene, (MARGIN, top - 26.0), &quantity, width);
    }
    let mut values: Vec<f64> = points().map(|p| p.0).chain(lines().flat_map(|l| l.lost.iter().map(|p| p.0))).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    let x_scale = scale_of_choices(&values);
    let y_scale = scale_for(points().map(|p| p.2.mean), 8.0);
    let y = y_axis(points().map(|p| p.2), y_scale);
    let x = Axis::around(values.iter().copied(), x_scale, 0.06, 6).labelled_at(&values);
    let mut csv = Csv::new(&[key, "cell", "n", "bits_per_dim", "low", "high", "diverged", "failed"]);
    for (g, group) in groups.iter().enumerate() {
        let column = Rect::new(MARGIN, 0.0, width - room.unwrap_or(0.0), height).columns(columns, 24.0)[g % columns];
        let place = Rect { y: top + (g / columns) as f64 * height, h: height - 8.0, ..column };
        let heading = if multiples { &group.title } else { &quantity };
        let panel = Panel::new(&mut scene, place, heading, &title, x.clone(), y.clone());
        draw_lines(&mut scene, &panel, &group.lines, room.is_some());
    }
    // Line by line, in the order of the values.
    let rest = |c: &Cell| c.axes.iter().filter(|(k, _)| k != key).cloned().collect::<Vec<_>>();
    let mut order: Vec<(usize, f64, &Cell)> = study
        .cells
        .iter()
        .filter_map(|c| Some((study.cells.iter().position(|o| rest(o) == rest(c))?, number(&c.axes.iter().find(|(k, _)| k == key)?.1)?, c)))
        .collect();
    order.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    for (_, value, cell) in order {
        let bits = cell.interval(|e| e.bits_per_dim);
        let lost = [RunState::Diverged, RunState::Failed].map(|s| cell.count(s).to_string());
        let numbers = [bits.mean, bits.low(), bits.high()].map(plain);
        csv.row(&[vec![plain(value), cell.label.clone(), bits.n.to_string()], numbers.to_vec(), lost.to_vec()].concat());
    }
    let scale = |s: Scale| if s == Scale::Log { "logarithmic" } else { "linear" };
    let bars = if points().any(|p| p.2.n > 1) {
        "bars are 95 % t-intervals over seeds, none where n = 1"
    } else {
        "n = 1 seed per point: no bars"
    };
    let panels = second.map_or(String::new(), |s| format!(" One panel for each {}, all with the same axes.", axis_title(&s)));
    let apart = if groups.iter().any(|g| g.lines.len() > 1) {
        " Lines are set a few pixels apart so that bars do not cover each other."
    } else {
        ""
    };
    let crosses = if lost { " A cross at the top marks a value at which runs diverged or failed; how many is in the csv." } else { "" };
    Drawn::Figure(Box::new(Figure {
        name,
        title: format!("The bound against {title}"),
        caption: format!(
            "Bound of the final evaluation ({}) in {} against {key} ({} axis; the axis of the bound is {}{}). Dots are means over seeds, {}; \
             {bars}.{panels}{apart}{crosses}",
            metric.words(),
            study.unit(),
            scale(x_scale),
            scale(y_scale),
            if y_scale == Scale::Linear { " and does not begin at 0" } else { "" },
            study.seeds_words()
        ),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    }))
}

/// The names of lines that have none at their ends, and what a cross means.
fn legend(lines: &[Line], others: &str, at_ends: bool, lost: bool) -> Legend {
    let mut entries: Vec<Entry> = lines
        .iter()
        .filter(|l| !l.label.is_empty() && !at_ends)
        .map(|l| Entry { label: l.label.clone(), swatch: Swatch::Line(Stroke { color: l.color, width: 3.0, dash: l.dash }) })
        .collect();
    if !entries.is_empty() {
        entries.insert(0, Entry { label: format!("{others}:"), swatch: Swatch::None });
    }
    if lost {
        entries.push(Entry { label: "runs diverged or failed".into(), swatch: Swatch::Cross(GREY) });
    }
    Legend { entries }
}

/// Around the means; bars that are far wider than the curves are cut by the frame.
fn y_axis(intervals: impl Iterator<Item = Interval> + Clone, scale: Scale) -> Axis {
    let (low, high) = intervals.clone().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), i| (a.min(i.mean), b.max(i.mean)));
    let room = high - low;
    let floor = if scale == Scale::Log { low * 0.5 } else { low - room };
    let spread = intervals
        .flat_map(|i| [i.mean, i.low(), i.high()])
        .filter(|v| v.is_finite())
        .map(|v| v.clamp(floor, high + room.max(0.05 * high.abs())));
    Axis::around(spread, scale, 0.05, 6)
}

fn draw_lines(scene: &mut Scene, panel: &Panel, lines: &[Line], at_ends: bool) {
    let middle = (lines.len() as f64 - 1.0) / 2.0;
    for (i, line) in lines.iter().enumerate() {
        // Neighbouring lines step aside by a few pixels, so that their bars do not cover each other.
        let shift = (i as f64 - middle) * (24.0 / lines.len() as f64).min(5.0);
        let shifted = Panel { area: Rect { x: panel.area.x + shift, ..panel.area }, ..panel.clone() };
        let stroke = Stroke { color: line.color, width: 2.2, dash: line.dash };
        shifted.line(scene, &line.points.iter().map(|p| (p.0, p.2.mean)).collect::<Vec<_>>(), stroke);
        for (value, _, bits) in &line.points {
            if bits.half.is_finite() {
                shifted.error_bar(scene, *value, bits.low(), bits.high(), line.color);
            }
            shifted.dot(scene, *value, bits.mean, 4.5, line.color);
        }
        for (value, ..) in &line.lost {
            if let Some((x, _)) = panel.place(*value, panel.y.high) {
                scene.cross((x + (i as f64 - middle) * 11.0, panel.area.y + 7.0), 4.0, line.color);
            }
        }
    }
    if at_ends {
        let end = |l: &Line| Some((l.label.clone(), l.color, l.points.last()?.2.mean));
        panel.name_ends(scene, &lines.iter().filter_map(end).collect::<Vec<_>>());
    }
}

/// Another numeric axis of few values: the first one.
fn second(study: &Study, key: &str) -> Option<String> {
    keys(study).into_iter().find(|k| k != key && (2..=MULTIPLES).contains(&values_of(study, k).len()))
}

/// In the order of their size.
fn values_of<'a>(study: &'a Study, key: &str) -> Vec<&'a str> {
    let mut values: Vec<&str> = Vec::new();
    for (_, v) in study.cells.iter().flat_map(|c| &c.axes).filter(|(k, _)| k == key) {
        if !values.contains(&v.as_str()) {
            values.push(v);
        }
    }
    values.sort_by(|a, b| number(a).unwrap_or(f64::NAN).total_cmp(&number(b).unwrap_or(f64::NAN)));
    values
}

/// The names of all axes but these two.
fn other_axes(study: &Study, key: &str, second: Option<&str>) -> String {
    let mut titles: Vec<String> = Vec::new();
    for (k, _) in study.cells.iter().flat_map(|c| &c.axes).filter(|(k, _)| k != key && Some(k.as_str()) != second) {
        let title = axis_title(k);
        if !titles.contains(&title) {
            titles.push(title);
        }
    }
    titles.join(" · ")
}

fn groups<'a>(study: &'a Study, key: &str, second: Option<&str>) -> Vec<Group<'a>> {
    let Some(second) = second else {
        return vec![Group { title: String::new(), lines: lines(study, key, &|_| true) }];
    };
    values_of(study, second)
        .into_iter()
        .map(|value| {
            let inside = |cell: &Cell| cell.axes.iter().any(|(k, v)| k == second && v == value);
            Group { title: value_words(second, value), lines: lines(study, key, &inside) }
        })
        .filter(|g| !g.lines.is_empty())
        .collect()
}

fn lines<'a>(study: &'a Study, key: &str, inside: &dyn Fn(&Cell) -> bool) -> Vec<Line<'a>> {
    let mut groups: Vec<(Vec<(String, String)>, Line<'a>)> = Vec::new();
    // The panel says the value of the second axis, where there is one.
    let of_panel = second(study, key);
    for cell in study.cells.iter().filter(|c| inside(c)) {
        let Some(value) = cell.axes.iter().find(|(k, _)| k == key).and_then(|(_, v)| number(v)) else { continue };
        let rest: Vec<_> = cell.axes.iter().filter(|(k, _)| k != key && Some(k) != of_panel.as_ref()).cloned().collect();
        let at = groups.iter().position(|(r, _)| *r == rest).unwrap_or_else(|| {
            let label = rest.iter().map(|(k, v)| value_words(k, v)).collect::<Vec<_>>().join(" · ");
            groups.push((rest, Line { label, points: Vec::new(), lost: Vec::new(), color: cell.look.color, dash: &[] }));
            groups.len() - 1
        });
        let line = &mut groups[at].1;
        let bits = cell.interval(|e| e.bits_per_dim);
        if bits.n > 0 {
            line.points.push((value, cell, bits));
        }
        let lost = cell.count(RunState::Diverged) + cell.count(RunState::Failed);
        if lost > 0 {
            line.lost.push((value, lost, cell.runs.len()));
        }
    }
    // The colour of the cells where all of a line share one, and no other line has it.
    let shared: Vec<Option<Rgb>> = groups
        .iter()
        .map(|(_, l)| l.points.first().map(|p| p.1.look.color).filter(|c| l.points.iter().all(|p| p.1.look.color == *c)))
        .collect();
    let keep = groups.len() > 1 && (0..shared.len()).all(|i| shared[i].is_some() && !shared[..i].contains(&shared[i]));
    groups
        .into_iter()
        .enumerate()
        .map(|(i, (_, mut line))| {
            line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
            line.color = shared[i].filter(|_| keep).unwrap_or(PALETTE[i % PALETTE.len()]);
            line.dash = DASHES[if keep { 0 } else { i / PALETTE.len() % DASHES.len() }];
            line
        })
        .filter(|l| !l.points.is_empty() || !l.lost.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic;

    #[test]
    fn numeric_axes_are_found_and_drawn_in_order_of_their_values() {
        let data = synthetic::numeric_sweep("train.lr", &["1e-3", "1e-5", "1e-4"]);
        let study = Study::new(&data);
        assert_eq!(keys(&study), ["train.lr"]);
        let Drawn::Figure(figure) = draw(&study, "train.lr") else { panic!("no figure") };
        assert_eq!(figure.name, "axis_train_lr");
        let first: Vec<f64> = figure.csv.lines().skip(1).take(3).map(|l| l.split(',').next().unwrap().parse().unwrap()).collect();
        assert_eq!(first, [1e-5, 1e-4, 1e-3]);
        assert!(figure.caption.contains("train.lr (logarithmic axis"));
        assert!(keys(&Study::new(&synthetic::sweep())).is_empty());
    }

    #[test]
    fn two_numeric_axes_make_small_multiples_and_what_diverged_is_marked() {
        let mut data = synthetic::numeric_sweep("train.lr", &["1e-5", "1e-4", "1e-3"]);
        for run in &mut data.runs {
            let batch = if run.run.axes[0].1 == "linear" || run.run.axes[0].1 == "cosine" { "16" } else { "64" };
            run.run.axes.push(("train.batch_size".into(), batch.into()));
            let schedule = if ["linear", "quadratic"].contains(&run.run.axes[0].1.as_str()) { "linear" } else { "cosine" };
            run.run.axes[0].1 = schedule.into();
            run.run.cell = format!("{:?}", run.run.axes);
        }
        for run in data.runs.iter_mut().filter(|r| r.run.axes[1].1 == "1e-3" && r.run.axes[0].1 == "linear") {
            run.state = RunState::Diverged;
        }
        let study = Study::new(&data);
        assert_eq!(keys(&study), ["train.lr", "train.batch_size"]);
        let Drawn::Figure(figure) = draw(&study, "train.lr") else { panic!("no figure") };
        let texts: Vec<String> = figure.scene.text_boxes().into_iter().map(|(t, _)| t).collect();
        assert!(texts.iter().any(|t| t == "batch size = 64") && texts.iter().any(|t| t.starts_with("batch size = 16")), "{texts:?}");
        assert!(figure.caption.contains("A cross at the top") && figure.caption.contains("One panel for each batch size"));
        let row = figure.csv.lines().find(|l| l.starts_with("0.001,linear")).unwrap();
        assert!(row.ends_with(",0,,,,3,0"), "{row}");
    }
}
