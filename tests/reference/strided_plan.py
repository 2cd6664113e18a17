"""Prints the timesteps of strided evaluations that src/diffusion/tests.rs holds.

    python3 tests/reference/strided_plan.py

Philox4x32-10 and the strata, written independently of the Rust code.
"""

import math

M0, M1, W0, W1, MASK = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85, 0xFFFFFFFF
SEED, TIMESTEP = 0x5EED0FEA, 3


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = M0 * c[0], M1 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & MASK, (p0 >> 32) ^ c[3] ^ k[1], p0 & MASK]
        k = [(k[0] + W0) & MASK, (k[1] + W1) & MASK]
    return c


def below(step, sample, block, bound):
    w = philox([block, sample, step, TIMESTEP], [SEED & MASK, SEED >> 32])
    return (((w[0] << 32) | w[1]) * bound) >> 64


def strided(timesteps, strata):
    plan, first = [(1, 1.0)], 2
    between = min(max(strata, 3) - 2, timesteps - 2)
    for left in range(between, 0, -1):
        ratio = (timesteps / first) ** (1 / left)
        end = min(max(math.floor(first * ratio + 0.5), first + 1), timesteps + 1 - left)
        plan.append((first + below(timesteps, left + 1, between + 1, end - first), float(end - first)))
        first = end
    return plan + [(timesteps, 1.0)]


print(strided(1000, 12))
print(strided(100, 8))
