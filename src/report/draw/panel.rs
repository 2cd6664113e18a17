//! A panel: two axes in a frame, with lines, bands and dots in data units.
//!
//! Start at [`Panel::new`], which takes its margins from its own labels, so that none is clipped.

use super::axis::Axis;
use super::fonts::{text_width, wrapped};
use super::scene::{Anchor, Rgb, Scene, Stroke};
use super::thin;
use crate::report::theme::tint;

/// Text of ticks, and of everything else inside a figure.
pub const TICK_SIZE: f64 = 14.0;
pub const LABEL_SIZE: f64 = 15.0;
pub const INK: Rgb = [0x22, 0x22, 0x22];
pub const MUTED: Rgb = [0x55, 0x55, 0x55];
pub const GRID: Rgb = [0xE4, 0xE4, 0xE4];

/// How much lower a panel is whose x axis is named by another one below it.
pub const UNLABELLED: f64 = 20.0;

/// A place in a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    pub x: f64,
    pub y: f64,
    pub w: f64,
    pub h: f64,
}

impl Rect {
    pub fn new(x: f64, y: f64, w: f64, h: f64) -> Self {
        Self { x, y, w, h }
    }

    pub fn right(self) -> f64 {
        self.x + self.w
    }

    pub fn bottom(self) -> f64 {
        self.y + self.h
    }

    /// Splits into `n` columns with `gap` between them.
    pub fn columns(self, n: usize, gap: f64) -> Vec<Rect> {
        let w = (self.w - gap * (n as f64 - 1.0)) / n as f64;
        (0..n).map(|i| Rect { x: self.x + i as f64 * (w + gap), w, ..self }).collect()
    }
}

#[derive(Clone, Debug)]
pub struct Panel {
    /// The plot area, inside the labels.
    pub area: Rect,
    pub x: Axis,
    pub y: Axis,
}

impl Panel {
    /// Draws frame, grid, ticks and labels into `place`. `heading` names the quantity of the y axis with its unit and
    /// stands above it, `x_label` below.
    pub fn new(scene: &mut Scene, place: Rect, heading: &str, x_label: &str, x: Axis, y: Axis) -> Self {
        let widest = y.ticks.iter().map(|t| text_width(&t.label, TICK_SIZE, false)).fold(0.0, f64::max);
        // The last x label is centred on its tick and may stick out.
        let overhang = x.ticks.last().map_or(0.0, |t| text_width(&t.label, TICK_SIZE, false) / 2.0);
        let heading = wrapped(heading, LABEL_SIZE, true, place.w);
        let above = 30.0 + LINE * (heading.len() as f64 - 1.0);
        let (left, top, bottom) = (widest + 12.0, above, if x_label.is_empty() { 48.0 - UNLABELLED } else { 48.0 });
        let area = Rect::new(place.x + left, place.y + top, place.w - left - overhang.max(6.0), place.h - top - bottom);
        let panel = Self { area, x, y };
        panel.draw_frame(scene, place, &heading, x_label);
        panel
    }

    fn draw_frame(&self, scene: &mut Scene, place: Rect, heading: &[String], x_label: &str) {
        let a = self.area;
        for (i, line) in heading.iter().enumerate() {
            scene.bold((place.x, place.y + 15.0 + LINE * i as f64), line, LABEL_SIZE, INK, Anchor::Start);
        }
        let mut last_bottom = f64::INFINITY;
        for tick in &self.y.ticks {
            let Some(p) = self.y.position(tick.value).filter(|p| (-1e-9..=1.0 + 1e-9).contains(p)) else { continue };
            let y = a.bottom() - p * a.h;
            if tick.label.is_empty() {
                scene.line(vec![(a.x - 3.0, y), (a.x, y)], Stroke::solid(MUTED, 1.0));
                continue;
            }
            scene.line(vec![(a.x, y), (a.right(), y)], Stroke::solid(GRID, 1.0));
            scene.line(vec![(a.x - 5.0, y), (a.x, y)], Stroke::solid(MUTED, 1.0));
            if last_bottom - y >= TICK_SIZE {
                scene.text((a.x - 8.0, y + 0.36 * TICK_SIZE), &tick.label, TICK_SIZE, MUTED, Anchor::End);
                last_bottom = y;
            }
        }
        let mut last_right = f64::NEG_INFINITY;
        for tick in &self.x.ticks {
            let Some(p) = self.x.position(tick.value).filter(|p| (-1e-9..=1.0 + 1e-9).contains(p)) else { continue };
            let x = a.x + p * a.w;
            if tick.label.is_empty() {
                scene.line(vec![(x, a.bottom()), (x, a.bottom() + 3.0)], Stroke::solid(MUTED, 1.0));
                continue;
            }
            scene.line(vec![(x, a.y), (x, a.bottom())], Stroke::solid(GRID, 1.0));
            scene.line(vec![(x, a.bottom()), (x, a.bottom() + 5.0)], Stroke::solid(MUTED, 1.0));
            let half = text_width(&tick.label, TICK_SIZE, false) / 2.0;
            if x - half > last_right + 8.0 {
                scene.text((x, a.bottom() + 7.0 + TICK_SIZE), &tick.label, TICK_SIZE, MUTED, Anchor::Middle);
                last_right = x + half;
            }
        }
        scene.line(vec![(a.x, a.y), (a.x, a.bottom()), (a.right(), a.bottom())], Stroke::solid(MUTED, 1.2));
        scene.text((a.x + a.w / 2.0, place.bottom() - 6.0), x_label, LABEL_SIZE, INK, Anchor::Middle);
    }

