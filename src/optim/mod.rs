//! The optimizer: AdamW, the moving average of the weights, clipping and warm-up, over flat buffers.
//!
//! Start at [`Weights::update`]. All state is plain numbers that a checkpoint saves; one pass over memory does
//! everything, element by element, so the result does not depend on the number of threads.

use rayon::prelude::*;

/// The constants of an update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    pub lr: f64,
    /// Steps over which the learning rate rises linearly from lr / warmup.
    pub warmup: u32,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    /// Decoupled: the weights shrink by lr · weight_decay. [Loshchilov19]
    pub weight_decay: f64,
    /// Largest global norm of the gradient; 0 clips nothing.
    pub grad_clip: f64,
    /// Decay of the moving average; 0 makes it equal to the weights.
    pub ema: f64,
}

impl AdamW {
    /// The learning rate of update number `step`, counted from 1.
    pub fn lr_at(&self, step: u32) -> f64 {
        self.lr * (f64::from(step) / f64::from(self.warmup.max(1))).min(1.0)
    }

    /// The constants of update number `step`, counted from 1, without clipping.
    pub fn constants(&self, step: u32) -> Constants {
        let lr = self.lr_at(step);
        Constants {
            clip: 1.0,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            rate: (lr / (1.0 - self.beta1.powi(step as i32))) as f32,
            scale: (1.0 / (1.0 - self.beta2.powi(step as i32))) as f32,
            epsilon: self.epsilon as f32,
            keep: (1.0 - lr * self.weight_decay) as f32,
            ema: self.ema as f32,
        }
    }
}

/// The weights, their moving average and the optimizer's moments: everything an update changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Updates done.
    pub step: u32,
    pub raw: Vec<f32>,
    pub ema: Vec<f32>,
    pub first_moment: Vec<f32>,
    pub second_moment: Vec<f32>,
}

/// Elements that a thread takes at a time; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 14;

impl Weights {
    /// Fresh weights: zero moments, the average at the start.
    pub fn new(raw: Vec<f32>) -> Self {
        let n = raw.len();
        Self { step: 0, ema: raw.clone(), raw, first_moment: vec![0.0; n], second_moment: vec![0.0; n] }
    }

    /// One update by `gradient`, and the gradient's global norm before clipping. Where that is not finite, nothing changes.
    ///
    /// m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², w ← w − lr (m̂ / (√v̂ + ε) + λ w), ema ← d·ema + (1 − d)·w.
    /// [Loshchilov19, Alg. 2]
    ///
    /// # Panics
    /// If the gradient is of another length.
    pub fn update(&mut self, adamw: &AdamW, gradient: &[f32]) -> f64 {
        assert_eq!(gradient.len(), self.raw.len(), "a gradient of another network");
        let norm = norm(gradient);
        if !norm.is_finite() {
            return norm;
        }
        self.step += 1;
        let clip = if adamw.grad_clip > 0.0 && norm > adamw.grad_clip { adamw.grad_clip / norm } else { 1.0 };
        let constants = Constants { clip: clip as f32, ..adamw.constants(self.step) };
        self.raw
            .par_chunks_mut(CHUNK)
            .zip(self.ema.par_chunks_mut(CHUNK))
            .zip(self.first_moment.par_chunks_mut(CHUNK).zip(self.second_moment.par_chunks_mut(CHUNK)))
            .zip(gradient.par_chunks(CHUNK))
            .for_each(|(((raw, ema), (m, v)), g)| {
                crate::simd::dispatch(
                    #[inline(always)]
                    || constants.apply(raw, ema, m, v, g),
                );
            });
        norm
    }
}

/// What one update multiplies with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constants {
    /// On the gradient.
    pub clip: f32,
    pub beta1: f32,
    pub beta2: f32,
    /// lr / (1 − β₁ᵗ), on m.
    pub rate: f32,
    /// 1 / (1 − β₂ᵗ), on v.
    pub scale: f32,
    pub epsilon: f32,
    /// 1 − lr λ, on the weights.
    pub keep: f32,
    pub ema: f32,
}

