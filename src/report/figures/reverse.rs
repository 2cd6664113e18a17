//! The reverse process: the way of final samples from noise, and what the network took x_0 for on it.

use super::{Drawn, Figure, MARGIN, spread};
use crate::report::ReportError;
use crate::report::draw::fonts::fitted;
use crate::report::draw::panel::{GRID, INK, LABEL_SIZE, MUTED, TICK_SIZE};
use crate::report::draw::{Anchor, Rgb, Scene, Stroke};
use crate::report::input::{PointFrame, Reverse};
use crate::report::study::{Cell, RunView, Study};
use crate::report::text::Csv;
use image::RgbImage;
use std::path::PathBuf;
use std::sync::Arc;

pub const NAME: &str = "reverse";
/// Cells that fit a page.
const MOST: usize = 8;
const HEAD: f64 = 26.0;
const LABELS: f64 = 96.0;
const GAP: f64 = 4.0;
/// The least a column needs: the width of `t = 1000`.
const LEAST: f64 = 58.0;
/// Standardised coordinates shown of points.
pub const REACH: f32 = 3.2;
const POINTS: Rgb = [0x33, 0x33, 0x33];

/// Two rows of tiles for a cell: x_t and the predicted x_0.
struct Strip<'a> {
    label: &'a str,
    seed: i64,
    timesteps: Vec<u32>,
    rows: Result<[Tiles<'a>; 2], String>,
}

enum Tiles<'a> {
    Pictures(Vec<Arc<RgbImage>>),
    Points(Vec<&'a [[f32; 2]]>),
}

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let strips: Vec<Strip> = study.cells.iter().filter_map(strip).collect();
    let shown = &strips[..strips.len().min(MOST)];
    if shown.is_empty() {
        let reason = "no run has kept the way of its samples: finished runs of images and of points of the plane do, from this version on";
        return Ok(Drawn::skipped(NAME, reason));
    }
    let kept = shown.iter().map(|s| s.timesteps.len()).max().unwrap_or(1);
    let room = study.width - 2.0 * MARGIN - LABELS;
    // Fewer of them where all would be too small to be seen, or their names to be read.
    let columns = kept.min((room / LEAST) as usize).max(2);
    let tile = (room / columns as f64 - GAP).min(120.0);
    let aspect = |s: &Strip| match &s.rows {
        Ok([Tiles::Pictures(p), _]) => p.first().map_or(1.0, |p| f64::from(p.height()) / f64::from(p.width())),
        _ => 1.0,
    };
    let heights: Vec<f64> = shown.iter().map(|s| HEAD + 16.0 + 2.0 * (tile * aspect(s) + GAP) + 14.0).collect();
    let mut scene = Scene::new(study.width, 2.0 * MARGIN + heights.iter().sum::<f64>());
    let mut csv = Csv::new(&["cell", "seed", "column", "t"]);
    let mut top = MARGIN;
    for (strip, height) in shown.iter().zip(&heights) {
        strip.paint(&mut scene, top, (tile, tile * aspect(strip)), columns);
        for (c, t) in strip.timesteps.iter().enumerate() {
            csv.row(&[strip.label.to_string(), strip.seed.to_string(), (c + 1).to_string(), t.to_string()]);
        }
        top += height;
    }
    let broken: Vec<String> = shown.iter().filter_map(|s| s.rows.as_ref().err().map(|e| format!("{}: {e}", s.label))).collect();
    let broken = if broken.is_empty() { String::new() } else { format!(" Could not be read: {}.", broken.join("; ")) };
    let more = if strips.len() > shown.len() { format!(" The first {MOST} of {} cells.", strips.len()) } else { String::new() };
    let fewer = if columns < kept { format!(" {columns} of the {kept} timesteps that were kept.") } else { String::new() };
    let points = shown.iter().any(|s| matches!(s.rows, Ok([Tiles::Points(_), _])));
    let what = if points {
        "Samples on their way from noise, standardised coordinates from −3.2 to 3.2 on both axes (points beyond are left out)"
    } else {
        "The first sample of each cell on its way from noise, clipped to [−1, 1]"
    };
    Ok(Drawn::Figure(Box::new(Figure {
        name: NAME.into(),
        title: "The reverse process".into(),
        caption: format!(
            "{what}: x_t, and below it the x₀ that the network predicts from it; ancestral sampling with the averaged weights, the same noise in every cell, of \
             the first seed that has it, not selected. The last column, t = 0, is the sample.{fewer}{more}{broken}"
        ),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
}

/// The first seed that has kept it.
pub fn first<'a>(cell: &'a Cell<'a>) -> Option<(&'a RunView<'a>, &'a Reverse)> {
    cell.runs.iter().find_map(|r| Some((r, r.data.reverse.as_ref()?)))
}

fn strip<'a>(cell: &'a Cell<'a>) -> Option<Strip<'a>> {
    let (run, reverse) = first(cell)?;
    let (timesteps, rows) = match reverse {
        Reverse::Pictures { timesteps, samples, sheet } => (timesteps.clone(), cut(sheet, timesteps.len(), *samples)),
        Reverse::Points { frames, .. } => {
            let of = |part: fn(&PointFrame) -> &Vec<[f32; 2]>| Tiles::Points(frames.iter().map(|f| part(f).as_slice()).collect());
            (frames.iter().map(|f| f.t).collect(), Ok([of(|f| &f.x_t), of(|f| &f.x0)]))
        }
    };
    Some(Strip { label: &cell.label, seed: run.seed(), timesteps, rows })
}

/// The two rows of the first sample of a sheet, whose pictures lie a pixel apart.
fn cut<'a>(path: &PathBuf, columns: usize, samples: usize) -> Result<[Tiles<'a>; 2], String> {
    let sheet = image::open(path).map_err(|e| e.to_string())?.to_rgb8();
    let side = |length: u32, n: usize| (length + 1).is_multiple_of(n as u32).then(|| (length + 1) / n as u32 - 1).filter(|s| *s > 0);
    let (Some(width), Some(height)) = (side(sheet.width(), columns), side(sheet.height(), 2 * samples.max(1))) else {
        return Err(format!("the sheet is not one of {columns} columns"));
    };
    let row = |r: u32| {
        let one = |c: u32| Arc::new(image::imageops::crop_imm(&sheet, c * (width + 1), r * (height + 1), width, height).to_image());
        Tiles::Pictures((0..columns as u32).map(one).collect())
    };
    Ok([row(0), row(1)])
}

impl Strip<'_> {
    fn paint(&self, scene: &mut Scene, top: f64, (tile, height): (f64, f64), columns: usize) {
        let width = scene.width - 2.0 * MARGIN;
        scene.bold((MARGIN, top + 14.0), &fitted(self.label, LABEL_SIZE, true, width), LABEL_SIZE, INK, Anchor::Start);
        let x = |c: usize| MARGIN + LABELS + c as f64 * (tile + GAP);
        let rows = match &self.rows {
            Ok(rows) => rows,
            Err(_) => return scene.text((MARGIN, top + HEAD + 14.0), "cannot be read", TICK_SIZE, MUTED, Anchor::Start),
        };
        let columns = spread(self.timesteps.len(), columns);
        for (c, t) in columns.iter().map(|k| self.timesteps[*k]).enumerate() {
            scene.text((x(c) + tile / 2.0, top + HEAD + 8.0), &format!("t = {t}"), 12.5, MUTED, Anchor::Middle);
        }
        for (r, (tiles, label)) in rows.iter().zip(["xₜ", "predicted x₀"]).enumerate() {
            let y = top + HEAD + 16.0 + r as f64 * (height + GAP);
            scene.text((MARGIN + LABELS - 8.0, y + height / 2.0 + 5.0), label, TICK_SIZE, INK, Anchor::End);
            for (c, k) in columns.iter().enumerate() {
                match tiles {
                    Tiles::Pictures(pictures) => scene.picture((x(c), y), (tile, height), pictures[*k].clone()),
                    Tiles::Points(frames) => dots(scene, frames[*k], (x(c), y), tile, 0.9, POINTS),
                }
                frame(scene, (x(c), y), (tile, height));
            }
        }
    }
}

