"""Gradients of complex parameters that are the conjugate of the wanted ones: seen from values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._arrays.library import Library
from .._arrays.typing import Array
from .numbers import parts, read

RISES = (
    "the value rises along -gradient: the gradient is not that of the value. The usual causes: the gradient of complex "
    "parameters is the conjugate of the one wanted (JAX has the other convention), or it has the wrong sign because a "
    "value is maximized; return -value and -gradient then"
)
"""Why a solver ends."""

MOST = 10
"""How many steps in a row the values may be those of the conjugate."""


class Conjugates:
    """Watches whether the values of an optimizer's steps are those of its gradients, or of their conjugates.

    The change of the value over a step is the step times the mean of the gradients at both ends, but for curvature that
    changes. Half of that is known before the step, and is kept, as numbers on the device.

    Parameters
    ----------
    library : Library
        Whose arrays these are.
    saved : mapping, optional
        What `saved` returned.
    """

    def __init__(self, library: Library, saved: Mapping[str, Any] | None = None) -> None:
        self._library = library
        saved = {"begun": [], "count": 0} if saved is None else saved
        self.begun: list[Any] = list(map(float, saved["begun"]))
        """What gradient and conjugate say of the step under way; empty where there is none."""
        self._count = int(saved["count"])  # how many steps in a row followed the conjugate

    def saved(self, like: Array) -> dict[str, Any]:
        """Return it as JSON has it."""
        numbers = self._library.guard(lambda like: read(self._library, like, self.begun))(like) if self.begun else []
        return {"begun": list(map(float, numbers)), "count": self._count}

    def along(self, grads: Sequence[Array], params: Sequence[Array], new: Sequence[Array]) -> list[Any]:
        """Return the inner products of gradients with a step, and those of their conjugates."""
        return list(self._library.guard(self._along)(params[0], grads, params, new))

    def _along(self, first: Array, grads: Sequence[Array], params: Sequence[Array], new: Sequence[Array]) -> list[Any]:
        xp, plain, other = self._library.xp, [], []
        wide = xp.float64 if self._library.has_float64(first) else xp.float32
        for grad, param, value in zip(grads, params, new, strict=True):
            step: Any = value - param
            each = zip(parts(xp, xp.astype(grad, param.dtype, copy=False)), parts(xp, step), strict=True)
            real, *imag = (xp.sum(xp.astype(x * y, wide)) for x, y in each)
            plain.append(sum(imag, real))
            other.append(real - sum(imag, 0 * real))
        return [sum(plain[1:], plain[0]), sum(other[1:], other[0])]

    def judge(self, change: float, value: float, numbers: Sequence[float]) -> bool:
        """Judge a step; return whether it was one too many.

        Parameters
        ----------
        change : float
            Of the value.
        value : float
            The value before.
        numbers : sequence of float
            `begun`, and the same at the end of the step.

        Returns
        -------
        bool
            Whether so many in a row followed the conjugate.
        """
        gradient, conjugate = (numbers[0] + numbers[2]) / 2, (numbers[1] + numbers[3]) / 2
        apart = abs(gradient - conjugate)
        told = apart > max(0.2 * (abs(gradient) + abs(conjugate)), 1e-4 * abs(value))
        follows = told and abs(change - conjugate) < 0.2 * apart
        self._count = self._count + 1 if follows else self._count if not told else 0
        return self._count >= MOST
