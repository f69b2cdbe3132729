# Written by tests/_kit/stubs.py from the table in xpopt/_names.py.
from .base import SchedulerBase as SchedulerBase
from .constant_scheduler import ConstantScheduler as ConstantScheduler
from .exponential_scheduler import ExponentialScheduler as ExponentialScheduler
from .kinds.base import Schedule as Schedule
from .kinds.constant import constant as constant
from .kinds.cosine import cosine as cosine
from .kinds.cosine import cosine_restarts as cosine_restarts
from .kinds.cycles import cyclic as cyclic
from .kinds.cycles import one_cycle as one_cycle
from .kinds.decays import exponential as exponential
from .kinds.decays import inverse_time as inverse_time
from .kinds.epochs import epochs as epochs
from .kinds.function import function as function
from .kinds.joined import maximum as maximum
from .kinds.joined import repeat as repeat
from .kinds.lines import linear as linear
from .kinds.lines import polynomial as polynomial
from .kinds.lines import warmup as warmup
from .kinds.make import make_schedule as make_schedule
from .kinds.plateau import plateau as plateau
from .kinds.stairs import multi_step as multi_step
from .kinds.stairs import piecewise as piecewise
from .kinds.stairs import staircase as staircase
from .kinds.wsd import wsd as wsd
from .king import KingScheduler as KingScheduler
from .make import SchedulerInitializer as SchedulerInitializer
from .make import make_scheduler as make_scheduler
from .noam import NoamScheduler as NoamScheduler

__all__ = [
    "ConstantScheduler",
    "ExponentialScheduler",
    "KingScheduler",
    "NoamScheduler",
    "Schedule",
    "SchedulerBase",
    "SchedulerInitializer",
    "constant",
    "cosine",
    "cosine_restarts",
    "cyclic",
    "epochs",
    "exponential",
    "function",
    "inverse_time",
    "linear",
    "make_schedule",
    "make_scheduler",
    "maximum",
    "multi_step",
    "one_cycle",
    "piecewise",
    "plateau",
    "polynomial",
    "repeat",
    "staircase",
    "warmup",
    "wsd",
]
