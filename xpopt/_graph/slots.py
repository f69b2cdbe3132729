"""What the slots of a state are: where each starts, of which shape and dtype; defaults of the NamedTuple say so."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .._arrays.library import LOW, PAIRS, SUPPORTED
from .._settings.ranges import LARGEST
from .._settings.text import short

Shape = tuple[int, ...]

PARAM = "param"
"""The start that is the parameter itself."""


class Slot(NamedTuple):
    """What a slot is; made by `slot`."""

    start: Any = 0.0  # a number, the name of a setting, or "param"
    shape: Callable[[Shape], Shape] | None = None  # None: that of the parameter
    dtype: str | None = None  # None: that of the arithmetic
    constant: bool = False  # numbers of a setting, like the parameter: never changed, so no state and not in the cache

    @property
    def is_like(self) -> bool:
        """Whether it is state of the parameter's shape, in the dtype of the arithmetic."""
        return self.shape is None and self.dtype is None and not self.constant

    def number(self, h: Any) -> float | None:
        """Return what it starts at, by the numbers of a step; None for the parameter."""
        start = self.start
        if start == PARAM:
            return None
        return float(getattr(h, start) if isinstance(start, str) else start)

    def with_start(self, name: Callable[[str], str]) -> Slot:
        """Return the same of which the setting that it starts at has another name among the numbers of a step."""
        return self._replace(start=name(self.start)) if isinstance(self.start, str) and self.start != PARAM else self

    def dtype_for(self, compute: str) -> str:
        """Return the name of the dtype that it is kept in, of a parameter whose slots are of the dtype `compute`."""
        if compute not in PAIRS:
            return self.dtype or compute
        real = self.dtype or PAIRS[compute]  # what is one number of a complex parameter is real
        return real if self.shape is not None else _COMPLEX.get(real, real)

    def shape_for(self, shape: Shape) -> Shape:
        """Return its shape for a parameter of a shape; a TypeError says what is wrong with the function for it."""
        if self.shape is None:
            return shape
        try:
            found: Any = self.shape(shape)
        except Exception as error:
            raise TypeError(f"its shape function raised {error!r} for a parameter of shape {shape}") from error
        if not isinstance(found, tuple) or not all(type(size) is int and size >= 0 for size in found):
            raise TypeError(
                f"its shape function returned {short(found)} for a parameter of shape {shape}; wanted a tuple of int"
            )
        return found


_COMPLEX = {part: dtype for dtype, part in PAIRS.items()}

BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16}
"""The bytes of a number of each dtype."""


def narrower(compute: str) -> list[str]:
    """Return the names of the dtypes that a slot may be kept in, of a parameter whose slots are of `compute`."""
    kinds = BYTES if compute in PAIRS else SUPPORTED
    return [dtype for dtype in kinds if BYTES[dtype] <= BYTES[compute]]


_LARGEST = {"float16": 65504.0, "bfloat16": 2.0**128 - 2.0**120, "float32": 2.0**128 - 2.0**104}

LIKE = Slot()
"""A slot like its parameter that starts at 0."""


