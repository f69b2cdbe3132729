"""FISTA: accelerated proximal gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import Rule
from .._graph.slots import one, slot
from .._settings.ranges import Choice
from .._settings.setting import setting
from .base import OptimizerBase


class FISTAState(NamedTuple):
    """What FISTA remembers of each parameter."""

    point: Array = slot(start="param")  # like param, in its units; the last iterate x, inside the set of `prox`
    pace: Array = slot(shape=one, start=1.0)  # of shape (); t of the paper, starts at 1


class RisenState(NamedTuple):
    """The same with a restart by the loss."""

    point: Array = slot(start="param")
    pace: Array = slot(shape=one, start=1.0)
    loss: Array = slot(shape=one, start=2.0**127)  # of shape (); that of the last step, starts above any


def _ahead(xp: Namespace, before: Any, point: Array, pace: Array) -> tuple[Array, Array]:
    """Return the point where the next gradient is taken, and the next pace: eqs. 4.2 and 4.3."""
    faster = 0.5 + xp.sqrt(0.25 + pace * pace)
    return point + (pace - 1) / faster * (point - before), faster


class FISTA(OptimizerBase):
    r"""Take proximal gradient steps with Nesterov's acceleration.

    .. math::

        x_k &= \operatorname{prox}_\alpha(y_k - \alpha g_k) \\
        t_{k+1} &= \frac{1 + \sqrt{1 + 4 t_k^2}}{2} \\
        y_{k+1} &= x_k + \frac{t_k - 1}{t_{k+1}} (x_k - x_{k-1})

    The parameter is :math:`y`, where the gradient :math:`g` is taken. The result is :math:`x`, which `averaged`
    returns: only this is inside the set of `bounds` or `prox`, and has the zeros of an L1 penalty.

    Parameters
    ----------
    lr : float
        Learning rate :math:`\alpha`, at most the reciprocal of the Lipschitz constant :math:`L` of the gradient.
        Finite, at least 0. A schedule that states its own rate wins over it.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    restart : {"never", "value", "gradient"}
        When the acceleration starts again, with :math:`t_k = 1`: never; or where `cur_loss`, which each update then
        needs, is above that of the last step, or below it with `maximize` (with a penalty, the sum of both); or where
        :math:`(y_k - x_k) \cdot (x_k - x_{k-1}) > 0`, a sum over each parameter, for which it runs eagerly.
    **options
        Options common to all optimizers: see `OptimizerBase`. `bounds` or `prox` is the map of the first line. Options
        that change a step after the rule, such as `weight_decay`, are not part of the paper's method.

    Raises
    ------
    TypeError
        An unknown keyword, or a value that is not a number.
    ValueError
        A value out of its range.

    Notes
    -----
    For a convex function the distance of the value from the minimum is at most :math:`2 L \lVert x_0 - x^* \rVert^2 /
    (k + 1)^2`. Each parameter has its own :math:`t_k`; these differ only if restarts differ.

    References
    ----------
    .. [1] Beck and Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse problems", SIAM
       Journal on Imaging Sciences 2(1), 2009, eqs. 4.1 to 4.3.
    .. [2] O'Donoghue and Candes, "Adaptive restart for accelerated gradient schemes", Foundations of Computational
       Mathematics 15, 2015, section 3.2, for `restart`; of the gradient, the proximal one.

    Examples
    --------
    >>> import numpy as np
    >>> A, b = np.array([[1.0, 2.0], [0.0, 1.0], [1.0, 0.0]]), np.array([1.0, 1.0, -1.0])
    >>> opt, params = FISTA(lr=1 / np.linalg.norm(A, 2) ** 2, bounds=(0, None)), {"x": np.zeros(2)}
    >>> for _ in range(100):  # least squares without negative numbers
    ...     params = opt.update_all(params, {"x": A.T @ (A @ params["x"] - b)})
    >>> opt.averaged(params)["x"].round(6)
    array([0. , 0.6])
    """

    lr: float = setting(default=0.01)
    restart: Literal["never", "value", "gradient"] = setting(
        default="never", range=Choice(("never", "value", "gradient")), neutral="never", kw_only=True
    )

    slots = FISTAState
    follows = RisenState
    proximal = True

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: FISTAState, h: Scalars) -> tuple[Array, FISTAState]:
        """Equations 4.1 to 4.3 of Beck and Teboulle."""
        point = h.project(param - h.lr * grad)
        ahead, pace = _ahead(xp, s.point, point, s.pace)
        return ahead, FISTAState(point, pace)

    @staticmethod
    def value_rule(xp: Namespace, param: Array, grad: Array, s: RisenState, h: Scalars) -> tuple[Array, RisenState]:
        """The same, from the start where the loss has risen."""
        point = h.project(param - h.lr * grad)
        ahead, pace = _ahead(xp, s.point, point, xp.where(s.loss < h.cur_loss, 1.0, s.pace))
        return ahead, RisenState(point, pace, 0 * s.pace + h.cur_loss)

    @staticmethod
    def gradient_rule(xp: Namespace, param: Array, grad: Array, s: FISTAState, h: Scalars) -> tuple[Array, FISTAState]:
        """The same, from the start where the last step went up the proximal gradient."""
        point = h.project(param - h.lr * grad)
        rises = xp.sum((param - point) * (point - s.point)) > 0
        ahead, pace = _ahead(xp, s.point, point, xp.where(rises, 1.0, s.pace))
        return ahead, FISTAState(point, pace)

    @staticmethod
    def evaluated(xp: Namespace, param: Array, s: Any, h: Scalars) -> Array:
        """The iterate :math:`x`."""
        point: Array = s.point
        return point

    @classmethod
    def choose_rule(cls, settings: Mapping[str, Any]) -> Rule | tuple[Rule, ...]:
        """Return the rule that restarts as asked."""
        return _RESTARTED.get(settings["restart"]) or super().choose_rule(settings)


_RESTARTED = {
    "value": Rule(
        *(FISTA.value_rule, RisenState),
        follows=FISTAState,
        proximal=True,
        reads_loss=True,
        evaluated=FISTA.evaluated,
    ),
    "gradient": Rule(
        *(FISTA.gradient_rule, FISTAState),
        follows=RisenState,
        proximal=True,
        fused=False,
        whole="restart='gradient' is a sum over a parameter",
        evaluated=FISTA.evaluated,
    ),
}
