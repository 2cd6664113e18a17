//! The way of the final samples from noise to data: what a run keeps of it, for reports to show without a network.
//!
//! Start at [`bytes`]. Images leave a sheet, x_t above the predicted x̂_0 of a few samples, noise on the left; points of the
//! plane leave a table of both, with the learned score on a grid. The walk is that of the samples themselves: it costs no
//! call of the network but those of the score.

use super::{Network, TrainError};
use crate::data::{Shape, picture};
use crate::diffusion::sampling::Drawn;
use crate::diffusion::{Denoiser, DenoiserError, Diffusion};
use crate::units::Timestep;
use std::fmt::Write;

/// Timesteps that are kept, evenly spread; the samples themselves come after them.
pub const FRAMES: usize = 9;
/// Samples on a sheet, at most.
pub const SHOWN: usize = 4;
/// Points in a table, at most.
const POINTS: usize = 300;
/// Places of the score: of each axis, and how far out they reach.
const GRID: usize = 15;
const REACH: f32 = 2.4;
/// Kept timesteps at which the score is told, of [`FRAMES`].
const SCORED: [usize; 3] = [4, 6, 7];

/// The timesteps of the columns, noise first; 0 is the end of the walk.
pub fn timesteps(last: u32) -> Vec<u32> {
    let count = (FRAMES as u32).min(last);
    let gaps = (count - 1).max(1);
    (0..count).map(|k| last - (u64::from(k) * u64::from(last - 1) / u64::from(gaps)) as u32).chain([0]).collect()
}

/// How the file ends; `None` for data that has no picture.
pub fn ending(shape: Shape) -> Option<&'static str> {
    match (shape.is_image(), shape.dims()) {
        (true, _) => Some("png"),
        (false, 2) => Some("csv"),
        _ => None,
    }
}

/// The file of a walk whose frames are at [`timesteps`].
///
/// # Errors
/// If the network fails at a place of the score, or the picture cannot be encoded.
pub fn bytes(drawn: &Drawn, diffusion: &Diffusion, network: &Network<'_>) -> Result<Vec<u8>, TrainError> {
    let shape = diffusion.shape();
    if shape.is_image() {
        let images = rows(drawn, shape);
        return Ok(picture::png(&picture::contact_sheet(images.iter().map(Vec::as_slice), shape, drawn.frames.len()))?);
    }
    let mut text = String::from("what,t,x,y,u,v\n");
    for frame in &drawn.frames {
        for (what, x) in [("x_t", &frame.x_t), ("x0", &frame.x0)] {
            for p in x.chunks_exact(2).take(POINTS) {
                let _ = writeln!(text, "{what},{},{:.4},{:.4},,", frame.t, p[0], p[1]);
            }
        }
    }
    for t in SCORED.iter().filter_map(|k| Timestep::new(drawn.frames.get(*k)?.t)) {
        for (x, score) in score(diffusion, network, t).map_err(TrainError::Denoiser)? {
            let _ = writeln!(text, "score,{},{:.4},{:.4},{:.4},{:.4}", t.get(), x[0], x[1], score[0], score[1]);
        }
    }
    Ok(text.into_bytes())
}

/// The pictures of a sheet, row by row.
fn rows(drawn: &Drawn, shape: Shape) -> Vec<Vec<f32>> {
    let dims = shape.dims();
    let count = (drawn.x.len() / dims).min(SHOWN);
    let mut images = Vec::new();
    for sample in (0..count).map(|s| s * dims..(s + 1) * dims) {
        images.extend(drawn.frames.iter().map(|f| f.x_t[sample.clone()].to_vec()));
        images.extend(drawn.frames.iter().map(|f| f.x0[sample.clone()].to_vec()));
    }
    images
}

/// A place of the plane, and the score there.
type Arrow = ([f32; 2], [f32; 2]);

/// ∇ log p(x_t) = (√ᾱ_t x̂_0 − x_t)/(1 − ᾱ_t) at the places of a grid.
fn score(diffusion: &Diffusion, network: &Network<'_>, t: Timestep) -> Result<Vec<Arrow>, DenoiserError> {
    let Some(d) = diffusion.gaussian() else { return Ok(Vec::new()) };
    let at = |i: usize| REACH * (2.0 * i as f32 / (GRID - 1) as f32 - 1.0);
    let places: Vec<[f32; 2]> = (0..GRID * GRID).map(|i| [at(i % GRID), at(i / GRID)]).collect();
    let (alpha_bar, wide) = (d.schedule.alpha_bars[t.index()], d.output_dims());
    let mut out = Vec::with_capacity(places.len());
    for part in places.chunks(network.batch().max(1)) {
        let x: Vec<f32> = part.as_flattened().to_vec();
        let mut output = vec![0.0; part.len() * wide];
        network.predict(&x, &vec![t; part.len()], &mut output)?;
        let mut x0 = Vec::new();
        for (x, output) in part.iter().zip(output.chunks_exact(wide)) {
            d.predict_x0(t, x, output, &mut x0);
            let score = |j: usize| ((alpha_bar.sqrt() * x0[j] - f64::from(x[j])) / (1.0 - alpha_bar)) as f32;
            out.push((*x, [score(0), score(1)]));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::sampling::Frame;
    use crate::diffusion::{DiffusionSpec, Respaced, ScheduleKind, VarianceType};

    #[test]
    fn the_columns_are_the_timesteps_that_a_walk_keeps() {
        for last in [2u32, 5, 9, 10, 40, 1000] {
            let spec = DiffusionSpec::plain(ScheduleKind::Cosine, last, VarianceType::FixedSmall);
            let shape = Shape { height: 1, width: 1, channels: 2 };
            let diffusion = Diffusion::new(&spec, shape, crate::data::Encoding::Continuous).unwrap();
            let mut kept: Vec<u32> = Respaced::all(&diffusion).spread(FRAMES).iter().map(|t| t.get()).collect();
            kept.push(0);
            assert_eq!(timesteps(last), kept);
        }
    }

    #[test]
    fn a_sheet_has_the_way_of_a_sample_above_what_was_predicted_on_it() {
        let shape = Shape { height: 1, width: 2, channels: 1 };
        let frame = |t: u32| Frame { t, x_t: vec![t as f32, 0.0, 10.0 + t as f32, 0.0], x0: vec![0.5 * t as f32, 0.0, 0.0, 0.0] };
        let drawn = Drawn { x: vec![0.0; 4], frames: vec![frame(8), frame(4), frame(0)] };
        let first: Vec<f32> = rows(&drawn, shape).iter().map(|x| x[0]).collect();
        assert_eq!(first, [8.0, 4.0, 0.0, 4.0, 2.0, 0.0, 18.0, 14.0, 10.0, 0.0, 0.0, 0.0]);
    }
}
