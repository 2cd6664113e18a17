//! Training loss against step by quartile of t: the `loss_q0` to `loss_q3` of improved DDPM. [Nichol21, code]

use super::curves::{COLUMNS, Curve, lines_words};
use super::{Drawn, Figure, Grid, Names, heading as title_above, with_legend};
use crate::report::ReportError;
use crate::report::draw::Rect;
use crate::report::draw::panel::{LINE, UNLABELLED};
use crate::report::history::{Seen, quartile_bounds};
use crate::report::study::{RunView, Study};
use crate::report::text::Csv;

pub const NAME: &str = "quartiles";
const ROW: f64 = 260.0;
const TITLE: f64 = 24.0;
/// The least a panel needs: its heading is short.
const LEAST: f64 = 190.0;

/// Its name in the csv, its title, and where it is found.
type Quantity = (&'static str, String, fn(&Seen) -> f64);

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let quantities: [Quantity; 2] = [
        ("train_eps_mse", format!("Training {} by quartile of t", study.error_name()), |s| s.mse),
        ("train_bound_term", format!("Training mean term of the bound ({}) by quartile of t", study.unit()), |s| s.vb),
    ];
    let at = |q: usize, of: fn(&Seen) -> f64| {
        move |r: &RunView<'_>| r.data.history.windows.iter().map(|w| (w.step, of(&w.quartiles[q]))).collect::<Vec<_>>()
    };
    let known = |of: fn(&Seen) -> f64| {
        let windows = || study.data.runs.iter().flat_map(|r| &r.history.windows);
        windows().any(|w| w.quartiles.iter().any(|s| of(s).is_finite()))
    };
    let shown: Vec<_> = quantities.into_iter().filter(|(.., of)| known(*of)).collect();
    if shown.is_empty() {
        return Ok(Drawn::skipped(NAME, "no run has recorded a loss yet"));
    }
    let grid = Grid::of(study, 4, 4, LEAST, ROW);
    // A title may take two lines where the figure is narrow.
    let block = TITLE + if grid.rows > 1 { LINE } else { 0.0 } + grid.height();
    let (mut scene, place) = with_legend(study, shown.len() as f64 * block + 20.0);
    let mut csv = Csv::new(&COLUMNS);
    for (row, (quantity, title, of)) in shown.iter().enumerate() {
        let y = place.y + row as f64 * block;
        let below = TITLE + title_above(&mut scene, (place.x, y), title, place.w);
        for (q, place) in grid.places(Rect { y: y + below, ..place }, 14.0).into_iter().enumerate() {
            // The axis is named below the last panel of a column.
            let last = row + 1 == shown.len() && q + grid.columns >= 4;
            let of = at(q, *of);
            let curve = Curve {
                quantity: format!("{quantity}_q{q}"),
                heading: heading(study, q),
                x_label: if last { "optimizer step" } else { "" },
                of: &of,
                ticks: 3,
                seeds: false,
                bands: false,
            };
            let h = if last { place.h } else { place.h - UNLABELLED };
            curve.draw(study, &mut scene, Rect { h, ..place }, &Names::LEGEND, &mut csv);
        }
    }
    Ok(Drawn::Figure(Box::new(Figure {
        name: NAME.into(),
        title: "Training loss by quartile of t".into(),
        caption: format!(
            "Mean over the samples of each logging window whose t lies in the quartile ⌊4 (t − 1)/T⌋ of 1..=T, as improved DDPM logs them; unweighted for \
             every loss, no smoothing, raw weights. Each panel has its own axis, logarithmic where its values span more than a factor of 6, else linear and \
             not from 0. {}",
            lines_words(study, false, false)
        ),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
}

fn heading(study: &Study, q: usize) -> String {
    match study.common_timesteps().map(|t| quartile_bounds(q, t)) {
        Some(Some((first, last))) if first == last => format!("t = {first}"),
        Some(Some((first, last))) => format!("t = {first} to {last}"),
        // T differs, or is below 4.
        _ => ["first quarter", "second quarter", "third quarter", "last quarter"][q].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Split;
    use crate::report::synthetic;

    #[test]
    fn a_quartile_is_the_mean_over_its_samples_recomputed_from_the_rows() {
        let data = synthetic::sweep();
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        for (q, bounds) in [(0, 1..=25), (2, 51..=75)] {
            let row = figure.csv.lines().find(|l| l.starts_with(&format!("train_eps_mse_q{q},quadratic · vlb,seed 1,2000,"))).unwrap();
            let value: f64 = row.split(',').nth(4).unwrap().parse().unwrap();
            let l = &data.runs[16].losses;
            let rows = (0..l.t.len()).filter(|&i| l.step[i] == 2000 && l.split[i] == Split::Train && bounds.contains(&l.t[i]));
            let (n, sum) = rows.fold((0.0, 0.0), |(n, s), i| (n + f64::from(l.n[i]), s + f64::from(l.n[i]) * l.mse_mean[i]));
            assert!((value - sum / n).abs() < 1e-12, "{value} against {}", sum / n);
        }
        assert!(figure.scene.text_boxes().iter().any(|(t, _)| t == "t = 26 to 50"));
    }
}
