//! CIFAR-10, binary version: records of one label byte and 32 × 32 pixels, red, green and blue one after another.

use super::{Labels, Part, Pixels, Source, Split};
use crate::data::file::to_nhwc;
use crate::data::{AxisOrder, DataError, Shape, idx};
use std::path::{Path, PathBuf};

const SHAPE: Shape = Shape { height: 32, width: 32, channels: 3 };
const RECORD: usize = 1 + 3 * 32 * 32;
const CLASSES: u8 = 10;

pub(super) fn open_folder(folder: &Path) -> Result<Source, DataError> {
    let mut batches: Vec<PathBuf> = (1..).map(|i| folder.join(format!("data_batch_{i}.bin"))).take_while(|p| p.is_file()).collect();
    let mut parts = vec![part(Split::Train, folder, &mut batches)?];
    let test = folder.join("test_batch.bin");
    if test.is_file() {
        parts.push(part(Split::Test, folder, &mut vec![test])?);
    }
    let meta = folder.join("batches.meta.txt");
    let class_names = if meta.is_file() { class_names(&meta)? } else { vec![] };
    Ok(Source { format: "CIFAR-10", parts, class_names, skipped: 0 })
}

/// One batch.
pub(super) fn open_file(path: &Path, bytes: &[u8]) -> Result<Source, DataError> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    read(path, bytes, &mut pixels, &mut labels)?;
    let part = Part {
        split: Split::Train,
        path: path.to_owned(),
        shape: SHAPE,
        pixels: Pixels::Memory(to_nhwc(pixels, SHAPE, AxisOrder::Nchw)),
        labels: Labels::Numbers(labels),
    };
    Ok(Source { format: "CIFAR-10", parts: vec![part], class_names: vec![], skipped: 0 })
}

fn part(split: Split, folder: &Path, batches: &mut Vec<PathBuf>) -> Result<Part, DataError> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for path in batches.drain(..) {
        read(&path, &idx::read_bytes(&path)?, &mut pixels, &mut labels)?;
    }
    let pixels = Pixels::Memory(to_nhwc(pixels, SHAPE, AxisOrder::Nchw));
    Ok(Part { split, path: folder.to_owned(), shape: SHAPE, pixels, labels: Labels::Numbers(labels) })
}

fn read(path: &Path, bytes: &[u8], pixels: &mut Vec<u8>, labels: &mut Vec<i64>) -> Result<(), DataError> {
    let malformed = |what| DataError::Malformed { path: path.to_owned(), format: "CIFAR-10", what };
    if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
        let whole = bytes.len() / RECORD;
        return Err(malformed(format!("it has {} bytes, {whole} records of {RECORD} and {} more", bytes.len(), bytes.len() % RECORD)));
    }
    for (i, record) in bytes.chunks_exact(RECORD).enumerate() {
        if record[0] >= CLASSES {
            return Err(malformed(format!("record {i} has label {}, but there are {CLASSES} classes", record[0])));
        }
        labels.push(i64::from(record[0]));
        pixels.extend_from_slice(&record[1..]);
    }
    Ok(())
}

fn class_names(path: &Path) -> Result<Vec<String>, DataError> {
    let text = String::from_utf8_lossy(&idx::read_bytes(path)?).into_owned();
    let names: Vec<String> = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect();
    if names.len() != usize::from(CLASSES) {
        let what = format!("it names {} classes, not {CLASSES}", names.len());
        return Err(DataError::Malformed { path: path.to_owned(), format: "CIFAR-10", what });
    }
    Ok(names)
}
