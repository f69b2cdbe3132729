"""The compiled engine: a rule as machine code for the CPU, all tensors of a model in one call."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._arrays import sums
from ..._arrays.address import address_of, address_of_bytes
from ..._arrays.norms import clip_factors
from ..._arrays.typing import Scalars
from ..._graph.node import Graph, Node
from ..._graph.passes import passes_of
from ..._graph.rule import Rule
from ..._print.accumulated import Accumulated, accumulated
from ..._print.llvm import print_llvm, print_measure
from ..._print.llvm_whole import graphs_of, print_whole
from .. import pool
from ..group import Keys
from ..kernel import Variant
from ..numbers import Numbers, clip_norms
from . import build
from .break_even import is_exact

SERIAL = 524_288
"""Elements in one call up to which other threads would come too late to help."""

PIECE = 16_384
"""Elements that a thread takes at a time."""

_FEW = SERIAL // PIECE

_PROTOTYPE = ctypes.CFUNCTYPE(None)
"""The type of kernels, which run without the interpreter's lock.

No types of arguments are named: they are given converted, and to look at them would take memory.
"""

_word = ctypes.c_void_p.from_param
"""Convert an address, or an integer of 64 bits as well."""


class Kernel:
    """A rule compiled for one dtype.

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
        dtype, clipped, drawn = variant.dtype, variant.clipped, variant.drawn
        passes = passes_of(rule, h, clipped=clipped)
        self.clipped, self.whole = clipped, variant.whole
        self.exact = is_exact(passes)
        """Whether it does not matter if blocks run instead."""
        self.dtype = dtype
        self.compute = np.dtype("float64" if dtype == "float64" else "float32")
        dtypes = rule.dtypes(self.compute.name)
        slots = [dtypes[k] for k in rule.wide] if rule.narrow else ()
        self.measures: list[Measure] = []
        if self.whole:
            keeping = passes_of(rule, h, clipped=clipped, keep=True)
            self.numbers = Numbers(*graphs_of(keeping))
            self.call = build.build(print_whole(keeping, dtype, drawn=drawn, slots=slots), "kernel", _PROTOTYPE)
            return
        graph = passes.last.arrays
        self.numbers = Numbers(graph)
        self.call = build.build(print_llvm(graph, dtype, drawn=drawn, slots=slots), "kernel", _PROTOTYPE)
        self.measures = [Measure(one.parts.arrays, accumulated(one, dtype), dtype, slots) for one in passes.before]


class Launch:
    """One update of the tensors of one dtype.

    Parameters
    ----------
    kernel : Kernel
        That of their rule.
    where : Places
        Where the tensors lie, and which of `scalars` each uses.
    scalars : sequence of Scalars
        The numbers of the step for each row.
    keys : sequence of Key, or None
        What each tensor draws from, if that is how it is rounded.
    grads : sequence of ndarray
        The gradients.
    """

    def __init__(self, kernel: Kernel, where: Places, scalars: Sequence[Scalars], keys: Keys, grads: Any) -> None:
        self._kernel = kernel
        self._where = where
        self._scalars, self._keys = scalars, keys
        self._helpers = where.cut.helpers()
        self._factors: Any = None
        if kernel.clipped:
            (squares,) = _squares(kernel.dtype).run(where, b"", None, self._helpers)
            self._factors = clip_factors(squares, clip_norms(scalars, where.rows), grads)

    def measure(self, k: int, ones: Any) -> list[Any]:
        """Return all that pass `k` finds, of each tensor."""
        one = self._kernel.measures[k]
        where, numbers = self._numbers(one.numbers, None, ones)
        return one.run(where, numbers, self._factors, self._helpers)

    def prepare(self, ones: Any = None) -> Callable[[], None]:
        """Return a function that updates the tensors; nothing in it can fail.

        Parameters
        ----------
        ones : ndarray, (tensors, numbers), or None
            Numbers of each tensor, if the rule makes some.

        Returns
        -------
        callable
            To be called while the arrays are alive.
        """
        where, numbers = self._numbers(self._kernel.numbers, self._keys, ones)
        return ready(self._kernel.call, where, numbers, self._factors, helpers=self._helpers)

    def _numbers(self, numbers: Numbers, keys: Keys, ones: Any) -> tuple[Places, Any]:
        """Return where the tensors lie, with the row of numbers that each has, and the rows."""
        where, rows = self._where, self._where.rows
        packed = numbers.rows(self._scalars, rows, keys, self._kernel.compute.char)
        if keys is None and ones is None:
            return where, packed
        where = places(where.table, where.cut, where.cut.each)
        if ones is None:
            return where, packed
        compute, last = self._kernel.compute, numbers.count + ones.shape[1]
        shape = (len(self._scalars), numbers.count) if keys is None else (len(rows), numbers.count + 4)
        of_rows: Any = np.ndarray(shape, compute, packed)
        if keys is None and len(of_rows) > 1:
            of_rows = of_rows[rows]
        found = np.empty((len(rows), shape[1] + ones.shape[1]), compute)
        found[:, : numbers.count] = of_rows[:, : numbers.count]
        found[:, numbers.count : last] = ones  # of each tensor: behind those of the step, and in front of a key
        found[:, last:] = of_rows[:, numbers.count :]
        return where, found


