//! From an experiment file to its cells: the product of its axes.
//!
//! Start at [`cells`], a pure function. Seeds are not here: they vary inside each cell. Other ways of combining axes
//! (advancing together, exclusions, unions) belong here as further forms of the same list.

use super::keys;
use super::sweep_file::{Assignment, Axis, SweepFile};
use super::value::plain;

/// One combination of values.
#[derive(Clone, Debug)]
pub struct Cell<'f> {
    /// Constants, then one for each axis in the order of the axes. No key occurs twice.
    pub assignments: Vec<&'f Assignment>,
    /// How many of them are constants.
    constants: usize,
}

impl<'f> Cell<'f> {
    /// What the axes say of this cell.
    pub fn along_axes(&self) -> &[&'f Assignment] {
        &self.assignments[self.constants..]
    }

    /// `schedule = cosine, loss = vlb`; empty where there are no axes.
    pub fn name(&self) -> String {
        let parts = self.along_axes().iter().map(|a| format!("{} = {}", keys::label(a.key), plain(&a.written.value)));
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// How many cells there are; `None` beyond what a machine counts.
pub fn count(axes: &[Axis]) -> Option<usize> {
    axes.iter().try_fold(1_usize, |n, axis| n.checked_mul(axis.points.len()))
}

/// Every cell, in the order of the file: the last axis varies fastest.
pub fn cells(file: &SweepFile) -> Vec<Cell<'_>> {
    let constants: Vec<&Assignment> = file.base.iter().collect();
    let mut cells = vec![Cell { constants: constants.len(), assignments: constants }];
    for axis in &file.axes {
        let longer = cells.iter().flat_map(|cell| {
            axis.points.iter().map(|point| {
                let mut longer = cell.clone();
                longer.assignments.push(point);
                longer
            })
        });
        cells = longer.collect();
    }
    cells
}

/// `4 × 2 = 8 cells × 2 seeds = 16 runs`.
pub fn arithmetic(axes: &[Axis], seeds: usize, runs: usize) -> String {
    let lengths: Vec<String> = axes.iter().map(|axis| axis.points.len().to_string()).collect();
    let cells = count(axes).unwrap_or(usize::MAX);
    let product = if lengths.len() > 1 { format!("{} = ", lengths.join(" × ")) } else { String::new() };
    let merged = match cells * seeds - runs {
        0 => String::new(),
        n => format!(" ({n} equal to another, merged)"),
    };
    format!("{product}{} × {} = {}{merged}", many(cells, "cell"), many(seeds, "seed"), many(runs, "run"))
}

fn many(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
