"""Prints the golden values of the tails in src/diffusion/decoder.rs. Needs mpmath.

    python3 tests/reference/decoder_tails.py

-log of the mass of a bin of 256 levels under both distribution functions, at 60 digits, unclamped: the Rust code works in
f64 and must agree wherever the mass is above the clamp of 1e-12.
"""

from mpmath import mp, mpf, erfc, sqrt, tanh, pi, log, exp

mp.dps = 60


def erf_cdf(z):
    return erfc(-z / sqrt(2)) / 2


def tanh_cdf(z):
    return (1 + tanh(sqrt(2 / pi) * (z + mpf("0.044715") * z**3))) / 2


def nats(cdf, x, mean, log_variance, levels=256):
    half = mpf(1) / (levels - 1)
    inverse = exp(-mpf(log_variance) / 2)
    upper, lower = (mpf(x) - mpf(mean) + half) * inverse, (mpf(x) - mpf(mean) - half) * inverse
    if x < -1 + half:
        mass = cdf(upper)
    elif x > 1 - half:
        mass = 1 - cdf(lower)
    else:
        mass = cdf(upper) - cdf(lower)
    return -log(mass)


# Exact in f64: 0.0039215686274509803 is 1/255 as f64 has it.
CASES = [
    (0.0039215686274509803, 0.0039215686274509803, -9.0),
    (0.0039215686274509803, 0.05, -9.0),
    (0.0039215686274509803, -0.05, -9.0),
    (0.0039215686274509803, 0.069, -9.0),
    (0.0039215686274509803, -0.06, -9.0),
    (0.0039215686274509803, 0.5, -4.0),
    (0.0039215686274509803, -0.6, -4.0),
    (0.0039215686274509803, 0.3, 6.0),
    (-1.0, -0.95, -9.0),
    (-1.0, -0.99, -9.0),
    (-1.0, 0.5, -3.0),
    (1.0, 0.94, -9.0),
    (1.0, 1.2, -9.0),
    (1.0, -0.6, -3.0),
]

for x, mean, log_variance in CASES:
    values = [mp.nstr(nats(cdf, x, mean, log_variance), 17) for cdf in (erf_cdf, tanh_cdf)]
    print(f"({x!r}, {mean}, {log_variance}, {values[0]}, {values[1]}),")
