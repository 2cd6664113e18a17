//! Training loss by step and t, one map per cell: when each part of the process is learned.

use super::{Drawn, Figure, MARGIN, columns, level, lines_of};
use crate::report::ReportError;
use crate::report::draw::axis::{Axis, Scale};
use crate::report::draw::fonts::text_width;
use crate::report::draw::panel::{INK, LABEL_SIZE, LINE, MUTED, TICK_SIZE, UNLABELLED};
use crate::report::draw::{Anchor, Panel, Rect, Scene, Stroke};
use crate::report::history::Surface;
use crate::report::stats::Interval;
use crate::report::study::{Cell, Study};
use crate::report::text::{Csv, plain};
use crate::report::theme::heat;
use crate::store::RunState;
use image::RgbImage;
use std::sync::Arc;

pub const NAME: &str = "heat_map";
/// Maps that still can be read in one figure.
const MOST: usize = 24;
const GAP: f64 = 16.0;
const BAR: f64 = 44.0;
/// The least a map needs beside another.
const LEAST: f64 = 180.0;
/// Below it, what the axes are stands below the scale of colour and not beside it.
const SHORT_BAR: f64 = 700.0;
/// Pixels of a map; ranges of t and columns of steps are blocks of them.
const PIXELS: (u32, u32) = (180, 160);
const MISSING: image::Rgb<u8> = image::Rgb([0xDD, 0xDD, 0xDD]);

