//! The answer: which cells differ, by how much, and where in t.
//!
//! Start at [`Answer::of`]. Runs of one seed see the same noise in every cell, so differences are taken within a seed
//! and averaged over seeds (paired); a difference is called resolved only where its 95 % interval leaves out 0.
//! No claim is made from one seed. Intervals stand each for itself: no correction for their number. What pairing gains is
//! told by two standard errors of every difference, over seeds and over the evaluated examples: [`Errors`].

use super::excess::Excess;
use super::pairing::Errors;
use super::stats::Interval;
use super::study::{Cell, Study, axis_title, shown, value_words};
use super::text;
use super::where_in_t::Attribution;
use crate::record::{Evaluation, SampleQuality};
use std::collections::{BTreeMap, BTreeSet};

/// A cell's final numbers over its seeds.
#[derive(Clone, Debug)]
pub struct CellResult {
    /// Index into [`Study::cells`].
    pub cell: usize,
    pub bits: Interval,
    pub decoder: Interval,
    pub kl: Interval,
    pub prior: Interval,
    pub eps_mse: Interval,
    /// Standard error over the evaluated images, mean over seeds.
    pub image_se: f64,
    /// Distances of the final samples from held-out data; n = 0 where they were not measured.
    pub sliced_wasserstein: Measured,
    pub mmd2: Measured,
    /// Paired difference to the best cell; `None` for the best itself.
    pub versus_best: Option<Interval>,
}

/// A number that each run knows to within an error of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    pub seeds: Interval,
    /// Standard error within one run, mean over seeds.
    pub error: f64,
}

impl Measured {
    fn of(cell: &Cell, value: fn(&SampleQuality) -> f64, error: fn(&SampleQuality) -> f64) -> Self {
        let over = |f: fn(&SampleQuality) -> f64| cell.interval(|e| e.samples.as_ref().map_or(f64::NAN, f));
        Self { seeds: over(value), error: over(error).mean }
    }

    /// With the interval over seeds, or of one seed with the standard error within it.
    pub fn words(&self) -> String {
        match self.seeds.n {
            0 => "–".into(),
            1 if self.error.is_finite() => {
                let d = text::decimals_for(self.seeds.mean, self.error);
                format!("{} (s.e. {})", text::fixed(self.seeds.mean, d), text::fixed(self.error, d))
            }
            _ => text::plus_minus(self.seeds.mean, self.seeds.half),
        }
    }
}

/// The effect of changing one axis from `a` to `b` with everything else equal: b − a in bits/dim.
#[derive(Clone, Debug)]
pub struct Comparison {
    pub key: String,
    pub a: String,
    pub b: String,
    /// Averaged over the other axes within each seed; n = 0 where no seed has them all.
    pub pooled: Interval,
    /// Of the pooled difference.
    pub errors: Errors,
    /// One per combination of the other axes; empty where there are none.
    pub strata: Vec<(String, Interval)>,
    /// As long as `strata`.
    pub strata_errors: Vec<Errors>,
    /// By how much the difference changes from the first stratum to each other one.
    pub interactions: Vec<(String, Interval)>,
    /// Of the pooled difference; `None` where the cells were not evaluated at the same timesteps.
    pub attribution: Option<Attribution>,
}

#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Best first.
    pub results: Vec<CellResult>,
    pub comparisons: Vec<Comparison>,
    /// How far from the least loss, where that is known.
    pub excess: Option<Excess>,
    /// What may be said, in words.
    pub sentences: Vec<String>,
}

impl Answer {
    pub fn of(study: &Study) -> Self {
        let results = ranked(study);
        let comparisons = comparisons(study);
        let excess = Excess::of(study);
        let mut sentences = sentences(study, &results);
        let ranked: Vec<usize> = results.iter().map(|r| r.cell).collect();
        sentences.extend(excess.as_ref().and_then(|e| e.sentence(study, &ranked)));
        Self { results, comparisons, excess, sentences }
    }
}

fn bits(e: &Evaluation) -> f64 {
    e.bits_per_dim
}

/// Interval of b − a over the seeds that both have.
pub fn paired(a: &BTreeMap<i64, f64>, b: &BTreeMap<i64, f64>) -> Interval {
    Interval::of(a.iter().filter_map(|(seed, x)| Some(b.get(seed)? - x)))
}

