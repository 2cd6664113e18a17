//! A run's identity, its name for people, and its `config.toml`.
//!
//! Start at [`RunConfig::id`]. The canonical form is the sorted list of `key = value` over the key table, so it does
//! not depend on the order, comments or spelling of any file, nor on whether a default was written.

use super::error::{ConfigErrors, Fault, Sources};
use super::keys::{self, Identity, KEYS, KeyDefault};
use super::run::{RunConfig, RunId};
use super::sweep_file::SweepFile;
use super::value::{plain, render};
use std::path::Path;
use toml::Value;

/// Raised when the meaning of a configuration changes although its keys do not: every identity changes with it.
const CANONICAL_VERSION: u32 = 1;

impl RunConfig {
    /// `r` and the first 12 hex digits of blake3 over the canonical form.
    pub fn id(&self) -> RunId {
        RunId(format!("r{}", &blake3::hash(self.canonical().as_bytes()).to_hex()[..12]))
    }

    /// What the identity is made of: a version, and every value that decides a number.
    pub fn canonical(&self) -> String {
        let from_file = self.data.path.is_some();
        let identifies = |identity| match identity {
            Identity::Always => true,
            Identity::Where(decides) => decides(self),
            Identity::BuiltInData => !from_file,
            Identity::Never => false,
        };
        let mut lines: Vec<String> = KEYS
            .iter()
            .filter(|spec| identifies(spec.identity))
            .map(|spec| format!("{} = {}\n", spec.key, render(&(spec.get)(self))))
            .collect();
        lines.sort_unstable();
        format!("ddpm-lab configuration {CANONICAL_VERSION}\n{}", lines.concat())
    }

    /// What a run is called in folders and tables, e.g. `digits-unet2d-cosine-t1000-vlb-s0`: safe in any file system,
    /// at most 80 characters, not unique.
    pub fn slug(&self) -> String {
        let d = &self.diffusion;
        let data: String = file_part(&self.data.name).chars().take(24).collect();
        let slug = format!("{data}-{}-{}-t{}-{}-s{}", self.model.kind, d.schedule, d.timesteps, self.loss.variant, self.seed);
        slug.chars().take(80).collect()
    }

    /// The value of a full key; `None` for an unknown one.
    pub fn get(&self, key: &str) -> Option<Value> {
        keys::find(key).map(|spec| (spec.get)(self))
    }

    /// The keys in which two configurations differ, with both values, in the order of the key table.
    pub fn diff(&self, other: &RunConfig) -> Vec<(&'static str, String, String)> {
        let values = KEYS.iter().map(|spec| (spec.key, (spec.get)(self), (spec.get)(other)));
        values.filter(|(_, a, b)| a != b).map(|(key, a, b)| (key, plain(&a), plain(&b))).collect()
    }

    /// The whole configuration as an experiment file of one run.
    pub fn to_toml(&self) -> String {
        let mut out = format!(
            "# Run {} in full: every key, nothing left to a default. This is an experiment file of one run.\n\nname = \"{}\"\nseeds = [{}]\n",
            self.id(),
            self.slug(),
            self.seed
        );
        let mut section = "";
        for spec in KEYS.iter().filter(|spec| !spec.section().is_empty()) {
            if spec.section() != section {
                section = spec.section();
                out.push_str(&format!("\n[base.{section}]\n"));
            }
            out.push_str(&format!("{} = {}\n", spec.leaf(), render(&(spec.get)(self))));
        }
        out
    }

    /// Reads what [`to_toml`](Self::to_toml) wrote, without looking at the data. `path` only names the text in messages.
    ///
    /// A key with a fixed default may be missing (an older version had none of that name); one whose default depends on
    /// the data may not.
    ///
    /// # Errors
    /// If the text is no complete configuration of exactly one run.
    pub fn from_toml(path: &Path, text: &str) -> Result<RunConfig, ConfigErrors> {
        let sources = Sources::new(path, text, &[]);
        let (file, mut faults) = SweepFile::parse(text, &sources);
        if faults.is_empty() {
            match one_run(&file, &sources) {
                Ok(config) => return Ok(config),
                Err(fault) => faults.push(*fault),
            }
        }
        Err(ConfigErrors::new(path, faults))
    }

    /// Every key at its fixed default; those that depend on the data are not meaningful yet.
    pub(super) fn literal_defaults() -> RunConfig {
        static DEFAULTS: std::sync::OnceLock<RunConfig> = std::sync::OnceLock::new();
        DEFAULTS.get_or_init(build_literal_defaults).clone()
    }
}

