"""Signals held back while an optimizer changes: the program's handlers run before a change or after it, not within."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

# the functions in C, if they are there: those of `signal` name every number, which takes longer than a small update
_functions = sys.modules.get("_signal", signal)
_set, _get = _functions.signal, _functions.getsignal
_get_ident = threading.get_ident
_modules = sys.modules
_main = threading.main_thread().ident


def _numbers(names: str) -> list[int]:
    return [int(getattr(signal, f"SIG{name}")) for name in names.split() if hasattr(signal, f"SIG{name}")]


# Each update asks which handlers there are. That takes time for each signal, so one alone of those that are seldom
# handled is asked about at each update. Signals of faults, such as SIGSEGV, and real-time signals are left alone.
_OFTEN = _numbers("INT TERM ALRM USR1 USR2")
_SELDOM = _numbers("HUP QUIT BREAK XCPU CHLD CONT VTALRM PROF WINCH TSTP TTIN TTOU PIPE IO URG XFSZ PWR INFO")
_LAST = len(_SELDOM) - 1

REST, OPEN, HELD, WRITING = range(4)
"""No change is under way; code of the user's runs within one; ours does; results are being written."""


class Hold:
    """What is held back in the main thread, the only one that handles signals."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start over."""
        self.phase = REST
        self.owner: object = None  # the outermost change
        self.often: list[Any] = []  # the handlers of `_OFTEN` when a change last began
        self.seldom = list(map(_get, _SELDOM))  # and of `_SELDOM`, each when it was last asked about
        self.turn = 0  # whose turn to be asked about it is
        self.python: list[int] = []  # the signals of those handlers that are functions of Python
        self.handlers: dict[int, Any] = {}  # the program's, by signal, where `_stand_in` has been put in their place
        self.actions: dict[int, bytes] = {}  # what the system calls instead, for signals that C code handles
        self.of_c = False  # whether there has been such a signal
        self.modules = 0  # how many had been imported when the system was last asked
        self.noted: dict[int, tuple[Any, FrameType | None]] = {}  # handlers to be called with the frame
        self.running = 0  # how many handlers run within a change


held = Hold()
"""Of this process."""


def _forked() -> None:
    """Take the thread that forked for the main one; if that was another, its hold on signals has gone with it."""
    global _main
    main, _main = _main, threading.main_thread().ident
    if main != _main:
        release(held.owner, _main or 0, WRITING)
        held.begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def hold(change: object, thread: int) -> None:
    """Begin a change: the handlers of signals wait until `release`, if this is the main thread.

    Python's own handler of SIGINT, which does nothing but raise KeyboardInterrupt, waits only while results are
    written.

    Parameters
    ----------
    change : object
        What to give to `release`.
    thread : int
        The identifier of this thread.
    """
    if thread == _main and held.phase <= OPEN:
        if held.owner is None:
            held.owner = change
        _take_places()
        held.phase = HELD


def enter(phase: int) -> None:
    """Say how the change under way goes on."""
    if _get_ident() == _main and held.owner is not None:
        if held.phase == OPEN:
            _take_places()  # the user's code may have set handlers
        held.phase = phase


def release(change: object, thread: int, before: int) -> None:
    """End a change, and call the handlers that have waited; to do so again is to do nothing.

    Parameters
    ----------
    change : object
        What was given to `hold`, which may have been interrupted.
    thread : int
        The identifier of this thread.
    before : int
        The phase when it began.
    """
    if thread == _main:
        if held.owner is change:
            for number, handler in held.handlers.items():
                if _get(number) is _stand_in:  # the user's code has set no other
                    _set(number, handler)
                    if number in held.actions:
                        _sigaction(number, held.actions.pop(number), None)
            held.owner = None
        held.phase = before
        if held.noted and before <= OPEN:
            _call_noted()


def in_handler(thread: int) -> bool:
    """Whether a handler of the program runs here, called within a change that `thread` makes, before any write."""
    return held.running > 0 and thread == _main == _get_ident()


def _take_places() -> None:
    """Put `_stand_in` in the place of the program's handlers, as they are now."""
    held.turn = k = held.turn - 1 if held.turn else _LAST
    often, one = list(map(_get, _OFTEN)), _get(_SELDOM[k])
    if often != held.often or one is not held.seldom[k]:
        _look_again(often, k, one)
    actions = None
    if _sigaction is not None and (len(_modules) != held.modules or held.of_c or "faulthandler" in _modules):
        actions = _actions(held.python)
        held.modules = len(_modules)
    try:
        for number in held.python:
            handler = _get(number)
            if callable(handler) and handler is not _stand_in:  # it may be handled no more
                held.handlers[number] = handler
                _set(number, _stand_in)
    except ValueError:  # this interpreter is not the main one, and handles no signals
        return
    if actions:
        _leave_to_c(actions)


def _look_again(often: list[Any], turn: int, one: Any) -> None:
    """Find out which signals have a handler in Python."""
    if not held.often:
        held.seldom = list(map(_get, _SELDOM))
    held.often, held.seldom[turn] = often, one
    pairs = zip((*_OFTEN, *_SELDOM), (*often, *held.seldom), strict=True)
    held.python = [number for number, x in pairs if callable(x) and x is not _stand_in]
    held.modules = 0


def _stand_in(number: int, frame: FrameType | None) -> None:
    """Note the signal, or call the program's handler."""
    handler = held.handlers.get(number)
    if held.phase == WRITING or (held.phase == HELD and handler is not signal.default_int_handler):
        held.noted[number] = handler, frame
    elif handler is not None:
        _call(handler, number, frame)


def _call_noted() -> None:
    number, (handler, frame) = held.noted.popitem()
    try:
        _call(handler, number, frame)
    finally:
        if held.noted:
            _call_noted()


def _call(handler: Callable[[int, FrameType | None], object], number: int, frame: FrameType | None) -> None:
    held.running += 1
    try:
        handler(number, frame)
    finally:
        held.running -= 1


# The system calls a function of Python's, which calls the handler. Code in C may put another in its place (faulthandler
# does, and so do MPI and Qt); of this Python knows nothing, and would put its own back whenever a handler is set.
# To ask the system takes a tenth of a small update: that is done after imports, and where faulthandler is imported.


def _find_sigaction() -> Any:
    try:
        return ctypes.PyDLL(None).sigaction
    except (AttributeError, OSError, TypeError):  # of systems without
        return None


_sigaction = _find_sigaction()
_told = ctypes.create_string_buffer(512)  # more than any system's ``struct sigaction``, which begins with the function
_function = ctypes.c_size_t.from_buffer(_told)
_of_python: int | None = None  # where Python's is


def _actions(numbers: list[int]) -> dict[int, bytes]:
    """Return what the system does at signals, where that is not known to be to call Python's function."""
    found = {}
    for number in numbers:
        _sigaction(number, None, _told)
        if _function.value != _of_python:
            found[number] = _told.raw
    return found


def _leave_to_c(actions: dict[int, bytes]) -> None:
    """Let the system do again what it did before Python's handlers were set, where that was C code's."""
    global _of_python
    for number, action in actions.items():
        if _of_python is None:
            _sigaction(number, None, _told)
            _of_python = _function.value
        if action[: ctypes.sizeof(_function)] != _of_python.to_bytes(ctypes.sizeof(_function), sys.byteorder):
            held.of_c = True
            held.actions[number] = action
            _sigaction(number, action, None)
