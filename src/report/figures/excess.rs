//! How far from the least loss each network is, by t.

use super::{Drawn, Figure, Grid, HEIGHT, MARGIN, PANEL, with_legend};
use crate::report::ReportError;
use crate::report::draw::axis::{Axis, Scale, scale_for};
use crate::report::draw::{Panel, Rect, Scene};
use crate::report::excess::{CellExcess, Excess, Known, Point};
use crate::report::stats::Interval;
use crate::report::study::Study;
use crate::report::text::{Csv, count, plain};

pub const NAME: &str = "excess";
/// The table of whole bounds.
pub const WHOLE: &str = "excess_whole";

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let Some(excess) = Excess::of(study) else {
        return Ok(Drawn::skipped(
            NAME,
            "the least loss is not known: of held-out data it is where the distribution is, of training examples where eval.floor is on",
        ));
    };
    let grid = Grid::of(study, 2, 2, PANEL, HEIGHT - 2.0 * MARGIN);
    let (mut scene, place) = with_legend(study, grid.height() + 2.0 * MARGIN);
    let halves = grid.places(place, 28.0);
    let heading = format!("Excess of the bound's term ({})", study.unit());
    let left = panel(study, &excess, &mut scene, halves[0], &heading, |p| p.vb_excess);
    let right = panel(study, &excess, &mut scene, halves[1], &format!("Excess {}", study.error_name()), |p| p.mse_excess);
    let mut csv = Csv::new(&[
        "cell",
        "t_first",
        "t_last",
        "n",
        "draws",
        "vb_mean",
        "vb_floor",
        "vb_excess",
        "vb_excess_low",
        "vb_excess_high",
        "eps_mse_mean",
        "eps_mse_floor",
        "eps_mse_excess",
        "eps_mse_excess_low",
        "eps_mse_excess_high",
    ]);
    let mut whole = Csv::new(&["cell", "n", "excess_bits_per_dim", "low", "high", "standard_error_within_run"]);
    for cell in &excess.cells {
        let label = &study.cells[cell.cell].label;
        cell.points.iter().for_each(|p| row(&mut csv, label, p));
        let w = &cell.whole;
        whole.row(&[label.clone(), w.n.to_string(), plain(w.mean), plain(w.low()), plain(w.high()), plain(cell.error)]);
    }
    let what = match excess.known {
        Known::Distribution => format!(
            "Final evaluation{}: loss minus that of the exact denoiser of the data's distribution on the same draws, which no network can have less than",
            study.metric.map_or(String::new(), |m| format!(" ({})", m.words()))
        ),
        Known::Examples => "Training examples, raw weights, last quarter of training, mean over ranges of t: loss minus that of the posterior mean over the \
                            training examples, which only a network that has memorised them reaches (measured on draws of its own)"
            .into(),
    };
    let axis = |(scale, hidden): (Scale, usize)| {
        let scale = if scale == Scale::Log { "logarithmic" } else { "linear, as too many means are not positive" };
        match hidden {
            0 => scale.to_string(),
            n => format!(
                "{scale}; {} not positive: no place there, see the csv",
                if n == 1 { "1 mean is".into() } else { format!("{n} means are") }
            ),
        }
    };
    let seeds = excess.cells.iter().map(|c| c.points.iter().map(|p| p.vb.n).max().unwrap_or(0));
    let (least, most) = (seeds.clone().min().unwrap_or(0), seeds.max().unwrap_or(0));
    let n = if least == most { format!("n = {} per cell", count(most, "seed")) } else { format!("n = {least} to {most} seeds per cell") };
    let without = study.cells.len() - excess.cells.len();
    let without = if without > 0 { format!(" Not known of {}.", count(without, "cell")) } else { String::new() };
    Ok(Drawn::Figure(Box::new(Figure {
        name: NAME.into(),
        title: "Excess over the least possible loss".into(),
        caption: format!(
            "{what}. First panel: by timestep, in {} (axis {}). Second panel: {} (axis {}). The axis of t is logarithmic. Lines are means over seeds ({n}). {}.{without}",
            study.unit(),
            axis(left),
            study.error_measure().1,
            axis(right),
            study.band_words()
        ),
        csv: csv.finish(),
        more_csv: vec![(WHOLE.into(), whole.finish())],
        scene,
    })))
}

