"""A training of two parameters, and a signal at any line of the package."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

import xpopt

SCHEDULE = "king(initial_lr=0.1, patience=2, decay=0.5)"
# how the files of its own code begin; what is written for a rule has a name in the place of a file
OURS = str(Path(xpopt.__file__).parent) + os.sep, "<Adam.rule for", "<numbers of Adam.rule"


def start(**options: Any) -> tuple[Any, dict[str, Any]]:
    opt = xpopt.Adam(lr_scheduler=SCHEDULE, **options)
    params = {"W": np.linspace(-1, 1, 12).reshape(3, 4), "b": np.ones(3, np.float32)}
    if options:
        params["W"] = params["W"].astype(np.float16)
    for _ in range(3):
        step(opt, params)
    return opt, params


def step(opt: Any, params: dict[str, Any]) -> None:
    grads = {name: np.cos(x) for name, x in params.items()}
    opt.update_all(params, grads, 1.0 + opt.cur_step % 2, out=params)


def one(opt: Any, params: dict[str, Any]) -> None:
    opt.update(params["W"], np.cos(params["W"]), "W", 1.0, out=params["W"])


def seen(opt: Any, params: dict[str, Any]) -> tuple[Any, ...]:
    """Return all that an update changes, as bytes and numbers."""
    entries = {
        name: [x if isinstance(x, int) else x.tobytes() for x in entry.values()]
        for name, entry in opt._parts.state.cache.items()  # not opt.cache, after which slots are copied
    }
    values = {name: x.tobytes() for name, x in params.items()}
    return values, entries, opt.cur_step, opt.lr_scheduler.state()


def interrupted_at(line: int, call: Any) -> bool:
    """Call; raise SIGINT when so many lines of the package have been run. Return whether that interrupted it."""
    try:
        signalled_at(line, call, signal.SIGINT)
    except KeyboardInterrupt:
        return True
    return False


def signalled_at(line: int, call: Any, number: int) -> bool:
    """Call; raise a signal when so many lines of the package have been run. Return whether there were so many."""
    left = line

    def trace(frame: Any, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        last = None

        def trace_lines(frame: Any, event: str, arg: Any) -> Any:
            nonlocal left, last
            # a comprehension counts once: where it starts over, Python 3.12 and 3.13 run no `except` or `finally` of
            # the function when a trace function raises, though they do after a signal
            if event == "line" and frame.f_lineno != last:
                last = frame.f_lineno
                left -= 1
                if left == 0:
                    sys.settrace(None)
                    signal.raise_signal(number)
            return trace_lines

        return trace_lines

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return left <= 0
