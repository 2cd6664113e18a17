//! Products of matrices for those who have plain slices: closed-form denoisers and distances between many points.

use super::kernel::{self, Store, matrix};

/// `a · bᵀ` of `a` `[m, k]` and `b` `[n, k]`, both by rows: every dot product of a row of one with a row of the other.
///
/// # Panics
/// If the slices are too short.
pub fn dot_products((m, n, k): (usize, usize, usize), a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    kernel::product((m, n, k), &mut out, n, Store::Overwrite, 1.0, matrix(a, k, 1), matrix(b, 1, k));
    out
}

/// `a · b` of `a` `[m, k]` and `b` `[k, n]`, both by rows: sums of the rows of `b`, weighted by each row of `a`.
///
/// # Panics
/// If the slices are too short.
pub fn weighted_sums((m, n, k): (usize, usize, usize), a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    kernel::product((m, n, k), &mut out, n, Store::Overwrite, 1.0, matrix(a, k, 1), matrix(b, n, 1));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_definition() {
        let (m, n, k) = (3, 5, 4);
        let a: Vec<f64> = (0..m * k).map(|i| (i as f64).sin()).collect();
        let b: Vec<f64> = (0..n * k).map(|i| (i as f64 * 0.7).cos()).collect();
        let dots = dot_products((m, n, k), &a, &b);
        let sums = weighted_sums((m, n, k), &a, &b);
        for i in 0..m {
            for j in 0..n {
                let dot: f64 = (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum();
                let sum: f64 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                assert!((dots[i * n + j] - dot).abs() < 1e-14 && (sums[i * n + j] - sum).abs() < 1e-14);
            }
        }
        assert_eq!(dot_products((0, 5, 4), &[], &b), Vec::<f64>::new());
    }
}
