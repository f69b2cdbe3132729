"""Tensors of the compiled engine: their arrays are looked at by machine code, nine nanoseconds each."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..._arrays.address import address_of
from ..._arrays.typing import Scalars
from .. import kernels
from ..group import Bound, Launched, Staged, StepNumbers, made
from ..host import HostGroup, HostSingle, reals_of
from ..numbers import Key
from ..ones import with_copies
from ..tensor import Tensor
from ..together import alone
from . import build, fields
from . import kernel as compiled
from .variants import variant_of

_C_CONTIGUOUS, _F_CONTIGUOUS, _ALIGNED, _WRITEABLE = 0x1, 0x2, 0x100, 0x400  # as in NumPy's C API


@functools.cache
def _reader() -> Callable[..., int] | None:
    """Return `fields.read_arrays`, or None where NumPy's arrays are not laid out as it expects."""
    read = build.build(fields.source(), "read_arrays", fields.PROTOTYPE)
    plain, locked = np.zeros((2, 3)), np.zeros((2, 3))
    locked.flags.writeable = False
    turned, number = np.asfortranarray(plain), np.zeros(())
    good = [(plain, plain), (turned, turned), (plain[1:], plain[1:]), (number, number)]
    bad = [(plain, turned), (turned, plain), (plain, locked), (plain, plain[:1]), (plain, plain[0])]
    bad += [(plain, x) for x in (plain.view(np.int64), plain.astype(np.float32), 1.0, np.zeros((2, 4))[:, 1:])]
    for pairs, expected in ((good, [fields.MOVED, fields.SAME]), (bad, [0, 0])):
        for like, x in pairs:
            look = _Look([like], plain.dtype, 2, in_place=True)
            if [look.read(read, [[x], [like]]) for _ in expected] != expected:
                return None
            if any(expected) and look.addresses.ravel().tolist() != [x.ctypes.data, like.ctypes.data]:
                return None
    return read


class _Look:
    """How the arrays of a group look, which are contiguous, and where they were.

    Parameters
    ----------
    arrays : sequence of ndarray
        One of each tensor.
    dtype : dtype
        That they have.
    roles : {2, 3}
        How many are read of each tensor: params, grads, and outs.
    in_place : bool
        Whether the params are written.
    """

    def __init__(self, arrays: Sequence[Any], dtype: Any, roles: int, *, in_place: bool) -> None:
        order = [_C_CONTIGUOUS if x.flags.c_contiguous else _F_CONTIGUOUS for x in arrays]
        flags = np.tile(np.array(order, np.int64) | _ALIGNED, (roles, 1))
        if in_place or roles == 3:
            flags[0 if in_place else 2] |= _WRITEABLE
        ndims = np.array([x.ndim for x in arrays], np.int64)
        shapes = np.array([size for x in arrays for size in x.shape], np.int64)
        self.addresses: Any = np.zeros((roles, len(arrays)), np.int64)
        """Where they were when they were last read, (roles, tensors)."""
        self.table: Any = None
        """The table made of these."""
        parts = ndims, shapes, flags, self.addresses
        self._alive = parts, dtype
        self._own = np.array([id(np.ndarray), id(dtype), *map(address_of, parts), *flags.shape], np.int64)
        self._address = address_of(self._own)

    def read(self, read: Callable[..., int], roles: list[list[Any]]) -> int:
        """Read where arrays lie into `addresses`; return what `read`, of `_reader`, does."""
        return read(id(roles[0]), id(roles[1]), id(roles[-1]), self._address)


