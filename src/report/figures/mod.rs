//! The figures of a report, one file each.
//!
//! Start at [`draw_all`]. A figure is a function from a [`Study`] to a [`Figure`]: a scene, a caption that states what,
//! units, n and how bands came about, and the csv of every number drawn. A figure that cannot be drawn says why. It is laid out
//! for the study's width, from [`NARROWEST`] to [`WIDTH`]: panels that have no room beside each other stand below each other.
//! A new figure is one file and one line in [`draw_all`].

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
use super::draw::fonts::{text_width, wrapped};
use super::draw::panel::{INK, LABEL_SIZE, LINE, TICK_SIZE};
use super::draw::{Anchor, Rect, Scene};
use super::study::Study;
use rayon::prelude::*;

/// Width of a figure in CSS pixels where nothing else is asked for, and the height of those that do not grow with their content.
pub const WIDTH: f64 = 960.0;
pub const HEIGHT: f64 = 560.0;
/// The same figures for a column of a paper, and for a telephone: laid out anew, with text as large.
pub const NARROW: f64 = 480.0;
/// The least a figure can be laid out for.
pub const NARROWEST: f64 = 420.0;
/// The smallest text in a figure.
pub const LEAST_TEXT: f64 = 12.0;
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

impl Figure {
    /// The file of the same figure in the width of a narrow screen.
    pub fn narrow_file(&self) -> String {
        format!("{}{NARROW_STEM}.svg", self.name)
    }
}

/// A figure, or why there is none.
#[derive(Clone, Debug)]
pub enum Drawn {
    Figure(Box<Figure>),
    Skipped { name: String, reason: String },
}

impl Drawn {
    pub fn name(&self) -> &str {
        match self {
            Self::Figure(figure) => &figure.name,
            Self::Skipped { name, .. } => name,
        }
    }

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

/// Tables that stand beside those of the figures.
const MORE_TABLES: [&str; 4] = [excess::WHOLE, share::CUMULATIVE, estimator::DEVIATIONS, sample_quality::BY_STEP];

/// Whether a file is one that a report may have written for a figure, drawn now or not.
pub fn may_write(file: &str, drawn: &[Drawn]) -> bool {
    let Some((stem, ending)) = file.rsplit_once('.') else { return false };
    let figure = |name: &str| drawn.iter().any(|d| d.name() == name) || axis_sweep::may_be_called(name);
    match ending {
        "svg" => figure(stem.strip_suffix(NARROW_STEM).unwrap_or(stem)),
        "png" => figure(stem),
        "csv" => figure(stem) || MORE_TABLES.contains(&stem),
        _ => false,
    }
}

/// What the file of a narrow figure is called besides.
pub const NARROW_STEM: &str = "_narrow";

/// All figures in the order of the page, drawn in parallel, for the study's width.
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

/// Lines that can be named at their ends, and the share of the width that a name may take.
const AT_ENDS: usize = 8;
const NAME_ROOM: f64 = 0.2;

/// The room that names at the ends of lines take; `None` where they are too many or too long.
fn room_at_ends<'a>(names: impl Iterator<Item = &'a str>, width: f64) -> Option<f64> {
    let widths: Vec<f64> = names.map(|n| text_width(n, TICK_SIZE, false)).collect();
    let widest = widths.iter().copied().fold(0.0, f64::max);
    (2..=AT_ENDS).contains(&widths.len()).then_some(widest + 16.0).filter(|_| widest <= NAME_ROOM * width)
}

/// How many of `most` panels stand beside each other where each needs `least` to be read.
fn columns(width: f64, most: usize, least: f64) -> usize {
    (1..=most).rev().find(|n| (width - 2.0 * MARGIN) / *n as f64 >= least).unwrap_or(1)
}

/// The line of a name that stands above its row.
const LINE_OF_NAME: f64 = 21.0;

/// The least that a panel with a heading and labelled axes needs.
const PANEL: f64 = 300.0;

/// Panels beside each other, or below each other where they have no room for that.
#[derive(Clone, Copy)]
struct Grid {
    columns: usize,
    rows: usize,
    /// Of a row.
    height: f64,
    panels: usize,
}

