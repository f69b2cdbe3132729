"""The least that an update can take: the time in which its arrays travel from memory and back.

A loop that reads the parameter, the gradient and the slots, and writes the parameter and the slots, each as one array
as long as the whole model, with as many threads. Up to `SERIAL` elements other threads would come too late to help.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod

import numpy as np
from measuring import Array
from works import Model

SERIAL = 524_288
_SHARES = 32  # for each thread


class Limit:
    """The traffic of a model.

    Parameters
    ----------
    model : Model
        For its size and its gradients.
    slots : int
        How many each parameter has.
    threads : int
        How many threads share it.
    """

    def __init__(self, model: Model, slots: int, threads: int) -> None:
        size = sum(map(prod, model.shapes))
        grads = model.grads if len(model.shapes) == 1 else [[np.ones(size, np.float32)] for _ in range(2)]
        arrays = [np.ones(size, np.float32) for _ in range(1 + slots)]
        self._loop = _loop(slots)
        self._helpers = threads - 1 if size > SERIAL else 0
        self._executor = ThreadPoolExecutor(max(self._helpers, 1))
        length = -(-size // (_SHARES * threads if self._helpers else 1))
        bounds = [slice(start, start + length) for start in range(0, size, length)]
        self._shares = [[tuple(x[bound] for x in (g, *arrays)) for bound in bounds] for (g,) in grads]

    def feed(self, number: int) -> None:
        """Take the other gradients."""
        self._now = self._shares[number % 2]

    def step(self) -> None:
        """Let everything travel once."""
        shares = iter(self._now)  # threads share it; each item is given out once
        waiting = [self._executor.submit(self._work, shares) for _ in range(self._helpers)]
        self._work(shares)
        for helper in waiting:
            helper.result()

    def _work(self, shares: Iterator[tuple[Array, ...]]) -> None:
        for share in shares:
            self._loop(*share)


@functools.cache
def _loop(slots: int) -> Callable[..., None]:
    """Return a loop over the gradient, the parameter and so many slots, each of which is added to the next."""
    import numba

    names = [f"slot_{i}" for i in range(slots)]
    steps = [f"{new}[i] = {new}[i] + {old}[i]" for old, new in zip(["grad", *names], [*names, "param"], strict=True)]
    text = f"def loop(grad, param, {', '.join(names)}):\n  for i in range(len(param)):\n    " + "\n    ".join(steps)
    made: dict[str, Callable[..., None]] = {}
    exec(text, made)
    arrays = ", ".join(["float32[::1]"] * (2 + slots))
    compiled: Callable[..., None] = numba.njit(f"void({arrays})", nogil=True)(made["loop"])
    return compiled
