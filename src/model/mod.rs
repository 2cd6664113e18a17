//! Networks: from a configuration and flat parameters to the network's output.
//!
//! Start at [`Model::new`]; then [`Model::layout`] names the parameters, [`ParamLayout::init`] starts them, and
//! [`Model::forward`] runs. A model holds no numbers: its parameters are passed in, so the same model runs with trained,
//! averaged or detached ones. Images are `[B, H, W, C]`; the U-Net's parameters have the names of diffusers' `UNet2DModel`.
//! Absent: losses, noise, devices to choose, files.

#[cfg(test)]
mod check;
mod layers;
mod mlp;
mod params;
mod time_embedding;
mod transformer;
mod unet2d;

pub use mlp::Mlp;
pub use params::{DiskLayout, ParamId, ParamInit, ParamLayout, ParamSpec, Params};
pub use transformer::Transformer;
pub use unet2d::UNet2d;

use crate::data::Shape;
use crate::named_enum;
use crate::ops;
use crate::units::Timestep;
use candle_core::Tensor;
use time_embedding::{Sinusoid, Times};

named_enum! {
    pub enum ModelKind {
        /// The shape of diffusers' `UNet2DModel`.
        UNet2d = "unet2d",
        /// Fully connected, for 2-D data (and flattened small images).
        Mlp = "mlp",
        /// Patches of an image as tokens, with long skip connections (U-ViT).
        Transformer = "transformer",
    }
}

named_enum! {
    /// How parameters start.
    pub enum Init {
        /// Variance scaling (fan average, uniform); near zero for each block's last convolution and the output. [Ho20]
        Ddpm = "ddpm",
        /// PyTorch's defaults, as diffusers leaves them.
        Torch = "torch",
    }
}

named_enum! {
    /// The sinusoidal embedding of t.
    pub enum TimeEmbedding {
        /// [sin, cos], frequencies over half − 1. [Ho20]; diffusers: flip_sin_to_cos = false, freq_shift = 1.
        Ddpm = "ddpm",
        /// [cos, sin], frequencies over half. [Nichol21] and diffusers' class defaults.
        Improved = "improved",
    }
}

/// The `[model]` section.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    pub kind: ModelKind,
    /// U-Net: channels of each resolution, finest first (diffusers' block_out_channels). MLP: width of each hidden layer.
    /// Transformer: its one width.
    pub channels: Vec<u32>,
    /// Side of a transformer's square patches, in pixels.
    pub patch: u32,
    /// Blocks of a transformer.
    pub depth: u32,
    /// Width of the hidden layer in a transformer's blocks, in widths of the transformer.
    pub mlp_ratio: u32,
    /// Octaves of sines and cosines of its inputs that an MLP sees beside them.
    pub fourier: u32,
    pub layers_per_block: u32,
    /// Feature-map heights that carry attention, e.g. `[16]`; the middle block has its own switch.
    pub attention: Vec<u32>,
    /// Attention in the middle block.
    pub mid_attention: bool,
    /// Channels of an attention head; 0 is one head over all channels.
    pub head_channels: u32,
    pub norm_groups: u32,
    pub norm_eps: f64,
    pub dropout: f64,
    /// diffusers' downsample_padding: 0 pads right and bottom (TensorFlow's SAME), 1 all around.
    pub downsample_padding: u32,
    pub time_embedding: TimeEmbedding,
    pub init: Init,
}

/// Why a model cannot be built, or parameters cannot be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ModelError {
    /// An option that does not go with the data or with another option.
    #[error("`{key}` is {value}: {reason}")]
    Option {
        /// The key in the experiment file.
        key: &'static str,
        value: String,
        /// What is wrong and what is allowed.
        reason: String,
    },
    #[error("parameter `{name}` is missing; the network has {expected} parameters of its shape {shape:?}")]
    Missing { name: String, shape: Vec<usize>, expected: usize },
    #[error("parameter `{name}` has shape {found:?}; this network's is {expected:?}")]
    Shape { name: String, found: Vec<usize>, expected: Vec<usize> },
}

/// Randomness of dropout in one forward pass: layer l drops by lane l of the stream, sample `first_sample + i` of it for
/// example i.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Of purpose [`Purpose::Dropout`](crate::rng::Purpose::Dropout), at the training step.
    pub stream: crate::rng::Stream,
    /// Index in the batch of the micro-batch's first sample.
    pub first_sample: u32,
}

