//! 3 × 3 convolutions of stride 1 by Winograd's method: 36 multiplications for 16 outputs in place of 144, or, on images
//! so small that this takes no fewer, 16 for 4. [Lavin15, Sec. 4.1]
//!
//! The output is cut into tiles of M × M. With d the N × N pixels of the input that a tile sees, N = M + 2, g a kernel and ⊙
//! element by element, `y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A` with the matrices of [`Tiling`]: summed over input channels, each of the
//! N × N places is a product of matrices (tiles × C_in) · (C_in × C_out). The gradient of the input is the same with kernels
//! turned half round; that of the weights is `Gᵀ [Σ (A dy Aᵀ) ⊙ (Bᵀ d B)] G`, N × N products again. Tiles go through in
//! blocks that stay in cache.

use super::kernel::{LANES, Store, matrix};
use super::real::Real;
use super::tile_product::tile_product;
use super::tiling::{Large, Small, Tiling};
use super::turn::turn;
use crate::simd::{Simd, V, Vectorized, vectors};
use std::marker::PhantomData;
use std::ops::Range;

/// The images of one convolution.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) c_in: usize,
    pub(super) c_out: usize,
}

impl Sizes {
    /// Whether this file can compute it: whole vectors of channels.
    pub(super) fn fit(&self) -> bool {
        self.c_in.is_multiple_of(LANES) && self.c_out.is_multiple_of(LANES) && self.height > 1 && self.width > 1
    }

    /// Multiplications for each pair of channels of an image that is cut into tiles of `m × m`.
    fn multiplications(&self, m: usize) -> usize {
        self.height.div_ceil(m) * self.width.div_ceil(m) * (m + 2) * (m + 2)
    }

    fn large_tiles(&self) -> bool {
        self.multiplications(4) < self.multiplications(2)
    }
}

/// `y = conv(x, w) + bias`, where `bias(image)` has C_out numbers.
pub(super) fn forward<'a, T: Real>(x: &[T], w: &[T], bias: &dyn Fn(usize) -> &'a [T], s: Sizes, y: &mut [T]) {
    if s.large_tiles() { Cut::<Large, 4, 6>::new(s).forward(x, w, bias, y) } else { Cut::<Small, 2, 4>::new(s).forward(x, w, bias, y) }
}

/// Gradients of input and weights; an empty slice is a gradient nobody wants.
pub(super) fn backward<T: Real>(x: &[T], w: &[T], dy: &[T], s: Sizes, dx: &mut [T], dw: &mut [T]) {
    if s.large_tiles() {
        Cut::<Large, 4, 6>::new(s).backward(x, w, dy, dx, dw)
    } else {
        Cut::<Small, 2, 4>::new(s).backward(x, w, dy, dx, dw)
    }
}

/// Numbers from the matrix of one place to that of the next: a cache line more than fits, so that the places of one tile do
/// not compete for the same lines of cache.
pub(super) fn stride(rows: usize, channels: usize) -> usize {
    rows * channels + LANES
}

/// One convolution, cut into tiles of M × M outputs that see N × N pixels.
struct Cut<K, const M: usize, const N: usize> {
    s: Sizes,
    by: PhantomData<K>,
}

impl<K, const M: usize, const N: usize> Clone for Cut<K, M, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, const M: usize, const N: usize> Copy for Cut<K, M, N> {}

impl<K: Tiling<M, N>, const M: usize, const N: usize> Cut<K, M, N> {
    /// Places of a transformed tile.
    const PLACES: usize = N * N;

    fn new(s: Sizes) -> Self {
        Self { s, by: PhantomData }
    }

    fn tiles_across(self) -> usize {
        self.s.width.div_ceil(M)
    }

    fn tiles_of_image(self) -> usize {
        self.s.height.div_ceil(M) * self.tiles_across()
    }

    fn tiles(self) -> usize {
        self.s.batch * self.tiles_of_image()
    }

    /// Image, first row and first column of a tile.
    fn place(self, tile: usize) -> (usize, usize, usize) {
        let (image, tile) = (tile / self.tiles_of_image(), tile % self.tiles_of_image());
        (image, M * (tile / self.tiles_across()), M * (tile % self.tiles_across()))
    }

