//! Statistics over seeds: means with Student-t intervals.
//!
//! Start at [`Interval::of`]. Every interval of a report is one of these: 95 %, two-sided, over n independent seeds.

use crate::record::Moments;
use std::sync::OnceLock;

/// Confidence of every interval.
pub const CONFIDENCE: f64 = 0.95;

/// A mean over `n` values with the half-width of its 95 % t-interval, which is NaN below two values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub n: usize,
    pub mean: f64,
    pub half: f64,
}

impl Interval {
    /// Values that are not finite are left out; `n` tells how many were used.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        let n = values.len();
        if n == 0 {
            return Self { n, mean: f64::NAN, half: f64::NAN };
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        if n == 1 {
            return Self { n, mean, half: f64::NAN };
        }
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
        Self { n, mean, half: t_quantile(n - 1) * (variance / n as f64).sqrt() }
    }

    pub fn low(&self) -> f64 {
        self.mean - self.half
    }

    pub fn high(&self) -> f64 {
        self.mean + self.half
    }

    /// Whether the interval exists and leaves out 0.
    pub fn excludes_zero(&self) -> bool {
        self.half.is_finite() && self.mean.abs() > self.half
    }

    /// How many values of the same spread would make the interval leave out 0; `None` where that cannot be said or
    /// takes more than 1000.
    pub fn needed_to_resolve(&self) -> Option<usize> {
        if !self.half.is_finite() || self.mean == 0.0 || self.n < 2 {
            return None;
        }
        let deviation = self.half * (self.n as f64).sqrt() / t_quantile(self.n - 1);
        (2..=1000).find(|&n| t_quantile(n - 1) * deviation / (n as f64).sqrt() < self.mean.abs())
    }

    /// How many seeds would resolve a difference that is not, in words; `None` where nothing can be said.
    pub fn seeds_to_resolve(&self) -> Option<String> {
        Some(match self.open_seeds()? {
            Some(n) => format!("about {n} seeds would resolve it at this spread"),
            None => "more than 1000 seeds would be needed at this spread".into(),
        })
    }

    /// The same for a table: `≈ 7`, `> 1000`.
    pub fn seeds_short(&self) -> Option<String> {
        Some(self.open_seeds()?.map_or("> 1000".into(), |n| format!("≈ {n}")))
    }

    /// [`needed_to_resolve`](Self::needed_to_resolve) of a difference that is not resolved and not 0.
    fn open_seeds(&self) -> Option<Option<usize>> {
        (self.half.is_finite() && self.mean != 0.0 && !self.excludes_zero()).then(|| self.needed_to_resolve())
    }
}

/// Two standard errors of one difference b − a of means over n units: of the pairs, and as it would be of two groups that
/// have nothing in common. The paired one is the smaller by what the two share: s²(b − a) = s²(a) + s²(b) − 2 cov(a, b).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedError {
    pub n: usize,
    pub paired: f64,
    pub unpaired: f64,
}

impl PairedError {
    /// Of pairs (a, b); `None` below two of them, or where a value is not finite.
    pub fn of(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<Self> {
        let (mut a, mut b, mut difference) = (Moments::default(), Moments::default(), Moments::default());
        for (x, y) in pairs {
            a.push(x);
            b.push(y);
            difference.push(y - x);
        }
        let (paired, unpaired) = (difference.standard_error(), a.standard_error().hypot(b.standard_error()));
        (paired.is_finite() && unpaired.is_finite()).then_some(Self { n: difference.n as usize, paired, unpaired })
    }
}

/// The 0.975 quantile of Student's t with `df` degrees of freedom.
///
/// For whole degrees of freedom the distribution has a closed form in θ = atan(t/√df)
/// [Abramowitz & Stegun 1964, 26.7.3 and 26.7.4], which is inverted by bisection to the last bit.
///
/// # Panics
/// If `df` is 0.
pub fn t_quantile(df: usize) -> f64 {
    // Every point of every curve of n seeds has the same one.
    static KNOWN: [OnceLock<f64>; 64] = [const { OnceLock::new() }; 64];
    KNOWN.get(df).map_or_else(|| solved(df), |known| *known.get_or_init(|| solved(df)))
}

fn solved(df: usize) -> f64 {
    assert!(df > 0, "a t distribution needs a degree of freedom");
    let (mut low, mut high) = (0.0, std::f64::consts::FRAC_PI_2);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if inside(middle, df) < CONFIDENCE {
            low = middle;
        } else {
            high = middle;
        }
    }
    (df as f64).sqrt() * (0.5 * (low + high)).tan()
}

