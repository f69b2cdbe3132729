"""The CUDA engine: a rule as a kernel for the device, all tensors of a model on it in one launch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._arrays.typing import Scalars
from ..._graph.ones import split
from ..._graph.reading import graph_of
from ..._graph.rule import Rule
from ..._print.cuda import OPTIONS, PIECE, THREADS, print_cuda
from ..group import Keys
from ..kernel import Variant
from ..numbers import Numbers, clip_norms
from .device import Device, Source, Table


class Kernel:
    """A rule printed for one dtype.

    Parameters
    ----------
    rule : Rule
        The rule.
    h : Scalars
        The numbers of some step.
    variant : Variant
        What it is made for.
    """

    def __init__(self, rule: Rule, h: Scalars, variant: Variant) -> None:
        _, dtype, clipped, drawn, guarded = variant
        graph = graph_of(rule, h, clipped=clipped)
        ones, arrays = split(graph)
        self._clips = bool(arrays.factors())  # not where the rule reads no gradient
        self._finds = -1 if ones is None else len(arrays.scalars()) - len(arrays.numbers())
        names = ["update", *(["sum_squares", "find_factors"] if self._clips else []), *(["find_ones"] if ones else [])]
        self.compute = np.dtype("float64" if dtype == "float64" else "float32")
        dtypes = rule.dtypes(self.compute.name)
        kept = [dtypes[k] for k in rule.wide] if rule.narrow else ()
        self._source = Source(print_cuda(graph, dtype, guarded=guarded, drawn=drawn, kept=kept), names, OPTIONS)
        self._numbers = Numbers(arrays, *([] if ones is None else [ones]))
        self._drawn = drawn
        self._row = self.compute.itemsize * (self._numbers.count + (4 if drawn else 0))  # bytes, the key included
        self._words = len(graph.inputs) + 4 + self._clips  # of a tensor in the table: addresses, and other numbers

    def size(self, tensors: int, rows: int) -> int:
        """Return how many bytes a table has."""
        return 8 * self._words * tensors + self._row * (tensors if self._drawn else rows)

    def refuse(self, on: Device, size: int, *, compile_it: bool) -> str | None:
        """Return why it cannot be compiled for tables of `size` bytes on a device, or None if it is or may be.

        Parameters
        ----------
        on : Device
            The device.
        size : int
            The bytes of a table.
        compile_it : bool
            Whether it is compiled to find out.

        Returns
        -------
        str or None
            The reason.
        """
        return self._source.why_not(on, size) if compile_it else self._source.failure(on, size)

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
            The numbers of the step for each row.
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
        offsets = (rows if keys is None else np.arange(tensors)) * self._row
        largest = clip_norms(scalars, rows) if self._clips else None
        data, count = table_of(addresses, sizes, offsets, numbers, largest)
        if count == 0 and self._finds < 0:
            return _nothing
        ones = None if self._finds < 0 else on.empty((tensors, self._finds), self.compute)
        clip = None
        if self._clips:
            sums = on.empty((count, 3 if self.compute == np.float64 else 1), np.float64)
            clip = sums, on.empty((tensors, 2), self.compute)
        kernels = self._source.kernels(on, len(data))
        return _Job(on, kernels, Table(on, data), np.int32(tensors), count, ones, clip, proceed).launch


def table_of(addresses: Any, sizes: Any, offsets: Any, numbers: bytes = b"", largest: Any = None) -> tuple[bytes, int]:
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
    largest : float, ndarray of float64, (tensors,), or None
        The largest norm of each gradient, if the kernel clips.

    Returns
    -------
    data : bytes
    count : int
    """
    roles, tensors = addresses.shape
    pieces = -(-sizes // PIECE)
    table = np.empty((tensors, roles + 3 + (largest is not None)), np.int64)
    table[:, :roles] = addresses.T
    table[:, roles] = sizes
    table[:, roles + 1] = np.cumsum(pieces) - pieces
    table[:, roles + 2] = table.nbytes + offsets
    if largest is not None:
        table.view(np.float64)[:, roles + 3] = largest
    return table.tobytes() + numbers, int(pieces.sum())


class _Job(NamedTuple):
    """One update of the tensors of one device and dtype, ready to be launched."""

    on: Device
    kernels: list[Callable[..., None]]
    table: Table
    tensors: Any
    pieces: int
    ones: Any  # the numbers of each tensor; None where there are none
    clip: tuple[Any, Any] | None  # the sums of the pieces, and the factors
    proceed: Any  # an array of bool, shape (), on the device; None if the kernel is not guarded

    def launch(self) -> None:
        """Launch it on the current stream of its device."""
        with self.on.current(), self.table.sent() as table:
            update, *others = self.kernels
            both: tuple[Any, ...] = (table, self.tensors)
            guard: tuple[Any, ...] = () if self.proceed is None else (self.proceed,)
            arguments = both
            if self.ones is not None:
                find_ones, blocks = others.pop(), -(-int(self.tensors) // THREADS)
                find_ones((blocks,), (THREADS,), (*both, self.ones, *guard))
                arguments += (self.ones,)
            if self.pieces == 0:
                return
            if self.clip is not None:
                sum_squares, find_factors = others
                sums, factors = self.clip
                sum_squares((self.pieces,), (THREADS,), (*both, sums))
                find_factors((int(self.tensors),), (THREADS,), (table, sums, factors))
                arguments += (factors,)
            update((self.pieces,), (THREADS,), (*arguments, *guard))


def _nothing() -> None:
    """Update tensors without elements."""
