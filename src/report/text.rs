//! How numbers and names are written in figures, tables and sentences.
//!
//! A minus is `−` (U+2212) wherever people read; csv files get the plain shortest form that reads back exactly.

/// Escapes text for HTML and SVG, in content and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters are not allowed in XML.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

/// [`escape`] for sentences: what a number belongs to stays on its line.
pub fn prose(text: &str) -> String {
    let mut out = escape(text);
    for (from, to) in [
        (" ± ", "\u{a0}±\u{a0}"),
        (" · ", "\u{a0}· "),
        (" = ", "\u{a0}=\u{a0}"),
        (" %", "\u{a0}%"),
        ("t ≤ ", "t\u{a0}≤\u{a0}"),
        ("t ≥ ", "t\u{a0}≥\u{a0}"),
    ] {
        out = out.replace(from, to);
    }
    // Browsers break a line behind the hyphen of 1e-3.
    let breaks =
        |word: &str| word.as_bytes().windows(4).any(|w| w[0].is_ascii_digit() && w[1] == b'e' && w[2] == b'-' && w[3].is_ascii_digit());
    let words = out.split(' ').map(|w| if breaks(w) { format!("<span class=\"whole\">{w}</span>") } else { w.into() });
    words.collect::<Vec<String>>().join(" ")
}

/// With `decimals` places and a true minus.
pub fn fixed(x: f64, decimals: usize) -> String {
    if x.is_nan() {
        return "–".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "∞".into() } else { "−∞".into() };
    }
    let s = format!("{x:.decimals$}");
    match s.strip_prefix('-') {
        Some(rest) if rest.bytes().all(|b| matches!(b, b'0' | b'.')) => rest.to_string(),
        Some(rest) => format!("−{rest}"),
        None => s,
    }
}

/// Like [`fixed`], with a plus where it is positive.
pub fn signed(x: f64, decimals: usize) -> String {
    let s = fixed(x, decimals);
    if x > 0.0 && s.bytes().any(|b| (b'1'..=b'9').contains(&b)) { format!("+{s}") } else { s }
}

/// Places that show two significant digits of `uncertainty` (2 to 6 of them), or four of `value` where there is none (3 to 8).
pub fn decimals_for(value: f64, uncertainty: f64) -> usize {
    let (x, digits) = if uncertainty.is_finite() && uncertainty > 0.0 { (uncertainty, 2) } else { (value.abs(), 4) };
    if !x.is_finite() || x == 0.0 {
        return 3;
    }
    let decimals = digits - 1 - x.log10().floor() as i64;
    let (least, most) = if digits == 2 { (2, 6) } else { (3, 8) };
    decimals.clamp(least, most) as usize
}

/// `2.912 ± 0.013`; the mean alone where there is no interval. Below 0.0005 both share a power of ten.
pub fn plus_minus(mean: f64, half: f64) -> String {
    if let Some((scale, power)) = small(mean, half) {
        let inner = plus_minus(mean * scale, half * scale);
        return if half.is_finite() { format!("({inner})×{power}") } else { format!("{inner}×{power}") };
    }
    let d = decimals_for(mean, half);
    if half.is_finite() { format!("{} ± {}", fixed(mean, d), fixed(half, d)) } else { fixed(mean, d) }
}

/// `+0.031 ± 0.004`, for differences.
pub fn signed_plus_minus(mean: f64, half: f64) -> String {
    if let Some((scale, power)) = small(mean, half) {
        let inner = signed_plus_minus(mean * scale, half * scale);
        return if half.is_finite() { format!("({inner})×{power}") } else { format!("{inner}×{power}") };
    }
    let d = decimals_for(mean, half);
    if half.is_finite() { format!("{} ± {}", signed(mean, d), fixed(half, d)) } else { signed(mean, d) }
}

/// The factor that brings both numbers to ones, and its inverse as a power of ten, where they are too small to write out.
fn small(mean: f64, half: f64) -> Option<(f64, String)> {
    let largest = mean.abs().max(if half.is_finite() { half } else { 0.0 });
    if !(largest > 0.0 && largest < 5e-4) {
        return None;
    }
    let exponent = largest.log10().floor() as i32;
    Some((10f64.powi(-exponent), power_of_ten(exponent)))
}

/// A number as a label: `300`, `0.05`, `3×10⁻⁵`.
pub fn label(x: f64) -> String {
    let size = x.abs();
    if x == 0.0 || (1e-2..1e5).contains(&size) {
        return if x.fract() == 0.0 { grouped(x as i64) } else { plain(x).replace('-', "−") };
    }
    let mut exponent = size.log10().floor() as i32;
    let mut mantissa = (x / 10f64.powi(exponent) * 1e6).round() / 1e6;
    if mantissa.abs() >= 10.0 {
        mantissa /= 10.0;
        exponent += 1;
    }
    let power = power_of_ten(exponent);
    if mantissa == 1.0 { power } else { format!("{}×{power}", plain(mantissa).replace('-', "−")) }
}

