"""The CUDA engine: a rule as a kernel for the device, all tensors of a model on it in one launch."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._arrays.parameter import dtype_text
from ..._arrays.typing import Scalars
from ..._graph.reading import graph_of
from ..._graph.rule import Rule
from ..._print.cuda import OPTIONS, PIECE, THREADS, print_cuda
from ..group import Keys, Launch, Result, Work, keys_of
from ..numbers import Numbers
from .device import Device, Source, Table, device


class Kernel:
    """A rule printed for one dtype.

    Parameters
    ----------
    rule : Rule
        The rule.
    h : Scalars
        The numbers of some step, which say whether the gradient is clipped.
    dtype : str
        The parameters' dtype.
    guarded : bool
        Whether it is decided on the device if anything is to change.
    drawn : bool
        Whether parameters are rounded stochastically.
    """

    def __init__(self, rule: Rule, h: Scalars, dtype: str, *, guarded: bool, drawn: bool) -> None:
        graph = graph_of(rule, h, clipped=h.clip_norm is not None)
        self._clips = bool(graph.factors())  # not where the rule reads no gradient
        names = ("update", "sum_squares", "find_factors") if self._clips else ("update",)
        self._source = Source(print_cuda(graph, dtype, guarded=guarded, drawn=drawn), names, OPTIONS)
        self.compute = np.dtype("float64" if dtype == "float64" else "float32")
        self._numbers = Numbers(graph)
        self._drawn = drawn
        self._row = self.compute.itemsize * (self._numbers.count + (4 if drawn else 0))  # bytes, the key included
        self._words = len(graph.inputs) + 4  # of a tensor in the table: addresses, and three numbers

    def size(self, tensors: int, rows: int) -> int:
        """Return how many bytes a table has."""
        return 8 * self._words * tensors + self._row * (tensors if self._drawn else rows)

    def why_not_compiled(self, on: Device, size: int) -> str | None:
        """Return why it cannot be compiled for tables of `size` bytes on a device, or None if it is."""
        return self._source.why_not(on, size)

    def prepare(
        self, on: Device, addresses: Any, sizes: Any, rows: Any, scalars: Sequence[Scalars], keys: Keys, proceed: Any
    ) -> Callable[[], None]:
        """Return a function that updates tensors of one device and dtype.

        Parameters
        ----------
        on : Device
            The device.
        addresses : ndarray of int64, (roles, tensors)
            Of param, grad, where the new param goes, and the slots.
        sizes : ndarray of int64, (tensors,)
            How many elements each has.
        rows : ndarray of int64, (tensors,)
            Which of `scalars` each uses.
        scalars : sequence of Scalars
            The numbers of the step for each count that a tensor has.
        keys : sequence of Key, or None
            What each tensor draws from, if that is how it is rounded.
        proceed : ndarray of bool, shape (), or None
            On the device: whether anything is to change. None if the kernel is not guarded.

        Returns
        -------
        callable
            To be called while the arrays are alive.
        """
        tensors = addresses.shape[1]
        numbers = self._numbers.rows(scalars, rows, keys, self.compute.char)
        data, count = table_of(addresses, sizes, (rows if keys is None else np.arange(tensors)) * self._row, numbers)
        if count == 0:
            return _nothing
        clip = None
        if self._clips:
            sums = on.empty((count, 3 if self.compute == np.float64 else 1), np.float64)
            clip = scalars[0].clip_norm, sums, on.empty((tensors, 2), self.compute)
        kernels = self._source.kernels(on, len(data))
        return _Job(on, kernels, Table(on, data), np.int32(tensors), count, clip, proceed).launch


def table_of(addresses: Any, sizes: Any, offsets: Any, numbers: bytes = b"") -> tuple[bytes, int]:
    """Return the table of a launch, and how many pieces there are.

    Parameters
    ----------
    addresses : ndarray of int64, (roles, tensors)
        Where the arrays of each tensor lie.
    sizes : ndarray of int64, (tensors,)
        How many elements each has.
    offsets : ndarray of int64, (tensors,), or int
        Where in `numbers` those of each begin.
    numbers : bytes
        What follows the tensors.

    Returns
    -------
    data : bytes
    count : int
    """
    roles, tensors = addresses.shape
    pieces = -(-sizes // PIECE)
    table = np.empty((tensors, roles + 3), np.int64)
    table[:, :roles] = addresses.T
    table[:, roles] = sizes
    table[:, roles + 1] = np.cumsum(pieces) - pieces
    table[:, roles + 2] = table.nbytes + offsets
    return table.tobytes() + numbers, int(pieces.sum())


class _Job(NamedTuple):
    """One update of the tensors of one device and dtype, ready to be launched."""

    on: Device
    kernels: list[Callable[..., None]]
    table: Table
    tensors: Any
    pieces: int
    clip: tuple[float, Any, Any] | None  # the bound, the sums of the pieces, and the factors
    proceed: Any  # an array of bool, shape (), on the device; None if the kernel is not guarded

    def launch(self) -> None:
        """Launch it on the current stream of its device."""
        with self.on.current(), self.table.sent() as table:
            update, *others = self.kernels
            arguments: tuple[Any, ...] = (table, self.tensors)
            if self.clip is not None:
                sum_squares, find_factors = others
                clip_norm, sums, factors = self.clip
                sum_squares((self.pieces,), (THREADS,), (*arguments, sums))
                find_factors((int(self.tensors),), (THREADS,), (table, sums, clip_norm, factors))
                arguments += (factors,)
            if self.proceed is not None:
                arguments += (self.proceed,)
            update((self.pieces,), (THREADS,), arguments)


def _nothing() -> None:
    """Update tensors without elements."""


_name = functools.cache(dtype_text)


def kernel(rule: Rule, h: Scalars, dtype: Any, *, guarded: bool, drawn: bool) -> Kernel:
    """Return a rule's kernel; raises `UntraceableError` where it has none."""
    key = "cuda", _name(dtype), h.clip_norm is not None, guarded, drawn
    try:
        found: Kernel = rule.made[key]
    except KeyError:
        found = rule.made.setdefault(key, Kernel(rule, h, key[1], guarded=guarded, drawn=drawn))
    return found


