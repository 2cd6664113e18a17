//! `silu(x) = x · sigmoid(x)`.

use super::cuda;
use super::kernel::{by_dtype, map2, silu_of, silu_slope, slice, unspecified, with_slices};
use super::real::Real;
use super::tape::apply1;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// `x · sigmoid(x)`, element by element.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    if cuda::takes(x) {
        return cuda::silu(x);
    }
    if x.device().is_cpu() { apply1(x, Silu) } else { reference(x) }
}

pub(super) fn reference(x: &Tensor) -> Result<Tensor> {
    x / (x.neg()?.exp()? + 1.0)?
}

struct Silu;

impl CustomOp1 for Silu {
    fn name(&self) -> &'static str {
        "silu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        fn run<T: Real>(x: &[T]) -> CpuStorage {
            let mut y = unspecified(x.len());
            let out = &mut y[..];
            crate::simd::dispatch(
                #[inline(always)]
                move || map2(x, x, out, |x, _| silu_of(x)),
            );
            T::to_cpu_storage_owned(y)
        }
        let y = match x {
            CpuStorage::F32(_) => run::<f32>(slice(x, layout)?),
            _ => run::<f64>(slice(x, layout)?),
        };
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        by_dtype!(x.dtype(), "silu", T => with_slices::<T, _, 2>([x, dy], |[xs, dys]| {
            let mut dx = unspecified(xs.len());
            let out = &mut dx[..];
            crate::simd::dispatch(
                #[inline(always)]
                move || map2(xs, dys, out, |x, dy| dy * silu_slope(x)),
            );
            Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn agrees_with_the_reference_and_its_gradients_with_differences() {
        for shape in [vec![1], vec![3, 5, 7, 2], vec![4, 33]] {
            let x = random(&shape, 1);
            agree(&[x], |t| silu(&t[0]), |t| reference(&t[0]));
        }
    }

    #[test]
    fn extreme_inputs_stay_finite() {
        let x = Tensor::new(&[-1e30_f32, -200.0, -90.0, 0.0, 90.0, 1e30], &candle_core::Device::Cpu).unwrap();
        let x = candle_core::Var::from_tensor(&x).unwrap();
        let y = silu(&x).unwrap();
        assert_eq!(y.to_vec1::<f32>().unwrap(), [0.0, 0.0, 0.0, 0.0, 90.0, 1e30]);
        let dx = y.sum_all().unwrap().backward().unwrap();
        assert!(dx.get(&x).unwrap().to_vec1::<f32>().unwrap().iter().all(|g| g.is_finite()));
    }
}
