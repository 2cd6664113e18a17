//! MNIST and its relatives: IDX files, one by one or as the usual four in a folder.

use super::{Labels, Part, Pixels, Source, Split};
use crate::data::idx::{self, Idx};
use crate::data::{DataError, Shape};
use std::path::{Path, PathBuf};

/// The names under which `stem` (e.g. `train-images`) is found in the wild.
fn find(folder: &Path, stem: &str, axes: u32) -> Option<PathBuf> {
    [".gz", ""]
        .iter()
        .flat_map(|gz| ["-", "."].map(|dot| folder.join(format!("{stem}{dot}idx{axes}-ubyte{gz}"))))
        .find(|path| path.is_file())
}

pub(super) fn is_folder(path: &Path) -> bool {
    find(path, "train-images", 3).is_some()
}

pub(super) fn open_folder(folder: &Path) -> Result<Source, DataError> {
    let mut parts = Vec::new();
    for (split, stem) in [(Split::Train, "train"), (Split::Test, "t10k"), (Split::Test, "test"), (Split::Val, "val")] {
        let Some(images) = find(folder, &format!("{stem}-images"), 3) else { continue };
        if parts.iter().any(|p: &Part| p.split == split) {
            continue;
        }
        let labels = match find(folder, &format!("{stem}-labels"), 1) {
            Some(path) => Some(idx::read(&path)?),
            None => None,
        };
        parts.push(part(split, &images, idx::read(&images)?, labels)?);
    }
    Ok(Source { format: "IDX", parts, class_names: vec![], skipped: 0 })
}

/// One file of images (unpacked); its labels are looked for beside it.
pub(super) fn open_file(path: &Path, plain: Vec<u8>) -> Result<Source, DataError> {
    if !idx::looks_like_idx(&plain) {
        let what = "its format is not known here: IDX, .npy, CIFAR-10 in binary, or a folder of PNG and JPEG pictures can be imported";
        return Err(DataError::Unusable { path: path.to_owned(), what: what.into() });
    }
    let images = idx::parse(plain, path)?;
    let labels = match labels_beside(path) {
        Some(path) => Some(idx::read(&path)?),
        None => None,
    };
    Ok(Source { format: "IDX", parts: vec![part(Split::Train, path, images, labels)?], class_names: vec![], skipped: 0 })
}

fn labels_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let labels = name.replace("images", "labels").replace("idx3", "idx1");
    let other = if labels.ends_with(".gz") { labels.trim_end_matches(".gz").to_owned() } else { format!("{labels}.gz") };
    [labels, other].into_iter().filter(|l| l != name).map(|l| path.with_file_name(l)).find(|l| l.is_file())
}

fn part(split: Split, path: &Path, images: Idx, labels: Option<Idx>) -> Result<Part, DataError> {
    let shape = match images.dims[..] {
        [_, height, width] if height * width > 0 => Shape { height, width, channels: 1 },
        _ => {
            let what = format!("it has axes {:?}, but images have three (N, H, W){}", images.dims, hint(images.dims.len()));
            return Err(DataError::Malformed { path: path.to_owned(), format: "IDX", what });
        }
    };
    let labels = labels.map_or(Labels::None, |l| Labels::Numbers(l.values.iter().map(|&v| i64::from(v)).collect()));
    Ok(Part { split, path: path.to_owned(), shape, pixels: Pixels::Memory(images.values), labels })
}

fn hint(axes: usize) -> &'static str {
    if axes == 1 { "; one axis is usual for labels" } else { "" }
}
