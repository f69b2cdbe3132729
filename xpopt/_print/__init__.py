"""A graph as source code, one printer for each target."""

from .cuda import print_cuda
from .host import print_numbers
from .numba import print_numba
from .numpy import print_numpy

__all__ = ["print_cuda", "print_numba", "print_numbers", "print_numpy"]
