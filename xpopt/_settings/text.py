"""Call strings and dicts to a name and keywords, and back: ``SGD(lr=0.1)``. Knows no class, executes nothing."""

from __future__ import annotations

import ast
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

LONGEST = 10_000
WANTED = "wanted Name(keyword=value, ...), each value a literal or another such call"

DEEPEST = 100
"""How deep calls, lists and operations may be inside of each other."""

NO_LITERAL = f"not a literal, and nothing is computed here; {WANTED}"

_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = 80
_shortened.maxlevel = 2


@dataclass(frozen=True, repr=False)
class Call:
    """A name with keywords, as text or a dict stated them.

    Parameters
    ----------
    name : str
        What is called, as it was written.
    keywords : dict
        Literals by keyword; from text a nested call, also one in a list or a value in a dict, is a `Call`, and
        calls with operators between them are an `Operation`.
    cache : mapping or None
        What stood beside ``"hyperparameters"`` in a dict.
    text : str
        The text that this was read from; empty when it came from a dict.
    places : mapping
        Where in `text` each keyword starts, and under ``""`` the name.
    """

    name: str
    keywords: dict[str, Any] = field(default_factory=dict)
    cache: Mapping[Any, Any] | None = None
    text: str = field(default="", compare=False)
    places: Mapping[str, int] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        """Write it as it would be read."""
        return format_call(self.name, self.keywords)

    def error(self, problem: str, keyword: str = "") -> ValueError:
        """Return the error for `problem` with what `keyword` (or the name) stated.

        Parameters
        ----------
        problem : str
            What is wrong, naming the keyword.
        keyword : str
            Where the caret goes, when there is a text to show.

        Returns
        -------
        ValueError
            To be raised by who knows what the name means.
        """
        return _error(problem, self.text, self.places[keyword]) if self.text else ValueError(problem)


@dataclass(frozen=True, repr=False)
class Operation:
    """Calls and numbers with one operator between them, as text has it, to be worked off from the left.

    Parameters
    ----------
    sign : str
        ``">>"``, ``"*"`` or ``"+"``.
    parts : tuple
        At least two, each a `Call`, a number or an `Operation`.
    """

    sign: str
    parts: tuple[Any, ...]

    def __repr__(self) -> str:
        """Write it, with parentheses around operations in it."""
        return f" {self.sign} ".join(f"({one})" if isinstance(one, Operation) else str(one) for one in self.parts)


def parse(spec: str | Mapping[str, Any]) -> Call:
    """Read a call from text or from a dict.

    Parameters
    ----------
    spec : str or mapping
        ``"exponential"``, ``"SGD(lr=0.1, lr_scheduler=NoamScheduler(model_dim=512))"``, ``{"id": "SGD", "lr": 0.1}``
        or ``{"hyperparameters": {"id": "SGD", "lr": 0.1}, "cache": {...}}``.

    Returns
    -------
    Call
        The name and the keywords. Values of a dict are passed on as they are.

    Raises
    ------
    ValueError
        `spec` is anything else; for text, with a caret under the place.
    """
    return _read_text(spec, _read_call) if isinstance(spec, str) else _read_dict(spec)


def parse_value(text: str) -> Any:
    """Read a value from text.

    Parameters
    ----------
    text : str
        Such as ``"warmup(steps=10) * 0.1 >> 0.1"``.

    Returns
    -------
    Call, Operation or literal
        What it says; nothing is executed.

    Raises
    ------
    ValueError
        It cannot be read.
    """
    return _read_text(text, _read_value)


def format_call(name: str, keywords: Mapping[str, object]) -> str:
    """Write a call that `parse` reads back.

    Parameters
    ----------
    name : str
        What is called.
    keywords : mapping
        The values by keyword, in the order to write them.

    Returns
    -------
    str
        ``Name(a=0.1, b=None)``.
    """
    return f"{name}({', '.join(f'{keyword}={value!r}' for keyword, value in keywords.items())})"


