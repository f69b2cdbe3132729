"""Groups: the tensors that one engine updates in one call. Built once, bound to arrays and launched at each step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from .._arrays.library import SUPPORTED
from .._arrays.namespace import library_of
from .._arrays.typing import Scalars
from .._graph.questions import Question
from .._graph.rule import Rule
from .numbers import Key
from .tensor import Tensor

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


made = tuple.__new__
"""Make one of these named tuples, of a tuple: in a third of the time that its class takes."""


class Launched(NamedTuple):
    """Updates for which everything that can fail has been done."""

    results: list[Any]  # the very arrays that hold the new parameters once `finish` has been called
    slots: list[Any]  # and the new slots
    finish: Callable[[], None]  # writes; nothing in it can fail


Wanted = Mapping[Question, Sequence[Any]]
"""What is asked for, and what each tensor has to say to it: what the ways of the reduction come to, or `OnDevice`."""

Answers = Mapping[Question, Any]
"""What is found of the model: a float, or an array of shape () where that lies on a device."""

Staged = Generator[Wanted, Answers, Launched]
"""A launch that asks for what is found of the whole model."""


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
    couples: bool
    """Whether it needs what is found of the whole model, and so is launched by `staged`."""
    members: list[int]
    slots: list[Any]
    bytes: Any  # of each parameter: ndarray of int64; None where nothing is written by address

    def __init__(self, members: list[int], tensors: list[Tensor]) -> None: ...

    @property
    def questions(self) -> Collection[Question] | None:
        """What `staged` asks, if that is known before: what a rule without a graph asks is not."""

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

    def staged(self, bound: Bound, numbers: StepNumbers) -> Staged:
        """Do the same, and ask on the way for what is found of the whole model."""


class Single(Protocol):
    """A tensor that is updated alone, again and again: a group of one, with a shorter way to its arrays."""

    rule: Rule
    slots: Any

    def __init__(self, tensor: Tensor) -> None: ...

    def bind(self, param: Any, grad: Any, out: Any) -> tuple[Any, Any] | None:
        """Return what is read and where the result goes; None if an array is not as it was, or there is an overlap."""

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
        self.couples = False
        self.members = members
        first = members[0]
        self._pick = itemgetter(*members) if len(members) > 1 else itemgetter(slice(first, first + 1))
        self.slots = slots
        self._rows: list[int] = []  # of a step's numbers, that its tensors have
        self._all_rows = True  # whether these are all that there are

    @property
    def questions(self) -> Collection[Question] | None:
        """What is asked of the whole model: nothing."""
        return ()

    def mine(self, arrays: list[Any]) -> list[Any]:
        """Return those arrays of the model that are this group's."""
        return arrays if len(arrays) == len(self.members) else [*self._pick(arrays)]

    def take_rows(self, rows: list[int]) -> list[int]:
        """Note which rows of a step's numbers its tensors have; return that of each, counted among these alone."""
        mine = self.mine(rows)
        self._rows = sorted(set(mine))
        self._all_rows = mine is rows or len(self._rows) == len(set(rows))
        place = {row: k for k, row in enumerate(self._rows)}
        return [place[row] for row in mine]

    def scalars(self, numbers: StepNumbers) -> Sequence[Scalars]:
        """Return the rows that its tensors have: those of other groups may be of other rules."""
        if self._all_rows:
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
        self.parts = tensors[0].spec.parts
        self.sizes = [tensor.param.size * self.parts for tensor in tensors]
        """In reals, of which a complex number is two: all that a kernel sees."""
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
        if not all(library_of(x) is library and library.dtype_name(x.dtype) in SUPPORTED for x in grads):
            return None
        return [x if x.dtype == dtype else library.astype(x, dtype) for x in grads]
