//! What a window of training steps saw, by timestep.

use crate::diffusion::SampleTerms;
use crate::diffusion::bound::TimestepEstimate;
use crate::record::{LossRow, Moments, Split, Weights};
use crate::units::Timestep;

/// Running moments of the losses of each timestep since the window opened; a checkpoint saves them.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    timesteps: Vec<TimestepEstimate>,
    grad_norm: Moments,
    /// The training loss itself, weighted as it was optimised.
    loss: Moments,
    /// The loss of each sample since [`Window::take_losses`], in their order.
    losses: Vec<(Timestep, f64)>,
}

/// Numbers in the saved form of one timestep.
const FIELDS: usize = 8;

impl Window {
    pub fn new(timesteps: usize) -> Self {
        Self {
            timesteps: vec![TimestepEstimate::default(); timesteps],
            grad_norm: Moments::default(),
            loss: Moments::default(),
            losses: Vec::new(),
        }
    }

    /// Adds a sample: its terms, and its loss without the weight of its draw.
    pub fn push(&mut self, t: Timestep, terms: &SampleTerms, loss: f64) {
        self.timesteps[t.index()].push(terms);
        self.losses.push((t, loss));
    }

    /// The loss of each sample since the last call.
    pub fn take_losses(&mut self) -> std::vec::Drain<'_, (Timestep, f64)> {
        self.losses.drain(..)
    }

    pub fn push_step(&mut self, loss: f64, grad_norm: f64) {
        self.grad_norm.push(grad_norm);
        self.loss.push(loss);
    }

    pub fn is_empty(&self) -> bool {
        self.grad_norm.n == 0
    }

    /// Mean training loss of the window's steps.
    pub fn mean_loss(&self) -> f64 {
        self.loss.mean
    }

    /// Closes the window at `step`: its rows, by t; timesteps nobody drew have none.
    pub fn close(&mut self, step: i64) -> Vec<LossRow> {
        let rows = self
            .timesteps
            .iter()
            .enumerate()
            .filter(|(_, e)| e.vb.n > 0 || e.n_nonfinite > 0)
            .map(|(i, e)| LossRow {
                grad_norm_mean: Some(self.grad_norm.mean),
                ..row(Split::Train, Weights::Raw, step, Timestep::from_index(i), 1.0, e)
            })
            .collect();
        *self = Self::new(self.timesteps.len());
        rows
    }

    /// Everything, as numbers; [`Window::load`] takes it back. Counts below 2⁵³ are exact.
    pub fn save(&self) -> Vec<f64> {
        let mut out = Vec::with_capacity(self.timesteps.len() * FIELDS + 6);
        for e in &self.timesteps {
            out.extend([e.mse.n as f64, e.mse.mean, e.mse.m2, e.x0_mse.mean, e.x0_mse.m2, e.vb.mean, e.vb.m2, f64::from(e.n_nonfinite)]);
        }
        for m in [&self.grad_norm, &self.loss] {
            out.extend([m.n as f64, m.mean, m.m2]);
        }
        out
    }

    /// The window that [`Window::save`] wrote, or `None` if the numbers are not one of T timesteps.
    pub fn load(timesteps: usize, saved: &[f64]) -> Option<Self> {
        if saved.len() != timesteps * FIELDS + 6 {
            return None;
        }
        let moments = |n: f64, mean: f64, m2: f64| Moments { n: n as u64, mean, m2 };
        let (fields, rest) = saved.split_at(timesteps * FIELDS);
        Some(Self {
            timesteps: fields
                .chunks_exact(FIELDS)
                .map(|f| TimestepEstimate {
                    mse: moments(f[0], f[1], f[2]),
                    x0_mse: moments(f[0], f[3], f[4]),
                    vb: moments(f[0], f[5], f[6]),
                    n_nonfinite: f[7] as u32,
                })
                .collect(),
            grad_norm: moments(rest[0], rest[1], rest[2]),
            loss: moments(rest[3], rest[4], rest[5]),
            losses: Vec::new(),
        })
    }
}

/// The row of one timestep's estimate.
pub fn row(split: Split, weights: Weights, step: i64, t: Timestep, t_weight: f64, e: &TimestepEstimate) -> LossRow {
    // Where nothing finite was seen there is no mean, and none may pass for a perfect zero.
    let seen = e.vb.n > 0;
    LossRow {
        split,
        weights,
        step,
        t: t.get(),
        t_weight,
        n: e.vb.n as u32,
        n_nonfinite: e.n_nonfinite,
        mse: seen.then_some((e.mse.mean, e.mse.m2)),
        x0_mse_mean: seen.then_some(e.x0_mse.mean),
        vb: if seen { (e.vb.mean, e.vb.m2) } else { (f64::NAN, f64::NAN) },
        mse_floor: None,
        vb_floor: None,
        grad_norm_mean: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_survives_saving_in_the_middle() {
        let terms = |x: f64| SampleTerms { mse: x, x0_mse: 2.0 * x, vb: x.sqrt() };
        let mut whole = Window::new(3);
        let mut part = Window::new(3);
        for (i, x) in [0.1, 3.0, f64::NAN, 0.7, 1.9].into_iter().enumerate() {
            let t = Timestep::from_index(i % 2);
            whole.push(t, &terms(x), x);
            part.push(t, &terms(x), x);
            whole.push_step(x.abs(), 1.0 / 3.0);
            part.push_step(x.abs(), 1.0 / 3.0);
            part = Window::load(3, &part.save()).unwrap();
        }
        let (a, b) = (whole.close(7), part.close(7));
        assert_eq!(a, b);
        assert_eq!(a.iter().map(|r| (r.t, r.n, r.n_nonfinite)).collect::<Vec<_>>(), [(1, 2, 1), (2, 2, 0)]);
        assert!(whole.is_empty() && whole.close(8).is_empty());
        whole.push(Timestep::FIRST, &terms(f64::NAN), f64::NAN);
        let unseen = &whole.close(9)[0];
        assert!(unseen.mse.is_none() && unseen.vb.0.is_nan(), "no mean may pass for a perfect zero: {unseen:?}");
        assert_eq!(Window::load(4, &part.save()), None);
    }
}
