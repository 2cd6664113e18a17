//! Adding one vector of channels to every pixel of a sample.

use super::cuda;
use super::kernel::{by_dtype, slice, sum_rows, with_slices};
use super::real::Real;
use super::tape::apply2;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, WithDType, bail};

/// `x [B, .., C] + e [B, C]`: the time embedding of a sample, at each of its pixels.
///
/// # Errors
/// If shapes do not fit together.
pub fn add_channels(x: &Tensor, e: &Tensor) -> Result<Tensor> {
    sizes(x.dims(), e.dims())?;
    if cuda::takes(x) {
        return cuda::add_channels(x, e);
    }
    if x.device().is_cpu() { apply2(x, e, AddChannels) } else { reference(x, e) }
}

pub(super) fn reference(x: &Tensor, e: &Tensor) -> Result<Tensor> {
    let (pixels, channels) = sizes(x.dims(), e.dims())?;
    x.reshape(((), pixels, channels))?.broadcast_add(&e.unsqueeze(1)?)?.reshape(x.shape())
}

/// (pixels of a sample, channels).
fn sizes(x: &[usize], e: &[usize]) -> Result<(usize, usize)> {
    match (x, e) {
        ([b, middle @ .., c], [e_b, e_c]) if b == e_b && c == e_c && !x.contains(&0) => Ok((middle.iter().product(), *c)),
        _ => bail!("add_channels: {x:?} and {e:?} must be [B, .., C] and [B, C], and not empty"),
    }
}

struct AddChannels;

impl CustomOp2 for AddChannels {
    fn name(&self) -> &'static str {
        "add_channels"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, e: &CpuStorage, el: &Layout) -> Result<(CpuStorage, Shape)> {
        let (pixels, channels) = sizes(xl.dims(), el.dims())?;
        let dtype = if matches!(x, CpuStorage::F32(_)) { DType::F32 } else { DType::F64 };
        let y = by_dtype!(dtype, "add_channels", T => {
            let mut y = slice::<T>(x, xl)?.to_vec();
            add::<T>(&mut y, slice(e, el)?, pixels, channels);
            T::to_cpu_storage_owned(y)
        });
        Ok((y, xl.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, e: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (pixels, channels) = sizes(x.dims(), e.dims())?;
        by_dtype!(x.dtype(), "add_channels", T => with_slices::<T, _, 1>([dy], |[dys]| {
            let mut de = vec![0.0; e.elem_count()];
            for (de, dy) in de.chunks_exact_mut(channels).zip(dys.chunks_exact(pixels * channels)) {
                sum_rows::<T>(dy, pixels, channels, de);
            }
            Ok((Some(dy.clone()), Some(Tensor::from_vec(de, e.shape(), e.device())?)))
        }))
    }
}

fn add<T: Real>(y: &mut [T], e: &[T], pixels: usize, channels: usize) {
    crate::simd::dispatch(
        #[inline(always)]
        || {
            for (y, e) in y.chunks_exact_mut(pixels * channels).zip(e.chunks_exact(channels)) {
                for y in y.chunks_exact_mut(channels) {
                    for (y, &e) in y.iter_mut().zip(e) {
                        *y += e;
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
        for (shape, c) in [(vec![3, 5, 7, 3], 3), (vec![2, 17], 17), (vec![1, 4, 4, 32], 32)] {
            let t = [random(&shape, 1), random(&[shape[0], c], 2)];
            agree(&t, |t| add_channels(&t[0], &t[1]), |t| reference(&t[0], &t[1]));
        }
    }

    #[test]
    fn another_batch_size_is_refused() {
        assert!(add_channels(&random(&[2, 4, 3], 1), &random(&[1, 3], 1)).is_err());
    }
}
