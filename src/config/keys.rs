//! Every key of a run's configuration, once: its name, its documentation, its default, what it allows, how it is read and written.
//!
//! Start at [`KEYS`]. Parsing, command-line overrides, the canonical form, `config.toml` and the key listing all walk
//! this table; a new option is a field of [`RunConfig`] and one entry here. [`FILE_KEYS`] is the same for `[run]` and
//! `[report]`, which never touch a number and are no part of a run's identity.

use super::grid::FileSettings;
use super::run::{Dtype, EvalTimesteps, FloorChoice, MatmulPrecision, OptimizerKind, RunConfig};
use super::value::ConfigValue;
use crate::data::{AxisOrder, DataInfo};
use crate::diffusion::{
    DecoderCdf, FirstLogVariance, Kernel, LossVariant, LossWeighting, Prediction, ScheduleKind, TimestepSampler, VarianceType,
};
use crate::model::{Init, ModelKind, TimeEmbedding};
use std::path::PathBuf;
use toml::Value;

/// One key.
pub struct KeySpec<S: 'static> {
    /// Dotted, e.g. `train.lr`.
    pub key: &'static str,
    /// One line.
    pub doc: &'static str,
    pub default: KeyDefault<S>,
    /// What is allowed, in words that follow "must be".
    pub allowed: fn() -> String,
    /// The names to choose from; empty for what is no closed set.
    pub choices: fn() -> Vec<&'static str>,
    /// One value is itself an array.
    pub is_array: bool,
    pub identity: Identity,
    /// Names that other programs use for the same thing: for suggestions only, never accepted.
    pub also: &'static [&'static str],
    /// The short name in legends where the rule of [`label`] would not give the one everybody expects.
    pub short: Option<&'static str>,
    pub get: fn(&S) -> Value,
    /// # Errors
    /// What is allowed, in words, where the value is not.
    pub set: fn(&mut S, &Value) -> Result<(), String>,
}

/// What a key is where nobody writes it.
pub enum KeyDefault<S> {
    /// A TOML value.
    Literal(&'static str),
    /// Depends on the data and on keys further up in the table.
    Derived { words: &'static str, fill: fn(&mut S, &DataInfo) },
}

/// Whether a key's value is part of a run's identity.
#[derive(Clone, Copy, Debug)]
pub enum Identity {
    Always,
    /// Only where it decides a number. What came after the first version is of this kind, absent at the value that older
    /// versions had without saying so: a new key leaves every stored run where it is.
    Where(fn(&RunConfig) -> bool),
    /// Only for built-in data: a file is identified by the fingerprint of its values.
    BuiltInData,
    /// Says where values are found, not what they are, or whether something is computed beside them.
    Never,
}

impl<S> KeySpec<S> {
    const fn also(self, names: &'static [&'static str]) -> Self {
        Self { also: names, ..self }
    }

    const fn short(self, name: &'static str) -> Self {
        Self { short: Some(name), ..self }
    }

    const fn identity(self, identity: Identity) -> Self {
        Self { identity, ..self }
    }

    const fn identity_where(self, decides: fn(&RunConfig) -> bool) -> Self {
        self.identity(Identity::Where(decides))
    }

    /// The part before the last dot; empty for `seed`.
    pub fn section(&self) -> &'static str {
        self.key.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The part after the last dot.
    pub fn leaf(&self) -> &'static str {
        self.key.rsplit_once('.').map_or(self.key, |(_, leaf)| leaf)
    }

    /// The default in words: the literal itself, or the rule.
    pub fn default_words(&self) -> &'static str {
        match self.default {
            KeyDefault::Literal(text) => text,
            KeyDefault::Derived { words, .. } => words,
        }
    }

    /// The value in its normal form (numbers widened, −0 made 0), or what is allowed.
    pub fn normalise(&self, scratch: &mut S, value: &Value) -> Result<Value, String> {
        (self.set)(scratch, value)?;
        Ok((self.get)(scratch))
    }
}

/// Sections that can be given by one value: `data = "digits"` is `data.name = "digits"`.
pub const SHORTHANDS: &[(&str, &str)] = &[("data", "data.name"), ("model", "model.kind"), ("loss", "loss.variant")];

/// The entry of a full dotted key.
pub fn find(key: &str) -> Option<&'static KeySpec<RunConfig>> {
    KEYS.iter().find(|spec| spec.key == key)
}

