//! A 3 × 3 convolution of an image at twice its size, without the image at that size: 9 multiplications for 4 outputs.
//!
//! Start at [`upsample_conv2d`]. Doubled by its nearest neighbours, a row of the image reads …, d₀, d₀, d₁, d₁, d₂, d₂, …,
//! and the two outputs over d₁ see d₀ and d₂ once and d₁ three times. With g a kernel,
//! `y₀ = g₀ (d₀ − d₁) + (g₀ + g₁ + g₂) d₁` and `y₁ = (g₀ + g₁ + g₂) d₁ + g₂ (d₂ − d₁)`: three products for two outputs, nine
//! for four in the plane: as many as Winograd's method takes in its large tiles on the doubled image, but from a quarter of
//! its pixels and with additions alone. Each of the nine places is a product of matrices, (pixels × C_in) · (C_in × C_out).
//! The gradients of kernels and input are nine products likewise, by the same three combinations of kernels; pixels go
//! through in blocks that stay in cache.

use super::conv2d::{ConvKind, Geometry, bias_gradient, bias_of, conv2d};
use super::cuda;
use super::gradient_sink::into_place;
use super::kernel::{LANES, Store, by_dtype, matrix, slice, unspecified, with_slices};
use super::real::Real;
use super::tape::{apply3, tracked};
use super::tile_product::tile_product;
use super::upsample2x::upsample2x;
use super::winograd::{Planes, correlate, inputs_first, load, multiply, on_both_axes, stride, window};
use crate::simd::{Simd, V, Vectorized, vectors};
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use std::ops::Range;

/// Repeats every pixel of `x [B, H, W, C_in]` in a 2 × 2 block and convolves that with `w [C_out, 3, 3, C_in]` and one row of
/// zeros all round: `[B, 2H, 2W, C_out]`. `bias` is that of [`conv2d`].
///
/// # Errors
/// If shapes do not fit together.
pub fn upsample_conv2d(x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let g = doubled(x.dims(), w.dims(), bias.dims())?;
    let whole_vectors = g.c_in.is_multiple_of(LANES) && g.c_out.is_multiple_of(LANES);
    if whole_vectors && x.device().is_cpu() && !cuda::takes(x) {
        return apply3(x, w, bias, UpsampleConv2d);
    }
    conv2d(&upsample2x(x)?, w, bias, ConvKind::Same)
}

/// The convolution of the image at twice its size.
fn doubled(x: &[usize], w: &[usize], bias: &[usize]) -> Result<Geometry> {
    let &[batch, height, width, c_in] = x else { bail!("upsample_conv2d: input {x:?} must be [B, H, W, C_in]") };
    Geometry::new(&[batch, 2 * height, 2 * width, c_in], w, bias, ConvKind::Same)
}

struct UpsampleConv2d;

impl CustomOp3 for UpsampleConv2d {
    fn name(&self) -> &'static str {
        "upsample_conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = doubled(xl.dims(), wl.dims(), bl.dims())?;
        let dtype = if matches!(x, CpuStorage::F32(_)) { DType::F32 } else { DType::F64 };
        let y = by_dtype!(dtype, "upsample_conv2d", T => {
            T::to_cpu_storage_owned(forward::<T>(slice(x, xl)?, slice(w, wl)?, slice(b, bl)?, &g))
        });
        Ok((y, Shape::from((g.batch, g.height, g.width, g.c_out))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let g = doubled(x.dims(), w.dims(), bias.dims())?;
        by_dtype!(x.dtype(), "upsample_conv2d", T => with_slices::<T, _, 3>([x, w, dy], |[xs, ws, dys]| {
            let mut dx = unspecified(if tracked(x) { xs.len() } else { 0 });
            let dw = into_place(w, |dw| backward(xs, ws, dys, &g, &mut dx, dw));
            let wrap = |v: Vec<T>, like: &Tensor| if v.is_empty() { Ok(None) } else { Tensor::from_vec(v, like.shape(), like.device()).map(Some) };
            let db = into_place(bias, |db| {
                if !db.is_empty() {
                    bias_gradient(dys, &g, db);
                }
            });
            Ok((wrap(dx, x)?, wrap(dw, w)?, wrap(db, bias)?))
        }))
    }
}

/// Combinations along one axis, and places in the plane.
const PLACES: usize = 9;

/// The image before it is doubled.
#[derive(Clone, Copy)]
struct Image {
    height: usize,
    width: usize,
}

impl Image {
    fn of(g: &Geometry) -> Self {
        Self { height: g.height / 2, width: g.width / 2 }
    }

    fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Image, row and column of a pixel of the batch.
    fn place(self, pixel: usize) -> (usize, usize, usize) {
        (pixel / self.pixels(), pixel % self.pixels() / self.width, pixel % self.width)
    }
}

/// Pixels of a block: a whole number of rows of registers, and about 400 KB of combined numbers.
fn block(g: &Geometry) -> usize {
    (10752 / (g.c_in + g.c_out)).clamp(12, 192) / 12 * 12
}

fn forward<T: Real>(x: &[T], w: &[T], bias: &[T], g: &Geometry) -> Vec<T> {
    let mut y = unspecified(g.batch * g.out_pixels() * g.c_out);
    let (image, block) = (Image::of(g), block(g));
    let [u_len, v_len, m_len] = [PLACES * stride(g.c_in, g.c_out), PLACES * stride(block, g.c_in), PLACES * stride(block, g.c_out)];
    T::with_scratch(u_len + v_len + m_len + w.len(), |scratch| {
        let (u, rest) = scratch.split_at_mut(u_len);
        let (v, rest) = rest.split_at_mut(v_len);
        let (m, by_input) = rest.split_at_mut(m_len);
        inputs_first(w, (g.c_in, g.c_out), by_input);
        vectors(Kernels { w: by_input, rows: g.c_in, cols: g.c_out, u });
        let pixels = g.batch * image.pixels();
        for first in (0..pixels).step_by(block) {
            let here = first..(first + block).min(pixels);
            vectors(See { x, image, rows: block, channels: g.c_in, pixels: here.clone(), v });
            multiply(PLACES, (here.len(), block), (g.c_in, g.c_out), v, u, m);
            vectors(Give { m, image, rows: block, channels: g.c_out, pixels: here, bias: &|i| bias_of(bias, g, i), y: &mut y });
        }
    });
    y
}

/// Gradients of input and weights; an empty slice is a gradient nobody wants.
fn backward<T: Real>(x: &[T], w: &[T], dy: &[T], g: &Geometry, dx: &mut [T], dw: &mut [T]) {
    let (image, block) = (Image::of(g), block(g));
    let weights = PLACES * stride(g.c_out, g.c_in);
    let (in_len, out_len) = (PLACES * stride(block, g.c_in), PLACES * stride(block, g.c_out));
    let (u_len, du_len) = (if dx.is_empty() { 0 } else { weights }, if dw.is_empty() { 0 } else { weights });
    T::with_scratch(u_len + du_len + in_len + out_len, |scratch| {
        let (u, rest) = scratch.split_at_mut(u_len);
        let (du, rest) = rest.split_at_mut(du_len);
        let (of_input, of_output) = rest.split_at_mut(in_len);
        if !dx.is_empty() {
            vectors(Kernels { w, rows: g.c_out, cols: g.c_in, u });
        }
        let pixels = g.batch * image.pixels();
        for first in (0..pixels).step_by(block) {
            let here = first..(first + block).min(pixels);
            if !dw.is_empty() {
                vectors(See { x, image, rows: block, channels: g.c_in, pixels: here.clone(), v: of_input });
                vectors(Spread { dy, image, rows: block, channels: g.c_out, pixels: here.clone(), m: of_output });
                let store = if first == 0 { Store::Overwrite } else { Store::Add };
                correlate(PLACES, (here.len(), block), (g.c_in, g.c_out), of_output, of_input, store, du);
            }
            if !dx.is_empty() {
                vectors(Gather { dy, image, rows: block, channels: g.c_out, pixels: here.clone(), e: of_output });
                let dx = &mut dx[here.start * g.c_in..here.end * g.c_in];
                for place in 0..PLACES {
                    let e = matrix(&of_output[place * stride(block, g.c_out)..], g.c_out, 1);
                    let store = if place == 0 { Store::Overwrite } else { Store::Add };
                    let u = matrix(&u[place * stride(g.c_out, g.c_in)..], g.c_in, 1);
                    tile_product((here.len(), g.c_in, g.c_out), dx, g.c_in, store, T::ONE, e, u);
                }
            }
        }
        if !dw.is_empty() {
            vectors(KernelGradients { du, rows: g.c_out, cols: g.c_in, dw });
        }
    });
}

// --- Along one axis ----------------------------------------------------------------------------------------------------

/// What the two outputs over d₁ are made of.
#[inline(always)]
fn see3<T: Real, S: Simd>(d: [V<T, S>; 3]) -> [V<T, S>; 3] {
    [d[0] - d[1], d[1], d[2] - d[1]]
}

/// What those are multiplied with.
#[inline(always)]
fn kernel3<T: Real, S: Simd>(g: [V<T, S>; 3]) -> [V<T, S>; 3] {
    [g[0], g[0] + g[1] + g[2], g[2]]
}

/// The two outputs, of the products.
#[inline(always)]
fn give2<T: Real, S: Simd>(m: [V<T, S>; 3]) -> [V<T, S>; 2] {
    [m[0] + m[1], m[1] + m[2]]
}

/// Slopes of the products, from those of the outputs.
#[inline(always)]
fn spread3<T: Real, S: Simd>(y: [V<T, S>; 2]) -> [V<T, S>; 3] {
    [y[0], y[0] + y[1], y[1]]
}

/// Slopes of a kernel, from those of its combinations.
#[inline(always)]
fn kernel_slope3<T: Real, S: Simd>(u: [V<T, S>; 3]) -> [V<T, S>; 3] {
    [u[0] + u[1], u[1], u[1] + u[2]]
}

/// What the slope of d₁ is made of, times the combinations of a kernel: from the slopes of its own two outputs, of the one
/// before and of the one after.
#[inline(always)]
fn gather3<T: Real, S: Simd>(y: [V<T, S>; 4]) -> [V<T, S>; 3] {
    [y[3] - y[1], y[1] + y[2], y[0] - y[2]]
}

// --- In the plane ------------------------------------------------------------------------------------------------------

/// The combinations of each pixel's surroundings, a matrix (pixels × channels) for each place.
struct See<'a, T> {
    x: &'a [T],
    image: Image,
    rows: usize,
    channels: usize,
    pixels: Range<usize>,
    v: &'a mut [T],
}

