"""Adafactor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import Rule, most_to_square
from .._graph.slots import cols, rows, slot
from .._settings.ranges import DECAY, EPS, NON_NEGATIVE, POSITIVE
from .._settings.setting import setting
from .base import OptimizerBase


class AdafactorState(NamedTuple):
    """What Adafactor remembers of each parameter with two axes or more."""

    row: Array = slot(shape=rows)  # of shape (..., r, 1); running mean of the mean squares of rows, starts at 0
    col: Array = slot(shape=cols)  # of shape (..., 1, s); the same of columns


class AdafactorMeanState(NamedTuple):
    """The same with a mean of the steps."""

    row: Array = slot(shape=rows)
    col: Array = slot(shape=cols)
    mean: Array = slot()  # like param; running mean of the steps, starts at 0


class VectorState(NamedTuple):
    """What Adafactor remembers of each of the others."""

    var: Array  # like param; running mean of the squared gradients, starts at 0, never negative


class VectorMeanState(NamedTuple):
    """The same with a mean of the steps."""

    var: Array
    mean: Array


def _numbers(h: Scalars) -> dict[str, float]:
    """The part of this step's squares in the means, and the rate relative to the size of a parameter."""
    return {"part": h.t**-h.power, "rate": min(h.lr, h.t**-0.5)}


def _size(xp: Namespace, x: Any) -> Any:
    """Return the root of the mean square."""
    count = 1
    for length in x.shape:
        count *= length
    return xp.linalg.vector_norm(x) / max(count, 1) ** 0.5


def _step(xp: Namespace, param: Array, step: Any, h: Scalars) -> Any:
    """Return a step that is no larger than the threshold, times the rate: Algorithms 4 and 5."""
    scale = xp.maximum(_size(xp, param), h.least) / xp.maximum(_size(xp, step) / h.threshold, 1.0)
    return h.rate * scale * step


