"""The update of a whole model: by the plan of its last update as far as there is one, and else tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from .._arrays.memory import find_shared
from .._arrays.namespace import copy_array, writer
from .._arrays.parameter import check_out, examine_resting, is_number, lies_in_memory
from .._arrays.tree import check_indices, flatten, is_container, matched, rebuild, show
from .._arrays.typing import Scalars, Tree
from .._engine import choose, eager
from .._engine.group import Bound, StepNumbers
from .._engine.start import complete
from .._engine.tensor import Tensor
from .._graph.rule import Rule
from .._state.cache import State
from .._state.interrupts import HELD, enter
from .check import check
from .commit import Commit, forget
from .draws import key_of
from .plan import Plan


class WholeUpdate:
    """The update of a whole model, checked.

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
        self._check_new = check_new
        self._plan: Plan | None = None
        self._names: list[Hashable]
        self._leaves: list[Any]
        self._bound: list[Bound]
        self._gradients: list[Any] = []  # that the plan has bound
        self._tensors: list[Tensor] = []  # what is updated apart from the plan
        self._places: list[int] = []  # of these among `names`
        self._resting: list[tuple[Any, Any]] = []  # where a parameter without a gradient is copied to, and its value
        self._launch: choose.Launch | None = None
        self._commit: Commit | None = None
        self._calls: Iterator[Callable[[], None]]
        self._copies: Iterator[tuple[Callable[[Any, Any], None], Any, Any]]
        self._counted: Iterator[tuple[list[int], int]] = iter(())
        if not self._bind(grads):
            self._check_all(grads)

    def _bind(self, grads: Tree) -> bool:
        """Bind the arrays to the plan of the last update; False if there is none, or it does not fit."""
        out, ownership = self._out, self._state.ownership
        plan: Plan | None = ownership.plan()
        if plan is None or not plan.fits(self._rule):
            return False
        leaves, gradients = plan.layout.leaves(self._params), plan.layout.leaves(grads)
        targets = leaves if out is self._params else None if out is None else plan.layout.leaves(out)
        if leaves is None or gradients is None or (targets is None) != (out is None):
            return False
        if ownership.counts_moved and not plan.count_together():
            return False
        ownership.counts_moved = False
        params, of_params = plan.of(leaves), plan.of(gradients)
        outs = params if targets is leaves else None if targets is None else plan.of(targets)
        bound = plan.model.bind(params, of_params, outs)
        if bound is None:
            return False
        resting = []
        for i in plan.others:
            target = None if targets is None else targets[i]
            if is_container(leaves[i]) or is_container(gradients[i]) or is_container(target):
                return False
            if gradients[i] is not None:
                tensor = self._check(i, plan.names[i], leaves[i], gradients[i], target)
                if i not in plan.stay and choose.refusal_of_arrays(tensor) is None:
                    return False
            elif target is leaves[i]:
                resting.append(target)
            elif target is not None:
                return False
        written = [tensor.out for tensor in self._tensors]
        if outs is not None and plan.model.overlaps(bound, written, resting):
            return False
        self._plan, self._bound, self._gradients = plan, bound, of_params
        self._names, self._leaves = plan.names, leaves
        return True

    def _check(self, place: int, name: Hashable, param: Any, grad: Any, target: Any) -> Tensor:
        """Check one parameter that is updated apart from the plan."""
        tensor = check(self._state, self._rule, param, grad, name, self._check_new)
        if target is not None:
            tensor.param, tensor.out = check_out(tensor.library, tensor.spec, tensor.param, target, name)
        self._tensors.append(tensor)
        self._places.append(place)
        return tensor

    def _check_all(self, grads: Tree) -> None:
        """Check every parameter."""
        self._tensors, self._places = [], []
        leaves = flatten(self._params, "params")
        check_indices(self._params, leaves, self._state.names)
        gradients = matched(leaves, flatten(grads, "grads"), "grads")
        out = {} if self._out is None else matched(leaves, flatten(self._out, "out"), "out")
        targets, written = dict(out), set()
        for place, (name, param) in enumerate(leaves.items()):
            if gradients[name] is not None:
                target = out[name] if out else None
                tensor = self._check(place, name, param, gradients[name], target)
                written.add(name)
                if out:
                    targets[name] = tensor.out
            elif out and out[name] is not param:
                library, spec, value = examine_resting(param, name)
                check_out(library, spec, value, out[name], name)
                self._resting.append((out[name], value))
                written.add(name)
        shared = find_shared((name, x) for name, x in targets.items() if name in written or lies_in_memory(x))
        if shared is not None:
            first, second = map(show, shared)
            raise ValueError(f"out of {first} and out of {second} share memory; give each its own")
        self._names, self._leaves = list(leaves), list(leaves.values())

    @property
    def counts(self) -> set[int]:
        """The counts that this update brings parameters to."""
        planned = [] if self._plan is None else [t + 1 for (t,) in self._plan.counts]
        return {*planned, *[tensor.t for tensor in self._tensors]}

    @property
    def gradients(self) -> dict[Hashable, Any]:
        """The gradients by name."""
        return self._by_name(self._gradients, [tensor.grad for tensor in self._tensors])

    @property
    def taken(self) -> dict[Hashable, Any]:
        """The parameters that have a gradient, as a rule may see them."""
        planned = [] if self._plan is None else self._plan.of(self._leaves)
        return self._by_name(planned, [tensor.param for tensor in self._tensors])

    @property
    def count_of(self) -> dict[Hashable, int]:
        """The count of each of these."""
        planned = [] if self._plan is None else [record.t + 1 for record in self._plan.records]
        return self._by_name(planned, [tensor.t for tensor in self._tensors])

    def _by_name(self, planned: list[Any], others: list[Any]) -> dict[Hashable, Any]:
        names = [] if self._plan is None else self._plan.of(self._names)
        names = [*names, *[tensor.name for tensor in self._tensors]]
        return dict(zip(names, [*planned, *others], strict=True))

    def prepare(self, scalars: Mapping[int, Scalars], values: Mapping[str, Any], proceed: Any) -> Any:
        """Do all that can fail; return what `update_all` will.

        Parameters
        ----------
        scalars : mapping
            The numbers of the step for each of `counts`.
        values : mapping
            The optimizer's, which say how parameters are rounded.
        proceed : array of bool, shape (), or None
            As for `Tensor`.

        Returns
        -------
        containers of the kinds of `params`
            With arrays that hold the results once `finish` has been called.
        """
        draws = values["rounding"] == "stochastic"
        for tensor in self._tensors:
            tensor.h, tensor.proceed = scalars[tensor.t], proceed
            tensor.key = key_of(values, tensor.spec, tensor.name, tensor.t) if draws else None
            complete(tensor)
        new = list(self._leaves) if self._out is None else []
        calls = self._launch_tensors(new) if self._tensors else []
        # a parameter without a gradient may lie where another one's result goes
        self._copies = iter([(writer(x), x, copy_array(value)) for x, value in self._resting])
        if self._plan is not None:
            calls += self._launch_plan(self._plan, new, scalars, values if draws else None, proceed)
        self._calls = iter(calls)
        if self._out is not None:
            return self._out
        if self._plan is not None:
            return self._plan.layout.rebuild(self._params, new)
        return rebuild(self._params, dict(zip(self._names, new, strict=True)).__getitem__)

    def _launch_tensors(self, new: list[Any]) -> list[Callable[[], None]]:
        """Prepare what the plan does not update, and put the results into `new`; return what writes them."""
        is_float = [self._out is None and is_number(self._leaves[place]) for place in self._places]
        floats = [k for k, yes in enumerate(is_float) if yes]
        self._arrays = arrays = [k for k, yes in enumerate(is_float) if not yes]
        found: dict[int, Any] = {}
        if floats:  # which cannot be written later: they are computed now
            found.update(zip(floats, eager.launch([self._tensors[k] for k in floats])[0], strict=True))
        tensors = [self._tensors[k] for k in arrays]
        if self._plan is None:
            self._launch = launch = choose.launch(tensors)
            results, finish = launch.results, launch.finish
        else:
            results, finish = eager.launch(tensors)
        found.update(zip(arrays, results, strict=True))
        for k, place in enumerate(self._places if self._out is None else ()):
            new[place] = float(found[k][0]) if is_float[k] else found[k][0]
        self._commit = Commit(self._state, [(tensor, found[k][1]) for k, tensor in enumerate(self._tensors)])
        return [finish]

    def _launch_plan(
        self, plan: Plan, new: list[Any], scalars: Mapping[int, Scalars], drawn: Mapping[str, Any] | None, proceed: Any
    ) -> list[Callable[[], None]]:
        """Prepare what the plan updates, and put the results into `new`; return what writes them."""
        keys = None
        if drawn is not None:
            names = plan.of(plan.names)
            keys = [key_of(drawn, one.spec, name, one.t + 1) for name, one in zip(names, plan.records, strict=True)]
        counts = [t + 1 for (t,) in plan.counts]
        self._counted = iter(list(zip(plan.counts, counts, strict=True)))
        if self._out is None:
            for place, x in zip(plan.places, plan.model.results(self._bound), strict=True):
                new[place] = x
        return plan.model.launch(self._bound, StepNumbers([scalars[t] for t in counts], keys, proceed))

    def finish(self) -> None:
        """Write the results and store the state."""
        if self._commit is None:
            self._write()
        else:
            self._commit.around(self._write)
        for count, t in self._counted:
            count[0] = t
        if self._plan is not None:
            self._state.ownership.fall_behind()

    def _write(self) -> None:
        for call in self._calls:
            call()
        for write, x, value in self._copies:
            write(x, value)

    def keep(self) -> None:
        """After all is stored, keep what makes the next update of the same model shorter."""
        launch = self._launch
        if launch is None or self._commit is None:
            return
        enter(HELD)
        forget(self._state)
        if launch.model is None:
            return
        with suppress(MemoryError):  # the next one is then as long as this one
            fused = [k for k, name in zip(self._arrays, launch.engines, strict=True) if name != "eager"]
            records = [self._commit.records[k] for k in fused]
            others = set(range(len(self._tensors))).difference(fused)
            stay = {self._places[k] for k in others if choose.refusal_of_arrays(self._tensors[k]) is None}
            places = [self._places[k] for k in fused]
            self._state.ownership.keep(Plan(self._rule, self._names, launch.model, places, records, stay))
