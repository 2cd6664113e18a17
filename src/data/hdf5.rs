//! HDF5 files: the only place that names the HDF5 library.
//!
//! Start at [`H5File`] to read, at [`write_arrays`] to write whole arrays, at [`H5Writer`] to write images piece by piece.
//! What the arrays of a file mean is not decided here but in [`file`](super::file). Files carry no times, so equal contents
//! are equal bytes. The library has one global lock: calls from many threads are safe, and take turns.

use super::DataError;
use hdf5::types::{FixedAscii, FixedUnicode, TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5::{Attribute as H5Attribute, File, Group, LocationType};
use ndarray::{ArrayViewD, IxDyn, s};
use std::path::{Path, PathBuf};

/// gzip level of everything written: higher ones cost far more time than they save space on images.
const DEFLATE: u8 = 4;
/// Aim for chunks of this many bytes.
const CHUNK_BYTES: usize = 128 * 1024;
/// Groups deeper than this are not visited: a file may contain itself.
const MAX_DEPTH: usize = 8;

/// What the numbers of an array are, as far as images care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    U8,
    OtherInteger,
    Float,
    Other,
}

/// An array of a file, without its values.
#[derive(Clone, Debug, PartialEq)]
pub struct ArrayInfo {
    /// Path inside the file without the leading slash, e.g. `train/images`.
    pub name: String,
    pub shape: Vec<usize>,
    pub kind: Kind,
    /// The type in numpy's words, e.g. `uint8`.
    pub dtype: String,
    pub chunks: Option<Vec<usize>>,
    /// Filters in order, e.g. `deflate 4`.
    pub filters: Vec<String>,
    /// Bytes that the values take in the file.
    pub stored_bytes: u64,
    /// Name and value of each attribute, for people.
    pub attributes: Vec<(String, String)>,
}

/// An HDF5 file opened for reading.
#[derive(Debug)]
pub struct H5File {
    file: File,
    path: PathBuf,
}

