//! A sweep ordered for analysis: cells of seeds, the one metric they are judged by, their curves.
//!
//! Start at [`Study::new`], which goes through every loss table once; figures and tables read only what it made.

use super::history::Window;
use super::input::{RunData, SweepData};
use super::stats::Interval;
use super::theme::{Look, Looks, number};
use crate::data::Encoding;
use crate::diffusion::Kernel;
use crate::record::{CASE, Evaluation, Reference, Split, Weights};
use crate::store::{LossTable, RunState};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// The evaluation that cells are judged by: the first of test/ema, test/raw, val/ema, val/raw that a finished run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    pub split: Split,
    pub weights: Weights,
}

impl Metric {
    const PREFERRED: [Metric; 4] = [
        Metric { split: Split::Test, weights: Weights::Ema },
        Metric { split: Split::Test, weights: Weights::Raw },
        Metric { split: Split::Val, weights: Weights::Ema },
        Metric { split: Split::Val, weights: Weights::Raw },
    ];

    fn last_of<'a>(&self, evaluations: &'a [Evaluation]) -> Option<&'a Evaluation> {
        evaluations.iter().filter(|e| e.split == self.split && e.weights == self.weights).max_by_key(|e| e.step)
    }

    /// `test split, EMA weights`.
    pub fn words(&self) -> String {
        let weights = match self.weights {
            Weights::Ema => "EMA weights",
            Weights::Raw => "raw weights",
        };
        format!("{} split, {weights}", self.split)
    }
}

/// One timestep of a final evaluation; t = 0 is the prior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FinalTerm {
    pub t: u32,
    pub t_weight: f64,
    /// Draws that were evaluated.
    pub n: u32,
    pub vb: f64,
    /// Variance of the bound's term over draws; NaN below two.
    pub vb_variance: f64,
    pub mse: f64,
    /// NaN for the prior.
    pub x0_mse: f64,
    /// The least values on the same draws; NaN where they are not known.
    pub vb_floor: f64,
    pub mse_floor: f64,
}

/// A run with its curves.
#[derive(Clone, Debug)]
pub struct RunView<'a> {
    pub data: &'a RunData,
    /// The evaluation by [`Study::metric`]; only of finished runs, and only if its bound is finite.
    pub result: Option<&'a Evaluation>,
    /// That evaluation by timestep, t ascending.
    pub terms: Vec<FinalTerm>,
    /// Training eps-MSE of each window: (step, mean over its samples).
    pub train: Vec<(i64, f64)>,
    /// Bits/dim on the validation images: (step, bound).
    pub val: Vec<(i64, f64)>,
    /// Mean norm of the gradient over each window's steps.
    pub grad_norm: Vec<(i64, f64)>,
}

impl RunView<'_> {
    pub fn seed(&self) -> i64 {
        self.data.run.seed
    }
}

/// One timestep of a cell: intervals over its seeds.
#[derive(Clone, Copy, Debug)]
pub struct CellTerm {
    pub t: u32,
    pub t_weight: f64,
    pub vb: Interval,
    pub mse: Interval,
    /// Means over seeds of the least values; NaN where they are not known.
    pub vb_floor: f64,
    pub mse_floor: f64,
}

/// Runs that differ only in their seed.
#[derive(Clone, Debug)]
pub struct Cell<'a> {
    /// Short name for figures: the values that tell it from the other cells.
    pub label: String,
    /// Axis keys and values that differ somewhere in the sweep.
    pub axes: Vec<(String, String)>,
    pub runs: Vec<RunView<'a>>,
    pub look: Look,
    /// The final evaluation by timestep, t ascending; empty without a result.
    pub terms: Vec<CellTerm>,
}

