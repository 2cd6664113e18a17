//! The one font of all figures: DejaVu Sans, compiled in, so that figures look alike on machines without fonts.
//!
//! Start at [`text_width`]. Sizes are font sizes in the sense of CSS (one em).

use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};
use std::sync::OnceLock;

const FAMILY: &str = "sans-serif";
/// Ascent plus descent of DejaVu Sans in ems: what the font rasterizer calls the size.
const LINE_PER_EM: f64 = (1901.0 + 483.0) / 2048.0;

/// The font could not be read: the program was built wrongly.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the built-in font cannot be used: {0}")]
pub struct FontError(String);

fn register() -> Result<(), FontError> {
    static DONE: OnceLock<Result<(), FontError>> = OnceLock::new();
    DONE.get_or_init(|| {
        register_font(FAMILY, FontStyle::Normal, dejavu::sans::regular()).map_err(|_| FontError("DejaVu Sans".into()))?;
        register_font(FAMILY, FontStyle::Bold, dejavu::sans::bold()).map_err(|_| FontError("DejaVu Sans Bold".into()))
    })
    .clone()
}

fn font(size: f64, bold: bool) -> Result<FontDesc<'static>, FontError> {
    register()?;
    Ok(FontDesc::new(FontFamily::SansSerif, size * LINE_PER_EM, if bold { FontStyle::Bold } else { FontStyle::Normal }))
}

/// Width of a line of text.
pub fn text_width(text: &str, size: f64, bold: bool) -> f64 {
    // The rasterizer answers in whole pixels: ask for a large font.
    const LARGE: f64 = 500.0;
    let width = font(LARGE, bold).ok().and_then(|f| f.box_size(text).ok()).map_or(0, |(w, _)| w);
    f64::from(width) * size / LARGE
}

/// Calls `pixel(x, y, coverage)` for each touched pixel; the text starts at `x` on the baseline `y`.
pub fn rasterize(text: &str, size: f64, bold: bool, (x, y): (i32, i32), mut pixel: impl FnMut(i32, i32, f32)) -> Result<(), FontError> {
    let f = font(size, bold)?;
    // The rasterizer puts the baseline half its size below the given place.
    let top = y - (size * LINE_PER_EM / 2.0) as i32;
    f.draw(text, (x, top), |x, y, coverage| {
        pixel(x, y, coverage);
        Ok::<(), std::convert::Infallible>(())
    })
    .map_err(|e| FontError(e.to_string()))
    .map(|_| ())
}

/// `text`, shortened with an ellipsis to at most `width`.
pub fn fitted(text: &str, size: f64, bold: bool, width: f64) -> String {
    if text_width(text, size, bold) <= width {
        return text.to_string();
    }
    let mut kept: Vec<char> = text.chars().collect();
    while !kept.is_empty() {
        kept.pop();
        let short: String = kept.iter().collect::<String>().trim_end().to_string() + "…";
        if text_width(&short, size, bold) <= width {
            return short;
        }
    }
    "…".into()
}

/// `text` in lines of at most `width`, broken at spaces; a word that is longer is shortened.
pub fn wrapped(text: &str, size: f64, bold: bool, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if text_width(&format!("{line} {word}"), size, bold) <= width => *line += &format!(" {word}"),
            _ => lines.push(word.into()),
        }
    }
    lines.iter().map(|line| fitted(line, size, bold, width)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_the_width_of_its_letters() {
        // Advance widths of DejaVu Sans: 1303 for a digit, 2048 units to the em.
        let ten = text_width("0000000000", 10.0, false);
        assert!((ten - 10.0 * 10.0 * 1303.0 / 2048.0).abs() < 0.1, "{ten}");
        assert!(text_width("0000", 10.0, true) > text_width("0000", 10.0, false));
    }

    #[test]
    fn letters_stand_on_the_baseline() {
        let (mut top, mut bottom) = (i32::MAX, i32::MIN);
        rasterize("H", 100.0, false, (0, 200), |_, y, c| {
            if c > 0.5 {
                top = top.min(y);
                bottom = bottom.max(y);
            }
        })
        .unwrap();
        assert!((bottom - 199).abs() <= 1, "bottom at {bottom}");
        assert!((top - (200 - 73)).abs() <= 1, "capitals are 0.73 em high: top at {top}");
    }

    #[test]
    fn long_text_is_cut_to_fit() {
        let cut = fitted("a rather long label", 12.0, false, 60.0);
        assert!(cut.ends_with('…') && text_width(&cut, 12.0, false) <= 60.0);
        assert_eq!(fitted("short", 12.0, false, 60.0), "short");
        let lines = wrapped("a rather long label of six", 12.0, false, 80.0);
        assert!(lines.len() > 1 && lines.iter().all(|l| text_width(l, 12.0, false) <= 80.0));
        assert_eq!(lines.join(" "), "a rather long label of six");
    }
}
