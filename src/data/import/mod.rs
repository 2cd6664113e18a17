//! Importers: other formats of images → one HDF5 file that [`load`](super::load) reads.
//!
//! Start at [`import`]. [`open`] looks at the source and decides its format; each format has a file here and gives the same
//! [`Source`]. The file is written beside its place and moved there when it is whole.
//!
//! Written: `images` (N, H, W, C; uint8, compressed) and `labels` (int64, where the source has any), and the same with
//! `test_` and `val_` before them. Absent on purpose: augmentation, mean subtraction, float storage.

mod cifar;
mod folder;
mod mnist;
mod npy;

use super::hdf5::{Attribute, H5Writer};
use super::{DataError, Shape, idx};
use image::DynamicImage;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// A picture file, upright.
pub(super) fn decode(path: &Path) -> Result<DynamicImage, DataError> {
    folder::decode(path)
}

/// What to import, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportOptions {
    /// A file or folder; its format is found out.
    pub source: PathBuf,
    /// Where the test images are, if not in `source`.
    pub test_source: Option<PathBuf>,
    pub out: PathBuf,
    /// Crops every image to its central square and scales it to `size` × `size` (Lanczos).
    pub size: Option<u32>,
    /// Turns color into brightness.
    pub grayscale: bool,
    /// Replaces `out` if it exists.
    pub force: bool,
}

/// What was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportSummary {
    pub out: PathBuf,
    /// The format found, e.g. `IDX`.
    pub format: &'static str,
    pub shape: Shape,
    pub train: usize,
    /// Images that the source itself sets apart; 0 where a split will be made by rule on loading.
    pub val: usize,
    pub test: usize,
    /// Different labels; 0 without labels.
    pub classes: usize,
    /// Files of a folder that are not pictures.
    pub skipped: usize,
    /// Size of the file written.
    pub bytes: u64,
}

/// What an importer found.
struct Source {
    format: &'static str,
    parts: Vec<Part>,
    /// Names of the numbered labels, where the source has them.
    class_names: Vec<String>,
    skipped: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Split {
    Train,
    Val,
    Test,
}

impl Split {
    fn prefix(self) -> &'static str {
        match self {
            Split::Train => "",
            Split::Val => "val_",
            Split::Test => "test_",
        }
    }
}

/// One split of a source.
struct Part {
    split: Split,
    /// Where it comes from, for messages.
    path: PathBuf,
    /// Of the images in `pixels`; of what they will be, for files.
    shape: Shape,
    pixels: Pixels,
    labels: Labels,
}

enum Pixels {
    /// NHWC.
    Memory(Vec<u8>),
    /// Picture files, decoded when their turn comes.
    Files(Vec<PathBuf>),
}

enum Labels {
    None,
    Numbers(Vec<i64>),
    /// The class of each image by name; they are numbered in the order of the alphabet, over all splits.
    Names(Vec<String>),
}

impl Part {
    fn len(&self) -> usize {
        match &self.pixels {
            Pixels::Memory(bytes) => bytes.len() / self.shape.dims(),
            Pixels::Files(files) => files.len(),
        }
    }
}

/// Makes an HDF5 file of `options.source`; `progress` hears of the images done and of their total.
///
/// # Errors
/// If the source is of no known format or damaged (the message says where), its images differ in size, or the file exists or
/// cannot be written. A file that existed is untouched then.
pub fn import(options: &ImportOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<ImportSummary, DataError> {
    let out = &options.out;
    refuse_existing(options)?;
    if options.size == Some(0) {
        return Err(DataError::Unusable { path: options.source.clone(), what: "images of size 0 hold nothing".into() });
    }
    let mut source = open(&options.source, options)?;
    if let Some(test) = &options.test_source {
        let mut parts = open(test, options)?.parts;
        let Some(at) = parts.iter().position(|p| p.split == Split::Train).or((!parts.is_empty()).then_some(0)) else {
            return Err(DataError::Unusable { path: test.clone(), what: "it holds no images".into() });
        };
        source.parts.retain(|p| p.split != Split::Test);
        source.parts.push(Part { split: Split::Test, ..parts.swap_remove(at) });
    }
    let shape = common_shape(&mut source.parts, options)?;

    let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let io = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| DataError::Io { action, path, source }
    };
    std::fs::create_dir_all(folder).map_err(io("create", folder))?;
    let name = out.file_name().ok_or_else(|| DataError::Unusable { path: out.clone(), what: "it names no file to write".into() })?;
    let partial = Partial(folder.join(format!(".{}.{}.partial", name.to_string_lossy(), std::process::id())));
    let classes = write(&partial.0, &source, shape, options, progress)?;

    refuse_existing(options)?;
    std::fs::rename(&partial.0, out).map_err(io("rename to", out))?;
    std::fs::File::open(folder).and_then(|f| f.sync_all()).map_err(io("sync", folder))?;
    let bytes = std::fs::metadata(out).map_err(io("read", out))?.len();
    let count = |split| source.parts.iter().filter(|p| p.split == split).map(Part::len).sum();
    Ok(ImportSummary {
        out: out.clone(),
        format: source.format,
        shape,
        train: count(Split::Train),
        val: count(Split::Val),
        test: count(Split::Test),
        classes,
        skipped: source.skipped,
        bytes,
    })
}

