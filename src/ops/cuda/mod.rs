//! The operations on CUDA: the same functions as on the CPU, from kernels of our own, cuBLAS and cuDNN.
//!
//! Start at [`buffer`]: an operation fills a buffer by launching kernels and notes its backward pass on the tape. The kernels
//! stand in `kernels/*.cu`, one text for f32, f64 and bf16, and are compiled by NVRTC for the device at hand, so a build
//! needs no nvcc of its own. Products of matrices are cuBLAS's, by way of candle; 3 × 3 convolutions in f32 and
//! f64 are our own (`conv3x3`), others cuDNN's where the build has it and it has a deterministic algorithm, else unfolded for
//! cuBLAS.
//!
//! No kernel uses atomics and every sum has one order, so a device gives the same bits every time. Everything runs on one
//! stream in the order of the calls ([`open`]).
//!
//! What is done many times over is told once: a [`Recorder`] has the device record it, and says "again" from then on. The tensors
//! that differ from time to time are [`Fed`], at places that stay. While a device records, no other thread may use it: what such
//! a thread asked for would be recorded and not done. Numbers come back by [`home`], which refuses then, and hears of every
//! failure.
//!
//! Nothing here but [`driver`] knows the device: the tests run the same launches, with the same texts, on the host
//! (`emulator.rs`), so that what a machine without a GPU cannot show is the driver's few lines alone.

mod attention;
mod buffer;
mod conv2d;
mod conv3x3;
mod diffusion;
mod elementwise;
mod fed;
mod group_norm;
mod launch;
mod layer_norm;
mod linear;
mod recorder;
#[cfg(any(test, feature = "cuda"))]
mod source;
mod training;

#[cfg(feature = "cuda")]
mod driver;
#[cfg(not(feature = "cuda"))]
#[path = "no_driver.rs"]
mod driver;

#[cfg(feature = "cudnn")]
mod cudnn;
#[cfg(not(feature = "cudnn"))]
#[path = "no_cudnn.rs"]
mod cudnn;

#[cfg(test)]
mod emulator;
#[cfg(test)]
mod tests;

pub(super) use attention::attention;
pub(super) use conv2d::{Sizes as ConvSizes, conv2d};
pub use diffusion::{DeviceExamples, DeviceProcess, Drawn, Placed};
pub use driver::{allow_tf32, name, open};
pub use elementwise::with_step_at;
pub(super) use elementwise::{add_channels, concat, dropout, silu, tokens, upsample2x};
pub use fed::{Fed, home, sent};
pub(super) use group_norm::group_norm;
pub(super) use layer_norm::layer_norm;
pub(super) use linear::linear;
pub use recorder::Recorder;
pub use training::DeviceWeights;

#[cfg(test)]
pub(crate) use emulator::{launches, stand_aside, standing_in};

use candle_core::{Device, Tensor};

/// Whether these operations compute on `x`.
pub(super) fn takes(x: &Tensor) -> bool {
    is_device(x.device())
}

/// Whether these operations compute on `device`; in tests, the CPU may stand in for one.
pub fn is_device(device: &Device) -> bool {
    #[cfg(test)]
    if emulator::stands_in() {
        return true;
    }
    device.is_cuda()
}

/// A pool of threads that compute where this one does: they differ in tests alone, where one may have the CPU stand in for a
/// device.
pub fn threads_like_this() -> rayon::ThreadPoolBuilder {
    let builder = rayon::ThreadPoolBuilder::new();
    #[cfg(test)]
    if emulator::stands_in() {
        let stand = emulator::stand();
        return builder.start_handler(move |_| emulator::stand_there(stand));
    }
    builder
}
