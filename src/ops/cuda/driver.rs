//! What needs the CUDA driver: opening a device, compiling the kernels, launching them.

use super::launch::{Arg, Grid};
use super::source::{MODULES, source};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::{CudaDevice, CudaStorage, Device, Result, bail};
use cudarc::driver::{DevicePtr, LaunchConfig, PushKernelArg, result, sys};
use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use std::sync::OnceLock;

/// Device number `ordinal`, with one stream on which all its work runs in the order of the calls, from whatever thread.
///
/// # Errors
/// If there is no such device, or no driver.
pub fn open(ordinal: usize) -> Result<Device> {
    // candle's ordinary devices use the stream of the calling thread: what one thread uploads, another could read too soon.
    let device = Device::new_cuda_with_stream(ordinal)?;
    // SAFETY: there is one stream only, which orders every use of every allocation; events would be waited for in vain.
    unsafe { device.as_cuda_device()?.disable_event_tracking() };
    keep_memory(device.as_cuda_device()?)?;
    Ok(device)
}

/// Freed memory stays with the process, for the next step's tensors: by default the driver gives all of it back whenever the
/// host waits for the device.
fn keep_memory(device: &CudaDevice) -> Result<()> {
    let mut everything = u64::MAX;
    // SAFETY: the device is the context's own, its default pool exists as long as it does, and the attribute is a u64.
    unsafe {
        let pool = result::device::get_default_mem_pool(device.cuda_stream().context().cu_device()).w()?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        result::mem_pool::set_attribute(pool, attribute, std::ptr::from_mut(&mut everything).cast()).w()
    }
}

/// What the device calls itself, e.g. `NVIDIA H100 80GB HBM3`.
pub fn name(device: &Device) -> Option<String> {
    device.as_cuda_device().ok()?.cuda_stream().context().name().ok()
}

/// Whether products and convolutions of f32 may round their factors to TF32 (10 bits of mantissa) from now on, in this
/// process.
pub fn allow_tf32(allow: bool) {
    candle_core::cuda_backend::set_gemm_reduced_precision_f32(allow);
}

pub(super) fn address(storage: &CudaStorage) -> Result<u64> {
    let stream = storage.device.cuda_stream();
    Ok(match &storage.slice {
        CudaStorageSlice::F32(s) => s.device_ptr(&stream).0,
        CudaStorageSlice::F64(s) => s.device_ptr(&stream).0,
        CudaStorageSlice::BF16(s) => s.device_ptr(&stream).0,
        CudaStorageSlice::U8(s) => s.device_ptr(&stream).0,
        CudaStorageSlice::I32(s) => s.device_ptr(&stream).0,
        CudaStorageSlice::I64(s) => s.device_ptr(&stream).0,
        _ => bail!("a CUDA kernel was given a tensor of another type"),
    })
}

/// The module's PTX for a compute capability, by NVRTC.
///
/// # Errors
/// With the compiler's messages, if the text does not compile.
pub(super) fn compile(module: usize, (major, minor): (i32, i32)) -> std::result::Result<String, String> {
    let options = CompileOptions {
        // The kernels fuse where they say so and nowhere else.
        fmad: Some(false),
        options: vec![format!("--gpu-architecture=compute_{major}{minor}")],
        name: Some(format!("{}.cu", MODULES[module].0)),
        ..Default::default()
    };
    match compile_ptx_with_opts(source(module), options) {
        Ok(ptx) => Ok(ptx.to_src()),
        Err(cudarc::nvrtc::CompileError::CompileError { log, .. }) => Err(log.to_string_lossy().into_owned()),
        Err(other) => Err(other.to_string()),
    }
}

/// Compiled once in a process: a run has one device.
fn ptx(device: &CudaDevice, module: usize) -> Result<&'static str> {
    static PTX: [OnceLock<std::result::Result<String, String>>; MODULES.len()] = [const { OnceLock::new() }; MODULES.len()];
    let capability = device.cuda_stream().context().compute_capability().w()?;
    match PTX[module].get_or_init(|| compile(module, capability)) {
        Ok(ptx) => Ok(ptx),
        Err(reason) => bail!("the {} kernels do not compile for compute capability {capability:?}: {reason}", MODULES[module].0),
    }
}

pub(super) fn launch(device: &CudaDevice, module: usize, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
    let function = device.get_or_load_custom_func(kernel, MODULES[module].0, ptx(device, module)?)?;
    let mut builder = function.builder();
    for arg in args {
        match arg {
            Arg::Int(v) => builder.arg(v),
            Arg::Word(v) => builder.arg(v),
            Arg::Single(v) => builder.arg(v),
            Arg::Double(v) => builder.arg(v),
            Arg::Address(v) => builder.arg(v),
        };
    }
    let ([x, y, z], [tx, ty]) = (grid.blocks.map(|n| n as u32), grid.threads.map(|n| n as u32));
    let config = LaunchConfig { grid_dim: (x, y, z), block_dim: (tx, ty, 1), shared_mem_bytes: 0 };
    // SAFETY: the arguments are those of the kernel's text, in its order, and reach no further than the tensors they are
    // addresses of: the tests run every launch of the crate against its text on the host.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}
