//! Where in t the difference between two cells arises.
//!
//! Start at [`Attribution::of`]. The bound is a sum over t, so a difference of bounds is a sum of differences of terms;
//! this cuts 1..=T into ranges on the 1–2–5 scale and finds the shortest run of ranges that carries most of it.

use super::stats::Interval;
use super::text;
use std::collections::BTreeMap;

/// The part of the largest one-sided sum that the main range has to carry.
const MOST: f64 = 0.8;

/// What the timesteps `first..=last` contribute to a difference, in bits/dim, over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    pub first: u32,
    pub last: u32,
    pub sum: Interval,
}

/// A difference of bounds, split by t. The parts and the prior add up to the whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribution {
    /// In order of t, covering 1..=T.
    pub parts: Vec<Part>,
    /// Which of them carries most of the difference.
    pub main: usize,
    pub prior: Interval,
    pub timesteps: u32,
}

impl Attribution {
    /// From the weighted differences by t (0 is the prior) of each seed; `None` without seeds, or where the two cells
    /// were not evaluated at the same timesteps.
    pub fn of(seeds: &[BTreeMap<u32, f64>], timesteps: u32) -> Option<Self> {
        let first = seeds.first()?;
        if first.is_empty() || seeds.iter().any(|s| !s.keys().eq(first.keys()) || s.values().any(|v| !v.is_finite())) {
            return None;
        }
        let bins = bins(timesteps);
        let sum = |seed: &BTreeMap<u32, f64>, from: u32, to: u32| seed.range(from..=to).map(|(_, v)| v).sum::<f64>();
        let means: Vec<f64> = bins.iter().map(|&(a, b)| seeds.iter().map(|s| sum(s, a, b)).sum::<f64>() / seeds.len() as f64).collect();
        let (from, to) = main_range(&means);
        let part = |first: u32, last: u32| Part { first, last, sum: Interval::of(seeds.iter().map(|s| sum(s, first, last))) };
        let mut parts = Vec::new();
        if from > 0 {
            parts.push(part(1, bins[from].0 - 1));
        }
        let main = parts.len();
        parts.push(part(bins[from].0, bins[to].1));
        if to + 1 < bins.len() {
            parts.push(part(bins[to].1 + 1, timesteps));
        }
        let prior = Interval::of(seeds.iter().map(|s| s.get(&0).copied().unwrap_or(0.0)));
        Some(Self { parts, main, prior, timesteps })
    }

    /// `t ≤ 20 contributes −0.310 ± 0.012, t ≥ 21 contributes +0.050 ± 0.004 and the prior less than 0.001 bits/dim`, main
    /// range first, all with the same number of decimals.
    pub fn sentence(&self) -> String {
        let widest = self.parts.iter().map(|p| p.sum.half).filter(|h| h.is_finite()).fold(f64::NAN, f64::max);
        let decimals = text::decimals_for(self.parts[self.main].sum.mean, widest).min(6);
        let words = |i: &Interval| {
            let mean = text::signed(i.mean, decimals);
            if i.half.is_finite() { format!("{mean} ± {}", text::fixed(i.half, decimals)) } else { mean }
        };
        let mut order: Vec<usize> = vec![self.main];
        order.extend((0..self.parts.len()).filter(|i| *i != self.main));
        let mut items: Vec<String> =
            order.into_iter().map(|i| format!("{} contributes {}", self.range_words(&self.parts[i]), words(&self.parts[i].sum))).collect();
        let last_place = 10f64.powi(-(decimals as i32));
        items.push(if self.prior.mean.abs() < last_place {
            format!("the prior less than {}", text::fixed(last_place, decimals))
        } else {
            format!("the prior {}", words(&self.prior))
        });
        format!("{} bits/dim", text::list(&items))
    }

