"""AdamW."""

from __future__ import annotations

from .._settings.setting import option
from .adam import Adam


class AdamW(Adam):
    r"""Adam with decoupled weight decay.

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \theta_t &= \theta_{t-1} - \frac{\alpha}{1 - \beta_1^t} \,
            \frac{m_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} - \alpha \lambda \theta_{t-1}

    Parameters
    ----------
    lr : float
        Learning rate :math:`\alpha`, in units of the parameter per step. Finite, at least 0. A schedule that states
        its own rate wins over it.
    decay1, decay2 : float
        Decay of the two means, :math:`\beta_1` and :math:`\beta_2`, in [0, 1): about ``1 / (1 - decay)`` steps of
        memory.
    eps : float
        :math:`\epsilon`, added outside the root and after the bias correction, in units of the gradient. Greater than
        0, and must not round to 0 in the compute dtype.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    eps_place : {"corrected", "uncorrected"}
        Whether :math:`\epsilon` is added to the root after the bias correction, or before, as in Keras: see `Adam`.
    **options
        Options common to all optimizers: see `OptimizerBase`. Of them, `weight_decay` is :math:`\lambda`, and here 0.01
        by default.

    Raises
    ------
    TypeError
        An unknown keyword, or a value that is not a number.
    ValueError
        A value out of its range.

    Notes
    -----
    This is Algorithm 2 of [1]_, whose schedule multiplier :math:`\eta_t` is in the learning rate here, as in PyTorch.
    So the decay is in units of the learning rate: with the same `weight_decay`, half the rate decays half as fast.

    References
    ----------
    .. [1] Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101.

    Examples
    --------
    >>> import numpy as np
    >>> opt = AdamW(lr=0.1, weight_decay=0.5)
    >>> opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W").round(6)
    array([0.85, 2.  ])
    """

    weight_decay: float = option(default=0.01, kw_only=True)
