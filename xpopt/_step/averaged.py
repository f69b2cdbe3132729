"""What a model is evaluated with: averages that a rule or a transform keeps, and their place in the parameters."""

from __future__ import annotations

import copy
import functools
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, Self

from .._arrays.containers import is_dataclass, is_registered, remade
from .._arrays.namespace import copy_array, library_of, writer
from .._arrays.parameter import as_number, examine_resting, is_number
from .._arrays.tree import check_indices, flatten, rebuild, show, show_all
from .._arrays.typing import Array, Tree
from .._engine.eager.kernel import evaluate
from .._engine.start import complete
from .._graph.rule import Rule
from .._state.interrupts import WRITING, enter
from .._state.parts import Parts
from .check import check
from .exclusive import AVERAGE, AVERAGED, Exclusive


def averaged(parts: Parts, exclusive: Exclusive, params: Tree) -> Any:
    """Do what `OptimizerBase.averaged` does."""
    exclusive.check_not(AVERAGED)
    leaves, averages = exclusive.read(AVERAGE, _averages, parts, params)
    values = {name: averages[name] if name in averages else _copied(x, name) for name, x in leaves.items()}
    tree = rebuild(params, values.__getitem__)
    if not any((library := library_of(x)) is not None and library.mutable for x in leaves.values()):
        return tree
    if is_registered(tree) and not isinstance(tree, Mapping | list | tuple):  # whose library knows this class alone
        return tree
    pairs = [_Pair(name, leaves[name], average) for name, average in averages.items()]
    return _to_be_entered(tree, _Block(exclusive, pairs))


def _averages(parts: Parts, params: Tree) -> tuple[dict[Hashable, Any], dict[Hashable, Any]]:
    """Return the leaves of a model by name, and the averages of those that have one."""
    settings, state = parts.settings, parts.state
    owner = settings.cls.__name__
    if not any(_is_averaged(one.rule) for one in settings.each):
        raise ValueError(f"{owner} has no average; give it one, {owner}(average=EMA(0.999))")
    leaves = flatten(params, "params")
    check_indices(params, leaves, state.names)
    known = [name for name in leaves if name in state.names]
    if not known:
        raise ValueError(
            f"params has {show_all(leaves)}, of which this {owner} has updated none; call averaged after the first "
            f"update, with the names that updates have"
        )
    averages: dict[Hashable, Any] = {}
    for name in known:
        own = settings.of_array(name, leaves[name])
        if own.frozen or not _is_averaged(own.rule):
            continue
        tensor = check(state, own.rule, leaves[name], leaves[name], name, own.check_fit)
        tensor.h = own.numbers_at(max(tensor.t - 1, 1), drawn=parts.clock.numbers_of(own.number))
        complete(tensor)
        if tensor.rule.evaluated is not None and tensor.slots is not None:
            average = evaluate(tensor)
            averages[name] = as_number(average) if is_number(leaves[name]) else average
    return leaves, averages


def _is_averaged(rule: Rule) -> bool:
    return any(one.evaluated is not None for one in rule.among or (rule,))


def _copied(x: Any, name: Hashable) -> Any:
    """Return a parameter that has no average, whatever it is, in memory of its own."""
    return x if library_of(x) is None else copy_array(examine_resting(x, name)[2])


class _Pair(NamedTuple):
    name: Hashable
    param: Any
    average: Any


class _Block:
    """Averages in the place of parameters, from `begin` to `end`.

    Parameters
    ----------
    exclusive : Exclusive
        The optimizer's.
    pairs : list of _Pair
        The caller's own arrays, and what they are to hold.
    """

    def __init__(self, exclusive: Exclusive, pairs: list[_Pair]) -> None:
        self._exclusive = exclusive
        self._pairs = pairs
        self._call: Any = None
        self._before: list[Array] = []

    def begin(self) -> None:
        """Write the averages; all of them or, after an error, none."""
        for name, param, _ in self._pairs:
            _check_written(param, name)
        self._call = self._exclusive.occupy(AVERAGED, self._write)

    def end(self) -> None:
        """Write what was there before."""
        self._exclusive.vacate(self._call, self._write_back)

    def _write(self) -> None:
        self._before = [copy_array(param) for _, param, _ in self._pairs]
        enter(WRITING)
        try:
            for _, param, average in self._pairs:
                writer(param)(param, average)
        except BaseException:
            self._write_back()
            raise

    def _write_back(self) -> None:
        enter(WRITING)
        for (_, param, _), before in zip(self._pairs, self._before, strict=True):
            writer(param)(param, before)
        self._before = []


def _check_written(param: Any, name: Hashable) -> None:
    """Raise unless values can be written into a parameter."""
    library = library_of(param)
    way_out = "use the arrays that averaged returns"
    if library is None or not library.mutable:
        came = f"a {type(param).__name__}" if library is None else f"an array of {library.name}"
        raise TypeError(f"parameter {show(name)} is {came}, which cannot be written; {way_out}")
    if not library.writable(param):
        raise ValueError(f"parameter {show(name)} is read-only; {way_out}, or pass a writable one")


class _Entered:
    """What the containers have that can be entered; they copy and pickle as plain ones."""

    _block: _Block

    def __enter__(self) -> Self:
        self._block.begin()
        return self

    def __exit__(self, *error: object) -> None:
        self._block.end()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        kind = _plain(type(self))
        if is_dataclass(self):
            return copy.copy, (remade(self, {}, kind),)
        return getattr(kind, "_make", kind), (dict(self) if isinstance(self, dict) else list(self),)  # type: ignore[call-overload]


def _plain(kind: type[Any]) -> type[Any]:
    return next(one for one in kind.__mro__ if not issubclass(one, _Entered))


def _to_be_entered(tree: Any, block: _Block) -> Any:
    """Return a container that can be entered, of the kind of `tree`; a dict for a mapping."""
    kind: Any = dict if isinstance(tree, Mapping) else _plain(type(tree))
    twin = remade(tree, {}, _kind(kind)) if is_dataclass(tree) else _kind(kind)(tree)
    object.__setattr__(twin, "_block", block)  # a frozen dataclass has no other way
    return twin


@functools.cache
def _kind(kind: type[Any]) -> Any:
    """Return what makes such a container of a plain one."""
    cls = type(kind.__name__, (_Entered, kind), {"__doc__": kind.__doc__})
    return getattr(cls, "_make", cls)
