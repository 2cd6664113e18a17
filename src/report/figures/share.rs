//! How the bound is spread over t: its growth from t = 1, and its share in each tenth of 1..=T.

use super::{Drawn, Figure, LEAST_TEXT, LINE_OF_NAME, heading, with_legend};
use crate::report::ReportError;
use crate::report::draw::axis::{Axis, Scale};
use crate::report::draw::fonts::{fitted, text_width};
use crate::report::draw::panel::{INK, TICK_SIZE};
use crate::report::draw::{Anchor, Panel, Rect, Scene};
use crate::report::stats::Interval;
use crate::report::study::{Cell, Study};
use crate::report::text::{Csv, fixed, plain};
use crate::report::theme::tint;
use std::collections::BTreeMap;

/// The table of the sums.
pub const CUMULATIVE: &str = "share_cumulative";
const CURVES: f64 = 330.0;
const ROW: f64 = 27.0;

pub fn draw(study: &Study) -> Result<Drawn, ReportError> {
    let cells: Vec<&Cell> = study.with_results().map(|(_, c)| c).filter(|c| !c.terms.is_empty()).collect();
    if cells.is_empty() {
        return Ok(Drawn::skipped("share", "no finished run has losses by timestep"));
    }
    let shares: Vec<Vec<Interval>> = cells.iter().map(|c| shares(c)).collect();
    // Shares of a sum with negative parts mean nothing: then the table shows bits.
    let as_percent = shares.iter().flatten().all(|i| i.mean >= 0.0);
    let above = names_above(&cells, study.width);
    let rows = (ROW + if above { LINE_OF_NAME } else { 0.0 }) * cells.len() as f64;
    let (mut scene, place) = with_legend(study, CURVES + 86.0 + rows);
    let growth = growth(study, &cells, &mut scene, Rect { h: CURVES, ..place });
    let below = Rect { y: place.y + CURVES + 10.0, h: place.h - CURVES - 10.0, ..place };
    let kind = if as_percent { Kind::Percent } else { Kind::Bits(study.unit()) };
    table(&cells, &shares, kind, &mut scene, below, above);
    let mut csv = Csv::new(&["cell", "part", "n", "bits_per_dim", "low", "high", "share"]);
    for (cell, parts) in cells.iter().zip(&shares) {
        let total: f64 = parts.iter().map(|p| p.mean).sum();
        for (name, part) in PARTS.iter().zip(parts) {
            csv.row(&[
                cell.label.clone(),
                (*name).into(),
                part.n.to_string(),
                plain(part.mean),
                plain(part.low()),
                plain(part.high()),
                if as_percent { plain(part.mean / total) } else { String::new() },
            ]);
        }
    }
    let table = if as_percent { "share of the bound" } else { "bits/dim (shares mean nothing where terms are negative)" };
    Ok(Drawn::Figure(Box::new(Figure {
        name: "share".into(),
        title: "How the bound is spread over t".into(),
        caption: format!(
            "Final evaluation, means over seeds, {}. Top: the bound's terms added up from t = 1 to t, in {}, without the prior; logarithmic in t, linear \
             in bits. {}. Bottom: {table} in the decoder (t = 1), in each tenth of the timesteps (the first without t = 1) and in the prior.",
            study.seeds_words(),
            study.unit(),
            study.band_words()
        ),
        csv: csv.finish(),
        more_csv: vec![(CUMULATIVE.into(), growth)],
        scene,
    })))
}

const PARTS: [&str; 12] = ["decoder", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "prior"];

/// Sums over each part of the bound, as intervals over seeds.
fn shares(cell: &Cell) -> Vec<Interval> {
    let timesteps = u64::from(cell.timesteps());
    let part = |t: u32| match t {
        0 => 11,
        1 => 0,
        t => (u64::from(t) * 10).div_ceil(timesteps).clamp(1, 10) as usize,
    };
    let seeds: Vec<[f64; 12]> = cell
        .finished()
        .filter(|r| !r.terms.is_empty())
        .map(|r| {
            let mut sums = [0.0; 12];
            for term in &r.terms {
                sums[part(term.t)] += term.t_weight * term.vb;
            }
            sums
        })
        .collect();
    (0..12).map(|i| Interval::of(seeds.iter().map(|s| s[i]))).collect()
}

/// The sums over 1..=t of each seed, as intervals.
fn cumulative(cell: &Cell) -> BTreeMap<u32, Interval> {
    let mut by_t: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for run in cell.finished() {
        let mut sum = 0.0;
        for term in run.terms.iter().filter(|t| t.t > 0) {
            sum += term.t_weight * term.vb;
            by_t.entry(term.t).or_default().push(sum);
        }
    }
    by_t.into_iter().map(|(t, values)| (t, Interval::of(values))).filter(|(_, i)| i.n > 0).collect()
}

/// Draws the growing sums and returns their csv.
fn growth(study: &Study, cells: &[&Cell], scene: &mut Scene, place: Rect) -> String {
    let curves: Vec<(&Cell, BTreeMap<u32, Interval>)> = cells.iter().map(|c| (*c, cumulative(c))).collect();
    let last = curves.iter().filter_map(|(_, c)| c.keys().last().copied()).max().unwrap_or(1);
    let values = curves.iter().flat_map(|(_, c)| c.values().map(|i| i.mean)).chain([0.0]);
    let y = Axis::around(values, Scale::Linear, 0.03, 5);
    let panel = Panel::new(
        scene,
        place,
        &format!("Bound, summed from 1 to t ({})", study.unit()),
        "timestep t",
        Axis::log(0.94, f64::from(last)),
        y,
    );
    for (cell, curve) in &curves {
        panel.band(
            scene,
            &curve.iter().map(|(t, i)| (f64::from(*t), i.low(), i.high())).collect::<Vec<_>>(),
            cell.look.color,
            study.band_opacity(),
        );
    }
    let mut csv = Csv::new(&["cell", "t", "n", "cumulative_bits_per_dim", "low", "high"]);
    for (cell, curve) in &curves {
        panel.line(scene, &curve.iter().map(|(t, i)| (f64::from(*t), i.mean)).collect::<Vec<_>>(), cell.look.line(2.2));
        for (t, i) in curve {
            csv.row(&[cell.label.clone(), t.to_string(), i.n.to_string(), plain(i.mean), plain(i.low()), plain(i.high())]);
        }
    }
    csv.finish()
}

