"""Prints the golden values that src/diffusion/schedule.rs and src/diffusion/tests.rs hold. Needs numpy.

    python3 tests/reference/schedules.py

Written from the papers' formulas, independently of the Rust code: betas by their definitions, the bound of a network
that puts out zero by its closed form (the expected squared error of every element is 1, and its decoder term by
quadrature over the noise).
"""

import numpy as np


def alpha_bar_family(f, n):
    t = np.arange(n)
    return np.minimum(1 - f((t + 1) / n) / f(t / n), 0.999)


def sigmoid_alpha_bar(u, start=-3.0, end=3.0):
    s = lambda x: 1 / (1 + np.exp(-x))
    return (s(end) - s(u * (end - start) + start)) / (s(end) - s(start))


def warmup(n, rising):
    b = np.full(n, 0.02)
    b[:rising] = np.linspace(1e-4, 0.02, rising)
    return b


def laplace_alpha_bar(u):
    log_snr = -0.5 * np.copysign(1, 0.5 - u) * np.log(1 - 2 * np.abs(0.5 - u) + 1e-6)
    return np.sqrt(np.exp(log_snr) / (1 + np.exp(log_snr)))


def log_snr_linear(n, first=-13.3, last=5.0):
    alpha_bar = 1 / (1 + np.exp(np.linspace(first, last, n)))
    return 1 - alpha_bar / np.append(1.0, alpha_bar[:-1])


def zero_terminal(b):
    s = np.sqrt(np.cumprod(1 - b))
    moved = ((s - s[-1]) * s[0] / (s[0] - s[-1])) ** 2
    return 1 - moved / np.append(1.0, moved[:-1])


def betas(kind, n):
    if kind.startswith("zero-snr "):
        return zero_terminal(betas(kind.removeprefix("zero-snr "), n))
    scale = 1000 / n
    return {
        "jsd": lambda: np.minimum(1 / np.linspace(n, 1, n), 0.999),
        "sqrt": lambda: alpha_bar_family(lambda u: 1 - np.sqrt(u + 1e-4), n),
        "constant": lambda: np.full(n, 0.02),
        "warmup10": lambda: warmup(n, n // 10),
        "warmup50": lambda: warmup(n, n // 2),
        "laplace": lambda: alpha_bar_family(laplace_alpha_bar, n),
        "logsnr_linear": lambda: log_snr_linear(n),
        "linear": lambda: np.linspace(1e-4, 0.02, n),
        "linear_scaled": lambda: np.linspace(1e-4 * scale, 0.02 * scale, n),
        "quadratic": lambda: np.linspace(1e-4**0.5, 0.02**0.5, n) ** 2,
        "cosine": lambda: alpha_bar_family(lambda u: np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2, n),
        "sigmoid": lambda: alpha_bar_family(sigmoid_alpha_bar, n),
    }[kind]()


def tables(kind, n):
    b = betas(kind, n)
    ab = np.cumprod(1 - b)
    prev = np.append(1.0, ab[:-1])
    return b, ab, prev, b * (1 - prev) / (1 - ab)


def cdf(x):
    return 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def bound_of_zero(kind, n, variance):
    """bits/dim of a network that predicts no noise, for an interior pixel of 256 levels."""
    b, ab, prev, post = tables(kind, n)
    log_post = np.log(np.append(post[1], post[1:]))
    log_var = log_post if variance == "fixed_small" else np.log(np.append(post[1], b[1:]))
    error = b**2 * prev / (1 - ab) ** 2 * (1 - ab) / ab  # E of (coef (x0 - x0_hat))², with E eps² = 1
    kl = 0.5 * (log_var - log_post - 1 + np.exp(log_post - log_var) + error * np.exp(-log_var))
    eps = np.linspace(-8, 8, 20001)
    weight = np.exp(-0.5 * eps**2) / np.sqrt(2 * np.pi) * (eps[1] - eps[0])
    centered = -eps * np.sqrt(1 / ab[0] - 1)  # x0 - x0_hat at the first step
    inv = np.exp(-0.5 * log_var[0])
    p = np.maximum(cdf(inv * (centered + 1 / 255)) - cdf(inv * (centered - 1 / 255)), 1e-12)
    decoder = -(weight * np.log(p)).sum()
    prior = 0.5 * (ab[-1] * ((1 / 255) ** 2 - 1) - np.log1p(-ab[-1]))
    return (decoder + kl[1:].sum() + prior) / np.log(2)


print(f"{'schedule':16} {'T':>5} {'beta_1':>11} {'beta_T':>9} {'abar_1':>12} {'abar_mid':>10} {'abar_T':>12} {'var_2':>12} {'L_T':>10} {'log SNR':>8}")
for kind, n in [("linear", 1000), ("linear_scaled", 4000), ("linear_scaled", 100), ("linear", 100), ("cosine", 100),
                ("cosine", 1000), ("cosine", 4000), ("sigmoid", 1000), ("quadratic", 1000), ("jsd", 1000), ("sqrt", 1000),
                ("constant", 1000), ("warmup10", 1000), ("warmup50", 1000), ("laplace", 1000), ("logsnr_linear", 1000),
                ("zero-snr linear", 1000), ("zero-snr cosine", 1000), ("zero-snr linear", 100)]:
    b, ab, prev, post = tables(kind, n)
    prior = 0.5 * (ab[-1] * (0.25 - 1) - np.log1p(-ab[-1])) / np.log(2)
    with np.errstate(divide="ignore"):
        snr = np.log(ab[[0, -1]] / (1 - ab[[0, -1]]))
    print(f"{kind:16} {n:5} {b[0]:11.6g} {b[-1]:9.4g} {ab[0]:12.9f} {ab[n // 2]:10.6g} {ab[-1]:12.6g} {post[1]:12.6g} {prior:10.3g} {snr[0]:8.3f} {snr[1]:8.3f}")

b, ab, prev, post = tables("linear", 1000)
print("\nposterior variance at 488, 1000:", post[487], post[999])
for i in (1, 500, 999):
    print(f"coefficients at t = {i + 1}: {b[i] * prev[i] ** 0.5 / (1 - ab[i]):.9g} {(1 - prev[i]) * (1 - b[i]) ** 0.5 / (1 - ab[i]):.12g}")

print("\nbound of a network that puts out zero, bits/dim")
for kind, n in [("linear", 1000), ("linear_scaled", 100), ("cosine", 100), ("cosine", 1000)]:
    print(f"{kind:14} {n:5}  fixed_small {bound_of_zero(kind, n, 'fixed_small'):.3f}  fixed_large {bound_of_zero(kind, n, 'fixed_large'):.3f}")
