//! The data sets inside the program. The files and their licenses are in `assets/`, with the script that made them.
//!
//! Start at [`builtins`]. Splits are rules on the file's order, stated in [`digits`] and [`fashion`], so that they never move.

use super::{DataError, Dataset, Encoding, Examples, Shape, binary, idx, toy};

/// One line of `data list`.
#[derive(Clone, Debug, PartialEq)]
pub struct Builtin {
    pub name: &'static str,
    pub title: &'static str,
    pub shape: Shape,
    pub encoding: Encoding,
    pub train: usize,
    pub val: usize,
    pub test: usize,
    pub license: &'static str,
    pub credit: &'static str,
}

const POINT: Shape = Shape { height: 1, width: 1, channels: 2 };

const fn toy_set(name: &'static str, title: &'static str, credit: &'static str) -> Builtin {
    Builtin {
        name,
        title,
        shape: POINT,
        encoding: Encoding::Continuous,
        train: toy::TRAIN,
        val: toy::VAL,
        test: toy::TEST,
        license: "drawn by this program",
        credit,
    }
}

static BUILTINS: [Builtin; 9] = [
    Builtin {
        name: "digits",
        title: "Optical Recognition of Handwritten Digits",
        shape: Shape { height: 8, width: 8, channels: 1 },
        encoding: Encoding::Discrete { levels: 17 },
        train: 1444,
        val: 177,
        test: 176,
        license: "CC BY 4.0",
        credit: "E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998 (doi:10.24432/C50P49), as distributed by scikit-learn",
    },
    Builtin {
        name: "fashion_mnist_small",
        title: "Fashion-MNIST, 2,500 images of it",
        shape: Shape { height: 28, width: 28, channels: 1 },
        encoding: Encoding::Discrete { levels: 256 },
        train: 1800,
        val: 200,
        test: 500,
        license: "MIT",
        credit: "H. Xiao, K. Rasul and R. Vollgraf, Zalando SE, 2017 (arXiv:1708.07747)",
    },
    toy_set("swiss_roll", "Swiss roll in the plane", "after J. Sohl-Dickstein et al., 2015 (arXiv:1503.03585)"),
    toy_set("two_moons", "Two interleaved half circles", "after scikit-learn's make_moons"),
    toy_set("checkerboard", "Black squares of a 4 by 4 board", "customary in work on density models"),
    toy_set("gaussian_mixture", "Eight Gaussians on a circle", "customary in work on density models; its optimal denoiser is known"),
    Builtin {
        name: "digits_binary",
        title: "Optical Recognition of Handwritten Digits, black and white",
        shape: Shape { height: 8, width: 8, channels: 1 },
        encoding: Encoding::Discrete { levels: 2 },
        train: 1444,
        val: 177,
        test: 176,
        license: "CC BY 4.0",
        credit: "E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998 (doi:10.24432/C50P49), as distributed by scikit-learn; \
                 cut at half of the grey levels",
    },
    Builtin {
        name: "heartbeat",
        title: "Twenty bits, a beat at every fifth",
        shape: binary::HEARTBEAT,
        encoding: Encoding::Discrete { levels: 2 },
        train: toy::TRAIN,
        val: toy::VAL,
        test: toy::TEST,
        license: "drawn by this program",
        credit: "after J. Sohl-Dickstein et al., 2015 (arXiv:1503.03585)",
    },
    toy_set("swiss_roll_2015", "Thin swiss roll in the plane", "after J. Sohl-Dickstein et al., 2015 (arXiv:1503.03585)"),
];

/// Every built-in set, in the order of `data list`.
pub fn builtins() -> &'static [Builtin] {
    &BUILTINS
}

