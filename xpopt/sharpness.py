"""Sharpness-aware minimization: the point at which its second gradient is computed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from ._arrays.leaves import norm_of, taken_in
from ._arrays.library import Library
from ._arrays.parameter import as_number, check_kinds, is_number
from ._arrays.tree import flatten, matched, rebuild, show
from ._arrays.typing import Array, Tree, TreeT
from ._settings.ranges import NON_NEGATIVE

__all__ = ["climb"]


def climb(params: TreeT, grads: Tree, rho: float) -> TreeT:
    r"""Return the parameters after a step of length `rho` up the loss, along the gradient of the whole model.

    .. math:: \hat\theta = \theta + \rho \, \frac{g}{\lVert g \rVert_2}

    Sharpness-aware minimization computes its second gradient at that point, and uses it to update the original
    parameters.

    Parameters
    ----------
    params : container of array, nested at will
        The parameters, as `OptimizerBase.update_all` takes them; only read. A float comes back as a float.
    grads : container with the names of `params`
        Their gradients, of any floating dtypes; only read. A parameter whose gradient is None is returned unchanged.
    rho : float
        The length of the step, in units of the parameters. Finite, at least 0.

    Returns
    -------
    containers of the kinds of `params`
        New arrays, each of the dtype of its parameter, with the values of the parameters if all gradients are 0. All
        elements are NaN if the norm is not finite, so that the error is not hidden.

    Raises
    ------
    TypeError
        A leaf is no array of floating-point numbers, or of another library than the first; `rho` is not a number.
    ValueError
        Missing or extra names, a gradient of another shape than its parameter, a leaf on another device than the first;
        or `rho` is out of range.

    See Also
    --------
    clipping.global_norm : The norm by which the gradients are divided.

    Notes
    -----
    The norm is that of all gradients together, in float64 where the device has it, and neither overflows nor
    underflows. The host does not wait for a GPU, and Dask arrays stay lazy. float16 and bfloat16 are rounded once.

    References
    ----------
    .. [1] Foret, Kleiner, Mobahi and Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving
       Generalization", ICLR 2021, arXiv:2010.01412, Algorithm 1 and eq. 2 with p = 2.

    Examples
    --------
    >>> import numpy as np
    >>> import xpopt
    >>> def slope(params):
    ...     return {"W": 2 * params["W"], "b": 2 * params["b"]}
    >>> params = {"W": np.array([3.0, 0.0]), "b": np.array(4.0)}
    >>> climb(params, slope(params), rho=0.5)
    {'W': array([3.3, 0. ]), 'b': array(4.4)}
    >>> opt = xpopt.SGD(lr=0.25)
    >>> for _ in range(2):
    ...     above = climb(params, slope(params), rho=0.5)
    ...     params = opt.update_all(params, slope(above))
    >>> params["W"].round(3), params["b"].round(3)
    (array([0.525, 0.   ]), np.float64(0.7))
    """
    rho = NON_NEGATIVE.check("climb", "rho", rho)
    all_params = flatten(params, "params")
    all_grads = matched(all_params, flatten(grads, "grads"), "grads")
    names = [name for name, grad in all_grads.items() if grad is not None]
    if not names:
        return rebuild(params, all_params.__getitem__)
    found = [(f"parameter {show(name)}", all_params[name]) for name in names]
    library, leaves = taken_in(found + [(f"gradient of {show(name)}", all_grads[name]) for name in names])
    assert library is not None
    pairs = dict(zip(names, zip(leaves[: len(names)], leaves[len(names) :], strict=True), strict=True))
    for name, (param, grad) in pairs.items():
        if param.shape != grad.shape:
            raise ValueError(
                f"gradient of {show(name)} has shape {tuple(grad.shape)}, the parameter has {tuple(param.shape)}"
            )
        check_kinds(param, grad, f"gradient of {show(name)}")
    moved = library.guard(_moved)(pairs[names[0]][0], library, pairs, rho)
    for name in names:
        if is_number(all_params[name]):
            moved[name] = as_number(moved[name])
    return rebuild(params, {**all_params, **moved}.__getitem__)


def _moved(
    first: Array, library: Library, pairs: Mapping[Hashable, tuple[Array, Array]], rho: float
) -> dict[Hashable, Any]:
    """Return the moved parameters by name; called with the library set up for the first array."""
    xp = library.xp
    rest: Any
    scale, rest = norm_of(library, [grad for _, grad in pairs.values()])
    there = rest > 0
    ones = xp.ones_like(rest)
    # The root of rho over the norm, by which gradients are multiplied twice: it is a number of every dtype, whatever
    # the norm, and so is every product.
    root = rho**0.5 / xp.sqrt(xp.where(there, scale, ones)) / xp.sqrt(xp.where(there, rest, ones))
    root = xp.where(there, root, xp.zeros_like(rest))
    root = xp.where(xp.isfinite(rest), root, xp.nan)
    moved = {}
    for name, (param, grad) in pairs.items():
        given, param, grad = param, library.reals(param), library.reals(grad)
        step = xp.astype(grad, library.compute_dtype(grad.dtype), copy=False)
        factor = xp.astype(root, step.dtype)
        compute = library.compute_dtype(param.dtype)
        new = xp.astype(param, compute, copy=False) + xp.astype(step * factor * factor, compute, copy=False)
        new = xp.asarray(xp.astype(new, param.dtype, copy=False))  # NumPy makes scalars of 0-d arrays
        moved[name] = library.from_reals(new, given)
    return moved