def short(value: object) -> str:
    """Write any value for a message, shortened to about two lines at most.

    Parameters
    ----------
    value : object
        Whatever came.

    Returns
    -------
    str
        Its repr, without line breaks and with an ellipsis where something is left out.
    """
    try:
        text = re.sub(r"\s*\n\s*", " ", _shortened.repr(value))
    except Exception:  # an int of more digits than Python writes
        return f"<{type(value).__name__}>"
    return text if len(text) <= 160 else f"{text[:110]}...{text[-40:]}"


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Begin the messages of errors raised here with the argument that they are about.

    Parameters
    ----------
    place : str
        Such as ``"SGD: lr_scheduler"``.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    TypeError, ValueError
        What was raised, with `place` before it. An error of any other class, which may be the user's own, passes as it
        is, with a note.
    """
    try:
        yield
    except Exception as error:
        if type(error) not in (TypeError, ValueError):
            error.add_note(f"in {place}")
            raise
        named: Exception = type(error)(f"{place}: {error}")
        raise named.with_traceback(error.__traceback__) from error.__cause__


def _error(problem: str, text: str, at: int) -> ValueError:
    """Return an error that shows the text around `at` with a caret under it."""
    start = max(0, at - 60)
    row = "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text[start:])
    return ValueError(f"{problem}\n    {row[:100]}\n    {' ' * (at - start)}^")


def _read_dict(spec: Mapping[str, Any]) -> Call:
    cache = None
    if "hyperparameters" in spec:
        for key in spec:
            if key not in ("hyperparameters", "cache"):
                raise ValueError(f"unknown key {short(key)} beside 'hyperparameters'; only 'cache' is allowed")
        cache, spec = spec.get("cache"), spec["hyperparameters"]
        if not isinstance(spec, Mapping):
            raise ValueError(f"'hyperparameters' is a {type(spec).__name__}; wanted a dict with 'id'")
        if cache is not None and not isinstance(cache, Mapping):
            raise ValueError(f"'cache' is a {type(cache).__name__}; wanted a dict")
    for key in spec:
        if not isinstance(key, str):
            raise ValueError(f"key {short(key)} is a {type(key).__name__}; wanted keywords, which are strings")
    keywords = dict(spec)
    name = keywords.pop("id", None)
    if not isinstance(name, str):
        raise ValueError(f"'id' is {short(name)}; wanted {{'id': the class name, keyword: value, ...}}")
    return Call(name, keywords, cache)


def _read_text(text: str, read: Callable[[str, ast.expr], Any]) -> Any:
    if len(text) > LONGEST:
        raise _error(f"a call of {len(text)} characters, more than {LONGEST}; {WANTED}", text, LONGEST)
    text = text.strip().replace("\r\n", "\n").replace("\r", "\n")
    if not text:
        raise _error(f"the text is empty; {WANTED}", text, 0)
    for at, char in enumerate(text):
        if char == "\0" or "\ud800" <= char <= "\udfff":
            raise _error(f"character {char!a} cannot be in a call; {WANTED}", text, at)
    try:
        node = ast.parse(text, mode="eval").body
        if _depth(node) > DEEPEST:
            raise RecursionError
        call = read(text, node)
    except SyntaxError as error:
        at = _index(text, error.lineno or 1) + max((error.offset or 1) - 1, 0)
        raise _error(f"{error.msg}; {WANTED}", text, min(at, len(text))) from None
    except (RecursionError, MemoryError):
        raise _error(f"nested too deeply; {WANTED}", text, 0) from None
    end = _index(text, node.end_lineno, node.end_col_offset)
    if end < len(text):  # a comment, which Python would skip, or the ) of (Name())
        raise _error(f"nothing may follow the call; {WANTED}", text, end)
    return call


def _depth(node: ast.expr) -> int:
    """Return how deep a value is. What stands left of an operator is as deep as the operation: a row is not deep."""
    deepest, waiting = 0, [(node, 1)]
    while waiting:
        one, depth = waiting.pop()
        deepest = max(deepest, depth)
        for name, inside in ast.iter_fields(one):
            step = 0 if isinstance(one, ast.BinOp) and name == "left" else 1
            for child in inside if isinstance(inside, list) else [inside]:
                found = child.value if isinstance(child, ast.keyword) else child
                if isinstance(found, ast.expr):
                    waiting.append((found, depth + step))
    return deepest


def _index(text: str, line: int | None, column: int | None = 0) -> int:
    """Return where in `text` a node is, from what `ast` counts: lines from 1, columns in bytes of UTF-8."""
    lines = text.split("\n")[:line]
    return sum(len(above) + 1 for above in lines[:-1]) + len(lines[-1].encode()[:column].decode())


def _read_call(text: str, node: ast.expr) -> Call:
    start = _index(text, node.lineno, node.col_offset)
    if isinstance(node, ast.Name):
        return Call(node.id, {}, None, text, {"": start})
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise _error(f"this is not a name; {WANTED}", text, start)
    if node.args:
        at = _index(text, node.args[0].lineno, node.args[0].col_offset)
        raise _error(f"a value without its keyword; {WANTED}", text, at)
    keywords: dict[str, Any] = {}
    places = {"": start}
    for keyword in node.keywords:
        at = _index(text, keyword.lineno, keyword.col_offset)
        if keyword.arg is None:
            raise _error(f"** has nothing to unpack; {WANTED}", text, at)
        if keyword.arg in keywords:
            raise _error(f"keyword {short(keyword.arg)} is given twice; give it once", text, at)
        keywords[keyword.arg], places[keyword.arg] = _read_value(text, keyword.value), at
    return Call(node.func.id, keywords, None, text, places)


def _read_value(text: str, node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        return _read_call(text, node)
    if isinstance(node, ast.List | ast.Tuple):
        values = [_read_value(text, one) for one in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Dict):
        return _read_items(text, node)
    if isinstance(node, ast.BinOp) and type(node.op) in _SIGNS and _has_call(node):
        return _read_operation(text, node)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):  # TypeError: a list as a key
        raise _error(NO_LITERAL, text, _index(text, node.lineno, node.col_offset)) from None


_SIGNS: dict[type[ast.operator], str] = {ast.RShift: ">>", ast.Mult: "*", ast.Add: "+"}


def _has_call(node: ast.expr) -> bool:
    """Whether there is a call in an operation, and not numbers alone, which nothing computes here."""
    return any(isinstance(one, ast.Call) for one in ast.walk(node))


def _read_operation(text: str, node: ast.expr) -> Any:
    """Read what is left of operators in a loop: a long row is no deeper than a short one."""
    row: list[tuple[str, Any]] = []
    while isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
        row.append((_SIGNS[type(node.op)], _read_value(text, node.right)))
        node = node.left
    found = _read_value(text, node)
    while row:
        sign, right = row.pop()
        parts = found.parts if isinstance(found, Operation) and found.sign == sign else (found,)
        found = Operation(sign, (*parts, right))
    return found


def _read_items(text: str, node: ast.Dict) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        try:
            name = ast.literal_eval("**" if key is None else key)
            found[name] = None
        except (ValueError, TypeError, SyntaxError):  # TypeError: a list
            raise _error(NO_LITERAL, text, _index(text, node.lineno, node.col_offset)) from None
        found[name] = _read_value(text, value)
    return found
