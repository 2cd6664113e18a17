//! How training draws t, and what a drawn t counts.
//!
//! Start at [`TimestepSource::draw`]. A draw is a function of (stream, place in the batch), for `loss_second_moment` of
//! the losses seen so far too: the only state that training has beside its weights, saved with them. The other samplers
//! know nothing of schedule, loss or network, so cells that differ in those draw the same t.

use super::spec::TimestepSampler;
use crate::rng::Stream;
use crate::units::Timestep;

/// Losses remembered for each timestep. [Nichol21, §3.3 and code]
const REMEMBERED: usize = 10;
/// Share of uniform draws among those by loss. [Nichol21, code]
const UNIFORM_SHARE: f64 = 0.001;
/// Numbers in the saved form of one timestep: how many losses came, and those that are remembered.
const FIELDS: usize = 1 + REMEMBERED;

/// Where training's timesteps come from.
#[derive(Clone, Debug, PartialEq)]
pub struct TimestepSource {
    sampler: TimestepSampler,
    timesteps: usize,
    batch: u32,
    /// Of `loss_second_moment` alone.
    history: Option<LossHistory>,
}

/// The last losses at each timestep, and the distribution that follows from them.
#[derive(Clone, Debug, PartialEq)]
struct LossHistory {
    /// How many losses came at each timestep.
    counts: Vec<u64>,
    /// The last [`REMEMBERED`] of each: loss n stands at place n mod [`REMEMBERED`].
    losses: Vec<f64>,
    /// √(mean of the squares of what is remembered).
    roots: Vec<f64>,
    /// Timesteps that have not [`REMEMBERED`] losses yet.
    unfilled: usize,
    /// p_t, and their sums from 1 to t; empty until every timestep is filled.
    probabilities: Vec<f64>,
    cumulative: Vec<f64>,
}

impl TimestepSource {
    /// Draws from 1..=`timesteps` for batches of `batch`.
    pub fn new(sampler: TimestepSampler, timesteps: usize, batch: u32) -> Self {
        let history = (sampler == TimestepSampler::LossSecondMoment).then(|| LossHistory::new(timesteps));
        Self { sampler, timesteps, batch, history }
    }

    /// The timestep of place j = `sample` in a batch of B, and the weight of its loss, with u uniform in [0, 1):
    ///
    /// - `uniform`: ⌊T u_j⌋ + 1. [Ho20, Alg. 1]
    /// - `stratified`: ⌊T (j + u_j)/B⌋ + 1.
    /// - `low_discrepancy`: ⌊T ((u + j/B) mod 1)⌋ + 1 with one u for the batch. [Kingma21]
    /// - `loss_second_moment`: t with probability p_t = 0.999 √E[L_t²] / Σ √E[L²] + 0.001/T, the expectation being over the
    ///   last 10 losses at t, and weight 1/(T p_t); as `uniform` until every t has 10. [Nichol21, Eq. 18 and code]
    ///
    /// The weights of the others are 1; of each, the mean of weight · loss over the batch is an unbiased estimate of the
    /// loss's mean over 1..=T.
    pub fn draw(&self, stream: &Stream, sample: u32) -> (Timestep, f64) {
        let t = self.timesteps as f64;
        let batch = f64::from(self.batch);
        let at = |x: f64| Timestep::from_index(((x * t) as usize).min(self.timesteps - 1));
        match self.sampler {
            TimestepSampler::Uniform => (self.uniform(stream, sample), 1.0),
            TimestepSampler::Stratified => (at((f64::from(sample) + stream.uniform(sample, 0)) / batch), 1.0),
            TimestepSampler::LowDiscrepancy => (at((stream.uniform(0, 0) + f64::from(sample) / batch).fract()), 1.0),
            TimestepSampler::LossSecondMoment => match &self.history {
                Some(history) if history.unfilled == 0 => history.draw(stream.uniform(sample, 0)),
                Some(_) | None => (self.uniform(stream, sample), 1.0),
            },
        }
    }