def why_not(work: Work) -> str | None:
    """Return why the tensors of an update have no place in a launch, or None if they have."""
    _, library, _, param, grad, slots, _, _, out, _, _ = work
    if library.name != "cupy":
        return f"kernels are for CuPy arrays, these are of {library.name}"
    arrays = (param, grad, *(slots or ()), param if out is None else out)
    ndarray = sys.modules["cupy"].ndarray
    if any(type(x) is not ndarray for x in arrays):
        return "an array is of a subclass"
    flags = [x.flags for x in arrays]
    if all(of.c_contiguous for of in flags) or all(of.f_contiguous for of in flags):
        return None
    return "the arrays are not contiguous, or not in one order"


def why_no_kernel(rule: Rule, works: Sequence[Work]) -> str | None:
    """Return why updates that have a place in a launch have no kernel, or None if they have; it is compiled here."""
    for (on, _), members in _grouped(works).items():
        of_rule = _kernel_of(rule, works[members[0]])
        rows = len({id(works[i].h) for i in members})
        reason = of_rule.why_not_compiled(on, of_rule.size(len(members), rows))
        if reason is not None:
            return reason
    return None


def _kernel_of(rule: Rule, work: Work) -> Kernel:
    guarded, drawn = work.proceed is not None, work.noise is not None
    return kernel(rule, work.h, work.spec.dtype, guarded=guarded, drawn=drawn)


def prepare(rule: Rule, works: list[Work]) -> Launch:
    """Allocate what updates need, and find where everything lies; slots are written in place."""
    results = [_new_arrays(rule, work) for work in works]
    calls = []
    for (on, _), members in _grouped(works).items():
        scalars: dict[int, Scalars] = {id(works[i].h): works[i].h for i in members}
        row = {key: k for k, key in enumerate(scalars)}
        columns = [
            [x.data.ptr for x in (works[i].param, works[i].grad, results[i][0], *results[i][1])] for i in members
        ]
        calls.append(
            _kernel_of(rule, works[members[0]]).prepare(
                on,
                np.array(columns, np.int64).T,
                np.array([works[i].param.size for i in members], np.int64),
                np.array([row[id(works[i].h)] for i in members], np.int64),
                list(scalars.values()),
                keys_of([works[i] for i in members]),
                works[0].proceed,
            )
        )
    return Launch(results, functools.partial(_finish, calls, works), "cuda")


def _finish(calls: list[Callable[[], None]], works: list[Work]) -> None:
    """Launch; `works` keeps alive what the addresses in a table lead to."""
    for call in calls:
        call()


def _grouped(works: Sequence[Work]) -> dict[tuple[Device, Any], list[int]]:
    """Return which works share a launch."""
    groups: dict[tuple[Device, Any], list[int]] = {}
    for i, work in enumerate(works):
        groups.setdefault((device(work.param.data.device_id), work.spec.dtype), []).append(i)
    return groups


def _new_arrays(rule: Rule, work: Work) -> Result:
    """Allocate what an update needs, to be written: a result if there is no `out`, and slots."""
    _, _, spec, param, _, slots, owned, _, out, _, _ = work
    on = device(param.data.device_id)
    if out is None:
        out = on.empty_like(param)
    if slots is None:
        slots = rule.make_slots([on.zeros_like(param, spec.compute) for _ in rule.fields])
    elif not owned:
        slots = rule.make_slots([on.copy(x) for x in slots])
    return out, slots
