"""Where the data of many NumPy arrays lies, and that they are as expected: read from the objects' own fields.

Asked of each array by its attributes, that would cost more than an update of a thousand elements. What this relies on
is checked against the attributes when it is loaded.
"""

from __future__ import annotations

import ctypes
from string import Template

OFFSETS = {"type": -8, "data": 0, "ndim": 8, "shape": 16, "dtype": 40, "flags": 48}
"""Where the fields are, in bytes behind the object's head, which the type ends on all builds."""

PROTOTYPE = ctypes.PYFUNCTYPE(ctypes.c_bool, *[ctypes.c_void_p] * 7, *[ctypes.c_int64] * 2)  # keeps the lock
"""The type of ``read_arrays(objects, kind, dtype, ndims, shapes, flags, addresses, roles, tensors)``.

Parameters
----------
objects : int
    Address of the addresses of the objects: as many for each role as there are tensors, one role after the other.
kind, dtype : int
    Addresses of the type and the dtype that they should have.
ndims : int64 array, (tensors,)
    The number of dimensions of each tensor.
shapes : int64 array
    The shape of each tensor, one after the other.
flags : int64 array, (roles, tensors)
    The bits that should be set in the flags of each array.
addresses : int64 array, (roles, tensors)
    Where the result goes.
roles, tensors : int
    How many there are, of both at least one.

Returns
-------
bool
    Whether all are as expected.
"""

_TEXT = Template("""\
; Read where the data of NumPy arrays lies, if they are as expected.

define zeroext i1 @read_arrays(ptr %objects, ptr %kind, ptr %dtype, ptr %ndims, ptr %shapes, ptr %flags, ptr %addresses,
                               i64 %roles, i64 %tensors) {
entry:
  br label %role

role:
  %k.role = phi i64 [0, %entry], [%next.role, %role.done]
  %before = mul i64 %k.role, %tensors
  br label %tensor

tensor:
  %k = phi i64 [0, %role], [%next, %good]
  %shape.wanted = phi ptr [%shapes, %role], [%shape.end, %good]
  %place = add i64 %before, %k
  %object.at = getelementptr ptr, ptr %objects, i64 %place
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
  %dtype.at = getelementptr i8, ptr %object, i64 $dtype
  %dtype.found = load ptr, ptr %dtype.at
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
  store i64 %data, ptr %address.at
  %next = add i64 %k, 1
  %more = icmp slt i64 %next, %tensors
  br i1 %more, label %tensor, label %role.done

role.done:
  %next.role = add i64 %k.role, 1
  %more.roles = icmp slt i64 %next.role, %roles
  br i1 %more.roles, label %role, label %all

all:
  ret i1 true

bad:
  ret i1 false
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
    return _TEXT.substitute({name: head + offset for name, offset in OFFSETS.items()})
