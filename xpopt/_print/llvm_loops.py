"""The loops around a rule in LLVM's assembly: over elements, parts of a piece, and the pieces of all tensors."""

from __future__ import annotations

from collections.abc import Sequence

from .._arrays.sums import LANES, PIECE


def apart(pointers: Sequence[str]) -> list[str]:
    """Declare that what is written by one pointer is read by no other."""
    return [pointer.replace("ptr ", "ptr noalias ") for pointer in pointers]


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"  {line}\n" for line in lines)


def over_elements(arguments: Sequence[str], lines: Sequence[str], *, of: str = "", wide: bool = False) -> str:
    """Print ``@elements``, which does what `lines` do for each ``%i`` below ``%size``; there is one at least.

    Parameters
    ----------
    arguments, lines : sequence of str
        What it is given, and what it does.
    of : str
        What its name ends in.
    wide : bool
        Whether vectors have 8 elements, whatever LLVM would choose.

    Returns
    -------
    str
        The function. What it says of its loop is in `WIDTH`.
    """
    return f"""\
define internal void @elements{of}({", ".join(arguments)}) {{
entry:
  br label %loop

loop:
  %i = phi i64 [0, %entry], [%next, %loop]
{_lines(lines)}  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %size
  br i1 %more, label %loop, label %done{", !llvm.loop !0" if wide else ""}

done:
  ret void
}}

"""


WIDTH = """\
!0 = distinct !{!0, !1}
!1 = !{!"llvm.loop.vectorize.width", i32 8}

"""
"""What is said of loops over vectors of 8 elements: a module ends in it where there is one."""


def over_parts(
    arguments: Sequence[str],
    lanes: Sequence[str],
    each_part: list[str],
    each_row: list[str],
    folded: list[str],
    *,
    of: str = "",
) -> str:
    """Print ``@piece``, which adds up each part of a piece, row by row, in lanes of its own, and then folds these."""
    return f"""\
define internal void @piece{of}({", ".join(arguments)}) {{
entry:
{_lines([f"%{name}all = alloca [{LANES} x double], align 64" for name in lanes])}  br label %parts

parts:
  %part = phi i64 [0, %entry], [%next.part, %folded]
{_lines(each_part)}  br label %rows

rows:
  %begin = phi i64 [0, %parts], [%next, %rows]
{_lines(each_row)}  %next = add i64 %begin, {LANES}
  %more = icmp slt i64 %next, %here
  br i1 %more, label %rows, label %folded

folded:
{_lines(folded)}  %next.part = add i64 %part, {PIECE}
  %more.parts = icmp slt i64 %next.part, %size
  br i1 %more.parts, label %parts, label %done

done:
  ret void
}}

"""


def over_pieces(name: str, arguments: Sequence[str], each_tensor: Sequence[str]) -> str:
    """Print a function that takes pieces until there are none, and does what `each_tensor` says for each."""
    return f"""\
define void @{name}({", ".join(arguments)}) {{
entry:
  %share.even = sdiv i64 %count, 64
  %share.least = call i64 @llvm.smax.i64(i64 %share.even, i64 1)
  %share = call i64 @llvm.smin.i64(i64 %share.least, i64 16)
  br label %take

take:
  %first = atomicrmw add ptr %counter, i64 %share monotonic
  %beyond = add i64 %first, %share
  %last = call i64 @llvm.smin.i64(i64 %beyond, i64 %count)
  %some = icmp slt i64 %first, %last
  br i1 %some, label %loop, label %done

loop:
  %piece = phi i64 [%first, %take], [%next, %loop]
  %tensor.at = getelementptr [3 x i64], ptr %pieces, i64 %piece
  %tensor = load i64, ptr %tensor.at
  %start.at = getelementptr i64, ptr %tensor.at, i64 1
  %start = load i64, ptr %start.at
  %size.at = getelementptr i64, ptr %tensor.at, i64 2
  %size = load i64, ptr %size.at
{_lines(each_tensor)}  %next = add i64 %piece, 1
  %more = icmp slt i64 %next, %last
  br i1 %more, label %loop, label %take

done:
  ret void
}}

"""
