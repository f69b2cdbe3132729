"""Sparse recovery: how far the objective is from its minimum, over the steps of several methods."""

import matplotlib.pyplot as plt
import numpy as np

import xpopt
from xpopt import prox

rng = np.random.default_rng(0)
A = rng.normal(size=(60, 120)) / np.sqrt(60)
truth = np.where(rng.uniform(size=120) < 0.1, rng.normal(size=120), 0)
b, weight = A @ truth + 0.01 * rng.normal(size=60), 0.02
lr = 1 / np.linalg.norm(A, 2) ** 2


def objective(x):
    """Half the sum of squares, and the penalty."""
    return 0.5 * np.sum((A @ x - b) ** 2) + weight * np.sum(np.abs(x))


def walk(opt, steps=300):
    """Return the objective after each step, of what is the result of the optimizer."""
    params, found = {"x": np.zeros(120)}, []
    for _ in range(steps):
        params = opt.update_all(params, {"x": A.T @ (A @ params["x"] - b)})
        found.append(objective((opt.averaged(params) if isinstance(opt, xpopt.FISTA) else params)["x"]))
    return np.array(found)


l1 = prox.l1(weight)
least = walk(xpopt.FISTA(lr=lr, prox=l1, restart="gradient"), steps=2000)[-1]
methods = {
    "SGD (ISTA)": xpopt.SGD(lr=lr, prox=l1),
    "Adam": xpopt.Adam(lr=0.01, prox=l1),
    "Adam, metric=True": xpopt.Adam(lr=0.01, prox=prox.l1(weight, metric=True)),
    "FISTA": xpopt.FISTA(lr=lr, prox=l1),
    'FISTA, restart="gradient"': xpopt.FISTA(lr=lr, prox=l1, restart="gradient"),
}

figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for name, opt in methods.items():
    axes.semilogy(np.maximum(walk(opt) - least, 1e-12), label=name)
axes.set(xlabel="step", ylabel="objective above its minimum", ylim=(1e-10, None))
axes.legend()
