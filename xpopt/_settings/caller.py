"""Warnings that point at the caller, however deep in this package they arise, and under whatever name it is kept."""

from __future__ import annotations

import sys
import warnings
from types import FrameType


def warn(message: str) -> None:
    """Warn, at the line that called into this package.

    Parameters
    ----------
    message : str
        What is to be known, and the way out.
    """
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and _is_ours(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def _is_ours(frame: FrameType) -> bool:
    return f"{frame.f_globals.get('__name__')}.".startswith(PACKAGE)


PACKAGE = __name__.removesuffix("_settings.caller")
"""The package's name, and a dot."""
