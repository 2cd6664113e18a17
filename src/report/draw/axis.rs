//! An axis: a range, linear or logarithmic, with ticks that can be read.

use crate::report::text;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Linear,
    Log,
}

/// A mark on an axis; a minor one has no label.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    pub value: f64,
    pub label: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    pub scale: Scale,
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<Tick>,
}

impl Axis {
    /// A linear axis over `low..high` with about `target` ticks. An empty range is widened.
    pub fn linear(low: f64, high: f64, target: usize) -> Self {
        let (low, high) = widened(low, high);
        let step = nice_step((high - low) / target.max(1) as f64);
        let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
        let ticks = (first..=last)
            .map(|i| i as f64 * step)
            .map(|value| Tick { value, label: linear_label(value, step, low.abs().max(high.abs())) })
            .collect();
        Self { scale: Scale::Linear, low, high, ticks }
    }

    /// A logarithmic axis over a positive range: a label at each decade, at 2 and 5 too where there are few.
    pub fn log(low: f64, high: f64) -> Self {
        debug_assert!(low > 0.0 && high > 0.0, "a logarithm needs positive numbers");
        let (low, high) = if high > low * (1.0 + 1e-9) { (low, high) } else { (low / 1.5, high * 1.5) };
        let decades = (high / low).log10();
        let every = (decades / 8.0).ceil().max(1.0) as i32;
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let plain = low >= 0.0099 && high <= 99_999.0;
        let mut ticks = Vec::new();
        for exponent in first..=last {
            for digit in 1..10 {
                let value = f64::from(digit) * 10f64.powi(exponent);
                if value < low * (1.0 - 1e-9) || value > high * (1.0 + 1e-9) {
                    continue;
                }
                let labelled = match digit {
                    1 => exponent % every == 0,
                    2 | 5 => decades < 1.7,
                    3 | 7 => decades < 0.6,
                    _ => decades < 0.25,
                };
                if digit > 1 && !labelled && decades > 6.0 {
                    continue;
                }
                ticks.push(Tick { value, label: if labelled { log_label(digit, exponent, plain) } else { String::new() } });
            }
        }
        if ticks.iter().filter(|t| !t.label.is_empty()).count() < 2 {
            // A range within one decade and off its round numbers reads better with even steps.
            ticks = Self::linear(low, high, 4).ticks;
        }
        Self { scale: Scale::Log, low, high, ticks }
    }

    /// An axis for `values`, padded by `pad` of its length on both sides; non-finite values are left out, and on a
    /// logarithmic axis those that are not positive.
    pub fn around(values: impl IntoIterator<Item = f64>, scale: Scale, pad: f64, target: usize) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for v in values {
            if v.is_finite() && (scale == Scale::Linear || v > 0.0) {
                low = low.min(v);
                high = high.max(v);
            }
        }
        if low > high {
            (low, high) = if scale == Scale::Log { (0.1, 1.0) } else { (0.0, 1.0) };
        }
        match scale {
            Scale::Linear => {
                let (low, high) = widened(low, high);
                Self::linear(low - pad * (high - low), high + pad * (high - low), target)
            }
            Scale::Log => {
                let factor = (high / low).powf(pad);
                Self::log(low / factor, high * factor)
            }
        }
    }

    /// The same axis with its labels at `values`, where they are few enough to be read.
    pub fn labelled_at(mut self, values: &[f64]) -> Self {
        if (2..=9).contains(&values.len()) {
            self.ticks = values.iter().map(|v| Tick { value: *v, label: text::label(*v) }).collect();
        }
        self
    }

    /// Where `value` lies: 0 at the low end, 1 at the high end; `None` where the axis has no place for it.
    pub fn position(&self, value: f64) -> Option<f64> {
        if !value.is_finite() {
            return None;
        }
        match self.scale {
            Scale::Linear => Some((value - self.low) / (self.high - self.low)),
            Scale::Log if value > 0.0 => Some((value / self.low).ln() / (self.high / self.low).ln()),
            Scale::Log => None,
        }
    }
}

/// Logarithmic where all positive values span more than `ratio`, else linear.
pub fn scale_for(values: impl IntoIterator<Item = f64>, ratio: f64) -> Scale {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for v in values.into_iter().filter(|v| v.is_finite()) {
        low = low.min(v);
        high = high.max(v);
    }
    if low > 0.0 && high / low > ratio { Scale::Log } else { Scale::Linear }
}

/// Logarithmic where values chosen by hand are more evenly spaced on a logarithmic axis, as 1e-4, 3e-4, 1e-3 are.
pub fn scale_of_choices(values: &[f64]) -> Scale {
    let mut sorted: Vec<f64> = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    if sorted.len() < 2 || sorted[0] <= 0.0 {
        return Scale::Linear;
    }
    let span = sorted[sorted.len() - 1] / sorted[0];
    let unevenness = |f: fn(f64) -> f64| {
        let gaps: Vec<f64> = sorted.windows(2).map(|w| f(w[1]) - f(w[0])).collect();
        gaps.iter().copied().fold(0.0, f64::max) / gaps.iter().copied().fold(f64::INFINITY, f64::min)
    };
    if span > 10.0 || (span >= 4.0 && unevenness(f64::ln) < unevenness(|x| x)) { Scale::Log } else { Scale::Linear }
}

