"""The blocked engine: NumPy's own loops, on pieces of an array that stay in the cache.

An expression of whole arrays writes each of its values to memory and reads it back. In blocks, only the parameter, the
gradient and the slots travel; everything between stays where the processor is. A small array is one block.
"""

from __future__ import annotations

import functools
import struct
import threading
from typing import Any

import numpy as np

from .._graph import Graph, trace
from .._print import print_numbers, print_numpy
from .._print.numpy import CALLED
from .._rule import Rule
from .._typing import Scalars
from .eager import clipped
from .work import Launch, Work

BLOCK = 65_536
"""Elements in a block: the fastest size on processors with 1 MiB of cache for each core."""

SMALL = 4_096
"""Elements up to which an array has working arrays of its shape, kept for the next update."""

_SHAPES_KEPT = 64
"""How many such shapes: some megabytes for each thread and rule."""

_PACKING = {"float32": "f", "float64": "d"}


class Kernel:
    """A rule printed for NumPy, with what it works in.

    Parameters
    ----------
    graph : Graph
        The traced rule.
    """

    def __init__(self, graph: Graph) -> None:
        self.source = print_numpy(graph)
        self._numbers = print_numbers(graph)
        names: dict[str, Any] = {name: getattr(np, name) for name in CALLED}
        exec(compile(self.source.text, f"<{graph.name} for NumPy>", "exec"), names)
        self._call = names["kernel"]
        self._local = threading.local()

    def prepare(self, like: Any, h: Scalars) -> tuple[Any, ...]:
        """Return all that a run needs beside its arrays: the numbers of the step, and arrays to work in.

        Parameters
        ----------
        like : ndarray
            The parameter.
        h : Scalars
            The numbers that the rule reads.

        Returns
        -------
        tuple
            The first argument of `run`.
        """
        dtype = like.dtype
        shape, size = like.shape, like.size
        if size <= SMALL:
            pack, *working = self._working(dtype, shape)
        else:
            pack, memory, constants, arrays = self._working(dtype, (BLOCK,))
            if size <= BLOCK:
                arrays = [x[:size].reshape(shape) for x in arrays]
            working = [memory, constants, arrays]
        values = self._numbers(h)
        try:
            packed = pack(*values)  # rounds each once, from float64
        except (OverflowError, struct.error):  # beyond float32, where NumPy rounds to infinity; or no real number
            with np.errstate(all="ignore"):
                packed = np.array(values, dtype).tobytes()
        return packed, *working

    def run(self, prepared: tuple[Any, ...], inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        """Compute `outputs` from `inputs`; nothing in it can fail.

        Parameters
        ----------
        prepared : tuple
            From `prepare`.
        inputs, outputs : tuple of ndarray of one shape and one float dtype
            Contiguous in one order; param, grad and slots, and where the new param and slots go, which may be the place
            of the old.
        """
        packed, numbers, constants, arrays = prepared
        numbers[:] = packed
        first = inputs[0]
        size = first.size
        if size <= BLOCK:
            self._call(*inputs, *outputs, *arrays, *constants)
            return
        order = "C" if first.flags.c_contiguous else "F"
        flat = [x.reshape(-1, order=order) for x in (*inputs, *outputs)]
        for start in range(0, size, BLOCK):
            stop = min(start + BLOCK, size)
            self._call(*[x[start:stop] for x in flat], *[x[: stop - start] for x in arrays], *constants)

    def _working(self, dtype: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
        """How to pack the numbers, where to, each as an array; arrays to work in: all kept for this thread's next."""
        kept: dict[Any, tuple[Any, ...]] = self._local.__dict__
        try:
            return kept[dtype, shape]
        except KeyError:
            pass
        if len(kept) >= _SHAPES_KEPT:
            kept.clear()
        source = self.source
        arrays = [np.empty(shape, dtype) for _ in range(source.scratch)]
        arrays += [np.empty(shape, bool) for _ in range(source.masks)]
        numbers = np.empty(source.numbers, dtype)
        pack = struct.Struct(f"{source.numbers}{_PACKING[dtype.name]}").pack
        memory: Any = memoryview(numbers.view(np.uint8))  # type: ignore[arg-type]
        kept[dtype, shape] = pack, memory, [numbers[i, ...] for i in range(source.numbers)], arrays
        return kept[dtype, shape]


_kernels: dict[Rule, Kernel] = {}


def kernel(rule: Rule, h: Scalars | None = None) -> Kernel:
    """Return a rule's kernel; raises `UntraceableError` where it has none."""
    if rule not in _kernels:
        _kernels[rule] = Kernel(trace(rule, h))
    return _kernels[rule]


def why_not(work: Work) -> str | None:
    """Return why an update cannot run in blocks, or None if it can."""
    library, spec, param, grad, slots, _, _, out = work
    if library.name != "numpy":
        return f"blocks are for NumPy arrays, these are of {library.name}"
    if spec.compute != spec.dtype:
        return f"{spec.dtype} is computed in {spec.compute}"
    if spec.shape == ():  # NumPy computes the intermediate values of such with another power function
        return "it is one number"
    c_order = param.flags.c_contiguous and grad.flags.c_contiguous and (out is None or out.flags.c_contiguous)
    for x in slots or ():
        flags = x.flags
        if not flags.writeable:
            return "a slot is read-only"
        c_order = c_order and flags.c_contiguous
    if c_order or all(x.flags.f_contiguous for x in (param, grad, *(slots or ()), param if out is None else out)):
        return None
    return "the arrays are not contiguous, or not in one order"


def prepare(rule: Rule, works: list[Work]) -> Launch:
    """Allocate what updates need: new parameters where there is no `out`, and slots where they may not be written."""
    of_rule = kernel(rule)
    results, runs = [], []
    for library, _, param, grad, slots, owned, h, out in works:
        if h.clip_norm is not None:
            grad = clipped(grad, library, h.clip_norm)
        if out is None:
            out = np.empty(param.shape, param.dtype, "C" if param.flags.c_contiguous else "F")
        if slots is None:
            slots = rule.make_slots([np.zeros_like(param) for _ in rule.fields])
        elif not owned:
            slots = rule.make_slots([np.array(x) for x in slots])
        results.append((out, slots))
        runs.append((of_rule.prepare(param, h), (param, grad, *slots), (out, *slots)))
    return Launch(results, functools.partial(_run_all, of_rule, runs))


@np.errstate(all="ignore")
def _run_all(of_rule: Kernel, runs: list[tuple[Any, ...]]) -> None:
    for prepared, inputs, outputs in runs:
        of_rule.run(prepared, inputs, outputs)
