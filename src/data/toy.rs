//! Points of the plane, drawn from [`Purpose::ToyData`](crate::rng::Purpose::ToyData) with a fixed seed.
//!
//! Start at [`splits`]. Each set is standardised per dimension by the exact mean and standard deviation of its
//! distribution (stated where it is drawn), not by those of the sample, so that its density is known.
//! Normals are the same bits everywhere; sines of f64 are rounded to f32, so other platforms' libraries agree as good as always.

use super::Examples;
use crate::named_enum;
use crate::rng::{self, Purpose, Stream};
use std::f64::consts::{PI, TAU};

pub(super) const TRAIN: usize = 10_000;
pub(super) const VAL: usize = 2_000;
pub(super) const TEST: usize = 2_000;

/// The seed of every toy set.
const SEED: u64 = 0xDA7A;

named_enum! {
    pub enum Toy {
        SwissRoll = "swiss_roll",
        TwoMoons = "two_moons",
        Checkerboard = "checkerboard",
        GaussianMixture = "gaussian_mixture",
        SwissRoll2015 = "swiss_roll_2015",
    }
}

impl Toy {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        crate::named::NamedEnum::from_name(name)
    }

    /// Where this toy's numbers lie; never reuse one.
    fn lane(self) -> u32 {
        match self {
            Toy::SwissRoll => 0,
            Toy::TwoMoons => 2,
            Toy::Checkerboard => 4,
            Toy::GaussianMixture => 6,
            // 8 is that of the heartbeat's phases.
            Toy::SwissRoll2015 => 10,
        }
    }
}

/// train, val and test: independent draws.
pub(super) fn splits(toy: Toy) -> [Examples; 3] {
    let split = |step, n: usize| {
        let base = rng::stream(SEED, Purpose::ToyData, step);
        let draw = Draw { uniform: base.lane(toy.lane()), normal: base.lane(toy.lane() + 1) };
        Examples::from_points((0..n as u32).flat_map(|i| draw.point(toy, i)).map(|v| v as f32).collect())
    };
    [split(0, TRAIN), split(1, VAL), split(2, TEST)]
}

/// Phases of the built-in heartbeat, uniform in `0..period`: those of train, val and test.
pub(super) fn phases(period: u32) -> [Vec<u32>; 3] {
    const LANE: u32 = 8;
    [(0, TRAIN), (1, VAL), (2, TEST)].map(|(step, n)| {
        let stream = rng::stream(SEED, Purpose::ToyData, step).lane(LANE);
        (0..n as u32).map(|i| stream.below(i, 0, period)).collect()
    })
}

struct Draw {
    uniform: Stream,
    normal: Stream,
}

impl Draw {
    fn point(&self, toy: Toy, i: u32) -> [f64; 2] {
        match toy {
            Toy::SwissRoll => swiss_roll(0.5, self.uniform.uniform(i, 0), self.noise(i)),
            Toy::SwissRoll2015 => swiss_roll(0.015, self.uniform.uniform(i, 0), self.noise(i)),
            Toy::TwoMoons => two_moons(self.uniform.below(i, 0, 2) == 1, self.uniform.uniform(i, 1), self.noise(i)),
            Toy::Checkerboard => checkerboard(self.uniform.below(i, 0, 8), [self.uniform.uniform(i, 1), self.uniform.uniform(i, 2)]),
            Toy::GaussianMixture => {
                let mixture = gaussian_mixture();
                let mean = mixture.means[self.uniform.below(i, 0, MODES as u32) as usize];
                let noise = self.noise(i);
                [mean[0] + mixture.std * noise[0], mean[1] + mixture.std * noise[1]]
            }
        }
    }

    fn noise(&self, i: u32) -> [f64; 2] {
        let mut z = [0.0f32; 2];
        self.normal.normals(i, &mut z);
        z.map(f64::from)
    }
}

fn standardise(point: [f64; 2], mean: [f64; 2], variance: [f64; 2]) -> [f64; 2] {
    [(point[0] - mean[0]) / variance[0].sqrt(), (point[1] - mean[1]) / variance[1].sqrt()]
}

