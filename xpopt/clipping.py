"""Norms of gradients, and the factors that bound them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._typing import Array, Namespace


def clip_factor(xp: Namespace, grad: Array, clip_norm: float, *, float64: bool) -> Array:
    r"""Return the factor in (0, 1] that brings the L2 norm of `grad` down to `clip_norm`, or leaves it alone.

    Parameters
    ----------
    xp : Namespace
        The functions of the gradient's library.
    grad : array of any shape
        float16, bfloat16, float32 or float64.
    clip_norm : float
        The largest norm allowed, in units of `grad`. Greater than 0.
    float64 : bool
        Whether the device of `grad` can hold float64.

    Returns
    -------
    array of shape ()
        The factor in float64, or in the dtype of `grad` where there is no float64. NaN where the norm is not finite,
        so that a broken gradient stays visible. It is computed without a branch on a value: nothing waits for a GPU.

    Notes
    -----
    The norm of the narrower dtypes is summed in float64, where their squares neither overflow nor underflow. The rest
    is scaled by its largest magnitude first,

    .. math:: s = \max_i |g_i|, \quad r = \lVert g / s \rVert_2, \quad
              \text{factor} = \min\left(1, \frac{\text{clip\_norm} / s}{\max(r, 1)}\right)

    with :math:`s = 1` where it would be 0.

    References
    ----------
    .. [1] Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
       arXiv:1211.5063, Algorithm 1.
    """
    if 0 in grad.shape:
        return xp.ones((), dtype=grad.dtype)
    if float64 and grad.dtype != xp.float64:
        wide = xp.astype(grad, xp.float64)
        norm = xp.sqrt(xp.sum(wide * wide))
        above = norm > clip_norm
        # chosen twice, since a quotient of equals may miss 1 where a library multiplies by the reciprocal (torch)
        factor = xp.where(above, clip_norm / xp.where(above, norm, clip_norm), 1.0)
        return xp.where(xp.isfinite(norm), factor, xp.nan)
    largest = xp.max(xp.abs(grad))
    # XLA divides by a broadcast number by multiplying with its reciprocal, and flushes that to 0 above 1 / tiny
    scale = xp.minimum(largest, xp.full_like(largest, xp.finfo(grad.dtype).max / 8))
    scale = xp.where(largest > 0, scale, xp.ones_like(largest))
    scaled = grad / scale
    norm = xp.sqrt(xp.sum(scaled * scaled))
    factor = (clip_norm / scale) / xp.where(norm > 1, norm, xp.ones_like(norm))
    factor = xp.where(factor < 1, factor, xp.ones_like(factor))
    return xp.where(xp.isfinite(largest) & xp.isfinite(norm), factor, xp.full_like(factor, xp.nan))


def clip_factors(squares: Any, clip_norm: float) -> tuple[Any, Any]:
    """Return the factors for gradients whose squares have been summed in float64.

    Parameters
    ----------
    squares : ndarray of float64
        The sum of the squares of each gradient.
    clip_norm : float
        The largest norm allowed. Greater than 0.

    Returns
    -------
    factors : ndarray of float64
        As `clip_factor` returns them.
    unsure : ndarray of bool
        Where a gradient of float64 may have overflowed or underflowed in its sum; ask `clip_factor` there.
    """
    with np.errstate(all="ignore"):
        norms = np.sqrt(squares)
        factors = np.where(norms > clip_norm, clip_norm / norms, 1.0)
        factors[~np.isfinite(norms)] = np.nan
        return factors, ~np.isfinite(norms) | ((norms < _SAFE) & (clip_norm < _SAFE))


_SAFE = 1e-140
"""A norm below which float64 may have lost the squares of its elements."""


def clip(xp: Namespace, grad: Array, clip_norm: float, *, float64: bool) -> Array:
    """Return `grad` scaled to an L2 norm of at most `clip_norm`.

    Parameters
    ----------
    xp, grad, clip_norm, float64 : as for `clip_factor`
        The same.

    Returns
    -------
    array like `grad`
        ``grad * factor``, the factor rounded once to the dtype of `grad`.
    """
    return grad * xp.astype(clip_factor(xp, grad, clip_norm, float64=float64), grad.dtype)
