//! How far samples are from held-out data, without a network that someone else trained: the sliced Wasserstein distance and
//! the kernel MMD, on the numbers themselves.
//!
//! Start at [`measure`]. Directions come from the evaluation's own stream and kernel widths from the held-out data, so all
//! runs on the same data are measured alike. Neither number means anything across data sets.

use crate::ops::dot_products;
use crate::record::{Moments, SampleQuality};
use crate::rng::{self, Purpose};
use rayon::prelude::*;

/// Directions of the sliced distance.
const DIRECTIONS: usize = 256;
/// Groups of its jackknife.
const GROUPS: usize = 10;
/// Examples of each side that are looked at.
pub const MOST: usize = 2000;

/// Compares `samples` with `data` (D numbers each, at most [`MOST`] of either are looked at); `reference` are other examples of
/// the data's own distribution, as many as there are samples, and show what perfect samples would have. `None` where one
/// of them has fewer than three.
pub fn measure(samples: &[f32], data: &[f32], reference: &[f32], dims: usize) -> Option<SampleQuality> {
    let [samples, data, reference] = [samples, data, reference].map(|x| Points::new(&x[..x.len().min(MOST * dims)], dims));
    if samples.count < 3 || data.count < 3 || reference.count < 3 {
        return None;
    }
    let directions = directions(dims);
    let (distance, error) = sliced_wasserstein(&samples, &data, &directions);
    let (of_data, _) = sliced_wasserstein(&reference, &data, &directions);
    let (mmd2, mmd2_se) = mmd2(&samples, &data);
    Some(SampleQuality {
        samples: samples.count as u32,
        data: data.count as u32,
        sliced_wasserstein: distance,
        sliced_wasserstein_se: error,
        sliced_wasserstein_of_data: of_data,
        mmd2,
        mmd2_se,
    })
}

/// Examples as rows of `f64`.
struct Points {
    values: Vec<f64>,
    squares: Vec<f64>,
    count: usize,
    dims: usize,
}

impl Points {
    fn new(x: &[f32], dims: usize) -> Self {
        let values: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let squares = values.chunks_exact(dims).map(|row| row.iter().map(|x| x * x).sum()).collect();
        Self { count: values.len() / dims, values, squares, dims }
    }

    /// ‖x_i − y_j‖² of row `i` with every row of `other`.
    fn distances_from(&self, i: usize, other: &Points) -> Vec<f64> {
        let row = &self.values[i * self.dims..(i + 1) * self.dims];
        let dots = dot_products((1, other.count, self.dims), row, &other.values);
        dots.iter().zip(&other.squares).map(|(dot, square)| (self.squares[i] - 2.0 * dot + square).max(0.0)).collect()
    }
}

/// At least [`DIRECTIONS`] uniform directions, orthogonal to each other in blocks of up to D: over a whole block a shift d has
/// the mean squared projection ‖d‖²/D exactly, whatever its direction. By rows.
fn directions(dims: usize) -> Vec<f64> {
    let stream = rng::stream(rng::EVALUATION_SEED, Purpose::Projection, 0);
    let block = dims.min(DIRECTIONS);
    let count = DIRECTIONS.div_ceil(block) * block;
    let mut out: Vec<f64> = Vec::with_capacity(count * dims);
    let mut normal = vec![0.0f32; dims];
    for i in 0..count {
        stream.normals(i as u32, &mut normal);
        let mut direction: Vec<f64> = normal.iter().map(|&x| f64::from(x)).collect();
        // Gram and Schmidt, twice, so that nearly parallel draws end up orthogonal too.
        for _ in 0..2 {
            for other in out[(i - i % block) * dims..].chunks_exact(dims) {
                let dot: f64 = direction.iter().zip(other).map(|(a, b)| a * b).sum();
                direction.iter_mut().zip(other).for_each(|(a, b)| *a -= dot * b);
            }
        }
        let norm = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
        out.extend(direction.iter().map(|x| x / norm));
    }
    out
}

