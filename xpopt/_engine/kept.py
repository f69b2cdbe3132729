"""A kept plan: the tensors of a model's last update, whose next update costs a fraction of a microsecond each.

Nothing of the caller's is kept. At every call, each array is asked again for its type, dtype, shape, layout, flags and
address. If one is not as it was, the plan does not fit, and the update is prepared tensor by tensor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._namespace import address_of
from .._parameter import dtype_text
from .._rule import Rule
from .._typing import Scalars
from . import build, compiled

_C_CONTIGUOUS, _F_CONTIGUOUS, _ALIGNED, _WRITEABLE = 0x1, 0x2, 0x100, 0x400  # as in NumPy's C API

_Readers = tuple[Callable[..., bool], Callable[..., bool]]


@functools.cache
def _readers() -> _Readers | None:
    """Return the functions of `fields`, or None where NumPy's arrays are not laid out as they expect."""
    source = build.source_of("fields")
    read = build.build(
        source, "read_arrays", "boolean(int64, int64, int64, int64[::1], int64[::1], int64[:,::1], int64[:,::1])"
    )
    overlap = build.build(source, "overlap", f"boolean({', '.join(['int64[::1]'] * 5)})")
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
    return read, overlap


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


class _Group:
    """The tensors of one dtype.

    Parameters
    ----------
    rule : Rule
        The formula.
    members : list of int
        Which of the plan's tensors they are.
    params : sequence of ndarray
        Their parameters, for their dtype, shapes and orders.
    slots : sequence of tuple of ndarray
        The state of each.
    rows : list of int
        Which of the plan's counts each has.
    """

    def __init__(
        self, rule: Rule, members: list[int], params: Sequence[Any], slots: Sequence[tuple[Any, ...]], rows: list[int]
    ) -> None:
        self.members = members
        self.table = np.zeros((3 + len(rule.fields), len(members)), np.int64)
        self._rule = rule
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
        self._rows = np.array(rows, np.int64)
        self._pieces = compiled.cut(tuple(x.size for x in params))
        of_params = [x.nbytes for x in params]
        of_slots = [[x.nbytes for x in arrays] for arrays in zip(*slots, strict=True)]
        self._bytes = np.array([of_params, of_params, of_params, *of_slots], np.int64)

    def gather(self, read: Callable[..., bool], params: list[Any], grads: list[Any], outs: list[Any] | None) -> bool:
        """Read where everything lies, but new outs; return whether all of it looks as it did."""
        where = "in place" if outs is params else "new" if outs is None else "apart"
        arrays = [*self._mine(params), *self._mine(grads)]
        if outs is not None and outs is not params:
            arrays += self._mine(outs)
        inputs = _Held(np.fromiter(arrays, object, len(arrays)), self._dtype, self._flags[where])
        if not inputs.read(read, self._ndims, self._shapes, self.table):
            return False
        if where == "in place":
            self.table[2] = self.table[0]
        return self._slots.read(read, self._ndims, self._shapes, self.table[3:])

    def spans(self, *, written: int, read: int) -> tuple[Any, Any, Any, Any]:
        """Return addresses and sizes of the rows of the table from `written` on, and from `read` to the gradients."""
        table, sizes = self.table, self._bytes
        return (
            table[written:].reshape(-1),
            sizes[written:].reshape(-1),
            table[read:2].reshape(-1),
            sizes[read:2].reshape(-1),
        )

    def allocate(self, params: list[Any], into: list[Any]) -> None:
        """Make new arrays for the results, and put them `into` their places."""
        for k, i in enumerate(self.members):
            into[i] = x = np.empty_like(params[i])
            self.table[2, k] = address_of(x)

    def prepare(self, scalars: Sequence[Scalars], grads: list[Any]) -> Callable[[], None]:
        """Return the function that updates them; nothing in it can fail."""
        kernel = compiled.kernel(self._rule, scalars[0], self._dtype_name)
        return kernel.prepare(self.table, self._pieces, self._rows, scalars, self._mine(grads))

    def _mine(self, arrays: list[Any]) -> list[Any]:
        return arrays if len(arrays) == len(self.members) else [arrays[i] for i in self.members]


class KeptPlan:
    """What a launch for the same tensors needs again.

    Parameters
    ----------
    rule : Rule
        The formula.
    params : sequence of ndarray
        The parameters, each contiguous; not kept.
    slots : sequence of NamedTuple of ndarray
        The optimizer's own state of each, contiguous in the same order.
    rows : sequence of int
        Which of the plan's counts each tensor has.
    """

    def __init__(
        self, rule: Rule, params: Sequence[Any], slots: Sequence[tuple[Any, ...]], rows: Sequence[int]
    ) -> None:
        by_dtype: dict[Any, list[int]] = {}
        for i, x in enumerate(params):
            by_dtype.setdefault(x.dtype, []).append(i)
        self._groups = [
            _Group(rule, members, [params[i] for i in members], [slots[i] for i in members], [rows[i] for i in members])
            for members in by_dtype.values()
        ]
        self._last = b"", np.array([], np.int64)  # the last addresses to be written, and their order

    def gather(self, params: list[Any], grads: list[Any], outs: list[Any] | None) -> list[Any] | None:
        """Find where everything lies now.

        Parameters
        ----------
        params, grads : list
            As many as the plan has tensors; what they are is found out here.
        outs : list or None
            Where the results go: `params` itself, other arrays, or None for new ones.

        Returns
        -------
        list of ndarray or None
            The results' arrays. None if the plan does not fit, or something is to be written where something else is
            read or written.
        """
        readers, groups = _readers(), self._groups
        if readers is None or not all(group.gather(readers[0], params, grads, outs) for group in groups):
            return None
        results = [None] * len(params) if outs is None else outs
        if outs is None:
            for group in groups:
                group.allocate(params, results)
        elif outs is not params and all(np.array_equal(group.table[0], group.table[2]) for group in groups):
            outs = params
        # what may overlap something: the results' arrays only if they are the caller's, and params only if they stay
        spans = [group.spans(written=3 if outs is None else 2, read=1 if outs is params else 0) for group in groups]
        starts, sizes, others, lengths = (_joined([of[k] for of in spans]) for k in range(4))
        return None if readers[1](starts, starts + sizes, self._sorted(starts, sizes), others, lengths) else results

    def prepare(self, scalars: Sequence[Scalars], grads: list[Any]) -> list[Callable[[], None]]:
        """Return what updates the tensors gathered; nothing in it can fail.

        Parameters
        ----------
        scalars : sequence of Scalars
            The numbers of the step, for each of the plan's counts.
        grads : list of ndarray
            The gradients.

        Returns
        -------
        list of callable
            To be called while the arrays are alive.
        """
        return [group.prepare(scalars, grads) for group in self._groups]

    def _sorted(self, starts: Any, sizes: Any) -> Any:
        """Return the indices of the spans that are not empty, in the order of their addresses."""
        addresses = starts.tobytes()
        if addresses != self._last[0]:
            order = np.argsort(starts, kind="stable")
            self._last = addresses, order[sizes[order] > 0]
        return self._last[1]


def _joined(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