    /// Tiles of a block: a whole number of rows of registers, and about 400 KB of transformed numbers where there are up to
    /// 256 channels in all.
    fn block(self) -> usize {
        (98304 / Self::PLACES / (self.s.c_in + self.s.c_out)).clamp(12, 96) / 12 * 12
    }

    fn forward<'a, T: Real>(self, x: &[T], w: &[T], bias: &dyn Fn(usize) -> &'a [T], y: &mut [T]) {
        let (Sizes { c_in, c_out, .. }, block) = (self.s, self.block());
        let [u_len, v_len, m_len] = [stride(c_in, c_out), stride(block, c_in), stride(block, c_out)].map(|len| Self::PLACES * len);
        T::with_scratch(u_len + v_len + m_len + w.len(), |scratch| {
            let (u, rest) = scratch.split_at_mut(u_len);
            let (v, rest) = rest.split_at_mut(v_len);
            let (m, by_input) = rest.split_at_mut(m_len);
            inputs_first(w, (c_in, c_out), by_input);
            vectors(Kernels { by: self.by, w: by_input, rows: c_in, cols: c_out, turn: false, u });
            for first in (0..self.tiles()).step_by(block) {
                let tiles = first..(first + block).min(self.tiles());
                vectors(See { by: self, x, channels: c_in, tiles: tiles.clone(), v });
                multiply(Self::PLACES, (tiles.len(), block), (c_in, c_out), v, u, m);
                vectors(Give { by: self, m, channels: c_out, tiles, bias: Some(bias), y });
            }
        });
    }

    fn backward<T: Real>(self, x: &[T], w: &[T], dy: &[T], dx: &mut [T], dw: &mut [T]) {
        let (Sizes { c_in, c_out, .. }, block) = (self.s, self.block());
        let [weights, in_len, out_len] = [stride(c_in, c_out), stride(block, c_in), stride(block, c_out)].map(|len| Self::PLACES * len);
        let (u_len, du_len) = (if dx.is_empty() { 0 } else { weights }, if dw.is_empty() { 0 } else { weights });
        T::with_scratch(u_len + du_len + in_len + out_len, |scratch| {
            let (u, rest) = scratch.split_at_mut(u_len);
            let (du, rest) = rest.split_at_mut(du_len);
            let (of_input, of_output) = rest.split_at_mut(in_len);
            if !dx.is_empty() {
                vectors(Kernels { by: self.by, w, rows: c_out, cols: c_in, turn: true, u });
            }
            for first in (0..self.tiles()).step_by(block) {
                let tiles = first..(first + block).min(self.tiles());
                if !dw.is_empty() {
                    vectors(See { by: self, x, channels: c_in, tiles: tiles.clone(), v: of_input });
                    vectors(Spread { by: self, dy, tiles: tiles.clone(), dm: of_output });
                    let store = if first == 0 { Store::Overwrite } else { Store::Add };
                    correlate(Self::PLACES, (tiles.len(), block), (c_in, c_out), of_output, of_input, store, du);
                }
                if !dx.is_empty() {
                    vectors(See { by: self, x: dy, channels: c_out, tiles: tiles.clone(), v: of_output });
                    multiply(Self::PLACES, (tiles.len(), block), (c_out, c_in), of_output, u, of_input);
                    vectors(Give { by: self, m: of_input, channels: c_in, tiles, bias: None, y: dx });
                }
            }
            if !dw.is_empty() {
                vectors(KernelGradients { by: self.by, du, rows: c_out, cols: c_in, dw });
            }
        });
    }
}

// --- Products ----------------------------------------------------------------------------------------------------------

/// In each place, `m = v · u` for the first `rows` rows of blocks that have room for `block`.
pub(super) fn multiply<T: Real>(
    places: usize,
    (rows, block): (usize, usize),
    (c_in, c_out): (usize, usize),
    v: &[T],
    u: &[T],
    m: &mut [T],
) {
    for place in 0..places {
        let v = matrix(&v[place * stride(block, c_in)..], c_in, 1);
        let u = matrix(&u[place * stride(c_in, c_out)..], c_out, 1);
        let m = &mut m[place * stride(block, c_out)..];
        tile_product((rows, c_out, c_in), m, c_out, Store::Overwrite, T::ONE, v, u);
    }
}

