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

_OTHERWISE = UnicodeError, BaseExceptionGroup, StopIteration, StopAsyncIteration
"""Errors that take more than a message, or that mean something else where they come out of a context."""

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
        self._agreed: BaseException | None = None  # the last error that all raise
        self._alike, self._unlike = 0.0, ""

    def expect_alike(self, number: float, unlike: str) -> None:
        """Compare a number with those of the others at the next decisions, to the end of `all_or_none`.

        Parameters
        ----------
        number : float
            The number, which is to be the same on all processes; at least 0.
        unlike : str
            What this process then says in a ValueError, if it is not.
        """
        self._alike, self._unlike = number, unlike

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
        ValueError
            What `expect_alike` was given is not the same on all.
        """
        found = self._processes.gather([0.0, float(len(numbers)), self._alike])
        if found[:, 0].any():
            self._raise(found, "")
        if self._unlike and (found[:, 2] != self._alike).any():
            self._agreed = ValueError(self._unlike)
            raise self._agreed
        if (found[:, 1] != len(numbers)).any():
            self._agreed = RuntimeError(
                "Sharded: the ranks are at different points of a step; all must make the same calls"
            )
            raise self._agreed
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
        self._agreed = None
        self.expect_alike(0.0, "")
        try:
            yield
        except BaseException as error:
            if error is self._agreed:
                raise
            found = self._processes.gather([1.0, 0.0, 0.0])
            self._raise(found, json.dumps(_described(error)), error)

    def _raise(self, found: Any, text: str, own: BaseException | None = None) -> NoReturn:
        """Raise the error of the first rank that has one."""
        rank = int(np.flatnonzero(found[:, 0])[0])
        kind, message = json.loads(self._processes.broadcast(text, rank))
        self._agreed = getattr(builtins, kind)(f"rank {rank}: {message}")
        if own is not None and not isinstance(own, Exception):  # an interrupt stays what it is where it came
            self._agreed = own
        raise self._agreed from None if isinstance(own, StopIteration) else own  # a context would let its cause out


def _described(error: BaseException) -> tuple[str, str]:
    """Return the first of an error's classes that all processes have and that takes a message alone, and this."""
    for kind in type(error).__mro__:
        if kind.__module__ == "builtins" and not issubclass(kind, _OTHERWISE):
            if issubclass(kind, Exception) and kind is not Exception:
                return kind.__name__, str(error)
            break
    return "RuntimeError", f"{type(error).__name__}: {error}"
