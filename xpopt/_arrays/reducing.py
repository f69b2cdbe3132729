"""NumPy's functions as a rule gets them: those that reduce a whole array are xpopt's own."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from . import sums
from .typing import Namespace

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

_WHOLE = {"axis": None, "keepdims": False, "dtype": None, "ord": 2}
"""The options of a reduction of a whole array."""


def is_whole(options: Mapping[str, Any]) -> bool:
    """Whether options of a reduction are those of one of the whole array."""
    return all(name in _WHOLE and value == _WHOLE[name] for name, value in options.items())


def reducing(xp: Namespace) -> Namespace:
    """Return the functions of NumPy with reductions of whole arrays in the order of `sums`; all else is NumPy's own.

    Parameters
    ----------
    xp : Namespace
        NumPy's functions, as array-api-compat gives them.

    Returns
    -------
    Namespace
        The same, but for `sum`, `mean`, `max`, `min` and `linalg.vector_norm`.
    """
    found, found.linalg = _like(xp), _like(xp.linalg)
    for name in ("sum", "mean", "max", "min"):
        setattr(found, name, _reduction(name, getattr(xp, name)))
    found.linalg.vector_norm = _reduction("vector_norm", xp.linalg.vector_norm)
    return found


def _like(module: Any) -> Any:
    twin = ModuleType(module.__name__, module.__doc__)
    twin.__dict__.update(vars(module))
    return twin


def _reduction(name: str, of_library: Any) -> Any:
    called = f"xp.linalg.{name}" if name == "vector_norm" else f"xp.{name}"

    def reduction(*values: Any, **options: Any) -> Any:
        """Do what the function of this name in NumPy does; a whole array is reduced in the order of `sums`."""
        if len(values) != 1 or not hasattr(values[0], "dtype"):
            came = f"{len(values)} arguments without a name" if len(values) != 1 else f"a {type(values[0]).__name__}"
            raise TypeError(
                f"{called} was called with {came}; wanted one, an array, and options by name, such as axis=0, as in "
                f"the array API standard"
            )
        (x,) = values
        if is_whole(options) and getattr(x, "dtype", None) in _FLOATS:
            return sums.reduced(name, x)
        return of_library(x, **options)

    reduction.__name__ = name
    return reduction
