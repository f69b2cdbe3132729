"""Functions to minimize, each with its gradient: of one vector, in NumPy's float64."""

import contextlib
import importlib
import importlib.util
import itertools
import warnings

import numpy as np


def rosenbrock(x):
    r = x[1:] - x[:-1] ** 2
    grad = np.zeros_like(x)
    grad[:-1] = -400 * x[:-1] * r - 2 * (1 - x[:-1])
    grad[1:] += 200 * r
    return np.sum(100 * r**2 + (1 - x[:-1]) ** 2), grad


def beale(v):
    x, y = v
    a, b, c = 1.5 - x + x * y, 2.25 - x + x * y**2, 2.625 - x + x * y**3
    dx = 2 * a * (y - 1) + 2 * b * (y**2 - 1) + 2 * c * (y**3 - 1)
    return a * a + b * b + c * c, np.array([dx, 2 * a * x + 4 * b * x * y + 6 * c * x * y**2])


def powell(v):
    a, b, c, d = v
    value = (a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4
    da, db = 2 * (a + 10 * b) + 40 * (a - d) ** 3, 20 * (a + 10 * b) + 4 * (b - 2 * c) ** 3
    dc, dd = 10 * (c - d) - 8 * (b - 2 * c) ** 3, -10 * (c - d) - 40 * (a - d) ** 3
    return value, np.array([da, db, dc, dd])


def wood(v):
    a, b, c, d = v
    p, q = b - a * a, d - c * c
    value = 100 * p**2 + (1 - a) ** 2 + 90 * q**2 + (1 - c) ** 2 + 10 * (b + d - 2) ** 2 + 0.1 * (b - d) ** 2
    da, dc = -400 * a * p - 2 * (1 - a), -360 * c * q - 2 * (1 - c)
    both, apart = 20 * (b + d - 2), 0.2 * (b - d)
    return value, np.array([da, 200 * p + both + apart, dc, 180 * q + both - apart])


def himmelblau(v):
    x, y = v
    a, b = x * x + y - 11, x + y * y - 7
    return a * a + b * b, np.array([4 * x * a + 2 * b, 2 * a + 4 * y * b])


def lennard_jones(v):
    p = v.reshape(-1, 3)
    d = p[:, None] - p
    square = np.sum(d**2, axis=-1)
    np.fill_diagonal(square, np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):  # two atoms in one place have no value
        i6 = square**-3.0
        return 2 * np.sum(i6 * i6 - i6), (4 * ((6 * i6 - 12 * i6 * i6) / square)[..., None] * d).sum(1).ravel()


def cluster(atoms, seed):
    """Atoms near the points of a lattice."""
    side = range(int(np.ceil(atoms ** (1 / 3))))
    lattice = np.array(list(itertools.product(side, side, side)), float)[:atoms]
    return (1.2 * lattice + np.random.default_rng(seed).normal(0, 0.1, lattice.shape)).ravel()


def classify(points, labels):
    """The logistic loss of a linear classifier, with a little weight decay."""
    wanted = np.eye(labels.max() + 1)[labels]

    def loss(v):
        w = v.reshape(points.shape[1], -1)
        z = points @ w
        z -= z.max(1, keepdims=True)
        e = np.exp(z)
        total = e.sum(1, keepdims=True)
        value = -np.sum((z - np.log(total)) * wanted) / len(points) + 5e-4 * np.sum(w * w)
        return value, (points.T @ (e / total - wanted) / len(points) + 1e-3 * w).ravel()

    return loss


def scipys(function, start, **keywords):
    """Return what SciPy's minimize finds, in one thread: on a busy machine its own wait for each other."""
    one = contextlib.nullcontext()
    if importlib.util.find_spec("threadpoolctl"):
        one = importlib.import_module("threadpoolctl").threadpool_limits(1)
    with one, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("scipy.optimize").minimize(function, start, jac=True, **keywords)


FUNCTIONS = {
    "rosenbrock-2": (rosenbrock, np.array([-1.2, 1.0])),
    "rosenbrock-10": (rosenbrock, np.tile([-1.2, 1.0], 5)),
    "rosenbrock-100": (rosenbrock, np.tile([-1.2, 1.0], 50)),
    "beale": (beale, np.array([1.0, 1.0])),
    "powell": (powell, np.array([3.0, -1.0, 0.0, 1.0])),
    "wood": (wood, np.array([-3.0, -1.0, -3.0, -1.0])),
    "himmelblau": (himmelblau, np.array([0.0, 0.0])),
    "lennard-jones-7": (lennard_jones, cluster(7, 0)),
    "lennard-jones-13": (lennard_jones, cluster(13, 1)),
}
"""Each with where to start."""

LEAST = dict.fromkeys(("rosenbrock-2", "rosenbrock-10", "rosenbrock-100", "beale", "powell", "wood", "himmelblau"), 0.0)
"""The least value, where it is known."""