    /// Where a point of data lies; y is held at the frame's edge, x is not. `None` where an axis has no place for it.
    pub fn place(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        let (px, py) = (self.x.position(x)?, self.y.position(y)?);
        Some((self.area.x + px * self.area.w, self.area.bottom() - py.clamp(-0.004, 1.004) * self.area.h))
    }

    /// A line through `points`, broken where a value has no place.
    pub fn line(&self, scene: &mut Scene, points: &[(f64, f64)], stroke: Stroke) {
        let mut piece = Vec::new();
        let mut flush = |piece: Vec<(f64, f64)>| match thin::line(&piece) {
            Some(enough) => {
                scene.thinned = true;
                scene.line(thin::straight(&enough), stroke);
            }
            None => scene.line(thin::straight(&piece), stroke),
        };
        for &(x, y) in points {
            match self.place(x, y) {
                Some(p) => piece.push(p),
                None => flush(std::mem::take(&mut piece)),
            }
        }
        flush(piece);
    }

    /// The area between `low` and `high` of (x, low, high), broken where there is no interval. Where a bound has no
    /// place on a logarithmic axis the area goes down to the frame. `opacity` is for the many bands of one panel to lie over each other.
    pub fn band(&self, scene: &mut Scene, points: &[(f64, f64, f64)], color: Rgb, opacity: f64) {
        let mut piece: Vec<(f64, f64, f64)> = Vec::new();
        let mut flush = |piece: &mut Vec<(f64, f64, f64)>| {
            if let Some(enough) = thin::band(piece) {
                scene.thinned = true;
                *piece = enough;
            }
            let edge = |y: fn(&(f64, f64, f64)) -> f64| thin::straight(&piece.iter().map(|p| (p.0, y(p))).collect::<Vec<_>>());
            let mut outline = edge(|p| p.2);
            outline.extend(edge(|p| p.1).into_iter().rev());
            scene.polygon(outline, color, opacity);
            piece.clear();
        };
        for &(x, low, high) in points {
            let upper = self.place(x, high).filter(|_| !low.is_nan());
            match upper {
                Some((px, top)) => {
                    let bottom = self.place(x, low).map_or(self.area.bottom(), |p| p.1);
                    piece.push((px, bottom, top));
                }
                None => flush(&mut piece),
            }
        }
        flush(&mut piece);
    }

    /// Names lines at their right ends, beside the frame: (name, colour, last value). Names that are close are moved apart, and a
    /// thin line leads to a name that was moved.
    pub fn name_ends(&self, scene: &mut Scene, ends: &[(String, Rgb, f64)]) {
        let ends: Vec<(&String, Rgb, f64)> =
            ends.iter().filter_map(|(name, color, y)| Some((name, *color, self.place(self.x.high, *y)?.1))).collect();
        let middles = apart(&ends.iter().map(|e| e.2).collect::<Vec<_>>(), self.area.y + 6.0, self.area.bottom() - 6.0);
        for ((name, color, y), middle) in ends.into_iter().zip(middles) {
            let x = self.area.right();
            if (middle - y).abs() > 3.0 {
                scene.line(vec![(x + 1.0, y), (x + 9.0, middle)], Stroke::solid(tint(color, 0.6), 1.0));
            }
            scene.text((x + 12.0, middle + 0.36 * TICK_SIZE), name, TICK_SIZE, darker(color), Anchor::Start);
        }
    }

    pub fn dot(&self, scene: &mut Scene, x: f64, y: f64, radius: f64, fill: Rgb) {
        if let Some(p) = self.place(x, y) {
            scene.dot(p, radius, fill, Some(([255; 3], 1.0)));
        }
    }

