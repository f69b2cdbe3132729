"""What the blocked engine keeps of a model: small tensors share a block, and NumPy's calls are made once for many."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..._arrays.namespace import address_of
from ..._graph.rule import Rule
from ..group import BLOCK, SHARED, Group, Step
from . import kernel as blocked


class _Bundle(NamedTuple):
    """Tensors of one count that share a block."""

    tensors: list[int]  # of the group
    spans: list[slice]  # where each lies in the block
    size: int
    row: int
    slots: list[Any]  # for each field, all of them as one flat array


class _SharedRun:
    """Updates of small tensors, ready to be computed as one; nothing in it can fail after `warm`."""

    def __init__(
        self,
        kernel: blocked.Kernel,
        bundle: _Bundle,
        arrays: tuple[list[Any], list[Any], list[Any]],
        packed: bytes,
        factors: list[Any],
        compute: Any,
    ) -> None:
        self._kernel = kernel
        self._bundle = bundle
        self._arrays = arrays
        self._packed = packed
        self._factors = factors
        self._compute = compute

    def warm(self) -> blocked.Working:
        """Return this thread's arrays to work in."""
        return self._kernel.working((BLOCK,), self._compute, 2)

    def shares(self) -> Iterator[Callable[[], None]]:
        """Yield itself: it is one block."""
        yield lambda: blocked.run_steps(iter(self.bound()))

    def bound(self) -> list[blocked.Step]:
        """Return the steps that gather, compute and scatter."""
        working, bundle, size = self.warm(), self._bundle, self._bundle.size
        params, grads, outs = ([blocked.flat(of[k]) for k in bundle.tensors] for of in self._arrays)
        param, grad = (x[:size] for x in working.blocks)
        arrays = [x[:size] for x in working.arrays]
        return [
            (functools.partial(np.concatenate, out=param), (params,)),
            (functools.partial(np.concatenate, out=grad), (grads,)),
            *(
                (np.multiply, (grad[span], factor, grad[span]))
                for span, factors in zip(bundle.spans, self._factors, strict=False)  # none if nothing is clipped
                for factor in factors
            ),
            (working.memory.__setitem__, (slice(None), self._packed)),
            (self._kernel.call, (param, grad, *bundle.slots, param, *bundle.slots, *arrays, *working.numbers)),
            (_scatter, (zip(outs, [param[span] for span in bundle.spans], strict=True),)),
        ]


def _scatter(pairs: Iterator[tuple[Any, Any]]) -> None:
    for out, values in pairs:
        np.copyto(out, values, "unsafe")


class BlockedGroup(Group):
    """Tensors of one dtype, of which the small ones are updated together."""

    def __init__(self, rule: Rule, members: list[int], params: list[Any], slots: list[Any], rows: list[int]) -> None:
        super().__init__(rule, members, params, slots, rows)
        self._dtype = params[0].dtype
        self._compute = np.dtype(np.float64 if self._dtype == np.float64 else np.float32)
        self._shapes = [x.shape for x in params]
        self._in_c_order = [x.flags.c_contiguous for x in params]
        self._size = sum(x.size for x in params)
        self._slots = slots
        self._rows = rows
        for k, of_field in enumerate(zip(*slots, strict=True), 3):
            self.table[k] = [address_of(x) for x in of_field]
        self._bundles = list(self._bundle([x.size for x in params]))
        bundled = {k for bundle in self._bundles for k in bundle.tensors}
        self._alone = [k for k in range(len(params)) if k not in bundled]

    def gather(self, params: list[Any], grads: list[Any], outs: list[Any] | None) -> bool:
        """Read where everything lies, but new outs; return whether all of it looks as it did."""
        # the slots were never handed out, so nothing of them can have changed
        roles = [(0, params, outs is params), (1, grads, False)]
        if outs is not None and outs is not params:
            roles.append((2, outs, True))
        for row, arrays, write in roles:
            mine = self.mine(arrays)
            if not self._as_they_were(mine) or (write and not all(x.flags.writeable for x in mine)):
                return False
            self.table[row] = [address_of(x) for x in mine]
        if outs is params:
            self.table[2] = self.table[0]
        return True

    def prepare(self, step: Step, params: list[Any], grads: list[Any], outs: list[Any]) -> Callable[[], None]:
        """Return the function that updates them; nothing in it can fail."""
        params, grads, outs = self.mine(params), self.mine(grads), self.mine(outs)
        scalars = step.scalars
        clip_norm, compute = scalars[0].clip_norm, self._compute
        factors = [] if clip_norm is None else [blocked.factors(x, clip_norm) for x in grads]
        runs: list[blocked.Call] = []
        if self._bundles:
            of_rule = blocked.kernel(self.rule, scalars[0], clipped=False)
            packed = [of_rule.numbers.packed(h, compute.char) for h in scalars]
            for bundle in self._bundles:
                mine = [factors[k] for k in bundle.tensors] if factors else []
                runs.append(_SharedRun(of_rule, bundle, (params, grads, outs), packed[bundle.row], mine, compute))
        if self._alone:
            of_rule = blocked.kernel(self.rule, scalars[0], clipped=clip_norm is not None)
            packed = [of_rule.numbers.packed(h, compute.char) for h in scalars]
            for k in self._alone:
                numbers = packed[self._rows[k]] + (factors[k].tobytes() if factors else b"")
                inputs, outputs = (params[k], grads[k], *self._slots[k]), (outs[k], *self._slots[k])
                runs.append(blocked.Run(of_rule, inputs, outputs, numbers, compute))
        return blocked.together(runs, self._size)

    def _as_they_were(self, arrays: list[Any]) -> bool:
        return (
            set(map(type, arrays)) == {np.ndarray}
            and [x.shape for x in arrays] == self._shapes
            and {x.dtype for x in arrays} == {self._dtype}
            and [x.flags.c_contiguous for x in arrays] == self._in_c_order
            and all(x.flags.forc for x in arrays)
        )

    def _bundle(self, sizes: list[int]) -> Iterator[_Bundle]:
        """Yield the tensors that follow each other in the group, and whose slots do in memory."""
        first, total = 0, 0
        for k, size in enumerate([*sizes, 0]):
            if k > first and (k == len(sizes) or total + size > BLOCK or not self._adjoins(k, sizes)):
                if k - first > 1:
                    ends = np.cumsum(sizes[first:k]).tolist()
                    spans = [slice(end - of, end) for end, of in zip(ends, sizes[first:k], strict=True)]
                    slots = [_from(x, total) for x in self._slots[first]]
                    yield _Bundle(list(range(first, k)), spans, total, self._rows[first], slots)
                first, total = k, 0
            total += size

    def _adjoins(self, k: int, sizes: list[int]) -> bool:
        """Whether tensor `k` can share a block with the one in front of it."""
        before, here = self.table[3:, k - 1], self.table[3:, k]
        return (
            max(sizes[k - 1 : k + 1]) <= SHARED
            and self._rows[k - 1] == self._rows[k]
            and bool((before + sizes[k - 1] * self._compute.itemsize == here).all())
            and all(x.base is not None and x.base is y.base for x, y in zip(*self._slots[k - 1 : k + 1], strict=True))
        )


def _from(x: Any, size: int) -> Any:
    """Return so many elements of the array that `x` is a view of, from where `x` begins."""
    start = (address_of(x) - address_of(x.base)) // x.itemsize
    return x.base[start : start + size]
