"""Declared ranges: what a number given by the user may be, and the error when it is not."""

from __future__ import annotations

import math
import numbers
import operator
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from .text import short

LARGEST = int(sys.float_info.max)
"""The largest int that counts, steps and settings may be: what a float can hold."""

LARGEST_TEXT = "1.8e308"


def whole(value: Any) -> int | None:
    """Return what came as an int, if it is one: Python's, NumPy's, or an array of ints of shape () of any library.

    Parameters
    ----------
    value : object
        What came. A bool is no int here, nor is an array of bool.

    Returns
    -------
    int or None
        The number; None for anything else.
    """
    if type(value) is int:
        return value
    if isinstance(value, bool) or _is_of_bool(value):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _is_of_bool(value: Any) -> bool:
    """Whether this is a scalar or an array of bool, which some libraries would take for an int."""
    return str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


class Check(Protocol):
    """What a hyperparameter may be: `Range`, `Flag`, or anything else that says so in this way."""

    def check(self, owner: str, name: str, value: object, /) -> Any:
        """Return `value` as it is to be kept, or raise an error that names `owner` and `name`."""


@dataclass(frozen=True)
class Range:
    """The values that a hyperparameter may take.

    Parameters
    ----------
    low, high : float
        The ends. Infinity itself is never inside: every value must be finite, and an int one that a float can hold.
    open_low, open_high : bool
        Whether that end itself is outside.
    kind : {"float", "int", "number"}
        What the value becomes: a float; an int, and nothing but an int of Python, of NumPy, or in an array of shape ()
        is taken; or an int where such a one came, else a float.
    in_dtype : bool
        Whether the value must still be above 0 after rounding to the dtype that a parameter is computed in,
        as anything must that keeps a division from being by zero.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    kind: Literal["float", "int", "number"] = "float"
    in_dtype: bool = False

    @property
    def number(self) -> Range | None:
        """What a schedule may draw in the place of a value: this, for floats."""
        return self if self.kind == "float" else None

    def __str__(self) -> str:
        """Write the interval as mathematics does, ``[0, 1)``."""
        left = "(" if self.open_low or math.isinf(self.low) else "["
        right = ")" if self.open_high or math.isinf(self.high) else "]"
        if self.kind != "int":
            return f"a finite number in {left}{self.low:g}, {self.high:g}{right}"
        end = f"{LARGEST_TEXT}]" if math.isinf(self.high) else f"{self.high:g}{right}"
        return f"an int in {left}{self.low:g}, {end}"

    def check(self, owner: str, name: str, value: object) -> float:
        """Return `value` as a plain Python float (or int), or say what is wrong with it.

        Parameters
        ----------
        owner, name : str
            The class and the keyword, for the message.
        value : object
            What came.

        Returns
        -------
        float
            A Python number, whatever NumPy scalar came, so that it promotes no array.

        Raises
        ------
        TypeError
            `value` is no real number, or a bool.
        ValueError
            It is not finite, or outside the range.
        """
        number: float | None = None if self.kind == "float" else whole(value)
        if number is None:
            if self.kind == "int" or isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise TypeError(f"{owner}: {name}={short(value)} is a {type(value).__name__}; wanted {self}")
            try:
                number = float(value)
            except OverflowError:
                number = LARGEST + 1
        if type(number) is int and abs(number) > LARGEST:
            raise ValueError(f"{owner}: {name} is beyond {LARGEST_TEXT}, the largest float; wanted {self}")
        below = number <= self.low if self.open_low else number < self.low
        above = number >= self.high if self.open_high else number > self.high
        if below or above or not math.isfinite(number):
            raise ValueError(f"{owner}: {name}={number!r} is out of range; wanted {self}")
        return number


class LearningRate(Range):
    """A range that knows what else may come for it."""

    def check(self, owner: str, name: str, value: object) -> float:
        """Do what `Range` does, and say where a schedule is given."""
        try:
            return super().check(owner, name, value)
        except TypeError as error:
            if callable(value) or isinstance(value, Mapping):
                raise TypeError(f"{error}. A schedule is given as lr_scheduler") from None
            raise


@dataclass(frozen=True)
class Flag:
    """True or False, and no number in their place."""

    def check(self, owner: str, name: str, value: object) -> bool:
        """Return `value` as a Python bool, or say what is wrong with it.

        Parameters
        ----------
        owner, name : str
            The class and the keyword, for the message.
        value : object
            What came.

        Returns
        -------
        bool
            The same truth.

        Raises
        ------
        TypeError
            `value` is no bool.
        """
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{owner}: {name}={short(value)} is a {type(value).__name__}; wanted True or False")
        return bool(value)


class Companion:
    """Another optimizer, for the parameters that a class does not take, or None; who knows optimizers checks it."""

    def check(self, owner: str, name: str, value: Any) -> Any:
        """Return what came."""
        return value


@dataclass(frozen=True)
class Choice:
    """One of some strings.

    Parameters
    ----------
    values : tuple of str
        The strings.
    """

    values: tuple[str, ...]

    def check(self, owner: str, name: str, value: object) -> str:
        """Return `value`, or say what is wrong with it.

        Parameters
        ----------
        owner, name : str
            The class and the keyword, for the message.
        value : object
            What came.

        Returns
        -------
        str
            The same string.

        Raises
        ------
        TypeError
            `value` is no string.
        ValueError
            It is another string.
        """
        wanted = f"wanted one of {', '.join(map(repr, self.values))}"
        if not isinstance(value, str):
            raise TypeError(f"{owner}: {name}={short(value)} is a {type(value).__name__}; {wanted}")
        if value not in self.values:
            raise ValueError(f"{owner}: {name}={short(value)} is unknown; {wanted}")
        return str(value)


@dataclass(frozen=True)
class OrNone:
    """None, or what another check takes.

    Parameters
    ----------
    other : Check
        The check.
    """

    other: Check

    @property
    def number(self) -> Range | None:
        """What a schedule may draw."""
        return number_of(self.other)

    def check(self, owner: str, name: str, value: object) -> Any:
        """Return None or what the other check returns, or say what is wrong with it.

        Parameters
        ----------
        owner, name : str
            The class and the keyword, for the message.
        value : object
            What came.

        Returns
        -------
        object
            None, or what is to be kept.
        """
        return None if value is None else self.other.check(owner, name, value)


def number_of(allowed: Check) -> Range | None:
    """Return the range of the floats that a check takes, which a schedule may draw; None where it takes none."""
    found: Range | None = getattr(allowed, "number", None)
    return found


FLAG = Flag()
NON_NEGATIVE = Range(low=0)
LEARNING_RATE = LearningRate(low=0)
POSITIVE = Range(low=0, open_low=True)
FRACTION = Range(low=0, high=1)
DECAY = Range(low=0, high=1, open_high=True)
EPS = Range(low=0, open_low=True, in_dtype=True)
