//! Layer normalisation.

use super::attention::total;
use super::cuda;
use super::kernel::{LANES, by_dtype, lanes, lanes_mut, slice, unspecified, with_slices};
use super::real::Real;
use super::tape::{apply3, tracked};
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use std::sync::OnceLock;

/// `γ · (x − μ) / √(σ² + eps) + β`, where mean and (biased) variance are those of a row: the last axis of `x [.., C]`.
/// `gamma` and `beta` are `[C]`. [Ba16, Eqs. 3 and 4]
///
/// # Errors
/// If shapes do not fit together, or `x` is empty.
pub fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    channels(x.dims(), gamma.dims(), beta.dims())?;
    if cuda::takes(x) {
        return cuda::layer_norm(x, gamma, beta, eps);
    }
    if x.device().is_cpu() {
        let keep = tracked(x) || tracked(gamma) || tracked(beta);
        let op = LayerNorm { eps, keep, moments: OnceLock::new() };
        apply3(x, gamma, beta, op)
    } else {
        reference(x, gamma, beta, eps)
    }
}

pub(super) fn reference(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    let count = channels(x.dims(), gamma.dims(), beta.dims())? as f64;
    let centered = x.broadcast_sub(&(x.sum_keepdim(D::Minus1)? / count)?)?;
    let variance = (centered.sqr()?.sum_keepdim(D::Minus1)? / count)?;
    centered.broadcast_div(&(variance + eps)?.sqrt()?)?.broadcast_mul(gamma)?.broadcast_add(beta)
}

/// C.
fn channels(x: &[usize], gamma: &[usize], beta: &[usize]) -> Result<usize> {
    match x {
        [.., c] if !x.contains(&0) && gamma == [*c] && beta == [*c] => Ok(*c),
        _ => bail!("layer_norm: input {x:?}, scale {gamma:?} and shift {beta:?} must be [.., C], [C] and [C], and not empty"),
    }
}

struct LayerNorm {
    eps: f64,
    /// Whether a backward pass may come.
    keep: bool,
    /// Mean and reciprocal deviation of each row, alternating, from the forward pass.
    moments: OnceLock<CpuStorage>,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        gamma: &CpuStorage,
        gl: &Layout,
        beta: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let c = channels(xl.dims(), gl.dims(), bl.dims())?;
        let dtype = if matches!(x, CpuStorage::F32(_)) { DType::F32 } else { DType::F64 };
        let y = by_dtype!(dtype, "layer_norm", T => {
            let x: &[T] = slice(x, xl)?;
            let mut y = unspecified(x.len());
            let mut moments = vec![0.0; if self.keep { 2 * x.len() / c } else { 0 }];
            forward(x, slice(gamma, gl)?, slice(beta, bl)?, self.eps, &mut y, &mut moments);
            if self.keep {
                // Set once: candle runs a forward pass once per operation object.
                let _ = self.moments.set(T::to_cpu_storage_owned(moments));
            }
            T::to_cpu_storage_owned(y)
        });
        Ok((y, xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let c = channels(x.dims(), gamma.dims(), beta.dims())?;
        let Some(moments) = self.moments.get() else { bail!("layer_norm: the backward pass found nothing kept by the forward pass") };
        by_dtype!(x.dtype(), "layer_norm", T => with_slices::<T, _, 3>([x, gamma, dy], |[xs, gammas, dys]| {
            let (mut dx, mut dgamma, mut dbeta) = (unspecified(xs.len()), vec![0.0; c], vec![0.0; c]);
            backward(xs, gammas, dys, T::cpu_storage_as_slice(moments)?, [&mut dx, &mut dgamma, &mut dbeta]);
            let wrap = |v: Vec<T>, like: &Tensor| Tensor::from_vec(v, like.shape(), like.device()).map(Some);
            Ok((wrap(dx, x)?, wrap(dgamma, gamma)?, wrap(dbeta, beta)?))
        }))
    }
}

/// Runs `$body` for each block of a row of `$c` numbers: `$N` of them from `$at`, LANES at a time and then one by one.
macro_rules! blocks {
    ($c:expr, $at:ident, $N:ident => $body:expr) => {{
        let mut $at = 0;
        while $at + LANES <= $c {
            const $N: usize = LANES;
            $body;
            $at += LANES;
        }
        while $at < $c {
            const $N: usize = 1;
            $body;
            $at += 1;
        }
    }};
}

/// Fills `y` and, where there is room, the moments of each row.
fn forward<T: Real>(x: &[T], gamma: &[T], beta: &[T], eps: f64, y: &mut [T], moments: &mut [T]) {
    let c = gamma.len();
    let count = T::from_f64(c as f64);
    let mut kept = moments.chunks_exact_mut(2);
    crate::simd::dispatch(
        #[inline(always)]
        || {
            for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
                let mut sums = [T::ZERO; LANES];
                blocks!(c, at, N => add_deviations::<T, N>(x, at, T::ZERO, |d| d, &mut sums));
                let mean = total(sums) / count;
                let mut squares = [T::ZERO; LANES];
                blocks!(c, at, N => add_deviations::<T, N>(x, at, mean, |d| d * d, &mut squares));
                let rstd = T::from_f64(1.0 / ((total(squares) / count).to_f64() + eps).sqrt());
                if let Some(kept) = kept.next() {
                    kept.copy_from_slice(&[mean, rstd]);
                }
                blocks!(c, at, N => normalise::<T, N>(x, gamma, beta, at, (mean, rstd), y));
            }
        },
    );
}

