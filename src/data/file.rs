//! Which arrays of an HDF5 file are the images, in which order their axes stand, and what is train, val and test.
//!
//! Start at [`load`](super::load) or [`describe_file`]. The conventions are those of files that people make with h5py:
//! - The training images are `data.dataset`, else the first of [`USUAL_NAMES`] that is a 3-D or 4-D array, else the only
//!   3-D or 4-D integer array. Names are compared without regard to case.
//! - (N, H, W), (N, H, W, C) or (N, C, H, W); an axis of 1, 3 or 4 is the channels. A `layout` attribute (`NHWC`, `NCHW`) or
//!   `data.layout` decides where both could be.
//! - A `levels` attribute (default 256) is the number of values a pixel can have.
//! - Siblings hold the other splits: `test_images`, `images_test`, `test/images` beside `images`; `x_test` beside `x_train`.
//! - Where one is missing, [`assign`] takes it out of the training images.

use super::hdf5::{ArrayInfo, H5File, Kind};
use super::{AxisOrder, DataError, Dataset, Examples, Shape};
use crate::rng::{self, Purpose};
use std::path::{Path, PathBuf};

/// Names that are looked for, the first first.
pub const USUAL_NAMES: [&str; 14] = [
    "images",
    "train_images",
    "images_train",
    "x_train",
    "train_x",
    "train/images",
    "train/x",
    "train/data",
    "train_data",
    "train",
    "x",
    "data",
    "train_set_x",
    "img",
];
const VAL_WORDS: [&str; 4] = ["val", "valid", "validation", "dev"];
const TEST_WORDS: [&str; 1] = ["test"];

/// What `data info` says of a file.
#[derive(Clone, Debug)]
pub struct FileInfo {
    pub path: PathBuf,
    pub bytes: u64,
    pub attributes: Vec<(String, String)>,
    pub arrays: Vec<ArrayInfo>,
    /// How it would be used, or why it cannot be.
    pub usage: Result<Usage, String>,
}

/// How a file would be used as data.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    pub shape: Shape,
    /// `Nhwc` or `Nchw`; a 3-D array counts as `Nhwc`.
    pub layout: AxisOrder,
    pub levels: u32,
    pub train: SplitUse,
    pub val: SplitUse,
    pub test: SplitUse,
}

/// Where a split comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitUse {
    /// The array inside the file.
    pub array: String,
    pub count: usize,
    /// Images of the array; more than `count` where a fixed rule divides it.
    pub of: usize,
}

impl std::fmt::Display for SplitUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.count == self.of {
            write!(f, "{} images: `{}`", self.count, self.array)
        } else {
            write!(f, "{} images: of the {} of `{}`, by a fixed rule", self.count, self.of, self.array)
        }
    }
}

/// What a file holds and how it would be used. Reads no values.
pub fn describe_file(path: &Path) -> Result<FileInfo, DataError> {
    let file = H5File::open(path)?;
    let bytes = std::fs::metadata(path).map_err(|source| DataError::Io { action: "read", path: path.to_owned(), source })?.len();
    let arrays = file.arrays()?;
    let usage = Plan::new(path, &file, &arrays, None, AxisOrder::Auto).map(|p| p.usage()).map_err(|e| e.to_string());
    Ok(FileInfo { path: path.to_owned(), bytes, attributes: file.attributes()?, arrays, usage })
}

pub(super) fn load(path: &Path, dataset: Option<&str>, layout: AxisOrder) -> Result<Dataset, DataError> {
    let file = H5File::open(path)?;
    let arrays = file.arrays()?;
    let plan = Plan::new(path, &file, &arrays, dataset, layout)?;
    let mut parts = plan.divide(read(path, &file, plan.train, &plan)?);
    for (slot, place) in [(plan.val, 1), (plan.test, 2)] {
        if let Some(array) = slot {
            parts[place] = read(path, &file, array, &plan)?;
        }
    }
    let splits = parts.map(|bytes| Examples::from_levels(plan.shape, plan.levels, bytes));
    let stem = path.file_stem().map_or_else(|| "file".into(), |s| s.to_string_lossy());
    let title = format!("`{}` of {}", plan.train.name, path.file_name().map_or_else(Default::default, |s| s.to_string_lossy()));
    let credit = match file.text_attribute(&plan.train.name, "credit")? {
        Some(credit) => credit,
        None => file.text_attribute(&plan.train.name, "source")?.unwrap_or_default(),
    };
    Ok(Dataset::new(&stem, &title, &credit, splits))
}