    /// A vertical error bar with caps.
    pub fn error_bar(&self, scene: &mut Scene, x: f64, low: f64, high: f64, color: Rgb) {
        if let (Some(a), Some(b)) = (self.place(x, high), self.place(x, low).or_else(|| self.place(x, self.y.low))) {
            scene.line(vec![a, b], Stroke::solid(color, 1.5));
            for p in [a, b] {
                scene.line(vec![(p.0 - 4.0, p.1), (p.0 + 4.0, p.1)], Stroke::solid(color, 1.5));
            }
        }
    }
}

/// From one line of text to the next.
pub const LINE: f64 = 17.0;

/// `ys` moved as little as it takes for neighbours to be a line of text apart and all to lie in `top..=bottom`, where they have
/// room for that.
fn apart(ys: &[f64], top: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ys.len()).collect();
    order.sort_by(|a, b| ys[*a].total_cmp(&ys[*b]));
    // Names that touch form blocks, and a block stands around the mean of where its names want to be.
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for i in &order {
        blocks.push((ys[*i], 1));
        while let [.., (a, n), (b, m)] = blocks[..] {
            if b - a >= LINE * (n + m) as f64 / 2.0 {
                break;
            }
            blocks.truncate(blocks.len() - 2);
            blocks.push(((a * n as f64 + b * m as f64) / (n + m) as f64, n + m));
        }
    }
    let mut places: Vec<f64> =
        blocks.into_iter().flat_map(|(middle, n)| (0..n).map(move |k| middle + LINE * (k as f64 - (n as f64 - 1.0) / 2.0))).collect();
    let mut least = top;
    for y in &mut places {
        *y = y.max(least);
        least = *y + LINE;
    }
    let mut most = bottom;
    for y in places.iter_mut().rev() {
        *y = y.min(most);
        most = *y - LINE;
    }
    let mut out = vec![0.0; ys.len()];
    order.into_iter().zip(places).for_each(|(i, y)| out[i] = y);
    out
}

/// A colour as text has it: pale ones are hard to read in thin strokes.
fn darker(color: Rgb) -> Rgb {
    color.map(|c| (f64::from(c) * 0.82) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::draw::Shape;

    #[test]
    fn names_are_moved_apart_and_no_further() {
        assert_eq!(apart(&[50.0, 10.0, 90.0], 0.0, 100.0), [50.0, 10.0, 90.0]);
        let moved = apart(&[50.0, 51.0, 49.0], 0.0, 100.0);
        assert_eq!(moved, [50.0, 50.0 + LINE, 50.0 - LINE]);
        let low = apart(&[99.0, 98.0, 97.0, 20.0], 0.0, 100.0);
        assert!(low.iter().all(|y| (0.0..=100.0).contains(y)) && low[3] == 20.0);
        let mut sorted = low.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(sorted.windows(2).all(|w| w[1] - w[0] >= LINE - 1e-9), "{low:?}");
    }

    fn panel(scene: &mut Scene) -> Panel {
        Panel::new(scene, Rect::new(0.0, 0.0, 400.0, 300.0), "Loss", "t", Axis::log(1.0, 1000.0), Axis::log(1e-6, 1.0))
    }

    #[test]
    fn labels_stay_inside_the_place_and_apart() {
        let mut scene = Scene::new(400.0, 300.0);
        panel(&mut scene);
        let boxes = scene.text_boxes();
        for (text, b) in &boxes {
            assert!(b[0] >= 0.0 && b[1] >= 0.0 && b[2] <= 400.0 && b[3] <= 300.0, "{text}: {b:?}");
        }
        for (i, (s, a)) in boxes.iter().enumerate() {
            for (t, b) in &boxes[i + 1..] {
                assert!(a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1], "{s:?} lies over {t:?}");
            }
        }
    }

    #[test]
    fn a_line_is_broken_at_values_without_a_place() {
        let mut scene = Scene::new(400.0, 300.0);
        let p = panel(&mut scene);
        let before = scene.shapes.len();
        p.line(
            &mut scene,
            &[(1.0, 0.1), (2.0, 0.2), (3.0, f64::NAN), (4.0, 0.1), (5.0, -1.0), (6.0, 0.1), (7.0, 0.1)],
            Stroke::solid(INK, 1.0),
        );
        let lines = scene.shapes[before..].iter().filter(|s| matches!(s, Shape::Line { .. })).count();
        assert_eq!(lines, 2, "a single point between two gaps is no line");
    }

    #[test]
    fn a_band_whose_lower_bound_is_negative_reaches_the_frame_of_a_log_axis() {
        let mut scene = Scene::new(400.0, 300.0);
        let p = panel(&mut scene);
        p.band(&mut scene, &[(1.0, -0.1, 0.3), (10.0, 0.1, 0.3)], INK, 0.2);
        let Some(Shape::Polygon { points, .. }) = scene.shapes.last() else { panic!("no band") };
        assert_eq!(points[3].1, p.area.bottom());
    }
}
