//! 3 × 3 convolutions by cuDNN, in NHWC, with deterministic algorithms only.
//!
//! cuDNN's legacy interface has one deterministic algorithm for each gradient in NHWC (number 1), and none that is not for
//! the forward pass. Where cuDNN has none for a shape or type, `None` comes back and the caller unfolds. Descriptors,
//! handle and workspace are made once and kept.

use super::buffer::{Buffer, address};
use super::conv3x3::Shape3x3;
use super::driver;
use super::launch::{Arg, int};
use candle_core::cuda_backend::{DeviceId, WrapErr};
use candle_core::{CudaDevice, DType, Device, Result, Tensor, bail};
use cudarc::cudnn::{result, result::CudnnError, sys};
use cudarc::driver::{CudaSlice, DevicePtr};
use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::from_ref;
use std::sync::Mutex;

/// Whether the build has cuDNN.
pub(super) const BUILT: bool = true;

/// `None` where cuDNN does not do it.
pub(super) fn forward(x: &Tensor, w: &Tensor, s: Shape3x3) -> Result<Option<Buffer>> {
    let Some((device, mut library)) = library(x)? else { return Ok(None) };
    let y = Buffer::new(x.device(), (s.batch, s.height, s.width, s.c_out), x.dtype())?;
    let (from, weights, to) = (pointer(address(x)?), pointer(address(w)?), pointer(y.address()?));
    let done = library.run(device, x.dtype(), s, Pass::Forward, |handle, d, algorithm, (space, bytes)| {
        let Algorithm::Forward(algorithm) = algorithm else { return Err(CudnnError(sys::cudnnStatus_t::CUDNN_STATUS_INTERNAL_ERROR)) };
        // SAFETY: the descriptors are those of these three tensors, which live until the stream has passed this call.
        unsafe { result::convolution_forward(handle, one(), d.x, from, d.w, weights, d.conv, algorithm, space, bytes, zero(), d.y, to) }
    })?;
    Ok(done.then_some(y))
}

/// `None` where cuDNN does not do it.
pub(super) fn input_gradient(w: &Tensor, dy: &Tensor, s: Shape3x3) -> Result<Option<Tensor>> {
    let Some((device, mut library)) = library(dy)? else { return Ok(None) };
    let dx = Buffer::new(dy.device(), (s.batch, s.height, s.width, s.c_in), dy.dtype())?;
    let (weights, from, to) = (pointer(address(w)?), pointer(address(dy)?), pointer(dx.address()?));
    let done = library.run(device, dy.dtype(), s, Pass::Input, |handle, d, algorithm, (space, bytes)| {
        let Algorithm::Input(algorithm) = algorithm else { return Err(CudnnError(sys::cudnnStatus_t::CUDNN_STATUS_INTERNAL_ERROR)) };
        // SAFETY: as in `forward`.
        unsafe {
            result::convolution_backward_data(handle, one(), d.w, weights, d.y, from, d.conv, algorithm, space, bytes, zero(), d.x, to)
        }
    })?;
    Ok(done.then(|| dx.tensor()))
}

/// `None` where cuDNN does not do it.
pub(super) fn weight_gradient(x: &Tensor, dy: &Tensor, s: Shape3x3) -> Result<Option<Tensor>> {
    let Some((device, mut library)) = library(dy)? else { return Ok(None) };
    let dw = Buffer::new(dy.device(), (s.c_out, 3, 3, s.c_in), dy.dtype())?;
    let (image, from, to) = (pointer(address(x)?), pointer(address(dy)?), pointer(dw.address()?));
    let done = library.run(device, dy.dtype(), s, Pass::Weight, |handle, d, algorithm, (space, bytes)| {
        let Algorithm::Weight(algorithm) = algorithm else { return Err(CudnnError(sys::cudnnStatus_t::CUDNN_STATUS_INTERNAL_ERROR)) };
        // SAFETY: as in `forward`.
        unsafe {
            result::convolution_backward_filter(handle, one(), d.x, image, d.y, from, d.conv, algorithm, space, bytes, zero(), d.w, to)
        }
    })?;
    Ok(done.then(|| dw.tensor()))
}

/// cuDNN's scaling factors, f32 for f32 and bf16 alike.
fn one() -> *const c_void {
    static ONE: f32 = 1.0;
    from_ref(&ONE).cast()
}

fn zero() -> *const c_void {
    static ZERO: f32 = 0.0;
    from_ref(&ZERO).cast()
}

fn pointer(arg: Arg) -> *mut c_void {
    match arg {
        Arg::Address(at) => at as *mut c_void,
        _ => std::ptr::null_mut(),
    }
}