/// √(mean over directions θ of W_2²(θ·x, θ·y)), and its standard error: a jackknife that leaves out a tenth of both sides at
/// a time, the directions being fixed.
///
/// Divided by nothing: for data in D dimensions that a shift d separates it is ‖d‖/√D, the shift of a typical element. It is
/// biased upwards in finite samples, alike for all runs with as many.
fn sliced_wasserstein(x: &Points, y: &Points, directions: &[f64]) -> (f64, f64) {
    // Per direction: the whole, then without each group.
    let per_direction: Vec<Vec<f64>> = directions
        .par_chunks_exact(x.dims)
        .map(|direction| {
            let sorted = |p: &Points| {
                let mut projected: Vec<(f64, usize)> = dot_products((1, p.count, p.dims), direction, &p.values)
                    .into_iter()
                    .enumerate()
                    .map(|(i, v)| (v, i % GROUPS))
                    .collect();
                projected.sort_by(|a, b| a.0.total_cmp(&b.0));
                projected
            };
            let (a, b) = (sorted(x), sorted(y));
            let values = |p: &[(f64, usize)], without: Option<usize>| -> Vec<f64> {
                p.iter().filter(|(_, group)| Some(*group) != without).map(|(v, _)| *v).collect()
            };
            std::iter::once(None).chain((0..GROUPS).map(Some)).map(|g| wasserstein2(&values(&a, g), &values(&b, g))).collect()
        })
        .collect();
    let distance = |g: usize| (per_direction.iter().map(|d| d[g]).sum::<f64>() / per_direction.len() as f64).sqrt();
    let mut left_out = Moments::default();
    (1..=GROUPS).for_each(|g| left_out.push(distance(g)));
    let groups = GROUPS as f64;
    (distance(0), ((groups - 1.0) / groups * left_out.m2).sqrt())
}

/// W_2² between two sorted samples of the line: ∫ (F⁻¹ − G⁻¹)².
fn wasserstein2(a: &[f64], b: &[f64]) -> f64 {
    let (n, m) = (a.len() as u64, b.len() as u64);
    if n == 0 || m == 0 {
        return f64::NAN;
    }
    // In units of 1/(nm) the quantile functions step at multiples of m and of n.
    let (mut i, mut j, mut at, mut sum) = (0u64, 0u64, 0u64, 0.0);
    while i < n && j < m {
        let next = ((i + 1) * m).min((j + 1) * n);
        sum += (next - at) as f64 * (a[i as usize] - b[j as usize]).powi(2);
        at = next;
        i += u64::from(next == (i + 1) * m);
        j += u64::from(next == (j + 1) * n);
    }
    sum / (n * m) as f64
}

/// The unbiased estimate of MMD² [Gretton12, Eq. 3] and its standard error, by a jackknife over either side (which errs on
/// the large side, the more so where MMD is near 0). The kernel is the mean of five Gaussians of widths ¼ to 4 times the median
/// distance between held-out examples.
fn mmd2(x: &Points, y: &Points) -> (f64, f64) {
    let width = median_distance(y);
    let kernel = |square: f64| {
        // The widest; each narrower one by a factor of two is its fourth power.
        let mut k = (-square / (2.0 * (4.0 * width).powi(2))).exp();
        let mut sum = k;
        for _ in 0..4 {
            k *= k;
            k *= k;
            sum += k;
        }
        sum / 5.0
    };
    // Row sums of the kernel: without the diagonal inside a set.
    let rows = |a: &Points, b: &Points, inside: bool| -> Vec<f64> {
        (0..a.count)
            .into_par_iter()
            .map(|i| a.distances_from(i, b).into_iter().enumerate().filter(|(j, _)| !inside || *j != i).map(|(_, d)| kernel(d)).sum())
            .collect()
    };
    let (xx, yy, xy, yx) = (rows(x, x, true), rows(y, y, true), rows(x, y, false), rows(y, x, false));
    let (m, n) = (x.count as f64, y.count as f64);
    let total = |rows: &[f64]| rows.iter().sum::<f64>();
    let (sxx, syy, sxy) = (total(&xx), total(&yy), total(&xy));
    let value = |sxx: f64, m: f64, syy: f64, n: f64, sxy: f64| sxx / (m * (m - 1.0)) + syy / (n * (n - 1.0)) - 2.0 * sxy / (m * n);
    let (mut without_x, mut without_y) = (Moments::default(), Moments::default());
    xx.iter().zip(&xy).for_each(|(inside, cross)| without_x.push(value(sxx - 2.0 * inside, m - 1.0, syy, n, sxy - cross)));
    yy.iter().zip(&yx).for_each(|(inside, cross)| without_y.push(value(sxx, m, syy - 2.0 * inside, n - 1.0, sxy - cross)));
    let variance = (m - 1.0) / m * without_x.m2 + (n - 1.0) / n * without_y.m2;
    (value(sxx, m, syy, n, sxy), variance.sqrt())
}