impl<T: Real> Vectorized for See<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Image { height, width } = self.image;
        let places = Planes::<T, S>::new(self.rows, self.channels);
        let (n, x, v) = (places.vectors, T::as_vectors::<S>(self.x), T::as_vectors_mut::<S>(self.v));
        let outside = vec![T::splat(simd, T::ZERO); n];
        for (at, pixel) in self.pixels.enumerate() {
            let (image, row, col) = self.image.place(pixel);
            let image = &x[image * height * width * n..][..height * width * n];
            let seen: [[_; 3]; 3] = window(image, (height, width, n), (row.wrapping_sub(1), col.wrapping_sub(1)), &outside);
            on_both_axes!(
                simd,
                part in 0..n,
                see3,
                3 => 3,
                |i, j| load::<T, S>(simd, seen[i][j], part),
                |k, l, value| v[places.at(3 * k + l, at, part)] = value.get()
            );
        }
    }
}

/// The outputs over each pixel from their products, plus the bias of their image.
struct Give<'a, 'b, T> {
    m: &'a [T],
    image: Image,
    rows: usize,
    channels: usize,
    pixels: Range<usize>,
    bias: &'a dyn Fn(usize) -> &'b [T],
    y: &'a mut [T],
}

impl<T: Real> Vectorized for Give<'_, '_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Image { height, width } = self.image;
        let places = Planes::<T, S>::new(self.rows, self.channels);
        let (n, m, y) = (places.vectors, T::as_vectors::<S>(self.m), T::as_vectors_mut::<S>(self.y));
        for (at, pixel) in self.pixels.enumerate() {
            let (image, row, col) = self.image.place(pixel);
            let bias = &T::as_vectors::<S>((self.bias)(image))[..n];
            let first = ((image * 2 * height + 2 * row) * 2 * width + 2 * col) * n;
            on_both_axes!(
                simd,
                part in 0..n,
                give2,
                3 => 2,
                |i, j| load::<T, S>(simd, m, places.at(3 * i + j, at, part)),
                |k, l, value| y[first + (k * 2 * width + l) * n + part] = (value + load::<T, S>(simd, bias, part)).get()
            );
        }
    }
}

