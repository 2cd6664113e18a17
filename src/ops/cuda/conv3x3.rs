//! 3 × 3 convolutions of stride 1 by kernels of our own, for types that tensor cores do not multiply exactly: f32 where its
//! products may not be rounded to TF32, and f64.
//!
//! cuDNN's deterministic kernels for such convolutions in NHWC are slow: on an H100 a step of a U-Net at batch 128 took 36.8 ms
//! with them, and takes 16.6 ms with these.

use super::buffer::{Buffer, address};
use super::elementwise::sum_partial_rows;
use super::launch::{Arg, Grid, arithmetic, int, launch};
use super::{cudnn, driver};
use candle_core::{DType, Result, Tensor};

/// A 3 × 3 convolution of stride 1 with one row of zeros all round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape3x3 {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub c_in: usize,
    pub c_out: usize,
}

/// Pixels of a side of a tile; channels of a block's result and, for the weights, of its image. Those of the kernels' text.
const SIDE: usize = 8;
const CHANNELS: usize = 32;
/// Warps of a block, each with a tile; channels of an image at a time, and the place that the weights of one take.
const WARPS: usize = 4;
const CHUNK: usize = 8;
const PLANE: usize = 9 * CHANNELS + 4;
/// Blocks that are enough for any device; the sums over the parts of a gradient of the weights have this order on each.
const BLOCKS: usize = 512;

/// Warps below which much of a large device has nothing to do; cuDNN cuts smaller pieces.
const FEW_WARPS: usize = 256;

/// Whether these are the kernels for tensors of this type.
pub(super) fn takes(dtype: DType) -> bool {
    dtype == DType::F64 || (dtype == DType::F32 && !driver::tf32_allowed())
}

/// Whether they are for a result, or a gradient of the image, of `to` channels.
pub(super) fn multiplies(dtype: DType, s: Shape3x3, to: usize) -> bool {
    takes(dtype) && (!cudnn::BUILT || s.tiles() * to.div_ceil(CHANNELS) >= FEW_WARPS)
}

impl Shape3x3 {
    fn tiles(self) -> usize {
        self.batch * self.height.div_ceil(SIDE) * self.width.div_ceil(SIDE)
    }

    /// Batch, height, width, and the two numbers of channels, which the kernels can count pixels and weights with.
    fn sizes(self, from: usize, to: usize) -> Result<[Arg; 5]> {
        int(self.batch * self.height * self.width * self.c_in.max(self.c_out))?;
        Ok([int(self.batch)?, int(self.height)?, int(self.width)?, int(from)?, int(to)?])
    }
}

/// Whether every pixel of an image at this place begins on a vector of four.
fn vectors(image: Arg, channels: usize, dtype: DType) -> Arg {
    let Arg::Address(at) = image else { unreachable!("an image has an address") };
    Arg::Int(i32::from(channels.is_multiple_of(4) && at.is_multiple_of(4 * dtype.size_in_bytes() as u64)))
}

/// `bias` is `[C_out]` or `[B, C_out]`.
pub(super) fn forward(x: &Tensor, w: &Tensor, bias: &Tensor, s: Shape3x3) -> Result<Buffer> {
    convolve(x, &packed(w, false, s.c_in, s.c_out)?, Some(bias), s, [s.c_in, s.c_out])
}

pub(super) fn input_gradient(w: &Tensor, dy: &Tensor, s: Shape3x3) -> Result<Tensor> {
    Ok(convolve(dy, &packed(w, true, s.c_out, s.c_in)?, None, s, [s.c_out, s.c_in])?.tensor())
}

/// The weights in the order in which the kernel reads them.
fn packed(w: &Tensor, flipped: bool, from: usize, to: usize) -> Result<Buffer> {
    let numbers = to.div_ceil(CHANNELS) * from.next_multiple_of(CHUNK) * PLANE;
    let packed = Buffer::new(w.device(), numbers, arithmetic(w.dtype()))?;
    let at = packed.address()?;
    packed.fill(w.dtype(), "conv3x3_pack", &[Arg::Int(i32::from(flipped)), int(from)?, int(to)?, address(w)?, at])
}

fn convolve(x: &Tensor, packed: &Buffer, bias: Option<&Tensor>, s: Shape3x3, [from, to]: [usize; 2]) -> Result<Buffer> {
    let dtype = x.dtype();
    let y = Buffer::new(x.device(), (s.batch, s.height, s.width, to), dtype)?;
    let (image, result) = (address(x)?, y.address()?);
    let (bias, step) = match bias {
        Some(bias) => (address(bias)?, if bias.rank() == 2 { to } else { 0 }),
        None => (Arg::Address(0), 0),
    };
    let flags = [vectors(image, from, dtype), vectors(result, to, dtype), int(step)?];
    let args = [&s.sizes(from, to)?[..], &flags, &[image, packed.address()?, bias, result]].concat();
    // A tile and so many channels of the result for each warp.
    let grid = Grid { blocks: [s.tiles().div_ceil(WARPS), to.div_ceil(CHANNELS), 1], threads: [32 * WARPS, 1] };
    launch(x.device(), dtype, "conv3x3", grid, &args)?;
    Ok(y)
}

pub(super) fn weight_gradient(x: &Tensor, dy: &Tensor, s: Shape3x3) -> Result<Tensor> {
    let dtype = dy.dtype();
    let [ins, outs] = [s.c_in, s.c_out].map(|c| c.div_ceil(CHANNELS));
    let count = (BLOCKS / (ins * outs)).clamp(1, s.tiles());
    let parts = Buffer::new(dy.device(), (count, s.c_out * 9 * s.c_in), arithmetic(dtype))?;
    let (image, slope) = (address(x)?, address(dy)?);
    let flags = [vectors(image, s.c_in, dtype), vectors(slope, s.c_out, dtype)];
    let args = [&s.sizes(s.c_in, s.c_out)?[..], &flags, &[image, slope, parts.address()?]].concat();
    let grid = Grid { blocks: [count, ins, outs], threads: [32, 3] };
    launch(dy.device(), dtype, "conv3x3_weights", grid, &args)?;
    sum_partial_rows(parts.tensor(), dtype, 1, s.c_out * 9 * s.c_in)?.reshape((s.c_out, 3, 3, s.c_in))
}
