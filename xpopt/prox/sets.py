"""Projections onto balls, simplices and spheres, which are not elementwise."""

from __future__ import annotations

import math
from typing import Any

from .._arrays.elements import FORMATS
from .._arrays.namespace import library_of
from .._arrays.norms import clip_factor, scaled
from .._arrays.typing import Namespace, Scalars
from .._settings.ranges import POSITIVE
from .._settings.setting import setting
from .base import Proximal
from .directions import directions, real_axis

_TOGETHER = "computes with all elements of a parameter together"


class l2_ball(Proximal):  # noqa: N801 - a map is called like a function
    r"""Scale an array down to an L2 norm of at most the radius.

    .. math:: \operatorname{prox}(x) = x \min(1, r / \lVert x \rVert_2)

    Parameters
    ----------
    radius : float
        The radius :math:`r`. Finite, greater than 0.

    Raises
    ------
    TypeError, ValueError
        `radius` is not a number, or out of range.

    Notes
    -----
    In an optimizer the radius is reduced by the largest rounding error of the parameter's dtype, a fraction of 2**-7 in
    bfloat16 and 2**-10 in float16, so that no parameter is outside of the ball. The norm is summed in float64 where the
    device has it.

    Examples
    --------
    >>> import numpy as np
    >>> import xpopt
    >>> xpopt.prox.l2_ball(1.0)(np, np.array([3.0, 4.0])).round(6)
    array([0.6, 0.8])
    """

    radius: float = setting(range=POSITIVE)

    whole = f"l2_ball {_TOGETHER}"
    rounded = ("radius", "least")

    def numbers(self) -> dict[str, Any]:
        """Return the radius, and what rounding adds to an element however small it is, of each dtype."""
        found: dict[str, Any] = {}
        number = self.formula().number
        for dtype, (digits, smallest, _) in {"": (53, -1074, 0.0), **FORMATS}.items():
            units = 1 if dtype in ("float16", "bfloat16") else 2  # in the others the arithmetic rounds as well
            found[number("radius", dtype)] = self.radius * (1 - 2.0 ** (units - digits))
            found[number("least", dtype)] = 2.0**smallest
        return found

    @staticmethod
    def project(xp: Namespace, x: Any, s: Any, h: Scalars) -> Any:
        """The map; NaN everywhere where the norm is not finite."""
        x = xp.asarray(x)  # NumPy makes scalars of 0-d arrays
        radius = h.radius - getattr(h, "least", 0.0) * math.sqrt(math.prod(x.shape))
        if radius <= 0:
            return xp.zeros_like(x)
        library = library_of(x)
        assert library is not None
        return scaled(xp, x, *clip_factor(xp, x, radius, float64=library.has_float64(x)))

    project_complex = project


class unit_rows(Proximal):  # noqa: N801
    r"""Give each row, along the last axis, an L2 norm of 1.

    .. math:: \operatorname{prox}(x)_i = x_i / \lVert x_i \rVert_2

    A row of zeros becomes one of equal elements. A vector is one row. Norms are 1 up to the rounding of each element.

    Examples
    --------
    >>> import numpy as np
    >>> import xpopt
    >>> xpopt.prox.unit_rows()(np, np.array([[3.0, 4.0], [0.0, -2.0]])).round(6)
    array([[ 0.6,  0.8],
           [ 0. , -1. ]])
    """

    whole = f"unit_rows {_TOGETHER}"

    @staticmethod
    def project(xp: Namespace, x: Any, s: Any, h: Scalars) -> Any:
        """The map, with sums in float64 where the device has it."""
        if 0 in x.shape:
            return x
        rows = _rows(xp, x, 1)
        unit = directions(xp, rows, -1, rows.shape[-1] ** -0.5)
        return xp.reshape(xp.astype(unit, x.dtype), x.shape)

    @staticmethod
    def project_complex(xp: Namespace, x: Any, s: Any, h: Scalars) -> Any:
        """The same of complex elements."""
        if 0 in x.shape:
            return x
        rows = _rows(xp, x, 2)
        unit = directions(xp, rows, (-2, -1), rows.shape[-2] ** -0.5 * real_axis(xp, rows))
        return xp.reshape(xp.astype(unit, x.dtype), x.shape)


class simplex(Proximal):  # noqa: N801
    r"""The nearest point of the probability simplex, of each row along the last axis.

    .. math::

        \operatorname{prox}(x)_i = \max(x_i - \theta, 0), \qquad \text{with } \theta \text{ such that they add up to } c

    Elements are at least 0. Their sum is the total up to the rounding of each. A vector is one row.

    Parameters
    ----------
    total : float
        The sum :math:`c` of a row. Finite, greater than 0.

    Raises
    ------
    TypeError, ValueError
        `total` is not a number, or out of range.

    References
    ----------
    .. [1] Held, Wolfe and Crowder, "Validation of subgradient optimization", Mathematical Programming 6, 1974,
       section 3: :math:`\theta` is the largest of the means of the k largest elements, each less :math:`c / k`.

    Examples
    --------
    >>> import numpy as np
    >>> import xpopt
    >>> xpopt.prox.simplex()(np, np.array([0.5, 1.0, -1.0]))
    array([0.25, 0.75, 0.  ])
    """

    total: float = setting(default=1.0, range=POSITIVE)

    whole = f"simplex {_TOGETHER}"

    @staticmethod
    def project(xp: Namespace, x: Any, s: Any, h: Scalars) -> Any:
        """The map, with sums in float64 where the device has it."""
        if 0 in x.shape:
            return x
        rows = _rows(xp, x, 1)
        rows = rows - xp.max(rows, axis=-1, keepdims=True)  # a shift changes nothing, and large sums lose the total
        falling = xp.sort(rows, axis=-1, descending=True)
        library = library_of(rows)
        assert library is not None
        counts = xp.astype(library.arange(rows.shape[-1], falling), rows.dtype) + 1.0
        theta = xp.max((xp.cumulative_sum(falling, axis=-1) - h.total) / counts, axis=-1, keepdims=True)
        rest = rows - theta
        return xp.reshape(xp.astype(xp.where(rest < 0.0, 0.0, rest), x.dtype), x.shape)


def _rows(xp: Namespace, x: Any, axes: int) -> Any:
    """Return an array with at least so many axes, in float64 where the device has it."""
    x = xp.asarray(x)  # NumPy makes scalars of 0-d arrays
    library = library_of(x)
    assert library is not None
    wide = xp.astype(x, xp.float64, copy=False) if library.has_float64(x) else x
    return wide if len(x.shape) >= axes else xp.reshape(wide, (1, *x.shape))
