"""A rule: one update formula, with the names of its slots."""

from __future__ import annotations

import dis
import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import CodeType, FunctionType, MethodType
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
    """

    function: Callable[..., tuple[Array, Any]]
    slots: type[Any] = NoSlots
    scalars: Callable[[Scalars], Mapping[str, float]] | None = None
    follows: bool = False
    master: bool = False
    low: Mapping[str, Rule] = field(default_factory=dict)

    @once
    def made(self) -> dict[Any, Any]:
        """What has been made of it: graphs, kernels, and why there are none. Kept here, it goes with the rule."""
        return {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it is, without what was made of it: classes that are pickled by value hold their rule."""
        return Rule, (self.function, self.slots, self.scalars, self.follows, self.master, self.low)

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
        """Whether its state, but for a master copy, is one array and no count."""
        return len(self.own) == 1 and not _may_read_count(self)

    @once
    def bare(self) -> bool:
        """Whether the cache holds that array itself."""
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


def _may_read_count(rule: Rule) -> bool:
    """Whether the rule or its `scalars` may read ``h.t``, at whatever settings."""
    function: Any = rule.function
    if rule.master:
        function = function.__wrapped__
    read = _attributes_read(function, 4)
    if rule.scalars is not None and read is not None:
        of_scalars = _attributes_read(rule.scalars, 0)
        read = None if of_scalars is None else read | of_scalars
    return read is None or "t" in read


def _attributes_read(function: Any, position: int) -> set[str] | None:
    """Return the attributes of an argument that the code of a function mentions.

    Parameters
    ----------
    function : callable
        Only looked at: what it does may depend on settings.
    position : int
        That of the argument.

    Returns
    -------
    set of str, or None
        None where the argument may go elsewhere: to another function, or into a variable. So it is for what has no
        code in Python.
    """
    if isinstance(function, MethodType):
        function, position = function.__func__, position + 1
    if not isinstance(function, FunctionType):
        return None
    code = function.__code__
    if position >= code.co_argcount or (name := code.co_varnames[position]) in code.co_cellvars:
        return None
    read: set[str] = set()
    for this, following in itertools.pairwise(dis.get_instructions(code)):
        if "LOAD_FAST" in this.opname:  # in newer Pythons, one instruction loads two
            *others, last = this.argval if isinstance(this.argval, tuple) else (this.argval,)
            if name in others or (last == name and following.opname not in ("LOAD_ATTR", "LOAD_METHOD")):
                return None
            if last == name:
                read.add(following.argval)
    return read
