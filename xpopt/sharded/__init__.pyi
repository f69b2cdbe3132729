# Written by tests/_kit/stubs.py from the table in xpopt/_names.py.
from .sharded import Sharded as Sharded

__all__ = [
    "Sharded",
]
