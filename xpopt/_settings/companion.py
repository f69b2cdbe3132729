"""The setting of a class that updates some shapes alone: another optimizer, for the other parameters."""

from __future__ import annotations

from typing import Any

from .ranges import Companion

OTHERS = "others"
"""Its name."""


def takes_others(cls: type[Any]) -> bool:
    """Whether a class has the setting, and not one of the name that is its own."""
    return OTHERS in cls._settings and isinstance(cls._settings[OTHERS].allowed, Companion)