/// The short name of a key in cells and legends: its last part where only one key ends so, the section for a section's
/// shorthand key, else the key itself.
pub fn label(spec: &KeySpec<RunConfig>) -> &'static str {
    if let Some(name) = spec.short {
        return name;
    }
    if let Some((section, _)) = SHORTHANDS.iter().find(|(_, key)| *key == spec.key) {
        return section;
    }
    let alone = KEYS.iter().filter(|other| other.leaf() == spec.leaf()).count() == 1;
    if alone { spec.leaf() } else { spec.key }
}

/// The listing of every key, in Markdown.
pub fn reference() -> String {
    let mut out = String::new();
    list(&mut out, KEYS);
    list(&mut out, FILE_KEYS);
    out
}

fn list<S>(out: &mut String, keys: &[KeySpec<S>]) {
    let mut section = None;
    for spec in keys.iter().filter(|spec| !spec.section().is_empty()) {
        if section != Some(spec.section()) {
            section = Some(spec.section());
            out.push_str(&format!("\n### {}\n\n| key | default | allowed | meaning |\n|---|---|---|---|\n", spec.section()));
        }
        out.push_str(&format!("| `{}` | {} | {} | {} |\n", spec.key, spec.default_words(), (spec.allowed)(), spec.doc.replace('|', "\\|")));
    }
}

const fn lit<S>(text: &'static str) -> KeyDefault<S> {
    KeyDefault::Literal(text)
}

const fn derived<S>(words: &'static str, fill: fn(&mut S, &DataInfo)) -> KeyDefault<S> {
    KeyDefault::Derived { words, fill }
}

/// `key!(section.field: Type = default, "documentation")`, or with a range: `… = default, "allowed in words", |x| test, "documentation"`.
macro_rules! key {
    ($section:ident . $field:ident : $T:ty = $default:expr, $doc:literal) => {
        key!($section . $field : $T = $default, <$T as ConfigValue>::words(), |_| true, $doc)
    };
    ($section:ident . $field:ident : $T:ty = $default:expr, $allowed:expr, $ok:expr, $doc:literal) => {
        KeySpec::<target!($section)> {
            key: concat!(stringify!($section), ".", stringify!($field)),
            doc: $doc,
            default: $default,
            allowed: || $allowed.to_string(),
            choices: <$T as ConfigValue>::choices,
            is_array: <$T as ConfigValue>::IS_ARRAY,
            identity: Identity::Always,
            also: &[],
            short: None,
            get: |s| ConfigValue::write(&s.$section.$field),
            set: |s, value| {
                let ok: fn(&$T) -> bool = $ok;
                s.$section.$field = <$T as ConfigValue>::read(value).filter(ok).ok_or_else(|| $allowed.to_string())?;
                Ok(())
            },
        }
    };
}

/// Which struct a section belongs to.
macro_rules! target {
    (run) => {
        FileSettings
    };
    (report) => {
        FileSettings
    };
    ($other:ident) => {
        RunConfig
    };
}

const COUNT: &str = "a whole number, at least 1";
const GAMMA: &str = "a number from -20 to 20";
const FRACTION: &str = "a number in [0, 1)";
const NOT_NEGATIVE: &str = "a number, at least 0";
const POSITIVE: &str = "a number above 0";

