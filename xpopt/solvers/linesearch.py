"""Line searches: how far to go along a direction in which a function falls.

Each is a generator over numbers. It yields steps, is sent the values found there, and returns whether the last one is
accepted. So it sees no arrays, and its state is the list of what it was sent.
"""

from __future__ import annotations

from .._names import NAMES
from .._settings.registry import Registry
from ._linesearch.falling import armijo, backtracking, constant
from ._linesearch.hager_zhang import hager_zhang
from ._linesearch.search import LineSearch
from ._linesearch.search import Trial as Trial
from ._linesearch.strong_wolfe import strong_wolfe

__all__ = ["LineSearch", "armijo", "backtracking", "constant", "hager_zhang", "strong_wolfe"]

LINE_SEARCHES: Registry[LineSearch] = Registry(
    LineSearch,
    [name for name in NAMES["Line searches"] if name != "LineSearch"],
    lambda name: globals()[name],
    lambda cls: cls.trials is not LineSearch.trials,
)
"""The line searches by name."""
