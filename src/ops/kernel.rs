//! What the operations share: access to storage, matrix products, and loops that sum in a fixed order.

use super::real::Real;
use super::tile_product::product_in_blocks;
use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};

/// Runs `$body` with `$T` standing for the number type of `$dtype`.
macro_rules! by_dtype {
    ($dtype:expr, $what:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => candle_core::bail!("{} works in f32 and f64, not {other:?}", $what),
        }
    };
}
pub(super) use by_dtype;

/// `n` numbers, whichever they are, for a result that is written whole: nobody clears them. In tests they are NaN, so that a
/// number which was not written shows.
pub(super) fn unspecified<T: Real>(n: usize) -> Vec<T> {
    let mut numbers: Vec<T> = Vec::with_capacity(n);
    // SAFETY: there is room for n numbers, and every bit pattern is one. For all the compiler knows the assembly, which is empty,
    // writes them.
    unsafe {
        std::arch::asm!("/* {0} */", in(reg) numbers.as_mut_ptr(), options(nostack, preserves_flags));
        numbers.set_len(n);
    }
    #[cfg(test)]
    numbers.fill(T::from_f64(f64::NAN));
    numbers
}

/// Numbers handled together in a loop; sums have this many partial sums on every instruction set.
pub(super) const LANES: usize = 16;

/// The numbers of a contiguous tensor.
pub(super) fn slice<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("an operation of this crate was given a tensor that is not contiguous: {layout:?}")
    };
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// Calls `f` with the numbers of contiguous tensors in host memory.
pub(super) fn with_slices<T: Real, R, const N: usize>(tensors: [&Tensor; N], f: impl FnOnce([&[T]; N]) -> Result<R>) -> Result<R> {
    let tensors = tensors.map(|t| t.contiguous());
    let mut held = Vec::with_capacity(N);
    for t in &tensors {
        match t {
            Ok(t) => held.push(t.storage_and_layout()),
            Err(e) => bail!("{e}"),
        }
    }
    let mut slices: [&[T]; N] = [&[]; N];
    for (to, (storage, layout)) in slices.iter_mut().zip(&held) {
        match &**storage {
            Storage::Cpu(s) => *to = slice(s, layout)?,
            _ => bail!("an operation's backward on the CPU was given a tensor of another device"),
        }
    }
    f(slices)
}

/// A matrix in memory: first element, distance between rows, distance between columns.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    pub(super) data: &'a [T],
    pub(super) row: usize,
    pub(super) col: usize,
}

/// A matrix whose rows lie `row` apart and whose columns lie `col` apart. Rows may overlap.
pub(super) fn matrix<T>(data: &[T], row: usize, col: usize) -> Matrix<'_, T> {
    Matrix { data, row, col }
}

/// What a product does with what is already in its destination.
#[derive(Clone, Copy)]
pub(super) enum Store<'a, T> {
    Overwrite,
    Add,
    /// Overwrites it with this row, below itself again and again, plus the product.
    Rows(&'a [T]),
}

