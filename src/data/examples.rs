//! One split in memory, and the identity of three of them.
//!
//! Start at [`Examples`]. Values stay as they were stored (one byte a level) and are scaled when a batch is made.

use super::{Encoding, Shape};

/// The examples of one split: levels of images, or coordinates of points.
#[derive(Clone, Debug)]
pub struct Examples {
    shape: Shape,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    /// NHWC, every value below the number of levels; `scaled[v]` is `2v/(levels − 1) − 1`.
    Levels {
        bytes: Vec<u8>,
        scaled: Vec<f32>,
    },
    Real(Vec<f32>),
}

/// The values of all examples, one after the other, for those who scale them elsewhere.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    /// Level v stands for `scaled[v]`.
    Levels {
        bytes: &'a [u8],
        scaled: &'a [f32],
    },
    Real(&'a [f32]),
}

impl Examples {
    /// Images of `levels` levels, NHWC.
    ///
    /// # Panics
    /// If the bytes are not whole images, the levels are not 2..=256, or a value is not below them: readers check first.
    pub(super) fn from_levels(shape: Shape, levels: u32, bytes: Vec<u8>) -> Self {
        assert!((2..=256).contains(&levels), "levels: {levels}");
        assert!(bytes.len().is_multiple_of(shape.dims()), "{} bytes are not whole examples of {shape}", bytes.len());
        assert!(levels == 256 || bytes.iter().all(|&v| u32::from(v) < levels), "a value is not below {levels}");
        let scaled = (0..levels).map(|v| (2.0 * f64::from(v) / f64::from(levels - 1) - 1.0) as f32).collect();
        Examples { shape, values: Values::Levels { bytes, scaled } }
    }

    /// Points of the plane, x and y in turn.
    pub(super) fn from_points(coordinates: Vec<f32>) -> Self {
        assert!(coordinates.len().is_multiple_of(2), "a point has two coordinates");
        Examples { shape: Shape { height: 1, width: 1, channels: 2 }, values: Values::Real(coordinates) }
    }

    pub fn len(&self) -> usize {
        let values = match &self.values {
            Values::Levels { bytes, .. } => bytes.len(),
            Values::Real(x) => x.len(),
        };
        values / self.shape.dims()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    pub fn encoding(&self) -> Encoding {
        match &self.values {
            Values::Levels { scaled, .. } => Encoding::Discrete { levels: scaled.len() as u32 },
            Values::Real(_) => Encoding::Continuous,
        }
    }

    /// Writes example `i` into `out`, NHWC: `2v/(levels − 1) − 1` for images, points as they are.
    ///
    /// # Panics
    /// If `i` is not below [`len`](Self::len) or `out` has not the length [`Shape::dims`].
    pub fn scaled(&self, i: usize, out: &mut [f32]) {
        let dims = self.shape.dims();
        assert_eq!(out.len(), dims, "an example has {dims} numbers");
        let range = i * dims..(i + 1) * dims;
        match &self.values {
            Values::Levels { bytes, scaled } => {
                for (o, &v) in out.iter_mut().zip(&bytes[range]) {
                    *o = scaled[usize::from(v)];
                }
            }
            Values::Real(x) => out.copy_from_slice(&x[range]),
        }
    }

    /// All values as they are stored.
    pub fn stored(&self) -> Stored<'_> {
        match &self.values {
            Values::Levels { bytes, scaled } => Stored::Levels { bytes, scaled },
            Values::Real(x) => Stored::Real(x),
        }
    }

    /// The stored levels of image `i`, NHWC; `None` for points.
    ///
    /// # Panics
    /// If `i` is not below [`len`](Self::len).
    pub fn raw_u8(&self, i: usize) -> Option<&[u8]> {
        let dims = self.shape.dims();
        match &self.values {
            Values::Levels { bytes, .. } => Some(&bytes[i * dims..(i + 1) * dims]),
            Values::Real(_) => None,
        }
    }
}

/// Mirrors one example left to right, in place. `x` is NHWC of that shape.
pub fn mirror(shape: Shape, x: &mut [f32]) {
    let c = shape.channels;
    for row in x.chunks_exact_mut(shape.width * c) {
        for left in 0..shape.width / 2 {
            let right = shape.width - 1 - left;
            for k in 0..c {
                row.swap(left * c + k, right * c + k);
            }
        }
    }
}

