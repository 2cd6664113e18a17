//! The options of the diffusion process and of the loss, as a configuration names them.

use crate::named_enum;

named_enum! {
    /// What a step of the forward process does to a value.
    pub enum Kernel {
        /// Scales it and adds Gaussian noise. [Ho20]
        Gaussian = "gaussian",
        /// Redraws a bit with probability β_t. [SohlDickstein15]
        Binomial = "binomial",
    }
}

named_enum! {
    /// Noise schedules. [`NoiseSchedule`](super::NoiseSchedule) has the formula of each.
    pub enum ScheduleKind {
        Linear = "linear",
        LinearScaled = "linear_scaled",
        Quadratic = "quadratic",
        Cosine = "cosine",
        Sigmoid = "sigmoid",
        Jsd = "jsd",
    }
}

named_enum! {
    /// What the network's output means.
    pub enum Prediction {
        Epsilon = "epsilon",
        X0 = "x0",
        V = "v",
    }
}

named_enum! {
    /// The variance of `p(x_{t-1} | x_t)`.
    pub enum VarianceType {
        /// The posterior variance β̃_t.
        FixedSmall = "fixed_small",
        /// β_t, with β̃_2 at t = 1. [Ho20]
        FixedLarge = "fixed_large",
        /// Interpolated in the log domain between β̃_t and β_t by extra output channels. [Nichol21, Eq. 15]
        LearnedRange = "learned_range",
    }
}

named_enum! {
    /// log β̃ at t = 1, where β̃ itself is 0.
    pub enum FirstLogVariance {
        /// That of t = 2. [Nichol21]
        Copy = "copy",
        /// log 1e-20.
        Clamp = "clamp",
    }
}

named_enum! {
    /// The normal distribution function inside the discretised decoder.
    pub enum DecoderCdf {
        /// The tanh approximation of the published code; off by up to 1.8e-4.
        Tanh = "tanh",
        Erf = "erf",
    }
}

named_enum! {
    pub enum LossVariant {
        /// Mean squared error of the prediction. [Ho20, Eq. 14]
        Simple = "simple",
        /// The variational bound: T · (its term at t), in bits/dim. [Ho20, Eq. 5]
        Vlb = "vlb",
        /// simple + `loss.vlb_weight` · T · (term at t), the mean detached inside the bound. [Nichol21, Eq. 16]
        Hybrid = "hybrid",
    }
}

named_enum! {
    /// A weight on the squared error, by timestep.
    pub enum LossWeighting {
        Constant = "constant",
    }
}

named_enum! {
    /// How training draws t.
    pub enum TimestepSampler {
        Uniform = "uniform",
    }
}

/// The `[diffusion]` section.
#[derive(Clone, Debug, PartialEq)]
pub struct DiffusionSpec {
    pub kernel: Kernel,
    /// π, the probability that a redrawn bit is 1; of the Binomial kernel alone.
    pub binomial_pi: f64,
    pub schedule: ScheduleKind,
    pub timesteps: u32,
    pub prediction: Prediction,
    pub variance: VarianceType,
    pub first_log_variance: FirstLogVariance,
    pub decoder_cdf: DecoderCdf,
    /// Clip x̂_0 to [-1, 1] in evaluation and sampling (images only; never in training).
    pub clip_x0: bool,
}

/// The `[loss]` section.
#[derive(Clone, Debug, PartialEq)]
pub struct LossSpec {
    pub variant: LossVariant,
    pub weighting: LossWeighting,
    /// λ of `hybrid`: the weight of the whole bound in bits/dim, T · (term at t); improved DDPM has 0.001.
    pub vlb_weight: f64,
}
