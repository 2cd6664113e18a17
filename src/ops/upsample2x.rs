//! Nearest-neighbour upsampling by 2.

use super::cuda;
use super::kernel::{by_dtype, slice, unspecified, with_slices};
use super::real::Real;
use super::tape::apply1;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, WithDType, bail};

/// Repeats every pixel of `x [B, H, W, C]` in a 2 × 2 block: `[B, 2H, 2W, C]`.
///
/// # Errors
/// If `x` has not four axes.
pub fn upsample2x(x: &Tensor) -> Result<Tensor> {
    if x.rank() != 4 {
        bail!("upsample2x: input {:?} must be [B, H, W, C]", x.dims())
    }
    if cuda::takes(x) {
        return cuda::upsample2x(x);
    }
    if x.device().is_cpu() { apply1(x, Upsample2x) } else { reference(x) }
}

pub(super) fn reference(x: &Tensor) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    x.reshape((b, h, 1, w, 1, c))?.broadcast_as((b, h, 2, w, 2, c))?.contiguous()?.reshape((b, 2 * h, 2 * w, c))
}

struct Upsample2x;

impl CustomOp1 for Upsample2x {
    fn name(&self) -> &'static str {
        "upsample2x"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (b, h, w, c) = layout.shape().dims4()?;
        let dtype = if matches!(x, CpuStorage::F32(_)) { DType::F32 } else { DType::F64 };
        let y = by_dtype!(dtype, "upsample2x", T => {
            let mut y: Vec<T> = Vec::with_capacity(4 * b * h * w * c);
            if w * c > 0 {
                for line in slice::<T>(x, layout)?.chunks_exact(w * c) {
                    let first = y.len();
                    for pixel in line.chunks_exact(c) {
                        y.extend_from_slice(pixel);
                        y.extend_from_slice(pixel);
                    }
                    y.extend_from_within(first..);
                }
            }
            T::to_cpu_storage_owned(y)
        });
        Ok((y, Shape::from((b, 2 * h, 2 * w, c))))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, w, c) = x.dims4()?;
        by_dtype!(x.dtype(), "upsample2x", T => with_slices::<T, _, 1>([dy], |[dys]| {
            let mut dx = unspecified(dys.len() / 4);
            add_blocks::<T>(dys, w, c, &mut dx);
            Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
        }))
    }
}

/// Each pixel of `dx` is the sum of its four of `dy`.
fn add_blocks<T: Real>(dy: &[T], w: usize, c: usize, dx: &mut [T]) {
    if w * c == 0 {
        return;
    }
    crate::simd::dispatch(
        #[inline(always)]
        || {
            for (dx, dy) in dx.chunks_exact_mut(w * c).zip(dy.chunks_exact(4 * w * c)) {
                let (upper, lower) = dy.split_at(2 * w * c);
                for ((dx, upper), lower) in dx.chunks_exact_mut(c).zip(upper.chunks_exact(2 * c)).zip(lower.chunks_exact(2 * c)) {
                    let ((u0, u1), (l0, l1)) = (upper.split_at(c), lower.split_at(c));
                    for i in 0..c {
                        dx[i] = (u0[i] + u1[i]) + (l0[i] + l1[i]);
                    }
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn agrees_with_the_reference_and_its_gradients_with_differences() {
        for shape in [[3, 5, 7, 3], [1, 1, 2, 17], [2, 4, 4, 16]] {
            agree(&[random(&shape, 1)], |t| upsample2x(&t[0]), |t| reference(&t[0]));
        }
    }

    #[test]
    fn a_tensor_that_is_also_used_elsewhere_gets_both_gradients() {
        // candle's own upsampling overwrites the gradient here: d(Σ up(x) + Σ x)/dx is 5, in either order.
        let x = [random(&[1, 2, 3, 2], 1)];
        for order in [0, 1] {
            let f = |t: &[Tensor]| {
                let (up, plain) = (upsample2x(&t[0])?.sum_all()?, t[0].sum_all()?);
                if order == 0 { up + plain } else { plain + up }
            };
            differences(&x, f);
            let var = candle_core::Var::from_tensor(&x[0]).unwrap();
            let grads = f(&[var.as_tensor().clone()]).unwrap().backward().unwrap();
            assert!(numbers(grads.get(&var).unwrap()).iter().all(|g| *g == 5.0));
        }
    }
}
