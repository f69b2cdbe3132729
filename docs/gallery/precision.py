"""Weights of 16 bits: steps that are too small for them, and two ways to keep these."""

import sys

import numpy as np

import xpopt
from digits import TRAINING, batches, digits, network, weights

WAYS = {
    "float32": {},
    "float16": {},
    'float16, rounding="stochastic"': {"rounding": "stochastic"},
    "float16, master=True": {"master": True},
}


def train(xp, opt, dtype, epochs, batch=64):
    """Return the loss of each epoch; gradients are computed in float32."""
    rng, (x, y) = np.random.default_rng(0), digits(xp)
    params = {name: xp.astype(w, dtype) for name, w in weights(xp, rng).items()}
    losses = []
    for _ in range(epochs):
        total = 0.0
        for some in batches(xp, rng, x, y, batch):
            wide = {name: xp.astype(w, xp.float32) for name, w in params.items()}
            loss, grads, _ = network(xp, wide, *some)
            params, total = opt.update_all(params, grads), total + loss
        losses.append(float(total) / (TRAINING // batch))
    return losses


def main(epochs=10, lr=0.001):
    """Train in each of the ways; return their losses."""
    xp, found = xpopt.default_namespace(), {}
    for name, options in WAYS.items():
        dtype = xp.float32 if name == "float32" else xp.float16
        found[name] = train(xp, xpopt.SGD(lr=lr, **options), dtype, epochs)
    return found


if __name__ == "__main__":
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for style, (name, losses) in zip(
        ("-", "-", "--", ":"), main().items(), strict=True
    ):
        ax.plot(losses, style, linewidth=2, label=name)
    ax.set(title="training loss", xlabel="epoch")
    ax.legend(fontsize="small")
    sys.modules.get("sphinx") or plt.show()
