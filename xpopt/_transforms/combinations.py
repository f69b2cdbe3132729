"""Options of optimizers that cannot be combined, or that need another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..transforms.loss_scale import DynamicLossScale


def check_combinations(cls: type[Any], values: Mapping[str, Any]) -> None:
    """Raise a ValueError if an option of an optimizer has no meaning beside another one, or without one.

    Parameters
    ----------
    cls : type
        The optimizer's class.
    values : mapping
        All settings by name.
    """
    if values["master"] and values["rounding"] == "stochastic":
        raise ValueError(
            f"{cls.__name__}: master=True and rounding='stochastic' cannot be combined: a master copy loses "
            f"nothing by rounding; choose one of them"
        )
    if cls._settings["modulus"].option and values["modulus"] and not cls.moments:
        raise ValueError(f"{cls.__name__}: modulus=True needs a second moment, which it does not have; leave it out")
    if values["bounds"] is not None and values["prox"] is not None:
        raise ValueError(
            f"{cls.__name__}: bounds={values['bounds']!r} and prox={values['prox']!r} are two projections; give "
            f"one, which may be a function of your own; a group with the other takes "
            f"{{'bounds': None, 'prox': ...}} or {{'prox': None, 'bounds': ...}}"
        )
    if isinstance(values["loss_scale"], DynamicLossScale) and values["nonfinite"] != "skip":
        raise ValueError(
            f"{cls.__name__}: a DynamicLossScale needs nonfinite='skip', which skips the steps after which it "
            f"becomes smaller; it is {values['nonfinite']!r}"
        )
