//! A run over its steps: its table of training windows, reduced to what figures draw.
//!
//! Start at [`History::of`], which goes through the table once. A table of T = 1000 and many windows has more rows than any
//! figure has pixels: what is kept of it has a size that does not depend on T. Nothing is smoothed, and a window or range
//! of t without a finite value is NaN, never zero.

use crate::record::Split;
use crate::store::LossTable;
use std::collections::BTreeMap;

/// Ranges of t of a [`Surface`], at most; of equal width on a logarithmic axis as far as t is whole.
const RANGES: usize = 32;
/// Columns of a [`Surface`], at most: where there are more windows, neighbours are merged.
const COLUMNS: usize = 60;
/// The part of training that [`History::late`] is of.
const LATE: f64 = 0.25;

/// A mean over samples; NaN where there were none with a finite value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    pub n: u64,
    pub mse: f64,
    pub vb: f64,
}

/// One training window, over the timesteps that training drew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Updates completed at its end.
    pub step: i64,
    pub all: Seen,
    /// By quartile of t, ⌊4 (t − 1)/T⌋. [Nichol21, code: `loss_q0` to `loss_q3`]
    pub quartiles: [Seen; 4],
    /// Mean over its steps of the norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// Samples left out because a value was not finite.
    pub n_nonfinite: u64,
}

/// Training by step and range of t.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surface {
    /// First and last t of each range, ascending, covering 1..=T.
    pub ranges: Vec<(u32, u32)>,
    /// Step before the first and at the end of each column.
    pub columns: Vec<(i64, i64)>,
    /// By column, then range.
    pub seen: Vec<Seen>,
}

impl Surface {
    pub fn at(&self, column: usize, range: usize) -> Seen {
        self.seen[column * self.ranges.len() + range]
    }
}

/// The end of training in one range of t beside its floor, both over the same samples; only where the floor is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Late {
    pub first: u32,
    pub last: u32,
    pub own: Seen,
    pub floor: Seen,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// By step.
    pub windows: Vec<Window>,
    pub surface: Surface,
    /// The last quarter of training, by range of t; empty without floors.
    pub late: Vec<Late>,
}

/// Weighted sums on their way to a [`Seen`].
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    n: u64,
    mse: f64,
    vb: f64,
}

impl Sum {
    fn add(&mut self, n: u32, mse: f64, vb: f64) {
        if n > 0 && mse.is_finite() {
            self.n += u64::from(n);
            self.mse += f64::from(n) * mse;
            self.vb += f64::from(n) * vb;
        }
    }

    fn merge(&mut self, other: Sum) {
        self.n += other.n;
        self.mse += other.mse;
        self.vb += other.vb;
    }

    fn mean(self) -> Seen {
        // Without samples 0/0, which is what is meant.
        Seen { n: self.n, mse: self.mse / self.n as f64, vb: self.vb / self.n as f64 }
    }
}

struct Open {
    all: Sum,
    quartiles: [Sum; 4],
    ranges: Vec<Sum>,
    grad_norm: f64,
    n_nonfinite: u64,
}

impl History {
    /// Of a run with T = `timesteps`.
    pub fn of(losses: &LossTable, timesteps: u32) -> Self {
        let ranges = ranges(timesteps);
        let place = places(&ranges, timesteps);
        let mut open: BTreeMap<i64, Open> = BTreeMap::new();
        for i in training(losses) {
            let t = losses.t[i].min(timesteps);
            let window = open.entry(losses.step[i]).or_insert_with(|| Open {
                all: Sum::default(),
                quartiles: [Sum::default(); 4],
                ranges: vec![Sum::default(); ranges.len()],
                grad_norm: f64::NAN,
                n_nonfinite: 0,
            });
            let (n, mse, vb) = (losses.n[i], losses.mse_mean[i], losses.vb_mean[i]);
            window.all.add(n, mse, vb);
            window.quartiles[quartile(t, timesteps)].add(n, mse, vb);
            window.ranges[place[t as usize]].add(n, mse, vb);
            window.grad_norm = losses.grad_norm_mean[i];
            window.n_nonfinite += u64::from(losses.n_nonfinite[i]);
        }
        let late = late(losses, &ranges, &place, open.keys().last().copied().unwrap_or(0));
        let windows = open.iter().map(|(step, w)| Window {
            step: *step,
            all: w.all.mean(),
            quartiles: w.quartiles.map(Sum::mean),
            grad_norm: w.grad_norm,
            n_nonfinite: w.n_nonfinite,
        });
        Self { windows: windows.collect(), surface: surface(ranges, &open), late }
    }
}