/// What cuDNN says, for one reason or another, where it does not do something.
const NOT_SUPPORTED: std::ops::Range<u32> = 3000..4000;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Pass {
    Forward,
    Input,
    Weight,
}

#[derive(Clone, Copy)]
enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    Input(sys::cudnnConvolutionBwdDataAlgo_t),
    Weight(sys::cudnnConvolutionBwdFilterAlgo_t),
}

impl Pass {
    /// Deterministic ones that take NHWC, the faster first.
    fn algorithms(self) -> Vec<Algorithm> {
        use sys::cudnnConvolutionFwdAlgo_t::{CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM};
        match self {
            Self::Forward => {
                vec![
                    Algorithm::Forward(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM),
                    Algorithm::Forward(CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM),
                ]
            }
            Self::Input => vec![Algorithm::Input(sys::cudnnConvolutionBwdDataAlgo_t::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1)],
            Self::Weight => vec![Algorithm::Weight(sys::cudnnConvolutionBwdFilterAlgo_t::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1)],
        }
    }
}

/// Of one convolution; kept as long as the process.
#[derive(Clone, Copy)]
pub(super) struct Descriptors {
    x: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    conv: sys::cudnnConvolutionDescriptor_t,
}

impl Descriptors {
    /// # Errors
    /// If cuDNN refuses a size.
    pub fn new(dtype: DType, tf32: bool, s: Shape3x3) -> Result<Self> {
        use sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let (data, math) = match (dtype, tf32) {
            (DType::F32, false) => (sys::cudnnDataType_t::CUDNN_DATA_FLOAT, sys::cudnnMathType_t::CUDNN_FMA_MATH),
            (DType::F32, true) => (sys::cudnnDataType_t::CUDNN_DATA_FLOAT, sys::cudnnMathType_t::CUDNN_DEFAULT_MATH),
            (DType::BF16, _) => (sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16, sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH),
            (other, _) => bail!("cuDNN is not asked for {other:?}"),
        };
        let mut n = [0; 5];
        for (to, size) in n.iter_mut().zip([s.batch, s.c_in, s.height, s.width, s.c_out]) {
            let Arg::Int(size) = int(size)? else { unreachable!("int gives an integer") };
            *to = size;
        }
        let [batch, c_in, height, width, c_out] = n;
        // SAFETY: each descriptor was just made by the function for its kind.
        unsafe {
            let x = result::create_tensor_descriptor().map_err(refused)?;
            result::set_tensor4d_descriptor(x, CUDNN_TENSOR_NHWC, data, [batch, c_in, height, width]).map_err(refused)?;
            let y = result::create_tensor_descriptor().map_err(refused)?;
            result::set_tensor4d_descriptor(y, CUDNN_TENSOR_NHWC, data, [batch, c_out, height, width]).map_err(refused)?;
            let w = result::create_filter_descriptor().map_err(refused)?;
            result::set_filter4d_descriptor(w, data, CUDNN_TENSOR_NHWC, [c_out, c_in, 3, 3]).map_err(refused)?;
            let conv = result::create_convolution_descriptor().map_err(refused)?;
            let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
            let compute = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
            result::set_convolution2d_descriptor(conv, 1, 1, 1, 1, 1, 1, mode, compute).map_err(refused)?;
            result::set_convolution_math_type(conv, math).map_err(refused)?;
            Ok(Self { x, w, y, conv })
        }
    }

    /// The size that cuDNN computes for the result: batch, channels, height, width.
    #[cfg(test)]
    pub fn result_size(&self) -> [i32; 4] {
        let [mut n, mut c, mut h, mut w] = [0; 4];
        // SAFETY: the descriptors are whole, and the function fills four integers.
        unsafe { sys::cudnnGetConvolution2dForwardOutputDim(self.conv, self.x, self.w, &mut n, &mut c, &mut h, &mut w) }.result().unwrap();
        [n, c, h, w]
    }

    /// Bytes that the algorithm needs beside the tensors.
    fn workspace(&self, handle: sys::cudnnHandle_t, algorithm: Algorithm) -> std::result::Result<usize, CudnnError> {
        // SAFETY: handle and descriptors are whole.
        unsafe {
            match algorithm {
                Algorithm::Forward(a) => result::get_convolution_forward_workspace_size(handle, self.x, self.w, self.conv, self.y, a),
                Algorithm::Input(a) => result::get_convolution_backward_data_workspace_size(handle, self.w, self.y, self.conv, self.x, a),
                Algorithm::Weight(a) => {
                    result::get_convolution_backward_filter_workspace_size(handle, self.x, self.y, self.conv, self.w, a)
                }
            }
        }
    }
}

