"""Complex slots in a file: pairs of reals there, which every version of safetensors has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .._arrays.library import PAIRS, joined_in_numpy, pairs_in_numpy
from .._state.names import array_key
from .header import Parameter

Host = np.ndarray[Any, np.dtype[Any]]


def as_pairs(arrays: Mapping[str, Host]) -> dict[str, Host]:
    """Return arrays as a file has them: complex ones as pairs, with one more axis, the last."""
    return {key: pairs_in_numpy(x) if x.dtype.kind == "c" else x for key, x in arrays.items()}


def with_complex(parameters: Iterable[Parameter], arrays: Mapping[str, Host]) -> dict[str, Host]:
    """Return the arrays of a file as its header describes them; what is not as it says is left to be refused."""
    found = dict(arrays)
    for parameter in parameters:
        for slot, described in parameter.slots.items():
            key, part = array_key(parameter.name, slot), PAIRS.get(described.dtype or "")
            if part is not None and key in found:
                x = found[key]
                if x.dtype.name == part and x.shape == (*described.shape, 2):
                    found[key] = joined_in_numpy(x)
    return found
