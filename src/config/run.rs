//! A complete run configuration: every option that changes a number, resolved.

use crate::data::DataSpec;
use crate::diffusion::{DiffusionSpec, LossSpec, TimestepSampler};
use crate::model::ModelSpec;
use crate::named_enum;

named_enum! {
    pub enum OptimizerKind {
        AdamW = "adamw",
    }
}

named_enum! {
    /// Arithmetic of the network.
    pub enum Dtype {
        F32 = "f32",
        /// bfloat16 in the network's forward and backward pass; weights, moments, loss and evaluations stay f32 and f64.
        Bf16 = "bf16",
    }
}

named_enum! {
    /// How products and convolutions of f32 treat their factors.
    pub enum MatmulPrecision {
        F32 = "f32",
        /// Rounded to 10 bits of mantissa, on GPUs that have such units.
        Tf32 = "tf32",
    }
}

/// Which timesteps an evaluation visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalTimesteps {
    /// `"all"`: 1..=T.
    All,
    /// `"strided:K"`: t = 1 and t = T by themselves, and one timestep in each of K − 2 strata between, at least one,
    /// which widen geometrically.
    Strided(u32),
}

named_enum! {
    /// Whether the irreducible loss is put beside the run's own.
    pub enum FloorChoice {
        /// Where it is cheap beside the training.
        Auto = "auto",
        On = "on",
        Off = "off",
    }
}

/// The `[train]` section.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSpec {
    pub steps: u32,
    pub batch_size: u32,
    /// Samples that go through the network together; the unit of work of a core. Changes the last bits, so it is part of identity.
    pub micro_batch: u32,
    pub optimizer: OptimizerKind,
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup: u32,
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    /// Largest global gradient norm; 0 switches clipping off.
    pub grad_clip: f64,
    /// Decay of the exponential moving average of the weights; 0 keeps none (the average is then the weights).
    pub ema: f64,
    pub timestep_sampler: TimestepSampler,
    pub dtype: Dtype,
    pub matmul_precision: MatmulPrecision,
}

/// The `[log]` section.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSpec {
    /// Steps in a window of training losses.
    pub every: u32,
}

/// The `[eval]` section.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalSpec {
    /// Steps between evaluations on `val`; 0 evaluates only at the end.
    pub every: u32,
    /// Images of `val` in each evaluation.
    pub images: u32,
    /// Timesteps of an evaluation on `val`; the final one on `test` always takes all.
    pub timesteps: EvalTimesteps,
    /// Images of `test` in the final evaluation.
    pub test_images: u32,
    /// Noise draws per image and timestep.
    pub draws: u32,
    /// Fills `mse_floor` and `vb_floor`; changes no other number, so it is no part of identity.
    pub floor: FloorChoice,
}

/// The `[sample]` section.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleSpec {
    /// Samples drawn at the end.
    pub count: u32,
    /// Samples also every so many steps; 0 only at the end.
    pub every: u32,
}

/// Everything that determines a run's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct RunConfig {
    pub data: DataSpec,
    pub model: ModelSpec,
    pub diffusion: DiffusionSpec,
    pub loss: LossSpec,
    pub train: TrainSpec,
    pub log: LogSpec,
    pub eval: EvalSpec,
    pub sample: SampleSpec,
    pub seed: i64,
}

/// `r` and 12 hex digits: the identity of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct RunId(pub String);

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
