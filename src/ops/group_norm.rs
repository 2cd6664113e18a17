//! Group normalisation, with the SiLU that follows it in the same pass.

use super::Activation;
use super::cuda;
use super::kernel::{Columns, LANES, by_dtype, column_sums, lanes, lanes_mut, silu_of, silu_slope, slice, unspecified, with_slices};
use super::real::Real;
use super::tape::apply3;
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use std::sync::OnceLock;

/// `activation(γ · (x − μ) / √(σ² + eps) + β)`, where mean and (biased) variance are those of a sample's group of
/// channels. `x` is `[B, .., C]`, `gamma` and `beta` are `[C]`.
///
/// # Errors
/// If `groups` does not divide C, or shapes do not fit together.
pub fn group_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, groups: usize, eps: f64, activation: Activation) -> Result<Tensor> {
    Sizes::new(x.dims(), gamma.dims(), beta.dims(), groups)?;
    if cuda::takes(x) {
        return cuda::group_norm(x, gamma, beta, groups, eps, activation);
    }
    if x.device().is_cpu() {
        let op = GroupNorm { groups, eps, activation, moments: OnceLock::new() };
        apply3(x, gamma, beta, op)
    } else {
        reference(x, gamma, beta, groups, eps, activation)
    }
}

pub(super) fn reference(x: &Tensor, gamma: &Tensor, beta: &Tensor, groups: usize, eps: f64, activation: Activation) -> Result<Tensor> {
    let s = Sizes::new(x.dims(), gamma.dims(), beta.dims(), groups)?;
    let count = (s.pixels * s.channels / groups) as f64;
    // [B, G, HW · C / G]
    let grouped = x.reshape((s.batch, s.pixels, groups, s.channels / groups))?.transpose(1, 2)?.contiguous()?;
    let grouped = grouped.reshape((s.batch, groups, ()))?;
    let centered = grouped.broadcast_sub(&(grouped.sum_keepdim(D::Minus1)? / count)?)?;
    let variance = (centered.sqr()?.sum_keepdim(D::Minus1)? / count)?;
    let normed = centered.broadcast_div(&(variance + eps)?.sqrt()?)?;
    let normed = normed.reshape((s.batch, groups, s.pixels, s.channels / groups))?.transpose(1, 2)?.contiguous()?;
    let y = normed.reshape(x.shape())?.broadcast_mul(gamma)?.broadcast_add(beta)?;
    match activation {
        Activation::None => Ok(y),
        Activation::Silu => super::silu::reference(&y),
    }
}

#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    pixels: usize,
    channels: usize,
    groups: usize,
}

impl Sizes {
    fn new(x: &[usize], gamma: &[usize], beta: &[usize], groups: usize) -> Result<Self> {
        let [batch, middle @ .., channels] = x else { bail!("group_norm: input {x:?} must be [B, .., C]") };
        if groups == 0 || channels % groups != 0 {
            bail!("group_norm: {groups} groups do not divide the {channels} channels of input {x:?}")
        }
        if gamma != [*channels] || beta != [*channels] {
            bail!("group_norm: scale {gamma:?} and shift {beta:?} must be [{channels}]")
        }
        let pixels = middle.iter().product();
        if *batch == 0 || pixels == 0 || *channels == 0 {
            bail!("group_norm: input {x:?} is empty")
        }
        Ok(Self { batch: *batch, pixels, channels: *channels, groups })
    }

    /// The group of channel `c`.
    fn group(&self, c: usize) -> usize {
        c / (self.channels / self.groups)
    }

    /// Numbers that share a mean.
    fn count(&self) -> f64 {
        (self.pixels * (self.channels / self.groups)) as f64
    }
}