/// blake3 (hex) over shape, encoding, sizes and every value of train, val and test, in this order.
pub(super) fn fingerprint(splits: [&Examples; 3]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"ddpm-lab data 1\0");
    let shape = splits[0].shape;
    for n in [shape.height, shape.width, shape.channels] {
        hasher.update(&(n as u64).to_le_bytes());
    }
    // 0 stands for real numbers: no data have 0 levels.
    let levels = match splits[0].encoding() {
        Encoding::Discrete { levels } => levels,
        Encoding::Continuous => 0,
    };
    hasher.update(&levels.to_le_bytes());
    for split in splits {
        hasher.update(&(split.len() as u64).to_le_bytes());
    }
    for split in splits {
        match &split.values {
            Values::Levels { bytes, .. } => {
                hasher.update(bytes);
            }
            Values::Real(x) => {
                let mut bytes = Vec::with_capacity(4096);
                for chunk in x.chunks(1024) {
                    bytes.clear();
                    bytes.extend(chunk.iter().flat_map(|v| v.to_le_bytes()));
                    hasher.update(&bytes);
                }
            }
        }
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { height: 1, width: 3, channels: 2 };

    #[test]
    fn levels_are_scaled_to_exactly_minus_one_and_one() {
        for levels in [2u32, 17, 256] {
            let top = (levels - 1) as u8;
            let e = Examples::from_levels(Shape { height: 1, width: 3, channels: 1 }, levels, vec![0, top / 2, top]);
            let mut x = [9.0; 3];
            e.scaled(0, &mut x);
            assert_eq!((x[0], x[2]), (-1.0, 1.0));
            assert!((f64::from(x[1]) - (2.0 * f64::from(top / 2) / f64::from(top) - 1.0)).abs() < 1e-7);
        }
    }

    #[test]
    fn examples_are_addressed_by_index() {
        let e = Examples::from_levels(SHAPE, 256, (0..12).collect());
        assert_eq!(e.len(), 2);
        assert_eq!(e.raw_u8(1), Some(&[6, 7, 8, 9, 10, 11][..]));
        let p = Examples::from_points(vec![1.0, 2.0, 3.0, 4.0]);
        let mut x = [0.0; 2];
        p.scaled(1, &mut x);
        assert_eq!((x, p.len(), p.raw_u8(0)), ([3.0, 4.0], 2, None));
        assert!(Examples::from_points(vec![]).is_empty());
    }

    #[test]
    fn mirroring_keeps_channels_together_and_undoes_itself() {
        let mut x = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        mirror(SHAPE, &mut x);
        assert_eq!(x, [4.0, 5.0, 2.0, 3.0, 0.0, 1.0]);
        mirror(SHAPE, &mut x);
        assert_eq!(x, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn the_fingerprint_sees_shape_levels_split_borders_and_values() {
        let of = |shape, levels, cut: [&[u8]; 3]| {
            let [a, b, c] = cut.map(|v| Examples::from_levels(shape, levels, v.to_vec()));
            fingerprint([&a, &b, &c])
        };
        let pixel = Shape { height: 1, width: 1, channels: 1 };
        let base = of(pixel, 256, [&[0, 1, 2, 3], &[0, 0], &[1, 1]]);
        assert_eq!(base, of(pixel, 256, [&[0, 1, 2, 3], &[0, 0], &[1, 1]]));
        for other in [
            of(Shape { width: 2, ..pixel }, 256, [&[0, 1, 2, 3], &[0, 0], &[1, 1]]),
            of(Shape { height: 2, ..pixel }, 256, [&[0, 1, 2, 3], &[0, 0], &[1, 1]]),
            of(pixel, 17, [&[0, 1, 2, 3], &[0, 0], &[1, 1]]),
            of(pixel, 256, [&[0, 1, 2], &[3, 0, 0], &[1, 1]]),
            of(pixel, 256, [&[0, 1, 2, 3], &[0, 0], &[1, 2]]),
        ] {
            assert_ne!(base, other);
        }
    }
}