/// Rows of training windows, without the prior, which training does not draw.
fn training(losses: &LossTable) -> impl Iterator<Item = usize> + '_ {
    (0..losses.t.len()).filter(|&i| losses.split[i] == Split::Train && losses.t[i] > 0)
}

/// ⌊4 (t − 1)/T⌋.
pub fn quartile(t: u32, timesteps: u32) -> usize {
    (u64::from(t.max(1) - 1) * 4 / u64::from(timesteps.max(1))).min(3) as usize
}

/// The t of each quartile, first and last; `None` where T is too short for it to have any.
pub fn quartile_bounds(q: usize, timesteps: u32) -> Option<(u32, u32)> {
    let first = (q as u32 * timesteps).div_ceil(4) + 1;
    let last = ((q as u32 + 1) * timesteps).div_ceil(4);
    (first <= last).then_some((first, last))
}

/// 1..=T cut into ranges that widen with t; single timesteps where t is small.
pub fn ranges(timesteps: u32) -> Vec<(u32, u32)> {
    let mut ranges = Vec::new();
    let mut first = 1u32;
    while first <= timesteps {
        let left = RANGES - ranges.len().min(RANGES - 1);
        let factor = (f64::from(timesteps) / (f64::from(first) - 0.5)).powf(1.0 / left as f64);
        let last = (((f64::from(first) - 0.5) * factor).round() as u32).clamp(first, timesteps);
        ranges.push((first, last));
        first = last + 1;
    }
    ranges
}

/// The range of each t in 0..=T; 0 is in none.
fn places(ranges: &[(u32, u32)], timesteps: u32) -> Vec<usize> {
    let mut place = vec![0; timesteps as usize + 1];
    for (r, (first, last)) in ranges.iter().enumerate() {
        place[*first as usize..=*last as usize].fill(r);
    }
    place
}

fn surface(ranges: Vec<(u32, u32)>, open: &BTreeMap<i64, Open>) -> Surface {
    let steps: Vec<i64> = open.keys().copied().collect();
    let count = steps.len().min(COLUMNS);
    let column = |window: usize| window * count / steps.len();
    let mut columns = Vec::with_capacity(count);
    let mut sums = vec![Sum::default(); count * ranges.len()];
    for (w, window) in open.values().enumerate() {
        let c = column(w);
        let before = if w == 0 { 0 } else { steps[w - 1] };
        if columns.len() == c {
            columns.push((before, steps[w]));
        }
        columns[c].1 = steps[w];
        for (r, sum) in window.ranges.iter().enumerate() {
            sums[c * ranges.len() + r].merge(*sum);
        }
    }
    Surface { seen: sums.into_iter().map(Sum::mean).collect(), ranges, columns }
}

