"""Checks for those who write an optimizer, and for those whose library has a place for one."""

from .. import _names

__getattr__, __dir__, __all__ = _names.attach(__name__)
