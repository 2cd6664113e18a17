//! Launches: which kernel, over how many blocks, on what.

use super::driver;
use candle_core::{DType, Device, Result, bail};

/// The module for tensors of `dtype`, as an index of `source::MODULES`.
pub(super) fn module(dtype: DType) -> Result<usize> {
    match dtype {
        DType::F32 => Ok(0),
        DType::F64 => Ok(1),
        DType::BF16 => Ok(2),
        other => bail!("the CUDA kernels work in f32, f64 and bf16, not {other:?}"),
    }
}

/// The type in which a module computes, and keeps statistics and sums.
pub(super) fn arithmetic(dtype: DType) -> DType {
    if dtype == DType::BF16 { DType::F32 } else { dtype }
}

/// One argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Arg {
    Int(i32),
    Word(u32),
    Single(f32),
    Double(f64),
    /// Of memory on the device.
    Address(u64),
}

/// Sizes and flags are 32-bit on the device.
pub(super) fn int(n: usize) -> Result<Arg> {
    match i32::try_from(n) {
        Ok(n) => Ok(Arg::Int(n)),
        Err(_) => bail!("{n} numbers are too many for one CUDA kernel; use a smaller batch"),
    }
}

/// Blocks of threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Grid {
    pub blocks: [usize; 3],
    pub threads: [usize; 2],
}

/// Threads of a block that works element by element, or row by row.
pub(super) const BLOCK: usize = 256;

impl Grid {
    /// A thread for each of `n` elements.
    pub fn elements(n: usize) -> Self {
        Self::blocks(n.div_ceil(BLOCK))
    }

    /// `n` blocks of [`BLOCK`] threads.
    pub fn blocks(n: usize) -> Self {
        Self { blocks: [n, 1, 1], threads: [BLOCK, 1] }
    }
}

/// Runs a kernel of the module for `dtype`.
///
/// # Errors
/// If the device refuses; most failures of the kernel itself show at a later call.
pub(super) fn launch(device: &Device, dtype: DType, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
    let Grid { blocks: [x, y, z], .. } = grid;
    if x == 0 || y == 0 || z == 0 {
        return Ok(());
    }
    if x > 0x7FFF_FFFF || y > 0xFFFF || z > 0xFFFF {
        bail!("{kernel}: {x} × {y} × {z} blocks are too many for one CUDA kernel; use a smaller batch")
    }
    match device {
        Device::Cuda(device) => driver::launch(device, module(dtype)?, kernel, grid, args),
        #[cfg(test)]
        Device::Cpu => super::emulator::launch(module(dtype)?, kernel, grid, args),
        other => bail!("{kernel}: {other:?} is no CUDA device"),
    }
}
