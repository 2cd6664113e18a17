//! Group normalisation with the activation that follows.

use super::super::Activation;
use super::buffer::{Buffer, address, attach};
use super::elementwise::sum_rows_in_full;
use super::launch::{Arg, BLOCK, Grid, arithmetic, int, launch};
use crate::ops::tape::whole;
use candle_core::{Result, Tensor};

/// Pixels of a thread; that of the kernels' text.
const PIXELS: usize = 8;

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

    // As many neighbouring channels as there are, up to a warp's 32; the other threads of a block have other pixels.
    let across = channels.next_power_of_two().min(32);
    let tile = PIXELS * BLOCK / across;
    let tiles = pixels.div_ceil(tile);
    let tiled = Grid { blocks: [tiles, channels.div_ceil(across), batch], threads: [across, BLOCK / across] };
    let by_group =
        move |numbers: usize| Grid { blocks: [batch * groups, 1, 1], threads: [numbers.next_power_of_two().clamp(32, BLOCK), 1] };

    let parts = Buffer::new(&device, (batch, tiles, channels, 2), real)?;
    launch(&device, dtype, "group_norm_parts", tiled, &[sizes[0], sizes[1], address(&x)?, parts.address()?])?;
    let moments = Buffer::new(&device, (batch, groups, 2), real)?;
    let args = [&sizes[..], &[int(tiles)?, int(tile)?, Arg::Double(eps), parts.address()?, moments.address()?]].concat();
    launch(&device, dtype, "group_norm_moments", by_group(tiles * channels / groups), &args)?;
    let (y, moments) = (Buffer::like(&x)?, moments.tensor());
    let tensors = [address(&x)?, address(&gamma)?, address(&beta)?, address(&moments)?, y.address()?];
    launch(&device, dtype, "group_norm", tiled, &[&sizes[..], &[with_silu], &tensors].concat())?;

    attach(y, [&x, &gamma, &beta], move |inputs, dy| {
        let [x, gamma, beta] = &inputs.tensors;
        let known = [address(x)?, address(gamma)?, address(beta)?, address(&moments)?];
        let sums = Buffer::new(&device, (2, batch, channels), real)?;
        let grid = Grid { blocks: [batch, channels.div_ceil(32), 1], threads: [32, 32] };
        let args = [&sizes[..], &[with_silu], &known, &[address(dy)?, sums.address()?]].concat();
        launch(&device, dtype, "group_norm_sums", grid, &args)?;
        let sums = sums.tensor();

        let slopes = Buffer::new(&device, (batch, groups, 2), real)?;
        let args = [&sizes[..], &[address(gamma)?, address(&sums)?, slopes.address()?]].concat();
        launch(&device, dtype, "group_norm_slopes", by_group(channels / groups), &args)?;
        let dx = Buffer::like(x)?;
        let args = [&sizes[..], &[with_silu], &known, &[slopes.address()?, address(dy)?, dx.address()?]].concat();
        launch(&device, dtype, "group_norm_input", tiled, &args)?;

        let total = |part: usize| -> Result<Option<Tensor>> {
            let part = sums.narrow(0, part, 1)?;
            let part = if batch == 1 { part } else { sum_rows_in_full(&part, 1, channels)? };
            Ok(Some(part.reshape(channels)?.to_dtype(dtype)?))
        };
        Ok([Some(dx.tensor()), total(1)?, total(0)?])
    })
}
