//! Labelled tables of pictures: samples on their way, what was observed beside what was drawn.
//!
//! Start at [`Sheet`]. Absent on purpose: files; who wants a sheet on disk writes its bytes.

use super::draw::raster::{self, RasterError};
use super::draw::{Anchor, Rgb, Scene, fonts};
use super::figures::WIDTH;
use image::RgbImage;
use std::sync::Arc;

const MARGIN: f64 = 10.0;
const TEXT: f64 = 14.0;
const INK: Rgb = [0x22, 0x22, 0x22];
const GAP: f64 = 3.0;
/// Between groups of rows or columns.
const WIDE_GAP: f64 = 14.0;
/// No picture is drawn wider, or lower, than this.
const LARGEST: f64 = 150.0;
const LOWEST: f64 = 12.0;
/// What is hidden from the model.
const HIDDEN: image::Rgb<u8> = image::Rgb([0xD9, 0x8C, 0x4A]);

/// Rows of pictures under one heading.
#[derive(Clone, Debug, Default)]
pub struct Block {
    pub title: String,
    /// Labels over the columns, each with how many it stands over.
    pub head: Vec<(String, usize)>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug)]
pub struct Row {
    pub label: String,
    pub pictures: Vec<RgbImage>,
    /// Some room above, where another sample or image begins.
    pub apart: bool,
}

/// Blocks, one under the other, in one width.
#[derive(Clone, Debug, Default)]
pub struct Sheet {
    pub blocks: Vec<Block>,
}

impl Sheet {
    /// The bytes of a PNG.
    ///
    /// # Errors
    /// If the font or the picture cannot be had.
    pub fn png(&self) -> Result<Vec<u8>, RasterError> {
        raster::render(&self.scene(), 2.0)
    }

    fn scene(&self) -> Scene {
        let labels = self.blocks.iter().flat_map(|b| &b.rows).map(|r| fonts::text_width(&r.label, TEXT, false)).fold(0.0, f64::max);
        let left = MARGIN + if labels > 0.0 { labels + 10.0 } else { 0.0 };
        let side = self.blocks.iter().map(|b| b.side(WIDTH - left - MARGIN)).fold(LARGEST, f64::min);
        let right = self.blocks.iter().map(|b| left + b.width(side)).fold(0.0, f64::max);
        let titles = self.blocks.iter().map(|b| MARGIN + fonts::text_width(&b.title, TEXT, true)).fold(0.0, f64::max);
        let mut scene = Scene::new(right.max(titles) + MARGIN, 0.0);
        let mut y = MARGIN;
        for block in &self.blocks {
            y = block.draw(&mut scene, left, y, side) + WIDE_GAP;
        }
        scene.height = y - WIDE_GAP + MARGIN;
        scene
    }
}

impl Block {
    fn columns(&self) -> usize {
        self.rows.iter().map(|r| r.pictures.len()).max().unwrap_or(0)
    }

    /// Labels over several columns make groups, which stand apart.
    fn gap_before(&self, column: usize) -> f64 {
        let grouped = self.head.iter().any(|(_, n)| *n > 1);
        let starts = self.head.iter().scan(0, |at, (_, n)| Some(std::mem::replace(at, *at + n))).any(|start| start == column);
        match column {
            0 => 0.0,
            _ if grouped && starts => WIDE_GAP,
            _ => GAP,
        }
    }

    fn x(&self, column: usize, side: f64) -> f64 {
        (0..=column).map(|c| self.gap_before(c)).sum::<f64>() + column as f64 * side
    }

    fn width(&self, side: f64) -> f64 {
        self.columns().checked_sub(1).map_or(0.0, |last| self.x(last, side) + side)
    }

    /// The width of a picture where the whole has this much.
    fn side(&self, width: f64) -> f64 {
        ((width - self.width(0.0)) / self.columns().max(1) as f64).floor().max(8.0)
    }

    fn draw(&self, scene: &mut Scene, left: f64, mut y: f64, side: f64) -> f64 {
        if !self.title.is_empty() {
            y += TEXT;
            scene.bold((MARGIN, y), &self.title, TEXT, INK, Anchor::Start);
            y += 8.0;
        }
        if !self.head.is_empty() {
            y += TEXT;
            let mut column = 0;
            for (label, n) in &self.head {
                let middle = (self.x(column, side) + self.x(column + n - 1, side) + side) / 2.0;
                scene.text((left + middle, y), label, TEXT, INK, Anchor::Middle);
                column += n;
            }
            y += 6.0;
        }
        for (i, row) in self.rows.iter().enumerate() {
            if i > 0 {
                y += if row.apart { WIDE_GAP } else { GAP };
            }
            let aspect = row.pictures.first().map_or(1.0, |p| f64::from(p.height()) / f64::from(p.width()));
            let height = (side * aspect).max(LOWEST);
            scene.text((left - 10.0, y + height / 2.0 + 0.36 * TEXT), &row.label, TEXT, INK, Anchor::End);
            for (column, picture) in row.pictures.iter().enumerate() {
                scene.picture((left + self.x(column, side), y), (side, height), Arc::new(picture.clone()));
            }
            y += height;
        }
        y
    }
}

/// `picture`, an enlarged image of `width` × `height` pixels, with those that are hidden covered by a colour.
pub fn covered(picture: &RgbImage, (width, height): (usize, usize), hidden: impl Fn(usize, usize) -> bool) -> RgbImage {
    let place = |at: u32, of: u32, into: usize| (at as usize * into) / of as usize;
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        if hidden(place(x, picture.width(), width), place(y, picture.height(), height)) { HIDDEN } else { *picture.get_pixel(x, y) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(v: u8) -> RgbImage {
        RgbImage::from_pixel(8, 8, image::Rgb([v; 3]))
    }

    #[test]
    fn a_sheet_is_no_wider_than_a_figure_and_its_labels_do_not_touch() {
        let row = |n: usize, apart| Row { label: "predicted x₀".into(), pictures: vec![grey(9); n], apart };
        let head = |n: usize| (0..n).map(|i| (format!("t = {}", 100 * i), 1)).collect::<Vec<_>>();
        let block = Block { title: "Reverse".into(), head: head(11), rows: vec![row(11, false), row(11, true)] };
        let grouped = Block { title: String::new(), head: vec![("truth".into(), 1), ("samples".into(), 6)], rows: vec![row(7, false)] };
        let scene = Sheet { blocks: vec![block, grouped] }.scene();
        assert!(scene.width <= WIDTH && scene.width > 0.8 * WIDTH, "{}", scene.width);
        let boxes = scene.text_boxes();
        for (i, (a, [l, t, r, b])) in boxes.iter().enumerate() {
            assert!(*l >= 0.0 && *t >= 0.0 && *r <= scene.width && *b <= scene.height, "{a} lies outside");
            for (c, [l2, t2, r2, b2]) in &boxes[i + 1..] {
                assert!(r < l2 || r2 < l || b < t2 || b2 < t, "{a} touches {c}");
            }
        }
    }

    #[test]
    fn hidden_pixels_are_covered_and_no_others() {
        let picture = covered(&grey(7), (2, 4), |x, y| x == 1 && y == 3);
        assert_eq!((*picture.get_pixel(7, 7), *picture.get_pixel(4, 6)), (HIDDEN, HIDDEN));
        assert_eq!((picture.get_pixel(3, 7).0, picture.get_pixel(7, 5).0), ([7; 3], [7; 3]));
    }
}
