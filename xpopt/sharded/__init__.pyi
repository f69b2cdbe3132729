# Written by tests/_kit/stubs.py from the table in xpopt/_names.py.
from .dtensors import DTensors as DTensors
from .sharded import Sharded as Sharded

__all__ = [
    "DTensors",
    "Sharded",
]
