//! A scene as SVG: text stays text, dashes stay dashes, coordinates keep two decimals.

use super::scene::{Anchor, Rgb, Scene, Shape};
use crate::report::text::escape;
use image::ImageEncoder;
use image::codecs::png::PngEncoder;
use std::fmt::Write;

/// `title` and `description` are read out by screen readers.
pub fn render(scene: &Scene, title: &str, description: &str) -> String {
    let mut out = String::new();
    let (w, h) = (number(scene.width), number(scene.height));
    // The name space is an identifier, not an address that is loaded.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" role=\"img\" \
         font-family=\"'DejaVu Sans', Verdana, sans-serif\">\n<title>{}</title>\n<desc>{}</desc>\n\
         <rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>\n",
        escape(title),
        escape(description)
    );
    for shape in &scene.shapes {
        write_shape(&mut out, shape);
    }
    out.push_str("</svg>\n");
    out
}

fn write_shape(out: &mut String, shape: &Shape) {
    let _ = match shape {
        Shape::Polygon { points, color, opacity } => {
            let opacity = if *opacity < 1.0 { format!(" fill-opacity=\"{}\"", number(*opacity)) } else { String::new() };
            writeln!(out, "<polygon points=\"{}\" fill=\"{}\"{opacity}/>", places(points), hex(*color))
        }
        Shape::Line { points, stroke } => {
            let dash = if stroke.dash.is_empty() {
                String::new()
            } else {
                format!(" stroke-dasharray=\"{}\"", stroke.dash.iter().map(|d| number(*d)).collect::<Vec<_>>().join(" "))
            };
            writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"{dash}/>",
                places(points),
                hex(stroke.color),
                number(stroke.width)
            )
        }
        Shape::Dot { center, radius, fill, outline } => {
            let outline =
                outline.map_or(String::new(), |(color, width)| format!(" stroke=\"{}\" stroke-width=\"{}\"", hex(color), number(width)));
            writeln!(
                out,
                "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{}\"{outline}/>",
                number(center.0),
                number(center.1),
                number(*radius),
                hex(*fill)
            )
        }
        Shape::Text { at, text, size, bold, color, anchor } => {
            let anchor = match anchor {
                Anchor::Start => "",
                Anchor::Middle => " text-anchor=\"middle\"",
                Anchor::End => " text-anchor=\"end\"",
            };
            let weight = if *bold { " font-weight=\"bold\"" } else { "" };
            writeln!(
                out,
                "<text x=\"{}\" y=\"{}\" font-size=\"{}\" fill=\"{}\"{anchor}{weight}>{}</text>",
                number(at.0),
                number(at.1),
                number(*size),
                hex(*color),
                escape(text)
            )
        }
        Shape::Picture { at, size, image } => {
            let mut png = Vec::new();
            // Encoding into memory fails only for a size of zero, and then there is nothing to show.
            if PngEncoder::new(&mut png).write_image(image.as_raw(), image.width(), image.height(), image::ExtendedColorType::Rgb8).is_err()
            {
                return;
            }
            writeln!(
                out,
                "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" style=\"image-rendering:pixelated\" \
                 href=\"data:image/png;base64,{}\"/>",
                number(at.0),
                number(at.1),
                number(size.0),
                number(size.1),
                base64(&png)
            )
        }
    };
}

/// Two decimals, trailing zeros dropped.
fn number(x: f64) -> String {
    let s = format!("{x:.2}");
    let s = s.trim_end_matches('0').trim_end_matches('.');
    if s == "-0" { "0".into() } else { s.to_string() }
}

fn places(points: &[(f64, f64)]) -> String {
    let mut s = String::with_capacity(points.len() * 14);
    for (i, (x, y)) in points.iter().enumerate() {
        if i > 0 {
            s.push(' ');
        }
        let _ = write!(s, "{},{}", number(*x), number(*y));
    }
    s
}

fn hex(c: Rgb) -> String {
    format!("#{:02x}{:02x}{:02x}", c[0], c[1], c[2])
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |w, (i, b)| w | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_gives_the_answers_of_rfc_4648() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn text_is_escaped_and_numbers_are_short() {
        let mut scene = Scene::new(100.0, 50.0);
        scene.text((1.0, 2.004), "a < b & \"c\"", 12.0, [0, 0, 0], Anchor::End);
        let svg = render(&scene, "x<y", "");
        assert!(svg.contains("<title>x&lt;y</title>"));
        assert!(
            svg.contains("<text x=\"1\" y=\"2\" font-size=\"12\" fill=\"#000000\" text-anchor=\"end\">a &lt; b &amp; &quot;c&quot;</text>")
        );
        assert_eq!((number(-0.001), number(10.0), number(1.25)), ("0".into(), "10".into(), "1.25".into()));
    }
}
