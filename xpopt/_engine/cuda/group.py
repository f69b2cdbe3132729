"""Tensors of the CUDA engine: what their arrays look like; where they lie, they are asked at every step."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from ..._arrays.libraries.dtypes import order_of
from ..._arrays.parameter import dtype_text
from ..._arrays.typing import Scalars
from ..._graph.node import OF_MODEL
from ..._graph.questions import Question
from ..._graph.slots import Slot, one
from .. import kernels
from ..group import Bound, FusedMembers, Launched, Staged, StepNumbers
from ..kernel import Variant
from ..numbers import Key
from ..start import dtype_of, in_parts
from ..tensor import Tensor
from ..together import OnDevice, alone
from .device import Device, device
from .kernel import Kernel


class CudaGroup(FusedMembers):
    """Tensors of one device and dtype, all updated by one launch."""

    def __init__(self, members: list[int], tensors: list[Tensor]) -> None:
        self._number = tensors[0].param.data.device_id
        rule, slots = tensors[0].rule, [_new_slots(tensor) for tensor in tensors]
        super().__init__(members, tensors, slots, (*rule.wide, *rule.ones), _address_of)
        self._dtype = tensors[0].spec.dtype
        self._strides = [tensor.param.strides for tensor in tensors]
        self._size_of_each = np.array(self.sizes, np.int64)
        self._row_of = np.zeros(len(members), np.int64)
        self._kernel, self._guarded = kernel_of(tensors[0]), tensors[0].proceed is not None
        self.couples = bool(self.questions)

    @property
    def questions(self) -> Collection[Question]:
        """What is asked of the whole model."""
        return self._kernel.questions

    @staticmethod
    def refuse(tensor: Tensor) -> str | None:
        """Return why the tensor has no place in a launch, or None if it has."""
        param, out = tensor.param, tensor.out
        if tensor.grad.dtype != param.dtype:
            return "the gradient is of another dtype than the parameter"
        slots = (x for x in tensor.slots or () if x is not None)
        arrays = (param, tensor.grad, *slots, param if out is None else out)
        ndarray = sys.modules["cupy"].ndarray
        if any(type(x) is not ndarray for x in arrays):
            return "an array is of a subclass"
        flags = [x.flags for x in arrays]
        if all(of.c_contiguous for of in flags) or all(of.f_contiguous for of in flags):
            return None
        return "the arrays are not contiguous, or not in one order"

    @staticmethod
    def kind(tensor: Tensor) -> Any:
        """Return device and dtype."""
        return tensor.param.data.device_id, tensor.spec.dtype

    def set_rows(self, rows: list[int]) -> bool:
        """Say which row of numbers each tensor has; False if the table then has no kernel."""
        self._row_of = np.array(self.take_rows(rows), np.int64)
        return self._why_not(self._kernel) is None

    def bind(self, params: list[Any], grads: list[Any], outs: list[Any] | None) -> Bound | None:
        """Find where everything lies."""
        roles, in_place, table = [self.mine(params), self.mine(grads)], outs is params, self._table.copy()
        if outs is not None and not in_place:
            roles.append(self.mine(outs))
        if not all(self._read(table[k], arrays) for k, arrays in enumerate(roles)):
            converted = self.converted(roles[1])
            if converted is None:
                return None
            roles[1] = converted
            if not all(self._read(table[k], arrays) for k, arrays in enumerate(roles)):
                return None
        if outs is None:
            on = device(self._number)
            roles.append([on.empty_like(x) for x in roles[0]])
            table[2] = [_address_of(x) for x in roles[2]]
        elif in_place:
            roles.append(roles[0])
            table[2] = table[0]
        mine, of_mine, new = roles
        return Bound(mine, of_mine, new, table)

    def launch(self, bound: Bound, numbers: StepNumbers) -> Launched:
        """Take all memory, and make the table."""
        return alone(self.staged(bound, numbers))

    def staged(self, bound: Bound, numbers: StepNumbers) -> Staged:
        """Do so; where something is asked of the model, what finds that is launched before."""
        keys, proceed, scalars = self.keys(numbers), numbers.proceed, self.scalars(numbers)
        kernel = self._kernel
        if (proceed is not None) != self._guarded:
            variant = Variant("cuda", kernels.name_of(self._dtype), self.clipped, keys is not None, not self._guarded)
            kernel = kernels.made(Kernel, self.rule, scalars[0], variant)
            if (reason := self._why_not(kernel)) is not None:
                raise RuntimeError(reason)
        on = device(self._number)
        job = kernel.job(on, bound.table, self._size_of_each, self._row_of, scalars, keys, proceed)
        for found in job.stages():
            job.take((yield {question: [self._said(question, x)] for question, x in found.items()}))
        return Launched(bound.outs, self.slots, job.finish)

    def _said(self, question: Question, x: Any) -> OnDevice:
        """Return what all tensors together have to say to a question."""
        return OnDevice(self._library, (1.0, x) if OF_MODEL[question.op] == "vector_norm" else (x,))

    def _why_not(self, kernel: Kernel) -> str | None:
        size = kernel.size(len(self.members), len(self._rows))
        return kernel.refuse(device(self._number), size, compile_it=True)

    def _read(self, row: Any, arrays: list[Any]) -> bool:
        """Read where arrays lie into a row of the table; return whether they look as they should."""
        count = len(arrays)
        if [type(x) for x in arrays].count(sys.modules["cupy"].ndarray) != count:
            return False
        if [x.dtype for x in arrays].count(self._dtype) != count or [x.shape for x in arrays] != self._shapes:
            return False
        memory = [x.data for x in arrays]
        if [x.strides for x in arrays] != self._strides or [of.device_id for of in memory].count(self._number) != count:
            return False
        row[:] = [of.ptr for of in memory]
        return True


class CudaSingle:
    """A tensor in CuPy arrays that is updated alone.

    Parameters
    ----------
    tensor : Tensor
        The tensor, which is not kept.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._group = CudaGroup([0], [tensor])
        self._group.set_rows([0])
        self.rule, (self.slots,) = tensor.rule, self._group.slots

    def bind(self, param: Any, grad: Any, out: Any) -> tuple[Any, Any] | None:
        """Return what is read and where the result goes; None if an array is not as it was, or there is an overlap."""
        group = self._group
        bound = group.bind([param], [grad], None if out is None else [out])
        if bound is None:
            return None
        of_param, of_grad, of_out = bound.table[:3, 0].tolist()
        size, (result,) = int(group.bytes[0]), bound.outs
        # at the same address it is the same memory, for all are contiguous in one order
        crosses = abs(of_grad - of_out) < size or 0 < abs(of_param - of_out) < size
        return None if crosses else (param, result)

    def launch(
        self, param: Any, grad: Any, result: Any, h: Scalars, key: Key | None, proceed: Any
    ) -> Callable[[], None]:
        """Take all memory, and make the table."""
        bound = self._group.bind([param], [grad], [result])
        assert bound is not None
        finish = self._group.launch(bound, StepNumbers([h], None if key is None else [key], proceed)).finish
        return functools.partial(_finish, finish, bound.grads)