/// Which arrays are read, and how.
struct Plan<'a> {
    train: &'a ArrayInfo,
    val: Option<&'a ArrayInfo>,
    test: Option<&'a ArrayInfo>,
    shape: Shape,
    order: AxisOrder,
    levels: u32,
}

impl<'a> Plan<'a> {
    fn new(path: &Path, file: &H5File, arrays: &'a [ArrayInfo], dataset: Option<&str>, layout: AxisOrder) -> Result<Self, DataError> {
        let train = find_images(path, arrays, dataset)?;
        let layout = match (layout, file.text_attribute(&train.name, "layout")?) {
            (AxisOrder::Auto, Some(said)) => crate::named::NamedEnum::from_name(&said.to_lowercase()).unwrap_or(AxisOrder::Auto),
            _ => layout,
        };
        let (shape, order) = image_shape(path, arrays, train, layout)?;
        let levels = levels_of(path, file, train)?;
        let val = sibling(arrays, &train.name, &VAL_WORDS);
        let test = sibling(arrays, &train.name, &TEST_WORDS);
        for other in [val, test].into_iter().flatten() {
            refuse_other_types(path, other)?;
            let found = if other.shape.len() == train.shape.len() {
                image_shape(path, arrays, other, order)?.0.to_string()
            } else {
                format!("shape {:?}", other.shape)
            };
            if found != shape.to_string() {
                let (train, expected) = (train.name.clone(), shape.to_string());
                return Err(DataError::SplitMismatch { path: path.to_owned(), name: other.name.clone(), found, train, expected });
            }
            if other.shape[0] == 0 {
                return Err(DataError::TooFew { path: path.to_owned(), name: other.name.clone(), count: 0, needed: 1, why: "" });
            }
        }
        let (needed, why) = match (val, test) {
            (Some(_), Some(_)) => (1, ""),
            _ => (10, ", since a tenth becomes a split of its own where the file has none"),
        };
        if train.shape[0] < needed {
            let (name, count) = (train.name.clone(), train.shape[0]);
            return Err(DataError::TooFew { path: path.to_owned(), name, count, needed, why });
        }
        Ok(Plan { train, val, test, shape, order, levels })
    }

    /// The part of training image `i`: 0 train, 1 val, 2 test.
    fn parts(&self) -> impl Iterator<Item = usize> {
        assign(self.train.shape[0]).into_iter().map(|part| match part {
            1 if self.val.is_some() => 0,
            2 if self.test.is_some() => 0,
            part => part,
        })
    }

    fn divide(&self, bytes: Vec<u8>) -> [Vec<u8>; 3] {
        if self.val.is_some() && self.test.is_some() {
            return [bytes, vec![], vec![]];
        }
        let mut parts: [Vec<u8>; 3] = Default::default();
        for (image, part) in bytes.chunks_exact(self.shape.dims()).zip(self.parts()) {
            parts[part].extend_from_slice(image);
        }
        parts
    }

    fn usage(&self) -> Usage {
        let of = self.train.shape[0];
        let mut counts = [0; 3];
        self.parts().for_each(|part| counts[part] += 1);
        let split = |array: Option<&ArrayInfo>, part: usize| match array {
            Some(a) => SplitUse { array: a.name.clone(), count: a.shape[0], of: a.shape[0] },
            None => SplitUse { array: self.train.name.clone(), count: counts[part], of },
        };
        Usage {
            shape: self.shape,
            layout: self.order,
            levels: self.levels,
            train: split(None, 0),
            val: split(self.val, 1),
            test: split(self.test, 2),
        }
    }
}