/// `dst ⟵ scale · a · b` or `dst ⟵ dst + scale · a · b`, where `a` is m × k, `b` is k × n and `dst` has rows
/// `dst_row` apart, all on the calling thread.
///
/// # Panics
/// If a matrix reaches beyond its slice.
pub(super) fn product<T: Real>(
    (m, n, k): (usize, usize, usize),
    dst: &mut [T],
    dst_row: usize,
    store: Store<'_, T>,
    scale: T,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(reach(m, n, dst_row, 1) <= dst.len() && dst_row >= n, "a product's destination is too small");
    let rows = dst.chunks_mut(dst_row).take(m);
    if k == 0 {
        return match store {
            Store::Overwrite => rows.for_each(|row| row[..n].fill(T::ZERO)),
            Store::Add => {}
            Store::Rows(same) => rows.for_each(|row| row[..n].copy_from_slice(&same[..n])),
        };
    }
    assert!(reach(m, k, a.row, a.col) <= a.data.len() && reach(k, n, b.row, b.col) <= b.data.len(), "a factor is too small");
    let tiles = size_of::<T>() == 4 && crate::simd::has_512_bits();
    // A few columns are not worth a vector. (Where they go, the number of rows may decide the order of a sum.)
    if tiles && n >= LANES / 4 && (scale == T::ONE || matches!(store, Store::Overwrite)) {
        return product_in_blocks((m, n, k), dst, dst_row, store, scale, a, b);
    }
    if let Store::Rows(same) = store {
        rows.for_each(|row| row[..n].copy_from_slice(&same[..n]));
    }
    // SAFETY: every element the product reads lies inside the two slices, and every element it writes inside `dst`, a unique
    // borrow, as asserted; distinct (row, column) pairs of `dst` are distinct places, as dst_row >= n.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            dst_row as isize,
            !matches!(store, Store::Overwrite),
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            T::ONE,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The place after the last element.
fn reach(rows: usize, cols: usize, row: usize, col: usize) -> usize {
    (rows - 1) * row + (cols - 1) * col + 1
}

/// `N` consecutive numbers from `at`.
#[inline(always)]
pub(super) fn lanes<T: Real, const N: usize>(x: &[T], at: usize) -> &[T; N] {
    x[at..at + N].try_into().expect("the range has N elements")
}

#[inline(always)]
pub(super) fn lanes_mut<T: Real, const N: usize>(x: &mut [T], at: usize) -> &mut [T; N] {
    (&mut x[at..at + N]).try_into().expect("the range has N elements")
}

/// Copies a short row: a call of the library's copy takes longer than the copy.
#[inline(always)]
pub(super) fn copy_row<T: Real>(from: &[T], to: &mut [T]) {
    let n = to.len();
    let from = &from[..n];
    let mut at = 0;
    while at + LANES <= n {
        *lanes_mut::<T, LANES>(to, at) = *lanes::<T, LANES>(from, at);
        at += LANES;
    }
    while at < n {
        to[at] = from[at];
        at += 1;
    }
}

/// What [`column_sums`] adds up: K numbers for each element of a matrix with contiguous rows.
pub(super) trait Columns<T: Real, const K: usize> {
    /// The summands of elements `at .. at + N` of the whole array, which begin at column `col` of their row.
    fn terms<const N: usize>(&self, at: usize, col: usize) -> [[T; N]; K];
}

/// Sums over the rows of a `rows × cols` array, for each column and each of K summands: `out[k · cols + col]`.
/// Four interleaved partial sums, whatever the instruction set.
#[inline(always)]
pub(super) fn column_sums<T: Real, const K: usize>(rows: usize, cols: usize, out: &mut [T], columns: &impl Columns<T, K>) {
    let mut col = 0;
    while col + LANES <= cols {
        block_sums::<T, K, LANES>(rows, cols, col, out, columns);
        col += LANES;
    }
    while col < cols {
        block_sums::<T, K, 1>(rows, cols, col, out, columns);
        col += 1;
    }
}

#[inline(always)]
fn block_sums<T: Real, const K: usize, const N: usize>(rows: usize, cols: usize, col: usize, out: &mut [T], columns: &impl Columns<T, K>) {
    let mut sums = [[[T::ZERO; N]; K]; 4];
    let mut row = 0;
    while row + 4 <= rows {
        for (i, sum) in sums.iter_mut().enumerate() {
            add(sum, columns.terms::<N>((row + i) * cols + col, col));
        }
        row += 4;
    }
    while row < rows {
        add(&mut sums[row % 4], columns.terms::<N>(row * cols + col, col));
        row += 1;
    }
    for k in 0..K {
        for l in 0..N {
            out[k * cols + col + l] = (sums[0][k][l] + sums[1][k][l]) + (sums[2][k][l] + sums[3][k][l]);
        }
    }
}

#[inline(always)]
fn add<T: Real, const K: usize, const N: usize>(sum: &mut [[T; N]; K], terms: [[T; N]; K]) {
    for k in 0..K {
        for l in 0..N {
            sum[k][l] += terms[k][l];
        }
    }
}

/// The elements themselves, as summands.
pub(super) struct Plain<'a, T>(pub &'a [T]);

