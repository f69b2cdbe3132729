"""What an engine is given."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from .._library import Library
from .._parameter import Spec
from .._typing import Array, Scalars

Result = tuple[Array, Any]
"""A new parameter and the NamedTuple of its new slots."""


class Launch(NamedTuple):
    """Updates for which everything that can fail has been done."""

    results: list[Result]  # the very arrays that hold the results once `finish` has been called
    finish: Callable[[], None]  # writes; nothing in it can fail


class Work(NamedTuple):
    """One update of one parameter, checked and ready to be computed."""

    library: Library
    spec: Spec
    param: Any  # arrays of that library, both
    grad: Any
    slots: Any  # the rule's NamedTuple, or None to start from zeros
    owned: bool  # whether the slots are the optimizer's own arrays, which may be written
    h: Scalars
    out: Any  # where the result goes; None for a new array


make_work: Callable[[tuple[Any, ...]], Work] = functools.partial(tuple.__new__, Work)
"""Make a work of its fields, at half the cost of a call of the class."""
