"""The ways of eight methods to one of four lowest points of Himmelblau's function."""

import sys

import numpy as np

import xpopt

LOWEST = (
    (3.0, 2.0),
    (-2.805118, 3.131312),
    (-3.779310, -3.283186),
    (3.584428, -1.848126),
)

METHODS = {
    "SGD": xpopt.SGD(lr=0.01),
    "SGD, momentum": xpopt.SGD(lr=0.01, momentum=0.9),
    "SGD, Nesterov": xpopt.SGD(lr=0.01, momentum=0.9, nesterov=True),
    "RMSProp": xpopt.RMSProp(lr=0.1),
    "Adam": xpopt.Adam(lr=0.3),
    "Lion": xpopt.Lion(lr=0.1),
    "NonlinearCG": xpopt.NonlinearCG(),
    "LBFGS": xpopt.LBFGS(),
}


def himmelblau(p):
    """Return the value and the gradient at a point, or at a grid of them."""
    u, v = p[0] ** 2 + p[1] - 11, p[0] + p[1] ** 2 - 7
    return u**2 + v**2, (4 * p[0] * u + 2 * v, 2 * u + 4 * p[1] * v)


def path(xp, method, start, steps):
    """Return the points at which a method makes steps, (2, n)."""
    points = []

    def function(p):
        value, slopes = himmelblau(p)
        return value, xp.stack(slopes)

    def note(info):
        points.append(xp.asarray(info["params"], copy=True))

    stop = xpopt.stop.gradient_norm(1e-6)
    xpopt.minimize(
        function, xp.asarray(start), method, steps=steps, stop=stop, callback=note
    )
    return xp.stack(points, axis=1)


def main(start=(0.0, 4.5), steps=60, methods=METHODS):
    """Return the path of each method."""
    xp = xpopt.default_namespace()
    return {name: path(xp, method, start, steps) for name, method in methods.items()}


if __name__ == "__main__":
    import matplotlib.pyplot as plt

    x, y = np.meshgrid(np.linspace(-5.5, 5.5, 150), np.linspace(-5.5, 5.5, 150))
    height, levels = himmelblau((x, y))[0], np.geomspace(1, 800, 10)
    _, axes = plt.subplots(
        2, 4, figsize=(9.6, 5), layout="constrained", sharex=True, sharey=True
    )
    for ax, (name, points) in zip(axes.flat, main().items(), strict=True):
        points = points.get() if hasattr(points, "get") else points
        ax.contour(x, y, height, levels=levels, colors="0.8", linewidths=0.7)
        ax.plot(*points, ".-", markersize=4, linewidth=1)
        ax.plot(*np.array(LOWEST).T, "k+")
        ax.set_title(f"{name}, {points.shape[1] - 1} steps", fontsize="medium")
        ax.set(aspect="equal", xlim=(-5.5, 5.5), ylim=(-5.5, 5.5))
    sys.modules.get("sphinx") or plt.show()
