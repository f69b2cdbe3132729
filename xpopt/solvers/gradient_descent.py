"""Steepest descent with a line search."""

from __future__ import annotations

from .._settings.setting import setting
from .._settings.value import OneOf
from ._method import Method
from .linesearch import LINE_SEARCHES, LineSearch, armijo


class GradientDescent(Method):
    r"""Step along the negative gradient, as far as a line search says.

    .. math:: \theta_{k+1} = \theta_k - t_k \nabla f(\theta_k)

    Parameters
    ----------
    line_search : LineSearch
        What finds :math:`t_k`. The first step that is tried is what changes the value to first order as much as the
        last step did, at the very first a step of length 1.

    Raises
    ------
    TypeError, ValueError
        `line_search` is none.

    Notes
    -----
    With bounds, the step is projected onto them, and the value must fall by a share of what the gradient promises along
    the projected step.

    References
    ----------
    .. [1] Nocedal and Wright, "Numerical Optimization", 2nd edition, Springer 2006, section 3.1 and eq. 3.60.
    .. [2] Bertsekas, "On the Goldstein-Levitin-Polyak gradient projection method", IEEE Transactions on Automatic
       Control 21(2), 1976, for bounds.
    """

    line_search: LineSearch = setting(default=armijo(), range=OneOf(LINE_SEARCHES, "line search"))
