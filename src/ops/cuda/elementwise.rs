//! Operations of one thread for each number.

use super::buffer::{Buffer, address, attach1, attach2};
use super::launch::{Arg, BLOCK, Grid, arithmetic, int, launch};
use crate::rng::Stream;
use candle_core::{D, Result, Tensor};

pub fn silu(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let y = Buffer::like(&x)?;
    let to = y.address()?;
    let y = y.fill(x.dtype(), "silu", &[address(&x)?, to])?;
    attach1("silu", y, &x, |inputs, dy| {
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
    let (x, e) = (x.contiguous()?, e.contiguous()?);
    let (batch, channels) = e.dims2()?;
    let y = Buffer::like(&x)?;
    let to = y.address()?;
    let span = int(x.elem_count() / batch)?;
    let y = y.fill(x.dtype(), "add_bias", &[int(channels)?, span, address(&x)?, address(&e)?, to])?;
    attach2("add_channels", y, [&x, &e], move |inputs, dy| {
        let de = if inputs.wanted[1] { Some(sum_rows(dy, batch, channels)?.reshape((batch, channels))?) } else { None };
        Ok([Some(dy.clone()), de])
    })
}

/// Sums over the rows of each of `groups` equal parts of `x`, whose rows are `columns` long: `[groups, columns]`.
pub(super) fn sum_rows(x: &Tensor, groups: usize, columns: usize) -> Result<Tensor> {
    let sums = sum_rows_in_full(x, groups, columns)?;
    sums.to_dtype(x.dtype())
}

/// The same, as the kernels sum it: bf16 in f32.
pub(super) fn sum_rows_in_full(x: &Tensor, groups: usize, columns: usize) -> Result<Tensor> {
    /// Rows of a pass; fixed, so that the order of the sums is.
    const CHUNK: usize = 256;
    let (dtype, real) = (x.dtype(), arithmetic(x.dtype()));
    let mut kernel = "sum_rows";
    let mut from = x.clone();
    loop {
        let rows = from.elem_count() / (groups * columns);
        let chunks = rows.div_ceil(CHUNK).max(1);
        let to = Buffer::new(x.device(), (groups, chunks, columns), real)?;
        let grid = Grid { blocks: [columns.div_ceil(32), chunks, groups], threads: [32, BLOCK / 32] };
        launch(x.device(), dtype, kernel, grid, &[int(rows)?, int(columns)?, int(CHUNK)?, address(&from)?, to.address()?])?;
        from = to.tensor();
        kernel = "sum_partial_rows";
        if chunks == 1 {
            return from.reshape((groups, columns));
        }
    }
}

/// Shapes have been checked.
pub fn concat(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    let (c_a, c_b) = (a.dim(D::Minus1)?, b.dim(D::Minus1)?);
    let mut dims = a.dims().to_vec();
    *dims.last_mut().expect("checked to have an axis") = c_a + c_b;
    let y = Buffer::new(a.device(), dims, a.dtype())?;
    let to = y.address()?;
    let y = y.fill(a.dtype(), "concat", &[int(c_a)?, int(c_b)?, address(&a)?, address(&b)?, to])?;
    attach2("concat", y, [&a, &b], move |inputs, dy| {
        let part = |like: &Tensor, first: usize, width: usize| {
            let d = Buffer::like(like)?;
            let to = d.address()?;
            let args = [int(c_a + c_b)?, int(first)?, int(width)?, address(dy)?, to];
            Ok::<_, candle_core::Error>(Some(d.fill(dy.dtype(), "columns", &args)?.tensor()))
        };
        let [a, b] = &inputs.tensors;
        Ok([part(a, 0, c_a)?, part(b, c_a, c_b)?])
    })
}

/// Shapes have been checked.
pub fn upsample2x(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (b, h, w, c) = x.dims4()?;
    let y = Buffer::new(x.device(), (b, 2 * h, 2 * w, c), x.dtype())?;
    let to = y.address()?;
    let y = y.fill(x.dtype(), "upsample2x", &[int(w)?, int(c)?, address(&x)?, to])?;
    attach1("upsample2x", y, &x, move |inputs, dy| {
        let dx = Buffer::like(&inputs.tensors[0])?;
        let to = dx.address()?;
        Ok([Some(dx.fill(dy.dtype(), "upsample2x_backward", &[int(w)?, int(c)?, address(dy)?, to])?.tensor())])
    })
}

/// Probability and shape have been checked.
pub fn dropout(x: &Tensor, p: f64, stream: Stream, first_sample: u32) -> Result<Tensor> {
    let x = x.contiguous()?;
    let y = dropped(&x, p, stream, first_sample)?;
    attach1("dropout", y, &x, move |_, dy| Ok([Some(dropped(dy, p, stream, first_sample)?.tensor())]))
}

fn dropped(x: &Tensor, p: f64, stream: Stream, first_sample: u32) -> Result<Buffer> {
    let samples = x.dim(0)?;
    let dims = x.elem_count() / samples;
    let y = Buffer::like(x)?;
    let threads = samples * dims.div_ceil(4);
    int(threads)?;
    let [k0, k1, step, tag] = stream.address().map(Arg::Word);
    let rest = [Arg::Single(p as f32), Arg::Double(1.0 / (1.0 - p)), address(x)?, y.address()?];
    let args = [&[int(samples)?, int(dims)?, k0, k1, step, tag, Arg::Word(first_sample)], &rest[..]].concat();
    launch(x.device(), x.dtype(), "dropout", Grid::elements(threads), &args)?;
    Ok(y)
}
