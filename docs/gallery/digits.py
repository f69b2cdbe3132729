"""Twelve methods train one network on handwritten digits, of 8 by 8 pixels."""

import sys

import numpy as np
from sklearn.datasets import load_digits

import xpopt

METHODS = {
    "SGD": xpopt.SGD(lr=0.2, momentum=0.9),
    "AdaGrad": xpopt.AdaGrad(lr=0.1),
    "RMSProp": xpopt.RMSProp(lr=0.01),
    "Adam": xpopt.Adam(lr=0.01),
    "AdamW": xpopt.AdamW(lr=0.01, weight_decay=0.1),
    "NAdam": xpopt.NAdam(lr=0.01),
    "RAdam": xpopt.RAdam(lr=0.02),
    "AdaBelief": xpopt.AdaBelief(lr=0.01),
    "Adan": xpopt.Adan(lr=0.01),
    "Lion": xpopt.Lion(lr=0.002),
    "LAMB": xpopt.LAMB(lr=0.02),
    "Muon": xpopt.Muon(lr=0.05, groups={"b*": xpopt.AdamW(lr=0.01)}),
}


TRAINING = 1437  # of 1797 images


def digits(xp):
    """Return images, (1797, 64) in [0, 1], and digits, (1797, 10) one-hot, shuffled."""
    data, order = load_digits(), np.random.default_rng(1).permutation(1797)
    images, numbers = data.data[order] / 16, np.eye(10)[data.target[order]]
    return xp.asarray(images, dtype=xp.float32), xp.asarray(numbers, dtype=xp.float32)


def batches(xp, rng, x, y, size, noise=0.3):
    """Yield the batches of an epoch; each image has new noise."""
    order = xp.asarray(rng.permutation(TRAINING))
    x = x[:TRAINING, :] + noise * xp.asarray(
        rng.normal(size=(TRAINING, 64)), dtype=x.dtype
    )
    for start in range(0, TRAINING - size + 1, size):
        some = order[start : start + size]
        yield xp.take(x, some, axis=0), xp.take(y, some, axis=0)


def weights(xp, rng, width=32):
    """Return normal weights, scaled by the width that comes in, and biases of 0."""
    sizes = {"W1": (64, width), "b1": (width,), "W2": (width, 10), "b2": (10,)}
    first = {
        name: rng.normal(size=size) / size[0] ** 0.5 for name, size in sizes.items()
    }
    first |= {name: np.zeros(sizes[name]) for name in ("b1", "b2")}
    return {name: xp.asarray(x, dtype=xp.float32) for name, x in first.items()}


def network(xp, params, x, y):
    """Return the mean cross-entropy, its gradients, and the part that is right."""
    hidden = xp.tanh(x @ params["W1"] + params["b1"])
    z = hidden @ params["W2"] + params["b2"]
    z = z - xp.max(z, axis=1, keepdims=True)
    log_p = z - xp.log(xp.sum(xp.exp(z), axis=1, keepdims=True))
    dz = (xp.exp(log_p) - y) / x.shape[0]
    da = (dz @ params["W2"].T) * (1 - hidden * hidden)
    grads = {"W1": x.T @ da, "b1": xp.sum(da, axis=0)}
    grads |= {"W2": hidden.T @ dz, "b2": xp.sum(dz, axis=0)}
    right = xp.argmax(z, axis=1) == xp.argmax(y, axis=1)
    return -xp.sum(y * log_p) / x.shape[0], grads, xp.mean(xp.astype(right, x.dtype))


def train(xp, opt, epochs, batch=64):
    """Return the loss of each epoch, and the part of the test images that is right."""
    rng, (x, y) = np.random.default_rng(0), digits(xp)
    params, losses = weights(xp, rng), []
    for _ in range(epochs):
        total = 0.0
        for some in batches(xp, rng, x, y, batch):
            loss, grads, _ = network(xp, params, *some)
            params, total = opt.update_all(params, grads, cur_loss=loss), total + loss
        losses.append(float(total) / (TRAINING // batch))
    return losses, float(network(xp, params, x[TRAINING:, :], y[TRAINING:, :])[2])


def main(epochs=15, methods=METHODS):
    """Train with each method; return losses and accuracy of each."""
    xp = xpopt.default_namespace()
    return {name: train(xp, opt.copy(), epochs) for name, opt in methods.items()}


if __name__ == "__main__":
    import matplotlib.pyplot as plt

    found = main()
    _, axes = plt.subplots(
        3, 4, figsize=(9.6, 5.4), layout="constrained", sharex=True, sharey=True
    )
    for ax, (name, (losses, accuracy)) in zip(axes.flat, found.items(), strict=True):
        for others, _ in found.values():
            ax.semilogy(others, color="0.85", linewidth=0.8)
        ax.semilogy(losses, linewidth=2)
        ax.set_title(f"{name}, {accuracy:.1%}", fontsize="medium")
    figure = axes[0, 0].figure
    figure.supxlabel("epoch")
    figure.supylabel("training loss")
    sys.modules.get("sphinx") or plt.show()
