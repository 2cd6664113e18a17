//! Products of matrices: a tile of the destination stays in registers while the sum runs.
//!
//! [`tile_product`] packs nothing: it is for factors that are in cache already, the right one with contiguous rows of a
//! multiple of [`LANES`] numbers. [`product_in_blocks`] is for any others, and packs the right factor a panel at a time.
//! Every element is one chain of fused multiply-adds in the order of the sum, whatever the tile or block it falls into, so
//! neither the instruction set nor the number of rows changes a bit.

use super::kernel::{LANES, Matrix, Store, matrix};
use super::real::Real;
use super::turn::turn;

/// Numbers of a right factor that stays in the cache of a core while the rows of the left one pass.
const IN_CACHE: usize = 1 << 16;
/// Columns of a panel of the right factor, rows of a block of the left one, and how much of the sum is taken at a time: a
/// panel of 96 KB and a block of 600 KB.
const PANEL: usize = 4 * LANES;
const FEW_ROWS: usize = 12;
const ROWS: usize = 384;
const SUMMED: usize = 384;

/// `dst ⟵ scale · a · b`; with a `scale` of 1 also the other stores.
///
/// # Panics
/// As [`tile_product`].
pub(super) fn product_in_blocks<T: Real>(
    (m, n, k): (usize, usize, usize),
    dst: &mut [T],
    dst_row: usize,
    store: Store<'_, T>,
    scale: T,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
) {
    let mut first = 0;
    // Neither do a few rows pay for packing.
    if b.col == 1 && (k * b.row <= IN_CACHE || m <= FEW_ROWS) {
        first = n / LANES * LANES;
        tile_product((m, first, k), dst, dst_row, store, scale, a, b);
    }
    if first == n || m == 0 {
        return;
    }
    let rows_at_once = m.div_ceil(m.div_ceil(ROWS).max(1)).next_multiple_of(6);
    // What is left of the columns at the end is filled up to a vector, and computed aside.
    T::with_scratch(SUMMED.min(k) * PANEL + rows_at_once * LANES, |scratch| {
        let (panel, aside) = scratch.split_at_mut(SUMMED.min(k) * PANEL);
        for row in (0..m).step_by(rows_at_once) {
            let rows = rows_at_once.min(m - row);
            for at in (0..k).step_by(SUMMED) {
                let summed = SUMMED.min(k - at);
                let scale = if at + summed == k { scale } else { T::ONE };
                let a = matrix(&a.data[row * a.row + at * a.col..], a.row, a.col);
                let mut col = first;
                while col < n {
                    let (cols, left) = (PANEL.min((n - col) / LANES * LANES), n - col);
                    let store = match store {
                        _ if at > 0 => Store::Add,
                        Store::Rows(same) => Store::Rows(&same[col..]),
                        other => other,
                    };
                    let dst = &mut dst[row * dst_row + col..];
                    if cols > 0 {
                        pack(b, (at, summed), (col, cols), cols, panel);
                        tile_product((rows, cols, summed), dst, dst_row, store, scale, a, matrix(panel, cols, 1));
                        col += cols;
                    } else {
                        pack(b, (at, summed), (col, left), LANES, panel);
                        for (aside, dst) in aside.chunks_exact_mut(LANES).zip(dst.chunks(dst_row)).take(rows) {
                            match store {
                                Store::Overwrite => {}
                                Store::Add => aside[..left].copy_from_slice(&dst[..left]),
                                Store::Rows(same) => aside[..left].copy_from_slice(&same[..left]),
                            }
                        }
                        let store = if matches!(store, Store::Overwrite) { store } else { Store::Add };
                        tile_product((rows, LANES, summed), aside, LANES, store, scale, a, matrix(panel, LANES, 1));
                        for (aside, dst) in aside.chunks_exact(LANES).zip(dst.chunks_mut(dst_row)).take(rows) {
                            dst[..left].copy_from_slice(&aside[..left]);
                        }
                        col = n;
                    }
                }
            }
        }
    });
}

