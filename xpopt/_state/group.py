"""Parameters that have settings of their own."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from .._settings.companion import OTHERS
from .._settings.text import short
from .settings import Settings

_SHARED = ("accumulate", "loss_scale", "nonfinite")
"""Options that another optimizer in a group has from the one that it is in, since they are about all parameters."""


class Group(NamedTuple):
    """Parameters that have settings of their own: those whose name matches a pattern, and no earlier one."""

    pattern: str | None  # None: all names, of the parameters that the optimizer does not take
    settings: Settings
    own: Mapping[str, Any] | None  # what differs from the optimizer's, None for a schedule; None: all is another's
    others: bool = False  # whether it has parameters of other shapes than the optimizer takes, and no others

    @property
    def place(self) -> str:
        """What it is given as."""
        return OTHERS if self.pattern is None else f"groups[{short(self.pattern)}]"

    def matches(self, text: str) -> bool:
        """Whether a name, as text, matches the pattern."""
        return self.pattern is None or fnmatchcase(text, self.pattern)

    def under(self, optimizer: Settings) -> Group:
        """Return the group in an optimizer of other settings than when it was made.

        Parameters
        ----------
        optimizer : Settings
            The optimizer's; of a group that differs from those of another one for other shapes, that one's.

        Returns
        -------
        Group
            With its own values, and beside them the optimizer's; another optimizer's stay.

        Raises
        ------
        ValueError
            One of the values has no meaning beside another.
        """
        before = self.settings
        if self.own is None:
            classes = optimizer.cls, before.cls
            shared = [name for name in _SHARED if all(cls._settings[name].option for cls in classes)]
            common = {name: optimizer.values[name] for name in shared}
            values = {**before.values, **common}
            same = values == before.values
            return self if same else self._replace(settings=Settings(before.cls, values, (), before.number))
        values = {**optimizer.values, **{name: value for name, value in self.own.items() if name != "lr_scheduler"}}
        optimizer.cls._check_together(values)
        return self._replace(settings=Settings(optimizer.cls, values, (), before.number, before.frozen))
