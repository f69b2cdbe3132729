"""The table: every optimizer, its equation, its tolerance."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import xpopt

from . import oracles


@dataclass(frozen=True)
class Case:
    """One row.

    `arguments` are the optimizer's and the equation's. `slots` are the names in the cache, in the order of the
    equation's memory. `roundings` bounds the error of one step in float32, in roundings (2**-24) of its size: the
    reason is beside each row. In float64 every row has the same bound, see `trajectories.bound`.
    """

    label: str
    optimizer: type
    arguments: Mapping[str, float]
    equation: Callable[..., Any]
    slots: tuple[str, ...]
    roundings: float

    def __str__(self):
        return self.label


# A rounding in a running mean lives on for 1 / (1 - decay) steps, or as many as were taken.
CASES = [
    # the rate, and its product
    Case("SGD", xpopt.SGD, {}, oracles.sgd, (), 2),
    # two products and a sum, for 10 steps; the sum may cancel to less than its terms
    Case("SGD-momentum", xpopt.SGD, {"momentum": 0.9}, oracles.sgd_momentum, ("velocity",), 60),
    # a square and a sum of positive numbers for each of 50 steps, halved by the root; rate, root, eps, sum, quotient
    Case("AdaGrad", xpopt.AdaGrad, {"eps": 1e-7}, oracles.adagrad, ("total",), 55),
    # two products, a square and a sum of positive numbers, for 10 steps, halved by the root; and as above
    Case("RMSProp", xpopt.RMSProp, {"decay": 0.9, "eps": 1e-7}, oracles.rmsprop, ("var",), 25),
    # the mean as SGD's momentum; the variance as RMSProp's for 50 steps; two corrections, each a number and a product
    Case("Adam", xpopt.Adam, {"decay1": 0.9, "decay2": 0.999, "eps": 1e-7}, oracles.adam, ("mean", "var"), 160),
    # the same with an eps that counts
    Case("Adam-eps", xpopt.Adam, {"decay1": 0.5, "decay2": 0.9, "eps": 0.1}, oracles.adam, ("mean", "var"), 60),
]
BY_LABEL = {case.label: case for case in CASES}
