"""Names that type checkers see though they load when touched: ``nox -s types`` fails where one is unknown or Any."""

# ruff: noqa: F403, F405 - a star import is among what is checked

from typing import assert_type

import xpopt
from xpopt import *
from xpopt.optimizers import SGD
from xpopt.schedulers import KingScheduler, make_scheduler

assert_type(xpopt.__version__, str)
assert_type(xpopt.make_optimizer("adam"), xpopt.OptimizerBase)
assert_type(make_scheduler("king"), xpopt.schedulers.SchedulerBase)
assert_type(xpopt.optimizers.Adam(), Adam)
assert_type(xpopt.schedulers.KingScheduler(), KingScheduler)
assert_type(xpopt.SGD(), SGD)
assert_type(xpopt.config.OptimizerInitializer("adam")(), OptimizerBase)
assert_type(xpopt.checkpoint.load_optimizer("path"), OptimizerBase)
assert_type(xpopt.explain.kernel_source(SGD()), str)
xpopt.clipping.clip_by_global_norm([], 1.0)
with engine("eager"), num_threads(1):
    pass

xpopt.Adem  # type: ignore[attr-defined]
xpopt.optimizers.Adem  # type: ignore[attr-defined]
xpopt.optimizers.KingScheduler  # type: ignore[attr-defined]
xpopt.global_norm  # type: ignore[attr-defined]