/// Every key of a [`RunConfig`], in the order of `config.toml`; a derived default depends on nothing below it.
pub static KEYS: &[KeySpec<RunConfig>] = &[
    // ── data
    key!(data.name: String = lit("\"digits\""), "the name of a built-in data set, or any name for a file", |s| !s.is_empty(),
        "A built-in data set. With `path`: what the file is called in tables and figures (default: its stem).")
        .identity(Identity::BuiltInData).also(&["dataset_name"]),
    key!(data.path: Option<PathBuf> = lit("\"\""),
        "An HDF5 file to use in place of a built-in set, relative to the working directory.")
        .identity(Identity::Never).also(&["file", "data_dir"]),
    key!(data.dataset: Option<String> = lit("\"\""), "The data set inside `path`; found by name where empty.").identity(Identity::Never),
    key!(data.layout: AxisOrder = lit("\"auto\""), "The order of the axes of the array inside `path`.").identity(Identity::Never),
    key!(data.flip: bool = lit("false"), "Mirror training images left to right at random.").also(&["random_flip"]),
    key!(data.fingerprint: String = derived("that of the data", |c, info| c.data.fingerprint.clone_from(&info.fingerprint)),
        "What the values are; filled in. Where written, a run refuses data that changed."),
    // ── model
    key!(model.kind: ModelKind = derived("\"unet2d\" for images of at least 4 × 4, else \"mlp\"", fill_kind), "The network.")
        .also(&["architecture", "type"]),
    key!(model.channels: Vec<u32> = derived("mlp: [128, 128, 128]; unet2d: [32, 64] up to 16 pixels, [32, 64, 64] above; transformer: [128] up to 16 pixels, [192] above", fill_channels),
        "an array of 1 to 16 whole numbers, each at least 1", |c| (1..=16).contains(&c.len()) && c.iter().all(|&c| c > 0),
        "U-Net: channels of each resolution, finest first. MLP: width of each hidden layer. Transformer: its one width.")
        .also(&["block_out_channels", "hidden", "dim_mults", "num_channels", "width"]),
    key!(model.layers_per_block: u32 = lit("2"), COUNT, |n| *n > 0, "Residual blocks at each resolution.").also(&["num_res_blocks"]),
    key!(model.attention: Vec<u32> = lit("[]"), "Heights of the feature maps that carry attention, e.g. [16].")
        .also(&["attention_resolutions", "attn_resolutions"]),
    key!(model.mid_attention: bool = lit("true"), "Attention in the middle block of the U-Net."),
    key!(model.patch: u32 = derived("the largest divisor of height and width up to 2 (images up to 16 pixels) or 4", fill_patch),
        COUNT, |n| *n > 0, "Side of a transformer's square patches, in pixels.").also(&["patch_size"]).identity_where(is_transformer),
    key!(model.depth: u32 = lit("5"), "a whole number from 1 to 128", |n| (1..=128).contains(n),
        "Blocks of a transformer. The first and last ⌊(depth − 1) / 2⌋ are joined by long skips.").also(&["num_layers", "n_layer"]).identity_where(is_transformer),
    key!(model.mlp_ratio: u32 = lit("4"), COUNT, |n| *n > 0, "Width of the hidden layer in a transformer's blocks, in widths of the transformer.")
        .identity_where(is_transformer),
    key!(model.fourier: u32 = lit("0"), "a whole number from 0 to 12", |n| *n <= 12,
        "Octaves of sines and cosines of its inputs that an MLP sees beside them, for detail that is fine against the range of the data. [Kingma21, App. C]")
        .also(&["fourier_features"]).identity_where(|c| c.model.fourier > 0),
    key!(model.head_channels: u32 = derived("transformer: the largest divisor of the width up to 64; unet2d: 0", fill_head_channels),
        "Channels of an attention head; 0 is one head over all channels.")
        .also(&["attention_head_dim", "num_head_channels"]),
    key!(model.norm_groups: u32 = lit("8"), COUNT, |n| *n > 0, "Groups of the group normalisation; divides every channel count.")
        .also(&["norm_num_groups"]),
    key!(model.norm_eps: f64 = lit("1e-6"), POSITIVE, |x| *x > 0.0, "Added to the variance in normalisations. [Ho20]: 1e-6."),
    key!(model.dropout: f64 = lit("0.0"), FRACTION, |x| (0.0..1.0).contains(x), "Share of activations dropped in training."),
    key!(model.downsample_padding: u32 = lit("0"), "0 or 1", |p| *p <= 1,
        "Padding of strided convolutions: 0 right and bottom [Ho20], 1 all around (diffusers' class default)."),
    key!(model.time_embedding: TimeEmbedding = lit("\"ddpm\""), "The sinusoidal embedding of t."),
    key!(model.init: Init = lit("\"ddpm\""), "How parameters start."),
    // ── diffusion
    key!(diffusion.kernel: Kernel = lit("\"gaussian\""), "What a step of the forward process does: adds Gaussian noise, or redraws bits (two-level data alone).")
        .also(&["process", "noise_type"]).identity_where(is_binomial),
    key!(diffusion.binomial_pi: f64 = lit("0.5"), "a number above 0 and below 1", |x| 0.0 < *x && *x < 1.0,
        "The probability that a bit redrawn by the Binomial kernel is 1. [SohlDickstein15]: 0.5; for the heartbeat 0.2.")
        .identity_where(is_binomial),
    key!(diffusion.schedule: ScheduleKind = lit("\"linear\""),
        "The noise schedule; `ddpm-lab schedule KIND` prints it. \"cosine\", \"sigmoid\", \"sqrt\", \"laplace\" and \"jsd\" (whose last beta would be 1) are cut at beta = 0.999.")
        .also(&["beta_schedule", "noise_schedule", "scheduler"]),
    key!(diffusion.timesteps: u32 = lit("1000"), "a whole number, at least 2", |t| *t >= 2, "T.")
        .also(&["num_timesteps", "num_train_timesteps", "diffusion_steps", "T", "num_diffusion_timesteps"]).short("timesteps"),
    key!(diffusion.gamma_min: f64 = lit("-13.3"), GAMMA, |x| x.abs() <= 20.0, "-log SNR at t = 1 of schedule \"logsnr_linear\". [Kingma21]: -13.3.")
        .identity_where(is_log_snr_linear),
    key!(diffusion.gamma_max: f64 = lit("5.0"), GAMMA, |x| x.abs() <= 20.0, "-log SNR at t = T of schedule \"logsnr_linear\". [Kingma21]: 5.")
        .identity_where(is_log_snr_linear),
    key!(diffusion.betas: Vec<f64> = lit("[]"), "an array of numbers above 0 and below 1", |b| b.iter().all(|b| 0.0 < *b && *b < 1.0),
        "The betas of schedule \"explicit\", t = 1 first: T of them.")
        .also(&["trained_betas"]).identity_where(|c| c.diffusion.schedule == ScheduleKind::Explicit),
    key!(diffusion.zero_terminal_snr: bool = lit("false"),
        "Shift and scale sqrt(alpha_bar) so that alpha_bar is 0 at T [Lin24]. Not with prediction \"epsilon\", which says nothing of x_0 there.")
        .also(&["rescale_betas_zero_snr"]).identity_where(|c| c.diffusion.zero_terminal_snr),
    key!(diffusion.prediction: Prediction = derived("\"epsilon\"; \"x0\" for the Binomial kernel", fill_prediction), "What the network's output means.")
        .also(&["objective", "prediction_type", "parameterization", "predict"]),
    key!(diffusion.variance: VarianceType = lit("\"fixed_large\""), "The variance of p(x_{t-1} | x_t): one of two fixed ones, between those by a channel (\"learned_range\"), or a channel that is its logarithm (\"learned\", 0 in an untrained network).")
        .also(&["variance_type", "model_var_type", "learn_sigma", "sigma"]),
    key!(diffusion.first_log_variance: FirstLogVariance = lit("\"copy\""), "The log of the posterior variance at t = 1, where it is 0."),
    key!(diffusion.decoder_cdf: DecoderCdf = lit("\"tanh\""), "The normal distribution function of the discretised decoder."),
    key!(diffusion.clip_x0: bool = derived("true for images, false for points and for the Binomial kernel", fill_clip_x0),
        "Clip the predicted x_0 to [-1, 1] in evaluation and sampling, never in training.")
        .also(&["clip_denoised", "clip_sample"]),
    // ── loss
    key!(loss.variant: LossVariant = lit("\"simple\""),
        "What is minimised: the squared error of the output; T times the term of the bound (improved DDPM's code: RESCALED_KL); or both, the bound moving the variance alone (RESCALED_MSE).")
        .also(&["type", "loss_type", "kind"]),
    key!(loss.weighting: LossWeighting = lit("\"constant\""),
        "Weight of the squared error by timestep: 1 on that of the output; or SNR, max(SNR, 1), min(SNR, g), SNR g/(SNR + g) on that of x_0; or (k + SNR)^-g on that of epsilon; carried over to what is predicted.")
        .also(&["loss_weight"]),
    key!(loss.snr_gamma: f64 = lit("5.0"), POSITIVE, |x| *x > 0.0,
        "g of `min_snr` [Hang23: 5] and `soft_min_snr` [Crowson24: 4, there 1/sigma_data^2].").also(&["min_snr_gamma"])
        .identity_where(|c| has_snr_gamma(c.loss.weighting)),
    key!(loss.p2_gamma: f64 = lit("1.0"), NOT_NEGATIVE, |x| *x >= 0.0, "g of `p2`. [Choi22]: 0.5 or 1.")
        .identity_where(|c| c.loss.weighting == LossWeighting::P2),
    key!(loss.p2_k: f64 = lit("1.0"), POSITIVE, |x| *x > 0.0, "k of `p2`. [Choi22]: 1.")
        .identity_where(|c| c.loss.weighting == LossWeighting::P2),
    key!(loss.vlb_weight: f64 = lit("0.001"), NOT_NEGATIVE, |x| *x >= 0.0, "Weight of the bound in `hybrid`. [Nichol21]: 0.001.")
        .also(&["lambda"]),
    key!(loss.rescale: bool = lit("true"),
        "Whether a term of the bound counts T times in `vlb` and `hybrid`. Improved DDPM's code without it: KL is `vlb`, MSE with a learned variance is `hybrid` at vlb_weight = 1, lucidrains' loss `hybrid` at 0.001.")
        .also(&["rescale_learned_sigmas"]).identity_where(|c| !c.loss.rescale),
    // ── train
    key!(train.steps: u32 = lit("2000"), COUNT, |n| *n > 0, "Optimizer updates.").also(&["num_steps", "iterations", "epochs", "num_train_steps"]),
    key!(train.batch_size: u32 = lit("64"), COUNT, |n| *n > 0, "Examples in each update.").also(&["batch"]),
    key!(train.micro_batch: u32 = derived("mlp: 128; unet2d: 16 up to 16 pixels, 4 above; transformer: 8; at most the batch", fill_micro_batch),
        COUNT, |n| *n > 0, "Examples that go through the network together, on one core. Changes the last bits.")
        .also(&["microbatch", "micro_batch_size"]),
    key!(train.optimizer: OptimizerKind = lit("\"adamw\""), "The optimizer."),
    key!(train.lr: f64 = lit("1e-3"), POSITIVE, |x| *x > 0.0,
        "Learning rate. The papers' 1e-4 to 2e-4 are for networks a hundred times larger and hundreds of thousands of steps.")
        .also(&["learning_rate", "rate"]),
    key!(train.warmup: u32 = derived("100, or a tenth of the steps where that is less", |c, _| c.train.warmup = (c.train.steps / 10).min(100)),
        "Steps over which the learning rate rises linearly from 0.").also(&["warmup_steps", "lr_warmup"]),
    key!(train.weight_decay: f64 = lit("0.0"), NOT_NEGATIVE, |x| *x >= 0.0, "Decoupled weight decay. [Nichol21]: 0."),
    key!(train.beta1: f64 = lit("0.9"), FRACTION, |x| (0.0..1.0).contains(x), "Decay of the first moment."),
    key!(train.beta2: f64 = lit("0.999"), FRACTION, |x| (0.0..1.0).contains(x), "Decay of the second moment."),
    key!(train.grad_clip: f64 = lit("1.0"), NOT_NEGATIVE, |x| *x >= 0.0, "Largest norm of the gradient; 0 switches clipping off. [Ho20]: 1.")
        .also(&["max_grad_norm", "clip"]),
    key!(train.ema: f64 = lit("0.995"), FRACTION, |x| (0.0..1.0).contains(x),
        "Decay of the average of the weights; 0 keeps none. 0.9999 suits runs of 100 000 steps and more.")
        .also(&["ema_decay", "ema_rate"]),
    key!(train.timestep_sampler: TimestepSampler = lit("\"uniform\""),
        "How training draws t: each by itself, one in each of `batch_size` strata, a batch in equal steps from one draw, or where the loss of the last 10 was large (from the moment every t has 10), at a weight that makes up for it.").also(&["schedule_sampler"]),
    key!(train.dtype: Dtype = lit("\"f32\""), "Arithmetic of the network in training; weights and evaluations are f32 always. \"bf16\" needs CUDA.")
        .also(&["precision", "mixed_precision"]),
    key!(train.matmul_precision: MatmulPrecision = lit("\"f32\""), "Products and convolutions of f32, in training and evaluation; \"tf32\" (10 bits of mantissa) needs CUDA.")
        .also(&["float32_matmul_precision", "allow_tf32", "tf32"]).identity_where(|c| c.train.matmul_precision != MatmulPrecision::F32),
    // ── log, eval, sample
    key!(log.every: u32 = lit("100"), COUNT, |n| *n > 0, "Steps in a window of training losses.").also(&["log_interval"]),
    key!(eval.every: u32 = lit("500"), "Steps between evaluations on `val`; 0 only at the end.").also(&["eval_interval"]),
    key!(eval.images: u32 = derived("64 images or 1000 points, or all of `val` where it is smaller", |c, info| c.eval.images = at_most(if info.shape.is_image() { 64 } else { 1000 }, info.val)),
        COUNT, |n| *n > 0, "Images of `val` in each evaluation."),
    key!(eval.timesteps: EvalTimesteps = derived("\"strided:50\"; \"all\" where T is at most 50", fill_eval_timesteps),
        "Timesteps of an evaluation on `val`: all, or t = 1, t = T and one in each of K − 2 strata between (at least one) that widen geometrically. The final one on `test` always takes all."),
    key!(eval.test_images: u32 = derived("128 images or 2000 points, or all of `test` where it is smaller", |c, info| c.eval.test_images = at_most(if info.shape.is_image() { 128 } else { 2000 }, info.test)),
        COUNT, |n| *n > 0, "Images of `test` in the final evaluation."),
    key!(eval.draws: u32 = lit("1"), COUNT, |n| *n > 0, "Noise draws for each image and timestep."),
    key!(eval.floor: FloorChoice = lit("\"auto\""),
        "The irreducible loss in `mse_floor` and `vb_floor`: of every split where the data's distribution is known (gaussian_mixture, heartbeat), else of `train` alone, by the posterior mean over the training examples (\"auto\": where that costs at most 1 % of the training's operations).")
        .identity(Identity::Never),
    key!(sample.count: u32 = derived("64 images or 2000 points", |c, info| c.sample.count = if info.shape.is_image() { 64 } else { 2000 }), "Samples drawn at the end.").also(&["num_samples"]),
    key!(sample.every: u32 = lit("0"), "Samples also every so many steps; 0 only at the end."),
    SEED,
];

