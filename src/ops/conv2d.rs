//! Convolutions of images in NHWC with weights in OHWI, without unfolding the image where the stride is 1.
//!
//! Start at [`conv2d`]. A 3 × 3 convolution of stride 1 pads the image with one zero column, shared by the end of one row
//! and the start of the next: for a fixed kernel row the patch of pixel m is then contiguous and begins m · C_in after
//! that of pixel 0, so the convolution is three accumulated products of a matrix whose rows overlap. Its gradients are
//! the same products, of the output's gradient with flipped weights and of the transposed matrix. Small images go through
//! in groups, one below the other, with a zero row between them. Where the channels are whole vectors, Winograd's method
//! takes its place. Stride 2 unfolds; 1 × 1 is one product.

use super::cuda;
use super::gradient_sink::into_place;
use super::kernel::{Store, by_dtype, matrix, product, slice, sum_rows, unspecified, with_slices};
use super::linear;
use super::real::Real;
use super::tape::{apply3, tracked};
use super::winograd;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, WithDType, bail};

/// Where a 3 × 3 convolution of stride 2 sees zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownsamplePadding {
    /// One row or column on every side: diffusers' `downsample_padding = 1`.
    AllRound,
    /// One row below and one column on the right: TensorFlow's `SAME`, diffusers' `downsample_padding = 0`.
    BottomRight,
}

/// The convolutions a U-Net is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvKind {
    /// 1 × 1.
    Pointwise,
    /// 3 × 3, stride 1, one row of zeros all round: the size stays.
    Same,
    /// 3 × 3, stride 2.
    Down(DownsamplePadding),
}

/// Convolves `x [B, H, W, C_in]` with `w [C_out, k, k, C_in]` and adds `bias`: `[C_out]`, or `[B, C_out]` where every
/// sample has its own (the time embedding of a residual block).
///
/// # Errors
/// If shapes do not fit together, or H or W is too small for the kind.
pub fn conv2d(x: &Tensor, w: &Tensor, bias: &Tensor, kind: ConvKind) -> Result<Tensor> {
    let g = Geometry::new(x.dims(), w.dims(), bias.dims(), kind)?;
    if cuda::takes(x) {
        return cuda::conv2d(x, w, bias, g.sizes());
    }
    if x.device().is_cpu() { apply3(x, w, bias, Conv2d { kind }) } else { reference(x, w, bias, kind) }
}

/// Unfolds with slices and multiplies: candle's own conv2d is slow backward.
pub(super) fn reference(x: &Tensor, w: &Tensor, bias: &Tensor, kind: ConvKind) -> Result<Tensor> {
    let g = Geometry::new(x.dims(), w.dims(), bias.dims(), kind)?;
    let (stride, taps) = (g.stride, g.taps);
    // Enough zeros after the end for every tap to find `stride · out` rows.
    let reach = |out: usize| stride * out + taps - 1;
    let pad = |x: &Tensor, dim: usize, size: usize, out: usize| -> Result<Tensor> {
        let want = reach(out).max(g.before + size);
        x.pad_with_zeros(dim, g.before, want - g.before - size)
    };
    let padded = pad(&pad(x, 1, g.height, g.out_height)?, 2, g.width, g.out_width)?;
    let mut patches = Vec::with_capacity(taps * taps);
    for row in 0..taps {
        for col in 0..taps {
            let tap = padded.narrow(1, row, stride * g.out_height)?.narrow(2, col, stride * g.out_width)?.contiguous()?;
            let tap = if stride == 1 {
                tap
            } else {
                let split = tap.reshape((g.batch, g.out_height, stride, g.out_width, stride * g.c_in))?;
                split.narrow(2, 0, 1)?.narrow(4, 0, g.c_in)?.reshape((g.batch, g.out_height, g.out_width, g.c_in))?
            };
            patches.push(tap);
        }
    }
    let unfolded = Tensor::cat(&patches, 3)?.reshape((g.batch * g.out_height * g.out_width, g.patch()))?;
    let y = unfolded.matmul(&w.reshape((g.c_out, g.patch()))?.t()?)?;
    let y = y.reshape((g.batch, g.out_height, g.out_width, g.c_out))?;
    let bias = if bias.rank() == 2 { bias.reshape((g.batch, 1, 1, g.c_out))? } else { bias.clone() };
    y.broadcast_add(&bias)
}

