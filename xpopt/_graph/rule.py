"""A rule: one update formula, with the names of its slots."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, NamedTuple

import numpy as np

from .._arrays.typing import Array, Scalars
from .._settings.once import once

MASTER = "master"
"""The slot of a master copy."""


class NoSlots(NamedTuple):
    """The state of a rule that remembers nothing."""


class StepScalars:
    """The numbers of one step by name; an attribute of a plain class is what Python reads fastest."""

    def __repr__(self) -> str:
        """Write the numbers."""
        return f"h({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


@dataclass(frozen=True, eq=False)
class Rule:
    """One update formula.

    Parameters
    ----------
    function : callable
        ``function(xp, param, grad, s, h) -> (param, slots)``.
    slots : type
        The NamedTuple class of its state, one array like the parameter per field.
    scalars : callable, optional
        ``scalars(h) -> dict`` of further numbers for `h`, computed on the host.
    follows : bool
        Whether it may go on from what another rule of its optimizer left in the cache: what that remembered is dropped,
        and its own state starts from zeros.
    master : bool
        Whether its last slot is a master copy of the parameter.
    low : mapping of str to Rule
        By dtype, the rules that take its place for parameters of these dtypes.
    entry : {"dict", "array"}
        The form of its cache entry: a dict of the count and the slots, or, where there is one slot, that array itself.
    """

    function: Callable[..., tuple[Array, Any]]
    slots: type[Any] = NoSlots
    scalars: Callable[[Scalars], Mapping[str, float]] | None = None
    follows: bool = False
    master: bool = False
    low: Mapping[str, Rule] = field(default_factory=dict)
    entry: str = "dict"

    @once
    def made(self) -> dict[Any, Any]:
        """What has been made of it: graphs, kernels, and why there are none. Kept here, it goes with the rule."""
        return {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it is, without what was made of it: classes that are pickled by value hold their rule."""
        return Rule, (self.function, self.slots, self.scalars, self.follows, self.master, self.low, self.entry)

    @property
    def name(self) -> str:
        """The function's qualified name, for messages."""
        return self.function.__qualname__

    @property
    def code(self) -> CodeType | None:
        """The code of the function that somebody wrote, whatever has been put around it."""
        return getattr(inspect.unwrap(self.function), "__code__", None)

    @once
    def fields(self) -> tuple[str, ...]:
        """The names of its slots."""
        return self.slots._fields

    @once
    def make_slots(self) -> Callable[[Iterable[Array]], Any]:
        """Make its state of one array per field: what ``slots._make`` does, at half the cost."""
        return functools.partial(tuple.__new__, self.slots)

    @once
    def keys(self) -> tuple[str, ...]:
        """The keys of its cache entry where that is a dict."""
        return ("t", *self.fields)

    @once
    def own(self) -> tuple[str, ...]:
        """The names of its slots but the master copy."""
        return self.fields[:-1] if self.master else self.fields

    @once
    def single(self) -> bool:
        """Whether its cache entry, but for a master copy, is an array."""
        return len(self.own) == 1 and self.entry == "array"

    @once
    def bare(self) -> bool:
        """Whether its cache entry is an array."""
        return self.single and not self.master

    def scalars_at(self, settings: Mapping[str, Any], lr: float, t: int) -> Scalars:
        """Return `h`: every hyperparameter, this step's `lr`, the count `t`, and what `scalars` derives from them."""
        h = StepScalars()
        numbers = h.__dict__
        numbers.update(settings)
        numbers["lr"] = lr
        numbers["t"] = t if t < 2**31 else float(t)  # which arrays take, whatever their integers hold
        if self.scalars is not None:
            for name, value in self.scalars(h).items():  # NumPy's scalars would promote arrays
                numbers[name] = value.item() if isinstance(value, np.generic) else value
        return h


def taken_apart(rule: Rule, returned: Any) -> list[Any]:
    """Return the new parameter and slots that a rule returned, if that is what it returned."""
    wanted = f"wanted (param, slots), with the slots {', '.join(rule.fields) or '(none)'}"
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(f"{rule.name} returned a {type(returned).__name__}; {wanted}")
    param, slots = returned
    if not isinstance(slots, tuple | list) or len(slots) != len(rule.fields):
        raise TypeError(f"{rule.name} returned a {type(slots).__name__} for the slots; {wanted}")
    return [param, *slots]
