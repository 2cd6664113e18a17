//! NumPy's `.npy`: a magic string, a version, the header's length, a Python literal with type, order and shape, the values.

use super::{Labels, Part, Pixels, Source, Split};
use crate::data::file::{LayoutFault, layout_of, to_nhwc};
use crate::data::{AxisOrder, DataError};
use std::path::Path;

pub(super) fn open(path: &Path, bytes: &[u8]) -> Result<Source, DataError> {
    let malformed = |what: String| DataError::Malformed { path: path.to_owned(), format: ".npy", what };
    let unusable = |what: String| DataError::Unusable { path: path.to_owned(), what };
    let (header, values) = split(bytes).ok_or_else(|| malformed("its header is cut off".into()))?;
    let field = |name| value_of(header, name).ok_or_else(|| malformed(format!("its header has no `{name}`: {header}")));

    let dtype = field("descr")?.trim_matches(['\'', '"']).to_owned();
    if !matches!(dtype.as_str(), "|u1" | "u1" | "<u1" | ">u1") {
        return Err(unusable(format!("its values have numpy type `{dtype}`; save the original levels as uint8 (`|u1`)")));
    }
    if field("fortran_order")? != "False" {
        return Err(unusable("its axes are in Fortran order; save `numpy.ascontiguousarray(x)`".into()));
    }
    let shape: Vec<usize> = field("shape")?
        .trim_matches(['(', ')'])
        .split(',')
        .map(str::trim)
        .filter(|n| !n.is_empty())
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| malformed(format!("its shape is not a tuple of integers: {header}")))?;
    let expected = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
    if values.len() != expected {
        return Err(malformed(format!("its shape {shape:?} needs {expected} bytes of values, it has {}", values.len())));
    }
    let (shape, order) = layout_of(&shape, AxisOrder::Auto).map_err(|fault| match fault {
        LayoutFault::Ambiguous => unusable(format!(
            "its shape {shape:?} can be read as N,H,W,C and as N,C,H,W; store it in an HDF5 file with h5py and set `data.layout`"
        )),
        LayoutFault::NotImages(_) => {
            unusable(format!("its shape is {shape:?}; images are (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels"))
        }
    })?;
    let pixels = Pixels::Memory(to_nhwc(values.to_vec(), shape, order));
    let part = Part { split: Split::Train, path: path.to_owned(), shape, pixels, labels: Labels::None };
    Ok(Source { format: "npy", parts: vec![part], class_names: vec![], skipped: 0 })
}

/// The header's text and the values.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, start): (usize, usize) = match *bytes.get(6)? {
        1 => (usize::from(u16::from_le_bytes(bytes.get(8..10)?.try_into().ok()?)), 10),
        _ => (u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?) as usize, 12),
    };
    let end = length.checked_add(start)?;
    Some((std::str::from_utf8(bytes.get(start..end)?).ok()?.trim(), &bytes[end..]))
}

/// The value of a key of the header's dictionary: a quoted text, a tuple or a word.
fn value_of<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let after = [format!("'{key}'"), format!("\"{key}\"")].iter().find_map(|k| header.find(k).map(|at| at + k.len()))?;
    let value = header[after..].trim_start().strip_prefix(':')?.trim_start();
    let end = if value.starts_with('(') { value.find(')')? + 1 } else { value.find([',', '}'])? };
    Some(value[..end].trim())
}
