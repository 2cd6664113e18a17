//! An affine map of two tensors side by side, the second of which many samples share.
//!
//! What depends on the timestep alone is the same for all samples of that timestep: its part of the map is computed once for
//! each timestep, and nothing is copied to lie side by side.

use super::Activation;
use super::concat::concat;
use super::cuda;
use super::gradient_sink::into_place;
use super::kernel::{Store, by_dtype, copy_row, matrix, product, sum_rows, unspecified, with_slices};
use super::linear::{activate, deactivate, linear};
use super::real::Real;
use super::tape::{is_recording, note, tracked, whole};
use candle_core::{Result, Tensor, bail};
use std::sync::Arc;

/// Which row of the shared tensor each sample has.
pub type Rows = Arc<[u32]>;

/// `activation([x, shared[rows]] Wᵀ + b)` for `x [B, in_x]`, `shared [U, in_shared]`, `w [out, in_x + in_shared]`,
/// `bias [out]`; without `rows`, sample i has row i.
///
/// # Errors
/// If shapes do not fit together, or a row is none of the shared tensor's.
pub fn linear_joined(
    x: &Tensor,
    shared: &Tensor,
    rows: Option<&Rows>,
    w: &Tensor,
    bias: &Tensor,
    activation: Activation,
) -> Result<Tensor> {
    let s = Sizes::of(x, shared, rows, w, bias)?;
    let inputs = [x, shared, w, bias];
    // candle's own graph is for tests, and has no operation of four tensors.
    if cuda::takes(x) || !x.device().is_cpu() || !is_recording() && inputs.iter().any(|t| tracked(t)) {
        return composed(x, shared, rows, w, bias, activation);
    }
    let kept = [whole(x)?, whole(shared)?, whole(w)?, whole(bias)?];
    let (y, z) = by_dtype!(x.dtype(), "linear_joined", T => {
        let z = with_slices::<T, _, 4>(kept.each_ref(), |[x, shared, w, bias]| Ok(forward(s, x, shared, rows, w, bias)))?;
        let as_tensor = |numbers: Vec<T>| Tensor::from_vec(numbers, (s.samples, s.out), x.device());
        match activation {
            Activation::None => (as_tensor(z)?, None),
            Activation::Silu => {
                let y = as_tensor(activate(&z))?;
                (y, if is_recording() { Some(as_tensor(z)?) } else { None })
            }
        }
    });
    let (inner, rows) = (kept.clone(), rows.cloned());
    note(kept.each_ref(), &y, move |dy| backward(s, &inner, rows.as_ref(), z.as_ref(), dy))?;
    Ok(y)
}

/// The same of other operations.
fn composed(x: &Tensor, shared: &Tensor, rows: Option<&Rows>, w: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let gathered;
    let shared = match rows {
        None => shared,
        Some(_) if is_recording() => bail!("a tape does not see how samples share rows on this device"),
        Some(rows) => {
            gathered = shared.index_select(&Tensor::from_slice(rows, rows.len(), x.device())?, 0)?;
            &gathered
        }
    };
    linear(&concat(x, shared)?, w, bias, activation)
}

#[derive(Clone, Copy)]
struct Sizes {
    samples: usize,
    /// Rows of the shared tensor.
    different: usize,
    /// Columns of either, and of the result.
    own: usize,
    shared: usize,
    out: usize,
}

impl Sizes {
    fn of(x: &Tensor, shared: &Tensor, rows: Option<&Rows>, w: &Tensor, bias: &Tensor) -> Result<Self> {
        let ([samples, own], [different, width], [out, all]) = (x.dims(), shared.dims(), w.dims()) else {
            bail!("linear_joined: {:?}, {:?} and {:?} must be matrices", x.dims(), shared.dims(), w.dims())
        };
        let s = Self { samples: *samples, different: *different, own: *own, shared: *width, out: *out };
        if own + width != *all || bias.dims() != [s.out] || x.elem_count() == 0 || shared.elem_count() == 0 || s.out == 0 {
            bail!(
                "linear_joined: {:?}, {:?}, weight {:?} and bias {:?} must be [B, a], [U, b], [out, a + b] and [out], and not empty",
                x.dims(),
                shared.dims(),
                w.dims(),
                bias.dims()
            )
        }
        match rows {
            None if different == samples => Ok(s),
            Some(rows) if rows.len() == s.samples && rows.iter().all(|&row| (row as usize) < s.different) => Ok(s),
            _ => bail!("linear_joined: {samples} samples need a row each of the {different} they share"),
        }
    }
}

/// Before the activation.
fn forward<T: Real>(s: Sizes, x: &[T], shared: &[T], rows: Option<&Rows>, w: &[T], bias: &[T]) -> Vec<T> {
    let of_shared = |z: &mut [T]| {
        let w = matrix(&w[s.own..], 1, s.own + s.shared);
        product((s.different, s.out, s.shared), z, s.out, Store::Rows(bias), T::ONE, matrix(shared, s.shared, 1), w);
    };
    let mut z = unspecified(s.samples * s.out);
    match rows {
        None => of_shared(&mut z),
        Some(rows) => {
            let mut once = unspecified(s.different * s.out);
            of_shared(&mut once);
            let (once, out) = (&once[..], &mut z[..]);
            crate::simd::dispatch(
                #[inline(always)]
                move || {
                    for (z, &row) in out.chunks_exact_mut(s.out).zip(rows.iter()) {
                        copy_row(&once[row as usize * s.out..][..s.out], z);
                    }
                },
            );
        }
    }
    product((s.samples, s.out, s.own), &mut z, s.out, Store::Add, T::ONE, matrix(x, s.own, 1), matrix(w, 1, s.own + s.shared));
    z
}

