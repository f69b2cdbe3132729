"""How far a file has been written or read."""

from __future__ import annotations

import sys
from collections.abc import Callable

Report = Callable[[int, int], object]
Progress = Report | bool | None


def reporter(progress: Progress, what: str) -> Report:
    """Return what is called with the bytes done and all bytes; with True, it writes a line on stderr."""
    if callable(progress):
        return progress
    if not progress:
        return lambda done, total: None

    def show(done: int, total: int) -> None:
        share = done / total if total else 1
        print(f"\r{what}: {share:4.0%}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show
