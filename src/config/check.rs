//! What values cannot do together, or not with this data. Each single value has been checked before.
//!
//! Start at [`problems`]: a function of a complete configuration and the data's facts, so a new rule is one more `if`.
//! Rules name keys; where those were written is found by the caller.

use super::keys::{self, KeyDefault};
use super::run::{EvalTimesteps, RunConfig};
use super::value::{either, plain};
use crate::data::{DataInfo, Encoding};
use crate::diffusion::{
    DecoderCdf, FirstLogVariance, Kernel, LossVariant, LossWeighting, NoiseSchedule, Prediction, ScheduleError, ScheduleKind, VarianceType,
};
use crate::model::ModelKind;

/// A combination that cannot run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The keys whose values meet, the one to point at first.
    pub keys: Vec<&'static str>,
    pub message: String,
    /// A few words at the value of the first key.
    pub label: String,
    pub help: String,
}

/// Every problem of a configuration on its data.
pub fn problems(config: &RunConfig, info: &DataInfo) -> Vec<Problem> {
    let mut found = Vec::new();
    schedule(config, &mut found);
    match config.diffusion.kernel {
        Kernel::Gaussian => gaussian(config, &mut found),
        Kernel::Binomial => binomial(config, info, &mut found),
    }
    data(config, info, &mut found);
    match config.model.kind {
        ModelKind::UNet2d => unet(config, info, &mut found),
        ModelKind::Mlp => {}
        ModelKind::Transformer => transformer(config, info, &mut found),
    }
    undecided(config, &mut found);
    unread(config, info, &mut found);
    counts(config, info, &mut found);
    let shape = info.shape;
    if !shape.is_image() && shape.channels != 2 {
        let help = "use images of at least 2 × 2, or points of the plane";
        push(&mut found, &["data.path"], format!("examples of {shape} are neither images nor points of the plane"), "this data", help);
    }
    found
}