fn backward(s: Sizes, inputs: &[Tensor; 4], rows: Option<&Rows>, z: Option<&Tensor>, dy: &Tensor) -> Result<[Option<Tensor>; 4]> {
    let [x, shared, w, bias] = inputs;
    let dy = dy.contiguous()?;
    by_dtype!(x.dtype(), "linear_joined", T => with_slices::<T, _, 5>([x, shared, w, &dy, z.unwrap_or(&dy)], |[xs, shareds, ws, dys, zs]| {
        let (through_activation, once);
        let dz = if z.is_some() {
            through_activation = deactivate(zs, dys);
            &through_activation[..]
        } else {
            dys
        };
        let dz_shared = match rows {
            None => dz,
            Some(rows) => {
                once = sums_by_row(s, rows, dz);
                &once[..]
            }
        };
        let all = s.own + s.shared;
        let (mut dx, mut dshared) = (Vec::new(), Vec::new());
        if tracked(x) {
            dx = unspecified(xs.len());
            product((s.samples, s.own, s.out), &mut dx, s.own, Store::Overwrite, T::ONE, matrix(dz, s.out, 1), matrix(ws, all, 1));
        }
        if tracked(shared) {
            dshared = unspecified(shareds.len());
            let (dz, w) = (matrix(dz_shared, s.out, 1), matrix(&ws[s.own..], all, 1));
            product((s.different, s.shared, s.out), &mut dshared, s.shared, Store::Overwrite, T::ONE, dz, w);
        }
        let dw = into_place(w, |dw| {
            if !dw.is_empty() {
                product((s.out, s.own, s.samples), dw, all, Store::Overwrite, T::ONE, matrix(dz, 1, s.out), matrix(xs, s.own, 1));
                let (dz, shared) = (matrix(dz_shared, 1, s.out), matrix(shareds, s.shared, 1));
                product((s.out, s.shared, s.different), &mut dw[s.own..], all, Store::Overwrite, T::ONE, dz, shared);
            }
        });
        let db = into_place(bias, |db| {
            if !db.is_empty() {
                sum_rows(dz_shared, s.different, s.out, db);
            }
        });
        let wrap = |v: Vec<T>, like: &Tensor| if v.is_empty() { Ok(None) } else { Tensor::from_vec(v, like.shape(), like.device()).map(Some) };
        Ok([wrap(dx, x)?, wrap(dshared, shared)?, wrap(dw, w)?, wrap(db, bias)?])
    }))
}

/// For each shared row, the sum over its samples, in their order.
fn sums_by_row<T: Real>(s: Sizes, rows: &Rows, dz: &[T]) -> Vec<T> {
    let mut sums = vec![T::ZERO; s.different * s.out];
    let out = &mut sums[..];
    crate::simd::dispatch(
        #[inline(always)]
        move || {
            for (dz, &row) in dz.chunks_exact(s.out).zip(rows.iter()) {
                for (sum, dz) in out[row as usize * s.out..][..s.out].iter_mut().zip(dz) {
                    *sum += *dz;
                }
            }
        },
    );
    sums
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn agrees_with_the_composition_and_its_gradients_with_differences() {
        let shared_by = |rows: &[u32]| Some(Rows::from(rows));
        let cases = [
            // Some rows for many samples, one for all, each for one but in another order, one that nobody has, and none given.
            ((5, 3, 7, 4, 6), shared_by(&[2, 0, 2, 2, 1])),
            ((33, 1, 16, 33, 17), shared_by(&[0; 33])),
            ((3, 3, 1, 5, 2), shared_by(&[1, 2, 0])),
            ((4, 3, 2, 64, 32), shared_by(&[2, 2, 0, 0])),
            ((9, 9, 18, 20, 48), None),
        ];
        for ((samples, different, own, width, out), rows) in cases {
            let t = [random(&[samples, own], 1), random(&[different, width], 2), random(&[out, own + width], 3), random(&[out], 4)];
            for activation in [Activation::None, Activation::Silu] {
                let of = |t: &[Tensor]| linear_joined(&t[0], &t[1], rows.as_ref(), &t[2], &t[3], activation);
                agree_on_tape(&t, of, |t| composed(&t[0], &t[1], rows.as_ref(), &t[2], &t[3], activation));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let of = |x: [usize; 2], shared: [usize; 2], rows: Option<&[u32]>| {
            let rows = rows.map(Rows::from);
            let (w, b) = (random(&[4, 5], 1), random(&[4], 1));
            linear_joined(&random(&x, 1), &random(&shared, 1), rows.as_ref(), &w, &b, Activation::None)
        };
        assert!(of([2, 3], [1, 2], Some(&[0, 0])).is_ok() && of([2, 3], [2, 2], None).is_ok());
        assert!(of([2, 3], [1, 3], Some(&[0, 0])).unwrap_err().to_string().contains("[4, 5]"));
        for rows in [None, Some(&[0][..]), Some(&[0, 1])] {
            assert!(of([2, 3], [1, 2], rows).unwrap_err().to_string().contains("2 samples"));
        }
    }
}