pub(super) fn load(name: &str) -> Result<Dataset, DataError> {
    let Some(about) = BUILTINS.iter().find(|b| b.name == name) else {
        let hint = BUILTINS
            .iter()
            .map(|b| (strsim::jaro_winkler(name, b.name), b.name))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(String::new(), |(_, best)| format!(" (did you mean `{best}`?)"));
        let known = BUILTINS.iter().map(|b| b.name).collect::<Vec<_>>().join(", ");
        return Err(DataError::UnknownName { name: name.to_owned(), hint, known });
    };
    let splits = match name {
        "digits" => digits()?,
        "fashion_mnist_small" => fashion()?,
        "digits_binary" => binary::digits(digits()?),
        "heartbeat" => binary::heartbeat(),
        _ => toy::splits(toy::Toy::from_name(name).expect("every other built-in is a toy: a test holds that")),
    };
    Ok(Dataset::new(about.name, about.title, about.credit, splits))
}

/// Where an example belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Train,
    Val,
    Test,
}

/// The 1,797 digits. Of the images of each class, counted from 0 in the order of the file, number k belongs to `val` if
/// k mod 10 = 8, to `test` if k mod 10 = 9, else to `train`. (Not by the index in the file: its classes follow each other
/// 0, 1, …, 9, so that such a rule would draw some classes four times as often as others.)
fn digits() -> Result<[Examples; 3], DataError> {
    let images = idx::embedded(include_bytes!("../../assets/digits-images-idx3-ubyte.gz"), "digits-images (built in)")?;
    let labels = idx::embedded(include_bytes!("../../assets/digits-labels-idx1-ubyte.gz"), "digits-labels (built in)")?;
    let part_of = |k| match k % 10 {
        8 => Part::Val,
        9 => Part::Test,
        _ => Part::Train,
    };
    Ok(by_class(&images.values, &labels.values, Shape { height: 8, width: 8, channels: 1 }, 17, part_of))
}

/// 2,000 of Fashion-MNIST's training images, of which the 10th, 20th, … of each class is `val`; `test` are 500 of its test images.
fn fashion() -> Result<[Examples; 3], DataError> {
    let shape = Shape { height: 28, width: 28, channels: 1 };
    let images = idx::embedded(include_bytes!("../../assets/fashion-train-images-idx3-ubyte.gz"), "fashion-train-images (built in)")?;
    let labels = idx::embedded(include_bytes!("../../assets/fashion-train-labels-idx1-ubyte.gz"), "fashion-train-labels (built in)")?;
    let test = idx::embedded(include_bytes!("../../assets/fashion-test-images-idx3-ubyte.gz"), "fashion-test-images (built in)")?;
    let part_of = |k| if k % 10 == 9 { Part::Val } else { Part::Train };
    let [train, val, _] = by_class(&images.values, &labels.values, shape, 256, part_of);
    Ok([train, val, Examples::from_levels(shape, 256, test.values)])
}

