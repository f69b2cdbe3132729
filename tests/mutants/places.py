"""Where a change of one line goes: its function's name and its text say so, not the file, which may be moved."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Function:
    """A function of the package; its lines are those of no function or class within it.

    Parameters
    ----------
    name : str
        Qualified within its module: ``KeptPlan.gather``.
    path : Path
        The module's file.
    lines : dict of int to str
        Without the space around them, by number.
    """

    name: str
    path: Path
    lines: dict[int, str]

    def only(self, line: str) -> int | None:
        """Return the number of the one line that reads so; None for no such line, or several."""
        found = [number for number, text in self.lines.items() if text == line]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class Place:
    """A line of a file."""

    path: Path
    number: int


class NotFoundError(Exception):
    """A mutant has no place in the package, or several."""


def functions(package: Path) -> list[Function]:
    """Return all functions of a package."""
    found: list[Function] = []
    for path in sorted(package.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        found += [
            Function(name, path, {number: lines[number - 1].strip() for number in numbers})
            for name, numbers in _within(ast.parse(source), "")
        ]
    return found


def _within(node: ast.AST, prefix: str) -> Iterator[tuple[str, list[int]]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = list(_within(child, f"{prefix}{child.name}."))
            if not isinstance(child, ast.ClassDef):
                taken = {number for _, numbers in inner for number in numbers}
                own = [n for n in range(child.lineno, (child.end_lineno or 0) + 1) if n not in taken]
                yield prefix + child.name, own
            yield from inner
        else:
            yield from _within(child, prefix)


def find(all_functions: list[Function], name: str, line: str, beside: str | None) -> Place:
    """Return where a line stands.

    Parameters
    ----------
    all_functions : list of Function
        Those of the package.
    name : str
        The function's.
    line : str
        The line.
    beside : str or None
        Another line of the function, where several of that name have `line`.

    Returns
    -------
    Place
        The only one.

    Raises
    ------
    NotFoundError
        There is none, or more than one.
    """
    named = [function for function in all_functions if function.name == name]
    with_line = [function for function in named if function.only(line)]
    if len(with_line) > 1 and beside is not None:
        with_line = [function for function in with_line if beside in function.lines.values()]
    if len(with_line) == 1:
        return Place(with_line[0].path, with_line[0].only(line) or 0)
    if with_line:
        raise NotFoundError("several functions of that name have the line: " + _show(with_line, line))
    if any(line in function.lines.values() for function in named):
        raise NotFoundError("the line stands in the function more than once")
    elsewhere = [function for function in all_functions if line in function.lines.values()]
    missing = "the function has no such line" if named else "there is no such function"
    raise NotFoundError(missing + (", but the line stands in " + _show(elsewhere, line) if elsewhere else ""))


def changed(source: str, number: int, text: str) -> str:
    """Return a source with another text in a line, as far to the right as the one before."""
    lines = source.splitlines(keepends=True)
    line = lines[number - 1]
    lines[number - 1] = line[: len(line) - len(line.lstrip())] + text + "\n"
    return "".join(lines)


def _show(found: list[Function], line: str) -> str:
    shown = [f"{function.name} ({function.path.name}:{function.only(line) or '?'})" for function in found[:3]]
    return ", ".join(shown) + (", ..." if len(found) > 3 else "")
