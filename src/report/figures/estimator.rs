//! The variance of the bound's estimate where t is drawn, which is what the gradients of the bound suffer from.
//!
//! One draw of (x_0, ε, t) with t ~ p estimates Σ_t L_t by L_t(x_0, ε)/p(t), whose second moment is Σ_t E[L_t²]/p(t). With
//! p = 1/T that is T Σ E[L_t²]; the least, (Σ √E[L_t²])², has p ∝ √E[L_t²]. [Nichol21, Eq. 18] Every t once has the
//! variance Σ Var[L_t] of draws that are independent.

use super::dot_rows::{self, Column, Dot, Mark, Row};
use super::{Drawn, Figure, MARGIN, with_legend};
use crate::report::ReportError;
use crate::report::draw::axis::{Axis, Scale};
use crate::report::draw::{Entry, Legend, Panel, Rect, Swatch};
use crate::report::stats::Interval;
use crate::report::study::{Cell, FinalTerm, Study};
use crate::report::text::{Csv, plain};
use crate::report::theme::GREY;
use std::collections::BTreeMap;

pub const NAME: &str = "estimator";
/// The table of standard deviations.
pub const DEVIATIONS: &str = "estimator_deviations";
const CURVES: f64 = 360.0;

/// Standard deviations of one estimate of the terms t ≥ 1, in bits/dim.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Deviations {
    uniform: f64,
    importance: f64,
    /// All t, once each.
    every: f64,
}

impl Deviations {
    /// `None` where a variance is not known.
    fn of(terms: &[FinalTerm]) -> Option<Self> {
        let terms: Vec<&FinalTerm> = terms.iter().filter(|t| t.t > 0).collect();
        let count: f64 = terms.iter().map(|t| t.t_weight).sum();
        let sum = |f: &dyn Fn(&FinalTerm) -> f64| terms.iter().map(|t| t.t_weight * f(t)).sum::<f64>();
        let (mean, second) = (sum(&|t| t.vb), sum(&second_moment));
        let roots = sum(&|t| second_moment(t).sqrt());
        let deviations = Self {
            uniform: (count * second - mean * mean).max(0.0).sqrt(),
            importance: (roots * roots - mean * mean).max(0.0).sqrt(),
            every: sum(&|t| t.vb_variance).sqrt(),
        };
        (!terms.is_empty() && second.is_finite()).then_some(deviations)
    }
}

/// E[L_t²].
fn second_moment(t: &FinalTerm) -> f64 {
    t.vb_variance + t.vb * t.vb
}

