"""What measuring kernels of all languages find of the outputs of a pass."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.sums import Way, ways
from .._graph.passes import Pass


class Accumulated(NamedTuple):
    """What is found of an output, over all elements.

    Parameters
    ----------
    output : int
        Which output.
    way : Way
        How elements come together.
    """

    output: int
    way: Way


def accumulated(one: Pass, dtype: str) -> list[Accumulated]:
    """Return what is found of the outputs of a pass over parameters of a dtype, reduction by reduction."""
    return [Accumulated(of.output, way) for of in one.reductions for way in ways(of.op, wide=dtype == "float64")]
