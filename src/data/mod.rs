//! Data sets: embedded images, 2-D toys, HDF5 files, importers.
//!
//! Start at [`load`]. A [`Dataset`] is in memory, split, and knows how its values are encoded; everything above sees
//! `f32` in [-1, 1] (images) or standardised coordinates (2-D data), NHWC.

use crate::named_enum;
use std::path::PathBuf;

named_enum! {
    /// The order of the axes of an image array in a file.
    pub enum AxisOrder {
        Auto = "auto",
        Nhwc = "nhwc",
        Nchw = "nchw",
    }
}

/// The `[data]` section.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSpec {
    /// A built-in set, or `file` when `path` is given.
    pub name: String,
    /// An HDF5 file.
    pub path: Option<PathBuf>,
    /// The HDF5 data set inside `path`; found by name when absent.
    pub dataset: Option<String>,
    pub layout: AxisOrder,
    /// Mirror training images left to right at random.
    pub flip: bool,
    /// blake3 of the values (see [`DataInfo::fingerprint`]); empty until resolved against the data.
    pub fingerprint: String,
}

/// What a configuration needs to know of a data set before anything is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct DataInfo {
    pub shape: Shape,
    pub encoding: Encoding,
    pub train: usize,
    pub val: usize,
    pub test: usize,
    /// blake3 (hex) over shape, encoding, split sizes and every value: the data's identity, whatever its path.
    pub fingerprint: String,
}

/// Height, width and channels of one example; 2-D points are 1 × 1 × 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Shape {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl Shape {
    /// Numbers in one example.
    pub fn dims(self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether an example is a picture rather than a point.
    pub fn is_image(self) -> bool {
        self.height > 1 || self.width > 1
    }
}

/// What the numbers are, which decides the decoder and the unit of the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Encoding {
    /// Integers `0..levels`, scaled to `2v/(levels − 1) − 1`.
    Discrete { levels: u32 },
    /// Real numbers; the decoder is a Gaussian density and bits are differential.
    Continuous,
}
