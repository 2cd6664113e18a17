//! Attention: products by cuBLAS, and the softmax between them.

use super::buffer::{Buffer, address, attach};
use super::launch::{Arg, BLOCK, Grid, int, launch};
use crate::ops::tape::whole;
use candle_core::{Result, Tensor};

/// Shapes have been checked.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let (q, k, v) = (whole(q)?, whole(k)?, whole(v)?);
    let (batch, shape) = (q.dim(0)?, q.shape().clone());
    let channels = q.dim(q.rank() - 1)?;
    let (tokens, head) = (q.elem_count() / (batch * channels), channels / heads);
    let scale = 1.0 / (head as f64).sqrt();
    // One head is the tensor itself; several are brought together, [batch · heads, tokens, head].
    let split = move |t: &Tensor| {
        let t = t.reshape((batch, tokens, heads, head))?.transpose(1, 2)?.contiguous()?;
        t.reshape((batch * heads, tokens, head))
    };
    let join = move |t: &Tensor| {
        let t = t.reshape((batch, heads, tokens, head))?.transpose(1, 2)?.contiguous()?;
        t.reshape(&shape)
    };

    let [qh, kh, vh] = [split(&q.detach())?, split(&k.detach())?, split(&v.detach())?];
    let scores = qh.matmul(&kh.t()?)?;
    let weights = softmax(&scores, scale)?;
    let out = Buffer::product(&weights, &vh)?;
    let out = if heads == 1 { out.reshaped(q.shape())? } else { copy(&join(&out.tensor())?)? };
    attach(out, [&q, &k, &v], move |inputs, dout| {
        let [q, k, v] = &inputs.tensors;
        let ([q, k, v], dout) = ([split(q)?, split(k)?, split(v)?], split(dout)?);
        let dv = weights.t()?.matmul(&dout)?;
        let ds = softmax_backward(&weights, &dout.matmul(&v.t()?)?, scale)?;
        let (dq, dk) = (ds.matmul(&k)?, ds.t()?.matmul(&q)?);
        Ok([Some(join(&dq)?), Some(join(&dk)?), Some(join(&dv)?)])
    })
}

/// softmax(scale · x) over the last axis.
fn softmax(x: &Tensor, scale: f64) -> Result<Tensor> {
    let y = Buffer::like(x)?;
    let (grid, [rows, columns]) = rows(x)?;
    launch(x.device(), x.dtype(), "softmax", grid, &[rows, columns, Arg::Double(scale), address(x)?, y.address()?])?;
    Ok(y.tensor())
}

/// The gradient of x, where y = softmax(scale · x).
fn softmax_backward(y: &Tensor, dy: &Tensor, scale: f64) -> Result<Tensor> {
    let dx = Buffer::like(y)?;
    let (grid, [rows, columns]) = rows(y)?;
    let args = [rows, columns, Arg::Double(scale), address(y)?, address(dy)?, dx.address()?];
    launch(y.device(), y.dtype(), "softmax_backward", grid, &args)?;
    Ok(dx.tensor())
}

/// A row of threads for each row, several in a block: few steps to a sum, and no thread without work.
fn rows(x: &Tensor) -> Result<(Grid, [Arg; 2])> {
    let columns = x.dim(x.rank() - 1)?;
    let rows = x.elem_count() / columns;
    // Eight numbers to a thread.
    let across = columns.div_ceil(8).next_power_of_two().clamp(8, BLOCK);
    let down = BLOCK / across;
    Ok((Grid { blocks: [rows.div_ceil(down), 1, 1], threads: [across, down] }, [int(rows)?, int(columns)?]))
}

/// The numbers of a tensor in memory of their own.
fn copy(x: &Tensor) -> Result<Buffer> {
    let y = Buffer::like(x)?;
    let (n, to) = (int(x.elem_count())?, y.address()?);
    y.fill(x.dtype(), "columns", &[n, Arg::Int(0), n, address(x)?, to])
}
