"""A graph as source code, one printer for each target."""

from .cuda import print_cuda, print_finite
from .host import print_numbers, print_product
from .numba import intrinsics_source, print_numba, print_squares
from .numpy import print_numpy

__all__ = [
    "intrinsics_source",
    "print_cuda",
    "print_finite",
    "print_numba",
    "print_numbers",
    "print_numpy",
    "print_product",
    "print_squares",
]
