"""The compiled engine: a rule as machine code for the CPU, all tensors of a model in one call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..._arrays.namespace import address_of
from ..._arrays.norms import clip_factors
from ..._arrays.parameter import dtype_text
from ..._arrays.typing import Scalars
from ..._graph.reading import graph_of
from ..._graph.rule import Rule
from ..._print.numba import print_numba, print_squares
from .. import pool
from ..group import Keys, Launch, Result, Work, keys_of, new_arrays
from ..numbers import Numbers
from . import build

WORTH = 65_536
"""Elements in one call from which a kernel is worth its compilation; one that is there runs everything."""

SERIAL = 524_288
"""Elements in one call up to which other threads would come too late to help."""

PIECE = 16_384
"""Elements that a thread takes at a time."""

_FEW = SERIAL // PIECE

_INEXACT = {"exp", "log", "pow"}
"""The operations of which NumPy and LLVM have functions of their own."""

_INDICES = "int64[:,::1], int64[:,::1], int64[::1]"


class Kernel:
    """A rule compiled for one dtype.

    Parameters
    ----------
    rule : Rule
        The rule.
    h : Scalars
        The numbers of some step, which say whether the gradient is clipped.
    dtype : str
        The parameters' dtype.
    drawn : bool
        Whether they are rounded stochastically.
    """

    def __init__(self, rule: Rule, h: Scalars, dtype: str, *, drawn: bool) -> None:
        graph = graph_of(rule, h, clipped=h.clip_norm is not None)
        inexact = any(node.op in _INEXACT for node in graph.arrays())
        self.exact = not inexact and h.clip_norm is None
        """Whether blocks make the same numbers, so that it does not matter which of the two runs."""
        self.dtype = dtype
        self.compute = np.dtype("float64" if dtype == "float64" else "float32")
        self._numbers = Numbers(graph)
        rest = f"int64[::1], {self.compute}[:,::1], {self.compute}[:,::1]"
        self._call = build.build(print_numba(graph, dtype, drawn=drawn), "kernel", f"void({_INDICES}, {rest})")

    def prepare(
        self, table: Any, pieces: Any, rows: Any, scalars: Sequence[Scalars], keys: Keys, grads: Sequence[Any]
    ) -> Callable[[], None]:
        """Return a function that updates the tensors of one dtype; nothing in it can fail.

        Parameters
        ----------
        table : ndarray of int64, (roles, tensors)
            The addresses of param, grad, where the new param goes, and the slots.
        pieces : ndarray of int64, (pieces, 3)
            From `cut`.
        rows : ndarray of int64, (tensors,)
            Which of `scalars` each tensor uses.
        scalars : sequence of Scalars
            The numbers of the step for each count that a tensor has.
        keys : sequence of Key, or None
            What each tensor draws from, if that is how it is rounded.
        grads : sequence of ndarray
            The gradients.

        Returns
        -------
        callable
            To be called while the arrays are alive.
        """
        helpers = min(pool.threads(), len(pieces)) - 1 if len(pieces) >= _FEW and pieces[:, 2].sum() > SERIAL else 0
        clip_norm = scalars[0].clip_norm
        factors = _NO_FACTORS[self.compute]
        if clip_norm is not None:
            factors = _factors(self, clip_norm, table, pieces, grads, helpers)
        counter = np.zeros(1, np.int64)
        packed = self._numbers.rows(scalars, rows, keys, self.compute.char)
        if keys is not None:
            rows = np.arange(len(keys))
        shape = (len(scalars), self._numbers.count) if keys is None else (len(keys), self._numbers.count + 4)
        numbers: Any = np.ndarray(shape, self.compute, bytearray(packed))
        call = functools.partial(self._call, table, pieces, counter, rows, numbers, factors)
        return functools.partial(pool.run, call, helpers) if helpers else call


_NO_FACTORS = {np.dtype(dtype): np.ones((2, 0), dtype) for dtype in ("float32", "float64")}

_name = functools.cache(dtype_text)

_Kind = tuple[str, str, bool, bool]
"""What a rule has a kernel for: this engine, a dtype, whether gradients are clipped, and whether parameters draw."""


def kernel(rule: Rule, h: Scalars, dtype: str, *, drawn: bool) -> Kernel:
    """Return a rule's kernel; raises `UntraceableError` where it has none."""
    key = "compiled", dtype, h.clip_norm is not None, drawn
    try:
        found: Kernel = rule.made[key]
    except KeyError:
        with build.alone():  # threads that come at once wait for one compilation
            if key not in rule.made:
                rule.made[key] = Kernel(rule, h, dtype, drawn=drawn)
            found = rule.made[key]
    return found


def _kind(work: Work) -> _Kind:
    return "compiled", _name(work.spec.dtype), work.h.clip_norm is not None, work.noise is not None


