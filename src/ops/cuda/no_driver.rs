//! What a build without CUDA says.

use super::launch::{Arg, Grid};
use candle_core::{CudaDevice, CudaStorage, Device, Result, bail};

const ABSENT: &str = "this build has no CUDA; build with `--features cuda` (just does where it finds nvcc)";

/// # Errors
/// Always: the build has no CUDA.
pub fn open(_ordinal: usize) -> Result<Device> {
    bail!("{ABSENT}")
}

/// A device that is none has no name.
pub fn name(_device: &Device) -> Option<String> {
    None
}

/// Changes nothing: the build has no CUDA.
pub fn allow_tf32(_allow: bool) {}

/// Nothing rounds.
pub(super) fn tf32_allowed() -> bool {
    false
}

pub(super) fn address(_storage: &CudaStorage) -> Result<u64> {
    bail!("{ABSENT}")
}

pub(super) fn launch(_device: &CudaDevice, _module: usize, _kernel: &'static str, _grid: Grid, _args: &[Arg]) -> Result<()> {
    bail!("{ABSENT}")
}

pub(super) fn upload<T>(_device: &CudaDevice, _to: u64, _from: &[T]) -> Result<()> {
    bail!("{ABSENT}")
}

pub(super) fn fill_with_ones(_device: &CudaDevice, _at: u64, _bytes: usize) -> Result<()> {
    bail!("{ABSENT}")
}

pub(super) fn download<T>(_device: &CudaDevice, _from: u64, _to: &mut [T]) -> Result<()> {
    bail!("{ABSENT}")
}

pub(super) fn copy(_device: &CudaDevice, _to: u64, _from: u64, _bytes: usize) -> Result<()> {
    bail!("{ABSENT}")
}

/// Nothing was ever recorded.
pub enum Recording {}

/// Never records.
///
/// # Errors
/// Never.
pub fn record(_device: &Device, _work: impl FnOnce() -> Result<()>) -> Result<Option<Recording>> {
    Ok(None)
}

/// Does it.
///
/// # Errors
/// Those of `work`.
pub fn rehearse(_device: &Device, work: impl FnOnce() -> Result<()>) -> Result<()> {
    work()
}

pub(super) fn is_recording(_device: &Device) -> Result<bool> {
    Ok(false)
}

impl Recording {
    /// # Errors
    /// Never: there is none.
    pub fn replay(&self) -> Result<()> {
        match *self {}
    }
}
