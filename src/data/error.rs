//! What can be wrong with data, in words that say where and what to do.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("no built-in data set is called `{name}`{hint}; there are: {known}. A file of your own is named by `data.path`")]
    UnknownName { name: String, hint: String, known: String },

    #[error("{path} does not exist")]
    Missing { path: PathBuf },

    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },

    #[error("{path} is not an HDF5 file: {what}")]
    NotHdf5 { path: PathBuf, what: String },

    #[error("cannot {action} {path}: {message}")]
    Hdf5 { action: String, path: PathBuf, message: String },

    #[error("{path} has no data set `{name}`. It holds:\n{listing}")]
    NoSuchArray { path: PathBuf, name: String, listing: String },

    #[error(
        "no image array was found in {path}: none has a usual name (`images`, `train_images`, `x_train`, `data`, …), \
         and there is not exactly one 3-D or 4-D integer array. Name it with `data.dataset`. The file holds:\n{listing}"
    )]
    NoImages { path: PathBuf, listing: String },

    #[error(
        "`{name}` in {path} holds {dtype}, but images must be integers: the bound in bits/dim is that of discrete levels. \
         Store the original uint8 values"
    )]
    FloatImages { path: PathBuf, name: String, dtype: String },

    #[error("`{name}` in {path} holds {dtype}, but images must be integers (uint8)")]
    WrongType { path: PathBuf, name: String, dtype: String },

    #[error("`{name}` in {path} has shape {shape:?}; images are (N, H, W), (N, H, W, C) or (N, C, H, W){help}. The file holds:\n{listing}")]
    WrongShape { path: PathBuf, name: String, shape: Vec<usize>, help: &'static str, listing: String },

    #[error(
        "`{name}` in {path} has shape {shape:?}, which can be read as N,H,W,C and as N,C,H,W: set `data.layout` to \"nhwc\" or \"nchw\""
    )]
    AmbiguousLayout { path: PathBuf, name: String, shape: Vec<usize> },

    #[error("`{name}` in {path} says it has {levels} levels; between 2 and 256 are possible")]
    BadLevels { path: PathBuf, name: String, levels: i64 },

    #[error("`{name}` in {path} holds the value {value} in example {example}, but its levels are 0..={}", levels - 1)]
    OutOfLevels { path: PathBuf, name: String, value: i64, example: usize, levels: u32 },

    #[error("`{name}` in {path} has images of {found}, but `{train}` has {expected}: all splits must agree")]
    SplitMismatch { path: PathBuf, name: String, found: String, train: String, expected: String },

    #[error("`{name}` in {path} has {count} images; at least {needed} are needed{why}")]
    TooFew { path: PathBuf, name: String, count: usize, needed: usize, why: &'static str },

    #[error(
        "{what} has changed since this configuration was made: its fingerprint is {found}, expected {expected}. \
         Restore the data, or start a new run"
    )]
    Changed { what: String, expected: String, found: String },

    #[error("{path} is not a sound {format} file: {what}")]
    Malformed { path: PathBuf, format: &'static str, what: String },

    #[error("cannot decode the picture {path}: {message}")]
    Picture { path: PathBuf, message: String },

    #[error(
        "the pictures differ in size: {first} has {} x {}, {path} has {} x {}. `--size N` crops and scales all to N x N",
        first_size.0, first_size.1, size.0, size.1
    )]
    PictureSizes { first: PathBuf, first_size: (u32, u32), path: PathBuf, size: (u32, u32) },

    #[error("{path} cannot be imported: {what}")]
    Unusable { path: PathBuf, what: String },

    #[error("{path} cannot be a mask: it is {found} pixels, the data is {expected}")]
    MaskSize { path: PathBuf, found: String, expected: String },

    #[error("{path} exists already; --force replaces it")]
    Exists { path: PathBuf },

    #[error("cannot encode a picture: {0}")]
    Encode(String),
}