fn push(found: &mut Vec<Problem>, keys: &[&'static str], message: String, label: impl Into<String>, help: impl Into<String>) {
    found.push(Problem { keys: keys.to_vec(), message, label: label.into(), help: help.into() });
}

fn schedule(config: &RunConfig, found: &mut Vec<Problem>) {
    let t = config.diffusion.timesteps;
    // The last beta is 0.02 · 1000/T. At T = 20 it is exactly 1: no signal is left and log(1 − beta) is infinite.
    if config.diffusion.schedule == ScheduleKind::LinearScaled && t <= 20 {
        push(
            found,
            &["diffusion.schedule", "diffusion.timesteps"],
            format!("the last beta of \"linear_scaled\" is {} with T = {t}, but a beta must be below 1", 20.0 / f64::from(t)),
            format!("0.02 × 1000 / T, with T = {t}"),
            "use at least 21 timesteps, or schedule = \"cosine\"",
        );
    } else if let Err(error) = NoiseSchedule::of(&config.diffusion.noise()) {
        no_schedule(&error, found);
    }
    if let EvalTimesteps::Strided(k) = config.eval.timesteps
        && k > t
    {
        push(
            found,
            &["eval.timesteps", "diffusion.timesteps"],
            format!("an evaluation cannot visit {k} of {t} timesteps"),
            format!("more than T = {t}"),
            format!("at most \"strided:{t}\", or \"all\""),
        );
    }
}

/// A schedule that cannot be, at the keys that make it.
fn no_schedule(error: &ScheduleError, found: &mut Vec<Problem>) {
    let message = error.to_string();
    match error {
        ScheduleError::Timesteps { needs, .. } => {
            let help = format!("{needs}, or another schedule");
            push(found, &["diffusion.schedule", "diffusion.timesteps"], message, "does not exist at this T", help);
        }
        ScheduleError::BetaCount { betas: 0, .. } => {
            let help = "diffusion.betas = [0.1, 0.2, 0.4] with diffusion.timesteps = 3, or a schedule by name";
            push(found, &["diffusion.schedule", "diffusion.betas"], "schedule \"explicit\" needs its betas".to_owned(), "no betas", help);
        }
        ScheduleError::BetaCount { betas, .. } => {
            let help = format!("diffusion.timesteps = {betas}");
            push(found, &["diffusion.betas", "diffusion.timesteps"], message, format!("{betas} values"), help);
        }
        ScheduleError::GammaFalls { .. } => {
            let help = "gamma_min below gamma_max; [Kingma21] has -13.3 and 5";
            push(found, &["diffusion.gamma_min", "diffusion.gamma_max"], message, "not below `diffusion.gamma_max`", help);
        }
        ScheduleError::NoSignal { .. } => {
            let help = "fewer timesteps, or a gentler schedule";
            push(found, &["diffusion.schedule", "diffusion.timesteps"], message, "loses all signal before T", help);
        }
        ScheduleError::TooShort { .. }
        | ScheduleError::BetaOutOfRange { .. }
        | ScheduleError::NoNoise { .. }
        | ScheduleError::EpsilonWithoutSignal => {
            let help = "choose another number of timesteps or another schedule";
            push(found, &["diffusion.schedule", "diffusion.timesteps"], message, "not a schedule", help);
        }
    }
}

/// Values that decide nothing beside those of other keys: who wrote them meant something else, or one run would have two
/// identities.
fn undecided(config: &RunConfig, found: &mut Vec<Problem>) {
    let literals = RunConfig::literal_defaults();
    let (diffusion, loss) = (&config.diffusion, &config.loss);
    let log_snr = diffusion.schedule == ScheduleKind::LogSnrLinear;
    let explicit = diffusion.schedule == ScheduleKind::Explicit;
    let (snr, p2) = (keys::has_snr_gamma(loss.weighting), loss.weighting == LossWeighting::P2);
    let bound = loss.variant != LossVariant::Simple;
    // Bits have no weights at all, which is told of the kernel.
    let weighted = loss.variant != LossVariant::Vlb || diffusion.kernel == Kernel::Binomial;
    for (key, decides, by, wanted, reason) in [
        ("diffusion.gamma_min", log_snr, "diffusion.schedule", "\"logsnr_linear\"", "for schedule \"logsnr_linear\" only"),
        ("diffusion.gamma_max", log_snr, "diffusion.schedule", "\"logsnr_linear\"", "for schedule \"logsnr_linear\" only"),
        ("diffusion.betas", explicit, "diffusion.schedule", "\"explicit\"", "for schedule \"explicit\" only"),
        ("loss.weighting", weighted, "loss.variant", "\"simple\" or \"hybrid\"", "the bound has its own weights"),
        ("loss.snr_gamma", snr, "loss.weighting", "\"min_snr\" or \"soft_min_snr\"", "for \"min_snr\" and \"soft_min_snr\" only"),
        ("loss.p2_gamma", p2, "loss.weighting", "\"p2\"", "for \"p2\" only"),
        ("loss.p2_k", p2, "loss.weighting", "\"p2\"", "for \"p2\" only"),
        ("loss.rescale", bound, "loss.variant", "\"vlb\" or \"hybrid\"", "loss \"simple\" has no term of the bound"),
    ] {
        let spec = keys::find(key).expect("the table names keys that exist: tested");
        if !decides && (spec.get)(config) != (spec.get)(&literals) {
            let beside = plain(&(keys::find(by).expect("as above").get)(config));
            let message = format!("`{key}` would do nothing beside {by} = \"{beside}\"");
            push(found, &[spec.key, by], message, reason, format!("{by} = {wanted}, or leave `{key}` out"));
        }
    }
}

fn gaussian(config: &RunConfig, found: &mut Vec<Problem>) {
    if config.diffusion.zero_terminal_snr && config.diffusion.prediction == Prediction::Epsilon {
        push(
            found,
            &["diffusion.zero_terminal_snr", "diffusion.prediction"],
            "at zero terminal SNR x_T is noise alone, so a prediction of epsilon says nothing of x_0 there".to_owned(),
            "no signal at T",
            "diffusion.prediction = \"v\", \"x0\" or \"mean\"",
        );
    }
    if config.diffusion.binomial_pi != 0.5 {
        push(
            found,
            &["diffusion.binomial_pi", "diffusion.kernel"],
            "a Gaussian kernel redraws no bits".to_owned(),
            "for kernel \"binomial\" only",
            "diffusion.kernel = \"binomial\", or leave `diffusion.binomial_pi` out",
        );
    }
    variance(config, found);
}

fn binomial(config: &RunConfig, info: &DataInfo, found: &mut Vec<Problem>) {
    let data = match info.encoding {
        Encoding::Discrete { levels: 2 } => None,
        Encoding::Discrete { levels } => Some(format!("this data has {levels} levels")),
        Encoding::Continuous => Some("this data is continuous".to_owned()),
    };
    if let Some(data) = data {
        push(
            found,
            &["diffusion.kernel", "data.name"],
            format!("the Binomial kernel redraws bits, and {data}"),
            "for data of two levels only",
            "data.name = \"heartbeat\" or \"digits_binary\", a file with `levels = 2`, or diffusion.kernel = \"gaussian\"",
        );
    }
    if config.diffusion.prediction != Prediction::X0 {
        push(
            found,
            &["diffusion.prediction", "diffusion.kernel"],
            format!(
                "bits have no \"{}\": under the Binomial kernel the network predicts x_0, one logit a bit",
                config.diffusion.prediction
            ),
            "for kernel \"gaussian\" only",
            "diffusion.prediction = \"x0\", or leave it out",
        );
    }
    if config.loss.variant == LossVariant::Hybrid {
        push(
            found,
            &["loss.variant", "diffusion.kernel"],
            "loss \"hybrid\" trains a learned variance, and bits have none".to_owned(),
            "for kernel \"gaussian\" only",
            "loss.variant = \"vlb\" (the bound), or \"simple\" (the cross-entropy of x_0)",
        );
    }
    let d = &config.diffusion;
    for (key, meant, what) in [
        ("diffusion.variance", d.variance != VarianceType::FixedLarge, "a bit has no variance of its own"),
        ("diffusion.first_log_variance", d.first_log_variance != FirstLogVariance::Copy, "a bit has no variance of its own"),
        ("diffusion.decoder_cdf", d.decoder_cdf != DecoderCdf::Tanh, "the decoder of bits has no distribution function"),
        ("diffusion.clip_x0", d.clip_x0, "a probability needs no clipping"),
        ("loss.weighting", config.loss.weighting != LossWeighting::Constant, "weights are of the squared error, and bits have none"),
    ] {
        if meant {
            let help = format!("leave `{key}` out");
            push(found, &[key, "diffusion.kernel"], format!("{what}, so `{key}` would do nothing"), "for kernel \"gaussian\" only", help);
        }
    }
}

fn variance(config: &RunConfig, found: &mut Vec<Problem>) {
    let variance = config.diffusion.variance;
    let learned = matches!(variance, VarianceType::LearnedRange | VarianceType::Learned);
    match config.loss.variant {
        LossVariant::Hybrid if !learned => push(
            found,
            &["loss.variant", "diffusion.variance"],
            format!("loss \"hybrid\" trains a learned variance, but `diffusion.variance` is \"{}\"", config.diffusion.variance),
            "its bound term reaches the variance only",
            "diffusion.variance = \"learned_range\", or loss.variant = \"vlb\"",
        ),
        LossVariant::Simple if learned => push(
            found,
            &["diffusion.variance", "loss.variant"],
            format!("variance \"{variance}\" would get no gradient from loss \"simple\""),
            "never trained",
            "loss.variant = \"hybrid\" (simple, and the bound for the variance), or a fixed variance",
        ),
        LossVariant::Simple | LossVariant::Vlb | LossVariant::Hybrid => {}
    }
}

fn data(config: &RunConfig, info: &DataInfo, found: &mut Vec<Problem>) {
    if !info.shape.is_image() {
        if config.data.flip {
            push(found, &["data.flip", "data.name"], "points cannot be mirrored".to_owned(), "for images only", "data.flip = false");
        }
        if config.diffusion.clip_x0 {
            push(
                found,
                &["diffusion.clip_x0", "data.name"],
                "points are not confined to [-1, 1], so the predicted x_0 cannot be clipped to it".to_owned(),
                "for images only",
                "diffusion.clip_x0 = false",
            );
        }
    }
    if info.encoding == Encoding::Continuous && config.diffusion.decoder_cdf != DecoderCdf::Tanh {
        push(
            found,
            &["diffusion.decoder_cdf", "data.name"],
            "this data is continuous: its decoder is a Gaussian density, without a distribution function".to_owned(),
            "for discrete data only",
            "leave `diffusion.decoder_cdf` out",
        );
    }
}

fn unet(config: &RunConfig, info: &DataInfo, found: &mut Vec<Problem>) {
    let (height, width) = (info.shape.height, info.shape.width);
    let model = &config.model;
    if !info.shape.is_image() {
        return push(
            found,
            &["model.kind", "data.name"],
            "a U-Net needs images, and this data is points".to_owned(),
            "for images only",
            "model.kind = \"mlp\"",
        );
    }
    let levels = model.channels.len();
    // At most 16 levels pass the check of the single value.
    let factor = 1_usize << (levels - 1);
    if height % factor != 0 || width % factor != 0 {
        let possible = ((height | width).trailing_zeros() + 1).min(16);
        push(
            found,
            &["model.channels", "data.name"],
            format!("{levels} levels halve the image {} times, but {height} × {width} is not divisible by {factor}", levels - 1),
            format!("{levels} levels"),
            format!("at most {possible} level{} for this data", if possible == 1 { "" } else { "s" }),
        );
        return;
    }
    if let Some(wrong) = model.channels.iter().find(|c| **c % model.norm_groups != 0) {
        let common = model.channels.iter().fold(0, |a, b| gcd(a, *b));
        let best = (1..=common.min(model.norm_groups)).rev().find(|g| common % g == 0).unwrap_or(1);
        push(
            found,
            &["model.norm_groups", "model.channels"],
            format!("{wrong} channels cannot be split into {} groups", model.norm_groups),
            format!("does not divide {wrong}"),
            format!("model.norm_groups = {best}, or channels that are multiples of {}", model.norm_groups),
        );
    }
    let heights: Vec<u32> = (0..levels).map(|level| (height >> level) as u32).collect();
    if let Some(wrong) = model.attention.iter().find(|h| !heights.contains(h)) {
        let names: Vec<String> = heights.iter().map(u32::to_string).collect();
        push(
            found,
            &["model.attention", "model.channels", "data.name"],
            format!("no feature map of this network is {wrong} high"),
            "does not occur",
            format!("its heights are {}", either(&names).replace(" or ", " and ")),
        );
    }
    let attended = model
        .channels
        .iter()
        .enumerate()
        .filter(|(level, _)| model.attention.contains(&heights[*level]) || (model.mid_attention && level + 1 == levels));
    if model.head_channels > 0
        && let Some((_, wrong)) = attended.into_iter().find(|(_, c)| **c % model.head_channels != 0)
    {
        push(
            found,
            &["model.head_channels", "model.channels"],
            format!("{wrong} channels cannot be split into heads of {}", model.head_channels),
            format!("does not divide {wrong}"),
            "a divisor of the channels, or 0 for one head",
        );
    }
}

fn transformer(config: &RunConfig, info: &DataInfo, found: &mut Vec<Problem>) {
    let (height, width) = (info.shape.height, info.shape.width);
    let model = &config.model;
    if !info.shape.is_image() {
        return push(
            found,
            &["model.kind", "data.name"],
            "a transformer cuts images into patches, and this data is points".to_owned(),
            "for images only",
            "model.kind = \"mlp\"",
        );
    }
    let patch = model.patch as usize;
    if height % patch != 0 || width % patch != 0 {
        let fitting: Vec<String> =
            (1..=height.min(width)).filter(|p| height % p == 0 && width % p == 0).take(8).map(|p| p.to_string()).collect();
        push(
            found,
            &["model.patch", "data.name"],
            format!("{height} × {width} cannot be cut into patches of {patch} × {patch}"),
            "does not divide the image",
            format!("model.patch = {}", either(&fitting)),
        );
    }
    let &[channels] = model.channels.as_slice() else {
        return push(
            found,
            &["model.channels", "model.kind"],
            "a transformer has one width in all its blocks".to_owned(),
            format!("{} widths", model.channels.len()),
            format!("model.channels = [{}], and `model.depth` for the number of blocks", model.channels[0]),
        );
    };
    if channels < 4 || channels % 2 != 0 {
        push(
            found,
            &["model.channels", "model.kind"],
            format!("a transformer cannot be {channels} wide: sines and cosines of the timestep share its width"),
            "must be even, and at least 4",
            format!("model.channels = [{}]", (channels + channels % 2).max(4)),
        );
    }
    if model.head_channels > 0 && channels % model.head_channels != 0 {
        push(
            found,
            &["model.head_channels", "model.channels"],
            format!("{channels} channels cannot be split into heads of {}", model.head_channels),
            format!("does not divide {channels}"),
            "a divisor of the channels, or 0 for one head",
        );
    }
}

/// Keys of `[model]` that some networks have no use for, and the networks that read them.
const READ_BY: &[(&str, &[ModelKind])] = &[
    ("model.layers_per_block", &[ModelKind::UNet2d]),
    ("model.attention", &[ModelKind::UNet2d]),
    ("model.mid_attention", &[ModelKind::UNet2d]),
    ("model.patch", &[ModelKind::Transformer]),
    ("model.depth", &[ModelKind::Transformer]),
    ("model.mlp_ratio", &[ModelKind::Transformer]),
    ("model.fourier", &[ModelKind::Mlp]),
    ("model.head_channels", &[ModelKind::UNet2d, ModelKind::Transformer]),
    ("model.norm_groups", &[ModelKind::UNet2d]),
    ("model.norm_eps", &[ModelKind::UNet2d, ModelKind::Transformer]),
    ("model.downsample_padding", &[ModelKind::UNet2d]),
];

/// A value that the network would not look at would give one run two identities.
fn unread(config: &RunConfig, info: &DataInfo, found: &mut Vec<Problem>) {
    let kind = config.model.kind;
    let literals = RunConfig::literal_defaults();
    for (key, readers) in READ_BY.iter().filter(|(_, readers)| !readers.contains(&kind)) {
        let spec = keys::find(key).expect("the table names keys that exist: tested");
        let default = match spec.default {
            KeyDefault::Literal(_) => (spec.get)(&literals),
            KeyDefault::Derived { fill, .. } => {
                let mut filled = config.clone();
                fill(&mut filled, info);
                (spec.get)(&filled)
            }
        };
        if (spec.get)(config) != default {
            let names: Vec<String> = readers.iter().map(|kind| format!("\"{kind}\"")).collect();
            push(
                found,
                &[spec.key, "model.kind"],
                format!("model \"{kind}\" has no use for `{key}`"),
                format!("for {} only", either(&names)),
                format!("leave `{key}` out"),
            );
        }
    }
}

fn counts(config: &RunConfig, info: &DataInfo, found: &mut Vec<Problem>) {
    let train = &config.train;
    if train.batch_size as usize > info.train {
        push(
            found,
            &["train.batch_size", "data.name"],
            format!("a batch of {} is more than the {} training examples", train.batch_size, info.train),
            "larger than the data",
            format!("at most {}", info.train),
        );
    }
    if train.micro_batch > train.batch_size {
        push(
            found,
            &["train.micro_batch", "train.batch_size"],
            format!("a micro-batch of {} is more than the batch of {}", train.micro_batch, train.batch_size),
            "larger than the batch",
            format!("at most {}", train.batch_size),
        );
    }
    if train.warmup > train.steps {
        push(
            found,
            &["train.warmup", "train.steps"],
            format!("a warm-up of {} steps never ends in {} steps", train.warmup, train.steps),
            "longer than the run",
            format!("at most {}", train.steps),
        );
    }
    for (key, images, available, split) in
        [("eval.images", config.eval.images, info.val, "val"), ("eval.test_images", config.eval.test_images, info.test, "test")]
    {
        if images as usize > available {
            push(
                found,
                &[key, "data.name"],
                format!("`{split}` has {available} examples, not {images}"),
                "more than there are",
                format!("at most {available}, or leave `{key}` out"),
            );
        }
        if images == 0 {
            push(
                found,
                &["data.name"],
                format!("this data has no `{split}` examples to evaluate on"),
                "",
                "split the data when importing it",
            );
        }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
