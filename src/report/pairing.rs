//! What pairing gains: two standard errors of every difference, of the pairs and as if the cells had nothing in common.
//!
//! Start at [`Errors::of`]. Cells of a grid that differ in the schedule or the loss share, within a seed, the order of the
//! images, their noise and the draws of t in training, and all runs share images and noise in evaluation: the part of their
//! scatter that comes of these cancels in a difference. How much that is, is a fact of each sweep, and told as one.

use super::stats::PairedError;
use super::study::{Cell, RunView};
use super::text;
use crate::data::DataSpec;
use crate::record::Evaluation;

/// How well a difference of two cells is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    /// Over training seeds: what training once more would change. `None` below two common seeds.
    pub seeds: Option<PairedError>,
    /// Over the evaluated examples, each averaged over the common seeds: what other examples would change, with these
    /// networks. `None` where a run does not tell the bounds of single examples, or the cells were evaluated on others.
    pub examples: Option<PairedError>,
}

impl Errors {
    /// Of the mean over `pairs` of cells (x, y) of y − x, from the runs of `seeds`, which all cells have.
    pub fn of<'s>(pairs: &[(&Cell, &Cell)], seeds: impl Iterator<Item = &'s i64>) -> Self {
        let Some(runs) = seeds.map(|seed| of_seed(pairs, *seed)).collect::<Option<Vec<_>>>() else { return Self::default() };
        let bits = |side: &[&RunView]| mean(side.iter().filter_map(|r| r.result).map(|e| e.bits_per_dim));
        Self { seeds: PairedError::of(runs.iter().map(|(x, y)| (bits(x), bits(y)))), examples: over_examples(&runs) }
    }

    /// `Standard error of the difference: 0.0037 over 3 seeds (0.0120 unpaired), 0.0042 over 64 examples (0.091 unpaired).`
    pub fn sentence(&self) -> Option<String> {
        let words = |e: PairedError, unit: &str| {
            let [paired, unpaired] = [e.paired, e.unpaired].map(error);
            format!("{paired} over {} ({unpaired} unpaired)", text::count(e.n, unit))
        };
        let parts: Vec<String> =
            [self.seeds.map(|e| words(e, "seed")), self.examples.map(|e| words(e, "example"))].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("Standard error of the paired difference: {}.", parts.join(", ")))
    }

    /// The same for a table: seeds, then examples.
    pub fn cells(&self) -> [String; 2] {
        [self.seeds, self.examples].map(|e| e.map_or("–".into(), |e| format!("{} / {}", error(e.paired), error(e.unpaired))))
    }
}

/// Two significant digits.
fn error(e: f64) -> String {
    text::fixed(e, text::decimals_for(e, e))
}

/// The runs of one seed on both sides, one for each pair.
type Sides<'a> = (Vec<&'a RunView<'a>>, Vec<&'a RunView<'a>>);

fn of_seed<'a>(pairs: &[(&'a Cell<'a>, &'a Cell<'a>)], seed: i64) -> Option<Sides<'a>> {
    let run = |cell: &'a Cell<'a>| cell.finished().find(|r| r.seed() == seed);
    pairs.iter().map(|(x, y)| Some((run(x)?, run(y)?))).collect::<Option<Vec<_>>>().map(|runs| runs.into_iter().unzip())
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0));
    sum / n
}

/// Whether evaluations on two data sets see the same examples, the first of each split, under the same noise.
fn same_examples(a: &DataSpec, b: &DataSpec) -> bool {
    (&a.fingerprint, &a.name) == (&b.fingerprint, &b.name)
}

/// The errors of the difference b − a of two runs, each given by its data and its final evaluation, over the examples that
/// both were evaluated on: `None` where these are not the same, or a run does not tell them apart.
pub fn of_two_runs(a: (&DataSpec, &Evaluation), b: (&DataSpec, &Evaluation)) -> Option<PairedError> {
    let comparable = same_examples(a.0, b.0) && a.1.split == b.1.split && a.1.by_example.len() == b.1.by_example.len();
    PairedError::of(a.1.by_example.iter().copied().zip(b.1.by_example.iter().copied())).filter(|_| comparable)
}

