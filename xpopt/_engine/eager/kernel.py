"""The eager engine: call the rule on the caller's arrays. Its results are the meaning of a rule."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..._arrays.library import Library
from ..._arrays.namespace import library_of
from ..._arrays.norms import clip
from ..._arrays.parameter import Spec, dtype_text
from ..._arrays.typing import Array, Scalars
from ..._graph.rule import Rule, taken_apart
from ..._graph.slots import Slot, moduli
from ..kernel import Variant
from ..numbers import Key
from ..rounding import round_stochastically
from ..start import started
from ..tensor import Tensor


class Kernel:
    """A rule as it stands: each update calls it, with the functions of the arrays' own library.

    Parameters
    ----------
    rule : Rule
        The rule.
    h : Scalars
        The numbers of some step.
    variant : Variant
        What it is made for: all dtypes.
    """

    def __init__(self, rule: Rule, h: Scalars, variant: Variant) -> None:
        self._rule = rule

    def update(
        self, param: Any, grad: Any, slots: Any, library: Library, spec: Spec, h: Scalars, key: Key | None, proceed: Any
    ) -> tuple[Array, Any]:
        """Do what `update` does, as the library needs it."""
        new: tuple[Array, Any] = _updater(library)(param, grad, slots, library, spec, self._rule, h, key, proceed)
        return new


@functools.cache
def _updater(library: Library) -> Callable[..., tuple[Array, tuple[Array, ...]]]:
    """Return `update` set up for the arrays of one library."""
    return library.guard(update)


def update(
    param: Array,
    grad: Array,
    slots: Any,
    library: Library,
    spec: Spec,
    rule: Rule,
    h: Scalars,
    noise: Key | None,
    proceed: Array | None,
) -> tuple[Array, tuple[Array, ...]]:
    """Compute one update of one parameter.

    Parameters
    ----------
    param, grad : array
        As described by `spec`; only read.
    slots : NamedTuple of array, or None
        The rule's state, in its compute dtype; None to start anew. Only read.
    library : Library
        Whose arrays these are.
    spec : Spec
        The parameter's description.
    rule : Rule
        The formula.
    h : Scalars
        The numbers of this step; with `h.clip_norm`, the largest L2 norm that the rule may see of `grad`, or None.
    noise : Key or None
        What the new value draws from where it is rounded stochastically.
    proceed : array of bool, shape (), or None
        Whether anything is to change.

    Returns
    -------
    param : array
        The new value, in the parameter's dtype.
    slots : tuple of array
        The new state. These arrays share no memory with the inputs, nor with each other; but what is no state, the
        numbers of a setting, are the same arrays.

    Raises
    ------
    TypeError
        The rule returned something that is not like its parameter.
    """
    if spec.parts == 2:
        return _update_pairs(param, grad, slots, library, spec, rule, h, noise, proceed)
    xp, functions = library.xp, library.of_rules
    given, low = param, spec.compute != spec.dtype
    grad = library.pieces(grad, param)
    if low:
        param = xp.astype(param, spec.compute)
        grad = xp.astype(grad, spec.compute)
    if slots is not None:
        slots = rule.make_slots([library.pieces(x, param) for x in slots])
    elif rule.plain:
        slots = rule.make_slots([xp.zeros_like(param) for _ in rule.fields])
    else:
        slots = rule.make_slots(started(library, spec, rule, param, h))
    dtypes = [x.dtype for x in slots] if rule.narrow else []
    if dtypes:
        slots = rule.make_slots([xp.astype(x, spec.compute, copy=False) for x in slots])
    if h.clip_norm is not None:
        measured = grad if rule.measured is None else rule.measured(functions, param, grad, slots, h)
        grad = clip(xp, measured, h.clip_norm, float64=library.has_float64(grad))
    new_param, *new_slots = taken_apart(rule, rule.function(functions, param, grad, slots, h))
    taken = [param, grad, *slots]
    new_param = _own(rule, library, spec, new_param, "param", spec.shape, taken)
    results = zip(new_slots, rule.fields, rule.specs, rule.shapes(spec.shape), strict=True)
    new_slots = rule.make_slots(
        [x if of.constant else _own(rule, library, spec, x, field, shape, taken) for x, field, of, shape in results]
    )
    if noise is not None:
        new_param = round_stochastically(library, new_param, spec.dtype, noise)
    if proceed is not None:  # in a dtype that CuPy can choose in; after any rounding, which may change a zero's sign
        new_param = xp.where(proceed, xp.astype(new_param, spec.compute, copy=False), param)
        pairs = zip(new_slots, slots, strict=True)
        new_slots = rule.make_slots([x if x is old else xp.where(proceed, x, old) for x, old in pairs])
    if dtypes:
        new_slots = rule.make_slots([xp.astype(x, to, copy=False) for x, to in zip(new_slots, dtypes, strict=True)])
    if low:
        new_param = xp.astype(new_param, spec.dtype, copy=False)
    return library.result(new_param, given), new_slots


def _update_pairs(
    param: Array, grad: Array, slots: Any, library: Library, spec: Spec, rule: Rule, h: Scalars, *rest: Any
) -> tuple[Array, tuple[Array, ...]]:
    """Compute one update of a complex parameter, of which the rule sees the parts."""
    if slots is None:
        slots = started(library, spec, rule, param, h)
    reals = reals_of(library, spec, rule, slots)
    new_param, new_slots = update(
        *(library.reals(param), library.reals(grad), reals, library, spec.of_reals(library), rule, h), *rest
    )
    forms = zip(new_slots, rule.specs, slots, strict=True)
    joined = [old if of.constant else joined_as(library, x, of, old) for x, of, old in forms]
    return library.result(library.from_reals(new_param, param), param), rule.make_slots(joined)


def reals_of(library: Library, spec: Spec, rule: Rule, slots: Any) -> Any:
    """Return slots as the rule sees them: those like the parameter as pairs, a number for each element twice."""
    shape = (*spec.shape, 2)

    def reals(x: Array, of: Slot) -> Array:
        if of.shape is moduli:
            twice: Array = library.xp.broadcast_to(library.xp.expand_dims(x, axis=-1), shape)
            return twice
        return library.reals(x)

    return rule.make_slots([reals(x, of) for x, of in zip(slots, rule.specs, strict=True)])


def joined_as(library: Library, x: Array, of: Slot, old: Array) -> Array:
    """Return a slot as the state has it."""
    return library.copy(x[..., 0]) if of.shape is moduli else library.from_reals(x, old)  # type: ignore[index]


def evaluate(tensor: Tensor) -> Array:
    """Return what a model is evaluated with in the place of a parameter.

    Parameters
    ----------
    tensor : Tensor
        With slots, the numbers of its count, and a rule that has `evaluated`.

    Returns
    -------
    array
        Like the parameter, in memory of its own.

    Raises
    ------
    TypeError
        The rule returned something that is not like its parameter.
    """
    evaluated: Array = _evaluator(tensor.library)(tensor.param, tensor)
    return evaluated


@functools.cache
def _evaluator(library: Library) -> Callable[[Array, Tensor], Array]:
    """Return what computes it, set up for the arrays of one library."""
    xp = library.xp

    def evaluate(given: Array, slots: Any, rule: Rule, spec: Spec, h: Scalars) -> Array:
        assert rule.evaluated is not None
        param, *slots = (xp.astype(x, spec.compute, copy=False) for x in (given, *slots))
        slots = [library.pieces(x, param) for x in slots]
        new = rule.evaluated(library.of_rules, param, rule.make_slots(slots), h)
        new = _own(rule, library, spec, new, "evaluated", spec.shape, [given, param, *slots])
        return library.result(xp.astype(new, spec.dtype, copy=False), given)

    def of_any(given: Array, tensor: Tensor) -> Array:
        rule, spec, slots = tensor.rule, tensor.spec, tensor.slots
        if spec.parts == 1:
            return evaluate(given, slots, rule, spec, tensor.h)
        reals = reals_of(library, spec, rule, slots)
        new = evaluate(library.reals(given), reals, rule, spec.of_reals(library), tensor.h)
        return library.result(library.from_reals(new, given), given)

    return library.guard(of_any)


def _own(
    rule: Rule, library: Library, spec: Spec, x: Any, field: str, shape: tuple[int, ...], taken: list[Any]
) -> Array:
    """Return the result `x` as an array that shares nothing with those `taken`, to which it is added."""
    if library.name == "numpy" and isinstance(x, np.generic):  # what NumPy makes of 0-d arrays
        x = np.asarray(x)
    if library_of(x) is not library:
        raise TypeError(f"{rule.name} returned a {type(x).__name__} as {field!r}; wanted an array of {library.name}")
    try:
        library.admit(x)
    except TypeError as error:
        raise TypeError(f"what {rule.name} returned as {field!r} {error}") from None
    if x.dtype != spec.compute or tuple(x.shape) != shape:
        of_elements = shape == () and tuple(x.shape) == spec.shape
        raise TypeError(
            f"{rule.name} returned {dtype_text(x.dtype)} of shape {tuple(x.shape)} as {field!r}; "
            f"wanted {dtype_text(spec.compute)} of shape {shape}"
            + ("; where it is computed from h.lr, lr_scale must be a number, and not an array" if of_elements else "")
        )
    if any(x is other for other in taken) or library.may_share(x, taken):
        x = library.copy(x)
    taken.append(x)
    return x