/// A file under way, removed unless it was moved to its place.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // It is gone after success; nothing can be done about a failure here.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn refuse_existing(options: &ImportOptions) -> Result<(), DataError> {
    let out = &options.out;
    if out.is_dir() {
        return Err(DataError::Unusable { path: out.clone(), what: "the output must be a file, and this is a folder".into() });
    }
    if !options.force && out.exists() {
        return Err(DataError::Exists { path: out.clone() });
    }
    Ok(())
}

/// Finds out what `path` is, and opens it.
fn open(path: &Path, options: &ImportOptions) -> Result<Source, DataError> {
    let unusable = |what: &str| DataError::Unusable { path: path.to_owned(), what: what.to_owned() };
    if path.is_dir() {
        let has = |name: &str| path.join(name).exists();
        if mnist::is_folder(path) {
            return mnist::open_folder(path);
        }
        if has("data_batch_1.bin") {
            return cifar::open_folder(path);
        }
        if has("data_batch_1") {
            return Err(unusable("this is the Python version of CIFAR-10; get its binary version (data_batch_1.bin, …)"));
        }
        return folder::open(path, options.size, options.grayscale);
    }
    let bytes = idx::read_bytes(path)?;
    match &bytes[..] {
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => npy::open(path, &bytes),
        [0x89, b'H', b'D', b'F', ..] => Err(unusable("it is HDF5 already; name it with `data.path`")),
        [0x89, b'P', b'N', b'G', ..] | [0xFF, 0xD8, 0xFF, ..] => Err(unusable("it is one picture; give the folder that holds all")),
        [b'P', b'K', 3, 4, ..] => Err(unusable("it is a zip archive (or .npz); unpack it first")),
        _ if is_tar(&bytes) => Err(unusable("it is a tar archive; unpack it first")),
        _ if path.extension().is_some_and(|e| e == "bin") => cifar::open_file(path, &bytes),
        _ => {
            let plain = idx::plain(bytes, path)?;
            if is_tar(&plain) {
                return Err(unusable("it is a tar archive; unpack it first"));
            }
            mnist::open_file(path, plain)
        }
    }
}

fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// The one shape of everything that will be written.
fn common_shape(parts: &mut [Part], options: &ImportOptions) -> Result<Shape, DataError> {
    // Grey pictures in one split and colored ones in another are all color.
    let color = parts.iter().any(|p| matches!(p.pixels, Pixels::Files(_)) && p.shape.channels == 3);
    for part in parts.iter_mut().filter(|p| color && matches!(p.pixels, Pixels::Files(_))) {
        part.shape.channels = 3;
    }
    let target = |s: Shape| Shape {
        height: options.size.map_or(s.height, |n| n as usize),
        width: options.size.map_or(s.width, |n| n as usize),
        channels: if options.grayscale { 1 } else { s.channels },
    };
    let first = &parts[0];
    let shape = target(first.shape);
    for part in parts.iter() {
        if part.len() == 0 {
            return Err(DataError::Unusable { path: part.path.clone(), what: "it holds no images".into() });
        }
        if let Labels::Numbers(labels) = &part.labels
            && labels.len() != part.len()
        {
            let what = format!("it has {} images, but {} labels", part.len(), labels.len());
            return Err(DataError::Unusable { path: part.path.clone(), what });
        }
        if target(part.shape) != shape {
            let what = format!("its images are {}, those of {} are {}", target(part.shape), first.path.display(), shape);
            return Err(DataError::Unusable { path: part.path.clone(), what });
        }
    }
    Ok(shape)
}

/// Images that are decoded before they are written: some 16 MB, whole chunks.
fn batch_size(shape: Shape) -> usize {
    let chunk = H5Writer::images_per_chunk(shape.dims());
    (16_000_000 / shape.dims()).max(32).div_ceil(chunk) * chunk
}

