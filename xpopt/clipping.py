"""The norm of all gradients of a model, and clipping by it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from ._arrays.containers import is_container
from ._arrays.leaves import norm_of, taken_in
from ._arrays.library import Library
from ._arrays.norms import LEAST, bounded, scaled
from ._arrays.tree import flatten, rebuild, show
from ._arrays.typing import Array
from ._settings.ranges import POSITIVE

__all__ = ["clip_by_global_norm", "global_norm"]


def global_norm(tree: Any) -> Any:
    r"""Return the L2 norm of all arrays of a model together.

    Parameters
    ----------
    tree : container of arrays, nested at will; or one array
        The gradients, of any floating dtypes, on one device. None stands for a missing gradient. A float is treated as
        an array of shape ().

    Returns
    -------
    array of shape ()
        The norm, in the library and on the device of the arrays: float64, or float32 where the device has no float64.
        It neither overflows nor underflows if it is in the range of that dtype. It is 0 if there are no arrays, and NaN
        or infinite if an element is. The host does not wait for a GPU, and Dask arrays stay lazy.

    Raises
    ------
    TypeError
        A leaf is no array of floating-point numbers, or of another library than the first.
    ValueError
        A leaf is on another device than the first.

    Notes
    -----
    Each array has a norm :math:`s_i r_i`, where neither :math:`s_i` nor :math:`r_i` overflows or underflows. The norm
    of all of them is

    .. math:: S \sqrt{\sum_i (s_i r_i / S)^2}, \quad S = \max_i s_i

    Examples
    --------
    >>> import numpy as np
    >>> float(global_norm({"W": np.array([3.0, 0.0]), "b": np.array([4.0])}))
    5.0
    """
    library, leaves = _taken_in(tree)
    if library is None:
        return np.zeros(())
    return library.guard(_norm)(_first(leaves), library, leaves)


def clip_by_global_norm(tree: Any, max_norm: float) -> Any:
    r"""Return the arrays of a model, scaled by one factor to an L2 norm of at most `max_norm` together.

    Parameters
    ----------
    tree : container of arrays, nested at will; or one array
        As for `global_norm`.
    max_norm : float
        The largest norm allowed, in units of the arrays. Greater than 0.

    Returns
    -------
    container like `tree`
        New arrays of the same dtypes; None where there was None. Their values are the old ones if the norm is at most
        `max_norm`. All elements are NaN if the norm is not finite, so that the error is not hidden.

    Raises
    ------
    TypeError
        A leaf is no array of floating-point numbers, or of another library than the first; `max_norm` is not a number.
    ValueError
        A leaf is on another device than the first; `max_norm` is out of range.

    Notes
    -----
    The factor neither overflows nor underflows where the clipped arrays can be represented, even if the norm is larger
    than the largest number of the dtype. float16 and bfloat16 are multiplied in float32 and rounded once. The host does
    not wait for a GPU.

    References
    ----------
    .. [1] Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
       arXiv:1211.5063, Algorithm 1, with the norm of all parameters.

    Examples
    --------
    >>> import numpy as np
    >>> grads = clip_by_global_norm({"W": np.array([3.0, 0.0]), "b": np.array([4.0])}, 1.0)
    >>> grads["W"].round(3), grads["b"].round(3)
    (array([0.6, 0. ]), array([0.8]))
    """
    max_norm = POSITIVE.check("clip_by_global_norm", "max_norm", max_norm)
    library, leaves = _taken_in(tree)
    clipped = {} if library is None else library.guard(_clipped)(_first(leaves), library, leaves, max_norm)
    return rebuild(tree, clipped.get) if is_container(tree) else clipped.get(_ALONE)


_ALONE = "tree"
"""The name of a leaf that is the whole tree."""


def _taken_in(tree: Any) -> tuple[Library | None, dict[Hashable, Array]]:
    """Return the library of a tree's arrays, None if there are none, and the arrays by name."""
    found: dict[Hashable, Any] = flatten(tree, "tree") if is_container(tree) else {_ALONE: tree}
    names = [name for name, x in found.items() if x is not None]
    library, leaves = taken_in([(f"leaf {show(name)}", found[name]) for name in names])
    return library, dict(zip(names, leaves, strict=True))


def _first(leaves: dict[Hashable, Array]) -> Array:
    return next(iter(leaves.values()))


def _norm(first: Array, library: Library, leaves: dict[Hashable, Array]) -> Array:
    """Return the norm; called with the library set up for the first array."""
    xp = library.xp
    scale, rest = norm_of(library, leaves.values())
    return xp.asarray(scale * rest)


def _clipped(first: Array, library: Library, leaves: dict[Hashable, Array], max_norm: float) -> dict[Hashable, Array]:
    """Return the clipped arrays by name; called with the library set up for the first array."""
    xp = library.xp
    norm = norm_of(library, leaves.values())
    reals = {name: library.reals(x) for name, x in leaves.items()}
    wide = {name: x.dtype == xp.float64 for name, x in reals.items()}
    factors = {is_wide: bounded(xp, *norm, max_norm, LEAST[is_wide]) for is_wide in set(wide.values())}
    clipped = {}
    for name, x in reals.items():
        new = scaled(xp, xp.astype(x, library.compute_dtype(x.dtype), copy=False), *factors[wide[name]])
        new = xp.asarray(xp.astype(new, x.dtype, copy=False))  # NumPy makes scalars of 0-d arrays
        clipped[name] = library.from_reals(new, leaves[name])
    return clipped