/// The median distance between two examples, of those that differ; 1 where none do.
fn median_distance(points: &Points) -> f64 {
    let mut squares: Vec<f64> = (0..points.count)
        .into_par_iter()
        .flat_map_iter(|i| points.distances_from(i, points).into_iter().take(i))
        // What the subtraction of equal rows leaves is no distance.
        .filter(|d| *d > 1e-9)
        .collect();
    if squares.is_empty() {
        return 1.0;
    }
    let middle = squares.len() / 2;
    squares.select_nth_unstable_by(middle, f64::total_cmp).1.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` points from N(mean, deviation² I).
    fn gaussian(seed: u64, count: usize, dims: usize, mean: f32, deviation: f32) -> Vec<f32> {
        let mut x = vec![0.0; count * dims];
        rng::stream(seed, Purpose::ToyData, 0).normals(0, &mut x);
        x.iter_mut().for_each(|x| *x = mean + deviation * *x);
        x
    }

    #[test]
    fn wasserstein_on_the_line_is_that_of_the_quantile_functions() {
        assert_eq!(wasserstein2(&[0.0, 1.0], &[0.0, 1.0]), 0.0);
        assert_eq!(wasserstein2(&[0.0], &[1.0, 3.0]), 5.0);
        // Thirds against halves: 1/3 · (0 − 0)² + 1/6 · (1 − 0)² + 1/6 · (1 − 4)² + 1/3 · (2 − 4)².
        assert!((wasserstein2(&[0.0, 1.0, 2.0], &[0.0, 4.0]) - (1.0 / 6.0 + 9.0 / 6.0 + 4.0 / 3.0)).abs() < 1e-15);
        assert!(wasserstein2(&[], &[1.0]).is_nan());
    }

    #[test]
    fn directions_are_orthonormal_in_blocks() {
        for (dims, count) in [(1, 256), (5, 260), (64, 256), (300, 256)] {
            let all = directions(dims);
            assert_eq!(all.len(), count * dims);
            let block = &all[..dims.min(DIRECTIONS) * dims];
            for (i, a) in block.chunks_exact(dims).enumerate() {
                for (j, b) in block.chunks_exact(dims).enumerate() {
                    let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12, "{dims}: {i} {j} {dot}");
                }
            }
        }
    }

    #[test]
    fn gaussians_have_their_closed_form_distance() {
        for (dims, shift, deviation) in [(2, 1.5, 1.0), (16, 0.8, 1.0), (16, 0.0, 2.0), (5, 0.5, 0.5)] {
            let (x, y) = (gaussian(1, 2000, dims, shift, deviation), gaussian(2, 2000, dims, 0.0, 1.0));
            let q = measure(&x, &y, &gaussian(3, 2000, dims, 0.0, 1.0), dims).unwrap();
            // W_2² between N(a, s² I) and N(b, t² I) is ‖a − b‖² + D (s − t)²; sliced, each by D.
            let exact = f64::from(shift * shift + (deviation - 1.0) * (deviation - 1.0)).sqrt();
            let z = (q.sliced_wasserstein - exact) / q.sliced_wasserstein_se;
            assert!(q.sliced_wasserstein_se < 0.05 && z.abs() < 4.0, "{dims} {shift} {deviation}: {exact}, {q:?}");
            assert!(q.sliced_wasserstein_of_data < 0.08, "{q:?}");
        }
    }

    #[test]
    fn mmd_is_unbiased_where_distributions_agree_and_knows_its_error() {
        let (mut values, mut errors) = (Moments::default(), Moments::default());
        for i in 0..300u64 {
            let (value, error) =
                mmd2(&Points::new(&gaussian(10 + i, 30, 3, 0.0, 1.0), 3), &Points::new(&gaussian(1000 + i, 40, 3, 0.0, 1.0), 3));
            values.push(value);
            errors.push(error * error);
        }
        assert!((values.mean / values.standard_error()).abs() < 3.0, "{values:?}");
        assert!(values.mean.abs() < 0.002 && values.variance() > 1e-6, "a biased estimate would be about 0.03: {values:?}");
        let ratio = errors.mean / values.variance();
        assert!((0.9..4.0).contains(&ratio), "claimed variance over the true one: {ratio}");

        let (mut values, mut errors) = (Moments::default(), Moments::default());
        for i in 0..200u64 {
            let (value, error) =
                mmd2(&Points::new(&gaussian(10 + i, 60, 3, 0.8, 1.0), 3), &Points::new(&gaussian(1000 + i, 60, 3, 0.0, 1.0), 3));
            values.push(value);
            errors.push(error * error);
        }
        let ratio = errors.mean / values.variance();
        assert!((0.7..1.6).contains(&ratio), "away from 0 the claimed variance is the true one: {ratio}");
    }

    #[test]
    fn mmd_of_three_points_is_what_the_definition_says() {
        let x = Points::new(&[0.0, 1.0, 0.5], 1);
        let y = Points::new(&[0.0, 1.0, 2.0], 1);
        let k = |d: f64| [0.25, 0.5, 1.0, 2.0, 4.0].iter().map(|c| (-d * d / (2.0 * c * c)).exp()).sum::<f64>() / 5.0;
        // The median distance of y is 1.
        let xx = (k(1.0) + k(0.5) + k(0.5)) / 3.0;
        let yy = (k(1.0) + k(2.0) + k(1.0)) / 3.0;
        let xy = (k(0.0) + k(1.0) + k(2.0) + k(1.0) + k(0.0) + k(1.0) + k(0.5) + k(0.5) + k(1.5)) / 9.0;
        assert!((mmd2(&x, &y).0 - (xx + yy - 2.0 * xy)).abs() < 1e-14);
    }

    #[test]
    fn both_rise_with_a_shift_and_neither_depends_on_threads() {
        let data = gaussian(2, 400, 8, 0.0, 1.0);
        let reference = gaussian(3, 100, 8, 0.0, 1.0);
        let all: Vec<SampleQuality> =
            (0..5).map(|k| measure(&gaussian(1, 100, 8, 0.25 * k as f32, 1.0), &data, &reference, 8).unwrap()).collect();
        assert!(all.windows(2).all(|p| p[0].sliced_wasserstein < p[1].sliced_wasserstein && p[0].mmd2 < p[1].mmd2), "{all:?}");
        assert!(all[0].mmd2.abs() < 3.0 * all[0].mmd2_se && all[4].mmd2 > 10.0 * all[4].mmd2_se, "{all:?}");
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(alone.install(|| measure(&gaussian(1, 100, 8, 0.0, 1.0), &data, &reference, 8)), Some(all[0].clone()));
        assert_eq!(measure(&data[..16], &data, &reference, 8), None, "two samples are too few");
    }
}
