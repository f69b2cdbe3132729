"""What every optimizer is, whatever its formula: settings, step count and schedule, state by parameter name."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from typing import Any, Never, Self, overload

from .._arrays.tree import check_indices, flatten
from .._arrays.typing import ArrayT, Tree, TreeT
from .._state.cache import State
from .._state.configured import DERIVED
from .._state.misuse import REQUIRED, step_takes_nothing
from .._step.exclusive import COPY, SETTINGS, UPDATE, Turn
from .._step.explanation import Explanation
from .._step.finite import Skipped
from .._step.step import Updating
from ..schedulers import SchedulerBase
from ..schedulers.base import STEP
from ._checkpoints import Checkpoints


class OptimizerBase(Updating, Checkpoints):
    """Base of every optimizer: derive from it, give it a rule, and it is one.

    A subclass declares `slots`, the NamedTuple class of its state, `ranges`, what its hyperparameters may be, and the
    static method ``rule(xp, param, grad, s, h) -> (param, slots)``, one line per equation. It may add the static method
    ``scalars(h) -> dict``, further numbers computed on the host. Its ``__init__`` passes the hyperparameters on by
    keyword.

    Parameters
    ----------
    lr : float
        Learning rate. Finite, at least 0.
    scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it at `lr`. A schedule that states its own rate wins over `lr`;
        for a string or dict that does not, `lr` is the starting rate. An object is copied.
    clip_norm : float or None
        The largest L2 norm that the rule sees of each parameter's gradient. Greater than 0.
    nonfinite : {"propagate", "skip", "raise"}
        What becomes of a step with a gradient, or a product that the rule makes of it, that is not finite. It is made
        like any other; or left out, and counted in `skipped`; or is a FloatingPointError that names the parameters.
    master : bool
        Whether parameters of float16 and bfloat16 have a copy in float32, the slot ``master``, which is updated in
        their place, and rounded.
    rounding : {"nearest", "stochastic"}
        How parameters of float16 and bfloat16 are rounded: to the nearest number, or to one of the two neighbours, with
        the probabilities that make the mean right. Not together with `master`.
    seed : int
        What stochastic rounding draws from, together with name, count and place. At least 0.
    **kwargs : float
        The hyperparameters declared in `ranges`; and ``id``, accepted if it is the name of the class.

    Raises
    ------
    TypeError
        An unknown keyword, a value that is no number, or a class without a rule.
    ValueError
        A value out of its range.

    See Also
    --------
    update, update_all
    """

    def __init__(
        self,
        lr: float,
        scheduler: str | Mapping[str, Any] | SchedulerBase | None = None,
        *,
        clip_norm: float | None = None,
        nonfinite: str = "propagate",
        master: bool = False,
        rounding: str = "nearest",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        if type(self).__init__ is OptimizerBase.__init__:  # a subclass without one of its own takes it by keyword too
            scheduler = kwargs.pop("lr_scheduler", scheduler)
        options = {"nonfinite": nonfinite, "master": master, "rounding": rounding, "seed": seed}
        self._configure(scheduler, {"lr": lr, **kwargs, "clip_norm": clip_norm, **options})
        self._state = State()
        self._skipped = Skipped()
        self._turn = Turn(type(self).__name__)

    # What it remembers

    @property
    def cache(self) -> dict[Hashable, Any]:
        """The state by parameter name: the only truth about it; what is changed here, the next update uses.

        An entry is the slot array itself for a rule with one slot that does not read its count, else a dict of ``"t"``,
        the number of updates, and the slots by name. Deleting an entry forgets shape and count as well.
        """
        return self._state.show()

    @cache.setter
    def cache(self, entries: Mapping[Hashable, Any]) -> None:
        if not isinstance(entries, Mapping):
            raise TypeError(f"cache is a {type(entries).__name__}; wanted a dict of entries by parameter name")

        def change() -> None:
            self._state = self._state.with_entries(entries)

        self._turn.change(SETTINGS, change)

    @property
    def cur_step(self) -> int:
        """The optimisation step, which the schedule reads. Assign any int from 0 to 1.8e308."""
        return self._clock.cur_step

    @cur_step.setter
    def cur_step(self, step: int) -> None:
        self._turn.change(SETTINGS, self._clock.move, int(STEP.check(type(self).__name__, "cur_step", step)))

    @property
    def skipped(self) -> int:
        """How many steps were left out by ``nonfinite="skip"``; to read it is to wait for the device that decides."""
        before = self._skipped
        now = before.read()
        if self._skipped is before:  # no thread that updates has come in between
            self._skipped = now
        return now.on_host

    def step(self, *given: Never) -> None:
        """Count one optimisation step. `update_all` does so itself.

        Parameters
        ----------
        *given : object
            Nothing; `update_all` takes parameters and gradients.

        Raises
        ------
        TypeError
            Something was given.
        """
        if given:
            raise step_takes_nothing(self, len(given))
        self._turn.check_free()  # and no more: these are a few assignments
        self._state.forget()
        self._clock.tick()

    def reset_step(self) -> None:
        """Go back to step 0 and start the schedule over; slots and counts stay."""
        self._turn.change(SETTINGS, self._clock.reset)

    # What the optimizer does

    @overload
    def update(
        self, param: ArrayT, param_grad: Any, param_name: Hashable, cur_loss: Any = None, *, out: ArrayT | None = None
    ) -> ArrayT: ...

    @overload
    def update(
        self, param: Any, param_grad: Any, param_name: Hashable, cur_loss: Any = None, *, out: Any = None
    ) -> Any: ...

    def update(
        self, param: Any, param_grad: Any, param_name: Hashable = REQUIRED, cur_loss: Any = None, *, out: Any = None
    ) -> Any:
        """Update one parameter.

        Parameters
        ----------
        param : array of any shape
            The parameter. It is only read (unless it is `out`). Floats and nested lists become arrays like the other
            argument, or of NumPy's float64.
        param_grad : array like `param`
            The gradient of the loss with respect to it; only read.
        param_name : hashable
            Its name, which leads to its state.
        cur_loss : float or array of shape (), optional
            The loss of this step, for a schedule that reads it. The first one of each pass counts.
        out : array like `param`, optional
            Where to write the result; may be `param`.

        Returns
        -------
        array like `param`
            The new value: `out` if given, else a new array.

        Raises
        ------
        TypeError
            No array, a dtype that cannot be updated, arrays that differ in library or dtype, or a `cur_loss` that is no
            number.
        ValueError
            Arrays that differ in shape or device, a name used for another parameter, an `out` that is read-only; or
            the schedule needs a finite `cur_loss`. After any error nothing has changed.
        FloatingPointError
            The gradient, or a product of it, is not finite, and `nonfinite` is ``"raise"``.

        See Also
        --------
        update_all : The whole model in one call.
        step : Call it after each optimisation step.
        """
        return self._turn.change(UPDATE, self._update, param, param_grad, param_name, cur_loss, out)

    def __call__(
        self,
        param: ArrayT,
        param_grad: Any,
        param_name: Hashable = REQUIRED,
        cur_loss: Any = None,
        *,
        out: ArrayT | None = None,
    ) -> ArrayT:
        """Do what `update` does."""
        return self.update(param, param_grad, param_name, cur_loss, out=out)

    def update_all(self, params: TreeT, grads: Tree, cur_loss: Any = None, *, out: TreeT | None = None) -> TreeT:
        """Update the whole model: one optimisation step, counted when it has succeeded.

        Parameters
        ----------
        params : mapping, list or tuple of array, nested at will
            The parameters. A flat one is named by its key or index, as in `update`; a nested one by the tuple of keys.
            NumPy's scalars, which it makes of arrays of shape (), are taken for such arrays. A float comes back as a
            float; the host waits for it.
        grads : container with the names of `params`
            A gradient of None leaves its parameter and state alone, whatever that parameter is.
        cur_loss : float or array of shape (), optional
            The loss of this step, for a schedule that reads it.
        out : container with the names of `params`, optional
            Where to write the results; may be `params`.

        Returns
        -------
        containers of the kinds of `params`
            The new values: `out` if given, else new arrays.

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            As for `update`, for any parameter; missing or extra names; a list or tuple that is shorter than the indices
            that have state; `out` arrays that share memory. After any error nothing has changed.
        """
        return self._turn.change(UPDATE, self._update_all, params, grads, cur_loss, out)

    def explain(self, params: Tree) -> Explanation:
        """Say how `update_all` would update a model: on which engine, and why not on a faster one.

        Parameters
        ----------
        params : mapping, list or tuple of array, nested at will
            The parameters; only looked at. Gradients are taken to be laid out like them, and results to be new arrays.

        Returns
        -------
        tuple
            A row for each parameter: its `name`, the `engine`, the number of its `launch`, the `state_bytes` of its
            slots, and the `reason` why no faster engine runs it, or ``""``. As text, a table.

        Raises
        ------
        TypeError, ValueError
            As for `update_all`.
        """
        rule, leaves = self._formula_now, flatten(params, "params")
        check_indices(params, leaves, self._state.names)
        take_in, check_new = self._state.take_in, self._check_new
        tasks = {name: take_in(rule, param, param, name, check_new) for name, param in leaves.items()}
        return Explanation.of(tasks, self._values, lambda t: rule.scalars_at(self._settings, self._values["lr"], t))

    # Copies

    def copy(self) -> Self:
        """Return an optimizer with the same settings, state, schedule and step, which goes on alone."""
        return copy.deepcopy(self)

    __copy__ = copy

    def __getstate__(self) -> dict[str, Any]:
        """Pickle all but what is going on."""
        return self._turn.read(COPY, self._parts)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take it back, at rest."""
        vars(self).update(state, _turn=Turn(type(self).__name__))
        vars(self).update(self._settled(self._values))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return `copy`."""
        return self._turn.read(COPY, self._twin, memo)

    # Behind them

    def _twin(self, memo: dict[int, Any]) -> Self:
        twin = object.__new__(type(self))
        memo[id(self)] = twin  # which a schedule may refer to
        parts = vars(self)
        twin.__setstate__({name: copy.deepcopy(parts[name], memo) for name in parts if name not in _MADE_AGAIN})
        return twin

    def _parts(self) -> dict[str, Any]:
        """Return what it is pickled as; the state is taken down here, and may go on while the rest is pickled."""
        parts = {name: value for name, value in vars(self).items() if name not in _MADE_AGAIN}
        return {**parts, "_clock": self._clock.settled({id(self): self}), "_state": self._state.snapshot()}


_MADE_AGAIN = {"_turn", *DERIVED}
"""What copies have of their own."""
