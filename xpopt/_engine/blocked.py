"""The blocked engine: NumPy's own loops, on pieces of an array that stay in the cache.

An expression of whole arrays writes each of its values to memory and reads it back. In blocks, only the parameter, the
gradient and the slots travel; everything between stays where the processor is. A small array is one block.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .._graph import trace
from .._print import print_numpy
from .._print.numpy import CALLED
from .._rule import Rule
from .._typing import Scalars
from ..clipping import clip_factor, clip_factors
from . import pool
from .numbers import Numbers
from .work import Launch, Work, new_arrays

BLOCK = 65_536
"""Elements in a block: the fastest size on processors with 1 MiB of cache for each core."""

SMALL = 4_096
"""Elements up to which an array has working arrays of its shape, kept for the next update."""

SERIAL = 1_000_000
"""Elements in one call up to which a helper thread costs more than it brings."""

_SHAPES_KEPT = 64
"""How many such shapes: some megabytes for each thread and rule."""


class Working(NamedTuple):
    """What a kernel works in, beside what it is given."""

    memory: memoryview  # of the numbers
    numbers: list[Any]  # each as an array of shape ()
    arrays: list[Any]  # scratch and masks
    casts: list[Any]  # where a parameter and a gradient of 16 bits go to be computed


class Run(NamedTuple):
    """One update, ready to be computed."""

    inputs: tuple[Any, ...]  # param, grad and slots: of one shape, contiguous in one order
    outputs: tuple[Any, ...]  # where the new param and slots go, which may be the place of the old
    packed: bytes  # the numbers of the step
    compute: Any  # the dtype of the arithmetic


class Kernel:
    """A rule printed for NumPy, with what it works in.

    Parameters
    ----------
    rule : Rule
        The rule.
    h : Scalars
        The numbers of some step, which say whether the gradient is clipped.
    """

    def __init__(self, rule: Rule, h: Scalars) -> None:
        graph = trace(rule, h, clipped=h.clip_norm is not None)
        self.source = print_numpy(graph)
        self.numbers = Numbers(graph)
        names: dict[str, Any] = {name: getattr(np, name) for name in CALLED}
        exec(compile(self.source.text, f"<{graph.name} for NumPy>", "exec"), names)
        self._call = names["kernel"]
        self._local = threading.local()

    def run(self, run: Run) -> None:
        """Compute one update; nothing in it can fail once this thread has called `warm` for it."""
        inputs, outputs, packed, _ = run
        first = inputs[0]
        size = first.size
        if size > BLOCK:
            for start in range(0, size, BLOCK):
                self.run_block(run, start)
            return
        working = self.warm(run)
        arrays, casts = working.arrays, working.casts
        if size > SMALL:
            shape = first.shape
            arrays = [x[:size].reshape(shape) for x in arrays]
            casts = [x[:size].reshape(shape) for x in casts]
        self._compute(packed, working, inputs, outputs, arrays, casts)

    def run_block(self, run: Run, start: int) -> None:
        """Compute the block of an update that starts at an element of its flat arrays."""
        working = self.warm(run)
        first = run.inputs[0]
        stop = min(start + BLOCK, first.size)
        order = "C" if first.flags.c_contiguous else "F"
        inputs, outputs = (tuple(x.reshape(-1, order=order)[start:stop] for x in arrays) for arrays in run[:2])
        arrays, casts = ([x[: stop - start] for x in arrays] for arrays in (working.arrays, working.casts))
        self._compute(run.packed, working, inputs, outputs, arrays, casts)

    def warm(self, run: Run) -> Working:
        """Return this thread's arrays to work in, made at its first update of the size, and kept."""
        first, compute = run.inputs[0], run.compute
        shape = first.shape if first.size <= SMALL else (BLOCK,)
        kept: dict[Any, Working] = self._local.__dict__
        key = shape, first.dtype
        try:
            return kept[key]
        except KeyError:
            pass
        if len(kept) >= _SHAPES_KEPT:
            kept.clear()
        source = self.source
        arrays = [np.empty(shape, compute) for _ in range(source.scratch)]
        arrays += [np.empty(shape, bool) for _ in range(source.masks)]
        numbers = np.empty(source.numbers, compute)
        casts = [] if compute == first.dtype else [np.empty(shape, compute) for _ in range(2)]
        memory = memoryview(numbers.view(np.uint8))  # type: ignore[arg-type]
        kept[key] = Working(memory, [numbers[i, ...] for i in range(source.numbers)], arrays, casts)
        return kept[key]

    def _compute(
        self,
        packed: bytes,
        working: Working,
        inputs: tuple[Any, ...],
        outputs: tuple[Any, ...],
        arrays: list[Any],
        casts: list[Any],
    ) -> None:
        working.memory[:] = packed
        if not casts:
            self._call(*inputs, *outputs, *arrays, *working.numbers)
            return
        param, grad = casts
        np.copyto(param, inputs[0], casting="unsafe")
        np.copyto(grad, inputs[1], casting="unsafe")
        self._call(param, grad, *inputs[2:], param, *outputs[1:], *arrays, *working.numbers)
        np.copyto(outputs[0], param, casting="unsafe")


