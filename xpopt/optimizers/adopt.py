"""ADOPT."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import DECAY, EPS
from .._settings.setting import setting
from .base import OptimizerBase


class ADOPTState(NamedTuple):
    """What ADOPT remembers of each parameter."""

    mean: Array  # like param; running mean of the scaled gradients, starts at 0
    var: Array  # like param; running mean of the squared gradients, of which the first is the start; never negative


class ADOPT(OptimizerBase):
    r"""Step along the running mean of gradients, each scaled by the root mean square of those before it.

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) \,
            \mathrm{clip}\left(\frac{g_t}{\max(\sqrt{v_{t-1}}, \epsilon)}, c_t\right), \qquad c_t = (t - 1)^{1/4} \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \qquad v_1 = g_1^2 \\
        \theta_t &= \theta_{t-1} - \alpha m_t

    Parameters
    ----------
    lr : float
        Learning rate :math:`\alpha`, in units of the parameter per step. Finite, at least 0. A schedule that states its
        own rate wins over it.
    decay1, decay2 : float
        Decay of the two means, :math:`\beta_1` and :math:`\beta_2`, in [0, 1): about ``1 / (1 - decay)`` steps of
        memory.
    eps : float
        :math:`\epsilon`, the least that a gradient is divided by, in its units. Greater than 0, and must not round to 0
        in the compute dtype.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    **options
        Options common to all optimizers: see `OptimizerBase`.

    Raises
    ------
    TypeError
        An unknown keyword, or a value that is not a number.
    ValueError
        A value out of its range.

    Notes
    -----
    This is Algorithm 2 of [1]_ with the clipping that its authors advise, :math:`c_t = t^{1/4}` in their count, which
    begins at 0 with the gradient that only starts :math:`v`. So the first update leaves the parameter where it is.

    References
    ----------
    .. [1] Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any :math:`\beta_2` with the Optimal Rate", NeurIPS
       2024, arXiv:2411.02853, Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> opt = ADOPT(lr=0.1)
    >>> W = opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W")
    >>> W, opt.update(W, np.array([0.25, -2.0]), "W").round(6)
    (array([1., 2.]), array([0.995, 2.01 ]))
    """

    lr: float = setting(default=0.001)
    decay1: float = setting(default=0.9, range=DECAY)
    decay2: float = setting(default=0.9999, range=DECAY)
    eps: float = setting(default=1e-6, range=EPS)

    slots = ADOPTState
    moments = ("var",)

    @staticmethod
    def scalars(h: Scalars) -> dict[str, float]:
        """The bound of a scaled gradient, 0 at first; and how much of the variance is kept, at first nothing."""
        return {"limit": (h.t - 1) ** 0.25, "keep": h.decay2 if h.t > 1 else 0.0}

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: ADOPTState, h: Scalars) -> tuple[Array, ADOPTState]:
        """Algorithm 2 of Taniguchi et al., with its clipping."""
        scaled = xp.clip(grad / xp.maximum(xp.sqrt(s.var), h.eps), -h.limit, h.limit)
        mean = h.decay1 * s.mean + (1 - h.decay1) * scaled
        var = h.keep * s.var + (1 - h.keep) * grad * grad
        return param - h.lr * mean, ADOPTState(mean, var)
