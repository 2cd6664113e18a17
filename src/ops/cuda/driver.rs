//! What needs the CUDA driver: opening a device, compiling the kernels, launching them.

use super::launch::{Arg, Grid};
use super::source::{MODULES, UNITS, source, unit_of};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::{CudaDevice, CudaStorage, Device, Result, bail};
use cudarc::driver::{CudaGraph, DevicePtr, LaunchConfig, PushKernelArg, result, sys};
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

/// Whether they may.
pub(super) fn tf32_allowed() -> bool {
    candle_core::cuda_backend::gemm_reduced_precision_f32()
}

pub(super) fn address(storage: &CudaStorage) -> Result<u64> {
    let stream = storage.device.cuda_stream();
    Ok(match &storage.slice {
        CudaStorageSlice::F32(s) => s.device_ptr(&stream).0,
        CudaStorageSlice::F64(s) => s.device_ptr(&stream).0,
        CudaStorageSlice::BF16(s) => s.device_ptr(&stream).0,
        CudaStorageSlice::U8(s) => s.device_ptr(&stream).0,
        CudaStorageSlice::I32(s) => s.device_ptr(&stream).0,
        CudaStorageSlice::U32(s) => s.device_ptr(&stream).0,
        CudaStorageSlice::I64(s) => s.device_ptr(&stream).0,
        _ => bail!("a CUDA kernel was given a tensor of another type"),
    })
}

/// The PTX of a unit's module for a compute capability, by NVRTC.
///
/// # Errors
/// With the compiler's messages, if the text does not compile.
pub(super) fn compile(unit: usize, module: usize, (major, minor): (i32, i32)) -> std::result::Result<String, String> {
    let options = CompileOptions {
        // The kernels fuse where they say so and nowhere else.
        fmad: Some(false),
        options: vec![format!("--gpu-architecture=compute_{major}{minor}")],
        name: Some(format!("{}_{}.cu", UNITS[unit].0, MODULES[module].0)),
        ..Default::default()
    };
    match compile_ptx_with_opts(source(&UNITS[unit..=unit], module), options) {
        Ok(ptx) => Ok(ptx.to_src()),
        Err(cudarc::nvrtc::CompileError::CompileError { log, .. }) => Err(log.to_string_lossy().into_owned()),
        Err(other) => Err(other.to_string()),
    }
}

/// A module as candle knows it, and its PTX or what the compiler said.
type Compiled = (String, std::result::Result<String, String>);

/// Compiled once in a process: a run has one device.
fn compiled(device: &CudaDevice, unit: usize, module: usize) -> Result<(&'static str, &'static str)> {
    static COMPILED: [[OnceLock<Compiled>; MODULES.len()]; UNITS.len()] =
        [const { [const { OnceLock::new() }; MODULES.len()] }; UNITS.len()];
    let capability = device.cuda_stream().context().compute_capability().w()?;
    let name = || format!("{}_{}", UNITS[unit].0, MODULES[module].0);
    match COMPILED[unit][module].get_or_init(|| (name(), compile(unit, module, capability))) {
        (name, Ok(ptx)) => Ok((name, ptx)),
        (name, Err(reason)) => bail!("{name} does not compile for compute capability {capability:?}: {reason}"),
    }
}

pub(super) fn launch(device: &CudaDevice, module: usize, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
    let Some(unit) = unit_of(kernel) else { bail!("there is no kernel `{kernel}`") };
    let (name, ptx) = compiled(device, unit, module)?;
    let function = device.get_or_load_custom_func(kernel, name, ptx)?;
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

/// Copies numbers to memory that begins at `to`: after the work before it on the stream, before what follows.
pub(super) fn upload<T>(device: &CudaDevice, to: u64, from: &[T]) -> Result<()> {
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().w()?;
    // SAFETY: the caller holds memory for so many numbers. `from` is pageable, so it has been read when the call returns.
    unsafe { result::memcpy_htod_async(to, from, stream.cu_stream()) }.w()
}

/// Copies bytes from one place on the device to another, in the order of the stream.
pub(super) fn copy(device: &CudaDevice, to: u64, from: u64, bytes: usize) -> Result<()> {
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().w()?;
    // SAFETY: the caller holds both.
    unsafe { result::memcpy_dtod_async(to, from, bytes, stream.cu_stream()) }.w()
}

/// What the device was told, to be done again as one.
pub struct Recording(CudaGraph);

// SAFETY: a graph may be launched by any thread, by one at a time, which `&mut Recorder` sees to; the launch binds the context.
unsafe impl Send for Recording {}

/// Records what `work` tells the device, which does none of it now. `None` where the device cannot.
///
/// # Errors
/// If `work` copies between host and device, waits for the device, or fails.
pub fn record(device: &Device, work: impl FnOnce() -> Result<()>) -> Result<Option<Recording>> {
    let Device::Cuda(device) = device else { return Ok(None) };
    // candle takes small uploads, of shapes and strides, from those of the steps before, and refuses others.
    let _known = device.enable_cuda_graph_htod_cache();
    let stream = device.cuda_stream();
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).w()?;
    let done = work();
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
    done?;
    match graph.w()? {
        Some(graph) => Ok(Some(Recording(graph))),
        None => bail!("the device recorded nothing"),
    }
}

/// Does what is to be recorded later: uploads of shapes and strides are remembered for then.
///
/// # Errors
/// Those of `work`.
pub fn rehearse(device: &Device, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let _known = device.as_cuda_device().ok().map(CudaDevice::enable_cuda_graph_htod_cache);
    work()
}

/// Whether the device records what it is told.
pub(super) fn is_recording(device: &Device) -> Result<bool> {
    let Device::Cuda(device) = device else { return Ok(false) };
    Ok(device.cuda_stream().capture_status().w()? == sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE)
}

impl Recording {
    /// Tells the device to do it once more.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn replay(&self) -> Result<()> {
        self.0.launch().w()
    }
}