impl Cell<'_> {
    pub fn timesteps(&self) -> u32 {
        self.runs[0].data.timesteps
    }

    /// A number of each finished run, by seed.
    pub fn by_seed(&self, number: impl Fn(&Evaluation) -> f64) -> BTreeMap<i64, f64> {
        self.runs.iter().filter_map(|r| Some((r.seed(), number(r.result?)))).filter(|(_, v)| v.is_finite()).collect()
    }

    /// The interval over seeds of a number of the final evaluation.
    pub fn interval(&self, number: impl Fn(&Evaluation) -> f64) -> Interval {
        Interval::of(self.by_seed(number).into_values())
    }

    /// Runs with a final evaluation.
    pub fn finished(&self) -> impl Iterator<Item = &RunView<'_>> {
        self.runs.iter().filter(|r| r.result.is_some())
    }

    /// The interval over seeds at each step of a curve of (step, value).
    pub fn curve(&self, of: impl Fn(&RunView<'_>) -> Vec<(i64, f64)>) -> Vec<(i64, Interval)> {
        let mut by_step: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        for (step, value) in self.runs.iter().flat_map(of) {
            by_step.entry(step).or_default().push(value);
        }
        by_step.into_iter().map(|(step, values)| (step, Interval::of(values))).filter(|(_, i)| i.n > 0).collect()
    }

    /// Runs in a state, such as those that diverged.
    pub fn count(&self, state: RunState) -> usize {
        self.runs.iter().filter(|r| r.data.state == state).count()
    }
}

/// A sweep ready for figures.
#[derive(Clone, Debug)]
pub struct Study<'a> {
    pub data: &'a SweepData,
    pub cells: Vec<Cell<'a>>,
    pub metric: Option<Metric>,
    pub looks: Looks,
    /// What figures are laid out for, in CSS pixels.
    pub width: f64,
}

