//! How far samples are from held-out data, by cell and, where it was measured more than once, against step.

use super::curves::{COLUMNS, Curve, axis_words};
use super::dot_rows::{self, Column, Dot, Mark, Row};
use super::{Drawn, Figure, Grid, MARGIN, Names, PANEL, with_legend};
use crate::record::SampleQuality;
use crate::report::ReportError;
use crate::report::draw::axis::Scale;
use crate::report::draw::{Entry, Legend, Rect, Scene, Swatch};
use crate::report::stats::Interval;
use crate::report::study::{Cell, RunView, Study};
use crate::report::text::{Csv, plain};
use crate::report::theme::GREY;

pub const NAME: &str = "sample_quality";
/// The table of its course.
pub const BY_STEP: &str = "sample_quality_by_step";
const CURVES: f64 = 360.0;

/// By step, of any kind of evaluation that has it.
fn by_step(run: &RunView, of: fn(&SampleQuality) -> f64) -> Vec<(i64, f64)> {
    let mut all: Vec<(i64, f64)> = run.data.evaluations.iter().filter_map(|e| Some((e.step, of(e.samples.as_ref()?)))).collect();
    all.sort_by_key(|p| p.0);
    all.dedup_by_key(|p| p.0);
    all
}

/// The dots of one quantity of a cell: its mean with an interval over seeds, or, of one seed, with two standard errors.
fn dots(cell: &Cell, of: fn(&SampleQuality) -> f64, error: fn(&SampleQuality) -> f64) -> (Interval, Vec<Dot>) {
    let qualities: Vec<&SampleQuality> = cell.finished().filter_map(|r| r.result?.samples.as_ref()).collect();
    let interval = Interval::of(qualities.iter().map(|q| of(q)));
    let half = match qualities[..] {
        [one] => 2.0 * error(one),
        _ => interval.half,
    };
    let mut dots = vec![Dot { mark: Mark::Filled, value: interval.mean, half }];
    if qualities.len() > 1 {
        dots.extend(qualities.iter().map(|q| Dot { mark: Mark::Seed, value: of(q), half: f64::NAN }));
    }
    (interval, dots)
}

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let cells: Vec<&Cell> =
        study.with_results().map(|(_, c)| c).filter(|c| c.finished().any(|r| r.result.is_some_and(|e| e.samples.is_some()))).collect();
    if cells.is_empty() {
        return Ok(Drawn::skipped(
            NAME,
            "no finished run has compared its samples with held-out data (sample.count is at least 3 for that)",
        ));
    }
    let mut csv = Csv::new(&["cell", "series", "samples", "data", "sliced_wasserstein", "se", "of_training_data", "mmd2", "mmd2_se"]);
    let mut rows = Vec::new();
    for cell in &cells {
        let (distance, mut left) = dots(cell, |q| q.sliced_wasserstein, |q| q.sliced_wasserstein_se);
        let (mmd, right) = dots(cell, |q| q.mmd2, |q| q.mmd2_se);
        let of_data = Interval::of(cell.finished().filter_map(|r| Some(r.result?.samples.as_ref()?.sliced_wasserstein_of_data))).mean;
        left.push(Dot { mark: Mark::Hollow, value: of_data, half: f64::NAN });
        for run in cell.finished() {
            if let Some(q) = run.result.and_then(|e| e.samples.as_ref()) {
                let numbers = [q.sliced_wasserstein, q.sliced_wasserstein_se, q.sliced_wasserstein_of_data, q.mmd2, q.mmd2_se].map(plain);
                let head = [cell.label.clone(), format!("seed {}", run.seed()), q.samples.to_string(), q.data.to_string()];
                csv.row(&[head.to_vec(), numbers.to_vec()].concat());
            }
        }
        let none = String::new;
        csv.row(&[
            cell.label.clone(),
            "mean".into(),
            none(),
            none(),
            plain(distance.mean),
            none(),
            plain(of_data),
            plain(mmd.mean),
            none(),
        ]);
        rows.push(Row { label: cell.label.clone(), color: cell.look.color, dots: vec![left, right] });
    }
    let repeated = study.cells.iter().flat_map(|c| &c.runs).any(|r| by_step(r, |q| q.sliced_wasserstein).len() > 1);
    let (mut scene, place, steps, more_csv) = if repeated { against_step(study) } else { plain_scene(study) };
    let legend = Legend {
        entries: vec![
            Entry { label: "samples".into(), swatch: Swatch::Dot(GREY) },
            Entry { label: "as many training examples".into(), swatch: Swatch::Ring(GREY) },
        ],
    };
    let below = dot_rows::height(&rows.iter().map(|r| r.label.as_str()).collect::<Vec<_>>(), study.width);
    let used = legend.draw(&mut scene, place.x, place.y, place.w);
    let columns = [
        Column { heading: "Sliced Wasserstein distance".into(), x_label: "data units".into(), zero: false },
        Column { heading: "MMD² (unbiased estimate)".into(), x_label: "about 0 where perfect".into(), zero: true },
    ];
    let scales = dot_rows::draw(&mut scene, Rect { y: place.y + used, h: below, ..place }, &rows, &columns);
    scene.height = place.y + used + below + MARGIN;
    let counts = cells.iter().flat_map(|c| c.finished()).filter_map(|r| r.result?.samples.as_ref()).map(|q| (q.samples, q.data));
    let (samples, data) = counts.fold((0, 0), |(a, b), (x, y)| (a.max(x), b.max(y)));
    let several = cells.iter().any(|c| c.finished().count() > 1);
    let bars = if several {
        "small dots are seeds; bars are 95 % t-intervals over seeds, where n = 1 two standard errors within the run"
    } else {
        "n = 1 seed per cell: bars are two standard errors within the run"
    };
    Ok(Drawn::Figure(Box::new(Figure {
        name: NAME.into(),
        title: "Sample quality".into(),
        caption: format!(
            "Final samples against held-out examples (at most {samples} and {data} of them), on the numbers themselves: lower is better, and nothing compares \
             across data sets or numbers of samples. Hollow: as many training examples, which is what perfect samples would have. Left: the sliced 2-Wasserstein distance ({} axis). Right: the squared kernel MMD (linear axis, 0 marked). \
             {}; {bars}.{steps}",
            if scales[0] == Scale::Log { "logarithmic" } else { "linear" },
            study.seeds_words()
        ),
        csv: csv.finish(),
        more_csv,
        scene,
    })))
}

