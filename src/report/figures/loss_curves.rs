//! Training eps-MSE and validation bound against step.

use super::{Drawn, Figure, HEIGHT, with_legend};
use crate::report::ReportError;
use crate::report::draw::axis::{Axis, Scale, scale_for};
use crate::report::draw::{Panel, Rect, Scene, Stroke};
use crate::report::study::{Cell, RunView, Study};
use crate::report::text::{Csv, plain};
use crate::report::theme::tint;

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let has = |of: fn(&RunView) -> bool| study.cells.iter().flat_map(|c| &c.runs).any(of);
    let curves: Vec<Curve> = [
        (has(|r| r.train.iter().any(|p| p.1.is_finite()))).then(|| Curve {
            name: "train_eps_mse",
            heading: format!("Training {}", study.error_name()),
            of: |r| &r.train,
        }),
        (has(|r| r.val.iter().any(|p| p.1.is_finite()))).then(|| Curve {
            name: "val_bits_per_dim",
            heading: format!("Validation bound ({})", study.unit()),
            of: |r| &r.val,
        }),
    ]
    .into_iter()
    .flatten()
    .collect();
    if curves.is_empty() {
        return Ok(Drawn::skipped("loss_curves", "no run has recorded a loss yet"));
    }
    let (mut scene, place) = with_legend(study, HEIGHT);
    let mut csv = Csv::new(&["quantity", "cell", "series", "step", "value", "low", "high", "n"]);
    let mut scales = Vec::new();
    for (curve, place) in curves.iter().zip(place.columns(curves.len(), 28.0)) {
        scales.push(curve.draw(study, &mut scene, place, &mut csv));
    }
    let mut what = Vec::new();
    for (curve, scale) in curves.iter().zip(&scales) {
        let axis = if *scale == Scale::Log { "logarithmic axis" } else { "linear axis that does not begin at 0" };
        what.push(match curve.name {
            "train_eps_mse" => {
                format!(
                    "training {}, mean over the samples of each logging window and so over t as training draws it, no smoothing ({axis})",
                    study.error_name()
                )
            }
            _ => format!("the whole bound on the validation images, in {} ({axis})", study.unit()),
        });
    }
    let stopped = study.cells.iter().flat_map(|c| &c.runs).filter(|r| r.data.state != crate::store::RunState::Done).count();
    let stopped = if stopped > 0 { " Runs that did not finish are drawn as far as they have finite values." } else { "" };
    let many = study.cells.iter().any(|c| c.runs.len() > 1);
    let lines = if many { "Thin lines are seeds, thick lines their means." } else { "Lines are single runs." };
    Ok(Drawn::Figure(Box::new(Figure {
        name: "loss_curves".into(),
        title: "Loss against step".into(),
        caption: format!("Against optimizer steps: {}. {lines} {}.{stopped}", what.join("; "), study.band_words()),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
}

struct Curve {
    name: &'static str,
    heading: String,
    of: for<'r> fn(&'r RunView<'_>) -> &'r [(i64, f64)],
}

impl Curve {
    fn draw(&self, study: &Study, scene: &mut Scene, place: Rect, csv: &mut Csv) -> Scale {
        let points = || study.cells.iter().flat_map(|c| &c.runs).flat_map(|r| (self.of)(r).iter().copied());
        let scale = scale_for(points().map(|p| p.1), 6.0);
        let last = points().map(|p| p.0).max().unwrap_or(1);
        let x = Axis::linear(0.0, last as f64, 4);
        let y = Axis::around(points().map(|p| p.1), scale, 0.04, 6);
        let panel = Panel::new(scene, place, &self.heading, "optimizer step", x, y);
        let means: Vec<_> = study.cells.iter().map(|c| (c, c.curve(self.of))).collect();
        for (cell, mean) in &means {
            let band: Vec<_> = mean.iter().map(|(s, i)| (*s as f64, i.low(), i.high())).collect();
            panel.band(scene, &band, cell.look.color, study.band_opacity());
        }
        for (cell, _) in means.iter().filter(|(c, _)| c.runs.len() > 1) {
            for run in &cell.runs {
                let line: Vec<_> = (self.of)(run).iter().map(|&(s, v)| (s as f64, v)).collect();
                panel.line(scene, &line, Stroke::solid(tint(cell.look.color, 0.45), 0.8));
            }
        }
        for (cell, mean) in &means {
            let line: Vec<_> = mean.iter().map(|(s, i)| (*s as f64, i.mean)).collect();
            if let [(x, y)] = line[..] {
                panel.dot(scene, x, y, 4.0, cell.look.color);
            }
            panel.line(scene, &line, cell.look.line(2.2));
        }
        for (cell, mean) in &means {
            self.rows(cell, mean, csv);
        }
        scale
    }

    fn rows(&self, cell: &Cell, mean: &[(i64, crate::report::stats::Interval)], csv: &mut Csv) {
        for run in &cell.runs {
            for (step, value) in (self.of)(run).iter().filter(|p| p.1.is_finite()) {
                let series = format!("seed {}", run.seed());
                csv.row(&[
                    self.name.into(),
                    cell.label.clone(),
                    series,
                    step.to_string(),
                    plain(*value),
                    String::new(),
                    String::new(),
                    "1".into(),
                ]);
            }
        }
        for (step, i) in mean {
            csv.row(&[
                self.name.into(),
                cell.label.clone(),
                "mean".into(),
                step.to_string(),
                plain(i.mean),
                plain(i.low()),
                plain(i.high()),
                i.n.to_string(),
            ]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic;

    #[test]
    fn the_csv_holds_the_means_of_the_windows() {
        let data = synthetic::sweep();
        let study = Study::new(&data);
        let Drawn::Figure(figure) = draw(&study).unwrap() else { panic!("no figure") };
        let row = figure.csv.lines().find(|l| l.starts_with("train_eps_mse,cosine · simple,mean,1000,")).unwrap();
        let value: f64 = row.split(',').nth(4).unwrap().parse().unwrap();
        let mut by_hand = 0.0;
        for run in &data.runs[6..9] {
            let l = &run.losses;
            let rows = (0..l.t.len()).filter(|&i| l.step[i] == 1000 && l.split[i] == crate::record::Split::Train);
            let (n, sum) = rows.fold((0.0, 0.0), |(n, s), i| (n + f64::from(l.n[i]), s + f64::from(l.n[i]) * l.mse_mean[i]));
            by_hand += sum / n / 3.0;
        }
        assert!((value - by_hand).abs() < 1e-12, "{value} against {by_hand}");
        assert!(figure.caption.contains("n = 3 seeds"), "{}", figure.caption);
    }
}
