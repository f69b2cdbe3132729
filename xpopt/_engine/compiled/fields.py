"""Where the data of many NumPy arrays lies, and that they are as expected: read from the objects' own fields.

Asked of each array by its attributes, that would cost more than an update of a thousand elements. What this relies on
is checked against the attributes when it is loaded.
"""

from __future__ import annotations

import ctypes
from string import Template

OFFSETS = {"type": -8, "data": 0, "ndim": 8, "shape": 16, "dtype": 40, "flags": 48}
"""Where the fields are, in bytes behind the object's head, which the type ends on all builds."""

ITEMS = 8
"""Where a list keeps the address of its items, behind the head: after their number."""

PROTOTYPE = ctypes.PYFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)  # keeps the lock
"""The type of ``read_arrays(params, grads, outs, look)``.

Parameters
----------
params, grads, outs : int
    Addresses of lists, of as many objects as there are tensors. `outs` is read if there are three roles.
look : int
    Address of eight integers of 64 bits: the addresses of the type and the dtype that the objects should have, of
    `ndims`, `shapes`, `flags` and `addresses`; then the numbers of roles and tensors, both at least 1.

    `ndims`, of int64, (tensors,), has the number of dimensions of each tensor; `shapes` the shape of each, one after
    the other; `flags`, (roles, tensors), the bits that should be set in the flags of each array. `addresses`, (roles,
    tensors), says where the arrays were, and gets where they are.

Returns
-------
int
    0 if an object is not as expected, and `addresses` is of no use then; `MOVED`, or `SAME` if all arrays are where
    they were.
"""

MOVED, SAME = 1, 2

_TEXT = Template("""\
; Read where the data of NumPy arrays lies, if they are as expected.

define i32 @read_arrays(ptr %params, ptr %grads, ptr %outs, ptr %look) {
entry:
  %kind = load ptr, ptr %look
  %dtype.at = getelementptr i64, ptr %look, i64 1
  %dtype = load ptr, ptr %dtype.at
  %ndims.at = getelementptr i64, ptr %look, i64 2
  %ndims = load ptr, ptr %ndims.at
  %shapes.at = getelementptr i64, ptr %look, i64 3
  %shapes = load ptr, ptr %shapes.at
  %flags.all.at = getelementptr i64, ptr %look, i64 4
  %flags = load ptr, ptr %flags.all.at
  %addresses.at = getelementptr i64, ptr %look, i64 5
  %addresses = load ptr, ptr %addresses.at
  %roles.at = getelementptr i64, ptr %look, i64 6
  %roles = load i64, ptr %roles.at
  %tensors.at = getelementptr i64, ptr %look, i64 7
  %tensors = load i64, ptr %tensors.at
  br label %role

role:
  %k.role = phi i64 [0, %entry], [%next.role, %role.done]
  %same.before = phi i1 [true, %entry], [%same, %role.done]
  %before = mul i64 %k.role, %tensors
  %is.first = icmp eq i64 %k.role, 0
  %is.second = icmp eq i64 %k.role, 1
  %other = select i1 %is.second, ptr %grads, ptr %outs
  %list = select i1 %is.first, ptr %params, ptr %other
  %objects.at = getelementptr i8, ptr %list, i64 $items
  %objects = load ptr, ptr %objects.at
  br label %tensor

tensor:
  %k = phi i64 [0, %role], [%next, %good]
  %same.so.far = phi i1 [%same.before, %role], [%same, %good]
  %shape.wanted = phi ptr [%shapes, %role], [%shape.end, %good]
  %place = add i64 %before, %k
  %object.at = getelementptr ptr, ptr %objects, i64 %k
  %object = load ptr, ptr %object.at
  %type.at = getelementptr i8, ptr %object, i64 $type
  %type = load ptr, ptr %type.at
  %type.good = icmp eq ptr %type, %kind
  br i1 %type.good, label %array, label %bad

array:
  %ndim.at = getelementptr i8, ptr %object, i64 $ndim
  %ndim.short = load i32, ptr %ndim.at
  %ndim = sext i32 %ndim.short to i64
  %ndim.wanted.at = getelementptr i64, ptr %ndims, i64 %k
  %ndim.wanted = load i64, ptr %ndim.wanted.at
  %ndim.good = icmp eq i64 %ndim, %ndim.wanted
  %dtype.found.at = getelementptr i8, ptr %object, i64 $dtype
  %dtype.found = load ptr, ptr %dtype.found.at
  %dtype.good = icmp eq ptr %dtype.found, %dtype
  %flags.at = getelementptr i8, ptr %object, i64 $flags
  %flags.short = load i32, ptr %flags.at
  %flags.found = zext i32 %flags.short to i64
  %flags.wanted.at = getelementptr i64, ptr %flags, i64 %place
  %flags.wanted = load i64, ptr %flags.wanted.at
  %flags.set = and i64 %flags.found, %flags.wanted
  %flags.good = icmp eq i64 %flags.set, %flags.wanted
  %two.good = and i1 %ndim.good, %dtype.good
  %three.good = and i1 %two.good, %flags.good
  br i1 %three.good, label %shape, label %bad

shape:
  %shape.at = getelementptr i8, ptr %object, i64 $shape
  %sizes = load ptr, ptr %shape.at
  %shape.end = getelementptr i64, ptr %shape.wanted, i64 %ndim
  br label %axis

axis:
  %d = phi i64 [0, %shape], [%d.next, %size]
  %some = icmp slt i64 %d, %ndim
  br i1 %some, label %size, label %good

size:
  %size.at = getelementptr i64, ptr %sizes, i64 %d
  %size.found = load i64, ptr %size.at
  %size.wanted.at = getelementptr i64, ptr %shape.wanted, i64 %d
  %size.wanted = load i64, ptr %size.wanted.at
  %size.good = icmp eq i64 %size.found, %size.wanted
  %d.next = add i64 %d, 1
  br i1 %size.good, label %axis, label %bad

good:
  %data.at = getelementptr i8, ptr %object, i64 $data
  %data = load i64, ptr %data.at
  %address.at = getelementptr i64, ptr %addresses, i64 %place
  %last = load i64, ptr %address.at
  store i64 %data, ptr %address.at
  %stays = icmp eq i64 %data, %last
  %same = and i1 %same.so.far, %stays
  %next = add i64 %k, 1
  %more = icmp slt i64 %next, %tensors
  br i1 %more, label %tensor, label %role.done

role.done:
  %next.role = add i64 %k.role, 1
  %more.roles = icmp slt i64 %next.role, %roles
  br i1 %more.roles, label %role, label %all

all:
  %found = select i1 %same, i32 $SAME, i32 $MOVED
  ret i32 %found

bad:
  ret i32 0
}
""")


def source(head: int = object.__basicsize__) -> str:
    """Return the assembly of ``read_arrays``.

    Parameters
    ----------
    head : int
        The bytes in front of an object's own fields; there are more without the interpreter's lock.

    Returns
    -------
    str
        A module for `build.build`.
    """
    behind = {name: head + offset for name, offset in {**OFFSETS, "items": ITEMS}.items()}
    return _TEXT.substitute(behind, MOVED=MOVED, SAME=SAME)