/// The fixed rule that splits what a file does not: of every ten images in a row, one drawn at random is 1 (val), another
/// is 2 (test), the rest 0 (train). Drawn, since files whose classes take turns would give every tenth image one class; in
/// blocks, since files that are sorted by class must give every class its share.
fn assign(n: usize) -> Vec<usize> {
    const SEED: u64 = 0x5B11;
    let stream = rng::stream(SEED, Purpose::Subset, 0);
    let mut parts = vec![0; n];
    for (block, part) in parts.chunks_mut(10).enumerate() {
        let val = stream.below(block as u32, 0, 10) as usize;
        let test = (val + 1 + stream.below(block as u32, 1, 9) as usize) % 10;
        for (place, value) in [(val, 1), (test, 2)] {
            // The last block may be shorter.
            if let Some(p) = part.get_mut(place) {
                *p = value;
            }
        }
    }
    parts
}

/// Every array with shape and type, for messages.
fn listing(arrays: &[ArrayInfo]) -> String {
    if arrays.is_empty() {
        return "  no arrays at all".into();
    }
    let width = arrays.iter().map(|a| a.name.len()).max().unwrap_or(0);
    arrays.iter().map(|a| format!("  {:width$}  {:?} {}", a.name, a.shape, a.dtype)).collect::<Vec<_>>().join("\n")
}

fn find_images<'a>(path: &Path, arrays: &'a [ArrayInfo], dataset: Option<&str>) -> Result<&'a ArrayInfo, DataError> {
    let found = match dataset {
        Some(name) => {
            let name = name.trim_start_matches('/');
            let Some(array) = arrays.iter().find(|a| a.name == name) else {
                return Err(DataError::NoSuchArray { path: path.to_owned(), name: name.to_owned(), listing: listing(arrays) });
            };
            array
        }
        None => {
            let of_images = |a: &&ArrayInfo| matches!(a.shape.len(), 3 | 4);
            let usual = USUAL_NAMES.iter().find_map(|name| arrays.iter().filter(of_images).find(|a| a.name.eq_ignore_ascii_case(name)));
            let integer = |a: &&ArrayInfo| matches!(a.kind, Kind::U8 | Kind::OtherInteger);
            let only = || {
                let mut candidates = arrays.iter().filter(of_images).filter(integer);
                candidates.next().filter(|_| candidates.next().is_none())
            };
            // A lone float array is most likely what was meant; its own error says more than "no images".
            let lone_float = || {
                let mut candidates = arrays.iter().filter(of_images);
                candidates.next().filter(|a| a.kind == Kind::Float && candidates.next().is_none())
            };
            let Some(array) = usual.or_else(only).or_else(lone_float) else {
                return Err(DataError::NoImages { path: path.to_owned(), listing: listing(arrays) });
            };
            array
        }
    };
    refuse_other_types(path, found)?;
    Ok(found)
}

fn refuse_other_types(path: &Path, array: &ArrayInfo) -> Result<(), DataError> {
    let (path, name, dtype) = (path.to_owned(), array.name.clone(), array.dtype.clone());
    match array.kind {
        Kind::U8 | Kind::OtherInteger => Ok(()),
        Kind::Float => Err(DataError::FloatImages { path, name, dtype }),
        Kind::Other => Err(DataError::WrongType { path, name, dtype }),
    }
}

/// The shape of one image and the order of the axes.
fn image_shape(path: &Path, arrays: &[ArrayInfo], array: &ArrayInfo, layout: AxisOrder) -> Result<(Shape, AxisOrder), DataError> {
    match layout_of(&array.shape, layout) {
        Ok(found) => Ok(found),
        Err(LayoutFault::Ambiguous) => {
            Err(DataError::AmbiguousLayout { path: path.to_owned(), name: array.name.clone(), shape: array.shape.clone() })
        }
        Err(LayoutFault::NotImages(help)) => Err(DataError::WrongShape {
            path: path.to_owned(),
            name: array.name.clone(),
            shape: array.shape.clone(),
            help,
            listing: listing(arrays),
        }),
    }
}

/// Why a shape is not one of images.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LayoutFault {
    Ambiguous,
    /// With one line of help, or none.
    NotImages(&'static str),
}

