//! Hot loops at the processor's full width: a portable binary that uses AVX2 or AVX-512 where it finds them.
//!
//! Start at [`dispatch`]. Loops keep a fixed number of lanes and fuse only where they say so, so the instruction set
//! changes their speed and not their bits. Where the compiler does not make vectors of a loop by itself, [`vectors`] hands
//! it vectors: arithmetic on [`V`] works lane by lane, so the number of lanes changes no bit either.

use std::ops::{Add, Mul, Sub};

/// A processor's vectors.
pub use pulp::Simd;

/// Runs `f`, compiled for the best instruction set of this processor.
///
/// `f` must be `#[inline(always)]`, and so must be what it calls: only what is inlined here is compiled that way. The
/// bound is `FnMut` because calling a closure by value goes through a shim that the compiler does not inline.
#[inline(always)]
pub fn dispatch<R>(f: impl FnMut() -> R) -> R {
    pulp::Arch::new().dispatch(Call(f))
}

struct Call<F>(F);

impl<R, F: FnMut() -> R> pulp::NullaryFnOnce for Call<F> {
    type Output = R;

    #[inline(always)]
    fn call(mut self) -> R {
        (self.0)()
    }
}

/// Whether [`dispatch`] compiles for registers of 512 bits, of which there are 32.
#[inline(always)]
pub fn has_512_bits() -> bool {
    #[cfg(target_arch = "x86_64")]
    return matches!(pulp::Arch::new(), pulp::Arch::V4(_));
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// A loop over vectors.
pub trait Vectorized {
    /// Runs it; implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S);
}

/// Runs `f` with the vectors of the best instruction set of this processor.
#[inline(always)]
pub fn vectors(f: impl Vectorized) {
    pulp::Arch::new().dispatch(Run(f));
}

struct Run<F>(F);

impl<F: Vectorized> pulp::WithSimd for Run<F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.0.run(simd);
    }
}

/// A type of numbers that has vectors.
pub trait Lanes: Copy + 'static {
    type Vector<S: Simd>: Copy;

    /// Numbers as vectors; what is left over at the end is left out.
    fn as_vectors<S: Simd>(numbers: &[Self]) -> &[Self::Vector<S>];
    fn as_vectors_mut<S: Simd>(numbers: &mut [Self]) -> &mut [Self::Vector<S>];
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    fn add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn sub<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn mul<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a · b + c`, rounded once.
    fn fma<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;
}

macro_rules! lanes {
    ($t:ty, $vector:ident, $as:ident, $as_mut:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident, $fma:ident) => {
        impl Lanes for $t {
            type Vector<S: Simd> = S::$vector;

            #[inline(always)]
            fn as_vectors<S: Simd>(numbers: &[Self]) -> &[S::$vector] {
                S::$as(numbers).0
            }

            #[inline(always)]
            fn as_vectors_mut<S: Simd>(numbers: &mut [Self]) -> &mut [S::$vector] {
                S::$as_mut(numbers).0
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, x: Self) -> S::$vector {
                simd.$splat(x)
            }

            #[inline(always)]
            fn add<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }

            #[inline(always)]
            fn sub<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$sub(a, b)
            }

            #[inline(always)]
            fn mul<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$mul(a, b)
            }

            #[inline(always)]
            fn fma<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$fma(a, b, c)
            }
        }
    };
}

lanes!(f32, f32s, as_simd_f32s, as_mut_simd_f32s, splat_f32s, add_f32s, sub_f32s, mul_f32s, mul_add_f32s);
lanes!(f64, f64s, as_simd_f64s, as_mut_simd_f64s, splat_f64s, add_f64s, sub_f64s, mul_f64s, mul_add_f64s);

/// A vector to calculate with.
#[derive(Clone, Copy)]
pub struct V<T: Lanes, S: Simd>(S, T::Vector<S>);

impl<T: Lanes, S: Simd> V<T, S> {
    #[inline(always)]
    pub fn new(simd: S, vector: T::Vector<S>) -> Self {
        Self(simd, vector)
    }

    #[inline(always)]
    pub fn splat(simd: S, x: T) -> Self {
        Self(simd, T::splat(simd, x))
    }

    #[inline(always)]
    pub fn get(self) -> T::Vector<S> {
        self.1
    }

    #[inline(always)]
    pub fn scale(self, factor: T) -> Self {
        self * Self::splat(self.0, factor)
    }

    /// `self · factor + other`, rounded once.
    #[inline(always)]
    pub fn fma(self, factor: T, other: Self) -> Self {
        Self(self.0, T::fma(self.0, self.1, T::splat(self.0, factor), other.1))
    }
}

impl<T: Lanes, S: Simd> Add for V<T, S> {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0, T::add(self.0, self.1, other.1))
    }
}

impl<T: Lanes, S: Simd> Sub for V<T, S> {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(self.0, T::sub(self.0, self.1, other.1))
    }
}

impl<T: Lanes, S: Simd> Mul for V<T, S> {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(self.0, T::mul(self.0, self.1, other.1))
    }
}

/// Floating-point operations a second of fused multiply-adds in f32 on `threads` threads: what no kernel can exceed.
/// The best of several short measurements, each some tens of milliseconds.
pub fn peak_flops(threads: usize) -> f64 {
    const ROUNDS: usize = 2_000_000;
    let flops = |_| {
        let start = std::time::Instant::now();
        let per_round = std::thread::scope(|scope| {
            let busy: Vec<_> = (0..threads).map(|_| scope.spawn(|| pulp::Arch::new().dispatch(MultiplyAdds(ROUNDS)))).collect();
            busy.into_iter().map(|thread| thread.join().expect("multiplying does not panic")).sum::<f64>()
        });
        per_round * ROUNDS as f64 / start.elapsed().as_secs_f64()
    };
    (0..5).map(flops).fold(0.0, f64::max)
}

struct MultiplyAdds(usize);

impl pulp::WithSimd for MultiplyAdds {
    /// Operations of a round.
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        // Enough independent sums to hide the latency, few enough for 16 registers.
        const SUMS: usize = 12;
        let factor = std::hint::black_box(simd.splat_f32s(0.999));
        let mut sums = [simd.splat_f32s(1.0); SUMS];
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, factor);
            }
        }
        std::hint::black_box(sums);
        (2 * SUMS * size_of::<S::f32s>() / size_of::<f32>()) as f64
    }
}
