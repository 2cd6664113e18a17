//! Group normalisation with the activation that follows.

use super::super::Activation;
use super::buffer::{Buffer, address, attach};
use super::elementwise::sum_rows_in_full;
use super::launch::{Arg, Grid, arithmetic, int, launch};
use crate::ops::tape::whole;
use candle_core::{Result, Tensor};

/// Shapes have been checked.
pub fn group_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, groups: usize, eps: f64, activation: Activation) -> Result<Tensor> {
    let (x, gamma, beta) = (whole(x)?, whole(gamma)?, whole(beta)?);
    let (device, dtype, real) = (x.device().clone(), x.dtype(), arithmetic(x.dtype()));
    let (batch, channels) = (x.dim(0)?, gamma.elem_count());
    let pixels = x.elem_count() / (batch * channels);
    let sizes = [int(pixels)?, int(channels)?, int(groups)?];
    int(x.elem_count())?;
    let with_silu = Arg::Int(match activation {
        Activation::None => 0,
        Activation::Silu => 1,
    });

    let (y, moments) = (Buffer::like(&x)?, Buffer::new(&device, (batch, groups, 2), real)?);
    let tensors = [address(&x)?, address(&gamma)?, address(&beta)?, y.address()?, moments.address()?];
    let args = [&sizes[..], &[Arg::Double(eps), with_silu], &tensors].concat();
    launch(&device, dtype, "group_norm", Grid::blocks(batch * groups), &args)?;
    let moments = moments.tensor();

    attach(y, [&x, &gamma, &beta], move |inputs, dy| {
        let [x, gamma, beta] = &inputs.tensors;
        let known = [address(x)?, address(gamma)?, address(beta)?, address(&moments)?];
        let sums = Buffer::new(&device, (2, batch, channels), real)?;
        let grid = Grid { blocks: [batch, channels.div_ceil(32), 1], threads: [32, 32] };
        let args = [&sizes[..], &[with_silu], &known, &[address(dy)?, sums.address()?]].concat();
        launch(&device, dtype, "group_norm_sums", grid, &args)?;
        let sums = sums.tensor();

        let dx = Buffer::like(x)?;
        let args = [&sizes[..], &[with_silu], &known, &[address(&sums)?, address(dy)?, dx.address()?]].concat();
        launch(&device, dtype, "group_norm_input", Grid::blocks(batch * groups), &args)?;

        let total = |part: usize| -> Result<Option<Tensor>> {
            let part = sums.narrow(0, part, 1)?;
            let part = if batch == 1 { part } else { sum_rows_in_full(&part, 1, channels)? };
            Ok(Some(part.reshape(channels)?.to_dtype(dtype)?))
        };
        Ok([Some(dx.tensor()), total(1)?, total(0)?])
    })
}
