//! A run read back: its data, process and network, with the weights of a checkpoint.
//!
//! Start at [`Trained::open`]. Nothing here writes into the run's folder, and no lock is taken: checkpoints are replaced as a
//! whole, so a run can be looked at while it trains.

use super::floor::scaled;
use super::trainer::allow_precision;
use super::{Network, TrainError, checkpoint, samples};
use crate::config::RunConfig;
use crate::data::{self, DataError, Dataset, Examples};
use crate::diffusion::bound::{self, BoundEstimate, BoundOptions};
use crate::diffusion::oracle::MixtureOracle;
use crate::diffusion::timestep_plan::TimestepPlan;
use crate::diffusion::{Denoiser, Diffusion, Interrupted, SampleTerms};
use crate::model::Model;
use crate::ops::cuda::is_device;
use crate::optim;
use crate::record::{Split, Weights};
use crate::store::{RunDir, fs};
use candle_core::Device;
use std::sync::atomic::AtomicBool;

/// A run with weights.
pub struct Trained {
    pub config: RunConfig,
    pub dataset: Dataset,
    pub diffusion: Diffusion,
    pub model: Model,
    /// Optimizer updates behind the weights.
    pub step: u32,
    weights: optim::Weights,
}

/// Which part of the data, how much of it, where in t, with which weights.
pub struct Inspection<'a> {
    pub split: Split,
    pub images: usize,
    pub plan: &'a TimestepPlan,
    pub weights: Weights,
    pub device: &'a Device,
    /// To run beside the network on the same draws.
    pub floor: Option<&'a MixtureOracle>,
    pub stop: &'a AtomicBool,
}

impl Trained {
    /// Reads `config`'s run back from `dir`: the checkpoint of `step`, or the newest that is whole.
    ///
    /// # Errors
    /// If there is no such checkpoint, it is damaged, or the data are not those of the run.
    pub fn open(config: RunConfig, dir: &RunDir, step: Option<u32>) -> Result<Self, TrainError> {
        let dataset = data::load(&config.data)?;
        let diffusion = Diffusion::new(&config.diffusion, dataset.info.shape, dataset.info.encoding)?;
        let model = Model::new(&config.model, dataset.info.shape, diffusion.output_channels())?;
        let checkpoints = dir.checkpoints()?;
        let steps: Vec<u32> = checkpoints.iter().map(|(step, _)| *step).collect();
        let mut damaged = None;
        for (at, path) in checkpoints.into_iter().rev().filter(|(at, _)| step.is_none_or(|step| step == *at)) {
            // A run that trains on may have removed it meanwhile; then the next one is as good.
            let decoded = fs::read(&path)
                .map_err(|e| e.to_string())
                .and_then(|bytes| checkpoint::decode(model.layout(), dir.id(), diffusion.timesteps(), &bytes));
            match decoded {
                Ok((weights, ..)) => return Ok(Self { step: at, config, dataset, diffusion, model, weights }),
                Err(reason) => {
                    damaged.get_or_insert(TrainError::Checkpoint { path, reason });
                }
            }
        }
        Err(damaged.unwrap_or(TrainError::NoCheckpoint { run: dir.id().to_owned(), step, there: steps }))
    }

    /// # Errors
    /// If the device refuses the weights.
    pub fn network(&self, weights: Weights, device: &Device) -> Result<Network<'_>, TrainError> {
        let flat = match weights {
            Weights::Raw => &self.weights.raw,
            Weights::Ema => &self.weights.ema,
        };
        if is_device(device) {
            allow_precision(&self.config);
        }
        Ok(Network::new(&self.model, flat, self.dataset.info.shape, device)?)
    }

    /// The PNG bytes of samples, as the run itself draws them.
    ///
    /// # Errors
    /// If the picture cannot be encoded.
    pub fn picture(&self, samples: &[f32]) -> Result<Vec<u8>, DataError> {
        samples::picture(&self.dataset, samples)
    }

    pub fn split(&self, split: Split) -> &Examples {
        match split {
            Split::Train => &self.dataset.train,
            Split::Val => &self.dataset.val,
            Split::Test => &self.dataset.test,
        }
    }

    /// The first `count` examples of `val` and `test`, as training evaluates them; of `train`, as many spread over all.
    pub fn examples(&self, split: Split, count: usize) -> Vec<f32> {
        let examples = self.split(split);
        let count = count.min(examples.len());
        let index = |i: usize| if split == Split::Train { i * examples.len() / count } else { i };
        scaled(examples, &(0..count).map(index).collect::<Vec<_>>())
    }

    /// Evaluates the bound again, on the current thread pool. `each` sees the terms of every example at every visit.
    ///
    /// # Errors
    /// If the network fails, or asked to stop ([`TrainError::Stopped`]).
    pub fn evaluate(
        &self,
        how: &Inspection<'_>,
        progress: &mut dyn FnMut(u64, u64),
        each: &mut dyn FnMut(usize, &[SampleTerms]),
    ) -> Result<BoundEstimate, TrainError> {
        let examples = self.examples(how.split, how.images);
        let network = self.network(how.weights, how.device)?.with_terms(&self.diffusion, &examples)?;
        let floor = how.floor.map(|f| f as &dyn Denoiser);
        let options = BoundOptions { timesteps: how.plan, floor, stop: how.stop, progress, each };
        bound::evaluate(&self.diffusion, &network, &examples, options).map_err(|e| match e {
            Interrupted::Stopped => TrainError::Stopped,
            Interrupted::Denoiser(error) => TrainError::Denoiser(error),
        })
    }
}
