"""Groups: the tensors that one engine updates in one call. Built once, bound to arrays and launched at each step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from .._arrays.namespace import address_of, library_of
from .._arrays.typing import Scalars
from .._graph.rule import Rule
from .numbers import Key
from .ones import Ones, side_by_side
from .start import started
from .tensor import Tensor

BLOCK = 65_536
"""Elements in a block: the fastest size on processors with 1 MiB of cache for each core."""

SHARED = 8_192
"""Elements up to which a tensor shares a block with others; a larger one pays for its own calls."""

Keys = Sequence[Key] | None
"""What each tensor of a group draws from, or None where they are rounded to the nearest."""


class StepNumbers(NamedTuple):
    """What makes an update of tensors that of one step."""

    scalars: Sequence[Scalars]  # for each row, which is a count that some tensors have
    keys: Sequence[Key | None] | None  # what each tensor draws from, where it does; None where none does
    proceed: Any  # as in `Tensor`


class Bound(NamedTuple):
    """The arrays of one step: for each role as many as the group has tensors."""

    params: list[Any]
    grads: list[Any]
    outs: list[Any]
    table: Any  # their addresses: ndarray of int64, (roles, tensors), the slots last; None of an eager group


class Launched(NamedTuple):
    """Updates for which everything that can fail has been done."""

    results: list[Any]  # the very arrays that hold the new parameters once `finish` has been called
    slots: list[Any]  # and the new slots
    finish: Callable[[], None]  # writes; nothing in it can fail


class Group(Protocol):
    """Tensors of one rule and engine.

    Parameters
    ----------
    members : list of int
        Which tensors of the model they are.
    tensors : list of Tensor
        They themselves.
    """

    in_place: ClassVar[bool]
    """Whether slots are written where they are: those that the optimizer owns are taken over, and others copied.

    If not, each step leaves new ones, and `slots` has to be set before the next.
    """
    members: list[int]
    slots: list[Any]
    bytes: Any  # of each parameter: ndarray of int64; None where nothing is written by address

    def __init__(self, members: list[int], tensors: list[Tensor]) -> None: ...

    @staticmethod
    def refuse(tensor: Tensor) -> str | None:
        """Return why the engine cannot update a tensor, or None if it can; nothing is compiled for the answer."""

    @staticmethod
    def kind(tensor: Tensor) -> Any:
        """Return what all tensors of a group have in common, beside their rule."""

    def set_rows(self, rows: list[int]) -> bool:
        """Say which row of a step's numbers each tensor of the model has; False if the group cannot go on."""

    def bind(self, params: list[Any], grads: list[Any], outs: list[Any] | None) -> Bound | None:
        """Find the group's arrays among those of a model; None if one is not as it was when the group was built.

        New arrays are made where `outs` is None; `outs` may be `params` itself.
        """

    def launch(self, bound: Bound, numbers: StepNumbers) -> Launched:
        """Do all that can fail; what is returned holds while the arrays are alive."""


class Single(Protocol):
    """A tensor that is updated alone, again and again: a group of one, with a shorter way to its arrays."""

    rule: Rule
    slots: Any

    def __init__(self, tensor: Tensor) -> None: ...

    def bind(self, param: Any, grad: Any, out: Any) -> Any:
        """Return where the result goes; None if an array is not as it was, or something lies in the way."""

    def launch(
        self, param: Any, grad: Any, result: Any, h: Scalars, key: Key | None, proceed: Any
    ) -> Callable[[], None]:
        """Do all that can fail; return what writes the result."""


