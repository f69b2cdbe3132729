# Written by tests/_kit/stubs.py from the table in xpopt/_names.py.
from .intervals import box as box
from .intervals import nonnegative as nonnegative
from .modulus import magnitude as magnitude
from .modulus import real_part as real_part
from .sets import l2_ball as l2_ball
from .sets import simplex as simplex
from .sets import unit_rows as unit_rows
from .shrink import l1 as l1

__all__ = [
    "box",
    "l1",
    "l2_ball",
    "magnitude",
    "nonnegative",
    "real_part",
    "simplex",
    "unit_rows",
]
