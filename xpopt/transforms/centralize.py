"""Gradients with a mean of zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._arrays.library import PAIRS
from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import FLAG
from .._settings.setting import setting
from .base import Transform


class Centralize(Transform):
    r"""Subtract from each row of a gradient the mean of the row.

    .. math:: g_i \leftarrow g_i - \operatorname{mean}(g_i)

    where :math:`g_i` is a slice along the first axis: the weights of one output. Gradients with fewer than two axes do
    not change.

    Parameters
    ----------
    centralize : bool
        True.

    Notes
    -----
    Means of rows are not fused: with it, an optimizer runs eagerly. Complex parameters are refused.

    References
    ----------
    .. [1] Yong, Huang, Hua and Zhang, "Gradient Centralization: A New Optimization Technique for Deep Neural Networks",
       ECCV 2020, arXiv:2004.01461, eq. 1, of weights whose outputs are the first axis.
    """

    centralize: bool = setting(default=True, range=FLAG)

    keyword = "centralize"
    whole = "centralize takes the mean of each row"

    @staticmethod
    def before(xp: Namespace, param: Array, grad: Any, s: Any, h: Scalars) -> Array:
        """Equation 1 of Yong et al."""
        if len(grad.shape) < 2 or 0 in grad.shape:
            return grad
        centred: Array = grad - xp.mean(grad, axis=tuple(range(1, len(grad.shape))), keepdims=True)
        return centred

    @staticmethod
    def limit(h: Scalars, largest: Any, size: Callable[[], Any]) -> Any:
        """A difference from the mean is at most twice as large as the largest element."""
        return 0.5 * largest

    def check_dtype(self, dtype: str, what: str) -> None:
        """Raise a ValueError for a complex parameter, whose parts would have one mean.

        Parameters
        ----------
        dtype : str
            The dtype of a parameter.
        what : str
            The parameter, for the message.
        """
        if dtype in PAIRS:
            raise ValueError(
                f"centralize=True is for real parameters, and {what} is {dtype}; give it centralize=False in a group"
            )
