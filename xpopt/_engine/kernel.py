"""What all engines mean by a kernel."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from .._arrays.typing import Scalars
from .._graph.rule import Rule


class Variant(NamedTuple):
    """What a kernel is made for, beside its rule."""

    engine: str
    dtype: str = ""  # of the parameters; "" for every dtype
    clipped: bool = False  # whether the rule sees its gradient clipped
    drawn: bool = False  # whether parameters are rounded stochastically
    guarded: bool = False  # whether it is decided on the device if anything is to change
    whole: bool = False  # whether a tensor goes through all passes at once


class Kernel(Protocol):
    """A rule that is ready to update tensors of one engine: called, printed, or compiled.

    Parameters
    ----------
    rule : Rule
        The rule.
    h : Scalars
        The numbers of some step, for the rule to be traced with.
    variant : Variant
        What it is made for.
    """

    def __init__(self, rule: Rule, h: Scalars, variant: Variant) -> None: ...
