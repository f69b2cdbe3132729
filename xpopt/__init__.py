"""Gradient-based optimizers, each written once, for NumPy, CuPy and every other array-API library."""

from . import clipping as clipping
from ._arrays.machine import default_namespace
from ._checkpoint import CheckpointError
from ._engine.choose import engine
from ._engine.pool import num_threads
from ._graph.rule import Rule
from ._settings.declared import setting
from ._settings.ranges import Range
from ._version import __version__
from .checkpoint import load_optimizer
from .config import OptimizerInitializer, make_optimizer
from .explain import kernel_source
from .optimizers import SGD, AdaGrad, Adam, OptimizerBase, RMSProp
from .schedulers import (
    ConstantScheduler,
    ExponentialScheduler,
    KingScheduler,
    NoamScheduler,
    SchedulerBase,
    SchedulerInitializer,
    make_scheduler,
)

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "CheckpointError",
    "ConstantScheduler",
    "ExponentialScheduler",
    "KingScheduler",
    "NoamScheduler",
    "OptimizerBase",
    "OptimizerInitializer",
    "RMSProp",
    "Range",
    "Rule",
    "SchedulerBase",
    "SchedulerInitializer",
    "__version__",
    "default_namespace",
    "engine",
    "kernel_source",
    "load_optimizer",
    "make_optimizer",
    "make_scheduler",
    "num_threads",
    "setting",
]