class Members:
    """What the groups of all engines have.

    Parameters
    ----------
    members, tensors
        As for `Group`.
    slots : list of NamedTuple of array
        Those of the tensors.
    """

    def __init__(self, members: list[int], tensors: list[Tensor], slots: list[Any]) -> None:
        self.rule = tensors[0].rule
        self.members = members
        self.slots = slots
        self._rows: list[int] = []  # of a step's numbers, that its tensors have

    def mine(self, arrays: list[Any]) -> list[Any]:
        """Return those arrays of the model that are this group's."""
        return arrays if len(arrays) == len(self.members) else [arrays[i] for i in self.members]

    def take_rows(self, rows: list[int]) -> list[int]:
        """Note which rows of a step's numbers its tensors have; return that of each, counted among these alone."""
        mine = self.mine(rows)
        self._rows = sorted(set(mine))
        place = {row: k for k, row in enumerate(self._rows)}
        return [place[row] for row in mine]

    def scalars(self, numbers: StepNumbers) -> Sequence[Scalars]:
        """Return the rows that its tensors have: those of other groups may be of other rules."""
        if len(self._rows) == len(numbers.scalars):
            return numbers.scalars
        return [numbers.scalars[row] for row in self._rows]

    def keys(self, numbers: StepNumbers) -> Keys:
        """Return what its tensors draw from."""
        if numbers.keys is None:
            return None
        keys = [key for i in self.members if (key := numbers.keys[i]) is not None]
        return keys or None


class FusedMembers(Members):
    """What the groups have whose kernels write where arrays lie.

    Parameters
    ----------
    members, tensors, slots
        As for `Members`; the slots are the optimizer's own.
    listed : sequence of int
        Which of the slots a kernel is given the addresses of.
    address_of : callable
        Returns where an array lies.
    """

    in_place: ClassVar[bool] = True

    def __init__(
        self,
        members: list[int],
        tensors: list[Tensor],
        slots: list[Any],
        listed: Sequence[int],
        address_of: Callable[[Any], int],
    ) -> None:
        super().__init__(members, tensors, slots)
        self.sizes = [tensor.param.size for tensor in tensors]
        self.bytes = np.array([tensor.param.nbytes for tensor in tensors], np.int64)
        self.clipped = tensors[0].clipped
        self._shapes = [tensor.param.shape for tensor in tensors]
        self._library, self._spec = tensors[0].library, tensors[0].spec
        self._table = np.zeros((3 + len(listed), len(members)), np.int64)
        for row, k in enumerate(listed, 3):
            self._table[row] = [address_of(of[k]) for of in slots]

    def converted(self, grads: list[Any]) -> list[Any] | None:
        """Return gradients of other dtypes in that of the parameters; None if they have no place in the group then."""
        dtype, library = self._spec.dtype, self._library  # for parameters of 16 bits, such a gradient keeps its digits
        if dtype != self._spec.compute or all(getattr(x, "dtype", None) == dtype for x in grads):
            return None
        if not all(library_of(x) is library and library.dtype_name(x.dtype) for x in grads):
            return None
        return [x if x.dtype == dtype else library.astype(x, dtype) for x in grads]


