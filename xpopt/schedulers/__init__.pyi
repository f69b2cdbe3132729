# Written by tests/_kit/stubs.py from the table in xpopt/_names.py.
from .base import SchedulerBase as SchedulerBase
from .constant import ConstantScheduler as ConstantScheduler
from .exponential import ExponentialScheduler as ExponentialScheduler
from .king import KingScheduler as KingScheduler
from .make import SchedulerInitializer as SchedulerInitializer
from .make import make_scheduler as make_scheduler
from .noam import NoamScheduler as NoamScheduler

__all__ = [
    "ConstantScheduler",
    "ExponentialScheduler",
    "KingScheduler",
    "NoamScheduler",
    "SchedulerBase",
    "SchedulerInitializer",
    "make_scheduler",
]
