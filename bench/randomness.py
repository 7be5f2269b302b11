"""Statistics of the generator and of dropout's masks, on far more numbers than the tests draw.

    python bench/randomness.py                      # the campaign: one line for each statistic, worst first; minutes
    python bench/randomness.py stream [--words N] [--seeds] | dieharder -a -g 200    # the raw stream to a pipe

Every statistic is a number of standard deviations (or a p-value turned into one); with a few hundred of them, the
largest is expected around 3, and 4 would be a defect. Seeds are fixed: the result is the same on every machine.
"""

import argparse
import math
import sys

import numpy as np
from scipy import stats

import fastnn
import fastnn.functional as F

DRAWS = 2**24
PROBABILITIES = (1e-6, 0.1, 0.3, 0.5, 0.9, 1 - 1e-6)
LAGS = (1, 2, 3, 4, 8, 15, 16, 17, 32, 48, 64, 128, 256, 1024, 8192)


def sigmas(p_value):
    """A two-sided p-value as a number of standard deviations."""
    return float(stats.norm.isf(max(p_value, 1e-300) / 2))


def chi_square(counts):
    """Of counts that should all be equal; both tails, because too even is wrong too."""
    expected = counts.sum() / counts.size
    tail = stats.chi2.sf(((counts - expected) ** 2 / expected).sum(), counts.size - 1)
    return sigmas(2 * min(tail, 1 - tail))


def correlation(a, b):
    """Of two rows of numbers with mean 0, in standard deviations of its estimate."""
    return abs(float(np.dot(a, b)) / math.sqrt(float(np.dot(a, a)) * float(np.dot(b, b)))) * math.sqrt(a.size)


def words(report):
    """Bits, bytes, halves of words and pairs of neighbours, along one stream and across streams and seeds."""
    along = fastnn.Generator(1).words(DRAWS)
    g = fastnn.Generator(2)
    first_words = np.concatenate([g.words(64) for _ in range(DRAWS // 64)])
    seeds = np.concatenate([fastnn.Generator(seed).words(64) for seed in range(DRAWS // 64)])
    for name, w in (("along a stream", along), ("across streams", first_words), ("across seeds", seeds)):
        for shift in (0, 8, 16, 24):
            report(f"bytes at {shift}, {name}", chi_square(np.bincount((w >> shift & 0xFF).astype(np.uint8))))
        report(f"halves of words, {name}", chi_square(np.bincount(w.view(np.uint16), minlength=2**16)))
        ones = np.array([(w >> bit & 1).sum(dtype=np.int64) for bit in range(32)])
        report(f"bits, {name}", float(np.abs((ones - w.size / 2) / math.sqrt(w.size / 4)).max()))
        u = w / 2.0**32 - 0.5
        for lag in LAGS:
            report(f"serial correlation at lag {lag}, {name}", correlation(u[lag:], u[:-lag]))
        for lag in (1, 16, 64):
            pairs = (w[lag:] >> 24).astype(np.int64) << 8 | w[:-lag] >> 24
            report(f"pairs at lag {lag}, {name}", chi_square(np.bincount(pairs, minlength=2**16)))


def masks(report):
    """Dropout: the number of drops, and correlations between positions, steps and seeds."""
    ones = np.ones(DRAWS, np.float32)
    for p in PROBABILITIES:
        g = fastnn.Generator(int(p * 1e6))
        steps = [(F.dropout(ones, p, mode="classic", generator=g) == 0) - np.float64(p) for _ in range(3)]
        other = (F.dropout(ones, p, mode="classic", generator=fastnn.Generator(g.seed + 1)) == 0) - np.float64(p)
        deviation = math.sqrt(DRAWS * p * (1 - p))
        for step, drops in enumerate(steps):
            report(f"drops at p = {p}, step {step}", abs(float(drops.sum())) / deviation)
        if not 0.01 < p < 0.99:
            continue  # too few events for a normal approximation of the rest
        for lag in LAGS:
            report(f"mask at p = {p}, lag {lag}", correlation(steps[0][lag:], steps[0][:-lag]))
        report(f"mask at p = {p}, next step", correlation(steps[0], steps[1]))
        report(f"mask at p = {p}, step after", correlation(steps[0], steps[2]))
        report(f"mask at p = {p}, next seed", correlation(steps[0], other))
        rows = (steps[0] > 0).reshape(-1, 8) @ (1 << np.arange(8))
        expected = np.array([p ** k.bit_count() * (1 - p) ** (8 - k.bit_count()) for k in range(256)]) * rows.size
        tail = stats.chi2.sf(((np.bincount(rows, minlength=256) - expected) ** 2 / expected).sum(), 255)
        report(f"mask at p = {p}, patterns of eight", sigmas(2 * min(tail, 1 - tail)))


def normals(report):
    """Kolmogorov–Smirnov, moments, tails, correlations of values and squares, and across the pairs of Box–Muller."""
    for dtype in (np.float32, np.float64):
        name = np.dtype(dtype).name
        x = fastnn.Generator(9).normal(DRAWS, dtype=dtype).astype(np.float64)
        u = fastnn.Generator(9).uniform(DRAWS, dtype=dtype).astype(np.float64)
        report(f"Kolmogorov–Smirnov, normal {name}", sigmas(stats.kstest(x, "norm").pvalue))
        report(f"Kolmogorov–Smirnov, uniform {name}", sigmas(stats.kstest(u, "uniform").pvalue))
        for power in range(1, 9):
            mean = math.prod(range(1, power, 2)) if power % 2 == 0 else 0
            variance = math.prod(range(1, 2 * power, 2)) - mean**2
            report(f"moment {power} of normal {name}", abs((x**power).mean() - mean) / math.sqrt(variance / x.size))
        for bound in (3, 4, 4.5, 5):
            expected = 2 * stats.norm.sf(bound) * x.size
            report(f"|normal {name}| > {bound}", abs((np.abs(x) > bound).sum() - expected) / math.sqrt(expected))
        for lag in LAGS:
            report(f"normal {name} at lag {lag}", correlation(x[lag:], x[:-lag]))
            report(f"squares of normal {name} at lag {lag}", correlation(x[lag:] ** 2 - 1, x[:-lag] ** 2 - 1))


def campaign():
    lines = []
    for part in (words, masks, normals):
        part(lambda name, value: lines.append((value, name)))
    for value, name in sorted(lines, reverse=True):
        print(f"{value:6.2f} σ  {name}")
    largest = max(lines)[0]
    print(f"{len(lines)} statistics of {DRAWS} draws each; the largest is {largest:.2f} σ")
    return largest < 4


def stream(draw, by_seed):
    """Draws of `draw` words, from one generator or each from the next seed, to standard output until it closes."""
    generator = fastnn.Generator(0)
    seed = 0
    while True:
        if by_seed:
            block = b"".join(fastnn.Generator(seed + i).words(draw).tobytes() for i in range(256))
            seed += 256
        else:
            block = b"".join(generator.words(draw).tobytes() for _ in range(max(1, 2**16 // draw)))
        sys.stdout.buffer.write(block)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=["campaign", "stream"], default="campaign")
    parser.add_argument("--words", type=int, default=2**16, help="32-bit words to a draw")
    parser.add_argument("--seeds", action="store_true", help="the next seed for each draw, instead of the next stream")
    chosen = parser.parse_args()
    if chosen.what == "campaign":
        sys.exit(0 if campaign() else 1)
    try:
        stream(chosen.words, chosen.seeds)
    except BrokenPipeError:
        sys.stderr.close()
