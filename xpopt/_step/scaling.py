"""A step of which the gradients are those of a loss that was multiplied by what steps decide about."""

from __future__ import annotations

from typing import Any

from .._arrays.namespace import library_of
from .._arrays.tree import flatten, rebuild
from .._arrays.typing import Array
from .._state.parts import Parts
from .._state.scale import Scale


def unscaled(scale: Scale, grads: Any) -> tuple[Any, float]:
    """Return gradients and what they have still to be divided by.

    Parameters
    ----------
    scale : Scale
        What the loss was multiplied by.
    grads : container of array, nested at will
        Its gradients. Where these are on the device that knows the scale, they are divided there, in the dtype of the
        arithmetic, and the host does not wait.

    Returns
    -------
    grads : containers
    number : float
    """
    value = scale.value
    library = library_of(value)
    if library is None:
        return grads, value
    leaves = flatten(grads, "grads")
    place = library.place(value)
    arrays = [x for x in leaves.values() if x is not None]
    if not all(library_of(x) is library and library.place(x) == place for x in arrays):
        return grads, scale.read().value
    xp = library.xp

    def divide(grad: Array) -> Array:
        if library.dtype_name(grad.dtype) is None:  # which is told where it is checked
            return grad
        reals = library.reals(library.admit(grad))
        compute = library.compute_dtype(reals.dtype)
        wide = xp.astype(reals, compute, copy=False)
        return library.from_reals(wide * (1 / xp.astype(value, compute, copy=False)), grad)

    divided = {name: None if x is None else library.guard(divide)(x) for name, x in leaves.items()}
    return rebuild(grads, divided.__getitem__), 1.0


def scale_of(parts: Parts) -> Scale | None:
    """Return what the loss is multiplied by now, where steps decide about it."""
    if parts.settings.dynamic is None:
        return None
    return Scale(parts.settings.dynamic.loss_scale) if parts.scale is None else parts.scale