/// Slopes of the products over each pixel, a matrix (pixels × C_out) for each place.
struct Spread<'a, T> {
    dy: &'a [T],
    image: Image,
    rows: usize,
    channels: usize,
    pixels: Range<usize>,
    m: &'a mut [T],
}

impl<T: Real> Vectorized for Spread<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Image { height, width } = self.image;
        let places = Planes::<T, S>::new(self.rows, self.channels);
        let (n, dy, m) = (places.vectors, T::as_vectors::<S>(self.dy), T::as_vectors_mut::<S>(self.m));
        for (at, pixel) in self.pixels.enumerate() {
            let (image, row, col) = self.image.place(pixel);
            let first = ((image * 2 * height + 2 * row) * 2 * width + 2 * col) * n;
            let lines = [&dy[first..][..2 * n], &dy[first + 2 * width * n..][..2 * n]];
            on_both_axes!(
                simd,
                part in 0..n,
                spread3,
                2 => 3,
                |i, j| load::<T, S>(simd, lines[i], j * n + part),
                |k, l, value| m[places.at(3 * k + l, at, part)] = value.get()
            );
        }
    }
}

/// What each pixel's slope is made of, a matrix (pixels × C_out) for each place.
struct Gather<'a, T> {
    dy: &'a [T],
    image: Image,
    rows: usize,
    channels: usize,
    pixels: Range<usize>,
    e: &'a mut [T],
}

impl<T: Real> Vectorized for Gather<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Image { height, width } = self.image;
        let places = Planes::<T, S>::new(self.rows, self.channels);
        let (n, dy, e) = (places.vectors, T::as_vectors::<S>(self.dy), T::as_vectors_mut::<S>(self.e));
        let outside = vec![T::splat(simd, T::ZERO); n];
        for (at, pixel) in self.pixels.enumerate() {
            let (image, row, col) = self.image.place(pixel);
            let image = &dy[image * 4 * height * width * n..][..4 * height * width * n];
            let first = ((2 * row).wrapping_sub(1), (2 * col).wrapping_sub(1));
            let seen: [[_; 4]; 4] = window(image, (2 * height, 2 * width, n), first, &outside);
            on_both_axes!(
                simd,
                part in 0..n,
                gather3,
                4 => 3,
                |i, j| load::<T, S>(simd, seen[i][j], part),
                |k, l, value| e[places.at(3 * k + l, at, part)] = value.get()
            );
        }
    }
}

/// The combinations of kernels `[rows, 9, cols]`, a matrix (rows × cols) for each place.
struct Kernels<'a, T> {
    w: &'a [T],
    rows: usize,
    cols: usize,
    u: &'a mut [T],
}

