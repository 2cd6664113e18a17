//! The two number types of the kernels: f32 for work, f64 for checking gradients.

use candle_core::WithDType;
use std::cell::RefCell;

/// A floating-point type the kernels are compiled for.
pub(super) trait Real: crate::simd::Lanes + WithDType + std::ops::Neg<Output = Self> {
    const ZERO: Self;
    const ONE: Self;

    /// `self · a + b`, rounded once.
    fn fma(self, a: Self, b: Self) -> Self;

    fn exp(self) -> Self;

    /// The same numbers, if this is their type.
    fn of_f32(numbers: &mut [f32]) -> Option<&mut [Self]>;

    /// Lends this thread's buffer of at least `len` numbers. It holds what the last borrower left; a borrow inside a
    /// borrow gets a buffer of its own.
    fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [Self]) -> R) -> R;
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        self.mul_add(a, b)
    }

    #[inline(always)]
    fn exp(self) -> Self {
        exp_f32(self)
    }

    fn of_f32(numbers: &mut [f32]) -> Option<&mut [f32]> {
        Some(numbers)
    }

    fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [Self]) -> R) -> R {
        thread_local!(static BUFFERS: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) });
        lend(&BUFFERS, len, f)
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        self.mul_add(a, b)
    }

    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }

    fn of_f32(_: &mut [f32]) -> Option<&mut [f64]> {
        None
    }

    fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [Self]) -> R) -> R {
        thread_local!(static BUFFERS: RefCell<Vec<Vec<f64>>> = const { RefCell::new(Vec::new()) });
        lend(&BUFFERS, len, f)
    }
}

/// The buffers that nobody has borrowed lie on a pile: a borrow takes the top, and puts it back.
fn lend<T: Real, R>(buffers: &'static std::thread::LocalKey<RefCell<Vec<Vec<T>>>>, len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    let mut taken = buffers.with_borrow_mut(Vec::pop).unwrap_or_default();
    if taken.len() < len {
        taken.resize(len, T::ZERO);
    }
    let result = f(&mut taken[..len]);
    buffers.with_borrow_mut(|buffers| buffers.push(taken));
    result
}

/// `e^x` to about 1 ulp over the whole range, subnormal results included (Cephes `expf`, in fused multiply-adds).
#[inline(always)]
fn exp_f32(x: f32) -> f32 {
    // Beyond these the result is 0 or infinity; NaN passes both comparisons and stays NaN.
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    // Adding 1.5 · 2^23 leaves the nearest integer to x / ln 2 in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let power = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let p = 1.987_569_1e-4_f32
        .mul_add(r, 1.398_2e-3)
        .mul_add(r, 8.333_452e-3)
        .mul_add(r, 4.166_579_6e-2)
        .mul_add(r, 1.666_666_5e-1)
        .mul_add(r, 0.5);
    let y = p.mul_add(r * r, r) + 1.0;
    // 2^power in two factors, so that neither leaves the normal range.
    let half = power >> 1;
    y * two_to(half) * two_to(power.wrapping_sub(half))
}

#[inline(always)]
fn two_to(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_accurate_everywhere() {
        let mut worst = 0.0_f64;
        for i in 0..2_000_000 {
            let x = -87.0 + 175.5 * (i as f32 / 2e6);
            let (got, want) = (f64::from(exp_f32(x)), f64::from(x).exp());
            worst = worst.max((got / want - 1.0).abs());
        }
        assert!(worst < 1.5e-7, "{worst}");
        for x in [-1000.0, -120.0, -103.9, -100.0, -95.5, -88.0, 0.0, 88.7, 89.0, 1e9, f32::INFINITY, f32::NEG_INFINITY] {
            let (got, want) = (exp_f32(x), f64::from(x).exp() as f32);
            assert!(got == want || (got - want).abs() <= 1.5e-7 * want + 2e-45, "exp({x}) = {got}, not {want}");
        }
        assert!(exp_f32(f32::NAN).is_nan());
    }

    #[test]
    fn a_scratch_buffer_inside_another_is_its_own() {
        f32::with_scratch(4, |outer| {
            outer.fill(1.0);
            f32::with_scratch(4, |inner| inner.fill(2.0));
            assert_eq!(outer, [1.0; 4]);
        });
    }
}