/// Some rows and columns of `b`, the rows `panel_row` apart.
fn pack<T: Real>(b: Matrix<'_, T>, (row, rows): (usize, usize), (col, cols): (usize, usize), panel_row: usize, panel: &mut [T]) {
    let from = &b.data[row * b.row + col * b.col..];
    if b.row == 1 && b.col != 1 {
        return turn((cols, rows), from, b.col, panel, panel_row);
    }
    for (i, to) in panel.chunks_exact_mut(panel_row).take(rows).enumerate() {
        if b.col == 1 {
            to[..cols].copy_from_slice(&from[i * b.row..][..cols]);
        } else {
            to[..cols].iter_mut().enumerate().for_each(|(j, to)| *to = from[i * b.row + j * b.col]);
        }
    }
}

/// `dst ⟵ scale · (start + a · b)`, where `start` is what `store` says, zero if it overwrites; `a` is m × k, `b` is k × n with
/// contiguous rows, and `dst` has rows `dst_row` apart; n is a multiple of [`LANES`].
///
/// # Panics
/// If a matrix reaches beyond its slice, or n is no multiple of [`LANES`].
pub(super) fn tile_product<T: Real>(
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
    assert!((m - 1) * dst_row + n <= dst.len() && dst_row >= n, "a product's destination is too small");
    assert!(n.is_multiple_of(LANES) && k > 0 && b.col == 1, "a tile product of {m} × {n} × {k}");
    assert!((m - 1) * a.row + (k - 1) * a.col < a.data.len() && (k - 1) * b.row + n <= b.data.len(), "a factor is too small");
    let to = dst.as_mut_ptr();
    let (start, start_row) = match store {
        Store::Overwrite => (std::ptr::null(), 0),
        Store::Add => (to.cast_const(), dst_row),
        Store::Rows(same) => {
            assert!(n <= same.len(), "a product's first row is too short");
            (same.as_ptr(), 0)
        }
    };
    let p = Operands {
        a: a.data.as_ptr(),
        a_row: a.row,
        a_col: a.col,
        b: b.data.as_ptr(),
        b_row: b.row,
        start,
        start_row,
        dst: to,
        dst_row,
        k,
        scale,
    };
    // SAFETY: every element the tiles read lies inside the two slices, and every one they write inside `dst`, a unique borrow,
    // as asserted above.
    crate::simd::dispatch(
        #[inline(always)]
        || unsafe {
            if crate::simd::has_512_bits() {
                // At most 24 of the 32 registers hold the tile.
                let n = columns::<T, 6, 4>(p, m, 0, n);
                let n = columns::<T, 8, 3>(p, m, n.0, n.1);
                let n = columns::<T, 12, 2>(p, m, n.0, n.1);
                columns::<T, 8, 1>(p, m, n.0, n.1);
            } else {
                // Two registers of 256 bits for every LANES numbers, 12 of 16 for the tile.
                columns::<T, 6, 1>(p, m, 0, n);
            }
        },
    );
}

#[derive(Clone, Copy)]
struct Operands<T> {
    a: *const T,
    a_row: usize,
    a_col: usize,
    b: *const T,
    b_row: usize,
    /// Null: zeros.
    start: *const T,
    start_row: usize,
    dst: *mut T,
    dst_row: usize,
    k: usize,
    scale: T,
}

/// The columns from `col` on, V · LANES at a time, while `left` of them are enough: the first column not done and how many
/// are left.
#[inline(always)]
unsafe fn columns<T: Real, const M: usize, const V: usize>(p: Operands<T>, m: usize, mut col: usize, mut left: usize) -> (usize, usize) {
    while left >= V * LANES {
        unsafe {
            let row = rows::<T, M, V>(p, m, 0, col);
            let row = rows::<T, 4, V>(p, m, row, col);
            let row = rows::<T, 2, V>(p, m, row, col);
            rows::<T, 1, V>(p, m, row, col);
        }
        col += V * LANES;
        left -= V * LANES;
    }
    (col, left)
}

