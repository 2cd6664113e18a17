//! Operations of one thread for each number.

use super::buffer::{Buffer, address, attach};
use super::fed::Fed;
use super::launch::{Arg, BLOCK, Grid, arithmetic, int, launch};
use crate::ops::tape::whole;
use crate::rng::Stream;
use candle_core::{D, DType, Result, Tensor, bail};
use std::cell::Cell;

pub fn silu(x: &Tensor) -> Result<Tensor> {
    let x = whole(x)?;
    let y = Buffer::like(&x)?;
    let to = y.address()?;
    let y = y.fill(x.dtype(), "silu", &[address(&x)?, to])?;
    attach(y, [&x], |inputs, dy| {
        let [x] = inputs.tensors;
        Ok([Some(silu_backward(&x, dy)?)])
    })
}

/// The gradient of x, where y = silu(x).
pub(super) fn silu_backward(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let dx = Buffer::like(x)?;
    let to = dx.address()?;
    Ok(dx.fill(x.dtype(), "silu_backward", &[address(x)?, address(dy)?, to])?.tensor())
}

/// Adds a bias in place: `[C]`, or `[B, C]` where every sample has its own.
pub(super) fn add_bias(y: Buffer, bias: &Tensor, batch: usize) -> Result<Buffer> {
    let channels = bias.dim(D::Minus1)?;
    let span = if bias.rank() == 2 { y.len() / batch } else { y.len() };
    let at = y.address()?;
    y.fill(bias.dtype(), "add_bias", &[int(channels)?, int(span)?, at, address(bias)?, at])
}

/// Shapes have been checked.
pub fn add_channels(x: &Tensor, e: &Tensor) -> Result<Tensor> {
    let (x, e) = (whole(x)?, whole(e)?);
    let (batch, channels) = e.dims2()?;
    let y = Buffer::like(&x)?;
    let to = y.address()?;
    let span = int(x.elem_count() / batch)?;
    let y = y.fill(x.dtype(), "add_bias", &[int(channels)?, span, address(&x)?, address(&e)?, to])?;
    attach(y, [&x, &e], move |inputs, dy| {
        let de = if inputs.wanted[1] { Some(sum_rows(dy, batch, channels)?.reshape((batch, channels))?) } else { None };
        Ok([Some(dy.clone()), de])
    })
}

/// Sums over the rows of each of `groups` equal parts of `x`, whose rows are `columns` long: `[groups, columns]`.
pub(super) fn sum_rows(x: &Tensor, groups: usize, columns: usize) -> Result<Tensor> {
    let sums = sum_rows_in_full(x, groups, columns)?;
    sums.to_dtype(x.dtype())
}

/// Rows of a pass; fixed, so that the order of the sums is.
pub(super) const CHUNK: usize = 256;

/// The same, as the kernels sum it: bf16 in f32.
pub(super) fn sum_rows_in_full(x: &Tensor, groups: usize, columns: usize) -> Result<Tensor> {
    let (sums, chunks) = sum_chunks("sum_rows", x, x.dtype(), groups, columns)?;
    if chunks == 1 { sums.reshape((groups, columns)) } else { sum_partial_rows(sums, x.dtype(), groups, columns) }
}

/// The same of sums that a kernel of the module for `dtype` left.
pub(super) fn sum_partial_rows(mut from: Tensor, dtype: DType, groups: usize, columns: usize) -> Result<Tensor> {
    loop {
        let (sums, chunks) = sum_chunks("sum_partial_rows", &from, dtype, groups, columns)?;
        if chunks == 1 {
            return sums.reshape((groups, columns));
        }
        from = sums;
    }
}

/// One pass: the sums of chunks of rows, and how many chunks.
fn sum_chunks(kernel: &'static str, from: &Tensor, dtype: DType, groups: usize, columns: usize) -> Result<(Tensor, usize)> {
    let rows = from.elem_count() / (groups * columns);
    let chunks = rows.div_ceil(CHUNK).max(1);
    let to = Buffer::new(from.device(), (groups, chunks, columns), arithmetic(dtype))?;
    let grid = Grid { blocks: [columns.div_ceil(32), chunks, groups], threads: [32, BLOCK / 32] };
    launch(from.device(), dtype, kernel, grid, &[int(rows)?, int(columns)?, int(CHUNK)?, address(from)?, to.address()?])?;
    Ok((to.tensor(), chunks))
}