class Places(NamedTuple):
    """Where tensors lie.

    Parameters
    ----------
    table : ndarray of int64, (roles, tensors), or bytes
        The addresses of param, grad, where the new param goes, and the slots.
    cut : Cut
        The tensors in pieces.
    rows : ndarray of int64, (tensors,)
        Which row of numbers each tensor uses.
    given : tuple
        What kernels are given of the table and the pieces.
    row : object
        What they are given of the rows.
    """

    table: Any
    cut: Cut
    rows: Any
    given: tuple[Any, ...]
    row: Any


def places(table: Any, of: Cut, rows: Any, row: Any = None) -> Places:
    """Return where tensors lie; `row` is what kernels are given of the rows, if that is known."""
    row = place(rows) if row is None else row
    return tuple.__new__(Places, (table, of, rows, (place(table), *of.given), row))  # faster than to call the class


def ready(
    function: Any, where: Places, numbers: Any, factors: Any = None, *more: Any, helpers: int = 0
) -> Callable[[], None]:
    """Return what calls a kernel, once, for all pieces.

    Parameters
    ----------
    function : ctypes function
        The kernel.
    where : Places
        Where the tensors lie.
    numbers, factors : ndarray or bytes
        As for `print_llvm`; None where nothing is clipped.
    *more : object
        What else the kernel is given, converted.
    helpers : int
        How many threads may join.

    Returns
    -------
    callable
        It keeps all that the kernel reads but the tensors alive.
    """
    return _shared(_bound(function, where, ctypes.c_int64(), numbers, factors, *more), helpers)


def _bound(function: Any, where: Places, taken: Any, numbers: Any, factors: Any = None, *more: Any) -> Any:
    """Return the call of a kernel where `taken` counts the pieces that threads have taken."""
    call: Any = functools.partial(  # of arguments that are converted: the call takes no memory, and so cannot fail
        function,
        *where.given,
        ctypes.byref(taken),
        where.row,
        place(numbers),
        None if factors is None else place(factors),
        *more,
    )
    call.alive = where, numbers, factors  # of which it has no more than addresses
    return call


def _shared(call: Callable[[], None], helpers: int) -> Callable[[], None]:
    return functools.partial(pool.run, call, helpers) if helpers else call


class Call:
    """A call of a kernel that is made at each step, for tensors that do not move, and clips nothing.

    Parameters
    ----------
    function : ctypes function
        The kernel.
    where : Places
        Where the tensors lie.
    size : int
        The bytes of the numbers of a step.
    """

    def __init__(self, function: Any, where: Places, size: int) -> None:
        numbers: Any = np.empty(size, np.uint8)
        self._memory = numbers.data
        self._taken = ctypes.c_int64()
        self._cut = where.cut
        self._call = _bound(function, where, self._taken, numbers)

    def prepare(self, packed: bytes) -> Callable[[], None]:
        """Return the call, with the numbers of a step; it is to be called before the next is prepared."""
        self._memory[:] = packed
        self._taken.value = 0
        return _shared(self._call, self._cut.helpers()) if self._cut.shared else self._call


