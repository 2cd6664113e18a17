"""ddpm-lab against PyTorch: interleaved, on the same cores, with the same networks.

    just bench-torch [--only NAME,…] [--rounds 3] [--seconds 6] [--device cpu|cuda] [--no-compile] [--markdown]

Each workload is measured in rounds. In a round ddpm-lab runs once, as `ddpm-lab bench` or as a sweep, then every variant of
PyTorch; the variants are eager, eager in channels_last, both with fused AdamW, and torch.compile (the variant of eager that
was faster, compiled). Of each, the median over the rounds of the round's median counts, and PyTorch counts with its best
variant. A training step is everything between two updates: examples, timesteps, noise, forward, loss, backward, clipping,
AdamW, the average of the weights. On CUDA every network is measured in f32, in TF32 (f32 whose products round their factors)
and in bf16 (PyTorch: autocast), each against PyTorch's best of the same precision; sweeps in f32, as their files have it.

Printed: milliseconds, the ratio of the medians (below 1: ddpm-lab is faster), the share of the processor's peak that ddpm-lab
reaches by direct counting of operations (peak measured by `ddpm-lab bench`; Winograd convolutions can pass 100 %), and the
largest resident memory of each process.
"""

import argparse
import json
import math
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "reference"))

STEP = "[base]\n{data}\ndiffusion = {{ timesteps = 1000 }}\nmodel = {model}\ntrain = {{ steps = 1000, batch_size = {batch}, warmup = 0{more} }}\n"
UNET_32 = '{ kind = "unet2d", channels = [32, 64, 64], attention = [16] }'
UNET_28 = '{ kind = "unet2d", channels = [64, 128, 128], attention = [14] }'
UNET_8 = '{ kind = "unet2d", channels = [32, 64], attention = [] }'
MLP = '{ kind = "mlp", channels = [128, 128, 128] }'
TRANSFORMER = '{ kind = "transformer", channels = [192], patch = 4, depth = 6 }'
IMAGES_32, IMAGES_28 = 'data.path = "images32.h5"', 'data.path = "images28.h5"'
DIGITS, POINTS = 'data.name = "digits"', 'data.name = "swiss_roll"'


# ---- PyTorch's networks ---------------------------------------------------------------------------------------------------


def unet(size, channels, attention):
    from diffusers import UNet2DModel

    sizes = [size >> i for i in range(len(channels))]
    down = ["AttnDownBlock2D" if s in attention else "DownBlock2D" for s in sizes]
    up = ["AttnUpBlock2D" if s in attention else "UpBlock2D" for s in reversed(sizes)]
    net = UNet2DModel(
        sample_size=size, in_channels=1, out_channels=1, block_out_channels=tuple(channels), layers_per_block=2, norm_num_groups=8,
        down_block_types=tuple(down), up_block_types=tuple(up), attention_head_dim=None, downsample_padding=0,
        flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6,
    )  # fmt: skip

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, t):
            return self.net(x, t).sample

    return Net(), (1, size, size)


class Mlp(nn.Module):
    """The parameters and the function of src/model/mlp.rs."""

    def __init__(self, dims, widths, sinusoid_width=64):
        super().__init__()
        self.sinusoid_width = sinusoid_width
        self.time = nn.ModuleList([nn.Linear(sinusoid_width, widths[0]), nn.Linear(widths[0], widths[0])])
        sizes = [dims] + list(widths)
        self.hidden = nn.ModuleList(nn.Linear(a + widths[0], b) for a, b in zip(sizes, sizes[1:]))
        self.output = nn.Linear(widths[-1], dims)

    def forward(self, x, t):
        half = self.sinusoid_width // 2
        angle = t.float()[:, None] * torch.exp(torch.arange(half, device=x.device) * (-math.log(10_000.0) / (half - 1)))[None]
        e = torch.cat([angle.sin(), angle.cos()], -1)
        for layer in self.time:
            e = F.silu(layer(e))
        h = x
        for layer in self.hidden:
            u = F.silu(layer(torch.cat([h, e], -1)))
            h = h + u if u.shape == h.shape else u
        return self.output(h)


