//! Where a step is computed: on the host's cores, or on a device that keeps weights, moments and average to itself.
//!
//! Start at [`Engine::step`]. On the host a step is finished when it returns. A device is told what to do and not waited
//! for: what its steps saw is fetched by [`Engine::seen`], where something is due or its ledger is full.

use super::TrainError;
use super::device_engine::DeviceEngine;
use super::trainer::Trainer;
use super::window::Window;
use crate::ops::cuda;
use crate::optim::{AdamW, Weights};

/// The weights, and who updates them.
pub(super) enum Engine {
    Host { weights: Weights, adamw: AdamW, last: Option<Seen> },
    Device(Box<DeviceEngine>),
}

/// What an update came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    /// Updates before this one.
    pub step: u32,
    pub loss: f64,
    /// Of the gradient before clipping; where it is not finite, the update was not made.
    pub norm: f64,
}

impl Engine {
    /// From the weights of a checkpoint, or fresh ones.
    pub(super) fn new(trainer: &Trainer<'_>, weights: Weights) -> Result<Self, TrainError> {
        let adamw = trainer.adamw();
        Ok(if cuda::is_device(trainer.options.device) {
            Self::Device(Box::new(DeviceEngine::new(trainer, weights, adamw)?))
        } else {
            Self::Host { weights, adamw, last: None }
        })
    }

    /// Updates made, or under way.
    pub(super) fn steps_made(&self) -> u32 {
        match self {
            Self::Host { weights, .. } => weights.step,
            Self::Device(device) => device.steps_made(),
        }
    }

    /// One update: forward and backward over the examples of `indices`, clip, AdamW, average.
    pub(super) fn step(&mut self, trainer: &Trainer<'_>, indices: &[usize], window: &mut Window) -> Result<(), TrainError> {
        match self {
            Self::Host { weights, adamw, last } => {
                let step = weights.step;
                let (gradient, loss) = trainer.gradient(weights, indices, window)?;
                let norm = trainer.pool.install(|| weights.update(adamw, &gradient));
                *last = Some(Seen { step, loss, norm });
                Ok(())
            }
            Self::Device(device) => device.step(trainer, indices),
        }
    }

    /// What the updates since the last call came to, in their order; their samples' terms are in `window`. Where nothing is
    /// `due`, a device may keep them a little longer. Nothing follows an update that was not made.
    pub(super) fn seen(&mut self, due: bool, window: &mut Window) -> Result<Vec<Seen>, TrainError> {
        match self {
            Self::Host { last, .. } => Ok(last.take().into_iter().collect()),
            Self::Device(device) => device.seen(due, window),
        }
    }

    /// The weights on the host. A device is waited for.
    pub(super) fn weights(&mut self) -> Result<&Weights, TrainError> {
        match self {
            Self::Host { weights, .. } => Ok(weights),
            Self::Device(device) => device.weights(),
        }
    }
}
