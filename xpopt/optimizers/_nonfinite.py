"""Gradients that are not finite: whether a step has one, on the host or on the device, and how many were left out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._engine import cuda_finite, plan
from .._library import Library
from .._namespace import library_of
from .._tree import show
from .._typing import Array

_BLOCK = 65_536
"""Elements looked at together, so that what is found out of them stays in the processor's cache."""

_SHOWN = 10
"""Names in a message."""


def all_finite(gradients: Mapping[Hashable, Array]) -> bool | Array:
    """Say whether the gradients of a step are finite.

    Parameters
    ----------
    gradients : mapping of hashable to array
        By parameter name, as a rule may see them.

    Returns
    -------
    bool or array of shape ()
        Where they are all on one device that works by itself, an array of bool there, which nobody has waited for.
    """
    places = _by_place(gradients)
    if len(places) == 1 and (place := next(iter(places))).lazy:
        return place.together(list(gradients.values()))
    return all(all(place.each([gradients[name] for name in names])) for place, names in places.items())


def check_finite(gradients: Mapping[Hashable, Array]) -> None:
    """Raise unless the gradients of a step are finite; the host waits once for each device.

    Raises
    ------
    FloatingPointError
        One is not finite.
    TypeError
        One is a Dask array, which has no values yet.
    """
    found: set[Hashable] = set()
    for place, names in _by_place(gradients).items():
        if place.library.name == "dask":
            raise TypeError(
                f"gradient of {show(names[0])} is a Dask array, which has no values yet, and nonfinite='raise' needs "
                f"them; use nonfinite='skip', which decides when it is computed"
            )
        flags = place.each([gradients[name] for name in names])
        found.update(name for name, finite in zip(names, flags, strict=True) if not finite)
    if found:
        listed = [show(name) for name in gradients if name in found]
        listed = [*listed[:_SHOWN], *(["..."] if len(listed) > _SHOWN else [])]
        raise FloatingPointError(
            f"not finite: the gradient of {', '.join(listed)} ({len(found)} of {len(gradients)}). Nothing has changed; "
            f"nonfinite='skip' leaves out such steps"
        )


class _Place(NamedTuple):
    """Where gradients are."""

    library: Library
    device: str
    lazy: bool  # whether the host goes on while work is done there

    def each(self, grads: Sequence[Array]) -> Sequence[bool]:
        """Return for each whether it is finite; the host waits once."""
        flags = [_finite(self.library)(grad) for grad in grads]
        if not self.lazy:
            return list(map(bool, flags))
        (values,) = self.library.to_numpy([_stacked(self.library)(*flags)])
        return values.tolist()

    def together(self, grads: Sequence[Array]) -> Array:
        """Return an array of shape (), whether all are finite; nobody waits."""
        if self.library.name == "cupy" and plan.chosen() != "eager":
            found = cuda_finite.all_finite(grads)
            if found is not None:
                return found
        flags = [_finite(self.library)(grad) for grad in grads]
        return _all(self.library)(_stacked(self.library)(*flags))


def _by_place(gradients: Mapping[Hashable, Array]) -> dict[_Place, list[Hashable]]:
    places: dict[_Place, list[Hashable]] = {}
    for name, grad in gradients.items():
        library = library_of(grad)
        assert library is not None
        place = _Place(library, library.place(grad), library.is_lazy(grad))
        places.setdefault(place, []).append(name)
    return places


@functools.cache
def _finite(library: Library) -> Callable[[Array], Any]:
    """Return what says whether an array is finite."""
    xp = library.xp

    def finite(grad: Array) -> Array:
        wide = xp.astype(grad, library.compute_dtype(grad.dtype), copy=False)  # CuPy cannot ask a bfloat16
        return xp.all(xp.isfinite(wide))

    return _finite_in_blocks if library.name == "numpy" else library.guard(finite)


def _finite_in_blocks(grad: Any) -> bool:
    if grad.dtype.kind != "f":  # ml_dtypes reports signaling NaNs, NumPy's own dtypes do not
        with np.errstate(invalid="ignore"):
            return _finite_of_blocks(grad)
    return _finite_of_blocks(grad)


def _finite_of_blocks(grad: Any) -> bool:
    if grad.size <= _BLOCK or not grad.flags.forc:
        return bool(np.isfinite(grad).all())
    elements = grad.reshape(-1) if grad.flags.c_contiguous else grad.T.reshape(-1)
    return all(np.isfinite(elements[start : start + _BLOCK]).all() for start in range(0, grad.size, _BLOCK))


@functools.cache
def _stacked(library: Library) -> Callable[..., Array]:
    return library.guard(lambda first, *others: library.xp.stack([first, *others]))


@functools.cache
def _all(library: Library) -> Callable[[Array], Array]:
    return library.guard(library.xp.all)


class Skipped(NamedTuple):
    """How many steps have been left out; never changed, but replaced."""

    on_host: int = 0
    on_devices: tuple[tuple[Library, str, Array], ...] = ()

    def one_more(self) -> Skipped:
        """Return the count after a step that was left out."""
        return self._replace(on_host=self.on_host + 1)

    def unless(self, proceed: Array) -> Skipped:
        """Return the count after a step that was made if `proceed`, an array of bool and of shape (), is true."""
        library = library_of(proceed)
        assert library is not None
        device, xp = library.place(proceed), library.xp
        others = [one for one in self.on_devices if one[:2] != (library, device)]
        before = [one[2] for one in self.on_devices if one[:2] == (library, device)]
        count = library.guard(lambda proceed: sum(before, xp.astype(xp.logical_not(proceed), xp.int32)))(proceed)
        return self._replace(on_devices=(*others, (library, device, count)))

    def read(self) -> Skipped:
        """Return the same count, all of it on the host; that waits for the devices."""
        values = [next(iter(library.to_numpy([count]))) for library, _, count in self.on_devices]
        return Skipped(self.on_host + sum(map(int, values)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Skipped:
        """Return the same: a copy of an optimizer waits for no device."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the count alone."""
        return Skipped, (self.read().on_host,)
