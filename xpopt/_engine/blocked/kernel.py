"""The blocked engine: NumPy's own loops, on pieces of an array that stay in the cache.

An expression of whole arrays writes each of its values to memory and reads it back. In blocks, only the parameter, the
gradient and the slots travel; everything between stays where the processor is. A small array is one block.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import Context
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..._arrays import sums
from ..._arrays.norms import clip_factors
from ..._arrays.sums import flat
from ..._arrays.typing import Scalars
from ..._graph.passes import passes_of
from ..._graph.rule import Rule
from ..._print.numpy import CALLED, print_numpy
from .. import pool
from ..host import BLOCK
from ..kernel import Variant
from ..numbers import Numbers
from .measure import Measure

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
    blocks: list[Any]  # where values go to be computed: a parameter and a gradient of 16 bits, or of many tensors


Step = tuple[Callable[..., object], tuple[Any, ...]]
"""A function of NumPy's, or a kernel, and its arguments: all that there is to allocate has been allocated."""


class Call(Protocol):
    """Some work of a launch, that can be shared out."""

    def warm(self) -> object:
        """Allocate what it works in."""

    def shares(self) -> Iterator[Callable[[], None]]:
        """Yield calls that make it up."""

    def bound(self) -> list[Step]:
        """Return all of it as steps for this thread."""


class Kernel:
    """A rule printed for NumPy, with what it works in.

    Parameters
    ----------
    rule : Rule
        The rule.
    h : Scalars
        The numbers of some step.
    variant : Variant
        What it is made for: all dtypes. Where the gradient is clipped, it is multiplied by two more numbers.
    """

    def __init__(self, rule: Rule, h: Scalars, variant: Variant) -> None:
        passes = passes_of(rule, h, clipped=variant.clipped)
        graph = passes.last.arrays
        self.measures = [Measure(one) for one in passes.before]
        self.source = print_numpy(graph)
        self.numbers = Numbers(graph)
        self.any_rows = all(node.op != "pow" for node in graph.arrays())
        """Whether a number may be an array. An exponent may not: for the number 2 alone, NumPy may compute a square."""
        names: dict[str, Any] = {name: getattr(np, name) for name in CALLED}
        exec(compile(self.source.text, f"<{graph.name} for NumPy>", "exec"), names)
        self.call = names["kernel"]
        self._local = threading.local()

    def working(self, shape: tuple[int, ...], compute: Any, blocks: int) -> Working:
        """Return this thread's arrays to work in, of a shape, with at least so many to put other arrays' values in."""
        kept: dict[Any, Working] = self._local.__dict__
        key = shape, compute
        try:
            working = kept[key]
        except KeyError:
            pass
        else:
            while len(working.blocks) < blocks:
                working.blocks.append(np.empty(shape, compute))
            return working
        if len(kept) >= _SHAPES_KEPT:
            kept.clear()
        source = self.source
        arrays = [np.empty(shape, compute) for _ in range(source.scratch)]
        arrays += [np.empty(shape, bool) for _ in range(source.masks)]
        numbers = np.empty(source.numbers, compute)
        memory = numbers.view(np.uint8).data
        views = [numbers[i, ...] for i in range(source.numbers)]
        kept[key] = Working(memory, views, arrays, [np.empty(shape, compute) for _ in range(blocks)])
        return kept[key]


