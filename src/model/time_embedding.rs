//! The sinusoidal embedding of the timestep.

use super::TimeEmbedding;
use crate::units::Timestep;
use candle_core::{DType, Device, Result, Tensor};

/// `[B, width]`: sines and cosines of `(t − 1) · 10000^(−i / n)`, i = 0..width/2, where n is width/2 − 1 for
/// [`TimeEmbedding::Ddpm`] (sines first) and width/2 for [`TimeEmbedding::Improved`] (cosines first).
///
/// The network sees t − 1: the field's networks were trained on the zero-based index of the code, not on the paper's t.
/// The arithmetic is f32 in the order of diffusers, so that imported networks see the numbers they were trained on.
pub(super) fn sinusoid(t: &[Timestep], width: usize, kind: TimeEmbedding, dtype: DType, device: &Device) -> Result<Tensor> {
    let half = width / 2;
    let spread = match kind {
        TimeEmbedding::Ddpm => half - 1,
        TimeEmbedding::Improved => half,
    };
    let mut out = Vec::with_capacity(t.len() * width);
    for t in t {
        let angle = |i: usize| {
            let exponent = -(10_000.0_f64.ln() as f32) * i as f32 / spread as f32;
            t.index() as f32 * exponent.exp()
        };
        let sines = (0..half).map(|i| angle(i).sin());
        let cosines = (0..half).map(|i| angle(i).cos());
        match kind {
            TimeEmbedding::Ddpm => out.extend(sines.chain(cosines)),
            TimeEmbedding::Improved => out.extend(cosines.chain(sines)),
        }
    }
    Tensor::from_vec(out, (t.len(), width), device)?.to_dtype(dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedding_is_of_the_zero_based_index() {
        let t = [Timestep::FIRST, Timestep::from_index(100)];
        let rows = |kind| sinusoid(&t, 8, kind, DType::F32, &Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
        let ddpm = rows(TimeEmbedding::Ddpm);
        assert_eq!(ddpm[0], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
        for (i, frequency) in [1.0, 10_000f64.powf(-1.0 / 3.0), 10_000f64.powf(-2.0 / 3.0), 1e-4].into_iter().enumerate() {
            assert!((f64::from(ddpm[1][i]) - (100.0 * frequency).sin()).abs() < 1e-5);
            assert!((f64::from(ddpm[1][4 + i]) - (100.0 * frequency).cos()).abs() < 1e-5);
        }
        let improved = rows(TimeEmbedding::Improved);
        assert!((f64::from(improved[1][1]) - 10f64.cos()).abs() < 1e-5, "10000^(-1/4) is 0.1");
        assert!((f64::from(improved[1][5]) - 10f64.sin()).abs() < 1e-5);
    }
}
