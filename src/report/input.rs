//! What a report is made of, in memory: a sweep and what the store has of its runs.
//!
//! Start at [`SweepData`]. [`load`](super::load) fills it from a store, tests build it by hand; nothing below this
//! reads a result file.

use super::history::History;
use crate::data::{DataSpec, Encoding, Shape};
use crate::diffusion::{Kernel, ScheduleKind, ScheduleSpec};
use crate::record::Evaluation;
use crate::store::{LossTable, Manifest, RunState, SweepRecord, SweepRun};
use std::path::PathBuf;

/// One run as the store has it now; whatever is missing is empty.
#[derive(Clone, Debug)]
pub struct RunData {
    pub run: SweepRun,
    pub state: RunState,
    pub manifest: Option<Manifest>,
    /// Of each kind of evaluation the last; training windows and the evaluations in between are in `history` alone.
    pub losses: LossTable,
    /// Training by step, from the whole table.
    pub history: History,
    /// In the order they were made.
    pub evaluations: Vec<Evaluation>,
    /// The run's complete configuration; empty for a run that has no folder yet.
    pub config_text: String,
    /// Sample grids with their steps.
    pub samples: Vec<(i64, PathBuf)>,
    /// What the final samples went through, where the run has kept it.
    pub reverse: Option<Reverse>,
    /// T.
    pub timesteps: u32,
    pub schedule: ScheduleKind,
    /// The schedule with its options and T.
    pub noise: ScheduleSpec,
    pub kernel: Kernel,
    /// The bits/dim at t = 1 that a fixed variance costs whatever the network; `None` where it is learned or the data has no levels.
    pub decoder_floor: Option<f64>,
    pub data: DataSpec,
    /// Whether bits are of integers or differential; `None` where the data cannot be looked at.
    pub encoding: Option<Encoding>,
    /// What was not finite, over the whole table of losses.
    pub not_finite: Option<NotFinite>,
    /// What of the run could not be read; shown as a warning.
    pub problem: Option<String>,
}

/// Samples whose values were not finite, in training and evaluation, and the timesteps they were drawn at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite {
    pub samples: u64,
    pub first_t: u32,
    pub last_t: u32,
}

impl NotFinite {
    /// `None` where everything is finite.
    pub fn of(losses: &LossTable) -> Option<Self> {
        let bad = (0..losses.t.len()).filter(|&i| losses.n_nonfinite[i] > 0);
        bad.map(|i| Self { samples: u64::from(losses.n_nonfinite[i]), first_t: losses.t[i], last_t: losses.t[i] }).reduce(|a, b| Self {
            samples: a.samples + b.samples,
            first_t: a.first_t.min(b.first_t),
            last_t: a.last_t.max(b.last_t),
        })
    }
}

/// Examples and the noise that is mixed into them: what the figure of the forward process shows.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardExamples {
    pub shape: Shape,
    /// Examples in [-1, 1] (images, HWC) or standardised coordinates (points), `shape.dims()` numbers each.
    pub examples: Vec<Vec<f32>>,
    /// Standard normals, one list per example and as long.
    pub noise: Vec<Vec<f32>>,
    /// The probability that a redrawn bit is 1, where the forward process is the Binomial one.
    pub redrawn: Option<f64>,
}

/// A sweep and its runs, in the order of the record.
#[derive(Clone, Debug)]
pub struct SweepData {
    pub record: SweepRecord,
    /// The sweeps that are compared, where they are several; `record` is then what [`merge`](super::merge) made of them.
    pub compared: Vec<SweepRecord>,
    pub runs: Vec<RunData>,
    /// `None` where the data cannot be read on this machine; the reason is shown in the report.
    pub forward: Result<ForwardExamples, String>,
    /// The data sets in words, with whose they are.
    pub credits: Vec<String>,
}

impl SweepData {
    /// The sweeps as the store has them.
    pub fn sweeps(&self) -> &[SweepRecord] {
        if self.compared.is_empty() { std::slice::from_ref(&self.record) } else { &self.compared }
    }
}

/// The way of the final samples from noise to data.
#[derive(Clone, Debug, PartialEq)]
pub enum Reverse {
    /// A sheet of pictures, x_t above the predicted x_0 of so many samples, by the timesteps of its columns.
    Pictures { timesteps: Vec<u32>, samples: usize, sheet: PathBuf },
    /// Points of the plane at each kept t, and the score there.
    Points { frames: Vec<PointFrame>, field: Vec<Arrow> },
}

/// All points at one t; t = 0 are the samples.
#[derive(Clone, Debug, PartialEq)]
pub struct PointFrame {
    pub t: u32,
    pub x_t: Vec<[f32; 2]>,
    pub x0: Vec<[f32; 2]>,
}

/// The learned score at one place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrow {
    pub t: u32,
    pub at: [f32; 2],
    pub score: [f32; 2],
}