    fn uniform(&self, stream: &Stream, sample: u32) -> Timestep {
        Timestep::from_index(stream.below(sample, 0, self.timesteps as u32) as usize)
    }

    /// Whether the next draws depend on the losses of the last.
    pub fn learns(&self) -> bool {
        self.history.is_some()
    }

    /// Remembers the losses of a batch, in its order: each without the weight of its draw.
    pub fn record(&mut self, losses: impl Iterator<Item = (Timestep, f64)>) {
        if let Some(history) = &mut self.history {
            losses.for_each(|(t, loss)| history.push(t, loss));
            history.weigh();
        }
    }

    /// What a checkpoint must hold, as numbers, if there is anything.
    pub fn save(&self) -> Option<Vec<f64>> {
        let history = self.history.as_ref()?;
        let one = |(count, losses): (&u64, &[f64])| std::iter::once(*count as f64).chain(losses.iter().copied()).collect::<Vec<f64>>();
        Some(history.counts.iter().zip(history.losses.chunks_exact(REMEMBERED)).flat_map(one).collect())
    }

    /// Takes back what [`TimestepSource::save`] gave; false if it is not of this sampler or not of T timesteps.
    pub fn restore(&mut self, saved: Option<&[f64]>) -> bool {
        match (&mut self.history, saved) {
            (None, None) => true,
            (Some(history), Some(saved)) if saved.len() == self.timesteps * FIELDS => {
                *history = LossHistory::new(self.timesteps);
                for (i, fields) in saved.chunks_exact(FIELDS).enumerate() {
                    history.counts[i] = fields[0] as u64;
                    history.losses[i * REMEMBERED..(i + 1) * REMEMBERED].copy_from_slice(&fields[1..]);
                    history.roots[i] = history.root(i);
                }
                history.unfilled = history.counts.iter().filter(|n| **n < REMEMBERED as u64).count();
                history.weigh();
                true
            }
            _ => false,
        }
    }
}

impl LossHistory {
    fn new(timesteps: usize) -> Self {
        Self {
            counts: vec![0; timesteps],
            losses: vec![0.0; timesteps * REMEMBERED],
            roots: vec![0.0; timesteps],
            unfilled: timesteps,
            probabilities: Vec::new(),
            cumulative: Vec::new(),
        }
    }

    /// A loss that is not finite says nothing of the next: it is left out.
    fn push(&mut self, t: Timestep, loss: f64) {
        if !loss.is_finite() {
            return;
        }
        let i = t.index();
        let count = self.counts[i];
        self.losses[i * REMEMBERED + (count % REMEMBERED as u64) as usize] = loss;
        self.counts[i] = count + 1;
        self.unfilled -= usize::from(count + 1 == REMEMBERED as u64);
        self.roots[i] = self.root(i);
    }

    fn root(&self, i: usize) -> f64 {
        let losses = &self.losses[i * REMEMBERED..(i + 1) * REMEMBERED];
        (losses.iter().map(|l| l * l).sum::<f64>() / REMEMBERED as f64).sqrt()
    }

    /// The distribution, once every timestep is filled.
    fn weigh(&mut self) {
        if self.unfilled > 0 {
            return;
        }
        let total: f64 = self.roots.iter().sum();
        let n = self.roots.len() as f64;
        self.probabilities.clear();
        self.cumulative.clear();
        let mut sum = 0.0;
        for root in &self.roots {
            // Where nothing is lost anywhere, or more than a double can hold, no timestep is better than another.
            let share = if total > 0.0 && total.is_finite() { root / total } else { 1.0 / n };
            let p = (1.0 - UNIFORM_SHARE) * share + UNIFORM_SHARE / n;
            sum += p;
            self.probabilities.push(p);
            self.cumulative.push(sum);
        }
    }

