"""The source that is generated from a rule."""

from __future__ import annotations

from ._arrays.library import LOW, PAIRS, SUPPORTED
from ._graph.passes import cut
from ._graph.reading import graph_of
from ._print.accumulated import accumulated
from ._print.cuda import print_cuda
from ._print.llvm import print_llvm, print_measure
from ._print.numpy import print_numpy
from ._settings.text import short
from .optimizers.base import OptimizerBase

TARGETS = ("numpy", "llvm", "cuda")


def kernel_source(
    opt: OptimizerBase, target: str = "numpy", dtype: str = "float32", *, shape: tuple[int, ...] = (1,)
) -> str:
    '''Return the source that is generated from an optimizer's rule.

    Parameters
    ----------
    opt : OptimizerBase
        The optimizer. Its current hyperparameters determine the rule, whether gradients are clipped, and how parameters
        are rounded.
    target : {"numpy", "llvm", "cuda"}
        What runs it: calls of NumPy's functions on blocks of one array, or, for many arrays at once, a loop in LLVM's
        assembly or kernels in CUDA C.
    dtype : {"float16", "bfloat16", "float32", "float64"}
        The dtype of the parameter. The first two are computed in float32; with ``"numpy"``, the conversion is not part
        of the source.
    shape : tuple of int
        The shape of the parameter, for an optimizer that chooses its rule by it.

    Returns
    -------
    str
        The source, with the rule's own names. If the rule reduces whole arrays, the source of the reductions comes
        first; parameters of up to 16 384 elements have one kernel of both in machine code, with the same operations.

    Raises
    ------
    ValueError
        There is no such target or dtype.
    TypeError
        `opt` is no optimizer, or the rule cannot be traced; the message says where and why.

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
    if not isinstance(opt, OptimizerBase):
        raise TypeError(f"opt={short(opt)} is a {type(opt).__name__}; wanted an optimizer, such as Adam()")
    if target not in TARGETS:
        raise ValueError(f"target={short(target)} is unknown; wanted one of {', '.join(TARGETS)}")
    if dtype not in SUPPORTED:
        of_parts = ", that of its parts" if dtype in tuple(PAIRS) else ""
        raise ValueError(f"dtype={short(dtype)} is unknown; wanted one of {', '.join(SUPPORTED)}{of_parts}")
    settings = opt._parts.settings
    h = settings.numbers_at(1)
    rule = settings.rule.of(dtype, tuple(shape))
    if rule.whole:
        raise TypeError(f"{type(opt).__name__} has no kernel: {rule.whole}")
    graph = graph_of(rule, h, clipped=h.clip_norm is not None)
    dtypes = rule.dtypes("float64" if dtype == "float64" else "float32")
    kept = [dtypes[k] for k in rule.wide] if rule.narrow else ()
    drawn = settings.draws and dtype in LOW
    if target == "cuda":
        return print_cuda(graph, dtype, drawn=drawn, kept=kept)
    before, last = cut(graph)
    if target == "numpy":
        texts = [print_numpy(one.parts.arrays, stored=False).text for one in before]
        return "\n\n".join([*texts, print_numpy(last.arrays).text])
    texts = [print_measure(one.parts.arrays, accumulated(one, dtype), dtype, slots=kept) for one in before]
    return "\n\n".join([*texts, print_llvm(last.arrays, dtype, drawn=drawn, slots=kept)])
