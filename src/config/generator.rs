//! Numbers by rule: `{ linspace = [a, b], num = n }`, `{ logspace = [a, b], num = n }`, `{ range = [a, b], step = s }`.
//!
//! Start at [`is_one`] and [`Rule::numbers`], a pure function. Numbers are rounded to twelve digits, so that a rule that
//! passes through 0.001 gives the run that somebody wrote as 1e-3.

use super::error::Place;
use super::keys::KeySpec;
use super::run::RunConfig;
use super::suggest;
use super::sweep_file::{Assignment, Reader, Written, listed, to_value};
use std::ops::Range;
use toml::Value;
use toml::de::DeTable;

const RULES: [&str; 3] = ["linspace", "logspace", "range"];
/// Digits that are kept.
const DIGITS: i32 = 12;
/// More values than this are a slip of the pen.
const MOST: f64 = 10_000.0;

/// Whether a table is meant as a rule.
pub fn is_one(table: &DeTable<'_>) -> bool {
    RULES.iter().any(|rule| table.contains_key(*rule))
}

/// A number of a rule: whole where all that it comes from is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Whole(i64),
    Real(f64),
}

impl Number {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(i) => Some(Self::Whole(*i)),
            Value::Float(x) if x.is_finite() => Some(Self::Real(*x)),
            _ => None,
        }
    }

    pub fn real(self) -> f64 {
        match self {
            Self::Whole(i) => i as f64,
            Self::Real(x) => x,
        }
    }

    /// The whole number that it is.
    pub fn whole(self) -> Option<i64> {
        match self {
            Self::Whole(i) => Some(i),
            Self::Real(x) => (x.fract() == 0.0 && x.abs() < 1e15).then_some(x as i64),
        }
    }
}

/// A rule for numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// `num` numbers at equal distances, both ends among them.
    Linear { from: Number, to: Number, num: usize },
    /// `num` numbers at equal ratios, both ends among them: the ends themselves, not their logarithms.
    Logarithmic { from: Number, to: Number, num: usize },
    /// From `from` on by `step`, as far as `to` is not reached.
    Range { from: Number, to: Number, step: Number },
}

impl Rule {
    /// The numbers, at least one.
    ///
    /// # Errors
    /// Why there are none: what is wrong, and a line of help.
    pub fn numbers(self) -> Result<Vec<Number>, (String, String)> {
        let refuse = |message: &str, help: &str| Err((message.to_owned(), help.to_owned()));
        match self {
            Self::Linear { num, .. } | Self::Logarithmic { num, .. } if num < 2 => refuse("fewer than the two ends", "num = 2 or more"),
            Self::Linear { num, .. } | Self::Logarithmic { num, .. } if num as f64 > MOST => refuse("too many values", "at most 10000"),
            Self::Linear { from, to, num } => {
                let (a, b) = (from.real(), to.real());
                let inner = (1..num - 1).map(|i| Number::Real(rounded(a + (b - a) * (i as f64 / (num - 1) as f64), a.abs().max(b.abs()))));
                Ok([from].into_iter().chain(inner).chain([to]).collect())
            }
            Self::Logarithmic { from, to, num } => {
                let (a, b) = (from.real(), to.real());
                if a <= 0.0 || b <= 0.0 {
                    return refuse(
                        "a logspace lies above 0",
                        "its ends are the values themselves, not their logarithms: logspace = [1e-5, 1e-2], not [-5, -2]",
                    );
                }
                let inner = (1..num - 1).map(|i| {
                    let x = (a.ln() + (b.ln() - a.ln()) * (i as f64 / (num - 1) as f64)).exp();
                    Number::Real(rounded(x, x))
                });
                Ok([from].into_iter().chain(inner).chain([to]).collect())
            }
            Self::Range { from, to, step } => {
                if step.real() == 0.0 {
                    return refuse("a step of 0 never arrives", "a step towards the end of the range");
                }
                if let (Number::Whole(a), Number::Whole(b), Number::Whole(s)) = (from, to, step) {
                    let count = (i128::from(b) - i128::from(a) + i128::from(s) - i128::from(s.signum())) / i128::from(s);
                    return match count {
                        ..=0 => refuse("an empty range", "the end is not among the values, and the step leads towards it"),
                        n if n as f64 > MOST => refuse("too many values", "at most 10000"),
                        n => Ok((0..n as i64).map(|i| Number::Whole(a + i * s)).collect()),
                    };
                }
                let (a, b, s) = (from.real(), to.real(), step.real());
                // An end that only rounding keeps from being reached is reached.
                let count = ((b - a) / s - 1e-9).ceil();
                match count {
                    n if n < 1.0 || n.is_nan() => {
                        refuse("an empty range", "the end is not among the values, and the step leads towards it")
                    }
                    n if n > MOST => refuse("too many values", "at most 10000"),
                    n => Ok((0..n as i64).map(|i| Number::Real(rounded(a + i as f64 * s, a.abs().max(b.abs())))).collect()),
                }
            }
        }
    }
}

