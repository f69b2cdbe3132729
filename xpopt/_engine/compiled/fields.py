"""Where the data of many NumPy arrays lies, and that they are as expected: read from the objects' own fields.

Asked of each array by its attributes, that would cost more than an update of a thousand elements. Numba compiles this;
what it relies on is checked against the attributes when it is loaded.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from numba import int32, int64

from ..._print.intrinsics import at

HEAD = object.__basicsize__  # bytes in front of an object's own fields; there are more without the interpreter's lock
TYPE = HEAD - 8  # what ends the head, on all builds
DATA, NDIM, SHAPE, DTYPE, FLAGS = HEAD, HEAD + 8, HEAD + 16, HEAD + 40, HEAD + 48


def read_arrays(objects, kind, dtype, ndims, shapes, flags, addresses):
    """Read the data addresses of arrays, if they are as expected.

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

    Returns
    -------
    bool
        Whether all are as expected.
    """
    roles, tensors = flags.shape
    pointers = at(objects, 0, roles * tensors, int64)
    for role in range(roles):
        first = 0
        for k in range(tensors):
            x = pointers[role * tensors + k]
            if at(x + TYPE, 0, 1, int64)[0] != kind:
                return False
            if at(x + NDIM, 0, 1, int32)[0] != ndims[k] or at(x + DTYPE, 0, 1, int64)[0] != dtype:
                return False
            if at(x + FLAGS, 0, 1, int32)[0] & flags[role, k] != flags[role, k]:
                return False
            sizes = at(at(x + SHAPE, 0, 1, int64)[0], 0, ndims[k], int64)
            for d in range(ndims[k]):
                if sizes[d] != shapes[first + d]:
                    return False
            first += ndims[k]
            addresses[role, k] = at(x + DATA, 0, 1, int64)[0]
    return True