struct GroupNorm {
    groups: usize,
    eps: f64,
    activation: Activation,
    /// Mean and reciprocal deviation of each sample's groups, from the forward pass.
    moments: OnceLock<Vec<(f64, f64)>>,
}

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
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
        let s = Sizes::new(xl.dims(), gl.dims(), bl.dims(), self.groups)?;
        let dtype = if matches!(x, CpuStorage::F32(_)) { DType::F32 } else { DType::F64 };
        let (y, moments) = by_dtype!(dtype, "group_norm", T => {
            let (y, moments) = forward::<T>(slice(x, xl)?, slice(gamma, gl)?, slice(beta, bl)?, s, self.eps, self.activation);
            (T::to_cpu_storage_owned(y), moments)
        });
        // Set once: candle runs a forward pass once per operation object.
        let _ = self.moments.set(moments);
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
        let s = Sizes::new(x.dims(), gamma.dims(), beta.dims(), self.groups)?;
        let Some(moments) = self.moments.get() else { bail!("group_norm: the backward pass found nothing kept by the forward pass") };
        by_dtype!(x.dtype(), "group_norm", T => with_slices::<T, _, 4>([x, gamma, beta, dy], |[xs, gammas, betas, dys]| {
            let (dx, dgamma, dbeta) = backward(xs, gammas, betas, dys, s, moments, self.activation);
            let wrap = |v: Vec<T>, like: &Tensor| Tensor::from_vec(v, like.shape(), like.device()).map(Some);
            Ok((wrap(dx, x)?, wrap(dgamma, gamma)?, wrap(dbeta, beta)?))
        }))
    }
}

/// Squared deviations from a mean for each channel.
struct Deviations<'a, T> {
    x: &'a [T],
    mean: &'a [T],
}

impl<T: Real> Columns<T, 1> for Deviations<'_, T> {
    #[inline(always)]
    fn terms<const N: usize>(&self, at: usize, col: usize) -> [[T; N]; 1] {
        let (x, mean) = (lanes::<T, N>(self.x, at), lanes::<T, N>(self.mean, col));
        let mut out = [T::ZERO; N];
        for l in 0..N {
            let d = x[l] - mean[l];
            out[l] = d * d;
        }
        [out]
    }
}

/// `dz` and `dz · (x − μ) / √(σ² + eps)`.
struct Gradients<'a, T> {
    x: &'a [T],
    dz: &'a [T],
    mean: &'a [T],
    rstd: &'a [T],
}

impl<T: Real> Columns<T, 2> for Gradients<'_, T> {
    #[inline(always)]
    fn terms<const N: usize>(&self, at: usize, col: usize) -> [[T; N]; 2] {
        let (x, dz) = (lanes::<T, N>(self.x, at), lanes::<T, N>(self.dz, at));
        let (mean, rstd) = (lanes::<T, N>(self.mean, col), lanes::<T, N>(self.rstd, col));
        let mut scaled = [T::ZERO; N];
        for l in 0..N {
            scaled[l] = dz[l] * ((x[l] - mean[l]) * rstd[l]);
        }
        [*dz, scaled]
    }
}

/// Adds up the channels of each group.
fn by_group<T: Real>(s: Sizes, per_channel: &[T], out: &mut [f64]) {
    out.fill(0.0);
    for (c, v) in per_channel.iter().enumerate() {
        out[s.group(c)] += v.to_f64();
    }
}

/// `y`, and mean and reciprocal deviation of each sample's groups.
fn forward<T: Real>(x: &[T], gamma: &[T], beta: &[T], s: Sizes, eps: f64, activation: Activation) -> (Vec<T>, Vec<(f64, f64)>) {
    let c = s.channels;
    let mut y = unspecified(x.len());
    let mut moments = Vec::with_capacity(s.batch * s.groups);
    let mut per_channel = vec![T::ZERO; 3 * c];
    let mut per_group = vec![0.0; s.groups];
    for (x, y) in x.chunks_exact(s.pixels * c).zip(y.chunks_exact_mut(s.pixels * c)) {
        let (sums, rest) = per_channel.split_at_mut(c);
        let (mean, shift) = rest.split_at_mut(c);
        let first = moments.len();
        super::kernel::sum_rows(x, s.pixels, c, sums);
        by_group(s, sums, &mut per_group);
        moments.extend(per_group.iter().map(|sum| (sum / s.count(), 0.0)));
        for (i, m) in mean.iter_mut().enumerate() {
            *m = T::from_f64(moments[first + s.group(i)].0);
        }
        let (mean_ref, sums_ref) = (&*mean, &mut *sums);
        crate::simd::dispatch(
            #[inline(always)]
            || column_sums(s.pixels, c, sums_ref, &Deviations { x, mean: mean_ref }),
        );
        by_group(s, sums, &mut per_group);
        for (m, sum) in moments[first..].iter_mut().zip(&per_group) {
            m.1 = 1.0 / (sum / s.count() + eps).sqrt();
        }
        let scale = sums;
        for i in 0..c {
            let (m, rstd) = moments[first + s.group(i)];
            let a = gamma[i].to_f64() * rstd;
            scale[i] = T::from_f64(a);
            shift[i] = T::from_f64(beta[i].to_f64() - m * a);
        }
        let (scale, shift) = (&*scale, &*shift);
        crate::simd::dispatch(
            #[inline(always)]
            || match activation {
                Activation::None => rows3(c, scale, shift, x, x, y, |a, b, x, _| a.fma(x, b)),
                Activation::Silu => rows3(c, scale, shift, x, x, y, |a, b, x, _| silu_of(a.fma(x, b))),
            },
        );
    }
    (y, moments)
}