fn ranked(study: &Study) -> Vec<CellResult> {
    let mut results: Vec<CellResult> = study
        .with_results()
        .map(|(index, cell)| CellResult {
            cell: index,
            bits: cell.interval(bits),
            decoder: cell.interval(|e| e.decoder),
            kl: cell.interval(|e| e.kl),
            prior: cell.interval(|e| e.prior),
            eps_mse: cell.interval(|e| e.eps_mse),
            image_se: cell.interval(|e| e.bits_per_dim_se).mean,
            sliced_wasserstein: Measured::of(cell, |q| q.sliced_wasserstein, |q| q.sliced_wasserstein_se),
            mmd2: Measured::of(cell, |q| q.mmd2, |q| q.mmd2_se),
            versus_best: None,
        })
        .collect();
    results.sort_by(|a, b| a.bits.mean.total_cmp(&b.bits.mean).then(a.cell.cmp(&b.cell)));
    if let Some(best) = results.first().map(|r| study.cells[r.cell].by_seed(bits)) {
        for result in &mut results[1..] {
            result.versus_best = Some(paired(&best, &study.cells[result.cell].by_seed(bits)));
        }
    }
    results
}

/// Cells that a sentence names; of more it tells the number.
const MOST_NAMED: usize = 8;

fn sentences(study: &Study, results: &[CellResult]) -> Vec<String> {
    let Some(best) = results.first() else {
        return vec!["No run has finished yet: there is nothing to compare.".into()];
    };
    let label = |r: &CellResult| study.cells[r.cell].label.clone();
    let mut said = Vec::new();
    if results.len() == 1 {
        said.push(format!(
            "{}: {} bits/dim ({}).",
            label(best),
            text::plus_minus(best.bits.mean, best.bits.half),
            interval_words(&best.bits)
        ));
        return said;
    }
    said.push(format!(
        "Lowest mean: {} with {} bits/dim ({}).",
        label(best),
        text::plus_minus(best.bits.mean, best.bits.half),
        interval_words(&best.bits)
    ));
    if results.iter().all(|r| r.bits.n < 2) {
        said.push(
            "Every cell has n = 1 seed, so nothing can be said about the spread: this is a ranking of single runs, and no difference is claimed. \
             Three seeds or more give intervals that are of use."
                .into(),
        );
        return said;
    }
    let (mut resolved, mut open, mut untested) = (Vec::new(), Vec::new(), Vec::new());
    for r in &results[1..] {
        let d = r.versus_best.unwrap_or(Interval::of([]));
        if d.n < 2 {
            untested.push(format!("{} (n = {} common {})", label(r), d.n, if d.n == 1 { "seed" } else { "seeds" }));
        } else {
            let n = format!("n = {}", d.n);
            let difference = text::signed_plus_minus(d.mean, d.half);
            if d.excludes_zero() {
                resolved.push(format!("{} ({difference}, {n})", label(r)));
            } else {
                let more = d.seeds_to_resolve().map_or(String::new(), |seeds| format!("; {seeds}"));
                open.push(format!("{} ({difference}, {n}{more})", label(r)));
            }
        }
    }
    // The table has them all.
    let several = |cells: &[String]| match cells.len() {
        0..=MOST_NAMED => text::list(cells),
        n => format!("{} and {} more in the table", cells[..MOST_NAMED].join(", "), n - MOST_NAMED),
    };
    if !resolved.is_empty() {
        said.push(format!(
            "Resolved against it, as the 95 % interval of the paired difference leaves out 0 ({} of {}): {}.",
            resolved.len(),
            results.len() - 1,
            several(&resolved)
        ));
    }
    if !open.is_empty() {
        said.push(format!("Not resolved ({} of {}): {}.", open.len(), results.len() - 1, several(&open)));
    }
    if !untested.is_empty() {
        said.push(format!("Too few common seeds for an interval, so no claim: {}.", several(&untested)));
    }
    said
}

/// `mean ± 95 % t-interval over 3 seeds`, or that there is none.
pub fn interval_words(i: &Interval) -> String {
    if i.n > 1 { format!("mean ± 95 % t-interval over {} seeds", i.n) } else { "n = 1 seed, no interval".into() }
}

/// Cells that differ in one axis alone: (everything but that axis, value) → cell index.
type Strata = Vec<(Vec<(String, String)>, BTreeMap<String, usize>)>;

