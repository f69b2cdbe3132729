"""Whose turn it is: an optimizer changes in one call at a time, and is read as a whole only when none changes it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple, Unpack

from .._state.interrupts import held, hold, in_handler, release

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_get_ident = threading.get_ident

UPDATE, LOAD, SETTINGS = "another update", "a load", "a change of its settings or state"
COPY, SAVE, AVERAGE = "a copy", "a save", "an average of its parameters"
"""What a call does, for the errors of others."""

AVERAGED = "a block in which its parameters are averaged"
"""What goes on between two calls, and has an error of its own."""

_process = 0
"""Counts forks: a forked process has none of the other threads, whose turns have ended with them."""


def _forked() -> None:
    global _process
    _process += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


_Call = list[Any]
"""A call that changes an optimizer or reads it: what it does, and in which thread. It is told from others by `is`."""


class Exclusive:
    """Who changes an optimizer, and who reads it.

    A call puts itself into a dict, which no two threads can do at once, and takes itself out at its end. It looks after
    that, not before, whether it may go on. An exception that another thread or a signal's handler raises may come
    between any two lines, the last included: so a call is taken out twice.

    Parameters
    ----------
    of : str
        The name of the optimizer's class, for messages.
    """

    def __init__(self, of: str) -> None:
        self._of = of
        self._changing: dict[int, _Call] = {}  # by process, one
        self._reading: dict[int, _Call] = {}  # by `id`

    def change(self, what: str, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """Call `function`, which changes the optimizer, with signals held back.

        Parameters
        ----------
        what : str
            What it does, for the errors of others.
        function : callable
            Takes `args`.
        *args : object
            Its arguments.

        Returns
        -------
        object
            What it returns.

        Raises
        ------
        RuntimeError
            Another call changes it or reads it, of another thread or of this one, further up.
        """
        changing, process, before, thread, left = self._changing, _process, held.phase, _get_ident(), False
        call = [what, thread]
        try:
            try:
                hold(call, thread)
                if changing.setdefault(process, call) is not call or self._reading:
                    raise self._refusal(call)
                return function(*args)
            finally:
                if changing.get(process) is call:
                    del changing[process]
                release(call, thread, before)
                left = True
        finally:
            if not left:
                if changing.get(process) is call:
                    del changing[process]
                release(call, thread, before)

    def read(self, what: str, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """Call `function`, which reads the optimizer as a whole.

        Parameters
        ----------
        what, function, *args
            As for `change`.

        Returns
        -------
        object
            What it returns.

        Raises
        ------
        RuntimeError
            A call changes it, and this is no handler of a signal that came before anything was written.
        """
        call = [what, _get_ident()]
        try:
            try:
                self._check_readable(call)  # before it can keep anybody from a change
                self._reading[id(call)] = call
                self._check_readable(call)
                return function(*args)
            finally:
                self._reading.pop(id(call), None)
        finally:
            self._reading.pop(id(call), None)

    def occupy(self, what: str, function: Callable[[], None]) -> _Call:
        """Call `function` as `change` does, and let nothing change the optimizer from then on.

        Parameters
        ----------
        what : str
            What goes on, for the errors of others.
        function : callable
            Takes nothing.

        Returns
        -------
        list
            What to give to `vacate`.

        Raises
        ------
        RuntimeError
            As for `change`.
        """
        call = [what, _get_ident()]

        def occupied() -> None:
            self._reading[id(call)] = call
            try:
                function()
            except BaseException:
                del self._reading[id(call)]
                raise

        self.change(what, occupied)
        return call

    def vacate(self, call: _Call, function: Callable[[], None]) -> None:
        """Call `function` with signals held back, and let the optimizer be changed again."""
        before, thread = held.phase, _get_ident()
        try:
            hold(call, thread)
            function()
        finally:
            self._reading.pop(id(call), None)
            release(call, thread, before)

    def check_not(self, what: str) -> None:
        """Raise a RuntimeError while `what` goes on."""
        if any(call[0] == what for call in list(self._reading.values())):
            raise self._refusal([])

    def check_free(self) -> None:
        """Raise a RuntimeError if a call changes the optimizer or reads it."""
        if self._changing or self._reading:
            self.change("a step", _nothing)

    def _check_readable(self, call: _Call) -> None:
        other = self._changing.get(_process)
        if other is not None and not in_handler(other[1]):
            raise self._refusal(call)

    def _refusal(self, call: _Call) -> RuntimeError:
        others = [self._changing.get(_process), *list(self._reading.values())]
        other = next((one for one in others if one is not None and one is not call), None)
        what = "another update" if other is None else other[0]  # None: it has just ended
        if what == AVERAGED:
            return RuntimeError(
                f"the parameters of this {self._of} are averaged, in a block that has not ended: `with averaged(...)`, "
                f"of another thread or of this one; leave the block first"
            )
        return RuntimeError(
            f"this {self._of} is in the middle of {what}, of another thread or of this one; give each thread an "
            f"optimizer of its own (copy()), or take turns with a lock, and do not use it in schedules and callbacks"
        )


def _nothing() -> None:
    """Do nothing."""
