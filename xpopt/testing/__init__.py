"""Checks of an optimizer that you write, and of a library that uses optimizers."""

from .. import _names

__getattr__, __dir__, __all__ = _names.attach(__name__)
