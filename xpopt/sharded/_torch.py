"""Processes of a PyTorch process group, with tensors on CPUs (gloo) or on GPUs (NCCL)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import distributed

from ._processes import is_even

_reduce_scatter = getattr(distributed, "reduce_scatter_single", None) or distributed.reduce_scatter_tensor
_all_gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor
"""Older versions of PyTorch have these under other names."""


class OverTorch:
    """The ranks of a process group."""

    library = "torch"

    def __init__(self, group: Any) -> None:
        self._group = group
        self.size, self.rank = group.size(), group.rank()
        on_gpu = distributed.get_backend(group) == "nccl"
        self._device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")

    def gather(self, numbers: Sequence[float]) -> Any:
        mine = torch.tensor(numbers, dtype=torch.float64, device=self._device)
        found = mine.new_empty(self.size * len(numbers))
        _all_gather(found, mine, group=self._group)
        return found.reshape(self.size, len(numbers)).cpu().numpy()

    def broadcast(self, text: str, rank: int) -> str:
        found = [text]
        distributed.broadcast_object_list(found, self._root(rank), group=self._group, device=self._device)
        return found[0]

    def spread(self, flat: Any) -> None:
        distributed.broadcast(flat, self._root(0), group=self._group)

    def zeros(self, count: int, dtype: Any, like: Any) -> Any:
        return torch.zeros(count, dtype=dtype, device=like.device)

    def lay(self, leaf: Any, param: Any, grad: Any) -> bool:
        if leaf.requires_grad:
            leaf.data, leaf.grad = param, grad
        return bool(leaf.requires_grad) or isinstance(leaf, torch.nn.Parameter)  # which may require one later

    def collect(self, leaf: Any, param: Any, grad: Any) -> str:
        if leaf.data_ptr() != param.data_ptr() or leaf.dtype != param.dtype or leaf.shape != param.shape:
            if not leaf.requires_grad:
                return ""
            return (
                "is no longer a view of the array that bind made, as after `p.data = x`, `module.to(...)` or "
                "`p.requires_grad_()`, and would not be updated; write into it with `p.data.copy_(x)`, and move, "
                "convert or unfreeze a module before bind"
            )
        if leaf.grad is None:  # as `zero_grad` leaves it
            grad.zero_()
        elif leaf.grad.layout is not torch.strided:
            return f"has a gradient of layout {leaf.grad.layout}; wanted a dense one, as from Embedding(sparse=False)"
        elif leaf.grad.data_ptr() != grad.data_ptr():
            grad.copy_(leaf.grad)
        leaf.grad = grad
        return ""

    def can_reduce(self, flat: Any, borders: Sequence[int]) -> bool:
        return is_even(borders)

    def reduce(self, flat: Any, own: Any, borders: Sequence[int]) -> None:
        _reduce_scatter(own, flat, group=self._group)

    def exchange(self, flat: Any, received: Any, borders: Sequence[int]) -> None:
        counts = [end - start for start, end in pairwise(borders)]
        distributed.all_to_all_single(received, flat, [counts[self.rank]] * self.size, counts, group=self._group)

    def share(self, flat: Any, borders: Sequence[int]) -> None:
        if is_even(borders):
            mine = flat[borders[self.rank] : borders[self.rank + 1]].clone()
            _all_gather(flat, mine, group=self._group)
            return
        for rank, (start, end) in enumerate(pairwise(borders)):
            if start < end:
                distributed.broadcast(flat[start:end], self._root(rank), group=self._group)

    def _root(self, rank: int) -> int:
        return distributed.get_global_rank(self._group, rank)
