"""The options that every optimizer has, each as a variant that any row may be made in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "clip_norm": {"clip_norm": 0.8},
    "skip": {"nonfinite": "skip"},
    "raise": {"nonfinite": "raise"},
    "master": {"master": True},
    "stochastic": {"rounding": "stochastic", "seed": 7},
}

NARROW = ("master", "stochastic")
"""Variants that differ from the plain one in 16 bits alone."""

LEAVES_OUT = ("skip", "raise")
"""Variants that leave a step out where a gradient is not finite."""
