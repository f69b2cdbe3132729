"""Interrupts held back while what must not be half done is done."""

from __future__ import annotations

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
_SIGINT = int(signal.SIGINT)
_get_ident = threading.get_ident
_main = threading.main_thread().ident


def _forked() -> None:
    """Take the thread that forked for the main one; if that was another, its hold on interrupts has gone with it."""
    global _main
    main, _main = _main, threading.main_thread().ident
    if main != _main and _get(_SIGINT) is _take_note:
        _set(_SIGINT, _handlers[0])
        _caught.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def without_interrupts(function: Callable[..., None], *args: Any) -> None:
    """Call `function`; SIGINT waits, and is handled after it.

    That is for the main thread, the only one that handles signals.

    Parameters
    ----------
    function : callable
        What must not be half done.
    *args
        Its arguments.
    """
    handler = _get(_SIGINT) if _get_ident() == _main else None
    if handler is None or handler is _take_note or not callable(handler):  # it waits already, is ignored, or kills
        function(*args)
        return
    _handlers[:] = [handler]
    try:
        _set(_SIGINT, _take_note)
    except ValueError:  # this interpreter is not the main one, and handles no signals
        function(*args)
        return
    try:
        function(*args)
    finally:
        _set(_SIGINT, handler)
        if _caught:
            handler(_SIGINT, _caught.pop())


_caught: list[FrameType | None] = []  # at most one
_handlers: list[Any] = []  # whose place `_take_note` takes


def _take_note(number: int, frame: FrameType | None) -> None:
    _caught[:] = [frame]