/// The sizes of one convolution; one that exists fits together.
#[derive(Clone, Copy)]
pub(super) struct Geometry {
    pub(super) batch: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) c_in: usize,
    pub(super) c_out: usize,
    out_height: usize,
    out_width: usize,
    /// Rows and columns of the kernel.
    taps: usize,
    stride: usize,
    /// Zeros above and to the left.
    before: usize,
    bias_per_sample: bool,
}

impl Geometry {
    pub(super) fn new(x: &[usize], w: &[usize], bias: &[usize], kind: ConvKind) -> Result<Self> {
        let (&[batch, height, width, c_in], &[c_out, kh, kw, w_in]) = (x, w) else {
            bail!("conv2d: input {x:?} must be [B, H, W, C_in] and weight {w:?} [C_out, k, k, C_in]")
        };
        let (taps, stride, before, after) = match kind {
            ConvKind::Pointwise => (1, 1, 0, 0),
            ConvKind::Same => (3, 1, 1, 1),
            ConvKind::Down(DownsamplePadding::AllRound) => (3, 2, 1, 1),
            ConvKind::Down(DownsamplePadding::BottomRight) => (3, 2, 0, 1),
        };
        if kh != taps || kw != taps || w_in != c_in {
            bail!("conv2d: weight {w:?} does not fit {kind:?} of input {x:?}; it must be [C_out, {taps}, {taps}, {c_in}]")
        }
        let bias_per_sample = match bias {
            [n] if *n == c_out => false,
            [b, n] if *b == batch && *n == c_out => true,
            _ => bail!("conv2d: bias {bias:?} must be [{c_out}] or [{batch}, {c_out}]"),
        };
        if batch == 0 || c_in == 0 || c_out == 0 || height + before + after < taps || width + before + after < taps {
            bail!("conv2d: input {x:?} is too small for {kind:?}")
        }
        let out = |size: usize| (size + before + after - taps) / stride + 1;
        let (out_height, out_width) = (out(height), out(width));
        Ok(Self { batch, height, width, c_in, c_out, out_height, out_width, taps, stride, before, bias_per_sample })
    }

    fn sizes(self) -> cuda::ConvSizes {
        let Self { batch, height, width, c_in, c_out, out_height, out_width, taps, stride, before, .. } = self;
        cuda::ConvSizes { batch, height, width, c_in, c_out, out_height, out_width, taps, stride, before }
    }

    fn pixels(&self) -> usize {
        self.height * self.width
    }

    pub(super) fn out_pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Numbers under the kernel.
    fn patch(&self) -> usize {
        self.taps * self.taps * self.c_in
    }

    /// For `winograd`, where it applies.
    fn winograd(&self) -> Option<winograd::Sizes> {
        let Self { batch, height, width, c_in, c_out, .. } = *self;
        Some(winograd::Sizes { batch, height, width, c_in, c_out }).filter(winograd::Sizes::fit)
    }

    /// Images that go through together with stride 1: enough rows for an efficient product, few enough for the cache.
    fn group(&self) -> usize {
        (ROWS_PER_PRODUCT / ((self.height + 1) * (self.width + 1))).clamp(1, self.batch)
    }
}

const ROWS_PER_PRODUCT: usize = 350;

struct Conv2d {
    kind: ConvKind,
}