type Schemes = [(&'static str, &'static str, Mark, fn(&Deviations) -> f64); 3];
const SCHEMES: Schemes = [
    ("uniform", "one t, uniform", Mark::Filled, |d| d.uniform),
    ("importance", "one t, p ∝ √E[L²]", Mark::Hollow, |d| d.importance),
    ("every", "every t once", Mark::Tick, |d| d.every),
];

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let cells: Vec<(&Cell, Vec<Deviations>)> = study
        .with_results()
        .map(|(_, c)| (c, c.finished().filter_map(|r| Deviations::of(&r.terms)).collect::<Vec<_>>()))
        .filter(|(_, d)| !d.is_empty())
        .collect();
    let Some(metric) = study.metric.filter(|_| !cells.is_empty()) else {
        return Ok(Drawn::skipped(NAME, "no finished run has the variance of its terms by timestep"));
    };
    let below = dot_rows::height(&cells.iter().map(|c| c.0.label.as_str()).collect::<Vec<_>>(), study.width);
    let entries = SCHEMES.iter().map(|(_, words, mark, _)| Entry {
        label: (*words).into(),
        swatch: match mark {
            Mark::Hollow => Swatch::Ring(GREY),
            Mark::Tick => Swatch::Tick(GREY),
            Mark::Filled | Mark::Seed => Swatch::Dot(GREY),
        },
    });
    let legend = Legend { entries: entries.collect() };
    let width = study.width - 2.0 * MARGIN;
    let (mut scene, place) = with_legend(study, CURVES + legend.height(width) + below + 2.0 * MARGIN + 10.0);
    let mut csv = Csv::new(&["cell", "t", "n", "t_weight", "vb_mean", "vb_variance", "second_moment", "importance"]);
    let curves: Vec<(&Cell, Vec<(u32, Interval)>)> = cells.iter().map(|(c, _)| (*c, shares(c, &mut csv))).collect();
    let last = curves.iter().filter_map(|(_, c)| c.last().map(|p| p.0)).max().unwrap_or(1);
    let values = curves.iter().flat_map(|(_, c)| c.iter().map(|p| p.1.mean));
    let panel = Panel::new(
        &mut scene,
        Rect { h: CURVES, ..place },
        "√E[L²], the best p(t), times T (1: as often as uniform)",
        "timestep t",
        Axis::log(0.94, f64::from(last)),
        Axis::around(values, Scale::Log, 0.04, 6),
    );
    for (cell, curve) in &curves {
        // The decoder is a quantity of its own: no line leads to it.
        panel.line(&mut scene, &curve.iter().skip(1).map(|(t, i)| (f64::from(*t), i.mean)).collect::<Vec<_>>(), cell.look.line(1.7));
        if let Some((t, i)) = curve.first() {
            panel.dot(&mut scene, f64::from(*t), i.mean, 4.5, cell.look.color);
        }
    }
    let top = place.y + CURVES + 10.0;
    let used = legend.draw(&mut scene, place.x, top, width);
    let mut deviations = Csv::new(&["cell", "scheme", "n", "standard_deviation", "low", "high"]);
    let rows: Vec<Row> = cells
        .iter()
        .map(|(cell, runs)| {
            let dots = SCHEMES.iter().map(|(name, _, mark, of)| {
                let i = Interval::of(runs.iter().map(of));
                deviations.row(&[cell.label.clone(), (*name).into(), i.n.to_string(), plain(i.mean), plain(i.low()), plain(i.high())]);
                Dot { mark: *mark, value: i.mean, half: f64::NAN }
            });
            Row { label: cell.label.clone(), color: cell.look.color, dots: vec![dots.collect()] }
        })
        .collect();
    let column = Column { heading: "Standard deviation of one estimate of the bound".into(), x_label: study.unit().into(), zero: false };
    let scales = dot_rows::draw(&mut scene, Rect { y: top + used, h: below, ..place }, &rows, &[column]);
    let scale = if scales == [Scale::Log] { "logarithmic axis" } else { "linear axis" };
    Ok(Drawn::Figure(Box::new(Figure {
        name: NAME.into(),
        title: "How noisy an estimate of the bound is".into(),
        caption: format!(
            "What estimating the bound from drawn timesteps costs, from mean and variance of each term L over the evaluated draws (final evaluation, {}). Top, \
             both axes logarithmic: √E[L²] at each t over its mean (the dot is the decoder, t = 1), which is how often importance sampling would visit it (Nichol and Dhariwal 2021, Eq. 18). \
             Bottom ({scale}): the standard deviation of one estimate from one example, with t uniform, with t drawn by those weights, and with every t once; \
             without the prior. Means over seeds ({}), no bands; intervals are in the csv.",
            metric.words(),
            study.seeds_words()
        ),
        csv: csv.finish(),
        more_csv: vec![(DEVIATIONS.into(), deviations.finish())],
        scene,
    })))
}