/// Shapes have been checked: the rows of `first` and `patches` one after the other, and `positions` added to each.
pub fn tokens(patches: &Tensor, first: &Tensor, positions: &Tensor) -> Result<Tensor> {
    let (patches, first, positions) = (whole(patches)?, whole(first)?, whole(positions)?);
    let (batch, n, c) = patches.dims3()?;
    let total = (n + 1) * c;
    let y = Buffer::new(patches.device(), (batch, n + 1, c), patches.dtype())?;
    let to = y.address()?;
    let y = y.fill(patches.dtype(), "concat", &[int(c)?, int(n * c)?, address(&first)?, address(&patches)?, to])?;
    let y = add_bias(y, &positions.detach().reshape(total)?, batch)?;
    attach(y, [&patches, &first, &positions], move |inputs, dy| {
        let [patches, first, positions] = &inputs.tensors;
        let dpositions = if inputs.wanted[2] { Some(sum_rows(dy, 1, total)?.reshape(positions.shape())?) } else { None };
        Ok([Some(columns(dy, patches, [total, c, n * c])?), Some(columns(dy, first, [total, 0, c])?), dpositions])
    })
}

/// Columns `first .. first + width` of rows of `total`, in the shape of `like`.
fn columns(x: &Tensor, like: &Tensor, [total, first, width]: [usize; 3]) -> Result<Tensor> {
    let y = Buffer::like(like)?;
    let to = y.address()?;
    Ok(y.fill(x.dtype(), "columns", &[int(total)?, int(first)?, int(width)?, address(x)?, to])?.tensor())
}

/// Shapes have been checked.
pub fn concat(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (whole(a)?, whole(b)?);
    let (c_a, c_b) = (a.dim(D::Minus1)?, b.dim(D::Minus1)?);
    let mut dims = a.dims().to_vec();
    *dims.last_mut().expect("checked to have an axis") = c_a + c_b;
    let y = Buffer::new(a.device(), dims, a.dtype())?;
    let to = y.address()?;
    let y = y.fill(a.dtype(), "concat", &[int(c_a)?, int(c_b)?, address(&a)?, address(&b)?, to])?;
    attach(y, [&a, &b], move |inputs, dy| {
        let [a, b] = &inputs.tensors;
        Ok([Some(columns(dy, a, [c_a + c_b, 0, c_a])?), Some(columns(dy, b, [c_a + c_b, c_a, c_b])?)])
    })
}

/// Shapes have been checked.
pub fn upsample2x(x: &Tensor) -> Result<Tensor> {
    let x = whole(x)?;
    let (b, h, w, c) = x.dims4()?;
    let y = Buffer::new(x.device(), (b, 2 * h, 2 * w, c), x.dtype())?;
    let to = y.address()?;
    let y = y.fill(x.dtype(), "upsample2x", &[int(w)?, int(c)?, address(&x)?, to])?;
    attach(y, [&x], move |inputs, dy| {
        let dx = Buffer::like(&inputs.tensors[0])?;
        let to = dx.address()?;
        Ok([Some(dx.fill(dy.dtype(), "upsample2x_backward", &[int(w)?, int(c)?, address(dy)?, to])?.tensor())])
    })
}

/// Probability and shape have been checked.
pub fn dropout(x: &Tensor, p: f64, stream: Stream, first_sample: u32) -> Result<Tensor> {
    let x = whole(x)?;
    let y = dropped(&x, p, stream, first_sample)?;
    attach(y, [&x], move |_, dy| Ok([Some(dropped(dy, p, stream, first_sample)?.tensor())]))
}

thread_local!(static STEP_AT: Cell<u64> = const { Cell::new(0) });

/// Runs `f`, in which dropout reads the step of its random numbers from `step [1]` (u32) when it is done rather than when it
/// is told: a recorded step is done many times.
///
/// # Errors
/// If `step` is something else; else those of `f`.
pub fn with_step_at<R>(step: &Fed, f: impl FnOnce() -> Result<R>) -> Result<R> {
    let (DType::U32, 1, Arg::Address(at)) = (step.tensor().dtype(), step.tensor().elem_count(), step.address()?) else {
        bail!("a step is one number in u32")
    };
    let before = STEP_AT.replace(at);
    let result = f();
    STEP_AT.set(before);
    result
}

fn dropped(x: &Tensor, p: f64, stream: Stream, first_sample: u32) -> Result<Buffer> {
    let samples = x.dim(0)?;
    let dims = x.elem_count() / samples;
    let y = Buffer::like(x)?;
    let threads = samples * dims.div_ceil(4);
    int(x.elem_count())?;
    let [k0, k1, step, tag] = stream.address().map(Arg::Word);
    let step_at = Arg::Address(STEP_AT.get());
    let rest = [step_at, Arg::Single(p as f32), Arg::Double(1.0 / (1.0 - p)), address(x)?, y.address()?];
    let args = [&[int(samples)?, int(dims)?, k0, k1, step, tag, Arg::Word(first_sample)], &rest[..]].concat();
    launch(x.device(), x.dtype(), "dropout", Grid::elements(threads), &args)?;
    Ok(y)
}
