"""Muon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import Rule
from .._settings.ranges import EPS, FRACTION, Companion
from .._settings.setting import setting
from .base import OptimizerBase

_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


class MuonState(NamedTuple):
    """What Muon remembers of each parameter."""

    mean: Array  # like param; running mean of the gradients, starts at 0


def _orthogonal(xp: Namespace, matrix: Any, h: Scalars) -> Any:
    """Return a matrix with the singular vectors of another, and singular values near 1: Newton-Schulz iterations."""
    rows, cols = matrix.shape
    x = matrix.T if rows > cols else matrix  # the products are then the smaller ones
    x = x / (xp.linalg.vector_norm(x) + h.eps)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = _A * x + (_B * square + _C * (square @ square)) @ x
    return x.T if rows > cols else x


def _stepped(xp: Namespace, param: Array, direction: Array, h: Scalars) -> Array:
    """Go along a direction that has been made orthogonal, further where there are more rows than columns."""
    rows, cols = param.shape
    new: Array = param - h.lr * max(1.0, rows / max(cols, 1)) ** 0.5 * _orthogonal(xp, direction, h)
    return new


class Muon(OptimizerBase):
    r"""Step along an orthogonal matrix, the nearest to a running mean of the gradients.

    .. math::

        m_t &= \mu \, m_{t-1} + (1 - \mu) g_t \\
        u_t &= \mu \, m_t + (1 - \mu) g_t \\
        x_0 &= \frac{u_t}{\lVert u_t \rVert_F + \epsilon}, \qquad
            x_{k+1} = a x_k + b (x_k x_k^\top) x_k + c (x_k x_k^\top)^2 x_k \\
        \theta_t &= \theta_{t-1} - \eta \sqrt{\max(1, r / s)} \; x_5

    where a parameter has :math:`r` rows and :math:`s` columns, and :math:`(a, b, c) = (3.4445, -4.7750, 2.0315)`, which
    brings all but the smallest singular values to between 0.7 and 1.2.

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`: about the largest singular value of a step of a square matrix. Finite, at least 0. A
        schedule that states its own rate wins over it.
    momentum : float
        :math:`\mu`, in [0, 1].
    eps : float
        :math:`\epsilon`, in units of the gradient. Greater than 0, and must not round to 0 in the compute dtype.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    nesterov : bool
        Whether :math:`u_t` is as above; if not, it is :math:`m_t`.
    others : OptimizerBase or None
        The optimizer of the parameters that are not matrices, such as ``AdamW(lr=3e-4)``. Its algorithm, settings and
        schedule are copied. Options of Muon such as `clip_norm`, `clip_global` and `weight_decay` do not apply to these
        parameters; set them in this optimizer as well. A group with a dict of settings applies to both optimizers,
        each of which takes the settings that it has.
    **options
        Options common to all optimizers: see `OptimizerBase`.

    Raises
    ------
    TypeError
        An unknown keyword, or a value that is not a number.
    ValueError
        A value out of its range; or, in an update without `others`, a parameter that is not a matrix.

    Notes
    -----
    It is for the matrices inside a network. Parameters of other shapes go to `others`. By the author's advice,
    embeddings and the last layer go to another optimizer too: ``groups={"embed": AdamW()}``. Products of matrices are
    not fused: they run eagerly, by the arrays' library, in the compute dtype of the parameter.

    References
    ----------
    .. [1] Jordan, Jin, Boza, You, Cesista, Newhouse and Bernstein, "Muon: An optimizer for hidden layers in neural
       networks", 2024, https://kellerjordan.github.io/posts/muon/.

    Examples
    --------
    >>> import numpy as np
    >>> opt = Muon(lr=0.1)
    >>> opt.update(np.zeros((2, 2)), np.array([[0.0, 3.0], [3.0, 0.0]]), "W").round(2)
    array([[ 0.  , -0.11],
           [-0.11,  0.  ]])
    """

    lr: float = setting(default=0.02)
    momentum: float = setting(default=0.95, range=FRACTION)
    eps: float = setting(default=1e-7, range=EPS)
    nesterov: bool = setting(default=True, neutral=True, kw_only=True)
    others: OptimizerBase | Mapping[str, Any] | None = setting(
        default=None, range=Companion(), neutral=None, kw_only=True
    )

    slots = MuonState
    fused = False
    axes = 2

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: MuonState, h: Scalars) -> tuple[Array, MuonState]:
        """The algorithm of Jordan et al., with Nesterov's momentum."""
        mean = h.momentum * s.mean + (1 - h.momentum) * grad
        return _stepped(xp, param, h.momentum * mean + (1 - h.momentum) * grad, h), MuonState(mean)

    @staticmethod
    def plain_rule(xp: Namespace, param: Array, grad: Array, s: MuonState, h: Scalars) -> tuple[Array, MuonState]:
        """The same with the mean itself."""
        mean = h.momentum * s.mean + (1 - h.momentum) * grad
        return _stepped(xp, param, mean, h), MuonState(mean)

    @classmethod
    def choose_rule(cls, settings: Mapping[str, Any]) -> Rule | tuple[Rule, ...]:
        """Return the rule that `nesterov` asks for."""
        return super().choose_rule(settings) if settings["nesterov"] else _PLAIN


_PLAIN = Rule(Muon.plain_rule, MuonState, fused=False)
