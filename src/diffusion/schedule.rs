//! (placeholder; the owner is writing it)
use super::spec::*;
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ScheduleError { #[error("beta_{t} is {beta}, outside (0, 1)")] BetaOutOfRange { t: usize, beta: f64 }, #[error("T must be at least 2, not {0}")] TooFewTimesteps(u32) }
#[derive(Clone, Debug)]
pub struct NoiseSchedule { pub betas: Vec<f64>, pub alpha_bars: Vec<f64> }
impl NoiseSchedule {
    pub fn new(_kind: ScheduleKind, _timesteps: u32) -> Result<Self, ScheduleError> { todo!() }
}
