"""Maps of complex numbers, for rules that see these as pairs of reals."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from ..transforms.base import Formula
from ..transforms.bounds import projecting
from .numbers import Rated


def on_pairs(formula: Formula) -> Formula:
    """Return what a transform does with complex parameters: a map of these looks at both parts together.

    Parameters
    ----------
    formula : Formula
        What it does with real ones.

    Returns
    -------
    Formula
        The same, if it has no map of complex numbers.
    """
    if formula.project_complex is None:
        return formula
    project = _of_pairs(formula.project_complex)
    after = None if formula.after is None else projecting(project)
    whole = formula.whole or f"{formula.name} computes with both parts of a complex number together"
    return formula._replace(project=project, after=after, whole=whole)


@functools.cache
def _of_pairs(project_complex: Callable[..., Any]) -> Callable[..., Any]:
    def project(xp: Namespace, pairs: Any, s: Any, h: Scalars) -> Array:
        rate: Any = h.lr if isinstance(h.lr, int | float) else h.lr[..., :1]  # of an element; arrays have it twice
        new: Array = project_complex(xp, pairs, s._make([x[..., :1] for x in s]), Rated(h, rate))
        return new

    return project
