"""Which transforms an optimizer has, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..prox.base import Proximal
from ..transforms.accumulate import Accumulate
from ..transforms.agc import AGC
from ..transforms.average import Average
from ..transforms.base import Transform
from ..transforms.bounds import Bounds
from ..transforms.cautious import Cautious
from ..transforms.centralize import Centralize
from ..transforms.clip_global import ClipGlobal
from ..transforms.clip_value import ClipValue
from ..transforms.l2 import L2
from ..transforms.lookahead import Lookahead
from ..transforms.loss_scale import LossScale
from ..transforms.lr_scale import LrScale
from ..transforms.maximize import Maximize
from ..transforms.weight_decay import WeightDecay

ORDER: tuple[type[Transform], ...] = (
    *(LossScale, Accumulate, LrScale, Maximize, Average, Bounds, Proximal),
    *(ClipValue, ClipGlobal, AGC, Centralize, L2, Lookahead, WeightDecay, Cautious),
)
"""Those that are options of every optimizer, the outermost first: their `before` in this order, `after` in reverse."""


def active(cls: type[Any], values: Mapping[str, Any]) -> list[Transform]:
    """Return the transforms that settings ask for, the outermost first.

    Parameters
    ----------
    cls : type
        The optimizer's class. An option in whose place it declares a setting of its own asks for nothing.
    values : mapping
        Its settings, checked.

    Returns
    -------
    list of Transform
        None at the value that leaves the formula alone.
    """
    found = []
    for kind in ORDER:
        declared, value = cls._settings[kind.keyword], values[kind.keyword]
        if declared.option and value != declared.neutral:
            found.append(kind.of(value))
    return [*found, *values["transforms"]]
