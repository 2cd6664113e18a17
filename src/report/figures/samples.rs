//! Sample grids of the cells side by side.

use super::reverse::{dots, frame};
use super::{Drawn, Figure, MARGIN, columns, heading, level, lines_of};
use crate::report::ReportError;
use crate::report::draw::fonts::fitted;
use crate::report::draw::panel::{LINE, MUTED, TICK_SIZE};
use crate::report::draw::{Anchor, Rect, Rgb, Scene};
use crate::report::input::Reverse;
use crate::report::study::Study;
use crate::report::text::{Csv, grouped, plain};
use image::RgbImage;
use std::sync::Arc;

const GAP: f64 = 16.0;
const HEAD: f64 = 44.0;
const BEHIND: Rgb = [0xBB, 0xBB, 0xBB];

struct Tile<'a> {
    cell: usize,
    label: String,
    seed: i64,
    step: i64,
    image: Result<Arc<RgbImage>, String>,
    /// Where the run has kept them: drawn one by one in place of the picture.
    points: Option<&'a [[f32; 2]]>,
}

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    // The first seed that has samples, at its last step.
    let tiles: Vec<Tile> = study
        .cells
        .iter()
        .enumerate()
        .filter_map(|(index, cell)| {
            let run = cell.runs.iter().find(|r| !r.data.samples.is_empty())?;
            let (step, path) = run.data.samples.iter().max_by_key(|(step, _)| *step)?;
            let image = image::open(path).map(|i| Arc::new(i.to_rgb8())).map_err(|e| e.to_string());
            let points = match &run.data.reverse {
                Some(Reverse::Points { frames, .. }) => frames.iter().find(|f| f.t == 0).map(|f| f.x_t.as_slice()),
                _ => None,
            };
            Some(Tile { cell: index, label: cell.label.clone(), seed: run.seed(), step: *step, image, points })
        })
        .collect();
    if tiles.is_empty() {
        return Ok(Drawn::skipped("samples", "no run has drawn samples"));
    }
    let most = match tiles.len() {
        n @ 1..=4 => n,
        5 | 6 | 9 => 3,
        _ => 4,
    };
    let columns = columns(study.width, most, 180.0);
    let width = ((study.width - 2.0 * MARGIN - GAP * (columns as f64 - 1.0)) / columns as f64).min(420.0);
    let aspect =
        tiles.iter().filter_map(|t| t.image.as_ref().ok()).map(|i| f64::from(i.height()) / f64::from(i.width())).fold(0.1, f64::max);
    let lines = lines_of(tiles.iter().map(|t| t.label.as_str()), width);
    let head = HEAD + LINE * (lines as f64 - 1.0);
    let height = width * aspect + head;
    let rows = tiles.len().div_ceil(columns);
    let mut scene = Scene::new(study.width, 2.0 * MARGIN + rows as f64 * height + (rows as f64 - 1.0) * GAP);
    let behind: Vec<[f32; 2]> = match &study.data.forward {
        Ok(f) if !f.shape.is_image() => f.examples.iter().filter_map(|p| Some([*p.first()?, *p.get(1)?])).collect(),
        _ => Vec::new(),
    };
    let mut csv = Csv::new(&["cell", "seed", "step", "x", "y"]);
    for (i, tile) in tiles.iter().enumerate() {
        let (x, y) = (MARGIN + (i % columns) as f64 * (width + GAP), MARGIN + (i / columns) as f64 * (height + GAP));
        let name = level(Rect::new(x, y, width, head), &tile.label, lines);
        heading(&mut scene, (x, name.y), &tile.label, width);
        let below = format!("seed {}, step {}", tile.seed, grouped(tile.step));
        scene.text((x, y + head - 10.0), &fitted(&below, TICK_SIZE, false, width), TICK_SIZE, MUTED, Anchor::Start);
        if let Some(points) = tile.points {
            dots(&mut scene, &behind, (x, y + head), width, 1.2, BEHIND);
            dots(&mut scene, points, (x, y + head), width, 1.5, study.cells[tile.cell].look.color);
            frame(&mut scene, (x, y + head), (width, width));
            continue;
        }
        match &tile.image {
            Ok(image) => {
                let h = width * f64::from(image.height()) / f64::from(image.width());
                scene.picture((x, y + head), (width, h), image.clone());
                frame(&mut scene, (x, y + head), (width, h));
            }
            Err(_) => scene.text((x, y + head + 20.0), "cannot be read", TICK_SIZE, MUTED, Anchor::Start),
        }
    }
    for tile in &tiles {
        let mut row = |x: String, y: String| csv.row(&[tile.label.clone(), tile.seed.to_string(), tile.step.to_string(), x, y]);
        match tile.points {
            Some(points) => points.iter().for_each(|p| row(plain(f64::from(p[0])), plain(f64::from(p[1])))),
            None => row(String::new(), String::new()),
        }
    }
    let broken: Vec<String> = tiles.iter().filter_map(|t| t.image.as_ref().err().map(|e| format!("{}: {e}", t.label))).collect();
    let broken = if broken.is_empty() { String::new() } else { format!(" Could not be read: {}.", broken.join("; ")) };
    let points = if tiles.iter().any(|t| t.points.is_some()) {
        " Points: up to 300 samples of each cell over held-out data (grey), standardised coordinates from −3.2 to 3.2 on both axes, those beyond left out."
    } else {
        ""
    };
    Ok(Drawn::Figure(Box::new(Figure {
        name: "samples".into(),
        title: "Samples".into(),
        caption: format!(
            "Samples of each cell at its last step, from the first seed that has any, not selected. Runs of one seed start from the same noise, so the \
             same place in two grids is comparable.{points}{broken}"
        ),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::draw::Shape;
    use crate::report::synthetic;

    #[test]
    fn the_last_step_of_the_first_seed_is_shown_and_a_torn_file_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let picture = |name: &str, grey: u8| {
            let path = dir.path().join(name);
            RgbImage::from_pixel(4, 4, image::Rgb([grey; 3])).save(&path).unwrap();
            path
        };
        let torn = dir.path().join("torn.png");
        std::fs::write(&torn, b"not a picture").unwrap();
        let mut data = synthetic::sweep();
        data.runs[0].samples = vec![(100, picture("early.png", 10)), (200, picture("late.png", 200))];
        data.runs[1].samples = vec![(300, picture("other.png", 30))];
        data.runs[3].samples = vec![(200, torn)];
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        let pictures: Vec<u8> = figure
            .scene
            .shapes
            .iter()
            .filter_map(|s| if let Shape::Picture { image, .. } = s { Some(image.get_pixel(0, 0).0[0]) } else { None })
            .collect();
        assert_eq!(pictures, [200]);
        assert!(figure.caption.contains("Could not be read: linear · vlb"));
        assert!(!figure.caption.contains(dir.path().to_str().unwrap()), "no path of this machine: {}", figure.caption);
    }
}
