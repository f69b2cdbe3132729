"""What there is in xpopt, as a table: the first page has it with links, and README as this program prints it."""

from __future__ import annotations

from collections.abc import Callable

import xpopt
from xpopt._engine.choice import ENGINES
from xpopt._names import NAMES

HEADINGS = {
    "Methods": "Optimizers",
    "Schedules of any setting": "Schedules as values",
    "Constraints and penalties": "Proximal maps",
    "Solvers": "Solvers",
    "Line searches": "Line searches",
    "Stop rules": "When to stop",
}
"""A row, and the heading in the API reference of the names in it."""

BASES = ("OptimizerBase", "Schedule", "Solver", "Result", "Row", "LineSearch", "StopRule")
"""What nobody looks for there."""


def inventory(link: Callable[[str, str], str]) -> str:
    """Return the table in Markdown; ``link(name, module)`` writes a public name."""
    declared = xpopt.OptimizerBase._settings.items()
    cells = {
        title: [link(name, module) for name, module in NAMES[heading].items() if name not in BASES]
        for title, heading in HEADINGS.items()
    }
    cells["Options of every method"] = [f"`{name}`" for name, one in declared if one.option or name == "clip_norm"]
    cells["Engines"] = [f"`{name}`" for name in ENGINES if name != "auto"]
    order = ["Methods", "Options of every method", *list(HEADINGS)[1:], "Engines"]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {title} | {', '.join(cells[title])} |" for title in order), ""])


if __name__ == "__main__":  # what README says
    print(inventory(lambda name, module: f"`{name}`"))
