"""A rule that uses all that a rule may, and numbers for the rules of the table."""

from __future__ import annotations

from typing import Any

from .engines import Two


def wild(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    """Use every function that a rule may use."""
    fast = xp.where(grad > h.edge, s.fast * 0.5, xp.maximum(s.fast, -grad))
    slow = xp.clip(s.slow + abs(grad) ** 2, 0.0, h.top) + xp.square(xp.minimum(fast, 1))
    flat = xp.isnan(grad) | ~xp.isfinite(grad) & (grad <= 0) ^ xp.isinf(slow)
    step = xp.where(flat, xp.sign(param), xp.sqrt(slow) ** 0.5 / (xp.exp(-slow) + xp.log(slow + 2)))
    return param - (h.edge**2 - 1) * step + 2 - xp.where(fast == slow, fast, 1.0) * slow**1.5, Two(fast, slow)


NUMBERS = {
    "edge": 0.1,
    "top": 3.0,
    "lr": 0.1,
    "decay1": 0.9,
    "decay2": 0.999,
    "decay": 0.9,
    "momentum": 0.8,
    "eps": 1e-7,
    "most": 50.0,
    "least": 1e-06,
    "up": 1.2,
    "down": 0.5,
    "initial": 0.1,
    "decay3_steps": 20.0,
    "alpha_steps": 20.0,
    "alpha": 5.0,
    "decay3": 0.99,
    "threshold": 5.0,
    "dampening": 0.25,
    "lr_decay": 0.1,
    "momentum_decay": 0.004,
    "l1": 0.1,
    "l2": 0.1,
    "beta": 1.0,
    "trust": 0.01,
    "weight_decay": 0.1,
}
