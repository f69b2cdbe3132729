"""Functions in LLVM's assembly that printed kernels call; of each, a kernel gets what it needs.

``$T`` is the type of the arithmetic, and ``$S`` what intrinsics for it end in.
"""

from __future__ import annotations

import re
import struct

from .._arrays.sums import FAR, LANES, SMALL
from .llvm_low import LOW

SUFFIX = {"float": "f32", "double": "f64"}
"""By type, what the names of intrinsics for it end in."""

_MATH = {
    **{f"llvm.{name}.$S": f"declare $T @llvm.{name}.$S($T)" for name in ("fabs", "sqrt", "exp", "log", "floor")},
    "llvm.pow.$S": "declare $T @llvm.pow.$S($T, $T)",
    "llvm.fmuladd.f64": "declare double @llvm.fmuladd.f64(double, double, double)",
    "llvm.smin.i64": "declare i64 @llvm.smin.i64(i64, i64)",
    "llvm.smax.i64": "declare i64 @llvm.smax.i64(i64, i64)",
    "llvm.memcpy.p0.p0.i64": "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)",
}


def literal(value: float) -> str:
    """Return a number of float64, bit for bit."""
    return f"0x{struct.pack('>d', value).hex().upper()}"


_BETTER = {"maximum": "ogt", "minimum": "olt"}
"""How the first of two numbers is compared with the second, to be chosen."""


def _chosen(test: str, kind: str, truth: str, of: str = "") -> list[str]:
    """Return the lines that choose between two numbers, or vectors of them: the first where it is better or NaN.

    Parameters
    ----------
    test : {"ogt", "olt"}
        What better means.
    kind, truth : str
        The types of the numbers and of truth values.
    of : str
        What the names end in.

    Returns
    -------
    list of str
        From ``%x`` and ``%y`` to ``%joined``.
    """
    return [
        f"%better{of} = fcmp {test} {kind} %x{of}, %y{of}",
        f"%none{of} = fcmp uno {kind} %x{of}, %x{of}",
        f"%first{of} = or {truth} %better{of}, %none{of}",
        f"%joined{of} = select {truth} %first{of}, {kind} %x{of}, {kind} %y{of}",
    ]


_ELEMENTS = {
    "sign": """\
; -1, 0 or 1; NaN of NaN, and of a zero the positive one
define internal $T @sign($T %x) alwaysinline {
  %above = fcmp ogt $T %x, 0.0
  %below = fcmp olt $T %x, 0.0
  %positive = uitofp i1 %above to $T
  %negative = uitofp i1 %below to $T
  %sign = fsub $T %positive, %negative
  %none = fcmp uno $T %x, %x
  %result = select i1 %none, $T %x, $T %sign
  ret $T %result
}
""",
    **{
        name: f"; the {better} one, or NaN; of two zeros the second, as NumPy's on x86\n"
        f"define internal $T @{name}($T %x, $T %y) alwaysinline {{\n"
        + "".join(f"  {line}\n" for line in _chosen(_BETTER[name], "$T", "i1"))
        + "  ret $T %joined\n}\n"
        for name, better in (("maximum", "larger"), ("minimum", "smaller"))
    },
    "isinf": """\
define internal i1 @isinf($T %x) alwaysinline {
  %size = call $T @llvm.fabs.$S($T %x)
  %result = fcmp oeq $T %size, 0x7FF0000000000000
  ret i1 %result
}
""",
    "isfinite": """\
define internal i1 @isfinite($T %x) alwaysinline {
  %size = call $T @llvm.fabs.$S($T %x)
  %result = fcmp olt $T %size, 0x7FF0000000000000
  ret i1 %result
}
""",
}

_PIECES = {
    "address": """\
; where a role of a tensor lies
define internal ptr @address(ptr %table, i64 %tensors, i64 %role, i64 %tensor) alwaysinline {
  %row = mul i64 %role, %tensors
  %place = add i64 %row, %tensor
  %entry = getelementptr i64, ptr %table, i64 %place
  %address = load ptr, ptr %entry
  ret ptr %address
}
""",
    "move": """\
; copy what does not overlap its target, unless it is there already
define internal void @move(ptr %source, ptr %target, i64 %bytes) alwaysinline {
  %there = icmp eq ptr %source, %target
  br i1 %there, label %done, label %copy

copy:
  call void @llvm.memcpy.p0.p0.i64(ptr %target, ptr %source, i64 %bytes, i1 false)
  br label %done

done:
  ret void
}
""",
}

_FILL = f"""\
; begin the lanes of a piece
define internal void @fill(ptr %lanes, double %start) alwaysinline {{
entry:
  br label %loop

loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %lane = getelementptr double, ptr %lanes, i64 %i
  store double %start, ptr %lane
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, {LANES}
  br i1 %more, label %loop, label %done

done:
  ret void
}}
"""