class Run:
    """One update, ready to be computed; nothing in it can fail once this thread has called `warm`.

    Parameters
    ----------
    kernel : Kernel
        The rule's.
    inputs : tuple of ndarray
        Param, grad and slots: of one shape, contiguous in one order.
    outputs : tuple of ndarray
        Where the new param and slots go, which may be the place of the old.
    packed : bytes
        The numbers of the step.
    compute : dtype
        That of the arithmetic, the slots and the numbers.
    """

    __slots__ = ("_compute", "_inputs", "_kernel", "_low", "_outputs", "_packed", "_shape", "_size")

    def __init__(
        self, kernel: Kernel, inputs: tuple[Any, ...], outputs: tuple[Any, ...], packed: bytes, compute: Any
    ) -> None:
        first = inputs[0]
        if not first.flags.c_contiguous:  # a kernel's own arrays are
            inputs, outputs = (tuple(x.T for x in arrays) for arrays in (inputs, outputs))
            first = inputs[0]
        self._kernel = kernel
        self._inputs = inputs
        self._outputs = outputs
        self._packed = packed
        self._compute = compute
        self._low = first.dtype != compute
        self._size = first.size
        self._shape = first.shape

    def warm(self) -> Working:
        """Return this thread's arrays to work in; they are made at its first update of the size, and kept."""
        shape = self._shape if self._size <= SMALL else (BLOCK,)
        return self._kernel.working(shape, self._compute, 2 if self._low else 0)

    def shares(self) -> Iterator[Callable[[], None]]:
        """Yield calls that make up the update, each for a block at most; in any order, by any threads."""
        if self._size <= BLOCK:
            yield lambda: run_steps(iter(self.bound()))
        else:
            for start in range(0, self._size, BLOCK):
                yield functools.partial(self._share, start)

    def bound(self) -> list[Step]:
        """Return all of it as steps for this thread."""
        size = self._size
        if size > BLOCK:
            return [step for start in range(0, size, BLOCK) for step in self._block(start)]
        working = self.warm()
        arrays, blocks = working.arrays, working.blocks[:2] if self._low else []
        if size > SMALL:
            arrays = [x[:size].reshape(self._shape) for x in arrays]
            blocks = [x[:size].reshape(self._shape) for x in blocks]
        return self._steps(working, self._inputs, self._outputs, arrays, blocks)

    def _share(self, start: int) -> None:
        run_steps(iter(self._block(start)))

    def _block(self, start: int) -> list[Step]:
        working = self.warm()
        stop = min(start + BLOCK, self._size)
        inputs, outputs = ([flat(x)[start:stop] for x in arrays] for arrays in (self._inputs, self._outputs))
        arrays = [x[: stop - start] for x in working.arrays]
        blocks = [x[: stop - start] for x in working.blocks[:2]] if self._low else []
        return self._steps(working, inputs, outputs, arrays, blocks)

    def _steps(
        self, working: Working, inputs: Sequence[Any], outputs: Sequence[Any], arrays: list[Any], blocks: list[Any]
    ) -> list[Step]:
        numbers = working.memory.__setitem__, (_ALL, self._packed)
        if not blocks:
            return [numbers, (self._kernel.call, (*inputs, *outputs, *arrays, *working.numbers))]
        param, grad = blocks
        return [
            numbers,
            (np.copyto, (param, inputs[0])),
            (np.copyto, (grad, inputs[1])),
            (self._kernel.call, (param, grad, *inputs[2:], param, *outputs[1:], *arrays, *working.numbers)),
            (np.copyto, (outputs[0], param, "unsafe")),
        ]


_ALL = slice(None)


def run_steps(steps: Iterator[Step]) -> None:
    """Do all of them."""
    for function, args in steps:
        function(*args)


def together(runs: Sequence[Call], size: int) -> Callable[[], None]:
    """Return what computes all of `runs`, of so many elements in all, with a helper if these are many."""
    if size <= SERIAL or pool.threads() == 1:
        steps = runs[0].bound() if len(runs) == 1 else [step for run in runs for step in run.bound()]
        context = _quiet_context()
        return functools.partial(_compute, context, iter(steps))
    for run in runs:
        run.warm()
    shares = iter([share for run in runs for share in run.shares()])
    # one helper: NumPy's loops are short, and between them threads wait for the interpreter's lock
    return functools.partial(pool.run, functools.partial(quietly, _run_shares, runs, shares), 1)


def quietly(function: Callable[..., None], *args: Any) -> None:
    """Call `function` where NumPy reports no floating-point errors."""
    context = _quiet_context()
    context.run(function, *args)
    _give_back(context)


def _quiet_context() -> Context:
    """Return such a context, for this thread; to enter ``np.errstate`` takes as long as three small ufuncs."""
    kept: list[Context] = _contexts.__dict__.setdefault("kept", [])
    if kept:
        return kept.pop()  # taken out, for this thread may come here again from user code
    context = Context()
    context.run(np.seterr, all="ignore")
    return context


def one_call(memory: memoryview, packed: bytes, kernel: Callable[..., object], args: tuple[Any, ...]) -> Any:
    """Return what calls a kernel once, where `memory` holds the numbers."""
    return functools.partial(_call, _quiet_context(), memory, packed, kernel, args)


def _call(
    context: Context, memory: memoryview, packed: bytes, kernel: Callable[..., object], args: tuple[Any, ...]
) -> None:
    memory[:] = packed
    context.run(kernel, *args)
    _give_back(context)


def _compute(context: Context, steps: Iterator[Step]) -> None:
    context.run(run_steps, steps)
    _give_back(context)


def _give_back(context: Context) -> None:
    try:  # noqa: SIM105 - to suppress it is to allocate
        _contexts.kept.append(context)
    except MemoryError:  # then another one is made
        pass


_contexts = threading.local()


def _run_shares(runs: Sequence[Call], shares: Iterator[Callable[[], None]]) -> None:
    try:
        for run in runs:
            run.warm()
    except MemoryError:  # in a helper; the caller has its arrays since `prepare`, and does it all
        return
    for share in shares:  # threads share the iterator; each item is given out once
        share()


@np.errstate(all="ignore")
def factors(grad: Any, clip_norm: float) -> Any:
    """Return the two numbers that bring the norm of a gradient down to `clip_norm`; it is read block by block."""
    return clip_factors(np.array([sums.total(flat(grad), sums.SQUARES)]), clip_norm, [grad])
