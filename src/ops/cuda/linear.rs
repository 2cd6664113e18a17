//! Affine maps of the last axis.

use super::super::Activation;
use super::buffer::{Buffer, address, attach};
use super::elementwise::{add_bias, silu_backward, sum_rows};
use super::launch::int;
use crate::ops::tape::whole;
use candle_core::{D, Result, Tensor};

/// Shapes have been checked.
pub fn linear(x: &Tensor, w: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let (n_out, n_in) = w.dims2()?;
    let rows = x.elem_count() / n_in;
    let mut dims = x.dims().to_vec();
    *dims.last_mut().expect("checked to have an axis") = n_out;
    let (x, w, bias) = (whole(x)?, whole(w)?, whole(bias)?);
    let z = Buffer::product(&x.detach().reshape((rows, n_in))?, &w.detach().t()?)?;
    let (y, before_activation) = match activation {
        Activation::None => (add_bias(z, &bias, rows)?, None),
        Activation::Silu => {
            let z = z.tensor();
            let y = Buffer::like(&z)?;
            let to = y.address()?;
            let y = y.fill(z.dtype(), "add_bias_silu", &[int(n_out)?, address(&bias)?, address(&z)?, to])?;
            (y, Some(z))
        }
    };
    attach(y.reshaped(dims)?, [&x, &w, &bias], move |inputs, dy| {
        let [x, w, bias] = &inputs.tensors;
        let dy = dy.reshape((rows, n_out))?;
        let dz = match &before_activation {
            None => dy,
            Some(z) => silu_backward(z, &dy)?,
        };
        let [dx, dw] = gradients(&x.reshape((rows, n_in))?, w, &dz, inputs.wanted)?;
        let db = if inputs.wanted[2] { Some(sum_rows(&dz, 1, n_out)?.reshape(bias.dim(D::Minus1)?)?) } else { None };
        Ok([dx.map(|d| d.reshape(x.shape())).transpose()?, dw, db])
    })
}

/// Of `y = x wᵀ`: `dx = dy w` and `dw = dyᵀ x`, where wanted.
pub(super) fn gradients(x: &Tensor, w: &Tensor, dy: &Tensor, wanted: [bool; 3]) -> Result<[Option<Tensor>; 2]> {
    let dx = if wanted[0] { Some(dy.matmul(w)?) } else { None };
    let dw = if wanted[1] { Some(dy.t()?.matmul(x)?) } else { None };
    Ok([dx, dw])
}
