//! A vision transformer with long skip connections, in the shape of U-ViT [Bao23].
//!
//! Start at [`Transformer::new`], which is the architecture read top to bottom, and [`Transformer::forward`], which runs
//! it. An image is cut into square patches of `model.patch` pixels, each patch becomes a token of `model.channels` numbers,
//! and the embedded timestep is one token more. Each block is `h + attention(norm(h))`, then `h + mlp(norm(h))`. The first
//! and the last ⌊(depth − 1) / 2⌋ blocks are joined in pairs, outermost with outermost: a block of the second half begins
//! with a linear map of its input beside the output of its partner. Between the halves lie one block, or two if
//! `model.depth` is even.
//!
//! Unlike U-ViT: SiLU where it has GELU, biases on queries, keys and values, any depth (U-ViT's is odd), and no
//! convolution after the output.

use super::layers::{Builder, Dense, LayerNorm, Start};
use super::params::{ParamId, ParamLayout, Params};
use super::time_embedding::Sinusoid;
use super::{Dropout, ModelError, ModelSpec};
use crate::data::Shape;
use crate::ops::{self, Activation};
use candle_core::{Result, Tensor, bail};

/// The network of `model.kind = "transformer"`.
pub struct Transformer {
    shape: Shape,
    out_channels: usize,
    patch: usize,
    sinusoid: Sinusoid,
    dropout: f64,
    patch_embed: Dense,
    time: [Dense; 2],
    /// `[1 + patches, width]`.
    positions: ParamId,
    blocks: Vec<Block>,
    norm: LayerNorm,
    output: Dense,
    layout: ParamLayout,
    flops: u64,
}

struct Block {
    /// In the second half: from its input and its partner's output.
    skip: Option<Dense>,
    norm1: LayerNorm,
    to_q: Dense,
    to_k: Dense,
    to_v: Dense,
    to_out: Dense,
    heads: usize,
    norm2: LayerNorm,
    mlp: [Dense; 2],
}

