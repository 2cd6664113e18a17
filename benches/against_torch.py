"""One training step of ddpm-lab against PyTorch, interleaved, on the same cores.

    just bench-torch [--rounds 3] [--steps 20] [--batch 32]

The network is the U-Net (32, 64, 64) on 32 x 32 x 1 images, two blocks a level, attention at 16 x 16 and in the middle.
ddpm-lab is measured as a user runs it: a sweep of one run, whose timing.jsonl gives the seconds between two windows
(drawing data and noise, forward, loss, backward, clipping, AdamW, EMA, logging). PyTorch runs diffusers' UNet2DModel with
the same shapes, noise, loss, clipping, fused AdamW and EMA, eagerly, in both memory layouts; the better one counts.
Prints the median of each and the ratio of medians.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import torch
from diffusers import UNet2DModel

parser = argparse.ArgumentParser()
parser.add_argument("--lab", required=True, help="the ddpm-lab binary")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--micro", type=int, default=4)
args = parser.parse_args()

EXPERIMENT = """
[base]
data.path = "images.h5"
diffusion = {{ timesteps = 10, schedule = "cosine" }}
model = {{ channels = [32, 64, 64], attention = [16] }}
train = {{ steps = {steps}, batch_size = {batch}, micro_batch = {micro}, warmup = 0 }}
eval = {{ every = 0, images = 1, test_images = 1 }}
sample.count = 0
log.every = {half}
"""


def lab(folder: pathlib.Path, round: int) -> float:
    """Milliseconds per step over the second half of a run."""
    results = folder / f"results-{round}"
    command = [args.lab, "sweep", "bench.toml", "-j", "1", "--progress", "json", "--results", str(results)]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (timing,) = results.glob("runs/*/timing.jsonl")
    first, last = (json.loads(line) for line in timing.read_text().splitlines())
    return 1000 * (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])


def torch_step(layout: str) -> float:
    """Milliseconds per step, after a warm-up."""
    torch.manual_seed(0)
    net = UNet2DModel(
        sample_size=32, in_channels=1, out_channels=1, block_out_channels=(32, 64, 64), layers_per_block=2, norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6,
    )
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    net = net.to(memory_format=memory)
    weights = list(net.parameters())
    average = [w.detach().clone() for w in weights]
    adam = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.0, fused=True)
    images = torch.rand(512, 1, 32, 32) * 2 - 1
    alpha_bar = torch.linspace(0.99, 0.01, 10)

    def step():
        x0 = images[torch.randint(0, 512, (args.batch,))].contiguous(memory_format=memory)
        t = torch.randint(0, 10, (args.batch,))
        noise = torch.randn_like(x0)
        a = alpha_bar[t].view(-1, 1, 1, 1)
        loss = (net(a.sqrt() * x0 + (1 - a).sqrt() * noise, t).sample - noise).square().mean()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, 0.005)

    for _ in range(3):
        step()
    times = []
    for _ in range(args.steps // 2):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


torch.set_num_threads(len(os.sched_getaffinity(0)))
args.lab = str(pathlib.Path(args.lab).resolve())
seen = {"ddpm-lab": [], "torch contiguous": [], "torch channels_last": []}
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 256, (640, 32, 32, 1), dtype=np.uint8))
    subprocess.run([args.lab, "data", "import", "images.npy", "images.h5"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    text = EXPERIMENT.format(steps=args.steps, half=args.steps // 2, batch=args.batch, micro=args.micro)
    (folder / "bench.toml").write_text(text)
    for round in range(args.rounds):
        seen["ddpm-lab"].append(lab(folder, round))
        seen["torch contiguous"].append(torch_step("contiguous"))
        seen["torch channels_last"].append(torch_step("channels_last"))

medians = {name: statistics.median(times) for name, times in seen.items()}
for name, times in seen.items():
    print(f"{name:20} {medians[name]:8.1f} ms/step   ({', '.join(f'{t:.0f}' for t in times)})")
best = min(medians[name] for name in medians if name.startswith("torch"))
print(f"ddpm-lab / best torch: {medians['ddpm-lab'] / best:.2f}   ({torch.get_num_threads()} threads, batch {args.batch}, torch {torch.__version__})")
