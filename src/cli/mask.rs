//! What inpainting hides.

use super::CliError;
use crate::data::{Shape, picture};
use crate::rng::{self, Purpose};
use std::path::PathBuf;

/// `--inpaint`: which values the model has to fill in.
#[derive(Clone, Debug, PartialEq)]
pub enum Mask {
    HalfLeft,
    HalfRight,
    /// The middle half in each direction.
    Centre,
    /// Every second value, alternating from row to row.
    Checker,
    /// Each pixel with this probability, the same pixels in every example.
    Random(f64),
    /// A coordinate of a point.
    X,
    Y,
    /// A picture of the data's size: what is white is hidden.
    File(PathBuf),
}

impl std::str::FromStr for Mask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "half-left" => Self::HalfLeft,
            "half-right" => Self::HalfRight,
            "centre" | "center" => Self::Centre,
            "checker" => Self::Checker,
            "x" => Self::X,
            "y" => Self::Y,
            _ => match text.strip_prefix("random:") {
                Some(p) => match p.parse::<f64>() {
                    Ok(p) if 0.0 < p && p <= 1.0 => Self::Random(p),
                    _ => return Err(format!("`{p}` is no probability above 0 and up to 1")),
                },
                None if text.ends_with(".png") => Self::File(text.into()),
                None => return Err("a mask is half-left, half-right, centre, checker, random:P, x, y, or a .png file".to_owned()),
            },
        })
    }
}

impl Mask {
    /// The values hidden in an example of `shape`, NHWC; all channels of a pixel alike, of points the coordinates.
    pub fn hidden(&self, shape: Shape, seed: u64) -> Result<Vec<bool>, CliError> {
        let points = !shape.is_image();
        if matches!(self, Self::X | Self::Y) != points && !matches!(self, Self::Random(_)) {
            return Err(if points {
                CliError::input("a point has two coordinates, and no halves", "--inpaint x or --inpaint y (which is hidden)")
            } else {
                CliError::input(
                    "`x` and `y` are coordinates of points",
                    "--inpaint half-left, half-right, centre, checker, random:P or FILE.png",
                )
            });
        }
        // Of points each coordinate is a place of its own.
        let (height, width) = if points { (1, shape.channels) } else { (shape.height, shape.width) };
        let middle = |at: usize, of: usize| of < 4 || (of / 4..of - of / 4).contains(&at);
        let stream = rng::stream(seed, Purpose::Subset, 0);
        let picture = match self {
            Self::File(path) => Some(picture::mask(path, shape)?),
            _ => None,
        };
        let at = |y: usize, x: usize| match self {
            Self::HalfLeft => x < width / 2,
            Self::HalfRight => x >= width - width / 2,
            Self::Centre => middle(x, width) && middle(y, height),
            Self::Checker => (x + y) % 2 == 1,
            Self::Random(p) => stream.uniform(0, (y * width + x) as u32) < *p,
            Self::X => x == 0,
            Self::Y => x == 1,
            Self::File(_) => picture.as_ref().is_some_and(|hidden| hidden[y * width + x]),
        };
        let copies = if points { 1 } else { shape.channels };
        let hidden: Vec<bool> = (0..height * width).flat_map(|i| std::iter::repeat_n(at(i / width, i % width), copies)).collect();
        if !hidden.contains(&true) {
            return Err(CliError::input("the mask hides nothing", "there must be something to fill in"));
        }
        Ok(hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGIT: Shape = Shape { height: 4, width: 5, channels: 1 };

    fn drawn(mask: &str, shape: Shape) -> String {
        let hidden = mask.parse::<Mask>().unwrap().hidden(shape, 1).unwrap();
        hidden
            .chunks(shape.width * shape.channels)
            .map(|r| r.iter().map(|h| if *h { '#' } else { '.' }).collect::<String>())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn masks_hide_what_they_say() {
        assert_eq!(drawn("half-left", DIGIT), "##... ##... ##... ##...");
        assert_eq!(drawn("half-right", DIGIT), "...## ...## ...## ...##");
        assert_eq!(drawn("centre", DIGIT), "..... .###. .###. .....");
        assert_eq!(drawn("checker", DIGIT), ".#.#. #.#.# .#.#. #.#.#");
        assert_eq!(drawn("half-left", Shape { height: 1, width: 4, channels: 2 }), "####....");
        assert_eq!(drawn("centre", Shape { height: 1, width: 8, channels: 1 }), "..####..");
        let point = Shape { height: 1, width: 1, channels: 2 };
        assert_eq!("x".parse::<Mask>().unwrap().hidden(point, 1).unwrap(), [true, false]);
        assert_eq!("y".parse::<Mask>().unwrap().hidden(point, 1).unwrap(), [false, true]);
        let large = Shape { height: 100, width: 100, channels: 1 };
        let share = "random:0.3".parse::<Mask>().unwrap().hidden(large, 1).unwrap().iter().filter(|h| **h).count();
        assert!((2800..3200).contains(&share), "{share}");
    }

    #[test]
    fn masks_that_cannot_be_are_refused() {
        for bad in ["left", "random:0", "random:2", "random:x"] {
            assert!(bad.parse::<Mask>().is_err(), "{bad}");
        }
        let point = Shape { height: 1, width: 1, channels: 2 };
        assert!(Mask::HalfLeft.hidden(point, 1).is_err() && Mask::X.hidden(DIGIT, 1).is_err());
        assert!(Mask::Centre.hidden(Shape { height: 1, width: 1, channels: 2 }, 1).is_err());
    }
}
