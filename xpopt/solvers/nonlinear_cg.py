"""Nonlinear conjugate gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from .._arrays.typing import Array
from .._settings.ranges import Choice
from .._settings.setting import setting
from .._settings.value import OneOf
from ._method import Memory, Method, Numbers
from ._vectors import Space
from .linesearch import LINE_SEARCHES, LineSearch, strong_wolfe


class NonlinearCG(Method):
    r"""Nonlinear conjugate gradients: the negative gradient plus a multiple of the last direction.

    .. math:: d_{k+1} = -g_{k+1} + \beta_k d_k, \qquad y_k = g_{k+1} - g_k

    with, of Polak and Ribiere, and of Hager and Zhang,

    .. math::

        \beta^{PR+} = \max\left(0, \frac{y_k^T g_{k+1}}{g_k^T g_k}\right), \qquad
        \beta^{HZ} = \frac{1}{d_k^T y_k} \left(y_k - 2 d_k \frac{y_k^T y_k}{d_k^T y_k}\right)^T g_{k+1},
        \quad \beta^{HZ} \ge \frac{-1}{\lVert d_k \rVert \min(0.01, \lVert g_k \rVert)}

    It keeps one vector beside those of the search, seven in all.

    Parameters
    ----------
    beta : {"hager-zhang", "polak-ribiere"}
        Which share.
    line_search : LineSearch
        The line search. Conjugate gradients need a more exact one than quasi-Newton methods.

    Raises
    ------
    TypeError, ValueError
        `beta` is unknown, or `line_search` is not a line search.

    Notes
    -----
    It restarts with the negative gradient after six times as many steps as there are unknowns; with ``"polak-ribiere"``
    also where two gradients in a row are far from orthogonal, :math:`|g_{k+1}^T g_k| \ge 0.2\, g_{k+1}^T g_{k+1}`; and
    where a direction is not a descent direction.

    References
    ----------
    .. [1] Nocedal and Wright, "Numerical Optimization", 2nd edition, Springer 2006, eq. 5.44, 5.45 and 5.52.
    .. [2] Hager and Zhang, "A new conjugate gradient method with guaranteed descent and an efficient line search", SIAM
       Journal on Optimization 16(1), 2005, eq. 1.3 and 1.5 to 1.6.
    """

    beta: Literal["hager-zhang", "polak-ribiere"] = setting(
        default="hager-zhang", range=Choice(("hager-zhang", "polak-ribiere"))
    )
    line_search: LineSearch = setting(default=strong_wolfe(curvature=0.1), range=OneOf(LINE_SEARCHES, "line search"))

    bounded = False

    def memory(self, space: Space) -> Memory:
        """Return no direction.

        Parameters
        ----------
        space : Space
            Of the vectors.

        Returns
        -------
        Memory
            Empty.
        """
        return _LastDirection(space, self.beta)


class _LastDirection(Memory):
    """The last direction, and its share in the next one.

    Parameters
    ----------
    space : Space
        Of the vectors.
    beta : str
        Which share.
    """

    def __init__(self, space: Space, beta: str) -> None:
        super().__init__(space)
        self._beta = beta
        self._d: Any = None
        self._share = 0.0
        self._slope = 0.0  # of the gradient now along the last direction
        self._gg = 0.0  # the product of the last gradient with itself
        self._steps = 0  # since it began anew

    @property
    def empty(self) -> bool:  # type: ignore[override]
        return self._share == 0

    def measured(self, d: Array, g: Array, y: Array) -> list[Array]:
        return [self._space.dot(d, d)]

    def keep(self, step: float, x: Array, new: Array, d: Array, y: Array, found: Numbers) -> None:
        share = self._share_of(found, float(found.own[0]))
        self._steps += 1
        if self._steps >= 6 * self._space.size or not math.isfinite(share):
            share, self._steps = 0.0, 0
        self._d, self._share, self._slope = d, share, found.slope

    def _share_of(self, found: Numbers, dd: float) -> float:
        before = self._gg
        if self._beta == "polak-ribiere":
            far = abs(found.gg - found.yg) < 0.2 * found.gg and before > 0
            return max(0.0, found.yg / before) if far else 0.0
        if found.dy == 0 or before <= 0:
            return math.nan
        share = (found.yg - 2 * found.yy * found.slope / found.dy) / found.dy
        return max(share, -1 / (math.sqrt(dd) * min(0.01, math.sqrt(before))))

    def direction(self, g: Any, gg: float) -> tuple[Array, float]:
        self._gg = gg
        if self._share == 0:
            return -g, -gg
        return self._share * self._d - g, self._share * self._slope - gg

    def forget(self) -> None:
        self._share, self._steps = 0.0, 0

    def saved(self) -> tuple[dict[str, Any], dict[str, Array]]:
        arrays = {} if self._d is None else {"last": self._d}
        return {"share": self._share, "slope": self._slope, "gg": self._gg, "steps": self._steps}, arrays

    def restore(self, data: Mapping[str, Any], arrays: Mapping[str, Any], vector: Callable[[str], Array]) -> None:
        self._share, self._slope, self._gg = float(data["share"]), float(data["slope"]), float(data["gg"])
        self._steps = int(data["steps"])
        self._d = vector("last") if "last" in arrays else None