/// Written as `seeds = [..]` beside the sections, not inside them.
const SEED: KeySpec<RunConfig> = KeySpec {
    key: "seed",
    doc: "The seed of everything random in training.",
    default: KeyDefault::Literal("0"),
    allowed: seed_words,
    choices: Vec::new,
    is_array: false,
    identity: Identity::Always,
    also: &[],
    short: None,
    get: |c| Value::Integer(c.seed),
    set: |c, value| {
        c.seed = i64::read(value).filter(|s| *s >= 0).ok_or_else(seed_words)?;
        Ok(())
    },
};

fn seed_words() -> String {
    "a whole number, 0 or more".to_owned()
}

/// The keys of `[run]` and `[report]`: never part of a run's identity.
pub static FILE_KEYS: &[KeySpec<FileSettings>] = &[
    key!(run.jobs: Option<usize> = lit("0"), "Runs at a time; 0 lets the program choose.").also(&["workers", "parallel"]),
    key!(run.checkpoint_every: u32 = lit("0"), "Steps between checkpoints; 0: 500, or more where those would take less than two seconds.")
        .also(&["save_every", "save_interval"]),
    key!(run.keep: bool = lit("false"), "Keep every checkpoint, not only the newest.").also(&["keep_checkpoints"]),
    key!(run.max_runs: u32 = lit("10000"), COUNT, |n| *n > 0, "More runs than this are refused as a mistake.").also(&["limit"]),
    key!(report.title: String = lit("\"\""), "The report's heading; the experiment's name where empty."),
];

