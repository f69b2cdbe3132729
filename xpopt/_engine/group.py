"""What an engine is given, what it gives back, and the groups of tensors that it updates again."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays.library import Library
from .._arrays.namespace import address_of
from .._arrays.parameter import Spec
from .._arrays.typing import Array, Scalars
from .._graph.rule import Rule
from .numbers import Key

BLOCK = 65_536
"""Elements in a block: the fastest size on processors with 1 MiB of cache for each core."""

SHARED = 8_192
"""Elements up to which a tensor shares a block with others; a larger one pays for its own calls."""

Result = tuple[Array, Any]
"""A new parameter and the NamedTuple of its new slots."""


Keys = Sequence[Key] | None
"""What each tensor of one dtype draws from, or None where they are rounded to the nearest."""


class Launch(NamedTuple):
    """Updates for which everything that can fail has been done."""

    results: list[Result]  # the very arrays that hold the results once `finish` has been called
    finish: Callable[[], None]  # writes; nothing in it can fail
    engine: str = ""  # that runs all of it


class Work(NamedTuple):
    """One update of one parameter, checked and ready to be computed."""

    rule: Rule
    library: Library
    spec: Spec
    param: Any  # arrays of that library, both
    grad: Any
    slots: Any  # the rule's NamedTuple, or None to start from zeros
    owned: bool  # whether the slots are the optimizer's own arrays, which may be written
    h: Scalars
    out: Any  # where the result goes; None for a new array
    noise: Key | None  # what stochastic rounding draws from; None to round to the nearest
    proceed: Any  # an array of shape () on the device: where it is false, nothing is to change; None to go on


make_work: Callable[[tuple[Any, ...]], Work] = functools.partial(tuple.__new__, Work)
"""Make a work of its fields, at half the cost of a call of the class."""


def keys_of(works: Sequence[Work]) -> Keys:
    """Return what updates of one dtype draw from."""
    if works[0].noise is None and len(works) == 1:
        return None
    keys = [work.noise for work in works if work.noise is not None]
    return keys or None


class Step(NamedTuple):
    """What makes an update of tensors, which may be kept, that of one step."""

    scalars: Sequence[Scalars]  # the numbers for each count that a tensor has
    keys: Sequence[Key | None] | None  # what each tensor draws from, where it does; None where none does
    proceed: Any  # as in `Work`


def new_arrays(rule: Rule, works: Sequence[Work]) -> list[Result]:
    """Allocate what updates of NumPy arrays need, to be written: results where there is no `out`, and slots.

    Parameters
    ----------
    rule : Rule
        The formula.
    works : sequence of Work
        The updates.

    Returns
    -------
    list of (out, slots)
        Where each new parameter goes; and the state before the update, in arrays that may be written. The slots of
        small tensors that follow each other lie in one array, up to a block.
    """
    if len(works) == 1:
        (work,) = works
        slots = work.slots if work.owned else rule.make_slots([_array_of(work, k) for k in range(len(rule.fields))])
        return [(np.empty_like(work.param) if work.out is None else work.out, slots)]
    results = []
    shared: list[Any] = []
    for i, work in enumerate(works):
        if work.owned:
            slots = work.slots
        elif work.param.size > SHARED or not rule.fields:
            slots = rule.make_slots([_array_of(work, k) for k in range(len(rule.fields))])
        else:
            if not shared or len(shared[0]) < work.param.size or shared[0].dtype != work.spec.compute:
                size = _following(works, i)
                shared = [np.zeros(size, work.spec.compute) for _ in rule.fields]
            slots = rule.make_slots([_shaped(x[: work.param.size], work.param) for x in shared])
            shared = [x[work.param.size :] for x in shared]
            for x, old in zip(slots, work.slots or (), strict=work.slots is not None):
                x[...] = old
        results.append((np.empty_like(work.param) if work.out is None else work.out, slots))
    return results


def _array_of(work: Work, field: int) -> Any:
    """Return a new array with the values of a slot, or of zeros."""
    if work.slots is None:
        return np.zeros_like(work.param, work.spec.compute)
    return np.array(work.slots[field])


def _following(works: Sequence[Work], first: int) -> int:
    """Return how many elements the small tensors have that follow from one on, up to a block."""
    total = 0
    for work in itertools.islice(works, first, None):
        size, compute = work.param.size, work.spec.compute
        if size > SHARED or work.owned or compute != works[first].spec.compute or total + size > BLOCK:
            break
        total += size
    return total


def _shaped(x: Any, like: Any) -> Any:
    return x.reshape(like.shape) if like.flags.c_contiguous else x.reshape(like.shape[::-1]).T


class Group:
    """The tensors of one kind, which is at least one dtype; an engine derives its own from this.

    Parameters
    ----------
    rule : Rule
        The formula.
    members : list of int
        Which of the plan's tensors they are.
    params : list of ndarray
        Their parameters, for their dtype, shapes and orders; not kept.
    slots : list of NamedTuple of ndarray
        The optimizer's own state of each.
    rows : list of int
        Which of the plan's counts each has.
    """

    def __init__(self, rule: Rule, members: list[int], params: list[Any], slots: list[Any], rows: list[int]) -> None:
        self.rule = rule
        self.members = members
        self.table = np.zeros((3 + len(rule.fields), len(members)), np.int64)
        """The addresses of param, grad, where the new param goes, and the slots."""
        of_params = [x.nbytes for x in params]
        of_slots = [[x.nbytes for x in arrays] for arrays in zip(*slots, strict=True)]
        self._bytes = np.array([of_params, of_params, of_params, *of_slots], np.int64)

    @staticmethod
    def kind(x: Any) -> Any:
        """Return what all parameters of a group have in common."""
        return x.dtype

    def gather(self, params: list[Any], grads: list[Any], outs: list[Any] | None) -> bool:
        """Read where everything lies, but new outs; return whether all of it looks as it did."""
        raise NotImplementedError

    def prepare(self, step: Step, params: list[Any], grads: list[Any], outs: list[Any]) -> Callable[[], None]:
        """Return the function that updates them; nothing in it can fail."""
        raise NotImplementedError

    def mine(self, arrays: list[Any]) -> list[Any]:
        """Return those arrays of the plan that are this group's."""
        return arrays if len(arrays) == len(self.members) else [arrays[i] for i in self.members]

    def keys(self, step: Step) -> Keys:
        """Return what its tensors draw from."""
        if step.keys is None:
            return None
        keys = [key for i in self.members if (key := step.keys[i]) is not None]
        return keys or None

    def allocate(self, params: list[Any], into: list[Any]) -> None:
        """Make new arrays for the results, and put them `into` their places."""
        for k, i in enumerate(self.members):
            into[i] = x = np.empty_like(params[i])
            self.table[2, k] = address_of(x)

    def spans(self, *, written: int, read: int) -> tuple[Any, Any, Any, Any]:
        """Return addresses and sizes of the rows of the table from `written` on, and from `read` to the gradients."""
        table, sizes = self.table, self._bytes
        rows = table[written:], sizes[written:], table[read:2], sizes[read:2]
        first, second, third, fourth = (x.reshape(-1) for x in rows)
        return first, second, third, fourth
