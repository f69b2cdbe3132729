"""Tensors of the compiled engine: their arrays are looked at by machine code, nine nanoseconds each."""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..._arrays.address import address_of
from ..._arrays.typing import Scalars
from .. import kernels
from ..group import Bound, Launched, Staged, StepNumbers
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
def _reader() -> Callable[..., bool] | None:
    """Return `fields.read_arrays`, or None where NumPy's arrays are not laid out as it expects."""
    read = build.build(fields.source(), "read_arrays", fields.PROTOTYPE)
    plain, locked = np.zeros((2, 3)), np.zeros((2, 3))
    locked.flags.writeable = False
    turned, number = np.asfortranarray(plain), np.zeros(())
    good = [(plain, plain), (turned, turned), (plain[1:], plain[1:]), (number, number)]
    bad = [(plain, turned), (turned, plain), (plain, locked), (plain, plain[:1]), (plain, plain[0])]
    bad += [(plain, x) for x in (plain.view(np.int64), plain.astype(np.float32), 1.0, np.zeros((2, 4))[:, 1:])]
    table = np.zeros((1, 1), np.int64)
    for expected, pairs in ((True, good), (False, bad)):
        for like, x in pairs:
            look = _Look([like])
            seen = look.read(read, np.fromiter([x], object, 1), plain.dtype, look.written, table)
            if seen != expected or (seen and table[0, 0] != x.ctypes.data):
                return None
    return read


class _Look:
    """How the arrays of a group look, which are contiguous.

    Parameters
    ----------
    arrays : sequence of ndarray
        One of each tensor.
    """

    def __init__(self, arrays: Sequence[Any]) -> None:
        order = [_C_CONTIGUOUS if x.flags.c_contiguous else _F_CONTIGUOUS for x in arrays]
        flags = np.array([order], np.int64) | _ALIGNED
        self._ndims = np.array([x.ndim for x in arrays], np.int64)
        self._shapes = np.array([size for x in arrays for size in x.shape], np.int64)
        self._places = address_of(self._ndims), address_of(self._shapes)
        self.written = flags | _WRITEABLE
        """The flags of arrays that are written."""
        self.of_roles = {
            (2, True): np.concatenate([self.written, flags]),
            (2, False): np.concatenate([flags, flags]),
            (3, False): np.concatenate([flags, flags, self.written]),
        }
        """The flags that arrays must have, by how many roles are read and whether in place."""

    def read(self, read: Callable[..., bool], arrays: Any, dtype: Any, flags: Any, table: Any) -> bool:
        """Read where arrays lie into the first rows of `table`; return whether all of them look as they should.

        Parameters
        ----------
        read : callable
            What `_reader` returns.
        arrays : ndarray of object
            For each role, one of each tensor.
        dtype : dtype
            That they must have.
        flags : ndarray of int64, (roles, tensors)
            That they must have.
        table : ndarray of int64, (roles or more, tensors)
            Where the addresses go.

        Returns
        -------
        bool
            Whether they do.
        """
        more = address_of(flags), address_of(table), *flags.shape
        return read(address_of(arrays), id(np.ndarray), id(dtype), *self._places, *more)


class CompiledGroup(HostGroup):
    """Tensors of one dtype, all updated by one call."""

    def __init__(self, members: list[int], tensors: list[Tensor]) -> None:
        super().__init__(members, tensors)
        self._kernel = _kernel_of(tensors[0])
        if self._kernel.whole:  # and computes all numbers of a tensor
            self.ones = None
        self._code = self.compute.char
        self._usual = np.dtype(self.dtype.type)
        self._look = _Look([tensor.param for tensor in tensors])
        rows = np.zeros(len(members), np.int64)
        self._where = compiled.places(self._table, compiled.cut(tuple(self.sizes)), rows)

    @staticmethod
    def kind(tensor: Tensor) -> Any:
        """Return the dtype, and whether a tensor goes through all passes at once."""
        return tensor.spec.dtype, variant_of(tensor).whole

    def set_rows(self, rows: list[int]) -> bool:
        """Say which row of numbers each tensor has."""
        self._where = compiled.places(self._where.table, self._where.cut, np.array(self.take_rows(rows), np.int64))
        return True

    def read(self, roles: list[list[Any]], in_place: bool, table: Any) -> bool:
        """Read where arrays lie into the first rows of `table`; return whether they look as they should."""
        read = _reader()
        if read is None:
            return super().read(roles, in_place, table)
        arrays = np.fromiter(itertools.chain.from_iterable(roles), object, len(roles) * len(self.members))
        flags = self._look.of_roles[len(roles), in_place]
        # an array that was unpickled has a dtype that is equal to the usual one, and another object
        return self._look.read(read, arrays, self._usual, flags, table) or super().read(roles, in_place, table)

    def launch(self, bound: Bound, numbers: StepNumbers) -> Launched:
        """Evaluate the numbers."""
        if self.ones is None:
            keys = self.keys(numbers)
            if self.clipped or keys is not None:
                return Launched(bound.outs, self.slots, self._begun(bound, numbers).prepare())
            packed = self._kernel.numbers.rows(self.scalars(numbers), (), None, self._code)
            where = self._places(bound)
            call = compiled.ready(self._kernel.call, where, packed, helpers=where.cut.helpers())
            return Launched(bound.outs, self.slots, call)
        return alone(self.staged(bound, numbers))

    def staged(self, bound: Bound, numbers: StepNumbers) -> Staged:
        """Evaluate the numbers, with those of each tensor."""
        begun = self._begun(bound, numbers)
        assert self.ones is not None
        ones, copies = yield from self.ones.launch(self.scalars(numbers), self._where.rows, begun.measure)
        return Launched(bound.outs, self.slots, functools.partial(with_copies, begun.prepare(ones), copies))

    def _begun(self, bound: Bound, numbers: StepNumbers) -> compiled.Launch:
        grads = self.reals(bound.grads) if self.clipped else bound.grads
        scalars, keys = self.scalars(numbers), self.keys(numbers)
        return compiled.Launch(self._kernel, self._places(bound), scalars, keys, grads)

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

    def launch(
        self, param: Any, grad: Any, result: Any, h: Scalars, key: Key | None, proceed: Any
    ) -> Callable[[], None]:
        """Evaluate the numbers."""
        kernel = self._kernel
        table = self._pack(address_of(param), address_of(grad), address_of(result), *self._slots)
        where = compiled.places(table, self._pieces, _FIRST_ROW, _FIRST_GIVEN)
        keys = None if key is None else [key]
        if self.ones is None and not self.clipped:  # nothing is asked of whole arrays
            numbers = kernel.numbers.rows([h], _FIRST_ROW, keys, kernel.compute.char)
            pieces = self._pieces
            return compiled.ready(kernel.call, where, numbers, helpers=pieces.helpers() if pieces.shared else 0)
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
