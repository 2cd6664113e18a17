//! IDX, the format of MNIST: two zero bytes, a type byte (8 for uint8), the number of axes, their lengths as big-endian
//! 32-bit integers, the values. gzip is recognised by its first bytes, not by the file's name.

use super::DataError;
use std::io::Read;
use std::path::Path;

/// The contents of one IDX file of bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Idx {
    pub dims: Vec<usize>,
    pub values: Vec<u8>,
}

/// Reads a file, gzip or not.
pub(super) fn read(path: &Path) -> Result<Idx, DataError> {
    parse(plain(read_bytes(path)?, path)?, path)
}

/// An IDX file that is compiled into the program; `name` stands in messages.
pub(super) fn embedded(gz: &[u8], name: &str) -> Result<Idx, DataError> {
    let path = Path::new(name);
    parse(plain(gz.to_vec(), path)?, path)
}

/// Whether (unpacked) bytes begin like an IDX file of any type.
pub(super) fn looks_like_idx(start: &[u8]) -> bool {
    matches!(start, [0, 0, 0x08 | 0x09 | 0x0B..=0x0E, 1..=8, ..])
}

pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => DataError::Missing { path: path.to_owned() },
        _ => DataError::Io { action: "read", path: path.to_owned(), source },
    })
}

/// The bytes themselves, unpacked if they are gzip.
pub(super) fn plain(bytes: Vec<u8>, path: &Path) -> Result<Vec<u8>, DataError> {
    if !bytes.starts_with(&[0x1F, 0x8B]) {
        return Ok(bytes);
    }
    let mut unpacked = Vec::new();
    flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut unpacked).map_err(|e| {
        let what = if e.kind() == std::io::ErrorKind::UnexpectedEof {
            format!("it ends early (after {} unpacked bytes)", unpacked.len())
        } else {
            e.to_string()
        };
        DataError::Malformed { path: path.to_owned(), format: "gzip", what }
    })?;
    Ok(unpacked)
}

fn parse(mut bytes: Vec<u8>, path: &Path) -> Result<Idx, DataError> {
    let malformed = |what: String| DataError::Malformed { path: path.to_owned(), format: "IDX", what };
    if bytes.len() < 4 {
        return Err(malformed(format!("it has {} bytes", bytes.len())));
    }
    if !looks_like_idx(&bytes) {
        let magic = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        return Err(malformed(format!("its magic number is {magic:#010x}; images have 0x00000803, labels 0x00000801")));
    }
    if bytes[2] != 0x08 {
        return Err(malformed(format!("its values have type {:#04x}; only bytes (0x08) can be levels or labels", bytes[2])));
    }
    let header = 4 + 4 * usize::from(bytes[3]);
    if bytes.len() < header {
        return Err(malformed(format!("its header needs {header} bytes, the file has {}", bytes.len())));
    }
    let dims: Vec<usize> = bytes[4..header].chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
    let expected = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).and_then(|n| n.checked_add(header));
    match expected {
        Some(expected) if expected == bytes.len() => {}
        Some(expected) => {
            let actual = bytes.len();
            let how = if actual < expected { "truncated" } else { "too long" };
            return Err(malformed(format!("it is {how}: {dims:?} values need {expected} bytes, it has {actual}")));
        }
        None => return Err(malformed(format!("its axes {dims:?} are absurd"))),
    }
    bytes.drain(..header);
    Ok(Idx { dims, values: bytes })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    pub fn idx_bytes(dims: &[u32], values: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, 8, dims.len() as u8];
        out.extend(dims.iter().flat_map(|d| d.to_be_bytes()));
        out.extend(values);
        out
    }

    pub fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn fails(bytes: Vec<u8>) -> String {
        let path = Path::new("some/file");
        plain(bytes, path).and_then(|b| parse(b, path)).unwrap_err().to_string()
    }

    #[test]
    fn plain_and_gzip_files_read_alike() {
        let bytes = idx_bytes(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        let expected = Idx { dims: vec![2, 1, 3], values: vec![1, 2, 3, 4, 5, 6] };
        let path = Path::new("f");
        assert_eq!(parse(plain(bytes.clone(), path).unwrap(), path).unwrap(), expected);
        assert_eq!(parse(plain(gz(&bytes), path).unwrap(), path).unwrap(), expected);
    }

    #[test]
    fn faults_are_told_with_what_was_expected() {
        let good = idx_bytes(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        let short = fails(good[..good.len() - 1].to_vec());
        assert!(
            short.contains("truncated") && short.contains("22 bytes") && short.contains("has 21") && short.contains("some/file"),
            "{short}"
        );
        let long = fails([good.clone(), vec![0]].concat());
        assert!(long.contains("too long") && long.contains("has 23"), "{long}");
        assert!(fails(vec![0, 0]).contains("2 bytes"));
        assert!(fails(b"GIF89a..........".to_vec()).contains("magic number is 0x47494638"));
        assert!(fails(vec![0, 0, 0x0D, 3, 0, 0]).contains("type 0x0d"));
        assert!(fails(good[..10].to_vec()).contains("header needs 16 bytes"));
        assert!(fails(idx_bytes(&[u32::MAX; 3], &[])).contains("absurd"));
    }

    #[test]
    fn damaged_gzip_is_told_from_a_damaged_idx() {
        let good = gz(&idx_bytes(&[100, 10, 10], &(0..10_000).map(|i| (i * i % 251) as u8).collect::<Vec<_>>()));
        let cut = fails(good[..good.len() / 2].to_vec());
        assert!(cut.contains("gzip") && cut.contains("ends early"), "{cut}");
        let mut flipped = good.clone();
        let crc = flipped.len() - 6;
        flipped[crc] ^= 0xFF;
        assert!(fails(flipped).contains("gzip"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = read(Path::new("no/such/file-ubyte")).unwrap_err().to_string();
        assert_eq!(message, "no/such/file-ubyte does not exist");
    }
}
