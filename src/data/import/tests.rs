//! Tests of [`super`]: each format there and back, its faults, and what happens to the file.

use super::*;
use crate::data::hdf5::H5File;
use crate::data::idx::tests::{gz, idx_bytes};
use crate::data::{DataSpec, Dataset, load};
use image::{GrayImage, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use tempfile::TempDir;

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn options(source: &Path, out: &Path) -> ImportOptions {
    ImportOptions { source: source.to_owned(), test_source: None, out: out.to_owned(), size: None, grayscale: false, force: false }
}

fn run(options: &ImportOptions) -> Result<ImportSummary, DataError> {
    import(options, &mut |_, _| {})
}

fn fails(source: &Path) -> String {
    let out = dir();
    run(&options(source, &out.path().join("x.h5"))).unwrap_err().to_string()
}

fn loaded(path: &Path) -> Dataset {
    load(&DataSpec { path: Some(path.to_owned()), ..crate::data::tests::builtin_spec("file") }).unwrap()
}

fn ramp(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 % 256) as u8).collect()
}

#[test]
fn an_mnist_folder_becomes_images_and_labels_of_both_splits() {
    for (packed, dot) in [(true, "-"), (false, ".")] {
        let d = dir();
        let put = |stem: &str, axes: u32, bytes: Vec<u8>| {
            let (end, bytes) = if packed { (".gz", gz(&bytes)) } else { ("", bytes) };
            std::fs::write(d.path().join(format!("{stem}{dot}idx{axes}-ubyte{end}")), bytes).unwrap();
        };
        put("train-images", 3, idx_bytes(&[20, 3, 4], &ramp(240)));
        put("train-labels", 1, idx_bytes(&[20], &ramp(20).iter().map(|v| v % 10).collect::<Vec<_>>()));
        put("t10k-images", 3, idx_bytes(&[2, 3, 4], &ramp(24)));
        put("t10k-labels", 1, idx_bytes(&[2], &[9, 3]));
        let out = d.path().join("made/set.h5");
        let mut calls = vec![];
        let summary = import(&options(d.path(), &out), &mut |a, b| calls.push((a, b))).unwrap();
        let shape = Shape { height: 3, width: 4, channels: 1 };
        assert_eq!((summary.train, summary.val, summary.test, summary.shape, summary.classes), (20, 0, 2, shape, 10));
        assert_eq!((calls[0], *calls.last().unwrap()), ((0, 22), (22, 22)));
        let file = H5File::open(&out).unwrap();
        assert_eq!(file.read_u8("images").unwrap(), ramp(240));
        assert_eq!(file.read_u8("test_images").unwrap(), ramp(24));
        assert_eq!(file.read_i64("test_labels").unwrap(), [9, 3]);
        assert_eq!(file.read_i64("labels").unwrap().len(), 20);
        let arrays = file.arrays().unwrap();
        assert_eq!(arrays[0].filters, ["deflate 4"]);
        let attributes: Vec<&str> = arrays[0].attributes.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(attributes, ["created_by", "layout", "levels", "shape", "source"]);
        let info = loaded(&out).info;
        assert_eq!((info.train, info.val, info.test), (18, 2, 2));
        let left: Vec<_> = std::fs::read_dir(out.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["set.h5"], "nothing temporary stays");
    }
}

#[test]
fn a_single_idx_file_takes_its_labels_and_another_as_test() {
    let d = dir();
    let p = |name: &str| d.path().join(name);
    std::fs::write(p("a-images-idx3-ubyte.gz"), gz(&idx_bytes(&[10, 2, 2], &ramp(40)))).unwrap();
    std::fs::write(p("a-labels-idx1-ubyte"), idx_bytes(&[10], &[1; 10])).unwrap();
    std::fs::write(p("b"), idx_bytes(&[3, 2, 2], &ramp(12))).unwrap();
    let both = ImportOptions { test_source: Some(p("b")), ..options(&p("a-images-idx3-ubyte.gz"), &p("o.h5")) };
    let summary = run(&both).unwrap();
    assert_eq!((summary.train, summary.test, summary.classes, summary.format), (10, 3, 2, "IDX"));
    std::fs::write(p("b"), idx_bytes(&[3, 2, 1], &ramp(6))).unwrap();
    let text = run(&ImportOptions { force: true, ..both }).unwrap_err().to_string();
    assert!(text.contains("2×1×1") && text.contains("2×2×1"), "{text}");
}

