"""NAdam."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.slots import one, slot
from .._settings.ranges import DECAY, EPS, NON_NEGATIVE
from .._settings.setting import setting
from .base import OptimizerBase


class NAdamState(NamedTuple):
    """What NAdam remembers of each parameter."""

    mean: Array  # like param; running mean of the gradients, starts at 0
    var: Array  # like param; running mean of the squared gradients, starts at 0, never negative
    product: Array = slot(start=1, shape=one)  # of shape (); of the momenta so far, starts at 1


class NAdam(OptimizerBase):
    r"""Step as Adam does, with Nesterov's momentum and a momentum that grows towards `decay1`.

    .. math::

        \mu_t &= \beta_1 \left(1 - \tfrac12 \, 0.96^{\, \psi t}\right) \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \hat m_t &= \frac{\mu_{t+1} m_t}{1 - \prod_{i=1}^{t+1} \mu_i}
            + \frac{(1 - \mu_t) g_t}{1 - \prod_{i=1}^{t} \mu_i} \\
        \theta_t &= \theta_{t-1} - \alpha \, \frac{\hat m_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float
        Learning rate :math:`\alpha`, in units of the parameter per step. Finite, at least 0. A schedule that states its
        own rate wins over it.
    decay1, decay2 : float
        Decay of the two means, :math:`\beta_1` and :math:`\beta_2`, in [0, 1): about ``1 / (1 - decay)`` steps of
        memory.
    eps : float
        :math:`\epsilon`, added outside the root and after the bias correction, in units of the gradient. Greater than
        0, and must not round to 0 in the compute dtype.
    momentum_decay : float
        How fast, :math:`\psi`, the momentum :math:`\mu_t` grows from half of :math:`\beta_1` to all of it. At least 0.
        With 0 it stays at half; a very large one keeps it at :math:`\beta_1`.
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
    The product of the momenta is a slot of one number. PyTorch keeps it in its default dtype, whatever the dtype of the
    parameter. optax's momentum is constant, as here with ``momentum_decay=1e6``.

    References
    ----------
    .. [1] Dozat, "Incorporating Nesterov Momentum into Adam", ICLR 2016 workshop, Algorithm 2, with the schedule of its
       section 3.

    Examples
    --------
    >>> import numpy as np
    >>> opt = NAdam(lr=0.1)
    >>> W = opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W")
    >>> W.round(6), opt.cache["W"]["product"].round(6)
    (array([0.894355, 2.105645]), np.float64(0.450073))
    """

    lr: float = setting(default=0.002)
    decay1: float = setting(default=0.9, range=DECAY)
    decay2: float = setting(default=0.999, range=DECAY)
    eps: float = setting(default=1e-8, range=EPS)
    momentum_decay: float = setting(default=0.004, range=NON_NEGATIVE)

    slots = NAdamState
    moments = ("var",)

    @staticmethod
    def scalars(h: Scalars) -> dict[str, float]:
        """The momentum of this step and that of the next."""
        now, ahead = (h.decay1 * (1 - 0.5 * 0.96 ** (t * h.momentum_decay)) for t in (h.t, h.t + 1))
        return {"now": now, "ahead": ahead}

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: NAdamState, h: Scalars) -> tuple[Array, NAdamState]:
        """Algorithm 2 of Dozat."""
        mean = h.decay1 * s.mean + (1 - h.decay1) * grad
        var = h.decay2 * s.var + (1 - h.decay2) * grad * grad
        product = s.product * h.now
        of_mean = h.lr * h.ahead / (1 - product * h.ahead)
        of_grad = h.lr * (1 - h.now) / (1 - product)
        scale = 1 / (1 - h.decay2**h.t)
        step = (of_mean * mean + of_grad * grad) / (xp.sqrt(scale * var) + h.eps)
        return param - step, NAdamState(mean, var, product)