def place(data: Any) -> Any:
    """Return where data lies, as kernels are given it."""
    return _word(address_of_bytes(data) if type(data) is bytes else address_of(data))


class Measure:
    """What is found of whole tensors of one dtype, compiled.

    Parameters
    ----------
    graph : Graph
        What to compute of each element.
    found : sequence of Accumulated
        What is found of that.
    dtype : str
        The tensors' dtype.
    slots : sequence of str
        As for `print_measure`.
    """

    def __init__(self, graph: Graph, found: Sequence[Accumulated], dtype: str, slots: Sequence[str] = ()) -> None:
        self.numbers = Numbers(graph)
        self._found = found
        self._call = build.build(print_measure(graph, found, dtype, slots=slots), "measure", _PROTOTYPE)

    def run(self, where: Places, numbers: Any, factors: Any, helpers: int) -> list[Any]:
        """Return what all is found, of each tensor; any number of threads finds the same."""
        of = where.cut
        of_pieces = np.empty((len(self._found), of.sums))
        more = place(of.firsts), place(of_pieces), _word(of.sums)
        ready(self._call, where, numbers, factors, *more, helpers=helpers)()
        return [sums.totals(x, of.counts, one.way) for x, one in zip(of_pieces, self._found, strict=True)]


class Cut(NamedTuple):
    """Tensors in pieces, which threads take, and in those that are summed up.

    Parameters
    ----------
    pieces : ndarray of int64, (count, 3)
        The tensor, the first element and the number of elements of each piece.
    given : tuple
        What kernels are given: how many tensors there are, where the pieces lie, and how many these are.
    shared : bool
        Whether several threads are worth their start.
    each : ndarray of int64, (tensors,)
        The number of each tensor.
    counts : ndarray of int64, (tensors,)
        How many pieces of `sums.PIECE` each tensor has.
    firsts : ndarray of int64, (tensors,)
        How many of these come before its own.
    sums : int
        How many there are.
    """

    pieces: Any
    given: tuple[Any, Any, Any]
    shared: bool
    each: Any
    counts: Any
    firsts: Any
    sums: int

    def helpers(self) -> int:
        """Return how many other threads may join in."""
        return min(pool.threads(), len(self.pieces)) - 1 if self.shared else 0


def cut(sizes: tuple[int, ...]) -> Cut:
    """Cut tensors into pieces.

    Parameters
    ----------
    sizes : tuple of int
        The number of elements of each.

    Returns
    -------
    Cut
        The pieces.
    """
    return _cut_one(sizes[0]) if len(sizes) == 1 else _cut(sizes)


def _cut(sizes: tuple[int, ...]) -> Cut:
    of_each = np.array(sizes, np.int64)
    counts = -(-of_each // PIECE)
    tensor = np.repeat(np.arange(len(of_each)), counts)
    start = (np.arange(len(tensor)) - (np.cumsum(counts) - counts)[tensor]) * PIECE
    pieces = np.stack([tensor, start, np.minimum(of_each[tensor] - start, PIECE)], axis=1)
    summed = -(-of_each // sums.PIECE)
    shared = len(pieces) >= _FEW and int(of_each.sum()) > SERIAL
    firsts = np.cumsum(summed) - summed
    given = _word(len(of_each)), _word(address_of(pieces)), _word(len(pieces))
    return Cut(pieces, given, shared, np.arange(len(of_each)), summed, firsts, int(summed.sum()))


@functools.lru_cache(256)
def _cut_one(size: int) -> Cut:
    return _cut((size,))


@functools.cache
def _squares(dtype: str) -> Measure:
    """Return what sums the squares of gradients."""
    inputs = tuple(Node("input", "array", value=name) for name in ("param", "grad"))
    return Measure(Graph("a gradient", inputs, inputs[1:]), [Accumulated(0, sums.SQUARES)], dtype)