/// √E[L_t²] over its mean at each t, over seeds; writes the rows that it comes of.
fn shares(cell: &Cell, csv: &mut Csv) -> Vec<(u32, Interval)> {
    let mut by_t: BTreeMap<u32, Vec<(FinalTerm, f64)>> = BTreeMap::new();
    for run in cell.finished() {
        let terms = || run.terms.iter().filter(|t| t.t > 0);
        let weight: f64 = terms().map(|t| t.t_weight).sum();
        let mean = terms().map(|t| t.t_weight * second_moment(t).sqrt()).sum::<f64>() / weight;
        for term in terms() {
            by_t.entry(term.t).or_default().push((*term, second_moment(term).sqrt() / mean));
        }
    }
    let mut curve = Vec::new();
    for (t, all) in by_t {
        let interval = |f: &dyn Fn(&FinalTerm) -> f64| Interval::of(all.iter().map(|(term, _)| f(term)));
        let share = Interval::of(all.iter().map(|(_, s)| *s));
        let (vb, variance, second) = (interval(&|t| t.vb), interval(&|t| t.vb_variance), interval(&second_moment));
        let numbers = [all[0].0.t_weight, vb.mean, variance.mean, second.mean, share.mean].map(plain);
        csv.row(&[vec![cell.label.clone(), t.to_string(), vb.n.to_string()], numbers.to_vec()].concat());
        curve.push((t, share));
    }
    curve
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic;

    fn term(t: u32, vb: f64, vb_variance: f64) -> FinalTerm {
        FinalTerm { t, t_weight: 1.0, n: 9, vb, vb_variance, mse: 0.1, x0_mse: 0.1, vb_floor: f64::NAN, mse_floor: f64::NAN }
    }

    #[test]
    fn deviations_are_those_of_enumerated_draws() {
        // L_t takes two values, mean ± d, each half of the time: all draws of (t, value) can be listed.
        let terms = [term(0, 5.0, 0.0), term(1, 3.0, 0.25), term(2, 1.0, 1.0), term(3, 0.5, 0.0)];
        let pairs: Vec<(usize, f64)> =
            terms[1..].iter().enumerate().flat_map(|(i, t)| [(i, t.vb - t.vb_variance.sqrt()), (i, t.vb + t.vb_variance.sqrt())]).collect();
        let deviation = |p: [f64; 3]| {
            let mean: f64 = pairs.iter().map(|(i, l)| p[*i] / 2.0 * (l / p[*i])).sum();
            pairs.iter().map(|(i, l)| p[*i] / 2.0 * (l / p[*i] - mean).powi(2)).sum::<f64>().sqrt()
        };
        let d = Deviations::of(&terms).unwrap();
        assert!((d.uniform - deviation([1.0 / 3.0; 3])).abs() < 1e-12);
        let roots = [9.25f64.sqrt(), 2f64.sqrt(), 0.5];
        let sum: f64 = roots.iter().sum();
        assert!((d.importance - deviation(roots.map(|r| r / sum))).abs() < 1e-12);
        assert!((d.every - 1.25f64.sqrt()).abs() < 1e-12 && d.importance < d.uniform);
        assert_eq!(Deviations::of(&[term(1, 1.0, f64::NAN)]), None);
    }

    #[test]
    fn the_csv_holds_what_the_rows_of_the_evaluation_say() {
        let data = synthetic::sweep();
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        let row: Vec<f64> = {
            let line = figure.csv.lines().find(|l| l.starts_with("linear · simple,50,")).unwrap();
            line.split(',').skip(1).map(|f| f.parse().unwrap()).collect()
        };
        let vb = |run: usize| {
            let l = &data.runs[run].losses;
            (0..l.t.len()).find(|&i| l.t[i] == 50 && l.split[i] == crate::record::Split::Test).map(|i| l.vb_mean[i]).unwrap()
        };
        // The made-up variance is (0.4 · mean)².
        let by_hand = (0..3).map(|r| 1.16 * vb(r) * vb(r)).sum::<f64>() / 3.0;
        assert!((row[5] - by_hand).abs() < 1e-12 && row[1] == 3.0, "{row:?}");
        assert_eq!(figure.more_csv[0].1.lines().count(), 1 + 8 * 3);
    }
}
