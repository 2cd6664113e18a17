//! Lengths of time as people write and read them.

use std::time::Duration;

/// Parses `90s`, `30m`, `2h`, `1d`, and sums such as `1h30m`.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a length of time; write for example 90s, 30m, 2h or 1h30m");
    let (mut seconds, mut digits) = (0_u64, String::new());
    for c in text.trim().chars() {
        let unit = match c {
            '0'..='9' => {
                digits.push(c);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return Err(wrong()),
        };
        let count: u64 = std::mem::take(&mut digits).parse().map_err(|_| wrong())?;
        seconds = count.checked_mul(unit).and_then(|s| seconds.checked_add(s)).ok_or_else(wrong)?;
    }
    if !digits.is_empty() || seconds == 0 { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}

/// The two largest units: `45s`, `3m 20s`, `2h 05m`, `3d 04h`; `?` for what is not a length of time.
pub fn format_duration(seconds: f64) -> String {
    if !(0.0..1e9).contains(&seconds) {
        return "?".to_string();
    }
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h {:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {:02}h", s / 86400, s % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_with_their_units_and_without_one_refused() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1d", 86400)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "30", "m", "0s", "-1s", "1.5h", "1h30", "99999999999999999999s", "300000000000000000d"] {
            assert!(parse_duration(text).is_err_and(|e| e.contains("30m")), "{text}");
        }
    }

    #[test]
    fn lengths_are_shown_in_two_units_and_nonsense_as_a_question_mark() {
        let shown: Vec<String> = [0.4, 59.7, 200.0, 7500.0, 273_600.0].into_iter().map(format_duration).collect();
        assert_eq!(shown, ["0s", "1m 00s", "3m 20s", "2h 05m", "3d 04h"]);
        assert!([f64::NAN, f64::INFINITY, -1.0].into_iter().all(|s| format_duration(s) == "?"));
    }
}