def transformer():
    from transformer import Transformer

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Transformer((32, 32, 1), 1, patch=4, width=192, depth=6, head=64, packed=True)

        def forward(self, x, t):
            return self.net(x, t)

    return Net(), (32, 32, 1)


# ---- PyTorch's step -------------------------------------------------------------------------------------------------------


class TorchRun:
    """A network in training, in one variant."""

    def __init__(self, make, batch, *, layout, fused, device, bf16=False, compiled=False):
        torch.manual_seed(0)
        self.net, self.shape = make()
        self.memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self.net = self.net.to(device)
        if layout == "channels_last":
            self.net = self.net.to(memory_format=self.memory)
        self.weights = list(self.net.parameters())
        self.average = [w.detach().clone() for w in self.weights]
        self.adam = torch.optim.AdamW(self.weights, lr=1e-3, weight_decay=0.0, fused=True if fused else None)
        self.device, self.batch, self.bf16 = device, batch, bf16
        self.data = torch.rand(512, *self.shape, device=device) * 2 - 1
        self.alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, device=device), 0)
        self.call = torch.compile(self.net) if compiled else self.net

    def autocast(self):
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.bf16)

    def step(self):
        x0 = self.data[torch.randint(0, len(self.data), (self.batch,), device=self.device)]
        if len(self.shape) == 3 and self.memory == torch.channels_last:
            x0 = x0.contiguous(memory_format=self.memory)
        t = torch.randint(0, 1000, (self.batch,), device=self.device)
        noise = torch.randn_like(x0)
        a = self.alpha_bar[t].view(-1, *[1] * len(self.shape))
        with self.autocast():
            output = self.call(a.sqrt() * x0 + (1 - a).sqrt() * noise, t)
        loss = (output.float() - noise).square().mean()
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.weights, 0.005)

    def forward(self):
        with torch.no_grad(), self.autocast():
            x = self.data[: self.batch]
            if len(self.shape) == 3 and self.memory == torch.channels_last:
                x = x.contiguous(memory_format=self.memory)
            return self.call(x, torch.arange(self.batch, device=self.device) % 1000)


def timed(call, seconds, device):
    """The median of the calls that fit into `seconds`, at least three, after one that warms up."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    call()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        synchronize()
        start = time.perf_counter()
        call()
        synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class Packed(nn.Module):
    """K MLPs as one, every product a bmm: PyTorch's fastest way to train many small networks at once on one process."""

    def __init__(self, runs, dims, widths, sinusoid_width=64):
        super().__init__()
        nets = [Mlp(dims, widths, sinusoid_width) for _ in range(runs)]
        pick = lambda f: (nn.Parameter(torch.stack([f(n).weight.detach().t() for n in nets])), nn.Parameter(torch.stack([f(n).bias.detach()[None] for n in nets])))  # noqa: E731
        layers = [pick(lambda n, i=i: n.time[i]) for i in range(2)]
        layers += [pick(lambda n, i=i: n.hidden[i]) for i in range(len(widths))] + [pick(lambda n: n.output)]
        self.w = nn.ParameterList(w for w, _ in layers)
        self.b = nn.ParameterList(b for _, b in layers)
        self.hidden, self.sinusoid_width = len(widths), sinusoid_width

    def forward(self, x, t):
        half = self.sinusoid_width // 2
        angle = t.float()[..., None] * torch.exp(torch.arange(half, device=x.device) * (-math.log(10_000.0) / (half - 1)))
        e = torch.cat([angle.sin(), angle.cos()], -1)
        for i in range(2):
            e = F.silu(torch.baddbmm(self.b[i], e, self.w[i]))
        h = x
        for i in range(2, 2 + self.hidden):
            u = F.silu(torch.baddbmm(self.b[i], torch.cat([h, e], -1), self.w[i]))
            h = h + u if u.shape == h.shape else u
        return torch.baddbmm(self.b[-1], h, self.w[-1])