/// scikit-learn's `make_swiss_roll` without its middle axis: θ uniform on [3π/2, 9π/2], (θ cos θ, θ sin θ) + `noise` · ε.
///
/// `swiss_roll` has noise 0.5, as is customary. [SohlDickstein15] scales a roll to variance 1 and states neither its noise nor
/// its first β, both of which bound what can be reached; its K = 2.35 bits a point leaves room for a noise of 0.0255 at most,
/// and forty steps need a thinner one. `swiss_roll_2015` has 0.015: differential entropy −3.118 bits a point, so no model has a
/// K above 3.118 (`tests/reference/swiss_roll.py`; the number of its forty steps is in `experiments/papers/sd15_swiss_roll.toml`).
///
/// With a = 3π/2, b = 9π/2: E x = (a + b)/3π = 2, E y = 2/3π, E θ² = 9.75 π², E x² = E θ²/2 − 1/4, E y² = E θ²/2 + 1/4.
fn swiss_roll(deviation: f64, u: f64, noise: [f64; 2]) -> [f64; 2] {
    let theta = 1.5 * PI * (1.0 + 2.0 * u);
    let mean = [2.0, 2.0 / (3.0 * PI)];
    let half_square = 4.875 * PI * PI;
    let variance =
        [half_square - 0.25 - mean[0] * mean[0] + deviation * deviation, half_square + 0.25 - mean[1] * mean[1] + deviation * deviation];
    standardise([theta * theta.cos() + deviation * noise[0], theta * theta.sin() + deviation * noise[1]], mean, variance)
}

/// scikit-learn's `make_moons` with noise 0.05 and uniform angles: θ uniform on [0, π], (cos θ, sin θ) or
/// (1 − cos θ, ½ − sin θ).
///
/// E x = ½, E y = ¼, Var x = ¾, Var y = 9/16 − 1/π, and the noise's variance on top.
fn two_moons(lower: bool, u: f64, noise: [f64; 2]) -> [f64; 2] {
    const NOISE: f64 = 0.05;
    let theta = PI * u;
    let [x, y] = if lower { [1.0 - theta.cos(), 0.5 - theta.sin()] } else { [theta.cos(), theta.sin()] };
    let variance = [0.75 + NOISE * NOISE, 0.5625 - 1.0 / PI + NOISE * NOISE];
    standardise([x + NOISE * noise[0], y + NOISE * noise[1]], [0.5, 0.25], variance)
}

/// Uniform on the eight squares of a 4 × 4 board on [-2, 2]² whose column plus row is even.
///
/// Each coordinate by itself is uniform on [-2, 2]: mean 0, variance 4/3.
fn checkerboard(square: u32, within: [f64; 2]) -> [f64; 2] {
    let column = square / 2;
    let row = 2 * (square % 2) + column % 2;
    let corner = [f64::from(column) - 2.0, f64::from(row) - 2.0];
    standardise([corner[0] + within[0], corner[1] + within[1]], [0.0; 2], [4.0 / 3.0; 2])
}

const MODES: usize = 8;

/// A mixture of Gaussians of one standard deviation in the plane.
#[derive(Clone, Debug, PartialEq)]
pub struct GaussianMixture {
    pub weights: [f64; MODES],
    pub means: [[f64; 2]; MODES],
    pub std: f64,
}

