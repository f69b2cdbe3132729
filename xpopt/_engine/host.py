"""Groups of NumPy arrays, for the engines that update where these lie."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from .._arrays.address import address_of, addressed
from .._arrays.library import PARTS, is_complex, real_of
from .._arrays.parameter import Spec
from .._graph.passes import passes_of
from .._graph.questions import Question
from .._graph.rule import Rule
from .group import Bound, FusedMembers, made
from .ones import Ones, side_by_side
from .start import started
from .tensor import Tensor

BLOCK = 65_536
"""Elements in a block: the fastest size on processors with 1 MiB of cache for each core."""

SHARED = 8_192
"""Elements up to which a tensor shares a block with others; a larger one pays for its own calls."""


class HostGroup(FusedMembers):
    """A group of NumPy arrays, each contiguous in the order that it had when the group was built."""

    def __init__(self, members: list[int], tensors: list[Tensor]) -> None:
        rule = tensors[0].rule
        slots, blocks = side_by_side(rule, new_slots(tensors))
        super().__init__(members, tensors, slots, (*rule.wide, *rule.ones), address_of)
        self.wide = of_arrays(rule, slots)
        self.dtype, self.compute = tensors[0].spec.dtype, _arithmetic(tensors[0].spec)
        self.ones = _ones(tensors[0], blocks, self.sizes, self.compute)
        self.couples = bool(self.questions)
        self._orders = [_order_of(tensor.param) for tensor in tensors]
        self._viewed: tuple[Any, Any] = None, None  # a table, and views of the arrays there, which keep none alive
        self._last: dict[Any, tuple[list[int], Any]] = {}  # the addresses that were last read, and the table of these

    @property
    def questions(self) -> Collection[Question]:
        """What is asked of the whole model."""
        return () if self.ones is None else self.ones.questions

    @staticmethod
    def refuse(tensor: Tensor) -> str | None:
        """Return why it cannot update a tensor, or None if it can."""
        param, grad, out = tensor.param, tensor.grad, tensor.out
        slots = [x for x in tensor.slots or () if x is not None]
        if not tensor.owned and not all(x.flags.writeable for x in slots):
            return "a slot is read-only"
        if grad.dtype != param.dtype:
            return "the gradient is of another dtype than the parameter"
        flags = [x.flags for x in (param, grad, *slots, *(() if out is None else (out,)))]
        if all(of.c_contiguous for of in flags) or all(of.f_contiguous for of in flags):
            return None
        return "the arrays are not contiguous, or not in one order"

    @staticmethod
    def kind(tensor: Tensor) -> Any:
        """Return the dtype."""
        return tensor.spec.dtype

    def bind(self, params: list[Any], grads: list[Any], outs: list[Any] | None) -> Bound | None:
        """Find where everything lies."""
        mine, of_mine, in_place = self.mine(params), self.mine(grads), outs is params
        new = mine if in_place else None if outs is None else self.mine(outs)
        roles = [mine, of_mine] if in_place or new is None else [mine, of_mine, new]
        table = self.read(roles, in_place)
        if table is None:
            converted = self.converted(of_mine)
            if converted is None:
                return None
            roles[1] = of_mine = converted
            table = self.read(roles, in_place)
            if table is None:
                return None
        if new is None:
            new = [np.empty_like(x) for x in mine]
            table = table.copy()
            table[2] = [address_of(x) for x in new]
        return made(Bound, (mine, of_mine, new, table))

    def reals(self, bound: Bound) -> Sequence[list[Any]]:
        """Return params, grads and outs of one step as the reals that a kernel sees."""
        roles = bound.params, bound.grads, bound.outs
        if self.parts == 1:
            return roles
        table, views = self._viewed
        if table is not bound.table:
            self._viewed = bound.table, None
            return [list(map(reals_of, arrays)) for arrays in roles]
        if views is None:  # nothing has moved since the last step
            params, grads = ([_unowned(reals_of(x)) for x in arrays] for arrays in roles[:2])
            outs = params if bound.outs is bound.params else [_unowned(reals_of(x)) for x in bound.outs]
            self._viewed = table, views = table, (params, grads, outs)
        return views

    def read(self, roles: list[list[Any]], in_place: bool) -> Any:
        """Return where arrays lie.

        Parameters
        ----------
        roles : list of list of object
            Params, grads and, unless they are made anew or are the params, outs.
        in_place : bool
            Whether the params are written.

        Returns
        -------
        ndarray of int64, or None
            A table of the addresses, with those of the slots: the very one of the last time where nothing has moved.
            None if an array does not look as it should.
        """
        for k, arrays in enumerate(roles):
            if not self._look_right(arrays, k == 2 or (k == 0 and in_place)):
                return None
        addresses, key = [address_of(x) for arrays in roles for x in arrays], (len(roles), in_place)
        last = self._last.get(key)
        if last is None or last[0] != addresses:
            table = self.tabled(np.array(addresses, np.int64).reshape(len(roles), -1), in_place)
            self._last[key] = last = addresses, table
        return last[1]

    def tabled(self, addresses: Any, in_place: bool) -> Any:
        """Return a new table with addresses of the first roles."""
        table = self._table.copy()
        table[: len(addresses)] = addresses
        if in_place:
            table[2] = table[0]
        return table

    def _look_right(self, arrays: list[Any], written: bool) -> bool:
        dtype = self.dtype
        for x, shape, order in zip(arrays, self._shapes, self._orders, strict=True):  # `all` takes longer
            if type(x) is not np.ndarray or x.shape != shape or x.dtype != dtype:
                return False
            flags = x.flags
            if not getattr(flags, order) or (written and not flags.writeable):
                return False
        return True


class HostSingle:
    """A tensor in NumPy arrays that is updated alone.

    Parameters
    ----------
    tensor : Tensor
        The tensor, which is not kept.
    """

    def __init__(self, tensor: Tensor) -> None:
        param, spec = tensor.param, tensor.spec
        (self.slots,) = new_slots([tensor])
        _, blocks = side_by_side(tensor.rule, [self.slots])
        (self.wide,) = of_arrays(tensor.rule, [self.slots])
        self.rule, self.compute = tensor.rule, _arithmetic(spec)
        self.clipped = tensor.clipped
        self.parts = spec.parts
        self.size: int = param.size * self.parts
        self.ones = _ones(tensor, blocks, [self.size], self.compute)
        self.shape, self.dtype = spec.shape, spec.dtype
        self._bytes = param.nbytes
        self._order = _order_of(param)
        self._is_plain = bool(self.shape) and self._order == "c_contiguous"
        self._addresses: tuple[int, int] | None = None  # of param and grad, where the result goes in param's place
        self._viewed: tuple[Any, Any] = None, None  # the last of these, and the arrays there as reals

    def bind(self, param: Any, grad: Any, out: Any) -> tuple[Any, Any] | None:
        """Return what is read and where the result goes: one array where they are the same memory."""
        self._addresses = None
        if not (self._looks_right(param) and self._looks_right(grad)):
            return None
        if out is None:
            return param, np.empty_like(param)
        if not out.flags.writeable if out is param else not (self._looks_right(out) and out.flags.writeable):
            return None
        start, of_grad, size = address_of(out), address_of(grad), self._bytes
        if abs(of_grad - start) < size:
            return None
        if out is param or (apart := abs(address_of(param) - start)) == 0:
            self._addresses = start, of_grad
            return out, out  # all are contiguous in one order
        return None if apart < size else (param, out)

    def reals(self, param: Any, grad: Any, result: Any) -> tuple[Any, Any, Any]:
        """Return the complex arrays of one step, which have been bound, as the reals that a kernel sees."""
        addresses, (last, views) = self._addresses, self._viewed
        if addresses is None:
            if not self._is_plain:
                return reals_of(param), reals_of(grad), reals_of(result)
            compute = self.compute
            return param.view(compute), grad.view(compute), result.view(compute)
        if addresses != last:
            self._viewed = addresses, None
            param = reals_of(param)
            return param, reals_of(grad), param
        if views is None:  # nothing has moved since the last step
            views = _unowned(reals_of(param)), _unowned(reals_of(grad))
            self._viewed = addresses, views
        return views[0], views[1], views[0]

    def _looks_right(self, x: Any) -> bool:
        return (
            type(x) is np.ndarray and x.shape == self.shape and x.dtype == self.dtype and getattr(x.flags, self._order)
        )


def _order_of(x: Any) -> str:
    """Return the name of the flag that says in which order a contiguous array is."""
    return "c_contiguous" if x.flags.c_contiguous else "f_contiguous"


def of_arrays(rule: Rule, slots: list[Any]) -> list[Any]:
    """Return the slots of each tensor but those that are one number, as reals."""
    if rule.ones:
        slots = [tuple(of[k] for k in rule.wide) for of in slots]
    if any(is_complex(x.dtype) for x in slots[0]):
        slots = [tuple(map(reals_of, of)) for of in slots]
    return slots


def _arithmetic(spec: Spec) -> Any:
    """Return the dtype of the arithmetic, and of the numbers of a step."""
    return spec.compute if spec.parts == 1 else np.dtype(real_of(spec.compute.name))


def reals_of(x: Any) -> Any:
    """Return a contiguous complex array as its parts, in the order of memory: a view in C order."""
    if x.ndim == 0:
        x = x.reshape(1)
    return (x if x.flags.c_contiguous else x.T).view(PARTS[x.itemsize])


def _unowned(x: Any) -> Any:
    """Return the same array in C order without what owns its memory: to be used only while arrays are there."""
    return addressed(address_of(x), None, x.shape, x.dtype, None)


def _ones(tensor: Tensor, blocks: list[Any], sizes: Sequence[int], compute: Any) -> Ones | None:
    """Return what computes the numbers that each tensor has of its own; None where there are none."""
    rule, h, clipped = tensor.rule, tensor.h, tensor.clipped
    assert h is not None
    if not blocks and not passes_of(rule, h, clipped=clipped).before:
        return None
    return Ones(rule, h, clipped=clipped, blocks=blocks, sizes=sizes, compute=compute)


def new_slots(tensors: Sequence[Tensor]) -> list[Any]:
    """Return slots that may be written, with the state before the update.

    Parameters
    ----------
    tensors : sequence of Tensor
        In NumPy arrays, of one rule.

    Returns
    -------
    list of NamedTuple of ndarray
        The slots. Those of small tensors that follow each other lie in one array, up to a block.
    """
    rule = tensors[0].rule
    results = []
    shared: list[Any] = []
    for i, tensor in enumerate(tensors):
        size, old = tensor.param.size * tensor.spec.parts, tensor.slots
        if tensor.owned:
            slots = old
        elif size > SHARED or not rule.fields or rule.ones or rule.narrow or len(tensors) == 1:
            slots = rule.make_slots(_begun(tensor) if old is None else map(np.array, old))
        else:
            if not shared or len(shared[0]) < size:
                shared = [np.zeros(_following(tensors, i), _arithmetic(tensor.spec)) for _ in rule.fields]
            slots = rule.make_slots([_shaped(x[:size].view(tensor.spec.compute), tensor.param) for x in shared])
            shared = [x[size:] for x in shared]
            if old is None and not rule.plain:
                old = _begun(tensor)
            for x, value in zip(slots, old or (), strict=old is not None):
                x[...] = value
        results.append(slots)
    return results


def _begun(tensor: Tensor) -> list[Any]:
    """Return new arrays for the slots of a parameter that has none."""
    rule, param, spec = tensor.rule, tensor.param, tensor.spec
    if rule.plain:
        return [np.zeros_like(param, spec.compute) for _ in rule.fields]
    return started(tensor.library, spec, rule, param, tensor.h)


def _following(tensors: Sequence[Tensor], first: int) -> int:
    """Return how many reals the small tensors have that follow from one on, up to a block."""
    total = 0
    for tensor in itertools.islice(tensors, first, None):
        size = tensor.param.size * tensor.spec.parts
        if size > SHARED or tensor.owned or total + size > BLOCK:
            break
        total += size
    return total


def _shaped(x: Any, like: Any) -> Any:
    return x.reshape(like.shape) if like.flags.c_contiguous else x.reshape(like.shape[::-1]).T