def packed_run_step(runs, batch, seconds, device):
    """Seconds of one run's step where `runs` train as one network."""
    torch.manual_seed(0)
    net = Packed(runs, 2, (128, 128, 128)).to(device)
    weights = list(net.parameters())
    average = [w.detach().clone() for w in weights]
    adam = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.0, fused=True)
    data = torch.rand(8192, 2, device=device)
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, device=device), 0)

    def step():
        x0 = data[torch.randint(0, len(data), (runs, batch), device=device)]
        t = torch.randint(0, 1000, (runs, batch), device=device)
        noise = torch.randn_like(x0)
        a = alpha_bar[t][..., None]
        loss = (net(a.sqrt() * x0 + (1 - a).sqrt() * noise, t) - noise).square().mean((1, 2)).sum()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        # Each run is clipped by its own norm.
        norms = torch.stack([w.grad.flatten(1).square().sum(1) for w in weights]).sum(0).sqrt()
        scale = (1.0 / (norms + 1e-6)).clamp(max=1.0)
        with torch.no_grad():
            for w in weights:
                w.grad.mul_(scale.view(-1, *[1] * (w.dim() - 1)))
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, 0.005)

    return timed(step, seconds, device) / runs


def _train_alone(batch, seconds, out):
    torch.set_num_threads(1)
    run = TorchRun(lambda: (Mlp(2, (128, 128, 128)), (2,)), batch, layout="contiguous", fused=True, device="cpu")
    out.put(timed(run.step, seconds, "cpu"))


def processes_run_step(batch, seconds, cores):
    """Seconds of one run's step where each core trains a run in a process of its own."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    workers = [context.Process(target=_train_alone, args=(batch, seconds, out)) for _ in range(cores)]
    [w.start() for w in workers]
    times = [out.get() for _ in workers]
    [w.join() for w in workers]
    return 1 / sum(1 / t for t in times)


# What the file says in each precision; PyTorch's is set by the variant.
PRECISIONS = {"cpu": {"f32": ""}, "cuda": {"f32": "", "tf32": ', matmul_precision = "tf32"', "bf16": ', dtype = "bf16"'}}


# ---- ddpm-lab -------------------------------------------------------------------------------------------------------------


class Lab:
    def __init__(self, binary, folder, device):
        self.binary, self.folder, self.device = str(pathlib.Path(binary).resolve()), folder, device

    def run(self, *arguments):
        return subprocess.run([self.binary, *arguments], cwd=self.folder, check=True, stdout=subprocess.PIPE, text=True).stdout

    def bench(self, text, what, seconds, last, forward):
        """(seconds, share of peak, bytes) of a step or a prediction."""
        (self.folder / "bench.toml").write_text(text)
        steps = max(3, min(2000, int(seconds / last))) if last else 5
        line = self.run("bench", "bench.toml", "--json", "--device", self.device, "--steps", str(steps), "--forward", str(forward))
        found = json.loads(line)
        taken = statistics.median(found[f"{what}_seconds"])
        share = found[f"{what}_flops"] / taken / found["peak_flops"] if found["peak_flops"] else float("nan")
        return taken, share, found["peak_memory_bytes"]

    def sweep_run_step(self, text, runs, steps, round):
        """Seconds of wall time of one run's step in a sweep, between the first and the last window of its runs."""
        (self.folder / "bench.toml").write_text(text)
        results = self.folder / f"results-{time.time_ns()}-{round}"
        said = self.run("sweep", "bench.toml", "--progress", "json", "--device", self.device, "--results", str(results))
        events = [json.loads(line) for line in said.splitlines()]
        jobs = next(event["jobs"] for event in events if event["event"] == "sweep_started")
        seconds = 0.0
        for timing in results.glob("runs/*/timing.jsonl"):
            lines = [json.loads(line) for line in timing.read_text().splitlines()]
            seconds += (lines[-1]["seconds"] - lines[0]["seconds"]) / (lines[-1]["step"] - lines[0]["step"])
        # So many runs go side by side.
        return seconds / runs / jobs

    def sweep_seconds(self, file, round):
        results = self.folder / f"results-{time.time_ns()}-{round}"
        start = time.perf_counter()
        self.run("sweep", str(file), "--progress", "json", "--device", self.device, "--results", str(results))
        return time.perf_counter() - start


