//! The bound against a numeric axis of the sweep, such as the learning rate or T.

use super::{Drawn, Figure, HEIGHT, MARGIN, WIDTH};
use crate::report::draw::axis::{Axis, Scale, scale_for, scale_of_choices};
use crate::report::draw::{Entry, Legend, Panel, Rect, Rgb, Scene, Stroke, Swatch};
use crate::report::stats::Interval;
use crate::report::study::{Cell, Study, axis_title, value_words};
use crate::report::text::{Csv, plain};
use crate::report::theme::{DASHES, PALETTE, number};

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

/// The cells that differ in the axis alone.
struct Line<'a> {
    label: String,
    points: Vec<(f64, &'a Cell<'a>, Interval)>,
    color: Rgb,
    dash: &'static [f64],
}

pub fn draw(study: &Study, key: &str) -> Drawn {
    let name = format!("axis_{}", key.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    let title = axis_title(key);
    let lines = lines(study, key);
    let points = || lines.iter().flat_map(|l| &l.points);
    let Some(metric) = study.metric.filter(|_| points().next().is_some()) else {
        return Drawn::skipped(&name, "no run has finished with a finite bound");
    };
    let mut entries: Vec<Entry> = lines
        .iter()
        .filter(|l| !l.label.is_empty())
        .map(|l| Entry { label: l.label.clone(), swatch: Swatch::Line(Stroke { color: l.color, width: 3.0, dash: l.dash }) })
        .collect();
    if !entries.is_empty() {
        entries.insert(0, Entry { label: format!("{}:", other_axes(study, key)), swatch: Swatch::None });
    }
    let legend = Legend { entries };
    let width = WIDTH - 2.0 * MARGIN;
    let top = MARGIN + legend.height(width) + 6.0;
    let mut scene = Scene::new(WIDTH, top + HEIGHT - 60.0);
    legend.draw(&mut scene, MARGIN, MARGIN, width);
    let mut values: Vec<f64> = points().map(|p| p.0).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    let x_scale = scale_of_choices(&values);
    let y_scale = scale_for(points().map(|p| p.2.mean), 8.0);
    let (low, high) = points().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), p| (a.min(p.2.mean), b.max(p.2.mean)));
    let room = high - low;
    let floor = if y_scale == Scale::Log { low * 0.5 } else { low - room };
    // Bars that are far wider than the curves are cut by the frame.
    let spread = points()
        .flat_map(|p| [p.2.mean, p.2.low(), p.2.high()])
        .filter(|v| v.is_finite())
        .map(|v| v.clamp(floor, high + room.max(0.05 * high.abs())));
    let place = Rect::new(MARGIN, top, width, HEIGHT - 60.0 - MARGIN);
    let y = Axis::around(spread, y_scale, 0.05, 6);
    let x = Axis::around(values.iter().copied(), x_scale, 0.06, 6).labelled_at(&values);
    let panel = Panel::new(&mut scene, place, &format!("Bound ({})", study.unit()), &title, x, y);
    let mut csv = Csv::new(&[key, "cell", "n", "bits_per_dim", "low", "high"]);
    let middle = (lines.len() as f64 - 1.0) / 2.0;
    for (i, line) in lines.iter().enumerate() {
        // Neighbouring lines step aside by a few pixels, so that their bars do not cover each other.
        let shift = (i as f64 - middle) * (24.0 / lines.len() as f64).min(5.0);
        let shifted = Panel { area: Rect { x: panel.area.x + shift, ..panel.area }, ..panel.clone() };
        let stroke = Stroke { color: line.color, width: 2.2, dash: line.dash };
        shifted.line(&mut scene, &line.points.iter().map(|p| (p.0, p.2.mean)).collect::<Vec<_>>(), stroke);
        for (value, cell, bits) in &line.points {
            if bits.half.is_finite() {
                shifted.error_bar(&mut scene, *value, bits.low(), bits.high(), line.color);
            }
            shifted.dot(&mut scene, *value, bits.mean, 4.5, line.color);
            csv.row(&[plain(*value), cell.label.clone(), bits.n.to_string(), plain(bits.mean), plain(bits.low()), plain(bits.high())]);
        }
    }
    let scale = |s: Scale| if s == Scale::Log { "logarithmic" } else { "linear" };
    let bars = if points().any(|p| p.2.n > 1) {
        "bars are 95 % t-intervals over seeds, none where n = 1"
    } else {
        "n = 1 seed per point: no bars"
    };
    Drawn::Figure(Box::new(Figure {
        name,
        title: format!("The bound against {title}"),
        caption: format!(
            "Bound of the final evaluation ({}) in {} against {key} ({} axis; the axis of the bound is {}{}). Dots are means over seeds, {}; {bars}. Lines \
             are set a few pixels apart so that bars do not cover each other.",
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

/// The names of all axes but `key`.
fn other_axes(study: &Study, key: &str) -> String {
    let mut titles: Vec<String> = Vec::new();
    for (k, _) in study.cells.iter().flat_map(|c| &c.axes).filter(|(k, _)| k != key) {
        let title = axis_title(k);
        if !titles.contains(&title) {
            titles.push(title);
        }
    }
    titles.join(" · ")
}

fn lines<'a>(study: &'a Study, key: &str) -> Vec<Line<'a>> {
    type Group<'a> = (Vec<(String, String)>, Vec<(f64, &'a Cell<'a>, Interval)>);
    let mut groups: Vec<Group> = Vec::new();
    for (_, cell) in study.with_results() {
        let Some(value) = cell.axes.iter().find(|(k, _)| k == key).and_then(|(_, v)| number(v)) else { continue };
        let rest: Vec<_> = cell.axes.iter().filter(|(k, _)| k != key).cloned().collect();
        let point = (value, cell, cell.interval(|e| e.bits_per_dim));
        match groups.iter_mut().find(|(r, _)| *r == rest) {
            Some((_, points)) => points.push(point),
            None => groups.push((rest, vec![point])),
        }
    }
    let shared: Vec<Option<Rgb>> = groups
        .iter()
        .map(|(_, points)| points.iter().all(|p| p.1.look.color == points[0].1.look.color).then_some(points[0].1.look.color))
        .collect();
    let keep = groups.len() > 1 && (0..shared.len()).all(|i| shared[i].is_some() && !shared[..i].contains(&shared[i]));
    groups
        .into_iter()
        .enumerate()
        .map(|(i, (rest, mut points))| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let label = rest.iter().map(|(k, v)| value_words(k, v)).collect::<Vec<_>>().join(" · ");
            let color = shared[i].filter(|_| keep).unwrap_or(PALETTE[i % PALETTE.len()]);
            Line { label, points, color, dash: DASHES[if keep { 0 } else { i / PALETTE.len() % DASHES.len() }] }
        })
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
}