def slot(*, start: float | str = 0.0, shape: Callable[[Shape], Shape] | None = None, dtype: str | None = None) -> Any:
    """Describe a slot, as the default of a field of a state.

    A field without a default is like its parameter, of the dtype of the arithmetic, and starts at 0.

    Parameters
    ----------
    start : float or str
        What each element is before the first update: a finite number; the name of a setting, which is read at the
        update that makes the slot; or ``"param"``, the parameter in the dtype of the slot.
    shape : callable, optional
        From the shape of the parameter to that of the slot, both tuples of int: `one`, `rows`, `cols`, or any other.
        By default the parameter's own.
    dtype : {"float16", "bfloat16", "float32", "float64"}, optional
        The dtype that the slot is kept in, no wider than that of the arithmetic. The rule sees it in that one, and what
        it returns is rounded once. By default there is no other: float64 for parameters of float64, else float32.

    Returns
    -------
    object
        What declares it; of any type for a type checker, so that the annotation states the type.

    Examples
    --------
    >>> import numpy as np
    >>> import xpopt
    >>> from typing import Any, NamedTuple
    >>> class FTRLState(NamedTuple):
    ...     linear: Any
    ...     total: Any = xpopt.slot(start="initial")
    >>> class FTRL(xpopt.OptimizerBase):
    ...     lr: float = xpopt.setting(default=0.1)
    ...     initial: float = xpopt.setting(default=0.1, range=xpopt.Range(low=0))
    ...     slots = FTRLState
    ...
    ...     @staticmethod
    ...     def rule(xp, param, grad, s, h):
    ...         total = s.total + grad * grad
    ...         linear = s.linear + grad - (xp.sqrt(total) - xp.sqrt(s.total)) / h.lr * param
    ...         return -linear * h.lr / xp.sqrt(total), FTRLState(linear, total)
    >>> opt = FTRL(initial=0.75)
    >>> opt.update(np.zeros(2), np.array([0.5, -0.5]), "W")
    array([-0.05,  0.05])
    >>> opt.cache["W"]["total"]
    array([1., 1.])
    """
    return Slot(start.item() if isinstance(start, np.generic) else start, shape, dtype)


def one(shape: Shape) -> Shape:
    """Return the shape of a slot that is one number.

    Parameters
    ----------
    shape : tuple of int
        The shape of the parameter.

    Returns
    -------
    tuple of int
        ``()``.
    """
    return ()


def rows(shape: Shape) -> Shape:
    """Return the shape of a slot with one number for each row of a matrix.

    Parameters
    ----------
    shape : tuple of int
        The shape of the parameter. More dimensions are a stack of matrices, the last two. A vector is one row.

    Returns
    -------
    tuple of int
        The same with a last axis of size 1, as ``xp.mean(x, axis=-1, keepdims=True)`` has: ``(3, 1)`` for ``(3, 4)``,
        and ``(1,)`` for ``(4,)``.
    """
    return (*shape[:-1], 1) if shape else ()


def cols(shape: Shape) -> Shape:
    """Return the shape of a slot with one number for each column of a matrix.

    Parameters
    ----------
    shape : tuple of int
        The shape of the parameter. More dimensions are a stack of matrices, the last two. A vector is one row.

    Returns
    -------
    tuple of int
        The same with a last axis but one of size 1, as ``xp.mean(x, axis=-2, keepdims=True)`` has: ``(1, 4)`` for
        ``(3, 4)``, and ``(4,)`` for ``(4,)``.
    """
    return (*shape[:-2], 1, shape[-1]) if len(shape) > 1 else shape


def moduli(shape: Shape) -> Shape:
    """Return the shape of a slot with one real number for each element of the parameter, which may be complex."""
    return shape


def specs_of(slots: type[Any]) -> tuple[Any, ...]:
    """Return what the defaults of a NamedTuple class say of its fields; unchecked, as somebody wrote them."""
    defaults = slots._field_defaults
    return tuple(defaults.get(field, LIKE) for field in slots._fields)


def state_class(name: str, specs: Mapping[str, Slot]) -> type[Any]:
    """Return the NamedTuple class of a state with these slots, for rules that are made of others.

    Parameters
    ----------
    name : str
        The name of the class.
    specs : mapping of str to Slot
        The slots by name, in their order.

    Returns
    -------
    type
        The class; every field has its slot as a default.
    """
    return namedtuple(name, list(specs), defaults=specs.values())


