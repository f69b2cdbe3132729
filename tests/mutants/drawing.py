"""Draw changes of one line each, from a seed: evenly over the lines of the machinery that can be changed."""

from __future__ import annotations

import ast
import copy
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from listing import Mutant
from places import Function, NotFoundError, Place, changed, find, functions

NOT_DRAWN = re.compile(r"_print/|_graph/|cuda|device|__main__|misuse|missing|elsewhere|peers|suggest|text")
"""Files: those of formulas, which bits are compared of; of a GPU; and of messages."""

NOT_CHANGED = re.compile(r"cuda|cupy|runtime|jax|torch|dask|__repr__|__str__|strict=True", re.IGNORECASE)
"""Lines, and names of functions: of libraries that the runs have not, of messages, and lengths that are the same."""

SWAPPED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


Line = tuple[Function, Place, list[str]]
"""A line that can be changed: its function, where it is, and what it may become."""


def draw(package: Path, seed: int, count: int, listed: list[Mutant]) -> list[Mutant]:
    """Draw mutants that are not listed yet.

    Parameters
    ----------
    package : Path
        The folder of the sources.
    seed : int
        With the number of the first new mutant, it says which they are.
    count : int
        How many.
    listed : list of Mutant
        Those that there are.

    Returns
    -------
    list of Mutant
        The lines that can be changed, in the files' order, are cut into `count` pieces, and one line of each is drawn:
        so each folder and file has its share.
    """
    found = functions(package)
    known = {(mutant.function, mutant.line) for mutant in listed}
    lines: list[Line] = []
    for path in sorted(package.rglob("*.py")):
        inner = path.relative_to(package).as_posix()
        if re.search(r"(^|/)_(?!_)", inner) and not NOT_DRAWN.search(inner):
            lines += [one for one in _lines(path, found) if (one[0].name, one[0].lines[one[1].number]) not in known]
    first = max((mutant.number for mutant in listed), default=0) + 1
    chance = random.Random(f"{seed} {first}")
    drawn = []
    for k in range(count):
        piece = lines[k * len(lines) // count : (k + 1) * len(lines) // count]
        chance.shuffle(piece)
        function, place, text = next(_valid(piece, chance))
        beside = _beside(function, [other for other in found if other.name == function.name])
        drawn.append(Mutant(first + k, function.name, function.lines[place.number], text, beside))
    return drawn


def _beside(function: Function, named: list[Function]) -> str | None:
    """Return the first line that no other function of that name has."""
    others = {line for other in named if other is not function for line in other.lines.values()}
    return next((line for line in function.lines.values() if line not in others), None) if others else None


def _lines(path: Path, found: list[Function]) -> Iterator[Line]:
    """Yield each line of a file that can be changed."""
    source = path.read_text(encoding="utf-8")
    changes = Changes(source)
    for function in found:
        if function.path != path or NOT_CHANGED.search(function.name):
            continue
        beside = _beside(function, [other for other in found if other.name == function.name])
        for number, line in function.lines.items():
            texts = sorted({text.strip() for text in changes.of.get(number, [])} - {line})
            if texts and not NOT_CHANGED.search(line):
                with suppress(NotFoundError):  # the same line stands there twice
                    yield function, find(found, function.name, line, beside), texts


def _valid(lines: list[Line], chance: random.Random) -> Iterator[tuple[Function, Place, str]]:
    """Yield one change of each line, but for those that are no Python."""
    for function, place, texts in lines:
        text = chance.choice(texts)
        with suppress(SyntaxError):
            ast.parse(changed(place.path.read_text(encoding="utf-8"), place.number, text))
            yield function, place, text


class Changes(ast.NodeVisitor):
    """What each line of a source may become, by number.

    Parameters
    ----------
    source : str
        A module's.
    """

    def __init__(self, source: str) -> None:
        self.of: dict[int, list[str]] = {}
        self._lines = source.splitlines()
        self._assigned: set[str] = set()  # names that have a value
        self._kinds: dict[str, str] = {}  # the annotations of a function's parameters: two of one kind may be swapped
        self._function = self._returns = ""  # its name, and the type of what it returns
        self.visit(ast.parse(source))

    def _replace(self, node: ast.expr | ast.stmt, text: str) -> None:
        """Note a change of a node that lies in one line."""
        if node.lineno == node.end_lineno:
            line = self._lines[node.lineno - 1].encode()
            changed = line[: node.col_offset] + text.encode() + line[node.end_col_offset :]
            self.of.setdefault(node.lineno, []).append(changed.decode())

    def _replace_by(self, node: ast.expr, **fields: object) -> None:
        """Note a change to the same node with other fields."""
        other = copy.deepcopy(node)
        for name, value in fields.items():
            setattr(other, name, value)
        self._replace(node, ast.unparse(other))

    def _drop(self, node: ast.stmt) -> None:
        if self._lines[node.lineno - 1][: node.col_offset].strip() == "":
            self._replace(node, "pass")

    def _negate(self, test: ast.expr) -> None:
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self._replace(test, ast.unparse(test.operand))
        elif not isinstance(test, ast.Constant):
            self._replace(test, f"not ({ast.unparse(test)})")

    # what is left as it is

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer = self._assigned, self._kinds, self._function, self._returns
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        self._kinds = {one.arg: ast.unparse(one.annotation) for one in arguments if one.annotation}
        self._assigned = {one.arg for one in arguments}
        self._function, self._returns = node.name, ast.unparse(node.returns) if node.returns else ""
        for statement in node.body:
            self.visit(statement)
        self._assigned, self._kinds, self._function, self._returns = outer

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_Assert(self, node: ast.Assert) -> None:
        """Leave it: it is for who checks types."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leave it: it is a message."""

    def visit_Raise(self, node: ast.Raise) -> None:
        if "NotImplementedError" not in ast.unparse(node):
            self._drop(node)

    # conditions

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            self._negate(node.test)
            self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self._replace_by(node, op=SWAPPED[type(node.op)]())
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for i, op in enumerate(node.ops):
            self._replace_by(node, ops=[*node.ops[:i], SWAPPED[type(op)](), *node.ops[i + 1 :]])
        self.generic_visit(node)

    # values

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._replace(node, str(not node.value))
        elif isinstance(node.value, int):
            self._replace(node, str(node.value + 1))

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in SWAPPED and not any(isinstance(x, ast.JoinedStr) for x in (node.left, node.right)):
            self._replace_by(node, op=SWAPPED[type(node.op)]())
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id in NAMES:
            self._replace(node, NAMES[node.id])

    def visit_Call(self, node: ast.Call) -> None:
        for i, (one, other) in enumerate(zip(node.args, node.args[1:], strict=False)):
            kinds = {self._kinds.get(ast.unparse(x)) for x in (one, other)}
            if len(kinds) == 1 and None not in kinds and ast.unparse(node.func) not in NAMES:
                self._replace_by(node, args=[*node.args[:i], other, one, *node.args[i + 2 :]])
        self.generic_visit(node)

    # statements

    def visit_Return(self, node: ast.Return) -> None:
        if self._returns == "bool" and node.value is not None:
            self._negate(node.value)
        elif "None" in self._returns and not isinstance(node.value, ast.Constant | None):
            self._replace(node, "return None")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self._drop(node)
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        if len(node.items) == 1 and node.items[0].optional_vars is None:
            manager = node.items[0].context_expr
            if manager.lineno == manager.end_lineno == node.lineno:
                line = self._lines[node.lineno - 1]
                self.of.setdefault(node.lineno, []).append(line.replace("with " + _segment(line, manager), "if True"))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._assignment(node, node.targets)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._drop(node)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._assignment(node, [node.target])

    def _assignment(self, node: ast.Assign | ast.AnnAssign, targets: list[ast.expr]) -> None:
        """Drop it where there is another value: else what comes after would fail at once."""
        names = {x.id for target in targets for x in ast.walk(target) if isinstance(x, ast.Name)}
        if self._function != "__init__" and names <= {*self._assigned, "self"}:
            self._drop(node)
        self._assigned |= names
        if node.value is not None:
            self.visit(node.value)

    def visit_Break(self, node: ast.Break) -> None:
        self._replace(node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._replace(node, "break")


def _segment(line: str, node: ast.expr) -> str:
    return line.encode()[node.col_offset : node.end_col_offset].decode()
