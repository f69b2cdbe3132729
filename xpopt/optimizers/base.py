"""The base class of all optimizers."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Never, Self, cast, overload

from .. import optimizers
from .._arrays.namespace import copy_array, library_of
from .._arrays.typing import ArrayT, Tree, TreeT
from .._engine import choose
from .._graph.rule import NoSlots, Rule
from .._names import NAMES
from .._settings.companion import OTHERS, takes_others
from .._settings.declared import Declared
from .._settings.missing import answers, present
from .._settings.misuse import REQUIRED, check_call, step_takes_nothing
from .._settings.once import once_for
from .._settings.patterns import Patterns
from .._settings.peers import ATTRIBUTES, hint
from .._settings.ranges import FLAG, LEARNING_RATE, NON_NEGATIVE, POSITIVE, Choice, OrNone, Range
from .._settings.registry import Registry
from .._settings.setting import option, setting
from .._settings.table import html_table
from .._settings.text import format_call, short
from .._settings.values import Hyperparameters, complete, shown
from .._state.attributes import ScheduleOf, SettingOf
from .._state.groups import other_of, with_others
from .._state.interrupts import WRITING, enter
from .._state.parts import Parts
from .._state.settings import Settings
from .._step.averaged import averaged
from .._step.exclusive import COPY, LOAD, SAVE, SETTINGS, UPDATE, Exclusive
from .._step.explanation import Explanation
from .._step.scaling import scale_of
from .._step.stationarity import stationarity
from .._step.step import update, update_all
from .._transforms.combinations import check_combinations
from .._transforms.make import BoundsOrMap, Map, NumberOr, OfKind, Several, as_text
from ..prox.base import Proximal
from ..schedulers import SchedulerBase
from ..schedulers.base import STEP
from ..schedulers.kinds.scheduled import Scheduled
from ..transforms.agc import AGC
from ..transforms.average import EMA, SWA, Average
from ..transforms.base import Transform
from ..transforms.lookahead import Lookahead
from ..transforms.loss_scale import DynamicLossScale
from ..transforms.lr_scale import FACTOR
from ..transforms.weight_decay import WeightDecay

if TYPE_CHECKING:  # what reads and writes states is imported where one is read or written
    from .._checkpoint.load import LoadReport
    from .._checkpoint.persist import Anchored
    from .._checkpoint.progress import Progress
    from .._pure.pure import Pure
    from .._solvers.first_order import FirstOrder
    from ..stop import StopRule


_GROUPS = Patterns("{'enc/*': {'lr': 0.1}, 'embed': 'freeze'}")


@answers(ATTRIBUTES)
class OptimizerBase(Scheduled, Declared):
    """Base class of every optimizer: a subclass with a rule is an optimizer.

    A subclass declares `slots`, the NamedTuple class of its state, each hyperparameter with `setting`, and the static
    method ``rule(xp, param, grad, s, h) -> (param, slots)``, one line per equation. It may add the static method
    ``scalars(h) -> dict``, further numbers computed on the host; the static method ``evaluated(xp, param, s, h)``,
    which returns the point at which to evaluate the model, if that is not the parameter; the static method
    ``element_rate(xp, s, h)``, which returns the rate of each element, for a rule that divides by the magnitude of
    gradients; and `entry`, the form of a parameter's state in `cache`: ``"dict"``, or ``"array"``.

    In place of declarations, a class may have `ranges`, the allowed values of its hyperparameters, and an ``__init__``
    that passes them on by keyword.

    Parameters
    ----------
    lr : float or Schedule
        Learning rate. Finite, at least 0. Every float below, except `loss_scale`, may be a schedule, such as
        ``warmup(steps=10) * 0.1``, or a function of the step.
    scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it at `lr`. A schedule that states its own rate wins over `lr`;
        for a string or dict that does not, `lr` is the starting rate. An object is copied.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient; a longer gradient is scaled down. Greater than 0.
    nonfinite : {"propagate", "skip", "raise"}
        What to do in a step in which a gradient, or a product that the rule computes from it, is not finite: make the
        step as usual; or skip it, and count it in `skipped`; or raise a FloatingPointError that names the parameters.
    master : bool
        Whether parameters of float16 and bfloat16 have a copy in float32, the slot ``master``, which is updated in
        their place, and rounded.
    rounding : {"nearest", "stochastic"}
        How parameters of float16 and bfloat16 are rounded: to the nearest number, or to one of the two neighbours, with
        the probabilities that make the mean right. Not together with `master`.
    seed : int
        The seed of stochastic rounding. At least 0.
    slots_dtype : {None, "float16", "bfloat16", "float32"}
        A dtype, no wider than that of the arithmetic, for the slots that are like the parameter and do not declare a
        dtype. Slots that hold parameters, such as a master copy or an average, keep theirs. Values are rounded once
        when they are stored.
    modulus : bool
        Whether a complex parameter has one second moment for both parts, of :math:`|g|^2`, in place of one for each.
        It changes nothing for real parameters. For optimizers with a second moment.
    loss_scale : float or DynamicLossScale
        The number by which the loss was multiplied before differentiation, so that gradients do not underflow in 16
        bits; gradients are divided by it. Greater than 0. A `DynamicLossScale` adapts to the steps; it needs
        ``nonfinite="skip"``, and `cur_loss_scale` is its current value.
    accumulate : int
        The number of gradients of a step, which uses their mean. Until the step is complete they are summed in the slot
        ``grad_sum``, and nothing else changes or is counted. At least 1.
    lr_scale : float or array
        A factor on the learning rate, whatever the schedule: a number, or an array of a parameter's shape. At least 0.
    maximize : bool
        Whether to maximize the function whose gradients are passed.
    bounds : tuple of (float, array or None), or None
        The lower and the upper bound of parameters, with None for an open side; an array has a bound for each element
        of a parameter. Or a map to an interval, ``xpopt.prox.nonnegative``. Where a parameter is at a bound, a gradient
        that points out of it is replaced by 0 before the rule. Bounds are rounded inward to a parameter's dtype.
    prox : Proximal, callable or None
        A map of `xpopt.prox`, such as ``l1(0.1)``, that is applied after the step; or a function of (xp, x). Not
        together with `bounds`.
    clip_value : float or None
        The largest magnitude of each element of a gradient; larger ones are clipped. Greater than 0. It is applied
        before `clip_norm`.
    clip_global : float or None
        The largest joint L2 norm of all gradients of a call of `update_all`, after `clip_value` and `clip_norm`.
        Greater than 0. `update` then raises a TypeError.
    agc : float, AGC or None
        Adaptive gradient clipping: the largest norm of a gradient, as a fraction of its parameter's norm. Greater than
        0. An `AGC` has more settings.
    centralize : bool
        Whether to subtract from each row of a gradient, a slice along its first axis, the mean of the row.
    l2 : float
        The weight of an L2 penalty, whose gradient ``l2 * param`` is added to the gradient. At least 0.
    cautious : bool
        Whether to omit the step of each element in which it does not have the sign of the gradient.
    weight_decay : float or WeightDecay
        Decoupled weight decay: this fraction of each parameter, times the learning rate, is subtracted in addition to
        the step of the rule. At least 0. A `WeightDecay` has more settings.
    lookahead : Lookahead or None
        Slow weights, which move towards the parameters at every k-th step; the parameters are then set to them.
    average : EMA, SWA or None
        A running average of the parameters, the slot ``average``, which `averaged` returns.
    transforms : sequence of Transform
        Your own transforms, each an instance of a different class. Before the rule they are applied in this order, as
        the last ones; after it in the reverse order.
    groups : dict
        Other settings for some parameters, by pattern of their names; the first pattern that matches is used:
        ``{"*/bias": {"lr": 0.1}, "embed": "freeze", "head/*": SGD()}``. A value is a dict of the settings that differ;
        or ``"freeze"``, with which the parameters do not change and have no state; or another optimizer, whose
        algorithm, settings and schedule are copied.
    **settings : object
        The hyperparameters of the class; and ``id``, accepted if it is the name of the class.

    Raises
    ------
    TypeError
        An unknown keyword, a value that is not a number, or a class without a rule.
    ValueError
        A value out of its range.

    See Also
    --------
    update, update_all
    """

    lr: float = setting(range=LEARNING_RATE)
    clip_norm: float | None = setting(default=None, range=OrNone(POSITIVE), neutral=None, kw_only=True)
    lr_scheduler: ScheduleOf = setting(default=None, kw_only=True)
    """The schedule of the learning rate; assign what the constructor takes."""
    nonfinite: Literal["propagate", "skip", "raise"] = option(
        default="propagate", range=Choice(("propagate", "skip", "raise")), kw_only=True, of_step=True
    )
    master: bool = option(default=False, range=FLAG, kw_only=True)
    rounding: Literal["nearest", "stochastic"] = option(
        default="nearest", range=Choice(("nearest", "stochastic")), kw_only=True
    )
    seed: int = option(default=0, range=Range(low=0, kind="int"), kw_only=True)
    slots_dtype: Literal["float16", "bfloat16", "float32"] | None = option(
        default=None, range=OrNone(Choice(("float16", "bfloat16", "float32"))), kw_only=True
    )
    modulus: bool = option(default=False, range=FLAG, kw_only=True, gives_way=True)
    loss_scale: float | DynamicLossScale = option(
        default=1.0, range=NumberOr(DynamicLossScale), kw_only=True, gives_way=True, of_step=True
    )
    accumulate: int = option(default=1, range=Range(low=1, kind="int"), kw_only=True, gives_way=True, of_step=True)
    lr_scale: Any = option(default=1.0, range=FACTOR, kw_only=True, gives_way=True)
    maximize: bool = option(default=False, range=FLAG, kw_only=True, gives_way=True)
    bounds: tuple[Any, Any] | Proximal | type[Proximal] | None = option(
        default=None, range=OrNone(BoundsOrMap()), kw_only=True, gives_way=True
    )
    prox: Proximal | type[Proximal] | Callable[[Any, Any], Any] | None = option(
        default=None, range=OrNone(Map()), kw_only=True, gives_way=True
    )
    clip_value: float | None = option(default=None, range=OrNone(POSITIVE), kw_only=True, gives_way=True)
    clip_global: float | None = option(default=None, range=OrNone(POSITIVE), kw_only=True, gives_way=True)
    agc: float | AGC | None = option(default=None, range=OrNone(NumberOr(AGC)), kw_only=True, gives_way=True)
    centralize: bool = option(default=False, range=FLAG, kw_only=True, gives_way=True)
    l2: float = option(default=0.0, range=NON_NEGATIVE, kw_only=True, gives_way=True)
    cautious: bool = option(default=False, range=FLAG, kw_only=True, gives_way=True)
    weight_decay: float | WeightDecay = option(default=0.0, range=NumberOr(WeightDecay), kw_only=True, gives_way=True)
    lookahead: Lookahead | None = option(
        default=None,
        range=OrNone(OfKind(Lookahead, "Lookahead(every=6, pull=0.5), or None")),
        kw_only=True,
        gives_way=True,
    )
    average: EMA | SWA | None = option(
        default=None,
        range=OrNone(OfKind(Average, "EMA(0.999), SWA(start=1000), or None")),
        kw_only=True,
        gives_way=True,
    )
    transforms: Sequence[Transform] = option(default=(), range=Several(), kw_only=True)
    groups: Mapping[str, Any] = option(default={}, range=_GROUPS, kw_only=True, of_step=True)

    slots: ClassVar[type[Any]] = NoSlots
    follows: ClassVar[type[Any] | None] = None
    """The state of another rule, from which `rule` may go on where settings choose among several: see `Rule`."""
    neutral: ClassVar[Mapping[str, Any]] = {}
    """Hyperparameters that a checkpoint may lack, and the values at which the formula is what it is without them."""
    entry: ClassVar[str] = "dict"
    """The form of a parameter's entry in `cache`: "dict", or "array", the slot itself and no count, if there is one."""
    fused: ClassVar[bool] = True
    """False in a class whose rule cannot be fused, such as one with a matrix product: it runs eagerly, unwarned."""
    axes: ClassVar[int | None] = None
    """How many axes a parameter has that the rule updates, such as 2 for matrices; None if it takes any number."""
    moments: ClassVar[tuple[str, ...]] = ()
    """Slots that are made of squared gradients, or of their magnitudes: what `modulus` makes one for both parts."""
    proximal: ClassVar[bool] = False
    """True in a class whose rule applies `bounds` or `prox` itself, as ``h.project(x)``; they do nothing else then."""
    version: ClassVar[int] = 1
    """Raise it in a class whose slots or hyperparameters change their meaning: checkpoints of another are refused."""

    _kind = "optimizer"
    _pure = cast("Pure | None", None)  # an annotation would make it a setting
    _anchored = cast("Anchored | None", None)
    _hint = staticmethod(hint)

    @classmethod
    def _attribute(cls, name: str) -> Any:
        return ScheduleOf() if name == "lr_scheduler" else SettingOf(name)

    @classmethod
    def _check_together(cls, values: Mapping[str, Any]) -> None:
        check_combinations(cls, values)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse what an optimizer of another library would take, before Python says something less helpful."""
        check_call(cls, args, kwargs)
        return super().__new__(cls)

    def __init__(
        self, lr: float, scheduler: str | Mapping[str, Any] | SchedulerBase | None = None, **settings: Any
    ) -> None:
        self._begin({"lr": lr, "lr_scheduler": scheduler, **settings})

    def _begin(self, given: dict[str, Any]) -> None:
        cls = type(self)
        if not hasattr(cls, "rule"):
            raise TypeError(f"{cls.__name__} has no rule; use one of its subclasses, or write one")
        if cls.entry not in ("dict", "array"):
            raise ValueError(f"{cls.__name__}: entry={cls.entry!r}; wanted 'dict' or 'array'")
        values = complete(cls, given)
        scheduler, groups = values.pop("lr_scheduler"), self._read_groups(values.pop("groups"))
        if takes_others(cls) and (others := self._read_others(values.pop(OTHERS))) is not None:
            groups = {**groups, None: others}
        settings = Settings.checked(cls, values)
        self._parts = Parts.made(settings, scheduler, groups, self._memo())
        for one in self._parts.settings.each:
            choose.begin(one.rule)
        self._exclusive = Exclusive(cls.__name__)

    # Settings

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The settings: ``"id"`` and each value; schedule and transforms as strings that parse back. Read-only.

        ``"lr"`` is the schedule's starting rate where it has one; and where it is a schedule itself, ``"lr_scheduler"``
        is None.
        """
        apart = ("groups", OTHERS) if takes_others(type(self)) else ("groups",)
        values = {name: as_text(value) for name, value in self._parts.keywords().items() if name not in apart}
        if (scheduler := values["lr_scheduler"]) is not None:
            values["lr_scheduler"] = str(scheduler)
        shown = {**values, "groups": self._parts.groups()}
        if takes_others(type(self)):
            shown[OTHERS] = self._parts.others()
        return Hyperparameters({"id": type(self).__name__, **shown})

    def set_params(
        self,
        hparam_dict: Mapping[str, Any] | None = None,
        cache_dict: Mapping[Hashable, Any] | None = None,
        **keywords: Never,
    ) -> None:
        """Change hyperparameters and restore state. After an error nothing has changed.

        Parameters
        ----------
        hparam_dict : mapping, optional
            New values by name, as in `hyperparameters`. ``"lr"`` without ``"lr_scheduler"`` sets the starting rate of
            the present schedule, where it has one.
        cache_dict : mapping, optional
            Entries by parameter name, in the form of `cache`. Their arrays are copied; entries of other names stay.
        **keywords : object
            None; hyperparameters are given in `hparam_dict`.

        Raises
        ------
        KeyError
            A hyperparameter that this optimizer does not have.
        TypeError, ValueError
            A value of the wrong kind or out of its range, another optimizer's ``"id"``, or an entry of the wrong form.
        """
        if keywords:
            raise TypeError(f"set_params takes no keyword {next(iter(keywords))!r}; wanted a dict, {{'lr': 0.1}}")
        changes = _mapping("hparam_dict", hparam_dict, "{'lr': 0.1}")
        cache = _mapping("cache_dict", cache_dict, "opt.cache")
        if "groups" in changes:
            changes = {**changes, "groups": self._read_groups(changes["groups"])}
        if OTHERS in changes and takes_others(type(self)):
            changes = {**changes, OTHERS: self._read_others(changes[OTHERS])}
        self._exclusive.change(SETTINGS, self._parts.change, changes, cache, self._memo())

    def __dir__(self) -> list[str]:
        """List the attributes that there are."""
        return present(self, super().__dir__())

    def __repr__(self) -> str:
        """Write the call that makes an optimizer with these settings; `make_optimizer` reads it."""
        return format_call(type(self).__name__, shown(type(self), self._parts.keywords()))

    def _repr_html_(self) -> str:
        """Write the settings as a table for a notebook."""
        settings = shown(type(self), self._parts.keywords())
        count = len(self._parts.state.names)
        known = f"step {self.cur_step}, {count} {'parameter' if count == 1 else 'parameters'}"
        rows = ((name, repr(value)) for name, value in settings.items())
        return html_table(("setting", "value"), rows, f"{type(self).__name__}: {known}")

    # State

    @property
    def cache(self) -> dict[Hashable, Any]:
        """The state by parameter name. The next update uses what is changed here.

        An entry is a dict of ``"t"``, the number of updates, and the slots by name; or the slot array itself, where
        there is one and the class declares `entry` as ``"array"``. Deleting an entry deletes the shape and the count of
        its name as well.
        """
        return self._parts.state.ownership.show()

    @cache.setter
    def cache(self, entries: Mapping[Hashable, Any]) -> None:
        if not isinstance(entries, Mapping):
            raise TypeError(f"cache is a {type(entries).__name__}; wanted a dict of entries by parameter name")

        def change() -> None:
            self._parts.state = self._parts.state.with_entries(entries)

        self._exclusive.change(SETTINGS, change)

    @property
    def cur_step(self) -> int:
        """The optimization step, which the schedule reads. Assign any int from 0 to 1.8e308."""
        return self._parts.clock.cur_step

    @cur_step.setter
    def cur_step(self, step: int) -> None:
        self._exclusive.change(SETTINGS, self._parts.clock.move, int(STEP.check(type(self).__name__, "cur_step", step)))

    @property
    def skipped(self) -> int:
        """How many steps ``nonfinite="skip"`` has skipped; reading it synchronizes with the device that decides."""
        return self._parts.count_skipped()

    @property
    def cur_loss_scale(self) -> Any:
        """The number by which to multiply the next loss: a float, or an array on the device that computes it."""
        scale = scale_of(self._parts)
        if scale is None:
            return self.loss_scale
        return scale.value if library_of(scale.value) is None else copy_array(scale.value)

    def step(self, *given: Never) -> None:
        """Count one optimization step, if `accumulate` completes it; `update_all` counts its own.

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
        self._exclusive.check_free()  # and no more: these are a few assignments
        parts = self._parts
        parts.state.forget()
        if parts.scale is not None and parts.settings.dynamic is not None:
            parts.scale = parts.scale.ended(parts.settings.dynamic)
        parts.clock.tick(parts.settings.accumulate)

    def reset_step(self) -> None:
        """Set the step to 0 and restart the schedule; slots and counts do not change."""
        self._exclusive.change(SETTINGS, self._parts.clock.reset)

    # Updates

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
            The parameter, of real or complex numbers. It is only read (unless it is `out`). Numbers and nested lists
            become arrays like the other argument, or of NumPy's float64 or complex128.
        param_grad : array like `param`
            The gradient of the loss with respect to it, of steepest ascent if it is complex; only read. Of another
            floating dtype, it is converted once to that of the arithmetic.
        param_name : hashable
            Its name, which leads to its state.
        cur_loss : float or array of shape (), optional
            The loss of this step, for a schedule that reads it. The first one of each pass is used.
        out : array like `param`, optional
            Where to write the result; may be `param`.

        Returns
        -------
        array like `param`
            The new value: `out` if given, else a new array.

        Raises
        ------
        TypeError
            No array, a dtype that cannot be updated, arrays that differ in library, or a `cur_loss` that is not a
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
        return self._exclusive.change(UPDATE, update, self._parts, param, param_grad, param_name, cur_loss, out)

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
        """Update the whole model: one optimization step, which is counted when it has succeeded.

        Parameters
        ----------
        params : container of array, nested at will
            The parameters, in mappings, lists, tuples, dataclasses, and classes that JAX or PyTorch knows as pytrees. A
            flat one is named by its key, index or field, as in `update`; a nested one by the tuple of these. NumPy's
            scalars are treated as arrays of shape (). For a float, the result is a float; the host waits for it.
        grads : container with the names of `params`
            Where a gradient is None, the parameter and its state do not change; the parameter may then be any object.
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
            that have state; a pattern of `groups` that matches none of the parameters; `out` arrays that share memory.
            After any error nothing has changed.
        """
        return self._exclusive.change(UPDATE, update_all, self._parts, params, grads, cur_loss, out)

    def solver(self, params: Any, stop: StopRule | Callable[[Mapping[str, Any]], Any] | None = None) -> FirstOrder:
        """Return a solver that asks for gradients, and makes one update with each.

        Parameters
        ----------
        params : tree of array, or array
            Where to start; copied.
        stop : StopRule or callable, optional
            When to stop. By default, when no element of the gradient is larger than 1e-5, when 100 steps improve the
            best value by less than 1e-9 of it, or after 10,000 steps.

        Returns
        -------
        Solver
            A solver with a copy of this optimizer. A value or gradient that is not finite changes neither parameters
            nor state, and lowers a `DynamicLossScale`; ten in a row stop the solver.

        Raises
        ------
        TypeError, ValueError
            A parameter is no array that can be updated, or they differ in library or device; or `stop` is no rule.

        See Also
        --------
        xpopt.minimize : The loop around a solver.

        Examples
        --------
        >>> import numpy as np
        >>> import xpopt
        >>> solver = xpopt.Adam(lr=0.1).solver(np.array([1.0, -2.0]), stop=xpopt.stop.steps(200))
        >>> while not solver.done:
        ...     x = solver.ask()
        ...     solver.tell(x @ x, 2 * x)
        >>> solver.reason
        '200 steps were made'
        """
        from .._solvers.first_order import FirstOrder

        return FirstOrder(self, params, stop)

    def explain(self, params: Tree) -> Explanation:
        """Return which engine `update_all` would use for each parameter of a model, and why not a faster one.

        Parameters
        ----------
        params : container of array, nested at will
            The parameters, which are not changed. Gradients are assumed to have their memory layout, and results to be
            new arrays.

        Returns
        -------
        tuple
            A row for each parameter: its `name`, the `engine`, the number of its `launch`, the `state_bytes` of its
            slots, and the `reason` why no faster engine runs it, or ``""``; and, as attributes, its `group`, the name
            of the `algorithm`, the starting `lr` and weight `decay`, and the names of its `slots`. It is shown as a
            table, with columns for group, algorithm, rate and decay if these differ.

        Raises
        ------
        TypeError, ValueError
            As for `update_all`.
        """
        return Explanation.of(self._parts, params)

    def pure(self) -> Pure:
        """Return the pure form: a step as a function of its arguments alone, for libraries that trace functions.

        It starts with the settings, the state and the step that the optimizer has now, and does not change the
        optimizer; `take` copies its state back.

        Returns
        -------
        Pure
            With ``init(params)``, which returns slots; ``numbers(cur_loss=None)``, on the host; and
            ``update(params, grads, slots, numbers)``, which returns new parameters and slots.

        Raises
        ------
        ValueError
            The optimizer has ``nonfinite="raise"``, `accumulate` or a `DynamicLossScale`.

        Examples
        --------
        >>> import numpy as np
        >>> import xpopt
        >>> opt = xpopt.Adam(lr=0.1)
        >>> pure = opt.pure()
        >>> params = {"W": np.array([1.0, -2.0])}
        >>> slots = pure.init(params)
        >>> for _ in range(3):
        ...     params, slots = pure.update(params, params, slots, pure.numbers())
        >>> params["W"].round(3), slots["W"]["mean"].round(3)
        (array([ 0.702, -1.701]), array([ 0.242, -0.513]))
        >>> opt.take(slots)
        >>> opt.cur_step
        3
        """
        from .._pure.pure import Pure

        self._pure = self._exclusive.read(COPY, lambda: Pure(self._parts, self._memo()))
        return self._pure

    def take(self, slots: Any) -> None:
        """Take slots, counts, schedule and step back from the last pure form.

        Parameters
        ----------
        slots : containers
            The slots that its ``update`` returned last; they are copied.

        Raises
        ------
        RuntimeError
            There is no pure form, or its `init` was not called.
        ValueError
            They are not those of its model, or settings have changed since `pure`. Nothing has changed.
        """
        pure = self._pure
        if pure is None:
            raise RuntimeError("take copies back the state of a pure form, and there is none; call pure() first")
        from .._pure.taking import take

        self._exclusive.change(LOAD, lambda: take(self._parts, pure, slots, self._memo()))

    def persist(self, params: TreeT, *, anchor: str | os.PathLike[str] | None = None, every: int = 100) -> TreeT:
        """Let Dask compute parameters and state, and keep them: its graphs do not grow from step to step then.

        Call it after each update, with any scheduler of Dask. With one that is distributed it returns at once.

        Parameters
        ----------
        params : container of array, nested at will
            The parameters after the last update. Arrays that are not of Dask come back as they are.
        anchor : path-like, optional
            A folder that all workers reach. Every `every` steps they write parameters and state there, in zarr arrays,
            and read them from there from then on: a scheduler remembers nothing from before, and what a lost worker had
            is computed again from there. The two last anchors are kept. If the step has gone back, as after
            `reset_step`, the next call writes an anchor.
        every : int
            How many steps are between two anchors. At least 1.

        Returns
        -------
        containers of the kinds of `params`
            The parameters, with the same values.

        Raises
        ------
        TypeError
            No parameter is an array of Dask, or a name or a schedule is one that a checkpoint does not keep.
        ValueError
            `every` is less than 1, or `anchor` has an anchor of another run. Nothing has changed.
        ImportError
            zarr is not installed, and there is an `anchor`.

        See Also
        --------
        restore_anchor : Go on from the last anchor, in another process.

        Examples
        --------
        >>> import dask.array as da  # doctest: +SKIP
        >>> import xpopt
        >>> opt = xpopt.SGD(lr=0.25)
        >>> params = {"W": da.ones(4, chunks=2)}  # doctest: +SKIP
        >>> for _ in range(3):  # doctest: +SKIP
        ...     params = opt.update_all(params, {"W": 2 * params["W"]})
        ...     params = opt.persist(params)
        >>> params["W"].compute()  # doctest: +SKIP
        array([0.125, 0.125, 0.125, 0.125])
        """
        from .._checkpoint.persist import persist

        tree, self._anchored = self._exclusive.change(
            SETTINGS, persist, self._parts, params, anchor, every, self._anchored
        )
        return cast("TreeT", tree)

    def restore_anchor(self, anchor: str | os.PathLike[str], like: TreeT) -> TreeT:
        """Go on from the last anchor that `persist` has written.

        Parameters
        ----------
        anchor : path-like
            The folder.
        like : container of array, nested at will
            Arrays like the parameters: of Dask, in the chunks that are wanted, each of which is read where it is used
            and when; or of other libraries, which are read at once.

        Returns
        -------
        containers of the kinds of `like`
            The parameters.

        Raises
        ------
        FileNotFoundError
            There is no anchor.
        CheckpointError
            It is damaged, or does not fit; every reason is listed, and nothing has changed.
        ImportError
            zarr is not installed.

        See Also
        --------
        persist
        """
        from .._checkpoint.persist import restore

        def change() -> TreeT:
            header, arrays, params, anchored = restore(anchor, like)
            self._become(header, arrays, like=like, strict=True, rename=None, cast=False, owned=True)
            self._anchored = anchored
            return cast("TreeT", params)

        return self._exclusive.change(LOAD, change)

    def averaged(self, params: Tree) -> Any:
        """Return the parameters to evaluate the model with: averages, in new arrays.

        The result can be used as a context manager: inside the ``with`` block, the caller's own arrays hold the
        averages, and at its end they are restored bit for bit. In the block the optimizer cannot update.

        Parameters
        ----------
        params : container of array, nested at will
            The parameters after the last update, by the names of their updates; only read, except in a ``with`` block.

        Returns
        -------
        containers of the kinds of `params`
            The averages, like the parameters. A parameter that has no average is returned unchanged: one that is
            frozen, whose group has no average, or that was never updated. For arrays that can be written, the outermost
            container is a dict if that of `params` is a mapping; if it is a class that is registered as a pytree, the
            result is not a context manager.

        Raises
        ------
        ValueError
            There is no `average`; or none of `params` was ever updated; or, for ``with``, an array is read-only.
        TypeError
            `params` is not a container; or, for ``with``, an array cannot be written, such as one of JAX or Dask.
        RuntimeError
            An update is under way, or the parameters are averaged already, by a block that has not ended.

        Examples
        --------
        >>> import numpy as np
        >>> import xpopt
        >>> opt = xpopt.SGD(lr=1.0, average=xpopt.SWA(start=0))
        >>> params = {"W": np.array([3.0])}
        >>> for grad in (1.0, 2.0):
        ...     params = opt.update_all(params, {"W": np.array([grad])})
        >>> opt.averaged(params)  # of 3, 2 and 0
        {'W': array([1.66666667])}
        >>> with opt.averaged(params):
        ...     params["W"]
        array([1.66666667])
        >>> params["W"]
        array([0.])
        """
        return averaged(self._parts, self._exclusive, params)

    def stationarity(self, params: Tree, grads: Tree, *, step: float = 1.0) -> Any:
        r"""Return the norm of the proximal gradient, which is 0 at a minimum under `bounds` or `prox`.

        .. math:: \frac{1}{s} \lVert x - \operatorname{prox}_s(x - s g) \rVert_2

        Without `bounds` and `prox` it is the norm of the gradient; with bounds and a step of 1 that of the projected
        gradient, of which L-BFGS-B tests the largest element.

        Parameters
        ----------
        params : container of array, nested at will
            The parameters, as for `update_all`; only read. For an optimizer whose result is not the parameter, such as
            `FISTA`, pass what `averaged` returns.
        grads : container with the names of `params`
            The gradients there. Parameters that are frozen, or whose gradient is None, are left out.
        step : float
            The step :math:`s`, in units of the parameter per unit of the gradient. Greater than 0.

        Returns
        -------
        array of shape ()
            The joint norm of all parameters, in their library and on their device: float64, or float32 where the device
            has no float64. The host does not wait for a device, and Dask arrays stay lazy.

        Raises
        ------
        TypeError, ValueError
            As for `update_all`; or arrays of several libraries or devices, or a `step` that is not a number above 0.

        Notes
        -----
        `maximize`, `l2` and `loss_scale` (its current value, `cur_loss_scale`) define the function whose gradient is
        used. Clipping, decay and other transforms are ignored.

        References
        ----------
        .. [1] Beck, "First-Order Methods in Optimization", SIAM 2017, definition 10.5: the gradient mapping.
        .. [2] Byrd, Lu, Nocedal and Zhu, "A limited memory algorithm for bound constrained optimization", SIAM Journal
           on Scientific Computing 16(5), 1995, eq. 6.1.

        Examples
        --------
        >>> import numpy as np
        >>> import xpopt
        >>> opt = xpopt.SGD(lr=0.1, bounds=(0, None))
        >>> x = np.array([0.0, 1.0])
        >>> float(opt.stationarity({"x": x}, {"x": np.array([3.0, 0.5])}))  # at its bound, the first cannot go down
        0.5
        """
        return stationarity(self._parts, params, grads, step)

    @classmethod
    def choose_rule(cls, settings: Mapping[str, Any]) -> Rule | tuple[Rule, ...]:
        """Return the formula that updates parameters; a class that has more than one overrides this.

        It is called when an optimizer is made and when its settings change.

        Parameters
        ----------
        settings : mapping
            Every hyperparameter by name, to be read.

        Returns
        -------
        Rule or tuple of Rule
            The rule that `settings` select. If there are several, a parameter is updated by the first whose `where` is
            true for its dtype and shape; the last has no `where` and updates the others. By default, the rule made of
            `rule`, `slots` and `scalars`.
        """
        own: Any = cls
        scalars = getattr(cls, "scalars", None)
        return once_for(
            cls,
            "_rule_once",
            lambda: Rule(
                *(own.rule, cls.slots, scalars),
                follows=cls.follows,
                entry=cls.entry,
                fused=cls.fused,
                proximal=cls.proximal,
                element_rate=getattr(cls, "element_rate", None),
                evaluated=getattr(cls, "evaluated", None),
            ),
        )

    # Copies and checkpoints

    def copy(self) -> Self:
        """Return an independent optimizer with the same settings, state, schedule and step."""
        return copy.deepcopy(self)

    __copy__ = copy

    def __getstate__(self) -> dict[str, Any]:
        """Pickle all but what is going on."""
        return self._exclusive.read(COPY, lambda: {**self._others(), "_parts": self._parts.snapshot(self._memo())})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take it back, at rest."""
        vars(self).update(state, _exclusive=Exclusive(type(self).__name__))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return `copy`."""
        return self._exclusive.read(COPY, self._twin, memo)

    def state_dict(self, copy: bool = True) -> dict[str, Any]:
        """Return settings, schedule, step and state, as plain data and arrays.

        Parameters
        ----------
        copy : bool
            Whether the arrays are copies. If not, they are the slots themselves, which must not be written; later
            updates do not write them either.

        Returns
        -------
        dict
            ``"header"``, a dict that can be written as JSON: settings, schedule and its state, step, and name, shape,
            dtype, count of updates and slots of each parameter. ``"arrays"``, the slots by a flat name, each in the
            library and on the device of its parameter.

        Raises
        ------
        TypeError
            A parameter name, or the state of a schedule, is of a type that a checkpoint cannot hold.
        ValueError
            The cache holds an entry of the wrong form.

        See Also
        --------
        load_state_dict, save
        """
        from .._checkpoint.save import as_dict

        return self._exclusive.read(COPY, lambda: as_dict(self._parts, copy))

    def load_state_dict(
        self,
        state: Mapping[str, Any],
        *,
        strict: bool = True,
        rename: Mapping[Hashable, Hashable] | None = None,
        like: Tree | None = None,
        cast: bool = False,
    ) -> LoadReport:
        """Load settings, schedule, step, and the state of each parameter from what `state_dict` returned.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned; it is copied.
        strict : bool
            Whether a parameter that does not fit is an error. If not, its state is not loaded, and starts as new at its
            next update. Another algorithm or version is always an error.
        rename : mapping, optional
            New parameter names by old ones, ``{"old*": "new*"}``: the text that ``*`` matches is kept. In a tuple each
            string may have stars, and a last ``"*"`` matches the rest of the tuple.
        like : container of arrays, optional
            The parameters, as `update_all` takes them: each state goes to the library and device of its parameter, and
            must agree with it in shape and dtype. Without it, state goes there at the parameter's first update.
        cast : bool
            Whether state is converted to the dtype that `like` asks for, where these differ.

        Returns
        -------
        LoadReport
            ``loaded``, the names of the parameters, and ``not_loaded``, a dict of reasons by name, which is empty if
            `strict`.

        Raises
        ------
        CheckpointError
            The state is damaged or does not fit; every reason is listed, and nothing has changed.
        TypeError, ValueError
            An argument is of the wrong kind.

        See Also
        --------
        state_dict, load
        """
        options: dict[str, Any] = {"strict": strict, "rename": rename, "like": like, "cast": cast}
        from .._checkpoint.reading import header_and_arrays

        return self._exclusive.change(LOAD, lambda: self._become(*header_and_arrays(state), **options, owned=False))

    def save(self, path: str | os.PathLike[str], *, progress: Progress = None) -> None:
        """Write what `state_dict` returns to a safetensors file.

        The save is atomic: the file is written under another name, flushed to the disk, and renamed. If it is
        interrupted, an older file is unchanged.

        Parameters
        ----------
        path : path-like
            The file; an older one is replaced.
        progress : callable, bool or None
            ``progress(done_bytes, total_bytes)`` is called as the work goes on, the last time with both equal once the
            file is on the disk. True shows a line on stderr.

        Raises
        ------
        ImportError
            safetensors is not installed.
        OSError
            The file cannot be written; an older one is unchanged.
        TypeError, ValueError
            As for `state_dict`.

        See Also
        --------
        load, xpopt.load_optimizer
        """
        from .._checkpoint.save import to_file

        self._exclusive.read(SAVE, lambda: to_file(self._parts, path, progress))

    def load(
        self,
        path: str | os.PathLike[str],
        *,
        strict: bool = True,
        rename: Mapping[Hashable, Hashable] | None = None,
        like: Tree | None = None,
        cast: bool = False,
        progress: Progress = None,
    ) -> LoadReport:
        """Load settings, schedule, step and state from a file that `save` wrote.

        Parameters
        ----------
        path : path-like
            The file.
        strict : bool
            As for `load_state_dict`, and so are the next three.
        rename : mapping, optional
            New parameter names by old ones.
        like : container of arrays, optional
            The parameters. Without them, the cache holds NumPy arrays until the first update of each parameter.
        cast : bool
            Whether state is converted to the dtype that `like` asks for.
        progress : callable, bool or None
            As for `save`.

        Returns
        -------
        LoadReport
            As for `load_state_dict`.

        Raises
        ------
        ImportError
            safetensors is not installed.
        FileNotFoundError, OSError
            There is no such file, or it cannot be read.
        CheckpointError
            The file is damaged or does not fit; every reason is listed, and nothing has changed.
        TypeError, ValueError
            An argument is of the wrong kind.

        See Also
        --------
        save, xpopt.load_optimizer
        """
        from .._checkpoint import file

        options: dict[str, Any] = {"strict": strict, "rename": rename, "like": like, "cast": cast}
        with file.naming(path):
            return self._exclusive.change(LOAD, lambda: self._become(*file.read(path, progress), **options, owned=True))

    # Helpers

    def _memo(self) -> dict[int, Any]:
        """Return what copies of a schedule refer to where the schedule refers to this optimizer."""
        return {id(self): self}

    def _read_groups(self, groups: Any) -> Mapping[str | None, Any]:
        """Return groups as parts take them."""
        owner = type(self).__name__
        return {
            pattern: with_others(f"{owner}: groups[{short(pattern)}]", given, OPTIMIZERS, self)
            for pattern, given in _GROUPS.check(owner, "groups", groups).items()
        }

    def _read_others(self, others: Any) -> Any:
        """Return the optimizer of parameters of other shapes in the same form; None if there is none."""
        return None if others is None else other_of(f"{type(self).__name__}: {OTHERS}", others, OPTIMIZERS, self)

    def _others(self) -> dict[str, Any]:
        """Return the attributes that a subclass has added."""
        return {name: value for name, value in vars(self).items() if name not in _OWN}

    def _twin(self, memo: dict[int, Any]) -> Self:
        twin = object.__new__(type(self))
        memo[id(self)] = twin  # which a schedule may refer to
        twin.__setstate__(copy.deepcopy({**self._others(), "_parts": self._parts}, memo))
        return twin

    def _become(self, header: Any, arrays: Mapping[str, Any], **options: Any) -> LoadReport:
        from .._checkpoint.load import load

        parts, report = load(self._parts, header, arrays, find=OPTIMIZERS.find, **options)
        enter(WRITING)
        self._parts = parts
        return report


_OWN = ("_parts", "_exclusive", "_pure", "_anchored")
"""The attributes of every optimizer, which are copied and pickled in ways of their own, or not at all."""

OPTIMIZERS: Registry[OptimizerBase] = Registry(
    OptimizerBase,
    NAMES["Optimizers"],
    lambda name: getattr(optimizers, name),
    lambda cls: hasattr(cls, "rule"),
    group="xpopt.optimizers",
)
"""The optimizers by name."""


def _mapping(what: str, value: Mapping[Any, Any] | None, example: str) -> Mapping[Any, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(f"{what} is a {type(value).__name__}; wanted a dict, such as {example}")
    return value or {}