impl<'a> Study<'a> {
    pub fn new(data: &'a SweepData) -> Self {
        let metric = Metric::PREFERRED
            .into_iter()
            .find(|m| data.runs.iter().any(|r| r.state == RunState::Done && m.last_of(&r.evaluations).is_some()));
        let views: Vec<RunView> = data.runs.par_iter().map(|run| view(run, metric)).collect();
        let keys = varying_keys(data);
        let mut groups: Vec<Group> = Vec::new();
        let mut index: BTreeMap<(String, Vec<(String, String)>), usize> = BTreeMap::new();
        for run in views {
            let key = (run.data.run.cell.clone(), run.data.run.axes.clone());
            let place = *index.entry(key).or_insert_with(|| {
                let axes = run.data.run.axes.iter().filter(|(k, _)| keys.contains(k)).cloned().collect();
                groups.push((axes, Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push(run);
        }
        let named: Vec<(Vec<(String, String)>, String)> = {
            let labels = labels(data, &groups);
            groups.iter().map(|(axes, _)| axes.clone()).zip(labels).collect()
        };
        let looks = Looks::of(&named);
        let cells = groups
            .into_iter()
            .zip(named)
            .zip(&looks.cells)
            .map(|(((axes, runs), (_, label)), look)| Cell { label, axes, terms: cell_terms(&runs), runs, look: *look })
            .collect();
        Self { data, cells, metric, looks, width: super::figures::WIDTH }
    }

    /// Cells with at least one result, in the order of the file, with their index.
    pub fn with_results(&self) -> impl Iterator<Item = (usize, &Cell<'a>)> {
        self.cells.iter().enumerate().filter(|(_, c)| c.runs.iter().any(|r| r.result.is_some()))
    }

    /// Published values of a metric for a cell, with where they are printed.
    pub fn published_for(&self, cell: &Cell, metric: &str) -> Vec<(&'a Reference, f64)> {
        let name = &cell.runs[0].data.run.cell;
        self.published(metric).filter(|(reference, _)| reference.cells.contains(name)).collect()
    }

    /// Published values of a metric that are of no cell in particular.
    pub fn published_for_all(&self, metric: &str) -> Vec<(&'a Reference, f64)> {
        self.published(metric).filter(|(reference, _)| reference.cells.is_empty()).collect()
    }

    fn published(&self, metric: &str) -> impl Iterator<Item = (&'a Reference, f64)> {
        self.data.record.references.iter().filter_map(move |reference| Some((reference, *reference.values.get(metric)?)))
    }

    /// What the report is called.
    pub fn title(&self) -> &'a str {
        let record = &self.data.record;
        if record.title.trim().is_empty() { &record.name } else { &record.title }
    }

    /// Whether all cells have the same number of timesteps.
    pub fn common_timesteps(&self) -> Option<u32> {
        let first = self.cells.first()?.timesteps();
        self.cells.iter().all(|c| c.timesteps() == first).then_some(first)
    }

    /// Whether any of the data is continuous, so that bits are differential.
    pub fn differential(&self) -> bool {
        self.data.runs.iter().any(|r| r.encoding == Some(Encoding::Continuous))
    }

    /// The unit of the bound.
    pub fn unit(&self) -> &'static str {
        if self.differential() { "bits/dim, differential" } else { "bits/dim" }
    }

    /// What `mse` measures: the noise or, under the Binomial kernel, the bits of x_0. Its name, and in words.
    pub fn error_measure(&self) -> (&'static str, &'static str) {
        let bits = |r: &RunData| r.kernel == Kernel::Binomial;
        match (self.data.runs.iter().any(bits), self.data.runs.iter().all(bits)) {
            (false, _) => ("ε-MSE", "mean squared error of the predicted noise"),
            (true, true) => ("Brier score of x₀", "mean over bits of (x₀ − p̂)², with bits as 0 and 1 (Brier score)"),
            (true, false) => (
                "ε-MSE, of bits Brier score",
                "mean squared error of the predicted noise or, of bits, of their predicted probability (Brier score)",
            ),
        }
    }

    pub fn error_name(&self) -> &'static str {
        self.error_measure().0
    }

    /// How strong the bands of a panel are, so that those of many cells can lie over each other.
    pub fn band_opacity(&self) -> f64 {
        (0.6 / self.cells.len().max(1) as f64).clamp(0.1, 0.2)
    }

    /// `n = 3 seeds`, or the range where cells differ.
    pub fn seeds_words(&self) -> String {
        let counts: Vec<usize> = self.with_results().map(|(_, c)| c.finished().count()).collect();
        match (counts.iter().min(), counts.iter().max()) {
            (Some(a), Some(b)) if a == b => format!("n = {} per cell", super::text::count(*a, "seed")),
            (Some(a), Some(b)) => format!("n = {a} to {b} seeds per cell"),
            _ => "no finished run".into(),
        }
    }

    /// How the bands of a figure came about, in words.
    pub fn band_words(&self) -> String {
        let most = self.cells.iter().map(|c| c.runs.len()).max().unwrap_or(0);
        let least = self.cells.iter().map(|c| c.runs.len()).min().unwrap_or(0);
        match (least, most) {
            (_, 0 | 1) => "n = 1 seed per cell: no band".into(),
            (1, _) => format!("Bands are 95 % t-intervals over up to {most} seeds; cells with n = 1 have no band"),
            (a, b) if a == b => format!("Bands are 95 % t-intervals over n = {a} seeds"),
            (a, b) => format!("Bands are 95 % t-intervals over n = {a} to {b} seeds"),
        }
    }
}

/// The axes of a cell that differ somewhere, and its runs.
type Group<'a> = (Vec<(String, String)>, Vec<RunView<'a>>);

fn view(run: &RunData, metric: Option<Metric>) -> RunView<'_> {
    let last = metric.and_then(|m| m.last_of(&run.evaluations));
    let result = last.filter(|e| run.state == RunState::Done && e.bits_per_dim.is_finite());
    let terms = match (metric, result) {
        (Some(metric), Some(e)) => final_terms(&run.losses, metric, e.step),
        _ => Vec::new(),
    };
    let best_val =
        [Weights::Ema, Weights::Raw].into_iter().find(|w| run.evaluations.iter().any(|e| e.split == Split::Val && e.weights == *w));
    let mut val: Vec<(i64, f64)> =
        run.evaluations.iter().filter(|e| e.split == Split::Val && Some(e.weights) == best_val).map(|e| (e.step, e.bits_per_dim)).collect();
    val.sort_by_key(|(step, _)| *step);
    let curve = |of: fn(&Window) -> f64| run.history.windows.iter().map(|w| (w.step, of(w))).collect();
    RunView { data: run, result, terms, train: curve(|w| w.all.mse), val, grad_norm: curve(|w| w.grad_norm) }
}