/// The distribution of the built-in `gaussian_mixture`, in the coordinates of its examples: eight equal Gaussians of
/// standard deviation ½ at every 45° of a circle of radius 4, divided by √(4²/2 + ½²) = √8.25, so that each dimension
/// has mean 0 and variance 1.
pub fn gaussian_mixture() -> GaussianMixture {
    let scale = 8.25f64.sqrt();
    let mean = |k: usize| {
        let (sin, cos) = (TAU * k as f64 / MODES as f64).sin_cos();
        [4.0 * cos / scale, 4.0 * sin / scale]
    };
    GaussianMixture { weights: [1.0 / MODES as f64; MODES], means: std::array::from_fn(mean), std: 0.5 / scale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::named::NamedEnum;

    fn points(e: &Examples) -> Vec<[f64; 2]> {
        let mut x = [0.0; 2];
        (0..e.len())
            .map(|i| {
                e.scaled(i, &mut x);
                x.map(f64::from)
            })
            .collect()
    }

    #[test]
    fn every_toy_has_mean_zero_and_variance_one_in_each_dimension() {
        for &toy in Toy::ALL {
            for split in splits(toy) {
                let p = points(&split);
                let n = p.len() as f64;
                for d in 0..2 {
                    let moment = |k: i32| p.iter().map(|x| x[d].powi(k)).sum::<f64>() / n;
                    // Five standard errors, from the sample's own fourth moment.
                    assert!(moment(1).abs() < 5.0 / n.sqrt(), "{toy} {d}: mean {}", moment(1));
                    let error = ((moment(4) - 1.0) / n).sqrt();
                    assert!((moment(2) - 1.0).abs() < 5.0 * error, "{toy} {d}: {} ± {error}", moment(2));
                }
            }
        }
    }

    #[test]
    fn stated_moments_are_those_of_the_formulas() {
        // The midpoint rule over the uniform variables; noise enters by its variance alone, so ±1 stands for it.
        let n = 20_000;
        let (mut rolls, mut thin) = (vec![], vec![]);
        let mut moons = vec![];
        for k in 0..n {
            let u = (f64::from(k) + 0.5) / f64::from(n);
            for noise in [[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]] {
                rolls.push(swiss_roll(0.5, u, noise));
                thin.push(swiss_roll(0.015, u, noise));
                moons.extend([two_moons(false, u, noise), two_moons(true, u, noise)]);
            }
        }
        for set in [rolls, thin, moons] {
            for d in 0..2 {
                let mean = set.iter().map(|p| p[d]).sum::<f64>() / set.len() as f64;
                let square = set.iter().map(|p| p[d] * p[d]).sum::<f64>() / set.len() as f64;
                assert!(mean.abs() < 1e-6 && (square - 1.0).abs() < 1e-6, "{mean} {square}");
            }
        }
    }

    #[test]
    fn checkerboard_points_lie_on_even_squares_and_fill_all_eight() {
        let [train, ..] = splits(Toy::Checkerboard);
        let mut counts = [[0usize; 4]; 4];
        for p in points(&train) {
            let [c, r] = p.map(|v| ((v * (4.0f64 / 3.0).sqrt() + 2.0).floor() as usize).min(3));
            counts[c][r] += 1;
        }
        for (c, column) in counts.iter().enumerate() {
            for (r, &n) in column.iter().enumerate() {
                if (c + r) % 2 == 0 {
                    assert!((1100..1400).contains(&n), "square {c},{r}: {n}");
                } else {
                    // Rounding to f32 may push a point of a border over it.
                    assert!(n <= 2, "square {c},{r}: {n}");
                }
            }
        }
    }

    #[test]
    fn mixture_points_lie_around_the_stated_means_with_the_stated_spread() {
        let mixture = gaussian_mixture();
        let [train, ..] = splits(Toy::GaussianMixture);
        let mut counts = [0usize; MODES];
        let mut square = 0.0;
        for p in points(&train) {
            let distance = |m: &[f64; 2]| (p[0] - m[0]).powi(2) + (p[1] - m[1]).powi(2);
            let nearest = (0..MODES).min_by(|&a, &b| distance(&mixture.means[a]).total_cmp(&distance(&mixture.means[b]))).unwrap();
            counts[nearest] += 1;
            square += distance(&mixture.means[nearest]);
        }
        assert!(counts.iter().all(|n| (1080..1420).contains(n)), "{counts:?}");
        // Half the squared distance to the mean estimates the variance; points nearer to a wrong mode are 0.2 % at most.
        let std = (square / (2.0 * TRAIN as f64)).sqrt();
        assert!((std / mixture.std - 1.0).abs() < 0.03, "{std} {}", mixture.std);
    }

    #[test]
    fn splits_and_toys_are_independent_draws_that_never_change() {
        let [train, val, test] = splits(Toy::SwissRoll);
        assert_ne!(points(&train)[..100], points(&val)[..100]);
        assert_ne!(points(&val), points(&test));
        let fingerprints: Vec<String> = Toy::ALL
            .iter()
            .map(|&t| {
                let [a, b, c] = splits(t);
                super::super::examples::fingerprint([&a, &b, &c])[..16].to_owned()
            })
            .collect();
        assert_eq!(fingerprints, FINGERPRINTS);
    }
    const FINGERPRINTS: [&str; 5] = ["dccd5b7525501ee8", "0f14265197f10151", "9267f8018562cfda", "d5a62bb9da576dee", "403afcecea4545fb"];
}
