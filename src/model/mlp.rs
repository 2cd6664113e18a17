//! A fully connected network for points in the plane and flattened small images.
//!
//! Start at [`Mlp`]. Layer i computes `u = silu(W_i [h, e] + b_i)` and passes on `h + u` where the widths agree, `u` where
//! they do not; `h` begins as the flattened example and `e = silu(A₂ silu(A₁ s + a₁) + a₂)` embeds the sinusoid `s` of the
//! timestep. Joining `e` to `h` adds a learned map of it at every layer. With `model.fourier = n` the sines and cosines of
//! 2^k π x for k < n follow the example x in the first `h` [Kingma21, App. C]: a small network cannot make functions of x that
//! bend a hundred times within its range, and the noise of a small t asks for them.

use super::layers::{Builder, Dense, Start};
use super::params::{ParamLayout, Params};
use super::time_embedding::{Sinusoid, Times};
use super::{Dropout, ModelError, ModelSpec};
use crate::data::Shape;
use crate::ops::{self, Activation};
use candle_core::{Result, Tensor, bail};

/// Sines and cosines of the timestep.
const SINUSOID_WIDTH: usize = 64;

/// The network of `model.kind = "mlp"`; `model.channels` are the widths of its hidden layers.
pub struct Mlp {
    shape: Shape,
    out_channels: usize,
    sinusoid: Sinusoid,
    dropout: f64,
    fourier: u32,
    time: [Dense; 2],
    hidden: Vec<Hidden>,
    output: Dense,
    layout: ParamLayout,
    flops: u64,
}

struct Hidden {
    dense: Dense,
    /// Whether the layer's input is added to its output.
    residual: bool,
}

impl Mlp {
    /// # Errors
    /// If `model.channels` is empty or `model.dropout` is not a probability below 1.
    pub fn new(spec: &ModelSpec, shape: Shape, out_channels: usize) -> std::result::Result<Self, ModelError> {
        spec.check(out_channels)?;
        let mut b = Builder::new(spec.init, 1, 0.0);
        let embedding = spec.channels[0] as usize;
        let time = [
            b.dense("time_embedding.linear_1", (SINUSOID_WIDTH, embedding), 1, Start::Full),
            b.dense("time_embedding.linear_2", (embedding, embedding), 1, Start::Full),
        ];
        let mut width = shape.dims() * (1 + 2 * spec.fourier as usize);
        let mut hidden = Vec::with_capacity(spec.channels.len());
        for (i, &next) in spec.channels.iter().enumerate() {
            let next = next as usize;
            let dense = b.dense(&format!("layers.{i}"), (width + embedding, next), 1, Start::Full);
            hidden.push(Hidden { dense, residual: i > 0 && next == width });
            width = next;
        }
        let out = shape.height * shape.width * out_channels;
        let output = b.dense("output", (width, out), 1, Start::Zero);
        let (layout, flops) = b.finish();
        let (sinusoid, dropout, fourier) = (Sinusoid::new(SINUSOID_WIDTH, spec.time_embedding), spec.dropout, spec.fourier);
        Ok(Self { shape, out_channels, sinusoid, dropout, fourier, time, hidden, output, layout, flops })
    }

    pub(super) fn sinusoid(&self) -> &Sinusoid {
        &self.sinusoid
    }

    pub fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    /// See [`Model::forward_embedded`](super::Model::forward_embedded).
    ///
    /// # Errors
    /// If shapes do not fit this model.
    pub(super) fn forward(&self, params: &Params, x: &Tensor, times: &Times, dropout: Option<Dropout>) -> Result<Tensor> {
        let Shape { height, width, channels } = self.shape;
        let (batch, sinusoid, rows) = (times.samples()?, times.sinusoid(), times.rows());
        if x.dims() != [batch, height, width, channels] {
            bail!("the network takes [{batch}, {height}, {width}, {channels}] for {batch} timesteps, not {:?}", x.dims())
        }
        let e = self.time[0].forward(params, &sinusoid.to_dtype(x.dtype())?, Activation::Silu)?;
        let e = self.time[1].forward(params, &e, Activation::Silu)?;
        let mut h = waves(&x.reshape((batch, self.shape.dims()))?, self.fourier)?;
        for (lane, layer) in (0..).zip(&self.hidden) {
            let mut u = layer.dense.forward_joined(params, &h, &e, rows, Activation::Silu)?;
            if let Some(d) = dropout {
                u = ops::dropout(&u, self.dropout, d.stream.lane(lane), d.first_sample)?;
            }
            h = if layer.residual { ops::add(&h, &u)? } else { u };
        }
        ops::reshape(&self.output.forward(params, &h, Activation::None)?, (batch, height, width, self.out_channels))
    }