class HostGroup(FusedMembers):
    """A group of NumPy arrays, each contiguous in the order that it had when the group was built."""

    def __init__(self, members: list[int], tensors: list[Tensor]) -> None:
        rule = tensors[0].rule
        slots, blocks = side_by_side(rule, new_slots(tensors))
        super().__init__(members, tensors, slots, rule.wide, address_of)
        self.ones = None if not blocks else _ones(tensors[0], blocks)
        self.wide = of_arrays(rule, slots)
        self.dtype, self.compute = tensors[0].spec.dtype, tensors[0].spec.compute
        self._in_c_order = [tensor.param.flags.c_contiguous for tensor in tensors]

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
        roles, in_place = [self.mine(params), self.mine(grads)], outs is params
        if outs is not None and not in_place:
            roles.append(self.mine(outs))
        table = self._table.copy()
        if not self.read(roles, in_place, table):
            converted = self.converted(roles[1])
            if converted is None:
                return None
            roles[1] = converted
            if not self.read(roles, in_place, table):
                return None
        if outs is None:
            roles.append([np.empty_like(x) for x in roles[0]])
            table[2] = [address_of(x) for x in roles[2]]
        elif in_place:
            roles.append(roles[0])
            table[2] = table[0]
        mine, of_mine, new = roles
        return Bound(mine, of_mine, new, table)

    def read(self, roles: list[list[Any]], in_place: bool, table: Any) -> bool:
        """Read where arrays lie into the first rows of `table`; return whether they look as they should.

        Parameters
        ----------
        roles : list of list of object
            Params, grads and, unless they are made anew or are the params, outs.
        in_place : bool
            Whether the params are written.
        table : ndarray of int64
            The addresses.

        Returns
        -------
        bool
            Whether they do.
        """
        for k, arrays in enumerate(roles):
            written = k == 2 or (k == 0 and in_place)
            if not self._look_right(arrays) or (written and not all(x.flags.writeable for x in arrays)):
                return False
            table[k] = [address_of(x) for x in arrays]
        return True

    def _look_right(self, arrays: list[Any]) -> bool:
        return (
            set(map(type, arrays)) == {np.ndarray}
            and [x.shape for x in arrays] == self._shapes
            and {x.dtype for x in arrays} == {self.dtype}
            and [x.flags.c_contiguous for x in arrays] == self._in_c_order
            and all(x.flags.forc for x in arrays)
        )


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
        self.ones = None if not blocks else _ones(tensor, blocks)
        (self.wide,) = of_arrays(tensor.rule, [self.slots])
        self.rule, self.compute = tensor.rule, spec.compute
        self.clipped = tensor.clipped
        self.size: int = param.size
        self.shape, self.dtype = spec.shape, spec.dtype
        self._bytes = param.nbytes
        self._contiguous = "c_contiguous" if param.flags.c_contiguous else "f_contiguous"

    def bind(self, param: Any, grad: Any, out: Any) -> Any:
        """Return where the result goes; None if an array is not as it was, or something lies in the way."""
        if not (self._looks_right(param) and self._looks_right(grad)):
            return None
        if out is None:
            return np.empty_like(param)
        if not out.flags.writeable if out is param else not (self._looks_right(out) and out.flags.writeable):
            return None
        start, size = address_of(out), self._bytes
        if abs(address_of(grad) - start) < size:
            return None
        # at the same address it is the same memory, for all are contiguous in one order
        return None if out is not param and 0 < abs(address_of(param) - start) < size else out

    def _looks_right(self, x: Any) -> bool:
        return (
            type(x) is np.ndarray
            and x.shape == self.shape
            and x.dtype == self.dtype
            and getattr(x.flags, self._contiguous)
        )


def of_arrays(rule: Rule, slots: list[Any]) -> list[Any]:
    """Return the slots of each tensor but those that are one number."""
    return [tuple(of[k] for k in rule.wide) for of in slots] if rule.ones else slots


def _ones(tensor: Tensor, blocks: list[Any]) -> Ones:
    assert tensor.h is not None
    return Ones(tensor.rule, tensor.h, clipped=tensor.clipped, blocks=blocks)


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
        size, old = tensor.param.size, tensor.slots
        if tensor.owned:
            slots = old
        elif size > SHARED or not rule.fields or rule.ones or rule.narrow or len(tensors) == 1:
            slots = rule.make_slots(_begun(tensor) if old is None else map(np.array, old))
        else:
            if not shared or len(shared[0]) < size:
                shared = [np.zeros(_following(tensors, i), tensor.spec.compute) for _ in rule.fields]
            slots = rule.make_slots([_shaped(x[:size], tensor.param) for x in shared])
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
    """Return how many elements the small tensors have that follow from one on, up to a block."""
    total = 0
    for tensor in itertools.islice(tensors, first, None):
        size = tensor.param.size
        if size > SHARED or tensor.owned or total + size > BLOCK:
            break
        total += size
    return total


def _shaped(x: Any, like: Any) -> Any:
    return x.reshape(like.shape) if like.flags.c_contiguous else x.reshape(like.shape[::-1]).T
