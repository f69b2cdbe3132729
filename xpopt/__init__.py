"""Gradient-based optimizers, each written once, for NumPy, CuPy and every other array-API library."""

from . import _names

__getattr__, __dir__, __all__ = _names.attach(__name__)