/// P(|T| ≤ √df · tan θ).
fn inside(theta: f64, df: usize) -> f64 {
    let (sin, cos) = theta.sin_cos();
    let square = cos * cos;
    let odd = df % 2 == 1;
    // Even: 1 + 1/2 cos² + 1·3/(2·4) cos⁴ + … up to cos^(df−2). Odd: cos + 2/3 cos³ + 2·4/(3·5) cos⁵ + ….
    let (mut term, mut sum, mut power) = (if odd { cos } else { 1.0 }, 0.0, if odd { 1 } else { 0 });
    while power + 2 <= df {
        sum += term;
        power += 2;
        term *= square * (power - 1) as f64 / power as f64;
    }
    if odd { (theta + sin * sum) * std::f64::consts::FRAC_2_PI } else { sin * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        // scipy 1.11: scipy.stats.t.ppf(0.975, df)
        for (df, t) in [
            (1, 12.706_204_736),
            (2, 4.302_652_730),
            (3, 3.182_446_305),
            (4, 2.776_445_105),
            (5, 2.570_581_836),
            (9, 2.262_157_163),
            (10, 2.228_138_852),
            (30, 2.042_272_456),
            (100, 1.983_971_519),
            (1000, 1.962_339_081),
        ] {
            assert!((t_quantile(df) - t).abs() < 1e-8, "df {df}: {}", t_quantile(df));
        }
    }

    #[test]
    fn an_interval_is_the_textbook_one() {
        // mean 2, s = 1, n = 3: half = 4.3027 · 1/√3.
        let i = Interval::of([1.0, 2.0, 3.0]);
        assert!((i.mean - 2.0).abs() < 1e-15 && (i.half - 4.302_652_730 / 3f64.sqrt()).abs() < 1e-8);
        assert!(!i.excludes_zero());
        assert!(Interval::of([1.0, 1.1, 0.9]).excludes_zero());
    }

    #[test]
    fn a_paired_error_is_that_of_the_differences_and_the_unpaired_one_adds_the_variances() {
        let e = PairedError::of([(1.0, 12.0), (2.0, 12.0), (3.0, 15.0)]).unwrap();
        // s²(b − a) of 11, 10, 12 is 1; s²(a) = 1, s²(b) of 12, 12, 15 is 3.
        assert_eq!(e.n, 3);
        assert!((e.paired - (1.0f64 / 3.0).sqrt()).abs() < 1e-15 && (e.unpaired - (4.0f64 / 3.0).sqrt()).abs() < 1e-15, "{e:?}");
        // What both have in full leaves nothing, and what they have against each other doubles.
        let same = PairedError::of([(1.0, 3.0), (2.0, 4.0), (6.0, 8.0)]).unwrap();
        assert!(same.paired == 0.0 && same.unpaired > 1.0, "{same:?}");
        let against = PairedError::of([(1.0, -1.0), (2.0, -2.0), (3.0, -3.0)]).unwrap();
        assert!((against.paired / against.unpaired - 2f64.sqrt()).abs() < 1e-12, "{against:?}");
        assert_eq!(PairedError::of([(1.0, 2.0)]), None);
        assert_eq!(PairedError::of([(1.0, 2.0), (f64::NAN, 2.0)]), None);
    }

    #[test]
    fn one_value_has_no_interval_and_nan_is_not_counted() {
        let one = Interval::of([5.0, f64::NAN, f64::INFINITY]);
        assert_eq!((one.n, one.mean), (1, 5.0));
        assert!(one.half.is_nan() && !one.excludes_zero());
        assert!(Interval::of([]).mean.is_nan());
    }

    #[test]
    fn more_seeds_are_asked_for_when_the_spread_is_wide() {
        let wide = Interval::of([1.0, 2.0, 0.0]);
        let n = wide.needed_to_resolve().unwrap();
        // s = 1 and mean = 1: t(n−1)/√n < 1 first at n = 7 (2.447/2.646).
        assert_eq!(n, 7);
        assert_eq!(wide.seeds_to_resolve().unwrap(), "about 7 seeds would resolve it at this spread");
        assert_eq!(wide.seeds_short().unwrap(), "≈ 7");
        assert_eq!(Interval::of([1.0]).needed_to_resolve(), None);
        let hopeless = Interval::of([1.001, -1.0]).seeds_to_resolve().unwrap();
        assert!(hopeless.starts_with("more than 1000 seeds"), "{hopeless}");
        for nothing_to_say in [vec![1.0], vec![1.0, 1.1, 0.9], vec![0.0, 0.0]] {
            assert_eq!(Interval::of(nothing_to_say).seeds_to_resolve(), None);
        }
    }
}
