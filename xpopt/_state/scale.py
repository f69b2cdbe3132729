"""What the loss is multiplied by, where steps decide about it: on the host, or on the device that finds them finite."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

from .._arrays.library import Library
from .._arrays.namespace import library_of
from .._arrays.typing import Array
from ..transforms.loss_scale import DynamicLossScale

_ENDS = 2.0**-60, 2.0**60
"""Where it moves no further: at the lower end no scale helps, and beyond the upper one float32 is near."""


class Scale(NamedTuple):
    """What the loss is multiplied by; never changed, but replaced."""

    value: Any  # a float; or an array of float32 and shape ()
    steps: Any = 0  # that were finite since it moved: an int, or an array of int32
    failed: Any = None  # whether `update` has met something not finite in the pass under way; None where none is

    @property
    def is_on_host(self) -> bool:
        """Whether no device has to be asked."""
        return not any(library_of(x) for x in self)

    def moved(self, dynamic: DynamicLossScale, ok: Any) -> Scale:
        """Return the scale after a step that was finite or not.

        Parameters
        ----------
        dynamic : DynamicLossScale
            How it moves.
        ok : bool, or array of bool, shape ()
            Whether the step was finite.

        Returns
        -------
        Scale
            Where `ok` is, if that is an array.
        """
        low, high = _ENDS
        value, steps, _ = self
        growth, backoff, every = dynamic.growth, dynamic.backoff, dynamic.every
        library, like, (value, steps, ok) = _together(value, steps, ok)
        if library is None:
            if not ok:
                return Scale(max(value * backoff, low))
            return Scale(min(value * growth, high)) if steps + 1 >= every else Scale(value, steps + 1)
        xp = library.xp

        def move(like: Array) -> Scale:
            grows = xp.logical_and(ok, steps + 1 >= every)
            larger, smaller = xp.minimum(value * growth, high + 0 * value), xp.maximum(value * backoff, low + 0 * value)
            stays = xp.logical_and(ok, xp.logical_not(grows))
            kept = xp.where(stays, value, xp.where(grows, larger, smaller))
            return Scale(kept, xp.where(stays, steps + 1, 0 * steps))

        moved: Scale = library.guard(move)(like)
        return moved

    def noted(self, ok: Any) -> Self:
        """Return the same in the pass under way, in which an update was finite or not; it moves where that ends."""
        failed = self.failed
        if library_of(ok) is None:
            return self if ok and failed is not None else self._replace(failed=not ok)
        library = library_of(ok)
        assert library is not None
        bad = library.guard(library.xp.logical_not)(ok)
        if library_of(failed) is not None:
            _, like, (failed, bad) = _together(failed, bad)
            bad = library.guard(lambda like: library.xp.logical_or(failed, bad))(like)
        return self if failed is True else self._replace(failed=bad)

    def ended(self, dynamic: DynamicLossScale) -> Scale:
        """Return the scale after the end of a pass."""
        failed = self.failed
        if failed is None:
            return self
        library = library_of(failed)
        return self.moved(dynamic, not failed if library is None else library.guard(library.xp.logical_not)(failed))

    def read(self) -> Scale:
        """Return the same on the host; that waits for the device."""
        return self if self.is_on_host else Scale(*map(_read, self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Scale:
        """Return the same: a copy of an optimizer waits for no device."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what the host reads."""
        return Scale, tuple(self.read())


def _read(x: Any) -> Any:
    library = library_of(x)
    return x if library is None else next(iter(library.to_numpy([x]))).item()


def _together(*values: Any) -> tuple[Library | None, Any, tuple[Any, ...]]:
    """Return values as arrays of one place, that of the last array among them, and one of these; or as they are."""
    like: Any = next((x for x in reversed(values) if library_of(x) is not None), None)
    library = library_of(like)
    if library is None:
        return None, None, values
    place, xp = library.place(like), library.xp
    dtypes = {bool: xp.bool, int: xp.int32, float: xp.float32}

    def there(x: Any) -> Any:
        if library_of(x) is library and library.place(x) == place:
            return x
        value = _read(x)
        return library.guard(lambda like: library.full((), value, dtypes[type(value)], like))(like)

    return library, like, tuple(map(there, values))