fn strata_of(study: &Study, key: &str) -> (Vec<String>, Strata) {
    let mut values: Vec<String> = Vec::new();
    let mut strata: Strata = Vec::new();
    for (index, cell) in study.with_results() {
        let Some((_, value)) = cell.axes.iter().find(|(k, _)| k == key) else { continue };
        let rest: Vec<(String, String)> = cell.axes.iter().filter(|(k, _)| k != key).cloned().collect();
        if !values.contains(value) {
            values.push(value.clone());
        }
        match strata.iter_mut().find(|(r, _)| *r == rest) {
            Some((_, cells)) => {
                cells.insert(value.clone(), index);
            }
            None => strata.push((rest, BTreeMap::from([(value.clone(), index)]))),
        }
    }
    (values, strata)
}

/// Every value of every axis against the first one the file names.
fn comparisons(study: &Study) -> Vec<Comparison> {
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in study.cells.iter().flat_map(|c| &c.axes) {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    let mut all = Vec::new();
    for key in keys {
        let (values, strata) = strata_of(study, key);
        let Some((first, others)) = values.split_first() else { continue };
        for other in others {
            all.extend(compare(study, key, first, other, &strata));
        }
    }
    all
}

fn compare(study: &Study, key: &str, a: &str, b: &str, strata: &Strata) -> Option<Comparison> {
    let pairs: Vec<(String, &Cell, &Cell)> = strata
        .iter()
        .filter_map(|(rest, cells)| {
            let name = rest.iter().map(|(k, v)| value_words(k, v)).collect::<Vec<_>>().join(" · ");
            Some((name, &study.cells[*cells.get(a)?], &study.cells[*cells.get(b)?]))
        })
        .collect();
    // Differences of each pair by seed; only seeds that all pairs have are pooled, so that every seed weighs the same axes.
    let differences: Vec<BTreeMap<i64, f64>> = pairs
        .iter()
        .map(|(_, x, y)| {
            let (x, y) = (x.by_seed(bits), y.by_seed(bits));
            x.iter().filter_map(|(seed, v)| Some((*seed, y.get(seed)? - v))).collect()
        })
        .collect();
    let common =
        differences.iter().map(|d| d.keys().copied().collect::<BTreeSet<i64>>()).reduce(|a, b| a.intersection(&b).copied().collect())?;
    let pooled = Interval::of(common.iter().map(|seed| differences.iter().map(|d| d[seed]).sum::<f64>() / differences.len() as f64));
    let strata: Vec<(String, Interval)> = if pairs.len() > 1 {
        pairs.iter().zip(&differences).map(|((name, ..), d)| (name.clone(), Interval::of(d.values().copied()))).collect()
    } else {
        Vec::new()
    };
    let interactions = pairs.iter().zip(&differences).skip(1).map(|((name, ..), d)| (name.clone(), paired(&differences[0], d))).collect();
    let cells: Vec<(&Cell, &Cell)> = pairs.iter().map(|(_, x, y)| (*x, *y)).collect();
    let strata_errors = if strata.is_empty() {
        Vec::new()
    } else {
        cells.iter().zip(&differences).map(|(pair, d)| Errors::of(&[*pair], d.keys())).collect()
    };
    Some(Comparison {
        key: key.into(),
        a: a.into(),
        b: b.into(),
        pooled,
        errors: Errors::of(&cells, common.iter()),
        strata,
        strata_errors,
        interactions,
        attribution: attribution(&pairs, &common),
    })
}

/// The pooled difference by t: averaged over the pairs within each seed.
fn attribution(pairs: &[(String, &Cell, &Cell)], seeds: &BTreeSet<i64>) -> Option<Attribution> {
    let timesteps = pairs.first()?.1.timesteps();
    if pairs.iter().any(|(_, x, y)| x.timesteps() != timesteps || y.timesteps() != timesteps) {
        return None;
    }
    let mut by_seed = Vec::new();
    for seed in seeds {
        let mut mean: BTreeMap<u32, f64> = BTreeMap::new();
        let mut keys: Option<Vec<u32>> = None;
        for (_, x, y) in pairs {
            let difference = term_differences(x, y, *seed)?;
            let here: Vec<u32> = difference.keys().copied().collect();
            if keys.get_or_insert_with(|| here.clone()) != &here {
                return None;
            }
            for (t, d) in difference {
                *mean.entry(t).or_default() += d / pairs.len() as f64;
            }
        }
        by_seed.push(mean);
    }
    Attribution::of(&by_seed, timesteps)
}

/// Weighted differences y − x of the bound's terms of one seed by t; `None` where one is missing, or the two were
/// evaluated at different timesteps.
pub fn term_differences(x: &Cell, y: &Cell, seed: i64) -> Option<BTreeMap<u32, f64>> {
    let terms = |cell: &Cell| cell.finished().find(|r| r.seed() == seed).map(|r| r.terms.clone()).filter(|t| !t.is_empty());
    let (x, y) = (terms(x)?, terms(y)?);
    if x.len() != y.len() || x.iter().zip(&y).any(|(p, q)| p.t != q.t || p.t_weight != q.t_weight) {
        return None;
    }
    Some(x.iter().zip(&y).map(|(p, q)| (p.t, p.t_weight * (q.vb - p.vb))).collect())
}

impl Comparison {
    /// `cosine − linear` with the sign of a minus.
    pub fn title(&self) -> String {
        let number = super::theme::number(&self.a).is_some();
        if number {
            format!("{} {} − {}", axis_title(&self.key), shown(&self.b), shown(&self.a))
        } else {
            format!("{} − {}", shown(&self.b), shown(&self.a))
        }
    }

    /// What may be said of it.
    pub fn sentence(&self) -> String {
        let d = &self.pooled;
        let names: Vec<String> = self.strata.iter().map(|(name, _)| name.clone()).collect();
        let over = match names.len() {
            0 => String::new(),
            1..=4 => format!(", averaged over {}", text::list(&names)),
            n => format!(", averaged over {n} settings of the other axes"),
        };
        let title = self.title();
        let mut said = match d.n {
            0 if names.is_empty() => format!("{title}: no seed has finished in both cells, so no claim."),
            0 => format!("{title}: no seed has finished in every setting of the other axes, so nothing is averaged."),
            1 => {
                let difference = text::signed(d.mean, text::decimals_for(d.mean, f64::NAN));
                format!("{title}: {difference} bits/dim from one seed{over}; no interval, no claim.")
            }
            n => {
                let verdict = if d.excludes_zero() { "resolved" } else { "not resolved" };
                let more = d.seeds_to_resolve().map_or(String::new(), |seeds| format!("; {seeds}"));
                format!("{title}: {} bits/dim, {verdict} (paired, n = {n} seeds{over}{more}).", text::signed_plus_minus(d.mean, d.half))
            }
        };
        if let Some(errors) = self.errors.sentence() {
            said.push_str(&format!(" {errors}"));
        }
        if let Some(a) = &self.attribution {
            said.push_str(&format!(" By t: {}.", a.sentence()));
        }
        said.push_str(&self.strata_words());
        said
    }

    /// The difference in each setting of the other axes, and whether it depends on them.
    fn strata_words(&self) -> String {
        let mut said = String::new();
        if (2..=4).contains(&self.strata.len()) {
            let each: Vec<String> = self
                .strata
                .iter()
                .map(|(name, d)| match d.n {
                    0 => format!("unknown with {name}"),
                    1 => format!("{} with {name} (n = 1)", text::signed(d.mean, text::decimals_for(d.mean, f64::NAN))),
                    _ => format!("{} with {name}", text::signed_plus_minus(d.mean, d.half)),
                })
                .collect();
            said = format!(" It is {}.", text::list(&each));
        }
        let Some((first, _)) = self.strata.first() else { return said };
        let resolved: Vec<String> = self
            .interactions
            .iter()
            .filter(|(_, i)| i.excludes_zero())
            .map(|(name, i)| format!("{} with {name}", text::signed_plus_minus(i.mean, i.half)))
            .collect();
        if resolved.is_empty() {
            if self.interactions.iter().any(|(_, i)| i.n > 1) {
                said.push_str(" No dependence of this difference on the other axes is resolved.");
            }
        } else {
            let more = resolved.len().saturating_sub(4);
            let mut shown: Vec<String> = resolved.into_iter().take(4).collect();
            if more > 0 {
                shown.push(format!("{more} more"));
            }
            said.push_str(&format!(" Against what it is with {first}, the change is resolved: {}.", text::list(&shown)));
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::synthetic;
    use crate::store::RunState;

    #[test]
    fn pairing_by_seed_narrows_the_interval_where_seeds_share_noise() {
        let data = synthetic::sweep();
        let study = Study::new(&data);
        let (a, b) = (study.cells[0].by_seed(bits), study.cells[2].by_seed(bits));
        let together = paired(&a, &b);
        let (x, y) = (Interval::of(a.into_values()), Interval::of(b.into_values()));
        assert!(together.half < 0.5 * x.half.hypot(y.half), "{} against {}", together.half, x.half.hypot(y.half));
        assert!((together.mean - (y.mean - x.mean)).abs() < 1e-12);
    }

    #[test]
    fn means_and_ranks_are_those_computed_by_hand() {
        let data = synthetic::sweep();
        let study = Study::new(&data);
        let answer = Answer::of(&study);
        assert_eq!(answer.results.len(), 8);
        assert!(answer.results.windows(2).all(|w| w[0].bits.mean <= w[1].bits.mean));
        let r = answer.results.iter().find(|r| r.cell == 5).unwrap();
        let values: Vec<f64> = data.runs[15..18].iter().map(|run| run.evaluations.last().unwrap().bits_per_dim).collect();
        assert!((r.bits.mean - values.iter().sum::<f64>() / 3.0).abs() < 1e-12);
        assert!((r.decoder.mean + r.kl.mean + r.prior.mean - r.bits.mean).abs() < 1e-9);
    }

    #[test]
    fn an_axis_is_compared_with_everything_else_equal() {
        let data = synthetic::sweep();
        let study = Study::new(&data);
        let answer = Answer::of(&study);
        let c = answer.comparisons.iter().find(|c| c.b == "cosine").unwrap();
        assert_eq!((c.a.as_str(), c.strata.len(), c.pooled.n, c.title().as_str()), ("linear", 2, 3, "cosine − linear"));
        // By hand: mean over seeds of the mean over losses of cosine − linear.
        let b = |i: usize| data.runs[i].evaluations.last().unwrap().bits_per_dim;
        let by_hand: f64 = (0..3).map(|s| ((b(6 + s) - b(s)) + (b(9 + s) - b(3 + s))) / 2.0).sum::<f64>() / 3.0;
        assert!((c.pooled.mean - by_hand).abs() < 1e-12);
        let a = c.attribution.as_ref().unwrap();
        let sum = a.parts.iter().map(|p| p.sum.mean).sum::<f64>() + a.prior.mean;
        assert!((sum - by_hand).abs() < 1e-9, "the parts by t add up to the difference");
        assert!(c.sentence().contains("resolved") && c.sentence().contains("By t: "), "{}", c.sentence());
    }

    #[test]
    fn one_seed_makes_no_claim() {
        let mut data = synthetic::sweep();
        data.runs.retain(|r| r.run.seed == 0);
        let study = Study::new(&data);
        let answer = Answer::of(&study);
        let said = answer.sentences.join(" ") + &answer.comparisons.iter().map(Comparison::sentence).collect::<String>();
        assert!(said.contains("n = 1") && said.contains("no claim"), "{said}");
        assert!(!said.contains("±") && !said.contains("resolved"), "{said}");
    }

    #[test]
    fn a_cell_without_a_finished_run_is_left_out_and_seeds_are_matched() {
        let mut data = synthetic::sweep();
        for i in 0..3 {
            data.runs[i].state = RunState::Failed;
        }
        data.runs[6].state = RunState::Diverged;
        let study = Study::new(&data);
        let answer = Answer::of(&study);
        assert_eq!(answer.results.len(), 7);
        let c = answer.comparisons.iter().find(|c| c.b == "cosine").unwrap();
        assert_eq!((c.strata.len(), c.pooled.n), (0, 3), "only the vlb pair is left");
    }

    #[test]
    fn settings_without_a_common_seed_are_not_averaged_but_still_told() {
        let mut data = synthetic::sweep();
        data.runs[0].state = RunState::Failed;
        data.runs[4].state = RunState::Failed;
        data.runs[5].state = RunState::Failed;
        let study = Study::new(&data);
        let answer = Answer::of(&study);
        let c = answer.comparisons.iter().find(|c| c.b == "cosine").unwrap();
        assert_eq!((c.pooled.n, c.strata[0].1.n, c.strata[1].1.n), (0, 2, 1));
        assert!(c.attribution.is_none());
        assert!(c.sentence().contains("nothing is averaged") && c.sentence().contains("with vlb (n = 1)"), "{}", c.sentence());
    }

    #[test]
    fn different_timesteps_are_compared_without_attribution() {
        let mut data = synthetic::numeric_sweep("diffusion.timesteps", &["100", "200"]);
        for r in &mut data.runs {
            r.timesteps = r.run.axes[1].1.parse().unwrap();
        }
        let study = Study::new(&data);
        let c = Answer::of(&study).comparisons.into_iter().find(|c| c.key == "diffusion.timesteps").unwrap();
        assert!(c.attribution.is_none());
        assert_eq!(c.title(), "timesteps 200 − 100");
    }
}