def fits(rule: Rule, work: Work, *, chosen: bool) -> bool:
    """Whether one update runs compiled: what `why_not` tells, told faster."""
    made = rule.made.get(_kind(work))
    if made is not None and made.exact:
        return True
    return (chosen or work.param.size >= WORTH) and why_not(rule, [work], chosen=chosen) is None


def why_not(rule: Rule, works: Sequence[Work], *, chosen: bool) -> str | None:
    """Return why updates that could run in blocks cannot run compiled, or None if they can.

    Parameters
    ----------
    rule : Rule
        The formula.
    works : sequence of Work
        The updates of one call.
    chosen : bool
        Whether it was asked for, whatever the size.

    Returns
    -------
    str or None
        The reason.
    """
    h = works[0].h
    # where it matters which of the two runs, that is for the size to say, not for what has been compiled before
    missing = {key for work in works if not ((made := rule.made.get(key := _kind(work))) and made.exact)}
    if not missing:
        return None
    size = sum(work.param.size for work in works)
    if size < WORTH and not chosen:
        return f"{size} elements are fewer than the {WORTH} that are worth a compilation"
    reason = build.why_no_numba()
    if reason is None and any(dtype == "float16" for _, dtype, *_ in missing):
        reason = build.why_no_float16()
    for key in missing if reason is None else ():
        failed = "not compiled", *key[1:]
        if failed not in rule.made:
            try:
                kernel(rule, h, key[1], drawn=key[3])
            except Exception as error:  # what Numba cannot compile here, blocks can run
                rule.made[failed] = f"Numba cannot compile it: {error}"
        reason = reason or rule.made.get(failed)
    return reason


def prepare(rule: Rule, works: list[Work]) -> Launch:
    """Allocate what updates need, and find where everything lies; slots are written in place."""
    results = new_arrays(rule, works)
    if len(works) == 1:
        return Launch(results, _call(rule, works, results), "compiled")
    by_dtype: dict[str, list[int]] = {}
    for i, work in enumerate(works):
        by_dtype.setdefault(_name(work.spec.dtype), []).append(i)
    calls = [_call(rule, [works[i] for i in of], [results[i] for i in of]) for of in by_dtype.values()]
    return Launch(results, functools.partial(_call_all, iter(calls)), "compiled")


def _call(rule: Rule, works: list[Work], results: list[Result]) -> Callable[[], None]:
    """Return what updates tensors of one dtype."""
    grads = [work.grad for work in works]
    columns = [
        [address_of(x) for x in (work.param, work.grad, out, *slots)]
        for work, (out, slots) in zip(works, results, strict=True)
    ]
    if len(works) == 1:
        table, rows, scalars = np.array(columns[0], np.int64).reshape(-1, 1), _FIRST_ROW, [works[0].h]
    else:
        table = np.ascontiguousarray(np.array(columns, np.int64).T)
        by_count = {id(work.h): work.h for work in works}
        row = {key: k for k, key in enumerate(by_count)}
        rows = np.array([row[id(work.h)] for work in works], np.int64)
        scalars = list(by_count.values())
    keys = keys_of(works)
    of_rule = kernel(rule, scalars[0], _name(works[0].spec.dtype), drawn=keys is not None)
    return of_rule.prepare(table, cut(tuple([x.size for x in grads])), rows, scalars, keys, grads)


_FIRST_ROW = np.zeros(1, np.int64)


def _call_all(calls: Iterator[Callable[[], None]]) -> None:
    for call in calls:
        call()


def cut(sizes: tuple[int, ...]) -> Any:
    """Cut tensors into pieces.

    Parameters
    ----------
    sizes : tuple of int
        The number of elements of each.

    Returns
    -------
    ndarray of int64, (pieces, 3)
        The tensor, the first element and the number of elements of each piece.
    """
    return _cut_one(sizes[0]) if len(sizes) == 1 else _cut(sizes)


def _cut(sizes: tuple[int, ...]) -> Any:
    of_each = np.array(sizes, np.int64)
    counts = -(-of_each // PIECE)
    tensor = np.repeat(np.arange(len(of_each)), counts)
    start = (np.arange(len(tensor)) - (np.cumsum(counts) - counts)[tensor]) * PIECE
    return np.stack([tensor, start, np.minimum(of_each[tensor] - start, PIECE)], axis=1)


@functools.lru_cache(256)
def _cut_one(size: int) -> Any:
    return _cut((size,))


@functools.cache
def _squares(dtype: str) -> Callable[..., None]:
    return build.build(print_squares(dtype), "squares", f"void({_INDICES}, float64[::1])")


def _factors(of: Kernel, clip_norm: float, table: Any, pieces: Any, grads: Sequence[Any], helpers: int) -> Any:
    """Return the numbers that bring the norms down to `clip_norm`; every sum is taken in one order."""
    sums = np.empty(len(pieces))
    pool.run(functools.partial(_squares(of.dtype), table, pieces, np.zeros(1, np.int64), sums), helpers)
    return clip_factors(np.bincount(pieces[:, 0], sums, len(grads)), clip_norm, grads)
