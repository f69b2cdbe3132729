"""The loss of a step, as schedules read it."""

from __future__ import annotations

import math
from typing import Any


def finite_loss(owner: str, cur_loss: Any) -> float:
    """Return a loss as a finite float.

    Parameters
    ----------
    owner : str
        The schedule's class, for the message.
    cur_loss : object
        What came: anything that `float` takes.

    Returns
    -------
    float
        The loss.

    Raises
    ------
    ValueError
        It is not finite, or no number.
    """
    try:
        if isinstance(cur_loss, str | bytes | bytearray):
            raise TypeError("text is not a number")
        detach = getattr(cur_loss, "detach", None)  # a torch loss that records gradients
        loss = float(cur_loss if detach is None else detach())
    except Exception as error:  # whatever an array library raises for an array that is no single number
        came = f"a {type(cur_loss).__name__}"
        if cur_loss is None:
            came = "None: give update or update_all the loss of the step"
        raise ValueError(f"{owner} needs a finite cur_loss; got {came}") from error
    if not math.isfinite(loss):
        raise ValueError(f"{owner} needs a finite cur_loss; got {loss}")
    return loss