fn final_terms(losses: &LossTable, metric: Metric, step: i64) -> Vec<FinalTerm> {
    let mut terms: Vec<FinalTerm> = (0..losses.t.len())
        .filter(|&i| losses.step[i] == step && losses.split[i] == metric.split && losses.weights[i] == metric.weights)
        .map(|i| FinalTerm {
            t: losses.t[i],
            t_weight: losses.t_weight[i],
            n: losses.n[i],
            vb: losses.vb_mean[i],
            vb_variance: if losses.n[i] > 1 { losses.vb_m2[i] / f64::from(losses.n[i] - 1) } else { f64::NAN },
            mse: losses.mse_mean[i],
            x0_mse: losses.x0_mse_mean[i],
            vb_floor: losses.vb_floor[i],
            mse_floor: losses.mse_floor[i],
        })
        .collect();
    terms.sort_by_key(|term| term.t);
    terms
}

fn cell_terms(runs: &[RunView]) -> Vec<CellTerm> {
    let mut by_t: BTreeMap<u32, Vec<FinalTerm>> = BTreeMap::new();
    for term in runs.iter().flat_map(|r| &r.terms) {
        by_t.entry(term.t).or_default().push(*term);
    }
    by_t.into_iter()
        .map(|(t, terms)| CellTerm {
            t,
            t_weight: terms[0].t_weight,
            vb: Interval::of(terms.iter().map(|x| x.vb)),
            mse: Interval::of(terms.iter().map(|x| x.mse)),
            vb_floor: Interval::of(terms.iter().map(|x| x.vb_floor)).mean,
            mse_floor: Interval::of(terms.iter().map(|x| x.mse_floor)).mean,
        })
        .collect()
}

/// Axis keys with more than one value among the runs, in the order of the record.
fn varying_keys(data: &SweepData) -> Vec<String> {
    let mut values: Vec<(String, Vec<Option<&str>>)> = Vec::new();
    for run in &data.runs {
        for (key, _) in &run.run.axes {
            if !values.iter().any(|(k, _)| k == key) {
                values.push((key.clone(), Vec::new()));
            }
        }
    }
    for (key, seen) in &mut values {
        for run in &data.runs {
            let value = run.run.axes.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
            if !seen.contains(&value) {
                seen.push(value);
            }
        }
    }
    values.into_iter().filter(|(_, seen)| seen.len() > 1).map(|(key, _)| key).collect()
}

fn labels(data: &SweepData, groups: &[Group]) -> Vec<String> {
    let short: Vec<String> = groups
        .iter()
        .map(|(axes, runs)| {
            if axes.is_empty() {
                let cell = &runs[0].data.run.cell;
                return if cell.is_empty() { data.record.name.clone() } else { cell.clone() };
            }
            axes.iter().map(|(key, value)| value_words(key, value)).collect::<Vec<_>>().join(" · ")
        })
        .collect();
    // Where the short name is not enough to tell two cells apart, both get the full one.
    (0..short.len())
        .map(|i| if short.iter().filter(|s| **s == short[i]).count() > 1 { groups[i].1[0].data.run.cell.clone() } else { short[i].clone() })
        .collect()
}

/// A value as it stands in a name: alone where it is a word, with its key where it is a number or a truth value.
pub fn value_words(key: &str, value: &str) -> String {
    let word = key == CASE || (number(value).is_none() && !matches!(value, "true" | "false"));
    if word { shown(value) } else { format!("{} = {}", axis_title(key), shown(value)) }
}