def check_specs(fields: Iterable[str], specs: Iterable[Any], values: Mapping[str, Any], owner: str) -> None:
    """Raise unless each slot can be made, whatever the parameter.

    Parameters
    ----------
    fields : iterable of str
        The names of the slots.
    specs : iterable of object
        What their defaults are.
    values : mapping
        The settings that a slot may start from.
    owner : str
        The name of the class, for messages.

    Raises
    ------
    TypeError
        A default is no slot, or a part of one is of the wrong kind.
    ValueError
        A start is not finite, or names no setting; a dtype is unknown; a slot is called ``t``.
    """
    for field, spec in zip(fields, specs, strict=True):
        what = f"{owner}: the slot {field!r}"
        if field == "t":
            raise ValueError(f"{what} has the name of the count in an entry of the cache; give it another name")
        if not isinstance(spec, Slot):
            raise TypeError(f"{what} has the default {short(spec)}; wanted xpopt.slot(...), or no default")
        if spec.constant:
            continue
        start, shape, dtype, _ = spec
        if isinstance(start, str) and start != PARAM:
            if start not in values:
                known = ", ".join(values)
                raise ValueError(f"{what} starts at {start!r}; wanted a number, 'param', or a setting: {known}")
            start = values[start]
        if start != PARAM:
            came = f"{spec.start!r}, {short(start)}" if isinstance(spec.start, str) else short(start)
            if isinstance(start, bool) or not isinstance(start, int | float):
                raise TypeError(f"{what} starts at {came}; wanted a finite number")
            if not abs(start) <= LARGEST:
                raise ValueError(f"{what} starts at {came}; wanted a finite number")
        elif shape is not None:
            raise ValueError(
                f"{what} starts at 'param' and has another shape than the parameter; leave one of them out"
            )
        if shape is not None and not callable(shape):
            raise TypeError(
                f"{what} has shape={short(shape)}; wanted a function of the parameter's shape, as xpopt.one"
            )
        if dtype is not None and dtype not in SUPPORTED:
            raise ValueError(f"{what} has dtype={short(dtype)}; wanted one of {', '.join(SUPPORTED)}")


def check_of_complex(fields: Iterable[str], specs: Iterable[Slot], *, fused: bool, owner: str, param: str) -> None:
    """Raise unless a rule that sees complex numbers as pairs of reals can keep its slots of them.

    Parameters
    ----------
    fields, specs
        The slots, which `check_specs` has seen.
    fused : bool
        Whether the rule is elementwise, as far as its class says.
    owner, param : str
        The names of the class and the parameter, for messages.

    Raises
    ------
    TypeError
        It is a rule of matrices, or a slot has another shape than the parameter or a dtype of 16 bits.
    """
    specs = tuple(specs)
    knows_pairs = any(spec.shape is moduli for spec in specs)
    why = None if fused or knows_pairs else "its rule is not elementwise (fused = False)"
    for field, spec in zip(fields, specs, strict=True):
        if spec.shape not in (None, one, moduli):
            why = why or f"its slot {field!r} has another shape than the parameter"
        if spec.dtype in LOW:
            why = why or f"its slot {field!r} is kept in {spec.dtype}, which has no complex dtype"
    if why is not None:
        raise TypeError(
            f"{owner}: {param} is complex, which a rule sees as pairs of reals, and {why}; give it another rule or "
            f"other settings by groups="
        )


def check_in_dtype(fields: Iterable[str], specs: Iterable[Slot], h: Any, compute: str, owner: str, param: str) -> None:
    """Raise unless each slot can be made for a parameter.

    Parameters
    ----------
    fields, specs
        The slots, which `check_specs` has seen.
    h : object
        The settings, as attributes.
    compute : str
        The dtype of the arithmetic.
    owner, param : str
        The names of the class and the parameter, for messages.

    Raises
    ------
    ValueError
        A dtype is wider than the arithmetic's, or cannot hold where its slot starts.
    """
    for field, spec in zip(fields, specs, strict=True):
        if spec.constant:
            continue
        what, dtype, start = f"{owner}: the slot {field!r}", spec.dtype or compute, spec.number(h)
        if BYTES[dtype] > BYTES[compute]:
            raise ValueError(
                f"{what} is of {dtype}, which is wider than {compute}, the compute dtype of {param}; leave it out"
            )
        if start is not None and abs(start) > _LARGEST.get(dtype, math.inf):
            raise ValueError(
                f"{what} starts at {start}, which is infinite in {dtype}, the dtype that it has for {param}; choose a "
                f"smaller one"
            )
