//! Rows of cells with dots in one or more panels beside each other: values that have no axis of their own.

use super::{LINE_OF_NAME, level, lines_of};
use crate::report::draw::axis::{Axis, Scale, scale_for};
use crate::report::draw::fonts::{fitted, text_width};
use crate::report::draw::panel::{INK, LINE, MUTED, TICK_SIZE};
use crate::report::draw::{Anchor, Panel, Rect, Rgb, Scene, Stroke};

/// What a mark looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Filled,
    /// White inside.
    Hollow,
    /// A short upright line.
    Tick,
    /// One seed: small and pale.
    Seed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dot {
    pub mark: Mark,
    pub value: f64,
    /// Half-width of its bar; NaN for none.
    pub half: f64,
}

pub struct Row {
    pub label: String,
    pub color: Rgb,
    /// One list for each column.
    pub dots: Vec<Vec<Dot>>,
}

pub struct Column {
    pub heading: String,
    pub x_label: String,
    /// Whether 0 is a value to compare with.
    pub zero: bool,
}

const ROW: f64 = 30.0;
/// The share of the width that names may take at the left of their rows.
const NAMES: f64 = 0.3;

fn above(labels: &[&str], width: f64) -> bool {
    width < 700.0 || labels.iter().any(|l| text_width(l, TICK_SIZE, false) > NAMES * width)
}

/// What rows of these names take in a figure of that width.
pub fn height(labels: &[&str], width: f64) -> f64 {
    let (row, heading) = if above(labels, width) { (ROW + LINE_OF_NAME, LINE) } else { (ROW, 0.0) };
    78.0 + heading + row * labels.len() as f64
}

/// Draws the rows and returns the scale of each column.
pub fn draw(scene: &mut Scene, place: Rect, rows: &[Row], columns: &[Column]) -> Vec<Scale> {
    let names: Vec<&str> = rows.iter().map(|r| r.label.as_str()).collect();
    let above = above(&names, scene.width);
    let labels = if above { 0.0 } else { names.iter().map(|n| text_width(n, TICK_SIZE, false)).fold(0.0, f64::max) + 12.0 };
    let right = Rect { x: place.x + labels, w: place.w - labels, ..place };
    let mut scales = Vec::new();
    let spots = right.columns(columns.len(), 24.0);
    // Headings stand on one line, and rows beside each other, also where one heading takes two lines.
    let lines = lines_of(columns.iter().map(|c| c.heading.as_str()), spots[0].w);
    for ((c, column), spot) in columns.iter().enumerate().zip(spots) {
        let dots = || rows.iter().flat_map(|r| &r.dots[c]);
        let values = || dots().map(|d| d.value).filter(|v| v.is_finite());
        let scale = if column.zero { Scale::Linear } else { scale_for(values(), 8.0) };
        let (low, high) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        // A bar that is far longer than all values are apart runs out of the frame.
        let room = (high - low).max(1e-3 * high.abs());
        let floor = if scale == Scale::Log { 0.7 * low } else { low - room };
        let ends = dots().flat_map(|d| [d.value - d.half, d.value + d.half]).filter(|v| v.is_finite()).map(|v| v.clamp(floor, high + room));
        let x = Axis::around(values().chain(ends).chain(column.zero.then_some(0.0)), scale, 0.05, 4);
        let y = Axis { scale: Scale::Linear, low: 0.0, high: rows.len() as f64, ticks: Vec::new() };
        let panel = Panel::new(scene, level(spot, &column.heading, lines), &column.heading, &column.x_label, x, y);
        if let Some((zero, _)) = panel.place(0.0, 0.0).filter(|_| column.zero) {
            scene.line(vec![(zero, panel.area.y), (zero, panel.area.bottom())], Stroke::solid(MUTED, 1.2));
        }
        for (i, row) in rows.iter().enumerate() {
            let step = panel.area.h / rows.len() as f64;
            let name = if above { LINE_OF_NAME } else { 0.0 };
            let y = panel.area.y + (i as f64 + 0.5) * step + name / 2.0;
            if c == 0 && above {
                let label = fitted(&row.label, TICK_SIZE, false, place.w - 16.0);
                let at = (panel.area.x + 6.0, panel.area.y + i as f64 * step + 18.0);
                scene.text(at, &label, TICK_SIZE, INK, Anchor::Start);
            } else if c == 0 {
                scene.text((place.x + labels - 8.0, y + 0.36 * TICK_SIZE), &row.label, TICK_SIZE, INK, Anchor::End);
            }
            row.dots[c].iter().for_each(|d| draw_dot(scene, &panel, *d, row.color, y));
        }
        scales.push(scale);
    }
    scales
}

fn draw_dot(scene: &mut Scene, panel: &Panel, dot: Dot, color: Rgb, y: f64) {
    let a = panel.area;
    let at = |v: f64| panel.place(v, 0.0).map(|p| p.0.clamp(a.x, a.right()));
    let Some(x) = at(dot.value) else { return };
    if dot.half.is_finite() {
        let (low, high) = (at(dot.value - dot.half).unwrap_or(a.x), at(dot.value + dot.half).unwrap_or(a.right()));
        scene.line(vec![(low, y), (high, y)], Stroke::solid(color, 1.5));
        for end in [low, high] {
            scene.line(vec![(end, y - 4.0), (end, y + 4.0)], Stroke::solid(color, 1.5));
        }
    }
    match dot.mark {
        Mark::Filled => scene.dot((x, y), 4.5, color, None),
        Mark::Hollow => scene.dot((x, y), 4.2, [255; 3], Some((color, 1.8))),
        Mark::Tick => scene.line(vec![(x, y - 8.0), (x, y + 8.0)], Stroke::solid(color, 2.2)),
        Mark::Seed => scene.dot((x, y + 8.0), 2.2, crate::report::theme::tint(color, 0.65), None),
    }
}
