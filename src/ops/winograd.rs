//! 3 × 3 convolutions of stride 1 by Winograd's F(2 × 2, 3 × 3): 16 multiplications for 4 outputs in place of 36.
//! [Lavin15, Sec. 4.1]
//!
//! The output is cut into 2 × 2 tiles. With d the 4 × 4 input pixels a tile sees, g a kernel and ⊙ element by element,
//! `y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`: summed over input channels, each of the 16 places is a product of matrices
//! (tiles × C_in) · (C_in × C_out). The gradient of the input is the same with kernels turned half round; that of the
//! weights is `Gᵀ [Σ (A dy Aᵀ) ⊙ (Bᵀ d B)] G`, 16 products again. Tiles go through in blocks that stay in cache.

use super::kernel::{LANES, Store, matrix};
use super::real::Real;
use super::tile_product::tile_product;
use super::turn::turn;
use crate::simd::{Simd, V, Vectorized, vectors};
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

    fn tiles_across(&self) -> usize {
        self.width.div_ceil(2)
    }

    fn tiles_of_image(&self) -> usize {
        self.height.div_ceil(2) * self.tiles_across()
    }

    fn tiles(&self) -> usize {
        self.batch * self.tiles_of_image()
    }

    /// Image, first row and first column of a tile.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (image, tile) = (tile / self.tiles_of_image(), tile % self.tiles_of_image());
        (image, 2 * (tile / self.tiles_across()), 2 * (tile % self.tiles_across()))
    }

    /// Tiles of a block: a whole number of rows of registers, and about 400 KB of transformed numbers.
    fn block(&self) -> usize {
        (6144 / (self.c_in + self.c_out)).clamp(12, 96) / 12 * 12
    }
}

/// Places of a transformed tile.
const PLACES: usize = 16;

/// Numbers from the matrix of one place to that of the next: a cache line more than fits, so that the 16 places of one
/// tile do not compete for the same lines of cache.
pub(super) fn stride(rows: usize, channels: usize) -> usize {
    rows * channels + LANES
}

/// `y = conv(x, w) + bias`, where `bias(image)` has C_out numbers.
pub(super) fn forward<'a, T: Real>(x: &[T], w: &[T], bias: &dyn Fn(usize) -> &'a [T], s: Sizes, y: &mut [T]) {
    let block = s.block();
    let [u_len, v_len, m_len] = [PLACES * stride(s.c_in, s.c_out), PLACES * stride(block, s.c_in), PLACES * stride(block, s.c_out)];
    T::with_scratch(u_len + v_len + m_len + w.len(), |scratch| {
        let (u, rest) = scratch.split_at_mut(u_len);
        let (v, rest) = rest.split_at_mut(v_len);
        let (m, by_input) = rest.split_at_mut(m_len);
        kernels(w, s, by_input, u);
        for first in (0..s.tiles()).step_by(block) {
            let tiles = first..(first + block).min(s.tiles());
            see(x, s, s.c_in, tiles.clone(), v);
            multiply(v, u, tiles.len(), (s.c_in, s.c_out), block, m);
            give(m, s, s.c_out, tiles, Some(bias), y);
        }
    });
}

/// Gradients of input and weights; an empty slice is a gradient nobody wants.
pub(super) fn backward<T: Real>(x: &[T], w: &[T], dy: &[T], s: Sizes, dx: &mut [T], dw: &mut [T]) {
    let block = s.block();
    let weights = PLACES * stride(s.c_in, s.c_out);
    let (in_len, out_len) = (PLACES * stride(block, s.c_in), PLACES * stride(block, s.c_out));
    let (u_len, du_len) = (if dx.is_empty() { 0 } else { weights }, if dw.is_empty() { 0 } else { weights });
    T::with_scratch(u_len + du_len + in_len + out_len, |scratch| {
        let (u, rest) = scratch.split_at_mut(u_len);
        let (du, rest) = rest.split_at_mut(du_len);
        let (of_input, of_output) = rest.split_at_mut(in_len);
        if !dx.is_empty() {
            turned_kernels(w, s, u);
        }
        for first in (0..s.tiles()).step_by(block) {
            let tiles = first..(first + block).min(s.tiles());
            if !dw.is_empty() {
                see(x, s, s.c_in, tiles.clone(), of_input);
                spread(dy, s, tiles.clone(), of_output);
                let store = if first == 0 { Store::Overwrite } else { Store::Add };
                for place in 0..PLACES {
                    let dm = matrix(&of_output[place * stride(block, s.c_out)..], 1, s.c_out);
                    let v = matrix(&of_input[place * stride(block, s.c_in)..], s.c_in, 1);
                    let du = &mut du[place * stride(s.c_out, s.c_in)..];
                    tile_product((s.c_out, s.c_in, tiles.len()), du, s.c_in, store, T::ONE, dm, v);
                }
            }
            if !dx.is_empty() {
                see(dy, s, s.c_out, tiles.clone(), of_output);
                multiply(of_output, u, tiles.len(), (s.c_out, s.c_in), block, of_input);
                give(of_input, s, s.c_in, tiles, None, dx);
            }
        }
        if !dw.is_empty() {
            kernel_gradients(du, s, dw);
        }
    });
}

