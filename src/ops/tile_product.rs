//! Products of matrices that are in cache already: a tile of the destination stays in registers while the sum runs.
//!
//! Nothing is packed, so the right factor has contiguous rows of a multiple of [`LANES`] numbers. Every element is one
//! chain of fused multiply-adds in the order of the sum, whatever the tile it falls into, so neither the instruction set
//! nor the number of rows changes a bit.

use super::kernel::{LANES, Matrix, Store};
use super::real::Real;

/// `dst ⟵ a · b` or `dst ⟵ dst + a · b`, where `a` is m × k, `b` is k × n with contiguous rows `b_row` apart, and `dst` has
/// rows `dst_row` apart; n is a multiple of [`LANES`].
///
/// # Panics
/// If a matrix reaches beyond its slice, or n is no multiple of [`LANES`].
pub(super) fn tile_product<T: Real>(
    (m, n, k): (usize, usize, usize),
    dst: &mut [T],
    dst_row: usize,
    store: Store,
    a: Matrix<'_, T>,
    b: &[T],
    b_row: usize,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * dst_row + n <= dst.len() && dst_row >= n, "a product's destination is too small");
    assert!(n.is_multiple_of(LANES) && k > 0, "a tile product of {m} × {n} × {k}");
    assert!((m - 1) * a.row + (k - 1) * a.col < a.data.len() && (k - 1) * b_row + n <= b.len(), "a factor is too small");
    let p = Operands { a: a.data.as_ptr(), a_row: a.row, a_col: a.col, b: b.as_ptr(), b_row, dst: dst.as_mut_ptr(), dst_row, k, store };
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
    dst: *mut T,
    dst_row: usize,
    k: usize,
    store: Store,
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
        if p.store == Store::Add {
            for i in 0..M {
                for v in 0..V {
                    sums[i][v] = *dst.add(i * p.dst_row + v * LANES).cast::<[T; LANES]>();
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
        for i in 0..M {
            for v in 0..V {
                *dst.add(i * p.dst_row + v * LANES).cast::<[T; LANES]>() = sums[i][v];
            }
        }
    }
}
