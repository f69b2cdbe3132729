"""One model on several processes: each keeps its share of an optimizer's state, and all decide as one."""

from .. import _names

__getattr__, __dir__, __all__ = _names.attach(__name__)