#[test]
fn faulty_idx_files_are_named_and_nothing_is_written() {
    let d = dir();
    let p = d.path().join("x-images");
    let good = idx_bytes(&[10, 2, 2], &ramp(40));
    std::fs::write(&p, &good[..50]).unwrap();
    assert!(fails(&p).contains("truncated") && fails(&p).contains("x-images"));
    std::fs::write(&p, &gz(&good)[..30]).unwrap();
    assert!(fails(&p).contains("gzip"));
    std::fs::write(&p, idx_bytes(&[10], &ramp(10))).unwrap();
    assert!(fails(&p).contains("usual for labels"));
    std::fs::write(&p, &good).unwrap();
    std::fs::write(d.path().join("x-labels"), idx_bytes(&[9], &ramp(9))).unwrap();
    assert!(fails(&p).contains("10 images, but 9 labels"));
    std::fs::write(&p, b"some text, at least so long").unwrap();
    assert!(fails(&p).contains("format is not known"));
    assert!(fails(&d.path().join("nowhere")).contains("does not exist"));
}

#[test]
fn cifar_batches_are_joined_and_turned_to_channels_last() {
    let d = dir();
    let record = |label: u8| [vec![label], vec![10 + label; 1024], vec![20 + label; 1024], vec![30 + label; 1024]].concat();
    std::fs::write(d.path().join("data_batch_1.bin"), [record(0), record(1)].concat()).unwrap();
    std::fs::write(d.path().join("data_batch_2.bin"), (2..10).flat_map(record).collect::<Vec<_>>()).unwrap();
    std::fs::write(d.path().join("test_batch.bin"), record(7)).unwrap();
    let names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
    std::fs::write(d.path().join("batches.meta.txt"), names.join("\n") + "\n\n").unwrap();
    let out = d.path().join("c.h5");
    let summary = run(&options(d.path(), &out)).unwrap();
    assert_eq!((summary.format, summary.train, summary.test, summary.classes), ("CIFAR-10", 10, 1, 10));
    let file = H5File::open(&out).unwrap();
    assert_eq!(file.read_u8("images").unwrap()[9 * 3072..][..6], [19, 29, 39, 19, 29, 39]);
    assert_eq!(file.read_i64("labels").unwrap(), (0..10).collect::<Vec<_>>());
    assert!(file.arrays().unwrap()[1].attributes[0].1.contains("frog"));
    let single = d.path().join("data_batch_1.bin");
    assert_eq!(run(&options(&single, &d.path().join("one.h5"))).unwrap().train, 2);
    std::fs::write(&single, &record(0)[..3000]).unwrap();
    assert!(fails(&single).contains("3000 bytes"));
    std::fs::write(&single, record(57)).unwrap();
    assert!(fails(&single).contains("label 57"));
}

fn npy(descr: &str, order: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat()
}

#[test]
fn npy_arrays_of_every_layout_become_channels_last() {
    let d = dir();
    let p = d.path().join("a.npy");
    let imported = |bytes: &[u8]| {
        std::fs::write(&p, bytes).unwrap();
        let out = d.path().join("o.h5");
        let summary = run(&ImportOptions { force: true, ..options(&p, &out) }).unwrap();
        (summary.shape, H5File::open(&out).unwrap().read_u8("images").unwrap())
    };
    let values = ramp(10 * 2 * 5 * 3);
    assert_eq!(imported(&npy("|u1", "False", "(10, 2, 5, 3)", &values)), (Shape { height: 2, width: 5, channels: 3 }, values.clone()));
    let (shape, first) = imported(&npy("|u1", "False", "(10, 3, 2, 5)", &values));
    assert_eq!(shape, Shape { height: 2, width: 5, channels: 3 });
    assert_eq!(first[..4], [values[0], values[10], values[20], values[1]]);
    assert_eq!(imported(&npy("|u1", "False", "(30, 2, 5)", &values)).0, Shape { height: 2, width: 5, channels: 1 });
}

#[test]
fn npy_arrays_that_are_no_images_are_refused() {
    let d = dir();
    let p = d.path().join("a.npy");
    let refused = |bytes: Vec<u8>| {
        std::fs::write(&p, bytes).unwrap();
        fails(&p)
    };
    assert!(refused(npy("<f4", "False", "(1, 2, 2)", &[0; 16])).contains("`<f4`"));
    assert!(refused(npy("|u1", "True", "(1, 2, 2)", &[0; 4])).contains("Fortran"));
    assert!(refused(npy("|u1", "False", "(2, 2, 2)", &[0; 7])).contains("needs 8 bytes of values, it has 7"));
    assert!(refused(npy("|u1", "False", "(8,)", &[0; 8])).contains("[8]"));
    assert!(refused(npy("|u1", "False", "(1, 3, 2, 3)", &[0; 18])).contains("N,C,H,W"));
    assert!(refused(npy("|u1", "False", "(1, 2, 2)", &[0; 4])[..40].to_vec()).contains("cut off"));
}

fn save(folder: &Path, name: &str, picture: impl Into<DynamicImage>) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture.into().save(path).unwrap();
}

