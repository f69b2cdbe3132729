"""One parameter on its way through a step: what is known of it from the check to the launch."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from .._arrays.library import Library
from .._arrays.parameter import Spec
from .._arrays.typing import Scalars
from .._graph.rule import Rule
from .numbers import Key


@dataclass(slots=True, eq=False)
class Tensor:
    """A parameter to update, checked against its gradient and its state."""

    name: Hashable
    rule: Rule
    library: Library
    spec: Spec
    param: Any  # arrays of that library, both
    grad: Any
    t: int  # the count that this update brings it to
    slots: Any = None  # the rule's NamedTuple, or None to start anew; one of them may be None until `h` is known
    owned: bool = False  # whether the slots are the optimizer's own arrays, which may be written
    out: Any = None  # where the result goes; None for a new array
    as_float: bool = False  # whether the caller gave a float, and gets one, which cannot be written later
    h: Scalars | None = None  # the numbers of the step; None until they are known
    key: Key | None = None  # what stochastic rounding draws from; None to round to the nearest
    proceed: Any = None  # a bool array of shape () on the device: where it is false, nothing is to change
    group: int = 0  # the number of the group whose settings it has; 0 for the optimizer's

    @property
    def clipped(self) -> bool:
        """Whether the rule sees its gradient clipped."""
        return self.h is not None and self.h.clip_norm is not None
