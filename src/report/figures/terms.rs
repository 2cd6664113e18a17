//! The terms of the bound and the eps-MSE against t: which timesteps cost what.

use super::{Drawn, Figure, HEIGHT, with_legend};
use crate::record::Term;
use crate::report::ReportError;
use crate::report::draw::axis::{Axis, Scale};
use crate::report::draw::{Panel, Rect, Scene};
use crate::report::stats::Interval;
use crate::report::study::{CellTerm, Study};
use crate::report::text::{Csv, plain};

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let Some(metric) = study.metric.filter(|_| study.cells.iter().any(|c| c.terms.iter().any(|t| t.t > 0))) else {
        return Ok(Drawn::skipped("terms", "no finished run has losses by timestep"));
    };
    let (mut scene, place) = with_legend(study, HEIGHT);
    let halves = place.columns(2, 28.0);
    let heading = format!("Term of the bound ({})", study.unit());
    let hidden = panel(study, &mut scene, halves[0], &heading, |t| t.vb, true);
    panel(study, &mut scene, halves[1], study.error_name(), |t| t.mse, false);
    let mut csv =
        Csv::new(&["cell", "t", "term", "t_weight", "n", "vb_mean", "vb_low", "vb_high", "eps_mse_mean", "eps_mse_low", "eps_mse_high"]);
    for (_, cell) in study.with_results() {
        for x in &cell.terms {
            csv.row(&[
                cell.label.clone(),
                x.t.to_string(),
                Term::of(x.t).to_string(),
                plain(x.t_weight),
                x.vb.n.to_string(),
                plain(x.vb.mean),
                plain(x.vb.low()),
                plain(x.vb.high()),
                plain(x.mse.mean),
                plain(x.mse.low()),
                plain(x.mse.high()),
            ]);
        }
    }
    let hidden = if hidden > 0 {
        format!(
            " {} not positive, which has no place on a logarithmic axis: see the csv.",
            if hidden == 1 { "1 mean is".into() } else { format!("{hidden} means are") }
        )
    } else {
        String::new()
    };
    Ok(Drawn::Figure(Box::new(Figure {
        name: "terms".into(),
        title: "The bound's terms by timestep".into(),
        caption: format!(
            "Final evaluation ({}), both axes logarithmic. Left: the contribution of each timestep to the bound in {}; the dot at t = 1 is the decoder, \
             −log p(x₀ | x₁), all others are Kullback–Leibler terms; the prior term is not shown. Right: {}. \
             Lines are means over seeds ({}). {}.{hidden}",
            metric.words(),
            study.unit(),
            study.error_measure().1,
            study.seeds_words(),
            study.band_words()
        ),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
}

/// Draws one quantity and returns how many means had no place on the logarithmic axis.
fn panel(study: &Study, scene: &mut Scene, place: Rect, heading: &str, of: fn(&CellTerm) -> Interval, mark: bool) -> usize {
    let terms = || study.cells.iter().flat_map(|c| c.terms.iter().filter(|t| t.t > 0));
    let last = terms().map(|t| t.t).max().unwrap_or(1);
    // A little room on the left keeps the mark at t = 1 off the axis.
    let x = Axis::log(0.88, f64::from(last));
    let y = Axis::around(terms().map(|t| of(t).mean), Scale::Log, 0.04, 6);
    let panel = Panel::new(scene, place, heading, "timestep t", x, y);
    for cell in &study.cells {
        let band: Vec<_> = cell.terms.iter().filter(|t| t.t > 0).map(|t| (f64::from(t.t), of(t).low(), of(t).high())).collect();
        panel.band(scene, &band, cell.look.color, study.band_opacity());
    }
    for cell in &study.cells {
        let line: Vec<_> = cell.terms.iter().filter(|t| t.t > 0).map(|t| (f64::from(t.t), of(t).mean)).collect();
        panel.line(scene, &line, cell.look.line(2.0));
    }
    if mark {
        for cell in &study.cells {
            if let Some(first) = cell.terms.iter().find(|t| t.t == 1) {
                panel.dot(scene, 1.0, of(first).mean, 4.5, cell.look.color);
            }
        }
    }
    terms().filter(|t| of(t).mean <= 0.0).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic;

    #[test]
    fn the_csv_has_every_timestep_of_every_cell_and_the_prior() {
        let data = synthetic::sweep();
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        assert_eq!(figure.csv.lines().count(), 1 + 8 * 101);
        let decoder = figure.csv.lines().find(|l| l.starts_with("quadratic · vlb,1,decoder,")).unwrap();
        let mean: f64 = decoder.split(',').nth(5).unwrap().parse().unwrap();
        let by_hand: f64 = data.runs[15..18].iter().map(|r| r.evaluations.last().unwrap().decoder).sum::<f64>() / 3.0;
        assert!((mean - by_hand).abs() < 1e-12);
    }

    #[test]
    fn terms_that_are_not_positive_are_counted_in_the_caption() {
        let mut data = synthetic::sweep();
        for run in &mut data.runs[..3] {
            for i in 0..run.losses.t.len() {
                if run.losses.t[i] == 1 {
                    run.losses.vb_mean[i] = -2.0;
                }
            }
        }
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        assert!(figure.caption.contains("1 mean is not positive"), "{}", figure.caption);
    }
}
