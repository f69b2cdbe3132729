"""The two ways to update a whole model: tensor by tensor, or by the plan that the last update left."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from .._arrays.layout import Layout
from .._arrays.memory import find_shared
from .._arrays.namespace import copy_array, writer
from .._arrays.parameter import check_out, examine_resting, is_number, lies_in_memory
from .._arrays.tree import check_indices, flatten, matched, rebuild, show
from .._arrays.typing import Scalars, Tree
from .._engine import choose
from .._engine.group import Group, Launch, Step, Work
from .._engine.model import KeptPlan
from .._engine.numbers import Key
from .._graph.rule import Rule
from .._state.cache import State, Task
from .._state.entry import Known
from .._state.interrupts import HELD, enter
from .commit import Storing, forget
from .draws import key_of


class Each:
    """Updates every parameter without a plan.

    Parameters
    ----------
    state : State
        The optimizer's.
    rule : Rule
        The formula.
    params, grads, out
        As for `OptimizerBase.update_all`.
    check_new : callable
        Called with the description and name of a parameter that is new here.
    """

    def __init__(
        self, state: State, rule: Rule, params: Tree, grads: Tree, out: Tree | None, check_new: Callable[..., None]
    ) -> None:
        self._state = state
        self._rule = rule
        self._params = params
        self._out = out
        self._leaves = flatten(params, "params")
        check_indices(params, self._leaves, state.names)
        gradients = matched(self._leaves, flatten(grads, "grads"), "grads")
        self._targets = {} if out is None else matched(self._leaves, flatten(out, "out"), "out")
        self._resting: dict[Hashable, Any] = {}  # what is written though it has no gradient
        self._tasks = self._take_in(gradients, check_new)
        self._numbers = [name for name in self._tasks if is_number(self._leaves[name])] if out is None else []
        self._launch: Launch
        self._storing: Storing
        self._copies: Iterator[tuple[Callable[[Any, Any], None], Any, Any]]

    @property
    def counts(self) -> set[int]:
        """The counts that this update brings parameters to."""
        return {task[5] for task in self._tasks.values()}

    @property
    def gradients(self) -> dict[Hashable, Any]:
        """The gradients by name."""
        return {name: task[4] for name, task in self._tasks.items()}

    @property
    def count_of(self) -> dict[Hashable, int]:
        """The count of each of these."""
        return {name: task[5] for name, task in self._tasks.items()}

    @property
    def taken(self) -> dict[Hashable, Any]:
        """The parameters that have a gradient, as a rule may see them."""
        return {name: task[3] for name, task in self._tasks.items()}

    def prepare(self, scalars: Mapping[int, Scalars], values: Mapping[str, Any], proceed: Any) -> Any:
        """Do all that can fail; return what `update_all` will.

        Parameters
        ----------
        scalars : mapping
            The numbers of the step for each of `counts`.
        values : mapping
            The optimizer's, which say how parameters are rounded.
        proceed : array of bool, shape (), or None
            As for `Work`.

        Returns
        -------
        containers of the kinds of `params`
            With arrays that hold the results once `finish` has been called.
        """
        works, draws = {}, values["rounding"] == "stochastic"
        for name, (rule, library, spec, param, grad, t, slots, owned) in self._tasks.items():
            h, out = scalars[t], self._targets.get(name)
            noise = key_of(values, spec, name, t) if draws else None
            works[name] = Work(rule, library, spec, param, grad, slots, owned, h, out, noise, proceed)
        # a float cannot be written later: it is computed now, apart from the state
        numbers = {name: works.pop(name)._replace(owned=False) for name in self._numbers}
        first = choose.prepare(list(numbers.values()))
        first.finish()
        self._launch = choose.prepare(list(works.values()))
        new: dict[Hashable, Any] = dict(zip((*numbers, *works), (*first.results, *self._launch.results), strict=True))
        # a parameter without a gradient may lie where another one's result goes
        resting = [(self._targets[name], value) for name, value in self._resting.items()]
        self._copies = iter([(writer(x), x, copy_array(value)) for x, value in resting])
        results = [(task[0], name, task[2], task[5], new[name][1], task[7]) for name, task in self._tasks.items()]
        self._storing = Storing(self._state, results)
        if self._out is not None:
            return self._out
        answers = {name: float(new[name][0]) if name in numbers else new[name][0] for name in new}
        return rebuild(self._params, lambda name: answers[name] if name in answers else self._leaves[name])

    def finish(self) -> None:
        """Write the results and store the state."""
        self._storing.around(self._write)

    def _write(self) -> None:
        self._launch.finish()
        for write, x, value in self._copies:
            write(x, value)

    def keep(self) -> None:
        """After all is stored, keep what makes the next update of the same model shorter."""
        enter(HELD)
        forget(self._state)
        group = choose.group_of(self._launch.engine)
        if group is not None and not self._numbers:
            slots = [slots for _, slots in self._launch.results]
            with suppress(MemoryError):  # the next one is then as long as this one
                names = list(self._leaves)
                self._state.ownership.keep(Kept(group, self._rule, names, self._tasks, slots, self._storing.known))

    def _take_in(self, grads: Mapping[Hashable, Any], check_new: Callable[..., None]) -> dict[Hashable, Task]:
        """Check everything; return the updates of what has a gradient."""
        tasks, out = {}, self._targets
        for name, param in self._leaves.items():
            if grads[name] is not None:
                tasks[name] = task = self._state.take_in(self._rule, param, grads[name], name, check_new)
                if out:
                    param, out[name] = check_out(task[1], task[2], task[3], out[name], name)
                    tasks[name] = (*task[:3], param, *task[4:])
            elif out and out[name] is not param:
                library, spec, self._resting[name] = examine_resting(param, name)
                check_out(library, spec, self._resting[name], out[name], name)
        written = tasks.keys() | self._resting.keys()
        shared = find_shared((name, x) for name, x in out.items() if name in written or lies_in_memory(x))
        if shared is not None:
            first, second = map(show, shared)
            raise ValueError(f"out of {first} and out of {second} share memory; give each its own")
        return tasks


class Kept:
    """The model of the last update, if one engine can update all its tensors again.

    Parameters
    ----------
    group : type of Group
        The engine's.
    rule : Rule
        The formula.
    names : list of hashable
        The parameters.
    tasks : mapping of hashable to Task
        Their updates, which `Each` has made.
    slots : sequence of NamedTuple of array
        Of each that was updated.
    known : list of Known
        What the state knows of each that was updated.
    """

    def __init__(
        self,
        group: type[Group],
        rule: Rule,
        names: list[Hashable],
        tasks: Mapping[Hashable, Task],
        slots: Sequence[Any],
        known: list[Known],
    ) -> None:
        counts = sorted({task[5] for task in tasks.values()})
        self.rule = rule
        self.names = names
        self.layout = Layout(names)
        self.known = known
        self.active = None if len(tasks) == len(names) else [i for i, name in enumerate(names) if name in tasks]
        """Those of `names` that had a gradient; None for all."""
        self.counts = [[t] for t in counts]
        """Of updates: one for each row of the plan, in a list that the tensors of the row share."""
        self._rows = [counts.index(task[5]) for task in tasks.values()] if len(counts) > 1 else [0] * len(tasks)
        rules, params = [task[0] for task in tasks.values()], [task[3] for task in tasks.values()]
        self.plan = KeptPlan(group, rules, params, slots, self._rows)
        self.choice = choose.chosen()  # of the engine, where that was

    def count_together(self) -> None:
        """Let the parameters share the counts."""
        for known, row in zip(self.known, self._rows, strict=True):
            known.count = self.counts[row]

    def updated(self) -> Iterator[tuple[Hashable, int]]:
        """Yield the parameters that had a gradient, each with its count."""
        names = self.names if self.active is None else [self.names[i] for i in self.active]
        return zip(names, [known.t for known in self.known], strict=True)


class Again:
    """Updates the model of the last update by its plan; made by `again`."""

    def __init__(
        self, state: State, kept: Kept, params: Tree, out: Tree | None, leaves: list[Any], grads: list[Any]
    ) -> None:
        self._state = state
        self._kept = kept
        self._params = params
        self._out = out
        self._leaves = leaves
        self._tensors = leaves, grads
        self._results: list[Any] = []
        self.counts = [t + 1 for (t,) in kept.counts]
        """The counts that this update brings parameters to."""
        self._steps = iter(list(zip(kept.counts, self.counts, strict=True)))
        self._calls: Iterator[Callable[[], None]] = iter(())

    def gather(self, targets: list[Any] | None) -> bool:
        """Find where everything lies; return whether all of it is as it was."""
        (params, grads), active = self._tensors, self._kept.active
        resting: list[Any] = []
        if active is not None:
            resting = [x for x, grad in zip(params, grads, strict=True) if grad is None]
            if len(params) - len(resting) != len(active) or (targets is not None and targets is not params):
                return False
            in_place = targets is params
            params, grads = [params[i] for i in active], [grads[i] for i in active]
            targets = params if in_place else None
        found = self._kept.plan.gather(params, grads, targets, resting)
        self._tensors, self._results = (params, grads), found or []
        return found is not None

    @property
    def gradients(self) -> dict[Hashable, Any]:
        """The gradients by name."""
        names = [name for name, _ in self._kept.updated()]
        return dict(zip(names, self._tensors[1], strict=True))

    @property
    def count_of(self) -> dict[Hashable, int]:
        """The count of each of these."""
        return {name: t + 1 for name, t in self._kept.updated()}

    @property
    def taken(self) -> dict[Hashable, Any]:
        """The parameters that have a gradient, as a rule may see them."""
        return dict(zip(self.gradients, self._tensors[0], strict=True))

    def prepare(self, scalars: Mapping[int, Scalars], values: Mapping[str, Any], proceed: Any) -> Any:
        """Do all that can fail; return what `update_all` will."""
        keys: list[Key | None] | None = None
        if values["rounding"] == "stochastic":
            keys = [key_of(values, self._state.spec(name), name, t + 1) for name, t in self._kept.updated()]
        step = Step([scalars[t] for t in self.counts], keys, proceed)
        self._calls = iter(self._kept.plan.prepare(step, *self._tensors, self._results))
        if self._out is not None:
            return self._out
        new = self._results
        if self._kept.active is not None:
            new = list(self._leaves)
            for i, x in zip(self._kept.active, self._results, strict=True):
                new[i] = x
        return self._kept.layout.rebuild(self._params, new)

    def finish(self) -> None:
        """Write the results, and count."""
        for call in self._calls:
            call()
        for count, t in self._steps:
            count[0] = t
        self._state.ownership.fall_behind()

    def keep(self) -> None:
        """Do nothing: the model is kept already."""


class LeftOut:
    """Leaves every parameter as it is.

    Parameters
    ----------
    params, out
        As for `OptimizerBase.update_all`.
    taken : mapping
        The parameters that have a gradient, as a rule may see them, by name.
    """

    def __init__(self, params: Tree, out: Tree | None, taken: Mapping[Hashable, Any]) -> None:
        leaves = flatten(params, "params")
        targets = {} if out is None else flatten(out, "out")
        values = dict(leaves)
        for name, x in leaves.items():
            if x is targets.get(name) or (out is None and is_number(x)):
                continue
            if name in taken:
                values[name] = copy_array(taken[name])
            elif out is not None:
                values[name] = copy_array(examine_resting(x, name)[2])
        self._writes = iter([(writer(x), x, values[name]) for name, x in targets.items() if values[name] is not x])
        self.answer = rebuild(params, values.__getitem__) if out is None else out

    def finish(self) -> None:
        """Write what `update_all` has to write all the same."""
        for write, x, value in self._writes:
            write(x, value)


def again(state: State, rule: Rule, params: Tree, grads: Tree, out: Tree | None) -> Again | None:
    """Return the update of a model that is the one of the last update, with nothing touched since; else None."""
    kept = state.ownership.plan()
    if kept is None or kept.rule is not rule or kept.choice != choose.chosen() or choose.changed(rule):
        return None
    leaves, gradients = kept.layout.leaves(params), kept.layout.leaves(grads)
    targets = leaves if out is params else None if out is None else kept.layout.leaves(out)
    if leaves is None or gradients is None or (targets is None) != (out is None):
        return None
    update = Again(state, kept, params, out, leaves, gradients)
    return update if update.gather(targets) else None
