"""The textbook: what a program would hold that has no optimizer library, with the same hyperparameters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from measuring import Array

Step = Callable[[Array], Array]
"""Takes a gradient, and returns the new parameter."""


def sgd(p: Array, lr: float = 0.01, momentum: float = 0.9) -> Step:
    u = np.zeros_like(p)

    def step(g: Array) -> Array:
        nonlocal p, u
        u = momentum * u + lr * g
        p = p - u
        return p

    return step


def adagrad(p: Array, lr: float = 0.01, eps: float = 1e-7) -> Step:
    s = np.zeros_like(p)

    def step(g: Array) -> Array:
        nonlocal p, s
        s = s + g**2
        p = p - lr * g / (np.sqrt(s) + eps)
        return p

    return step


def rmsprop(p: Array, lr: float = 0.001, decay: float = 0.9, eps: float = 1e-7) -> Step:
    v = np.zeros_like(p)

    def step(g: Array) -> Array:
        nonlocal p, v
        v = decay * v + (1 - decay) * g**2
        p = p - lr * g / (np.sqrt(v) + eps)
        return p

    return step


def adam(p: Array, lr: float = 0.001, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-7) -> Step:
    m = v = np.zeros_like(p)
    t = 0

    def step(g: Array) -> Array:
        nonlocal p, m, v, t
        t += 1
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        p = p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        return p

    return step
