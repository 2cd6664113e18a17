"""Writes the U-Net's fixtures: diffusers' UNet2DModel, its output and its gradients on fixed inputs.

    pip install torch diffusers safetensors numpy
    python tests/reference/unet2d.py

Made with torch 2.15.0 (CPU) and diffusers 0.42.1. Each file holds the parameters under diffusers' names (`param.`), the
input `x` [B, C, H, W], the zero-based timestep of each sample `t`, a fixed `weight` of the output's shape, the output `y`,
and the gradient of sum(y * weight) with respect to every parameter (`grad.`) and to the input (`grad_x`).
src/model/unet2d/tests.rs reads them.
"""

import pathlib

import torch
from diffusers import UNet2DModel
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent

COMMON = dict(sample_size=8, act_fn="silu", mid_block_scale_factor=1, resnet_time_scale_shift="default")

CASES = {
    # As in google/ddpm-cifar10-32: padding at the right and bottom, sines first, one head.
    "unet2d_ddpm": dict(
        in_channels=1,
        out_channels=1,
        block_out_channels=(4, 8),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        norm_num_groups=2,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    ),
    # The defaults of the class: padding all round, cosines first, several heads; wider than it is high, more outputs than inputs.
    "unet2d_default": dict(
        in_channels=2,
        out_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=2,
        norm_eps=1e-5,
        downsample_padding=1,
        flip_sin_to_cos=True,
        freq_shift=0,
    ),
    # No attention in the middle, three levels.
    "unet2d_plain": dict(
        in_channels=1,
        out_channels=1,
        block_out_channels=(4, 8, 4),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "UpBlock2D"),
        add_attention=False,
        attention_head_dim=None,
        norm_num_groups=4,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    ),
}


def main():
    for seed, (name, config) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        model = UNet2DModel(**COMMON, **config)
        # Normalisations start at 1 and 0, which would hide a mix-up.
        with torch.no_grad():
            for key, p in model.named_parameters():
                if "norm" in key:
                    p.add_(0.3 * torch.randn_like(p))
        width = 12 if name == "unet2d_default" else 8
        x = torch.randn(3, config["in_channels"], 8, width, requires_grad=True)
        t = torch.tensor([0, 37, 999])
        y = model(x, t).sample
        weight = torch.randn_like(y)
        (y * weight).sum().backward()
        tensors = {"x": x.detach(), "t": t, "weight": weight, "y": y.detach(), "grad_x": x.grad}
        for key, p in model.named_parameters():
            tensors[f"param.{key}"] = p.detach()
            tensors[f"grad.{key}"] = p.grad
        save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / f"{name}.safetensors")
        print(name, sum(p.numel() for p in model.parameters()), "parameters")


if __name__ == "__main__":
    main()
