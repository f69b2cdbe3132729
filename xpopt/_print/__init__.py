"""A graph as source code, one printer for each target."""

from .host import print_numbers
from .numpy import print_numpy

__all__ = ["print_numbers", "print_numpy"]
