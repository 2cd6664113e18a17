"""The swiss roll's differential entropy, and the best bound that T steps of Gaussian diffusion can have on it.

    python3 tests/reference/swiss_roll.py [NOISE [T]]

No packages. The roll is scikit-learn's make_swiss_roll without its middle axis: theta uniform on [3 pi/2, 9 pi/2], the
point (theta cos theta, theta sin theta) + NOISE * N(0, 1), each coordinate standardised by its exact mean and deviation.
Everything is quadrature over theta and over the noise, in coordinates in which the noise has variance 1.

A step from t to s < t costs E 1/2 sum_j log2(1 + (SNR_s - SNR_t) Var(x_0j | x_t)) bits under the best mean and the best
variance of each coordinate; the last step to x_0 costs E 1/2 sum_j log2(2 pi e Var(x_0j | x_1)), or, in the reading of
Sohl-Dickstein et al. 2015, in which it is the forward step turned round, H(x_1 | x_0) = log2(2 pi e beta_1).
The best schedule is the shortest path through a grid of levels of log SNR: costs are sums over steps.
"""

import math
import sys

A, B = 1.5 * math.pi, 4.5 * math.pi
LOG2E = 1 / math.log(2)
REACH = 7.0


def hermite(n):
    """Nodes and weights of E f(z), z ~ N(0, 1): zeros of He_n by Newton's method from a scan."""
    def he(x):
        a, b = 1.0, x
        for k in range(1, n):
            a, b = b, x * b - k * a
        return b, n * a
    nodes, x, step = [], -2 * math.sqrt(n), 0.01
    while x < 2 * math.sqrt(n):
        if he(x)[0] * he(x + step)[0] < 0:
            r = x + step / 2
            for _ in range(50):
                value, slope = he(r)
                r -= value / slope
            nodes.append(r)
        x += step
    weights = [math.factorial(n) / he(r)[1] ** 2 * n for r in nodes]
    total = sum(weights)
    return [(r, w / total) for r, w in zip(nodes, weights)]


class Roll:
    def __init__(self, noise):
        mean = (2.0, 2 / (3 * math.pi))
        half = 4.875 * math.pi**2
        variance = (half - 0.25 - mean[0] ** 2 + noise**2, half + 0.25 - mean[1] ** 2 + noise**2)
        self.mean, self.std = mean, tuple(map(math.sqrt, variance))
        self.s2 = tuple(noise**2 / v for v in variance)

    def clean(self, theta):
        return ((theta * math.cos(theta) - self.mean[0]) / self.std[0], (theta * math.sin(theta) - self.mean[1]) / self.std[1])


