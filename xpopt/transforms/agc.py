"""Gradients clipped by the norm of their parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from .._arrays.library import PAIRS
from .._arrays.norms import norms_along
from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import EPS, Choice, OrNone
from .._settings.setting import setting
from .base import Formula, Transform


class AGC(Transform):
    r"""Clip a gradient whose norm is more than a fraction of its parameter's.

    .. math::

        g_t \leftarrow \lambda \, \frac{\max(\lVert \theta_{t-1} \rVert, \epsilon)}{\lVert g_t \rVert} \, g_t
            \quad \text{where} \quad
            \lVert g_t \rVert > \lambda \max(\lVert \theta_{t-1} \rVert, \epsilon)

    Parameters
    ----------
    agc : float
        The fraction :math:`\lambda`. Finite, greater than 0.
    eps : float
        The smallest norm :math:`\epsilon` that is assumed of a parameter, so that one of zeros can move. Greater than
        0.

    units : {None, "first", "last"}
        None for norms of whole parameters; else norms of units, the weights of one output, where the outputs are the
        first axis, as in PyTorch, or the last, as in JAX and Keras. A parameter with fewer than two axes is one unit.

    Raises
    ------
    TypeError, ValueError
        A value is not a number, or out of range.

    Notes
    -----
    In [1]_ the norms are those of units. They run eagerly; the norm of a whole parameter is fused.

    References
    ----------
    .. [1] Brock, De, Smith and Simonyan, "High-Performance Large-Scale Image Recognition Without Normalization", ICML
       2021, arXiv:2102.06171, eq. 3.
    """

    agc: float = setting(default=0.01, range=EPS)
    eps: float = setting(default=1e-3, range=EPS)

    units: Literal["first", "last"] | None = setting(
        default=None, range=OrNone(Choice(("first", "last"))), neutral=None, kw_only=True
    )

    keyword = "agc"

    @staticmethod
    def before(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> Array:
        """Equation 3 of Brock et al., of a whole parameter."""
        return _clipped(xp, grad, xp.linalg.vector_norm(param), xp.linalg.vector_norm(grad), h)

    def formula(self) -> Formula:
        """Return what it does; with units, each is clipped by itself, which no engine fuses."""
        formula = super().formula()
        if self.units is None:
            return formula
        return formula._replace(before=_FIRST if self.units == "first" else _LAST, whole="agc takes the norms of units")

    def check_dtype(self, dtype: str, what: str) -> None:
        """Raise a ValueError for a complex parameter, of whose parts units would be made.

        Parameters
        ----------
        dtype : str
            The dtype of a parameter.
        what : str
            The parameter, for the message.
        """
        if self.units is not None and dtype in PAIRS:
            raise ValueError(f"AGC: units are of real parameters, and {what} is {dtype}; give it agc=None in a group")


def _of_units(axes: Callable[[int], tuple[int, ...]]) -> Callable[..., Array]:
    """Return the clipping of units, of which each has the axes that are found of their number."""

    def before(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> Array:
        count = len(grad.shape)
        if count < 2:
            return AGC.before(xp, param, grad, s, h)
        if 0 in grad.shape:
            return grad
        size, norm = (scale * rest for scale, rest in (norms_along(xp, x, axes(count)) for x in (param, grad)))
        return _clipped(xp, grad, size, norm, h)

    return before


_FIRST = _of_units(lambda count: tuple(range(1, count)))
_LAST = _of_units(lambda count: tuple(range(count - 1)))


def _clipped(xp: Namespace, grad: Any, size: Any, norm: Any, h: Scalars) -> Array:
    largest = h.agc * xp.maximum(size, h.eps)
    within: Array = xp.where(norm <= largest, grad, grad / norm * largest + (norm - norm))
    return within