/// Sends each image to the part that `part_of` names for its running number within its class.
fn by_class(pixels: &[u8], labels: &[u8], shape: Shape, levels: u32, part_of: impl Fn(usize) -> Part) -> [Examples; 3] {
    let mut seen = [0usize; 256];
    let mut parts: [Vec<u8>; 3] = Default::default();
    for (image, &label) in pixels.chunks_exact(shape.dims()).zip(labels) {
        let k = &mut seen[usize::from(label)];
        parts[part_of(*k) as usize].extend_from_slice(image);
        *k += 1;
    }
    parts.map(|bytes| Examples::from_levels(shape, levels, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    #[test]
    fn every_builtin_loads_as_it_is_listed() {
        for b in builtins() {
            let d = load(b.name).unwrap();
            assert_eq!((d.info.shape, d.info.encoding), (b.shape, b.encoding), "{}", b.name);
            assert_eq!((d.info.train, d.info.val, d.info.test), (b.train, b.val, b.test), "{}", b.name);
            assert_eq!((d.train.len(), d.val.len(), d.test.len()), (b.train, b.val, b.test), "{}", b.name);
            assert!(!b.license.is_empty() && !b.credit.is_empty() && d.name == b.name);
        }
    }

    #[test]
    fn embedded_files_are_those_that_the_script_made() {
        // Sums of all bytes as the sources give them (numpy: images.sum()), and the fingerprint of the splits.
        let sum = |d: &Dataset| -> u64 {
            [&d.train, &d.val, &d.test]
                .iter()
                .flat_map(|s| (0..s.len()).flat_map(|i| s.raw_u8(i).unwrap().iter().map(|&v| u64::from(v))))
                .sum()
        };
        let (digits, fashion) = (load("digits").unwrap(), load("fashion_mnist_small").unwrap());
        assert_eq!(sum(&digits), DIGITS_SUM);
        assert_eq!(sum(&fashion), FASHION_SUM);
        assert_eq!(digits.info.fingerprint, DIGITS_FINGERPRINT);
        assert_eq!(fashion.info.fingerprint, FASHION_FINGERPRINT);
    }
    const DIGITS_SUM: u64 = 561_718;
    const FASHION_SUM: u64 = 143_465_601;
    const DIGITS_FINGERPRINT: &str = "fba5336e5a86c864343c191286494f35d8bf6cae5b3b7701357db6fc0ac7f2a6";
    const FASHION_FINGERPRINT: &str = "87ddb508ff9c4335fabc76855b0fa77eab8680cb7e85921e0df90101cf4a3a59";

    /// The class of every image, by its pixels.
    fn classes(files: &[(&[u8], &[u8])], dims: usize) -> HashMap<Vec<u8>, u8> {
        files
            .iter()
            .flat_map(|(images, labels)| {
                let (images, labels) = (idx::embedded(images, "i").unwrap(), idx::embedded(labels, "l").unwrap());
                let classes = labels.values.clone();
                images.values.chunks_exact(dims).map(<[u8]>::to_vec).zip(classes).collect::<Vec<_>>()
            })
            .collect()
    }

    fn counts(split: &Examples, class: &HashMap<Vec<u8>, u8>) -> [usize; 10] {
        let mut n = [0; 10];
        for i in 0..split.len() {
            n[usize::from(class[split.raw_u8(i).unwrap()])] += 1;
        }
        n
    }

    #[test]
    fn splits_are_balanced_over_the_classes() {
        let fashion = load("fashion_mnist_small").unwrap();
        let class = classes(
            &[
                (
                    include_bytes!("../../assets/fashion-train-images-idx3-ubyte.gz"),
                    include_bytes!("../../assets/fashion-train-labels-idx1-ubyte.gz"),
                ),
                (
                    include_bytes!("../../assets/fashion-test-images-idx3-ubyte.gz"),
                    include_bytes!("../../assets/fashion-test-labels-idx1-ubyte.gz"),
                ),
            ],
            784,
        );
        assert_eq!(counts(&fashion.train, &class), [180; 10]);
        assert_eq!(counts(&fashion.val, &class), [20; 10]);
        assert_eq!(counts(&fashion.test, &class), [50; 10]);
        let digits = load("digits").unwrap();
        let class = classes(
            &[(include_bytes!("../../assets/digits-images-idx3-ubyte.gz"), include_bytes!("../../assets/digits-labels-idx1-ubyte.gz"))],
            64,
        );
        assert!(counts(&digits.val, &class).iter().chain(&counts(&digits.test, &class)).all(|n| (17..=18).contains(n)));
        assert!(counts(&digits.train, &class).iter().all(|n| (140..=148).contains(n)));
    }

    #[test]
    fn no_image_is_in_two_splits() {
        for name in ["digits", "fashion_mnist_small"] {
            let d = load(name).unwrap();
            let of = |s: &Examples| (0..s.len()).map(|i| s.raw_u8(i).unwrap().to_vec()).collect::<HashSet<_>>();
            let (train, val, test) = (of(&d.train), of(&d.val), of(&d.test));
            assert!(train.is_disjoint(&val) && train.is_disjoint(&test) && val.is_disjoint(&test), "{name}");
        }
    }
}
