//! Layers: which parameters an operation takes, under which names, and how they start.

use super::params::{Declared, DiskLayout, ParamId, ParamInit, ParamLayout, Params};
use super::{Init, ModelError};
use crate::ops::{Activation, ConvKind, Rows, add, conv2d, group_norm, layer_norm, linear, linear_joined, upsample_conv2d};
use candle_core::{Result, Tensor};

/// Whether a layer starts at its full scale, or at zero under [`Init::Ddpm`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Full,
    Zero,
}

/// Declares layers, and counts the arithmetic of a forward pass.
pub(super) struct Builder {
    declared: Declared,
    init: Init,
    norm_groups: usize,
    norm_eps: f64,
    flops: u64,
}

impl Builder {
    pub(super) fn new(init: Init, norm_groups: u32, norm_eps: f64) -> Self {
        Self { declared: Declared::default(), init, norm_groups: norm_groups as usize, norm_eps, flops: 0 }
    }

    /// The parameters, and the operations of one example.
    pub(super) fn finish(self) -> (ParamLayout, u64) {
        (self.declared.layout(), self.flops)
    }

    /// A convolution whose output has `pixels` pixels.
    pub(super) fn conv(&mut self, name: &str, (c_in, c_out): (usize, usize), kind: ConvKind, pixels: usize, start: Start) -> Conv {
        let k = if kind == ConvKind::Pointwise { 1 } else { 3 };
        self.flops += 2 * (pixels * k * k * c_in * c_out) as u64;
        let (weight, bias) = self.starts(k * k * c_in, k * k * c_out, start);
        Conv {
            weight: self.declared.param(format!("{name}.weight"), &[c_out, k, k, c_in], DiskLayout::ConvOhwiToOihw, weight),
            bias: self.declared.param(format!("{name}.bias"), &[c_out], DiskLayout::Same, bias),
            kind,
        }
    }

    /// A linear map applied to `rows` rows of an example.
    pub(super) fn dense(&mut self, name: &str, (n_in, n_out): (usize, usize), rows: usize, start: Start) -> Dense {
        self.flops += 2 * (rows * n_in * n_out) as u64;
        let (weight, bias) = self.starts(n_in, n_out, start);
        Dense {
            weight: self.declared.param(format!("{name}.weight"), &[n_out, n_in], DiskLayout::Same, weight),
            bias: self.declared.param(format!("{name}.bias"), &[n_out], DiskLayout::Same, bias),
        }
    }

    /// A group normalisation.
    ///
    /// # Errors
    /// If the groups do not divide the channels.
    pub(super) fn norm(&mut self, name: &str, channels: usize) -> std::result::Result<Norm, ModelError> {
        if self.norm_groups == 0 || !channels.is_multiple_of(self.norm_groups) {
            let reason = format!("it must divide the {channels} channels of `{name}`");
            return Err(ModelError::option("model.norm_groups", self.norm_groups, reason));
        }
        Ok(Norm {
            gamma: self.declared.param(format!("{name}.weight"), &[channels], DiskLayout::Same, ParamInit::Ones),
            beta: self.declared.param(format!("{name}.bias"), &[channels], DiskLayout::Same, ParamInit::Zeros),
            groups: self.norm_groups,
            eps: self.norm_eps,
        })
    }

    /// A layer normalisation.
    pub(super) fn layer_norm(&mut self, name: &str, channels: usize) -> LayerNorm {
        LayerNorm {
            gamma: self.declared.param(format!("{name}.weight"), &[channels], DiskLayout::Same, ParamInit::Ones),
            beta: self.declared.param(format!("{name}.bias"), &[channels], DiskLayout::Same, ParamInit::Zeros),
            eps: self.norm_eps,
        }
    }

    /// A learned vector for each of `tokens` places, of standard deviation 0.02 at the start. [Bao23]
    pub(super) fn positions(&mut self, name: &str, tokens: usize, channels: usize) -> ParamId {
        let start = ParamInit::Uniform { bound: 0.02 * 3.0_f64.sqrt() };
        self.declared.param(name.to_owned(), &[tokens, channels], DiskLayout::Same, start)
    }

    /// Counts attention over `tokens` tokens.
    pub(super) fn count_attention(&mut self, tokens: usize, channels: usize) {
        self.flops += 4 * (tokens * tokens * channels) as u64;
    }

    /// Starting values of weight and bias. DDPM: variance scaling with the fans' average, uniform, and no bias [Ho20].
    /// PyTorch: both uniform within 1/√fan_in.
    fn starts(&self, fan_in: usize, fan_out: usize, start: Start) -> (ParamInit, ParamInit) {
        match (self.init, start) {
            (Init::Ddpm, Start::Zero) => (ParamInit::Zeros, ParamInit::Zeros),
            (Init::Ddpm, Start::Full) => (ParamInit::Uniform { bound: (6.0 / (fan_in + fan_out) as f64).sqrt() }, ParamInit::Zeros),
            (Init::Torch, _) => {
                let uniform = ParamInit::Uniform { bound: 1.0 / (fan_in as f64).sqrt() };
                (uniform, uniform)
            }
        }
    }
}

pub(super) struct Conv {
    pub(super) weight: ParamId,
    pub(super) bias: ParamId,
    kind: ConvKind,
}

impl Conv {
    pub(super) fn forward(&self, params: &Params, x: &Tensor) -> Result<Tensor> {
        self.forward_with_bias(params, x, params.get(self.bias))
    }

    /// With another bias than its own: `[C_out]` or `[B, C_out]`.
    pub(super) fn forward_with_bias(&self, params: &Params, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
        conv2d(x, params.get(self.weight), bias, self.kind)
    }

    /// Of the image at twice its size, by nearest neighbours.
    pub(super) fn forward_upsampled(&self, params: &Params, x: &Tensor) -> Result<Tensor> {
        upsample_conv2d(x, params.get(self.weight), params.get(self.bias))
    }
}

pub(super) struct Dense {
    weight: ParamId,
    bias: ParamId,
}

impl Dense {
    pub(super) fn forward(&self, params: &Params, x: &Tensor, activation: Activation) -> Result<Tensor> {
        linear(x, params.get(self.weight), params.get(self.bias), activation)
    }

    /// Of `x` and what its samples share, side by side: see [`linear_joined`].
    pub(super) fn forward_joined(
        &self,
        params: &Params,
        x: &Tensor,
        shared: &Tensor,
        rows: Option<&Rows>,
        activation: Activation,
    ) -> Result<Tensor> {
        linear_joined(x, shared, rows, params.get(self.weight), params.get(self.bias), activation)
    }

    /// With a second bias on top.
    pub(super) fn forward_plus_bias(&self, params: &Params, x: &Tensor, bias: ParamId) -> Result<Tensor> {
        linear(x, params.get(self.weight), &add(params.get(self.bias), params.get(bias))?, Activation::None)
    }
}

pub(super) struct Norm {
    gamma: ParamId,
    beta: ParamId,
    groups: usize,
    eps: f64,
}

impl Norm {
    pub(super) fn forward(&self, params: &Params, x: &Tensor, activation: Activation) -> Result<Tensor> {
        group_norm(x, params.get(self.gamma), params.get(self.beta), self.groups, self.eps, activation)
    }
}

pub(super) struct LayerNorm {
    gamma: ParamId,
    beta: ParamId,
    eps: f64,
}

impl LayerNorm {
    pub(super) fn forward(&self, params: &Params, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, params.get(self.gamma), params.get(self.beta), self.eps)
    }
}
