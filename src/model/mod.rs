//! Networks: parameters, layers, the U-Net and the MLP.
use crate::named_enum;

named_enum! {
    pub enum ModelKind {
        /// The shape of diffusers' `UNet2DModel`.
        UNet2d = "unet2d",
        /// Fully connected, for 2-D data (and flattened small images).
        Mlp = "mlp",
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
    pub channels: Vec<u32>,
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
