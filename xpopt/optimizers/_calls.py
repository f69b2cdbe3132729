"""One update at a time: what to do where another one seems to be at work."""

from __future__ import annotations

import os
import sys
import threading

_lock = threading.Lock()


def _new_lock() -> None:
    """Start over in a forked process, where another thread's hold on the lock would last for ever."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def take_over(calls: dict[str, object], call: object, optimizer: str) -> None:
    """Make `call` the one that updates, if the one noted has ended; it may not have said so if it was interrupted.

    Parameters
    ----------
    calls : dict
        Under ``"now"``, the object that a running update has as its local variable ``call``.
    call : object
        The caller's own.
    optimizer : str
        The name of the class, for the message.

    Raises
    ------
    RuntimeError
        Another update is running, of another thread, or of this one, further up.
    """
    with _lock:
        other = calls.get("now", call)
        for frame in sys._current_frames().values():
            caller = frame if other is not call else None
            while caller is not None:
                if caller.f_locals.get("call") is other:
                    raise RuntimeError(
                        f"this {optimizer} is in the middle of another update, of another thread or of this one; "
                        f"give each thread an optimizer of its own (copy()), or take turns with a lock"
                    )
                caller = caller.f_back
        calls["now"] = call
