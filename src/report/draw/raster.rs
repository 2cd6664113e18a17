//! A scene as PNG: the shapes of the list, painted with exact horizontal coverage on four lines to the pixel.
//!
//! Start at [`render`]. Filling follows the non-zero rule, so a stroked line that crosses itself stays whole.

use super::fonts::{self, FontError};
use super::scene::{Anchor, Rgb, Scene, Shape, Stroke};
use image::codecs::png::PngEncoder;
use image::{ImageEncoder, RgbImage};
use std::sync::OnceLock;

/// Lines of sampling in a pixel's height.
const SUBLINES: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum RasterError {
    #[error(transparent)]
    Font(#[from] FontError),
    #[error("cannot encode the picture as PNG: {0}")]
    Encode(#[from] image::ImageError),
}

/// PNG bytes of the scene at `scale` pixels to the unit.
pub fn render(scene: &Scene, scale: f64) -> Result<Vec<u8>, RasterError> {
    let image = paint(scene, scale)?;
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(image.as_raw(), image.width(), image.height(), image::ExtendedColorType::Rgb8)?;
    Ok(png)
}

/// The scene as pixels on white.
pub fn paint(scene: &Scene, scale: f64) -> Result<RgbImage, RasterError> {
    let width = (scene.width * scale).ceil().max(1.0) as u32;
    let height = (scene.height * scale).ceil().max(1.0) as u32;
    let mut canvas = Canvas { image: RgbImage::from_pixel(width, height, image::Rgb([255; 3])), scale };
    for shape in &scene.shapes {
        canvas.draw(shape)?;
    }
    Ok(canvas.image)
}

struct Canvas {
    image: RgbImage,
    scale: f64,
}

impl Canvas {
    fn draw(&mut self, shape: &Shape) -> Result<(), RasterError> {
        match shape {
            Shape::Polygon { points, color, opacity } => self.fill(&[self.scaled(points)], *color, *opacity),
            Shape::Line { points, stroke } => self.stroke(points, stroke),
            Shape::Dot { center, radius, fill, outline } => {
                if let Some((color, width)) = outline {
                    self.fill(&[self.scaled(&circle(*center, radius + width / 2.0))], *color, 1.0);
                    self.fill(&[self.scaled(&circle(*center, radius - width / 2.0))], *fill, 1.0);
                } else {
                    self.fill(&[self.scaled(&circle(*center, *radius))], *fill, 1.0);
                }
            }
            Shape::Text { at, text, size, bold, color, anchor } => self.text(*at, text, *size, *bold, *color, *anchor)?,
            Shape::Picture { at, size, image } => self.picture(*at, *size, image),
        }
        Ok(())
    }

    fn scaled(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        points.iter().map(|(x, y)| (x * self.scale, y * self.scale)).collect()
    }

    fn stroke(&mut self, points: &[(f64, f64)], stroke: &Stroke) {
        let half = stroke.width * self.scale / 2.0;
        for piece in dashes(points, stroke.dash) {
            let piece = self.scaled(&piece);
            let mut contours = Vec::with_capacity(2 * piece.len());
            for pair in piece.windows(2) {
                let (dx, dy) = (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1);
                let length = dx.hypot(dy);
                if length > 0.0 {
                    let (nx, ny) = (-dy / length * half, dx / length * half);
                    contours.push(vec![
                        (pair[0].0 + nx, pair[0].1 + ny),
                        (pair[0].0 - nx, pair[0].1 - ny),
                        (pair[1].0 - nx, pair[1].1 - ny),
                        (pair[1].0 + nx, pair[1].1 + ny),
                    ]);
                }
            }
            if half > 1.0 {
                for joint in piece.iter().skip(1).take(piece.len().saturating_sub(2)) {
                    contours.push(circle(*joint, half));
                }
            }
            self.fill(&contours, stroke.color, 1.0);
        }
    }

    /// Fills the union of `contours`, given in pixels and all turning the same way.
    fn fill(&mut self, contours: &[Vec<(f64, f64)>], color: Rgb, opacity: f64) {
        let mut edges: Vec<Edge> = contours.iter().flat_map(|c| edges_of(c)).collect();
        edges.sort_by(|a, b| a.top.total_cmp(&b.top));
        let Some(first) = edges.first() else { return };
        let bottom = edges.iter().map(|e| e.bottom).fold(f64::NEG_INFINITY, f64::max);
        let rows = (first.top.floor().max(0.0) as u32)..(bottom.ceil().clamp(0.0, f64::from(self.image.height())) as u32);
        let width = self.image.width() as usize;
        let mut coverage = vec![0.0f32; width + 1];
        let (mut active, mut next): (Vec<usize>, usize) = (Vec::new(), 0);
        let mut crossings: Vec<(f64, i32)> = Vec::new();
        for row in rows {
            let (mut left, mut right) = (usize::MAX, 0);
            while next < edges.len() && edges[next].top < f64::from(row + 1) {
                active.push(next);
                next += 1;
            }
            active.retain(|&i| edges[i].bottom > f64::from(row));
            for sub in 0..SUBLINES {
                let y = f64::from(row) + (sub as f64 + 0.5) / SUBLINES as f64;
                crossings.clear();
                crossings.extend(
                    active.iter().map(|&i| &edges[i]).filter(|e| e.top <= y && y < e.bottom).map(|e| (e.x + (y - e.top) * e.slope, e.turn)),
                );
                crossings.sort_by(|a, b| a.0.total_cmp(&b.0));
                let (mut winding, mut start) = (0, 0.0);
                for &(x, turn) in &crossings {
                    if winding == 0 {
                        start = x;
                    }
                    winding += turn;
                    if winding == 0 {
                        let (from, to) = (start.clamp(0.0, width as f64), x.clamp(0.0, width as f64));
                        if to > from {
                            cover(&mut coverage, from, to);
                            left = left.min(from as usize);
                            right = right.max((to.ceil() as usize).min(width));
                        }
                    }
                }
            }
            let from = left.min(right);
            for (i, share) in coverage[from..right].iter_mut().enumerate() {
                self.blend((from + i) as u32, row, color, f64::from(std::mem::take(share)).min(1.0) * opacity);
            }
            coverage[width] = 0.0;
        }
    }

    fn blend(&mut self, x: u32, y: u32, color: Rgb, share: f64) {
        if share <= 0.0 {
            return;
        }
        let pixel = self.image.get_pixel_mut(x, y);
        if share >= 1.0 {
            pixel.0 = color;
            return;
        }
        for (channel, c) in pixel.0.iter_mut().zip(color) {
            // Rounds, as no colour is negative.
            *channel = (f64::from(*channel) * (1.0 - share) + f64::from(c) * share + 0.5) as u8;
        }
    }

    fn text(&mut self, at: (f64, f64), text: &str, size: f64, bold: bool, color: Rgb, anchor: Anchor) -> Result<(), RasterError> {
        let width = fonts::text_width(text, size, bold);
        let x = at.0
            - match anchor {
                Anchor::Start => 0.0,
                Anchor::Middle => width / 2.0,
                Anchor::End => width,
            };
        let place = ((x * self.scale).round() as i32, (at.1 * self.scale).round() as i32);
        let mut touched = Vec::new();
        fonts::rasterize(text, size * self.scale, bold, place, |x, y, c| touched.push((x, y, c)))?;
        for (x, y, c) in touched {
            if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
                && x < self.image.width()
                && y < self.image.height()
            {
                self.blend(x, y, color, f64::from(c).min(1.0));
            }
        }
        Ok(())
    }

    fn picture(&mut self, at: (f64, f64), size: (f64, f64), source: &RgbImage) {
        let (x0, y0) = ((at.0 * self.scale).round() as i64, (at.1 * self.scale).round() as i64);
        let (w, h) = ((size.0 * self.scale).round() as i64, (size.1 * self.scale).round() as i64);
        // Where the picture has more pixels than the place, each pixel is the mean of what it covers.
        let shrinks = i64::from(source.width()) > w || i64::from(source.height()) > h;
        let shrunk =
            (shrinks && w > 0 && h > 0).then(|| image::imageops::resize(source, w as u32, h as u32, image::imageops::FilterType::Triangle));
        let source = shrunk.as_ref().unwrap_or(source);
        for y in 0..h {
            for x in 0..w {
                let (px, py) = (x0 + x, y0 + y);
                if px >= 0 && py >= 0 && px < i64::from(self.image.width()) && py < i64::from(self.image.height()) {
                    let sx = (x * i64::from(source.width()) / w) as u32;
                    let sy = (y * i64::from(source.height()) / h) as u32;
                    self.image.put_pixel(px as u32, py as u32, *source.get_pixel(sx, sy));
                }
            }
        }
    }
}

struct Edge {
    top: f64,
    bottom: f64,
    x: f64,
    slope: f64,
    turn: i32,
}

/// The edges of a closed contour, turned so that every contour winds the same way.
fn edges_of(contour: &[(f64, f64)]) -> Vec<Edge> {
    let pairs = || contour.iter().zip(contour.iter().cycle().skip(1));
    let area: f64 = pairs().map(|(a, b)| a.0 * b.1 - b.0 * a.1).sum();
    let sign = if area < 0.0 { -1 } else { 1 };
    pairs()
        .filter(|(a, b)| a.1 != b.1 && [a.0, a.1, b.0, b.1].iter().all(|v| v.is_finite()))
        .map(|(a, b)| {
            let (upper, lower, turn) = if a.1 < b.1 { (a, b, sign) } else { (b, a, -sign) };
            Edge { top: upper.1, bottom: lower.1, x: upper.0, slope: (lower.0 - upper.0) / (lower.1 - upper.1), turn }
        })
        .collect()
}

/// Adds the share of each pixel that lies in `from..to` on one subline.
fn cover(coverage: &mut [f32], from: f64, to: f64) {
    let weight = 1.0 / SUBLINES as f32;
    let (first, last) = (from as usize, to as usize);
    if first == last {
        coverage[first] += (to - from) as f32 * weight;
        return;
    }
    coverage[first] += (first as f64 + 1.0 - from) as f32 * weight;
    for c in &mut coverage[first + 1..last] {
        *c += weight;
    }
    coverage[last] += (to - last as f64) as f32 * weight;
}

fn circle((x, y): (f64, f64), radius: f64) -> Vec<(f64, f64)> {
    const CORNERS: usize = 24;
    static UNIT: OnceLock<[(f64, f64); CORNERS]> = OnceLock::new();
    let unit = UNIT.get_or_init(|| std::array::from_fn(|i| (i as f64 / CORNERS as f64 * std::f64::consts::TAU).sin_cos()));
    unit.iter().map(|(sin, cos)| (x + radius * cos, y + radius * sin)).collect()
}

/// Cuts a line into the strokes of its dash pattern.
fn dashes(points: &[(f64, f64)], pattern: &[f64]) -> Vec<Vec<(f64, f64)>> {
    if pattern.iter().sum::<f64>() <= 0.0 {
        return vec![points.to_vec()];
    }
    let (mut pieces, mut piece) = (Vec::new(), vec![points[0]]);
    let (mut index, mut left) = (0, pattern[0]);
    for pair in points.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let length = (b.0 - a.0).hypot(b.1 - a.1);
        let mut done = 0.0;
        while length - done > left {
            done += left;
            let at = (a.0 + (b.0 - a.0) * done / length, a.1 + (b.1 - a.1) * done / length);
            if index % 2 == 0 {
                piece.push(at);
                pieces.push(std::mem::take(&mut piece));
            } else {
                piece = vec![at];
            }
            index += 1;
            left = pattern[index % pattern.len()];
        }
        left -= length - done;
        if index % 2 == 0 {
            piece.push(b);
        }
    }
    pieces.push(piece);
    pieces.retain(|p| p.len() > 1);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rectangle_covers_its_area_exactly() {
        let mut scene = Scene::new(10.0, 10.0);
        scene.rect(2.25, 3.0, 4.5, 2.5, [0, 0, 0]);
        let image = paint(&scene, 1.0).unwrap();
        let dark: f64 = image.pixels().map(|p| 1.0 - f64::from(p.0[0]) / 255.0).sum();
        assert!((dark - 4.5 * 2.5).abs() < 0.05, "{dark}");
        assert_eq!(image.get_pixel(2, 3).0[0], 64, "three quarters of this pixel are covered");
    }

    #[test]
    fn a_line_that_crosses_itself_has_no_holes() {
        let mut scene = Scene::new(40.0, 40.0);
        scene.line(vec![(5.0, 20.0), (35.0, 20.0), (20.0, 5.0), (20.0, 35.0)], Stroke::solid([0, 0, 0], 6.0));
        let image = paint(&scene, 1.0).unwrap();
        assert_eq!(image.get_pixel(20, 20).0, [0, 0, 0]);
        assert_eq!(image.get_pixel(2, 2).0, [255, 255, 255]);
    }

    #[test]
    fn dashes_have_the_lengths_of_the_pattern() {
        let pieces = dashes(&[(0.0, 0.0), (6.0, 0.0), (20.0, 0.0)], &[5.0, 3.0]);
        let lengths: Vec<f64> = pieces.iter().map(|p| p[p.len() - 1].0 - p[0].0).collect();
        assert_eq!(lengths, [5.0, 5.0, 4.0]);
        assert_eq!(pieces[1][0].0, 8.0);
    }

    #[test]
    fn enlarged_pictures_keep_hard_edges() {
        let mut scene = Scene::new(8.0, 4.0);
        let picture = RgbImage::from_fn(2, 1, |x, _| image::Rgb([if x == 0 { 10 } else { 200 }; 3]));
        scene.picture((0.0, 0.0), (8.0, 4.0), std::sync::Arc::new(picture));
        let image = paint(&scene, 1.0).unwrap();
        assert_eq!((image.get_pixel(3, 0).0[0], image.get_pixel(4, 3).0[0]), (10, 200));
    }
}
