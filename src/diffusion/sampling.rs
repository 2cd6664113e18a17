//! Drawing from the model: the ancestral sampler.
//!
//! Noise comes from [`rng::EVALUATION_SEED`](crate::rng::EVALUATION_SEED) and depends on (t, sample) alone: two models
//! are shown on the same noise.

use super::{Denoiser, Diffusion, Interrupted};
use crate::rng::{self, Purpose};
use crate::units::Timestep;
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// Draws `count` samples from x_T = noise down to x_0; returns `count · D` numbers. [Ho20, Alg. 2]
///
/// # Errors
/// If the network fails, or `stop` is set meanwhile.
pub fn ancestral(diffusion: &Diffusion, denoiser: &dyn Denoiser, count: usize, stop: &AtomicBool) -> Result<Vec<f32>, Interrupted> {
    let dims = diffusion.shape().dims();
    // Parts for the threads; their size depends on the count alone, as the last bits may depend on it.
    let batch = denoiser.batch().min(count.div_ceil(4)).max(1);
    let mut x = vec![0.0f32; count * dims];
    x.par_chunks_mut(batch * dims).enumerate().try_for_each(|(chunk, x)| {
        let first = chunk * batch;
        let n = x.len() / dims;
        let mut noise = vec![0.0f32; dims];
        let mut output = vec![0.0f32; n * diffusion.output_dims()];
        for (i, x) in x.chunks_exact_mut(dims).enumerate() {
            // Step 0 of the stream is x_T itself.
            diffusion.draw_last(&rng::stream(rng::EVALUATION_SEED, Purpose::Sampling, 0), (first + i) as u32, x);
        }
        for index in (0..diffusion.timesteps()).rev() {
            let t = Timestep::from_index(index);
            if stop.load(Ordering::Relaxed) {
                return Err(Interrupted::Stopped);
            }
            denoiser.predict(x, &vec![t; n], &mut output).map_err(Interrupted::Denoiser)?;
            for (i, x) in x.chunks_exact_mut(dims).enumerate() {
                diffusion.draw_noise(&rng::stream(rng::EVALUATION_SEED, Purpose::Sampling, t.get()), (first + i) as u32, &mut noise);
                diffusion.p_sample(t, x, &output[i * diffusion.output_dims()..(i + 1) * diffusion.output_dims()], &noise);
            }
        }
        Ok(())
    })?;
    Ok(x)
}
