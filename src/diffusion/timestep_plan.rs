//! Which timesteps an evaluation visits, what each stands for, and what error comes of not visiting all.
//!
//! Start at [`TimestepPlan`]. Timesteps are drawn within strata that cover 1..=T, so every weighted sum over a plan is an
//! unbiased estimate of the sum over all t. The draws come from the evaluation's own stream: all evaluations with the same T
//! and the same plan visit the same t.

use crate::rng::{self, Purpose, Stream};
use crate::units::Timestep;

/// One timestep of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Visit {
    pub t: Timestep,
    /// How many timesteps it stands for.
    pub weight: f64,
    /// Noise draws for each example.
    pub draws: u32,
}

/// What several draws are draws of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Noise, at the same timesteps.
    Noise,
    /// Timesteps within a stratum, each with its own noise, as far as there are so many; what is left is noise. From two draws
    /// on, the error of choosing t shows within the strata themselves.
    Timesteps,
}

/// Neighbouring timesteps, of which so many are visited: drawn uniformly, without replacement.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stratum {
    size: usize,
    visits: usize,
}

/// The timesteps of an evaluation, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct TimestepPlan {
    visits: Vec<Visit>,
    /// In the order of the visits.
    strata: Vec<Stratum>,
    draws: u32,
}

impl TimestepPlan {
    /// Every timestep.
    pub fn all(timesteps: usize, draws: u32) -> Self {
        Self::drawn(timesteps, &[], draws, Spread::Noise, &choices(timesteps))
    }

    /// t = 1 and t = T by themselves, and one timestep drawn in each of `strata − 2` strata between, at least one, that widen
    /// geometrically.
    ///
    /// The terms of the bound fall about as 1/t, so strata of equal ratio keep each of them nearly constant; the first are
    /// single timesteps, where most of the bound lies. T is not left to chance: where a schedule leaves almost no signal (the
    /// last step of cosine), an x_0 that is not clipped can have nearly all of its bound there.
    pub fn strided(timesteps: usize, strata: u32, draws: u32, spread: Spread) -> Self {
        Self::strided_by(timesteps, strata, draws, spread, &choices(timesteps))
    }

    /// As [`strided`](Self::strided), with the draws of another stream: for those who ask how the estimates scatter.
    pub(super) fn strided_by(timesteps: usize, strata: u32, draws: u32, spread: Spread, stream: &Stream) -> Self {
        Self::drawn(1, &up_to(2, timesteps, strata.max(3) as usize - 1), draws, spread, stream)
    }

    /// Each of the first `head` timesteps, and one drawn in each of `strata` strata of the rest, at least two, the last of which
    /// is T, as in [`strided`](Self::strided). [Nichol21, App. E] finds that a likelihood wants every t of a head.
    pub fn dense_head(timesteps: usize, head: usize, strata: u32, draws: u32, spread: Spread) -> Self {
        Self::dense_head_by(timesteps, head, strata, draws, spread, &choices(timesteps))
    }

    pub(super) fn dense_head_by(timesteps: usize, head: usize, strata: u32, draws: u32, spread: Spread, stream: &Stream) -> Self {
        let head = head.clamp(1, timesteps);
        Self::drawn(head, &up_to(head + 1, timesteps, strata.max(2) as usize), draws, spread, stream)
    }

    /// `rest` are strata as (first t, size).
    fn drawn(head: usize, rest: &[(usize, usize)], draws: u32, spread: Spread, stream: &Stream) -> Self {
        let draws = draws.max(1);
        let mut visits: Vec<Visit> = (0..head).map(|i| Visit { t: Timestep::from_index(i), weight: 1.0, draws }).collect();
        let mut strata = vec![Stratum { size: 1, visits: 1 }; head];
        for (i, (first, size)) in rest.iter().enumerate() {
            let left = (rest.len() - i) as u32;
            let count = match spread {
                Spread::Noise => 1,
                Spread::Timesteps => (draws as usize).min(*size),
            };
            let start = stream.below(left, rest.len() as u32, *size as u32) as usize;
            // The first one is the choice of every plan with these strata; the others are drawn from what is left.
            let mut others: Vec<usize> = (1..*size).collect();
            let mut offsets = vec![start];
            for k in 0..count - 1 {
                let choice = stream.lane(1).below(left, k as u32, (others.len() - k) as u32) as usize;
                others.swap(k, k + choice);
                offsets.push((start + others[k]) % size);
            }
            offsets.sort_unstable();
            let visit = |offset: usize| Visit {
                t: Timestep::from_index(first + offset - 1),
                weight: *size as f64 / count as f64,
                draws: draws.div_ceil(count as u32),
            };
            visits.extend(offsets.into_iter().map(visit));
            strata.push(Stratum { size: *size, visits: count });
        }
        Self { visits, strata, draws }
    }

