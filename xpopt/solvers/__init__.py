"""Minimization of functions: one call, methods that need values, and line searches."""

from .. import _names

__getattr__, __dir__, __all__ = _names.attach(__name__)
