//! Where in t the cells differ: the difference to a reference cell, added up from t = 1.

use super::{Drawn, Figure, HEIGHT, canvas};
use crate::report::ReportError;
use crate::report::compare::term_differences;
use crate::report::draw::axis::{Axis, Scale};
use crate::report::draw::panel::MUTED;
use crate::report::draw::{Panel, Stroke};
use crate::report::stats::Interval;
use crate::report::study::{Cell, Study};
use crate::report::text::{Csv, plain};
use std::collections::BTreeMap;

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let mut cells = study.with_results().map(|(_, c)| c).filter(|c| !c.terms.is_empty());
    let Some(reference) = cells.next() else {
        return Ok(Drawn::skipped("difference", "no finished run has losses by timestep"));
    };
    let mut left_out = Vec::new();
    let mut curves: Vec<(&Cell, Vec<Row>)> = Vec::new();
    for cell in cells {
        let rows = rows(reference, cell);
        if rows.is_empty() { left_out.push(cell.label.clone()) } else { curves.push((cell, rows)) }
    }
    if curves.is_empty() {
        return Ok(Drawn::skipped("difference", "no two cells have common seeds and timesteps to compare by t"));
    }
    let (mut scene, place, names) = canvas(study, HEIGHT);
    let last = reference.timesteps();
    let values = || curves.iter().flat_map(|(_, rows)| rows.iter().flat_map(|r| [r.sum.mean, r.sum.low(), r.sum.high()])).chain([0.0]);
    let means = curves.iter().flat_map(|(_, rows)| rows.iter().map(|r| r.sum.mean)).chain([0.0]);
    // Bands may be far wider than the means; they are cut at twice the range of the means.
    let (low, high) = means.fold((0.0f64, 0.0f64), |(a, b), v| (a.min(v), b.max(v)));
    let room = (high - low).max(1e-6);
    let y = Axis::around(values().map(|v| v.clamp(low - 0.5 * room, high + 0.5 * room)), Scale::Linear, 0.04, 7);
    let heading = format!("Difference to {}, summed from 1 to t ({})", reference.label, study.unit());
    let panel = Panel::new(&mut scene, place, &heading, "timestep t", Axis::log(0.94, f64::from(last)), y);
    panel.line(&mut scene, &[(0.94, 0.0), (f64::from(last), 0.0)], Stroke::solid(MUTED, 1.5));
    for (cell, rows) in &curves {
        let band: Vec<_> = rows.iter().filter(|r| r.t > 0).map(|r| (f64::from(r.t), r.sum.low(), r.sum.high())).collect();
        panel.band(&mut scene, &band, cell.look.color, study.band_opacity());
    }
    let mut ends = Vec::new();
    for (cell, rows) in &curves {
        let line: Vec<_> = rows.iter().filter(|r| r.t > 0).map(|r| (f64::from(r.t), r.sum.mean)).collect();
        panel.line(&mut scene, &line, cell.look.line(2.2));
        ends.extend(line.last().map(|end| (cell.label.clone(), cell.look.color, end.1)));
    }
    if names.at_ends {
        panel.name_ends(&mut scene, &ends);
    }
    let mut csv =
        Csv::new(&["cell", "reference", "t", "n", "difference", "low", "high", "cumulative", "cumulative_low", "cumulative_high"]);
    for (cell, rows) in &curves {
        for r in rows {
            csv.row(&[
                cell.label.clone(),
                reference.label.clone(),
                r.t.to_string(),
                r.at.n.to_string(),
                plain(r.at.mean),
                plain(r.at.low()),
                plain(r.at.high()),
                plain(r.sum.mean),
                plain(r.sum.low()),
                plain(r.sum.high()),
            ]);
        }
    }
    let counts: Vec<usize> = curves.iter().map(|(_, rows)| rows[0].at.n).collect();
    let (least, most) = (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
    let bands = match (least, most) {
        (_, 1) => "n = 1 common seed: no band".to_string(),
        (1, _) => format!("Bands are 95 % t-intervals of paired differences over up to {most} common seeds; n = 1 has no band"),
        (a, b) if a == b => format!("Bands are 95 % t-intervals of paired differences over n = {a} common seeds"),
        (a, b) => format!("Bands are 95 % t-intervals of paired differences over n = {a} to {b} common seeds"),
    };
    let left_out = if left_out.is_empty() {
        String::new()
    } else {
        format!(" Not comparable by t, as their timesteps or seeds differ: {}.", left_out.join(", "))
    };
    Ok(Drawn::Figure(Box::new(Figure {
        name: "difference".into(),
        title: "Where in t the cells differ".into(),
        caption: format!(
            "Difference of the bound's terms to the cell {}, added up from t = 1 to t, in {}, paired by seed: a falling line gains at these timesteps, \
             a flat one neither gains nor loses, and the right end is the whole difference without the prior. The axis of t is logarithmic. {bands}.{left_out}",
            reference.label,
            study.unit()
        ),
        csv: csv.finish(),
        more_csv: Vec::new(),
        scene,
    })))
}

/// The difference at one t, and its sum over 1..=t; t = 0 is the prior, which the sums leave out.
struct Row {
    t: u32,
    at: Interval,
    sum: Interval,
}

fn rows(reference: &Cell, cell: &Cell) -> Vec<Row> {
    let differences: Vec<BTreeMap<u32, f64>> = cell.finished().filter_map(|r| term_differences(reference, cell, r.seed())).collect();
    let Some(first) = differences.first() else { return Vec::new() };
    if reference.timesteps() != cell.timesteps() || differences.iter().any(|d| !d.keys().eq(first.keys())) {
        return Vec::new();
    }
    let mut sums = vec![0.0; differences.len()];
    first
        .keys()
        .map(|&t| {
            let at: Vec<f64> = differences.iter().map(|d| d[&t]).collect();
            if t > 0 {
                for (sum, d) in sums.iter_mut().zip(&at) {
                    *sum += d;
                }
            }
            Row { t, at: Interval::of(at), sum: Interval::of(sums.iter().copied()) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic;

    #[test]
    fn the_last_sum_and_the_prior_are_the_whole_difference() {
        let data = synthetic::sweep();
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        let field = |t: &str, i: usize| -> f64 {
            let prefix = format!("cosine · simple,linear · simple,{t},");
            figure.csv.lines().find(|l| l.starts_with(&prefix)).unwrap().split(',').nth(i).unwrap().parse().unwrap()
        };
        let b = |i: usize| data.runs[i].evaluations.last().unwrap().bits_per_dim;
        let by_hand = (0..3).map(|s| b(6 + s) - b(s)).sum::<f64>() / 3.0;
        assert!((field("100", 7) + field("0", 4) - by_hand).abs() < 1e-9);
    }
}