impl Transformer {
    /// # Errors
    /// If the data are points, the patch does not divide the image, the heads do not divide the width, or another option
    /// is out of its range.
    pub fn new(spec: &ModelSpec, shape: Shape, out_channels: usize) -> std::result::Result<Self, ModelError> {
        check(spec, shape, out_channels)?;
        let (width, patch, depth) = (spec.channels[0] as usize, spec.patch as usize, spec.depth as usize);
        let pixels = patch * patch;
        let patches = shape.height * shape.width / pixels;
        let tokens = 1 + patches;
        let mut b = Builder::new(spec.init, 1, spec.norm_eps);

        // 1. Tokens: the timestep and the patches, each with the vector of its place.
        let time = [
            b.dense("time_embed.linear_1", (width, 4 * width), 1, Start::Full),
            b.dense("time_embed.linear_2", (4 * width, width), 1, Start::Full),
        ];
        let patch_embed = b.dense("patch_embed", (pixels * shape.channels, width), patches, Start::Full);
        let positions = b.positions("pos_embed", tokens, width);

        // 2. Blocks; those of the second half see one of the first again.
        let head = if spec.head_channels == 0 { width } else { spec.head_channels as usize };
        let hidden = spec.mlp_ratio as usize * width;
        let blocks = (0..depth).map(|i| {
            let name = |part: &str| format!("blocks.{i}.{part}");
            let mut dense = |part: &str, sizes, start| b.dense(&name(part), sizes, tokens, start);
            let skip = (i >= depth - pairs(depth)).then(|| dense("skip", (2 * width, width), Start::Full));
            let [to_q, to_k, to_v] = ["attn.to_q", "attn.to_k", "attn.to_v"].map(|part| dense(part, (width, width), Start::Full));
            let to_out = dense("attn.to_out", (width, width), Start::Zero);
            let mlp = [dense("mlp.fc1", (width, hidden), Start::Full), dense("mlp.fc2", (hidden, width), Start::Zero)];
            b.count_attention(tokens, width);
            let (norm1, norm2) = (b.layer_norm(&name("norm1"), width), b.layer_norm(&name("norm2"), width));
            Block { skip, norm1, to_q, to_k, to_v, to_out, heads: width / head, norm2, mlp }
        });
        let blocks = blocks.collect();

        // 3. Out: each token's patch of the image; the timestep's is dropped.
        let norm = b.layer_norm("norm_out", width);
        let output = b.dense("out", (width, pixels * out_channels), tokens, Start::Zero);
        let (layout, flops) = b.finish();
        let (sinusoid, dropout) = (Sinusoid::new(width, spec.time_embedding), spec.dropout);
        Ok(Self { shape, out_channels, patch, sinusoid, dropout, patch_embed, time, positions, blocks, norm, output, layout, flops })
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

    /// See [`Model::forward_embedded`](super::Model::forward_embedded). Dropout is that of the residual branches, before they are added
    /// [Vaswani17, 5.4].
    ///
    /// # Errors
    /// If shapes do not fit this model.
    pub fn forward(&self, params: &Params, x: &Tensor, sinusoid: &Tensor, dropout: Option<Dropout>) -> Result<Tensor> {
        let Shape { height, width, channels } = self.shape;
        let batch = sinusoid.dim(0)?;
        if x.dims() != [batch, height, width, channels] {
            bail!("the network takes [{batch}, {height}, {width}, {channels}] for {batch} timesteps, not {:?}", x.dims())
        }
        let s = self.time[0].forward(params, &sinusoid.to_dtype(x.dtype())?, Activation::Silu)?;
        let time = self.time[1].forward(params, &s, Activation::None)?;
        let patches = self.patch_embed.forward(params, &self.cut(x)?, Activation::None)?;
        let mut h = ops::tokens(&patches, &time, params.get(self.positions))?;

        let pairs = pairs(self.blocks.len());
        let mut skips = Vec::with_capacity(pairs);
        for (i, block) in self.blocks.iter().enumerate() {
            if let Some(skip) = &block.skip {
                let partner = skips.pop().expect("the constructor gave skips to as many blocks as leave one");
                h = skip.forward(params, &ops::concat(&h, &partner)?, Activation::None)?;
            }
            let drop = |h: Tensor, branch| match dropout {
                Some(d) => ops::dropout(&h, self.dropout, d.stream.lane(2 * i as u32 + branch), d.first_sample),
                None => Ok(h),
            };
            h = ops::add(&h, &drop(block.attend(params, &h)?, 0)?)?;
            h = ops::add(&h, &drop(block.transform(params, &h)?, 1)?)?;
            if i < pairs {
                skips.push(h.clone());
            }
        }

        let h = self.norm.forward(params, &h)?;
        let patches = self.output.forward(params, &h, Activation::None)?;
        self.join(&ops::narrow(&patches, 1, 1, patches.dims()[1] - 1)?)
    }

    /// `[B, H, W, C]` to patches `[B, N, p · p · C]`: row by row, and so are the pixels of each.
    fn cut(&self, x: &Tensor) -> Result<Tensor> {
        let (Shape { height, width, channels }, p) = (self.shape, self.patch);
        let batch = x.dims()[0];
        x.reshape(&[batch, height / p, p, width / p, p, channels][..])?.permute([0, 1, 3, 2, 4, 5])?.reshape((
            batch,
            height / p * (width / p),
            p * p * channels,
        ))
    }

    /// The inverse, with the output's channels.
    fn join(&self, patches: &Tensor) -> Result<Tensor> {
        let (Shape { height, width, .. }, p) = (self.shape, self.patch);
        let batch = patches.dims()[0];
        let pixels = ops::reshape(patches, vec![batch, height / p, width / p, p, p, self.out_channels])?;
        ops::reshape(&ops::permute(&pixels, &[0, 1, 3, 2, 4, 5])?, (batch, height, width, self.out_channels))
    }
}

/// Blocks of each half that are joined to a block of the other.
fn pairs(depth: usize) -> usize {
    (depth - 1) / 2
}

impl Block {
    fn attend(&self, params: &Params, h: &Tensor) -> Result<Tensor> {
        let h = self.norm1.forward(params, h)?;
        let [q, k, v] = [&self.to_q, &self.to_k, &self.to_v].map(|to| to.forward(params, &h, Activation::None));
        self.to_out.forward(params, &ops::attention(&q?, &k?, &v?, self.heads)?, Activation::None)
    }

    fn transform(&self, params: &Params, h: &Tensor) -> Result<Tensor> {
        let h = self.mlp[0].forward(params, &self.norm2.forward(params, h)?, Activation::Silu)?;
        self.mlp[1].forward(params, &h, Activation::None)
    }
}

fn check(spec: &ModelSpec, shape: Shape, out_channels: usize) -> std::result::Result<(), ModelError> {
    spec.check(out_channels)?;
    let fail = |key, value: String, reason: String| Err(ModelError::option(key, value, reason));
    if !shape.is_image() {
        return fail("model.kind", "\"transformer\"".into(), "it cuts images into patches, and this data is points".into());
    }
    let &[width] = spec.channels.as_slice() else {
        return fail("model.channels", format!("{:?}", spec.channels), "a transformer has one width: [192]".into());
    };
    if width < 4 || !width.is_multiple_of(2) {
        return fail("model.channels", format!("{:?}", spec.channels), "the width must be even and at least 4".into());
    }
    let patch = spec.patch as usize;
    if patch == 0 || !shape.height.is_multiple_of(patch) || !shape.width.is_multiple_of(patch) {
        return fail("model.patch", patch.to_string(), format!("it must divide height and width of {} × {}", shape.height, shape.width));
    }
    if spec.head_channels > 0 && !width.is_multiple_of(spec.head_channels) {
        let reason = format!("it must be 0 (one head) or divide the width of {width}");
        return fail("model.head_channels", spec.head_channels.to_string(), reason);
    }
    for (key, count) in [("model.depth", spec.depth), ("model.mlp_ratio", spec.mlp_ratio)] {
        if count == 0 {
            return fail(key, "0".into(), "it must be at least 1".into());
        }
    }
    if !(spec.norm_eps.is_finite() && spec.norm_eps > 0.0) {
        return fail("model.norm_eps", spec.norm_eps.to_string(), "it must be positive".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
