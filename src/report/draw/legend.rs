//! A legend that flows into rows above the panels, never over the data.

use super::fonts::{fitted, text_width};
use super::panel::{INK, LABEL_SIZE};
use super::scene::{Anchor, Rgb, Scene, Stroke};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Swatch {
    Line(Stroke),
    Box(Rgb),
    Dot(Rgb),
    /// A hollow dot.
    Ring(Rgb),
    /// A short upright line.
    Tick(Rgb),
    /// A cross.
    Cross(Rgb),
    /// Only text: the name of the entries that follow.
    None,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub label: String,
    pub swatch: Swatch,
}

#[derive(Clone, Debug, Default)]
pub struct Legend {
    pub entries: Vec<Entry>,
}

const ROW: f64 = 23.0;
const GAP: f64 = 20.0;

impl Legend {
    fn swatch_width(swatch: Swatch) -> f64 {
        match swatch {
            Swatch::Line(_) => 38.0,
            Swatch::Box(_) | Swatch::Dot(_) | Swatch::Ring(_) | Swatch::Tick(_) | Swatch::Cross(_) => 20.0,
            Swatch::None => 0.0,
        }
    }

    /// Left edge and row of each entry in `width`.
    fn places(&self, width: f64) -> Vec<(f64, usize)> {
        let (mut x, mut row) = (0.0, 0);
        let mut places = Vec::with_capacity(self.entries.len());
        for (i, entry) in self.entries.iter().enumerate() {
            let w = Self::swatch_width(entry.swatch) + text_width(&entry.label, LABEL_SIZE, false);
            // A name of a group begins a row unless the whole group fits beside the last one.
            let group: f64 = if entry.swatch == Swatch::None {
                self.entries[i..]
                    .iter()
                    .enumerate()
                    .take_while(|(j, e)| *j == 0 || e.swatch != Swatch::None)
                    .map(|(_, e)| Self::swatch_width(e.swatch) + text_width(&e.label, LABEL_SIZE, false) + GAP)
                    .sum()
            } else {
                w
            };
            if x > 0.0 && x + group.min(width) > width {
                x = 0.0;
                row += 1;
            }
            places.push((x, row));
            x += w + if entry.swatch == Swatch::None { 10.0 } else { GAP };
        }
        places
    }

    pub fn height(&self, width: f64) -> f64 {
        self.places(width).last().map_or(0.0, |(_, row)| (*row as f64 + 1.0) * ROW + 6.0)
    }

    /// Draws with the top left corner at (x, y) and returns the height used.
    pub fn draw(&self, scene: &mut Scene, x: f64, y: f64, width: f64) -> f64 {
        for (entry, (dx, row)) in self.entries.iter().zip(self.places(width)) {
            let (left, base) = (x + dx, y + row as f64 * ROW + 15.0);
            let middle = base - 5.0;
            match entry.swatch {
                Swatch::Line(stroke) => scene.line(vec![(left, middle), (left + 31.0, middle)], stroke),
                Swatch::Box(color) => scene.rect(left, middle - 7.0, 14.0, 14.0, color),
                Swatch::Dot(color) => scene.dot((left + 7.0, middle), 4.5, color, None),
                Swatch::Ring(color) => scene.dot((left + 7.0, middle), 4.2, [255; 3], Some((color, 1.8))),
                Swatch::Tick(color) => scene.line(vec![(left + 7.0, middle - 8.0), (left + 7.0, middle + 8.0)], Stroke::solid(color, 2.2)),
                Swatch::Cross(color) => scene.cross((left + 7.0, middle), 4.5, color),
                Swatch::None => {}
            }
            let swatch = Self::swatch_width(entry.swatch);
            let label = fitted(&entry.label, LABEL_SIZE, false, width - swatch);
            scene.text((left + swatch, base), &label, LABEL_SIZE, INK, Anchor::Start);
        }
        self.height(width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_wrap_and_never_leave_the_width() {
        let entries = (0..9).map(|i| Entry { label: format!("schedule number {i}"), swatch: Swatch::Box([0; 3]) }).collect();
        let legend = Legend { entries };
        let mut scene = Scene::new(400.0, 200.0);
        let height = legend.draw(&mut scene, 0.0, 0.0, 400.0);
        assert!(height > 3.0 * ROW);
        for (text, b) in scene.text_boxes() {
            assert!(b[2] <= 400.0 && b[3] <= height, "{text} at {b:?}");
        }
    }
}
