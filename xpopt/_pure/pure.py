"""The pure form: slots, the numbers of each step, and the step."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from .._arrays.library import Library
from .._arrays.namespace import copy_array
from .._arrays.parameter import Spec, dtype_text
from .._arrays.tree import flatten, matched, rebuild, show
from .._arrays.typing import Array, Tree
from .._engine.tensor import Tensor
from .._graph.rule import Rule
from .._state.clock import Clock
from .._state.groups import check_matched
from .._state.parts import Parts
from .._state.settings import Settings
from .._step.check import check
from .._step.draws import key_of
from .._step.exclusive import UPDATE, Exclusive
from .._step.loss import check_loss, read_loss
from .called import Called
from .checks import check_given, check_names, check_options, check_state, library_for
from .formula import Formula
from .leaf import Leaf
from .numbers import Given, Row, row_key, rows_of
from .places import at, paths
from .together import all_stepped


class Pure:
    """An optimizer as functions: `init`, `numbers` on the host, and `update`, which is pure in every argument.

    `OptimizerBase.pure` makes it. What the optimizer is set to at that time, it is set to; what is done with it leaves
    the optimizer as it is, until `OptimizerBase.take`.

    Parameters
    ----------
    parts : Parts
        The optimizer's, whose state it begins with.
    memo : dict
        For copies of schedules: the optimizer by its id.

    Raises
    ------
    ValueError
        The optimizer has an option that a step without a host cannot have.
    """

    def __init__(self, parts: Parts, memo: dict[int, Any]) -> None:
        check_options(parts.settings)
        self.settings = parts.settings
        self._state = parts.state.snapshot()
        self.clock: Clock = copy.deepcopy(parts.clock, memo)
        self.skipped = parts.skipped
        self.leaves: dict[Hashable, Leaf] = {}
        self.steps = 0
        """How many numbers have been given."""
        self._rows: dict[Any, Row] = {}
        self._exclusive = Exclusive(f"pure form of {parts.settings.cls.__name__}")

    @property
    def cur_step(self) -> int:
        """The step of which `numbers` comes next."""
        return self.clock.cur_step

    def init(self, params: Tree) -> Any:
        """Return the state of a model: what the optimizer has of each parameter, else what it starts as.

        Parameters
        ----------
        params : container of array, nested at will
            The parameters, of one library. They may be traced, as under ``jax.vmap`` or ``jax.eval_shape``.

        Returns
        -------
        containers of the kinds of `params`
            In the place of each parameter a dict of arrays: its slots by name, and with ``nonfinite="skip"`` also
            ``"skipped"``, how many steps were left out. It is empty for a parameter that is frozen.

        Raises
        ------
        TypeError, ValueError
            As for `OptimizerBase.update_all`; or arrays of several libraries, or a rule that cannot be read.
        """
        return self._exclusive.change(UPDATE, self._init, params)

    def numbers(self, cur_loss: Any = None) -> dict[str, Any]:
        """Return the numbers of the next step, and count it: rates, counts, and all that follows from them.

        Parameters
        ----------
        cur_loss : float or array of shape (), optional
            The loss of this step, for schedules that read it: a number that the host has.

        Returns
        -------
        dict of str to ndarray
            ``"values"``, float64, one number after the other; with ``rounding="stochastic"`` also ``"keys"``, int32 of
            shape (parameters, 2). Shapes and dtypes are the same at every step, so that nothing is compiled again; and
            those of several steps may be stacked, for ``jax.lax.scan``.

        Raises
        ------
        RuntimeError
            `init` has not been called.
        TypeError, ValueError
            `cur_loss` is not a number, or a schedule's number is out of range. Nothing is counted then.
        """
        if not self.leaves:
            raise RuntimeError(
                "numbers needs the parameters of the model, which are not known yet; call init(params) first"
            )
        return self._exclusive.change(UPDATE, self._numbers, cur_loss)

    def update(self, params: Tree, grads: Tree, slots: Any, numbers: Mapping[str, Any]) -> tuple[Any, Any]:
        """Make a step: a function of its arguments alone, in which nothing is kept or written.

        Parameters
        ----------
        params : containers as for `init`
            The parameters.
        grads : container with the names of `params`
            Their gradients. None is for parameters that are frozen.
        slots : containers as `init` returned
            The state.
        numbers : dict
            What `numbers` returned, or its arrays in the library of `params`.

        Returns
        -------
        params : containers like `params`
            The new values.
        slots : containers like `slots`
            The new state.

        Raises
        ------
        TypeError, ValueError
            Parameters, gradients, slots or numbers that are not those of the model that `init` got.
        """
        if not self.leaves:
            raise RuntimeError(
                "update needs the parameters of the model, which are not known yet; call init(params) first"
            )
        leaves = flatten(params, "params")
        check_names(self.leaves, leaves)
        gradients = matched(leaves, flatten(grads, "grads"), "grads")
        # NumPy's arithmetic makes scalars of arrays of shape ()
        gradients = {name: np.asarray(x) if isinstance(x, np.generic) else x for name, x in gradients.items()}
        library = next(iter(self.leaves.values())).library
        for name, leaf in self.leaves.items():
            check_given(leaf, leaves[name], gradients[name])
        guarded = library.guard_recorded(self._update)
        return guarded(next(iter(leaves.values())), params, leaves, gradients, slots, numbers)

    def _init(self, params: Tree) -> Any:
        given = flatten(params, "params")
        if not given:
            raise ValueError("params is empty; wanted a container of arrays")
        if self.settings.groups:
            check_matched(self.settings, given)
        where = paths(params)
        found: dict[Hashable, Leaf] = {}
        states: dict[Hashable, Any] = {}
        library: Library | None = None
        made: dict[Any, Any] = {}
        for name, param in given.items():
            library = library_for(param, name, library)
            found[name], held = self._leaf(name, where[name], library, param, made)
            states[name] = library.guard_recorded(found[name].start)(param, held)
        self.leaves, self._rows = found, rows_of(found)
        return rebuild(params, states.__getitem__)

    def _leaf(
        self, name: Hashable, path: tuple[Hashable, ...], library: Library, param: Any, made: dict[Any, Any]
    ) -> tuple[Leaf, Any]:
        """Return what is known of a parameter, and the slots that it has."""
        own = self.settings.of(name, param.shape)
        traced = library.is_traced(param)
        device = None if traced else library.place(param)
        spec = Spec(library.name, param.dtype, tuple(param.shape), device or "", library.compute_dtype(param.dtype))
        rule = own.rule.of(dtype_text(spec.dtype), spec.shape)
        h = own.numbers_at(1)
        if own.frozen:
            return Leaf(name, path, library, spec, own, rule, None, h, 0, device), None
        own.check_fit(spec, name)
        t, held = 0, None
        if name in self._state.names:
            if traced:
                raise TypeError(f"parameter {show(name)} is traced, and has a state; call init outside jit and vmap")
            tensor: Tensor = check(self._state, own.rule, param, param, name, own.check_fit)
            t = tensor.t - 1
            if tensor.slots is not None:  # copies, for a caller may donate them
                held = [None if x is None else copy_array(x) for x in tensor.slots]
        if any(isinstance(of.start, str) for of in rule.specs) and held is None:
            h = self._first(own, made)
        key = own.number, rule
        if key not in made:
            made[key] = self._formula(own, rule, h)
        return Leaf(name, path, library, spec, own, rule, made[key], h, t - self.steps, device), held

    def _formula(self, own: Settings, rule: Rule, h: Any) -> Formula | Called:
        """Return what computes a step: the rule as it is read, or else called."""
        if rule.fused or rule.whole:
            return Formula(rule, h)
        draws = () if self.settings.drawn is None else self.settings.drawn.draws
        return Called(rule, h, own.of_rule, {one.name for one in draws if one.group == own.number})

    def _first(self, own: Settings, made: dict[Any, Any]) -> Any:
        """Return the numbers of the next step, which is not counted, for slots that start at one of them."""
        if own.number not in made:
            clock = copy.deepcopy(self.clock)
            lr = clock.ask_whole(None, self.settings.drawn)
            rate = clock.rate_of(own.number, lr)
            made[own.number] = own.numbers_at(1, rate, drawn=clock.numbers_of(own.number))
        return made[own.number]

    def _numbers(self, cur_loss: Any) -> dict[str, Any]:
        settings, clock = self.settings, self.clock
        check_loss(cur_loss, "params")
        others = read_loss(cur_loss, settings.cls.__name__) if settings.reads_loss else None
        try:
            lr = clock.ask_whole(cur_loss, settings.drawn)
            values: list[float] = []
            for row in self._rows.values():
                k = row.settings.number
                rate = clock.rate_of(k, lr) if k else lr
                h = row.settings.numbers_at(row.t + self.steps + 1, rate, others, clock.numbers_of(k))
                values += row.formula.numbers(h)
            found = {"values": np.array(values, np.float64)}
            keys = [
                key_of(leaf.settings.values, leaf.spec, name, leaf.t + self.steps + 1)
                for name, leaf in self.leaves.items()
                if leaf.is_rounded()
            ]
            if keys:
                found["keys"] = np.array(keys, np.int32)
        except BaseException:
            clock.take_back()
            raise
        clock.confirm_whole(clock.cur_step + 1)
        self.steps += 1
        return found

    def _update(
        self,
        like: Array,
        params: Tree,
        leaves: Mapping[Hashable, Array],
        gradients: Mapping[Hashable, Any],
        slots: Any,
        numbers: Mapping[str, Any],
    ) -> tuple[Any, Any]:
        states = {name: at(slots, leaf.path, name) for name, leaf in self.leaves.items()}
        steps = {}
        given = Given(self.leaves[next(iter(leaves))].library, like, numbers, self._rows)
        rounded = 0
        for name, leaf in self.leaves.items():
            if leaf.formula is None:
                continue
            check_state(leaf, states[name])
            key = None
            if leaf.is_rounded():
                key, rounded = given.key(rounded), rounded + 1
            steps[name] = leaf.step(leaves[name], gradients[name], states[name], *given.of(row_key(leaf), leaf), key)
        stepped = all_stepped(steps)
        proceed = None
        if self.settings.values["nonfinite"] == "skip" and stepped:
            xp = given.library.xp
            proceed = xp.all(xp.stack([flag for one in stepped.values() for flag in one.is_finite()]))
        ended = {name: one.ended(leaves[name], states[name], proceed) for name, one in stepped.items()}
        new = {name: ended[name] if name in ended else (leaves[name], states[name]) for name in leaves}
        return rebuild(params, lambda name: new[name][0]), rebuild(params, lambda name: new[name][1])
