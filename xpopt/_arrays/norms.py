"""Norms that neither overflow nor underflow, and the factors that bound them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .typing import Array, Namespace


def clip_factor(xp: Namespace, grad: Array, clip_norm: float, *, float64: bool) -> tuple[Array, Array]:
    r"""Return two numbers whose product brings the L2 norm of `grad` down to `clip_norm`, or leaves it alone.

    Parameters
    ----------
    xp : Namespace
        The functions of the gradient's library.
    grad : array of any shape
        float32 or float64; the norm is right for float16 and bfloat16 too.
    clip_norm : float
        The largest norm allowed, in units of `grad`. Greater than 0.
    float64 : bool
        Whether the device of `grad` can hold float64.

    Returns
    -------
    scale : array of shape ()
        1, or the smallest normal number of float64 or float32, a power of two, where the factor alone would be less.
    factor : array of shape ()
        What is left, at most 1. NaN where the norm is not finite, so that a broken gradient stays visible.

        Both are float64, or float32 where there is no float64. They are computed without a branch on a value: nothing
        waits for a GPU.

    Notes
    -----
    The product is

    .. math:: \min\left(1, \frac{\text{clip\_norm} / s}{r}\right), \quad s r = \lVert g \rVert_2

    with `s` and `r` from `scaled_norm`. For a large gradient and a small `clip_norm` it can be too small for the dtype,
    although the clipped gradient is not. As two numbers it has all digits, and the product with `scale` is exact where
    that matters.

    References
    ----------
    .. [1] Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
       arXiv:1211.5063, Algorithm 1.
    """
    if 0 in grad.shape:
        one = xp.ones((), dtype=xp.float64 if float64 else xp.float32)
        return one, one
    return bounded(xp, *scaled_norm(xp, grad, float64=float64), clip_norm, LEAST[grad.dtype == xp.float64])


def scaled_norm(xp: Namespace, x: Array, *, float64: bool) -> tuple[Any, Any]:
    r"""Return the L2 norm of `x` as a product that neither overflows nor underflows.

    Parameters
    ----------
    xp : Namespace
        The functions of the array's library.
    x : array of any shape
        float16, bfloat16, float32 or float64; not empty.
    float64 : bool
        Whether its device can hold float64.

    Returns
    -------
    scale : float, or array of shape ()
    rest : array of shape ()
        The norm is ``scale * rest``. NaN or infinite where the norm is. float64, or float32 where there is none.

    Notes
    -----
    The norm of the narrower dtypes is summed in float64, where their squares neither overflow nor underflow. The rest
    is scaled by its largest magnitude first,

    .. math:: s = \max_i |x_i|, \quad r = \lVert x / s \rVert_2

    with :math:`s = 1` where it would be 0.
    """
    if x.dtype != xp.float64:
        x = xp.astype(x, xp.float64 if float64 else xp.float32, copy=False)
        if float64:
            return 1.0, xp.sqrt(xp.sum(x * x))
    largest = xp.max(xp.abs(x))
    scale = _divisor(xp, largest)
    parts = x / scale
    # where an element is infinite, the quotients say nothing
    return scale, xp.where(xp.isfinite(largest), xp.sqrt(xp.sum(parts * parts)), largest)


def norms_along(xp: Namespace, x: Array, axis: int | tuple[int, ...]) -> tuple[Any, Any]:
    """Return the L2 norms along some axes, which stay with a size of 1, as `scaled_norm` returns that of all."""
    scale = _divisor(xp, xp.max(xp.abs(x), axis=axis, keepdims=True))
    parts: Any = x / scale
    return scale, xp.sqrt(xp.sum(parts * parts, axis=axis, keepdims=True))


def joint_norm(xp: Namespace, arrays: Sequence[Array], *, float64: bool) -> tuple[Array, Array]:
    """Return the L2 norm of all of some arrays, as `scaled_norm` does of one."""
    return product_of_norms(xp, [scaled_norm(xp, x, float64=float64) for x in arrays])


def product_of_norms(xp: Namespace, norms: Sequence[tuple[Any, Any]]) -> tuple[Array, Array]:
    """Return the L2 norm of what has these norms, each of them and the result a product of two numbers."""
    scales, rests = [], []
    for scale, rest in norms:
        if isinstance(scale, float):
            scale, rest = rest, xp.ones_like(rest)
        scales.append(xp.where(rest > 0, scale, rest))  # 0 of zeros, of which it is 1
        rests.append(rest)
    all_scales = xp.stack(scales)
    scale = _divisor(xp, xp.max(all_scales))
    parts = all_scales / scale * xp.stack(rests)
    return scale, xp.sqrt(xp.sum(parts * parts))


def root_of_norm(xp: Namespace, scale: Any, rest: Array) -> Array:
    """Return the square root of ``scale * rest``, which may overflow itself; NaN where one is not finite."""
    root: Array = xp.sqrt(scale) * xp.sqrt(rest) + (scale - scale) + (rest - rest)
    return root


def _divisor(xp: Namespace, largest: Array) -> Array:
    """Return what numbers of which this is the largest are divided by; they are then 8 at most."""
    # XLA divides by a broadcast number by multiplying with its reciprocal, and flushes that to 0 above 1 / tiny
    scale = xp.minimum(largest, xp.full_like(largest, xp.finfo(largest.dtype).max / 8))
    return xp.where(scale > 0, scale, xp.ones_like(scale))


def bounded(xp: Namespace, scale: Any, rest: Array, clip_norm: float, least: float) -> tuple[Array, Array]:
    """Return what `clip_factor` does for a norm of ``scale * rest``; `least` is the smallest normal number."""
    half = least**-0.5  # a power of two
    bound = clip_norm / scale
    above = rest > bound
    # chosen twice, since a quotient of equals may miss 1 where a library multiplies by the reciprocal (torch)
    divisor = xp.where(above, rest, bound)
    large = clip_norm * half / (scale / half) / divisor  # the factor divided by `least`
    small = large < 1
    ones = xp.ones_like(rest)
    factor = xp.where(above, xp.where(small, large, bound / divisor), ones)
    return xp.where(small, least, ones), xp.where(xp.isfinite(rest), factor, xp.nan)


def clip_factors(squares: Any, clip_norms: Any, grads: Sequence[Any]) -> Any:
    """Return the factors for gradients of NumPy whose squares have been summed in float64.

    Parameters
    ----------
    squares : ndarray of float64, (gradients,)
        The sum of the squares of each gradient.
    clip_norms : float, or ndarray of float64, (gradients,)
        The largest norm allowed, of all or of each. Greater than 0.
    grads : sequence of ndarray
        The gradients, of one dtype.

    Returns
    -------
    ndarray of float64 or float32, (2, gradients)
        The scales and the factors, as `clip_factor` returns them, rounded to the dtype that the gradients are computed
        in.
    """
    wide = grads[0].dtype == np.float64
    least = LEAST[wide]
    found = np.ones((2, len(grads)), np.float64 if wide else np.float32)
    with np.errstate(all="ignore"):
        norms = np.sqrt(squares)
        factors = np.minimum(clip_norms / norms, 1.0)
        smallest = clip_norms if isinstance(clip_norms, float) else clip_norms.min()
        if smallest >= _SAFE and (factors >= least).all():  # nearly always
            found[1] = factors
            return found
        found[:] = bounded(np, 1.0, norms, clip_norms, least)
        if wide:  # its sums may have overflowed or underflowed
            of_each = np.broadcast_to(clip_norms, norms.shape)
            for k in np.flatnonzero(~np.isfinite(norms) | (norms < _SAFE)).tolist():
                found[:, k] = clip_factor(np, grads[k], float(of_each[k]), float64=True)
    return found


LEAST = {True: 2.0**-1022, False: 2.0**-126}
"""The smallest normal number of what a gradient is computed in: of float64, or of float32."""

_SAFE = 1e-140
"""A norm below which float64 may have lost the squares of its elements."""


def scaled(xp: Namespace, grad: Array, scale: Array, factor: Array) -> Array:
    """Return `grad` times two numbers, each rounded once to its dtype."""
    return grad * xp.astype(scale, grad.dtype) * xp.astype(factor, grad.dtype)


def clip(xp: Namespace, grad: Array, clip_norm: float, *, float64: bool) -> Array:
    """Return `grad` scaled to an L2 norm of at most `clip_norm`.

    Parameters
    ----------
    xp, grad, clip_norm, float64 : as for `clip_factor`
        The same.

    Returns
    -------
    array like `grad`
        ``grad * scale * factor``, the factor rounded once to the dtype of `grad`.
    """
    return scaled(xp, grad, *clip_factor(xp, grad, clip_norm, float64=float64))