/// In each place, `du = dmᵀ · v`, or that added to it.
pub(super) fn correlate<T: Real>(
    places: usize,
    (rows, block): (usize, usize),
    (c_in, c_out): (usize, usize),
    dm: &[T],
    v: &[T],
    store: Store<'_, T>,
    du: &mut [T],
) {
    for place in 0..places {
        let dm = matrix(&dm[place * stride(block, c_out)..], 1, c_out);
        let v = matrix(&v[place * stride(block, c_in)..], c_in, 1);
        let du = &mut du[place * stride(c_out, c_in)..];
        tile_product((c_out, c_in, rows), du, c_in, store, T::ONE, dm, v);
    }
}

// --- What transforms share ---------------------------------------------------------------------------------------------

/// `Y = M X Mᵀ` for a matrix M that `map` applies to a column of `from` vectors: `load` gives the vectors of X by row and column,
/// `store` takes those of Y; over and over, for parts of the channels. Loops of constant length, which the compiler unrolls.
macro_rules! on_both_axes {
    ($simd:ident, $part:ident in $parts:expr, $map:path, $from:tt => $to:tt,
     |$i:ident, $j:ident| $load:expr, |$k:ident, $l:ident, $value:ident| $store:expr) => {{
        let nothing = V::splat($simd, T::ZERO);
        // Outside the loop, so that it is not cleared each time.
        let mut columns = [[nothing; $to]; $from];
        for $part in $parts {
            for ($j, mapped) in columns.iter_mut().enumerate() {
                let mut column = [nothing; $from];
                for ($i, to) in column.iter_mut().enumerate() {
                    *to = $load;
                }
                *mapped = $map(column);
            }
            for $k in 0..$to {
                let mut row = [nothing; $from];
                for (to, column) in row.iter_mut().zip(&columns) {
                    *to = column[$k];
                }
                for ($l, $value) in $map(row).into_iter().enumerate() {
                    $store;
                }
            }
        }
    }};
}
pub(super) use on_both_axes;

#[inline(always)]
pub(super) fn load<T: Real, S: Simd>(simd: S, x: &[T::Vector<S>], at: usize) -> V<T, S> {
    V::new(simd, x[at])
}

/// The N × N pixels of an image `[height, width]` whose first is (row, col), which wrap round to something large before 0;
/// `outside` where there is none.
#[inline(always)]
pub(super) fn window<'a, X, const N: usize>(
    pixels: &'a [X],
    (height, width, n): (usize, usize, usize),
    (row, col): (usize, usize),
    outside: &'a [X],
) -> [[&'a [X]; N]; N] {
    let mut seen = [[outside; N]; N];
    for (i, line) in seen.iter_mut().enumerate() {
        for (j, seen) in line.iter_mut().enumerate() {
            let (row, col) = (row.wrapping_add(i), col.wrapping_add(j));
            if row < height && col < width {
                *seen = &pixels[(row * width + col) * n..][..n];
            }
        }
    }
    seen
}

/// Where the vectors of a place lie.
pub(super) struct Planes<T, S> {
    pub(super) vectors: usize,
    step: usize,
    of: PhantomData<(T, S)>,
}

impl<T: Real, S: Simd> Planes<T, S> {
    #[inline(always)]
    pub(super) fn new(rows: usize, channels: usize) -> Self {
        let lanes = size_of::<T::Vector<S>>() / size_of::<T>();
        Self { vectors: channels / lanes, step: stride(rows, channels) / lanes, of: PhantomData }
    }

    #[inline(always)]
    pub(super) fn at(&self, place: usize, row: usize, part: usize) -> usize {
        place * self.step + row * self.vectors + part
    }
}

// --- Transforms of images ----------------------------------------------------------------------------------------------

/// `Bᵀ d B` of each tile's surroundings d, a matrix (tiles × channels) for each place.
struct See<'a, T, K, const M: usize, const N: usize> {
    by: Cut<K, M, N>,
    x: &'a [T],
    channels: usize,
    tiles: Range<usize>,
    v: &'a mut [T],
}

