"""When to stop: rules as values, to be joined with ``|`` and ``&``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ._settings.ranges import NON_NEGATIVE, Range
from ._settings.setting import setting
from ._settings.text import short
from ._settings.value import Value

__all__ = ["StopRule", "gradient_norm", "no_progress", "seconds", "steps", "value_below"]


class StopRule(Value):
    """Base of the rules that say when a solver stops.

    A rule of your own derives from this, or is any function of the same argument.

    Parameters
    ----------
    **settings : object
        The settings of the class.

    Examples
    --------
    >>> from xpopt import stop
    >>> stop.gradient_norm(1e-8) | stop.steps(500)
    gradient_norm(tol=1e-08) | steps(n=500)
    """

    _kind = "stop rule"
    _counts = False  # whether it says that enough was done, whatever was found

    def __call__(self, info: Mapping[str, Any]) -> str:
        """Say why to stop.

        Parameters
        ----------
        info : mapping
            Values after a step: ``"step"``, the number of steps made; ``"value"``, ``"gradient_norm"`` and ``"rate"``
            there; ``"best_value"``; ``"evaluations"`` and ``"seconds"`` so far; ``"history"``, a read-only sequence of
            `Row`, of which the last is about this step.

        Returns
        -------
        str
            The reason; empty to go on.
        """
        raise NotImplementedError

    def met(self, info: Mapping[str, Any]) -> bool:
        """Return whether it stops because of values or gradients, and not because of steps or time.

        Parameters
        ----------
        info : mapping
            As for a call.

        Returns
        -------
        bool
            False for `steps` and `seconds`, and where it does not stop.
        """
        return not self._counts and bool(self(info))

    def __or__(self, other: Callable[[Mapping[str, Any]], Any]) -> StopRule:
        """Stop when one of the two rules does."""
        return _Either(self, as_rule(other))

    def __ror__(self, other: Callable[[Mapping[str, Any]], Any]) -> StopRule:
        """Do the same for a function that comes first."""
        return _Either(as_rule(other), self)

    def __and__(self, other: Callable[[Mapping[str, Any]], Any]) -> StopRule:
        """Stop when both rules do at the same step."""
        return _Both(self, as_rule(other))

    def __rand__(self, other: Callable[[Mapping[str, Any]], Any]) -> StopRule:
        """Do the same for a function that comes first."""
        return _Both(as_rule(other), self)


class steps(StopRule):
    """Stop after some steps.

    Parameters
    ----------
    n : int
        The number of steps, at least 0; with 0 only the first value is asked for.
    """

    n: int = setting(range=Range(low=0, kind="int"))
    _counts = True

    def __call__(self, info: Mapping[str, Any]) -> str:
        """Say so once they are made."""
        return f"{self.n} steps were made" if info["step"] >= self.n else ""


class seconds(StopRule):
    """Stop after some time, at the end of the current step.

    Parameters
    ----------
    limit : float
        The seconds since the first point was asked for, at least 0. The time of earlier runs is included if the solver
        was saved and resumed.
    """

    limit: float = setting(range=NON_NEGATIVE)
    _counts = True

    def __call__(self, info: Mapping[str, Any]) -> str:
        """Say so once they are over."""
        return f"{self.limit:g} seconds have passed" if info["seconds"] >= self.limit else ""


class gradient_norm(StopRule):
    """Stop when no element of the gradient is larger than a tolerance.

    Parameters
    ----------
    tol : float
        The largest magnitude that every element may have, at least 0. With bounds of `LBFGS` and `GradientDescent`,
        what is measured is how far the negative gradient would move each element inside of them; of optimizers with
        `bounds` or `prox`, it is their `stationarity`. The real and the imaginary part of a complex number are two
        elements.
    """

    tol: float = setting(range=NON_NEGATIVE)

    def __call__(self, info: Mapping[str, Any]) -> str:
        """Say so once they are small."""
        found = info["gradient_norm"]
        return f"the gradient norm {found:.3g} is at most {self.tol:g}" if found <= self.tol else ""


class no_progress(StopRule):
    """Stop when the best value has not improved for some steps.

    Parameters
    ----------
    patience : int
        The number of steps, at least 1.
    tol : float
        The improvement that is needed over these steps, relative to the magnitude of the value or to 1, whichever is
        larger. At least 0.
    """

    patience: int = setting(range=Range(low=1, kind="int"))
    tol: float = setting(default=0.0, range=NON_NEGATIVE)

    def __call__(self, info: Mapping[str, Any]) -> str:
        """Say so once it has not."""
        history, best = info["history"], info["best_value"]
        if len(history) <= self.patience:
            return ""
        gained = abs(history[-1 - self.patience].best_value - best)
        if gained > self.tol * max(1.0, abs(best)):
            return ""
        return f"the best value has improved by {gained:.3g} in {self.patience} steps"


class value_below(StopRule):
    """Stop when the value is at most a limit.

    Parameters
    ----------
    limit : float
        The value; a value equal to it stops too.
    """

    limit: float = setting()

    def __call__(self, info: Mapping[str, Any]) -> str:
        """Say so once it is reached."""
        return f"the value {info['value']:.6g} is at most {self.limit:g}" if info["value"] <= self.limit else ""


class _Joined(StopRule):
    """Two rules.

    Parameters
    ----------
    first, second : StopRule
        The rules.
    """

    _sign = ""

    def __init__(self, first: StopRule, second: StopRule) -> None:
        self._rules = first, second

    def __repr__(self) -> str:
        first, second = (f"({one})" if isinstance(one, _Joined) else repr(one) for one in self._rules)
        if type(self._rules[0]) is type(self):
            first = repr(self._rules[0])
        return f"{first} {self._sign} {second}"

    def settings(self) -> dict[str, Any]:
        return {"rules": self._rules}


class _Either(_Joined):
    _sign = "|"

    def __call__(self, info: Mapping[str, Any]) -> str:
        return self._rules[0](info) or self._rules[1](info)

    def met(self, info: Mapping[str, Any]) -> bool:
        return any(rule.met(info) for rule in self._rules)


class _Both(_Joined):
    _sign = "&"

    def __call__(self, info: Mapping[str, Any]) -> str:
        found = [rule(info) for rule in self._rules]
        return " and ".join(found) if all(found) else ""

    def met(self, info: Mapping[str, Any]) -> bool:
        return bool(self(info)) and any(rule.met(info) for rule in self._rules)


class _Function(StopRule):
    """A function of the user's own.

    Parameters
    ----------
    function : callable
        Takes what a rule takes. True, or a text, stops.
    """

    def __init__(self, function: Callable[[Mapping[str, Any]], Any]) -> None:
        self._function = function

    def __call__(self, info: Mapping[str, Any]) -> str:
        found = self._function(info)
        return found if isinstance(found, str) else f"{self} returned true" if found else ""

    def __repr__(self) -> str:
        return str(getattr(self._function, "__name__", None) or repr(self._function))

    def settings(self) -> dict[str, Any]:
        return {"function": self._function}


def as_rule(rule: Any) -> StopRule:
    """Return what says when to stop as a rule.

    Parameters
    ----------
    rule : StopRule or callable
        A rule is returned as it is.

    Returns
    -------
    StopRule
        The rule.

    Raises
    ------
    TypeError
        It is neither.
    """
    if isinstance(rule, type) and issubclass(rule, StopRule):
        raise TypeError(f"stop={short(rule)} is a class; call it, such as stop.{rule.__name__}(...)")
    if isinstance(rule, StopRule):
        return rule
    if callable(rule):
        return _Function(rule)
    raise TypeError(f"stop={short(rule)} is a {type(rule).__name__}; wanted a rule of xpopt.stop, or a function")
