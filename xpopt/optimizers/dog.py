"""Distance over gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.slots import one, slot
from .._settings.ranges import EPS, POSITIVE
from .._settings.setting import setting
from .base import OptimizerBase


class DoGState(NamedTuple):
    """What DoG remembers of each parameter."""

    start: Array = slot(start="param")  # like param; where it began
    distance: Array = slot(shape=one)  # of shape (); how far from there the model has been, the same in all parameters
    total: Array = slot(shape=one)  # of shape (); sum of the squared norms of the model's gradients


class DoG(OptimizerBase):
    r"""SGD with the distance from the start, divided by the norm of all gradients so far, as its rate.

    .. math::

        r_t &= \max\left(r_{t-1}, \lVert x_{t-1} - x_0 \rVert\right), \qquad r_0 = \alpha (1 + \lVert x_0 \rVert) \\
        G_t &= G_{t-1} + \lVert g_t \rVert^2 \\
        x_t &= x_{t-1} - \eta \, \frac{r_t}{\sqrt{G_t + \epsilon}} \, g_t

    where the norms are those of the whole model, so `update` raises; use `update_all`.

    Parameters
    ----------
    lr : float
        A factor :math:`\eta` on the rate that is found. Finite, at least 0. A schedule that states its own rate wins
        over it.
    initial : float
        :math:`\alpha`: how far the first step goes, as a part of the model's norm. Greater than 0.
    eps : float
        :math:`\epsilon`, added to the sum of squares. Greater than 0, and must not round to 0 in the compute dtype.
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
    The authors evaluate an average of the parameters: ``average=EMA(0.999)``. A parameter that is added later starts
    with its own distance and sum.

    References
    ----------
    .. [1] Ivgi, Hinder and Carmon, "DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule", ICML 2023,
       arXiv:2302.12022, eqs. 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> opt = DoG(initial=0.1)
    >>> opt.update_all([np.array([3.0, 4.0])], [np.array([0.0, 2.0])])[0].round(6)
    array([3. , 3.4])
    """

    lr: float = setting(default=1.0)
    initial: float = setting(default=1e-6, range=POSITIVE)
    eps: float = setting(default=1e-8, range=EPS)

    slots = DoGState

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: DoGState, h: Scalars) -> tuple[Array, DoGState]:
        """Equations 1 and 2 of Ivgi, Hinder and Carmon."""
        way, size, norm = h.model.norm(param - s.start), h.model.norm(grad), h.model.norm(s.start)
        far: Any = s.distance
        distance = xp.where(far > 0, xp.maximum(far, way), h.initial * (1 + norm))
        total = s.total + size * size
        return param - h.lr * distance / xp.sqrt(total + h.eps) * grad, DoGState(s.start, distance, total)
