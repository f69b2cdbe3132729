"""Algorithms as users write them, whose slots say what they are; each with its published equation, as in the table."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xpopt import OptimizerBase, Range, one, setting, slot

from .table import Row


class FTRLState(NamedTuple):
    linear: Any
    total: Any = slot(start="initial")


class OwnFTRL(OptimizerBase):
    """Follow the regularized leader, without l1 and l2: McMahan et al., "Ad Click Prediction", KDD 2013, Alg. 1."""

    lr: float = setting(default=0.1)
    initial: float = setting(default=0.1, range=Range(low=0))

    slots = FTRLState

    @staticmethod
    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        total = s.total + grad * grad
        linear = s.linear + grad - (xp.sqrt(total) - xp.sqrt(s.total)) / h.lr * param
        return -linear * h.lr / xp.sqrt(total), FTRLState(linear, total)


def ftrl(p: float, g: float, memory: Any, t: int, lr: float, initial: float) -> Any:
    """With beta = 0 and n_0 = initial: sigma = (sqrt(n + g^2) - sqrt(n)) / alpha; z += g - sigma w; n += g^2."""
    z, n = memory or (0.0, initial)
    sigma = (math.sqrt(n + g * g) - math.sqrt(n)) / lr
    z, n = z + g - sigma * p, n + g * g
    return -z / (math.sqrt(n) / lr), (z, n)


class NAdamState(NamedTuple):
    mean: Any
    var: Any
    product: Any = slot(start=1, shape=one)


class OwnNAdam(OptimizerBase):
    """Dozat, "Incorporating Nesterov Momentum into Adam", 2016, Alg. 2, with the schedule of its section 3."""

    lr: float = setting(default=0.002)
    decay1: float = setting(default=0.9, range=Range(low=0, high=1, open_high=True))
    decay2: float = setting(default=0.999, range=Range(low=0, high=1, open_high=True))
    slowdown: float = setting(default=0.004, range=Range(low=0))
    eps: float = setting(default=1e-8, range=Range(low=0, open_low=True, in_dtype=True))

    slots = NAdamState

    @staticmethod
    def scalars(h: Any) -> Any:
        return {
            "now": h.decay1 * (1 - 0.5 * 0.96 ** (h.t * h.slowdown)),
            "ahead": h.decay1 * (1 - 0.5 * 0.96 ** ((h.t + 1) * h.slowdown)),
        }

    @staticmethod
    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        product = s.product * h.now
        mean = h.decay1 * s.mean + (1 - h.decay1) * grad
        var = h.decay2 * s.var + (1 - h.decay2) * grad * grad
        of_mean = h.lr * h.ahead / (1 - product * h.ahead)
        of_grad = h.lr * (1 - h.now) / (1 - product)
        scale = 1 / (1 - h.decay2**h.t)
        return param - (of_mean * mean + of_grad * grad) / (xp.sqrt(scale * var) + h.eps), NAdamState(
            mean, var, product
        )


def nadam(
    p: float, g: float, memory: Any, t: int, lr: float, decay1: float, decay2: float, slowdown: float, eps: float
) -> Any:
    """Algorithm 2, line by line, with mu_t = decay1 (1 - 0.96^(t slowdown) / 2) and the product of all of them."""
    m, v, product = memory or (0.0, 0.0, 1.0)
    mu, ahead = (decay1 * (1 - 0.5 * 0.96 ** (k * slowdown)) for k in (t, t + 1))
    product *= mu
    m, v = decay1 * m + (1 - decay1) * g, decay2 * v + (1 - decay2) * g * g
    m_hat = ahead * m / (1 - product * ahead) + (1 - mu) * g / (1 - product)
    return p - lr * m_hat / (math.sqrt(v / (1 - decay2**t)) + eps), (m, v, product)


class FreeState(NamedTuple):
    z: Any = slot(start="param")
    weights: Any = slot(shape=one)


class OwnScheduleFree(OptimizerBase):
    """Schedule-free SGD: Defazio et al., "The Road Less Scheduled", 2024, eqs. 1 to 3; the parameter is y."""

    lr: float = setting(default=0.1)
    momentum: float = setting(default=0.9, range=Range(low=0, high=1))

    slots = FreeState

    @staticmethod
    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        weights = s.weights + h.lr**2
        part = h.lr**2 / weights
        z = s.z - h.lr * grad
        keep = h.lr * (1 - h.momentum * (1 - part))
        return param - part * (param - s.z) - keep * grad, FreeState(z, weights)

    @staticmethod
    def evaluated(xp: Any, param: Any, s: Any, h: Any) -> Any:
        return (param - (1 - h.momentum) * s.z) / h.momentum


def schedule_free(p: float, g: float, memory: Any, t: int, lr: float, momentum: float) -> Any:
    """y = (1 - b) z + b x; z' = z - lr g; x' = (1 - c) x + c z', with c the part of lr^2 in the sum of all so far."""
    z, total, x = memory or (p, 0.0, p)
    z, total = z - lr * g, total + lr * lr
    c = lr * lr / total
    x = (1 - c) * x + c * z  # where the model is evaluated
    return (1 - momentum) * z + momentum * x, (z, total, x)


OWN = [
    # linear and total as sums of 50; the parameter is a quotient of them, and goes back into linear: 4 roundings a step
    Row("FTRL", OwnFTRL, {"initial": 0.1}, ftrl, ("linear", "total"), 200, counts=True),
    # as Adam, and two numbers for the corrections
    Row(
        "NAdam",
        OwnNAdam,
        {"decay1": 0.9, "decay2": 0.999, "slowdown": 0.004, "eps": 1e-7},
        nadam,
        ("mean", "var", "product"),
        170,
        counts=True,
    ),
    # z, the distance from it and the step: 4 roundings for each of 50 steps
    Row("ScheduleFree", OwnScheduleFree, {"momentum": 0.9}, schedule_free, ("z", "weights"), 200, counts=True),
]
BY_LABEL = {row.label: row for row in OWN}
