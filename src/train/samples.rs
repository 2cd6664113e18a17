//! Samples as a picture: a sheet of images, or points over the data's own.

use crate::data::{DataError, Dataset, Examples, picture};

/// Held-out points drawn behind the samples.
const POINTS_BEHIND: usize = 2000;

/// The PNG bytes of a picture of `samples`, each of the data's shape.
///
/// # Errors
/// If the picture cannot be encoded.
pub fn picture(dataset: &Dataset, samples: &[f32]) -> Result<Vec<u8>, DataError> {
    let shape = dataset.info.shape;
    let sheet = if shape.is_image() {
        let count = samples.len() / shape.dims();
        let columns = (count as f64).sqrt().ceil() as usize;
        picture::contact_sheet(samples.chunks_exact(shape.dims()), shape, columns)
    } else {
        picture::scatter(&points(&dataset.test), &pairs(samples))
    };
    picture::png(&sheet)
}

fn points(examples: &Examples) -> Vec<[f32; 2]> {
    (0..examples.len().min(POINTS_BEHIND))
        .map(|i| {
            let mut point = [0.0; 2];
            examples.scaled(i, &mut point);
            point
        })
        .collect()
}

fn pairs(samples: &[f32]) -> Vec<[f32; 2]> {
    samples.chunks_exact(2).map(|p| [p[0], p[1]]).collect()
}
