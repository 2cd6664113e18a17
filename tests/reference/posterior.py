"""Prints how often the rest of a heartbeat is filled in rightly: numbers of src/diffusion/posterior_tests.rs. Plain Python.

    python3 tests/reference/posterior.py        (a minute)

Written from the definitions, independently of the Rust code: twenty bits with a beat at every fifth, of which the first five
are seen (a beat at the fourth); the Binomial kernel with pi = 0.2 and beta_t = 1/(T - t + 1), T = 200; the exact denoiser by
enumeration of the five sequences; 400 samples each. Clamped bits are the true ones at every step, renoised ones are drawn from
q(x_t | truth) anew; rounds go back up by q(x_t | x_{t-1}).
"""

import math
import random

T, PI, SAMPLES, SEEN, TRUTH = 200, 0.2, 400, 5, 3
BEATS = [[1 if i % 5 == phase else 0 for i in range(20)] for phase in range(5)]
betas = [min(1 / (T - i), 0.999) for i in range(T)]
alpha_bars, product = [], 1.0
for beta in betas:
    product *= 1 - beta
    alpha_bars.append(product)
before = [1.0] + alpha_bars[:-1]


def rate(kept, x):
    return kept + (1 - kept) * PI if x else (1 - kept) * PI


def posterior(i, x_t, x_0):
    now = lambda x: rate(1 - betas[i], x) if x_t else 1 - rate(1 - betas[i], x)
    one, zero = now(1) * rate(before[i], x_0), now(0) * (1 - rate(before[i], x_0))
    return one / (one + zero)


posteriors = [[[posterior(i, x_t, x_0) for x_0 in (0, 1)] for x_t in (0, 1)] for i in range(T)]
logs = [[[math.log(1 - rate(ab, x_0)), math.log(rate(ab, x_0))] for x_0 in (0, 1)] for ab in alpha_bars]


def run(rounds, method, draw):
    right = 0
    for _ in range(SAMPLES):
        x = [1 if draw() < PI else 0 for _ in range(20)]

        def see(i):
            for j in range(SEEN):
                bit = BEATS[TRUTH][j]
                x[j] = bit if method == "clamp" or i < 0 else (1 if draw() < rate(alpha_bars[i], bit) else 0)

        see(T - 1)
        for i in range(T - 1, -1, -1):
            for r in range(rounds):
                likelihoods = [sum(logs[i][beats[j]][x[j]] for j in range(20)) for beats in BEATS]
                weights = [math.exp(l - max(likelihoods)) for l in likelihoods]
                for j in range(20):
                    one = weights[j % 5] / sum(weights)
                    x[j] = 1 if draw() < one * posteriors[i][x[j]][1] + (1 - one) * posteriors[i][x[j]][0] else 0
                see(i - 1)
                if i == 0:
                    break
                if r + 1 < rounds:
                    for j in range(20):
                        x[j] = 1 if draw() < rate(1 - betas[i], x[j]) else 0
                    if method == "clamp":
                        see(i)
        right += x == BEATS[TRUTH]
    return right / SAMPLES


if __name__ == "__main__":
    draw = random.Random(1).random
    for method in ("clamp", "renoise"):
        for rounds in (1, 3, 10):
            print(f"{method}, {rounds} rounds: {run(rounds, method, draw):.4f}", flush=True)