/// An axis value as people write it: without the quotes of TOML, `1e9` for 1000000000.0 and `1e-3` for 0.001.
pub fn shown(value: &str) -> String {
    if let Some(text) = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')) {
        return text.into();
    }
    match number(value).filter(|_| value.contains('.') && !value.contains(['e', 'E'])) {
        Some(x) if x != 0.0 && !(1e-2..1e5).contains(&x.abs()) => format!("{x:e}"),
        _ => value.into(),
    }
}

/// The last part of a key, with its section where the part alone says little.
pub fn axis_title(key: &str) -> String {
    match key.rsplit_once('.') {
        Some((section, leaf @ ("variant" | "kind" | "name" | "weighting" | "every" | "count" | "images" | "path"))) => {
            format!("{} {leaf}", section.rsplit('.').next().unwrap_or(section))
        }
        Some((_, leaf)) => leaf.replace('_', " "),
        None => key.replace('_', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic;

    #[test]
    fn runs_are_grouped_into_cells_of_seeds() {
        let data = synthetic::sweep();
        let study = Study::new(&data);
        assert_eq!(study.cells.len(), 8);
        assert!(study.cells.iter().all(|c| c.runs.len() == 3));
        assert_eq!(study.cells[1].label, "linear · vlb");
        assert_eq!(study.metric, Some(Metric { split: Split::Test, weights: Weights::Ema }));
        assert_eq!(study.common_timesteps(), Some(100));
    }

    #[test]
    fn unfinished_diverged_and_non_finite_runs_have_no_result() {
        let mut data = synthetic::sweep();
        data.runs[0].state = RunState::Diverged;
        data.runs[1].state = RunState::Resumable;
        for e in &mut data.runs[2].evaluations {
            e.bits_per_dim = f64::NAN;
        }
        let study = Study::new(&data);
        assert_eq!(study.cells[0].finished().count(), 0);
        assert_eq!(study.with_results().count(), 7);
    }

    #[test]
    fn a_cell_term_is_the_mean_over_its_seeds() {
        let data = synthetic::sweep();
        let study = Study::new(&data);
        let cell = &study.cells[3];
        let by_hand: f64 = cell.runs.iter().map(|r| r.terms.iter().find(|x| x.t == 17).unwrap().vb).sum::<f64>() / 3.0;
        let term = cell.terms.iter().find(|x| x.t == 17).unwrap();
        assert!((term.vb.mean - by_hand).abs() < 1e-15 && term.vb.n == 3);
    }

    #[test]
    fn the_error_of_bits_has_its_own_name() {
        let mut data = synthetic::sweep();
        assert_eq!(Study::new(&data).error_name(), "ε-MSE");
        data.runs[0].kernel = Kernel::Binomial;
        assert!(Study::new(&data).error_name().contains("ε-MSE, of bits"));
        data.runs.iter_mut().for_each(|r| r.kernel = Kernel::Binomial);
        let study = Study::new(&data);
        assert_eq!(study.error_name(), "Brier score of x₀");
        let page =
            crate::report::page::render(&study, &crate::report::Answer::of(&study), &crate::report::figures::draw_all(&study).unwrap());
        assert!(page.contains("Brier score of x₀") && !page.contains("ε-MSE") && !page.contains("predicted noise"));
    }

    #[test]
    fn names_of_axes_say_enough() {
        assert_eq!(axis_title("diffusion.schedule"), "schedule");
        assert_eq!(axis_title("loss.variant"), "loss variant");
        assert_eq!(axis_title("train.batch_size"), "batch size");
        assert_eq!(shown("\"cosine\""), "cosine");
        let numbers = ["1000000000.0", "0.0003", "-0.00025", "0.001", "0.0", "99999.5", "1e-5", "1_000_000", "true", "1.2.3"];
        assert_eq!(numbers.map(shown), ["1e9", "3e-4", "-2.5e-4", "1e-3", "0.0", "99999.5", "1e-5", "1_000_000", "true", "1.2.3"]);
        assert_eq!(value_words("train.lr", "1000000000.0"), "lr = 1e9");
    }
}
