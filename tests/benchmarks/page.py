"""The page of the documentation: sections that are measured one at a time, and two tables with rows of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import whole
from report import GOALS, SETTING, Section, conclusion, to_markdown

PAGE = """\
# Benchmarks

What an optimizer step costs on the CPU: beside other libraries, beside textbook NumPy, and beside xpopt's goals, met or
not.

{conclusion}

```{{eval-rst}}
.. plot:: pictures/benchmarks.py peers
   :alt: For each model, the time of each other library relative to the compiled engine.

.. plot:: pictures/benchmarks.py sizes
   :alt: The time of one update by the number of elements, by textbook NumPy and two engines of xpopt.
```

Each figure is a median, with the quartiles in brackets. The sides of a comparison take turns, in blocks of calls. Gains
and differences are computed from neighbouring blocks before the median is taken, so they need not be the quotients and
differences of the other columns. All arrays are float32. A star stands where other processes used a core for more than
a twentieth of the time in most of the rounds.

## Goals

{goals}

{sections}
## How it was measured

Each section is measured by itself:

{setting}

```console
$ nox -s bench -- --write docs/benchmarks.md                        # everything
$ nox -s bench -- --only threads loaded --write docs/benchmarks.md  # two sections
```

No section has been measured on a GPU.
"""


@dataclass
class Page:
    """What the page shows of each section, by title: its text and table, its goals, and how it was measured."""

    sections: dict[str, str] = field(default_factory=dict)
    goals: dict[str, list[list[str]]] = field(default_factory=dict)
    setting: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Page:
        """Read a page that `write` has written; an empty one where there is none."""
        page = cls()
        if not path.exists():
            return page
        parts = re.split(r"^## (.+)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
        bodies = dict(zip(parts[::2], parts[1::2], strict=True))
        for title, *cells in _rows(bodies.pop("Goals")):
            page.goals.setdefault(title, []).append(cells)
        page.setting = {title: cells for title, *cells in _rows(bodies.pop("How it was measured"))}
        page.sections = {title: f"## {title}\n{body}" for title, body in bodies.items()}
        return page

    def take(self, section: Section, setting: list[str]) -> None:
        """Put a section that has been measured in the place of the old one."""
        self.sections[section.title] = section.markdown()
        self.goals[section.title] = [goal.cells() for goal in section.goals]
        self.setting[section.title] = setting

    def write(self, path: Path, order: Sequence[str]) -> None:
        """Write the page, with the sections in the order of these titles."""
        titles = [title for title in order if title in self.sections]
        text = PAGE.format(
            conclusion=conclusion(list(_rows(self.sections.get(whole.TITLE, "")))),
            goals=to_markdown(GOALS, [[title, *cells] for title in titles for cells in self.goals.get(title, [])], 3),
            sections="\n".join(self.sections[title].rstrip("\n") + "\n" for title in titles),
            setting=to_markdown(SETTING, [[title, *self.setting[title]] for title in titles], len(SETTING)),
        )
        path.write_text(text, encoding="utf-8")


def _rows(text: str) -> Iterator[list[str]]:
    """Yield the rows of the table in a section, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]