/// Each example's bound, averaged over runs and seeds, on both sides.
fn over_examples(seeds: &[Sides]) -> Option<PairedError> {
    let first = seeds.first()?.0.first()?;
    if !seeds.iter().flat_map(|(x, y)| x.iter().chain(y)).all(|r| same_examples(&r.data.data, &first.data.data)) {
        return None;
    }
    let n = first.result?.by_example.len();
    let side = |runs: Vec<&RunView>| -> Option<Vec<f64>> {
        let evaluations = runs.iter().map(|r| r.result.filter(|e| e.by_example.len() == n)).collect::<Option<Vec<&Evaluation>>>()?;
        Some((0..n).map(|i| mean(evaluations.iter().map(|e| e.by_example[i]))).collect())
    };
    let x = side(seeds.iter().flat_map(|s| s.0.iter().copied()).collect())?;
    let y = side(seeds.iter().flat_map(|s| s.1.iter().copied()).collect())?;
    PairedError::of(x.into_iter().zip(y))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Moments;
    use crate::report::synthetic;
    use crate::report::{Answer, Study, SweepData};

    fn bits(data: &SweepData, run: usize) -> f64 {
        data.runs[run].evaluations.last().unwrap().bits_per_dim
    }

    fn of(values: impl IntoIterator<Item = f64>) -> f64 {
        let mut m = Moments::default();
        values.into_iter().for_each(|v| m.push(v));
        m.standard_error()
    }

    #[test]
    fn both_errors_are_those_computed_by_hand() {
        let data = synthetic::sweep();
        let study = Study::new(&data);
        let answer = Answer::of(&study);
        // Runs are schedule × loss × seed: linear is 0..6, cosine 6..12. Pooled over the losses within each seed.
        let c = answer.comparisons.iter().find(|c| c.b == "cosine").unwrap();
        let (linear, cosine) = (
            [0, 1, 2].map(|s| (bits(&data, s) + bits(&data, 3 + s)) / 2.0),
            [0, 1, 2].map(|s| (bits(&data, 6 + s) + bits(&data, 9 + s)) / 2.0),
        );
        let seeds = c.errors.seeds.unwrap();
        assert_eq!(seeds.n, 3);
        assert!((seeds.paired - of((0..3).map(|s| cosine[s] - linear[s]))).abs() < 1e-12);
        assert!((seeds.unpaired - of(linear).hypot(of(cosine))).abs() < 1e-12);
        // The interval of the report is the paired error times the quantile.
        assert!((c.pooled.half - crate::report::stats::t_quantile(2) * seeds.paired).abs() < 1e-12);
        let by_example = |runs: [usize; 6]| -> Vec<f64> {
            let of = |i: usize| mean(runs.iter().map(|r| data.runs[*r].evaluations.last().unwrap().by_example[i]));
            (0..synthetic::EXAMPLES).map(of).collect()
        };
        let (x, y) = (by_example([0, 1, 2, 3, 4, 5]), by_example([6, 7, 8, 9, 10, 11]));
        let examples = c.errors.examples.unwrap();
        assert_eq!(examples.n, synthetic::EXAMPLES);
        assert!((examples.paired - of(x.iter().zip(&y).map(|(x, y)| y - x))).abs() < 1e-12);
        assert!((examples.unpaired - of(x.iter().copied()).hypot(of(y.iter().copied()))).abs() < 1e-12);
        // One setting of the other axis by itself.
        let (name, interval) = &c.strata[1];
        let vlb = c.strata_errors[1].seeds.unwrap();
        assert_eq!(name, "vlb");
        assert!((vlb.paired - of((0..3).map(|s| bits(&data, 9 + s) - bits(&data, 3 + s)))).abs() < 1e-12);
        assert!((interval.half / vlb.paired - crate::report::stats::t_quantile(2)).abs() < 1e-9);
    }

    #[test]
    fn what_cells_share_cancels_and_what_they_do_not_stays() {
        // The made-up sweep has 2 % of noise that a seed's cells share and 0.2 % of their own, and examples that differ by
        // far more from each other than by cell.
        let data = synthetic::sweep();
        let study = Study::new(&data);
        for c in Answer::of(&study).comparisons {
            for e in [c.errors.seeds.unwrap(), c.errors.examples.unwrap()] {
                assert!(e.paired < 0.5 * e.unpaired, "{}: {e:?}", c.title());
            }
        }
        // Seeds dealt out anew in one cell break the pairs: the mean stays, the gain goes.
        let mut broken = data.clone();
        for run in &mut broken.runs[6..12] {
            run.run.seed = (run.run.seed + 1) % 3;
        }
        let (with, without) = (Answer::of(&study), Answer::of(&Study::new(&broken)));
        let find = |a: &Answer| a.comparisons.iter().find(|c| c.b == "cosine").map(|c| (c.pooled.mean, c.errors.seeds.unwrap())).unwrap();
        let ((mean, paired), (mean_too, unpaired)) = (find(&with), find(&without));
        assert!((mean - mean_too).abs() < 1e-12 && (paired.unpaired - unpaired.unpaired).abs() < 1e-12);
        assert!(unpaired.paired > 3.0 * paired.paired, "{paired:?} {unpaired:?}");
    }

    #[test]
    fn two_runs_are_paired_as_cells_of_one_run_are() {
        // One seed and one loss: the sweep's own way to the same number.
        let mut data = synthetic::sweep();
        data.runs = [0, 6].map(|i| data.runs[i].clone()).to_vec();
        let of = |i: usize| (&data.runs[i].data, data.runs[i].evaluations.last().unwrap());
        let study = Study::new(&data);
        let views: Vec<&RunView> = study.cells.iter().flat_map(|c| c.finished()).collect();
        let by_cells = over_examples(&[(vec![views[0]], vec![views[1]])]);
        assert!(by_cells.is_some());
        assert_eq!(of_two_runs(of(0), of(1)), by_cells);
        let summary = of(1).1.summary();
        assert_eq!(of_two_runs(of(0), (of(1).0, &summary)), None, "it does not tell its examples apart");
        let other = DataSpec { fingerprint: "other values".into(), ..of(1).0.clone() };
        assert_eq!(of_two_runs(of(0), (&other, of(1).1)), None);
    }

    #[test]
    fn no_example_is_paired_with_another_one() {
        let examples = |data: &SweepData| {
            let answer = Answer::of(&Study::new(data));
            let c = answer.comparisons.iter().find(|c| c.b == "cosine").unwrap();
            assert!(c.errors.seeds.is_some());
            (c.errors.examples, c.sentence())
        };
        // A run of an older version, which did not tell its examples apart.
        let mut old = synthetic::sweep();
        old.runs[7].evaluations.last_mut().unwrap().by_example.clear();
        let (errors, sentence) = examples(&old);
        assert!(errors.is_none() && sentence.contains("over 3 seeds (") && !sentence.contains("examples ("), "{sentence}");
        let mut fewer = synthetic::sweep();
        fewer.runs[7].evaluations.last_mut().unwrap().by_example.pop();
        assert!(examples(&fewer).0.is_none());
        let mut other = synthetic::sweep();
        other.runs[7].data.fingerprint = "other values".into();
        assert!(examples(&other).0.is_none());
        let (errors, sentence) = examples(&synthetic::sweep());
        assert!(errors.is_some() && sentence.contains("examples ("), "{sentence}");
    }
}
