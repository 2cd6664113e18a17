//! Scaled dot-product attention. [Vaswani17, Eq. 1]

use super::cuda;
use super::kernel::{LANES, Store, by_dtype, lanes, lanes_mut, matrix, product, slice, unspecified, with_slices};
use super::real::Real;
use super::tape::{apply3, tracked};
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use std::sync::OnceLock;

/// `softmax(q kᵀ / √d) v` for each sample and each of `heads` equal parts of the channels, d = C / heads.
///
/// `q`, `k`, `v` are `[B, .., C]`; the axes between, flattened, are the N tokens.
///
/// # Errors
/// If shapes differ or `heads` does not divide C.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    Sizes::new(q.dims(), k.dims(), v.dims(), heads)?;
    if cuda::takes(q) {
        return cuda::attention(q, k, v, heads);
    }
    if q.device().is_cpu() {
        let keep = tracked(q) || tracked(k) || tracked(v);
        let op = Attention { heads, keep, weights: OnceLock::new() };
        apply3(q, k, v, op)
    } else {
        reference(q, k, v, heads)
    }
}

pub(super) fn reference(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let s = Sizes::new(q.dims(), k.dims(), v.dims(), heads)?;
    let split = |t: &Tensor| t.reshape((s.batch, s.tokens, heads, s.head))?.transpose(1, 2)?.contiguous();
    let scores = (split(q)?.matmul(&split(k)?.t()?)? * s.scale())?;
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
    weights.matmul(&split(v)?)?.transpose(1, 2)?.reshape(q.shape())
}

#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    tokens: usize,
    heads: usize,
    /// Channels of a head.
    head: usize,
}

impl Sizes {
    fn new(q: &[usize], k: &[usize], v: &[usize], heads: usize) -> Result<Self> {
        let [batch, middle @ .., channels] = q else { bail!("attention: queries {q:?} must be [B, .., C]") };
        if q != k || q != v {
            bail!("attention: queries {q:?}, keys {k:?} and values {v:?} must have one shape")
        }
        if heads == 0 || channels % heads != 0 || *channels == 0 {
            bail!("attention: {heads} heads do not divide the {channels} channels of {q:?}")
        }
        Ok(Self { batch: *batch, tokens: middle.iter().product(), heads, head: channels / heads })
    }

    fn scale(&self) -> f64 {
        1.0 / (self.head as f64).sqrt()
    }

    fn channels(&self) -> usize {
        self.heads * self.head
    }

    /// (batch · heads) places: where a head of a sample begins in `q`, `k`, `v` and in the weights.
    fn parts(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.batch).flat_map(move |b| {
            (0..self.heads)
                .map(move |h| (b * self.tokens * self.channels() + h * self.head, (b * self.heads + h) * self.tokens * self.tokens))
        })
    }
}

