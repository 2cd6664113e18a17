//! Affine maps of the last axis.

use super::Activation;
use super::cuda;
use super::gradient_sink::into_place;
use super::kernel::{Store, by_dtype, map2, matrix, product, silu_of, silu_slope, slice, sum_rows, unspecified, with_slices};
use super::real::Real;
use super::tape::{apply3, tracked};
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use std::sync::OnceLock;

/// `activation(x Wᵀ + b)` for `x [.., in]`, `w [out, in]`, `bias [out]`.
///
/// # Errors
/// If shapes do not fit together.
pub fn linear(x: &Tensor, w: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    sizes(x.dims(), w.dims(), bias.dims())?;
    if cuda::takes(x) {
        return cuda::linear(x, w, bias, activation);
    }
    if x.device().is_cpu() {
        let keep = tracked(x) || tracked(w) || tracked(bias);
        let op = Linear { activation, keep, before_activation: OnceLock::new() };
        apply3(x, w, bias, op)
    } else {
        reference(x, w, bias, activation)
    }
}

pub(super) fn reference(x: &Tensor, w: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let (rows, n_in, n_out) = sizes(x.dims(), w.dims(), bias.dims())?;
    let y = x.reshape((rows, n_in))?.matmul(&w.t()?)?.broadcast_add(bias)?;
    let y = match activation {
        Activation::None => y,
        Activation::Silu => super::silu::reference(&y)?,
    };
    y.reshape(out_shape(x.dims(), n_out))
}

/// (rows, in, out).
fn sizes(x: &[usize], w: &[usize], bias: &[usize]) -> Result<(usize, usize, usize)> {
    let (&[n_out, n_in], [.., last]) = (w, x) else { bail!("linear: weight {w:?} must be [out, in] and input {x:?} must have an axis") };
    if *last != n_in || bias != [n_out] || n_in == 0 || n_out == 0 {
        bail!("linear: input {x:?}, weight {w:?} and bias {bias:?} must be [.., in], [out, in] and [out]")
    }
    Ok((x.iter().product::<usize>() / n_in, n_in, n_out))
}

fn out_shape(x: &[usize], n_out: usize) -> Shape {
    let mut dims = x.to_vec();
    *dims.last_mut().expect("checked to have an axis") = n_out;
    Shape::from(dims)
}

struct Linear {
    activation: Activation,
    /// Whether a backward pass may come.
    keep: bool,
    /// `x Wᵀ + b`, which the derivative of the activation needs.
    before_activation: OnceLock<CpuStorage>,
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, n_in, n_out) = sizes(xl.dims(), wl.dims(), bl.dims())?;
        let dtype = if matches!(x, CpuStorage::F32(_)) { DType::F32 } else { DType::F64 };
        let y = by_dtype!(dtype, "linear", T => {
            let (x, w, b): (&[T], &[T], &[T]) = (slice(x, xl)?, slice(w, wl)?, slice(b, bl)?);
            let mut y = unspecified(rows * n_out);
            product((rows, n_out, n_in), &mut y, n_out, Store::Rows(b), 1.0, matrix(x, n_in, 1), matrix(w, 1, n_in));
            match self.activation {
                Activation::None => T::to_cpu_storage_owned(y),
                Activation::Silu => {
                    let activated = T::to_cpu_storage_owned(activate(&y));
                    if self.keep {
                        // Set once: candle runs a forward pass once per operation object.
                        let _ = self.before_activation.set(T::to_cpu_storage_owned(y));
                    }
                    activated
                }
            }
        });
        Ok((y, out_shape(xl.dims(), n_out)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (rows, n_in, n_out) = sizes(x.dims(), w.dims(), bias.dims())?;
        by_dtype!(x.dtype(), "linear", T => with_slices::<T, _, 3>([x, w, dy], |[xs, ws, dys]| {
            let through_activation;
            let dz = match self.activation {
                Activation::None => dys,
                Activation::Silu => {
                    let Some(z) = self.before_activation.get() else {
                        bail!("linear: the backward pass found nothing kept by the forward pass")
                    };
                    through_activation = deactivate(T::cpu_storage_as_slice(z)?, dys);
                    &through_activation
                }
            };
            let mut dx = unspecified(if tracked(x) { xs.len() } else { 0 });
            let dw = into_place(w, |dw| gradients(xs, ws, dz, (rows, n_in, n_out), &mut dx, dw));
            let db = into_place(bias, |db| {
                if !db.is_empty() {
                    sum_rows(dz, rows, n_out, db);
                }
            });
            let wrap = |v: Vec<T>, like: &Tensor| if v.is_empty() { Ok(None) } else { Tensor::from_vec(v, like.shape(), like.device()).map(Some) };
            Ok((wrap(dx, x)?, wrap(dw, w)?, wrap(db, bias)?))
        }))
    }
}

pub(super) fn activate<T: Real>(z: &[T]) -> Vec<T> {
    let mut y = unspecified(z.len());
    let out = &mut y[..];
    crate::simd::dispatch(
        #[inline(always)]
        move || map2(z, z, out, |z, _| silu_of(z)),
    );
    y
}

pub(super) fn deactivate<T: Real>(z: &[T], dy: &[T]) -> Vec<T> {
    let mut dz = unspecified(z.len());
    let out = &mut dz[..];
    crate::simd::dispatch(
        #[inline(always)]
        move || map2(z, dy, out, |z, dy| dy * silu_slope(z)),
    );
    dz
}

/// `dx = dy W` and `dw = dyᵀ x`; an empty slice is a gradient nobody wants.
pub(super) fn gradients<T: Real>(x: &[T], w: &[T], dy: &[T], (rows, n_in, n_out): (usize, usize, usize), dx: &mut [T], dw: &mut [T]) {
    if !dx.is_empty() {
        product((rows, n_in, n_out), dx, n_in, Store::Overwrite, T::ONE, matrix(dy, n_out, 1), matrix(w, n_in, 1));
    }
    if !dw.is_empty() {
        product((n_out, n_in, rows), dw, n_in, Store::Overwrite, T::ONE, matrix(dy, 1, n_out), matrix(x, n_in, 1));
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn agrees_with_the_reference_and_its_gradients_with_differences() {
        for activation in [Activation::None, Activation::Silu] {
            for (shape, n_out) in [(vec![3, 5, 7, 3], 6), (vec![1, 17], 33), (vec![4], 2), (vec![9, 16], 1)] {
                let n_in = shape[shape.len() - 1];
                let t = [random(&shape, 1), random(&[n_out, n_in], 2), random(&[n_out], 3)];
                agree(&t, |t| linear(&t[0], &t[1], &t[2], activation), |t| reference(&t[0], &t[1], &t[2], activation));
            }
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let e = linear(&random(&[2, 3], 1), &random(&[4, 2], 1), &random(&[4], 1), Activation::None).unwrap_err().to_string();
        assert!(e.contains("[2, 3]") && e.contains("[4, 2]"), "{e}");
    }
}