/// Gradients of input, scale and shift.
fn backward<T: Real>(
    x: &[T],
    gamma: &[T],
    beta: &[T],
    dy: &[T],
    s: Sizes,
    moments: &[(f64, f64)],
    activation: Activation,
) -> (Vec<T>, Vec<T>, Vec<T>) {
    let c = s.channels;
    let mut dx = unspecified(x.len());
    let (mut dgamma, mut dbeta) = (vec![T::ZERO; c], vec![T::ZERO; c]);
    let mut per_channel = vec![T::ZERO; 6 * c];
    for (i, ((x, dy), dx)) in
        x.chunks_exact(s.pixels * c).zip(dy.chunks_exact(s.pixels * c)).zip(dx.chunks_exact_mut(s.pixels * c)).enumerate()
    {
        let moments = &moments[i * s.groups..(i + 1) * s.groups];
        let (sums, rest) = per_channel.split_at_mut(2 * c);
        let (mean, rest) = rest.split_at_mut(c);
        let (rstd, rest) = rest.split_at_mut(c);
        let (scale, shift) = rest.split_at_mut(c);
        for j in 0..c {
            let (m, r) = moments[s.group(j)];
            let a = gamma[j].to_f64() * r;
            mean[j] = T::from_f64(m);
            rstd[j] = T::from_f64(r);
            scale[j] = T::from_f64(a);
            shift[j] = T::from_f64(beta[j].to_f64() - m * a);
        }
        // The gradient before the activation stands in `dx` until it is turned into that of x.
        let dz: &[T] = match activation {
            Activation::None => dy,
            Activation::Silu => {
                let (scale, shift, out) = (&*scale, &*shift, &mut *dx);
                crate::simd::dispatch(
                    #[inline(always)]
                    || rows3(c, scale, shift, x, dy, out, |a, b, x, dy| dy * silu_slope(a.fma(x, b))),
                );
                dx
            }
        };
        let columns = Gradients { x, dz, mean, rstd };
        crate::simd::dispatch(
            #[inline(always)]
            || column_sums(s.pixels, c, sums, &columns),
        );
        // dx = r (γ dz − mean(γ dz) − x̂ mean(γ dz x̂)), the means over the group; as a · dz + (b · x + d) for each channel.
        let (mut sum_dz, mut sum_dz_xhat) = (vec![0.0; s.groups], vec![0.0; s.groups]);
        for j in 0..c {
            dbeta[j] += sums[j];
            dgamma[j] += sums[c + j];
            sum_dz[s.group(j)] += gamma[j].to_f64() * sums[j].to_f64();
            sum_dz_xhat[s.group(j)] += gamma[j].to_f64() * sums[c + j].to_f64();
        }
        for j in 0..c {
            let group = s.group(j);
            let (m, r) = moments[group];
            let slope = -r * r * sum_dz_xhat[group] / s.count();
            rstd[j] = T::from_f64(slope);
            mean[j] = T::from_f64(-r * sum_dz[group] / s.count() - slope * m);
        }
        let (a, b, d) = (&*scale, &*rstd, &*mean);
        crate::simd::dispatch(
            #[inline(always)]
            || match activation {
                Activation::None => finish(c, [a, b, d], x, Some(dy), dx),
                Activation::Silu => finish(c, [a, b, d], x, None, dx),
            },
        );
    }
    (dx, dgamma, dbeta)
}

