"""Tensors of the blocked engine: small ones share a block, and NumPy's calls are made once for many."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._arrays.address import address_of
from ..._arrays.sums import flat
from ..._arrays.typing import Scalars
from .. import kernels
from ..compiled.break_even import SmallSteps
from ..group import Bound, Launched, Staged, StepNumbers
from ..host import BLOCK, SHARED, HostGroup, HostSingle
from ..kernel import Variant
from ..numbers import Key
from ..ones import Ones, with_copies
from ..tensor import Tensor
from ..together import alone
from . import kernel as blocked


class _Bundle(NamedTuple):
    """Tensors that share a block."""

    tensors: list[int]  # of the group
    spans: list[slice]  # where each lies in the block
    places: list[slice]  # the same, counted in its own numbers, of which a complex one is two reals
    size: int
    rows: list[tuple[int, slice]]  # of numbers: which one the tensors of each part of the block have
    slots: list[Any]  # for each field, all of them as one flat array


class _SharedRun:
    """Updates of small tensors, ready to be computed as one; nothing in it can fail after `warm`."""

    def __init__(
        self,
        kernel: blocked.Kernel,
        bundle: _Bundle,
        arrays: tuple[list[Any], list[Any], list[Any]],
        numbers: Any,
        varying: Sequence[int],
        factors: list[Any],
    ) -> None:
        self._kernel = kernel
        self._bundle = bundle
        self._arrays = arrays
        self._factors = factors
        self._compute = numbers.dtype
        self._numbers = numbers
        self._varying = varying if len(bundle.rows) > 1 else ()

    def warm(self) -> blocked.Working:
        """Return this thread's arrays to work in."""
        return self._kernel.working((BLOCK,), self._compute, 2 + len(self._varying))

    def shares(self) -> Iterator[Callable[[], None]]:
        """Yield itself: it is one block."""
        yield lambda: blocked.run_steps(iter(self.bound()))

    def bound(self) -> list[blocked.Step]:
        """Return the steps that gather, compute and scatter."""
        working, bundle, size = self.warm(), self._bundle, self._bundle.size
        params, grads, outs = ([flat(of[k]) for k in bundle.tensors] for of in self._arrays)
        param, grad, *filled = (x[:size] for x in working.blocks)
        arrays = [x[:size] for x in working.arrays]
        gathered, new = param, grad
        if bundle.places is not bundle.spans:
            gathered, new = (x.view(params[0].dtype) for x in (param, grad))
        numbers = list(working.numbers)
        fills: list[blocked.Step] = []
        for k, x in zip(self._varying, filled, strict=False):  # other tensors may have needed more
            numbers[k], values = x, self._numbers[:, k].tolist()
            fills += [(x[part].fill, (values[row],)) for row, part in bundle.rows]
        packed = self._numbers[bundle.rows[0][0]].tobytes()
        return [
            (functools.partial(np.concatenate, out=gathered), (params,)),
            (functools.partial(np.concatenate, out=new), (grads,)),
            *(
                (np.multiply, (grad[span], factor, grad[span]))
                for span, factors in zip(bundle.spans, self._factors, strict=False)  # none if nothing is clipped
                for factor in factors
            ),
            (working.memory.__setitem__, (slice(None), packed)),
            *fills,
            (self._kernel.call, (param, grad, *bundle.slots, param, *bundle.slots, *arrays, *numbers)),
            (_scatter, (zip(outs, [gathered[place] for place in bundle.places], strict=True),)),
        ]


def _scatter(pairs: Iterator[tuple[Any, Any]]) -> None:
    for out, values in pairs:
        np.copyto(out, values, "unsafe")


