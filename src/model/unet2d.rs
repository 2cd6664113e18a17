//! The U-Net of DDPM [Ho20], in the shape and with the parameter names of diffusers' `UNet2DModel`.
//!
//! Start at [`UNet2d::new`], which is the architecture read top to bottom, and [`UNet2d::forward`], which runs it. A
//! level is a feature-map size; going down, each level is `layers_per_block` residual blocks, with attention after each
//! where `model.attention` names the level's height, then a convolution of stride 2. Going up, each level has one block
//! more, and each block sees the block of the way down that it mirrors.

use super::layers::{Builder, Conv, Dense, Norm, Start};
use super::params::{ParamLayout, Params};
use super::time_embedding::Sinusoid;
use super::{Dropout, ModelError, ModelSpec};
use crate::data::Shape;
use crate::ops::{self, Activation, ConvKind, DownsamplePadding};
use candle_core::{Result, Tensor, bail};

/// The network of `model.kind = "unet2d"`.
pub struct UNet2d {
    shape: Shape,
    sinusoid: Sinusoid,
    dropout: f64,
    time: [Dense; 2],
    conv_in: Conv,
    down: Vec<Level>,
    mid: Level,
    up: Vec<Level>,
    norm_out: Norm,
    conv_out: Conv,
    layout: ParamLayout,
    flops: u64,
}

/// The blocks at one feature-map size, in one direction.
struct Level {
    resnets: Vec<Resnet>,
    /// What follows each residual block, or nothing at all.
    attentions: Vec<Attention>,
    /// The convolution that leaves the level downwards or, after upsampling, upwards.
    sampler: Option<Conv>,
}

struct Resnet {
    norm1: Norm,
    conv1: Conv,
    time: Dense,
    norm2: Norm,
    conv2: Conv,
    shortcut: Option<Conv>,
    /// Of dropout.
    lane: u32,
}

struct Attention {
    norm: Norm,
    to_q: Dense,
    to_k: Dense,
    to_v: Dense,
    to_out: Dense,
    heads: usize,
}

impl UNet2d {
    /// # Errors
    /// If height or width cannot be halved for every level, `model.norm_groups` does not divide the channels of some
    /// normalisation, `model.attention` names a height that no level has, or another option is out of its range.
    pub fn new(spec: &ModelSpec, shape: Shape, out_channels: usize) -> std::result::Result<Self, ModelError> {
        check(spec, shape, out_channels)?;
        let mut plan = Planner { b: Builder::new(spec.init, spec.norm_groups, spec.norm_eps), spec, lanes: 0 };
        let channels: Vec<usize> = spec.channels.iter().map(|&c| c as usize).collect();
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let layers = spec.layers_per_block as usize;
        let levels = channels.len();
        let size = |level: usize| (shape.height >> level, shape.width >> level);
        let down_kind = ConvKind::Down(match spec.downsample_padding {
            0 => DownsamplePadding::BottomRight,
            _ => DownsamplePadding::AllRound,
        });

        // 1. The time embedding and the first convolution.
        let time = [
            plan.b.dense("time_embedding.linear_1", (first, 4 * first), 1, Start::Full),
            plan.b.dense("time_embedding.linear_2", (4 * first, 4 * first), 1, Start::Full),
        ];
        let conv_in = plan.b.conv("conv_in", (shape.channels, first), ConvKind::Same, shape.height * shape.width, Start::Full);

        // 2. Down: what each block gives is seen again on the way up.
        let mut skips = vec![first];
        let mut width = first;
        let mut down = Vec::with_capacity(levels);
        for (i, &c) in channels.iter().enumerate() {
            let name = format!("down_blocks.{i}");
            let inputs: Vec<usize> = (0..layers).map(|layer| if layer == 0 { width } else { c }).collect();
            let mut level = plan.level(&name, &inputs, c, size(i), spec.attention.contains(&(size(i).0 as u32)))?;
            skips.extend(vec![c; layers]);
            if i + 1 < levels {
                let (h, w) = size(i + 1);
                level.sampler = Some(plan.b.conv(&format!("{name}.downsamplers.0.conv"), (c, c), down_kind, h * w, Start::Full));
                skips.push(c);
            }
            width = c;
            down.push(level);
        }

        // 3. The middle.
        let mid_size = size(levels - 1);
        let mut mid = plan.level("mid_block", &[last], last, mid_size, spec.mid_attention)?;
        mid.resnets.push(plan.resnet("mid_block.resnets.1", last, last, mid_size)?);

        // 4. Up.
        let mut up = Vec::with_capacity(levels);
        for (i, &c) in channels.iter().rev().enumerate() {
            let (name, at) = (format!("up_blocks.{i}"), levels - 1 - i);
            let mut inputs = Vec::with_capacity(layers + 1);
            for layer in 0..=layers {
                let skip = skips.pop().expect("the way down left layers + 1 outputs for each level");
                inputs.push(skip + if layer == 0 { width } else { c });
            }
            let mut level = plan.level(&name, &inputs, c, size(at), spec.attention.contains(&(size(at).0 as u32)))?;
            if at > 0 {
                let (h, w) = size(at - 1);
                level.sampler = Some(plan.b.conv(&format!("{name}.upsamplers.0.conv"), (c, c), ConvKind::Same, h * w, Start::Full));
            }
            width = c;
            up.push(level);
        }

        // 5. Out.
        let norm_out = plan.b.norm("conv_norm_out", first)?;
        let conv_out = plan.b.conv("conv_out", (first, out_channels), ConvKind::Same, shape.height * shape.width, Start::Zero);
        let (layout, flops) = plan.b.finish();
        let (sinusoid, dropout) = (Sinusoid::new(first, spec.time_embedding), spec.dropout);
        Ok(Self { shape, sinusoid, dropout, time, conv_in, down, mid, up, norm_out, conv_out, layout, flops })
    }