# ---- the table ------------------------------------------------------------------------------------------------------------


def step(name, goal, data, model, make, batch, what="step", more=""):
    return dict(name=name, goal=goal, data=data, model=model, make=make, batch=batch, what=what, more=more, kind="network")


WORKLOADS = [
    step("unet-32", 0.60, IMAGES_32, UNET_32, lambda: unet(32, [32, 64, 64], [16]), 32),
    step("unet-32-batch-128", 0.60, IMAGES_32, UNET_32, lambda: unet(32, [32, 64, 64], [16]), 128),
    step("unet-32-forward-128", 0.50, IMAGES_32, UNET_32, lambda: unet(32, [32, 64, 64], [16]), 128, what="forward"),
    step("unet-28-wide", 0.60, IMAGES_28, UNET_28, lambda: unet(28, [64, 128, 128], [14]), 64),
    step("unet-digits", 0.60, DIGITS, UNET_8, lambda: unet(8, [32, 64], []), 64),
    step("mlp", 0.45, POINTS, MLP, lambda: (Mlp(2, (128, 128, 128)), (2,)), 256),
    dict(name="mlp-sweep-16", goal=0.33, kind="mlp-sweep", batch=256),
    step("transformer", 0.42, IMAGES_32, TRANSFORMER, transformer, 32),
    dict(name="smoke-sweep", goal=0.15, kind="smoke"),
]

MLP_SWEEP = STEP.format(data=POINTS, model=MLP, batch=256, more="").replace("steps = 1000", "steps = 2000").replace(
    "[base]\n", "seeds = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]\n[base]\neval = { every = 0, images = 1, test_images = 1 }\nsample.count = 0\nlog.every = 500\n"
)


def measure(workload, precision, lab, args):
    """Seconds of the rounds by variant, ddpm-lab first; its share of peak and the processes' memory."""
    name, kind = workload["name"], workload["kind"]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    seen, shares, memory = {"ddpm-lab": []}, [], 0
    runs = {}
    if kind == "network":
        what, batch = workload["what"], workload["batch"]
        image = workload["data"] != POINTS
        variants = {"eager": dict(layout="contiguous", fused=False), "fused": dict(layout="contiguous", fused=True)}
        if image and "unet" in name:
            variants["channels_last fused"] = dict(layout="channels_last", fused=True)
        variants = {variant: options | dict(device=args.device, bf16=precision == "bf16") for variant, options in variants.items()}
        for variant, options in variants.items():
            runs[variant] = TorchRun(workload["make"], batch, **options)
        more = workload["more"] + PRECISIONS[args.device][precision]
        text = STEP.format(data=workload["data"], model=workload["model"], batch=batch, more=more)
        last = None
        for round in range(args.rounds):
            taken, share, used = lab.bench(text, what, args.seconds, last, batch if what == "forward" else 0)
            last = taken
            seen["ddpm-lab"].append(taken)
            shares.append(share)
            memory = max(memory, used or 0)
            for variant, run in runs.items():
                call = run.step if what == "step" else run.forward
                seen.setdefault(variant, []).append(timed(call, args.seconds, args.device))
            if round == 0 and args.compile:
                # From the faster variant of eager; it takes part from the next round on, and in this one.
                best = min(runs, key=lambda v: seen[v][0])
                compiled = TorchRun(workload["make"], batch, compiled=True, **variants[best])
                call = compiled.step if what == "step" else compiled.forward
                call()
                seen["compile"] = [timed(call, args.seconds, args.device)]
                runs["compile"] = compiled
    elif kind == "mlp-sweep":
        cores = len(os.sched_getaffinity(0))
        for round in range(args.rounds):
            seen["ddpm-lab"].append(lab.sweep_run_step(MLP_SWEEP, 16, 2000, round))
            if args.device == "cpu":
                seen.setdefault("a process a core", []).append(processes_run_step(256, args.seconds, cores))
            seen.setdefault("16 runs by bmm", []).append(packed_run_step(16, 256, args.seconds, args.device))
    else:
        for round in range(args.rounds):
            seen["ddpm-lab"].append(lab.sweep_seconds(HERE.parent / "experiments" / "smoke.toml", round))
            start = time.perf_counter()
            for schedule in ["linear_scaled", "cosine"]:
                subprocess.run([sys.executable, str(HERE / "smoke_torch.py"), schedule, args.device], check=True, stdout=subprocess.DEVNULL)
            seen.setdefault("a script a cell", []).append(time.perf_counter() - start)
    return seen, shares, memory


