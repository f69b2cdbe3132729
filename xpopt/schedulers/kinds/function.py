"""A function of the user's own as a schedule."""

from __future__ import annotations

from typing import Any

from ..._settings.setting import setting
from ..._settings.text import format_call, short
from .base import FINITE, Endless


class _Call:
    """Something that can be called."""

    def check(self, owner: str, name: str, value: object) -> Any:
        if not callable(value) or isinstance(value, type):
            raise TypeError(
                f"{owner}: {name}={short(value)} is a {type(value).__name__}; wanted a function of the step"
            )
        return value


class function(Endless):
    """A function of your own, called with the step; text does not contain it.

    Parameters
    ----------
    call : callable
        ``call(step) -> float``: a function of the step alone, which remembers nothing. A setting, and what is made of
        schedules, takes it as it is too.
    steps : int, optional
        The number of steps after which it ends. At least 1.

    Raises
    ------
    TypeError, ValueError
        `call` cannot be called, or `steps` is out of range.

    Examples
    --------
    >>> from xpopt.schedulers import function, warmup
    >>> function(lambda step: 0.5**step).values(3)
    array([1.  , 0.5 , 0.25])
    >>> (warmup(steps=1) * (lambda step: 0.5**step)).values(3)
    array([0.5 , 0.5 , 0.25])
    """

    call: Any = setting(range=_Call())

    def at(self, step: int) -> float:
        """Return what the function does.

        Parameters
        ----------
        step : int
            Steps made so far.

        Returns
        -------
        float
            The number.
        """
        value: float = FINITE.check(f"{self} at step {step}", "value", self.call(step))
        return value

    def __hash__(self) -> int:
        """Hash what it is made of; of a function that has no hash, which function it is."""
        try:
            return super().__hash__()
        except TypeError:
            return hash((type(self), id(self.call)))

    def __repr__(self) -> str:
        """Write its name; text does not hold what it does."""
        name = f"{getattr(self.call, '__module__', '')}.{getattr(self.call, '__qualname__', type(self.call).__name__)}"
        return format_call("function", {"call": name})