/// `x` to twelve digits of a number as large as `scale`.
fn rounded(x: f64, scale: f64) -> f64 {
    if scale == 0.0 || !x.is_finite() {
        return x;
    }
    let last = scale.log10().floor() as i32 + 1 - DIGITS;
    // Through the decimal spelling: the nearest double of a short decimal, as a parser reads it.
    match format!("{:.0}e{last}", x / 10_f64.powi(last)).parse::<f64>() {
        Ok(y) if y.is_finite() => y + 0.0,
        _ => x,
    }
}

impl Reader<'_> {
    /// The numbers of a rule; `None` where it is none, which has been told.
    pub(super) fn generated(&mut self, what: &str, table: &DeTable<'_>, span: Range<usize>) -> Option<Vec<Number>> {
        const HELP: &str = "{ linspace = [a, b], num = n }, { logspace = [a, b], num = n } or { range = [a, b], step = s }";
        let Some(rule) = RULES.into_iter().find(|rule| table.contains_key(*rule)) else {
            self.fault(format!("`{what}` is a table here, but no rule for values"), span, "not a rule", Some(HELP.to_owned()));
            return None;
        };
        let second = if rule == "range" { "step" } else { "num" };
        if let Some((key, _)) = table.iter().find(|(key, _)| ![rule, second].contains(&key.get_ref().as_ref())) {
            let name: &str = key.get_ref();
            let near = suggest::nearest(name, [second].into_iter()).map(|near| format!("did you mean `{near}`?"));
            let help = near.unwrap_or_else(|| format!("a {rule} has {}", listed(&[rule, second])));
            self.fault(format!("unknown key `{name}` in a {rule}"), key.span(), "no such key", Some(help));
            return None;
        }
        let ends = table.get(rule)?;
        let numbers: Vec<Number> = ends
            .get_ref()
            .as_array()
            .map(|items| items.iter().filter_map(|item| Number::of(&to_value(item.get_ref()).ok()?)).collect())
            .unwrap_or_default();
        let &[from, to] = numbers.as_slice() else {
            self.fault(format!("a {rule} goes from one number to another"), ends.span(), "must be [a, b]", Some(HELP.to_owned()));
            return None;
        };
        let given = table.get(second).map(|value| (value.span(), Number::of(&to_value(value.get_ref()).unwrap_or(Value::Boolean(false)))));
        let rule = match (rule, &given) {
            ("range", None) => Rule::Range { from, to, step: Number::Whole(1) },
            ("range", Some((_, Some(step)))) => Rule::Range { from, to, step: *step },
            (_, Some((_, Some(Number::Whole(num @ 0..))))) => {
                let num = usize::try_from(*num).unwrap_or(usize::MAX);
                if rule == "linspace" { Rule::Linear { from, to, num } } else { Rule::Logarithmic { from, to, num } }
            }
            (_, None) => {
                self.fault(format!("a {rule} needs `num`, the number of its values"), span, "no `num`", Some(HELP.to_owned()));
                return None;
            }
            (_, Some((span, _))) => {
                let allowed = if second == "step" { "must be a number" } else { "must be a whole number, at least 2" };
                self.fault(format!("`{second}` of a {rule} {allowed}"), span.clone(), allowed, Some(HELP.to_owned()));
                return None;
            }
        };
        match rule.numbers() {
            Ok(numbers) => Some(numbers),
            Err((message, help)) => {
                let span = if message.contains("logspace") || given.is_none() { ends.span() } else { given.map_or(span, |(span, _)| span) };
                self.fault(format!("`{what}`: {message}"), span, "gives no values", Some(help));
                None
            }
        }
    }

    /// [`generated`](Self::generated) for a key of a run.
    pub(super) fn generated_for(
        &mut self,
        spec: &'static KeySpec<RunConfig>,
        table: &DeTable<'_>,
        span: Range<usize>,
    ) -> Option<Vec<Assignment>> {
        let place: Place = self.place(span.clone());
        let numbers = self.generated(spec.key, table, span.clone())?;
        let mut taken = Vec::with_capacity(numbers.len());
        for number in &numbers {
            let whole = number.whole().map(Value::Integer);
            let value = whole.into_iter().chain([Value::Float(number.real())]).find_map(|v| spec.normalise(&mut self.scratch, &v).ok());
            match value {
                Some(value) => taken.push(Assignment { key: spec, written: Written { value, place: place.clone() } }),
                None => {
                    let allowed = (spec.allowed)();
                    let help = (allowed.contains("whole number") && number.whole().is_none()).then(|| {
                        let near: Vec<String> = numbers.iter().map(|n| format!("{:.0}", n.real())).collect();
                        if near.len() <= 20 {
                            format!("write the nearest whole numbers out: [{}]", near.join(", "))
                        } else {
                            "choose a rule that gives whole numbers".to_owned()
                        }
                    });
                    let message = format!("`{}` cannot be {}, which this rule gives", spec.key, number.real());
                    self.fault(message, span, &format!("must be {allowed}"), help);
                    return None;
                }
            }
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reals(rule: Rule) -> Vec<f64> {
        rule.numbers().unwrap().into_iter().map(Number::real).collect()
    }

    #[test]
    fn rules_give_the_numbers_one_would_write() {
        let (w, r) = (Number::Whole, Number::Real);
        assert_eq!(reals(Rule::Logarithmic { from: r(1e-5), to: r(1e-2), num: 4 }), [1e-5, 1e-4, 1e-3, 1e-2]);
        assert_eq!(reals(Rule::Logarithmic { from: w(1000), to: r(0.1), num: 5 }), [1000.0, 100.0, 10.0, 1.0, 0.1]);
        assert_eq!(reals(Rule::Linear { from: w(0), to: w(1), num: 11 }), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]);
        assert_eq!(reals(Rule::Linear { from: r(-0.3), to: r(0.3), num: 7 }), [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3]);
        assert_eq!(reals(Rule::Range { from: r(0.1), to: r(0.5), step: r(0.1) }), [0.1, 0.2, 0.3, 0.4]);
        assert_eq!(Rule::Range { from: w(0), to: w(5), step: w(2) }.numbers().unwrap(), [w(0), w(2), w(4)]);
        assert_eq!(Rule::Range { from: w(0), to: w(6), step: w(2) }.numbers().unwrap(), [w(0), w(2), w(4)]);
        assert_eq!(Rule::Range { from: w(3), to: w(0), step: w(-1) }.numbers().unwrap(), [w(3), w(2), w(1)]);
    }

    #[test]
    fn rules_that_give_nothing_say_why() {
        let (w, r) = (Number::Whole, Number::Real);
        for (rule, why) in [
            (Rule::Linear { from: w(0), to: w(1), num: 1 }, "two ends"),
            (Rule::Linear { from: w(0), to: w(1), num: 1_000_000 }, "too many"),
            (Rule::Logarithmic { from: w(-5), to: w(-2), num: 4 }, "above 0"),
            (Rule::Range { from: w(0), to: w(5), step: w(0) }, "never arrives"),
            (Rule::Range { from: w(0), to: w(5), step: w(-1) }, "empty"),
            (Rule::Range { from: r(1.0), to: r(1.0), step: r(0.5) }, "empty"),
            (Rule::Range { from: w(i64::MIN), to: w(i64::MAX), step: w(1) }, "too many"),
        ] {
            assert!(rule.numbers().unwrap_err().0.contains(why), "{rule:?}");
        }
    }

    proptest! {
        #[test]
        fn a_rule_keeps_its_ends_its_count_and_its_order(a in -1e6..1e6_f64, d in 1e-3..1e6_f64, num in 2_usize..60) {
            let (from, to) = (Number::Real(a), Number::Real(a + d));
            let x = reals(Rule::Linear { from, to, num });
            prop_assert_eq!((x.len(), x[0], x[num - 1]), (num, a, a + d));
            prop_assert!(x.windows(2).all(|w| w[0] < w[1]));
            let x = reals(Rule::Logarithmic { from: Number::Real(d), to: Number::Real(d * 1e3), num });
            prop_assert!(x.windows(2).all(|w| w[0] < w[1]));
            let x = reals(Rule::Range { from, to, step: Number::Real(d / num as f64) });
            // The end is left out, and not because of rounding alone.
            prop_assert_eq!(x.len(), num);
            prop_assert!(x[num - 1] < a + d);
        }
    }
}