_kernels: dict[tuple[Rule, bool], Kernel] = {}


def kernel(rule: Rule, h: Scalars) -> Kernel:
    """Return a rule's kernel; raises `UntraceableError` where it has none."""
    key = rule, h.clip_norm is not None
    if key not in _kernels:
        _kernels[key] = Kernel(rule, h)
    return _kernels[key]


def prepare(rule: Rule, works: list[Work]) -> Launch:
    """Allocate what updates need: new parameters where there is no `out`, and slots where they may not be written."""
    of_rule = kernel(rule, works[0].h)
    results, runs = [], []
    size = 0
    for work in works:
        _, spec, param, grad, _, _, h, _ = work
        out, slots = new_arrays(rule, work)
        packed = of_rule.numbers.packed(h, spec.compute.char)
        if h.clip_norm is not None:
            packed += _factor(grad, h.clip_norm).astype(spec.compute).tobytes()
        run = Run((param, grad, *slots), (out, *slots), packed, spec.compute)
        of_rule.warm(run)
        results.append((out, slots))
        runs.append(run)
        size += param.size
    if size > SERIAL and pool.threads() > 1:
        tasks = iter([(run, start) for run in runs for start in range(0, run.inputs[0].size, BLOCK)])
        work_on = functools.partial(_take_blocks, of_rule, runs, tasks)
        return Launch(results, functools.partial(pool.run, work_on, 1))  # one more: NumPy's loops share a lock
    return Launch(results, functools.partial(_run_all, of_rule, runs))


@np.errstate(all="ignore")
def _run_all(of_rule: Kernel, runs: list[Run]) -> None:
    for run in runs:
        of_rule.run(run)


@np.errstate(all="ignore")
def _take_blocks(of_rule: Kernel, runs: list[Run], tasks: Iterator[tuple[Run, int]]) -> None:
    try:
        for run in runs:
            of_rule.warm(run)
    except MemoryError:  # in a helper; the caller has its arrays since `prepare`, and does it all
        return
    for run, start in tasks:  # threads share the iterator; each item is given out once
        if run.inputs[0].size > BLOCK:
            of_rule.run_block(run, start)
        else:
            of_rule.run(run)


@np.errstate(all="ignore")
def _factor(grad: Any, clip_norm: float) -> Any:
    """Return what brings the norm of a gradient down to `clip_norm`; nothing of its size is allocated."""
    flat = grad.reshape(-1, order="C" if grad.flags.c_contiguous else "F")
    total = 0.0
    for start in range(0, flat.size, BLOCK):
        wide = flat[start : start + BLOCK].astype(np.float64)
        total += np.add.reduce(np.multiply(wide, wide, wide))
    (factor,), (unsure,) = clip_factors(np.array([total]), clip_norm)
    return clip_factor(np, grad, clip_norm, float64=True) if unsure and grad.dtype == np.float64 else factor


def why_not(work: Work) -> str | None:
    """Return why an update cannot run in blocks, or None if it can."""
    library, _, param, grad, slots, _, _, out = work
    if library.name != "numpy":
        return f"blocks are for NumPy arrays, these are of {library.name}"
    c_order = param.flags.c_contiguous and grad.flags.c_contiguous and (out is None or out.flags.c_contiguous)
    for x in slots or ():
        flags = x.flags
        if not flags.writeable:
            return "a slot is read-only"
        c_order = c_order and flags.c_contiguous
    if c_order or all(x.flags.f_contiguous for x in (param, grad, *(slots or ()), param if out is None else out)):
        return None
    return "the arrays are not contiguous, or not in one order"
