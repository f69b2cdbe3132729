# Written by tests/_kit/stubs.py from the table in xpopt/_names.py.
from .agc import AGC as AGC
from .average import EMA as EMA
from .average import SWA as SWA
from .base import Transform as Transform
from .lookahead import Lookahead as Lookahead
from .loss_scale import DynamicLossScale as DynamicLossScale
from .weight_decay import WeightDecay as WeightDecay

__all__ = [
    "AGC",
    "EMA",
    "SWA",
    "DynamicLossScale",
    "Lookahead",
    "Transform",
    "WeightDecay",
]
