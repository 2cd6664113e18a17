//! Data sets: embedded images, 2-D toys, HDF5 files, importers.
//!
//! Start at [`load`]. A [`Dataset`] is in memory, split, and knows how its values are encoded; everything above sees
//! `f32` in [-1, 1] (images) or standardised coordinates (2-D data), NHWC.
//!
//! [`builtins`] lists what comes with the program, [`file`] says what an HDF5 file must look like, [`import`](mod@import)
//! makes such files from other formats, [`picture`] draws examples. Labels are kept in files for others to use; no model here is conditional, so none are loaded.

mod binary;
mod builtin;
mod error;
mod examples;
pub mod file;
pub mod hdf5;
mod idx;
pub mod import;
pub mod picture;
mod toy;

pub use binary::heartbeats;
pub use builtin::{Builtin, builtins};
pub use error::DataError;
pub use examples::{Examples, mirror};
pub use file::{FileInfo, SplitUse, Usage, describe_file};
pub use import::{ImportOptions, ImportSummary, import};
pub use toy::{GaussianMixture, gaussian_mixture};

use crate::named_enum;
use crate::rng::{self, Purpose};
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
    /// Integers `0..levels`, scaled to `2v/(levels − 1) − 1`; bits where there are two levels.
    Discrete { levels: u32 },
    /// Real numbers; the decoder is a Gaussian density and bits are differential.
    Continuous,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}×{}×{}", self.height, self.width, self.channels)
    }
}

/// Three disjoint splits in memory.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub info: DataInfo,
    /// The built-in's name, or the stem of the file's name.
    pub name: String,
    pub title: String,
    /// Whose data it is, for reports; empty where a file does not say.
    pub credit: String,
    pub train: Examples,
    pub val: Examples,
    pub test: Examples,
}

impl Dataset {
    /// Puts three splits of one shape and encoding together and takes their fingerprint.
    fn new(name: &str, title: &str, credit: &str, [train, val, test]: [Examples; 3]) -> Self {
        let (shape, encoding) = (train.shape(), train.encoding());
        debug_assert!([&val, &test].iter().all(|s| s.shape() == shape && s.encoding() == encoding));
        let fingerprint = examples::fingerprint([&train, &val, &test]);
        let info = DataInfo { shape, encoding, train: train.len(), val: val.len(), test: test.len(), fingerprint };
        Dataset { info, name: name.to_owned(), title: title.to_owned(), credit: credit.to_owned(), train, val, test }
    }
}

/// Loads what `spec` names.
///
/// # Errors
/// If it does not exist, is not what it should be, or (where `spec.fingerprint` is set) no longer holds the values that
/// the configuration was resolved against.
pub fn load(spec: &DataSpec) -> Result<Dataset, DataError> {
    let dataset = load_any(spec)?;
    if !spec.fingerprint.is_empty() && spec.fingerprint != dataset.info.fingerprint {
        return Err(DataError::Changed {
            what: spec.path.as_ref().map_or_else(|| format!("the built-in set `{}`", spec.name), |p| p.display().to_string()),
            expected: spec.fingerprint.clone(),
            found: dataset.info.fingerprint,
        });
    }
    Ok(dataset)
}

/// What `spec` names now, whatever fingerprint it carries.
///
/// # Errors
/// As [`load`], but for the fingerprint. It reads every value, since the fingerprint covers them.
pub fn inspect(spec: &DataSpec) -> Result<DataInfo, DataError> {
    Ok(load_any(spec)?.info)
}

fn load_any(spec: &DataSpec) -> Result<Dataset, DataError> {
    match &spec.path {
        Some(path) => file::load(path, spec.dataset.as_deref(), spec.layout),
        None => builtin::load(&spec.name),
    }
}

/// The order in which an epoch visits `0..n`: a uniform permutation, the same for every run of that seed.
pub fn order(seed: u64, epoch: u32, n: u32) -> Vec<u32> {
    rng::stream(seed, Purpose::BatchOrder, epoch).permutation(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn builtin_spec(name: &str) -> DataSpec {
        DataSpec { name: name.to_owned(), path: None, dataset: None, layout: AxisOrder::Auto, flip: false, fingerprint: String::new() }
    }

    #[test]
    fn an_order_is_a_permutation_that_changes_with_seed_and_epoch() {
        let base = order(1, 0, 500);
        assert_eq!(base, order(1, 0, 500));
        assert_ne!(base, order(1, 1, 500));
        assert_ne!(base, order(2, 0, 500));
        let mut sorted = base;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..500).collect::<Vec<_>>());
        assert!(order(1, 0, 0).is_empty());
    }

    #[test]
    fn data_that_changed_since_it_was_resolved_are_refused() {
        let mut spec = builtin_spec("digits");
        spec.fingerprint = inspect(&spec).unwrap().fingerprint;
        assert!(load(&spec).is_ok());
        spec.fingerprint = "0".repeat(64);
        let message = load(&spec).unwrap_err().to_string();
        assert!(message.contains("digits") && message.contains("0000"), "{message}");
        assert!(inspect(&spec).is_ok());
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones_and_guesses() {
        let message = load(&builtin_spec("digit")).unwrap_err().to_string();
        assert!(message.contains("did you mean `digits`") && message.contains("swiss_roll"), "{message}");
    }
}