/// In each place, `m = v · u`.
fn multiply<T: Real>(v: &[T], u: &[T], tiles: usize, (c_in, c_out): (usize, usize), block: usize, m: &mut [T]) {
    for place in 0..PLACES {
        let v = matrix(&v[place * stride(block, c_in)..], c_in, 1);
        let u = matrix(&u[place * stride(c_in, c_out)..], c_out, 1);
        let m = &mut m[place * stride(block, c_out)..];
        tile_product((tiles, c_out, c_in), m, c_out, Store::Overwrite, T::ONE, v, u);
    }
}

// --- Transforms of images ----------------------------------------------------------------------------------------------

/// `Y = M X Mᵀ` for a matrix M that `map` applies to a column of `from` vectors: `load` gives the vectors of X by row and column,
/// `store` takes those of Y. Loops of constant length, which the compiler unrolls into registers.
macro_rules! on_both_axes {
    ($simd:ident, $map:ident $(($factor:expr))?, $from:literal => $to:literal,
     |$i:ident, $j:ident| $load:expr, |$k:ident, $l:ident, $value:ident| $store:expr) => {{
        let nothing = V::splat($simd, T::ZERO);
        let mut columns = [[nothing; $to]; $from];
        for ($j, mapped) in columns.iter_mut().enumerate() {
            let mut column = [nothing; $from];
            for ($i, to) in column.iter_mut().enumerate() {
                *to = $load;
            }
            *mapped = $map($($factor,)? column);
        }
        for $k in 0..$to {
            let mut row = [nothing; $from];
            for (to, column) in row.iter_mut().zip(&columns) {
                *to = column[$k];
            }
            for ($l, $value) in $map($($factor,)? row).into_iter().enumerate() {
                $store;
            }
        }
    }};
}
pub(super) use on_both_axes;

#[inline(always)]
pub(super) fn load<T: Real, S: Simd>(simd: S, x: &[T::Vector<S>], at: usize) -> V<T, S> {
    V::new(simd, x[at])
}

/// `Bᵀ d` for a column d; the last sign is that of [`give2`] and [`spread4`] too, so that nothing is negated.
#[inline(always)]
fn see4<T: Real, S: Simd>(d: [V<T, S>; 4]) -> [V<T, S>; 4] {
    [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[3] - d[1]]
}

/// `Aᵀ m` for a column m.
#[inline(always)]
fn give2<T: Real, S: Simd>(m: [V<T, S>; 4]) -> [V<T, S>; 2] {
    [m[0] + m[1] + m[2], m[1] - m[2] + m[3]]
}

/// `A y` for a column y.
#[inline(always)]
fn spread4<T: Real, S: Simd>(y: [V<T, S>; 2]) -> [V<T, S>; 4] {
    [y[0], y[0] + y[1], y[0] - y[1], y[1]]
}

/// `Bᵀ d B` of each tile's surroundings d, a matrix (tiles × channels) for each place.
fn see<T: Real>(x: &[T], s: Sizes, channels: usize, tiles: Range<usize>, v: &mut [T]) {
    vectors(See { x, s, channels, tiles, v });
}

struct See<'a, T> {
    x: &'a [T],
    s: Sizes,
    channels: usize,
    tiles: Range<usize>,
    v: &'a mut [T],
}

