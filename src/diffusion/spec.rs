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
        Sqrt = "sqrt",
        Constant = "constant",
        Warmup10 = "warmup10",
        Warmup50 = "warmup50",
        Laplace = "laplace",
        LogSnrLinear = "logsnr_linear",
        /// The betas of `diffusion.betas`.
        Explicit = "explicit",
    }
}

named_enum! {
    /// What the network's output means.
    pub enum Prediction {
        Epsilon = "epsilon",
        X0 = "x0",
        V = "v",
        /// The posterior mean μ̃(x_t, x_0). [Ho20, Eq. 8 and Table 2]
        Mean = "mean",
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
        /// The extra output channels are the log-variance itself, unbounded: [Ho20, Table 2]'s learned diagonal. A network
        /// that starts by putting out zero starts at variance 1 at every t.
        Learned = "learned",
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
    /// A weight on the squared error, by timestep. All but `constant` are one weight on the error of x_0, or of ε, and
    /// reach the other predictions by the identities between the errors, so that one denoiser has one loss whatever its
    /// output means. [`LossSpec::weight`] has the formulas.
    pub enum LossWeighting {
        /// 1 on the error of the network's own output. [Ho20, Eq. 14]
        Constant = "constant",
        /// SNR on the error of x_0, which is 1 on that of ε. [Salimans22, §4]
        Snr = "snr",
        /// max(SNR, 1) on the error of x_0. [Salimans22, §4]
        TruncatedSnr = "truncated_snr",
        /// min(SNR, γ) on the error of x_0. [Hang23]
        MinSnr = "min_snr",
        /// SNR · γ / (SNR + γ) on the error of x_0. [Crowson24]
        SoftMinSnr = "soft_min_snr",
        /// 1 / (k + SNR)^γ on the error of ε. [Choi22]
        P2 = "p2",
    }
}

named_enum! {
    /// How training draws t. [`timesteps`](super::timesteps) has the formula of each.
    pub enum TimestepSampler {
        /// Each by itself. [Ho20, Alg. 1]
        Uniform = "uniform",
        /// One in each of B equal parts of 1..=T, B being the batch.
        Stratified = "stratified",
        /// One draw for the whole batch, and from it B equal steps around 1..=T. [Kingma21]
        LowDiscrepancy = "low_discrepancy",
        /// Where the loss has been large, its weight divided by how much more often that is. [Nichol21, Eq. 18]
        LossSecondMoment = "loss_second_moment",
    }
}

/// What makes a noise schedule: the part of `[diffusion]` that [`NoiseSchedule::of`](super::NoiseSchedule::of) reads.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleSpec {
    pub kind: ScheduleKind,
    pub timesteps: u32,
    /// −log SNR at t = 1 and t = T of `logsnr_linear`.
    pub gamma: (f64, f64),
    /// The betas of `explicit`, T of them; empty for the others.
    pub betas: Vec<f64>,
    pub zero_terminal_snr: bool,
}

impl ScheduleSpec {
    /// −log SNR at both ends as VDM fixes it. [Kingma21, code]
    pub const GAMMA: (f64, f64) = (-13.3, 5.0);

    /// A schedule of that kind without options.
    pub fn plain(kind: ScheduleKind, timesteps: u32) -> Self {
        Self { kind, timesteps, gamma: Self::GAMMA, betas: Vec::new(), zero_terminal_snr: false }
    }
}

/// The kind with the options that tell it from others of its kind; T is left out.
impl std::fmt::Display for ScheduleSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.kind.fmt(f)?;
        if self.kind == ScheduleKind::LogSnrLinear && self.gamma != Self::GAMMA {
            write!(f, " {} to {}", -self.gamma.0, -self.gamma.1)?;
        }
        if let (Some(first), Some(last)) = (self.betas.first(), self.betas.last()) {
            write!(f, " {first} to {last}")?;
        }
        f.write_str(if self.zero_terminal_snr { ", zero terminal SNR" } else { "" })
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
    /// −log SNR at t = 1 of `logsnr_linear`.
    pub gamma_min: f64,
    /// −log SNR at t = T of `logsnr_linear`.
    pub gamma_max: f64,
    /// The betas of `explicit`.
    pub betas: Vec<f64>,
    /// Shift and scale √ᾱ so that no signal is left at T. [Lin24, Alg. 1]
    pub zero_terminal_snr: bool,
    pub prediction: Prediction,
    pub variance: VarianceType,
    pub first_log_variance: FirstLogVariance,
    pub decoder_cdf: DecoderCdf,
    /// Clip x̂_0 to [-1, 1] in evaluation and sampling (images only; never in training).
    pub clip_x0: bool,
}