struct Attention {
    heads: usize,
    /// Whether a backward pass may come.
    keep: bool,
    /// The softmax of every head, `[B, heads, N, N]`.
    weights: OnceLock<CpuStorage>,
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        ql: &Layout,
        k: &CpuStorage,
        kl: &Layout,
        v: &CpuStorage,
        vl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let s = Sizes::new(ql.dims(), kl.dims(), vl.dims(), self.heads)?;
        let dtype = if matches!(q, CpuStorage::F32(_)) { DType::F32 } else { DType::F64 };
        let out = by_dtype!(dtype, "attention", T => {
            let (q, k, v): (&[T], &[T], &[T]) = (slice(q, ql)?, slice(k, kl)?, slice(v, vl)?);
            if self.keep {
                let mut weights = unspecified(s.batch * s.heads * s.tokens * s.tokens);
                let out = forward(q, k, v, s, &mut weights);
                // Set once: candle runs a forward pass once per operation object.
                let _ = self.weights.set(T::to_cpu_storage_owned(weights));
                T::to_cpu_storage_owned(out)
            } else {
                T::to_cpu_storage_owned(T::with_scratch(s.tokens * s.tokens, |weights| forward(q, k, v, s, weights)))
            }
        });
        Ok((out, ql.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _out: &Tensor,
        dout: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let s = Sizes::new(q.dims(), k.dims(), v.dims(), self.heads)?;
        let Some(weights) = self.weights.get() else { bail!("attention: the backward pass found nothing kept by the forward pass") };
        by_dtype!(q.dtype(), "attention", T => with_slices::<T, _, 4>([q, k, v, dout], |[qs, ks, vs, douts]| {
            let [dq, dk, dv] = backward(qs, ks, vs, douts, T::cpu_storage_as_slice(weights)?, s);
            let wrap = |x: Vec<T>| Tensor::from_vec(x, q.shape(), q.device()).map(Some);
            Ok((wrap(dq)?, wrap(dk)?, wrap(dv)?))
        }))
    }
}

/// The result; `weights` has room for all heads, or for one that all share.
fn forward<T: Real>(q: &[T], k: &[T], v: &[T], s: Sizes, weights: &mut [T]) -> Vec<T> {
    let (n, c, d) = (s.tokens, s.channels(), s.head);
    let shared = weights.len() == n * n;
    let mut out = unspecified(q.len());
    for (at, weights_at) in s.parts() {
        let weights = &mut weights[if shared { 0 } else { weights_at }..][..n * n];
        let scale = T::from_f64(s.scale());
        product((n, n, d), weights, n, Store::Overwrite, scale, matrix(&q[at..], c, 1), matrix(&k[at..], 1, c));
        softmax_rows(weights, n);
        product((n, d, n), &mut out[at..], c, Store::Overwrite, T::ONE, matrix(weights, n, 1), matrix(&v[at..], c, 1));
    }
    out
}

/// With P the weights: `dv = Pᵀ do`, `dP = do vᵀ`, `dS = P ∘ (dP − Σ_j P dP)`, `dq = dS k / √d`, `dk = dSᵀ q / √d`.
fn backward<T: Real>(q: &[T], k: &[T], v: &[T], dout: &[T], weights: &[T], s: Sizes) -> [Vec<T>; 3] {
    let (n, c, d) = (s.tokens, s.channels(), s.head);
    let scale = T::from_f64(s.scale());
    let mut dq = unspecified(q.len());
    let mut dk = unspecified(q.len());
    let mut dv = unspecified(q.len());
    T::with_scratch(n * n, |ds| {
        for (at, weights_at) in s.parts() {
            let weights = &weights[weights_at..weights_at + n * n];
            let dout = &dout[at..];
            product((n, d, n), &mut dv[at..], c, Store::Overwrite, T::ONE, matrix(weights, 1, n), matrix(dout, c, 1));
            product((n, n, d), ds, n, Store::Overwrite, T::ONE, matrix(dout, c, 1), matrix(&v[at..], 1, c));
            softmax_gradient_rows(weights, n, ds);
            product((n, d, n), &mut dq[at..], c, Store::Overwrite, scale, matrix(ds, n, 1), matrix(&k[at..], c, 1));
            product((n, d, n), &mut dk[at..], c, Store::Overwrite, scale, matrix(ds, 1, n), matrix(&q[at..], c, 1));
        }
    });
    [dq, dk, dv]
}

fn softmax_rows<T: Real>(scores: &mut [T], n: usize) {
    crate::simd::dispatch(
        #[inline(always)]
        || {
            // A loop, as `for_each` is not inlined and would leave the softmax to the oldest processor.
            for row in scores.chunks_exact_mut(n) {
                softmax(row);
            }
        },
    );
}

/// Softmax of one row, in place; a row with a NaN becomes NaN.
#[inline(always)]
fn softmax<T: Real>(row: &mut [T]) {
    let n = row.len();
    let whole = n - n % LANES;
    let mut most = [row[0]; LANES];
    for at in (0..whole).step_by(LANES) {
        let x = lanes::<T, LANES>(row, at);
        for l in 0..LANES {
            most[l] = if x[l] > most[l] { x[l] } else { most[l] };
        }
    }
    for at in whole..n {
        most[at % LANES] = if row[at] > most[at % LANES] { row[at] } else { most[at % LANES] };
    }
    let most = most.into_iter().fold(row[0], |m, x| if x > m { x } else { m });
    let mut sums = [T::ZERO; LANES];
    for at in (0..whole).step_by(LANES) {
        let x = lanes_mut::<T, LANES>(row, at);
        for l in 0..LANES {
            x[l] = (x[l] - most).exp();
            sums[l] += x[l];
        }
    }
    for at in whole..n {
        row[at] = (row[at] - most).exp();
        sums[at % LANES] += row[at];
    }
    let inverse = T::ONE / total(sums);
    for x in row {
        *x *= inverse;
    }
}

/// `ds ⟵ p ∘ (ds − Σ p ds)`, row by row.
fn softmax_gradient_rows<T: Real>(weights: &[T], n: usize, ds: &mut [T]) {
    crate::simd::dispatch(
        #[inline(always)]
        || {
            for (p, ds) in weights.chunks_exact(n).zip(ds.chunks_exact_mut(n)) {
                let whole = n - n % LANES;
                let mut sums = [T::ZERO; LANES];
                for at in (0..whole).step_by(LANES) {
                    let (p, ds) = (lanes::<T, LANES>(p, at), lanes::<T, LANES>(ds, at));
                    for l in 0..LANES {
                        sums[l] = p[l].fma(ds[l], sums[l]);
                    }
                }
                for at in whole..n {
                    sums[at % LANES] = p[at].fma(ds[at], sums[at % LANES]);
                }
                let mean = total(sums);
                for (ds, &p) in ds.iter_mut().zip(p) {
                    *ds = p * (*ds - mean);
                }
            }
        },
    );
}

/// Sum of the lanes, in halves.
#[inline(always)]
pub(super) fn total<T: Real>(mut sums: [T; LANES]) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            let upper = sums[l + half];
            sums[l] += upper;
        }
        half /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn agrees_with_the_reference_and_its_gradients_with_differences() {
        for (shape, heads) in [(vec![3, 5, 7, 6], 1), (vec![2, 19, 12], 3), (vec![1, 4, 4, 16], 2), (vec![2, 1, 3], 1)] {
            let t = [random(&shape, 1), random(&shape, 2), random(&shape, 3)];
            agree(&t, |t| attention(&t[0], &t[1], &t[2], heads), |t| reference(&t[0], &t[1], &t[2], heads));
        }
    }

    #[test]
    fn one_tensor_in_all_three_places_collects_three_gradients() {
        let x = [random(&[2, 5, 8], 1)];
        agree(&x, |t| attention(&t[0], &t[0], &t[0], 2), |t| reference(&t[0], &t[0], &t[0], 2));
    }

    #[test]
    fn scores_that_would_overflow_do_not() {
        let q = (random(&[1, 20, 4], 1).to_dtype(DType::F32).unwrap() * 1e4).unwrap();
        let out = attention(&q, &q, &q, 1).unwrap();
        assert!(numbers(&out).iter().all(|v| v.is_finite()));
        let plain = attention(&q.to_dtype(DType::F64).unwrap(), &q.to_dtype(DType::F64).unwrap(), &q.to_dtype(DType::F64).unwrap(), 1);
        assert!(distance(&out, &plain.unwrap()) < 1e-5);
    }

    #[test]
    fn heads_that_do_not_divide_the_channels_are_refused() {
        let x = random(&[1, 2, 6], 1);
        assert!(attention(&x, &x, &x, 4).unwrap_err().to_string().contains("4 heads do not divide the 6 channels"));
    }
}
