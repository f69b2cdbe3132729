"""What the CUDA engine keeps of a model: what its arrays look like; where they lie, they are asked at every call."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ..._graph.rule import Rule
from ..group import Group, Step
from . import kernel as cuda
from .device import device


class CudaGroup(Group):
    """Tensors of one device and dtype whose next update is one launch."""

    def __init__(self, rule: Rule, members: list[int], params: list[Any], slots: list[Any], rows: list[int]) -> None:
        super().__init__(rule, members, params, slots, rows)
        self._device_and_dtype = self.kind(params[0])
        self._shapes = [x.shape for x in params]
        self._strides = [x.strides for x in params]
        self._sizes = np.array([x.size for x in params], np.int64)
        self._row_of = np.array(rows, np.int64)
        self._slots = slots  # never handed out, so nothing of them can have changed
        for k, of_field in enumerate(zip(*slots, strict=True), 3):
            self.table[k] = [x.data.ptr for x in of_field]

    @staticmethod
    def kind(x: Any) -> Any:
        """Return what all parameters of a group have in common."""
        return x.data.device_id, x.dtype

    def gather(self, params: list[Any], grads: list[Any], outs: list[Any] | None) -> bool:
        """Read where everything lies, but new outs; return whether all of it looks as it did."""
        roles = [params, grads] if outs is None or outs is params else [params, grads, outs]
        if not all(self._read(row, self.mine(arrays)) for row, arrays in enumerate(roles)):
            return False
        if outs is params:
            self.table[2] = self.table[0]
        return True

    def prepare(self, step: Step, params: list[Any], grads: list[Any], outs: list[Any]) -> Callable[[], None]:
        """Return the function that updates them; nothing in it can fail."""
        number, dtype = self._device_and_dtype
        keys = self.keys(step)
        of_rule = cuda.kernel(
            self.rule, step.scalars[0], dtype, guarded=step.proceed is not None, drawn=keys is not None
        )
        on, scalars = device(number), step.scalars
        return of_rule.prepare(on, self.table, self._sizes, self._row_of, scalars, keys, step.proceed)

    def allocate(self, params: list[Any], into: list[Any]) -> None:
        """Make new arrays for the results, and put them `into` their places."""
        on = device(self._device_and_dtype[0])
        for k, i in enumerate(self.members):
            into[i] = x = on.empty_like(params[i])
            self.table[2, k] = x.data.ptr

    def _read(self, row: int, arrays: list[Any]) -> bool:
        """Read where arrays lie into a row of the table; return whether they look as they should."""
        (number, dtype), count = self._device_and_dtype, len(arrays)
        if [type(x) for x in arrays].count(sys.modules["cupy"].ndarray) != count:
            return False
        if [x.dtype for x in arrays].count(dtype) != count or [x.shape for x in arrays] != self._shapes:
            return False
        memory = [x.data for x in arrays]
        if [x.strides for x in arrays] != self._strides or [of.device_id for of in memory].count(number) != count:
            return False
        self.table[row] = [of.ptr for of in memory]
        return True
