//! From the patches of an image to a transformer's tokens.

use super::cuda;
use super::kernel::{by_dtype, slice, sum_rows, with_slices};
use super::real::Real;
use super::tape::apply3;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, WithDType, bail};

/// One token more, and to each the vector of its place: `y[b, 0] = first[b] + positions[0]` and
/// `y[b, 1 + n] = patches[b, n] + positions[1 + n]`.
///
/// `patches` is `[B, N, C]`, `first` `[B, C]`, `positions` `[N + 1, C]`; the result is `[B, N + 1, C]`.
///
/// # Errors
/// If shapes do not fit together.
pub fn tokens(patches: &Tensor, first: &Tensor, positions: &Tensor) -> Result<Tensor> {
    sizes(patches.dims(), first.dims(), positions.dims())?;
    if cuda::takes(patches) {
        return cuda::tokens(patches, first, positions);
    }
    if patches.device().is_cpu() { apply3(patches, first, positions, Tokens) } else { reference(patches, first, positions) }
}

pub(super) fn reference(patches: &Tensor, first: &Tensor, positions: &Tensor) -> Result<Tensor> {
    sizes(patches.dims(), first.dims(), positions.dims())?;
    Tensor::cat(&[&first.unsqueeze(1)?, patches], 1)?.broadcast_add(positions)
}

/// (B, N + 1, C).
fn sizes(patches: &[usize], first: &[usize], positions: &[usize]) -> Result<(usize, usize, usize)> {
    match *patches {
        [b, n, c] if first == [b, c] && positions == [n + 1, c] && !patches.contains(&0) => Ok((b, n + 1, c)),
        _ => bail!("tokens: {patches:?}, {first:?} and {positions:?} must be [B, N, C], [B, C] and [N + 1, C], and not empty"),
    }
}

struct Tokens;

impl CustomOp3 for Tokens {
    fn name(&self) -> &'static str {
        "tokens"
    }

    fn cpu_fwd(
        &self,
        patches: &CpuStorage,
        patches_layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        positions: &CpuStorage,
        positions_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, n, c) = sizes(patches_layout.dims(), first_layout.dims(), positions_layout.dims())?;
        let dtype = if matches!(patches, CpuStorage::F32(_)) { DType::F32 } else { DType::F64 };
        let y = by_dtype!(dtype, "tokens", T => {
            let positions: &[T] = slice(positions, positions_layout)?;
            let mut y = positions.repeat(batch);
            let (patches, first): (&[T], &[T]) = (slice(patches, patches_layout)?, slice(first, first_layout)?);
            for ((y, patches), first) in y.chunks_exact_mut(n * c).zip(patches.chunks_exact((n - 1) * c)).zip(first.chunks_exact(c)) {
                add(&mut y[..c], first);
                add(&mut y[c..], patches);
            }
            T::to_cpu_storage_owned(y)
        });
        Ok((y, Shape::from((batch, n, c))))
    }

    fn bwd(
        &self,
        patches: &Tensor,
        first: &Tensor,
        positions: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (batch, n, c) = sizes(patches.dims(), first.dims(), positions.dims())?;
        by_dtype!(patches.dtype(), "tokens", T => with_slices::<T, _, 1>([dy], |[dys]| {
            let (mut dpatches, mut dfirst) = (Vec::with_capacity(patches.elem_count()), Vec::with_capacity(first.elem_count()));
            for dy in dys.chunks_exact(n * c) {
                dfirst.extend_from_slice(&dy[..c]);
                dpatches.extend_from_slice(&dy[c..]);
            }
            let mut dpositions: Vec<T> = vec![0.0; n * c];
            sum_rows(dys, batch, n * c, &mut dpositions);
            let wrap = |v: Vec<T>, like: &Tensor| Tensor::from_vec(v, like.shape(), like.device()).map(Some);
            Ok((wrap(dpatches, patches)?, wrap(dfirst, first)?, wrap(dpositions, positions)?))
        }))
    }
}

/// `y += x`.
fn add<T: Real>(y: &mut [T], x: &[T]) {
    crate::simd::dispatch(
        #[inline(always)]
        || {
            for (y, x) in y.iter_mut().zip(x) {
                *y += *x;
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
        for (b, n, c) in [(3, 5, 7), (1, 1, 2), (2, 16, 33)] {
            let t = [random(&[b, n, c], 1), random(&[b, c], 2), random(&[n + 1, c], 3)];
            agree(&t, |t| tokens(&t[0], &t[1], &t[2]), |t| reference(&t[0], &t[1], &t[2]));
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let e = tokens(&random(&[2, 3, 4], 1), &random(&[2, 4], 2), &random(&[3, 4], 3)).unwrap_err().to_string();
        assert!(e.contains("tokens") && e.contains("[2, 3, 4]"), "{e}");
    }
}
