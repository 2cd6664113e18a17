//! The sinusoidal embedding of the timestep.

use super::TimeEmbedding;
use crate::ops::Rows;
use crate::units::Timestep;
use candle_core::{Result, Tensor};
use std::collections::HashMap;
use std::sync::RwLock;

/// The embedding of one width and kind. A timestep's row is computed when it is first asked for, and kept: sines cost more
/// than a small network's layer.
pub(super) struct Sinusoid {
    width: usize,
    kind: TimeEmbedding,
    /// The rows of the first timesteps, one behind the other.
    rows: RwLock<Vec<f32>>,
}

impl Sinusoid {
    pub(super) fn new(width: usize, kind: TimeEmbedding) -> Self {
        Self { width, kind, rows: RwLock::new(Vec::new()) }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// `[B, width]`, one row behind the other: sines and cosines of `(t − 1) · 10000^(−i / n)`, i = 0..width/2, where n is width/2 − 1 for
    /// [`TimeEmbedding::Ddpm`] (sines first) and width/2 for [`TimeEmbedding::Improved`] (cosines first).
    ///
    /// The network sees t − 1: the field's networks were trained on the zero-based index of the code, not on the paper's t.
    /// The arithmetic is f32 in the order of diffusers, so that imported networks see the numbers they were trained on.
    pub(super) fn of(&self, t: &[Timestep]) -> Result<Vec<f32>> {
        let rows = t.iter().map(|t| t.index() + 1).max().unwrap_or(0);
        let lock = |_| candle_core::Error::Msg("a thread died while it embedded a timestep".to_owned());
        if self.rows.read().map_err(|e| lock(e.to_string()))?.len() < rows * self.width {
            let mut known = self.rows.write().map_err(|e| lock(e.to_string()))?;
            for index in known.len() / self.width..rows {
                self.push_row(index, &mut known);
            }
        }
        let known = self.rows.read().map_err(|e| lock(e.to_string()))?;
        let mut out = Vec::with_capacity(t.len() * self.width);
        t.iter().for_each(|t| out.extend_from_slice(&known[t.index() * self.width..][..self.width]));
        Ok(out)
    }

    fn push_row(&self, index: usize, out: &mut Vec<f32>) {
        let half = self.width / 2;
        let spread = match self.kind {
            TimeEmbedding::Ddpm => half - 1,
            TimeEmbedding::Improved => half,
        };
        let angle = |i: usize| {
            let exponent = -(10_000.0_f64.ln() as f32) * i as f32 / spread as f32;
            index as f32 * exponent.exp()
        };
        let sines = (0..half).map(|i| angle(i).sin());
        let cosines = (0..half).map(|i| angle(i).cos());
        match self.kind {
            TimeEmbedding::Ddpm => out.extend(sines.chain(cosines)),
            TimeEmbedding::Improved => out.extend(cosines.chain(sines)),
        }
    }
}

/// The timesteps of a batch, embedded.
pub(super) struct Times {
    /// `[B, width]`, or a row for each different timestep.
    sinusoid: Tensor,
    /// Which of them each sample has.
    rows: Option<Rows>,
}

impl Times {
    pub(super) fn of(sinusoid: Tensor, rows: Option<Rows>) -> Self {
        Self { sinusoid, rows }
    }

    pub(super) fn sinusoid(&self) -> &Tensor {
        &self.sinusoid
    }

    pub(super) fn rows(&self) -> Option<&Rows> {
        self.rows.as_ref()
    }

    pub(super) fn samples(&self) -> Result<usize> {
        self.rows.as_ref().map_or_else(|| self.sinusoid.dim(0), |rows| Ok(rows.len()))
    }
}

/// The different timesteps, in the order in which they first appear, and which of them each sample has; `None` where no two
/// samples share one.
pub(super) fn shared(t: &[Timestep]) -> (Vec<Timestep>, Option<Rows>) {
    let mut place = HashMap::with_capacity(t.len());
    let mut different = Vec::new();
    let row = |t: &Timestep| {
        *place.entry(t.index()).or_insert_with(|| {
            different.push(*t);
            different.len() as u32 - 1
        })
    };
    let rows: Rows = t.iter().map(row).collect();
    let all = different.len() == t.len();
    (different, (!all).then_some(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedding_is_of_the_zero_based_index() {
        let t = [Timestep::FIRST, Timestep::from_index(100)];
        let rows = |kind| Sinusoid::new(8, kind).of(&t).unwrap().chunks(8).map(<[f32]>::to_vec).collect::<Vec<_>>();
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
    #[test]
    fn a_timestep_is_embedded_once_in_a_batch() {
        let of = |t: &[usize]| shared(&t.iter().map(|&t| Timestep::from_index(t)).collect::<Vec<_>>());
        let (different, rows) = of(&[7, 0, 7, 3, 0]);
        assert_eq!(different.iter().map(|t| t.index()).collect::<Vec<_>>(), [7, 0, 3]);
        assert_eq!(&*rows.unwrap(), [0, 1, 0, 2, 1]);
        assert!(of(&[5, 2, 9]).1.is_none() && of(&[]).1.is_none());
    }
}
