"""What the compiled engine keeps of a model: its arrays are looked at by machine code, nine nanoseconds each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._arrays.namespace import address_of
from ..._arrays.parameter import dtype_text
from ..._graph.rule import Rule
from ..group import Group, Step
from . import build
from . import kernel as compiled

_C_CONTIGUOUS, _F_CONTIGUOUS, _ALIGNED, _WRITEABLE = 0x1, 0x2, 0x100, 0x400  # as in NumPy's C API

_SIGNATURE = "boolean(int64, int64, int64, int64[::1], int64[::1], int64[:,::1], int64[:,::1])"


@functools.cache
def _reader() -> Callable[..., bool] | None:
    """Return `fields.read_arrays`, or None where NumPy's arrays are not laid out as it expects."""
    read = build.build(build.source_of("fields"), "read_arrays", _SIGNATURE)
    plain, locked = np.zeros((2, 3)), np.zeros((2, 3))
    locked.flags.writeable = False
    turned, number = np.asfortranarray(plain), np.zeros(())
    good = [(plain, plain), (turned, turned), (plain[1:], plain[1:]), (number, number)]
    bad = [(plain, turned), (turned, plain), (plain, locked), (plain, plain[:1]), (plain, plain[0])]
    bad += [(plain, x) for x in (plain.view(np.int64), plain.astype(np.float32), 1.0, np.zeros((2, 4))[:, 1:])]
    table = np.zeros((1, 1), np.int64)
    for expected, pairs in ((True, good), (False, bad)):
        for like, x in pairs:
            ndims, shapes, flags = _look_of([like])
            held = _Held(np.fromiter([x], object, 1), plain.dtype, flags | _WRITEABLE)
            seen = held.read(read, ndims, shapes, table)
            if seen != expected or (seen and table[0, 0] != x.ctypes.data):
                return None
    return read


def _look_of(arrays: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Return the number of dimensions, the shapes one after the other, and the flags of contiguous arrays to read."""
    ndims = np.array([x.ndim for x in arrays], np.int64)
    shapes = np.array([size for x in arrays for size in x.shape], np.int64)
    order = [_C_CONTIGUOUS if x.flags.c_contiguous else _F_CONTIGUOUS for x in arrays]
    return ndims, shapes, np.array([order], np.int64) | _ALIGNED


class _Held(NamedTuple):
    """Arrays of one dtype: for each role, one for each tensor."""

    arrays: Any  # ndarray of object
    dtype: Any
    flags: Any  # that they must have

    def read(self, read: Callable[..., bool], ndims: Any, shapes: Any, table: Any) -> bool:
        """Read where they lie into the first rows of `table`; return whether all of them look as they should."""
        kind, flags = id(np.ndarray), self.flags
        return read(address_of(self.arrays), kind, id(self.dtype), ndims, shapes, flags, table[: len(flags)])


class CompiledGroup(Group):
    """Tensors of one dtype whose next update is one call."""

    def __init__(self, rule: Rule, members: list[int], params: list[Any], slots: list[Any], rows: list[int]) -> None:
        super().__init__(rule, members, params, slots, rows)
        self._dtype = params[0].dtype
        self._dtype_name = dtype_text(self._dtype)
        self._ndims, self._shapes, flags = _look_of(params)
        self._flags = {
            "in place": np.concatenate([flags | _WRITEABLE, flags]),
            "new": np.concatenate([flags, flags]),
            "apart": np.concatenate([flags, flags, flags | _WRITEABLE]),
        }
        held = [x for of_field in zip(*slots, strict=True) for x in of_field]
        slot_flags = np.repeat(flags | _WRITEABLE, len(rule.fields), axis=0)
        self._slots = _Held(np.fromiter(held, object, len(held)), held[0].dtype if held else None, slot_flags)
        self._row_of = np.array(rows, np.int64)
        self._pieces = compiled.cut(tuple(x.size for x in params))

    def gather(self, params: list[Any], grads: list[Any], outs: list[Any] | None) -> bool:
        """Read where everything lies, but new outs; return whether all of it looks as it did."""
        read = _reader()
        where = "in place" if outs is params else "new" if outs is None else "apart"
        arrays = [*self.mine(params), *self.mine(grads)]
        if outs is not None and outs is not params:
            arrays += self.mine(outs)
        inputs = _Held(np.fromiter(arrays, object, len(arrays)), self._dtype, self._flags[where])
        if read is None or not inputs.read(read, self._ndims, self._shapes, self.table):
            return False
        if outs is params:
            self.table[2] = self.table[0]
        return self._slots.read(read, self._ndims, self._shapes, self.table[3:])

    def prepare(self, step: Step, params: list[Any], grads: list[Any], outs: list[Any]) -> Callable[[], None]:
        """Return the function that updates them; nothing in it can fail."""
        keys = self.keys(step)
        kernel = compiled.kernel(self.rule, step.scalars[0], self._dtype_name, drawn=keys is not None)
        return kernel.prepare(self.table, self._pieces, self._row_of, step.scalars, keys, self.mine(grads))