/// A whole number with thin spaces between groups of three from 10 000 on.
pub fn grouped(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if digits.len() > 4 && i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{2009}');
        }
        out.push(c);
    }
    if n < 0 { format!("−{out}") } else { out }
}

/// `10⁻³`.
pub fn power_of_ten(exponent: i32) -> String {
    let superscripts: String = exponent
        .to_string()
        .chars()
        .map(|c| match c {
            '-' => '⁻',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            d => char::from_u32('⁰' as u32 + d.to_digit(10).unwrap_or(0)).unwrap_or('⁰'),
        })
        .collect();
    format!("10{superscripts}")
}

/// Seconds as `3.2 s`, `4:07 min` or `2:05 h`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".into();
    }
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let s = seconds.round() as u64;
    if s < 3600 { format!("{}:{:02} min", s / 60, s % 60) } else { format!("{}:{:02} h", s / 3600, s % 3600 / 60) }
}

/// The number that a text of a table begins with, as this module writes numbers: for sorting. `None` where it begins with none.
///
/// Knows `−`, groups of three, `(1.2 ± 0.1)×10⁻⁴`, `∞`, and the durations of [`duration`], which it gives in seconds.
pub fn value_of(shown: &str) -> Option<f64> {
    let plain: String = shown.chars().filter(|c| *c != '\u{2009}').map(|c| if c == '−' { '-' } else { c }).collect();
    let plain = plain.trim_start_matches(|c: char| c == '(' || c.is_whitespace());
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, plain.strip_prefix('+').unwrap_or(plain)),
    };
    if digits.starts_with('∞') {
        return Some(sign * f64::INFINITY);
    }
    let end = digits.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(digits.len());
    let (number, rest) = digits.split_at(end);
    if let Some(rest) = rest.strip_prefix(':') {
        let (whole, part): (f64, f64) = (number.parse().ok()?, rest.get(..2)?.parse().ok()?);
        let unit = if rest.ends_with(" h") { 3600.0 } else { 60.0 };
        return Some(whole * unit + part * unit / 60.0);
    }
    let (mantissa, power) = match rest.split_once("×10") {
        _ if number == "10" && exponent_of(rest).is_some() => ("1", rest),
        Some((_, power)) => (number, power),
        None => (number, "⁰"),
    };
    // Through text, so that the number is the nearest one to what is shown.
    let value: f64 = format!("{mantissa}e{}", exponent_of(power)?).parse().ok()?;
    Some(sign * value)
}

/// The exponent that [`power_of_ten`] wrote, from the characters behind its 10.
fn exponent_of(superscripts: &str) -> Option<i32> {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let digit = |c: char| DIGITS.iter().position(|d| *d == c).and_then(|d| char::from_digit(d as u32, 10));
    let text: String = superscripts.chars().map_while(|c| if c == '⁻' { Some('-') } else { digit(c) }).collect();
    text.parse().ok()
}

/// A number for a csv file: the shortest form that reads back exactly; empty where there is none.
pub fn plain(x: f64) -> String {
    if x.is_nan() {
        String::new()
    } else if x == 0.0 {
        "0".into()
    } else if (1e-5..1e15).contains(&x.abs()) {
        format!("{x}")
    } else {
        format!("{x:e}")
    }
}

/// `a`, `a and b`, `a, b and c`.
pub fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `1 seed`, `3 seeds`.
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// A csv file in the making; fields are quoted where they must be.
pub struct Csv {
    text: String,
    columns: usize,
}

impl Csv {
    pub fn new(columns: &[&str]) -> Self {
        let mut csv = Self { text: String::new(), columns: columns.len() };
        csv.row(&columns.iter().map(|c| (*c).to_string()).collect::<Vec<_>>());
        csv
    }