pub fn frame(scene: &mut Scene, (x, y): (f64, f64), (w, h): (f64, f64)) {
    scene.line(vec![(x, y), (x + w, y), (x + w, y + h), (x, y + h), (x, y)], Stroke::solid(GRID, 1.0));
}

/// Points of the plane in a square; those out of [`REACH`] are left out.
pub fn dots(scene: &mut Scene, points: &[[f32; 2]], (x, y): (f64, f64), size: f64, radius: f64, color: Rgb) {
    for p in points.iter().filter(|p| p[0].abs() < REACH && p[1].abs() < REACH) {
        let place = |v: f32| f64::from((v + REACH) / (2.0 * REACH)) * size;
        scene.dot((x + place(p[0]), y + size - place(p[1])), radius, color, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::draw::Shape;
    use crate::report::synthetic;

    #[test]
    fn the_first_sample_of_a_sheet_is_cut_into_its_columns() {
        let dir = tempfile::tempdir().unwrap();
        let sheet = dir.path().join("reverse-9.png");
        // Three columns and two samples of 4 × 4 pixels: the shade says column and row.
        let picture = RgbImage::from_fn(3 * 5 - 1, 4 * 5 - 1, |x, y| {
            if x % 5 == 4 || y % 5 == 4 { image::Rgb([255; 3]) } else { image::Rgb([(10 * (x / 5) + 60 * (y / 5)) as u8; 3]) }
        });
        picture.save(&sheet).unwrap();
        let mut data = synthetic::sweep();
        data.runs[4].reverse = Some(Reverse::Pictures { timesteps: vec![9, 1, 0], samples: 2, sheet: sheet.clone() });
        data.runs[7].reverse = Some(Reverse::Pictures { timesteps: vec![9, 5, 1, 0], samples: 2, sheet });
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        let shades: Vec<u8> = figure
            .scene
            .shapes
            .iter()
            .filter_map(|s| if let Shape::Picture { image, .. } = s { Some(image.get_pixel(3, 3).0[0]) } else { None })
            .collect();
        assert_eq!(shades, [0, 10, 20, 60, 70, 80]);
        assert!(figure.caption.contains("Could not be read: cosine · simple: the sheet is not one of 4 columns"), "{}", figure.caption);
        assert!(figure.csv.contains("linear · vlb,1,2,1\n"), "{}", figure.csv);
    }

    #[test]
    fn points_are_drawn_at_every_kept_timestep() {
        let mut data = synthetic::sweep();
        let frame = |t: u32| PointFrame { t, x_t: vec![[0.5, 0.5], [9.0, 0.0]], x0: vec![[0.1, 0.1]] };
        data.runs[0].reverse = Some(Reverse::Points { frames: vec![frame(100), frame(0)], field: Vec::new() });
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        let dots = figure.scene.shapes.iter().filter(|s| matches!(s, Shape::Dot { .. })).count();
        assert_eq!(dots, 4, "two frames of one point inside the frame each, twice");
    }
}