class BlockedGroup(HostGroup):
    """Tensors of one dtype, of which the small ones are updated together."""

    def __init__(self, members: list[int], tensors: list[Tensor]) -> None:
        super().__init__(members, tensors)
        self._kernel = _kernel_of(tensors[0], clipped=self.clipped)
        self._shared = _kernel_of(tensors[0], clipped=False)  # clips what has been gathered
        self._size = sum(self.sizes)
        self._row_of: list[int] = []
        self._bundles: list[_Bundle] = []
        self._alone: list[int] = []

    @staticmethod
    def kind(tensor: Tensor) -> Any:
        """Return the dtype."""
        return tensor.spec.dtype

    def set_rows(self, rows: list[int]) -> bool:
        """Choose which tensors share a block."""
        row_of = self.take_rows(rows)
        if row_of != self._row_of:
            self._row_of = row_of
            self._bundles = list(self._bundle(self.sizes))
            bundled = {k for bundle in self._bundles for k in bundle.tensors}
            self._alone = [k for k in range(len(row_of)) if k not in bundled]
        return True

    def launch(self, bound: Bound, numbers: StepNumbers) -> Launched:
        """Evaluate the numbers, and take the memory to work in."""
        return alone(self.staged(bound, numbers))

    def staged(self, bound: Bound, numbers: StepNumbers) -> Staged:
        """Evaluate the numbers, with those of each tensor."""
        params, grads, outs, _ = bound
        reals = self.reals(bound)
        scalars, compute = self.scalars(numbers), self.compute
        factors = []
        if self.clipped:
            pairs = zip(reals[1], self._row_of, strict=True)
            factors = [blocked.factors(x, scalars[row].clip_norm) for x, row in pairs]
        ones = copies = None
        if self.ones is not None:

            def measure(k: int, mine: Any) -> list[Any]:
                return self._measured(k, mine, reals, scalars, factors)

            ones, copies = yield from self.ones.launch(scalars, self._row_of, measure)
        runs: list[blocked.Call] = []
        if self._bundles:
            found = self._shared.numbers
            of_rows = np.frombuffer(found.rows(scalars, (), None, compute.char), compute)
            of_rows = of_rows.reshape(len(scalars), found.count)
            varying = _varying(of_rows) if len(of_rows) > 1 else []
            for bundle in self._bundles:
                mine = [factors[k] for k in bundle.tensors] if factors else []
                runs.append(_SharedRun(self._shared, bundle, (params, grads, outs), of_rows, varying, mine))
        if self._alone:
            packed = [self._kernel.numbers.packed(h, compute.char) for h in scalars]
            for k in self._alone:
                row = packed[self._row_of[k]] + (b"" if ones is None else ones[k].tobytes())
                row += factors[k].tobytes() if factors else b""
                param, grad, out = (of[k] for of in reals)
                inputs, outputs = (param, grad, *self.wide[k]), (out, *self.wide[k])
                runs.append(blocked.Run(self._kernel, inputs, outputs, row, compute))
        call = blocked.together(runs, self._size)
        return Launched(outs, self.slots, call if copies is None else functools.partial(with_copies, call, copies))

    def _measured(
        self, k: int, ones: Any, reals: Sequence[list[Any]], scalars: Sequence[Scalars], factors: list[Any]
    ) -> list[Any]:
        """Return all that pass `k` finds, of each tensor."""
        one, code = self._kernel.measures[k], self.compute.char
        packed, found = [one.numbers.packed(h, code) for h in scalars], []
        for i, (param, grad) in enumerate(zip(*reals[:2], strict=True)):
            row = packed[self._row_of[i]] + (b"" if ones is None else ones[i].tobytes())
            row += factors[i].tobytes() if factors else b""
            found.append(one.run([flat(x) for x in (param, grad, *self.wide[i])], row, self.compute))
        return [np.concatenate(of) for of in zip(*found, strict=True)]

    def _bundle(self, sizes: list[int]) -> Iterator[_Bundle]:
        """Yield the tensors that follow each other in the group, and whose slots do in memory."""
        first, total = 0, 0
        for k, size in enumerate([*sizes, 0]):
            if k > first and (k == len(sizes) or total + size > BLOCK or not self._adjoins(k, sizes)):
                if k - first > 1:
                    ends = np.cumsum(sizes[first:k]).tolist()
                    spans = [slice(end - of, end) for end, of in zip(ends, sizes[first:k], strict=True)]
                    slots = [_from(x, total) for x in self.wide[first]]
                    places = spans if self.parts == 1 else [slice(of.start // 2, of.stop // 2) for of in spans]
                    rows = _joined(self._row_of[first:k], spans)
                    yield _Bundle(list(range(first, k)), spans, places, total, rows, slots)
                first, total = k, 0
            total += size

    def _adjoins(self, k: int, sizes: list[int]) -> bool:
        """Whether tensor `k` can share a block with the one in front of it."""
        before, here = self._table[3:, k - 1], self._table[3:, k]
        return (
            self.ones is None  # whose numbers are each tensor's own
            and max(sizes[k - 1 : k + 1]) <= SHARED
            and (self._shared.any_rows or self._row_of[k - 1] == self._row_of[k])
            and bool((before + sizes[k - 1] * self.compute.itemsize == here).all())
            and all(x.base is not None and x.base is y.base for x, y in zip(*self.wide[k - 1 : k + 1], strict=True))
        )


def _varying(of_rows: Any) -> list[int]:
    """Return which numbers have not the same bits in all rows."""
    bits = of_rows.view(f"u{of_rows.itemsize}")
    places: list[int] = (bits != bits[0]).any(axis=0).nonzero()[0].tolist()
    return places


def _joined(rows: list[int], spans: list[slice]) -> list[tuple[int, slice]]:
    """Return each row with the span of the tensors of it that follow each other."""
    joined: list[tuple[int, slice]] = []
    for row, span in zip(rows, spans, strict=True):
        if joined and joined[-1][0] == row:
            span = slice(joined.pop()[1].start, span.stop)
        joined.append((row, span))
    return joined


def _from(x: Any, size: int) -> Any:
    """Return so many elements of the array that `x` is a view of, from where `x` begins."""
    start = (address_of(x) - address_of(x.base)) // x.itemsize
    return x.base[start : start + size]


class BlockedSingle(HostSingle):
    """A tensor that is updated alone in blocks.

    Parameters
    ----------
    tensor : Tensor
        The tensor, which is not kept.
    small : SmallSteps, optional
        What counts its launches.
    """

    def __init__(self, tensor: Tensor, small: SmallSteps | None = None) -> None:
        super().__init__(tensor)
        self._small = small
        self._kernel = _kernel_of(tensor, clipped=self.clipped)
        self._one_call = self.size <= blocked.SMALL and (self.dtype == self.compute or self.parts == 2)
        self._code = self.compute.char
        self._turned = self._order == "f_contiguous" and self.parts == 1  # a kernel's own arrays are in C order

    def launch(
        self, param: Any, grad: Any, result: Any, h: Scalars, key: Key | None, proceed: Any
    ) -> Callable[[], None]:
        """Evaluate the numbers, and take the memory to work in."""
        if self._small is not None:
            self._small.count()
        kernel, slots = self._kernel, self.wide
        if self.parts == 2:
            param, grad, result = self.reals(param, grad, result)
        if self._turned:
            param, grad, result, *slots = (x.T for x in (param, grad, result, *slots))
        packed = kernel.numbers.packed(h, self._code)
        clip = blocked.factors(grad, h.clip_norm).tobytes() if self.clipped else b""
        if self.ones is not None:
            ones, copies = self._found(self.ones, [flat(x) for x in (param, grad, *slots)], h, clip)
            packed += b"" if ones is None else ones.tobytes()
        if self.clipped:
            packed += clip
        if self._one_call:
            memory, numbers, arrays, _ = kernel.working(param.shape, self.compute, 0)
            args = (param, grad, *slots, result, *slots, *arrays, *numbers)
            call = blocked.one_call(memory, packed, kernel.call, args)
        else:
            run = blocked.Run(kernel, (param, grad, *slots), (result, *slots), packed, self.compute)
            call = blocked.together([run], self.size)
        return call if self.ones is None else functools.partial(with_copies, call, copies)

    def _found(self, ones: Ones, inputs: list[Any], h: Scalars, clip: bytes) -> tuple[Any, Any]:
        """Return the numbers of the tensor itself, and where they are kept."""

        def measure(k: int, mine: Any) -> list[Any]:
            one = self._kernel.measures[k]
            row = one.numbers.packed(h, self._code) + (b"" if mine is None else mine.tobytes()) + clip
            return one.run(inputs, row, self.compute)

        return alone(ones.launch([h], [0], measure))


def _kernel_of(tensor: Tensor, *, clipped: bool) -> blocked.Kernel:
    assert tensor.h is not None
    return kernels.made(blocked.Kernel, tensor.rule, tensor.h, Variant("blocked", clipped=clipped))
