"""The transformer in plain PyTorch, and the fixtures it writes: its output and its gradients on fixed inputs.

    pip install torch safetensors numpy
    python tests/reference/transformer.py

Made with torch 2.15.0 (CPU). `Transformer` has the parameters, the names and the function of src/model/transformer.rs
(the shape of U-ViT, Bao et al. 2023, arXiv:2209.12152v4); its images are [B, H, W, C]. With packed=True queries, keys and
values come from one matrix, under another name: for benchmarks. Each fixture holds the parameters (`param.`), the input
`x` [B, C, H, W], the zero-based timestep of each sample `t`, a fixed `weight` of the output's shape, the output `y`, and the
gradient of sum(y * weight) with respect to every parameter (`grad.`) and to the input (`grad_x`), computed in f64.
src/model/transformer/tests.rs reads them.
"""

import math
import pathlib

import torch
from torch import nn
from torch.nn import functional as F

HERE = pathlib.Path(__file__).parent


def sinusoid(t, width, improved):
    """[B, width]; sines first over half - 1, or (improved) cosines first over half. In f32, as the program does."""
    half = width // 2
    frequency = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=t.device) / (half if improved else half - 1))
    angle = t.float()[:, None] * frequency
    parts = [angle.sin(), angle.cos()]
    return torch.cat(parts[::-1] if improved else parts, -1)


class Attention(nn.Module):
    def __init__(self, width, head, packed):
        super().__init__()
        self.heads = width // head
        self.packed = packed
        if packed:
            self.to_qkv = nn.Linear(width, 3 * width)
        else:
            self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.Linear(width, width)

    def forward(self, h):
        batch, tokens, width = h.shape
        q, k, v = self.to_qkv(h).chunk(3, -1) if self.packed else (self.to_q(h), self.to_k(h), self.to_v(h))
        q, k, v = (x.view(batch, tokens, self.heads, -1).transpose(1, 2) for x in (q, k, v))
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    def __init__(self, width, ratio):
        super().__init__()
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, h):
        return self.fc2(F.silu(self.fc1(h)))


class Block(nn.Module):
    def __init__(self, width, head, ratio, eps, skip, packed):
        super().__init__()
        self.skip = nn.Linear(2 * width, width) if skip else None
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, head, packed)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = Mlp(width, ratio)

    def forward(self, h, partner=None):
        if self.skip is not None:
            h = self.skip(torch.cat([h, partner], -1))
        h = h + self.attn(self.norm1(h))
        return h + self.mlp(self.norm2(h))


class TimeEmbedding(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear_1 = nn.Linear(width, 4 * width)
        self.linear_2 = nn.Linear(4 * width, width)

    def forward(self, s):
        return self.linear_2(F.silu(self.linear_1(s)))


class Transformer(nn.Module):
    """size is (height, width, channels) of an image; head = 0 is one head."""

    def __init__(self, size, out_channels, *, patch, width, depth, head, mlp_ratio=4, eps=1e-6, improved=False, packed=False):
        super().__init__()
        *self.size, channels = size
        self.patch, self.width, self.improved = patch, width, improved
        self.pairs = (depth - 1) // 2
        self.time_embed = TimeEmbedding(width)
        self.patch_embed = nn.Linear(patch * patch * channels, width)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1 + self.size[0] // patch * (self.size[1] // patch), width))
        self.blocks = nn.ModuleList(Block(width, head or width, mlp_ratio, eps, i >= depth - self.pairs, packed) for i in range(depth))
        self.norm_out = nn.LayerNorm(width, eps)
        self.out = nn.Linear(width, patch * patch * out_channels)

    def forward(self, x, t):
        (height, width), p = self.size, self.patch
        rows, columns = height // p, width // p
        patches = x.reshape(-1, rows, p, columns, p, x.shape[-1]).permute(0, 1, 3, 2, 4, 5).reshape(x.shape[0], rows * columns, -1)
        time = self.time_embed(sinusoid(t, self.width, self.improved).to(x.dtype))
        h = torch.cat([time[:, None], self.patch_embed(patches)], 1) + self.pos_embed
        partners = []
        for i, block in enumerate(self.blocks):
            h = block(h, partners.pop()) if block.skip is not None else block(h)
            if i < self.pairs:
                partners.append(h)
        y = self.out(self.norm_out(h))[:, 1:]
        return y.reshape(-1, rows, columns, p, p, y.shape[-1] // (p * p)).permute(0, 1, 3, 2, 4, 5).reshape(x.shape[0], height, width, -1)


CASES = {
    # Odd depth, several heads, sines first.
    "transformer_odd": dict(
        size=(8, 8, 1), out_channels=1, patch=2, width=12, depth=5, head=4, mlp_ratio=2, eps=1e-6, improved=False
    ),
    # Two blocks between the halves, one head, cosines first; wider than it is high, more outputs than inputs.
    "transformer_even": dict(
        size=(4, 8, 3), out_channels=6, patch=4, width=8, depth=4, head=0, mlp_ratio=3, eps=1e-3, improved=True
    ),
}


def main():
    from safetensors.torch import save_file

    for seed, (name, config) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        # The parameters are numbers of f32, what is computed with them is f64.
        model = Transformer(**config)
        with torch.no_grad():
            for key, p in model.named_parameters():
                # Normalisations start at 1 and 0, positions near 0, which would hide a mix-up.
                p.add_((0.3 if "norm" in key or "pos" in key else 0.05) * torch.randn_like(p))
        model = model.double()
        x = torch.randn(3, *config["size"]).double().requires_grad_()
        t = torch.tensor([0, 37, 999])
        y = model(x, t)
        weight = torch.randn(y.shape).double()
        (y * weight).sum().backward()
        images = {"x": x.detach(), "weight": weight, "y": y.detach(), "grad_x": x.grad}
        tensors = {"t": t} | {k: v.permute(0, 3, 1, 2) for k, v in images.items()}
        for key, p in model.named_parameters():
            tensors[f"param.{key}"] = p.detach()
            tensors[f"grad.{key}"] = p.grad
        tensors = {k: (v.float() if v.is_floating_point() else v).contiguous() for k, v in tensors.items()}
        save_file(tensors, HERE / f"{name}.safetensors")
        print(name, sum(p.numel() for p in model.parameters()), "parameters")


if __name__ == "__main__":
    main()