    pub(super) fn sinusoid(&self) -> &Sinusoid {
        &self.sinusoid
    }

    pub fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    pub fn forward_flops(&self) -> u64 {
        self.flops
    }

    /// See [`Model::forward_embedded`](super::Model::forward_embedded).
    ///
    /// # Errors
    /// If shapes do not fit this model.
    pub fn forward(&self, params: &Params, x: &Tensor, sinusoid: &Tensor, dropout: Option<Dropout>) -> Result<Tensor> {
        let Shape { height, width, channels } = self.shape;
        let batch = sinusoid.dim(0)?;
        if x.dims() != [batch, height, width, channels] {
            bail!("the network takes [{batch}, {height}, {width}, {channels}] for {batch} timesteps, not {:?}", x.dims())
        }
        // Every block applies SiLU to the embedding first, so it is applied once, here.
        let s = self.time[0].forward(params, &sinusoid.to_dtype(x.dtype())?, Activation::Silu)?;
        let time = self.time[1].forward(params, &s, Activation::Silu)?;
        let pass = Pass { params, time, dropout: dropout.map(|d| (self.dropout, d)) };

        let mut h = self.conv_in.forward(params, x)?;
        let mut skips = vec![h.clone()];
        for level in &self.down {
            for (i, resnet) in level.resnets.iter().enumerate() {
                h = level.attend(i, &pass, resnet.forward(&pass, &h)?)?;
                skips.push(h.clone());
            }
            if let Some(down) = &level.sampler {
                h = down.forward(params, &h)?;
                skips.push(h.clone());
            }
        }
        for (i, resnet) in self.mid.resnets.iter().enumerate() {
            h = self.mid.attend(i, &pass, resnet.forward(&pass, &h)?)?;
        }
        for level in &self.up {
            for (i, resnet) in level.resnets.iter().enumerate() {
                let skip = skips.pop().expect("the constructor gave each block a skip");
                h = level.attend(i, &pass, resnet.forward(&pass, &ops::concat(&h, &skip)?)?)?;
            }
            if let Some(up) = &level.sampler {
                h = up.forward_upsampled(params, &h)?;
            }
        }
        self.conv_out.forward(params, &self.norm_out.forward(params, &h, Activation::Silu)?)
    }
}

fn check(spec: &ModelSpec, shape: Shape, out_channels: usize) -> std::result::Result<(), ModelError> {
    spec.check(out_channels)?;
    let levels = spec.channels.len();
    let fail = |key, value: String, reason: String| Err(ModelError::option(key, value, reason));
    if spec.channels[0] < 4 || !spec.channels[0].is_multiple_of(2) {
        return fail("model.channels", format!("{:?}", spec.channels), "its first width must be even and at least 4".into());
    }
    let halvings = levels - 1;
    let divisor = 1_usize.checked_shl(halvings as u32).unwrap_or(usize::MAX);
    if shape.height == 0 || shape.width == 0 || !shape.height.is_multiple_of(divisor) || !shape.width.is_multiple_of(divisor) {
        let reason = format!(
            "{levels} levels halve the image {halvings} times, and {} × {} cannot be divided by {divisor}",
            shape.height, shape.width
        );
        return fail("model.channels", format!("{:?}", spec.channels), reason);
    }
    if spec.layers_per_block == 0 {
        return fail("model.layers_per_block", "0".into(), "it must be at least 1".into());
    }
    let heights: Vec<u32> = (0..levels).map(|level| (shape.height >> level) as u32).collect();
    if let Some(missing) = spec.attention.iter().find(|height| !heights.contains(height)) {
        let reason = format!("no feature map is {missing} high; the heights are {heights:?}");
        return fail("model.attention", format!("{:?}", spec.attention), reason);
    }
    if !(spec.norm_eps.is_finite() && spec.norm_eps > 0.0) {
        return fail("model.norm_eps", spec.norm_eps.to_string(), "it must be positive".into());
    }
    if spec.downsample_padding > 1 {
        let reason = "it must be 0 (right and bottom) or 1 (all around)".into();
        return fail("model.downsample_padding", spec.downsample_padding.to_string(), reason);
    }
    Ok(())
}

/// Declares the blocks of a model.
struct Planner<'a> {
    b: Builder,
    spec: &'a ModelSpec,
    /// Lanes of dropout given out.
    lanes: u32,
}

