"""DTensors: the processes of a mesh, and the parts of tensors on them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import distributed
from torch.distributed.tensor import DTensor

from ._torch import OverTorch


class Layout(NamedTuple):
    """The layout of a DTensor on the processes."""

    mesh: Any
    placements: tuple[Any, ...]
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def cut(self) -> frozenset[int]:
        """The dimensions of the mesh along which the tensor is cut."""
        return frozenset(k for k, one in enumerate(self.placements) if not one.is_replicate() and self.mesh.size(k) > 1)

    @property
    def is_partial(self) -> bool:
        """Whether the parts are terms of a sum."""
        return any(one.is_partial() for one in self.placements)

    def whole(self, part: Any) -> Any:
        """Return the DTensor with this part on this process."""
        shape, strides = torch.Size(self.shape), self.strides
        return DTensor.from_local(part, self.mesh, self.placements, run_check=False, shape=shape, stride=strides)


class Part(NamedTuple):
    """Shape, dtype and device of the part of a tensor on this process."""

    shape: tuple[int, ...]
    dtype: Any
    device: Any

    def zeros(self) -> Any:
        """Return a tensor of zeros like the part."""
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)


def described(x: Any) -> Part:
    """Describe a part."""
    return Part(tuple(x.shape), x.dtype, x.device)


def layout_of(x: Any) -> Layout | None:
    """Return the layout of a DTensor; None for other tensors."""
    if not isinstance(x, DTensor):
        return None
    return Layout(x.device_mesh, tuple(x.placements), tuple(x.shape), tuple(x.stride()))


def is_laid_out(x: Any, layout: Layout) -> bool:
    """Return whether a tensor has a layout."""
    if not isinstance(x, DTensor) or x.placements != layout.placements or x.shape != layout.shape:
        return False
    return x.device_mesh is layout.mesh or x.device_mesh == layout.mesh


def part_of(x: Any) -> Any:
    """Return the part of a DTensor on this process, without a copy."""
    part = x.to_local()
    if type(part) is torch.Tensor:
        return part
    return part.wait() if hasattr(part, "wait") else part  # the result of a collective in progress


def processes_of(mesh: Any) -> OverTorch:
    """Return all processes of a mesh."""
    if mesh.ndim == 1:
        return OverTorch(mesh.get_group())
    if mesh.size() != distributed.get_world_size():
        raise ValueError(
            f"DTensors: {mesh} has several dimensions and {mesh.size()} of {distributed.get_world_size()} processes; "
            f"wanted a mesh with one dimension, or one of all processes"
        )
    return OverTorch(distributed.group.WORLD)


def is_first(mesh: Any, cut: frozenset[int]) -> bool:
    """Return whether this process is the first of those with the same parts."""
    return all(place == 0 for axis, place in enumerate(mesh.get_coordinate()) if axis not in cut)


def whole_of(loss: Any) -> Any:
    """Return a loss as a plain tensor."""
    return loss.full_tensor() if isinstance(loss, DTensor) else loss


no_grad = torch.no_grad
