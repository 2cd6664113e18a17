//! What `sample` and `posterior` share: a run's network, the steps it walks, and the files they write.

use super::{CliError, StoreArgs};
use crate::config::RunConfig;
use crate::data::Shape;
use crate::data::hdf5::{ArrayOut, ArrayValues, Attribute, write_arrays};
use crate::diffusion::respacing::RespacingError;
use crate::diffusion::{Interrupted, Respaced, Spacing, Steps};
use crate::record::Weights;
use crate::report::draw::raster::RasterError;
use crate::rng;
use crate::store::{RunDir, fs};
use crate::train::{DeviceChoice, Network, TrainError, Trained};
use std::path::Path;

#[derive(clap::Args)]
pub struct TrainedArgs {
    /// A run id, a unique prefix of one, a run folder, or `latest`.
    run: String,
    #[command(flatten)]
    store: StoreArgs,
    /// The averaged weights (ema) or the last ones (raw).
    #[arg(long, default_value = "ema")]
    weights: Weights,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Fewer steps: a number (50), one for each of equal sections, least noisy first (10,15,20), or ddimN (ddim50).
    #[arg(long, value_name = "SPEC")]
    steps: Option<Steps>,
    /// Where they lie: iddpm (improved DDPM, both ends), or diffusers' leading, linspace or trailing.
    #[arg(long, requires = "steps")]
    spacing: Option<Spacing>,
    /// Of the noise; default: that of the samples every run draws.
    #[arg(long)]
    seed: Option<u64>,
}

/// A run, ready to be walked.
pub struct Opened {
    pub run: Trained,
    pub dir: RunDir,
    pub steps: Respaced,
    pub seed: u64,
    weights: Weights,
    device: DeviceChoice,
}

impl TrainedArgs {
    pub fn open(&self) -> Result<Opened, CliError> {
        // A run folder by itself needs no store around it.
        let dir = match RunDir::at(Path::new(&self.run)).filter(|dir| dir.path().is_dir()) {
            Some(dir) => dir,
            None => self.store.existing()?.find(&self.run)?,
        };
        let config = RunConfig::from_toml(&dir.path().join("config.toml"), &dir.config_text()?)?;
        let run = Trained::open(config, &dir, None)?;
        let info = &run.dataset.info;
        let steps = match &self.steps {
            None => Respaced::all(&run.diffusion),
            Some(steps) => Respaced::new(&run.config.diffusion, info.shape, info.encoding, steps, self.spacing.unwrap_or(Spacing::Iddpm))?,
        };
        let seed = self.seed.unwrap_or(rng::EVALUATION_SEED);
        Ok(Opened { run, dir, steps, seed, weights: self.weights, device: self.device })
    }
}

impl Opened {
    pub fn network(&self) -> Result<Network<'_>, CliError> {
        let (device, _) = self.device.open()?;
        Ok(self.run.network(self.weights, &device)?)
    }

    pub fn shape(&self) -> Shape {
        self.run.dataset.info.shape
    }

    /// The first `count` test examples, or all where there are fewer.
    pub fn test(&self, count: usize) -> Vec<f32> {
        let (dims, test) = (self.shape().dims(), &self.run.dataset.test);
        let mut x = vec![0.0; count.min(test.len()) * dims];
        x.chunks_exact_mut(dims).enumerate().for_each(|(i, x)| test.scaled(i, x));
        x
    }

    /// `r0123… slug, step 4000, ema weights, 50 of 1000 steps`.
    pub fn describe(&self) -> String {
        let (walked, all) = (self.steps.timesteps.len(), self.run.diffusion.timesteps());
        let steps = if walked == all { format!("all {all} steps") } else { format!("{walked} of {all} steps") };
        format!("{} {}, step {}, {} weights, {steps}", self.dir.id(), self.dir.slug(), self.run.step, self.weights)
    }

    /// Attributes that say where an array comes from.
    pub fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let timesteps = self.steps.timesteps.iter().map(|t| t.get()).collect();
        vec![
            ("run_id", Attribute::Text(self.dir.id().to_owned())),
            ("weights", Attribute::Text(self.weights.to_string())),
            ("step", Attribute::Integer(self.run.step)),
            ("timesteps", Attribute::Integers(timesteps)),
            ("seed", Attribute::Text(self.seed.to_string())),
        ]
    }
}

/// Writes a picture; it appears whole or not at all.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    Ok(fs::write_atomic(path, bytes)?)
}

/// A named array of a shape.
pub struct Array<'a> {
    pub name: &'a str,
    pub shape: Vec<usize>,
    pub values: ArrayValues<'a>,
}

/// Writes an HDF5 file of arrays, the first with `attributes`; it appears whole or not at all.
pub fn write_hdf5(path: &Path, arrays: &[Array<'_>], attributes: &[(&'static str, Attribute)]) -> Result<(), CliError> {
    let name = path.file_name().ok_or_else(|| CliError::input(format!("{} names no file", path.display()), "e.g. --arrays samples.h5"))?;
    let partial = path.with_file_name(format!(".{}.{}.partial", name.to_string_lossy(), std::process::id()));
    let out: Vec<ArrayOut<'_>> = arrays
        .iter()
        .enumerate()
        .map(|(i, a)| ArrayOut {
            name: a.name,
            shape: &a.shape,
            values: a.values,
            attributes: if i == 0 { attributes.to_vec() } else { Vec::new() },
        })
        .collect();
    let written = write_arrays(&partial, &out).map_err(CliError::from).and_then(|()| {
        std::fs::rename(&partial, path)
            .map_err(|e| CliError::input(format!("cannot write {}: {e}", path.display()), "choose another --arrays"))
    });
    if written.is_err() {
        // The first failure is the one to report.
        let _ = std::fs::remove_file(&partial);
    }
    written
}

impl From<TrainError> for CliError {
    fn from(error: TrainError) -> Self {
        let message = error.to_string();
        match error {
            TrainError::NoCheckpoint { .. } => {
                Self::input(message, "a run that was never trained, or whose checkpoints were removed, has no weights")
            }
            TrainError::Data(_)
            | TrainError::Device { .. }
            | TrainError::Checkpoint { .. }
            | TrainError::Model(_)
            | TrainError::Precision { .. }
            | TrainError::Schedule(_) => Self::Input { message, help: None },
            TrainError::Store(error) => error.into(),
            TrainError::Tensor(_) | TrainError::Denoiser(_) | TrainError::Threads { .. } | TrainError::Stopped => Self::Internal(message),
        }
    }
}

impl From<RespacingError> for CliError {
    fn from(error: RespacingError) -> Self {
        Self::input(error, "--steps takes a number, one for each section (10,15,20), or ddimN; at least 2 steps in all")
    }
}

impl From<Interrupted> for CliError {
    fn from(error: Interrupted) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<RasterError> for CliError {
    fn from(error: RasterError) -> Self {
        Self::Internal(error.to_string())
    }
}