    pub fn visits(&self) -> &[Visit] {
        &self.visits
    }

    /// Draws for each example and stratum.
    pub fn draws(&self) -> u32 {
        self.draws
    }

    /// T.
    pub fn timesteps(&self) -> usize {
        self.strata.iter().map(|s| s.size).sum()
    }

    /// Whether every t is visited.
    pub fn is_complete(&self) -> bool {
        self.strata.iter().all(Stratum::is_complete)
    }

    /// Whether visit `i` lies in a stratum of which some timesteps are not visited.
    pub fn is_sampled(&self) -> Vec<bool> {
        self.strata.iter().flat_map(|s| std::iter::repeat_n(!s.is_complete(), s.visits)).collect()
    }

    /// The timesteps of the stratum of each visit, as (first, last).
    pub fn ranges(&self) -> Vec<(u32, u32)> {
        let mut first = 1;
        let mut out = Vec::with_capacity(self.visits.len());
        for s in &self.strata {
            out.extend(std::iter::repeat_n((first, first + s.size as u32 - 1), s.visits));
            first += s.size as u32;
        }
        out
    }

    /// The variance of the weighted sum that comes of visiting some timesteps only; 0 where all are visited.
    ///
    /// `values[v][i]` is what example `i` had at visit `v`; those of complete strata are not looked at. With n ≥ 2 of N
    /// timesteps visited in a stratum its sum has the variance N² (1 − n/N) S²/n, S² being that of the expectations over
    /// examples and noise: what the examples and their noise add to the variance of the observed means is estimated from the
    /// scatter between examples and taken off, so the estimate is unbiased (and may come out below 0). Strata with one
    /// visit each are taken in pairs, as if one were a second draw of the other ("collapsed strata", Cochran, Sampling
    /// Techniques, §5A.12): that counts the difference between them as error, so it errs on the large side. NaN where there
    /// is a single such stratum.
    pub fn choice_variance(&self, values: &[Vec<f64>]) -> f64 {
        let mut total = 0.0;
        let mut alone: Vec<(usize, usize)> = Vec::new();
        let mut at = 0;
        for s in &self.strata {
            if !s.is_complete() {
                if s.visits >= 2 {
                    let group: Vec<(f64, &[f64])> = (at..at + s.visits).map(|v| (1.0, values[v].as_slice())).collect();
                    let (size, n) = (s.size as f64, s.visits as f64);
                    total += size * size * (1.0 - n / size) * variance_between(&group) / n;
                } else {
                    alone.push((at, s.size));
                }
            }
            at += s.visits;
        }
        // Pairs of neighbours; the last group has three where their number is odd.
        while !alone.is_empty() {
            let take = if alone.len() == 3 { 3 } else { alone.len().min(2) };
            let group: Vec<(f64, &[f64])> = alone.drain(..take).map(|(v, size)| (size as f64, values[v].as_slice())).collect();
            total += if take == 1 { f64::NAN } else { take as f64 * variance_between(&group) };
        }
        total
    }
}

impl Stratum {
    fn is_complete(&self) -> bool {
        self.visits == self.size
    }
}

/// The evaluation's own choices.
fn choices(timesteps: usize) -> Stream {
    rng::stream(rng::EVALUATION_SEED, Purpose::Timestep, timesteps as u32)
}

