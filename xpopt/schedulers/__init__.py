"""Learning rate schedules, and how to make one from text or a dict."""

from .. import _names

__getattr__, __dir__, __all__ = _names.attach(__name__)