    pub fn row(&mut self, fields: &[String]) {
        debug_assert_eq!(fields.len(), self.columns, "a csv row has as many fields as the header");
        for (i, field) in fields.iter().enumerate() {
            if i > 0 {
                self.text.push(',');
            }
            if field.contains([',', '"', '\n', '\r']) {
                self.text.push('"');
                self.text.push_str(&field.replace('"', "\"\""));
                self.text.push('"');
            } else {
                self.text.push_str(field);
            }
        }
        self.text.push('\n');
    }

    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_decides_the_digits() {
        assert_eq!(plus_minus(2.91234, 0.0134), "2.912 ± 0.013");
        assert_eq!(plus_minus(2.91234, f64::NAN), "2.912");
        assert_eq!(plus_minus(123.4, 35.0), "123.40 ± 35.00");
        assert_eq!(signed_plus_minus(-0.5, 0.00021), "−0.50000 ± 0.00021");
        assert_eq!(plus_minus(0.000_123_4, f64::NAN), "1.234×10⁻⁴");
        assert_eq!(signed_plus_minus(2.82e-6, 0.04e-6), "(+2.820 ± 0.040)×10⁻⁶");
        assert_eq!(plus_minus(0.0, 0.0), "0.000 ± 0.000");
        assert_eq!(plus_minus(4.339_930_33, 0.000_000_7), "4.339930 ± 0.000001", "a lucky pair of seeds");
    }

    #[test]
    fn signs_are_true_and_zero_has_none() {
        assert_eq!((fixed(-0.0001, 2).as_str(), signed(0.0001, 2).as_str(), signed(0.5, 1).as_str()), ("0.00", "0.00", "+0.5"));
        assert_eq!((fixed(-1.5, 1).as_str(), fixed(f64::NAN, 1).as_str(), fixed(f64::NEG_INFINITY, 1).as_str()), ("−1.5", "–", "−∞"));
    }

    #[test]
    fn large_numbers_and_powers_are_readable() {
        assert_eq!(
            (grouped(9999), grouped(12345), grouped(-1_234_567)),
            ("9999".into(), "12\u{2009}345".into(), "−1\u{2009}234\u{2009}567".into())
        );
        assert_eq!((power_of_ten(-3), power_of_ten(12), power_of_ten(0)), ("10⁻³".into(), "10¹²".into(), "10⁰".into()));
    }

    #[test]
    fn labels_of_values_are_short() {
        for (x, l) in [(300.0, "300"), (0.05, "0.05"), (0.005, "5×10⁻³"), (3e-5, "3×10⁻⁵"), (1e-4, "10⁻⁴"), (2.5e6, "2.5×10⁶"), (0.0, "0")]
        {
            assert_eq!(label(x), l);
        }
    }

    #[test]
    fn csv_numbers_read_back_exactly_and_fields_are_quoted() {
        for x in [0.1 + 0.2, 1e-300, -1.0 / 3.0, 123_456_789.123] {
            assert_eq!(plain(x).parse::<f64>().unwrap(), x);
        }
        assert_eq!(plain(f64::NAN), "");
        let mut csv = Csv::new(&["a", "b"]);
        csv.row(&["x, \"y\"".into(), "1".into()]);
        assert_eq!(csv.finish(), "a,b\n\"x, \"\"y\"\"\",1\n");
    }

    #[test]
    fn durations_name_their_unit() {
        assert_eq!(
            (duration(3.21), duration(247.0), duration(7500.0), duration(f64::NAN)),
            ("3.2 s".into(), "4:07 min".into(), "2:05 h".into(), "–".into())
        );
    }

    #[test]
    fn what_is_shown_sorts_as_the_number_it_is() {
        for (x, half) in [(2.91234, 0.0134), (-0.5, 0.00021), (2.82e-6, 0.04e-6), (-3e-5, f64::NAN), (0.0, f64::NAN), (123.4, 35.0)] {
            for shown in [plus_minus(x, half), signed_plus_minus(x, half)] {
                let read = value_of(&shown).unwrap();
                assert!((read - x).abs() <= 1e-3 * x.abs().max(1e-9), "{shown}: {read} against {x}");
            }
        }
        for x in [0.4, 59.9, 61.0, 247.0, 3599.0, 3600.0, 7500.0, 360_000.0] {
            let read = value_of(&duration(x)).unwrap();
            assert!((read - x).abs() <= 30.0_f64.min(0.02 * x + 0.05), "{}: {read} against {x}", duration(x));
        }
        assert_eq!(
            (value_of("12\u{2009}345 of 20\u{2009}000"), value_of("2 of 3"), value_of("0 (best)")),
            (Some(12345.0), Some(2.0), Some(0.0))
        );
        assert_eq!((value_of("−∞"), value_of("10⁻⁴"), value_of("3×10⁻⁵")), (Some(f64::NEG_INFINITY), Some(1e-4), Some(3e-5)));
        assert_eq!((value_of("–"), value_of("no result"), value_of("")), (None, None, None));
    }

    #[test]
    fn nothing_of_a_text_escapes_into_markup() {
        assert_eq!(escape("<a href='x'>&\"\u{1}"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\u{FFFD}");
    }
}