class CompiledGroup(HostGroup):
    """Tensors of one dtype, all updated by one call."""

    def __init__(self, members: list[int], tensors: list[Tensor]) -> None:
        super().__init__(members, tensors)
        self._kernel = _kernel_of(tensors[0])
        if self._kernel.whole:  # and computes all numbers of a tensor
            self.ones = None
        self._code = self.compute.char
        # an array that was unpickled has a dtype that is equal to the usual one, and another object
        look = functools.partial(_Look, [tensor.param for tensor in tensors], np.dtype(self.dtype.type))
        self._looks = {
            (2, True): look(2, in_place=True),
            (2, False): look(2, in_place=False),
            (3, False): look(3, in_place=False),
        }
        rows = np.zeros(len(members), np.int64)
        self._where = compiled.places(self._table, compiled.cut(tuple(self.sizes)), rows)
        self._call: compiled.Call | None = None  # on these

    @staticmethod
    def kind(tensor: Tensor) -> Any:
        """Return the dtype, and whether a tensor goes through all passes at once."""
        return tensor.spec.dtype, variant_of(tensor).whole

    def set_rows(self, rows: list[int]) -> bool:
        """Say which row of numbers each tensor has."""
        self._call = None
        self._where = compiled.places(self._where.table, self._where.cut, np.array(self.take_rows(rows), np.int64))
        return True

    def read(self, roles: list[list[Any]], in_place: bool) -> Any:
        """Return where arrays lie; None if one does not look as it should."""
        read = _reader()
        if read is None:
            return super().read(roles, in_place)
        look = self._looks[len(roles), in_place]
        table, look.table = look.table, None  # an interrupt may leave addresses that it is not of
        found = look.read(read, roles)
        if not found:
            return super().read(roles, in_place)
        if table is None or found != fields.SAME:
            table = self.tabled(look.addresses, in_place)
        look.table = table
        return table

    def launch(self, bound: Bound, numbers: StepNumbers) -> Launched:
        """Evaluate the numbers."""
        if self.ones is None:
            if self.clipped or (numbers.keys is not None and self.keys(numbers) is not None):
                return Launched(bound.outs, self.slots, self._begun(bound, numbers).prepare())
            packed = self._kernel.numbers.rows(self.scalars(numbers), (), None, self._code)
            return made(Launched, (bound.outs, self.slots, self._ready(bound, packed)))
        return alone(self.staged(bound, numbers))

    def staged(self, bound: Bound, numbers: StepNumbers) -> Staged:
        """Evaluate the numbers, with those of each tensor."""
        begun = self._begun(bound, numbers)
        assert self.ones is not None
        ones, copies = yield from self.ones.launch(self.scalars(numbers), self._where.rows, begun.measure)
        return Launched(bound.outs, self.slots, functools.partial(with_copies, begun.prepare(ones), copies))

    def _begun(self, bound: Bound, numbers: StepNumbers) -> compiled.Launch:
        grads = self.reals(bound)[1] if self.clipped else bound.grads
        scalars, keys = self.scalars(numbers), self.keys(numbers)
        return compiled.Launch(self._kernel, self._places(bound), scalars, keys, grads)

    def _ready(self, bound: Bound, packed: bytes) -> Callable[[], None]:
        """Return what calls the kernel: the very call of the last step where nothing has moved since."""
        where = self._where
        if where.table is not bound.table:
            self._call = None
            where = self._places(bound)
            return compiled.ready(self._kernel.call, where, packed, helpers=where.cut.helpers())
        if self._call is None:
            self._call = compiled.Call(self._kernel.call, where, len(packed))
        return self._call.prepare(packed)

    def _places(self, bound: Bound) -> compiled.Places:
        where = self._where
        if where.table is not bound.table:
            self._where = where = compiled.places(bound.table, where.cut, where.rows, where.row)
        return where


class CompiledSingle(HostSingle):
    """A tensor that is updated alone by machine code."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(tensor)
        self._kernel = _kernel_of(tensor)
        self._pieces = compiled.cut((self.size,))
        self._slots = [address_of(x) for x in self.wide]
        if self._kernel.whole:
            self.ones = None
            self._slots += [address_of(self.slots[k]) for k in self.rule.ones]
        self._pack = struct.Struct(f"{3 + len(self._slots)}q").pack
        self._where = compiled.places(b"", self._pieces, _FIRST_ROW, _FIRST_GIVEN)
        self._call: compiled.Call | None = None  # on these

    def launch(
        self, param: Any, grad: Any, result: Any, h: Scalars, key: Key | None, proceed: Any
    ) -> Callable[[], None]:
        """Evaluate the numbers."""
        kernel = self._kernel
        table = self._pack(address_of(param), address_of(grad), address_of(result), *self._slots)
        where, has_moved = self._where, self._where.table != table
        if has_moved:
            self._call = None  # first, for an interrupt may come in between
            self._where = where = compiled.places(table, self._pieces, _FIRST_ROW, _FIRST_GIVEN)
        keys = None if key is None else [key]
        if self.ones is None and not self.clipped:  # nothing is asked of whole arrays
            packed = kernel.numbers.rows([h], _FIRST_ROW, keys, kernel.compute.char)
            if has_moved:
                return compiled.ready(kernel.call, where, packed, helpers=self._pieces.helpers())
            if self._call is None:
                self._call = compiled.Call(kernel.call, where, len(packed))
            return self._call.prepare(packed)
        grads = [reals_of(grad) if self.clipped and self.parts == 2 else grad]
        begun = compiled.Launch(kernel, where, [h], keys, grads)
        if self.ones is None:
            return begun.prepare()
        ones, copies = alone(self.ones.launch([h], _FIRST_ROW, begun.measure))
        return functools.partial(with_copies, begun.prepare(ones), copies)


_FIRST_ROW: Any = np.zeros(1, np.int64)
_FIRST_GIVEN = compiled.place(_FIRST_ROW)


def _kernel_of(tensor: Tensor) -> compiled.Kernel:
    """Return the kernel of a tensor that the engine does not refuse."""
    assert tensor.h is not None
    kernel = kernels.compiled(tensor.rule, tensor.h, variant_of(tensor))
    assert not isinstance(kernel, kernels.Refusal)
    return kernel
