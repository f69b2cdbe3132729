"""One file per published method, on one base."""

from .. import _names

__getattr__, __dir__, __all__ = _names.attach(__name__)