fn is_transformer(config: &RunConfig) -> bool {
    config.model.kind == ModelKind::Transformer
}

fn is_binomial(config: &RunConfig) -> bool {
    config.diffusion.kernel == Kernel::Binomial
}

fn is_log_snr_linear(config: &RunConfig) -> bool {
    config.diffusion.schedule == ScheduleKind::LogSnrLinear
}

/// Whether the weighting has a γ of its own.
pub fn has_snr_gamma(weighting: LossWeighting) -> bool {
    matches!(weighting, LossWeighting::MinSnr | LossWeighting::SoftMinSnr)
}

fn fill_kind(config: &mut RunConfig, info: &DataInfo) {
    let picture = info.shape.height >= 4 && info.shape.width >= 4;
    config.model.kind = if picture { ModelKind::UNet2d } else { ModelKind::Mlp };
}

/// As many levels as the image can be halved, up to two (small images) or three.
fn fill_channels(config: &mut RunConfig, info: &DataInfo) {
    config.model.channels = match config.model.kind {
        ModelKind::Mlp => vec![128, 128, 128],
        ModelKind::UNet2d => {
            let halvings = (info.shape.height | info.shape.width).trailing_zeros() as usize;
            let levels = if is_small(info) { 2 } else { 3 };
            [32, 64, 64][..levels.min(halvings + 1)].to_vec()
        }
        ModelKind::Transformer if is_small(info) => vec![128],
        ModelKind::Transformer => vec![192],
    };
}