impl<T: Real> Vectorized for See<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (s, places) = (self.s, Planes::<T, S>::new(self.s.block(), self.channels));
        let (n, x, v) = (places.vectors, T::as_vectors::<S>(self.x), T::as_vectors_mut::<S>(self.v));
        let outside = vec![T::splat(simd, T::ZERO); n];
        for (at, tile) in self.tiles.enumerate() {
            let (image, row, col) = s.place(tile);
            let image = &x[image * s.height * s.width * n..][..s.height * s.width * n];
            // Rows and columns before the first wrap round to something large.
            let mut seen = [&outside[..n]; PLACES];
            for (i, seen) in seen.iter_mut().enumerate() {
                let (row, col) = ((row + i / 4).wrapping_sub(1), (col + i % 4).wrapping_sub(1));
                if row < s.height && col < s.width {
                    *seen = &image[(row * s.width + col) * n..][..n];
                }
            }
            for part in 0..n {
                on_both_axes!(
                    simd,
                    see4,
                    4 => 4,
                    |i, j| load::<T, S>(simd, seen[4 * i + j], part),
                    |k, l, value| v[places.at(4 * k + l, at, part)] = value.get()
                );
            }
        }
    }
}

/// Where the vectors of a place lie.
pub(super) struct Planes<T, S> {
    pub(super) vectors: usize,
    step: usize,
    of: std::marker::PhantomData<(T, S)>,
}

impl<T: Real, S: Simd> Planes<T, S> {
    #[inline(always)]
    pub(super) fn new(rows: usize, channels: usize) -> Self {
        let lanes = size_of::<T::Vector<S>>() / size_of::<T>();
        Self { vectors: channels / lanes, step: stride(rows, channels) / lanes, of: std::marker::PhantomData }
    }

    #[inline(always)]
    pub(super) fn at(&self, place: usize, row: usize, part: usize) -> usize {
        place * self.step + row * self.vectors + part
    }
}

/// `A dy Aᵀ` of each tile, a matrix (tiles × C_out) for each place.
fn spread<T: Real>(dy: &[T], s: Sizes, tiles: Range<usize>, dm: &mut [T]) {
    vectors(Spread { dy, s, tiles, dm });
}

struct Spread<'a, T> {
    dy: &'a [T],
    s: Sizes,
    tiles: Range<usize>,
    dm: &'a mut [T],
}

impl<T: Real> Vectorized for Spread<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (s, places) = (self.s, Planes::<T, S>::new(self.s.block(), self.s.c_out));
        let (n, dy, dm) = (places.vectors, T::as_vectors::<S>(self.dy), T::as_vectors_mut::<S>(self.dm));
        let outside = vec![T::splat(simd, T::ZERO); n];
        for (at, tile) in self.tiles.enumerate() {
            let (image, row, col) = s.place(tile);
            let image = &dy[image * s.height * s.width * n..][..s.height * s.width * n];
            let mut own = [&outside[..n]; 4];
            for (i, own) in own.iter_mut().enumerate() {
                let (row, col) = (row + i / 2, col + i % 2);
                if row < s.height && col < s.width {
                    *own = &image[(row * s.width + col) * n..][..n];
                }
            }
            for part in 0..n {
                on_both_axes!(
                    simd,
                    spread4,
                    2 => 4,
                    |i, j| load::<T, S>(simd, own[2 * i + j], part),
                    |k, l, value| dm[places.at(4 * k + l, at, part)] = value.get()
                );
            }
        }
    }
}

/// `Aᵀ m A` of each tile, plus the bias of its image.
fn give<'a, T: Real>(m: &[T], s: Sizes, channels: usize, tiles: Range<usize>, bias: Option<&dyn Fn(usize) -> &'a [T]>, y: &mut [T]) {
    vectors(Give { m, s, channels, tiles, bias, y });
}

struct Give<'a, 'b, T> {
    m: &'a [T],
    s: Sizes,
    channels: usize,
    tiles: Range<usize>,
    bias: Option<&'a dyn Fn(usize) -> &'b [T]>,
    y: &'a mut [T],
}

impl<T: Real> Vectorized for Give<'_, '_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (s, places) = (self.s, Planes::<T, S>::new(self.s.block(), self.channels));
        let (n, m, y) = (places.vectors, T::as_vectors::<S>(self.m), T::as_vectors_mut::<S>(self.y));
        let none = vec![T::splat(simd, T::ZERO); n];
        for (at, tile) in self.tiles.enumerate() {
            let (image, row, col) = s.place(tile);
            let bias = match self.bias {
                Some(bias) => T::as_vectors::<S>(bias(image)),
                None => &none,
            };
            let bias = &bias[..n];
            let (below, right) = (row + 1 < s.height, col + 1 < s.width);
            let first = ((image * s.height + row) * s.width + col) * n;
            for part in 0..n {
                let bias = V::<T, S>::new(simd, bias[part]);
                on_both_axes!(
                    simd,
                    give2,
                    4 => 2,
                    |i, j| load::<T, S>(simd, m, places.at(4 * i + j, at, part)),
                    |k, l, value| if (k == 0 || below) && (l == 0 || right) {
                        y[first + (k * s.width + l) * n + part] = (value + bias).get();
                    }
                );
            }
        }
    }
}