def _finish(finish: Callable[[], None], grads: list[Any]) -> None:
    """Launch what has been prepared, with the gradients alive, which may be converted ones."""
    finish()


def why_no_kernel(tensors: Sequence[Tensor], *, compile_it: bool) -> str | None:
    """Return why tensors of one rule, none of them refused, have no kernel; None if they have, or may have.

    Parameters
    ----------
    tensors : sequence of Tensor
        What is to be updated in one step.
    compile_it : bool
        Whether kernels are compiled to find out.

    Returns
    -------
    str or None
        The reason.
    """
    groups: dict[tuple[Device, Any], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((device(tensor.param.data.device_id), tensor.spec.dtype), []).append(tensor)
    for (on, _), members in groups.items():
        kernel, rows = kernel_of(members[0]), len({id(tensor.h) for tensor in members})
        reason = kernel.refuse(on, kernel.size(len(members), rows), compile_it=compile_it)
        if reason is not None:
            return reason
    return None


def kernel_of(tensor: Tensor) -> Kernel:
    """Return the printed kernel for a tensor."""
    assert tensor.h is not None
    dtype, drawn, guarded = kernels.name_of(tensor.spec.dtype), tensor.key is not None, tensor.proceed is not None
    return kernels.made(Kernel, tensor.rule, tensor.h, Variant("cuda", dtype, tensor.clipped, drawn, guarded))


def _new_slots(tensor: Tensor) -> Any:
    """Return slots that may be written, with the state before the update."""
    rule, slots, on = tensor.rule, tensor.slots, device(tensor.param.data.device_id)
    if slots is None:
        return rule.make_slots([_started(on, tensor, spec) for spec in rule.specs])
    return slots if tensor.owned else rule.make_slots([on.copy(x) for x in slots])


def _started(on: Device, tensor: Tensor, spec: Slot) -> Any:
    """Return a new slot, as its spec says."""
    param = tensor.param
    if spec.constant:
        values = getattr(tensor.h, spec.start).numbers(dtype_text(tensor.spec.dtype))
        values = values * (1 + 1j) if tensor.spec.parts == 2 else values
        return on.copy(np.asarray(values, order=order_of(param)), tensor.spec.compute)
    number = spec.number(tensor.h)
    dtype = dtype_of(tensor.library, tensor.spec, spec)
    if number is None:
        return on.copy(param, dtype)
    if spec.shape is one:
        return on.full((), number, dtype)
    return on.full_like(param, in_parts(number, dtype), dtype) if number else on.zeros_like(param, dtype)


def _address_of(x: Any) -> int:
    address: int = x.data.ptr
    return address