#[test]
fn a_folder_of_pictures_is_read_in_order_with_its_sub_folders_as_classes() {
    let d = dir();
    let grey = |v: u8| GrayImage::from_pixel(3, 2, Luma([v]));
    for (name, v) in [("b/2.png", 2), ("a/10.png", 1), ("a/9.PNG", 0), ("c/deep/x.png", 4), ("b/3.png", 3)] {
        // The encoder goes by the name's end, in lower case.
        save(d.path(), &name.to_lowercase(), grey(v * 50));
        std::fs::rename(d.path().join(name.to_lowercase()), d.path().join(name)).unwrap();
    }
    std::fs::write(d.path().join("a/notes.txt"), "x").unwrap();
    std::fs::write(d.path().join("a/.hidden.png"), "x").unwrap();
    let out = d.path().join("o.h5");
    let summary = run(&options(d.path(), &out)).unwrap();
    let shape = Shape { height: 2, width: 3, channels: 1 };
    assert_eq!((summary.train, summary.classes, summary.skipped, summary.shape), (5, 3, 1, shape));
    let file = H5File::open(&out).unwrap();
    let firsts: Vec<u8> = file.read_u8("images").unwrap().chunks(6).map(|c| c[0]).collect();
    assert_eq!(firsts, [50, 0, 100, 150, 200]);
    assert_eq!(file.read_i64("labels").unwrap(), [0, 0, 1, 1, 2]);
    assert_eq!(file.text_attribute("labels", "classes").unwrap(), None, "three names are not one text");
    assert_eq!(file.arrays().unwrap()[1].attributes, [("classes".to_owned(), "[a, b, c/deep]".to_owned())]);
}

#[test]
fn train_and_test_folders_are_splits_with_common_classes_and_color() {
    let d = dir();
    save(d.path(), "train/cat/1.png", GrayImage::from_pixel(2, 2, Luma([7])));
    save(d.path(), "train/eel/1.png", GrayImage::from_pixel(2, 2, Luma([8])));
    save(d.path(), "test/dog/1.png", RgbImage::from_pixel(2, 2, Rgb([1, 2, 3])));
    let out = d.path().join("o.h5");
    let summary = run(&options(d.path(), &out)).unwrap();
    assert_eq!((summary.train, summary.test, summary.classes, summary.shape.channels), (2, 1, 3, 3));
    let file = H5File::open(&out).unwrap();
    assert_eq!(file.read_u8("test_images").unwrap()[..3], [1, 2, 3]);
    assert_eq!(file.read_u8("images").unwrap()[..3], [7, 7, 7]);
    assert_eq!((file.read_i64("labels").unwrap(), file.read_i64("test_labels").unwrap()), (vec![0, 2], vec![1]));
    // With another sub-folder beside them they are classes.
    save(d.path(), "other/1.png", GrayImage::new(2, 2));
    assert_eq!(run(&ImportOptions { force: true, ..options(d.path(), &out) }).unwrap().train, 4);
}

#[test]
fn pictures_of_different_sizes_are_refused_or_cropped_and_scaled() {
    let d = dir();
    save(d.path(), "1.png", RgbImage::from_pixel(4, 4, Rgb([200, 100, 0])));
    // Red at the sides, blue in the central square.
    save(d.path(), "2.png", RgbImage::from_fn(16, 8, |x, _| if (4..12).contains(&x) { Rgb([0, 0, 255]) } else { Rgb([255, 0, 0]) }));
    save(d.path(), "3.png", RgbImage::new(5, 4));
    let text = fails(d.path());
    assert!(text.contains("1.png has 4 x 4") && text.contains("2.png has 16 x 8") && text.contains("--size"), "{text}");
    let out = d.path().join("o.h5");
    let scaled = run(&ImportOptions { size: Some(4), ..options(d.path(), &out) }).unwrap();
    assert_eq!(scaled.shape, Shape { height: 4, width: 4, channels: 3 });
    let pixels = H5File::open(&out).unwrap().read_u8("images").unwrap();
    assert!(pixels[..48].chunks(3).all(|p| p == [200, 100, 0]));
    assert!(pixels[48..96].chunks(3).all(|p| p == [0, 0, 255]), "{:?}", &pixels[48..96]);
    let grey = run(&ImportOptions { size: Some(4), grayscale: true, force: true, ..options(d.path(), &out) }).unwrap();
    assert_eq!(grey.shape.channels, 1);
}

#[test]
fn jpeg_and_transparent_pictures_are_read() {
    let d = dir();
    save(d.path(), "1.jpg", RgbImage::from_pixel(8, 8, Rgb([255, 0, 0])));
    save(d.path(), "2.png", RgbaImage::from_pixel(8, 8, Rgba([0, 0, 0, 0])));
    let out = d.path().join("o.h5");
    run(&options(d.path(), &out)).unwrap();
    let pixels = H5File::open(&out).unwrap().read_u8("images").unwrap();
    assert!(pixels[0] > 245 && pixels[1] < 10, "{:?}", &pixels[..3]);
    assert!(pixels[192..].iter().all(|&v| v == 255), "transparent is white");
}

