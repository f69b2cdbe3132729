"""Proximal maps: what the option `prox` takes. Each is a value, and a function of an array."""

from .. import _names

__getattr__, __dir__, __all__ = _names.attach(__name__)
