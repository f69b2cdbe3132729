"""Functions in LLVM's assembly that printed kernels call; of each, a kernel gets what it needs.

``$T`` is the type of the arithmetic, and ``$S`` what intrinsics for it end in.
"""

from __future__ import annotations

import re
import struct

from .._arrays.sums import FAR, LANES, SMALL

SUFFIX = {"float": "f32", "double": "f64"}
"""By type, what the names of intrinsics for it end in."""

_MATH = {
    **{f"llvm.{name}.$S": f"declare $T @llvm.{name}.$S($T)" for name in ("fabs", "sqrt", "exp", "log", "floor")},
    "llvm.pow.$S": "declare $T @llvm.pow.$S($T, $T)",
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

_LOW = {
    "load_bfloat16": """\
define internal float @load_bfloat16(i16 %bits) alwaysinline {
  %word = zext i16 %bits to i32
  %high = shl i32 %word, 16
  %value = bitcast i32 %high to float
  ret float %value
}
""",
    "store_bfloat16": """\
; round to the nearest, ties to even; a NaN stays one, whichever of its bits are lost
define internal i16 @store_bfloat16(float %value) alwaysinline {
  %bits = bitcast float %value to i32
  %shifted = lshr i32 %bits, 16
  %odd = and i32 %shifted, 1
  %half = add i32 %bits, u0x7FFF
  %rounded = add i32 %half, %odd
  %quiet = or i32 %bits, u0x400000
  %none = fcmp uno float %value, %value
  %kept = select i1 %none, i32 %quiet, i32 %rounded
  %high = lshr i32 %kept, 16
  %result = trunc i32 %high to i16
  ret i16 %result
}
""",
    "is_finite": """\
define internal i1 @is_finite(i32 %bits) alwaysinline {
  %exponent = and i32 %bits, u0x7F800000
  %result = icmp ne i32 %exponent, u0x7F800000
  ret i1 %result
}
""",
    "draw_float16": """\
; round stochastically; below the normal numbers, to whole parts of 2**24
define internal half @draw_float16(float %value, i32 %random) alwaysinline {
  %bits = bitcast float %value to i32
  %noise = and i32 %random, u0x1FFF
  %raised = add i32 %bits, %noise
  %cut_bits = and i32 %raised, u0xFFFFE000
  %cut = bitcast i32 %cut_bits to float
  %count = uitofp i32 %noise to float
  %middle = fadd float %count, 5.000000e-01
  %chance = fmul float %middle, 0x3F20000000000000
  %size_bits = and i32 %bits, u0x7FFFFFFF
  %size = bitcast i32 %size_bits to float
  %scaled = fmul float %size, 0x4170000000000000
  %lifted = fadd float %scaled, %chance
  %steps = call float @llvm.floor.f32(float %lifted)
  %sign = and i32 %bits, u0x80000000
  %unsigned = fmul float %steps, 0x3E70000000000000
  %unsigned_bits = bitcast float %unsigned to i32
  %small_bits = or i32 %unsigned_bits, %sign
  %small = bitcast i32 %small_bits to float
  %below = fcmp olt float %size, 0x3F10000000000000
  %drawn = select i1 %below, float %small, float %cut
  %finite = call i1 @is_finite(i32 %bits)
  %rounded = select i1 %finite, float %drawn, float %value
  %result = fptrunc float %rounded to half
  ret half %result
}
""",
    "draw_bfloat16": """\
; round stochastically; a NaN stays one, whichever of its bits are lost
define internal i16 @draw_bfloat16(float %value, i32 %random) alwaysinline {
  %bits = bitcast float %value to i32
  %noise = and i32 %random, u0xFFFF
  %rounded = add i32 %bits, %noise
  %marked = or i32 %bits, u0x400000
  %none = fcmp uno float %value, %value
  %quiet = select i1 %none, i32 %marked, i32 %bits
  %finite = call i1 @is_finite(i32 %bits)
  %kept = select i1 %finite, i32 %rounded, i32 %quiet
  %high = lshr i32 %kept, 16
  %result = trunc i32 %high to i16
  ret i16 %result
}
""",
    "key": """\
; the integer of 32 bits of which two floats are the halves
define internal i32 @key(float %high, float %low) alwaysinline {
  %upper = fptoui float %high to i32
  %lower = fptoui float %low to i32
  %shifted = shl i32 %upper, 16
  %result = or i32 %shifted, %lower
  ret i32 %result
}
""",
    "mixed": """\
define internal i32 @mixed(i32 %bits) alwaysinline {
  %a = lshr i32 %bits, 16
  %b = xor i32 %bits, %a
  %c = mul i32 %b, u0x7FEB352D
  %d = lshr i32 %c, 15
  %e = xor i32 %c, %d
  %f = mul i32 %e, u0x846CA68B
  %g = lshr i32 %f, 16
  %result = xor i32 %f, %g
  ret i32 %result
}
""",
    "random_bits": """\
; the bits of a place, as everywhere
define internal i32 @random_bits(i64 %place, i32 %first, i32 %second) alwaysinline {
  %low = trunc i64 %place to i32
  %begun = xor i32 %low, %first
  %half = call i32 @mixed(i32 %begun)
  %more = add i32 %half, %second
  %result = call i32 @mixed(i32 %more)
  ret i32 %result
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
    lines = []
    width = LANES // 2
    while width:
        of = f"<{width} x double>"
        lines += [
            f"%upper{width}.at = getelementptr double, ptr %lanes, i64 {width}",
            f"%x{width} = load {of}, ptr %lanes, align 8",
            f"%y{width} = load {of}, ptr %upper{width}.at, align 8",
            *(
                [f"%joined{width} = fadd {of} %x{width}, %y{width}"]
                if name == "add"
                else _chosen(_BETTER[name], of, f"<{width} x i1>", str(width))
            ),
            f"store {of} %joined{width}, ptr %lanes, align 8",
        ]
        width //= 2
    body = "".join(f"  {line}\n" for line in lines)
    head, end = f"define internal double @fold_{name}(ptr %lanes) {{", "  %result = load double, ptr %lanes"
    return f"{head}\n{body}{end}\n  ret double %result\n}}\n"


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

_KNOWN = {**_MATH, **_ELEMENTS, **_PIECES, **_LOW, **_SUMS}


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
