//! Pictures of examples: contact sheets of images, scatter plots of points.
//!
//! Start at [`contact_sheet`] and [`scatter`]; [`png`] encodes what they draw. Nothing here writes files.

use super::{DataError, Shape};
use image::{Rgb, RgbImage};

/// Between the pictures of a sheet.
const GAP: u32 = 1;
/// Pictures are enlarged by whole factors until they are at least so high or wide.
const VISIBLE: usize = 48;
const BACKGROUND: Rgb<u8> = Rgb([255, 255, 255]);

/// A number that stands for a brightness.
pub trait Tone: Copy {
    /// 0 (black) to 255 (white).
    fn byte(self) -> u8;
}

impl Tone for u8 {
    fn byte(self) -> u8 {
        self
    }
}

impl Tone for f32 {
    /// [-1, 1] to 0..=255, rounded; what lies outside is clipped, and NaN is black.
    fn byte(self) -> u8 {
        ((self + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8
    }
}

/// Images side by side, `columns` to a row, enlarged so that small ones can be seen (8 × 8 becomes 48 × 48), with gaps of one pixel.
///
/// Each image is NHWC of `shape`. One channel is drawn grey, three in color, four as color over white; of other numbers of
/// channels the first is drawn, grey. No images give one empty pixel.
///
/// # Panics
/// If an image has not the length of `shape`, or `columns` is 0.
pub fn contact_sheet<'a, T: Tone + 'a>(images: impl IntoIterator<Item = &'a [T]>, shape: Shape, columns: usize) -> RgbImage {
    assert!(columns > 0, "a sheet needs a column");
    let images: Vec<&[T]> = images.into_iter().collect();
    let columns = columns.min(images.len());
    let rows = if columns == 0 { 0 } else { images.len().div_ceil(columns) };
    let zoom = VISIBLE.div_ceil(shape.height.max(shape.width)) as u32;
    let (width, height) = (shape.width as u32 * zoom, shape.height as u32 * zoom);
    let side = |n: usize, length: u32| (n as u32 * (length + GAP)).saturating_sub(GAP).max(1);
    let mut sheet = RgbImage::from_pixel(side(columns, width), side(rows, height), BACKGROUND);
    for (i, image) in images.iter().enumerate() {
        assert_eq!(image.len(), shape.dims(), "an image of {shape} has {} numbers", shape.dims());
        let (left, top) = ((i % columns) as u32 * (width + GAP), (i / columns) as u32 * (height + GAP));
        for y in 0..height {
            for x in 0..width {
                let at = ((y / zoom) as usize * shape.width + (x / zoom) as usize) * shape.channels;
                sheet.put_pixel(left + x, top + y, color(&image[at..at + shape.channels]));
            }
        }
    }
    sheet
}

fn color<T: Tone>(pixel: &[T]) -> Rgb<u8> {
    match pixel {
        [r, g, b] => Rgb([r.byte(), g.byte(), b.byte()]),
        [r, g, b, alpha] => Rgb([r, g, b].map(|v| over_white(v.byte(), alpha.byte()))),
        [grey, ..] => Rgb([grey.byte(); 3]),
        [] => BACKGROUND,
    }
}

/// A color of the given opacity on white paper.
pub(super) fn over_white(value: u8, alpha: u8) -> u8 {
    let alpha = u32::from(alpha);
    ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// Side of a scatter plot, in pixels.
const PLOT: u32 = 320;
const MARGIN: f64 = 12.0;
const DATA_DOT: Dot = Dot { radius: 1.3, color: [150, 150, 150], opacity: 0.35 };
const SAMPLE_DOT: Dot = Dot { radius: 1.7, color: [31, 99, 180], opacity: 0.75 };
/// A sample that lies outside the frame, drawn on its border.
const STRAY_DOT: Dot = Dot { radius: 2.2, color: [204, 51, 17], opacity: 0.9 };

#[derive(Clone, Copy)]
struct Dot {
    radius: f64,
    color: [u8; 3],
    opacity: f64,
}

/// Points of the plane: the data grey behind, samples in blue before, both axes in the same scale, y upwards.
///
/// The frame holds all the data with a tenth to spare (the samples, where there are no data). Samples outside are drawn in
/// red on its border; those that are not finite are left out.
pub fn scatter(data: &[[f32; 2]], samples: &[[f32; 2]]) -> RgbImage {
    let mut plot = RgbImage::from_pixel(PLOT, PLOT, BACKGROUND);
    let frame = Frame::around(if data.is_empty() { samples } else { data });
    for &point in data {
        if let Some((x, y, _)) = frame.place(point) {
            draw(&mut plot, x, y, DATA_DOT);
        }
    }
    for &point in samples {
        match frame.place(point) {
            Some((x, y, true)) => draw(&mut plot, x, y, SAMPLE_DOT),
            Some((x, y, false)) => draw(&mut plot, x, y, STRAY_DOT),
            None => {}
        }
    }
    plot
}

struct Frame {
    centre: [f64; 2],
    /// Pixels per unit.
    scale: f64,
}

impl Frame {
    fn around(points: &[[f32; 2]]) -> Self {
        let mut low = [f64::INFINITY; 2];
        let mut high = [f64::NEG_INFINITY; 2];
        for p in points.iter().filter(|p| p.iter().all(|v| v.is_finite())) {
            for d in 0..2 {
                low[d] = low[d].min(f64::from(p[d]));
                high[d] = high[d].max(f64::from(p[d]));
            }
        }
        if low[0] > high[0] {
            (low, high) = ([-1.0; 2], [1.0; 2]);
        }
        let extent = (high[0] - low[0]).max(high[1] - low[1]).max(1e-6) * 1.1;
        let centre = [(low[0] + high[0]) / 2.0, (low[1] + high[1]) / 2.0];
        Frame { centre, scale: (f64::from(PLOT) - 2.0 * MARGIN) / extent }
    }

    /// Where a point is drawn, and whether that is its true place; `None` if it is not finite.
    fn place(&self, point: [f32; 2]) -> Option<(f64, f64, bool)> {
        if !point.iter().all(|v| v.is_finite()) {
            return None;
        }
        let middle = f64::from(PLOT) / 2.0;
        let x = middle + (f64::from(point[0]) - self.centre[0]) * self.scale;
        let y = middle - (f64::from(point[1]) - self.centre[1]) * self.scale;
        let edge = |v: f64| v.clamp(3.0, f64::from(PLOT) - 3.0);
        Some((edge(x), edge(y), edge(x) == x && edge(y) == y))
    }
}

/// A disc with its centre at (x, y), smooth at the border: each pixel is covered as far as it lies within the radius.
fn draw(plot: &mut RgbImage, x: f64, y: f64, dot: Dot) {
    let reach = dot.radius + 1.0;
    let range = |v: f64| (v - reach).max(0.0) as u32..((v + reach) as u32 + 1).min(PLOT);
    for py in range(y) {
        for px in range(x) {
            let distance = (f64::from(px) + 0.5 - x).hypot(f64::from(py) + 0.5 - y);
            let cover = (dot.radius + 0.5 - distance).clamp(0.0, 1.0) * dot.opacity;
            let pixel = plot.get_pixel_mut(px, py);
            for (p, c) in pixel.0.iter_mut().zip(dot.color) {
                *p = (f64::from(*p) * (1.0 - cover) + f64::from(c) * cover).round() as u8;
            }
        }
    }
}

/// Pictures of one size, `columns` to a row.
pub fn tile(pictures: &[RgbImage], columns: usize) -> RgbImage {
    let (width, height) = pictures.first().map_or((1, 1), RgbImage::dimensions);
    let columns = columns.clamp(1, pictures.len().max(1)) as u32;
    let mut sheet = RgbImage::from_pixel(width * columns, height * (pictures.len() as u32).div_ceil(columns).max(1), BACKGROUND);
    for (i, picture) in pictures.iter().enumerate() {
        let (column, row) = (i as u32 % columns, i as u32 / columns);
        image::imageops::replace(&mut sheet, picture, i64::from(column * width), i64::from(row * height));
    }
    sheet
}

/// Which pixels of a picture of the size of `shape` are nearer to white than to black, row by row.
///
/// # Errors
/// If it is no picture, or of another size.
pub fn mask(path: &std::path::Path, shape: Shape) -> Result<Vec<bool>, DataError> {
    let grey = super::import::decode(path)?.into_luma8();
    if (grey.width() as usize, grey.height() as usize) != (shape.width, shape.height) {
        let size = |width: usize, height: usize| format!("{width} × {height}");
        let (found, expected) = (size(grey.width() as usize, grey.height() as usize), size(shape.width, shape.height));
        return Err(DataError::MaskSize { path: path.to_owned(), found, expected });
    }
    Ok(grey.pixels().map(|p| p.0[0] >= 128).collect())
}

/// The bytes of a PNG file.
///
/// # Errors
/// If the picture has no pixels.
pub fn png(picture: &RgbImage) -> Result<Vec<u8>, DataError> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).map_err(|e| DataError::Encode(e.to_string()))?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGIT: Shape = Shape { height: 8, width: 8, channels: 1 };

    #[test]
    fn pictures_are_tiled_row_by_row() {
        let one = |v: u8| RgbImage::from_pixel(2, 3, image::Rgb([v; 3]));
        let sheet = tile(&[one(1), one(2), one(3)], 2);
        assert_eq!(sheet.dimensions(), (4, 6));
        assert_eq!([(0, 0), (2, 0), (1, 5)].map(|(x, y)| sheet.get_pixel(x, y).0[0]), [1, 2, 3]);
        assert_eq!(*sheet.get_pixel(3, 5), BACKGROUND);
    }

    #[test]
    fn small_images_are_enlarged_and_large_ones_are_not() {
        let sheet = |side: usize| {
            let image = vec![0u8; side * side];
            contact_sheet([&image[..]], Shape { height: side, width: side, channels: 1 }, 4).dimensions()
        };
        assert_eq!((sheet(8), sheet(28), sheet(32), sheet(64)), ((48, 48), (56, 56), (64, 64), (64, 64)));
    }

    #[test]
    fn images_stand_in_rows_with_gaps_between() {
        let images: Vec<Vec<f32>> = (0..5).map(|i| vec![i as f32 * 0.5 - 1.0; 64]).collect();
        let sheet = contact_sheet(images.iter().map(|v| &v[..]), DIGIT, 3);
        assert_eq!(sheet.dimensions(), (3 * 49 - 1, 2 * 49 - 1));
        assert_eq!(sheet.get_pixel(0, 0).0, [0; 3]);
        assert_eq!(sheet.get_pixel(48, 0).0, [255; 3], "the gap");
        assert_eq!(sheet.get_pixel(49, 0).0, [64; 3]);
        assert_eq!(sheet.get_pixel(0, 49).0, [191; 3]);
        assert_eq!(sheet.get_pixel(146 - 1, 96).0, [255; 3], "the place of a sixth image is empty");
    }

    #[test]
    fn numbers_become_tones_by_rounding_and_clipping() {
        assert_eq!([-1.0f32, 1.0, -7.0, 7.0, f32::NAN, 0.0].map(Tone::byte), [0, 255, 0, 255, 0, 128]);
        for v in 0..=255u8 {
            assert_eq!((2.0 * f32::from(v) / 255.0 - 1.0).byte(), v);
        }
    }

    #[test]
    fn colors_and_transparency_are_drawn() {
        let shape = Shape { height: 1, width: 2, channels: 4 };
        let sheet = contact_sheet([&[255u8, 0, 0, 255, 9, 9, 9, 0][..]], shape, 1);
        assert_eq!(sheet.dimensions(), (48, 24));
        assert_eq!((sheet.get_pixel(0, 0).0, sheet.get_pixel(47, 0).0), ([255, 0, 0], [255; 3]));
        let none: [&[u8]; 0] = [];
        assert_eq!(contact_sheet(none, shape, 3).dimensions(), (1, 1));
    }

    #[test]
    fn points_are_drawn_to_scale_with_y_upwards() {
        let plot = scatter(&[[-2.0, 0.0], [2.0, 0.0], [0.0, 1.0]], &[]);
        let dark = |x: u32, y: u32| plot.get_pixel(x, y).0[0] < 250;
        let unit = (f64::from(PLOT) - 2.0 * MARGIN) / 4.4;
        let half = f64::from(PLOT) / 2.0;
        // The centre of the frame is (0, 0.5).
        assert!(dark((half - 2.0 * unit) as u32, (half + 0.5 * unit) as u32));
        assert!(dark(half as u32, (half - 0.5 * unit) as u32));
        assert!(!dark(half as u32, (half + 0.5 * unit) as u32));
        let lone = scatter(&[], &[[3.0, 3.0]]);
        assert_eq!(lone.get_pixel(160, 160).0[2].max(lone.get_pixel(160, 160).0[0]), lone.get_pixel(160, 160).0[2], "blue");
    }

    #[test]
    fn samples_outside_the_frame_are_red_on_its_border_and_broken_ones_left_out() {
        let data = [[-1.0, -1.0], [1.0, 1.0]];
        let plain = scatter(&data, &[]);
        assert_eq!(plain, scatter(&data, &[[f32::NAN, 0.0], [0.0, f32::INFINITY]]));
        let stray = scatter(&data, &[[1e30, 0.0]]);
        let [r, g, b] = stray.get_pixel(PLOT - 3, PLOT / 2).0;
        assert!(r > 190 && g < 120 && b < 120, "{r} {g} {b}");
    }

    #[test]
    fn an_encoded_picture_decodes_to_itself() {
        let picture = scatter(&[[0.0, 0.0], [1.0, 2.0]], &[[0.5, 0.5]]);
        let bytes = png(&picture).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"));
        assert_eq!(image::load_from_memory(&bytes).unwrap().to_rgb8(), picture);
        assert!(png(&RgbImage::new(0, 0)).is_err());
    }
}