/// What the table shows.
#[derive(Clone, Copy)]
enum Kind<'a> {
    Percent,
    /// In the unit.
    Bits(&'a str),
}

/// The share of the width that names may take at the left of a table's rows.
const NAMES: f64 = 0.27;

fn names_above(cells: &[&Cell], width: f64) -> bool {
    width < 700.0 || cells.iter().any(|c| text_width(&c.label, TICK_SIZE, false) > NAMES * width)
}

fn table(cells: &[&Cell], shares: &[Vec<Interval>], kind: Kind, scene: &mut Scene, place: Rect, above: bool) {
    let labels = if above { 0.0 } else { cells.iter().map(|c| text_width(&c.label, TICK_SIZE, false)).fold(0.0, f64::max) + 12.0 };
    let column = (place.w - labels) / 12.0;
    // Columns that are narrow have smaller numbers, and no room for the name of their heads.
    let (size, narrow) = if column < 48.0 { (LEAST_TEXT, true) } else { (TICK_SIZE, false) };
    let parts = if above { "t/T" } else { "tenth of T" };
    let words = match kind {
        Kind::Percent => format!("Share of the bound by {parts} (%)"),
        Kind::Bits(unit) => format!("Bound by {parts} ({unit})"),
    };
    let top = place.y + 26.0 + heading(scene, (place.x, place.y), &words, place.w);
    if !above {
        scene.text((place.x + labels - 8.0, top + 15.0), "t/T", TICK_SIZE, INK, Anchor::End);
    }
    for i in 0..12 {
        let head = match i {
            0 => "t = 1".into(),
            11 => "prior".into(),
            10 => format!("≤{}1", if narrow { "" } else { " " }),
            i => format!("≤{}0.{i}", if narrow { "" } else { " " }),
        };
        scene.text((place.x + labels + (f64::from(i) + 0.5) * column, top + 15.0), &head, size, INK, Anchor::Middle);
    }
    let step = ROW + if above { LINE_OF_NAME } else { 0.0 };
    for (r, (cell, parts)) in cells.iter().zip(shares).enumerate() {
        let mut y = top + 22.0 + r as f64 * step;
        if above {
            scene.text((place.x, y + 16.0), &fitted(&cell.label, TICK_SIZE, false, place.w), TICK_SIZE, INK, Anchor::Start);
            y += LINE_OF_NAME;
        } else {
            scene.text((place.x + labels - 8.0, y + ROW / 2.0 + 5.0), &cell.label, TICK_SIZE, INK, Anchor::End);
        }
        let total: f64 = parts.iter().map(|p| p.mean).sum();
        let largest = parts.iter().map(|p| p.mean.abs()).fold(0.0, f64::max);
        for (i, part) in parts.iter().enumerate() {
            let x = place.x + labels + i as f64 * column;
            let (whole, words) = match kind {
                Kind::Percent => (total, percent(part.mean / total)),
                Kind::Bits(_) => (largest, fixed(part.mean, if narrow { 1 } else { 2 })),
            };
            let strength = if largest > 0.0 { 0.75 * (part.mean.abs() / whole).sqrt() } else { 0.0 };
            let strength = if strength.is_finite() { strength } else { 0.0 };
            let color = if part.mean < 0.0 { [0xD5, 0x5E, 0x00] } else { [0x00, 0x72, 0xB2] };
            scene.rect(x + 1.0, y + 1.0, column - 2.0, ROW - 2.0, tint(color, strength));
            scene.text((x + column / 2.0, y + ROW / 2.0 + 5.0), &words, size, INK, Anchor::Middle);
        }
    }
}

/// Three places at most; what is there but rounds to nothing is `<0.1`.
fn percent(share: f64) -> String {
    let p = 100.0 * share;
    if p > 0.0 && p < 0.05 { "<0.1".into() } else { fixed(p, 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic;

    #[test]
    fn parts_add_up_to_the_bound_and_tenths_end_at_their_timestep() {
        let data = synthetic::sweep();
        let study = Study::new(&data);
        let parts = shares(&study.cells[2]);
        let bits = study.cells[2].interval(|e| e.bits_per_dim);
        assert!((parts.iter().map(|p| p.mean).sum::<f64>() - bits.mean).abs() < 1e-9);
        let tenth: f64 = study.cells[2].terms.iter().filter(|t| (11..=20).contains(&t.t)).map(|t| t.vb.mean).sum();
        assert!((parts[2].mean - tenth).abs() < 1e-12, "with T = 100 the second tenth is 11..=20");
    }

    #[test]
    fn negative_terms_are_shown_in_bits() {
        let mut data = synthetic::sweep();
        for run in &mut data.runs {
            for i in 0..run.losses.t.len() {
                if run.losses.t[i] == 1 {
                    run.losses.vb_mean[i] = -4.0;
                }
            }
        }
        let Drawn::Figure(figure) = draw(&Study::new(&data)).unwrap() else { panic!("no figure") };
        assert!(figure.caption.contains("shares mean nothing"));
        assert!(figure.csv.lines().nth(1).unwrap().ends_with(','));
    }
}
