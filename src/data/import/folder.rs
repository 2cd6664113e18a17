//! A folder of PNG and JPEG pictures, searched through all sub-folders, in the order of their paths.
//!
//! The sub-folder of a picture is its class. Sub-folders `train` and `test` (`val`) are splits, if there are no others.

use super::{Labels, Part, Pixels, Source, Split};
use crate::data::{DataError, Shape};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Deeper folders are not searched: a link may lead back up.
const MAX_DEPTH: usize = 16;

pub(super) fn open(folder: &Path, size: Option<u32>, grayscale: bool) -> Result<Source, DataError> {
    let mut skipped = 0;
    let mut parts = Vec::new();
    for (split, root) in splits(folder)? {
        let mut files = Vec::new();
        search(&root, 0, &mut files, &mut skipped)?;
        files.sort();
        if files.is_empty() {
            let what = format!("no PNG or JPEG picture is in {}", root.display());
            return Err(DataError::Unusable { path: folder.to_owned(), what });
        }
        let shape = shape_of(&files, size, grayscale)?;
        let classes: Vec<String> = files.iter().map(|f| class_of(&root, f)).collect();
        let labels = if classes.iter().all(String::is_empty) { Labels::None } else { Labels::Names(classes) };
        parts.push(Part { split, path: root, shape, pixels: Pixels::Files(files), labels });
    }
    Ok(Source { format: "pictures", parts, class_names: vec![], skipped })
}

/// The folders of each split: those named so, if all sub-folders are, else the folder itself.
fn splits(folder: &Path) -> Result<Vec<(Split, PathBuf)>, DataError> {
    let mut found = Vec::new();
    for path in entries(folder)?.into_iter().filter(|p| p.is_dir()) {
        let split = match path.file_name().map(|n| n.to_string_lossy().to_lowercase()).as_deref() {
            Some("train" | "training") => Split::Train,
            Some("val" | "valid" | "validation") => Split::Val,
            Some("test" | "testing") => Split::Test,
            _ => return Ok(vec![(Split::Train, folder.to_owned())]),
        };
        found.push((split, path));
    }
    let twice = (1..found.len()).any(|i| found[..i].iter().any(|(s, _)| *s == found[i].0));
    if found.len() < 2 || twice || !found.iter().any(|(s, _)| *s == Split::Train) {
        return Ok(vec![(Split::Train, folder.to_owned())]);
    }
    found.sort_by_key(|(split, _)| *split as u8);
    Ok(found)
}

/// Everything in a folder that is not hidden, in the order of the names.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let io = |source| DataError::Io { action: "read the folder", path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with('.') && name != "__MACOSX" {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn search(folder: &Path, depth: usize, files: &mut Vec<PathBuf>, skipped: &mut usize) -> Result<(), DataError> {
    for path in entries(folder)? {
        if path.is_dir() {
            if depth == MAX_DEPTH {
                let what = format!("its folders are nested more than {MAX_DEPTH} deep");
                return Err(DataError::Unusable { path, what });
            }
            search(&path, depth + 1, files, skipped)?;
        } else if path.extension().is_some_and(|e| ["png", "jpg", "jpeg"].iter().any(|k| e.eq_ignore_ascii_case(k))) {
            files.push(path);
        } else {
            *skipped += 1;
        }
    }
    Ok(())
}

/// The sub-folder below `root`, its parts joined by `/`; empty in `root` itself.
fn class_of(root: &Path, file: &Path) -> String {
    let below = file.parent().and_then(|p| p.strip_prefix(root).ok()).unwrap_or(Path::new(""));
    below.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// The shape that all pictures have, or will have once cropped and scaled: one channel if none has color.
fn shape_of(files: &[PathBuf], size: Option<u32>, grayscale: bool) -> Result<Shape, DataError> {
    let heads: Vec<Result<Head, DataError>> = files.par_iter().map(|f| head(f)).collect();
    let mut first = None;
    let mut color = false;
    for (path, head) in files.iter().zip(heads) {
        let head = head?;
        color |= head.color;
        let (first_path, first_size) = *first.get_or_insert((path, head.size));
        if size.is_none() && head.size != first_size {
            return Err(DataError::PictureSizes { first: first_path.clone(), first_size, path: path.clone(), size: head.size });
        }
    }
    let (width, height) = size.map(|n| (n, n)).or(first.map(|(_, s)| s)).unwrap_or((0, 0));
    let channels = if color && !grayscale { 3 } else { 1 };
    Ok(Shape { height: height as usize, width: width as usize, channels })
}

/// What the first bytes of a picture tell.
struct Head {
    /// Width and height, upright.
    size: (u32, u32),
    color: bool,
}

fn head(path: &Path) -> Result<Head, DataError> {
    let mut decoder = decoder(path)?;
    let (w, h) = decoder.dimensions();
    let turned = matches!(
        decoder.orientation().map_err(|e| fault(path, &e))?,
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
    );
    Ok(Head { size: if turned { (h, w) } else { (w, h) }, color: decoder.color_type().has_color() })
}

/// A picture, upright.
pub(super) fn decode(path: &Path) -> Result<DynamicImage, DataError> {
    let mut decoder = decoder(path)?;
    let orientation = decoder.orientation().map_err(|e| fault(path, &e))?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| fault(path, &e))?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

fn decoder(path: &Path) -> Result<impl ImageDecoder, DataError> {
    let io = |source| DataError::Io { action: "read", path: path.to_owned(), source };
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(io)?;
    reader.into_decoder().map_err(|e| fault(path, &e))
}

fn fault(path: &Path, e: &image::ImageError) -> DataError {
    DataError::Picture { path: path.to_owned(), message: e.to_string() }
}