fn one_run(file: &SweepFile, sources: &Sources) -> Result<RunConfig, Box<Fault>> {
    if let Some(axis) = file.axes.first() {
        let label = vec![(axis.points[0].written.place.clone(), "an axis".to_owned())];
        return Err(Box::new(sources.fault("a run's configuration has no [grid]", label, None)));
    }
    let [seed] = file.seeds.as_slice() else {
        return Err(Box::new(sources.fault("a run's configuration has exactly one seed", Vec::new(), None)));
    };
    let mut config = RunConfig::literal_defaults();
    for assignment in &file.base {
        if let Err(allowed) = (assignment.key.set)(&mut config, &assignment.written.value) {
            let label = vec![(assignment.written.place.clone(), format!("must be {allowed}"))];
            return Err(Box::new(sources.fault(format!("`{}` cannot have this value", assignment.key.key), label, None)));
        }
    }
    config.seed = *seed;
    let written = |key: &str| file.base.iter().any(|a| a.key.key == key);
    let missing = KEYS.iter().find(|spec| matches!(spec.default, KeyDefault::Derived { .. }) && !written(spec.key));
    match missing {
        Some(spec) => Err(Box::new(sources.fault(format!("`{}` is missing from a run's configuration", spec.key), Vec::new(), None))),
        None => Ok(config),
    }
}

/// Lower case, with `_` for what a file name should not have.
fn file_part(text: &str) -> String {
    let part: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '_' }).collect();
    if part.is_empty() { "data".to_owned() } else { part }
}

/// Parses the table's literals. Values before that are placeholders; the table's test sees that every key is replaced.
fn build_literal_defaults() -> RunConfig {
    let mut config = placeholder();
    for spec in KEYS {
        if let KeyDefault::Literal(text) = spec.default {
            let value: toml::Table = toml::from_str(&format!("x = {text}")).expect("the key table's defaults are TOML: tested");
            (spec.set)(&mut config, &value["x"]).expect("the key table allows its own defaults: tested");
        }
    }
    config
}

fn placeholder() -> RunConfig {
    use super::run::{Dtype, EvalSpec, EvalTimesteps, FloorChoice, LogSpec, OptimizerKind, SampleSpec, TrainSpec};
    use crate::data::{AxisOrder, DataSpec};
    use crate::diffusion::*;
    use crate::model::{Init, ModelKind, ModelSpec, TimeEmbedding};
    RunConfig {
        data: DataSpec { name: String::new(), path: None, dataset: None, layout: AxisOrder::Auto, flip: false, fingerprint: String::new() },
        model: ModelSpec {
            kind: ModelKind::Mlp,
            channels: Vec::new(),
            patch: 0,
            depth: 0,
            mlp_ratio: 0,
            layers_per_block: 0,
            attention: Vec::new(),
            mid_attention: false,
            head_channels: 0,
            norm_groups: 0,
            norm_eps: 0.0,
            dropout: 0.0,
            downsample_padding: 0,
            time_embedding: TimeEmbedding::Ddpm,
            init: Init::Ddpm,
        },
        diffusion: DiffusionSpec {
            kernel: Kernel::Gaussian,
            binomial_pi: 0.5,
            schedule: ScheduleKind::Linear,
            timesteps: 0,
            gamma_min: 0.0,
            gamma_max: 0.0,
            betas: Vec::new(),
            zero_terminal_snr: false,
            prediction: Prediction::Epsilon,
            variance: VarianceType::FixedLarge,
            first_log_variance: FirstLogVariance::Copy,
            decoder_cdf: DecoderCdf::Tanh,
            clip_x0: false,
        },
        loss: LossSpec {
            variant: LossVariant::Simple,
            weighting: LossWeighting::Constant,
            snr_gamma: 0.0,
            p2_gamma: 0.0,
            p2_k: 0.0,
            vlb_weight: 0.0,
            rescale: true,
        },
        train: TrainSpec {
            steps: 0,
            batch_size: 0,
            micro_batch: 0,
            optimizer: OptimizerKind::AdamW,
            lr: 0.0,
            warmup: 0,
            weight_decay: 0.0,
            beta1: 0.0,
            beta2: 0.0,
            grad_clip: 0.0,
            ema: 0.0,
            timestep_sampler: TimestepSampler::Uniform,
            dtype: Dtype::F32,
        },
        log: LogSpec { every: 0 },
        eval: EvalSpec { every: 0, images: 0, timesteps: EvalTimesteps::All, test_images: 0, draws: 0, floor: FloorChoice::Auto },
        sample: SampleSpec { count: 0, every: 0 },
        seed: 0,
    }
}