    fn draw(&self, uniform: f64) -> (Timestep, f64) {
        let n = self.probabilities.len();
        let goal = uniform * self.cumulative[n - 1];
        let i = self.cumulative.partition_point(|sum| *sum <= goal).min(n - 1);
        (Timestep::from_index(i), 1.0 / (n as f64 * self.probabilities[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::named::NamedEnum;
    use crate::record::Moments;
    use crate::rng::{Purpose, stream};

    /// A loss that falls like a bound's terms.
    fn loss(t: Timestep) -> f64 {
        1.0 / f64::from(t.get()) + 0.1 * f64::from(t.get() % 7)
    }

    /// A source that has seen every timestep often enough.
    fn seasoned(sampler: TimestepSampler, timesteps: usize, batch: u32) -> TimestepSource {
        let mut source = TimestepSource::new(sampler, timesteps, batch);
        let noise = stream(3, Purpose::ToyData, 0);
        for i in 0..timesteps {
            let t = Timestep::from_index(i);
            source.record((0..10).map(|k| (t, loss(t) * (0.5 + noise.uniform(i as u32, k)))));
        }
        source
    }

    fn batch(source: &TimestepSource, step: u32) -> Vec<(Timestep, f64)> {
        (0..source.batch).map(|j| source.draw(&stream(1, Purpose::Timestep, step), j)).collect()
    }

    #[test]
    fn the_weighted_loss_of_a_batch_is_unbiased() {
        let (timesteps, size) = (50, 12);
        let full = (0..timesteps).map(|i| loss(Timestep::from_index(i))).sum::<f64>() / timesteps as f64;
        let mut spread = Vec::new();
        for sampler in TimestepSampler::ALL {
            let source = seasoned(*sampler, timesteps, size);
            let mut means = Moments::default();
            for step in 0..20_000 {
                means.push(batch(&source, step).iter().map(|(t, weight)| weight * loss(*t)).sum::<f64>() / f64::from(size));
            }
            let z = (means.mean - full) / means.standard_error();
            assert!(z.abs() < 3.0, "{sampler}: {} is not {full}, {z} standard errors", means.mean);
            spread.push(means.variance());
        }
        // What the other three are for.
        assert!(spread[1..].iter().all(|v| *v < 0.7 * spread[0]), "{spread:?}");
    }

    #[test]
    fn each_stratum_has_one_timestep_and_a_low_discrepancy_batch_equal_steps() {
        let stratified = TimestepSource::new(TimestepSampler::Stratified, 1000, 8);
        let even = TimestepSource::new(TimestepSampler::LowDiscrepancy, 1000, 8);
        for step in 0..200 {
            for (j, (t, _)) in batch(&stratified, step).iter().enumerate() {
                assert_eq!(t.index() / 125, j);
            }
            let mut t: Vec<usize> = batch(&even, step).iter().map(|(t, _)| t.index()).collect();
            t.sort_unstable();
            assert!(t.windows(2).all(|w| w[1] - w[0] == 125) && t[0] < 125, "{t:?}");
        }
        // More places than timesteps: each timestep its share.
        let many = TimestepSource::new(TimestepSampler::Stratified, 5, 20);
        let drawn = batch(&many, 0);
        assert!((1..=5).all(|t| drawn.iter().filter(|(drawn, _)| drawn.get() == t).count() == 4));
    }

    #[test]
    fn draws_by_loss_have_the_published_probabilities() {
        let source = seasoned(TimestepSampler::LossSecondMoment, 20, 4);
        let history = source.history.as_ref().unwrap();
        let root = |i: usize| (history.losses[i * 10..i * 10 + 10].iter().map(|l| l * l).sum::<f64>() / 10.0).sqrt();
        let total: f64 = (0..20).map(root).sum();
        let mut counts = [0u32; 20];
        let n = 40_000;
        for step in 0..n {
            let (t, weight) = source.draw(&stream(8, Purpose::Timestep, step), 0);
            let p = 0.999 * root(t.index()) / total + 0.001 / 20.0;
            assert!((weight * 20.0 * p - 1.0).abs() < 1e-12);
            counts[t.index()] += 1;
        }
        let chi2: f64 = (0..20)
            .map(|i| {
                let expected = f64::from(n) * (0.999 * root(i) / total + 0.001 / 20.0);
                (f64::from(counts[i]) - expected).powi(2) / expected
            })
            .sum();
        assert!(chi2 < 43.8, "chi-squared with 19 degrees of freedom at p = 0.001: {chi2}");
    }

    #[test]
    fn draws_are_uniform_until_every_timestep_has_ten_losses() {
        let uniform = TimestepSource::new(TimestepSampler::Uniform, 6, 4);
        let mut source = TimestepSource::new(TimestepSampler::LossSecondMoment, 6, 4);
        for i in 0..6 {
            let t = Timestep::from_index(i);
            assert_eq!(batch(&source, 5), batch(&uniform, 5), "{i} timesteps are filled");
            source.record((0..9).map(|_| (t, loss(t))));
            source.record([(t, f64::NAN), (t, f64::INFINITY)].into_iter());
            assert_eq!(batch(&source, 5), batch(&uniform, 5), "a loss that is not finite is none");
            source.record([(t, loss(t))].into_iter());
        }
        assert!(batch(&source, 5).iter().all(|(_, weight)| *weight != 1.0));
        // The eleventh takes the place of the first.
        let before = source.history.clone().unwrap();
        source.record([(Timestep::FIRST, 100.0)].into_iter());
        let after = source.history.unwrap();
        assert_eq!((before.losses[1..].to_vec(), after.losses[0]), (after.losses[1..].to_vec(), 100.0));
        assert!(after.probabilities[0] > before.probabilities[0]);
    }

    #[test]
    fn the_warm_up_is_as_long_as_simulated() {
        let mut steps = Moments::default();
        for seed in 0..40 {
            let mut source = TimestepSource::new(TimestepSampler::LossSecondMoment, 100, 64);
            let mut step = 0;
            while source.history.as_ref().unwrap().unfilled > 0 {
                let drawn: Vec<_> = (0..64).map(|j| source.draw(&stream(seed, Purpose::Timestep, step), j)).collect();
                source.record(drawn.into_iter().map(|(t, _)| (t, 1.0)));
                step += 1;
            }
            steps.push(f64::from(step));
        }
        assert!((steps.mean - 31.5).abs() < 2.0, "{steps:?}, not the 31.5 that counting gives");
    }

    #[test]
    fn a_source_survives_saving_at_any_moment() {
        for seen in [0, 7, 59, 60, 61, 200] {
            let mut source = TimestepSource::new(TimestepSampler::LossSecondMoment, 6, 4);
            for i in 0..seen {
                let t = Timestep::from_index(i % 6);
                source.record([(t, loss(t) * (1.0 + (i as f64).sin()))].into_iter());
            }
            let mut again = TimestepSource::new(TimestepSampler::LossSecondMoment, 6, 4);
            assert!(again.restore(source.save().as_deref()));
            assert_eq!(source, again, "after {seen} losses");
            assert!(!again.restore(None) && !again.restore(Some(&[0.0; 5])));
        }
        let mut uniform = TimestepSource::new(TimestepSampler::Uniform, 6, 4);
        assert!(uniform.save().is_none() && uniform.restore(None) && !uniform.restore(Some(&[0.0; 66])));
    }

    #[test]
    fn nothing_lost_anywhere_is_drawn_uniformly() {
        let mut source = TimestepSource::new(TimestepSampler::LossSecondMoment, 3, 4);
        for i in 0..3 {
            source.record((0..10).map(|_| (Timestep::from_index(i), 0.0)));
        }
        assert!(batch(&source, 0).iter().all(|(_, weight)| (weight - 1.0).abs() < 1e-12));
    }
}
