"""FTRL-Proximal."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.slots import slot
from .._settings.ranges import EPS, NON_NEGATIVE
from .._settings.setting import setting
from .base import OptimizerBase


class FTRLState(NamedTuple):
    """What FTRL remembers of each parameter."""

    leader: Array = slot(start="param")  # like param, in its units; the leader before `l1` and `l2`
    total: Array = slot(start="initial")  # like param; sum of the squared gradients, starts at `initial`


class FTRL(OptimizerBase):
    r"""Follow the regularized leader; with an L1 penalty, small parameters become exactly 0.

    .. math::

        n_t &= n_{t-1} + g_t^2, \qquad d_t = \beta + \sqrt{n_t} \\
        w_t &= w_{t-1} + \frac{(d_t - d_{t-1}) (\theta_{t-1} - w_{t-1}) - \alpha_t g_t}{d_t} \\
        \theta_t &= \frac{d_t}{d_t + \alpha_t \lambda_2} \,
            \mathrm{sign}(w_t) \max\left(|w_t| - \frac{\alpha_t \lambda_1}{d_t}, \, 0\right)

    Parameters
    ----------
    lr : float
        Learning rate :math:`\alpha`, in units of the parameter. Finite, at least 0. A schedule that states its own rate
        wins over it.
    l1 : float
        The weight :math:`\lambda_1` of the L1 penalty, in units of the gradient. At least 0. It makes small parameters
        exactly 0.
    l2 : float
        The weight :math:`\lambda_2` of the L2 penalty, in units of the gradient per unit of the parameter. At least 0.
        It is this setting, and not the option that other optimizers have.
    beta : float
        :math:`\beta`, which makes the first steps shorter, in units of the gradient. Greater than 0, and must not round
        to 0 in the compute dtype.
    initial : float
        The start of the sum, :math:`n_0`, in squared units of the gradient. At least 0.
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
    This is Algorithm 1 of [1]_ with :math:`w_t = -\alpha z_t / d_t` in the place of its :math:`z_t`, which is the same
    for parameters that start at 0, as there, and at a constant rate. Here a parameter may have any start, and a change
    of the rate affects new gradients only. Without penalties this is AdaGrad. Keras and TensorFlow begin with
    :math:`z_0 = 0`, which pulls other starts towards 0, and their ``l2`` is half of the one here.

    References
    ----------
    .. [1] McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> opt = FTRL(lr=0.5, l1=0.25)
    >>> opt.update(np.zeros(3), np.array([1.0, -0.5, -0.125]), "W").round(6)
    array([-0.1875  ,  0.083333,  0.      ])
    """

    lr: float = setting(default=0.1)
    l1: float = setting(default=0.0, range=NON_NEGATIVE)
    l2: float = setting(default=0.0, range=NON_NEGATIVE)
    beta: float = setting(default=1.0, range=EPS)
    initial: float = setting(default=0.0, range=NON_NEGATIVE)

    slots = FTRLState

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: FTRLState, h: Scalars) -> tuple[Array, FTRLState]:
        """Algorithm 1 of McMahan et al."""
        total = s.total + grad * grad
        root = xp.sqrt(total)
        size = root + h.beta
        inverse = 1 / size
        leader = s.leader + ((root - xp.sqrt(s.total)) * (param - s.leader) - h.lr * grad) * inverse
        left = xp.maximum(xp.abs(leader) - h.lr * h.l1 * inverse, 0.0)
        new = xp.sign(leader) * left * (size / (size + h.lr * h.l2))
        return new, FTRLState(leader, total)
