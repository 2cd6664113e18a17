//! One figure for a paper or a slide, at the width it is shown at.
//!
//! Start at [`render`]. A figure is laid out for the width it is asked for, from a column of a paper to a page, so that its
//! smallest text is 6 points high in print; where it could not be read any more, the width is refused.

use super::ReportError;
use super::draw::{raster, svg};
use super::figures::{Drawn, Figure, LEAST_TEXT, NARROWEST, WIDTH, draw_all};
use super::study::Study;
use crate::named_enum;
use std::str::FromStr;

named_enum! {
    /// What a figure is written as.
    pub enum Format {
        Svg = "svg",
        Png = "png",
        /// The numbers drawn.
        Csv = "csv",
    }
}

/// CSS pixels to the inch, and millimetres.
const PIXELS_PER_INCH: f64 = 96.0;
const MM_PER_INCH: f64 = 25.4;
/// Dots of a PNG to the inch of print.
const PRINT_DPI: f64 = 300.0;
/// How high the smallest text is where the width allows it, in points of 1/72 inch, and the least that journals take.
const POINTS: f64 = 6.0;
const LEAST_POINTS: f64 = 5.0;
const POINTS_PER_PIXEL: f64 = 72.0 / PIXELS_PER_INCH;

/// How wide a figure is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Width {
    Millimetres(f64),
    Pixels(f64),
}

impl Width {
    fn css_pixels(self) -> f64 {
        match self {
            Self::Millimetres(mm) => mm / MM_PER_INCH * PIXELS_PER_INCH,
            Self::Pixels(px) => px,
        }
    }

    /// What the figure is laid out for: units in which the smallest text comes out as high as it should.
    fn layout(self) -> f64 {
        (self.css_pixels() * LEAST_TEXT * POINTS_PER_PIXEL / POINTS).clamp(NARROWEST, WIDTH)
    }

    /// Pixels of a PNG.
    fn dots(self) -> f64 {
        match self {
            Self::Millimetres(mm) => (mm / MM_PER_INCH * PRINT_DPI).round(),
            Self::Pixels(px) => px.round(),
        }
    }
}

impl FromStr for Width {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("mm", 1.0), ("cm", 10.0), ("in", MM_PER_INCH), ("px", f64::NAN)];
        let (number, millimetres) = units
            .iter()
            .find_map(|(name, mm)| Some((text.strip_suffix(name)?, *mm)))
            .ok_or("a width has a unit: 85mm, 8.5cm, 3.3in or 640px")?;
        let number: f64 = number.trim().parse().map_err(|_| format!("`{number}` is not a number"))?;
        let width = if millimetres.is_nan() { Self::Pixels(number) } else { Self::Millimetres(number * millimetres) };
        let pixels = width.css_pixels();
        if (1.0..=10_000.0).contains(&pixels) { Ok(width) } else { Err("a width is at most 2645mm (10000px), and above 0".into()) }
    }
}

/// The bytes of the figure called `name`, or of one of its further tables.
///
/// # Errors
/// [`ReportError::NoFigure`] with the names there are, [`ReportError::NotDrawn`] where this sweep has nothing to draw it from.
pub fn render(study: &Study, name: &str, format: Format, width: Option<Width>) -> Result<Vec<u8>, ReportError> {
    let study = &Study { width: width.map_or(WIDTH, Width::layout), ..study.clone() };
    let drawn = draw_all(study)?;
    if format == Format::Csv
        && let Some(text) = figures(&drawn).flat_map(|f| &f.more_csv).find_map(|(stem, text)| (stem == name).then_some(text))
    {
        return Ok(text.clone().into_bytes());
    }
    let Some(figure) = figures(&drawn).find(|f| f.name == name) else {
        return Err(missing(&drawn, name, format));
    };
    if let (Some(width), true) = (width, format != Format::Csv) {
        readable(figure, width)?;
    }
    match format {
        Format::Csv => Ok(figure.csv.clone().into_bytes()),
        Format::Svg => Ok(sized(figure, width).into_bytes()),
        Format::Png => {
            let dots = width.map_or(2.0 * figure.scene.width, Width::dots);
            // A hair less, so that rounding up gives just these.
            raster::render(&figure.scene, (dots - 1e-6) / figure.scene.width)
                .map_err(|source| ReportError::Raster { figure: name.to_string(), source })
        }
    }
}

/// # Errors
/// [`ReportError::TooNarrow`], with the least width in the same unit.
fn readable(figure: &Figure, width: Width) -> Result<(), ReportError> {
    let points = LEAST_TEXT * width.css_pixels() / figure.scene.width * POINTS_PER_PIXEL;
    if points >= LEAST_POINTS {
        return Ok(());
    }
    let larger = |x: f64| (x * LEAST_POINTS / points).ceil();
    let least = match width {
        Width::Millimetres(mm) => format!("{}mm", larger(mm)),
        Width::Pixels(px) => format!("{}px", larger(px)),
    };
    Err(ReportError::TooNarrow { name: figure.name.clone(), points, least })
}

fn figures(drawn: &[Drawn]) -> impl Iterator<Item = &Figure> {
    drawn.iter().filter_map(|d| if let Drawn::Figure(f) = d { Some(f.as_ref()) } else { None })
}

