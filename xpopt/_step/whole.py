"""The update of a whole model: by the plan of its last update as far as there is one, and else tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from .._arrays.containers import calls_classes, is_container
from .._arrays.memory import find_shared
from .._arrays.namespace import copy_array, writer
from .._arrays.parameter import Spec, as_number, check_out, check_resting, examine_resting, is_number, lies_in_memory
from .._arrays.tree import check_indices, flatten, matched, rebuild, show
from .._arrays.typing import Scalars, Tree
from .._engine import choose
from .._engine.group import Bound, StepNumbers, made
from .._engine.model import Model, finish
from .._engine.numbers import Key
from .._engine.start import complete
from .._engine.tensor import Tensor
from .._state.cache import State
from .._state.entry import Record
from .._state.groups import check_matched
from .._state.interrupts import HELD, enter
from .._state.settings import Settings
from .check import check
from .commit import Commit, forget
from .draws import key_of
from .plan import Plan, Row


class WholeUpdate:
    """The update of a whole model, checked.

    Parameters
    ----------
    state : State
        The optimizer's.
    settings : Settings
        The optimizer's.
    params, grads, out
        As for `OptimizerBase.update_all`.
    """

    # What most steps leave as it is here
    _plan: Plan | None = None
    _next: Sequence[int] = ()  # the counts of the plan's rows
    _tensors: Sequence[Tensor] = ()  # where there is no plan
    _rows: Sequence[Row] = ()  # of these
    _new: Sequence[Tensor] = ()  # of the plan's, those that get new slots
    _resting: Sequence[tuple[Any, Any]] = ()  # where a parameter without a gradient is copied to, and its value
    _commit: Commit | None = None
    _shared: Iterator[tuple[Record, list[int]]] = iter(())
    _counted: Iterator[tuple[list[int], int]] = iter(())
    _copies: Iterator[tuple[Callable[[Any, Any], None], Any, Any]] = iter(())

    _names: list[Hashable]
    _leaves: list[Any]
    _bound: list[Bound]  # by the plan
    _places: list[int]  # of these among `names`
    _model: Model  # of these tensors
    _results: list[Any]  # which are written in `finish`, and so kept until then
    _answer: Any
    _finish: Callable[[], None]

    def __init__(self, state: State, settings: Settings, params: Tree, grads: Tree, out: Tree | None) -> None:
        self._state = state
        self._settings = settings
        self._params = params
        self._out = out
        if not self._bind(grads):
            self._check_all(grads)

    def _bind(self, grads: Tree) -> bool:
        """Bind the arrays to the plan of the last update; False if there is none, or it does not fit."""
        out, ownership = self._out, self._state.ownership
        plan: Plan | None = ownership.plan()
        if plan is None or not plan.fits(self._settings):
            return False
        leaves, gradients = plan.layout.leaves(self._params), plan.layout.leaves(grads)
        targets = leaves if out is self._params else None if out is None else plan.layout.leaves(out)
        if leaves is None or gradients is None or (targets is None) != (out is None):
            return False
        if ownership.counts_moved and not plan.count_together():
            return False
        ownership.counts_moved = False
        outs = None if targets is None else plan.of(targets)
        params = plan.of(leaves)
        found = plan.bind(params, plan.of(gradients), params if targets is leaves else outs)
        if found is None:
            return False
        bound, self._new = found
        resting = []
        for i in plan.others:
            target = None if targets is None else targets[i]
            grad = gradients[i]
            if i in plan.frozen and not is_container(grad):
                check_resting(leaves[i], grad, plan.names[i])
                grad = None
            if grad is not None or is_container(leaves[i]) or is_container(target):
                return False
            if target is not None and target is not leaves[i]:
                return False
            resting.append(target)
        if outs is not None and plan.model.overlaps(bound, resting):
            return False
        self._plan, self._bound = plan, bound
        self._next = plan.next_counts()
        self._names, self._leaves = plan.names, leaves
        return True

    def _check_all(self, grads: Tree) -> None:
        """Check every parameter."""
        leaves = flatten(self._params, "params")
        check_indices(self._params, leaves, self._state.names)
        gradients = matched(leaves, flatten(grads, "grads"), "grads")
        if self._settings.groups:
            check_matched(self._settings, leaves)
            gradients = self._without_frozen(leaves, gradients)
        out = {} if self._out is None else matched(leaves, flatten(self._out, "out"), "out")
        targets, written = dict(out), set()
        tensors: list[Tensor] = []
        resting: list[tuple[Any, Any]] = []
        self._tensors, self._places, self._resting = tensors, [], resting
        for place, (name, param) in enumerate(leaves.items()):
            if gradients[name] is not None:
                own = self._settings.of_array(name, param)
                tensor = check(self._state, own.rule, param, gradients[name], name, own.check_fit, own.step)
                tensor.group = own.number
                if out:
                    tensor.param, tensor.out = check_out(tensor.library, tensor.spec, tensor.param, out[name], name)
                    targets[name] = tensor.out
                else:
                    tensor.as_float = is_number(param)
                tensors.append(tensor)
                self._places.append(place)
                written.add(name)
            elif out and out[name] is not param:
                library, spec, value = examine_resting(param, name)
                check_out(library, spec, value, out[name], name)
                resting.append((out[name], value))
                written.add(name)
        shared = find_shared((name, x) for name, x in targets.items() if name in written or lies_in_memory(x))
        if shared is not None:
            first, second = map(show, shared)
            raise ValueError(f"out of {first} and out of {second} share memory; give each its own")
        self._rows = list({(tensor.group, tensor.t): None for tensor in tensors})
        self._names, self._leaves = list(leaves), list(leaves.values())

    def _without_frozen(self, leaves: Mapping[Hashable, Any], gradients: dict[Hashable, Any]) -> dict[Hashable, Any]:
        """Return gradients without those of parameters that stay as they are."""
        frozen = [name for name in leaves if self._settings.of(name, None).frozen]
        for name in frozen:
            check_resting(leaves[name], gradients[name], name)
        return {**gradients, **dict.fromkeys(frozen)}

    @property
    def rows(self) -> Sequence[Row]:
        """The groups and the counts to which this update brings parameters, each once."""
        return self._rows if self._plan is None else list(zip(self._plan.group_of_row, self._next, strict=True))

    @property
    def alike(self) -> tuple[list[int], int] | None:
        """The groups and the count of these, where their numbers differ in the learning rate only, as far as known."""
        plan = self._plan
        return (plan.group_of_row, self._next[0]) if plan is not None and plan.differ_in_rate else None

    @property
    def gradients(self) -> dict[Hashable, Any]:
        """The gradients by name."""
        return self._arrays("grads", [tensor.grad for tensor in self._tensors])

    @property
    def taken(self) -> dict[Hashable, Any]:
        """The parameters that have a gradient, as a rule may see them."""
        return self._arrays("params", [tensor.param for tensor in self._tensors])

    @property
    def row_of(self) -> dict[Hashable, Row]:
        """The group and the count of each of these."""
        if self._plan is None:
            return {tensor.name: (tensor.group, tensor.t) for tensor in self._tensors}
        counts = [record.t + self._settings.step for record in self._plan.records]
        return dict(zip(self._plan.of(self._names), zip(self._plan.groups, counts, strict=True), strict=True))

    def _arrays(self, role: str, checked: list[Any]) -> dict[Hashable, Any]:
        if self._plan is None:
            return {tensor.name: x for tensor, x in zip(self._tensors, checked, strict=True)}
        return dict(zip(self._plan.of(self._names), self._plan.model.each(self._bound, role), strict=True))

    def prepare(self, scalars: Sequence[Scalars], proceed: Any) -> None:
        """Do all that can fail.

        Parameters
        ----------
        scalars : sequence of Scalars
            The numbers of the step for each of `rows`.
        proceed : array of bool, shape (), or None
            As for `Tensor`.
        """
        plan = self._plan
        if plan is None:
            places = self._places
            results = self._launch_tensors(scalars, proceed)
        else:
            places = plan.places
            results = self._launch_plan(plan, scalars, proceed)
        # a parameter without a gradient may lie where another one's result goes
        if self._resting:
            self._copies = iter([(writer(x), x, copy_array(value)) for x, value in self._resting])
        if self._out is not None:
            self._answer = self._out
            return
        new = self._results = list(self._leaves)
        for place, x in zip(places, results, strict=True):
            new[place] = x
        self._answer = None if plan is None else plan.layout.build(self._params, new)
        if self._answer is None and calls_classes(self._params):
            self._built(self._leaves)  # raises what a class does, with values that are there already

    def _built(self, leaves: list[Any]) -> Any:
        return rebuild(self._params, dict(zip(self._names, leaves, strict=True)).__getitem__)

    def answer(self) -> Any:
        """Return what `update_all` does, after `finish`: classes that look at their values, or copy them, find results.

        Returns
        -------
        containers of the kinds of `params`
            Or `out`.
        """
        return self._built(self._results) if self._answer is None else self._answer

    def _launch_tensors(self, scalars: Sequence[Scalars], proceed: Any) -> list[Any]:
        """Prepare all that has a gradient, where there is no plan; return the results."""
        if not self._tensors:
            self._finish = _nothing
            return []
        of_rows = dict(zip(self._rows, scalars, strict=True))
        for tensor in self._tensors:
            tensor.h, tensor.proceed = of_rows[tensor.group, tensor.t], proceed
            tensor.key = self._key(tensor.group, tensor.spec, tensor.name, tensor.t)
            complete(tensor)
        (results, slots, self._finish), self._model = choose.launch(list(self._tensors))
        self._commit = Commit(self._state, zip(self._tensors, slots, strict=True))
        return [as_number(x) if tensor.as_float else x for tensor, x in zip(self._tensors, results, strict=True)]

    def _key(self, group: int, spec: Spec, name: Hashable, t: int) -> Key | None:
        own = self._settings.numbered(group)
        return key_of(own.values, spec, name, t) if own.draws else None

    def _launch_plan(self, plan: Plan, scalars: Sequence[Scalars], proceed: Any) -> list[Any]:
        """Prepare all that has a gradient by the plan; return the results, where they are not in `out`."""
        keys = None
        if plan.draws:
            each = zip(plan.groups, plan.of(plan.names), plan.records, strict=True)
            keys = [self._key(group, one.spec, name, one.t + 1) for group, name, one in each]
        launched = plan.launch(self._bound, made(StepNumbers, (scalars, keys, proceed)))
        self._finish = finish(launched)
        if self._new:
            new = zip(self._new, plan.new_slots(launched), strict=True)
            self._commit = commit = Commit(self._state, new)
            self._shared = iter([(record, record.count) for record in commit.records])
        self._counted = zip(plan.counts, self._next, strict=True)
        return [] if self._out is not None else plan.results(launched)

    def finish(self) -> None:
        """Write the results and store the state."""
        if self._commit is None:
            self._write()
        else:
            self._commit.around(self._write)
        for record, count in self._shared:
            record.count = count
        for count, t in self._counted:
            count[0] = t
        if self._plan is not None:
            self._state.ownership.fall_behind()

    def _write(self) -> None:
        self._finish()
        for write, x, value in self._copies:
            write(x, value)

    def keep(self) -> None:
        """After all is stored, keep what makes the next update of the same model shorter."""
        if self._plan is not None or self._commit is None:
            return
        enter(HELD)
        forget(self._state)
        with suppress(MemoryError):  # the next one is then as long as this one
            plan = Plan(self._settings, self._names, self._model, self._places, self._tensors, self._commit.records)
            self._state.ownership.keep(plan)


def _nothing() -> None:
    """Write nothing."""
