//! How a value of the experiment file becomes a value of Rust, and back.
//!
//! Start at [`ConfigValue`]. [`render`] is the one spelling of a value: it is what `config.toml` holds and what a run's
//! identity is made of, so it depends on nothing but the value.

use super::run::EvalTimesteps;
use crate::named::NamedEnum;
use std::path::PathBuf;
use toml::Value;

/// A type that a key of the experiment file can have.
pub trait ConfigValue: Sized {
    /// Whether one value is itself an array, so that an axis of it is an array of arrays.
    const IS_ARRAY: bool = false;

    /// What is allowed, in words that follow "must be".
    fn words() -> String;

    /// `None` where the value has another type or lies outside what the type allows.
    fn read(value: &Value) -> Option<Self>;

    fn write(&self) -> Value;

    /// The names to choose from; empty for what is no closed set.
    fn choices() -> Vec<&'static str> {
        Vec::new()
    }
}

impl ConfigValue for u32 {
    fn words() -> String {
        "a whole number, 0 or more".to_owned()
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_integer().and_then(|i| i.try_into().ok())
    }

    fn write(&self) -> Value {
        Value::Integer(i64::from(*self))
    }
}

impl ConfigValue for i64 {
    fn words() -> String {
        "a whole number".to_owned()
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_integer()
    }

    fn write(&self) -> Value {
        Value::Integer(*self)
    }
}

/// Whole numbers are accepted, non-finite ones are not; -0 becomes 0, so that the spelling has one form.
impl ConfigValue for f64 {
    fn words() -> String {
        "a number".to_owned()
    }

    fn read(value: &Value) -> Option<Self> {
        let x = match value {
            Value::Float(x) => *x,
            Value::Integer(i) => *i as f64,
            _ => return None,
        };
        x.is_finite().then_some(x + 0.0)
    }

    fn write(&self) -> Value {
        Value::Float(*self)
    }
}

impl ConfigValue for bool {
    fn words() -> String {
        "true or false".to_owned()
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }

    fn write(&self) -> Value {
        Value::Boolean(*self)
    }
}

impl ConfigValue for String {
    fn words() -> String {
        "a string".to_owned()
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }

    fn write(&self) -> Value {
        Value::String(self.clone())
    }
}

impl ConfigValue for Vec<u32> {
    const IS_ARRAY: bool = true;

    fn words() -> String {
        "an array of whole numbers".to_owned()
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(u32::read).collect()
    }

    fn write(&self) -> Value {
        Value::Array(self.iter().map(ConfigValue::write).collect())
    }
}

impl ConfigValue for Vec<f64> {
    const IS_ARRAY: bool = true;

    fn words() -> String {
        "an array of numbers".to_owned()
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(f64::read).collect()
    }

    fn write(&self) -> Value {
        Value::Array(self.iter().map(ConfigValue::write).collect())
    }
}

/// The empty string is `None`.
impl ConfigValue for Option<String> {
    fn words() -> String {
        "a string".to_owned()
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(|s| (!s.is_empty()).then(|| s.to_owned()))
    }

    fn write(&self) -> Value {
        Value::String(self.clone().unwrap_or_default())
    }
}

/// The empty string is `None`.
impl ConfigValue for Option<PathBuf> {
    fn words() -> String {
        "a path".to_owned()
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(|s| (!s.is_empty()).then(|| PathBuf::from(s)))
    }

    fn write(&self) -> Value {
        Value::String(self.as_deref().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default())
    }
}

/// 0 is `None`.
impl ConfigValue for Option<usize> {
    fn words() -> String {
        "a whole number, 0 or more".to_owned()
    }

    fn read(value: &Value) -> Option<Self> {
        let n = usize::try_from(value.as_integer()?).ok()?;
        Some((n > 0).then_some(n))
    }

    fn write(&self) -> Value {
        Value::Integer(self.map_or(0, |n| i64::try_from(n).unwrap_or(i64::MAX)))
    }
}

