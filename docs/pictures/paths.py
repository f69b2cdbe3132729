"""The paths of four methods through one valley."""

import matplotlib.pyplot as plt
import numpy as np

import xpopt


def valley(x):
    r = x[1] - x[0] ** 2
    return 10 * r**2 + (1 - x[0]) ** 2, np.array([-40 * x[0] * r - 2 * (1 - x[0]), 20 * r])


def path(method, steps):
    """Return the points that a method accepts."""
    points = []
    start, stop = np.array([-1.2, 1.3]), xpopt.stop.gradient_norm(1e-4)
    xpopt.minimize(valley, start, method, steps=steps, stop=stop, callback=lambda info: points.append(info["params"]))
    return np.array(points).T


x, y = np.meshgrid(np.linspace(-1.7, 1.5, 200), np.linspace(-0.6, 1.9, 200))
figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
axes.contour(x, y, valley(np.array([x, y]))[0], levels=np.geomspace(0.05, 100, 12), colors="0.8")
for method, label in (
    (xpopt.SGD(lr=0.01), "SGD(lr=0.01)"),
    (xpopt.Adam(lr=0.1), "Adam(lr=0.1)"),
    (xpopt.NonlinearCG(), "NonlinearCG()"),
    (xpopt.LBFGS(), "LBFGS()"),
):
    axes.plot(*path(method, 40), ".-", markersize=4, linewidth=1, label=label)
axes.plot(1, 1, "k*", label="least value")
axes.set(xlabel="x", ylabel="y", title="40 steps, or until the gradient vanishes")
axes.legend(loc="lower left")