def precisions(workload, device):
    """Sweeps of whole runs are measured as their files have it."""
    return list(PRECISIONS[device]) if workload["kind"] == "network" else ["f32"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lab", required=True, help="the ddpm-lab binary")
    parser.add_argument("--only", default="", help="workloads, by comma; a prefix stands for all that begin so")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out (it takes a minute a network)")
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True
    chosen = [w for w in WORKLOADS if not args.only or any(w["name"] == o or w["name"].startswith(o + "-") for o in args.only.split(","))]
    if not chosen:
        parser.error(f"--only matches nothing; there are {', '.join(w['name'] for w in WORKLOADS)}")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        lab = Lab(args.lab, folder, args.device)
        for size in (28, 32):
            np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 256, (640, size, size, 1), dtype=np.uint8))
            lab.run("data", "import", "images.npy", f"images{size}.h5")
        for workload, precision in [(w, p) for w in chosen for p in precisions(w, args.device)]:
            seen, shares, memory = measure(workload, precision, lab, args)
            medians = {variant: statistics.median(times) for variant, times in seen.items()}
            ours = medians.pop("ddpm-lab")
            best = min(medians, key=medians.get)
            unit, scale = ("s", 1) if workload["kind"] == "smoke" else ("ms", 1000)
            name, goal = workload["name"] + ("" if args.device == "cpu" else f" {precision}"), workload["goal"] if args.device == "cpu" else 1.0
            print(f"\n{name}: {'a run-step' if workload['kind'] == 'mlp-sweep' else workload.get('what', 'the sweep')}, {unit}", flush=True)
            for variant, times in seen.items():
                print(f"  {variant:20} {scale * statistics.median(times):9.3f}   ({', '.join(f'{scale * t:.3f}' for t in times)})", flush=True)
            ratio = ours / medians[best]
            share = f"{100 * statistics.median(shares):.0f} %" if shares and shares[0] == shares[0] else "–"
            used = f"{memory / 2**20:.0f}" if memory else "–"
            rows.append((name, f"{scale * ours:.3g} {unit}", f"{scale * medians[best]:.3g} {unit}", best, f"{ratio:.2f}", f"{goal:.2f}", share, used))
            print(f"  ratio to the best of PyTorch ({best}): {ratio:.2f}, goal {goal:.2f}; {share} of peak; {used} MiB", flush=True)
    head = ("workload", "ddpm-lab", "PyTorch", "variant", "ratio", "goal", "of peak", "MiB")
    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} threads, {args.rounds} rounds of {args.seconds:g} s, device {args.device}")
    if args.markdown:
        print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        print("\n".join("| " + " | ".join(row) + " |" for row in rows))
    else:
        widths = [max(len(r[c]) for r in [head, *rows]) for c in range(len(head))]
        for row in [head, *rows]:
            print("  ".join(cell.ljust(w) for cell, w in zip(row, widths)))


if __name__ == "__main__":
    main()
