//! The matrices of Winograd's method, each applied to one column of vectors.
//!
//! A tile of M outputs of a filter of three taps is the product of two polynomials, found from its values at N = M + 2 points
//! (Toom and Cook): G evaluates the filter, Aᵀ and Bᵀ are transposes of evaluating and interpolating, whose divisors are in G.
//! Which points is a matter of rounding alone. Relative to the result, as root mean squares in f32 with 64 channels: 2.9e-7
//! for the 0, ±1, ∞ of small tiles, 1.8e-6 for 0, ±1, ±2, ∞, the usual choice for large ones, 7.7e-7 for the
//! 0, ±5/8, ±3/2, ∞ here, and 4.1e-7 for the plain sum, taken in order. All but G is exact in binary.

use super::real::Real;
use crate::simd::{Simd, V};

/// `y = Aᵀ [(G g) ⊙ (Bᵀ d)]`: M outputs y of the three taps g over the N = M + 2 inputs d.
pub(super) trait Tiling<const M: usize, const N: usize> {
    /// `Bᵀ d`.
    fn see<T: Real, S: Simd>(d: [V<T, S>; N]) -> [V<T, S>; N];

    /// `Aᵀ m`.
    fn give<T: Real, S: Simd>(m: [V<T, S>; N]) -> [V<T, S>; M];

    /// `A y`.
    fn spread<T: Real, S: Simd>(y: [V<T, S>; M]) -> [V<T, S>; N];

    /// `G g`.
    fn kernel<T: Real, S: Simd>(g: [V<T, S>; 3]) -> [V<T, S>; N];

    /// `Gᵀ u`.
    fn kernel_gradient<T: Real, S: Simd>(u: [V<T, S>; N]) -> [V<T, S>; 3];
}

/// Tiles of 2: the points 0, 1, −1 and ∞.
pub(super) struct Small;

impl Tiling<2, 4> for Small {
    // The last sign is that of `give` and `spread` too, so that nothing is negated.
    #[inline(always)]
    fn see<T: Real, S: Simd>(d: [V<T, S>; 4]) -> [V<T, S>; 4] {
        [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[3] - d[1]]
    }

    #[inline(always)]
    fn give<T: Real, S: Simd>(m: [V<T, S>; 4]) -> [V<T, S>; 2] {
        [m[0] + m[1] + m[2], m[1] - m[2] + m[3]]
    }

    #[inline(always)]
    fn spread<T: Real, S: Simd>(y: [V<T, S>; 2]) -> [V<T, S>; 4] {
        [y[0], y[0] + y[1], y[0] - y[1], y[1]]
    }

    #[inline(always)]
    fn kernel<T: Real, S: Simd>(g: [V<T, S>; 3]) -> [V<T, S>; 4] {
        let (outer, half) = (g[0] + g[2], T::from_f64(0.5));
        [g[0], (outer + g[1]).scale(half), (outer - g[1]).scale(half), g[2]]
    }

    #[inline(always)]
    fn kernel_gradient<T: Real, S: Simd>(u: [V<T, S>; 4]) -> [V<T, S>; 3] {
        let half = T::from_f64(0.5);
        let sum = (u[1] + u[2]).scale(half);
        [u[0] + sum, (u[1] - u[2]).scale(half), sum + u[3]]
    }
}

/// Tiles of 4: the points 0, P, −P, Q, −Q and ∞.
pub(super) struct Large;

const P: f64 = 5.0 / 8.0;
const Q: f64 = 3.0 / 2.0;
/// One over the product of a point's differences from the others.
const AT_0: f64 = 1.0 / (P * P * Q * Q);
const AT_P: f64 = 1.0 / (2.0 * P * P * (P * P - Q * Q));
const AT_Q: f64 = 1.0 / (2.0 * Q * Q * (Q * Q - P * P));

impl Tiling<4, 6> for Large {
    // x (x² − P²) (x² − Q²) without the factor of each point in turn.
    #[inline(always)]
    fn see<T: Real, S: Simd>(d: [V<T, S>; 6]) -> [V<T, S>; 6] {
        let [p, q, pp, qq] = [P, Q, -P * P, -Q * Q].map(T::from_f64);
        let [product, sum] = [P * P * Q * Q, -(P * P + Q * Q)].map(T::from_f64);
        let (even_p, odd_p) = (d[2].fma(qq, d[4]), d[1].fma(qq, d[3]));
        let (even_q, odd_q) = (d[2].fma(pp, d[4]), d[1].fma(pp, d[3]));
        [
            d[0].fma(product, d[2].fma(sum, d[4])),
            odd_p.fma(p, even_p),
            odd_p.fma(-p, even_p),
            odd_q.fma(q, even_q),
            odd_q.fma(-q, even_q),
            d[1].fma(product, d[3].fma(sum, d[5])),
        ]
    }

    // Powers of the points.
    #[inline(always)]
    fn give<T: Real, S: Simd>(m: [V<T, S>; 6]) -> [V<T, S>; 4] {
        let [p, pp, ppp] = [P, P * P, P * P * P].map(T::from_f64);
        let [q, qq, qqq] = [Q, Q * Q, Q * Q * Q].map(T::from_f64);
        let (even_p, odd_p, even_q, odd_q) = (m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]);
        [m[0] + even_p + even_q, odd_q.fma(q, odd_p.scale(p)), even_q.fma(qq, even_p.scale(pp)), odd_q.fma(qqq, odd_p.fma(ppp, m[5]))]
    }

    #[inline(always)]
    fn spread<T: Real, S: Simd>(y: [V<T, S>; 4]) -> [V<T, S>; 6] {
        let [p, pp, q, qq] = [P, P * P, Q, Q * Q].map(T::from_f64);
        let (even_p, odd_p) = (y[2].fma(pp, y[0]), y[3].fma(pp, y[1]));
        let (even_q, odd_q) = (y[2].fma(qq, y[0]), y[3].fma(qq, y[1]));
        [y[0], odd_p.fma(p, even_p), odd_p.fma(-p, even_p), odd_q.fma(q, even_q), odd_q.fma(-q, even_q), y[3]]
    }

    #[inline(always)]
    fn kernel<T: Real, S: Simd>(g: [V<T, S>; 3]) -> [V<T, S>; 6] {
        let at = |point: f64, factor: f64| {
            let even = g[2].scale(T::from_f64(factor * point * point));
            (g[0].fma(T::from_f64(factor), even), T::from_f64(factor * point))
        };
        let ((even_p, p), (even_q, q)) = (at(P, AT_P), at(Q, AT_Q));
        [g[0].scale(T::from_f64(AT_0)), g[1].fma(p, even_p), g[1].fma(-p, even_p), g[1].fma(q, even_q), g[1].fma(-q, even_q), g[2]]
    }

    #[inline(always)]
    fn kernel_gradient<T: Real, S: Simd>(u: [V<T, S>; 6]) -> [V<T, S>; 3] {
        let (even_p, odd_p, even_q, odd_q) = (u[1] + u[2], u[1] - u[2], u[3] + u[4], u[3] - u[4]);
        let both = |power_p: f64, power_q: f64| [AT_P * power_p, AT_Q * power_q].map(T::from_f64);
        let [[p0, q0], [p1, q1], [p2, q2]] = [both(1.0, 1.0), both(P, Q), both(P * P, Q * Q)];
        [
            u[0].fma(T::from_f64(AT_0), even_q.fma(q0, even_p.scale(p0))),
            odd_q.fma(q1, odd_p.scale(p1)),
            even_q.fma(q2, even_p.fma(p2, u[5])),
        ]
    }
}
