"""Momentum against a bound: clipped by hand after each step, and with the option."""

import matplotlib.pyplot as plt
import numpy as np

import xpopt


def walk(opt, bottoms, by_hand):
    """Return where a parameter goes whose bottom moves."""
    x, path = np.array([1.0]), [1.0]
    for bottom in bottoms:
        x = opt.update(x, x - bottom, "x")
        if by_hand:
            x = np.maximum(x, 0)
        path.append(float(x[0]))
    return path


bottoms = [-2.0] * 30 + [1.0] * 30
clipped = walk(xpopt.SGD(lr=0.05, momentum=0.9), bottoms, by_hand=True)
bounded = walk(xpopt.SGD(lr=0.05, momentum=0.9, bounds=(0, None)), bottoms, by_hand=False)

figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
axes.axhspan(-0.3, 0, color="0.9")
axes.plot([np.nan, *np.maximum(bottoms, 0)], color="0.6", linestyle=":", label="best value inside")
axes.plot(clipped, label="np.maximum after each step")
axes.plot(bounded, label="bounds=(0, None)")
axes.set(xlabel="step", ylabel="parameter", ylim=(-0.3, 2.0))
axes.legend(loc="upper left")
