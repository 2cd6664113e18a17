//! A run's network, taken from its newest checkpoint: what sampling and evaluation after the fact start from.

use super::{Network, TrainError, checkpoint, samples};
use crate::config::RunConfig;
use crate::data::{self, DataError, Dataset};
use crate::diffusion::Diffusion;
use crate::model::Model;
use crate::optim::Weights;
use crate::record;
use crate::store::{RunDir, fs};
use candle_core::Device;

/// A run as far as it was trained.
pub struct Trained {
    pub config: RunConfig,
    pub dataset: Dataset,
    pub diffusion: Diffusion,
    pub model: Model,
    /// Optimizer updates behind the weights.
    pub step: u32,
    weights: Weights,
}

impl Trained {
    /// Reads `config`'s run back from `dir`: the checkpoint of `step`, or the newest that is whole.
    ///
    /// # Errors
    /// If there is no such checkpoint, or the data are gone or others.
    pub fn open(config: RunConfig, dir: &RunDir, step: Option<u32>) -> Result<Self, TrainError> {
        let dataset = data::load(&config.data)?;
        let diffusion = Diffusion::new(&config.diffusion, dataset.info.shape, dataset.info.encoding)?;
        let model = Model::new(&config.model, dataset.info.shape, diffusion.output_channels())?;
        let run_id = config.id().to_string();
        let mut reason = "there is none".to_owned();
        let mut path = dir.path().join("checkpoints");
        for (at, checkpoint) in dir.checkpoints()?.into_iter().rev().filter(|(at, _)| step.is_none_or(|step| step == *at)) {
            let bytes = fs::read(&checkpoint)?;
            match checkpoint::decode(model.layout(), &run_id, diffusion.timesteps(), &bytes) {
                Ok((weights, _)) => return Ok(Self { step: at, config, dataset, diffusion, model, weights }),
                Err(why) => {
                    tracing::warn!("the checkpoint {} cannot be used: {why}", checkpoint.display());
                    (reason, path) = (why, checkpoint);
                }
            }
        }
        Err(TrainError::Checkpoint { path, reason })
    }

    /// The network with the weights of that kind.
    ///
    /// # Errors
    /// If the device refuses them.
    pub fn network(&self, weights: record::Weights, device: &Device) -> Result<Network<'_>, TrainError> {
        let flat = match weights {
            record::Weights::Raw => &self.weights.raw,
            record::Weights::Ema => &self.weights.ema,
        };
        Ok(Network::new(&self.model, flat, self.dataset.info.shape, device)?)
    }

    /// The PNG bytes of samples, as the run itself draws them.
    ///
    /// # Errors
    /// If the picture cannot be encoded.
    pub fn picture(&self, samples: &[f32]) -> Result<Vec<u8>, DataError> {
        samples::picture(&self.dataset, samples)
    }
}