class Adafactor(OptimizerBase):
    r"""RMSProp with one mean square for each row and column, and steps relative to the parameter's size.

    .. math::

        R_t &= (1 - t^{-p}) R_{t-1} + t^{-p} \operatorname{mean}_{\mathrm{row}}(g_t^2 + \epsilon) \\
        C_t &= (1 - t^{-p}) C_{t-1} + t^{-p} \operatorname{mean}_{\mathrm{col}}(g_t^2 + \epsilon) \\
        u_t &= g_t \Big/ \sqrt{R_t C_t / \operatorname{mean}(R_t)} \\
        \theta_t &= \theta_{t-1} - \min(\eta, t^{-1/2}) \max(\alpha, \operatorname{rms}(\theta_{t-1}))
            \frac{u_t}{\max(1, \operatorname{rms}(u_t) / d)}

    A parameter with more than two axes is a stack of matrices, the last two; one with fewer has a mean square for each
    element.

    Parameters
    ----------
    lr : float
        The largest relative rate :math:`\eta`. Finite, at least 0. A schedule that states its own rate wins over it.
    power : float
        :math:`p`, by which the means lengthen. At least 0.
    threshold : float
        :math:`d`, the largest root mean square of :math:`u_t`. Greater than 0.
    least : float
        :math:`\alpha`, the smallest size that is assumed of a parameter, so that one of zeros can move. Greater than 0.
    eps : float
        :math:`\epsilon`, in units of the squared gradient. Greater than 0, and must not round to 0 in the compute
        dtype.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    decay1 : float
        :math:`\beta_1`, in [0, 1). Above 0, a running mean of the steps is subtracted, an array like the parameter.
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
    It runs eagerly, since means of rows and columns are not fused. A matrix of r rows and s columns needs r + s numbers
    of state.

    References
    ----------
    .. [1] Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018,
       arXiv:1804.04235, Algorithms 4 to 6, with its section 7.2 for :math:`p`.

    Examples
    --------
    >>> import numpy as np
    >>> opt = Adafactor(lr=0.1)
    >>> opt.update(np.array([[3.0, 4.0]]), np.array([[0.5, -0.5]]), "W").round(6)
    array([[2.646447, 4.353553]])
    >>> opt.cache["W"]["row"]
    array([[0.25]])
    """

    lr: float = setting(default=0.01)
    power: float = setting(default=0.8, range=NON_NEGATIVE)
    threshold: float = setting(default=1.0, range=POSITIVE)
    least: float = setting(default=1e-3, range=POSITIVE)
    eps: float = setting(default=1e-30, range=EPS)
    decay1: float = setting(default=0.0, range=DECAY, neutral=0.0, kw_only=True)

    slots = AdafactorState
    fused = False

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Any, s: AdafactorState, h: Scalars) -> tuple[Array, AdafactorState]:
        """Algorithm 4 of Shazeer and Stern."""
        if 0 in grad.shape:
            return param, s
        square = grad * grad + h.eps
        row = (1 - h.part) * s.row + h.part * xp.mean(square, axis=-1, keepdims=True)
        col = (1 - h.part) * s.col + h.part * xp.mean(square, axis=-2, keepdims=True)
        share = row / xp.mean(row, axis=-2, keepdims=True)  # of the order of 1: with row * col, squares would be lost
        return param - _step(xp, param, grad / xp.sqrt(share) / xp.sqrt(col), h), AdafactorState(row, col)

    @staticmethod
    def mean_rule(xp: Namespace, param: Any, grad: Any, s: AdafactorMeanState, h: Scalars) -> tuple[Array, Any]:
        """The same with a mean of the steps."""
        new, (row, col) = Adafactor.rule(xp, param, grad, AdafactorState(s.row, s.col), h)
        mean = h.decay1 * s.mean + (1 - h.decay1) * (param - new)
        return param - mean, AdafactorMeanState(row, col, mean)

    @staticmethod
    def vector_rule(xp: Namespace, param: Array, grad: Any, s: VectorState, h: Scalars) -> tuple[Array, VectorState]:
        """Algorithm 5 of Shazeer and Stern."""
        var = (1 - h.part) * s.var + h.part * (grad * grad + h.eps)
        return param - _step(xp, param, grad / xp.sqrt(var), h), VectorState(var)

    @staticmethod
    def vector_mean_rule(xp: Namespace, param: Any, grad: Any, s: VectorMeanState, h: Scalars) -> tuple[Array, Any]:
        """The same with a mean of the steps."""
        new, (var,) = Adafactor.vector_rule(xp, param, grad, VectorState(s.var), h)
        mean = h.decay1 * s.mean + (1 - h.decay1) * (param - new)
        return param - mean, VectorMeanState(var, mean)

    @classmethod
    def choose_rule(cls, settings: Mapping[str, Any]) -> Rule | tuple[Rule, ...]:
        """Return the rule of matrices, and that of what has no rows; with a mean, if `decay1` asks for it."""
        return _WITH_MEANS if settings["decay1"] else _RULES


def _rules(matrices: Any, of_matrices: type[Any], vectors: Any, of_vectors: type[Any], *, follows: Any) -> Any:
    of_both: dict[str, Any] = {"fused": False, "most": most_to_square}
    first, second = follows
    return (
        Rule(matrices, of_matrices, _numbers, where=lambda dtype, shape: len(shape) > 1, follows=first, **of_both),
        Rule(vectors, of_vectors, _numbers, follows=second, **of_both),
    )


_RULES = _rules(
    *(Adafactor.rule, AdafactorState, Adafactor.vector_rule, VectorState),
    follows=(AdafactorMeanState, VectorMeanState),
)
_WITH_MEANS = _rules(
    *(Adafactor.mean_rule, AdafactorMeanState, Adafactor.vector_mean_rule, VectorMeanState),
    follows=(AdafactorState, VectorState),
)
