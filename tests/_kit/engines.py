"""What the tests of the engines share: which there are, and optimizers to run."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import pytest

import xpopt
from xpopt._graph.rule import Rule

from .table import BY_RULE, PROMISES

needs_llvmlite = pytest.mark.llvmlite

FUSED = ["blocked", pytest.param("compiled", marks=needs_llvmlite)]
"""The engines that fuse operations of NumPy arrays, for the fixture `fused`."""

MAKE = {label: partial(row.make, lr=0.1) for label, row in BY_RULE.items()}
FEW = [name for name in MAKE if name in PROMISES]
"""Rules that differ in kind: what is true of an engine, whatever it runs, is tested on these."""
few_rules = pytest.mark.parametrize("name", FEW)


_DTYPES = ("float16", "bfloat16", "float64")
rotating_dtypes = pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "float32") for name in FEW), *((name, _DTYPES[k % 3]) for k, name in enumerate(MAKE))],
)
"""A dtype for every rule, which rotates by row; for a few float32 too."""


class Two(NamedTuple):
    """Two slots."""

    fast: Any
    slow: Any


def of_rule(rule: Any, slots: Any = Two) -> Any:
    """Return an optimizer of a rule, as a user writes one."""

    class Own(xpopt.OptimizerBase):
        def __init__(self, lr: float = 0.1, **kwargs: Any) -> None:
            super().__init__(lr, **kwargs)

    Own.rule, Own.slots = staticmethod(rule), slots
    return Own


def forget_what_was_made(monkeypatch: pytest.MonkeyPatch) -> dict[Rule, dict[Any, Any]]:
    """Let each rule be one of which nothing has been made; return what is made of them from now on."""
    made: dict[Rule, dict[Any, Any]] = {}
    monkeypatch.setattr(Rule, "made", property(lambda rule: made.setdefault(rule, {})), raising=False)
    return made