// --- Transforms of kernels ---------------------------------------------------------------------------------------------

/// `G g` for a column g.
#[inline(always)]
fn kernel4<T: Real, S: Simd>(half: V<T, S>, g: [V<T, S>; 3]) -> [V<T, S>; 4] {
    let outer = g[0] + g[2];
    [g[0], half * (outer + g[1]), half * (outer - g[1]), g[2]]
}

/// `Gᵀ u` for a column u.
#[inline(always)]
fn kernel3<T: Real, S: Simd>(half: V<T, S>, u: [V<T, S>; 4]) -> [V<T, S>; 3] {
    let sum = half * (u[1] + u[2]);
    [u[0] + sum, half * (u[1] - u[2]), sum + u[3]]
}

/// `G g Gᵀ` of every kernel, a matrix (C_in × C_out) for each place; `by_input` is room for as many numbers as `w` has.
fn kernels<T: Real>(w: &[T], s: Sizes, by_input: &mut [T], u: &mut [T]) {
    inputs_first(w, (s.c_in, s.c_out), by_input);
    vectors(Kernels { w: by_input, rows: s.c_in, cols: s.c_out, turn: false, u });
}

/// Kernels `[C_out, 9, C_in]` as `[C_in, 9, C_out]`, one tap after the other.
pub(super) fn inputs_first<T: Real>(w: &[T], (c_in, c_out): (usize, usize), by_input: &mut [T]) {
    for tap in 0..9 {
        turn((c_out, c_in), &w[tap * c_in..], 9 * c_in, &mut by_input[tap * c_out..], 9 * c_out);
    }
}

/// `G g Gᵀ` of every kernel turned half round, a matrix (C_out × C_in) for each place.
fn turned_kernels<T: Real>(w: &[T], s: Sizes, u: &mut [T]) {
    vectors(Kernels { w, rows: s.c_out, cols: s.c_in, turn: true, u });
}

/// Of kernels `[rows, 9, cols]`.
struct Kernels<'a, T> {
    w: &'a [T],
    rows: usize,
    cols: usize,
    turn: bool,
    u: &'a mut [T],
}

#[inline(always)]
fn tap(turn: bool, row: usize, tap: usize) -> usize {
    row * 9 + if turn { 8 - tap } else { tap }
}

impl<T: Real> Vectorized for Kernels<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (rows, places) = (self.rows, Planes::<T, S>::new(self.rows, self.cols));
        let n = places.vectors;
        let (w, turn) = (T::as_vectors::<S>(self.w), self.turn);
        let u = T::as_vectors_mut::<S>(self.u);
        let half = V::splat(simd, T::from_f64(0.5));
        for row in 0..rows {
            for part in 0..n {
                on_both_axes!(
                    simd,
                    kernel4(half),
                    3 => 4,
                    |i, j| load::<T, S>(simd, w, tap(turn, row, 3 * i + j) * n + part),
                    |k, l, value| u[places.at(4 * k + l, row, part)] = value.get()
                );
            }
        }
    }
}

/// `Gᵀ du G` of every kernel, from a matrix (C_out × C_in) for each place.
fn kernel_gradients<T: Real>(du: &[T], s: Sizes, dw: &mut [T]) {
    vectors(KernelGradients { du, rows: s.c_out, cols: s.c_in, dw });
}

struct KernelGradients<'a, T> {
    du: &'a [T],
    rows: usize,
    cols: usize,
    dw: &'a mut [T],
}

impl<T: Real> Vectorized for KernelGradients<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (rows, places) = (self.rows, Planes::<T, S>::new(self.rows, self.cols));
        let n = places.vectors;
        let (du, dw) = (T::as_vectors::<S>(self.du), T::as_vectors_mut::<S>(self.dw));
        let half = V::splat(simd, T::from_f64(0.5));
        for row in 0..rows {
            for part in 0..n {
                on_both_axes!(
                    simd,
                    kernel3(half),
                    4 => 3,
                    |i, j| load::<T, S>(simd, du, places.at(4 * i + j, row, part)),
                    |k, l, value| dw[(row * 9 + 3 * k + l) * n + part] = value.get()
                );
            }
        }
    }
}
