//! Differentiable tensor operations, one file each: NHWC, contiguous, f32 (and f64, so that gradients can be checked; bf16
//! on CUDA).
//!
//! Each operation is one plain function of tensors. On the CPU it is a candle custom operation whose forward and backward
//! are written here by hand; on CUDA it is its twin in [`cuda`]; on any other device it is its `reference`: the same function
//! composed of candle primitives whose own backward is correct, which is also the oracle of the tests.
//!
//! A forward pass that is to be differentiated is [recorded](record); candle's own graph is for tests.
//!
//! Deliberately absent: threads. An operation runs on the thread that calls it; the trainer gets its parallelism from
//! micro-batches, so no result depends on how many cores there are. Products of matrices are our own where there are
//! registers of 512 bits, and the `gemm` crate's elsewhere and in f64; hot loops are compiled for several instruction sets and
//! chosen at run time, and sum in a fixed order, so that only the products can differ between instruction sets.

mod add_channels;
mod attention;
mod concat;
mod conv2d;
pub mod cuda;
mod dropout;
mod gradient_sink;
mod group_norm;
mod kernel;
mod layer_norm;
mod linear;
mod linear_joined;
mod product;
mod real;
mod silu;
mod tape;
mod tile_product;
mod tiling;
mod tokens;
mod turn;
mod upsample2x;
mod upsample_conv2d;
mod winograd;

#[cfg(test)]
pub(crate) mod check;

pub use add_channels::add_channels;
pub use attention::attention;
pub use concat::concat;
pub use conv2d::{ConvKind, DownsamplePadding, conv2d};
pub use dropout::dropout;
pub use gradient_sink::{Gradients, Places, add_tensor};
pub use group_norm::group_norm;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use linear_joined::{Rows, linear_joined};
pub use product::{dot_products, weighted_sums};
pub use silu::silu;
pub use tape::{Slopes, Tape, add, narrow, permute, record, reshape, to_dtype};
pub use tokens::tokens;
pub use upsample_conv2d::upsample_conv2d;
pub use upsample2x::upsample2x;

/// What follows an affine operation inside the same pass over memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    None,
    /// `x · sigmoid(x)`.
    Silu,
}