impl Constants {
    #[inline(always)]
    fn apply(self, raw: &mut [f32], ema: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
        for ((((w, e), m), v), g) in raw.iter_mut().zip(ema).zip(m).zip(v).zip(g) {
            let g = g * self.clip;
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
            *w = self.keep * *w - self.rate * *m / ((*v * self.scale).sqrt() + self.epsilon);
            *e = self.ema * *e + (1.0 - self.ema) * *w;
        }
    }
}

/// The Euclidean norm, summed in `f64` in a fixed order.
fn norm(gradient: &[f32]) -> f64 {
    let parts: Vec<f64> = gradient
        .par_chunks(CHUNK)
        .map(|chunk| {
            crate::simd::dispatch(
                #[inline(always)]
                || {
                    let mut lanes = [0.0f64; 16];
                    let (whole, rest) = chunk.as_chunks::<16>();
                    for part in whole {
                        for (lane, g) in lanes.iter_mut().zip(part) {
                            *lane += f64::from(*g) * f64::from(*g);
                        }
                    }
                    for (lane, g) in lanes.iter_mut().zip(rest) {
                        *lane += f64::from(*g) * f64::from(*g);
                    }
                    lanes.iter().sum::<f64>()
                },
            )
        })
        .collect();
    parts.iter().sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAMW: AdamW = AdamW { lr: 0.1, warmup: 0, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.0, grad_clip: 0.0, ema: 0.5 };

    /// The textbook's formulas in f64, for one weight.
    fn reference(adamw: &AdamW, start: f64, gradients: &[f64]) -> (f64, f64) {
        let (mut w, mut ema, mut m, mut v) = (start, start, 0.0, 0.0);
        for (i, g) in gradients.iter().enumerate() {
            let t = i as i32 + 1;
            let g = if adamw.grad_clip > 0.0 && g.abs() > adamw.grad_clip { g.signum() * adamw.grad_clip } else { *g };
            m = adamw.beta1 * m + (1.0 - adamw.beta1) * g;
            v = adamw.beta2 * v + (1.0 - adamw.beta2) * g * g;
            let (m_hat, v_hat) = (m / (1.0 - adamw.beta1.powi(t)), v / (1.0 - adamw.beta2.powi(t)));
            w -= adamw.lr_at(t as u32) * (m_hat / (v_hat.sqrt() + adamw.epsilon) + adamw.weight_decay * w);
            ema = adamw.ema * ema + (1.0 - adamw.ema) * w;
        }
        (w, ema)
    }

    #[test]
    fn updates_follow_the_textbook() {
        let gradients = [0.3, -2.0, 0.01, 5.0, -0.7];
        for adamw in [
            ADAMW,
            AdamW { weight_decay: 0.1, ..ADAMW },
            AdamW { warmup: 3, ..ADAMW },
            AdamW { grad_clip: 1.0, ..ADAMW },
            AdamW { ema: 0.0, ..ADAMW },
        ] {
            let mut weights = Weights::new(vec![0.8]);
            for g in gradients {
                weights.update(&adamw, &[g as f32]);
            }
            let (w, ema) = reference(&adamw, 0.8, &gradients);
            assert!((f64::from(weights.raw[0]) - w).abs() < 1e-6 && (f64::from(weights.ema[0]) - ema).abs() < 1e-6, "{adamw:?}");
        }
    }

    #[test]
    fn the_norm_is_that_of_the_whole_gradient_before_clipping() {
        let n = 3 * CHUNK + 17;
        let gradient: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
        let exact = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let adamw = AdamW { grad_clip: 1e-3, ..ADAMW };
        assert!((Weights::new(vec![0.0; n]).update(&adamw, &gradient) / exact - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_same_bits_for_any_number_of_threads() {
        let n = 5 * CHUNK + 3;
        let gradient: Vec<f32> = (0..n).map(|i| (i as f32 * 0.1).cos()).collect();
        let run = |threads| {
            let mut weights = Weights::new(gradient.iter().map(|g| g * 2.0).collect());
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let norm = pool.install(|| weights.update(&AdamW { grad_clip: 1.0, ..ADAMW }, &gradient));
            (weights, norm.to_bits())
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let mut weights = Weights::new(vec![1.0, 2.0]);
        let before = weights.clone();
        assert!(!weights.update(&ADAMW, &[f32::NAN, 1.0]).is_finite());
        assert!(!weights.update(&ADAMW, &[f32::INFINITY, 1.0]).is_finite());
        assert_eq!(weights, before);
    }
}