    pub fn forward_flops(&self) -> u64 {
        self.flops
    }
}

/// `[B, D]` to `[B, D (1 + 2 octaves)]`: x, then sin(2^k π x) for every k < octaves of each dimension, then the cosines.
fn waves(x: &Tensor, octaves: u32) -> Result<Tensor> {
    if octaves == 0 {
        return Ok(x.clone());
    }
    let (batch, dims) = x.dims2()?;
    // Factors, not a tensor of them: nothing is sent to a device that may be recording.
    let angles: Vec<Tensor> = (0..octaves).map(|k| x.affine(f64::from(1u32 << k) * std::f64::consts::PI, 0.0)).collect::<Result<_>>()?;
    let angles = Tensor::stack(&angles, 2)?.reshape((batch, dims * octaves as usize))?;
    ops::concat(&ops::concat(x, &angles.sin()?)?, &angles.cos()?)
}

#[cfg(test)]
mod tests {
    use super::super::{Init, Model, ModelKind, TimeEmbedding};
    use super::*;
    use crate::ops::check::{differences, distance, numbers, random};
    use crate::ops::record;
    use crate::rng::{Purpose, stream};
    use crate::units::Timestep;
    use candle_core::{DType, Device};

    const SHAPE: Shape = Shape { height: 1, width: 1, channels: 2 };

    fn spec(channels: &[u32], init: Init) -> ModelSpec {
        ModelSpec {
            kind: ModelKind::Mlp,
            channels: channels.to_vec(),
            patch: 1,
            depth: 1,
            mlp_ratio: 1,
            fourier: 0,
            layers_per_block: 1,
            attention: vec![],
            mid_attention: false,
            head_channels: 0,
            norm_groups: 1,
            norm_eps: 1e-6,
            dropout: 0.25,
            downsample_padding: 0,
            time_embedding: TimeEmbedding::Ddpm,
            init,
        }
    }

    fn steps(n: usize) -> Vec<Timestep> {
        (0..n).map(|i| Timestep::from_index(i * 13)).collect()
    }

    #[test]
    fn output_starts_at_exactly_zero_under_ddpm_and_not_under_torch() {
        let x = random(&[5, 1, 1, 2], 1).to_dtype(DType::F32).unwrap();
        for (init, zero) in [(Init::Ddpm, true), (Init::Torch, false)] {
            let model = Model::new(&spec(&[32, 32, 16], init), SHAPE, 4).unwrap();
            let params = model.layout().tensors(&model.layout().init(3), &Device::Cpu, false).unwrap();
            let y = model.forward(&params, &x, &steps(5), None).unwrap();
            assert_eq!(y.dims(), [5, 1, 1, 4]);
            assert_eq!(numbers(&y).iter().all(|v| *v == 0.0), zero);
        }
    }