fn refused(error: CudnnError) -> candle_core::Error {
    candle_core::Error::Msg(format!("cuDNN refuses: {error}"))
}

/// What a pass runs with: descriptors, algorithm, bytes of workspace.
type Plan = (Descriptors, Algorithm, usize);

/// Handle, plans and workspace of the process's device.
struct Library {
    device: DeviceId,
    handle: sys::cudnnHandle_t,
    /// Descriptors and what cuDNN can do with them; `None`: nothing.
    plans: HashMap<(DType, bool, Shape3x3, Pass), Option<Plan>>,
    /// The last is in use. None is given back: recordings use those that were the last when they were made.
    workspaces: Vec<CudaSlice<u8>>,
}

// SAFETY: cuDNN's handles and descriptors may be used by any thread, by one at a time; the mutex around the library sees to it.
unsafe impl Send for Library {}

/// One for each device that was opened: a process has one, its tests several, one after the other.
static LIBRARIES: Mutex<Vec<Library>> = Mutex::new(Vec::new());

/// All locked for one call, and the one it is for.
struct Locked(std::sync::MutexGuard<'static, Vec<Library>>, usize);

/// The library for the device of `x`; `None` where it has no business with its type.
fn library(x: &Tensor) -> Result<Option<(&CudaDevice, Locked)>> {
    let Device::Cuda(device) = x.device() else { return Ok(None) };
    if !matches!(x.dtype(), DType::F32 | DType::BF16) {
        return Ok(None);
    }
    let mut libraries = LIBRARIES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let known = libraries.iter().position(|l| l.device == device.id());
    if known.is_none() {
        let stream = device.cuda_stream();
        stream.context().bind_to_thread().w()?;
        let handle = result::create_handle().map_err(refused)?;
        // SAFETY: the stream lives as long as the device, and the device as long as the process's only run.
        unsafe { result::set_stream(handle, stream.cu_stream() as *mut _) }.map_err(refused)?;
        libraries.push(Library { device: device.id(), handle, plans: HashMap::new(), workspaces: Vec::new() });
    }
    let index = known.unwrap_or(libraries.len() - 1);
    Ok(Some((device, Locked(libraries, index))))
}

impl Locked {
    /// Runs `call` with a plan for this convolution; false where there is none.
    fn run(
        &mut self,
        device: &CudaDevice,
        dtype: DType,
        s: Shape3x3,
        pass: Pass,
        call: impl Fn(sys::cudnnHandle_t, &Descriptors, Algorithm, (*mut c_void, usize)) -> std::result::Result<(), CudnnError>,
    ) -> Result<bool> {
        let library = &mut self.0[self.1];
        device.cuda_stream().context().bind_to_thread().w()?;
        let tf32 = candle_core::cuda_backend::gemm_reduced_precision_f32();
        let key = (dtype, tf32, s, pass);
        if !library.plans.contains_key(&key) {
            let d = Descriptors::new(dtype, tf32, s)?;
            let plan = pass.algorithms().into_iter().find_map(|a| d.workspace(library.handle, a).ok().map(|bytes| (d, a, bytes)));
            library.plans.insert(key, plan);
        }
        let Some(&Some((descriptors, algorithm, bytes))) = library.plans.get(&key) else { return Ok(false) };
        let stream = device.cuda_stream();
        if bytes > library.workspaces.last().map_or(0, CudaSlice::len) {
            if driver::is_recording(&Device::Cuda(device.clone()))? {
                bail!("cuDNN wants memory in the middle of a recording")
            }
            library.workspaces.push(device.alloc_zeros::<u8>(bytes.next_power_of_two())?);
        }
        let space = library.workspaces.last().map_or(std::ptr::null_mut(), |w| w.device_ptr(&stream).0 as *mut c_void);
        match call(library.handle, &descriptors, algorithm, (space, bytes)) {
            Ok(()) => Ok(true),
            Err(CudnnError(status)) if NOT_SUPPORTED.contains(&(status as u32)) => {
                library.plans.insert(key, None);
                Ok(false)
            }
            Err(error) => Err(refused(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs cuDNN, no GPU.
    #[test]
    fn cudnn_sees_the_convolution_that_is_meant() {
        let s = Shape3x3 { batch: 3, height: 5, width: 7, c_in: 4, c_out: 6 };
        for (dtype, tf32) in [(DType::F32, false), (DType::F32, true), (DType::BF16, false)] {
            assert_eq!(Descriptors::new(dtype, tf32, s).unwrap().result_size(), [3, 6, 5, 7]);
        }
        assert!(Descriptors::new(DType::F64, false, s).is_err());
    }
}