impl H5File {
    /// # Errors
    /// If the file does not exist, is something else (the message guesses what), or is damaged.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let start = first_bytes(path)?;
        match File::open(path) {
            Ok(file) => Ok(H5File { file, path: path.to_owned() }),
            Err(_) if !start.starts_with(b"\x89HDF\r\n\x1a\n") => {
                Err(DataError::NotHdf5 { path: path.to_owned(), what: guess_format(&start) })
            }
            Err(e) => Err(DataError::Hdf5 { action: "open".into(), path: path.to_owned(), message: e.to_string() }),
        }
    }

    /// Every array of the file, by name.
    pub fn arrays(&self) -> Result<Vec<ArrayInfo>, DataError> {
        let mut found = Vec::new();
        self.visit(&self.file, "", 0, &mut found).map_err(|e| self.error("list the arrays of", e))?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn visit(&self, group: &Group, prefix: &str, depth: usize, found: &mut Vec<ArrayInfo>) -> hdf5::Result<()> {
        for member in group.member_names()? {
            let name = format!("{prefix}{member}");
            // A link that leads nowhere is not an array.
            match group.loc_type_by_name(&member) {
                Ok(LocationType::Dataset) => found.push(describe(name, &group.dataset(&member)?)?),
                Ok(LocationType::Group) if depth < MAX_DEPTH => {
                    self.visit(&group.group(&member)?, &format!("{name}/"), depth + 1, found)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Attributes of the file itself, for people.
    pub fn attributes(&self) -> Result<Vec<(String, String)>, DataError> {
        attributes_of(&self.file).map_err(|e| self.error("read the attributes of", e))
    }

    /// All values, in the order of the file. The array must be of [`Kind::U8`].
    pub fn read_u8(&self, name: &str) -> Result<Vec<u8>, DataError> {
        self.read(name)
    }

    /// All values of an integer array.
    pub fn read_i64(&self, name: &str) -> Result<Vec<i64>, DataError> {
        self.read(name)
    }

    /// All values of an array of numbers.
    pub fn read_f64(&self, name: &str) -> Result<Vec<f64>, DataError> {
        self.read(name)
    }

    /// All values of an array of numbers, as f32.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, DataError> {
        self.read(name)
    }

    fn read<T: hdf5::H5Type>(&self, name: &str) -> Result<Vec<T>, DataError> {
        self.file.dataset(name).and_then(|d| d.read_raw()).map_err(|e| self.error(&format!("read `{name}` of"), e))
    }

    /// The integer attribute of an array; `None` if it has none of that name.
    ///
    /// # Errors
    /// If the attribute is not one integer.
    pub fn integer_attribute(&self, array: &str, attribute: &str) -> Result<Option<i64>, DataError> {
        let action = || format!("read the attribute `{attribute}` of `{array}` in");
        let dataset = self.file.dataset(array).map_err(|e| self.error(&action(), e))?;
        if !dataset.attr_names().map_err(|e| self.error(&action(), e))?.iter().any(|a| a == attribute) {
            return Ok(None);
        }
        let read = || -> hdf5::Result<i64> {
            let a = dataset.attr(attribute)?;
            match a.dtype()?.to_descriptor()? {
                TypeDescriptor::Integer(_) | TypeDescriptor::Unsigned(_) if a.size() == 1 => Ok(a.read_raw::<i64>()?[0]),
                other => Err(format!("it is {other} with {} values, not one integer", a.size()).into()),
            }
        };
        read().map(Some).map_err(|e| self.error(&action(), e))
    }

    /// The text attribute of an array; `None` if it has none of that name or it is no text.
    pub fn text_attribute(&self, array: &str, attribute: &str) -> Result<Option<String>, DataError> {
        let read = || -> hdf5::Result<Option<String>> {
            let dataset = self.file.dataset(array)?;
            if !dataset.attr_names()?.iter().any(|a| a == attribute) {
                return Ok(None);
            }
            Ok(texts(&dataset.attr(attribute)?)?.filter(|t| t.len() == 1).map(|mut t| t.remove(0)))
        };
        read().map_err(|e| self.error(&format!("read the attribute `{attribute}` of `{array}` in"), e))
    }

    fn error(&self, action: &str, e: hdf5::Error) -> DataError {
        DataError::Hdf5 { action: action.to_owned(), path: self.path.clone(), message: e.to_string() }
    }
}

fn first_bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    use std::io::Read;
    let io = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => DataError::Missing { path: path.to_owned() },
        _ => DataError::Io { action: "read", path: path.to_owned(), source },
    };
    let mut start = Vec::new();
    std::fs::File::open(path).and_then(|f| f.take(16).read_to_end(&mut start)).map_err(io)?;
    Ok(start)
}

fn guess_format(start: &[u8]) -> String {
    let import = "; `ddpm-lab data import` makes one of it";
    match start {
        [] => "it is empty".into(),
        [0x1F, 0x8B, ..] => format!("it is gzip{import} if it holds IDX"),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => format!("it is a .npy file{import}"),
        [0x89, b'P', b'N', b'G', ..] | [0xFF, 0xD8, 0xFF, ..] => "it is a picture; `ddpm-lab data import` takes a folder of them".into(),
        [b'P', b'K', 3, 4, ..] => "it is a zip archive (or .npz)".into(),
        _ if super::idx::looks_like_idx(start) => format!("it is an IDX file{import}"),
        _ => "its first bytes are not those of HDF5".into(),
    }
}

fn describe(name: String, dataset: &hdf5::Dataset) -> hdf5::Result<ArrayInfo> {
    let descriptor = dataset.dtype()?.to_descriptor();
    let kind = match &descriptor {
        Ok(TypeDescriptor::Unsigned(hdf5::types::IntSize::U1)) => Kind::U8,
        Ok(TypeDescriptor::Integer(_) | TypeDescriptor::Unsigned(_)) => Kind::OtherInteger,
        Ok(TypeDescriptor::Float(_)) => Kind::Float,
        _ => Kind::Other,
    };
    Ok(ArrayInfo {
        name,
        shape: dataset.shape(),
        kind,
        dtype: descriptor.map_or_else(|_| "of a type unknown here".into(), |d| d.to_string()),
        chunks: dataset.chunk(),
        filters: dataset.filters().iter().map(filter_name).collect(),
        stored_bytes: dataset.storage_size(),
        attributes: attributes_of(dataset)?,
    })
}

fn filter_name(filter: &hdf5::filters::Filter) -> String {
    match filter {
        hdf5::filters::Filter::Deflate(level) => format!("deflate {level}"),
        hdf5::filters::Filter::User(id, _) => format!("filter {id}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn attributes_of(location: &hdf5::Location) -> hdf5::Result<Vec<(String, String)>> {
    location
        .attr_names()?
        .into_iter()
        .map(|name| {
            let attribute = location.attr(&name)?;
            let text = show(&attribute).unwrap_or_else(|_| "(unreadable)".into());
            Ok((name, text))
        })
        .collect()
}

/// An attribute's value for people: a number, a text, or a list of either.
fn show(attribute: &H5Attribute) -> hdf5::Result<String> {
    let list = |values: Vec<String>| match &values[..] {
        [one] if attribute.is_scalar() => one.clone(),
        _ => format!("[{}]", values.join(", ")),
    };
    if let Some(values) = texts(attribute)? {
        return Ok(list(values));
    }
    match attribute.dtype()?.to_descriptor()? {
        TypeDescriptor::Integer(_) | TypeDescriptor::Unsigned(_) => {
            Ok(list(attribute.read_raw::<i64>()?.iter().map(ToString::to_string).collect()))
        }
        TypeDescriptor::Float(_) => Ok(list(attribute.read_raw::<f64>()?.iter().map(ToString::to_string).collect())),
        TypeDescriptor::Boolean => Ok(list(attribute.read_raw::<bool>()?.iter().map(ToString::to_string).collect())),
        other => Ok(format!("({other})")),
    }
}

/// The texts of an attribute, whichever of HDF5's kinds of string it uses; `None` if it is no text.
fn texts(attribute: &H5Attribute) -> hdf5::Result<Option<Vec<String>>> {
    fn all<T: hdf5::H5Type + AsRef<str>>(attribute: &H5Attribute) -> hdf5::Result<Option<Vec<String>>> {
        Ok(Some(attribute.read_raw::<T>()?.iter().map(|t| t.as_ref().to_owned()).collect()))
    }
    match attribute.dtype()?.to_descriptor()? {
        TypeDescriptor::VarLenUnicode => all::<VarLenUnicode>(attribute),
        TypeDescriptor::VarLenAscii => all::<VarLenAscii>(attribute),
        // Longer ones are cut: these are names and notes.
        TypeDescriptor::FixedAscii(_) => all::<FixedAscii<1024>>(attribute),
        TypeDescriptor::FixedUnicode(_) => all::<FixedUnicode<1024>>(attribute),
        _ => Ok(None),
    }
}

/// The value of an attribute to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    Integer(u32),
    Integers(Vec<u32>),
    Text(String),
    Texts(Vec<String>),
}

/// Values of an array to write, in row-major order.
#[derive(Clone, Copy, Debug)]
pub enum ArrayValues<'a> {
    U8(&'a [u8]),
    I64(&'a [i64]),
    F32(&'a [f32]),
    F64(&'a [f64]),
}

/// An array to write.
#[derive(Clone, Debug)]
pub struct ArrayOut<'a> {
    /// Path inside the file; groups on the way are made.
    pub name: &'a str,
    pub shape: &'a [usize],
    pub values: ArrayValues<'a>,
    pub attributes: Vec<(&'a str, Attribute)>,
}

/// Writes a new file of whole arrays at `path`, replacing what was there, and waits until it is on the disk. Arrays of more
/// than one axis are compressed. The file is not complete until this returns: write to a temporary name and rename.
///
/// # Errors
/// If a shape does not fit its values or the file cannot be written.
pub fn write_arrays(path: &Path, arrays: &[ArrayOut<'_>]) -> Result<(), DataError> {
    let writer = H5Writer::create(path)?;
    for array in arrays {
        let write = || match array.values {
            ArrayValues::U8(v) => writer.whole(array, v),
            ArrayValues::I64(v) => writer.whole(array, v),
            ArrayValues::F32(v) => writer.whole(array, v),
            ArrayValues::F64(v) => writer.whole(array, v),
        };
        write().map_err(|e| writer.error(&format!("write `{}` to", array.name), e))?;
    }
    writer.close()
}

/// An HDF5 file that is being written.
#[derive(Debug)]
pub struct H5Writer {
    file: File,
    path: PathBuf,
}

impl H5Writer {
    /// A new file at `path`, replacing what was there.
    pub fn create(path: &Path) -> Result<Self, DataError> {
        // Without times in it, equal contents are equal bytes.
        match File::with_options().with_fcpl(|p| p.obj_track_times(false)).create(path) {
            Ok(file) => Ok(H5Writer { file, path: path.to_owned() }),
            Err(e) => Err(DataError::Hdf5 { action: "create".into(), path: path.to_owned(), message: e.to_string() }),
        }
    }

    /// A compressed array of bytes with four axes, to be filled by [`write_images`](Self::write_images).
    pub fn create_images(&self, name: &str, shape: [usize; 4], attributes: &[(&str, Attribute)]) -> Result<(), DataError> {
        let create = || -> hdf5::Result<()> {
            self.create_groups(name)?;
            let builder = self.file.new_dataset::<u8>().shape(shape).chunk(chunks(&shape, 1)).deflate(DEFLATE);
            let dataset = builder.create(name)?;
            set_attributes(&dataset, attributes)
        };
        create().map_err(|e| self.error(&format!("create `{name}` in"), e))
    }

    /// Writes whole images from image `start` on.
    pub fn write_images(&self, name: &str, start: usize, images: &[u8]) -> Result<(), DataError> {
        let write = || -> hdf5::Result<()> {
            let dataset = self.file.dataset(name)?;
            let shape = dataset.shape();
            let [_, h, w, c] = shape[..] else { return Err(format!("it has {} axes, not 4", shape.len()).into()) };
            let count = images.len() / (h * w * c);
            let view = ndarray::ArrayView4::from_shape((count, h, w, c), images)?;
            dataset.write_slice(view, s![start..start + count, .., .., ..])
        };
        write().map_err(|e| self.error(&format!("write `{name}` to"), e))
    }

    /// How many images of that many bytes make one chunk.
    pub fn images_per_chunk(image_bytes: usize) -> usize {
        (CHUNK_BYTES / image_bytes).max(1)
    }

    /// A whole array of one axis.
    pub fn write_labels(&self, name: &str, labels: &[i64], attributes: &[(&str, Attribute)]) -> Result<(), DataError> {
        let out = ArrayOut { name, shape: &[labels.len()], values: ArrayValues::I64(labels), attributes: attributes.to_vec() };
        self.whole(&out, labels).map_err(|e| self.error(&format!("write `{name}` to"), e))
    }

    /// Closes the file and waits until it is on the disk.
    pub fn close(self) -> Result<(), DataError> {
        let H5Writer { file, path } = self;
        file.flush().and_then(|()| file.close()).map_err(|e| DataError::Hdf5 {
            action: "finish".into(),
            path: path.clone(),
            message: e.to_string(),
        })?;
        std::fs::File::open(&path).and_then(|f| f.sync_all()).map_err(|source| DataError::Io { action: "sync", path, source })
    }

    fn whole<T: hdf5::H5Type>(&self, out: &ArrayOut<'_>, values: &[T]) -> hdf5::Result<()> {
        let view = ArrayViewD::from_shape(IxDyn(out.shape), values)?;
        self.create_groups(out.name)?;
        let builder = self.file.new_dataset_builder();
        let dataset = if out.shape.len() > 1 && !values.is_empty() {
            builder.chunk(chunks(out.shape, size_of::<T>())).deflate(DEFLATE).with_data(view).create(out.name)?
        } else {
            builder.with_data(view).create(out.name)?
        };
        set_attributes(&dataset, &out.attributes)
    }

    /// The groups on the way to an array. The library would make them by itself, but with times.
    fn create_groups(&self, name: &str) -> hdf5::Result<()> {
        for (end, _) in name.match_indices('/') {
            let group = &name[..end];
            if !group.is_empty() && !self.file.link_exists(group) {
                self.file.create_group_builder().obj_track_times(false).create(group)?;
            }
        }
        Ok(())
    }

    fn error(&self, action: &str, e: hdf5::Error) -> DataError {
        DataError::Hdf5 { action: action.to_owned(), path: self.path.clone(), message: e.to_string() }
    }
}

/// Chunks that cut the first axis only.
fn chunks(shape: &[usize], value_bytes: usize) -> Vec<usize> {
    let row = shape[1..].iter().product::<usize>() * value_bytes;
    let mut chunk = shape.to_vec();
    chunk[0] = H5Writer::images_per_chunk(row.max(1)).min(shape[0]).max(1);
    chunk
}

fn set_attributes(location: &hdf5::Location, attributes: &[(&str, Attribute)]) -> hdf5::Result<()> {
    // Text inside HDF5 ends at the first zero byte.
    let text = |t: &str| t.replace('\0', " ").parse::<VarLenUnicode>().map_err(|e| hdf5::Error::from(e.to_string()));
    for (name, value) in attributes {
        match value {
            Attribute::Integer(v) => location.new_attr::<u32>().create(*name)?.write_scalar(v)?,
            Attribute::Integers(v) => location.new_attr_builder().with_data(&v[..]).create(*name).map(|_| ())?,
            Attribute::Text(t) => location.new_attr::<VarLenUnicode>().create(*name)?.write_scalar(&text(t)?)?,
            Attribute::Texts(list) => {
                let list = list.iter().map(|t| text(t)).collect::<hdf5::Result<Vec<_>>>()?;
                location.new_attr_builder().with_data(&list[..]).create(*name).map(|_| ())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_read_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.h5");
        let pixels: Vec<u8> = (0..200u32 * 5 * 4 * 3).map(|i| (i * i % 251) as u8).collect();
        let reals = [0.5, -1.0, f64::NAN, f64::INFINITY, 3.0, 4.0];
        write_arrays(
            &path,
            &[
                ArrayOut {
                    name: "group/images",
                    shape: &[200, 5, 4, 3],
                    values: ArrayValues::U8(&pixels),
                    attributes: vec![
                        ("levels", Attribute::Integer(256)),
                        ("shape", Attribute::Integers(vec![5, 4, 3])),
                        ("source", Attribute::Text("größer\0x".into())),
                        ("classes", Attribute::Texts(vec!["cat".into(), "dog".into()])),
                    ],
                },
                ArrayOut { name: "t", shape: &[3], values: ArrayValues::I64(&[-1, 2, 3]), attributes: vec![] },
                ArrayOut { name: "mse", shape: &[2, 3], values: ArrayValues::F64(&reals), attributes: vec![] },
                ArrayOut { name: "none", shape: &[0, 4], values: ArrayValues::F32(&[]), attributes: vec![] },
            ],
        )
        .unwrap();
        let file = H5File::open(&path).unwrap();
        let arrays = file.arrays().unwrap();
        let names: Vec<_> = arrays.iter().map(|a| (a.name.as_str(), a.dtype.as_str(), a.shape.as_slice())).collect();
        assert_eq!(
            names,
            [
                ("group/images", "uint8", &[200, 5, 4, 3][..]),
                ("mse", "float64", &[2, 3]),
                ("none", "float32", &[0, 4]),
                ("t", "int64", &[3])
            ]
        );
        let images = &arrays[0];
        assert_eq!((images.kind, &images.filters[..]), (Kind::U8, &["deflate 4".to_owned()][..]));
        let attributes: Vec<_> = images.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(attributes, [("classes", "[cat, dog]"), ("levels", "256"), ("shape", "[5, 4, 3]"), ("source", "größer x")]);
        assert_eq!(file.read_u8("group/images").unwrap(), pixels);
        assert_eq!(file.read_i64("group/images").unwrap()[7], i64::from(pixels[7]));
        assert_eq!(file.read_i64("t").unwrap(), [-1, 2, 3]);
        let back = file.read_f64("mse").unwrap();
        assert!(back.iter().zip(reals).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert_eq!(file.integer_attribute("group/images", "levels").unwrap(), Some(256));
        assert_eq!(file.integer_attribute("t", "levels").unwrap(), None);
        assert!(file.integer_attribute("group/images", "shape").is_err());
        assert_eq!(file.text_attribute("group/images", "source").unwrap().as_deref(), Some("größer x"));
    }

    #[test]
    fn equal_contents_are_equal_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = |name: &str| {
            let path = dir.path().join(name);
            let out = ArrayOut {
                name: "deep/er/x",
                shape: &[2, 2],
                values: ArrayValues::F32(&[1.0, 2.0, 3.0, 4.0]),
                attributes: vec![("by", Attribute::Text("me".into()))],
            };
            write_arrays(&path, &[out]).unwrap();
            std::fs::read(path).unwrap()
        };
        let first = bytes("a.h5");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert!(first == bytes("b.h5"), "the bytes differ");
    }

    #[test]
    fn images_can_be_written_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.h5");
        let pixels: Vec<u8> = (0..7u8 * 6).collect();
        let writer = H5Writer::create(&path).unwrap();
        writer.create_images("images", [7, 2, 3, 1], &[]).unwrap();
        writer.write_images("images", 0, &pixels[..24]).unwrap();
        writer.write_images("images", 4, &pixels[24..]).unwrap();
        assert!(writer.write_images("images", 6, &pixels[..12]).is_err());
        writer.close().unwrap();
        assert_eq!(H5File::open(&path).unwrap().read_u8("images").unwrap(), pixels);
    }

    #[test]
    fn other_files_are_told_from_damaged_ones() {
        let dir = tempfile::tempdir().unwrap();
        let fails = |bytes: &[u8]| {
            let path = dir.path().join("x.h5");
            std::fs::write(&path, bytes).unwrap();
            H5File::open(&path).unwrap_err().to_string()
        };
        assert!(fails(b"hello").contains("is not an HDF5 file"));
        assert!(fails(b"").contains("is empty"));
        assert!(fails(&[0x1F, 0x8B, 8, 0]).contains("gzip"));
        assert!(fails(b"\x93NUMPY\x01\x00").contains("data import"));
        assert!(fails(&[0, 0, 8, 3, 0, 0, 0, 1]).contains("IDX"));
        let path = dir.path().join("whole.h5");
        let out = ArrayOut { name: "x", shape: &[500], values: ArrayValues::F64(&[1.0; 500]), attributes: vec![] };
        write_arrays(&path, &[out]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let cut = fails(&bytes[..bytes.len() / 2]);
        assert!(cut.contains("cannot open") && !cut.contains("is not an HDF5"), "{cut}");
        let missing = H5File::open(&dir.path().join("none.h5")).unwrap_err();
        assert!(matches!(missing, DataError::Missing { .. }));
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let out = ArrayOut { name: "x", shape: &[2, 2], values: ArrayValues::F64(&[1.0; 3]), attributes: vec![] };
        let message = write_arrays(&dir.path().join("a.h5"), &[out]).unwrap_err().to_string();
        assert!(message.contains("`x`"), "{message}");
    }
}