fn missing(drawn: &[Drawn], name: &str, format: Format) -> ReportError {
    let skipped = drawn.iter().find_map(|d| match d {
        Drawn::Skipped { name: known, reason } if known == name => Some(reason.clone()),
        _ => None,
    });
    if let Some(reason) = skipped {
        return ReportError::NotDrawn { name: name.to_string(), reason };
    }
    let tables = figures(drawn).filter(|_| format == Format::Csv).flat_map(|f| f.more_csv.iter().map(|(stem, _)| stem.clone()));
    ReportError::NoFigure { name: name.to_string(), known: figures(drawn).map(|f| f.name.clone()).chain(tables).collect() }
}

/// The SVG with its size in the unit that was asked for; shapes and text scale with it.
fn sized(figure: &Figure, width: Option<Width>) -> String {
    let scene = &figure.scene;
    let text = svg::render(scene, &figure.title, &figure.caption);
    let Some(width) = width else { return text };
    let aspect = scene.height / scene.width;
    let (w, h) = match width {
        Width::Millimetres(mm) => (format!("{mm:.2}mm"), format!("{:.2}mm", mm * aspect)),
        Width::Pixels(px) => (format!("{px:.0}"), format!("{:.0}", px * aspect)),
    };
    // Of the first element only: what `svg::render` begins with.
    let Some((start, rest)) = text.split_once(" width=\"") else { return text };
    let Some((_, rest)) = rest.split_once(" viewBox=") else { return text };
    format!("{start} width=\"{w}\" height=\"{h}\" viewBox={rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::draw::Shape;
    use crate::report::synthetic;

    #[test]
    fn widths_have_units_and_bounds() {
        assert_eq!("85mm".parse(), Ok(Width::Millimetres(85.0)));
        assert_eq!("8.5 cm".parse(), Ok(Width::Millimetres(85.0)));
        assert_eq!("640px".parse(), Ok(Width::Pixels(640.0)));
        assert_eq!("2in".parse(), Ok(Width::Millimetres(50.8)));
        for wrong in ["85", "widemm", "0mm", "-5mm", "90000px", "nanpx", ""] {
            assert!(wrong.parse::<Width>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_figure_has_the_size_that_was_asked_for() {
        let data = synthetic::sweep();
        let study = Study::new(&data);
        let svg = |width| String::from_utf8(render(&study, "bits_per_dim", Format::Svg, width).unwrap()).unwrap();
        let first = |text: &str| text.lines().next().unwrap().to_string();
        assert!(first(&svg(Some(Width::Millimetres(170.0)))).contains("width=\"170.00mm\" height=\""));
        assert!(first(&svg(None)).contains("width=\"960\""));
        for (width, dots) in [(Width::Pixels(801.0), 801), (Width::Millimetres(125.0), 1476)] {
            let png = render(&study, "terms", Format::Png, Some(width)).unwrap();
            assert_eq!(image::load_from_memory(&png).unwrap().width(), dots);
        }
    }

    #[test]
    fn text_is_never_too_small_to_read_and_the_width_that_is_named_will_do() {
        let data = synthetic::sweep();
        let study = Study::new(&data);
        for narrow in ["61mm", "200px", "2in", "1px"] {
            let error = render(&study, "terms", Format::Svg, Some(narrow.parse().unwrap())).unwrap_err();
            let ReportError::TooNarrow { points, least, .. } = error else { panic!("{error}") };
            assert!(points < LEAST_POINTS, "{points}");
            render(&study, "terms", Format::Svg, Some(least.parse().unwrap())).unwrap();
        }
        render(&study, "terms", Format::Csv, Some(Width::Millimetres(10.0))).unwrap();
    }

    #[test]
    fn a_column_and_a_page_have_text_of_six_points() {
        let data = synthetic::sweep();
        let study = Study::new(&data);
        for (width, text) in [("85mm", 6.0), ("130mm", 6.0), ("169mm", 6.0), ("254mm", 9.0)] {
            let width: Width = width.parse().unwrap();
            let drawn = draw_all(&Study { width: width.layout(), ..study.clone() }).unwrap();
            for figure in figures(&drawn) {
                let least = figure.scene.shapes.iter().filter_map(|s| if let Shape::Text { size, .. } = s { Some(*size) } else { None });
                let points = least.fold(f64::INFINITY, f64::min) * width.css_pixels() / figure.scene.width * POINTS_PER_PIXEL;
                assert!(points >= text - 1e-9, "{} at {width:?}: {points}", figure.name);
            }
        }
    }

    #[test]
    fn an_unknown_figure_lists_the_names_and_one_that_cannot_be_drawn_says_why() {
        let data = synthetic::sweep();
        let study = Study::new(&data);
        let Err(ReportError::NoFigure { known, .. }) = render(&study, "nothing", Format::Svg, None) else { panic!("no error") };
        assert!(known.contains(&"bits_per_dim".to_string()) && known.contains(&"forward".to_string()), "{known:?}");
        let Err(ReportError::NotDrawn { reason, .. }) = render(&study, "samples", Format::Svg, None) else { panic!("no error") };
        assert!(reason.contains("no run has drawn samples"));
        let csv = render(&study, "terms", Format::Csv, None).unwrap();
        assert!(String::from_utf8(csv).unwrap().lines().count() > 100);
    }
}