/// A network of one of the kinds.
pub enum Model {
    UNet2d(UNet2d),
    Mlp(Mlp),
    Transformer(Transformer),
}

impl Model {
    /// `out_channels` is C, or 2 C where the variance is learned.
    ///
    /// # Errors
    /// If an option is impossible for this data, or two options do not go together.
    pub fn new(spec: &ModelSpec, shape: Shape, out_channels: usize) -> Result<Self, ModelError> {
        match spec.kind {
            ModelKind::UNet2d => UNet2d::new(spec, shape, out_channels).map(Self::UNet2d),
            ModelKind::Mlp => Mlp::new(spec, shape, out_channels).map(Self::Mlp),
            ModelKind::Transformer => Transformer::new(spec, shape, out_channels).map(Self::Transformer),
        }
    }

    pub fn layout(&self) -> &ParamLayout {
        match self {
            Self::UNet2d(model) => model.layout(),
            Self::Mlp(model) => model.layout(),
            Self::Transformer(model) => model.layout(),
        }
    }

    /// `x [B, H, W, C]` and one timestep for each sample to `[B, H, W, out]`. Without `dropout` nothing is dropped.
    ///
    /// # Errors
    /// If shapes do not fit this model.
    pub fn forward(&self, params: &Params, x: &Tensor, t: &[Timestep], dropout: Option<Dropout>) -> candle_core::Result<Tensor> {
        let embedded = |t: &[Timestep]| Tensor::from_vec(self.embed(t)?, (t.len(), self.embedding_width()), x.device());
        match self {
            // Most of what an MLP computes depends on the timestep alone. (Work that a device records has one size.)
            Self::Mlp(model) if !ops::cuda::is_device(x.device()) => {
                let (different, rows) = time_embedding::shared(t);
                model.forward(params, x, &Times::of(embedded(&different)?, rows), dropout)
            }
            _ => self.forward_embedded(params, x, &embedded(t)?, dropout),
        }
    }

    /// The same of timesteps that have been [embedded](Self::embed): `sinusoid` is `[B, embedding_width]`.
    ///
    /// # Errors
    /// If shapes do not fit this model.
    pub fn forward_embedded(
        &self,
        params: &Params,
        x: &Tensor,
        sinusoid: &Tensor,
        dropout: Option<Dropout>,
    ) -> candle_core::Result<Tensor> {
        match self {
            Self::UNet2d(model) => model.forward(params, x, sinusoid, dropout),
            Self::Mlp(model) => model.forward(params, x, &Times::of(sinusoid.clone(), None), dropout),
            Self::Transformer(model) => model.forward(params, x, sinusoid, dropout),
        }
    }

    fn sinusoid(&self) -> &Sinusoid {
        match self {
            Self::UNet2d(model) => model.sinusoid(),
            Self::Mlp(model) => model.sinusoid(),
            Self::Transformer(model) => model.sinusoid(),
        }
    }

    /// The sinusoidal embedding of timesteps, one row behind the other.
    ///
    /// # Errors
    /// If a thread died while it embedded one.
    pub fn embed(&self, t: &[Timestep]) -> candle_core::Result<Vec<f32>> {
        self.sinusoid().of(t)
    }

    /// Numbers of a timestep's embedding.
    pub fn embedding_width(&self) -> usize {
        self.sinusoid().width()
    }

    /// Floating-point operations of the convolutions, linear maps and attention for one example, a multiply-add as two.
    pub fn forward_flops(&self) -> u64 {
        match self {
            Self::UNet2d(model) => model.forward_flops(),
            Self::Mlp(model) => model.forward_flops(),
            Self::Transformer(model) => model.forward_flops(),
        }
    }
}

impl ModelError {
    fn option(key: &'static str, value: impl std::fmt::Display, reason: impl Into<String>) -> Self {
        Self::Option { key, value: value.to_string(), reason: reason.into() }
    }
}

impl ModelSpec {
    /// Checks what every kind of model needs.
    fn check(&self, out_channels: usize) -> Result<(), ModelError> {
        if self.channels.is_empty() || self.channels.contains(&0) {
            return Err(ModelError::option("model.channels", format!("{:?}", self.channels), "it must list positive widths"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(ModelError::option("model.dropout", self.dropout, "it must be at least 0 and below 1"));
        }
        assert!(out_channels > 0, "a model has outputs");
        Ok(())
    }
}