/// With `x̂ = (x − μ) / √(σ² + eps)` and `g = γ dy`: `dγ = Σ_rows dy x̂`, `dβ = Σ_rows dy`,
/// `dx = (g − mean(g) − x̂ mean(g x̂)) / √(σ² + eps)`, the means over the row.
fn backward<T: Real>(x: &[T], gamma: &[T], dy: &[T], moments: &[T], [dx, dgamma, dbeta]: [&mut [T]; 3]) {
    let c = gamma.len();
    let count = T::from_f64(c as f64);
    crate::simd::dispatch(
        #[inline(always)]
        || {
            for (((x, dy), dx), moments) in
                x.chunks_exact(c).zip(dy.chunks_exact(c)).zip(dx.chunks_exact_mut(c)).zip(moments.chunks_exact(2))
            {
                let moments = (moments[0], moments[1]);
                let mut sums = [[T::ZERO; LANES]; 2];
                blocks!(c, at, N => add_gradients::<T, N>(x, gamma, dy, at, moments, &mut sums, dgamma, dbeta));
                let means = sums.map(|s| total(s) / count);
                blocks!(c, at, N => input_gradient::<T, N>(x, gamma, dy, at, moments, means, dx));
            }
        },
    );
}

/// The partial sum that number `l` of a block of `N` from `at` belongs to.
#[inline(always)]
fn lane<const N: usize>(at: usize, l: usize) -> usize {
    if N == LANES { l } else { (at + l) % LANES }
}

/// `sums += f(x − mean)`.
#[inline(always)]
fn add_deviations<T: Real, const N: usize>(x: &[T], at: usize, mean: T, f: impl Fn(T) -> T, sums: &mut [T; LANES]) {
    let x = lanes::<T, N>(x, at);
    for l in 0..N {
        sums[lane::<N>(at, l)] += f(x[l] - mean);
    }
}

#[inline(always)]
fn normalise<T: Real, const N: usize>(x: &[T], gamma: &[T], beta: &[T], at: usize, (mean, rstd): (T, T), y: &mut [T]) {
    let (x, gamma, beta) = (lanes::<T, N>(x, at), lanes::<T, N>(gamma, at), lanes::<T, N>(beta, at));
    let y = lanes_mut::<T, N>(y, at);
    for l in 0..N {
        y[l] = ((x[l] - mean) * rstd).fma(gamma[l], beta[l]);
    }
}

