//! The figures of a report, one file each.
//!
//! Start at [`draw_all`]. A figure is a function from a [`Study`] to a [`Figure`]: a scene, a caption that states what,
//! units, n and how bands came about, and the csv of every number drawn. A figure that cannot be drawn says why. A new
//! figure is one file and one line in [`draw_all`].

mod axis_sweep;
mod bits_per_dim;
mod curves;
mod difference;
mod dot_rows;
mod estimator;
mod excess;
mod forward;
mod gradient_norm;
mod heat_map;
mod loss_curves;
mod quartiles;
mod rate_distortion;
mod reverse;
mod sample_quality;
mod samples;
mod schedules;
mod score_field;
mod share;
mod terms;

use super::ReportError;
use super::draw::fonts::text_width;
use super::draw::panel::TICK_SIZE;
use super::draw::{Rect, Scene};
use super::study::Study;
use rayon::prelude::*;

/// Width of every figure in CSS pixels, and the height of those that do not grow with their content.
pub const WIDTH: f64 = 960.0;
pub const HEIGHT: f64 = 560.0;
/// White space around a figure.
pub const MARGIN: f64 = 16.0;

#[derive(Clone, Debug)]
pub struct Figure {
    /// Stem of its files.
    pub name: String,
    pub title: String,
    /// What, units, n, and how the band is computed.
    pub caption: String,
    /// The numbers drawn: `<name>.csv`.
    pub csv: String,
    /// Further tables: (stem, text).
    pub more_csv: Vec<(String, String)>,
    pub scene: Scene,
}

/// A figure, or why there is none.
#[derive(Clone, Debug)]
pub enum Drawn {
    Figure(Box<Figure>),
    Skipped { name: String, reason: String },
}

impl Drawn {
    fn skipped(name: &str, reason: impl Into<String>) -> Self {
        Self::Skipped { name: name.into(), reason: reason.into() }
    }
}

type Draw = fn(&Study) -> Result<Drawn, ReportError>;

/// In the order of the page.
const FIGURES: &[Draw] = &[
    bits_per_dim::draw,
    terms::draw,
    difference::draw,
    share::draw,
    excess::draw,
    rate_distortion::draw,
    loss_curves::draw,
    quartiles::draw,
    heat_map::draw,
    estimator::draw,
    gradient_norm::draw,
    samples::draw,
    sample_quality::draw,
    reverse::draw,
    score_field::draw,
    schedules::draw,
    forward::draw,
];

/// All figures in the order of the page, drawn in parallel.
pub fn draw_all(study: &Study) -> Result<Vec<Drawn>, ReportError> {
    let mut drawn: Vec<Drawn> = FIGURES.par_iter().map(|draw| draw(study)).collect::<Result<_, _>>()?;
    // Sweeps of a number come right after the bars they explain.
    let sweeps: Vec<Drawn> = axis_sweep::keys(study).par_iter().map(|key| axis_sweep::draw(study, key)).collect();
    drawn.splice(1..1, sweeps);
    for d in &mut drawn {
        if let Drawn::Figure(figure) = d
            && figure.scene.thinned
        {
            figure.caption += THINNED;
        }
    }
    Ok(drawn)
}

const THINNED: &str = " Lines with more points than the figure has pixels are drawn by the first, lowest, highest and last point of each half pixel; the csv has all.";

/// Where the cells of a figure are named.
#[derive(Clone, Copy, Debug)]
struct Names {
    /// At the right ends of their lines; else in the legend.
    at_ends: bool,
}

impl Names {
    const LEGEND: Names = Names { at_ends: false };
}

/// Lines that can be named at their ends, and the room for a name.
const AT_ENDS: usize = 8;
const NAME_ROOM: f64 = 190.0;

/// The room that names at the ends of lines take; `None` where they are too many or too long.
fn room_at_ends<'a>(names: impl Iterator<Item = &'a str>) -> Option<f64> {
    let widths: Vec<f64> = names.map(|n| text_width(n, TICK_SIZE, false)).collect();
    let widest = widths.iter().copied().fold(0.0, f64::max);
    (2..=AT_ENDS).contains(&widths.len()).then_some(widest + 16.0).filter(|_| widest <= NAME_ROOM)
}

/// The ground of a figure with one panel: cells are named at the ends of their lines where the names fit, else above.
fn canvas(study: &Study, height: f64) -> (Scene, Rect, Names) {
    match room_at_ends(study.cells.iter().map(|c| c.label.as_str())) {
        Some(room) => {
            let rest = Rect::new(MARGIN, MARGIN, WIDTH - 2.0 * MARGIN - room, height - 2.0 * MARGIN);
            (Scene::new(WIDTH, height), rest, Names { at_ends: true })
        }
        None => {
            let (scene, rest) = with_legend(study, height);
            (scene, rest, Names::LEGEND)
        }
    }
}