    fn range_words(&self, part: &Part) -> String {
        match (part.first, part.last) {
            (1, 1) => "t = 1 (the decoder)".into(),
            (1, last) if last == self.timesteps => "the whole range of t".into(),
            (1, last) => format!("t ≤ {last}"),
            (first, last) if last == self.timesteps => format!("t ≥ {first}"),
            (first, last) if first == last => format!("t = {first}"),
            (first, last) => format!("t = {first} to {last}"),
        }
    }
}

/// Ranges of 1..=T that end at 1, 2, 5, 10, 20, 50, …
fn bins(timesteps: u32) -> Vec<(u32, u32)> {
    let mut ends: Vec<u32> = Vec::new();
    let mut decade = 1;
    'all: loop {
        for lead in [1, 2, 5] {
            let end = lead * decade;
            if end >= timesteps {
                ends.push(timesteps);
                break 'all;
            }
            ends.push(end);
        }
        decade *= 10;
    }
    let mut first = 1;
    ends.into_iter()
        .map(|end| {
            let bin = (first, end);
            first = end + 1;
            bin
        })
        .collect()
}

/// The fewest neighbouring bins whose sum reaches [`MOST`] of the largest such sum in the direction of the total;
/// of equally short ones the largest.
fn main_range(sums: &[f64]) -> (usize, usize) {
    let sign = if sums.iter().sum::<f64>() < 0.0 { -1.0 } else { 1.0 };
    let mut all: Vec<(usize, usize, f64)> = Vec::new();
    for i in 0..sums.len() {
        let mut s = 0.0;
        for (j, x) in sums.iter().enumerate().skip(i) {
            s += sign * x;
            all.push((i, j, s));
        }
    }
    let largest = all.iter().map(|r| r.2).fold(f64::NEG_INFINITY, f64::max);
    let enough = all.into_iter().filter(|r| r.2 >= MOST * largest);
    let best = enough.min_by(|a, b| (a.1 - a.0).cmp(&(b.1 - b.0)).then(b.2.total_cmp(&a.2)));
    best.map_or((0, sums.len() - 1), |(i, j, _)| (i, j))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_cover_every_timestep_once() {
        for t in [2, 3, 10, 100, 777, 1000, 4000] {
            let b = bins(t);
            assert_eq!((b[0].0, b[b.len() - 1].1), (1, t));
            assert!(b.windows(2).all(|w| w[0].1 + 1 == w[1].0));
        }
        assert_eq!(bins(100), [(1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 100)]);
    }

    #[test]
    fn the_range_that_carries_the_difference_is_found_and_parts_add_up() {
        // −0.1 at t = 3..=20, +0.001 elsewhere, prior +0.5.
        let seed = |shift: f64| {
            (0..=100)
                .map(|t| {
                    (
                        t,
                        if t == 0 {
                            0.5
                        } else if (3..=20).contains(&t) {
                            -0.1 + shift
                        } else {
                            0.001
                        },
                    )
                })
                .collect()
        };
        let a = Attribution::of(&[seed(0.0), seed(0.001)], 100).unwrap();
        // 6..=20 carries 15/18 of it: more than four fifths.
        assert_eq!((a.parts[a.main].first, a.parts[a.main].last), (6, 20));
        let total: f64 = a.parts.iter().map(|p| p.sum.mean).sum::<f64>() + a.prior.mean;
        let direct = 0.5 + 82.0 * 0.001 + 18.0 * (-0.1 + 0.0005);
        assert!((total - direct).abs() < 1e-12);
        assert!(a.sentence().starts_with("t = 6 to 20 contributes −1.49"), "{}", a.sentence());
    }

    #[test]
    fn different_timesteps_are_not_compared() {
        let a: BTreeMap<u32, f64> = [(1, 0.1), (2, 0.1)].into();
        let b: BTreeMap<u32, f64> = [(1, 0.1), (3, 0.1)].into();
        assert_eq!(Attribution::of(&[a, b], 10), None);
        assert_eq!(Attribution::of(&[], 10), None);
    }
}