impl Grid {
    /// `n` panels, at most so many beside each other, of that height or, where they had no room for that, lower than wide.
    fn of(study: &Study, n: usize, most: usize, least: f64, height: f64) -> Self {
        let most = n.clamp(1, most);
        let rows = n.div_ceil(columns(study.width, most, least));
        // As many in the last row as in the others, where that can be.
        let columns = n.div_ceil(rows);
        let own = if columns < most { height.min((0.62 * study.width / columns as f64).max(200.0)) } else { height };
        Self { columns, rows, height: own, panels: n }
    }

    fn height(self) -> f64 {
        self.rows as f64 * self.height
    }

    /// Row by row.
    fn places(self, place: Rect, gap: f64) -> Vec<Rect> {
        let h = self.height - if self.rows > 1 { 10.0 } else { 0.0 };
        let row = |r: usize| Rect { y: place.y + r as f64 * self.height, h, ..place }.columns(self.columns, gap);
        (0..self.rows).flat_map(row).take(self.panels).collect()
    }
}

/// `n` of `all` columns that are evenly spread, with the first and the last.
fn spread(all: usize, n: usize) -> Vec<usize> {
    if n >= all || n < 2 {
        return (0..all).collect();
    }
    (0..n).map(|i| (i * (all - 1) + (n - 1) / 2) / (n - 1)).collect()
}

/// The most lines that any of the headings takes in that width.
fn lines_of<'a>(headings: impl Iterator<Item = &'a str>, width: f64) -> usize {
    headings.map(|h| wrapped(h, LABEL_SIZE, true, width).len()).max().unwrap_or(1)
}

/// `place`, lowered for its heading to end where one of so many lines does: panels of a row stay level.
fn level(place: Rect, heading: &str, lines: usize) -> Rect {
    let lower = LINE * lines.saturating_sub(lines_of(std::iter::once(heading), place.w)) as f64;
    Rect { y: place.y + lower, h: place.h - lower, ..place }
}

/// A heading in as many lines as it takes; the height used.
fn heading(scene: &mut Scene, (x, y): (f64, f64), text: &str, width: f64) -> f64 {
    let lines = wrapped(text, LABEL_SIZE, true, width);
    for (i, line) in lines.iter().enumerate() {
        scene.bold((x, y + 15.0 + LINE * i as f64), line, LABEL_SIZE, INK, Anchor::Start);
    }
    LINE * (lines.len() as f64 - 1.0)
}

/// The ground of a figure with one panel: cells are named at the ends of their lines where the names fit, else above.
fn canvas(study: &Study, height: f64) -> (Scene, Rect, Names) {
    // As flat as it is drawn wide, but never too low to be read.
    let height = (height * study.width / WIDTH).max(340.0).min(height);
    match room_at_ends(study.cells.iter().map(|c| c.label.as_str()), study.width) {
        Some(room) => {
            let rest = Rect::new(MARGIN, MARGIN, study.width - 2.0 * MARGIN - room, height - 2.0 * MARGIN);
            (Scene::new(study.width, height), rest, Names { at_ends: true })
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
    let width = study.width - 2.0 * MARGIN;
    let used = if study.cells.len() > 1 { legend.height(width) + 6.0 } else { 0.0 };
    let mut scene = Scene::new(study.width, height + used);
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
        let mut study = Study::new(data);
        let drawn = draw_all(&study).unwrap();
        for width in [NARROWEST, NARROW, 640.0, 800.0] {
            study.width = width;
            for (d, wide) in draw_all(&study).unwrap().iter().zip(&drawn) {
                if let (Drawn::Figure(figure), Drawn::Figure(wide)) = (d, wide) {
                    texts_are_inside_and_apart(figure);
                    assert_eq!(figure.scene.width, width, "{}", figure.name);
                    assert!(figure.scene.height < 4.0 * width, "{} is {} high for {width}", figure.name, figure.scene.height);
                    assert!(
                        figure.csv == wide.csv && figure.more_csv == wide.more_csv,
                        "{}: numbers do not depend on the width",
                        figure.name
                    );
                }
            }
        }
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
