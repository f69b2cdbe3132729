"""PolyakSGD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import NoSlots, Rule
from .._settings.ranges import POSITIVE, Range
from .._settings.setting import setting
from .base import OptimizerBase


class PolyakSGD(OptimizerBase):
    r"""SGD at the rate with which a linear loss would reach its lowest value in one step.

    .. math::

        x_t = x_{t-1} - \eta \, \min\left(\gamma, \frac{\max(f(x_{t-1}) - f^*, 0)}{\lVert g_t \rVert^2}\right) g_t

    where :math:`f(x_{t-1})` is `cur_loss`, which each update needs, and the norm is that of the whole model, so
    `update` raises; use `update_all`.

    Parameters
    ----------
    lr : float
        A factor :math:`\eta` on the rate that is found. Finite, at least 0. A schedule that states its own rate wins
        over it.
    lowest : float
        :math:`f^*`, the lowest possible loss, or a lower bound of it. With `maximize` it is that of the negative loss.
        Finite.
    most : float
        :math:`\gamma`, the largest rate. Greater than 0.
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
        A value out of its range; or, in an update, no `cur_loss`.

    Notes
    -----
    If the loss is NaN, all parameters become NaN; `nonfinite` tests gradients only. To read the loss, the host waits
    for the device that computes it.

    References
    ----------
    .. [1] Polyak, "Minimization of unsmooth functionals", USSR Computational Mathematics and Mathematical Physics 9(3),
       1969, eq. 1.
    .. [2] Loizou, Vaswani, Laradji and Lacoste-Julien, "Stochastic Polyak Step-size for SGD: An Adaptive Learning Rate
       for Fast Convergence", AISTATS 2021, arXiv:2002.10542, eq. 3, with :math:`c = 1`, for `most`.

    Examples
    --------
    >>> import numpy as np
    >>> opt, x = PolyakSGD(), np.array([3.0, -4.0])
    >>> opt.update_all([x], [2 * x], cur_loss=np.sum(x * x))[0]
    array([ 1.5, -2. ])
    """

    lr: float = setting(default=1.0)
    lowest: float = setting(default=0.0, range=Range())
    most: float = setting(default=1.0, range=POSITIVE)

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: NoSlots, h: Scalars) -> tuple[Array, NoSlots]:
        """Equation 3 of Loizou et al."""
        size = h.model.norm(grad)
        rate = xp.minimum(h.gap / size / size, h.most)  # the square may be 0 or infinite where the quotient is not
        return param - h.lr * xp.where(size == 0, 0.0, rate) * grad, s

    @staticmethod
    def scalars(h: Scalars) -> dict[str, float]:
        """How far the loss is above the lowest."""
        gap = h.cur_loss - h.lowest
        return {"gap": 0.0 if gap < 0 else gap}  # NaN stays

    @classmethod
    def choose_rule(cls, settings: Mapping[str, Any]) -> Rule | tuple[Rule, ...]:
        """Return the rule, which reads the loss."""
        return _READING if cls is PolyakSGD else super().choose_rule(settings)


_READING = Rule(PolyakSGD.rule, scalars=PolyakSGD.scalars, reads_loss=True)