/// Its name in the csv, its heading, and where it is found.
type Quantity = (&'static str, &'static str, fn(&SampleQuality) -> f64);

type Ground = (Scene, Rect, String, Vec<(String, String)>);

/// The height comes with the rows.
fn plain_scene(study: &Study) -> Ground {
    let scene = Scene::new(study.width, 0.0);
    (scene, Rect::new(MARGIN, MARGIN, study.width - 2.0 * MARGIN, 0.0), String::new(), Vec::new())
}

/// Two panels of curves above the rows.
fn against_step(study: &Study) -> Ground {
    let grid = Grid::of(study, 2, 2, PANEL, CURVES);
    let (mut scene, place) = with_legend(study, grid.height() + 2.0 * MARGIN);
    let mut csv = Csv::new(&COLUMNS);
    let quantities: [Quantity; 2] =
        [("sliced_wasserstein", "Sliced Wasserstein distance", |q| q.sliced_wasserstein), ("mmd2", "MMD²", |q| q.mmd2)];
    let mut axes = Vec::new();
    for ((quantity, heading, of), place) in quantities.into_iter().zip(grid.places(place, 28.0)) {
        let of = move |r: &RunView<'_>| by_step(r, of);
        let curve = Curve {
            quantity: quantity.into(),
            heading: heading.into(),
            x_label: "optimizer step",
            of: &of,
            ticks: 4,
            seeds: true,
            bands: true,
        };
        axes.push(axis_words(curve.draw(study, &mut scene, place, &Names::LEGEND, &mut csv)));
    }
    let words = format!(" Top: the same against step ({}; {}). {}.", axes[0], axes[1], study.band_words());
    let below = Rect { y: place.y + grid.height() + 12.0, h: 0.0, ..place };
    (scene, below, words, vec![(BY_STEP.into(), csv.finish())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic;

    fn quality(x: f64) -> SampleQuality {
        SampleQuality {
            samples: 100,
            data: 64,
            sliced_wasserstein: x,
            sliced_wasserstein_se: 0.01,
            sliced_wasserstein_of_data: 0.1,
            mmd2: 0.1 * x - 0.02,
            mmd2_se: 0.003,
        }
    }

    #[test]
    fn the_csv_has_every_seed_and_a_second_measurement_draws_the_course() {
        let mut data = synthetic::sweep();
        assert!(matches!(draw(&Study::new(&data)).unwrap(), Drawn::Skipped { .. }));
        for (i, run) in data.runs.iter_mut().enumerate() {
            run.evaluations.last_mut().unwrap().samples = Some(quality(0.2 + 0.01 * i as f64));
        }
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        assert_eq!(figure.csv.lines().count(), 1 + 8 * 4);
        assert!(figure.csv.contains("linear · simple,seed 2,100,64,0.22,0.01,0.1,"), "{}", figure.csv);
        assert!(figure.more_csv.is_empty() && !figure.caption.contains("against step"));
        for run in &mut data.runs {
            run.evaluations[0].samples = Some(quality(0.9));
        }
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        assert!(figure.caption.contains("against step"));
        assert!(figure.more_csv[0].1.contains("sliced_wasserstein,linear · simple,seed 2,500,0.9,,,1"), "{}", figure.more_csv[0].1);
    }
}
