# Written by tests/_kit/stubs.py from the table in xpopt/_names.py.
from .base import Transform as Transform
from .weight_decay import WeightDecay as WeightDecay

__all__ = [
    "Transform",
    "WeightDecay",
]