/// Writes the file and says how many classes it has.
fn write(
    path: &Path,
    source: &Source,
    shape: Shape,
    options: &ImportOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<usize, DataError> {
    let writer = H5Writer::create(path)?;
    let total: u64 = source.parts.iter().map(|p| p.len() as u64).sum();
    let mut done = 0;
    progress(done, total);
    let names = class_names(source);
    let mut largest_label = None;
    for part in &source.parts {
        let (count, prefix) = (part.len(), part.split.prefix());
        let images = format!("{prefix}images");
        let dims = [shape.height, shape.width, shape.channels];
        writer.create_images(
            &images,
            [count, dims[0], dims[1], dims[2]],
            &[
                ("created_by", Attribute::Text(concat!("ddpm-lab ", env!("CARGO_PKG_VERSION")).into())),
                ("layout", Attribute::Text("NHWC".into())),
                ("levels", Attribute::Integer(256)),
                ("shape", Attribute::Integers(dims.map(|d| d as u32).to_vec())),
                ("source", Attribute::Text(format!("{} ({})", base_name(&part.path), source.format))),
            ],
        )?;
        let batch = batch_size(shape);
        for start in (0..count).step_by(batch) {
            let end = (start + batch).min(count);
            writer.write_images(&images, start, &pixels(part, start..end, shape, options)?)?;
            done += (end - start) as u64;
            progress(done, total);
        }
        let labels = match &part.labels {
            Labels::None => continue,
            Labels::Numbers(numbers) => numbers.clone(),
            Labels::Names(classes) => classes
                .iter()
                .map(|c| names.binary_search(c).map(|i| i as i64))
                .collect::<Result<_, _>>()
                .expect("the names are those of all parts, sorted"),
        };
        largest_label = largest_label.max(labels.iter().max().copied());
        let attributes = if names.is_empty() { vec![] } else { vec![("classes", Attribute::Texts(names.clone()))] };
        writer.write_labels(&format!("{prefix}labels"), &labels, &attributes)?;
    }
    writer.close()?;
    Ok(if names.is_empty() { largest_label.map_or(0, |l| l as usize + 1) } else { names.len() })
}

/// The last part of a path as a name; what a `.` means is looked up.
fn base_name(path: &Path) -> String {
    let full = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    full.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

/// The source's own names, or those of all parts' folders in the order of the alphabet.
fn class_names(source: &Source) -> Vec<String> {
    let mut names: Vec<String> = source
        .parts
        .iter()
        .filter_map(|p| match &p.labels {
            Labels::Names(names) => Some(names.iter().cloned()),
            _ => None,
        })
        .flatten()
        .collect();
    if names.is_empty() {
        return source.class_names.clone();
    }
    names.sort();
    names.dedup();
    names
}

/// Images `range` of a part in the shape that is written.
fn pixels(part: &Part, range: std::ops::Range<usize>, shape: Shape, options: &ImportOptions) -> Result<Vec<u8>, DataError> {
    let from = part.shape.dims();
    let images: Vec<Result<Vec<u8>, DataError>> = match &part.pixels {
        Pixels::Memory(bytes) if part.shape == shape => return Ok(bytes[range.start * from..range.end * from].to_vec()),
        Pixels::Memory(bytes) => bytes[range.start * from..range.end * from]
            .par_chunks_exact(from)
            .map(|image| Ok(fit(as_picture(image, part.shape), shape, options.size)))
            .collect(),
        Pixels::Files(files) => files[range]
            .par_iter()
            .map(|path| {
                let picture = fit(folder::decode(path)?, shape, options.size);
                // The size was read before; a file that changed since then must not shift its neighbours.
                let changed = || DataError::Picture { path: path.clone(), message: "its size changed during the import".into() };
                if picture.len() == shape.dims() { Ok(picture) } else { Err(changed()) }
            })
            .collect(),
    };
    // The first fault in the order of the images, whichever thread met one first.
    let mut out = Vec::with_capacity(images.len() * shape.dims());
    for image in images {
        out.extend(image?);
    }
    Ok(out)
}

fn as_picture(image: &[u8], shape: Shape) -> DynamicImage {
    let (w, h, bytes) = (shape.width as u32, shape.height as u32, image.to_vec());
    match shape.channels {
        1 => image::GrayImage::from_raw(w, h, bytes).map(DynamicImage::ImageLuma8),
        3 => image::RgbImage::from_raw(w, h, bytes).map(DynamicImage::ImageRgb8),
        _ => image::RgbaImage::from_raw(w, h, bytes).map(DynamicImage::ImageRgba8),
    }
    .expect("importers give whole images of 1, 3 or 4 channels")
}

/// A picture as NHWC bytes: transparency over white (unless four channels are wanted), the central square scaled to `size`
/// where one is given, color or brightness as `shape` says.
fn fit(picture: DynamicImage, shape: Shape, size: Option<u32>) -> Vec<u8> {
    let mut picture = if shape.channels != 4 && picture.color().has_alpha() { flatten(&picture) } else { picture };
    if let Some(size) = size
        && (picture.width(), picture.height()) != (size, size)
    {
        let side = picture.width().min(picture.height());
        let (left, top) = ((picture.width() - side) / 2, (picture.height() - side) / 2);
        picture = picture.crop_imm(left, top, side, side).resize_exact(size, size, image::imageops::FilterType::Lanczos3);
    }
    match shape.channels {
        1 => picture.into_luma8().into_raw(),
        3 => picture.into_rgb8().into_raw(),
        _ => picture.into_rgba8().into_raw(),
    }
}

fn flatten(picture: &DynamicImage) -> DynamicImage {
    let rgba = picture.to_rgba8();
    let over = |p: &image::Rgba<u8>| image::Rgb([0, 1, 2].map(|i| super::picture::over_white(p.0[i], p.0[3])));
    DynamicImage::ImageRgb8(image::RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| over(rgba.get_pixel(x, y))))
}

#[cfg(test)]
mod tests;
