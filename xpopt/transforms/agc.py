"""Gradients clipped by the norm of their parameter."""

from __future__ import annotations

from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import EPS
from .._settings.setting import setting
from .base import Transform


class AGC(Transform):
    r"""Clip a gradient whose norm is more than a part of its parameter's.

    .. math::

        g_t \leftarrow \lambda \, \frac{\max(\lVert \theta_{t-1} \rVert, \epsilon)}{\lVert g_t \rVert} \, g_t
            \quad \text{where} \quad
            \lVert g_t \rVert > \lambda \max(\lVert \theta_{t-1} \rVert, \epsilon)

    Parameters
    ----------
    agc : float
        The part :math:`\lambda`. Finite, greater than 0.
    eps : float
        The norm :math:`\epsilon` that a parameter has at least, so that one of zeros can move. Greater than 0.

    Raises
    ------
    TypeError, ValueError
        A value is no number, or out of range.

    Notes
    -----
    The norms are those of a whole parameter. In [1]_ they are those of each unit: of the weights that lead to one.

    References
    ----------
    .. [1] Brock, De, Smith and Simonyan, "High-Performance Large-Scale Image Recognition Without Normalization", ICML
       2021, arXiv:2102.06171, eq. 3.
    """

    agc: float = setting(default=0.01, range=EPS)
    eps: float = setting(default=1e-3, range=EPS)

    keyword = "agc"

    @staticmethod
    def before(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> Array:
        """Equation 3 of Brock et al., of a whole parameter."""
        norm = xp.linalg.vector_norm(grad)
        largest = h.agc * xp.maximum(xp.linalg.vector_norm(param), h.eps)
        within: Array = xp.where(norm <= largest, grad, grad / norm * largest + (norm - norm))
        return within
