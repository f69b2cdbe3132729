"""What may be made of two schedules: the operators of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Schedule


class Algebra:
    """The operators, which take numbers, schedules of the learning rate and functions of the step as well."""

    __array_ufunc__ = None  # a NumPy number on the left leaves the product to the schedule

    def __rshift__(self, other: Any) -> Schedule:
        """Follow with another schedule, whose step 0 is where this one ends."""
        from . import joined

        return joined.joined(">>", self, other)

    def __mul__(self, other: Any) -> Schedule:
        """Multiply the values of each step."""
        from . import joined

        return joined.joined("*", self, other)

    def __add__(self, other: Any) -> Schedule:
        """Add the values of each step."""
        from . import joined

        return joined.joined("+", self, other)

    def __rmul__(self, other: Any) -> Schedule:
        """Do the same for a number that comes first."""
        return self * other

    def __radd__(self, other: Any) -> Schedule:
        """Do the same for a number that comes first."""
        return self + other
