//! The shared vocabulary of results: one row of losses, one evaluation.
//!
//! Start at [`LossRow`]. Training writes these, the store keeps them, the report reads them; nobody else has a
//! second idea of what a loss is. Losses are unweighted; bounds are in bits per dimension.

use crate::named_enum;
use serde::{Deserialize, Serialize};

named_enum! {
    /// Which examples a row speaks of.
    pub enum Split {
        /// A window of training batches.
        Train = "train",
        /// Held-out images, fixed noise, during training.
        Val = "val",
        /// Held-out images, fixed noise, at the end.
        Test = "test",
    }
}

named_enum! {
    /// Which weights produced a row.
    pub enum Weights {
        Raw = "raw",
        /// The exponential moving average.
        Ema = "ema",
    }
}

named_enum! {
    /// Which term of the variational bound a timestep carries.
    pub enum Term {
        /// t = 1: `-log p(x_0 | x_1)`, the paper's L_0.
        Decoder = "decoder",
        /// t = 2..=T: `KL(q(x_{t-1} | x_t, x_0) ‖ p(x_{t-1} | x_t))`, the paper's L_{t-1}.
        Kl = "kl",
        /// Stored at t = 0: `KL(q(x_T | x_0) ‖ p(x_T))`, the paper's L_T.
        Prior = "prior",
    }
}

impl Term {
    /// The term stored at `t`, where 0 stands for the prior.
    pub fn of(t: u32) -> Self {
        match t {
            0 => Self::Prior,
            1 => Self::Decoder,
            _ => Self::Kl,
        }
    }
}

/// Count, mean and sum of squared deviations, merged exactly (Welford; Chan et al. for the merge).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    pub n: u64,
    pub mean: f64,
    pub m2: f64,
}

impl Moments {
    /// Adds one observation.
    pub fn push(&mut self, x: f64) {
        self.n += 1;
        let delta = x - self.mean;
        self.mean += delta / self.n as f64;
        self.m2 += delta * (x - self.mean);
    }

    /// Adds all observations of `other`.
    pub fn merge(&mut self, other: &Moments) {
        if other.n == 0 {
            return;
        }
        let n = self.n + other.n;
        let delta = other.mean - self.mean;
        self.m2 += other.m2 + delta * delta * (self.n as f64 * other.n as f64 / n as f64);
        self.mean += delta * (other.n as f64 / n as f64);
        self.n = n;
    }

    /// Unbiased sample variance; NaN below two observations.
    pub fn variance(&self) -> f64 {
        if self.n < 2 { f64::NAN } else { self.m2 / (self.n - 1) as f64 }
    }

    /// Standard error of the mean; NaN below two observations.
    pub fn standard_error(&self) -> f64 {
        (self.variance() / self.n as f64).sqrt()
    }
}

/// One row of `losses.parquet` without the columns that name the run: (split, weights, step, t) and what was seen there.
#[derive(Clone, Debug, PartialEq)]
pub struct LossRow {
    pub split: Split,
    pub weights: Weights,
    /// Optimizer updates completed at the end of the window, or at the evaluation.
    pub step: i64,
    /// 1..=T; 0 holds the prior term of the step.
    pub t: u32,
    /// Timesteps this row stands for: 1 when every t is evaluated, the stratum's size when strided.
    pub t_weight: f64,
    /// Samples used.
    pub n: u32,
    /// Samples dropped because a value was not finite.
    pub n_nonfinite: u32,
    /// eps-MSE, mean over dimensions of `(ε − ε̂)²`; `None` for the prior.
    pub mse: Option<(f64, f64)>,
    /// Mean over dimensions of `(x_0 − x̂_0)²`; `None` for the prior.
    pub x0_mse_mean: Option<f64>,
    /// Term of the bound in bits/dim: mean and sum of squared deviations.
    pub vb: (f64, f64),
    /// The irreducible eps-MSE of this data at this t, where known.
    pub mse_floor: Option<f64>,
    /// The irreducible bound term of this data at this t, where known.
    pub vb_floor: Option<f64>,
    /// Mean norm of the gradient over the window's steps; `None` outside `train`.
    pub grad_norm_mean: Option<f64>,
}

impl LossRow {
    pub fn term(&self) -> Term {
        Term::of(self.t)
    }

    /// Whether any sample fell into it; only such rows are stored.
    pub fn counts(&self) -> bool {
        self.n > 0 || self.n_nonfinite > 0
    }
}

/// The least that a bound can be on the same draws, where the distribution of the data is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    #[serde(with = "nan_as_null")]
    pub bits_per_dim: f64,
    /// Standard error of the bound less its floor, which is far smaller than that of either.
    #[serde(with = "nan_as_null")]
    pub excess_se: f64,
}

