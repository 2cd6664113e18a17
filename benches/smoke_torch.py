"""One cell of experiments/smoke.toml as a researcher's script has it: train, evaluate the bound, sample, save a picture.

    python benches/smoke_torch.py SCHEDULE [cpu|cuda]

The same network (diffusers' UNet2DModel), batch, steps, evaluations and samples as the experiment file; started once for
each cell, as such scripts are. benches/against_torch.py times it.
"""

import gzip
import math
import pathlib
import struct
import sys

import numpy as np
import torch
from diffusers import UNet2DModel

ROOT = pathlib.Path(__file__).resolve().parent.parent
T, STEPS, BATCH = 50, 40, 16
DEVICE = (sys.argv[2:] or ["cpu"])[0]
torch.set_default_device(DEVICE)

with gzip.open(ROOT / "assets" / "digits-images-idx3-ubyte.gz") as file:
    count, height, width = struct.unpack(">4xIII", file.read(16))
    pixels = np.frombuffer(file.read(), np.uint8).reshape(count, 1, height, width)
images = torch.from_numpy(pixels.astype(np.float32) / 8 - 1).to(DEVICE)
train, val, test = images[:1444], images[1444:1621], images[1621:]

if sys.argv[1] == "cosine":
    bar = lambda t: math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
    beta = torch.tensor([min(1 - bar(i + 1) / bar(i), 0.999) for i in range(T)], dtype=torch.float64)
else:
    beta = torch.linspace(1e-4 * 1000 / T, 0.02 * 1000 / T, T, dtype=torch.float64)
alpha_bar = torch.cumprod(1 - beta, 0)
before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
posterior = beta * (1 - before) / (1 - alpha_bar)
coef_x0, coef_xt = beta * before.sqrt() / (1 - alpha_bar), (1 - before) * (1 - beta).sqrt() / (1 - alpha_bar)
log_variance = torch.cat([posterior[1:2], beta[1:]]).log()

torch.manual_seed(0)
net = UNet2DModel(
    sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
    down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"), add_attention=False,
    downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6,
)  # fmt: skip
weights = list(net.parameters())
average = [w.detach().clone() for w in weights]
adam = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.0, fused=True)


def view(x):
    return x.float().view(-1, 1, 1, 1)


def term(x0, i):
    """Each image's term of the bound at index i, in bits/dim."""
    noise = torch.randn_like(x0)
    x = view(alpha_bar[i : i + 1].sqrt()) * x0 + view((1 - alpha_bar[i : i + 1]).sqrt()) * noise
    eps = net(x, torch.full((len(x0),), i)).sample
    guess = ((x - (1 - alpha_bar[i]).sqrt() * eps) / alpha_bar[i].sqrt()).clamp(-1, 1)
    mean = coef_x0[i] * guess + coef_xt[i] * x
    if i == 0:
        scale, half = (-0.5 * log_variance[0]).exp(), 1 / 16
        normal = torch.distributions.Normal(0.0, 1.0)
        plus, minus = normal.cdf(scale * (x0 - mean + half)), normal.cdf(scale * (x0 - mean - half))
        p = torch.where(x0 < -0.999, plus, torch.where(x0 > 0.999, 1 - minus, plus - minus)).clamp(min=1e-12)
        return -p.log2().mean((1, 2, 3))
    true = coef_x0[i] * x0 + coef_xt[i] * x
    kl = 0.5 * (-1 + log_variance[i] - posterior[i].log() + (posterior[i].log() - log_variance[i]).exp() + (true - mean) ** 2 * (-log_variance[i]).exp())
    return kl.mean((1, 2, 3)) / math.log(2)


@torch.no_grad()
def evaluate(x0, indices):
    kept = [w.detach().clone() for w in weights]
    torch._foreach_copy_(weights, average)
    total = sum(term(x0, i).mean().item() * T / len(indices) for i in indices)
    torch._foreach_copy_(weights, kept)
    return total


for step in range(STEPS):
    x0 = train[torch.randint(0, len(train), (BATCH,))]
    t = torch.randint(0, T, (BATCH,))
    noise = torch.randn_like(x0)
    x = view(alpha_bar[t].sqrt()) * x0 + view((1 - alpha_bar[t]).sqrt()) * noise
    loss = (net(x, t).sample - noise).square().mean()
    adam.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    adam.step()
    with torch.no_grad():
        torch._foreach_lerp_(average, weights, 0.005)
    if step % 20 == 19:
        print(step + 1, loss.item(), evaluate(val[:8], range(0, T, 5)))
print("test", evaluate(test[:8], range(T)))
with torch.no_grad():
    torch._foreach_copy_(weights, average)
    x = torch.randn(4, 1, 8, 8)
    for i in reversed(range(T)):
        eps = net(x, torch.full((4,), i)).sample
        guess = ((x - (1 - alpha_bar[i]).sqrt() * eps) / alpha_bar[i].sqrt()).clamp(-1, 1)
        x = coef_x0[i] * guess + coef_xt[i] * x + (posterior[i].sqrt() * torch.randn_like(x) if i else 0)
    print(x.mean().item())
