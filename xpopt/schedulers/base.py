"""The base class of learning rate schedulers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar, Self

from .._settings.declared import Declared
from .._settings.ranges import NON_NEGATIVE, Range
from .._settings.text import format_call, short
from .._settings.values import changed_values, check_values, complete
from ._elsewhere import hint
from ._misuse import Guided
from .kinds.algebra import Algebra
from .kinds.loss import finite_loss

STEP = Range(low=0, kind="int")


class SchedulerBase(Guided, Algebra, Declared, ABC):
    """A learning rate for every step.

    A schedule of your own declares its hyperparameters with `setting` and writes `learning_rate`. The base class adds
    everything else, and `make_scheduler` finds the class by its name. A schedule that changes as it runs also overrides
    `reset`, `state` and `restore`.

    In place of declarations, a class may have `ranges`, the allowed values of its keywords, and an ``__init__`` that
    passes all of them on by keyword.

    Parameters
    ----------
    **hyperparameters : object
        The value of each setting; it becomes an attribute, which `set_params` changes.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type or out of range, or the names are not those in `ranges`.

    Examples
    --------
    >>> import math
    >>> from xpopt import Range, setting
    >>> from xpopt.schedulers import SchedulerBase
    >>> class CosineScheduler(SchedulerBase):
    ...     lr: float = setting(default=0.01, range=Range(low=0))
    ...     steps: int = setting(default=1000, range=Range(low=1, kind="int"))
    ...     rate_name = "lr"
    ...
    ...     def learning_rate(self, step, cur_loss=None):
    ...         return self.lr * (1 + math.cos(math.pi * min(step / self.steps, 1))) / 2
    >>> CosineScheduler(lr=0.5)(step=1000)
    0.0
    """

    rate_name: ClassVar[str | None] = None
    """The keyword that states the starting rate; None if there is none."""

    reads_step: ClassVar[bool] = True
    """Whether the rate depends on the step; if so, `learning_rate` gets an int of at least 0."""

    reads_loss: ClassVar[bool] = False
    """Whether the rate depends on the loss; if so, `learning_rate` gets a finite float."""

    _kind = "scheduler"
    _hint = staticmethod(hint)

    def __init__(self, **hyperparameters: Any) -> None:
        if hyperparameters.keys() != self.ranges.keys():
            got, wanted = ", ".join(hyperparameters), ", ".join(self.ranges)
            raise TypeError(f"{type(self).__name__}: got the keywords ({got}), `ranges` declares ({wanted})")
        vars(self).update(check_values(type(self), hyperparameters))
        self.reset()

    def _begin(self, given: dict[str, Any]) -> None:
        vars(self).update(check_values(type(self), complete(type(self), given)))
        self.reset()

    def __call__(self, step: Any = None, cur_loss: Any = None) -> float:
        """Return the rate of one step. For a schedule that changes as it runs, each call is one step.

        Parameters
        ----------
        step : int or None
            Steps made so far, at least 0. Not used unless `reads_step`.
        cur_loss : float or None
            The loss at this step. Not used unless `reads_loss`.

        Returns
        -------
        float
            The rate: finite, at least 0.

        Raises
        ------
        TypeError, ValueError
            `step` is not an int of at least 0, `cur_loss` is not finite, or the formula gives no rate at this step. The
            schedule has then not changed.
        """
        if self.reads_step:
            step = STEP.check(type(self).__name__, "step", step)
        if self.reads_loss:
            cur_loss = finite_loss(type(self).__name__, cur_loss)
        before = self.state()
        try:
            rate = self.learning_rate(step=step, cur_loss=cur_loss)
            if type(rate) is float and 0 <= rate < math.inf:
                return rate
            return NON_NEGATIVE.check(f"{self} at step {step}", "rate", rate)
        except ArithmeticError as error:
            self.restore(before)
            raise ValueError(f"{self} has no rate at step {step}: {error}") from error
        except BaseException as error:
            self.restore(before)
            error.add_note(f"in {self} at step {step}")
            raise

    @abstractmethod
    def learning_rate(self, step: Any, cur_loss: Any = None) -> float:
        """Return the rate at `step`: the formula, without the checks of a call.

        Parameters
        ----------
        step : int
            Steps made so far.
        cur_loss : float or None
            The loss at this step.

        Returns
        -------
        float
            The rate.
        """

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """``"id"``, the class name, and the values in the documented order: a new dict each time."""
        return {"id": type(self).__name__, **{name: getattr(self, name) for name in self.ranges}}

    def set_params(self, hparam_dict: Mapping[str, Any]) -> None:
        """Change hyperparameters; after an error none has changed.

        Parameters
        ----------
        hparam_dict : mapping
            New values by keyword. ``"id"`` may be there if it is the class name.

        Raises
        ------
        KeyError
            A key is unknown.
        TypeError, ValueError
            A value is of the wrong type or out of range, or ``"id"`` is of another class.
        """
        if not isinstance(hparam_dict, Mapping):
            raise TypeError(
                f"{type(self).__name__}: hparam_dict is a {type(hparam_dict).__name__}; wanted a dict by name"
            )
        now = {name: getattr(self, name) for name in self.ranges}
        vars(self).update(changed_values(type(self), now, hparam_dict))

    def reset(self) -> None:
        """Restart: reset the state, and keep the hyperparameters."""

    def state(self) -> dict[str, Any]:
        """Return what has changed since the start.

        Returns
        -------
        dict
            Numbers, strings, lists and dicts, for `restore`. Empty if the schedule has no state.
        """
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state` was taken.

        Parameters
        ----------
        state : mapping
            What `state` returned.

        Raises
        ------
        TypeError, ValueError
            It is not the state of such a schedule; nothing has changed then.
        """
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state; got {short(state)}")

    def copy(self) -> Self:
        """Return an independent schedule with the same state.

        Returns
        -------
        SchedulerBase
            Of the same class, with its own hyperparameters and state.
        """
        return deepcopy(self)

    def __copy__(self) -> Self:
        """Return `copy`: two schedules never share a history."""
        return deepcopy(self)

    def __repr__(self) -> str:
        """Write a call that `make_scheduler` reads back."""
        return format_call(type(self).__name__, {name: getattr(self, name) for name in self.ranges})
