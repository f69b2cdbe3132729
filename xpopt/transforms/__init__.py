"""Transforms: what goes with every rule. Each makes a rule of a rule."""

from .. import _names

__getattr__, __dir__, __all__ = _names.attach(__name__)