impl DiffusionSpec {
    /// A Gaussian process that predicts the noise under a fixed variance, nothing else asked for.
    pub fn plain(schedule: ScheduleKind, timesteps: u32, variance: VarianceType) -> Self {
        Self {
            kernel: Kernel::Gaussian,
            binomial_pi: 0.5,
            schedule,
            timesteps,
            gamma_min: ScheduleSpec::GAMMA.0,
            gamma_max: ScheduleSpec::GAMMA.1,
            betas: Vec::new(),
            zero_terminal_snr: false,
            prediction: Prediction::Epsilon,
            variance,
            first_log_variance: FirstLogVariance::Copy,
            decoder_cdf: DecoderCdf::Tanh,
            clip_x0: false,
        }
    }

    /// What its noise schedule is made of.
    pub fn noise(&self) -> ScheduleSpec {
        ScheduleSpec {
            kind: self.schedule,
            timesteps: self.timesteps,
            gamma: (self.gamma_min, self.gamma_max),
            betas: self.betas.clone(),
            zero_terminal_snr: self.zero_terminal_snr,
        }
    }
}

/// The `[loss]` section.
#[derive(Clone, Debug, PartialEq)]
pub struct LossSpec {
    pub variant: LossVariant,
    pub weighting: LossWeighting,
    /// γ of `min_snr` and `soft_min_snr`.
    pub snr_gamma: f64,
    /// γ of `p2`.
    pub p2_gamma: f64,
    /// k of `p2`.
    pub p2_k: f64,
    /// λ of `hybrid`: the weight of the bound's part; improved DDPM has 0.001.
    pub vlb_weight: f64,
    /// Whether a term of the bound counts T times, so that its mean over uniform t is the whole bound.
    pub rescale: bool,
}

impl LossSpec {
    /// A loss without options, for tests.
    #[cfg(test)]
    pub fn plain(variant: LossVariant) -> Self {
        Self { variant, weighting: LossWeighting::Constant, snr_gamma: 5.0, p2_gamma: 1.0, p2_k: 1.0, vlb_weight: 0.001, rescale: true }
    }

    /// The weight of the mean squared error of the network's output, where ∂x̂_0/∂output is `x0_slope`.
    ///
    /// Errors are related by (x_0 − x̂_0)² = slope² · (target − output)²: slope² is 1/SNR for ε, 1 for x_0, 1/(SNR + 1) for v,
    /// so a weight w on the error of x_0 is w · slope² on that of the output:
    ///
    /// | | ε | x_0 | v |
    /// |---|---|---|---|
    /// | `snr` | 1 | SNR | SNR/(SNR + 1) |
    /// | `truncated_snr` | max(1, 1/SNR) | max(SNR, 1) | max(SNR, 1)/(SNR + 1) |
    /// | `min_snr` | min(SNR, γ)/SNR | min(SNR, γ) | min(SNR, γ)/(SNR + 1) |
    /// | `soft_min_snr` | γ/(SNR + γ) | SNR γ/(SNR + γ) | SNR γ/((SNR + γ)(SNR + 1)) |
    /// | `p2` | (k + SNR)^−γ | SNR (k + SNR)^−γ | SNR (k + SNR)^−γ/(SNR + 1) |
    ///
    /// At SNR = 0 all are finite for x_0 and v; no ε is predicted there.
    pub fn weight(&self, snr: f64, x0_slope: f64) -> f64 {
        let gamma = self.snr_gamma;
        let on_x0 = match self.weighting {
            LossWeighting::Constant => return 1.0,
            LossWeighting::Snr => snr,
            LossWeighting::TruncatedSnr => snr.max(1.0),
            LossWeighting::MinSnr => snr.min(gamma),
            LossWeighting::SoftMinSnr => snr * gamma / (snr + gamma),
            LossWeighting::P2 => snr / (self.p2_k + snr).powf(self.p2_gamma),
        };
        on_x0 * x0_slope * x0_slope
    }

    /// What a term of the bound is multiplied with before it is a loss, λ apart.
    pub fn horizon(&self, timesteps: usize) -> f64 {
        if self.rescale { timesteps as f64 } else { 1.0 }
    }
}
