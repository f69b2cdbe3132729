"""How far parameters are from where an optimizer would leave them: the norm of the proximal gradient."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from .._arrays.leaves import norm_of, taken_in
from .._arrays.library import Library, real_of
from .._arrays.parameter import Spec, dtype_text, examine
from .._arrays.tree import flatten, matched
from .._arrays.typing import Array, Tree
from .._engine.start import constant
from .._graph.slots import specs_of
from .._settings.ranges import POSITIVE
from .._state.parts import Parts
from .._transforms.numbers import Numbers
from ..transforms.base import Formula, Transform
from .scaling import scale_of, unscaled

_OF_FUNCTION = ("loss_scale", "maximize", "l2")
"""Options that say of which function a gradient is."""


class _Leaf(NamedTuple):
    transforms: Sequence[tuple[Transform, Mapping[str, Any]]]  # with their numbers
    spec: Spec
    param: Array
    grad: Array


def stationarity(parts: Parts, params: Tree, grads: Tree, step: float) -> Any:
    """Do what `OptimizerBase.stationarity` does."""
    step = POSITIVE.check(parts.settings.cls.__name__, "step", step)
    leaves = flatten(params, "params")
    scale, others = scale_of(parts), dict[str, float]()
    if scale is not None:
        grads, others["loss_scale"] = unscaled(scale, grads)
    gradients = matched(leaves, flatten(grads, "grads"), "grads")
    found: dict[Hashable, _Leaf] = {}
    libraries: dict[Hashable, Library] = {}
    for name, param in leaves.items():
        own = parts.settings.of_array(name, param)
        if gradients[name] is None or own.frozen:
            continue
        libraries[name], spec, param, grad = examine(param, gradients[name], name)
        own.check_fit(spec, name)
        h = own.with_numbers(None, parts.clock.numbers_of(own.number))
        transforms = [(one, {number: h[number] for number in one.numbers()}) for one in own.transforms]
        found[name] = _Leaf(transforms, spec, param, grad)
    if not found:
        return np.zeros(())
    library, _ = taken_in([(f"parameter {name!r}", leaf.param) for name, leaf in found.items()])
    assert library is not None
    first = next(iter(found.values())).param
    return library.guard(_norm)(first, library, list(found.values()), step, others)


def _norm(first: Array, library: Library, leaves: Sequence[_Leaf], step: float, others: Mapping[str, float]) -> Array:
    """Return the norm of all; called with the library set up for the first parameter."""
    scale, rest = norm_of(library, [_residual(library, leaf, step, others) for leaf in leaves])
    return library.xp.asarray(scale * rest)


def _residual(library: Library, leaf: _Leaf, step: float, others: Mapping[str, float]) -> Array:
    """Return the proximal gradient of a parameter, of the parts of complex ones, in float64 where the device has it."""
    xp, (transforms, spec, param, grad) = library.xp, leaf
    wide = xp.float64 if library.has_float64(param) else library.dtype(real_of(dtype_text(spec.compute)))
    x, grad = (xp.astype(library.reals(one), wide, copy=False) for one in (param, library.pieces(grad, param)))
    maps = []
    for one, numbers in transforms:
        formula = one.formula()
        h = Numbers(SimpleNamespace(**{**numbers, **others}, lr=step), formula, _rounded_for(formula, spec))
        if one.keyword in _OF_FUNCTION:
            grad = one.before(xp, x, grad, (), h)
        project = formula.project if spec.parts == 1 else formula.project_complex
        if project is not None:
            maps.append((project, _constants(library, spec, formula, numbers, param, wide), h))
    if not maps:
        return grad
    new = x - step * grad
    for project, slots, h in maps:
        new = project(xp, new, slots, h)
    return (x - new) * (1 / step)


def _rounded_for(formula: Formula, spec: Spec) -> str:
    """Return the dtype for which a transform has numbers of its own, or ""."""
    dtype = real_of(dtype_text(spec.dtype))
    return dtype if formula.rounded and dtype != "float64" else ""


def _constants(
    library: Library, spec: Spec, formula: Formula, numbers: Mapping[str, Any], param: Array, wide: Any
) -> Any:
    """Return the arrays that a map reads, like a parameter; one number for both parts of complex ones."""
    slots = (one.with_start(formula.number) for one in specs_of(formula.slots))
    h = SimpleNamespace(**numbers)
    reals: list[Any] = [library.reals(constant(library, spec, one, param, h)) for one in slots]
    arrays = [library.xp.astype(x, wide, copy=False) for x in reals]
    return formula.slots._make(arrays if spec.parts == 1 else [x[..., :1] for x in arrays])
