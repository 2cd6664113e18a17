//! Rate against distortion along the reverse process, as progressive coding spends bits. [Ho20, Fig. 5, Table 4]
//!
//! Whoever has received x_t has paid the prior and the terms of T, …, t + 1, and can say x̂_0(x_t).

use super::{Drawn, Figure, Grid, MARGIN, PANEL, with_legend};
use crate::data::Encoding;
use crate::diffusion::Kernel;
use crate::report::ReportError;
use crate::report::draw::axis::{Axis, Scale};
use crate::report::draw::{Panel, Rect, Scene};
use crate::report::stats::Interval;
use crate::report::study::{Cell, FinalTerm, Study};
use crate::report::text::{Csv, plain};
use std::collections::BTreeMap;

pub const NAME: &str = "rate_distortion";

/// Half of 255: from [-1, 1] to the scale of pixels.
const PIXELS: f64 = 127.5;

/// What distortion is measured in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Pixels,
    Standardised,
    WrongBits,
}

impl Unit {
    fn of(study: &Study) -> Option<Self> {
        let runs = &study.data.runs;
        let all = |unit: Self| {
            runs.iter().all(|r| {
                let own = match (r.kernel, r.encoding) {
                    (Kernel::Binomial, _) => Self::WrongBits,
                    (_, Some(Encoding::Continuous)) => Self::Standardised,
                    _ => Self::Pixels,
                };
                own == unit
            })
        };
        [Self::Pixels, Self::Standardised, Self::WrongBits].into_iter().find(|u| all(*u))
    }

