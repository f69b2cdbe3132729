"""DTensors: the processes of a mesh, and tensors from the part of each."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import distributed
from torch.distributed.tensor import DTensor

from ._torch import OverTorch


class Layout(NamedTuple):
    """Where a DTensor lies."""

    mesh: Any
    placements: tuple[Any, ...]
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def cut(self) -> frozenset[int]:
        """The axes of the mesh along which it is cut."""
        return frozenset(k for k, one in enumerate(self.placements) if not one.is_replicate() and self.mesh.size(k) > 1)

    @property
    def is_partial(self) -> bool:
        """Whether the parts are still to be added up."""
        return any(one.is_partial() for one in self.placements)

    def whole(self, part: Any) -> Any:
        """Return the tensor of which this process has a part."""
        shape, strides = torch.Size(self.shape), self.strides
        return DTensor.from_local(part, self.mesh, self.placements, run_check=False, shape=shape, stride=strides)


class Part(NamedTuple):
    """What the part of a tensor is that this process has."""

    shape: tuple[int, ...]
    dtype: Any
    device: Any

    def zeros(self) -> Any:
        """Return a tensor like it."""
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)


def described(x: Any) -> Part:
    """Return what a part is."""
    return Part(tuple(x.shape), x.dtype, x.device)


def layout_of(x: Any) -> Layout | None:
    """Return where a tensor lies, or None if it is no DTensor."""
    if not isinstance(x, DTensor):
        return None
    return Layout(x.device_mesh, tuple(x.placements), tuple(x.shape), tuple(x.stride()))


def is_laid_out(x: Any, layout: Layout) -> bool:
    """Return whether a tensor lies there."""
    if not isinstance(x, DTensor) or x.placements != layout.placements or x.shape != layout.shape:
        return False
    return x.device_mesh is layout.mesh or x.device_mesh == layout.mesh


def part_of(x: Any) -> Any:
    """Return the part of a DTensor that this process has, in the same memory."""
    part = x.to_local()
    if type(part) is torch.Tensor:
        return part
    return part.wait() if hasattr(part, "wait") else part  # of a collective that is under way


def processes_of(mesh: Any) -> OverTorch:
    """Return all processes of a mesh."""
    if mesh.ndim == 1:
        return OverTorch(mesh.get_group())
    if mesh.size() != distributed.get_world_size():
        raise ValueError(
            f"DTensors: {mesh} has several axes and {mesh.size()} of {distributed.get_world_size()} processes; wanted "
            f"a mesh of one axis, or one of all processes"
        )
    return OverTorch(distributed.group.WORLD)


def is_first(mesh: Any, cut: frozenset[int]) -> bool:
    """Return whether this process is the first of those that have the same parts."""
    return all(place == 0 for axis, place in enumerate(mesh.get_coordinate()) if axis not in cut)


def whole_of(loss: Any) -> Any:
    """Return a loss of which processes may have parts."""
    return loss.full_tensor() if isinstance(loss, DTensor) else loss


no_grad = torch.no_grad
