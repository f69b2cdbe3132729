"""A look at what runs behind an optimizer."""

from __future__ import annotations

from ._graph import trace
from ._print import print_numpy
from .optimizers import OptimizerBase

TARGETS = ("numpy",)


def kernel_source(opt: OptimizerBase, target: str = "numpy") -> str:
    '''Return the source that is generated from an optimizer's rule.

    Parameters
    ----------
    opt : OptimizerBase
        The optimizer; its present hyperparameters select the rule.
    target : {"numpy"}
        What the source is for.

    Returns
    -------
    str
        A function of the parameter, the gradient, the slots, where their new values go, arrays to work in, and the
        numbers of the step.

    Raises
    ------
    ValueError
        There is no such target.
    TypeError
        The rule cannot be traced; the message says where and why.

    Examples
    --------
    >>> import xpopt
    >>> print(kernel_source(xpopt.SGD(momentum=0.9)))
    def kernel(param, grad, velocity, new_param, new_velocity, x0, x1, c0, c1):
        """SGD.rule, as calls of NumPy's ufuncs."""
        # c0 = h.momentum
        # c1 = h.lr
        multiply(c0, velocity, x0)
        multiply(c1, grad, x1)
        add(x0, x1, new_velocity)
        subtract(param, new_velocity, new_param)
    <BLANKLINE>
    '''
    if target not in TARGETS:
        raise ValueError(f"target {target!r}; wanted one of {', '.join(TARGETS)}")
    return print_numpy(trace(opt._rule(opt._values))).text