fn widened(low: f64, high: f64) -> (f64, f64) {
    if high - low > 1e-12 * low.abs().max(high.abs()) && high > low {
        return (low, high);
    }
    let by = if low == 0.0 { 0.5 } else { 0.05 * low.abs() };
    (low - by, high + by)
}

/// The smallest of 1, 2, 2.5, 5 × 10^k that is at least `rough`.
fn nice_step(rough: f64) -> f64 {
    let decade = 10f64.powf(rough.log10().floor());
    let lead = rough / decade;
    let nice = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|n| *n >= lead - 1e-9).unwrap_or(10.0);
    nice * decade
}

fn linear_label(value: f64, step: f64, largest: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if largest < 1e-3 {
        let exponent = largest.log10().floor() as i32;
        let mantissa = value / 10f64.powi(exponent);
        let decimals = if (step / 10f64.powi(exponent)) < 0.999 { 1 } else { 0 };
        return format!("{}×{}", text::fixed(mantissa, decimals), text::power_of_ten(exponent));
    }
    let mut decimals = (-step.log10().floor()).max(0.0) as usize;
    // 2.5 × 10^k needs one place more than its decade.
    let scaled = step * 10f64.powi(decimals as i32);
    if (scaled - scaled.round()).abs() > 1e-6 {
        decimals += 1;
    }
    if decimals == 0 { text::grouped(value.round() as i64) } else { text::fixed(value, decimals) }
}

fn log_label(digit: u32, exponent: i32, plain: bool) -> String {
    if plain || (digit == 1 && (0..=1).contains(&exponent)) {
        let value = f64::from(digit) * 10f64.powi(exponent);
        return if exponent >= 0 { text::grouped(value.round() as i64) } else { text::fixed(value, (-exponent) as usize) };
    }
    let power = text::power_of_ten(exponent);
    if digit == 1 { power } else { format!("{digit}×{power}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|t| t.label.as_str()).filter(|l| !l.is_empty()).collect()
    }

    #[test]
    fn linear_ticks_are_round_and_inside_the_range() {
        let axis = Axis::linear(-0.1, 1.03, 5);
        assert_eq!(labels(&axis), ["0", "0.25", "0.50", "0.75", "1.00"]);
        assert_eq!(labels(&Axis::linear(0.0, 40_000.0, 4)), ["0", "10\u{2009}000", "20\u{2009}000", "30\u{2009}000", "40\u{2009}000"]);
        assert_eq!(labels(&Axis::linear(-2.0, 2.0, 4)), ["−2", "−1", "0", "1", "2"]);
    }

    #[test]
    fn decades_are_labelled_with_superscripts_beyond_a_hundredth() {
        assert_eq!(labels(&Axis::log(1.0, 1000.0)), ["1", "10", "100", "1000"]);
        assert_eq!(labels(&Axis::log(1e-4, 0.5)), ["10⁻⁴", "10⁻³", "10⁻²", "10⁻¹"]);
        assert_eq!(labels(&Axis::log(2e-5, 2e-4)), ["2×10⁻⁵", "5×10⁻⁵", "10⁻⁴", "2×10⁻⁴"]);
        assert!(Axis::log(1e-12, 1e4).ticks.iter().filter(|t| !t.label.is_empty()).count() <= 9);
        assert!(labels(&Axis::log(3.1, 3.4)).len() >= 2);
    }

    #[test]
    fn choices_by_factors_get_a_logarithmic_axis_and_their_own_labels() {
        assert_eq!(scale_of_choices(&[50.0, 100.0, 200.0, 400.0]), Scale::Log);
        assert_eq!(scale_of_choices(&[1.0, 2.0, 3.0, 4.0, 5.0]), Scale::Linear);
        assert_eq!(scale_of_choices(&[0.0, 1.0, 10.0]), Scale::Linear);
        let axis = Axis::log(1e-5, 1e-3).labelled_at(&[1e-5, 3e-5, 1e-3]);
        assert_eq!(labels(&axis), ["10⁻⁵", "3×10⁻⁵", "10⁻³"]);
    }

    #[test]
    fn positions_run_from_zero_to_one_and_refuse_what_has_no_place() {
        let axis = Axis::log(1.0, 100.0);
        assert!((axis.position(10.0).unwrap() - 0.5).abs() < 1e-12);
        assert_eq!((axis.position(0.0), axis.position(-1.0), axis.position(f64::NAN)), (None, None, None));
        let flat = Axis::around([3.0, 3.0, f64::NAN], Scale::Linear, 0.05, 4);
        assert!(flat.low < 3.0 && flat.high > 3.0);
        let empty = Axis::around([f64::NAN], Scale::Log, 0.05, 4);
        assert!(empty.low > 0.0 && empty.high > empty.low);
    }
}
