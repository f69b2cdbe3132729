"""What other libraries call each algorithm, the options with which they compute the same, and what differs.

A fact says of an optimizer and a library: the name there, settings there and here that mean the same, and in words
what a reader of both should know. Facts of `torch.optim` take names and settings from the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import xpopt

from .table import BY_RULE, ELSEWHERE

NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})


class Fact(NamedTuple):
    """What a library has of an algorithm.

    Of optax, `name` is the transformation whose result is subtracted, times the rate unless it takes one: ``lion``
    there is ``scale_by_lion``, a rate and a decay of weights. `same` says whether `theirs` and `ours` mean the same.
    """

    label: str
    optimizer: type
    library: Literal["torch", "optax"]
    name: str
    theirs: Mapping[str, Any]
    ours: Mapping[str, Any]
    differs: str = ""
    same: bool = True


TORCH_DIFFERS = {
    "SGD-momentum": "the rate is outside the velocity there: the same while it is constant",
    "SGD-nesterov": "the rate is outside the velocity there: the same while it is constant",
    "RMSProp-centered-momentum": "the rate is outside the velocity there: the same while it is constant",
    "NAdam": "the product of the momenta is kept in torch's default dtype there",
    "RAdam": "eps is added before the bias correction there",
    "Adadelta": "the decay is 0.9 there by default",
    "Rprop": "lr is brought between the bounds there; whether a gradient turns is asked of a product, which may be 0",
    "AdamW": "the decay of weights is applied before the step there: the same",
}
"""By row: what differs in `torch.optim`. Everywhere: its ``weight_decay`` is `l2` here, but for AdamW."""

TORCH = [
    Fact(label, row.optimizer, "torch", row.peer.name, row.peer.theirs, row.peer.ours, TORCH_DIFFERS.get(label, ""))
    for label, row in BY_RULE.items()
    if row.peer
]


def _optax(label: str, name: str, theirs: Any, ours: Any, differs: str = "", *, same: bool = True) -> Fact:
    return Fact(label, BY_RULE[label].optimizer, "optax", name, theirs, ours, differs, same)


MEANS = {"b1": 0.8, "b2": 0.99}
OUR_MEANS = {"decay1": 0.8, "decay2": 0.99}

OPTAX = [
    _optax("SGD", "identity", {}, {}),
    _optax("SGD-outside", "trace", {"decay": 0.9}, {"momentum": 0.9, "lr_inside": False}),
    _optax(
        "SGD-outside-nesterov",
        "trace",
        {"decay": 0.9, "nesterov": True},
        {"momentum": 0.9, "nesterov": True, "lr_inside": False},
    ),
    _optax(
        "SGD-momentum",
        "trace",
        {"decay": 0.9},
        {"momentum": 0.9},
        "the rate is outside the velocity there: the same while it is constant",
    ),
    _optax(
        "AdaGrad-initial",
        "scale_by_rss",
        {"initial_accumulator_value": 0.5, "eps": 0.0},
        {"eps": 1e-30, "initial": 0.5},
        "eps is inside the root there",
    ),
    _optax(
        "RMSProp",
        "scale_by_rms",
        {"decay": 0.8, "eps": 1e-3, "eps_in_sqrt": False},
        {"decay": 0.8, "eps": 1e-3},
        "eps is inside the root there unless eps_in_sqrt=False",
    ),
    _optax(
        "RMSProp-centered",
        "scale_by_stddev",
        {"decay": 0.8, "eps": 1e-3},
        {"decay": 0.8, "eps": 1e-3, "centered": True, "eps_place": "inside"},
    ),
    _optax("Adam", "scale_by_adam", {**MEANS, "eps": 1e-3}, {**OUR_MEANS, "eps": 1e-3}),
    _optax(
        "AMSGrad",
        "scale_by_amsgrad",
        {**MEANS, "eps": 1e-3},
        {**OUR_MEANS, "eps": 1e-3},
        "the largest mean is taken of corrected ones there, or nothing is corrected",
        same=False,
    ),
    _optax(
        "NAdam",
        "scale_by_adam",
        {**MEANS, "eps": 1e-3, "nesterov": True},
        {**OUR_MEANS, "eps": 1e-3, "momentum_decay": 1e6},
        "the momentum is constant there",
    ),
    _optax("Lion", "scale_by_lion", {"b1": 0.8, "b2": 0.95}, {"decay1": 0.8, "decay2": 0.95}),
    _optax("RAdam", "scale_by_radam", {**MEANS, "eps": 1e-3}, {**OUR_MEANS, "eps": 1e-3}),
    _optax("Adamax", "scale_by_adamax", {**MEANS, "eps": 1e-3}, {**OUR_MEANS, "eps": 1e-3}),
    _optax(
        "AdaBelief",
        "scale_by_belief",
        {**MEANS, "eps": 1e-3, "eps_root": 1e-3},
        {**OUR_MEANS, "eps": 1e-3},
        "the two eps of the paper are two settings there",
    ),
    _optax("Adadelta", "scale_by_adadelta", {"rho": 0.8, "eps": 1e-3}, {"decay": 0.8, "eps": 1e-3}),
    _optax(
        "Adan",
        "scale_by_adan",
        {"b1": 0.9, "b2": 0.8, "b3": 0.95, "eps": 1e-3},
        {"decay1": 0.9, "decay2": 0.8, "decay3": 0.95, "eps": 1e-3},
        "differences count 1 - b2 there, where the paper and its authors' code have b2",
        same=False,
    ),
    _optax("ADOPT", "contrib.scale_by_adopt", {**MEANS, "eps": 1e-3}, {**OUR_MEANS, "eps": 1e-3}),
    _optax(
        "AdEMAMix",
        "contrib.scale_by_ademamix",
        {**MEANS, "b3": 0.95, "alpha": 2.0, "eps": 1e-3},
        {**OUR_MEANS, "decay3": 0.95, "alpha": 2.0, "eps": 1e-3},
        "b3 and alpha are schedules there, in the place of alpha_steps and decay3_steps",
    ),
    _optax(
        "Yogi",
        "scale_by_yogi",
        {**MEANS, "eps": 1e-3, "initial_accumulator_value": 0.0},
        {**OUR_MEANS, "eps": 1e-3, "initial": 0.0},
        "the mean starts at initial_accumulator_value there, and not only the variance",
    ),
    _optax(
        "Rprop",
        "scale_by_rprop",
        {"learning_rate": 0.1, "eta_plus": 1.3},
        {"up": 1.3},
        "each step is made one update later there",
        same=False,
    ),
]

FREE = "where the rate changes, the weights there are of the rate of the step after"
OPTAX += [
    _optax(
        "ScheduleFreeSGD",
        "contrib.schedule_free_sgd",
        {"learning_rate": 0.1, "b1": 0.8, "weight_decay": 0.125},
        {"momentum": 0.8, "weight_decay": 0.125},
        FREE,
    ),
    _optax(
        "ScheduleFreeAdamW",
        "contrib.schedule_free_adamw",
        {"learning_rate": 0.1, "b1": 0.8, "b2": 0.99, "eps": 1e-3, "weight_decay": 0.125},
        {"momentum": 0.8, "decay2": 0.99, "eps": 1e-3, "weight_decay": 0.125},
        FREE,
    ),
    _optax(
        "LAMB",
        "lamb",
        {**MEANS, "eps": 1e-3, "weight_decay": 0.1, "learning_rate": 0.1},
        {**OUR_MEANS, "eps": 1e-3, "weight_decay": 0.1},
    ),
    _optax(
        "LARS",
        "lars",
        {"momentum": 0.8, "trust_coefficient": 0.01, "learning_rate": 0.1},
        {"momentum": 0.8, "trust": 0.01},
        "a decay of weights is inside one norm there, where the paper adds two",
    ),
    _optax(
        "NovoGrad",
        "novograd",
        {**MEANS, "eps": 1e-3, "weight_decay": 0.1, "learning_rate": 0.1},
        {**OUR_MEANS, "eps": 1e-3, "weight_decay": 0.1},
    ),
]
"""These return what is added to the parameters."""

FACTS = [*TORCH, *OPTAX]

NOT_THERE = {
    "torch": {
        xpopt.FTRL,
        xpopt.FISTA,
        xpopt.AdaBelief,
        xpopt.Yogi,
        xpopt.Adan,
        xpopt.ADOPT,
        xpopt.AdEMAMix,
        xpopt.Lion,
        xpopt.Signum,
        xpopt.LAMB,
        xpopt.LARS,
        xpopt.NovoGrad,
        *ELSEWHERE,
        xpopt.ScheduleFreeSGD,
        xpopt.ScheduleFreeAdamW,
    },
    "optax": {xpopt.FTRL, xpopt.FISTA, xpopt.AdamW, xpopt.Signum, *ELSEWHERE},
}
"""By library: what it has not, or not as one transformation of any array.

Of those in no row, the tests of tests/numbers say what a library has."""
