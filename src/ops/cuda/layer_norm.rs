//! Layer normalisation.

use super::buffer::{Buffer, address, attach};
use super::elementwise::{CHUNK, sum_partial_rows};
use super::launch::{Arg, BLOCK, Grid, arithmetic, int, launch};
use crate::ops::tape::whole;
use candle_core::{Result, Tensor};

/// Shapes have been checked.
pub fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    let (x, gamma, beta) = (whole(x)?, whole(gamma)?, whole(beta)?);
    let (device, dtype, real) = (x.device().clone(), x.dtype(), arithmetic(x.dtype()));
    let channels = gamma.elem_count();
    let rows = x.elem_count() / channels;
    // A block for each row, of no more threads than help.
    let grid = Grid { blocks: [rows, 1, 1], threads: [channels.next_power_of_two().clamp(32, BLOCK), 1] };
    int(x.elem_count())?;

    let (y, moments) = (Buffer::like(&x)?, Buffer::new(&device, (rows, 2), real)?);
    let tensors = [address(&x)?, address(&gamma)?, address(&beta)?, y.address()?, moments.address()?];
    launch(&device, dtype, "layer_norm", grid, &[&[int(channels)?, Arg::Double(eps)], &tensors[..]].concat())?;
    let moments = moments.tensor();

    attach(y, [&x, &gamma, &beta], move |inputs, dy| {
        let [x, gamma, _] = &inputs.tensors;
        let dx = Buffer::like(x)?;
        let args = [int(channels)?, address(x)?, address(gamma)?, address(&moments)?, address(dy)?, dx.address()?];
        launch(&device, dtype, "layer_norm_input", grid, &args)?;

        let chunks = rows.div_ceil(CHUNK);
        let sums = Buffer::new(&device, (2, chunks, channels), real)?;
        let tiles = Grid { blocks: [channels.div_ceil(32), chunks, 1], threads: [32, BLOCK / 32] };
        let args = [int(rows)?, int(channels)?, int(CHUNK)?, address(x)?, address(&moments)?, address(dy)?, sums.address()?];
        launch(&device, dtype, "layer_norm_sums", tiles, &args)?;
        let sums = if chunks == 1 { sums.tensor() } else { sum_partial_rows(sums.tensor(), dtype, 2, channels)? };
        let part = |i: usize| sums.reshape((2, channels))?.narrow(0, i, 1)?.reshape(channels)?.to_dtype(dtype);
        Ok([Some(dx.tensor()), Some(part(0)?), Some(part(1)?)])
    })
}
