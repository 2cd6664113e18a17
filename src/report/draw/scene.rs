//! A picture as a list of shapes, in CSS pixels from the top left corner.

use image::RgbImage;
use std::sync::Arc;

pub type Rgb = [u8; 3];

/// How a line is drawn. An empty dash pattern is a solid line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stroke {
    pub color: Rgb,
    pub width: f64,
    /// Lengths of strokes and gaps, alternating.
    pub dash: &'static [f64],
}

impl Stroke {
    pub fn solid(color: Rgb, width: f64) -> Self {
        Self { color, width, dash: &[] }
    }
}

/// Which point of a line of text stands at its `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

#[derive(Clone, Debug)]
pub enum Shape {
    Polygon {
        points: Vec<(f64, f64)>,
        color: Rgb,
        opacity: f64,
    },
    Line {
        points: Vec<(f64, f64)>,
        stroke: Stroke,
    },
    Dot {
        center: (f64, f64),
        radius: f64,
        fill: Rgb,
        outline: Option<(Rgb, f64)>,
    },
    /// `at` is on the baseline.
    Text {
        at: (f64, f64),
        text: String,
        size: f64,
        bold: bool,
        color: Rgb,
        anchor: Anchor,
    },
    /// Pixels keep their edges when enlarged.
    Picture {
        at: (f64, f64),
        size: (f64, f64),
        image: Arc<RgbImage>,
    },
}

#[derive(Clone, Debug)]
pub struct Scene {
    pub width: f64,
    pub height: f64,
    pub shapes: Vec<Shape>,
    /// Whether lines were drawn by fewer points than they have: see [`thin`](super::thin).
    pub thinned: bool,
}

impl Scene {
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, shapes: Vec::new(), thinned: false }
    }

    pub fn polygon(&mut self, points: Vec<(f64, f64)>, color: Rgb, opacity: f64) {
        if points.len() > 2 {
            self.shapes.push(Shape::Polygon { points, color, opacity });
        }
    }

    pub fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, color: Rgb) {
        self.polygon(vec![(x, y), (x + width, y), (x + width, y + height), (x, y + height)], color, 1.0);
    }

    pub fn line(&mut self, points: Vec<(f64, f64)>, stroke: Stroke) {
        if points.len() > 1 {
            self.shapes.push(Shape::Line { points, stroke });
        }
    }

    pub fn dot(&mut self, center: (f64, f64), radius: f64, fill: Rgb, outline: Option<(Rgb, f64)>) {
        self.shapes.push(Shape::Dot { center, radius, fill, outline });
    }

    pub fn cross(&mut self, (x, y): (f64, f64), size: f64, color: Rgb) {
        for turn in [1.0, -1.0] {
            self.line(vec![(x - size, y - turn * size), (x + size, y + turn * size)], Stroke::solid(color, 1.8));
        }
    }

    pub fn text(&mut self, at: (f64, f64), text: &str, size: f64, color: Rgb, anchor: Anchor) {
        self.push_text(at, text, size, false, color, anchor);
    }

    pub fn bold(&mut self, at: (f64, f64), text: &str, size: f64, color: Rgb, anchor: Anchor) {
        self.push_text(at, text, size, true, color, anchor);
    }

    fn push_text(&mut self, at: (f64, f64), text: &str, size: f64, bold: bool, color: Rgb, anchor: Anchor) {
        if !text.is_empty() {
            self.shapes.push(Shape::Text { at, text: text.to_string(), size, bold, color, anchor });
        }
    }

    pub fn picture(&mut self, at: (f64, f64), size: (f64, f64), image: Arc<RgbImage>) {
        self.shapes.push(Shape::Picture { at, size, image });
    }

    /// The texts of the scene with the boxes (left, top, right, bottom) they fill: what a test of overlap needs.
    pub fn text_boxes(&self) -> Vec<(String, [f64; 4])> {
        self.shapes
            .iter()
            .filter_map(|shape| match shape {
                Shape::Text { at, text, size, bold, anchor, .. } => {
                    let width = super::fonts::text_width(text, *size, *bold);
                    let left = at.0
                        - match anchor {
                            Anchor::Start => 0.0,
                            Anchor::Middle => width / 2.0,
                            Anchor::End => width,
                        };
                    Some((text.clone(), [left, at.1 - 0.73 * size, left + width, at.1]))
                }
                _ => None,
            })
            .collect()
    }
}
