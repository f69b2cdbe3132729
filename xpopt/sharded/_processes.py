"""The operations on processes: exchange of numbers, text and arrays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol


class Processes(Protocol):
    """Processes that all make the same calls, in the same order.

    `borders` are the first elements of the regions of a flat array, and the end of the last region.
    """

    size: int
    rank: int
    library: str
    """The library whose arrays they send."""

    def gather(self, numbers: Sequence[float]) -> Any:
        """Return the numbers of all ranks, float64 of shape (ranks, numbers)."""

    def broadcast(self, text: str, rank: int) -> str:
        """Return the text of a rank."""

    def spread(self, flat: Any) -> None:
        """Copy an array of rank 0 to all ranks."""

    def zeros(self, count: int, dtype: Any, like: Any) -> Any:
        """Return a new array of zeros on the device of `like`."""

    def lay(self, leaf: Any, param: Any, grad: Any) -> bool:
        """Make a parameter that requires a gradient a view of the flat array; return whether it may require one."""

    def collect(self, leaf: Any, param: Any, grad: Any) -> str:
        """Copy the gradient of such a parameter into the flat array; return what is wrong with it, or ""."""

    def can_reduce(self, flat: Any, borders: Sequence[int]) -> bool:
        """Return whether `reduce` supports an array."""

    def reduce(self, flat: Any, own: Any, borders: Sequence[int]) -> None:
        """Write the sum over ranks of the region of this rank into `own`."""

    def exchange(self, flat: Any, received: Any, borders: Sequence[int]) -> None:
        """Write what each rank has in the region of this rank into `received`, one row for each rank."""

    def share(self, flat: Any, borders: Sequence[int]) -> None:
        """Copy the region of each rank to all ranks."""


def is_even(borders: Sequence[int]) -> bool:
    """Return whether all regions have the same size, for which libraries have faster operations."""
    return len({end - start for start, end in pairwise(borders)}) == 1


def processes_of(comm: Any) -> Processes:
    """Return the adapter of a communicator.

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
        `comm` is neither of them.
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
        f"process group of PyTorch, such as torch.distributed.group.WORLD after init_process_group()"
    )
