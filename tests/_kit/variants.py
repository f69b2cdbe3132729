"""The options that every optimizer has, each as a variant that any row may be made in."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import xpopt

from .table import SIGNATURES

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "clip_norm": {"clip_norm": 0.8},
    "skip": {"nonfinite": "skip"},
    "raise": {"nonfinite": "raise"},
    "master": {"master": True},
    "stochastic": {"rounding": "stochastic", "seed": 7},
    "narrow slots": {"slots_dtype": "float16"},
    "decayed": {"lr_scale": 0.5, "weight_decay": 0.0625, "l2": 0.125, "maximize": True, "clip_norm": 0.8},
    "bounded": {"bounds": (-0.375, 0.25), "clip_value": 0.5, "cautious": True},
    "remembered": {
        "lookahead": xpopt.Lookahead(every=2, pull=0.25),
        "prox": xpopt.prox.l1(0.5),
        "average": xpopt.EMA(0.75),
    },
    "accumulated": {"accumulate": 2},
    "scaled": {"loss_scale": 8.0, "clip_norm": 0.8},
    "clipped twice": {"clip_value": 0.5, "clip_norm": 0.8},
    "groups": {"groups": {"[bv]*": {"lr": 0.25, "clip_norm": 0.5, "weight_decay": 0.125}}},
}


def settings_of(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what a parameter has in a variant: its group's settings before the others."""
    groups = options.get("groups", {}).items()
    return {**options, **next((own for pattern, own in groups if fnmatchcase(name, pattern)), {})}


AROUND = (
    *("loss_scale", "lr_scale", "maximize", "bounds", "clip_value", "l2", "cautious", "weight_decay"),
    *("lookahead", "prox", "average"),
)
"""Options that change the formula, as `oracles.around` has it."""

DEFAULTS: Mapping[str, Any] = {
    "nonfinite": "propagate",
    "master": False,
    "rounding": "nearest",
    "seed": 0,
    "slots_dtype": None,
    "modulus": False,
    "loss_scale": 1.0,
    "accumulate": 1,
    "lr_scale": 1.0,
    "maximize": False,
    "bounds": None,
    "prox": None,
    "clip_value": None,
    "clip_global": None,
    "agc": None,
    "centralize": False,
    "l2": 0.0,
    "cautious": False,
    "weight_decay": 0.0,
    "lookahead": None,
    "average": None,
    "transforms": (),
    "groups": {},
}
"""The options in the documented order, and what they are by default."""


def defaults_of(cls: type) -> dict[str, Any]:
    """Return the options of a class by default."""
    own = SIGNATURES.get(cls, {})
    found = {**DEFAULTS, **({"weight_decay": 0.01} if issubclass(cls, xpopt.AdamW) else {})}
    return {name: value for name, value in found.items() if name not in own}


NARROW = ("master", "stochastic")
"""Variants that differ from the plain one in 16 bits alone."""

LEAVES_OUT = ("skip", "raise")
"""Variants that leave a step out where a gradient is not finite."""
