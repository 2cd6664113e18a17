//! The terms of the bound and the eps-MSE against t: which timesteps cost what.

use super::{Drawn, Figure, Grid, HEIGHT, MARGIN, PANEL, with_legend};
use crate::record::Term;
use crate::report::ReportError;
use crate::report::draw::axis::{Axis, Scale};
use crate::report::draw::{Panel, Rect, Scene, Stroke};
use crate::report::stats::Interval;
use crate::report::study::{Cell, CellTerm, Study};
use crate::report::text::{Csv, plain};
use crate::report::theme::{GREY, tint};

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let Some(metric) = study.metric.filter(|_| study.cells.iter().any(|c| c.terms.iter().any(|t| t.t > 0))) else {
        return Ok(Drawn::skipped("terms", "no finished run has losses by timestep"));
    };
    let grid = Grid::of(study, 2, 2, PANEL, HEIGHT - 2.0 * MARGIN);
    let (mut scene, place) = with_legend(study, grid.height() + 2.0 * MARGIN);
    let halves = grid.places(place, 28.0);
    let heading = format!("Term of the bound ({})", study.unit());
    let hidden = panel(study, &mut scene, halves[0], &heading, Quantity { of: |t| t.vb, floor: |t| t.vb_floor, decoder: true });
    panel(study, &mut scene, halves[1], study.error_name(), Quantity { of: |t| t.mse, floor: |t| t.mse_floor, decoder: false });
    let mut csv = Csv::new(&[
        "cell",
        "t",
        "term",
        "t_weight",
        "n",
        "vb_mean",
        "vb_low",
        "vb_high",
        "eps_mse_mean",
        "eps_mse_low",
        "eps_mse_high",
        "vb_floor",
        "eps_mse_floor",
        "decoder_floor",
    ]);
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
                plain(x.vb_floor),
                plain(x.mse_floor),
                plain(cell.runs[0].data.decoder_floor.filter(|_| x.t == 1).unwrap_or(f64::NAN)),
            ]);
        }
    }
    let are = |n: usize, what: &str| if n == 1 { format!("1 {what} is") } else { format!("{n} {what}s are") };
    let mut said = String::new();
    if hidden.not_positive > 0 {
        said += &format!(" {} not positive, which has no place on a logarithmic axis: see the csv.", are(hidden.not_positive, "mean"));
    }
    if hidden.below > 0 {
        said += &format!(" {} below the frame and drawn at its edge: see the csv.", are(hidden.below, "decoder term"));
    }
    Ok(Drawn::Figure(Box::new(Figure {
        name: "terms".into(),
        title: "The bound's terms by timestep".into(),
        caption: format!(
            "Final evaluation ({}), both axes logarithmic. First panel: the contribution of each timestep to the bound in {}; the dot at t = 1 is the decoder, \
             −log p(x₀ | x₁), all others are Kullback–Leibler terms; the prior term is not shown. Second panel: {}. \
             Lines are means over seeds ({}). {}.{}{said}",
            metric.words(),
            study.unit(),
            study.error_measure().1,
            study.seeds_words(),
            study.band_words(),
            floor_words(study)
        ),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
}

/// What the floors in the figure are; empty where none is known.
fn floor_words(study: &Study) -> String {
    let mut said = String::new();
    if study.with_results().any(|(_, c)| c.runs[0].data.decoder_floor.is_some_and(|f| f > 0.0)) {
        said += " Triangles at t = 1: what the fixed variance costs there whatever the network.";
    }
    if study.with_results().any(|(_, c)| c.terms.iter().any(|t| t.vb_floor.is_finite())) {
        said +=
            " Pale or dotted grey lines: the least possible values, of the exact denoiser of the data's distribution on the same draws.";
    }
    said
}

/// What a panel shows of a term.
#[derive(Clone, Copy)]
struct Quantity {
    of: fn(&CellTerm) -> Interval,
    floor: fn(&CellTerm) -> f64,
    /// Whether t = 1 is the decoder's, with a mark and a floor of its own.
    decoder: bool,
}

fn same(a: &[(f64, f64)], b: &[(f64, f64)]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(p, q)| p.0 == q.0 && (p.1 - q.1).abs() <= 1e-9 * p.1.abs())
}

/// Means that are not where they would be.
struct Hidden {
    /// Without a place on a logarithmic axis.
    not_positive: usize,
    /// Far below all others, at the frame's edge.
    below: usize,
}

/// Draws one quantity.
fn panel(study: &Study, scene: &mut Scene, place: Rect, heading: &str, what: Quantity) -> Hidden {
    let Quantity { of, floor, decoder } = what;
    let terms = || study.cells.iter().flat_map(|c| c.terms.iter().filter(|t| t.t > 0));
    let last = terms().map(|t| t.t).max().unwrap_or(1);
    let decoder_floor = |c: &Cell| c.runs[0].data.decoder_floor.filter(|f| decoder && *f > 0.0 && !c.terms.is_empty());
    // A little room on the left keeps the mark at t = 1 off the axis.
    let x = Axis::log(0.88, f64::from(last));
    let means = || terms().map(|t| of(t).mean);
    let kl = || terms().filter(|t| t.t > 1 || !decoder).map(|t| of(t).mean).filter(|v| *v > 0.0);
    let (low, high) = kl().fold((f64::INFINITY, 0.0f64), |(a, b), v| (a.min(v), b.max(v)));
    // A decoder or floor that is next to nothing does not decide the axis.
    let near = |v: &f64| *v > 1e-2 * low && *v < 1e2 * high;
    let below = means().filter(|v| *v > 0.0 && *v <= 1e-2 * low).count();
    let floors = terms().map(floor).chain(study.cells.iter().filter_map(decoder_floor));
    let y = Axis::around(means().chain(floors).filter(near), Scale::Log, 0.04, 6);
    let panel = Panel::new(scene, place, heading, "timestep t", x, y);
    let line = |cell: &Cell, value: &dyn Fn(&CellTerm) -> f64| -> Vec<(f64, f64)> {
        // The decoder is a quantity of its own: no line leads to it.
        let first = if decoder { 1 } else { 0 };
        cell.terms.iter().filter(|t| t.t > first).map(|t| (f64::from(t.t), value(t))).collect()
    };
    for cell in &study.cells {
        let ends = line(cell, &|t| of(t).low()).into_iter().zip(line(cell, &|t| of(t).high()));
        panel.band(scene, &ends.map(|((t, low), (_, high))| (t, low, high)).collect::<Vec<_>>(), cell.look.color, study.band_opacity());
    }
    let floors_of = |c: &Cell| line(c, &floor).into_iter().filter(|p| p.1.is_finite()).collect::<Vec<_>>();
    let known: Vec<&Cell> = study.cells.iter().filter(|c| !floors_of(c).is_empty()).collect();
    // A floor that all share is nobody's own.
    let shared = known.len() > 1 && known.windows(2).all(|w| same(&floors_of(w[0]), &floors_of(w[1])));
    if shared {
        panel.line(scene, &floors_of(known[0]), Stroke { color: GREY, width: 1.4, dash: &[2.0, 3.5] });
    }
    for cell in known.into_iter().filter(|_| !shared) {
        panel.line(scene, &floors_of(cell), Stroke { color: tint(cell.look.color, 0.45), width: 1.4, dash: cell.look.dash });
    }
    for cell in &study.cells {
        panel.line(scene, &line(cell, &|t| of(t).mean), cell.look.line(1.7));
    }
    for cell in study.cells.iter().filter(|_| decoder) {
        if let Some((x, y)) = decoder_floor(cell).and_then(|f| panel.place(1.0, f)) {
            scene.polygon(vec![(x - 5.5, y + 4.0), (x + 5.5, y + 4.0), (x, y - 5.0)], tint(cell.look.color, 0.75), 1.0);
        }
        if let Some(first) = cell.terms.iter().find(|t| t.t == 1) {
            panel.dot(scene, 1.0, of(first).mean, 4.5, cell.look.color);
        }
    }
    Hidden { not_positive: means().filter(|v| *v <= 0.0).count(), below }
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
        // The floor of the decoder stands in its row alone.
        assert!(decoder.ends_with(",,,0.3") && figure.csv.matches(",0.3\n").count() == 8, "{decoder}");
        assert!(figure.caption.contains("Triangles at t = 1") && !figure.caption.contains("Pale or dotted"));
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
