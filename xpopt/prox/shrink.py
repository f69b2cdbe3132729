"""The map of the L1 norm: soft thresholding."""

from __future__ import annotations

from typing import Any

from .._arrays.elements import NumberOrArray
from .._arrays.library import PAIRS
from .._arrays.norms import norms_along
from .._arrays.typing import Namespace, Scalars
from .._settings.ranges import FLAG, NON_NEGATIVE
from .._settings.setting import setting
from .base import Proximal, of_element


class l1(Proximal):  # noqa: N801 - a map is called like a function
    r"""Move each element towards zero by the weight times the step, but not beyond zero.

    .. math:: \operatorname{prox}(x)_i = x_i - \min(\max(x_i, -\alpha_i \lambda_i), \alpha_i \lambda_i)

    This is the proximal map of :math:`\lambda \lVert x \rVert_1`: with it an optimizer minimizes the sum of the loss
    and this penalty, and elements become exactly 0. For complex elements the modulus shrinks.

    Parameters
    ----------
    weight : float or array
        The weight :math:`\lambda`, in units of the gradient: a number, or an array of the parameter's shape. Finite, at
        least 0.
    metric : bool
        Whether the step :math:`\alpha` of each element is that of a rule which divides by the magnitude of its
        gradients, such as :math:`\alpha / (\sqrt{\hat v} + \epsilon)` of Adam. If not, it is the learning rate.

    Raises
    ------
    TypeError, ValueError
        `weight` is not a number, or out of range; or `metric` is no truth value.

    Notes
    -----
    Adam divides gradients by their magnitude, but the learning rate alone does not scale the penalty in the same way,
    so the fixed point is not the minimum of the sum. With ``metric=True`` it is, as in [2]_.

    References
    ----------
    .. [1] Daubechies, Defrise and De Mol, "An iterative thresholding algorithm for linear inverse problems with a
       sparsity constraint", Communications on Pure and Applied Mathematics 57(11), 2004, eq. 2.4.
    .. [2] Melchior, Joseph and Moolekamp, "Proximal Adam: robust adaptive update scheme for constrained optimization",
       2019, arXiv:1910.10094, Algorithm 1, for `metric`.

    Examples
    --------
    >>> import numpy as np
    >>> import xpopt
    >>> xpopt.prox.l1(0.5)(np, np.array([2.0, 0.25, -1.0]))
    array([ 1.5,  0. , -0.5])
    >>> xpopt.SGD(lr=0.1, prox=xpopt.prox.l1(0.5)).update(np.array([1.0, 0.01]), np.zeros(2), "W")
    array([0.95, 0.  ])
    """

    weight: Any = setting(range=NumberOrArray(NON_NEGATIVE))
    metric: bool = setting(default=False, range=FLAG, kw_only=True)

    @property
    def by_metric(self) -> bool:  # type: ignore[override]
        """Whether the step is that of each element."""
        return self.metric

    def check_dtype(self, dtype: str, what: str) -> None:
        """Raise a TypeError if the rates of the two parts of a complex number would differ.

        Parameters
        ----------
        dtype : str
            The parameter's.
        what : str
            What it is called, for the message.

        Raises
        ------
        TypeError
            They would.
        """
        if self.metric and dtype in PAIRS:
            raise TypeError(
                f"prox={self}: the two parts of a complex number have different rates, and {what} is {dtype}; leave "
                f"metric=True out"
            )

    @staticmethod
    def project(xp: Namespace, x: Any, s: Any, h: Scalars) -> Any:
        """The map of real elements."""
        most: Any = h.lr * of_element(s, h, "weight")
        return x - xp.where(x > most, most, xp.where(x < -most, -most, x))

    @staticmethod
    def project_complex(xp: Namespace, x: Any, s: Any, h: Scalars) -> Any:
        """The same of the modulus, which no part overflows."""
        most: Any = h.lr * of_element(s, h, "weight")
        scale, modulus = norms_along(xp, x, -1)
        rest = modulus - most / scale
        factor = xp.where(rest < modulus, rest / modulus, 1.0)  # of what is infinite, 1
        return x * xp.where(rest < 0.0, 0.0, factor)
