"""Where the random bits of an update come from: all of it is part of the state, so that a training repeats itself."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from .._arrays.parameter import Spec
from .._arrays.tree import show
from .._engine.numbers import Key
from .._state.names import encode


def key_of(values: Mapping[str, Any], spec: Spec, name: Hashable, t: int) -> Key | None:
    """Return what an update draws from, or None if it rounds to the nearest number.

    Parameters
    ----------
    values : mapping
        The optimizer's, with ``rounding`` and ``seed``.
    spec, name, t
        The parameter, its name, and the count of the update.

    Returns
    -------
    tuple of int, or None
        A hash of seed, name and count.

    Raises
    ------
    TypeError
        The name is none that has the same hash in another process.
    """
    if values["rounding"] == "nearest" or spec.dtype == spec.compute:
        return None
    import hashlib  # here, for few optimizers round stochastically
    import json

    try:
        text = json.dumps([values["seed"], t, encode(name)])
    except TypeError:
        raise TypeError(
            f"parameter name {show(name)} is of a type that rounding='stochastic' cannot hash in the same way again; "
            f"wanted None, bool, int, str, bytes or a tuple of these"
        ) from None
    first, second = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=8).digest(), "<i4").tolist()
    return first, second