impl CustomOp3 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
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
        let g = Geometry::new(xl.dims(), wl.dims(), bl.dims(), self.kind)?;
        let dtype = if matches!(x, CpuStorage::F32(_)) { DType::F32 } else { DType::F64 };
        let y = by_dtype!(dtype, "conv2d", T => {
            T::to_cpu_storage_owned(forward::<T>(slice(x, xl)?, slice(w, wl)?, slice(b, bl)?, &g))
        });
        Ok((y, Shape::from((g.batch, g.out_height, g.out_width, g.c_out))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let g = Geometry::new(x.dims(), w.dims(), bias.dims(), self.kind)?;
        by_dtype!(x.dtype(), "conv2d", T => with_slices::<T, _, 3>([x, w, dy], |[xs, ws, dys]| {
            // Slots of gradients that nobody asks for stay empty; folded patches are added to what is there.
            let mut dx = match (tracked(x), self.kind) {
                (false, _) => Vec::new(),
                (true, ConvKind::Down(_)) => vec![0.0; xs.len()],
                (true, _) => unspecified(xs.len()),
            };
            let dw = into_place(w, |dw| match self.kind {
                ConvKind::Pointwise => linear::gradients(xs, ws, dys, (g.batch * g.pixels(), g.c_in, g.c_out), &mut dx, dw),
                ConvKind::Same => same_gradients(xs, ws, dys, &g, &mut dx, dw),
                ConvKind::Down(_) => unfolded_gradients(xs, ws, dys, &g, &mut dx, dw),
            });
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

fn forward<T: Real>(x: &[T], w: &[T], bias: &[T], g: &Geometry) -> Vec<T> {
    let mut y = unspecified(g.batch * g.out_pixels() * g.c_out);
    if g.stride == 1 && g.taps == 3 {
        same(x, w, bias, g, &mut y);
        return y;
    }
    let pixels = g.out_pixels();
    for (image, out) in y.chunks_exact_mut(pixels * g.c_out).enumerate() {
        let bias = Store::Rows(bias_of(bias, g, image));
        let x = &x[image * g.pixels() * g.c_in..][..g.pixels() * g.c_in];
        let weights = matrix(w, 1, g.patch());
        if g.taps == 1 {
            product((pixels, g.c_out, g.c_in), out, g.c_out, bias, T::ONE, matrix(x, g.c_in, 1), weights);
        } else {
            T::with_scratch(pixels * g.patch(), |patches| {
                unfold(x, g, patches);
                product((pixels, g.c_out, g.patch()), out, g.c_out, bias, T::ONE, matrix(patches, g.patch(), 1), weights);
            });
        }
    }
    y
}

pub(super) fn bias_of<'a, T>(bias: &'a [T], g: &Geometry, image: usize) -> &'a [T] {
    let at = if g.bias_per_sample { image * g.c_out } else { 0 };
    &bias[at..at + g.c_out]
}

pub(super) fn bias_gradient<T: Real>(dy: &[T], g: &Geometry, db: &mut [T]) {
    let of_samples = |out: &mut [T]| {
        for (dy, db) in dy.chunks_exact(g.out_pixels() * g.c_out).zip(out.chunks_exact_mut(g.c_out)) {
            sum_rows(dy, g.out_pixels(), g.c_out, db);
        }
    };
    if g.bias_per_sample {
        return of_samples(db);
    }
    T::with_scratch(g.batch * g.c_out, |per_sample| {
        of_samples(per_sample);
        sum_rows(per_sample, g.batch, g.c_out, db);
    });
}

// --- 3 × 3, stride 1 ---------------------------------------------------------------------------------------------------

/// Numbers of a padded group of images with `channels` channels.
fn padded_len(g: &Geometry, images: usize, channels: usize) -> usize {
    ((images * (g.height + 1) + 1) * (g.width + 1) + 1) * channels
}

/// Rows of the overlapping matrix of a padded group: every pixel of the tall image but the last of the shared column.
fn product_rows(g: &Geometry, images: usize) -> usize {
    (images * (g.height + 1) - 1) * (g.width + 1) - 1
}

/// Writes images one below the other with a zero row above, between and below them and a zero column on the left of each
/// row: pixel (y, x) of image i stands at pixel `(i (H + 1) + y + 1) (W + 1) + x + 1`.
fn pad<T: Real>(images: &[T], g: &Geometry, channels: usize, padded: &mut [T]) {
    let (row, stride) = (g.width * channels, (g.width + 1) * channels);
    padded[..stride].fill(T::ZERO);
    let mut at = stride;
    for image in images.chunks_exact(g.height * row) {
        for line in image.chunks_exact(row) {
            padded[at..at + channels].fill(T::ZERO);
            padded[at + channels..at + stride].copy_from_slice(line);
            at += stride;
        }
        padded[at..at + stride].fill(T::ZERO);
        at += stride;
    }
    padded[at..at + channels].fill(T::ZERO);
}

/// Three products over the kernel's rows: `out` row m is the convolution at pixel m of the tall image. The weights of
/// kernel row `kh` are a (3 · C) × N matrix.
fn three_products<'a, T: Real>(
    padded: &[T],
    (rows, channels, out_channels): (usize, usize, usize),
    line: usize,
    out: &mut [T],
    weights: impl Fn(usize) -> super::kernel::Matrix<'a, T>,
) {
    for kh in 0..3 {
        let store = if kh == 0 { Store::Overwrite } else { Store::Add };
        let a = matrix(&padded[kh * line * channels..], channels, 1);
        product((rows, out_channels, 3 * channels), out, out_channels, store, T::ONE, a, weights(kh));
    }
}

/// Copies the images out of a tall result whose rows have one pixel too many, adding a bias to every pixel.
fn crop<T: Real>(tall: &[T], g: &Geometry, channels: usize, first_image: usize, bias: Option<&[T]>, out: &mut [T]) {
    let (row, stride) = (g.width * channels, (g.width + 1) * channels);
    for (i, image) in out.chunks_exact_mut(g.height * row).enumerate() {
        let tall = &tall[i * (g.height + 1) * stride..];
        let bias = bias.map(|b| bias_of(b, g, first_image + i));
        crate::simd::dispatch(
            #[inline(always)]
            || {
                for (y, line) in image.chunks_exact_mut(row).enumerate() {
                    let from = &tall[y * stride..y * stride + row];
                    match bias {
                        None => line.copy_from_slice(from),
                        Some(bias) => {
                            for (to, from) in line.chunks_exact_mut(channels).zip(from.chunks_exact(channels)) {
                                for ((to, &from), &b) in to.iter_mut().zip(from).zip(bias) {
                                    *to = from + b;
                                }
                            }
                        }
                    }
                }
            },
        );
    }
}

fn same<T: Real>(x: &[T], w: &[T], bias: &[T], g: &Geometry, y: &mut [T]) {
    if let Some(sizes) = g.winograd() {
        return winograd::forward(x, w, &|image| bias_of(bias, g, image), sizes, y);
    }
    let group = g.group();
    let (in_len, out_len) = (g.pixels() * g.c_in, g.pixels() * g.c_out);
    let (padded_cap, tall_cap) = (padded_len(g, group, g.c_in), product_rows(g, group) * g.c_out);
    T::with_scratch(padded_cap + tall_cap, |scratch| {
        let (padded, tall) = scratch.split_at_mut(padded_cap);
        for (i, (x, y)) in x.chunks(group * in_len).zip(y.chunks_mut(group * out_len)).enumerate() {
            let images = x.len() / in_len;
            pad(x, g, g.c_in, padded);
            let sizes = (product_rows(g, images), g.c_in, g.c_out);
            three_products(padded, sizes, g.width + 1, tall, |kh| matrix(&w[kh * 3 * g.c_in..], 1, g.patch()));
            crop(tall, g, g.c_out, i * group, Some(bias), y);
        }
    });
}

/// Gradients of a 3 × 3 convolution of stride 1; an empty slice is a gradient nobody wants.
fn same_gradients<T: Real>(x: &[T], w: &[T], dy: &[T], g: &Geometry, dx: &mut [T], dw: &mut [T]) {
    if let Some(sizes) = g.winograd() {
        return winograd::backward(x, w, dy, sizes, dx, dw);
    }
    let group = g.group();
    let (in_len, out_len) = (g.pixels() * g.c_in, g.pixels() * g.c_out);
    // dx is the convolution of dy with the weights turned half round: [kh, kw, C_out, C_in].
    let mut turned = Vec::with_capacity(if dx.is_empty() { 0 } else { w.len() });
    if !dx.is_empty() {
        for tap in (0..9).rev() {
            for out in 0..g.c_out {
                turned.extend_from_slice(&w[(out * 9 + tap) * g.c_in..][..g.c_in]);
            }
        }
    }
    let (x_cap, dy_cap) = (padded_len(g, group, g.c_in), padded_len(g, group, g.c_out));
    let tall_cap = product_rows(g, group) * g.c_in;
    let line = g.width + 1;
    T::with_scratch(dy_cap + x_cap.max(tall_cap), |scratch| {
        let (padded_dy, rest) = scratch.split_at_mut(dy_cap);
        for (i, dy) in dy.chunks(group * out_len).enumerate() {
            let images = dy.len() / out_len;
            let rows = product_rows(g, images);
            let here = i * group * in_len..(i * group + images) * in_len;
            pad(dy, g, g.c_out, padded_dy);
            if !dw.is_empty() {
                // Row m of the output's gradient: zero in the shared column and rows, so those pixels add nothing.
                let dy_rows = matrix(&padded_dy[(line + 1) * g.c_out..], 1, g.c_out);
                pad(&x[here.clone()], g, g.c_in, rest);
                for kh in 0..3 {
                    let store = if i == 0 { Store::Overwrite } else { Store::Add };
                    let patches = matrix(&rest[kh * line * g.c_in..], g.c_in, 1);
                    product((g.c_out, 3 * g.c_in, rows), &mut dw[kh * 3 * g.c_in..], g.patch(), store, T::ONE, dy_rows, patches);
                }
            }
            if !dx.is_empty() {
                let block = 3 * g.c_out * g.c_in;
                three_products(padded_dy, (rows, g.c_out, g.c_in), line, rest, |kh| matrix(&turned[kh * block..], g.c_in, 1));
                crop(rest, g, g.c_in, 0, None, &mut dx[here]);
            }
        }
    });
}

// --- 3 × 3, stride 2 ---------------------------------------------------------------------------------------------------

/// For each output row and kernel row: the first output's place in `patches`, and the input row, if it lies in the image.
fn lines(g: &Geometry) -> impl Iterator<Item = (usize, usize, Option<usize>)> + use<> {
    let g = *g;
    (0..g.out_height).flat_map(move |y| {
        (0..g.taps).map(move |kh| {
            let row = (y * g.stride + kh).checked_sub(g.before).filter(|&r| r < g.height);
            (y, kh, row)
        })
    })
}

/// The columns an output sees: (first tap inside the image, first input column, how many).
fn span(g: &Geometry, out_col: usize) -> (usize, usize, usize) {
    let start = out_col * g.stride;
    let first = g.before.saturating_sub(start);
    let col = start + first - g.before;
    (first, col, (g.taps - first).min(g.width - col))
}

/// Writes each output's patch as a row of `patches`.
fn unfold<T: Real>(x: &[T], g: &Geometry, patches: &mut [T]) {
    let part = g.taps * g.c_in;
    for (y, kh, row) in lines(g) {
        for out_col in 0..g.out_width {
            let to = &mut patches[(y * g.out_width + out_col) * g.patch() + kh * part..][..part];
            let Some(row) = row else {
                to.fill(T::ZERO);
                continue;
            };
            let (first, col, n) = span(g, out_col);
            to[..first * g.c_in].fill(T::ZERO);
            to[first * g.c_in..(first + n) * g.c_in].copy_from_slice(&x[(row * g.width + col) * g.c_in..][..n * g.c_in]);
            to[(first + n) * g.c_in..].fill(T::ZERO);
        }
    }
}

/// Adds each row of `patches` to the pixels it was taken from.
fn fold<T: Real>(patches: &[T], g: &Geometry, x: &mut [T]) {
    let part = g.taps * g.c_in;
    for (y, kh, row) in lines(g) {
        let Some(row) = row else { continue };
        for out_col in 0..g.out_width {
            let (first, col, n) = span(g, out_col);
            let from = &patches[(y * g.out_width + out_col) * g.patch() + kh * part + first * g.c_in..][..n * g.c_in];
            let to = &mut x[(row * g.width + col) * g.c_in..][..n * g.c_in];
            to.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
        }
    }
}

fn unfolded_gradients<T: Real>(x: &[T], w: &[T], dy: &[T], g: &Geometry, dx: &mut [T], dw: &mut [T]) {
    let (pixels, patch) = (g.out_pixels(), g.patch());
    let in_len = g.pixels() * g.c_in;
    T::with_scratch(pixels * patch, |patches| {
        for (i, dy) in dy.chunks_exact(pixels * g.c_out).enumerate() {
            let here = i * in_len..(i + 1) * in_len;
            if !dw.is_empty() {
                unfold(&x[here.clone()], g, patches);
                let store = if i == 0 { Store::Overwrite } else { Store::Add };
                product((g.c_out, patch, pixels), dw, patch, store, T::ONE, matrix(dy, 1, g.c_out), matrix(patches, patch, 1));
            }
            if !dx.is_empty() {
                product((pixels, patch, g.c_out), patches, patch, Store::Overwrite, T::ONE, matrix(dy, g.c_out, 1), matrix(w, patch, 1));
                fold(patches, g, &mut dx[here]);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;
    use DownsamplePadding::*;

    const KINDS: [ConvKind; 4] = [ConvKind::Pointwise, ConvKind::Same, ConvKind::Down(AllRound), ConvKind::Down(BottomRight)];

    fn inputs(kind: ConvKind, [b, h, w, c_in, c_out]: [usize; 5], per_sample: bool) -> [Tensor; 3] {
        let k = if kind == ConvKind::Pointwise { 1 } else { 3 };
        let bias = if per_sample { vec![b, c_out] } else { vec![c_out] };
        [random(&[b, h, w, c_in], 1), random(&[c_out, k, k, c_in], 2), random(&bias, 3)]
    }

    #[test]
    fn agrees_with_the_reference_and_its_gradients_with_differences() {
        // Of the last four, two go through in large tiles and two in small ones, one and two blocks each.
        let of_whole_vectors = [[5, 6, 7, 16, 32], [13, 7, 9, 16, 32], [1, 2, 3, 48, 16], [12, 6, 5, 16, 16]];
        for kind in KINDS {
            for sizes in [[3, 5, 7, 3, 5], [1, 8, 4, 16, 17], [2, 3, 2, 1, 4], [9, 12, 10, 2, 1]].into_iter().chain(of_whole_vectors) {
                for per_sample in [false, true] {
                    let t = inputs(kind, sizes, per_sample);
                    agree(&t, |t| conv2d(&t[0], &t[1], &t[2], kind), |t| reference(&t[0], &t[1], &t[2], kind));
                }
            }
        }
    }

    #[test]
    fn one_pixel_images_convolve() {
        for kind in [ConvKind::Pointwise, ConvKind::Same, ConvKind::Down(AllRound)] {
            let t = inputs(kind, [2, 1, 1, 3, 2], false);
            agree(&t, |t| conv2d(&t[0], &t[1], &t[2], kind), |t| reference(&t[0], &t[1], &t[2], kind));
        }
    }

    #[test]
    fn reference_is_the_textbook_sum() {
        for kind in KINDS {
            let [x, w, bias] = inputs(kind, [2, 6, 5, 3, 4], false);
            let g = Geometry::new(x.dims(), w.dims(), bias.dims(), kind).unwrap();
            let y = reference(&x, &w, &bias, kind).unwrap();
            let (xs, ws, bs, ys) = (numbers(&x), numbers(&w), numbers(&bias), numbers(&y));
            let mut i = 0;
            for b in 0..g.batch {
                for row in 0..g.out_height {
                    for col in 0..g.out_width {
                        for o in 0..g.c_out {
                            let mut sum = bs[o];
                            for (kh, kw, c) in (0..g.taps * g.taps * g.c_in).map(|k| (k / g.c_in / g.taps, k / g.c_in % g.taps, k % g.c_in))
                            {
                                let (r, q) = ((row * g.stride + kh).wrapping_sub(g.before), (col * g.stride + kw).wrapping_sub(g.before));
                                if r < g.height && q < g.width {
                                    sum += xs[((b * g.height + r) * g.width + q) * g.c_in + c]
                                        * ws[((o * g.taps + kh) * g.taps + kw) * g.c_in + c];
                                }
                            }
                            assert!((sum - ys[i]).abs() < 1e-12);
                            i += 1;
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_sample_does_not_depend_on_its_batch() {
        for kind in KINDS {
            for c_in in [8, 16] {
                let t = inputs(kind, [7, 6, 6, c_in, 16], true).map(|t| t.to_dtype(DType::F32).unwrap());
                let whole = conv2d(&t[0], &t[1], &t[2], kind).unwrap();
                for i in 0..7 {
                    let one = conv2d(&t[0].narrow(0, i, 1).unwrap(), &t[1], &t[2].narrow(0, i, 1).unwrap(), kind).unwrap();
                    assert_eq!(distance(&one, &whole.narrow(0, i, 1).unwrap()), 0.0, "{kind:?}, sample {i}");
                }
            }
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let [x, w, bias] = inputs(ConvKind::Same, [2, 4, 4, 3, 5], false);
        for (x, w, bias, kind, what) in [
            (&x, &w, &bias, ConvKind::Pointwise, "does not fit"),
            (&random(&[2, 4, 4, 2], 1), &w, &bias, ConvKind::Same, "does not fit"),
            (&x, &w, &random(&[4], 1), ConvKind::Same, "bias"),
            (&random(&[2, 1, 4, 3], 1), &w, &bias, ConvKind::Down(BottomRight), "too small"),
            (&random(&[2, 3], 1), &w, &bias, ConvKind::Same, "must be [B, H, W, C_in]"),
        ] {
            let e = conv2d(x, w, bias, kind).unwrap_err().to_string();
            assert!(e.contains(what), "{e}");
        }
    }
}
