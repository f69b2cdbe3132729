"""Helper threads for work that releases the interpreter's lock: the caller works too, helpers join as they wake."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from .._settings.ranges import whole
from . import cpus

_MOST = 8
"""Threads by default at most: memory is no faster for more."""

_chosen: contextvars.ContextVar[int | None] = contextvars.ContextVar("xpopt_num_threads", default=None)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Set the number of threads for updates of NumPy arrays in this context.

    Without it, the environment variable ``XPOPT_NUM_THREADS`` says how many. Without that, it is the least of these:
    the CPUs that this process may use, what its control group allots to it, ``OMP_NUM_THREADS``, ``NUMBA_NUM_THREADS``,
    and 8. The numbers do not depend on it.

    Parameters
    ----------
    n : int
        The number, the calling thread included; 1 starts none. At least 1.

    Yields
    ------
    None
        Nothing; use it as ``with xpopt.num_threads(1):``.

    Raises
    ------
    TypeError
        `n` is no int.
    ValueError
        `n` is less than 1.
    """
    token = _chosen.set(_positive(n))
    try:
        yield
    finally:
        _chosen.reset(token)


def threads() -> int:
    """Return how many threads may work in this context."""
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    text = os.environ.get("XPOPT_NUM_THREADS")
    if not text:
        return min(cpus.usable(), _MOST)
    number = cpus.first_int(text)
    if number is None or "," in text:
        raise ValueError(
            f"XPOPT_NUM_THREADS={text[:100]!r}; wanted an int from 1 to 999999999, or unset for one for each CPU"
        )
    return number


def _positive(n: Any) -> int:
    number = whole(n)
    if number is None:
        raise TypeError(f"n={n!r} is a {type(n).__name__}; wanted an int of at least 1")
    if number < 1:
        raise ValueError(f"n={n!r}; wanted an int of at least 1")
    return number


class _Job:
    """A function that several threads call at once, each for a share of the same work."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Callable[[], None] | None = function
        self._lock = threading.Lock()
        self._working = 0
        self._idle = threading.Lock()  # held while helpers work
        self._error: BaseException | None = None

    def help(self) -> None:
        """Work on it, unless the caller has closed it."""
        with self._lock:
            function = self._function
            if function is None:
                return
            self._working += 1
            if self._working == 1:
                self._idle.acquire()
        try:
            function()
        except BaseException as error:
            self._error = error
        with self._lock:
            self._working -= 1
            if self._working == 0:
                self._idle.release()

    def close(self) -> None:
        """Let no more helpers in, wait for those that are, and raise what one of them raised."""
        interrupt = None
        while True:
            try:
                with self._lock:
                    self._function = None
                with self._idle:
                    break
            except BaseException as error:  # from a signal's handler: helpers are in the caller's memory, so wait on
                interrupt = error
        if self._error or interrupt:
            raise self._error or interrupt  # type: ignore[misc]


class _Pool:
    """Threads that wait for jobs; as many as were ever asked for."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0

    def invite(self, job: _Job, helpers: int) -> None:
        with self._lock:
            while self._threads < helpers:
                try:
                    threading.Thread(target=self._help, name=f"xpopt-{self._threads}", daemon=True).start()
                except RuntimeError:  # no more threads here: those that there are will do
                    break
                self._threads += 1
            helpers = min(helpers, self._threads)
        for _ in range(helpers):
            self._jobs.put(job)

    def _help(self) -> None:
        while True:
            self._jobs.get().help()


_pool = _Pool()


def _forget() -> None:
    """Start over in a forked process, which has none of the threads."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def run(function: Callable[[], None], helpers: int) -> None:
    """Call `function` here and, at the same time, in up to so many helper threads.

    Parameters
    ----------
    function : callable
        Takes shares of some work until there are none; returns when there are none left to take.
    helpers : int
        At most so many join; one that wakes too late does not.
    """
    if helpers < 1:
        function()
        return
    job = _Job(function)
    try:
        _pool.invite(job, helpers)
        function()
    finally:
        job.close()