#[test]
fn broken_pictures_and_empty_folders_are_named() {
    let d = dir();
    assert!(fails(d.path()).contains("no PNG or JPEG"));
    save(d.path(), "a/1.png", GrayImage::new(2, 2));
    std::fs::write(d.path().join("a/2.png"), b"not a picture").unwrap();
    assert!(fails(d.path()).contains("2.png"));
    save(d.path(), "a/2.png", GrayImage::from_fn(64, 64, |x, y| Luma([(x * y) as u8])));
    std::fs::remove_file(d.path().join("a/1.png")).unwrap();
    let bytes = std::fs::read(d.path().join("a/2.png")).unwrap();
    std::fs::write(d.path().join("a/2.png"), &bytes[..bytes.len() / 2]).unwrap();
    assert!(fails(d.path()).contains("2.png"), "{}", fails(d.path()));
}

#[test]
fn images_in_memory_can_be_scaled_and_made_grey_too() {
    let d = dir();
    let p = d.path().join("a.npy");
    std::fs::write(&p, npy("|u1", "False", "(2, 8, 8, 3)", &[90; 384])).unwrap();
    let out = d.path().join("o.h5");
    let summary = run(&ImportOptions { size: Some(4), grayscale: true, ..options(&p, &out) }).unwrap();
    assert_eq!(summary.shape, Shape { height: 4, width: 4, channels: 1 });
    assert_eq!(H5File::open(&out).unwrap().read_u8("images").unwrap(), [90; 32]);
}

#[test]
fn an_existing_file_is_kept_unless_forced_and_kept_when_an_import_fails() {
    let d = dir();
    let (source, out) = (d.path().join("s"), d.path().join("o.h5"));
    std::fs::write(&source, idx_bytes(&[10, 2, 2], &ramp(40))).unwrap();
    std::fs::write(&out, "mine").unwrap();
    assert!(run(&options(&source, &out)).unwrap_err().to_string().contains("--force"));
    std::fs::write(d.path().join("bad"), idx_bytes(&[10, 2, 2], &[])).unwrap();
    assert!(run(&ImportOptions { force: true, ..options(&d.path().join("bad"), &out) }).is_err());
    assert_eq!(std::fs::read(&out).unwrap(), b"mine");
    run(&ImportOptions { force: true, ..options(&source, &out) }).unwrap();
    assert_eq!(loaded(&out).info.train, 8);
    assert!(run(&ImportOptions { force: true, ..options(&source, d.path()) }).unwrap_err().to_string().contains("folder"));
}

#[test]
fn a_failure_half_way_leaves_nothing_behind() {
    let d = dir();
    // The header is sound, so that the fault shows only when pixels are decoded.
    save(d.path(), "in/1.png", GrayImage::from_fn(64, 64, |x, y| Luma([(x * y) as u8])));
    let bytes = std::fs::read(d.path().join("in/1.png")).unwrap();
    std::fs::write(d.path().join("in/2.png"), &bytes[..bytes.len() / 2]).unwrap();
    let out = d.path().join("out/o.h5");
    let text = run(&options(&d.path().join("in"), &out)).unwrap_err().to_string();
    assert!(text.contains("cannot decode") && text.contains("2.png"), "{text}");
    assert_eq!(std::fs::read_dir(d.path().join("out")).unwrap().count(), 0);
}

#[test]
fn two_imports_of_one_source_are_equal_bytes() {
    let d = dir();
    let source = d.path().join("s");
    std::fs::write(&source, idx_bytes(&[100, 8, 8], &ramp(6400))).unwrap();
    let bytes = |name: &str| {
        run(&options(&source, &d.path().join(name))).unwrap();
        std::fs::read(d.path().join(name)).unwrap()
    };
    assert!(bytes("a.h5") == bytes("b.h5"));
}

#[test]
fn archives_and_finished_files_are_sent_elsewhere() {
    let d = dir();
    let p = d.path().join("x");
    let refused = |bytes: &[u8]| {
        std::fs::write(&p, bytes).unwrap();
        fails(&p)
    };
    assert!(refused(b"\x89HDF\r\n\x1a\n").contains("data.path"));
    assert!(refused(b"PK\x03\x04....").contains("zip"));
    assert!(refused(b"\x89PNG\r\n\x1a\n").contains("folder"));
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(refused(&tar).contains("tar") && refused(&gz(&tar)).contains("tar"));
    std::fs::write(d.path().join("data_batch_1"), "x").unwrap();
    assert!(fails(d.path()).contains("binary version"));
}