/// The row's part of the gradients of scale and shift, and its sums of `g` and `g x̂`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one loop over memory: what it reads, what it adds to")]
fn add_gradients<T: Real, const N: usize>(
    x: &[T],
    gamma: &[T],
    dy: &[T],
    at: usize,
    (mean, rstd): (T, T),
    sums: &mut [[T; LANES]; 2],
    dgamma: &mut [T],
    dbeta: &mut [T],
) {
    let (x, gamma, dy) = (lanes::<T, N>(x, at), lanes::<T, N>(gamma, at), lanes::<T, N>(dy, at));
    let (dgamma, dbeta) = (lanes_mut::<T, N>(dgamma, at), lanes_mut::<T, N>(dbeta, at));
    for l in 0..N {
        let xhat = (x[l] - mean) * rstd;
        let g = gamma[l] * dy[l];
        let to = lane::<N>(at, l);
        sums[0][to] += g;
        sums[1][to] = g.fma(xhat, sums[1][to]);
        dgamma[l] = dy[l].fma(xhat, dgamma[l]);
        dbeta[l] += dy[l];
    }
}

#[inline(always)]
fn input_gradient<T: Real, const N: usize>(
    x: &[T],
    gamma: &[T],
    dy: &[T],
    at: usize,
    (mean, rstd): (T, T),
    [mean_g, mean_g_xhat]: [T; 2],
    dx: &mut [T],
) {
    let (x, gamma, dy) = (lanes::<T, N>(x, at), lanes::<T, N>(gamma, at), lanes::<T, N>(dy, at));
    let dx = lanes_mut::<T, N>(dx, at);
    for l in 0..N {
        let xhat = (x[l] - mean) * rstd;
        dx[l] = rstd * (gamma[l] * dy[l] - mean_g - xhat * mean_g_xhat);
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn agrees_with_the_reference_and_its_gradients_with_differences() {
        for shape in [vec![3, 5, 7], vec![2, 4, 32], vec![1, 9, 20], vec![6, 3], vec![40]] {
            let c = shape[shape.len() - 1];
            let t = [random(&shape, 1), random(&[c], 2), random(&[c], 3)];
            agree(&t, |t| layer_norm(&t[0], &t[1], &t[2], 1e-5), |t| reference(&t[0], &t[1], &t[2], 1e-5));
        }
    }

    #[test]
    fn rows_have_mean_0_and_variance_1_even_far_from_the_origin() {
        let x = ((random(&[50, 192], 1) * 0.5).unwrap() + 1000.0).unwrap().to_dtype(DType::F32).unwrap();
        let (one, zero) = (Tensor::ones(192, DType::F32, x.device()).unwrap(), Tensor::zeros(192, DType::F32, x.device()).unwrap());
        let y = numbers(&layer_norm(&x, &one, &zero, 0.0).unwrap());
        for row in y.chunks(192) {
            let mean = row.iter().sum::<f64>() / 192.0;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 192.0;
            assert!(mean.abs() < 1e-3 && (variance - 1.0).abs() < 1e-3, "{mean} {variance}");
        }
    }

    #[test]
    fn a_constant_row_gives_the_shift() {
        let x = (Tensor::ones((2, 5), DType::F32, &candle_core::Device::Cpu).unwrap() * 3.0).unwrap();
        let (gamma, beta) = (random(&[5], 1).to_dtype(DType::F32).unwrap(), random(&[5], 2).to_dtype(DType::F32).unwrap());
        let y = layer_norm(&x, &gamma, &beta, 1e-6).unwrap();
        assert_eq!(distance(&y, &beta.broadcast_as((2, 5)).unwrap()), 0.0);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let e = layer_norm(&random(&[2, 6], 1), &random(&[6], 2), &random(&[5], 3), 1e-5).unwrap_err().to_string();
        assert!(e.contains("layer_norm") && e.contains("[2, 6]") && e.contains("[5]"), "{e}");
    }
}