    #[test]
    fn gradients_of_input_and_every_parameter_agree_with_differences() {
        let model = Model::new(&spec(&[6, 6, 5], Init::Torch), Shape { height: 2, width: 2, channels: 1 }, 2).unwrap();
        let flat: Vec<f64> = model.layout().init(1).iter().map(|v| f64::from(*v)).collect();
        let dropout = Some(Dropout { stream: stream(1, Purpose::Dropout, 1), first_sample: 2 });
        let x = random(&[3, 2, 2, 1], 1);
        // Two samples share a timestep.
        let t = [steps(2), steps(1)].concat();
        for dropout in [None, dropout] {
            let params = model.layout().tensors(&flat, &Device::Cpu, false).unwrap();
            differences(std::slice::from_ref(&x), |x| model.forward(&params, &x[0], &t, dropout));
            let f = |flat: &[f64]| {
                let params = model.layout().tensors(flat, &Device::Cpu, false).unwrap();
                let y = model.forward(&params, &x, &t, dropout).unwrap();
                (y * random(&[3, 2, 2, 2], 5)).unwrap().sum_all().unwrap()
            };
            let params = model.layout().tensors(&flat, &Device::Cpu, true).unwrap();
            let (y, tape) = record(|| model.forward(&params, &x, &t, dropout)).unwrap();
            let mut grad = vec![0.0; flat.len()];
            model.layout().add_gradients(&params, &tape.backward(&y, random(&[3, 2, 2, 2], 5)).unwrap(), &mut grad).unwrap();
            for i in (0..flat.len()).step_by(7) {
                let at = |h: f64| {
                    let mut moved = flat.clone();
                    moved[i] += h;
                    f(&moved).to_scalar::<f64>().unwrap()
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((slope - grad[i]).abs() < 1e-6, "parameter {i}: {} but {slope}", grad[i]);
            }
        }
    }

    #[test]
    fn waves_follow_the_example_and_have_its_gradient() {
        let x = random(&[3, 2], 1);
        let (plain, seen) = (numbers(&x), numbers(&waves(&x, 3).unwrap()));
        for i in 0..3 {
            let row = &seen[i * 14..(i + 1) * 14];
            assert_eq!(row[..2], plain[2 * i..2 * i + 2]);
            for d in 0..2 {
                for k in 0..3 {
                    let angle = [1.0, 2.0, 4.0][k] * std::f64::consts::PI * plain[2 * i + d];
                    assert!((row[2 + 3 * d + k] - angle.sin()).abs() < 1e-12 && (row[8 + 3 * d + k] - angle.cos()).abs() < 1e-12);
                }
            }
        }
        differences(&[x], |x| waves(&x[0], 3));
        let model = Model::new(&ModelSpec { fourier: 4, ..spec(&[8, 8], Init::Torch) }, SHAPE, 2).unwrap();
        assert_eq!(model.forward_flops(), 2 * (64 * 8 + 8 * 8 + (2 * 9 + 8) * 8 + (8 + 8) * 8 + 8 * 2));
        let params = model.layout().tensors(&model.layout().init(3), &Device::Cpu, false).unwrap();
        let y = model.forward(&params, &random(&[5, 1, 1, 2], 1).to_dtype(DType::F32).unwrap(), &steps(5), None).unwrap();
        assert_eq!(y.dims(), [5, 1, 1, 2]);
    }

    #[test]
    fn dropout_follows_the_sample_and_needs_to_be_asked_for() {
        let model = Model::new(&spec(&[16, 16], Init::Torch), SHAPE, 2).unwrap();
        let params = model.layout().tensors(&model.layout().init(3), &Device::Cpu, false).unwrap();
        let x = random(&[4, 1, 1, 2], 1).to_dtype(DType::F32).unwrap();
        let run = |x: &Tensor, t: &[Timestep], first| {
            let dropout = Dropout { stream: stream(1, Purpose::Dropout, 1), first_sample: first };
            model.forward(&params, x, t, Some(dropout)).unwrap()
        };
        let whole = run(&x, &steps(4), 0);
        let tail = run(&x.narrow(0, 3, 1).unwrap(), &steps(4)[3..], 3);
        assert!(distance(&tail, &whole.narrow(0, 3, 1).unwrap()) < 1e-6);
        assert_ne!(distance(&model.forward(&params, &x, &steps(4), None).unwrap(), &whole), 0.0);
    }

    #[test]
    fn impossible_options_and_shapes_are_refused() {
        let e = Model::new(&spec(&[], Init::Ddpm), SHAPE, 2).map(|_| ()).unwrap_err().to_string();
        assert!(e.contains("model.channels"), "{e}");
        let model = Model::new(&spec(&[4], Init::Ddpm), SHAPE, 2).unwrap();
        let params = model.layout().tensors(&model.layout().init(3), &Device::Cpu, false).unwrap();
        let x = random(&[2, 1, 1, 2], 1).to_dtype(DType::F32).unwrap();
        assert!(model.forward(&params, &x, &steps(3), None).is_err());
    }

    #[test]
    fn operations_are_those_of_the_matrices() {
        let model = Model::new(&spec(&[8], Init::Ddpm), SHAPE, 2).unwrap();
        assert_eq!(model.forward_flops(), 2 * (64 * 8 + 8 * 8 + (2 + 8) * 8 + 8 * 2));
    }
}
