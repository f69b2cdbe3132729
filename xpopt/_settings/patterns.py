"""Values by pattern of parameter names: ``{"enc/*": ...}``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .text import short


@dataclass(frozen=True)
class Patterns:
    """A dict whose keys are patterns; who knows what the values mean checks these.

    Parameters
    ----------
    example : str
        One such dict, for messages.
    """

    example: str

    def check(self, owner: str, name: str, value: object) -> dict[str, Any]:
        """Return `value` as a dict of its own, or say what is wrong with it.

        Parameters
        ----------
        owner, name : str
            The class and the keyword, for the message.
        value : object
            What came.

        Returns
        -------
        dict
            The values by pattern, in their order.

        Raises
        ------
        TypeError
            `value` is no dict, or a key no string.
        """
        wanted = f"wanted a dict by pattern, such as {self.example}"
        if not isinstance(value, Mapping):
            raise TypeError(f"{owner}: {name}={short(value)} is a {type(value).__name__}; {wanted}")
        for pattern in value:
            if not isinstance(pattern, str):
                raise TypeError(f"{owner}: {name} has the key {short(pattern)}, a {type(pattern).__name__}; {wanted}")
        return {str(pattern): one for pattern, one in value.items()}
