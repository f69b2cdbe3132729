"""Running averages of parameters, for evaluation; they do not affect the steps."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.slots import slot
from .._settings.ranges import DECAY, FLAG, Range
from .._settings.setting import setting
from .base import Transform


class AverageState(NamedTuple):
    """What an average remembers of each parameter."""

    average: Array = slot(start="param")  # like param; the average so far


class Average(Transform):
    """Base of the averages, which differ in the share of the newest parameter alone."""

    keyword = "average"
    slots = AverageState

    @staticmethod
    def after(xp: Namespace, new: Array, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Array, Any]:
        """Move the average to the new parameter by its share."""
        # not a sum of two shares, which add up to 1 before they are rounded and not after
        return new, AverageState(s.average + h.share * (new - s.average))

    @staticmethod
    def evaluated(xp: Namespace, param: Array, s: Any, h: Scalars) -> Array:
        """The average."""
        average: Array = s.average
        return average


class EMA(Average):
    r"""Exponential moving average of the parameters.

    .. math::

        a_t = a_{t-1} + s_t (\theta_t - a_{t-1}), \qquad
        s_t = \frac{1 - d}{1 - d^t}

    with warm-up; without, :math:`s_1 = 1` and :math:`s_t = 1 - d`.

    Parameters
    ----------
    decay : float
        The decay :math:`d`, in [0, 1); about ``1 / (1 - decay)`` steps of memory.
    warmup : bool
        Whether the first steps have larger weights: the weights of the moving average are divided by their sum so far.
        Without it the first parameter keeps the weight :math:`d^{t-1}`.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.

    Notes
    -----
    With warm-up this is the average of Adam's moments with their correction, as ``optax.ema`` with ``debias=True`` has
    it; without, that of ``torch.optim.swa_utils.get_ema_multi_avg_fn``. :math:`t` is the count of the parameter's
    updates. If the option is switched on later, the average starts at the parameter at that time.

    References
    ----------
    .. [1] Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM Journal on Control and
       Optimization 30(4), 1992, for averages of the iterates.
    """

    decay: float = setting(default=0.999, range=DECAY)
    warmup: bool = setting(default=True, range=FLAG, kw_only=True)

    @staticmethod
    def scalars(h: Scalars) -> dict[str, float]:
        """The share of the newest parameter."""
        t = max(h.t, 1)
        share = 1 - h.decay
        return {"share": share / (1 - h.decay**t) if h.warmup else 1.0 if t == 1 else share}


class SWA(Average):
    r"""Mean of the parameters at some steps: stochastic weight averaging.

    .. math:: a_n = a_{n-1} + \frac{\theta_t - a_{n-1}}{n + 1}, \qquad t = t_0 + n k, \quad n = 0, 1, 2, \ldots

    Until the step :math:`t_0` it is the parameter itself.

    Parameters
    ----------
    start : int
        The first step :math:`t_0`, by the count of each parameter, whose result is included in the mean. At least 0;
        with 0 the parameter before the first step is included.
    every : int
        The number of steps :math:`k` between two of them, at least 1; in the paper the length of a cycle of the
        learning rate.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.

    References
    ----------
    .. [1] Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018,
       arXiv:1803.05407, Algorithm 1, of which the pretrained weights are those of step `start`.
    """

    start: int = setting(range=Range(low=0, kind="int"))
    every: int = setting(default=1, range=Range(low=1, kind="int"))

    @staticmethod
    def scalars(h: Scalars) -> dict[str, float]:
        """The share of the newest parameter."""
        steps = max(h.t - h.start, 0)
        return {"share": 0.0 if steps % h.every else 1 / (1 + steps / h.every)}