impl<T: Real> Vectorized for Kernels<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let places = Planes::<T, S>::new(self.rows, self.cols);
        let (n, w, u) = (places.vectors, T::as_vectors::<S>(self.w), T::as_vectors_mut::<S>(self.u));
        for row in 0..self.rows {
            on_both_axes!(
                simd,
                part in 0..n,
                kernel3,
                3 => 3,
                |i, j| load::<T, S>(simd, w, (row * 9 + 3 * i + j) * n + part),
                |k, l, value| u[places.at(3 * k + l, row, part)] = value.get()
            );
        }
    }
}

/// Slopes of kernels `[rows, 9, cols]`, from those of their combinations.
struct KernelGradients<'a, T> {
    du: &'a [T],
    rows: usize,
    cols: usize,
    dw: &'a mut [T],
}

impl<T: Real> Vectorized for KernelGradients<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let places = Planes::<T, S>::new(self.rows, self.cols);
        let (n, du, dw) = (places.vectors, T::as_vectors::<S>(self.du), T::as_vectors_mut::<S>(self.dw));
        for row in 0..self.rows {
            on_both_axes!(
                simd,
                part in 0..n,
                kernel_slope3,
                3 => 3,
                |i, j| load::<T, S>(simd, du, places.at(3 * i + j, row, part)),
                |k, l, value| dw[(row * 9 + 3 * k + l) * n + part] = value.get()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::super::conv2d;
    use super::*;

    fn inputs([b, h, w, c_in, c_out]: [usize; 5], per_sample: bool) -> [Tensor; 3] {
        let bias = if per_sample { vec![b, c_out] } else { vec![c_out] };
        [random(&[b, h, w, c_in], 1), random(&[c_out, 3, 3, c_in], 2), random(&bias, 3)]
    }

    fn reference(t: &[Tensor]) -> Result<Tensor> {
        conv2d::reference(&super::super::upsample2x::reference(&t[0])?, &t[1], &t[2], ConvKind::Same)
    }

    #[test]
    fn agrees_with_a_convolution_of_the_doubled_image_and_its_gradients_with_differences() {
        // Whole vectors of channels go through here, others through the two operations; (7 · 5 · 6) pixels are two blocks.
        for sizes in [[2, 3, 5, 16, 32], [1, 1, 1, 16, 16], [1, 1, 4, 32, 16], [7, 5, 6, 16, 16], [2, 2, 3, 3, 16], [1, 2, 2, 16, 5]] {
            for per_sample in [false, true] {
                agree(&inputs(sizes, per_sample), |t| upsample_conv2d(&t[0], &t[1], &t[2]), reference);
            }
        }
    }

    #[test]
    fn a_sample_does_not_depend_on_its_batch() {
        let t = inputs([7, 5, 6, 16, 16], true).map(|t| t.to_dtype(DType::F32).unwrap());
        let whole = upsample_conv2d(&t[0], &t[1], &t[2]).unwrap();
        for i in 0..7 {
            let one = upsample_conv2d(&t[0].narrow(0, i, 1).unwrap(), &t[1], &t[2].narrow(0, i, 1).unwrap()).unwrap();
            assert_eq!(distance(&one, &whole.narrow(0, i, 1).unwrap()), 0.0, "sample {i}");
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let [x, w, bias] = inputs([2, 4, 4, 16, 16], false);
        for (x, w, bias, what) in [
            (&random(&[2, 4, 4, 8], 1), &w, &bias, "does not fit"),
            (&x, &w, &random(&[4], 1), "bias"),
            (&random(&[2, 16], 1), &w, &bias, "must be [B, H, W, C_in]"),
        ] {
            let e = upsample_conv2d(x, w, bias).unwrap_err().to_string();
            assert!(e.contains(what), "{e}");
        }
    }
}
