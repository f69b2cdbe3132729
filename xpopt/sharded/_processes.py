"""What is asked of processes that work together: numbers, text, and arrays of each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol


class Processes(Protocol):
    """Processes that all make the same calls, in the same order.

    `borders` are those of the regions of a flat array, one more than there are ranks.
    """

    size: int
    rank: int
    library: str
    """The library whose arrays they send."""

    def gather(self, numbers: Sequence[float]) -> Any:
        """Return the numbers of all as float64, (ranks, numbers)."""

    def broadcast(self, text: str, rank: int) -> str:
        """Return the text of a rank."""

    def spread(self, flat: Any) -> None:
        """Write what rank 0 has in an array into those of all."""

    def zeros(self, count: int, dtype: Any, like: Any) -> Any:
        """Return a new array beside another one."""

    def lay(self, leaf: Any, param: Any, grad: Any) -> bool:
        """Make a parameter of the caller's that requires a gradient lie where it is updated; say if it may be one."""

    def collect(self, leaf: Any, param: Any, grad: Any) -> str:
        """Write the gradient that such a parameter has, wherever that lies; return what is wrong with it, or ""."""

    def can_reduce(self, flat: Any, borders: Sequence[int]) -> bool:
        """Whether `reduce` takes such an array."""

    def reduce(self, flat: Any, own: Any, borders: Sequence[int]) -> None:
        """Write the sum of all flat arrays, of the region of this rank."""

    def exchange(self, flat: Any, received: Any, borders: Sequence[int]) -> None:
        """Write what each rank has for the region of this one: one row after the other."""

    def share(self, flat: Any, borders: Sequence[int]) -> None:
        """Write the region of each rank into the arrays of all."""


def is_even(borders: Sequence[int]) -> bool:
    """Whether regions are of one size, as libraries have the fastest ways for."""
    return len({end - start for start, end in pairwise(borders)}) == 1


def processes_of(comm: Any) -> Processes:
    """Return what speaks through a communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm or torch.distributed.ProcessGroup
        The processes.

    Returns
    -------
    Processes
        An adapter.

    Raises
    ------
    TypeError
        It is neither.
    """
    kinds = {kind.__module__.partition(".")[0] for kind in type(comm).__mro__}
    if "mpi4py" in kinds:
        from ._mpi import OverMPI

        return OverMPI(comm)
    if "torch" in kinds:
        from ._torch import OverTorch

        return OverTorch(comm)
    raise TypeError(
        f"Sharded: comm is a {type(comm).__name__}; wanted a communicator of mpi4py, such as MPI.COMM_WORLD, or a "
        f"process group of PyTorch, such as torch.distributed.group.WORLD after init_process_group"
    )
