"""Groups, clipping and an average, where one label of five is wrong."""

import sys

import numpy as np

import xpopt
from digits import TRAINING, batches, digits, network, weights

METHODS = {
    "SGD": xpopt.SGD(lr=0.2, momentum=0.9),
    "with groups, clipping and an average": xpopt.SGD(
        lr=0.2,
        momentum=0.9,
        weight_decay=0.003,
        groups={"b*": {"weight_decay": 0}, "W2": {"lr": 0.03}},
        clip_global=1.0,
        average=xpopt.EMA(0.995),
    ),
}


def mislabelled(xp, y, rng, part=0.2):
    """Return the digits, of which a part is drawn anew."""
    wrong = np.eye(10)[rng.integers(10, size=y.shape[0])]
    drawn = rng.uniform(size=(y.shape[0], 1)) < part
    return xp.where(xp.asarray(drawn), xp.asarray(wrong, dtype=y.dtype), y)


def train(xp, opt, epochs, batch=16):
    """Return the part of the test images that is right, by weights and by averages."""
    rng, (x, y) = np.random.default_rng(0), digits(xp)
    params, labels, right = weights(xp, rng), mislabelled(xp, y, rng), []
    for _ in range(epochs):
        for some in batches(xp, rng, x, labels, batch):
            _, grads, _ = network(xp, params, *some)
            params = opt.update_all(params, grads)
        both = [params, opt.averaged(params)] if opt.average is not None else [params]
        test = [network(xp, p, x[TRAINING:, :], y[TRAINING:, :])[2] for p in both]
        right.append([float(part) for part in test])
    return np.array(right)


def main(epochs=12, methods=METHODS):
    """Train both ways; return what `train` returns of each."""
    xp = xpopt.default_namespace()
    return {name: train(xp, opt.copy(), epochs) for name, opt in methods.items()}


if __name__ == "__main__":
    import matplotlib.pyplot as plt

    plain, right = main().values()
    _, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    ax.plot(100 * plain[:, 0], label="SGD")
    ax.plot(100 * right[:, 0], label="with groups and clip_global")
    ax.plot(100 * right[:, 1], label="and the average of its weights")
    ax.set(title="test images that are right, %", xlabel="epoch")
    ax.legend(fontsize="small")
    sys.modules.get("sphinx") or plt.show()