impl<T: Real, K: Tiling<M, N>, const M: usize, const N: usize> Vectorized for See<'_, T, K, M, N> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Sizes { height, width, .. } = self.by.s;
        let places = Planes::<T, S>::new(self.by.block(), self.channels);
        let (n, x, v) = (places.vectors, T::as_vectors::<S>(self.x), T::as_vectors_mut::<S>(self.v));
        let outside = vec![T::splat(simd, T::ZERO); n];
        for (at, tile) in self.tiles.enumerate() {
            let (image, row, col) = self.by.place(tile);
            let image = &x[image * height * width * n..][..height * width * n];
            let seen: [[_; N]; N] = window(image, (height, width, n), (row.wrapping_sub(1), col.wrapping_sub(1)), &outside);
            on_both_axes!(
                simd,
                part in 0..n,
                K::see,
                N => N,
                |i, j| load::<T, S>(simd, seen[i][j], part),
                |k, l, value| v[places.at(N * k + l, at, part)] = value.get()
            );
        }
    }
}

/// `A dy Aᵀ` of each tile, a matrix (tiles × C_out) for each place.
struct Spread<'a, T, K, const M: usize, const N: usize> {
    by: Cut<K, M, N>,
    dy: &'a [T],
    tiles: Range<usize>,
    dm: &'a mut [T],
}

impl<T: Real, K: Tiling<M, N>, const M: usize, const N: usize> Vectorized for Spread<'_, T, K, M, N> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Sizes { height, width, c_out, .. } = self.by.s;
        let places = Planes::<T, S>::new(self.by.block(), c_out);
        let (n, dy, dm) = (places.vectors, T::as_vectors::<S>(self.dy), T::as_vectors_mut::<S>(self.dm));
        let outside = vec![T::splat(simd, T::ZERO); n];
        for (at, tile) in self.tiles.enumerate() {
            let (image, row, col) = self.by.place(tile);
            let image = &dy[image * height * width * n..][..height * width * n];
            let own: [[_; M]; M] = window(image, (height, width, n), (row, col), &outside);
            on_both_axes!(
                simd,
                part in 0..n,
                K::spread,
                M => N,
                |i, j| load::<T, S>(simd, own[i][j], part),
                |k, l, value| dm[places.at(N * k + l, at, part)] = value.get()
            );
        }
    }
}

/// `Aᵀ m A` of each tile, plus the bias of its image.
struct Give<'a, 'b, T, K, const M: usize, const N: usize> {
    by: Cut<K, M, N>,
    m: &'a [T],
    channels: usize,
    tiles: Range<usize>,
    bias: Option<&'a dyn Fn(usize) -> &'b [T]>,
    y: &'a mut [T],
}

impl<T: Real, K: Tiling<M, N>, const M: usize, const N: usize> Vectorized for Give<'_, '_, T, K, M, N> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Sizes { height, width, .. } = self.by.s;
        let places = Planes::<T, S>::new(self.by.block(), self.channels);
        let (n, m, y) = (places.vectors, T::as_vectors::<S>(self.m), T::as_vectors_mut::<S>(self.y));
        let none = vec![T::splat(simd, T::ZERO); n];
        for (at, tile) in self.tiles.enumerate() {
            let (image, row, col) = self.by.place(tile);
            let bias = match self.bias {
                Some(bias) => T::as_vectors::<S>(bias(image)),
                None => &none,
            };
            let bias = &bias[..n];
            let (rows, cols) = (height - row, width - col);
            let first = ((image * height + row) * width + col) * n;
            on_both_axes!(
                simd,
                part in 0..n,
                K::give,
                N => M,
                |i, j| load::<T, S>(simd, m, places.at(N * i + j, at, part)),
                |k, l, value| if k < rows && l < cols {
                    y[first + (k * width + l) * n + part] = (value + load::<T, S>(simd, bias, part)).get();
                }
            );
        }
    }
}

// --- Transforms of kernels ---------------------------------------------------------------------------------------------

/// Kernels `[C_out, 9, C_in]` as `[C_in, 9, C_out]`, one tap after the other.
pub(super) fn inputs_first<T: Real>(w: &[T], (c_in, c_out): (usize, usize), by_input: &mut [T]) {
    for tap in 0..9 {
        turn((c_out, c_in), &w[tap * c_in..], 9 * c_in, &mut by_input[tap * c_out..], 9 * c_out);
    }
}

