//! Joining channels.

use super::cuda;
use super::kernel::{by_dtype, copy_row, slice, unspecified, with_slices};
use super::tape::apply2;
use candle_core::{CpuStorage, CustomOp2, D, DType, Layout, Result, Shape, Tensor, WithDType, bail};

/// `[.., C_a]` and `[.., C_b]` to `[.., C_a + C_b]`.
///
/// # Errors
/// If the other axes differ.
pub fn concat(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    channels(a.dims(), b.dims())?;
    if cuda::takes(a) {
        return cuda::concat(a, b);
    }
    if a.device().is_cpu() { apply2(a, b, Concat) } else { reference(a, b) }
}

pub(super) fn reference(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Tensor::cat(&[a, b], D::Minus1)
}

fn channels(a: &[usize], b: &[usize]) -> Result<(usize, usize)> {
    match (a, b) {
        ([front_a @ .., c_a], [front_b @ .., c_b]) if front_a == front_b && *c_a > 0 && *c_b > 0 => Ok((*c_a, *c_b)),
        _ => bail!("concat: {a:?} and {b:?} may differ in the last axis only, and it must not be empty"),
    }
}

struct Concat;

impl CustomOp2 for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn cpu_fwd(&self, a: &CpuStorage, al: &Layout, b: &CpuStorage, bl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (c_a, c_b) = channels(al.dims(), bl.dims())?;
        let dtype = if matches!(a, CpuStorage::F32(_)) { DType::F32 } else { DType::F64 };
        let y = by_dtype!(dtype, "concat", T => {
            let (a, b): (&[T], &[T]) = (slice(a, al)?, slice(b, bl)?);
            let mut y = unspecified(a.len() + b.len());
            let out = &mut y[..];
            crate::simd::dispatch(
                #[inline(always)]
                move || {
                    for ((y, a), b) in out.chunks_exact_mut(c_a + c_b).zip(a.chunks_exact(c_a)).zip(b.chunks_exact(c_b)) {
                        copy_row(a, &mut y[..c_a]);
                        copy_row(b, &mut y[c_a..]);
                    }
                },
            );
            T::to_cpu_storage_owned(y)
        });
        let mut dims = al.dims().to_vec();
        *dims.last_mut().expect("checked to have an axis") = c_a + c_b;
        Ok((y, Shape::from(dims)))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (c_a, c_b) = channels(a.dims(), b.dims())?;
        by_dtype!(a.dtype(), "concat", T => with_slices::<T, _, 1>([dy], |[dys]| {
            let (mut da, mut db): (Vec<T>, Vec<T>) = (unspecified(a.elem_count()), unspecified(b.elem_count()));
            let (to_a, to_b) = (&mut da[..], &mut db[..]);
            crate::simd::dispatch(
                #[inline(always)]
                move || {
                    for ((dy, da), db) in dys.chunks_exact(c_a + c_b).zip(to_a.chunks_exact_mut(c_a)).zip(to_b.chunks_exact_mut(c_b)) {
                        copy_row(&dy[..c_a], da);
                        copy_row(&dy[c_a..], db);
                    }
                },
            );
            Ok((Some(Tensor::from_vec(da, a.shape(), a.device())?), Some(Tensor::from_vec(db, b.shape(), b.device())?)))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn agrees_with_the_reference_and_its_gradients_with_differences() {
        for (front, c_a, c_b) in [(vec![3, 5, 7], 3, 2), (vec![1, 2], 16, 33), (vec![4], 1, 1)] {
            let shape = |c: usize| [front.clone(), vec![c]].concat();
            let t = [random(&shape(c_a), 1), random(&shape(c_b), 2)];
            agree(&t, |t| concat(&t[0], &t[1]), |t| reference(&t[0], &t[1]));
        }
    }

    #[test]
    fn a_tensor_joined_to_itself_collects_two_gradients() {
        agree(&[random(&[2, 3, 4], 1)], |t| concat(&t[0], &t[0]), |t| reference(&t[0], &t[0]));
    }

    #[test]
    fn different_fronts_are_refused() {
        assert!(concat(&random(&[2, 3], 1), &random(&[3, 3], 1)).unwrap_err().to_string().contains("concat"));
    }
}