/// `out = f(a_c, b_c, x, z)` with a pair of numbers for each channel.
#[inline(always)]
fn rows3<T: Real>(c: usize, a: &[T], b: &[T], x: &[T], z: &[T], out: &mut [T], f: impl Fn(T, T, T, T) -> T) {
    let (a, b) = (&a[..c], &b[..c]);
    for ((x, z), out) in x.chunks_exact(c).zip(z.chunks_exact(c)).zip(out.chunks_exact_mut(c)) {
        let mut at = 0;
        while at + LANES <= c {
            let (a, b) = (lanes::<T, LANES>(a, at), lanes::<T, LANES>(b, at));
            let (x, z) = (lanes::<T, LANES>(x, at), lanes::<T, LANES>(z, at));
            let out = lanes_mut::<T, LANES>(out, at);
            for l in 0..LANES {
                out[l] = f(a[l], b[l], x[l], z[l]);
            }
            at += LANES;
        }
        while at < c {
            out[at] = f(a[at], b[at], x[at], z[at]);
            at += 1;
        }
    }
}

/// `dx = a_c · dz + (b_c · x + d_c)`; without `dz`, it is what stands in `dx`.
#[inline(always)]
fn finish<T: Real>(c: usize, [a, b, d]: [&[T]; 3], x: &[T], dz: Option<&[T]>, dx: &mut [T]) {
    let (a, b, d) = (&a[..c], &b[..c], &d[..c]);
    for (row, (x, dx)) in x.chunks_exact(c).zip(dx.chunks_exact_mut(c)).enumerate() {
        if let Some(dz) = dz {
            dx.copy_from_slice(&dz[row * c..(row + 1) * c]);
        }
        let mut at = 0;
        while at + LANES <= c {
            let (a, b, d) = (lanes::<T, LANES>(a, at), lanes::<T, LANES>(b, at), lanes::<T, LANES>(d, at));
            let x = lanes::<T, LANES>(x, at);
            let dx = lanes_mut::<T, LANES>(dx, at);
            for l in 0..LANES {
                dx[l] = a[l].fma(dx[l], b[l].fma(x[l], d[l]));
            }
            at += LANES;
        }
        while at < c {
            dx[at] = a[at].fma(dx[at], b[at].fma(x[at], d[at]));
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn agrees_with_the_reference_and_its_gradients_with_differences() {
        for activation in [Activation::None, Activation::Silu] {
            for (shape, groups) in [(vec![3, 5, 7, 6], 3), (vec![2, 4, 3, 32], 8), (vec![1, 9, 20], 1), (vec![2, 3, 2, 24], 24)] {
                let c = shape[shape.len() - 1];
                let t = [random(&shape, 1), random(&[c], 2), random(&[c], 3)];
                agree(
                    &t,
                    |t| group_norm(&t[0], &t[1], &t[2], groups, 1e-5, activation),
                    |t| reference(&t[0], &t[1], &t[2], groups, 1e-5, activation),
                );
            }
        }
    }

    #[test]
    fn output_has_mean_0_and_variance_1_even_far_from_the_origin() {
        let x = ((random(&[2, 8, 8, 32], 1) * 0.5).unwrap() + 1000.0).unwrap().to_dtype(DType::F32).unwrap();
        let (one, zero) = (Tensor::ones(32, DType::F32, x.device()).unwrap(), Tensor::zeros(32, DType::F32, x.device()).unwrap());
        let y = numbers(&group_norm(&x, &one, &zero, 1, 0.0, Activation::None).unwrap());
        for sample in y.chunks(8 * 8 * 32) {
            let n = sample.len() as f64;
            let mean = sample.iter().sum::<f64>() / n;
            let variance = sample.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            assert!(mean.abs() < 1e-3 && (variance - 1.0).abs() < 1e-3, "{mean} {variance}");
        }
    }

    #[test]
    fn groups_that_do_not_divide_the_channels_are_refused() {
        let t = [random(&[1, 2, 6], 1), random(&[6], 2), random(&[6], 3)];
        let e = group_norm(&t[0], &t[1], &t[2], 4, 1e-5, Activation::None).unwrap_err().to_string();
        assert!(e.contains("4 groups do not divide the 6 channels"), "{e}");
    }
}