/// `strata` ranges that cover `first..=timesteps`, the last timestep being one of them.
fn up_to(first: usize, timesteps: usize, strata: usize) -> Vec<(usize, usize)> {
    if first > timesteps {
        return Vec::new();
    }
    let mut out = geometric(first, timesteps - 1, strata - 1);
    out.push((timesteps, 1));
    out
}

/// `strata` ranges that cover `first..=last`, of about equal ratio, each with a timestep at least: (first, size).
fn geometric(first: usize, last: usize, strata: usize) -> Vec<(usize, usize)> {
    let strata = strata.min((last + 1).saturating_sub(first));
    let mut out = Vec::with_capacity(strata);
    // The next one is first..end; `left` of them must reach the last timestep.
    let mut first = first;
    for left in (1..=strata).rev() {
        let ratio = ((last + 1) as f64 / first as f64).powf(1.0 / left as f64);
        let end = ((first as f64 * ratio).round() as usize).clamp(first + 1, last + 2 - left);
        out.push((first, end - first));
        first = end;
    }
    out
}

/// An unbiased estimate of the variance between the expectations of the members: that of their means over examples, less
/// what the scatter of examples adds to it. A member is a factor and its value for each example.
fn variance_between(group: &[(f64, &[f64])]) -> f64 {
    let examples = group[0].1.len();
    let variance = |values: &mut dyn Iterator<Item = f64>| {
        let mut moments = crate::record::Moments::default();
        values.for_each(|x| moments.push(x));
        moments.variance()
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / examples as f64;
    let observed = variance(&mut group.iter().map(|(factor, values)| factor * mean(values)));
    if examples < 2 {
        return observed;
    }
    let within: f64 = (0..examples).map(|i| variance(&mut group.iter().map(|(factor, values)| factor * values[i]))).sum::<f64>();
    observed - (within / examples as f64 - observed) / (examples - 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Moments;

    fn stream(i: u32) -> Stream {
        rng::stream(77, Purpose::Timestep, i)
    }

    /// A curve like the bound's, exactly summed and as a plan sees it.
    fn curve(t: f64) -> f64 {
        1.0 / t + 0.02 / t.sqrt()
    }

    fn estimate(plan: &TimestepPlan) -> f64 {
        plan.visits().iter().map(|v| v.weight * curve(f64::from(v.t.get()))).sum()
    }

    #[test]
    fn weights_stand_for_every_timestep_and_visits_rise() {
        for timesteps in [2, 3, 7, 50, 100, 1000] {
            for plan in [
                TimestepPlan::all(timesteps, 3),
                TimestepPlan::strided(timesteps, 1, 1, Spread::Noise),
                TimestepPlan::strided(timesteps, 20, 1, Spread::Noise),
                TimestepPlan::strided(timesteps, 20, 3, Spread::Timesteps),
                TimestepPlan::dense_head(timesteps, timesteps / 10, 6, 2, Spread::Timesteps),
                TimestepPlan::dense_head(timesteps, timesteps, 6, 2, Spread::Timesteps),
            ] {
                let total: f64 = plan.visits().iter().map(|v| v.weight).sum();
                assert!((total - timesteps as f64).abs() < 1e-9 && plan.timesteps() == timesteps, "{plan:?}");
                assert!(plan.visits().windows(2).all(|p| p[0].t < p[1].t), "{plan:?}");
                for (visit, t) in [(plan.visits().first(), 1), (plan.visits().last(), timesteps)] {
                    assert!(visit.is_some_and(|v| v.t.get() as usize == t && v.weight == 1.0), "{plan:?}");
                }
                for (visit, (first, last)) in plan.visits().iter().zip(plan.ranges()) {
                    assert!((first..=last).contains(&visit.t.get()));
                }
                assert_eq!(plan.ranges().last().unwrap().1 as usize, timesteps);
            }
        }
    }

    #[test]
    fn draws_add_timesteps_to_those_of_a_single_draw_and_complete_small_strata() {
        let one = TimestepPlan::strided(1000, 30, 1, Spread::Timesteps);
        let many = TimestepPlan::strided(1000, 30, 4, Spread::Timesteps);
        assert_eq!(one, TimestepPlan::strided(1000, 30, 1, Spread::Noise));
        let visited: Vec<u32> = many.visits().iter().map(|v| v.t.get()).collect();
        assert!(one.visits().iter().all(|v| visited.contains(&v.t.get())), "the first choice stays");
        for (visit, sampled) in many.visits().iter().zip(many.is_sampled()) {
            assert!(if sampled { visit.draws == 1 } else { (1..=4).contains(&visit.draws) }, "{visit:?}");
        }
        let noise = TimestepPlan::strided(1000, 30, 4, Spread::Noise);
        assert!(noise.visits().iter().all(|v| v.draws == 4) && noise.visits().len() == 30);
        assert!(TimestepPlan::all(9, 2).is_complete() && !many.is_complete());
    }

    #[test]
    fn strided_and_dense_head_plans_are_unbiased_and_know_their_error() {
        let timesteps = 400;
        let exact: f64 = (1..=timesteps).map(|t| curve(t as f64)).sum();
        type Make = fn(u32) -> TimestepPlan;
        let plans: [(&str, Make, bool); 5] = [
            ("strided", |i| TimestepPlan::strided_by(400, 12, 1, Spread::Noise, &stream(i)), false),
            ("strided, 2 draws", |i| TimestepPlan::strided_by(400, 12, 2, Spread::Timesteps, &stream(i)), true),
            ("strided, 5 draws", |i| TimestepPlan::strided_by(400, 12, 5, Spread::Timesteps, &stream(i)), true),
            ("dense head", |i| TimestepPlan::dense_head_by(400, 20, 7, 1, Spread::Noise, &stream(i)), false),
            ("dense head, 3 draws", |i| TimestepPlan::dense_head_by(400, 20, 7, 3, Spread::Timesteps, &stream(i)), true),
        ];
        for (name, make, exactly) in plans {
            let (mut estimates, mut variances) = (Moments::default(), Moments::default());
            for i in 0..4000 {
                let plan = make(i);
                estimates.push(estimate(&plan));
                let values: Vec<Vec<f64>> = plan.visits().iter().map(|v| vec![curve(f64::from(v.t.get()))]).collect();
                variances.push(plan.choice_variance(&values));
            }
            let z = (estimates.mean - exact) / estimates.standard_error();
            assert!(z.abs() < 3.0, "{name}: {} against {exact}, {z} standard errors", estimates.mean);
            let ratio = variances.mean / estimates.variance();
            assert!(estimates.variance() > 1e-8, "{name}: the estimates vary, so the test can fail");
            if exactly {
                assert!((ratio - 1.0).abs() < 0.1, "{name}: claimed variance over true one {ratio}");
            } else {
                assert!((0.95..4.0).contains(&ratio), "{name}: pairs of strata err on the large side: {ratio}");
            }
        }
    }

    #[test]
    fn noise_of_few_examples_is_not_taken_for_the_choice_of_t() {
        // Values that do not depend on t, under noise: nothing comes of the choice of t.
        let plan = TimestepPlan::strided(400, 12, 2, Spread::Timesteps);
        let mut variances = Moments::default();
        let mut raw = Moments::default();
        for i in 0..2000u32 {
            let values: Vec<Vec<f64>> = (0..plan.visits().len())
                .map(|v| {
                    let mut noise = [0.0f32; 8];
                    rng::stream(78, Purpose::Noise, i).normals(v as u32, &mut noise);
                    noise.iter().map(|x| f64::from(*x)).collect()
                })
                .collect();
            variances.push(plan.choice_variance(&values));
            let means: Vec<Vec<f64>> = values.iter().map(|x| vec![x.iter().sum::<f64>() / 8.0]).collect();
            raw.push(plan.choice_variance(&means));
        }
        assert!(variances.mean.abs() < 3.0 * variances.standard_error(), "{variances:?}");
        assert!(raw.mean > 20.0 * raw.standard_error(), "uncorrected it would show: {raw:?}");
        assert!(
            TimestepPlan::strided(400, 3, 1, Spread::Noise).choice_variance(&[vec![1.0, 2.0], vec![1.0, 3.0], vec![1.0, 2.0]]).is_nan()
        );
        assert_eq!(TimestepPlan::all(3, 1).choice_variance(&[]), 0.0);
    }
}
