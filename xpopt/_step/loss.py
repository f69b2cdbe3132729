"""What may be given as the loss of a step: a number, whether or not the schedule reads it."""

from __future__ import annotations

import re
from typing import Any

from .._arrays.parameter import dtype_text

_is_real = re.compile(r"b?float\d|u?int\d|longdouble").match


def read_loss(cur_loss: Any, owner: str) -> dict[str, float]:
    """Return the loss of a step as a number of it; to read it is to wait for the device that computes it.

    Parameters
    ----------
    cur_loss : object
        What the caller gave.
    owner : str
        The optimizer's class, for the message.

    Returns
    -------
    dict
        The number by its name.

    Raises
    ------
    ValueError
        There is none.
    """
    if cur_loss is None:
        raise ValueError(f"{owner} reads the loss, and cur_loss is None; give it the loss of this step")
    return {"cur_loss": float(cur_loss)}


def check_loss(cur_loss: Any, argument: str) -> None:
    """Raise unless `cur_loss` is a number or None; its value is not read, so nothing waits for a device.

    Parameters
    ----------
    cur_loss : object
        What the caller gave.
    argument : str
        What the results could be written into, for the message: arrays that come here are often meant for `out`.

    Raises
    ------
    TypeError
        It is neither a real number, nor an array of shape () with a real dtype.
    """
    shape, dtype = getattr(cur_loss, "shape", ()), getattr(cur_loss, "dtype", None)
    number = hasattr(type(cur_loss), "__float__") or hasattr(type(cur_loss), "__index__")
    if cur_loss is None or (number and tuple(shape) == () and (dtype is None or _is_real(dtype_text(dtype)))):
        return
    came = type(cur_loss).__name__
    if dtype is not None:
        came += f" of {dtype_text(dtype)} and shape {tuple(shape)}"
    raise TypeError(
        f"cur_loss is a {came}; wanted the loss of this step, a number or an array of shape (). Results are written "
        f"into arrays of yours by keyword: out={argument}"
    )