/// Reads the shape of an array of images: (N, H, W), (N, H, W, C) or (N, C, H, W), where only C is 1, 3 or 4 unless `layout` says more.
pub(super) fn layout_of(shape: &[usize], layout: AxisOrder) -> Result<(Shape, AxisOrder), LayoutFault> {
    let nhwc = |height, width, channels| (Shape { height, width, channels }, AxisOrder::Nhwc);
    let nchw = |channels, height, width| (Shape { height, width, channels }, AxisOrder::Nchw);
    let is_channels = |n: usize| matches!(n, 1 | 3 | 4);
    if shape.iter().skip(1).any(|&n| n == 0) {
        return Err(LayoutFault::NotImages(", and no axis may be empty"));
    }
    match *shape {
        [_, h, w] => Ok(nhwc(h, w, 1)),
        [_, a, b, c] => match (layout, is_channels(a), is_channels(c)) {
            (AxisOrder::Nhwc, ..) | (AxisOrder::Auto, false, true) => Ok(nhwc(a, b, c)),
            (AxisOrder::Nchw, ..) | (AxisOrder::Auto, true, false) => Ok(nchw(a, b, c)),
            (AxisOrder::Auto, true, true) => Err(LayoutFault::Ambiguous),
            (AxisOrder::Auto, false, false) => {
                Err(LayoutFault::NotImages(" with 1, 3 or 4 channels; set `data.layout` if it has another number of them"))
            }
        },
        _ => Err(LayoutFault::NotImages("")),
    }
}

fn levels_of(path: &Path, file: &H5File, array: &ArrayInfo) -> Result<u32, DataError> {
    match file.integer_attribute(&array.name, "levels")? {
        None => Ok(256),
        Some(levels) => u32::try_from(levels).ok().filter(|l| (2..=256).contains(l)).ok_or(DataError::BadLevels {
            path: path.to_owned(),
            name: array.name.clone(),
            levels,
        }),
    }
}

/// The array beside the training images that holds another split, whose names carry one of `words`.
fn sibling<'a>(arrays: &'a [ArrayInfo], train: &str, words: &[&str]) -> Option<&'a ArrayInfo> {
    let train = train.to_lowercase();
    let (group, leaf) = train.rsplit_once('/').map_or(("", train.as_str()), |(g, l)| (g, l));
    let inside = |name: String| if group.is_empty() { name } else { format!("{group}/{name}") };
    words
        .iter()
        .flat_map(|word| {
            if train.contains("train") {
                vec![train.replace("train", word)]
            } else {
                vec![inside(format!("{word}_{leaf}")), inside(format!("{leaf}_{word}")), inside(format!("{word}/{leaf}"))]
            }
        })
        .find_map(|name| arrays.iter().find(|a| a.name.to_lowercase() == name))
}

/// All images of an array as NHWC bytes, each below the number of levels.
fn read(path: &Path, file: &H5File, array: &ArrayInfo, plan: &Plan<'_>) -> Result<Vec<u8>, DataError> {
    let dims = plan.shape.dims();
    let too_large = |i: usize, value: i64| DataError::OutOfLevels {
        path: path.to_owned(),
        name: array.name.clone(),
        value,
        example: i / dims,
        levels: plan.levels,
    };
    let bytes = if array.kind == Kind::U8 {
        let bytes = file.read_u8(&array.name)?;
        if plan.levels < 256
            && let Some(i) = bytes.iter().position(|&v| u32::from(v) >= plan.levels)
        {
            return Err(too_large(i, i64::from(bytes[i])));
        }
        bytes
    } else {
        let narrow = |(i, &v): (usize, &i64)| u8::try_from(v).ok().filter(|&b| u32::from(b) < plan.levels).ok_or_else(|| too_large(i, v));
        file.read_i64(&array.name)?.iter().enumerate().map(narrow).collect::<Result<_, _>>()?
    };
    Ok(to_nhwc(bytes, plan.shape, plan.order))
}

/// Moves the channels of each image to the end, if they are not there.
pub(super) fn to_nhwc(mut bytes: Vec<u8>, shape: Shape, order: AxisOrder) -> Vec<u8> {
    let area = shape.height * shape.width;
    if order == AxisOrder::Nchw && shape.channels > 1 {
        let mut image = vec![0; shape.dims()];
        for chw in bytes.chunks_exact_mut(shape.dims()) {
            for (channel, plane) in chw.chunks_exact(area).enumerate() {
                for (p, &v) in plane.iter().enumerate() {
                    image[p * shape.channels + channel] = v;
                }
            }
            chw.copy_from_slice(&image);
        }
    }
    bytes
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
