"""Steepest descent with a line search."""

from __future__ import annotations

from .._settings.setting import setting
from .._settings.value import OneOf
from ._method import Method
from .linesearch import LINE_SEARCHES, LineSearch, armijo


class GradientDescent(Method):
    r"""Steepest descent: step along the negative gradient, by the length that a line search finds.

    .. math:: \theta_{k+1} = \theta_k - t_k \nabla f(\theta_k)

    Parameters
    ----------
    line_search : LineSearch
        The line search that finds :math:`t_k`. The first trial changes the value, to first order, as much as the last
        step did; at the first step it has a length of 1.

    Raises
    ------
    TypeError, ValueError
        `line_search` is not a line search.

    Notes
    -----
    With bounds, the step is projected onto them, and the value must fall by a fraction of the decrease that the
    gradient predicts along the projected step.

    References
    ----------
    .. [1] Nocedal and Wright, "Numerical Optimization", 2nd edition, Springer 2006, section 3.1 and eq. 3.60.
    .. [2] Bertsekas, "On the Goldstein-Levitin-Polyak gradient projection method", IEEE Transactions on Automatic
       Control 21(2), 1976, for bounds.
    """

    line_search: LineSearch = setting(default=armijo(), range=OneOf(LINE_SEARCHES, "line search"))