fn row(csv: &mut Csv, label: &str, p: &Point) {
    let mut fields = vec![label.to_string(), p.first.to_string(), p.last.to_string(), p.vb.n.to_string(), p.draws.to_string()];
    let part = |own: &Interval, floor: f64, excess: &Interval| [own.mean, floor, excess.mean, excess.low(), excess.high()].map(plain);
    fields.extend(part(&p.vb, p.vb_floor, &p.vb_excess));
    fields.extend(part(&p.mse, p.mse_floor, &p.mse_excess));
    csv.row(&fields);
}

/// The scale of the axis, and how many means have no place on it.
fn panel(study: &Study, excess: &Excess, scene: &mut Scene, place: Rect, heading: &str, of: fn(&Point) -> Interval) -> (Scale, usize) {
    let means = || excess.cells.iter().flat_map(|c| &c.points).map(|p| of(p).mean).filter(|v| v.is_finite());
    let hidden = means().filter(|v| *v <= 0.0).count();
    // An estimate of something small may fall below 0; where few do, the rest is worth a logarithmic axis.
    let positive = hidden * 5 <= means().count();
    let scale = if positive && scale_for(means().filter(|v| *v > 0.0), 6.0) == Scale::Log { Scale::Log } else { Scale::Linear };
    let last = excess.cells.iter().filter_map(|c| c.points.last()).map(|p| p.last).max().unwrap_or(1);
    let panel = Panel::new(scene, place, heading, "timestep t", Axis::log(0.88, f64::from(last)), Axis::around(means(), scale, 0.04, 6));
    let points = |cell: &CellExcess| cell.points.iter().map(|p| (p.t(), of(p))).collect::<Vec<_>>();
    for cell in &excess.cells {
        let band: Vec<_> = points(cell).iter().map(|(t, i)| (*t, i.low(), i.high())).collect();
        panel.band(scene, &band, study.cells[cell.cell].look.color, study.band_opacity());
    }
    for cell in &excess.cells {
        let line: Vec<_> = points(cell).iter().map(|(t, i)| (*t, i.mean)).collect();
        panel.line(scene, &line, study.cells[cell.cell].look.line(2.0));
    }
    (scale, if scale == Scale::Log { hidden } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Split;
    use crate::report::synthetic;

    #[test]
    fn the_csv_is_own_minus_floor_and_what_is_not_positive_is_counted() {
        let mut data = synthetic::sweep();
        assert!(matches!(draw(&Study::new(&data)).unwrap(), Drawn::Skipped { .. }));
        for run in &mut data.runs {
            for i in 0..run.losses.t.len() {
                if run.losses.split[i] == Split::Test && run.losses.t[i] > 0 {
                    run.losses.vb_floor[i] = if run.losses.t[i] == 7 { 10.0 } else { 0.6 * run.losses.vb_mean[i] };
                    run.losses.mse_floor[i] = 0.9 * run.losses.mse_mean[i];
                }
            }
        }
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        assert!(figure.caption.contains("8 means are not positive"), "{}", figure.caption);
        let row: Vec<&str> = figure.csv.lines().find(|l| l.starts_with("cosine · vlb,17,17,")).unwrap().split(',').collect();
        let at = |run: usize| {
            let l = &data.runs[run].losses;
            (0..l.t.len()).find(|&i| l.t[i] == 17 && l.split[i] == Split::Test).map(|i| l.vb_mean[i]).unwrap()
        };
        let by_hand = Interval::of((9..12).map(|r| 0.4 * at(r)));
        for (field, value) in [(7, by_hand.mean), (8, by_hand.low()), (9, by_hand.high())] {
            assert!((row[field].parse::<f64>().unwrap() - value).abs() < 1e-12, "{row:?}");
        }
        assert_eq!((row[3], row[4]), ("3", "768"));
    }
}
