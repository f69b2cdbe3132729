"""What blocks find of whole tensors: each pass is computed block by block, and added up as `sums` says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._arrays import sums
from ..._graph.passes import Pass
from ..._print.accumulated import accumulated
from ..._print.numpy import CALLED, print_numpy
from ..host import BLOCK
from ..numbers import Numbers


class Measure:
    """What a pass finds, printed for NumPy.

    Parameters
    ----------
    one : Pass
        The pass.
    """

    def __init__(self, one: Pass) -> None:
        graph = one.parts.arrays
        self.source = print_numpy(graph, stored=False)
        self.numbers = Numbers(graph)
        names: dict[str, Any] = {name: getattr(np, name) for name in CALLED}
        exec(compile(self.source.text, f"<a pass of {graph.name} for NumPy>", "exec"), names)
        self._call = names["kernel"]
        self._outputs = len(graph.outputs)
        self._found = {wide: accumulated(one, "float64" if wide else "float32") for wide in (False, True)}

    @np.errstate(all="ignore")
    def run(self, inputs: Sequence[Any], packed: bytes, compute: Any) -> list[Any]:
        """Return all that is found, of one tensor.

        Parameters
        ----------
        inputs : sequence of ndarray, (elements,)
            Param, grad and slots in the order of memory.
        packed : bytes
            The numbers of the step, with those of the tensor.
        compute : dtype
            That of the arithmetic and the numbers.

        Returns
        -------
        list of ndarray of float64, (1,)
            The totals.
        """
        size, source = len(inputs[0]), self.source
        values = np.frombuffer(packed, compute)
        numbers = [values[k, ...] for k in range(source.numbers)]
        length = min(size, BLOCK)
        working = [np.empty(length, compute) for _ in range(self._outputs + source.scratch)]
        working += [np.empty(length, bool) for _ in range(source.masks)]
        found = self._found[compute == np.float64]
        of_pieces = [np.empty(-(-size // sums.PIECE)) for _ in found]
        for start in range(0, size, BLOCK):
            stop = min(start + BLOCK, size)
            given = [x[start:stop].astype(compute, copy=False) for x in inputs]
            arrays = [x[: stop - start] for x in working]
            self._call(*given, *arrays, *numbers)
            first, last = start // sums.PIECE, -(-stop // sums.PIECE)
            for of, into in zip(found, of_pieces, strict=True):
                into[first:last] = sums.of_pieces(arrays[of.output], of.way)
        return [sums.totals(x, np.array([len(x)]), of.way) for of, x in zip(found, of_pieces, strict=True)]
