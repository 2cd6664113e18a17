//! The learned score of points of the plane: where the network pulls x_t at three timesteps.

use super::reverse::{REACH, dots, first, frame};
use super::{Drawn, Figure, MARGIN, NARROW};
use crate::report::ReportError;
use crate::report::draw::fonts::fitted;
use crate::report::draw::panel::{INK, LABEL_SIZE, MUTED};
use crate::report::draw::{Anchor, Rgb, Scene, Stroke};
use crate::report::input::{Arrow, PointFrame, Reverse};
use crate::report::study::Study;
use crate::report::text::{Csv, plain};

pub const NAME: &str = "score_field";
const MOST: usize = 6;
const HEAD: f64 = 46.0;
const GAP: f64 = 14.0;
/// Between cells.
const APART: f64 = 24.0;
const BEHIND: Rgb = [0xBB, 0xBB, 0xBB];
/// The least from one arrow to the next.
const CLOSEST: f64 = 13.0;

struct Field<'a> {
    label: &'a str,
    seed: i64,
    color: Rgb,
    frames: &'a [PointFrame],
    field: &'a [Arrow],
}

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let fields: Vec<Field> = study
        .cells
        .iter()
        .filter_map(|cell| match first(cell)? {
            (run, Reverse::Points { frames, field }) if !field.is_empty() => {
                Some(Field { label: &cell.label, seed: run.seed(), color: cell.look.color, frames, field })
            }
            _ => None,
        })
        .collect();
    let shown = &fields[..fields.len().min(MOST)];
    if shown.is_empty() {
        return Ok(Drawn::skipped(NAME, "no run has kept a score: finished runs of points of the plane do, from this version on"));
    }
    let columns = shown.iter().map(|f| f.timesteps().len()).max().unwrap_or(1);
    // Two cells beside each other where there are many: the figure should fit a page.
    let abreast = if shown.len() > 2 && study.width >= 2.0 * NARROW { 2 } else { 1 };
    let width = (study.width - 2.0 * MARGIN - (abreast as f64 - 1.0) * APART) / abreast as f64;
    let size = ((width + GAP) / columns as f64 - GAP).min(300.0);
    let rows = shown.len().div_ceil(abreast);
    let mut scene = Scene::new(study.width, 2.0 * MARGIN + rows as f64 * (HEAD + size + APART) - APART);
    let mut csv = Csv::new(&["cell", "seed", "t", "x", "y", "score_x", "score_y"]);
    for (i, field) in shown.iter().enumerate() {
        let (left, top) = (MARGIN + (i % abreast) as f64 * (width + APART), MARGIN + (i / abreast) as f64 * (HEAD + size + APART));
        let label = fitted(field.label, LABEL_SIZE, true, width);
        scene.bold((left, top + 14.0), &label, LABEL_SIZE, INK, Anchor::Start);
        for (c, t) in field.timesteps().into_iter().enumerate() {
            let (x, y) = (left + c as f64 * (size + GAP), top + HEAD);
            scene.text((x + size / 2.0, y - 8.0), &format!("t = {t}"), 13.0, MUTED, Anchor::Middle);
            if let Some(f) = field.frames.iter().find(|f| f.t == t) {
                dots(&mut scene, &f.x_t, (x, y), size, (size / 200.0).clamp(0.8, 1.3), BEHIND);
            }
            arrows(&mut scene, field.field.iter().filter(|a| a.t == t), (x, y), size, field.color);
            frame(&mut scene, (x, y), (size, size));
        }
        for a in field.field {
            let numbers = [a.at[0], a.at[1], a.score[0], a.score[1]].map(|v| plain(f64::from(v)));
            csv.row(&[vec![field.label.to_string(), field.seed.to_string(), a.t.to_string()], numbers.to_vec()].concat());
        }
    }
    let more = if fields.len() > shown.len() { format!(" The first {MOST} of {} cells.", fields.len()) } else { String::new() };
    Ok(Drawn::Figure(Box::new(Figure {
        name: NAME.into(),
        title: "The learned score".into(),
        caption: format!(
            "∇ log p(x_t) as the averaged weights have it, (√ᾱ_t x̂₀ − x_t)/(1 − ᾱ_t) on a grid, over samples at the same t (grey); standardised coordinates \
             from −3.2 to 3.2. Arrows point along the score; their length is that of the score by rank within a panel, so that weak ones can be seen: lengths \
             are in the csv, which also has the places that small panels leave out. Of the first seed that has it.{more}"
        ),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
}

impl Field<'_> {
    /// Noise first.
    fn timesteps(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.field.iter().map(|a| a.t).collect();
        all.dedup();
        all
    }
}

fn arrows<'a>(scene: &mut Scene, field: impl Iterator<Item = &'a Arrow>, (x, y): (f64, f64), size: f64, color: Rgb) {
    let length = |a: &Arrow| f64::from(a.score[0]).hypot(f64::from(a.score[1]));
    let all: Vec<&Arrow> = field.collect();
    let mut all = thinned(&all, size);
    all.retain(|a| length(a).is_finite() && length(a) > 0.0);
    all.sort_by(|a, b| length(a).total_cmp(&length(b)));
    let place = |v: f32| f64::from((v + REACH) / (2.0 * REACH)) * size;
    // The grid is square: the root of its count is the number of places on a side.
    let step = size * 0.75 / (all.len() as f64).sqrt().max(1.0);
    for (rank, a) in all.iter().enumerate() {
        let reach = step * (0.35 + 0.65 * rank as f64 / all.len() as f64);
        let (ux, uy) = (f64::from(a.score[0]) / length(a), -f64::from(a.score[1]) / length(a));
        let tail = (x + place(a.at[0]) - ux * reach / 2.0, y + size - place(a.at[1]) - uy * reach / 2.0);
        let tip = (tail.0 + ux * reach, tail.1 + uy * reach);
        scene.line(vec![tail, tip], Stroke::solid(color, (size / 200.0).clamp(0.8, 1.1)));
        let head = (0.4 * step).min(3.6);
        let side = |turn: f64| (tip.0 - head * (ux + turn * 0.55 * uy), tip.1 - head * (uy - turn * 0.55 * ux));
        scene.polygon(vec![tip, side(1.0), side(-1.0)], color, 1.0);
    }
}

/// Of the square grid every second line, or every third, where arrows would stand too close to be seen.
fn thinned<'a>(all: &[&'a Arrow], size: f64) -> Vec<&'a Arrow> {
    let lines = |of: fn(&Arrow) -> f32| {
        let mut places: Vec<f32> = all.iter().map(|a| of(a)).collect();
        places.sort_by(f32::total_cmp);
        places.dedup();
        places
    };
    let (xs, ys) = (lines(|a| a.at[0]), lines(|a| a.at[1]));
    let every = (CLOSEST * xs.len() as f64 / size).ceil().max(1.0) as usize;
    // The lines that are kept lie evenly around the middle.
    let kept = |places: &[f32], x: f32| places.iter().position(|p| *p == x).is_some_and(|i| i % every == places.len() % every / 2);
    all.iter().filter(|a| kept(&xs, a.at[0]) && kept(&ys, a.at[1])).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::draw::Shape;
    use crate::report::synthetic;

    #[test]
    fn arrows_point_along_the_score_with_y_upwards() {
        let mut data = synthetic::sweep();
        let arrow = |x: f32, y: f32| Arrow { t: 50, at: [0.0, 0.0], score: [x, y] };
        data.runs[0].reverse = Some(Reverse::Points { frames: Vec::new(), field: vec![arrow(0.0, 2.0)] });
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        let Some(Shape::Line { points, .. }) = figure.scene.shapes.iter().find(|s| matches!(s, Shape::Line { .. })) else { panic!() };
        assert!(points[1].1 < points[0].1 - 5.0 && (points[1].0 - points[0].0).abs() < 1e-9, "{points:?}");
        assert!(figure.csv.contains("linear · simple,0,50,0,0,0,2\n"), "{}", figure.csv);
    }

    #[test]
    fn arrows_of_a_small_panel_stand_apart_and_around_the_middle() {
        let grid: Vec<Arrow> = (0..225).map(|i| Arrow { t: 1, at: [(i % 15) as f32, (i / 15) as f32], score: [1.0, 0.0] }).collect();
        let all: Vec<&Arrow> = grid.iter().collect();
        assert_eq!(thinned(&all, 300.0).len(), 225);
        let few = thinned(&all, 140.0);
        assert_eq!((few.len(), few[0].at, few[few.len() - 1].at), (64, [0.0, 0.0], [14.0, 14.0]));
    }
}