impl Planner<'_> {
    /// One residual block for each of `inputs`, all with `c` channels out, and attention after each if wanted.
    fn level(
        &mut self,
        name: &str,
        inputs: &[usize],
        c: usize,
        size: (usize, usize),
        attend: bool,
    ) -> std::result::Result<Level, ModelError> {
        let mut level = Level { resnets: Vec::new(), attentions: Vec::new(), sampler: None };
        for (i, &c_in) in inputs.iter().enumerate() {
            level.resnets.push(self.resnet(&format!("{name}.resnets.{i}"), c_in, c, size)?);
            if attend {
                level.attentions.push(self.attention(&format!("{name}.attentions.{i}"), c, size)?);
            }
        }
        Ok(level)
    }

    fn resnet(&mut self, name: &str, c_in: usize, c_out: usize, (h, w): (usize, usize)) -> std::result::Result<Resnet, ModelError> {
        let embedding = 4 * self.spec.channels[0] as usize;
        let lane = self.lanes;
        self.lanes += 1;
        let b = &mut self.b;
        Ok(Resnet {
            norm1: b.norm(&format!("{name}.norm1"), c_in)?,
            conv1: b.conv(&format!("{name}.conv1"), (c_in, c_out), ConvKind::Same, h * w, Start::Full),
            time: b.dense(&format!("{name}.time_emb_proj"), (embedding, c_out), 1, Start::Full),
            norm2: b.norm(&format!("{name}.norm2"), c_out)?,
            conv2: b.conv(&format!("{name}.conv2"), (c_out, c_out), ConvKind::Same, h * w, Start::Zero),
            shortcut: (c_in != c_out)
                .then(|| b.conv(&format!("{name}.conv_shortcut"), (c_in, c_out), ConvKind::Pointwise, h * w, Start::Full)),
            lane,
        })
    }

    fn attention(&mut self, name: &str, c: usize, (h, w): (usize, usize)) -> std::result::Result<Attention, ModelError> {
        let head = match self.spec.head_channels as usize {
            0 => c,
            head => head,
        };
        if !c.is_multiple_of(head) {
            let reason = format!("it must be 0 (one head) or divide the {c} channels of `{name}`");
            return Err(ModelError::option("model.head_channels", head, reason));
        }
        let b = &mut self.b;
        b.count_attention(h * w, c);
        Ok(Attention {
            norm: b.norm(&format!("{name}.group_norm"), c)?,
            to_q: b.dense(&format!("{name}.to_q"), (c, c), h * w, Start::Full),
            to_k: b.dense(&format!("{name}.to_k"), (c, c), h * w, Start::Full),
            to_v: b.dense(&format!("{name}.to_v"), (c, c), h * w, Start::Full),
            to_out: b.dense(&format!("{name}.to_out.0"), (c, c), h * w, Start::Zero),
            heads: c / head,
        })
    }
}

/// What every block of one forward pass needs.
struct Pass<'a> {
    params: &'a Params,
    /// SiLU of the time embedding, `[B, 4 · channels]`.
    time: Tensor,
    /// Probability and randomness.
    dropout: Option<(f64, Dropout)>,
}

impl Level {
    /// The attention after residual block `i`, where the level has it.
    fn attend(&self, i: usize, pass: &Pass<'_>, h: Tensor) -> Result<Tensor> {
        match self.attentions.get(i) {
            Some(attention) => attention.forward(pass, &h),
            None => Ok(h),
        }
    }
}

impl Resnet {
    /// norm, SiLU, conv, + time, norm, SiLU, dropout, conv, + input.
    fn forward(&self, pass: &Pass<'_>, x: &Tensor) -> Result<Tensor> {
        let p = pass.params;
        let h = self.norm1.forward(p, x, Activation::Silu)?;
        // The time embedding is added to every pixel, as a bias of its own for each sample.
        let bias = self.time.forward_plus_bias(p, &pass.time, self.conv1.bias)?;
        let h = self.conv1.forward_with_bias(p, &h, &bias)?;
        let mut h = self.norm2.forward(p, &h, Activation::Silu)?;
        if let Some((probability, d)) = pass.dropout {
            h = ops::dropout(&h, probability, d.stream.lane(self.lane), d.first_sample)?;
        }
        let h = self.conv2.forward(p, &h)?;
        match &self.shortcut {
            Some(shortcut) => ops::add(&shortcut.forward(p, x)?, &h),
            None => ops::add(x, &h),
        }
    }
}

impl Attention {
    /// Self-attention over the pixels, added to its input.
    fn forward(&self, pass: &Pass<'_>, x: &Tensor) -> Result<Tensor> {
        let p = pass.params;
        let h = self.norm.forward(p, x, Activation::None)?;
        let [q, k, v] = [&self.to_q, &self.to_k, &self.to_v].map(|to| to.forward(p, &h, Activation::None));
        let h = ops::attention(&q?, &k?, &v?, self.heads)?;
        ops::add(x, &self.to_out.forward(p, &h, Activation::None)?)
    }
}

#[cfg(test)]
mod tests;
