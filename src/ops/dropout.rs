//! Dropout whose mask is a function of (seed, step, layer, sample), so that it does not depend on how a batch is split.

use super::cuda;
use super::kernel::{by_dtype, slice, with_slices};
use super::real::Real;
use super::tape::apply1;
use crate::rng::Stream;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, WithDType, bail};

/// Sets each number of `x [B, ..]` to 0 with probability `p` and divides the others by `1 − p`. [Srivastava14]
///
/// Sample i of the batch drops where uniform number j of sample `first_sample + i` of `stream` lies below `p`.
///
/// # Errors
/// If `p` is not in [0, 1), or `x` has no axis.
pub fn dropout(x: &Tensor, p: f64, stream: Stream, first_sample: u32) -> Result<Tensor> {
    if !(0.0..1.0).contains(&p) {
        bail!("dropout: the probability {p} is not in [0, 1)")
    }
    if x.rank() == 0 || x.elem_count() == 0 {
        bail!("dropout: input {:?} must be [B, ..]", x.dims())
    }
    if p == 0.0 {
        return Ok(x.clone());
    }
    if cuda::takes(x) {
        return cuda::dropout(x, p, stream, first_sample);
    }
    let op = Dropout { p, stream, first_sample };
    if x.device().is_cpu() { apply1(x, op) } else { reference(x, &op) }
}

/// Multiplies with a mask drawn on the host.
fn reference(x: &Tensor, op: &Dropout) -> Result<Tensor> {
    let mut mask = vec![1.0_f64; x.elem_count()];
    op.apply(&mut mask, x.dims()[0]);
    x * Tensor::from_vec(mask, x.shape(), &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())?
}

struct Dropout {
    p: f64,
    stream: Stream,
    first_sample: u32,
}

impl Dropout {
    /// Multiplies `values`, the numbers of `batch` samples, with the mask.
    fn apply<T: Real>(&self, values: &mut [T], batch: usize) {
        let (p, scale) = (self.p as f32, T::from_f64(1.0 / (1.0 - self.p)));
        let len = values.len() / batch;
        f32::with_scratch(len, |uniforms| {
            for (sample, values) in (self.first_sample..).zip(values.chunks_exact_mut(len)) {
                self.stream.uniforms(sample, uniforms);
                for (v, &u) in values.iter_mut().zip(&*uniforms) {
                    *v = if u < p { T::ZERO } else { *v * scale };
                }
            }
        });
    }
}

impl CustomOp1 for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let dtype = if matches!(x, CpuStorage::F32(_)) { DType::F32 } else { DType::F64 };
        let y = by_dtype!(dtype, "dropout", T => {
            let mut y = slice::<T>(x, layout)?.to_vec();
            self.apply(&mut y, layout.dims()[0]);
            T::to_cpu_storage_owned(y)
        });
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        by_dtype!(x.dtype(), "dropout", T => with_slices::<T, _, 1>([dy], |[dys]| {
            let mut dx: Vec<T> = dys.to_vec();
            self.apply(&mut dx, x.dims()[0]);
            Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;
    use crate::rng::{Purpose, stream};

    fn masks() -> Stream {
        stream(3, Purpose::Dropout, 5).lane(2)
    }

    #[test]
    fn agrees_with_the_reference_and_its_gradients_with_differences() {
        for p in [0.1, 0.5] {
            let t = [random(&[3, 5, 7, 3], 1)];
            agree(&t, |t| dropout(&t[0], p, masks(), 4), |t| reference(&t[0], &Dropout { p, stream: masks(), first_sample: 4 }));
        }
    }

    #[test]
    fn a_mask_belongs_to_the_sample_and_not_to_the_batch() {
        let x = random(&[4, 6, 5], 1);
        let whole = dropout(&x, 0.3, masks(), 10).unwrap();
        let second_half = dropout(&x.narrow(0, 2, 2).unwrap(), 0.3, masks(), 12).unwrap();
        assert_eq!(distance(&second_half, &whole.narrow(0, 2, 2).unwrap()), 0.0);
        assert_ne!(distance(&dropout(&x, 0.3, masks(), 11).unwrap(), &whole), 0.0);
    }

    #[test]
    fn the_wanted_share_is_dropped_and_the_mean_kept() {
        let x = Tensor::ones((2, 50_000), DType::F32, &Device::Cpu).unwrap();
        let y = numbers(&dropout(&x, 0.2, masks(), 0).unwrap());
        let dropped = y.iter().filter(|v| **v == 0.0).count() as f64 / 1e5;
        assert!((dropped - 0.2).abs() < 5.0 * (0.16_f64 / 1e5).sqrt(), "{dropped}");
        assert!(y.iter().all(|v| *v == 0.0 || *v == 1.25));
        assert!(dropout(&x, 1.0, masks(), 0).is_err());
        assert_eq!(distance(&dropout(&x, 0.0, masks(), 0).unwrap(), &x), 0.0);
    }
}
