"""The CUDA engine: a rule as a kernel for the device, all tensors of a model on it in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._arrays.sums import PIECE
from ..._arrays.typing import Scalars
from ..._graph.passes import passes_of
from ..._graph.questions import Question
from ..._graph.rule import Rule
from ..._print.cuda import OPTIONS, printed
from ..group import Keys
from ..kernel import Variant
from ..numbers import Numbers, clip_norms
from .device import Device, Source
from .job import Job


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
        _, dtype, clipped, drawn, guarded, _ = variant
        passes = passes_of(rule, h, clipped=clipped)
        self.compute = np.dtype("float64" if dtype == "float64" else "float32")
        dtypes = rule.dtypes(self.compute.name)
        kept = [dtypes[k] for k in rule.wide] if rule.narrow else ()
        self.questions = frozenset[Question]().union(*passes.questions())
        """What is asked of the whole model."""
        self._printed = printed(passes, dtype, guarded=guarded, drawn=drawn, kept=kept)
        names = [one.kernel for stage in self._printed.stages for one in stage.launches]
        self._clips = "factors" in self._printed.widths  # not where the rule reads no gradient
        self._source = Source(self._printed.text, names, OPTIONS)
        self._numbers = Numbers(*self._printed.numbers)
        self._drawn = drawn
        self._row = self.compute.itemsize * (self._numbers.count + (4 if drawn else 0))  # bytes, the key included
        self._words = 3 + len(rule.fields) + 3 + self._clips  # of a tensor in the table: addresses, and other numbers

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

    def job(
        self, on: Device, addresses: Any, sizes: Any, rows: Any, scalars: Sequence[Scalars], keys: Keys, proceed: Any
    ) -> Job:
        """Return an update of tensors of one device and dtype, to be launched while the arrays are alive.

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
        Job
            With all memory but that of the answers.
        """
        tensors = addresses.shape[1]
        numbers = self._numbers.rows(scalars, rows, keys, self.compute.char)
        offsets = (rows if keys is None else np.arange(tensors)) * self._row
        largest = clip_norms(scalars, rows) if self._clips else None
        data, count = table_of(addresses, sizes, offsets, numbers, largest)
        kernels = self._source.kernels(on, len(data))
        return Job(on, kernels, self._printed, data, tensors, count, self.compute, proceed)


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