/// Tiles of M rows from `row` on, while they fit; the first row not done.
#[inline(always)]
unsafe fn rows<T: Real, const M: usize, const V: usize>(p: Operands<T>, m: usize, mut row: usize, col: usize) -> usize {
    while row + M <= m {
        unsafe { tile::<T, M, V>(p, row, col) };
        row += M;
    }
    row
}

#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "the loops are the tile: rows and vectors that the compiler unrolls into registers")]
unsafe fn tile<T: Real, const M: usize, const V: usize>(p: Operands<T>, row: usize, col: usize) {
    unsafe {
        let (mut a, mut b) = (p.a.add(row * p.a_row), p.b.add(col));
        let dst = p.dst.add(row * p.dst_row + col);
        let mut sums = [[[T::ZERO; LANES]; V]; M];
        if !p.start.is_null() {
            let start = p.start.add(row * p.start_row + col);
            for i in 0..M {
                for v in 0..V {
                    sums[i][v] = *start.add(i * p.start_row + v * LANES).cast::<[T; LANES]>();
                }
            }
        }
        for _ in 0..p.k {
            let mut right = [[T::ZERO; LANES]; V];
            for v in 0..V {
                right[v] = *b.add(v * LANES).cast::<[T; LANES]>();
            }
            for i in 0..M {
                let left = *a.add(i * p.a_row);
                for v in 0..V {
                    for l in 0..LANES {
                        sums[i][v][l] = left.fma(right[v][l], sums[i][v][l]);
                    }
                }
            }
            // Past the end after the last round, where nothing is read.
            a = a.wrapping_add(p.a_col);
            b = b.wrapping_add(p.b_row);
        }
        if p.scale != T::ONE {
            for i in 0..M {
                for v in 0..V {
                    for l in 0..LANES {
                        sums[i][v][l] *= p.scale;
                    }
                }
            }
        }
        for i in 0..M {
            for v in 0..V {
                *dst.add(i * p.dst_row + v * LANES).cast::<[T; LANES]>() = sums[i][v];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{numbers, random};
    use super::*;

    #[test]
    fn every_element_is_one_chain_however_the_factors_lie() {
        // One block and several, in each direction, with columns left over and without; the right factor as it is, turned, spread,
        // and small enough to stay.
        for (m, n, k) in [(1, 16, 1), (13, 50, 17), (391, 81, 400), (25, 176, 770), (400, 17, 385), (7, 5, 3)] {
            let of = |len: usize, seed| numbers(&random(&[len], seed)).iter().map(|&x| x as f32).collect::<Vec<f32>>();
            let (a, b, row) = (of(2 * m * k, 1), of(3 * k * n, 2), of(n, 4));
            let before = of(m * (n + 2), 3);
            for (a_row, a_col) in [(k, 1), (1, m)] {
                for (b_row, b_col) in [(n, 1), (3 * n, 1), (1, k), (2, 2 * k)] {
                    for (store, scale) in [(Store::Overwrite, 0.3), (Store::Overwrite, 1.0), (Store::Add, 1.0), (Store::Rows(&row), 1.0)] {
                        let (mut got, mut want) = (before.clone(), before.clone());
                        product_in_blocks((m, n, k), &mut got, n + 2, store, scale, matrix(&a, a_row, a_col), matrix(&b, b_row, b_col));
                        for (i, line) in want.chunks_exact_mut(n + 2).enumerate() {
                            for (j, to) in line[..n].iter_mut().enumerate() {
                                let start = match store {
                                    Store::Overwrite => 0.0,
                                    Store::Add => *to,
                                    Store::Rows(same) => same[j],
                                };
                                let sum = |sum: f32, l: usize| a[i * a_row + l * a_col].mul_add(b[l * b_row + j * b_col], sum);
                                *to = (0..k).fold(start, sum) * scale;
                            }
                        }
                        assert!(got == want, "{m} × {n} × {k} with strides {a_row}, {a_col} and {b_row}, {b_col}");
                    }
                }
            }
        }
    }
}
