//! Convolutions in NHWC: 1 × 1 by one product, 3 × 3 by our own kernels, cuDNN, or unfolded.

use super::buffer::{Buffer, address, attach};
use super::conv3x3::Shape3x3;
use super::elementwise::{add_bias, sum_rows};
use super::launch::{Arg, int};
use super::{conv3x3, cudnn, linear};
use crate::ops::tape::whole;
use candle_core::{Result, Tensor};

/// The sizes of a convolution, checked by the caller.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub c_in: usize,
    pub c_out: usize,
    pub out_height: usize,
    pub out_width: usize,
    /// Rows and columns of the kernel.
    pub taps: usize,
    pub stride: usize,
    /// Zeros above and to the left.
    pub before: usize,
}

impl Sizes {
    fn out_pixels(&self) -> usize {
        self.batch * self.out_height * self.out_width
    }

    /// Numbers under the kernel.
    fn patch(&self) -> usize {
        self.taps * self.taps * self.c_in
    }

    /// As the kernels and cuDNN take it, where they do: padding that differs between the sides is none they know.
    fn same(&self) -> Option<Shape3x3> {
        let &Self { batch, height, width, c_in, c_out, .. } = self;
        ((self.taps, self.stride, self.before) == (3, 1, 1)).then_some(Shape3x3 { batch, height, width, c_in, c_out })
    }

    fn args(&self) -> Result<Vec<Arg>> {
        [self.height, self.width, self.c_in, self.out_height, self.out_width, self.taps, self.stride, self.before]
            .into_iter()
            .map(int)
            .collect()
    }

    /// The patches of `x`, a row for each pixel of the result.
    fn unfold(&self, x: &Tensor) -> Result<Tensor> {
        let rows = self.out_pixels();
        if self.taps == 1 {
            return x.reshape((rows, self.c_in));
        }
        let patches = Buffer::new(x.device(), (rows, self.patch()), x.dtype())?;
        let args = [self.args()?, vec![address(x)?, patches.address()?]].concat();
        Ok(patches.fill(x.dtype(), "unfold", &args)?.tensor())
    }

    /// The gradient of the image from that of its patches.
    fn fold(&self, patches: &Tensor) -> Result<Tensor> {
        let shape = (self.batch, self.height, self.width, self.c_in);
        if self.taps == 1 {
            return patches.reshape(shape);
        }
        // The kernel counts the patches' numbers too.
        int(patches.elem_count())?;
        let dx = Buffer::new(patches.device(), shape, patches.dtype())?;
        let args = [self.args()?, vec![address(patches)?, dx.address()?]].concat();
        Ok(dx.fill(patches.dtype(), "fold", &args)?.tensor())
    }
}

/// `w` is `[C_out, k, k, C_in]`, `bias` `[C_out]` or `[B, C_out]`.
pub fn conv2d(x: &Tensor, w: &Tensor, bias: &Tensor, s: Sizes) -> Result<Tensor> {
    let (x, w, bias) = (whole(x)?, whole(w)?, whole(bias)?);
    let y = match s.same() {
        Some(shape) if conv3x3::multiplies(x.dtype(), shape, s.c_out) => conv3x3::forward(&x, &w, &bias, shape)?,
        Some(shape) => add_bias(cudnn::forward(&x, &w, shape)?.map_or_else(|| unfolded(&x, &w, &s), Ok)?, &bias, s.batch)?,
        None => add_bias(unfolded(&x, &w, &s)?, &bias, s.batch)?,
    };
    attach(y, [&x, &w, &bias], move |inputs, dy| {
        let [x, w, bias] = &inputs.tensors;
        let groups = if bias.rank() == 2 { s.batch } else { 1 };
        let db = if inputs.wanted[2] { Some(sum_rows(dy, groups, s.c_out)?.reshape(bias.shape())?) } else { None };
        let [dx, dw] = gradients(x, w, dy, &s, inputs.wanted)?;
        Ok([dx, dw, db])
    })
}

/// Without the bias.
fn unfolded(x: &Tensor, w: &Tensor, s: &Sizes) -> Result<Buffer> {
    let y = Buffer::product(&s.unfold(&x.detach())?, &w.detach().reshape((s.c_out, s.patch()))?.t()?)?;
    y.reshaped((s.batch, s.out_height, s.out_width, s.c_out))
}

fn gradients(x: &Tensor, w: &Tensor, dy: &Tensor, s: &Sizes, [want_x, want_w, _]: [bool; 3]) -> Result<[Option<Tensor>; 2]> {
    let (mut dx, mut dw) = (None, None);
    if let Some(shape) = s.same() {
        if want_x {
            let own = conv3x3::multiplies(dy.dtype(), shape, s.c_in);
            dx = if own { Some(conv3x3::input_gradient(w, dy, shape)?) } else { cudnn::input_gradient(w, dy, shape)? };
        }
        if want_w {
            let own = conv3x3::takes(dy.dtype());
            dw = if own { Some(conv3x3::weight_gradient(x, dy, shape)?) } else { cudnn::weight_gradient(x, dy, shape)? };
        }
    }
    let (rest_x, rest_w) = (want_x && dx.is_none(), want_w && dw.is_none());
    if rest_x || rest_w {
        let matrix = w.reshape((s.c_out, s.patch()))?;
        let dy = dy.reshape((s.out_pixels(), s.c_out))?;
        // The patches are made again rather than kept: they are nine times the image.
        let patches = if rest_w { s.unfold(x)? } else { x.clone() };
        let [dp, dm] = linear::gradients(&patches, &matrix, &dy, [rest_x, rest_w, false])?;
        dx = dp.map(|dp| s.fold(&dp)).transpose()?.or(dx);
        dw = dm.map(|dm| dm.reshape(w.shape())).transpose()?.or(dw);
    }
    Ok([dx, dw])
}
