"""CUDA C of each dtype: its types, its operations, and how numbers are loaded and stored."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template
from typing import NamedTuple

from .cuda_narrow import BFLOAT16, DRAW_BFLOAT16, DRAW_FLOAT16, FLOAT16, RANDOM
from .cuda_text import KEYWORDS
from .host import INFIX
from .loop import Language


class Dtype(NamedTuple):
    """What CUDA C makes of a dtype of parameters."""

    stored: str  # the type of param and grad
    number: str  # the type of the arithmetic, the numbers and the slots
    suffix: str  # of mathematical functions of a number
    load: str = "{0}"
    store: str = "{0}"
    conversions: str = ""
    draw: str = ""  # stores what is rounded stochastically
    drawing: str = ""  # the conversions for that, after the others


DTYPES = {
    "float16": Dtype(
        *("unsigned short", "float", "f", "load_float16({0})", "store_float16({0})", FLOAT16),
        *("draw_float16({0}, {1})", RANDOM + DRAW_FLOAT16),
    ),
    "bfloat16": Dtype(
        *("unsigned short", "float", "f", "load_bfloat16({0})", "store_bfloat16({0})", BFLOAT16),
        *("draw_bfloat16({0}, {1})", RANDOM + DRAW_BFLOAT16),
    ),
    "float32": Dtype("float", "float", "f"),
    "float64": Dtype("double", "double", ""),
}

BYTES = {"unsigned short": 2, "float": 4, "double": 8}

_OPERATIONS = {
    **{op: f"({{0}} {sign} {{1}})" for op, sign in INFIX.items()},
    "pow": "pow$f({0}, {1})",
    "negative": "(-{0})",
    "abs": "fabs$f({0})",
    "sign": "({0} != {0} ? {0} : ($number)(({0} > 0) - ({0} < 0)))",
    "sqrt": "sqrt$f({0})",
    "square": "({0} * {0})",
    "exp": "exp$f({0})",
    "log": "log$f({0})",
    "maximum": "({0} > {1} || {0} != {0} ? {0} : {1})",  # of two zeros the second, as NumPy's on x86
    "minimum": "({0} < {1} || {0} != {0} ? {0} : {1})",
    "where": "({0} ? {1} : {2})",
    "isnan": "({0} != {0})",
    "isinf": "isinf({0})",
    "isfinite": "isfinite({0})",
    "logical_and": "({0} & {1})",
    "logical_or": "({0} | {1})",
    "logical_xor": "({0} ^ {1})",
    "logical_not": "(!{0})",
}

_SCAFFOLD = (
    *("Pack", "Params", "Slots", "THREADS", "at", "first", "i", "k", "last", "numbers", "ones", "threadIdx", "width"),
    *("blockIdx", "proceed", "table", "tensor", "tensors", "piece", "sums", "reduced", "factors"),
    *("load_float16", "store_float16", "load_bfloat16", "store_bfloat16", "isinf", "isfinite"),
    *("draw_float16", "draw_bfloat16", "random_bits", "key_of", "key", "Key"),
    *("ADD", "MAXIMUM", "MINIMUM", "join", "infinity", "fold_block", "total_of"),
    *(f"{name}{suffix}" for name in ("pow", "fabs", "sqrt", "exp", "log") for suffix in ("", "f")),
)

_RESERVED = {*_SCAFFOLD, *KEYWORDS.split()}


def compute_of(dtype: str) -> str:
    """Return the dtype that parameters of a dtype are computed in."""
    return "float64" if dtype == "float64" else "float32"


def language(dtype: str, reserved: Sequence[str] = ()) -> Language:
    """Return how CUDA C writes what is done to one element of a dtype; some more names are taken."""
    kind = DTYPES[dtype]
    operations = {op: Template(text).substitute(f=kind.suffix, number=kind.number) for op, text in _OPERATIONS.items()}
    assignments = f"const {kind.number} {{0}} = {{1}};", "const bool {0} = {1};"
    return Language(operations, *assignments, {*_RESERVED, *reserved})


class Stored(NamedTuple):
    """How a slot is read and written."""

    stored: str
    pack: str
    load: str = "{0}"
    store: str = "{0}"
    conversions: str = ""

    @classmethod
    def of(cls, slot: str, dtype: str) -> Stored:
        """Return it for the dtype of a slot and that of its parameter."""
        number, kind = DTYPES[dtype].number, DTYPES[slot]
        if slot == compute_of(dtype):
            return cls(number, "Slots")
        pack = f"Pack<{kind.stored}, width>"
        if kind.conversions:
            return cls(kind.stored, pack, kind.load, kind.store, kind.conversions)
        return cls(kind.stored, pack, f"({number}){{0}}", f"({kind.stored})({{0}})")


def indented(level: int, lines: Sequence[str]) -> str:
    """Join the lines of a template's place, which ends its own."""
    return "".join(f"{'    ' * level}{line}\n" for line in lines)
