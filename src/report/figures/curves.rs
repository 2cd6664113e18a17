//! A quantity against optimizer steps: seeds as thin lines, their mean, its band. Several figures are made of these.

use super::Names;
use crate::report::draw::axis::{Axis, Scale, scale_for};
use crate::report::draw::{Panel, Rect, Scene, Stroke};
use crate::report::stats::Interval;
use crate::report::study::{Cell, RunView, Study};
use crate::report::text::{Csv, plain};
use crate::report::theme::tint;
use crate::store::RunState;

pub const COLUMNS: [&str; 8] = ["quantity", "cell", "series", "step", "value", "low", "high", "n"];

pub struct Curve<'f> {
    /// In the csv.
    pub quantity: String,
    pub heading: String,
    pub x_label: &'static str,
    pub of: &'f dyn Fn(&RunView<'_>) -> Vec<(i64, f64)>,
    /// Ticks of both axes, at about.
    pub ticks: usize,
    /// Whether every seed has a line of its own, and the mean its band.
    pub seeds: bool,
    pub bands: bool,
}

impl Curve<'_> {
    /// Whether any run has a finite value.
    pub fn is_known(&self, study: &Study) -> bool {
        study.cells.iter().flat_map(|c| &c.runs).any(|r| (self.of)(r).iter().any(|p| p.1.is_finite()))
    }

    /// Draws it and writes its rows; the scale of the y axis, for the caption.
    pub fn draw(&self, study: &Study, scene: &mut Scene, place: Rect, names: &Names, csv: &mut Csv) -> Scale {
        let runs = || study.cells.iter().flat_map(|c| &c.runs);
        let points: Vec<(i64, f64)> = runs().flat_map(|r| (self.of)(r)).collect();
        let steady: Vec<f64> = runs().filter(|r| r.data.state != RunState::Diverged).flat_map(|r| (self.of)(r)).map(|p| p.1).collect();
        // What diverged would leave no height to all others.
        let heights = if steady.iter().any(|v| v.is_finite()) { steady } else { points.iter().map(|p| p.1).collect::<Vec<_>>() };
        let scale = scale_for(heights.iter().copied(), 6.0);
        let last = points.iter().map(|p| p.0).max().unwrap_or(1);
        let x = Axis::linear(0.0, last as f64, self.ticks);
        let y = Axis::around(heights, scale, 0.04, self.ticks + 2);
        let panel = Panel::new(scene, place, &self.heading, self.x_label, x, y);
        let means: Vec<(&Cell, Vec<(i64, Interval)>)> = study.cells.iter().map(|c| (c, c.curve(self.of))).collect();
        for (cell, mean) in means.iter().filter(|_| self.bands) {
            let band: Vec<_> = mean.iter().map(|(s, i)| (*s as f64, i.low(), i.high())).collect();
            panel.band(scene, &band, cell.look.color, study.band_opacity());
        }
        for (cell, _) in means.iter().filter(|(c, _)| self.seeds && c.runs.len() > 1) {
            for run in &cell.runs {
                let line: Vec<_> = (self.of)(run).iter().map(|&(s, v)| (s as f64, v)).collect();
                panel.line(scene, &line, Stroke::solid(tint(cell.look.color, 0.45), 0.8));
            }
        }
        let mut ends = Vec::new();
        for (cell, mean) in &means {
            let line: Vec<_> = mean.iter().map(|(s, i)| (*s as f64, i.mean)).collect();
            if let [(x, y)] = line[..] {
                panel.dot(scene, x, y, 4.0, cell.look.color);
            }
            panel.line(scene, &line, cell.look.line(2.2));
            ends.extend(line.last().map(|end| (cell.label.clone(), cell.look.color, end.1)));
        }
        if names.at_ends {
            panel.name_ends(scene, &ends);
        }
        for (cell, mean) in &means {
            self.rows(cell, mean, csv);
        }
        scale
    }

    fn rows(&self, cell: &Cell, mean: &[(i64, Interval)], csv: &mut Csv) {
        let mut row = |series: String, step: i64, numbers: [f64; 3], n: usize| {
            let [value, low, high] = numbers.map(plain);
            csv.row(&[self.quantity.clone(), cell.label.clone(), series, step.to_string(), value, low, high, n.to_string()]);
        };
        for run in &cell.runs {
            for (step, value) in (self.of)(run).into_iter().filter(|p| p.1.is_finite()) {
                row(format!("seed {}", run.seed()), step, [value, f64::NAN, f64::NAN], 1);
            }
        }
        for (step, i) in mean {
            row("mean".into(), *step, [i.mean, i.low(), i.high()], i.n);
        }
    }
}

/// What kind of axis, for a caption.
pub fn axis_words(scale: Scale) -> &'static str {
    if scale == Scale::Log { "logarithmic axis" } else { "linear axis that does not begin at 0" }
}

/// What the lines are, and how far those of unfinished runs go.
pub fn lines_words(study: &Study, seeds: bool, bands: bool) -> String {
    let runs = || study.cells.iter().flat_map(|c| &c.runs);
    let stopped = match runs().filter(|r| r.data.state != RunState::Done).count() {
        0 => "",
        _ if runs().all(|r| r.data.state != RunState::Diverged) => " Runs that did not finish are drawn as far as they have finite values.",
        _ => {
            " Runs that did not finish are drawn as far as they have finite values; those that diverged do not decide the axes and are drawn at the \
             frame's edge where they leave it."
        }
    };
    let most = study.cells.iter().map(|c| c.runs.len()).max().unwrap_or(0);
    let lines = match (most, seeds) {
        (0 | 1, _) => "Lines are single runs.",
        (_, true) => "Thin lines are seeds, thick lines their means.",
        (_, false) => "Lines are means over seeds; single seeds are in the csv.",
    };
    let words = match most {
        2.. if !bands => format!("n = {most} seeds at most, no bands: intervals are in the csv"),
        _ => study.band_words(),
    };
    format!("{lines} {words}.{stopped}")
}
