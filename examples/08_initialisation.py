"""Xavier and Kaiming against naive weights: the variance of activations and gradients through thirty layers.

Xavier's Var W = 2/(n_in + n_out) is derived for units in their linear part, so the inputs of the tanh network are
small; Kaiming's 2/n_in makes up for the half that a ReLU cuts off. Both keep the variance, forward and backward, to
5 per cent a layer; N(0, 0.01²) loses it by a factor of about 40 (tanh) and 80 (ReLU) a layer.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import fastnn
from fastnn import init

DEPTH, WIDTH, BATCH = 30, 256, 256


def network(activation, fill):
    generator = fastnn.Generator(0)
    layers = []
    for _ in range(DEPTH):
        linear = fastnn.Linear(WIDTH, WIDTH, bias=False)
        linear.weight.data = fill((WIDTH, WIDTH), rng=generator)
        layers += [linear, activation()]
    return fastnn.Sequential(*layers)


def naive(shape, rng):
    return init.normal(shape, std=0.01, rng=rng)


def main(folder):
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharex=True)
    cases = [
        (axes[0], fastnn.Tanh, 0.1, [("Xavier", init.xavier_normal), ("Kaiming", init.kaiming_normal)]),
        (axes[1], fastnn.ReLU, 1.0, [("Kaiming", init.kaiming_normal), ("Xavier", init.xavier_normal)]),
    ]
    for ax, activation, std, fills in cases:
        x = init.normal((BATCH, WIDTH), std=std, rng=1)
        for (name, fill), colour in zip([*fills, ("N(0, 0.01²)", naive)], ["tab:blue", "tab:orange", "tab:red"]):
            report = init.audit(network(activation, fill), x)
            ratios = report.mean_forward_ratio, report.mean_backward_ratio
            print(f"{activation.__name__:5} {name:12} variance per layer: ×{ratios[0]:.3f}, backward ×{ratios[1]:.3f}")
            if name == fills[0][0]:  # the initialisation that was derived for this activation
                assert all(abs(ratio - 1) < 0.05 for ratio in ratios)
                assert report.forward_verdict == report.backward_verdict == "steady"
            if fill is naive:
                assert all(ratio < 0.03 for ratio in ratios)
                assert report.forward_verdict == report.backward_verdict == "vanishing"
            # One point per linear layer, relative to where each pass starts.
            forward, backward = report.forward[::2], report.backward[::2]
            ax.semilogy(range(1, DEPTH + 1), forward / forward[0], color=colour, label=f"{name}, activations")
            ax.semilogy(range(1, DEPTH + 1), backward / backward[-1], "--", color=colour, label=f"{name}, gradients")
        ax.set(title=f"{DEPTH} layers of {WIDTH}, {activation.__name__}", xlabel="layer", ylabel="relative variance")
        ax.set_ylim(1e-20, 1e10)
        ax.legend(fontsize=8)

    folder.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(folder / "08_initialisation.png", dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("figures"))
