//! From an experiment file to its cells.
//!
//! Start at [`cells`], a pure function: the union of the blocks, each the product of the file's factors and its own, less
//! what is excluded. Seeds are not here: they vary inside each cell. [`Arithmetic`] counts the same without expanding.

use super::keys::{self, KeyDefault, KeySpec};
use super::run::RunConfig;
use super::sweep_file::{Assignment, Exclude, Factor, FactorKind, Point, SweepFile};
use super::value::plain;
use crate::record::{Axis, CASE};

/// More combinations than this are not counted out one by one.
const MOST_COUNTED: usize = 50_000_000;

/// One combination of values.
#[derive(Clone, Debug)]
pub struct Cell<'f> {
    /// Constants that nothing else sets, then what the block sets, then one step along each factor. No key occurs twice.
    pub assignments: Vec<&'f Assignment>,
    /// How many of them are constants.
    constants: usize,
    along: Vec<Along<'f>>,
}

/// What tells a cell from others.
#[derive(Clone, Copy, Debug)]
enum Along<'f> {
    Case(&'f str),
    Key(&'f Assignment),
}

impl<'f> Cell<'f> {
    /// What is no constant of the file.
    pub fn own(&self) -> &[&'f Assignment] {
        &self.assignments[self.constants..]
    }

    /// The name of its case, where it has one.
    pub fn case(&self) -> Option<&'f str> {
        self.along.iter().find_map(|along| if let Along::Case(name) = along { Some(*name) } else { None })
    }

    pub fn find(&self, key: &str) -> Option<&'f Assignment> {
        self.assignments.iter().find(|a| a.key.key == key).copied()
    }

    /// Axis and value, in the order of the factors; the axis of the cases is called `case`, and stands for what they set.
    pub fn axes(&self) -> Vec<(String, String)> {
        self.along
            .iter()
            .map(|along| match along {
                Along::Case(name) => (CASE.to_owned(), (*name).to_owned()),
                Along::Key(a) => (a.key.key.to_owned(), plain(&a.written.value)),
            })
            .collect()
    }

    /// `4k-cosine, lr = 0.001`; empty where nothing varies.
    pub fn name(&self) -> String {
        let parts = self.along.iter().map(|along| match along {
            Along::Case(name) => (*name).to_owned(),
            Along::Key(a) => format!("{} = {}", keys::label(a.key), plain(&a.written.value)),
        });
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// One alternative with everything that is multiplied in it, slowest first.
struct Branch<'f> {
    set: &'f [Assignment],
    factors: Vec<&'f Factor>,
}

fn branches(file: &SweepFile) -> Vec<Branch<'_>> {
    if file.blocks.is_empty() {
        return vec![Branch { set: &[], factors: file.factors.iter().collect() }];
    }
    file.blocks.iter().map(|block| Branch { set: &block.set, factors: file.factors.iter().chain(&block.factors).collect() }).collect()
}

/// Every cell: blocks in their order, in each the last factor fastest. Cells of different blocks may be equal.
pub fn cells(file: &SweepFile) -> Vec<Cell<'_>> {
    let mut all = Vec::new();
    for branch in branches(file) {
        let mut combinations: Vec<Vec<&Point>> = vec![Vec::new()];
        for factor in &branch.factors {
            let longer = combinations.iter().flat_map(|points| factor.points.iter().map(|point| [points.as_slice(), &[point]].concat()));
            combinations = longer.collect();
        }
        all.extend(combinations.into_iter().map(|points| cell(file, branch.set, &points)));
    }
    all.retain(|cell| !file.excludes.iter().any(|exclude| meets(&exclude.keys, |key| cell.find(key))));
    all
}

fn cell<'f>(file: &'f SweepFile, set: &'f [Assignment], points: &[&'f Point]) -> Cell<'f> {
    let own: Vec<&Assignment> = set.iter().chain(points.iter().flat_map(|point| &point.assignments)).collect();
    let constants: Vec<&Assignment> = file.base.iter().filter(|a| !own.iter().any(|o| o.key.key == a.key.key)).collect();
    let along = set.iter().map(Along::Key).chain(points.iter().flat_map(|point| match &point.name {
        Some(name) => vec![Along::Case(name)],
        None => point.assignments.iter().map(Along::Key).collect(),
    }));
    Cell { along: along.collect(), constants: constants.len(), assignments: [constants, own].concat() }
}

/// Whether a cell in which `find` gives what sets a key has one of the values of every key. What nothing sets has its fixed
/// default.
pub fn meets<'f>(keys: &[(&'static KeySpec<RunConfig>, Vec<Assignment>)], find: impl Fn(&str) -> Option<&'f Assignment>) -> bool {
    keys.iter().all(|(spec, values)| {
        let literal = || matches!(spec.default, KeyDefault::Literal(_)).then(|| (spec.get)(&RunConfig::literal_defaults()));
        let value = find(spec.key).map(|a| a.written.value.clone()).or_else(literal);
        value.is_some_and(|value| values.iter().any(|v| v.written.value == value))
    })
}