fn fill_patch(config: &mut RunConfig, info: &DataInfo) {
    let (height, width) = (info.shape.height as u32, info.shape.width as u32);
    let largest = if is_small(info) { 2 } else { 4 };
    config.model.patch = (1..=largest).rev().find(|p| height % p == 0 && width % p == 0).unwrap_or(1);
}

fn fill_head_channels(config: &mut RunConfig, _: &DataInfo) {
    config.model.head_channels = match (config.model.kind, config.model.channels.as_slice()) {
        (ModelKind::Transformer, [width, ..]) => (1..=64).rev().find(|head| width % head == 0).unwrap_or(0),
        _ => 0,
    };
}

fn fill_prediction(config: &mut RunConfig, _: &DataInfo) {
    config.diffusion.prediction = match config.diffusion.kernel {
        Kernel::Gaussian => Prediction::Epsilon,
        Kernel::Binomial => Prediction::X0,
    };
}

fn fill_clip_x0(config: &mut RunConfig, info: &DataInfo) {
    config.diffusion.clip_x0 = info.shape.is_image() && config.diffusion.kernel == Kernel::Gaussian;
}

fn fill_micro_batch(config: &mut RunConfig, info: &DataInfo) {
    let size = match config.model.kind {
        ModelKind::Mlp => 128,
        ModelKind::UNet2d if is_small(info) => 16,
        ModelKind::UNet2d => 4,
        ModelKind::Transformer => 8,
    };
    config.train.micro_batch = size.min(config.train.batch_size);
}