impl<T: Real> Columns<T, 1> for Plain<'_, T> {
    #[inline(always)]
    fn terms<const N: usize>(&self, at: usize, _col: usize) -> [[T; N]; 1] {
        [*lanes(self.0, at)]
    }
}

/// Column sums of a `rows × cols` array.
pub(super) fn sum_rows<T: Real>(x: &[T], rows: usize, cols: usize, out: &mut [T]) {
    crate::simd::dispatch(
        #[inline(always)]
        move || column_sums(rows, cols, out, &Plain(&x[..rows * cols])),
    );
}

/// Applies `f` to blocks of numbers from two arrays of equal length, writing a third.
#[inline(always)]
pub(super) fn map2<T: Real>(a: &[T], b: &[T], out: &mut [T], f: impl Fn(T, T) -> T) {
    let n = out.len();
    let (a, b) = (&a[..n], &b[..n]);
    let mut at = 0;
    while at + LANES <= n {
        let (x, y) = (lanes::<T, LANES>(a, at), lanes::<T, LANES>(b, at));
        let to = lanes_mut::<T, LANES>(out, at);
        for l in 0..LANES {
            to[l] = f(x[l], y[l]);
        }
        at += LANES;
    }
    while at < n {
        out[at] = f(a[at], b[at]);
        at += 1;
    }
}

/// `z · sigmoid(z)`.
#[inline(always)]
pub(super) fn silu_of<T: Real>(z: T) -> T {
    z / (T::ONE + (-z).exp())
}

/// The derivative of `z · sigmoid(z)`.
#[inline(always)]
pub(super) fn silu_slope<T: Real>(z: T) -> T {
    let s = T::ONE / (T::ONE + (-z).exp());
    s * z.fma(T::ONE - s, T::ONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_agree_with_the_definition_for_strided_factors() {
        let (m, n, k) = (5, 7, 3);
        let a: Vec<f64> = (0..m * k).map(|i| (i as f64).sin()).collect();
        let b: Vec<f64> = (0..n * k).map(|i| (i as f64).cos()).collect();
        let mut dst = vec![1.0; m * 9];
        // b is stored transposed, and dst has two spare columns.
        product((m, n, k), &mut dst, 9, Store::Add, 2.0, matrix(&a, k, 1), matrix(&b, 1, k));
        for i in 0..m {
            for j in 0..9 {
                let want: f64 = if j < n { 1.0 + 2.0 * (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum::<f64>() } else { 1.0 };
                assert!((dst[i * 9 + j] - want).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_sum_of_nothing_is_zero() {
        let mut dst = vec![1.0_f32; 5];
        product((2, 2, 0), &mut dst, 3, Store::Add, 1.0, matrix(&[], 1, 1), matrix(&[], 1, 1));
        assert_eq!(dst, [1.0; 5]);
        product((2, 2, 0), &mut dst, 3, Store::Overwrite, 1.0, matrix(&[], 1, 1), matrix(&[], 1, 1));
        assert_eq!(dst, [0.0, 0.0, 1.0, 0.0, 0.0]);
        product((2, 2, 0), &mut dst, 3, Store::Rows(&[2.0, 3.0]), 1.0, matrix(&[], 1, 1), matrix(&[], 1, 1));
        assert_eq!(dst, [2.0, 3.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    #[should_panic(expected = "a factor is too small")]
    fn a_product_never_reads_beyond_a_factor() {
        product((2, 2, 3), &mut [0.0_f32; 4], 2, Store::Overwrite, 1.0, matrix(&[0.0; 5], 3, 1), matrix(&[0.0; 6], 2, 1));
    }

    #[test]
    fn column_sums_take_every_row_and_column() {
        for (rows, cols) in [(1, 1), (3, 5), (7, 16), (10, 37)] {
            let x: Vec<f64> = (0..rows * cols).map(|i| i as f64).collect();
            let mut out = vec![-1.0; cols];
            sum_rows(&x, rows, cols, &mut out);
            for c in 0..cols {
                assert_eq!(out[c], (0..rows).map(|r| x[r * cols + c]).sum::<f64>());
            }
        }
    }
}