/// The mean over the runs of a cell that share its steps.
struct Map<'a> {
    cell: &'a Cell<'a>,
    surface: &'a Surface,
    mse: Vec<Interval>,
    vb: Vec<Interval>,
}

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let maps: Vec<Map> = study.cells.iter().filter_map(map).collect();
    let shown = &maps[..maps.len().min(MOST)];
    let range = |of: &dyn Fn(&Map) -> bool| {
        let values = shown.iter().filter(|m| of(m)).flat_map(|m| &m.mse).map(|i| i.mean).filter(|v| v.is_finite() && *v > 0.0);
        values.fold((f64::INFINITY, 0.0f64), |(a, b), v| (a.min(v), b.max(v)))
    };
    // What diverged would leave one colour to all others.
    let steady = range(&|m| m.cell.count(RunState::Diverged) == 0);
    let whole = range(&|_| true);
    let (low, high) = if steady.0 < steady.1 { steady } else { whole };
    if low > high {
        return Ok(Drawn::skipped(NAME, "no run has recorded a loss by timestep yet"));
    }
    let beyond = if whole.1 > high || whole.0 < low {
        " The scale is that of the cells without a diverged run; values beyond it have the colour of its end."
    } else {
        ""
    };
    let scale = Axis::log(low, high);
    let most = match shown.len() {
        n @ 1..=3 => n,
        4 => 2,
        5 | 6 | 9 => 3,
        _ => 4,
    };
    let columns = columns(study.width, most, LEAST);
    let rows = shown.len().div_ceil(columns);
    let height = match (most, columns) {
        (1, _) => 400.0f64.min(0.7 * study.width),
        (2, 2) if study.width > 700.0 => 300.0,
        _ => 240.0f64.min(0.62 * study.width / columns as f64 + 50.0),
    };
    let width = study.width - 2.0 * MARGIN;
    let bar = if width < SHORT_BAR { 2.0 * BAR - 20.0 } else { BAR };
    let place = Rect::new(MARGIN, MARGIN + bar, width, 0.0);
    let places = place.columns(columns, GAP);
    let lines = lines_of(shown.iter().map(|m| m.cell.label.as_str()), places[0].w);
    let height = height + LINE * (lines as f64 - 1.0);
    let mut scene = Scene::new(study.width, place.y + rows as f64 * (height + GAP - UNLABELLED) + UNLABELLED - GAP + MARGIN);
    colour_bar(&mut scene, study.error_name(), &scale);
    for (i, map) in shown.iter().enumerate() {
        let column = places[i % columns];
        let last = i / columns + 1 == rows || i + columns >= shown.len();
        let h = if last { height } else { height - UNLABELLED };
        let spot = Rect { y: place.y + (i / columns) as f64 * (height + GAP - UNLABELLED), h, ..column };
        map.paint(&mut scene, level(spot, &map.cell.label, lines), &scale, if last { "optimizer step" } else { "" });
    }
    let mut csv = Csv::new(&["cell", "step_after", "step_until", "t_first", "t_last", "n", "eps_mse", "bound_term"]);
    for map in &maps {
        map.rows(&mut csv);
    }
    let missing = shown.iter().flat_map(|m| &m.mse).filter(|i| i.n == 0).count();
    let missing = if missing > 0 { " Grey: no finite value was seen there." } else { "" };
    let more =
        if maps.len() > shown.len() { format!(" The first {MOST} of {} cells; the csv has all.", maps.len()) } else { String::new() };
    let counts: Vec<usize> = maps.iter().flat_map(|m| m.mse.iter().map(|i| i.n).max()).collect();
    let seeds = match (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0)) {
        (a, b) if a == b => format!("n = {}", crate::report::text::count(a, "seed")),
        (a, b) => format!("n = {a} to {b} seeds"),
    };
    Ok(Drawn::Figure(Box::new(Figure {
        name: NAME.into(),
        title: "Training loss by step and timestep".into(),
        caption: format!(
            "{} of the training windows (raw weights), mean over samples within up to 60 stretches of steps and 32 ranges of t, then over seeds ({seeds} per \
             cell). t and colour are logarithmic, steps linear; one scale of colour for all cells. The csv also has the mean term of the bound.{beyond}{missing}{more}",
            study.error_name()
        ),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
}

fn map<'a>(cell: &'a Cell<'a>) -> Option<Map<'a>> {
    let surfaces: Vec<&Surface> = cell.runs.iter().map(|r| &r.data.history.surface).filter(|s| !s.columns.is_empty()).collect();
    // The longest: a run that broke off has fewer columns, and none of them may stretch over those of the others.
    let surface = *surfaces.iter().max_by_key(|s| (s.columns.last().map(|c| c.1), s.columns.len()))?;
    let same: Vec<&&Surface> = surfaces.iter().filter(|s| s.columns == surface.columns && s.ranges == surface.ranges).collect();
    let of = |f: fn(&crate::report::history::Seen) -> f64| {
        (0..surface.seen.len()).map(|i| Interval::of(same.iter().map(|s| f(&s.seen[i])))).collect()
    };
    Some(Map { cell, surface, mse: of(|s| s.mse), vb: of(|s| s.vb) })
}

impl Map<'_> {
    fn paint(&self, scene: &mut Scene, place: Rect, scale: &Axis, x_label: &str) {
        let s = self.surface;
        let (first, last) = (s.columns[0].0 as f64, s.columns[s.columns.len() - 1].1 as f64);
        let top = f64::from(s.ranges[s.ranges.len() - 1].1) + 0.5;
        let x = Axis::linear(first, last, if place.w < 310.0 { 2 } else { 4 });
        let y = Axis::log(0.5, top);
        let panel = Panel::new(scene, place, &self.cell.label, x_label, x, y);
        let (width, height) = PIXELS;
        let image = RgbImage::from_fn(width, height, |px, py| {
            let step = first + (f64::from(px) + 0.5) / f64::from(width) * (last - first);
            let t = 0.5 * (top / 0.5).powf(1.0 - (f64::from(py) + 0.5) / f64::from(height));
            let column = s.columns.partition_point(|c| (c.1 as f64) < step).min(s.columns.len() - 1);
            let range = s.ranges.partition_point(|r| f64::from(r.1) + 0.5 < t).min(s.ranges.len() - 1);
            let mean = self.mse[column * s.ranges.len() + range].mean;
            scale.position(mean).map_or(MISSING, |p| image::Rgb(heat(p)))
        });
        let a = panel.area;
        scene.picture((a.x, a.y), (a.w, a.h), Arc::new(image));
        let corners = vec![(a.x, a.y), (a.x, a.bottom()), (a.right(), a.bottom()), (a.right(), a.y), (a.x, a.y)];
        scene.line(corners, Stroke::solid(MUTED, 1.0));
    }

    fn rows(&self, csv: &mut Csv) {
        let s = self.surface;
        for (c, (after, until)) in s.columns.iter().enumerate() {
            for (r, (first, last)) in s.ranges.iter().enumerate() {
                let i = c * s.ranges.len() + r;
                csv.row(&[
                    self.cell.label.clone(),
                    after.to_string(),
                    until.to_string(),
                    first.to_string(),
                    last.to_string(),
                    self.mse[i].n.to_string(),
                    plain(self.mse[i].mean),
                    plain(self.vb[i].mean),
                ]);
            }
        }
    }
}

/// The scale of colour, above the maps.
fn colour_bar(scene: &mut Scene, name: &str, scale: &Axis) {
    debug_assert_eq!(scale.scale, Scale::Log);
    let title = format!("{name}:");
    scene.bold((MARGIN, MARGIN + 13.0), &title, LABEL_SIZE, INK, Anchor::Start);
    let x = MARGIN + text_width(&title, LABEL_SIZE, true) + 26.0;
    let right = scene.width - MARGIN;
    let short = right - MARGIN < SHORT_BAR;
    let width = if short { right - x - 20.0 } else { 420.0f64.min(right - x - 220.0) };
    let image = RgbImage::from_fn(210, 1, |px, _| image::Rgb(heat((f64::from(px) + 0.5) / 210.0)));
    scene.picture((x, MARGIN + 1.0), (width, 14.0), Arc::new(image));
    let (at, anchor) = if short { ((MARGIN, MARGIN + BAR + 9.0), Anchor::Start) } else { ((right, MARGIN + 13.0), Anchor::End) };
    scene.text(at, "upwards: timestep t", LABEL_SIZE, INK, anchor);
    let mut right = f64::NEG_INFINITY;
    for tick in scale.ticks.iter().filter(|t| !t.label.is_empty()) {
        let Some(at) = scale.position(tick.value).filter(|p| (-1e-9..=1.0 + 1e-9).contains(p)).map(|p| x + p * width) else { continue };
        let half = text_width(&tick.label, TICK_SIZE, false) / 2.0;
        if at - half > right + 8.0 {
            scene.line(vec![(at, MARGIN + 15.0), (at, MARGIN + 19.0)], Stroke::solid(MUTED, 1.0));
            scene.text((at, MARGIN + 21.0 + 0.73 * TICK_SIZE), &tick.label, TICK_SIZE, MUTED, Anchor::Middle);
            right = at + half;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::draw::Shape;
    use crate::report::synthetic;

    #[test]
    fn the_map_shows_its_csv_and_missing_values_are_grey() {
        let mut data = synthetic::sweep();
        data.runs.truncate(3);
        for run in &mut data.runs {
            // The first stretch of steps, t = 1.
            run.history.surface.seen[0].mse = f64::NAN;
        }
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        assert!(figure.caption.contains("Grey") && figure.caption.contains("n = 3 seeds"), "{}", figure.caption);
        let map = figure
            .scene
            .shapes
            .iter()
            .filter_map(|s| if let Shape::Picture { image, .. } = s { Some(image) } else { None })
            .nth(1)
            .unwrap();
        assert_eq!(*map.get_pixel(0, PIXELS.1 - 1), MISSING, "t = 1 is at the bottom, the first step on the left");
        // The last column at the top is as its row of the csv says.
        // The name of the one cell has a comma in it.
        let fields =
            |line: &str| -> Vec<String> { line.rsplit(',').take(7).map(String::from).collect::<Vec<_>>().into_iter().rev().collect() };
        let last = fields(figure.csv.lines().last().unwrap());
        let surface = &data.runs[0].history.surface;
        let by_hand = data.runs.iter().map(|r| r.history.surface.seen[surface.seen.len() - 1].mse).sum::<f64>() / 3.0;
        assert_eq!((last[3].as_str(), last[4].as_str()), ("100", "3"));
        assert!((last[5].parse::<f64>().unwrap() - by_hand).abs() < 1e-12);
        let values: Vec<f64> = figure.csv.lines().skip(1).filter_map(|l| fields(l)[5].parse().ok()).collect();
        let (low, high) = values.iter().fold((f64::INFINITY, 0.0f64), |(a, b), v| (a.min(*v), b.max(*v)));
        assert_eq!(map.get_pixel(PIXELS.0 - 1, 0).0, heat((by_hand / low).ln() / (high / low).ln()));
    }
}