def _fold(name: str) -> str:
    """Return what the lanes of a piece come to: the upper half is joined to the lower one, until there is one."""
    width = LANES // 2
    lines = [
        f"%x{width} = load <{width} x double>, ptr %lanes, align 8",
        f"%upper = getelementptr double, ptr %lanes, i64 {width}",
        f"%y{width} = load <{width} x double>, ptr %upper, align 8",
    ]
    while True:
        of = f"<{width} x double>"
        if name == "add":
            lines.append(f"%joined{width} = fadd {of} %x{width}, %y{width}")
        else:
            lines += _chosen(_BETTER[name], of, f"<{width} x i1>", str(width))
        if width == 1:
            break
        half = width // 2
        for part, first in (("x", 0), ("y", half)):
            places = ", ".join(f"i32 {k}" for k in range(first, width)[:half])
            lines.append(f"%{part}{half} = shufflevector {of} %joined{width}, {of} poison, <{half} x i32> <{places}>")
        width = half
    lines += ["%result = extractelement <1 x double> %joined1, i64 0", "ret double %result"]
    body = "".join(f"  {line}\n" for line in lines)
    return f"define internal double @fold_{name}(ptr %lanes) {{\n{body}}}\n"


_JOINS = {
    "add": """\
define internal double @join_add(double %x, double %y) alwaysinline {
  %result = fadd double %x, %y
  ret double %result
}
""",
    **{
        name: _ELEMENTS[name].replace("$T", "double").replace(f"@{name}", f"@join_{name}")
        for name in ("maximum", "minimum")
    },
}

WHOLE_PIECES = 4
"""How many pieces that are summed up a tensor may have which goes through all passes at once."""

_BEGIN_TOTAL = (
    "; begin the sums of the pieces of a tensor\n"
    "define internal void @begin_total(ptr %sums, double %start) alwaysinline {\n"
    + "".join(
        f"  %at{k} = getelementptr double, ptr %sums, i64 {k}\n  store double %start, ptr %at{k}\n"
        for k in range(WHOLE_PIECES)
    )
    + "  ret void\n}\n"
)


def _total(name: str) -> str:
    """Return what the sums of the pieces of a tensor come to, joined as those of lanes are."""
    lines = []
    for k in range(WHOLE_PIECES):
        lines += [f"%at{k} = getelementptr double, ptr %sums, i64 {k}", f"%x{k} = load double, ptr %at{k}"]
    values = [f"%x{k}" for k in range(WHOLE_PIECES)]
    while (half := len(values) // 2) > 0:
        for k in range(half):
            joined = f"%joined{half}.{k}"
            lines.append(f"{joined} = call double @join_{name}(double {values[k]}, double {values[k + half]})")
            values[k] = joined
        del values[half:]
    lines += [f"%result = fadd double {values[0]}, 0.0", "ret double %result"]  # no zero is negative
    head = f"define internal double @total_{name}(ptr %sums) alwaysinline {{\n"
    return head + "".join(f"  {line}\n" for line in lines) + "}\n"


_NORM_OF = f"""\
; a norm of the squares of numbers, of these times 2^-600, and of these times 2^600
define internal double @norm_of(double %squares, double %of_large, double %of_small) alwaysinline {{
  %root = call double @llvm.sqrt.f64(double %squares)
  %large = call double @llvm.sqrt.f64(double %of_large)
  %small = call double @llvm.sqrt.f64(double %of_small)
  %enlarged = fmul double %large, {literal(FAR)}
  %reduced = fdiv double %small, {literal(FAR)}
  %lost = fcmp olt double %squares, {literal(SMALL)}
  %rest = select i1 %lost, double %reduced, double %root
  %beyond = fcmp oeq double %squares, 0x7FF0000000000000
  %result = select i1 %beyond, double %enlarged, double %rest
  ret double %result
}}
"""

_SUMS = {
    "fill": _FILL,
    "begin_total": _BEGIN_TOTAL,
    "norm_of": _NORM_OF,
    **{f"total_{name}": _total(name) for name in _JOINS},
    **{f"join_{name}": text for name, text in _JOINS.items()},
    **{f"fold_{name}": _fold(name) for name in _JOINS},
}

_KNOWN = {**_MATH, **_ELEMENTS, **_PIECES, **LOW, **_SUMS}


def called(text: str, compute: str) -> str:
    """Return the functions that a text calls, with those that these call.

    Parameters
    ----------
    text : str
        Assembly.
    compute : {"float", "double"}
        The type of the arithmetic.

    Returns
    -------
    str
        Their own text, in the order of this module.
    """
    known = {of_type(name, compute): of_type(body, compute) for name, body in _KNOWN.items()}
    for kind in SUFFIX:  # sums are of double, and random numbers of float, whatever the arithmetic is
        known |= {of_type(name, kind): of_type(known_text, kind) for name, known_text in _MATH.items()}
    found: set[str] = set()
    todo = [text]
    while todo:
        names = set(re.findall(r"@([\w.]+)", todo.pop())) & known.keys() - found
        found |= names
        todo += (known[name] for name in names)
    return "\n".join(known[name].rstrip() + "\n" for name in known if name in found)


def of_type(text: str, compute: str) -> str:
    """Return a text for a type of the arithmetic."""
    return text.replace("$T", compute).replace("$S", SUFFIX[compute])