fn late(losses: &LossTable, ranges: &[(u32, u32)], place: &[usize], last_step: i64) -> Vec<Late> {
    let from = last_step as f64 * (1.0 - LATE);
    let mut sums = vec![(Sum::default(), Sum::default()); ranges.len()];
    for i in training(losses) {
        let known = losses.mse_floor[i].is_finite() && losses.vb_floor[i].is_finite();
        if losses.step[i] as f64 > from && known && losses.mse_mean[i].is_finite() {
            let (own, floor) = &mut sums[place[(losses.t[i] as usize).min(place.len() - 1)]];
            own.add(losses.n[i], losses.mse_mean[i], losses.vb_mean[i]);
            floor.add(losses.n[i], losses.mse_floor[i], losses.vb_floor[i]);
        }
    }
    ranges
        .iter()
        .zip(sums)
        .filter(|(_, (own, _))| own.n > 0)
        .map(|(&(first, last), (own, floor))| Late { first, last, own: own.mean(), floor: floor.mean() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Weights;
    use crate::report::synthetic::push;

    #[test]
    fn a_window_is_averaged_over_its_samples_not_over_its_timesteps() {
        let mut losses = LossTable::default();
        for (t, n, mse) in [(1, 1, 0.9), (2, 3, 0.1), (3, 2, f64::NAN)] {
            push(&mut losses, Split::Train, Weights::Raw, 10, t, n, mse, 0.0);
        }
        let history = History::of(&losses, 8);
        assert_eq!(history.windows.len(), 1);
        let w = history.windows[0];
        assert_eq!((w.step, w.all.n, w.all.mse), (10, 4, (0.9 + 3.0 * 0.1) / 4.0));
        // T = 8: quartile 0 is t = 1, 2 and quartile 1 is t = 3, 4, where nothing finite was seen.
        assert_eq!(w.quartiles[0].mse, w.all.mse);
        assert!(w.quartiles[1].mse.is_nan() && w.quartiles[1].n == 0);
    }

    #[test]
    fn quartiles_are_those_of_the_published_code() {
        // int(4 * t / T) of t counted from 0, in Python.
        for timesteps in [4u32, 7, 10, 50, 1000] {
            for t in 1..=timesteps {
                let q = quartile(t, timesteps);
                assert_eq!(q, (4.0 * f64::from(t - 1) / f64::from(timesteps)) as usize);
                let (first, last) = quartile_bounds(q, timesteps).unwrap();
                assert!((first..=last).contains(&t), "{t} of {timesteps}: {first} to {last}");
            }
        }
        assert_eq!(quartile_bounds(0, 1000), Some((1, 250)));
        assert_eq!(quartile_bounds(3, 1000), Some((751, 1000)));
    }

    #[test]
    fn ranges_cover_every_timestep_once_and_are_few() {
        for t in [2, 3, 10, 32, 33, 100, 777, 1000, 4000] {
            let r = ranges(t);
            assert_eq!((r[0].0, r[r.len() - 1].1), (1, t));
            assert!(r.windows(2).all(|w| w[0].1 + 1 == w[1].0), "{r:?}");
            assert!(r.len() <= RANGES && (t < 40 || r.len() > 20), "{t}: {}", r.len());
            assert_eq!(r[0], (1, 1), "the decoder stands by itself");
        }
    }

    #[test]
    fn many_windows_are_merged_by_their_samples() {
        let mut losses = LossTable::default();
        for w in 1..=150i64 {
            push(&mut losses, Split::Train, Weights::Raw, w * 10, 1, w as u32, w as f64, 2.0);
        }
        let surface = History::of(&losses, 40).surface;
        assert_eq!((surface.columns.len(), surface.columns[0].0, surface.columns[COLUMNS - 1].1), (COLUMNS, 0, 1500));
        assert!(surface.columns.windows(2).all(|c| c[0].1 == c[1].0));
        // Windows 1 to 3 make the first column: (1 + 4 + 9)/6.
        assert_eq!((surface.columns[0].1, surface.at(0, 0).n), (30, 6));
        assert!((surface.at(0, 0).mse - 14.0 / 6.0).abs() < 1e-15);
        assert!(surface.at(0, 1).mse.is_nan());
    }

    #[test]
    fn the_end_of_training_stands_beside_its_floor() {
        let mut losses = LossTable::default();
        for (step, mse) in [(10, 9.0), (20, 9.0), (30, 9.0), (40, 0.5)] {
            for t in 1..=4 {
                push(&mut losses, Split::Train, Weights::Raw, step, t, 2, mse, 3.0);
                *losses.mse_floor.last_mut().unwrap() = 0.4;
                *losses.vb_floor.last_mut().unwrap() = 1.0;
            }
        }
        let late = History::of(&losses, 4).late;
        assert_eq!(late.len(), 4);
        assert_eq!((late[1].own.n, late[1].own.mse, late[1].floor.mse, late[1].floor.vb), (2, 0.5, 0.4, 1.0));
    }
}
