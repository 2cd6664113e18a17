"""Prints the golden values that src/diffusion/respacing.rs and src/diffusion/sampling_tests.rs hold. Plain Python.

    python3 tests/reference/sampling.py

Written from the definitions, independently of the Rust code: which timesteps each convention keeps (0-based here, as in
the published code), and the closed loop of DDIM over x = 0/768 … 767/768 with the network x * i / (i + 1) of timestep
index i, ten steps 900, 800 … 0, eta = 0, the predicted x_0 clipped and epsilon taken as it was before clipping.

The published sums (172.0067 and 52.5302 in diffusers' tests) hold the rounding of a cumulative product in float32; with
exact products they are 172.0065 and 52.5301. Both are printed.
"""

import struct
from math import sqrt


def single(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def sections(timesteps, counts):
    kept, start = set(), 0
    size, extra = divmod(timesteps, len(counts))
    for i, count in enumerate(counts):
        length = size + (i < extra)
        stride = (length - 1) / (count - 1) if count > 1 else 1
        place = 0.0
        for _ in range(count):
            kept.add(start + round(place))  # Python rounds halves to even
            place += stride
        start += length
    return sorted(kept)


def ddim_stride(timesteps, count):
    return next(list(range(0, timesteps, s)) for s in range(1, timesteps) if len(range(0, timesteps, s)) == count)


def leading(timesteps, count):
    return [i * (timesteps // count) for i in range(count)]


def linspace(timesteps, count):
    return [round(i * (timesteps - 1) / (count - 1)) for i in range(count)]


def trailing(timesteps, count):
    return sorted(round(timesteps - i * (timesteps / count)) - 1 for i in range(count))


def closed_loop(prediction="epsilon", beta_start=1e-4, last_alpha_bar=1.0, rounded=lambda x: x):
    T = 1000
    betas = [rounded(beta_start + (0.02 - beta_start) * i / (T - 1)) for i in range(T)]
    alpha_bars, product = [], 1.0
    for beta in betas:
        product = rounded(product * rounded(1 - beta))
        alpha_bars.append(product)
    last = alpha_bars[0] if last_alpha_bar is None else last_alpha_bar
    x = [i / 768 for i in range(768)]
    for t in range(900, -1, -100):
        a, b = alpha_bars[t], alpha_bars[t - 100] if t >= 100 else last
        for j, x_t in enumerate(x):
            out = x_t * t / (t + 1)
            if prediction == "epsilon":
                eps, x0 = out, (x_t - sqrt(1 - a) * out) / sqrt(a)
            else:
                eps, x0 = sqrt(a) * out + sqrt(1 - a) * x_t, sqrt(a) * x_t - sqrt(1 - a) * out
            x[j] = sqrt(b) * max(-1.0, min(1.0, x0)) + sqrt(1 - b) * eps
    return sum(abs(v) for v in x)


def ddim_variance(t, before):
    T = 1000
    product, alpha_bars = 1.0, []
    for i in range(T):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * i / (T - 1))
        alpha_bars.append(product)
    a, b = alpha_bars[t], alpha_bars[before]
    return (1 - b) / (1 - a) * (1 - a / b)


if __name__ == "__main__":
    print("sections 300: 10,15,20", sections(300, [10, 15, 20]))
    print("sections 40: 7", sections(40, [7]))
    print("sections 11: 2,1,3", sections(11, [2, 1, 3]))
    print("sections 1000: 25", sections(1000, [25]))
    print("ddim 1000: 25", ddim_stride(1000, 25))
    print("leading 1000: 7", leading(1000, 7))
    print("linspace 1000: 7", linspace(1000, 7))
    print("trailing 1000: 7", trailing(1000, 7))
    print("trailing 1000: 16", trailing(1000, 16))
    for name, rounded in [("exact products", lambda x: x), ("float32 products", single)]:
        print(name)
        print(f"  closed loop, epsilon {closed_loop(rounded=rounded):.4f}")
        print(f"  closed loop, v {closed_loop('v', rounded=rounded):.4f}")
        print(f"  closed loop, beta_1 = 0.01, last alpha_bar 1 {closed_loop(beta_start=0.01, rounded=rounded):.4f}")
        print(f"  closed loop, beta_1 = 0.01, last alpha_bar that of t = 1 {closed_loop('epsilon', 0.01, None, rounded):.4f}")
    print(f"variance of DDIM at eta = 1: {ddim_variance(420, 400):.6f} {ddim_variance(980, 960):.6f}")
    print(f"variance of DDPM: {ddim_variance(487, 486):.6f} {ddim_variance(999, 998):.6f}")
