"""One update of the tensors of one device and dtype: its kernels follow each other, and the host waits for none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..._graph.questions import Question
from ..._print.cuda import THREADS, Printed, Stage
from ..group import Answers
from .device import Device, Table


class Job:
    """Kernels with their arguments. All memory is taken here; what they find is written to that alone, up to `finish`.

    Parameters
    ----------
    on : Device
        The device.
    kernels : dict of str to callable
        The kernels by name.
    printed : Printed
        How they are launched.
    data : bytes
        The table.
    tensors : int
        How many there are.
    pieces : int
        How many pieces they have.
    compute : dtype
        That of the arithmetic.
    proceed : ndarray of bool, shape (), or None
        As for `Kernel.job`.
    """

    def __init__(
        self,
        on: Device,
        kernels: Mapping[str, Callable[..., None]],
        printed: Printed,
        data: bytes,
        tensors: int,
        pieces: int,
        compute: Any,
        proceed: Any,
    ) -> None:
        self._on, self._kernels, self._data = on, kernels, data
        self._blocks = {"pieces": pieces, "tensors": tensors, "threads": -(-tensors // THREADS), "one": 1}
        *self._before, self._last = printed.stages
        widths, self._arguments = printed.widths, {"tensors": np.int32(tensors), "proceed": proceed}
        for name, width in widths.items():
            dtype = np.float64 if name in ("sums", "totals") else compute
            self._arguments[name] = on.empty((pieces if name == "sums" else tensors, width), dtype)
        self._is_nothing = pieces == 0 and all(one.blocks == "pieces" for one in self._last.launches)
        self._table = None if self._is_nothing else Table(on, data)

    def stages(self) -> Iterator[Mapping[Question, Any]]:
        """Launch what measures; yield what the tensors come to for what is asked of the model, on the device."""
        for stage in self._before:
            said = {of.name: self._on.empty((), np.float64) for of in stage.asked}
            self._arguments.update({f"said_{name}": x for name, x in said.items()})
            self._launch(stage, Table(self._on, self._data))
            yield {of.of_model: said[of.name] for of in stage.asked if of.of_model is not None}

    def take(self, answers: Answers) -> None:
        """Take what has been found of the model, as arrays of float64 on the device, or as floats."""
        for stage in self._before:
            for of in stage.asked:
                if of.of_model is not None and of.of_model in answers:
                    answer = answers[of.of_model]
                    on_device = self._on.full((), answer, np.float64) if isinstance(answer, float) else answer
                    self._arguments[of.name] = on_device

    def finish(self) -> None:
        """Launch the rest, which writes."""
        if self._table is not None:
            self._launch(self._last, self._table)

    def _launch(self, stage: Stage, table: Table) -> None:
        with self._on.current(), table.sent() as sent:
            arguments = {**self._arguments, "table": sent}
            for one in stage.launches:
                if blocks := self._blocks[one.blocks]:
                    self._kernels[one.kernel]((blocks,), (THREADS,), tuple(arguments[name] for name in one.takes))
