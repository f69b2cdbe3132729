"""What processes decide together: numbers combined over all of them, and errors, which all raise."""

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
"""Errors that take more than a message, or have a special meaning when they leave a context."""

_JOIN: dict[str, Any] = {"add": np.add, "maximum": np.maximum}


class Agreement:
    """Numbers and errors that processes exchange.

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
            The number, at least 0. It must be the same on all processes.
        unlike : str
            The message of the ValueError on this process if it is not.
        """
        self._alike, self._unlike = number, unlike

    def decide(self, numbers: Sequence[tuple[str, float]]) -> list[float]:
        """Combine numbers over all ranks, in the order of the ranks.

        Parameters
        ----------
        numbers : sequence of (str, float)
            How each number is combined, ``"add"`` or ``"maximum"``, and the number of this process.

        Returns
        -------
        list of float
            The results, the same on all processes.

        Raises
        ------
        Exception
            Another process has failed before this call: its error.
        ValueError
            The numbers given to `expect_alike` differ.
        """
        found = self._processes.gather([0.0, float(len(numbers)), self._alike])
        if found[:, 0].any():
            self._raise(found, "")
        if self._unlike and (found[:, 2] != self._alike).any():
            self._agreed = ValueError(self._unlike)
            raise self._agreed
        if (found[:, 1] != len(numbers)).any():
            self._agreed = RuntimeError(
                "Sharded: the ranks are at different points of a step; all ranks must make the same calls"
            )
            raise self._agreed
        if not numbers:
            return []
        of_ranks = self._processes.gather([value for _, value in numbers])
        with np.errstate(all="ignore"):
            return [float(_JOIN[join].reduce(of_ranks[:, k])) for k, (join, _) in enumerate(numbers)]

    def loss(self, cur_loss: Any, reduce: str) -> float | None:
        """Return the ``"mean"`` or the ``"sum"`` of the losses of all ranks; None if no rank has one."""
        check_loss(cur_loss, "")
        mine = 0.0 if cur_loss is None else float(cur_loss)
        total, given = self.decide([("add", mine), ("add", float(cur_loss is not None))])
        ranks = self._processes.size
        if 0 < given < ranks:
            raise ValueError(
                f"Sharded: cur_loss is None on {ranks - int(given)} of {ranks} ranks; pass it on all ranks, or on none"
            )
        if not given:
            return None
        return total / ranks if reduce == "mean" else total

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Let an error in the context on one process be raised by all, when they next decide.

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
        if own is not None and not isinstance(own, Exception):  # an interrupt keeps its class on its own rank
            self._agreed = own
        raise self._agreed from None if isinstance(own, StopIteration) else own  # else its context would be shown


def _described(error: BaseException) -> tuple[str, str]:
    """Return the first built-in class of an error that takes only a message, and the message."""
    for kind in type(error).__mro__:
        if kind.__module__ == "builtins" and not issubclass(kind, _OTHERWISE):
            if issubclass(kind, Exception) and kind is not Exception:
                return kind.__name__, str(error)
            break
    return "RuntimeError", f"{type(error).__name__}: {error}"