/// How far samples are from held-out data. Both distances depend on the data set and on the numbers of examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleQuality {
    /// Samples and held-out examples that were compared.
    pub samples: u32,
    pub data: u32,
    /// √(mean over directions of W_2²).
    #[serde(with = "nan_as_null")]
    pub sliced_wasserstein: f64,
    #[serde(with = "nan_as_null")]
    pub sliced_wasserstein_se: f64,
    /// The same of training examples, as many as samples: what perfect samples would have.
    #[serde(with = "nan_as_null")]
    pub sliced_wasserstein_of_data: f64,
    /// The unbiased estimate of the squared kernel MMD: about 0, of either sign, for perfect samples.
    #[serde(with = "nan_as_null")]
    pub mmd2: f64,
    #[serde(with = "nan_as_null")]
    pub mmd2_se: f64,
}

/// One evaluation of the bound: a line of `metrics.jsonl`. What may be absent is absent from files of earlier versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    pub split: Split,
    pub weights: Weights,
    pub step: i64,
    /// Images evaluated.
    pub images: u32,
    /// Timesteps evaluated, and how many noise draws at each.
    pub timesteps: u32,
    pub draws: u32,
    /// The whole bound, prior included; `Σ t_weight · vb_mean` of the rows it came from.
    #[serde(with = "nan_as_null")]
    pub bits_per_dim: f64,
    /// Its standard error over images, their noise, and the choice of timesteps.
    #[serde(with = "nan_as_null")]
    pub bits_per_dim_se: f64,
    #[serde(with = "nan_as_null")]
    pub prior: f64,
    #[serde(with = "nan_as_null")]
    pub kl: f64,
    #[serde(with = "nan_as_null")]
    pub decoder: f64,
    /// eps-MSE averaged over timesteps as training draws them (uniformly).
    #[serde(with = "nan_as_null")]
    pub eps_mse: f64,
    /// Samples dropped because a value was not finite; above zero the figures are of what was left.
    pub n_nonfinite: u64,
    /// The part of the standard error that comes of visiting some timesteps only; absent where every t was visited, and from
    /// earlier versions, whose standard error leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestep_se: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
    /// Of the samples drawn at the end of training: with the last evaluation alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<SampleQuality>,
    /// The whole bound of each evaluated example, in the order of the split: what differences between runs are paired by.
    /// Of `test` alone; empty where a value is not finite, in `run.json`, and in what versions before it wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_example: Vec<f64>,
}

impl Evaluation {
    /// The same without the numbers of single examples.
    pub fn summary(&self) -> Self {
        Self { by_example: Vec::new(), ..self.clone() }
    }
}

/// One axis of a sweep, with its values as the experiment file wrote them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    /// The full key, e.g. `diffusion.schedule`.
    pub key: String,
    pub values: Vec<String>,
}

/// The axis that the cases of an experiment are.
pub const CASE: &str = "case";

/// What a reference may give.
pub const METRICS: [&str; 3] = ["bits_per_dim", "fid", "inception_score"];

/// A published value, with where it is printed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    pub name: String,
    /// The names of the cells it stands for; none: the whole sweep.
    #[serde(default)]
    pub cells: Vec<String>,
    /// By metric.
    pub values: std::collections::BTreeMap<String, f64>,
    pub source: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// JSON has no NaN: a value that could not be computed is written as null and read back as NaN.
mod nan_as_null {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(x: &f64, s: S) -> Result<S::Ok, S::Error> {
        if x.is_finite() { s.serialize_f64(*x) } else { s.serialize_none() }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        Ok(Option::<f64>::deserialize(d)?.unwrap_or(f64::NAN))
    }
}

/// What a run reports while it goes on; one JSON line each on the worker's standard output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Training begins, or goes on from a checkpoint (`step > 0`).
    Started {
        step: u32,
        steps: u32,
        parameters: u64,
        device: String,
    },
    /// A window of training ended: its mean loss and speed.
    Progress {
        step: u32,
        #[serde(with = "nan_as_null")]
        loss: f64,
        steps_per_second: f64,
    },
    /// An evaluation is under way: so many of so many network calls are done.
    Evaluating {
        done: u64,
        total: u64,
    },
    Evaluated {
        evaluation: Evaluation,
    },
    /// A checkpoint is on disk.
    Checkpointed {
        step: u32,
    },
    /// Something that whoever watches should know: a damaged checkpoint was passed over, the code has changed.
    Notice {
        text: String,
    },
    /// The run cannot go on, and why.
    Failed {
        reason: String,
    },
}
