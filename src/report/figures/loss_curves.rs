//! Training eps-MSE and validation bound against step.

use super::curves::{COLUMNS, Curve, axis_words, lines_words};
use super::{Drawn, Figure, Grid, HEIGHT, MARGIN, Names, PANEL, with_legend};
use crate::report::ReportError;
use crate::report::study::Study;
use crate::report::text::Csv;

pub const NAME: &str = "loss_curves";

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let curve = |quantity: &str, heading: String, of| Curve {
        quantity: quantity.into(),
        heading,
        x_label: "optimizer step",
        of,
        ticks: 4,
        seeds: true,
        bands: true,
    };
    let train = curve("train_eps_mse", format!("Training {}", study.error_name()), &|r| r.train.clone());
    let val = curve("val_bits_per_dim", format!("Validation bound ({})", study.unit()), &|r| r.val.clone());
    let curves: Vec<Curve> = [train, val].into_iter().filter(|c| c.is_known(study)).collect();
    if curves.is_empty() {
        return Ok(Drawn::skipped(NAME, "no run has recorded a loss yet"));
    }
    let grid = Grid::of(study, curves.len(), 2, PANEL, HEIGHT - 2.0 * MARGIN);
    let (mut scene, place) = with_legend(study, grid.height() + 2.0 * MARGIN);
    let mut csv = Csv::new(&COLUMNS);
    let mut what = Vec::new();
    for (curve, place) in curves.iter().zip(grid.places(place, 28.0)) {
        let axis = axis_words(curve.draw(study, &mut scene, place, &Names::LEGEND, &mut csv));
        what.push(match curve.quantity.as_str() {
            "train_eps_mse" => format!(
                "training {}, mean over the samples of each logging window and so over t as training draws it, no smoothing ({axis})",
                study.error_name()
            ),
            _ => format!("the whole bound on the validation images, in {} ({axis})", study.unit()),
        });
    }
    Ok(Drawn::Figure(Box::new(Figure {
        name: NAME.into(),
        title: "Loss against step".into(),
        caption: format!("Against optimizer steps: {}. {}", what.join("; "), lines_words(study, true, true)),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
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

    #[test]
    fn a_run_that_diverged_leaves_the_axes_to_the_others() {
        use crate::store::RunState;
        let words = |state: RunState, factor: f64| {
            let mut data = synthetic::sweep();
            data.runs[0].state = state;
            for window in &mut data.runs[0].history.windows {
                window.all.mse *= factor;
            }
            let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
            let texts: Vec<String> = figure.scene.text_boxes().into_iter().map(|(text, _)| text).collect();
            (texts, figure.caption.contains("do not decide the axes"))
        };
        let (axes, said) = words(RunState::Diverged, 1e12);
        assert!(said && axes == words(RunState::Diverged, 1.0).0);
        let (axes, said) = words(RunState::Done, 1e12);
        assert!(!said && axes != words(RunState::Done, 1.0).0);
    }
}