class Level:
    """The roll at one alpha_bar: x = sqrt(ab) x_0 + sqrt(1 - ab) eps, divided by the noise's deviation per coordinate."""

    def __init__(self, roll, ab):
        self.roll, self.ab = roll, ab
        self.d = [math.sqrt(ab * s2 + 1 - ab) for s2 in roll.s2]
        self.scale = [math.sqrt(ab) / d for d in self.d]
        # A grid of theta, uniform in theta, fine enough where the curve runs fastest; in blocks that can be passed over.
        speed = B * max(s / d for s, d in zip(self.scale, roll.std))
        n = max(200, int((B - A) * speed / 0.3))
        self.h = (B - A) / n
        clean = [roll.clean(A + (k + 0.5) * self.h) for k in range(n)]
        self.points = [(c[0] * self.scale[0], c[1] * self.scale[1], c) for c in clean]
        self.blocks = []
        for k in range(0, n, 24):
            part = self.points[k:k + 24]
            middle = part[len(part) // 2]
            radius = max(math.hypot(p[0] - middle[0], p[1] - middle[1]) for p in part)
            self.blocks.append((middle[0], middle[1], (radius + REACH) ** 2, part))

    def near(self, u, v):
        """(weight, clean point) of the posterior over theta, not normalised."""
        found = []
        for x, y, square, part in self.blocks:
            if (x - u) ** 2 + (y - v) ** 2 < square:
                for p, q, clean in part:
                    e = 0.5 * ((p - u) ** 2 + (q - v) ** 2)
                    if e < 0.5 * REACH**2:
                        found.append((math.exp(-e), clean))
        return found

    def nodes(self, n, order):
        for k in range(n):
            theta = A + (k + 0.5) * (B - A) / n
            c = self.roll.clean(theta)
            for z0, w0 in order:
                for z1, w1 in order:
                    yield w0 * w1 / n, c[0] * self.scale[0] + z0, c[1] * self.scale[1] + z1

    def entropy(self, n=1500, order=7):
        """H(x_t) in bits."""
        total = 0.0
        for w, u, v in self.nodes(n, hermite(order)):
            density = sum(e for e, _ in self.near(u, v)) * self.h / (B - A) / (2 * math.pi)
            total -= w * math.log2(density)
        return total + math.log2(self.d[0] * self.d[1])

    def variances(self, n, order):
        """(weight, Var(x_00 | x_t), Var(x_01 | x_t)) at nodes of x_t."""
        out = []
        gain = [math.sqrt(self.ab) * s2 / d**2 for s2, d in zip(self.roll.s2, self.d)]
        own = [s2 * (1 - self.ab) / d**2 for s2, d in zip(self.roll.s2, self.d)]
        keep = [1 - g * math.sqrt(self.ab) for g in gain]
        for w, u, v in self.nodes(n, hermite(order)):
            near = self.near(u, v)
            mass = sum(e for e, _ in near)
            row = [w]
            for j in (0, 1):
                mean = sum(e * c[j] for e, c in near) / mass
                row.append(own[j] + keep[j] ** 2 * sum(e * (c[j] - mean) ** 2 for e, c in near) / mass)
            out.append(tuple(row))
        return out


def alpha_bar(gamma):
    return 1 / (1 + math.exp(gamma))


def decoder(variances):
    return sum(w * 0.5 * (math.log2(2 * math.pi * math.e * a) + math.log2(2 * math.pi * math.e * b)) for w, a, b in variances)


def step(snr_s, snr_t, variances):
    gap = snr_s - snr_t
    return sum(w * math.log((1 + gap * a) * (1 + gap * b)) for w, a, b in variances) * 0.5 * LOG2E


def prior(ab):
    """KL(q(x_T | x_0) || N(0, I)) in bits, two coordinates of variance 1."""
    return -math.log1p(-ab) * LOG2E


def main():
    noise = float(sys.argv[1]) if len(sys.argv) > 1 else 0.02
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    roll = Roll(noise)
    if noise > 0:
        exact = Level(roll, 1.0).entropy()
        thin = math.log2(B - A) + 0.5 * math.log2(2 * math.pi * math.e * noise**2) - math.log2(roll.std[0] * roll.std[1])
        n = 100000
        thin += sum(0.5 * math.log2(1 + (A + (k + 0.5) * (B - A) / n) ** 2) for k in range(n)) / n
        print(f"noise {noise}: entropy {exact:.4f} bits a point (thin roll: {thin:.4f}); no model has K above {-exact:.4f}")

    # Levels -log SNR from `low` to `high`, one every `grid`; x_1 is any of the first.
    low, high, grid = -15.0, 4.0, 0.1
    gammas = [low + grid * k for k in range(int((high - low) / grid + 0.5) + 1)]
    table = [Level(roll, alpha_bar(g)).variances(60, 5) for g in gammas]
    snr = [math.exp(-g) for g in gammas]
    width = int(1.5 / grid)
    costs = [[step(snr[k - w], snr[k], table[k]) if 1 <= w <= k else 0.0 for w in range(width + 1)] for k in range(len(gammas))]

    def line(first, last):
        """The bound over a schedule whose -log SNR is a line over levels first..last in `steps` points, to the nearest level."""
        at = [first + round(k * (last - first) / (steps - 1)) for k in range(steps)]
        return at, sum(step(snr[a], snr[b], table[b]) for a, b in zip(at, at[1:]))

    for gamma_1 in (-14.0, -13.0, -12.0, -11.0):
        for gamma_t in (0.5, 2.0, 4.0):
            at, kl = line(round((gamma_1 - low) / grid), round((gamma_t - low) / grid))
            rest = kl + prior(alpha_bar(gammas[at[-1]]))
            beta = 1 - alpha_bar(gammas[at[0]])
            print(f"logsnr_linear {gamma_1} to {gamma_t}, T = {steps}: K {-(rest + decoder(table[at[0]])):.3f}, "
                  f"K of the paper's reading {-(rest + math.log2(2 * math.pi * math.e * beta)):.3f}")

    # The best schedule: best[k] is the cheapest way to level k in so many steps.
    for reading in ("ours", "2015"):
        if reading == "ours":
            best = [decoder(t) for t in table]
        else:
            best = [math.log2(2 * math.pi * math.e * (1 - alpha_bar(g))) if g <= gammas[0] + 1e-9 else math.inf for g in gammas]
        back = []
        for _ in range(steps - 1):
            choice, following = [], []
            for k in range(len(gammas)):
                options = [(best[k - w] + costs[k][w], k - w) for w in range(1, min(width, k) + 1)] or [(math.inf, 0)]
                value, source = min(options)
                following.append(value)
                choice.append(source)
            back.append(choice)
            best = following
        value, k = min((b + prior(alpha_bar(g)), i) for i, (b, g) in enumerate(zip(best, gammas)))
        path = [k]
        for choice in reversed(back):
            path.append(choice[path[-1]])
        path.reverse()
        abs_ = [alpha_bar(gammas[i]) for i in path]
        betas = [1 - b / a for a, b in zip([1.0] + abs_, abs_)]
        print(f"best schedule ({reading}), T = {steps}: K {-value:.3f}; gamma {' '.join(f'{gammas[i]:.1f}' for i in path)}")
        print("betas = [" + ", ".join(f"{b:.4g}" for b in betas) + "]")


main()