fn fill_eval_timesteps(config: &mut RunConfig, _: &DataInfo) {
    config.eval.timesteps = if config.diffusion.timesteps <= 50 { EvalTimesteps::All } else { EvalTimesteps::Strided(50) };
}

fn is_small(info: &DataInfo) -> bool {
    info.shape.height.max(info.shape.width) <= 16
}

fn at_most(count: u32, available: usize) -> u32 {
    u32::try_from(available).map_or(count, |n| n.min(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn keys_are_unique_and_shorthands_and_labels_lead_to_one_key() {
        let keys: BTreeSet<_> = KEYS.iter().map(|s| s.key).collect();
        assert_eq!(keys.len(), KEYS.len());
        let labels: BTreeSet<_> = KEYS.iter().map(label).collect();
        assert_eq!(labels.len(), KEYS.len());
        for (_, key) in SHORTHANDS {
            assert!(find(key).is_some(), "{key}");
        }
    }

    #[test]
    fn labels_are_the_shortest_name_that_is_clear() {
        let of = |key| label(find(key).unwrap());
        assert_eq!(of("diffusion.schedule"), "schedule");
        assert_eq!(of("loss.variant"), "loss");
        assert_eq!(of("model.kind"), "model");
        assert_eq!(of("data.name"), "data");
        assert_eq!(of("eval.every"), "eval.every");
        assert_eq!(of("diffusion.timesteps"), "timesteps");
        assert_eq!(of("eval.timesteps"), "eval.timesteps");
        assert_eq!(of("train.lr"), "lr");
    }

    #[test]
    fn every_key_is_listed_with_its_default() {
        let text = reference();
        for spec in KEYS.iter().filter(|s| s.key != "seed") {
            assert!(text.contains(&format!("| `{}` | {} |", spec.key, spec.default_words())), "{}", spec.key);
        }
        assert!(text.contains("`run.jobs`"));
    }
}
