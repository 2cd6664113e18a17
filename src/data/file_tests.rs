//! Tests of [`super`]: h5py's conventions, layouts, splits and messages.

use super::*;
use crate::data::hdf5::{ArrayOut, ArrayValues, Attribute, write_arrays};
use crate::data::{DataSpec, load as load_spec};

struct Made {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn u8s<'a>(name: &'a str, shape: &'a [usize], values: &'a [u8]) -> ArrayOut<'a> {
    ArrayOut { name, shape, values: ArrayValues::U8(values), attributes: vec![] }
}

fn made(arrays: &[ArrayOut<'_>]) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my set.h5");
    write_arrays(&path, arrays).unwrap();
    Made { _dir: dir, path }
}

impl Made {
    fn spec(&self) -> DataSpec {
        DataSpec { path: Some(self.path.clone()), ..crate::data::tests::builtin_spec("file") }
    }

    fn load(&self) -> Result<Dataset, DataError> {
        load_spec(&self.spec())
    }

    fn fails(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

fn ramp(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 256) as u8).collect()
}

#[test]
fn usual_names_are_found_whatever_else_is_there() {
    for name in ["images", "train_images", "X_train", "x", "data", "train/images", "Train"] {
        let file = made(&[u8s(name, &[20, 4, 5], &ramp(400)), u8s("aaa", &[20, 4, 5], &ramp(400)), u8s("labels", &[20], &ramp(20))]);
        let d = file.load().unwrap();
        assert_eq!(d.info.shape, Shape { height: 4, width: 5, channels: 1 }, "{name}");
        assert_eq!((d.info.train, d.info.val, d.info.test), (16, 2, 2), "{name}");
        assert_eq!(d.name, "my set");
        assert!(d.title.contains(name));
    }
}

#[test]
fn the_only_integer_array_of_images_is_taken_without_a_name() {
    let float = ArrayOut { name: "z", shape: &[20, 2, 2], values: ArrayValues::F32(&[0.0; 80]), attributes: vec![] };
    let file = made(&[u8s("pictures", &[20, 2, 2], &ramp(80)), u8s("y", &[20], &ramp(20)), float]);
    assert_eq!(file.load().unwrap().info.train, 16);
}

#[test]
fn a_file_without_recognisable_images_lists_what_it_holds() {
    let float = ArrayOut { name: "w/mse", shape: &[2, 2], values: ArrayValues::F64(&[0.0; 4]), attributes: vec![] };
    let text = made(&[u8s("a", &[20, 2, 2], &ramp(80)), u8s("b", &[20, 2, 3], &ramp(120)), float]).fails();
    assert!(text.contains("`data.dataset`"), "{text}");
    for line in ["  a      [20, 2, 2] uint8", "  b      [20, 2, 3] uint8", "  w/mse  [2, 2] float64"] {
        assert!(text.contains(line), "{text}");
    }
    assert!(made(&[]).fails().contains("no arrays at all"));
}

#[test]
fn a_named_array_is_taken_and_a_wrong_name_lists_all() {
    let file = made(&[u8s("images", &[20, 2, 2], &ramp(80)), u8s("deep/er", &[30, 3, 3], &ramp(270))]);
    let mut spec = file.spec();
    spec.dataset = Some("/deep/er".into());
    assert_eq!(load_spec(&spec).unwrap().info.train, 24);
    spec.dataset = Some("deeper".into());
    let text = load_spec(&spec).unwrap_err().to_string();
    assert!(text.contains("`deeper`") && text.contains("deep/er  [30, 3, 3] uint8"), "{text}");
    spec.dataset = Some("images".into());
    spec.path = Some(PathBuf::from("gone.h5"));
    assert_eq!(load_spec(&spec).unwrap_err().to_string(), "gone.h5 does not exist");
}

#[test]
fn channels_first_and_channels_last_give_the_same_images() {
    let (n, h, w, c) = (10, 2, 5, 3);
    let last: Vec<u8> = ramp(n * h * w * c);
    let mut first = vec![0; last.len()];
    for i in 0..n {
        for y in 0..h {
            for x in 0..w {
                for k in 0..c {
                    first[((i * c + k) * h + y) * w + x] = last[((i * h + y) * w + x) * c + k];
                }
            }
        }
    }
    let a = made(&[u8s("images", &[n, h, w, c], &last)]).load().unwrap();
    let b = made(&[u8s("images", &[n, c, h, w], &first)]).load().unwrap();
    assert_eq!(a.info, b.info);
    assert_eq!(a.info.shape, Shape { height: h, width: w, channels: c });
    assert!((0..a.train.len()).all(|i| a.train.raw_u8(i) == b.train.raw_u8(i)));
}

#[test]
fn a_layout_that_could_be_either_must_be_named() {
    let file = made(&[u8s("images", &[10, 3, 8, 4], &ramp(960))]);
    let text = file.fails();
    assert!(text.contains("data.layout") && text.contains("[10, 3, 8, 4]"), "{text}");
    let mut spec = file.spec();
    spec.layout = AxisOrder::Nhwc;
    assert_eq!(load_spec(&spec).unwrap().info.shape, Shape { height: 3, width: 8, channels: 4 });
    spec.layout = AxisOrder::Nchw;
    assert_eq!(load_spec(&spec).unwrap().info.shape, Shape { height: 8, width: 4, channels: 3 });
    let mut said = u8s("images", &[10, 3, 8, 4], &[]);
    let values = ramp(960);
    said.values = ArrayValues::U8(&values);
    said.attributes = vec![("layout", Attribute::Text("NCHW".into()))];
    assert_eq!(made(&[said]).load().unwrap().info.shape.channels, 3);
}

#[test]
fn shapes_that_are_no_images_are_refused() {
    let odd = made(&[u8s("images", &[10, 5, 5, 7], &ramp(1750))]).fails();
    assert!(odd.contains("1, 3 or 4 channels") && odd.contains("data.layout"), "{odd}");
    let file = made(&[u8s("flat", &[10, 784], &vec![0; 7840])]);
    let mut spec = file.spec();
    spec.dataset = Some("flat".into());
    let text = load_spec(&spec).unwrap_err().to_string();
    assert!(text.contains("[10, 784]") && text.contains("(N, H, W, C)"), "{text}");
}

#[test]
fn float_images_are_refused_with_the_reason() {
    for name in ["images", "lonely"] {
        let float = ArrayOut { name, shape: &[10, 2, 2], values: ArrayValues::F32(&[0.5; 40]), attributes: vec![] };
        let text = made(&[float]).fails();
        assert!(text.contains("float32") && text.contains("uint8"), "{text}");
    }
}

#[test]
fn wider_integers_are_taken_if_their_values_fit() {
    let mut values: Vec<i64> = (0..40).collect();
    let wide = |v: &[i64]| made(&[ArrayOut { name: "x", shape: &[10, 2, 2], values: ArrayValues::I64(v), attributes: vec![] }]);
    let narrow = made(&[u8s("x", &[10, 2, 2], &ramp(40))]);
    assert_eq!(wide(&values).load().unwrap().info, narrow.load().unwrap().info);
    values[13] = 256;
    let text = wide(&values).fails();
    assert!(text.contains("256 in example 3"), "{text}");
    values[13] = -1;
    assert!(wide(&values).fails().contains("-1 in example 3"));
}

#[test]
fn the_levels_attribute_is_the_number_of_levels_and_binding() {
    let with = |levels, values: &[u8]| {
        made(&[ArrayOut {
            name: "images",
            shape: &[10, 2, 2],
            values: ArrayValues::U8(values),
            attributes: vec![("levels", Attribute::Integer(levels))],
        }])
    };
    assert_eq!(with(40, &ramp(40)).load().unwrap().info.encoding, crate::data::Encoding::Discrete { levels: 40 });
    assert!(with(39, &ramp(40)).fails().contains("value 39 in example 9, but its levels are 0..=38"));
    assert!(with(257, &ramp(40)).fails().contains("257 levels"));
    assert!(with(1, &ramp(40)).fails().contains("1 levels"));
}

#[test]
fn sibling_arrays_are_the_other_splits() {
    for (train, val, test) in [
        ("images", "val_images", "test_images"),
        ("x_train", "x_val", "x_test"),
        ("train_images", "valid_images", "test_images"),
        ("train/images", "validation/images", "test/images"),
        ("data", "data_dev", "data_test"),
        ("set/images", "set/val/images", "set/test/images"),
    ] {
        let (a, b, c) = (ramp(48), ramp(8), ramp(12));
        let mut arrays = vec![u8s(train, &[12, 2, 2], &a), u8s(val, &[2, 2, 2], &b), u8s(test, &[3, 2, 2], &c)];
        if train == "set/images" {
            arrays.push(u8s("set/y", &[12], &c));
        }
        let file = made(&arrays);
        let mut spec = file.spec();
        spec.dataset = (train == "set/images").then(|| train.to_owned());
        let info = load_spec(&spec).unwrap().info;
        assert_eq!((info.train, info.val, info.test), (12, 2, 3), "{train}");
    }
}

#[test]
fn a_missing_val_split_is_taken_out_of_train_only() {
    let (a, b) = (ramp(400), ramp(12));
    let file = made(&[u8s("images", &[100, 2, 2], &a), u8s("test_images", &[3, 2, 2], &b)]);
    let info = file.load().unwrap().info;
    assert_eq!((info.train, info.val, info.test), (90, 10, 3));
}

#[test]
fn siblings_of_another_shape_or_type_are_refused() {
    let text = made(&[u8s("images", &[10, 2, 2], &ramp(40)), u8s("test_images", &[1, 2, 3], &ramp(6))]).fails();
    assert!(text.contains("`test_images`") && text.contains("2×3×1") && text.contains("2×2×1"), "{text}");
    let float = ArrayOut { name: "test_images", shape: &[1, 2, 2], values: ArrayValues::F32(&[0.0; 4]), attributes: vec![] };
    assert!(made(&[u8s("images", &[10, 2, 2], &ramp(40)), float]).fails().contains("float32"));
    let few = made(&[u8s("images", &[9, 2, 2], &ramp(36))]).fails();
    assert!(few.contains("9 images") && few.contains("at least 10"), "{few}");
}

#[test]
fn the_rule_takes_two_of_every_ten_without_favouring_a_place() {
    let parts = assign(20_007);
    let mut places = [[0usize; 10]; 3];
    for block in parts.chunks_exact(10) {
        for part in [1, 2] {
            assert_eq!(block.iter().filter(|&&p| p == part).count(), 1);
        }
        for (place, &part) in block.iter().enumerate() {
            places[part][place] += 1;
        }
    }
    // 2,000 blocks over 10 places: 200 ± 13.4; five standard errors.
    assert!(places[1].iter().chain(&places[2]).all(|n| (133..267).contains(n)), "{places:?}");
    assert_eq!(assign(500)[..], parts[..500], "an image's part does not depend on how many follow");
}

#[test]
fn describing_a_file_tells_what_would_be_used() {
    let (a, b) = (ramp(100 * 12), ramp(5 * 12));
    let file = made(&[u8s("images", &[100, 3, 2, 2], &a), u8s("test_images", &[5, 3, 2, 2], &b), u8s("labels", &[100], &ramp(100))]);
    let info = describe_file(&file.path).unwrap();
    let usage = info.usage.unwrap();
    assert_eq!((usage.layout, usage.levels, usage.shape.channels), (AxisOrder::Nchw, 256, 3));
    assert_eq!(usage.train.to_string(), "90 images: of the 100 of `images`, by a fixed rule");
    assert_eq!(usage.val.to_string(), "10 images: of the 100 of `images`, by a fixed rule");
    assert_eq!(usage.test.to_string(), "5 images: `test_images`");
    assert_eq!(info.arrays.len(), 3);
    assert!(info.bytes > 0);
    let d = file.load().unwrap();
    assert_eq!((d.info.train, d.info.val, d.info.test), (usage.train.count, usage.val.count, usage.test.count));
    let file = made(&[u8s("labels", &[100], &ramp(100))]);
    assert!(describe_file(&file.path).unwrap().usage.unwrap_err().contains("labels"));
}