/// Exclusions that leave out no cell.
pub fn idle_excludes(file: &SweepFile) -> Vec<&Exclude> {
    let everything = SweepFile { excludes: Vec::new(), ..file.clone() };
    let all = cells(&everything);
    file.excludes.iter().filter(|exclude| !all.iter().any(|cell| meets(&exclude.keys, |key| cell.find(key)))).collect()
}

/// The axes of all cells, in the order in which they appear, with their distinct values.
pub fn axes(cells: &[Cell<'_>]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::new();
    for (key, value) in cells.iter().flat_map(Cell::axes) {
        match axes.iter_mut().find(|axis| axis.key == key) {
            Some(axis) if axis.values.contains(&value) => {}
            Some(axis) => axis.values.push(value),
            None => axes.push(Axis { key, values: vec![value] }),
        }
    }
    axes
}

/// How many cells there are, and how that comes about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arithmetic {
    /// `(4 × 2 − 1) × 2 + 3`; empty where it is only the number.
    words: String,
    /// Saturates beyond what a machine counts.
    pub cells: usize,
}

impl Arithmetic {
    pub fn of(file: &SweepFile) -> Self {
        let branches = branches(file);
        let terms: Vec<(String, usize)> = branches.iter().map(|branch| term(file, branch)).collect();
        let cells = terms.iter().fold(0_usize, |sum, (_, n)| sum.saturating_add(*n));
        let words = terms.into_iter().map(|(words, _)| words).collect::<Vec<_>>().join(" + ");
        let only_the_number = words.bytes().all(|b| b.is_ascii_digit());
        Self { words: if only_the_number { String::new() } else { words }, cells }
    }

    /// `4 × 2 = 8 cells × 2 seeds = 16 runs`, with the number of runs that were left after equal ones were merged.
    pub fn words(&self, seeds: usize, runs: usize) -> String {
        let merged = match self.cells.saturating_mul(seeds) - runs {
            0 => String::new(),
            n => format!(" ({n} equal to another, merged)"),
        };
        let sum = if self.words.is_empty() { String::new() } else { format!("{} = ", self.words) };
        format!("{sum}{} × {} = {}{merged}", many(self.cells, "cell"), many(seeds, "seed"), many(runs, "run"))
    }
}

/// A block's product. Exclusions take cells out of the product of the factors that they name, and the others multiply
/// what is left: only that smaller product is counted out.
fn term(file: &SweepFile, branch: &Branch<'_>) -> (String, usize) {
    let named =
        |factor: &Factor| factor.assignments().any(|a| file.excludes.iter().any(|e| e.keys.iter().any(|(spec, _)| spec.key == a.key.key)));
    let (touched, free): (Vec<&Factor>, Vec<&Factor>) = branch.factors.iter().copied().partition(|factor| named(factor));
    let product = |factors: &[&Factor]| factors.iter().fold(1_usize, |n, factor| n.saturating_mul(factor.points.len()));
    let lengths = |factors: &[&Factor]| factors.iter().map(|f| f.points.len().to_string()).collect::<Vec<_>>();
    let of_touched = product(&touched);
    let excluded = if file.excludes.is_empty() || of_touched > MOST_COUNTED { 0 } else { count_excluded(file, branch.set, &touched) };
    if excluded == 0 {
        let words = lengths(&branch.factors).join(" × ");
        return (if words.is_empty() { "1".to_owned() } else { words }, product(&branch.factors));
    }
    let left = if touched.is_empty() { format!("1 − {excluded}") } else { format!("{} − {excluded}", lengths(&touched).join(" × ")) };
    let mut parts = lengths(&free);
    // The parentheses stand where the first of their factors stood.
    let at = branch.factors.iter().position(|f| named(f)).unwrap_or(0);
    parts.insert(at.min(parts.len()), if free.is_empty() { left } else { format!("({left})") });
    (parts.join(" × "), (of_touched - excluded).saturating_mul(product(&free)))
}

fn count_excluded(file: &SweepFile, set: &[Assignment], factors: &[&Factor]) -> usize {
    let constant = |key: &str| set.iter().find(|a| a.key.key == key).or_else(|| file.base.iter().find(|a| a.key.key == key));
    let mut at = vec![0_usize; factors.len()];
    let mut excluded = 0;
    loop {
        let find = |key: &str| {
            let steps = factors.iter().zip(&at).flat_map(|(factor, i)| &factor.points[*i].assignments);
            steps.into_iter().find(|a| a.key.key == key).or_else(|| constant(key))
        };
        excluded += usize::from(file.excludes.iter().any(|exclude| meets(&exclude.keys, find)));
        // The next combination, as an odometer turns.
        let Some(turned) = (0..at.len()).rev().find(|i| at[*i] + 1 < factors[*i].points.len()) else { return excluded };
        at[turned] += 1;
        at[turned + 1..].fill(0);
    }
}

fn many(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Whether more than one axis of [grid] sets one of `keys`: what a product can make impossible.
pub fn is_product(file: &SweepFile, keys: &[&'static str]) -> bool {
    let sets = |factor: &Factor| factor.kind == FactorKind::Grid && factor.assignments().any(|a| keys.contains(&a.key.key));
    branches(file).iter().any(|branch| branch.factors.iter().filter(|factor| sets(factor)).count() > 1)
}