    fn distortion(self, x0_mse: f64) -> f64 {
        match self {
            Self::Pixels => PIXELS * x0_mse.sqrt(),
            Self::Standardised => x0_mse.sqrt(),
            Self::WrongBits => x0_mse,
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Pixels => "RMSE of predicted x₀ (0–255)",
            Self::Standardised => "RMSE of predicted x₀",
            Self::WrongBits => "Wrong bits of predicted x₀",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Pixels => "root mean squared error of the predicted x₀ on the scale of pixels, 0 to 255",
            Self::Standardised => "root mean squared error of the predicted x₀ in standardised coordinates",
            Self::WrongBits => "share of bits of x₀ that the likelier value gets wrong",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Point {
    t: u32,
    rate: Interval,
    distortion: Interval,
}

/// (rate, distortion) of one run at each t ≥ 1: the bits of T, …, t + 1 and the prior, and what x_t still hides.
fn of_run(terms: &[FinalTerm], unit: Unit) -> BTreeMap<u32, (f64, f64)> {
    let mut rate: f64 = terms.iter().filter(|t| t.t == 0).map(|t| t.vb).sum();
    let mut points = BTreeMap::new();
    for term in terms.iter().rev().filter(|t| t.t > 0) {
        points.insert(term.t, (rate, unit.distortion(term.x0_mse)));
        rate += term.t_weight * term.vb;
    }
    points
}

fn of_cell(cell: &Cell, unit: Unit) -> Vec<Point> {
    let mut by_t: BTreeMap<u32, Vec<(f64, f64)>> = BTreeMap::new();
    for run in cell.finished() {
        for (t, pair) in of_run(&run.terms, unit) {
            by_t.entry(t).or_default().push(pair);
        }
    }
    by_t.into_iter()
        .map(|(t, pairs)| Point { t, rate: Interval::of(pairs.iter().map(|p| p.0)), distortion: Interval::of(pairs.iter().map(|p| p.1)) })
        .collect()
}

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let Some(unit) = Unit::of(study) else {
        return Ok(Drawn::skipped(NAME, "the sweep mixes kinds of data whose distortions have no common unit"));
    };
    let curves: Vec<(&Cell, Vec<Point>)> =
        study.with_results().map(|(_, c)| (c, of_cell(c, unit))).filter(|(_, p)| p.iter().any(|p| p.distortion.n > 0)).collect();
    let Some(metric) = study.metric.filter(|_| !curves.is_empty()) else {
        return Ok(Drawn::skipped(NAME, "no finished run has losses by timestep"));
    };
    let grid = Grid::of(study, 3, 3, PANEL, 400.0 - 2.0 * MARGIN);
    let (mut scene, place) = with_legend(study, grid.height() + 2.0 * MARGIN);
    let thirds = grid.places(place, 18.0);
    let mut csv = Csv::new(&["cell", "t", "n", "rate", "rate_low", "rate_high", "distortion", "distortion_low", "distortion_high"]);
    let steps = |cell: &Cell, p: &Point| 1.0 - f64::from(p.t - 1) / f64::from(cell.timesteps());
    panel(&mut scene, thirds[0], unit.heading(), "(T − t + 1)/T", &curves, &|c, p| (steps(c, p), p.distortion.mean));
    let rate = format!("Rate ({})", study.unit());
    panel(&mut scene, thirds[1], &rate, "(T − t + 1)/T", &curves, &|c, p| (steps(c, p), p.rate.mean));
    panel(&mut scene, thirds[2], unit.heading(), &rate.replace("Rate", "rate"), &curves, &|_, p| (p.rate.mean, p.distortion.mean));
    for (cell, points) in &curves {
        for p in points {
            let mut fields = vec![cell.label.clone(), p.t.to_string(), p.rate.n.to_string()];
            fields.extend([p.rate, p.distortion].iter().flat_map(|i| [i.mean, i.low(), i.high()]).map(plain));
            csv.row(&fields);
        }
    }
    let bits = |term: fn(&crate::record::Evaluation) -> f64| {
        let all: Vec<f64> = curves.iter().map(|(c, _)| c.interval(term).mean).collect();
        (all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    };
    let (low, high) = bits(|e| e.decoder);
    Ok(Drawn::Figure(Box::new(Figure {
        name: NAME.into(),
        title: "Rate and distortion".into(),
        caption: format!(
            "Progressive coding along the reverse process (Ho et al. 2020, Fig. 5), final evaluation ({}), all axes linear: at t the rate is the prior and the \
             terms of T, …, t + 1, and the distortion the {}. The decoder's own term, which pays for what is left at t = 1, is not in the rate ({} to {} {}). \
             Lines are means over seeds ({}), without bands; the intervals are in the csv.",
            metric.words(),
            unit.words(),
            crate::report::text::fixed(low, 3),
            crate::report::text::fixed(high, 3),
            study.unit(),
            study.seeds_words()
        ),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
}

type Place<'a> = dyn Fn(&Cell, &Point) -> (f64, f64) + 'a;

fn panel(scene: &mut Scene, place: Rect, heading: &str, x_label: &str, curves: &[(&Cell, Vec<Point>)], of: &Place) {
    let all = || curves.iter().flat_map(|(cell, points)| points.iter().map(|p| of(cell, p))).filter(|p| p.0.is_finite() && p.1.is_finite());
    let x = Axis::around(all().map(|p| p.0).chain([0.0]), Scale::Linear, 0.02, 4);
    let y = Axis::around(all().map(|p| p.1).chain([0.0]), Scale::Linear, 0.02, 5);
    let panel = Panel::new(scene, place, heading, x_label, x, y);
    for (cell, points) in curves {
        panel.line(scene, &points.iter().map(|p| of(cell, p)).collect::<Vec<_>>(), cell.look.line(1.7));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Split;
    use crate::report::synthetic;

    #[test]
    fn the_rate_at_t_is_what_came_before_and_ends_at_the_bound_without_its_decoder() {
        let data = synthetic::sweep();
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        let row = |t: u32| -> Vec<f64> {
            let line = figure.csv.lines().find(|l| l.starts_with(&format!("sigmoid · simple,{t},"))).unwrap();
            line.split(',').skip(2).map(|f| f.parse().unwrap()).collect()
        };
        let runs = &data.runs[18..21];
        let evaluations: Vec<_> = runs.iter().map(|r| r.evaluations.last().unwrap()).collect();
        // [Ho20, Table 4]: at t = 1 the rate is L_1 + … + L_T.
        let whole = evaluations.iter().map(|e| e.bits_per_dim - e.decoder).sum::<f64>() / 3.0;
        assert!((row(1)[1] - whole).abs() < 1e-9, "{} {whole}", row(1)[1]);
        let prior = evaluations.iter().map(|e| e.prior).sum::<f64>() / 3.0;
        assert!((row(100)[1] - prior).abs() < 1e-12);
        // One step down costs the term of t = 40.
        let at = |t: u32, of: fn(&crate::store::LossTable, usize) -> f64| {
            let one =
                |l: &crate::store::LossTable| (0..l.t.len()).find(|&i| l.t[i] == t && l.split[i] == Split::Test).map(|i| of(l, i)).unwrap();
            runs.iter().map(|r| one(&r.losses)).sum::<f64>() / 3.0
        };
        assert!((row(39)[1] - row(40)[1] - at(40, |l, i| l.vb_mean[i])).abs() < 1e-12);
        assert!((row(40)[4] - at(40, |l, i| 127.5 * l.x0_mse_mean[i].sqrt())).abs() < 1e-9);
        assert_eq!(row(40)[0], 3.0);
    }

    #[test]
    fn points_and_bits_have_units_of_their_own_and_a_mixture_has_none() {
        let mut data = synthetic::sweep();
        data.runs[0].kernel = Kernel::Binomial;
        assert!(matches!(draw(&Study::new(&data)).unwrap(), Drawn::Skipped { reason, .. } if reason.contains("mixes")));
        data.runs.iter_mut().for_each(|r| r.kernel = Kernel::Binomial);
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        assert!(figure.caption.contains("share of bits"));
        data.runs.iter_mut().for_each(|r| (r.kernel, r.encoding) = (Kernel::Gaussian, Some(Encoding::Continuous)));
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        assert!(figure.caption.contains("standardised coordinates"));
    }
}
