//! How far a network is from the best there could be, and where in t.
//!
//! Start at [`Excess::of`]. The floor of a loss is known in two ways that do not stand in for each other: of data whose
//! distribution is known, on the evaluated examples themselves; of any other, on training examples alone, where only a
//! network that has memorised them reaches it. The first is used where any run has it.

use super::compare::Measured;
use super::history::{History, Seen};
use super::stats::Interval;
use super::study::{Cell, FinalTerm, RunView, Study};
use super::text;
use std::collections::BTreeMap;

/// Whose least loss is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// That of the distribution: no network gets below it, on any split.
    Distribution,
    /// That of the training examples, on themselves.
    Examples,
}

/// Own loss and floor at one t, or over a range of t; intervals over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub first: u32,
    pub last: u32,
    /// Draws of all seeds.
    pub draws: u64,
    pub vb: Interval,
    pub vb_floor: f64,
    pub vb_excess: Interval,
    pub mse: Interval,
    pub mse_floor: f64,
    pub mse_excess: Interval,
}

impl Point {
    /// Where it is drawn: the middle of its range on a logarithmic axis.
    pub fn t(&self) -> f64 {
        (f64::from(self.first) * f64::from(self.last)).sqrt()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct CellExcess {
    /// Index into [`Study::cells`].
    pub cell: usize,
    /// Of the whole bound, without the prior, which no network changes: bits/dim.
    pub whole: Interval,
    /// Standard error within one run, mean over seeds; NaN where it is not known.
    pub error: f64,
    /// Ascending.
    pub points: Vec<Point>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Excess {
    pub known: Known,
    /// Cells of which it is known, in the order of the study.
    pub cells: Vec<CellExcess>,
}

/// What one run has at one t, or in one range of it.
struct Own {
    last: u32,
    n: u64,
    own: (f64, f64),
    floor: (f64, f64),
}

impl Excess {
    /// `None` where no finished run has a floor beside its losses.
    pub fn of(study: &Study) -> Option<Self> {
        let finished = || study.cells.iter().flat_map(Cell::finished);
        let known = if finished().any(|r| r.terms.iter().any(|t| t.vb_floor.is_finite())) {
            Known::Distribution
        } else if finished().any(|r| !r.data.history.late.is_empty()) {
            Known::Examples
        } else {
            return None;
        };
        let cells = study.cells.iter().enumerate().filter_map(|(cell, c)| of_cell(cell, c, known)).collect();
        Some(Self { known, cells })
    }

    pub fn cell(&self, cell: usize) -> Option<&CellExcess> {
        self.cells.iter().find(|c| c.cell == cell)
    }

    /// What it says of the cells of `ranked`, best first; at most four of them.
    pub fn sentence(&self, study: &Study, ranked: &[usize]) -> Option<String> {
        const MOST: usize = 4;
        let shown: Vec<(&str, &CellExcess)> = ranked
            .iter()
            .filter_map(|cell| Some((study.cells[*cell].label.as_str(), self.cell(*cell)?)))
            .filter(|(_, e)| e.whole.mean.is_finite())
            .collect();
        let (_, first) = shown.first()?;
        let mut items: Vec<String> = shown.iter().take(MOST).map(|(label, e)| format!("{} for {label}", e.words())).collect();
        if shown.len() > MOST {
            items.push(format!("{} more in the table", shown.len() - MOST));
        }
        let what = match self.known {
            Known::Distribution => {
                "The data's distribution is known, and with it the least bound of any network; the excess over it in bits/dim is"
            }
            Known::Examples => {
                "On training examples (raw weights, last quarter of training) the least loss is that of a network which has memorised them; the excess \
                 over it in bits/dim is"
            }
        };
        let half = first.half_at().map_or(String::new(), |range| format!("; of the first, half lies at {range}"));
        Some(format!("{what} {}{half}.", text::list(&items)))
    }
}

impl CellExcess {
    /// `0.012 ± 0.003 (n = 3)`.
    pub fn words(&self) -> String {
        format!("{} (n = {})", Measured { seeds: self.whole, error: self.error }.words(), self.whole.n).replace(") (", "; ")
    }

    /// The one t that has half of the excess, else the range from t = 1 that has it; `None` where there is none to halve.
    fn half_at(&self) -> Option<String> {
        let part = |p: &Point| f64::from(p.last - p.first + 1) * p.vb_excess.mean;
        let total: f64 = self.points.iter().map(part).sum();
        if !total.is_finite() || total <= 0.0 {
            return None;
        }
        let mut sum = 0.0;
        let reached = |p: &&Point| {
            sum += part(p);
            sum >= 0.5 * total
        };
        let alone = self.points.iter().find(|p| p.first == p.last && part(p) >= 0.5 * total);
        alone.map(|p| format!("t = {} alone", p.first)).or_else(|| self.points.iter().find(reached).map(|p| format!("t ≤ {}", p.last)))
    }
}

fn of_cell(index: usize, cell: &Cell, known: Known) -> Option<CellExcess> {
    let runs: Vec<(&RunView, BTreeMap<u32, Own>)> = cell
        .finished()
        .map(|r| {
            let own = match known {
                Known::Distribution => by_timestep(&r.terms),
                Known::Examples => by_range(&r.data.history),
            };
            (r, own)
        })
        .filter(|(_, own)| !own.is_empty())
        .collect();
    if runs.is_empty() {
        return None;
    }
    let whole = |(run, own): &(&RunView, BTreeMap<u32, Own>)| match known {
        Known::Distribution => run.result.and_then(|e| Some(e.bits_per_dim - e.floor.as_ref()?.bits_per_dim)).unwrap_or(f64::NAN),
        // A range that no window saw leaves the sum unknown.
        Known::Examples if covers(own, cell.timesteps()) => {
            own.iter().map(|(first, o)| f64::from(o.last - first + 1) * (o.own.1 - o.floor.1)).sum()
        }
        Known::Examples => f64::NAN,
    };
    let errors = runs.iter().map(|(run, _)| match known {
        Known::Distribution => run.result.and_then(|e| e.floor.as_ref()).map_or(f64::NAN, |f| f.excess_se),
        Known::Examples => f64::NAN,
    });
    let mut by_t: BTreeMap<u32, Vec<&Own>> = BTreeMap::new();
    for (first, own) in runs.iter().flat_map(|(_, own)| own) {
        by_t.entry(*first).or_default().push(own);
    }
    let point = |(first, all): (u32, Vec<&Own>)| {
        let interval = |f: &dyn Fn(&Own) -> f64| Interval::of(all.iter().map(|o| f(o)));
        Point {
            first,
            last: all[0].last,
            draws: all.iter().map(|o| o.n).sum(),
            vb: interval(&|o| o.own.1),
            vb_floor: interval(&|o| o.floor.1).mean,
            vb_excess: interval(&|o| o.own.1 - o.floor.1),
            mse: interval(&|o| o.own.0),
            mse_floor: interval(&|o| o.floor.0).mean,
            mse_excess: interval(&|o| o.own.0 - o.floor.0),
        }
    };
    Some(CellExcess {
        cell: index,
        whole: Interval::of(runs.iter().map(whole)),
        error: Interval::of(errors).mean,
        points: by_t.into_iter().map(point).collect(),
    })
}

fn by_timestep(terms: &[FinalTerm]) -> BTreeMap<u32, Own> {
    let known = terms.iter().filter(|t| t.t > 0 && t.vb_floor.is_finite());
    known.map(|t| (t.t, Own { last: t.t, n: u64::from(t.n), own: (t.mse, t.vb), floor: (t.mse_floor, t.vb_floor) })).collect()
}

fn by_range(history: &History) -> BTreeMap<u32, Own> {
    let pair = |s: &Seen| (s.mse, s.vb);
    history.late.iter().map(|l| (l.first, Own { last: l.last, n: l.own.n, own: pair(&l.own), floor: pair(&l.floor) })).collect()
}

fn covers(own: &BTreeMap<u32, Own>, timesteps: u32) -> bool {
    let mut next = 1;
    own.iter().all(|(first, o)| std::mem::replace(&mut next, o.last + 1) == *first) && next == timesteps + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Floor, Split};
    use crate::report::{Answer, synthetic};

    #[test]
    fn a_known_distribution_gives_the_excess_of_the_whole_bound_and_of_its_terms() {
        let mut data = synthetic::sweep();
        for run in &mut data.runs {
            for i in 0..run.losses.t.len() {
                if run.losses.split[i] == Split::Test && run.losses.t[i] > 0 {
                    run.losses.vb_floor[i] = 0.75 * run.losses.vb_mean[i];
                    run.losses.mse_floor[i] = 0.5 * run.losses.mse_mean[i];
                }
            }
            let e = run.evaluations.last_mut().unwrap();
            e.floor = Some(Floor { bits_per_dim: e.prior + 0.75 * (e.decoder + e.kl), excess_se: 0.001 });
        }
        let study = Study::new(&data);
        let excess = Excess::of(&study).unwrap();
        assert_eq!((excess.known, excess.cells.len()), (Known::Distribution, 8));
        let cell = &excess.cells[3];
        // The parts by t add up to the whole.
        let parts: f64 = cell.points.iter().map(|p| p.vb_excess.mean).sum();
        assert!((parts - cell.whole.mean).abs() < 1e-9, "{parts} {}", cell.whole.mean);
        let by_hand = data.runs[9..12].iter().map(|r| 0.25 * (r.evaluations.last().unwrap().decoder + r.evaluations.last().unwrap().kl));
        assert!((by_hand.sum::<f64>() / 3.0 - cell.whole.mean).abs() < 1e-9);
        assert!((cell.points[16].mse_excess.mean - cell.points[16].mse_floor).abs() < 1e-12, "half of it is the floor");
        let said = Answer::of(&study).sentences.join(" ");
        assert!(
            said.contains("distribution is known") && said.contains("4 more in the table") && said.contains("half lies at t ≤ "),
            "{said}"
        );
        let mut cell = excess.cells[0].clone();
        cell.points[99].vb_excess.mean = 10.0;
        assert_eq!(cell.half_at().unwrap(), "t = 100 alone");
        cell.points.iter_mut().for_each(|p| p.vb_excess.mean = -1.0);
        assert_eq!(cell.half_at(), None);
    }

    #[test]
    fn floors_of_training_examples_speak_of_the_end_of_training_and_say_so() {
        let mut data = synthetic::sweep();
        assert_eq!(Excess::of(&Study::new(&data)), None);
        for run in &mut data.runs[..3] {
            for i in 0..run.losses.t.len() {
                if run.losses.split[i] == Split::Train {
                    run.losses.vb_floor[i] = run.losses.vb_mean[i] - 0.01;
                    run.losses.mse_floor[i] = 0.0;
                }
            }
            run.history = History::of(&run.losses, synthetic::T);
        }
        let study = Study::new(&data);
        let excess = Excess::of(&study).unwrap();
        assert_eq!((excess.known, excess.cells.len()), (Known::Examples, 1));
        // 0.01 at each of 100 timesteps, whatever their ranges.
        assert!((excess.cells[0].whole.mean - 1.0).abs() < 1e-9, "{:?}", excess.cells[0].whole);
        assert!(excess.sentence(&study, &[0]).unwrap().contains("memorised"));
        // A range without samples makes the sum unknown, not smaller.
        for run in &mut data.runs[..3] {
            run.history.late.remove(4);
        }
        let study = Study::new(&data);
        let cell = Excess::of(&study).unwrap().cells.remove(0);
        assert_eq!(cell.whole.n, 0);
    }
}
