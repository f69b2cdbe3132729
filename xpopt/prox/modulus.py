"""Maps that fix the modulus or the phase of elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._arrays.elements import FORMATS, NumberOrArray
from .._arrays.library import real_of
from .._arrays.typing import Namespace, Scalars
from .._settings.ranges import NON_NEGATIVE
from .._settings.setting import setting
from .base import Proximal, of_element
from .directions import directions, real_axis


class magnitude(Proximal):  # noqa: N801 - a map is called like a function
    r"""Give each element a modulus, and keep its phase or sign.

    .. math:: \operatorname{prox}(x)_i = a_i \frac{x_i}{|x_i|}

    and :math:`a_i` where :math:`x_i` is 0. It is the nearest point of a set that is not convex.

    Parameters
    ----------
    modulus : float or array
        The modulus :math:`a`: a number, or an array of the parameter's shape. Finite, at least 0.

    Raises
    ------
    TypeError, ValueError
        `modulus` is not a number, or out of range.

    References
    ----------
    .. [1] Fienup, "Phase retrieval algorithms: a comparison", Applied Optics 21(15), 1982, section III.

    Examples
    --------
    >>> import numpy as np
    >>> import xpopt
    >>> xpopt.prox.magnitude(2)(np, np.array([0.5, -3.0, 0.0]))
    array([ 2., -2.,  2.])
    >>> xpopt.prox.magnitude(2)(np, np.array([3 + 4j, 0])).round(6)
    array([1.2+1.6j, 2. +0.j ])
    """

    modulus: Any = setting(range=NumberOrArray(NON_NEGATIVE))

    def check_dtype(self, dtype: str, what: str) -> None:
        """Raise a ValueError if a modulus is above the numbers of a dtype.

        Parameters
        ----------
        dtype : str
            The parameter's.
        what : str
            What it is called, for the message.

        Raises
        ------
        ValueError
            It is.
        """
        *_, largest = FORMATS.get(real_of(dtype), (math.inf,))
        if np.any(np.asarray(self.modulus) > largest):
            raise ValueError(
                f"prox={self}: the largest number of {dtype}, the dtype of {what}, is {largest:g}; make it smaller"
            )

    @staticmethod
    def project(xp: Namespace, x: Any, s: Any, h: Scalars) -> Any:
        """The map of real elements; NaN stays."""
        wanted: Any = of_element(s, h, "modulus")
        return xp.where(x < 0.0, -wanted, xp.where(x >= 0.0, wanted, x))

    @staticmethod
    def project_complex(xp: Namespace, x: Any, s: Any, h: Scalars) -> Any:
        """The map of complex elements."""
        return of_element(s, h, "modulus") * directions(xp, x, -1, real_axis(xp, x))


class real_part(Proximal):  # noqa: N801
    """Set the imaginary part to 0, which gives the nearest real number; real elements do not change.

    Examples
    --------
    >>> import numpy as np
    >>> import xpopt
    >>> xpopt.prox.real_part()(np, np.array([3 + 4j, 1j]))
    array([3.+0.j, 0.+0.j])
    """

    @staticmethod
    def project(xp: Namespace, x: Any, s: Any, h: Scalars) -> Any:
        """The same elements."""
        return x

    @staticmethod
    def project_complex(xp: Namespace, x: Any, s: Any, h: Scalars) -> Any:
        """Their real parts, beside 0."""
        real = x[..., 0]
        return xp.stack([real, xp.zeros_like(real)], axis=-1)