/// `G g Gᵀ` of kernels `[rows, 9, cols]`, turned half round if asked, a matrix (rows × cols) for each place.
struct Kernels<'a, T, K, const M: usize, const N: usize> {
    by: PhantomData<K>,
    w: &'a [T],
    rows: usize,
    cols: usize,
    turn: bool,
    u: &'a mut [T],
}

impl<T: Real, K: Tiling<M, N>, const M: usize, const N: usize> Vectorized for Kernels<'_, T, K, M, N> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (rows, places) = (self.rows, Planes::<T, S>::new(self.rows, self.cols));
        let n = places.vectors;
        let (w, turn) = (T::as_vectors::<S>(self.w), self.turn);
        let u = T::as_vectors_mut::<S>(self.u);
        for row in 0..rows {
            on_both_axes!(
                simd,
                part in 0..n,
                K::kernel,
                3 => N,
                |i, j| {
                    let tap = if turn { 8 - (3 * i + j) } else { 3 * i + j };
                    load::<T, S>(simd, w, (row * 9 + tap) * n + part)
                },
                |k, l, value| u[places.at(N * k + l, row, part)] = value.get()
            );
        }
    }
}

/// `Gᵀ du G` for kernels `[rows, 9, cols]`, from a matrix (rows × cols) for each place.
struct KernelGradients<'a, T, K, const M: usize, const N: usize> {
    by: PhantomData<K>,
    du: &'a [T],
    rows: usize,
    cols: usize,
    dw: &'a mut [T],
}

impl<T: Real, K: Tiling<M, N>, const M: usize, const N: usize> Vectorized for KernelGradients<'_, T, K, M, N> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (rows, places) = (self.rows, Planes::<T, S>::new(self.rows, self.cols));
        let n = places.vectors;
        let (du, dw) = (T::as_vectors::<S>(self.du), T::as_vectors_mut::<S>(self.dw));
        for row in 0..rows {
            on_both_axes!(
                simd,
                part in 0..n,
                K::kernel_gradient,
                N => 3,
                |i, j| load::<T, S>(simd, du, places.at(N * i + j, row, part)),
                |k, l, value| dw[(row * 9 + 3 * k + l) * n + part] = value.get()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{numbers, random};
    use super::super::conv2d::{ConvKind, conv2d, reference};
    use candle_core::{DType, Tensor, Var};

    /// Root mean square of the differences, over that of what they differ from.
    fn off(a: &Tensor, b: &Tensor) -> f64 {
        let (a, b) = (numbers(a), numbers(b));
        let squares = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
        (squares(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / squares(&mut b.iter().copied())).sqrt()
    }

    #[test]
    fn rounding_is_near_that_of_the_plain_sum() {
        // Large tiles, small ones, and for comparison the sum itself: 63 channels are no whole vectors.
        for (size, channels, bound) in [(16, 64, 9e-7), (2, 64, 4e-7), (16, 63, 7e-7)] {
            let exact = |x: Tensor| x.to_dtype(DType::F32).unwrap().to_dtype(DType::F64).unwrap();
            let x = exact(random(&[4, size, size, channels], 1));
            let w = exact((random(&[channels, 3, 3, channels], 2) / 24.0).unwrap());
            let slope = exact(random(x.dims(), 3));
            let of = |dtype: DType, f: &dyn Fn(&Tensor, &Tensor, &Tensor) -> candle_core::Result<Tensor>| {
                let [x, w, slope] = [&x, &w, &slope].map(|x| x.to_dtype(dtype).unwrap());
                let (x, w) = (Var::from_tensor(&x).unwrap(), Var::from_tensor(&w).unwrap());
                let y = f(&x, &w, &Tensor::zeros(channels, dtype, x.device()).unwrap()).unwrap();
                let slopes = (&y * slope).unwrap().sum_all().unwrap().backward().unwrap();
                [y.clone(), slopes.get(&x).unwrap().clone(), slopes.get(&w).unwrap().clone()]
            };
            let got = of(DType::F32, &|x, w, b| conv2d(x, w, b, ConvKind::Same));
            let want = of(DType::F64, &|x, w, b| reference(x, w, b, ConvKind::Same));
            for (got, want) in got.iter().zip(&want) {
                assert!(off(got, want) < bound, "{size} × {size}: {:.2e} in {:?}", off(got, want), got.dims());
            }
        }
    }
}
