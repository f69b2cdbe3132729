"""The setting of a class that updates some shapes alone: another optimizer, for the other parameters."""

from __future__ import annotations

from typing import Any

OTHERS = "others"
"""Its name."""


class Companion:
    """Another optimizer, or None; who knows optimizers checks it."""

    def check(self, owner: str, name: str, value: Any) -> Any:
        """Return what came."""
        return value


def takes_others(cls: type[Any]) -> bool:
    """Whether a class has the setting, and not one of the name that is its own."""
    return OTHERS in cls._settings and isinstance(cls._settings[OTHERS].allowed, Companion)
