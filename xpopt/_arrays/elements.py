"""Settings that have a number for each element of a parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .._settings.ranges import Range
from .._settings.text import Call, short
from .library import LOW
from .namespace import library_of

FORMATS = {
    "float16": (11, -24, 65504.0),
    "bfloat16": (8, -133, 2.0**128 - 2.0**120),
    "float32": (24, -149, 2.0**128 - 2.0**104),
}
"""By dtype, the binary digits, the exponent of the smallest number, and the largest number."""


class PerElement:
    """A number for each element of a parameter, in the place of one for all. Never changed.

    Parameters
    ----------
    values : ndarray of float32 or float64
        The numbers, of the parameter's shape; copied.
    rounding : {"nearest", "up", "down"}
        How they are rounded to the dtype of a parameter.
    """

    def __init__(self, values: Any, rounding: Literal["nearest", "up", "down"] = "nearest") -> None:
        self._values = np.array(values, order="C")
        self._values.flags.writeable = False
        self._rounding = rounding

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's shape."""
        return self._values.shape

    @property
    def dtype(self) -> Any:
        """NumPy's dtype of the numbers, which are on the host."""
        return self._values.dtype

    def rounded(self, rounding: Literal["up", "down"]) -> PerElement:
        """Return the same numbers, rounded in another way."""
        twin = object.__new__(type(self))
        twin._values, twin._rounding = self._values, rounding
        return twin

    def numbers(self, dtype: str) -> np.ndarray[Any, Any]:
        """Return the numbers for a parameter of a dtype, where they are rounded to it up or down."""
        if self._rounding == "nearest":
            return self._values
        if self._rounding == "up":
            return rounded_up(self._values, dtype)
        return -rounded_up(-self._values, dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """Return the numbers, which cannot be written, or a copy of them."""
        if copy or (dtype is not None and dtype != self._values.dtype):
            return np.array(self._values, dtype)
        return self._values

    def __eq__(self, other: object) -> bool:
        """Whether all numbers are the same, and their dtype."""
        if not isinstance(other, PerElement):
            return NotImplemented
        mine, theirs = self._values, other._values
        return mine is theirs or (mine.dtype == theirs.dtype and np.array_equal(mine, theirs))

    def __hash__(self) -> int:
        """Hash the shape."""
        return hash(self.shape)

    def __repr__(self) -> str:
        """Write what it is; text does not hold the numbers."""
        return f"{type(self).__name__}(shape={self.shape}, dtype='{self.dtype}')"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the numbers, in every protocol."""
        return PerElement, (self._values, self._rounding)

    def __deepcopy__(self, memo: dict[int, Any]) -> PerElement:
        """Return the same."""
        return self


def rounded_up(values: Any, dtype: str) -> np.ndarray[Any, Any]:
    """Return the smallest numbers of a dtype that are not below others.

    Parameters
    ----------
    values : ndarray
        Numbers; infinity stays.
    dtype : str
        Of a parameter.

    Returns
    -------
    ndarray of float64
        Infinity where there is none.
    """
    values = np.asarray(values, np.float64)
    if dtype not in FORMATS:
        return values
    digits, smallest, largest = FORMATS[dtype]
    unit = np.ldexp(1.0, np.maximum(np.frexp(values)[1] - digits, smallest))
    with np.errstate(invalid="ignore"):
        found = np.ceil(values / unit) * unit
    found = np.where(found > largest, np.inf, np.maximum(found, -largest))
    return np.where(np.isinf(values), values, found)


@dataclass(frozen=True)
class NumberOrArray:
    """A number; or an array like the parameter, which has one for each element.

    Parameters
    ----------
    number : Range
        What each may be.
    open_at : float
        Another number that an element of an array may be: infinity, of one sign.
    """

    number: Range
    open_at: float = np.nan

    def check(self, owner: str, name: str, value: object) -> float | PerElement:
        """Return the number, or the numbers on the host, or say what is wrong with them.

        Parameters
        ----------
        owner, name : str
            The class and the keyword, for the message.
        value : object
            What came: a number, or an array of any library.

        Returns
        -------
        float or PerElement
            What is to be kept.

        Raises
        ------
        TypeError, ValueError
            It is neither, or a number is out of its range.
        """
        if isinstance(value, PerElement):
            value = value._values
        if isinstance(value, Call) and value.name == PerElement.__name__:
            raise ValueError(
                f"{owner}: {name}={value!r} is text that stands for an array, which cannot be read back; pass "
                f"the array itself, to the constructor or to set_params, or load a checkpoint, which has it"
            )
        library = library_of(value)
        if library is None or value.shape == ():  # type: ignore[attr-defined]
            number: Any = value if library is None else _on_host(library, value, f"{owner}: {name}").item()
            return self._one(owner, name, number)
        values = _on_host(library, value, f"{owner}: {name}")
        ends = self.number
        inside = np.isfinite(values)
        inside &= (values > ends.low) if ends.open_low else (values >= ends.low)
        inside &= (values < ends.high) if ends.open_high else (values <= ends.high)
        inside |= values == self.open_at
        if not inside.all():
            at = tuple(map(int, np.argwhere(~inside)[0]))
            raise ValueError(f"{owner}: {name} is {values[at].item()!r} at {at}; wanted {ends} everywhere")
        return PerElement(values)

    def _one(self, owner: str, name: str, value: Any) -> float:
        try:
            return self.number.check(owner, name, value)
        except TypeError as error:
            way_out = ""
            if isinstance(value, Mapping):
                way_out = f"; by name: groups={{'enc/*': {{{name.split()[-1]!r}: ...}}}}"
            raise TypeError(f"{error}, or an array like the parameter{way_out}") from None


def _on_host(library: Any, value: Any, what: str) -> np.ndarray[Any, Any]:
    """Return an array of any library as NumPy's, of a dtype that checkpoints keep."""
    try:
        (values,) = library.to_numpy([library.admit(value)])
    except TypeError as error:
        raise TypeError(f"{what} {error}") from None
    name = values.dtype.name
    if name in LOW:
        return np.asarray(values, np.float32)
    if name == "float32":
        return np.asarray(values)
    if values.dtype.kind not in "fiu":
        raise TypeError(f"{what}={short(value)} is an array of {name}; wanted one of floats")
    return np.asarray(values, np.float64)