/// An empty scene with the study's legend on top, and the place that is left below it.
fn with_legend(study: &Study, height: f64) -> (Scene, Rect) {
    let legend = &study.looks.legend;
    let width = WIDTH - 2.0 * MARGIN;
    let used = if study.cells.len() > 1 { legend.height(width) + 6.0 } else { 0.0 };
    let mut scene = Scene::new(WIDTH, height + used);
    if study.cells.len() > 1 {
        legend.draw(&mut scene, MARGIN, MARGIN, width);
    }
    let rest = Rect::new(MARGIN, MARGIN + used, width, height - 2.0 * MARGIN);
    (scene, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic;
    use crate::store::RunState;

    fn texts_are_inside_and_apart(figure: &Figure) {
        let boxes = figure.scene.text_boxes();
        for (text, b) in &boxes {
            assert!(
                b[0] >= -0.5 && b[1] >= -0.5 && b[2] <= figure.scene.width + 0.5 && b[3] <= figure.scene.height + 0.5,
                "{}: {text:?} leaves the figure at {b:?}",
                figure.name
            );
        }
        for (i, (s, a)) in boxes.iter().enumerate() {
            for (t, b) in &boxes[i + 1..] {
                let apart = a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
                assert!(apart, "{}: {s:?} lies over {t:?}", figure.name);
            }
        }
    }

    /// Figures of single examples or of none.
    const WITHOUT_N: [&str; 5] = ["schedules", "samples", "forward", "reverse", "score_field"];

    fn check(data: &crate::report::SweepData) -> Vec<Drawn> {
        let drawn = draw_all(&Study::new(data)).unwrap();
        for d in &drawn {
            if let Drawn::Figure(figure) = d {
                texts_are_inside_and_apart(figure);
                assert!(figure.csv.lines().count() > 1, "{} has an empty csv", figure.name);
                assert!(!figure.csv.contains("NaN") && !figure.csv.contains("inf"), "{}", figure.name);
                assert!(figure.caption.contains("n = ") || WITHOUT_N.contains(&figure.name.as_str()), "{}", figure.caption);
            }
        }
        drawn
    }

    #[test]
    fn no_text_of_any_figure_is_clipped_or_lies_over_another() {
        let drawn = check(&synthetic::sweep());
        let figures = drawn.iter().filter(|d| matches!(d, Drawn::Figure(_))).count();
        let skipped: Vec<&str> =
            drawn.iter().filter_map(|d| if let Drawn::Skipped { name, .. } = d { Some(name.as_str()) } else { None }).collect();
        assert_eq!(skipped, ["excess", "samples", "sample_quality", "reverse", "score_field"], "what the made-up runs have nothing of");
        assert_eq!(figures, FIGURES.len() - skipped.len());
        check(&synthetic::numeric_sweep("train.lr", &["1e-5", "1e-4", "1e-3", "1e-2"]));
    }

    #[test]
    fn broken_and_missing_runs_break_no_figure() {
        let mut data = synthetic::sweep();
        for r in &mut data.runs[..3] {
            r.state = RunState::Pending;
            r.losses = Default::default();
            r.history = Default::default();
            r.evaluations.clear();
            r.manifest = None;
        }
        data.runs[4].state = RunState::Diverged;
        for v in &mut data.runs[4].losses.mse_mean {
            *v = f64::NAN;
        }
        for v in &mut data.runs[7].losses.vb_mean {
            *v = f64::INFINITY;
        }
        data.forward = Err("no data here".into());
        check(&data);
        for r in &mut data.runs {
            r.state = RunState::Pending;
            r.losses = Default::default();
            r.history = Default::default();
            r.evaluations.clear();
        }
        let drawn = check(&data);
        assert!(drawn.iter().any(|d| matches!(d, Drawn::Skipped { name, .. } if name == "bits_per_dim")));
    }

    #[test]
    fn one_seed_says_that_there_is_no_band() {
        let mut data = synthetic::sweep();
        data.runs.retain(|r| r.run.seed == 1);
        for d in check(&data) {
            if let Drawn::Figure(f) = d
                && ["loss_curves", "terms", "difference", "quartiles", "gradient_norm"].contains(&f.name.as_str())
            {
                assert!(f.caption.contains("n = 1") && f.caption.contains("no band"), "{}: {}", f.name, f.caption);
            }
        }
    }
}