impl ConfigValue for EvalTimesteps {
    fn words() -> String {
        "\"all\" or \"strided:K\" with K at least 1".to_owned()
    }

    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "all" => Some(Self::All),
            text => {
                let k = text.strip_prefix("strided:")?;
                // `parse` would also take "+5": one value, one spelling.
                let digits = k.bytes().all(|b| b.is_ascii_digit());
                k.parse().ok().filter(|k| digits && *k > 0).map(Self::Strided)
            }
        }
    }

    fn write(&self) -> Value {
        Value::String(match self {
            Self::All => "all".to_owned(),
            Self::Strided(k) => format!("strided:{k}"),
        })
    }
}

impl<T: NamedEnum> ConfigValue for T {
    fn words() -> String {
        let quoted: Vec<String> = T::names().iter().map(|name| format!("\"{name}\"")).collect();
        either(&quoted)
    }

    fn read(value: &Value) -> Option<Self> {
        value.as_str().and_then(T::from_name)
    }

    fn write(&self) -> Value {
        Value::String(self.name().to_owned())
    }

    fn choices() -> Vec<&'static str> {
        T::names()
    }
}

/// `a`, `a or b`, `a, b or c`.
pub fn either(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// A value as TOML, in the one spelling used for identities and `config.toml`: floats by their shortest digits that
/// read back equal, strings in double quotes.
pub fn render(value: &Value) -> String {
    match value {
        Value::String(s) => quote(s),
        Value::Integer(i) => i.to_string(),
        Value::Float(x) => format!("{x:?}"),
        Value::Boolean(b) => b.to_string(),
        Value::Datetime(d) => d.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(render).collect::<Vec<_>>().join(", ")),
        Value::Table(table) => {
            format!("{{ {} }}", table.iter().map(|(k, v)| format!("{} = {}", quote(k), render(v))).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A value as people read it in a legend: [`render`] without the quotes of a string.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => render(other),
    }
}

fn quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\U{:08X}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_back(text: &str) -> Value {
        let table: toml::Table = toml::from_str(&format!("x = {text}")).unwrap_or_else(|e| panic!("{text}: {e}"));
        table["x"].clone()
    }

    proptest! {
        #[test]
        fn a_rendered_number_reads_back_bit_for_bit(x in proptest::num::f64::NORMAL | proptest::num::f64::ZERO | proptest::num::f64::SUBNORMAL) {
            let back = f64::read(&read_back(&render(&Value::Float(x)))).unwrap();
            prop_assert_eq!(back.to_bits(), (x + 0.0).to_bits());
        }

        #[test]
        fn a_rendered_string_reads_back(s in any::<String>()) {
            prop_assert_eq!(read_back(&render(&Value::String(s.clone()))), Value::String(s));
        }
    }

    #[test]
    fn numbers_accept_integers_and_refuse_what_is_not_finite() {
        assert_eq!(f64::read(&Value::Integer(3)), Some(3.0));
        assert_eq!(f64::read(&Value::Float(f64::NAN)), None);
        assert_eq!(f64::read(&Value::Float(f64::INFINITY)), None);
        assert_eq!(f64::read(&Value::Float(-0.0)).map(f64::to_bits), Some(0));
        assert_eq!(u32::read(&Value::Integer(-1)), None);
        assert_eq!(u32::read(&Value::Integer(1 << 40)), None);
        assert_eq!(u32::read(&Value::Float(3.0)), None);
    }

    #[test]
    fn evaluation_timesteps_have_one_spelling() {
        let read = |s: &str| EvalTimesteps::read(&Value::String(s.to_owned()));
        assert_eq!(read("all"), Some(EvalTimesteps::All));
        assert_eq!(read("strided:50"), Some(EvalTimesteps::Strided(50)));
        for wrong in ["strided:0", "strided:", "strided:+5", "strided:5 ", "All", "50"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
