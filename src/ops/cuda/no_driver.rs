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

pub(super) fn address(_storage: &CudaStorage) -> Result<u64> {
    bail!("{ABSENT}")
}

pub(super) fn launch(_device: &CudaDevice, _module: usize, _kernel: &'static str, _grid: Grid, _args: &[Arg]) -> Result<()> {
    bail!("{ABSENT}")
}
