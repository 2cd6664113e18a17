//! Matrices with rows and columns exchanged.

use super::kernel::LANES;
use super::real::Real;

/// Writes the `rows × cols` matrix whose rows begin `from_row` apart in `from` as a `cols × rows` matrix whose rows begin
/// `to_row` apart in `to`.
///
/// # Panics
/// If a matrix reaches beyond its slice.
pub(super) fn turn<T: Real>((rows, cols): (usize, usize), from: &[T], from_row: usize, to: &mut [T], to_row: usize) {
    if rows == 0 || cols == 0 {
        return;
    }
    assert!((rows - 1) * from_row + cols <= from.len() && (cols - 1) * to_row + rows <= to.len(), "a matrix to turn is too small");
    let in_registers = size_of::<T>() == size_of::<f32>() && crate::simd::has_512_bits();
    for row in (0..rows).step_by(LANES) {
        for col in (0..cols).step_by(LANES) {
            let (height, width) = (LANES.min(rows - row), LANES.min(cols - col));
            let (from, to) = (&from[row * from_row + col..], &mut to[col * to_row + row..]);
            #[cfg(target_arch = "x86_64")]
            if in_registers && height == LANES && width == LANES {
                // SAFETY: a type of this size is f32; both blocks lie inside their slices, as asserted above, and the processor
                // has the registers.
                unsafe { turn_block(from.as_ptr().cast(), from_row, to.as_mut_ptr().cast(), to_row) };
                continue;
            }
            let _ = in_registers;
            for j in 0..width {
                for (i, to) in to[j * to_row..][..height].iter_mut().enumerate() {
                    *to = from[i * from_row + j];
                }
            }
        }
    }
}

/// A 16 × 16 block, in four rounds of exchanges between registers: of single numbers, pairs, fours and eights.
///
/// # Safety
/// 16 rows of 16 numbers, `from_row` and `to_row` apart, can be read and written.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn turn_block(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
    use std::arch::x86_64::{
        __m512, _mm512_castpd_ps, _mm512_castps_pd, _mm512_loadu_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_storeu_ps,
        _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };
    let mut rows: [__m512; 16] = [_mm512_setzero_ps(); 16];
    for (i, row) in rows.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *row = unsafe { _mm512_loadu_ps(from.add(i * from_row)) };
    }
    let mut next = rows;
    for i in 0..8 {
        let (a, b) = (rows[2 * i], rows[2 * i + 1]);
        (next[2 * i], next[2 * i + 1]) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    }
    for i in 0..4 {
        for (j, low) in [(0, true), (0, false), (1, true), (1, false)].into_iter().enumerate() {
            let (a, b) = (_mm512_castps_pd(next[4 * i + low.0]), _mm512_castps_pd(next[4 * i + 2 + low.0]));
            rows[4 * i + j] = _mm512_castpd_ps(if low.1 { _mm512_unpacklo_pd(a, b) } else { _mm512_unpackhi_pd(a, b) });
        }
    }
    for half in [0, 8] {
        for i in 0..4 {
            let (a, b) = (rows[half + i], rows[half + 4 + i]);
            next[half + i] = _mm512_shuffle_f32x4::<0x88>(a, b);
            next[half + 4 + i] = _mm512_shuffle_f32x4::<0xdd>(a, b);
        }
    }
    for i in 0..8 {
        let (a, b) = (next[i], next[8 + i]);
        rows[i] = _mm512_shuffle_f32x4::<0x88>(a, b);
        rows[8 + i] = _mm512_shuffle_f32x4::<0xdd>(a, b);
    }
    for (i, row) in rows.into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(to.add(i * to_row), row) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Real>(rows: usize, cols: usize) {
        let (from_row, to_row) = (cols + 3, rows + 2);
        let from: Vec<T> = (0..rows * from_row).map(|i| T::from_f64(i as f64)).collect();
        let mut to = vec![T::from_f64(-1.0); cols * to_row];
        turn((rows, cols), &from, from_row, &mut to, to_row);
        for (at, &number) in to.iter().enumerate() {
            let (col, row) = (at / to_row, at % to_row);
            let want = if row < rows { (row * from_row + col) as f64 } else { -1.0 };
            assert!(number.to_f64() == want, "{number} at row {row}, column {col} of {rows} × {cols}");
        }
    }

    #[test]
    fn every_number_finds_its_place_and_no_other() {
        for (rows, cols) in [(1, 1), (16, 16), (32, 48), (17, 40), (5, 16), (16, 33)] {
            check::<f32>(rows, cols);
            check::<f64>(rows, cols);
        }
    }
}
