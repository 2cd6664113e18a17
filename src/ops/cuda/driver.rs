//! What needs the CUDA driver: opening a device, compiling the kernels, launching them.

use super::launch::{Arg, Grid};
use super::source::{MODULES, UNITS, source, unit_of};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::{CudaDevice, CudaStorage, Device, Result, WithDType, bail};
use cudarc::driver::{CudaGraph, CudaStream, DevicePtr, LaunchConfig, PushKernelArg, result, sys};
use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use std::ffi::c_void;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

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
    give_cublas_memory(device.as_cuda_device()?)?;
    Ok(device)
}

/// One piece of memory for cuBLAS to work in, as large as NVIDIA recommends. Left to itself it takes another for each recording,
/// and may sum in another order there.
fn give_cublas_memory(device: &CudaDevice) -> Result<()> {
    const BYTES: usize = 32 << 20;
    let memory = device.alloc_zeros::<u8>(BYTES)?;
    let at = memory.device_ptr(&device.cuda_stream()).0;
    // SAFETY: the memory is the device's, and is never given back.
    unsafe { cudarc::cublas::sys::cublasSetWorkspace_v2(*device.cublas_handle().handle(), at as *mut c_void, BYTES) }.result().w()?;
    std::mem::forget(memory);
    Ok(())
}

/// Freed memory stays with the process, for the next step's tensors: by default the driver gives all of it back whenever the
/// host waits for the device.
fn keep_memory(device: &CudaDevice) -> Result<()> {
    let mut everything = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the pool is the device's own, and the attribute is a u64.
    unsafe { result::mem_pool::set_attribute(default_pool(device)?, attribute, std::ptr::from_mut(&mut everything).cast()) }.w()
}

/// Where the tensors' memory comes from; there as long as the device is.
fn default_pool(device: &CudaDevice) -> Result<sys::CUmemoryPool> {
    // SAFETY: the device is the context's own.
    unsafe { result::device::get_default_mem_pool(device.cuda_stream().context().cu_device()) }.w()
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

/// The numbers of copies that a stream has not been waited for since: a driver may read them when the copy's turn comes, and
/// only on most machines reads them at once.
static ON_THE_WAY: Mutex<Vec<(usize, Vec<u8>)>> = Mutex::new(Vec::new());

/// So many bytes are waited for rather than kept.
const TOO_MANY_TO_KEEP: usize = 16 << 20;

/// Copies numbers to memory that begins at `to`: after the work before it on the stream, before what follows. The host's may
/// go then.
pub(super) fn upload<T: WithDType>(device: &CudaDevice, to: u64, from: &[T]) -> Result<()> {
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().w()?;
    // SAFETY: numbers are bytes without gaps.
    let bytes = unsafe { std::slice::from_raw_parts(from.as_ptr().cast::<u8>(), size_of_val(from)) };
    if bytes.len() >= TOO_MANY_TO_KEEP {
        // SAFETY: the caller holds memory for so many numbers; the stream is waited for while `from` is there.
        let copied = unsafe { result::memcpy_htod_async(to, bytes, stream.cu_stream()) };
        // SAFETY: the stream is open.
        unsafe { result::stream::synchronize(stream.cu_stream()) }.w()?;
        return copied.w();
    }
    let bytes = bytes.to_vec();
    let mut on_the_way = ON_THE_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the caller holds memory for so many numbers; the bytes stay until the stream has been waited for.
    unsafe { result::memcpy_htod_async(to, &bytes, stream.cu_stream()) }.w()?;
    on_the_way.push((stream.cu_stream() as usize, bytes));
    Ok(())
}

/// Sets every bit of so many bytes from `at` on, in the order of the stream.
pub(super) fn fill_with_ones(device: &CudaDevice, at: u64, bytes: usize) -> Result<()> {
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().w()?;
    // SAFETY: the caller holds so many bytes.
    unsafe { result::memset_d8_async(at, 0xFF, bytes, stream.cu_stream()) }.w()
}

/// Copies numbers from memory that begins at `from`, after all the work before, and waits for them.
pub(super) fn download<T: WithDType>(device: &CudaDevice, from: u64, to: &mut [T]) -> Result<()> {
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().w()?;
    let arrived = {
        let mut on_the_way = ON_THE_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        let own = stream.cu_stream() as usize;
        on_the_way.extract_if(.., |(of, _)| *of == own).collect::<Vec<_>>()
    };
    // SAFETY: the caller holds memory of so many numbers, and `to` is not looked at before the stream has been waited for.
    let copied = unsafe { result::memcpy_dtoh_async(to, from, stream.cu_stream()) };
    // SAFETY: the stream is open. This waits in any case; the stream's own method would first tell what the release of some
    // memory left behind.
    if let Err(error) = unsafe { result::stream::synchronize(stream.cu_stream()) } {
        // Nobody knows then what is still read.
        std::mem::forget(arrived);
        return Err(error).w();
    }
    copied.w()
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
    let capture = Capture(&stream);
    let done = work();
    let graph = capture.end();
    done?;
    let Some(graph) = graph? else { bail!("the device recorded nothing") };
    give_back_spare_memory(device)?;
    Ok(Some(Recording(graph)))
}

/// What the work took while it was rehearsed: as recorded it has memory of its own, and a device may not have room for both.
fn give_back_spare_memory(device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    // SAFETY: the stream is open and no longer records.
    unsafe { result::stream::synchronize(stream.cu_stream()) }.w()?;
    // SAFETY: the pool is the device's own.
    unsafe { result::mem_pool::trim_to(default_pool(device)?, 0) }.w()
}

/// A stream that records, until this is dropped at the latest: it would take all that follows for part of the recording.
struct Capture<'a>(&'a Arc<CudaStream>);

impl Capture<'_> {
    fn end(self) -> Result<Option<CudaGraph>> {
        // What the release of some memory left behind would be told in the place of ending anything.
        let earlier = self.0.context().check_err();
        let graph = self.0.end_capture(sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        earlier.w()?;
        graph.w()
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        // SAFETY: the stream is open, and its context that of this thread since the recording began.
        unsafe {
            let stream = self.0.cu_stream();
            if result::stream::is_capturing(stream) != Ok(sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE) {
                // An error here is one that the caller has: `end` did not succeed.
                let _ = result::stream::end_capture(stream).map(|graph| (!graph.is_null()).then(|| result::graph::destroy(graph)));
            }
        }
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
    Ok(device.cuda_stream().capture_status().w()? != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
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
