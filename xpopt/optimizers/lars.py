"""LARS."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import FRACTION, NON_NEGATIVE
from .._settings.setting import setting
from .base import OptimizerBase


class LARSState(NamedTuple):
    """What LARS remembers of each parameter."""

    velocity: Array  # like param, in its units; starts at 0


class LARS(OptimizerBase):
    r"""SGD with momentum, at a rate for each parameter: its norm divided by that of its gradient.

    .. math::

        r_t &= \eta \, \frac{\lVert \theta_{t-1} \rVert}
            {\lVert g_t \rVert + \lambda \lVert \theta_{t-1} \rVert} \\
        u_t &= \mu u_{t-1} + \gamma r_t (g_t + \lambda \theta_{t-1}) \\
        \theta_t &= \theta_{t-1} - u_t

    Where the norm of the parameter or of the gradient is 0, :math:`r_t` is 1.

    Parameters
    ----------
    lr : float
        The global rate :math:`\gamma`. Finite, at least 0. A schedule that states its own rate wins over it.
    momentum : float
        :math:`\mu`, in [0, 1].
    trust : float
        The trust coefficient :math:`\eta`: the step as a fraction of the parameter's norm, at a rate of 1. At least 0.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    weight_decay : float
        The decay :math:`\lambda`, at least 0. It is this setting, and not the option that other optimizers have.
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
    optax divides by the norm of :math:`g_t + \lambda \theta_{t-1}`, where [1]_ adds two norms; without a decay that is
    the same.

    References
    ----------
    .. [1] You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks", 2017, arXiv:1708.03888,
       Algorithm 1 and eq. 6.

    Examples
    --------
    >>> import numpy as np
    >>> opt = LARS(lr=1.0, trust=0.1)
    >>> opt.update(np.array([3.0, 4.0]), np.array([0.0, 2.0]), "W")
    array([3. , 3.5])
    """

    lr: float = setting(default=0.1)
    momentum: float = setting(default=0.9, range=FRACTION)
    trust: float = setting(default=0.001, range=NON_NEGATIVE)
    weight_decay: float = setting(default=0.0, range=NON_NEGATIVE, neutral=0.0, kw_only=True)

    slots = LARSState

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: LARSState, h: Scalars) -> tuple[Array, LARSState]:
        """Algorithm 1 of You, Gitman and Ginsburg."""
        norm, size = xp.linalg.vector_norm(param), xp.linalg.vector_norm(grad)
        step = grad + h.weight_decay * param
        # the ratio of the norms alone may overflow
        moved = step / (size + h.weight_decay * norm) * (h.trust * norm)
        velocity = h.momentum * s.velocity + h.lr * xp.where((norm == 0) | (size == 0), step, moved)
        return param - velocity, LARSState(velocity)
