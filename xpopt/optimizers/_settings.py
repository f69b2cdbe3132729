"""Hyperparameters: checked when they come, read-only when they are shown."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from .._parameter import Spec, dtype_text
from .._ranges import NON_NEGATIVE, POSITIVE, Range
from .._text import suggest
from .._tree import show

SYNONYMS = {
    "alpha": "lr",
    "learning_rate": "lr",
    "step_size": "lr",
    "beta": "momentum",
    "beta1": "decay1",
    "beta_1": "decay1",
    "b1": "decay1",
    "beta2": "decay2",
    "beta_2": "decay2",
    "b2": "decay2",
    "rho": "decay",
    "epsilon": "eps",
    "max_norm": "clip_norm",
    "clipnorm": "clip_norm",
    "scheduler": "lr_scheduler",
}
"""What other libraries call the same things, for the suggestion in an error."""


class Hyperparameters(dict[str, Any]):
    """The settings of an optimizer as a dict to read; it copies and pickles as a plain dict."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("hyperparameters are read-only here; change them with set_params({'lr': 0.1})")

    __setitem__ = __delitem__ = __ior__ = _refuse  # type: ignore[assignment]
    update = pop = popitem = clear = setdefault = _refuse  # type: ignore[assignment]

    def copy(self) -> dict[str, Any]:
        """Return a plain dict."""
        return dict(self)

    def __copy__(self) -> dict[str, Any]:
        """Return a plain dict."""
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        """Return a plain dict; the values are immutable."""
        return dict(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a plain dict."""
        return dict, (dict(self),)


@functools.lru_cache(maxsize=None)
def documented_names(cls: type[Any]) -> tuple[str, ...]:
    """Return the keywords of a class's ``__init__`` in documented order."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
    return tuple(p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))


def check_value(owner: str, ranges: Mapping[str, Range], name: str, value: Any) -> float | None:
    """Return a hyperparameter as a Python float, or raise what `Range.check` raises; `clip_norm` may be None."""
    if name == "clip_norm":
        return None if value is None else POSITIVE.check(owner, name, value)
    return (NON_NEGATIVE if name == "lr" else ranges[name]).check(owner, name, value)


def hint(name: str, known: tuple[str, ...]) -> str:
    """Suggest which of the `known` keywords was meant by `name`."""
    meant = SYNONYMS.get(name)
    return f"; did you mean {meant!r}?" if meant in known else suggest(name, known)


def check_in_dtype(
    owner: str, ranges: Mapping[str, Range], settings: Mapping[str, Any], spec: Spec, name: Any, flushes: bool
) -> None:
    """Raise a ValueError if a hyperparameter that must stay above 0 rounds to 0 in a parameter's compute dtype.

    Parameters
    ----------
    owner, ranges, settings
        The optimizer's class, declared ranges and values.
    spec, name
        The parameter.
    flushes : bool
        Whether its library may take a subnormal number for 0.
    """
    dtype = dtype_text(spec.compute)
    for key, declared in ranges.items():
        if declared.in_dtype:
            rounded = np.dtype(dtype).type(settings[key])
            if rounded == 0 or (flushes and rounded < np.finfo(dtype).tiny):
                raise ValueError(
                    f"{owner}: {key}={settings[key]!r} rounds to 0 in {dtype}, the compute dtype of {show(name)}; "
                    f"choose a larger one"
                )
