"""What processes decide as one: sums of numbers, and the error of one of them, which all raise."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from .._step.loss import check_loss
from ._processes import Processes

_JOIN: dict[str, Any] = {"add": np.add, "maximum": np.maximum}


class Agreement:
    """Numbers and errors of some processes.

    Parameters
    ----------
    processes : Processes
        All of them.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._is_agreed = False  # of an error that is raised now, whether all raise it

    def decide(self, numbers: Sequence[tuple[str, float]]) -> list[float]:
        """Return what numbers come to, those of the ranks joined in their order.

        Parameters
        ----------
        numbers : sequence of (str, float)
            How each is joined, ``"add"`` or ``"maximum"``, and that of this process.

        Returns
        -------
        list of float
            The same on all processes.

        Raises
        ------
        Exception
            What another process has failed with, before it came here.
        """
        found = self._processes.gather([0.0, float(len(numbers))])
        if found[:, 0].any():
            self._raise(found, "")
        if (found[:, 1] != len(numbers)).any():
            self._is_agreed = True
            raise RuntimeError("Sharded: the ranks are at different points of a step; all must make the same calls")
        if not numbers:
            return []
        of_ranks = self._processes.gather([value for _, value in numbers])
        with np.errstate(all="ignore"):
            return [float(_JOIN[join].reduce(of_ranks[:, k])) for k, (join, _) in enumerate(numbers)]

    def loss(self, cur_loss: Any, reduce: str) -> float | None:
        """Return the loss of all ranks, the ``"mean"`` or the ``"sum"`` of theirs; None if none has one."""
        check_loss(cur_loss, "")
        mine = 0.0 if cur_loss is None else float(cur_loss)
        total, given = self.decide([("add", mine), ("add", float(cur_loss is not None))])
        ranks = self._processes.size
        if 0 < given < ranks:
            raise ValueError(
                f"Sharded: cur_loss is None on {ranks - int(given)} of {ranks} ranks; give it on all, or none"
            )
        if not given:
            return None
        return total / ranks if reduce == "mean" else total

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Let what fails in the context on one process be raised by all of them, where they next decide.

        Yields
        ------
        None
            Nothing.
        """
        self._is_agreed = False
        try:
            yield
        except BaseException as error:
            if self._is_agreed:
                raise
            found = self._processes.gather([1.0, 0.0])
            self._raise(found, json.dumps([_kind(error), str(error)]), error)

    def _raise(self, found: Any, text: str, own: BaseException | None = None) -> NoReturn:
        """Raise the error of the first rank that has one."""
        rank = int(np.flatnonzero(found[:, 0])[0])
        kind, message = json.loads(self._processes.broadcast(text, rank))
        self._is_agreed = True
        if own is not None and not isinstance(own, Exception):  # an interrupt stays what it is where it came
            raise own
        raise getattr(builtins, kind)(f"rank {rank}: {message}") from own


def _kind(error: BaseException) -> str:
    """Return the first of an error's classes that all processes have and that takes a message alone."""
    for kind in type(error).__mro__:
        if kind.__module__ == "builtins" and not issubclass(kind, UnicodeError):
            return kind.__name__ if issubclass(kind, Exception) and kind is not Exception else "RuntimeError"
    return "RuntimeError"
