"""Why a tensor has to be updated eagerly, whatever the others are."""

from __future__ import annotations

from typing import Any

from .._arrays.library import LOW
from .._graph.reading import graph_of
from .._graph.trace import UntraceableError
from .._settings.caller import warn
from . import kernels
from .choice import chosen
from .chunked.group import ChunkedGroup
from .cuda.group import CudaGroup
from .host import HostGroup
from .tensor import Tensor
from .viewed import ViewedGroup

_HOST = ("auto", "blocked", "compiled")
_FUSED = {"numpy": _HOST, "torch": _HOST, "cupy": ("auto", "cuda"), "dask": ("auto",)}
"""The libraries whose updates may be fused, and the choices of an engine that let them."""

_REFUSE = {"numpy": HostGroup.refuse, "torch": ViewedGroup.refuse, "cupy": CudaGroup.refuse}


def refusal(tensor: Tensor) -> str | None:
    """Return why a tensor has to be updated eagerly, whatever the others are; None if it need not. It warns once."""
    if tensor.as_float:
        return "the result is a float"
    reason = _refusal_of_library(tensor) or _refusal_of_arrays(tensor)
    if reason is None and tensor.clipped and tensor.rule.measured is not None:
        reason = "clip_norm is computed after another option has changed the gradients"
    if reason is None and is_narrow(tensor) and not _converts(tensor):
        reason = "a slot is of another dtype than the arithmetic"
    if reason is None and tensor.key is not None and not _is_in_c_order(tensor.param):
        reason = "kernels that round stochastically count places in C order"
    return reason or _untraceable(tensor) or _refusal_of_reductions(tensor)


def _is_in_c_order(x: Any) -> bool:
    return bool(x.is_contiguous() if hasattr(x, "is_contiguous") else x.flags.c_contiguous)


def is_narrow(tensor: Tensor) -> bool:
    """Whether a slot is of another dtype than the arithmetic."""
    if not tensor.rule.narrow:
        return False
    compute = kernels.name_of(tensor.spec.compute)
    return set(tensor.rule.dtypes(compute)) != {compute}


def _converts(tensor: Tensor) -> bool:
    """Whether a kernel reads and writes the slots in their dtypes: half as wide as the arithmetic, or as wide."""
    rule, compute = tensor.rule, kernels.name_of(tensor.spec.compute)
    dtypes = rule.dtypes(compute)
    wide = {dtypes[k] for k in rule.wide} <= ({"float64", "float32"} if compute == "float64" else {*LOW, "float32"})
    return wide and {dtypes[k] for k in rule.ones} <= {compute}


def awaits_arrays(tensor: Tensor) -> bool:
    """Whether an engine that fuses would take a tensor if it came in other arrays, or might."""
    return not tensor.as_float and _refusal_of_library(tensor) is None and _refusal_of_arrays(tensor) is not None


def _refusal_of_library(tensor: Tensor) -> str | None:
    """Return why no engine that fuses takes arrays of this library here, or None if one does."""
    library = tensor.library.name
    if library not in _FUSED:
        return f"no engine fuses updates of {library} arrays"
    if (choice := chosen()) != "auto" and choice not in _FUSED[library]:
        return f"the {choice} engine was chosen"
    return ChunkedGroup.refuse(tensor) if library == "dask" else None


def _refusal_of_arrays(tensor: Tensor) -> str | None:
    """Return why the engines that fuse do not take the arrays of a tensor, or None if they do."""
    return None if tensor.library.name == "dask" else _REFUSE[tensor.library.name](tensor)


def _untraceable(tensor: Tensor) -> str | None:
    """Return why a rule has no graph, and warn of it the first time; or None if it has one."""
    assert tensor.h is not None
    if not tensor.rule.fused:
        return tensor.rule.whole or "its class declares fused = False"
    try:
        graph_of(tensor.rule, tensor.h, clipped=tensor.clipped)
    except UntraceableError as error:
        warn_once(tensor.rule.made, "warned", f"{error}. It runs eagerly, one array operation at a time")
        return str(error)
    return None


def _refusal_of_reductions(tensor: Tensor) -> str | None:
    """Return why no engine fuses a rule that has a graph, if it reduces whole arrays; None if one does."""
    assert tensor.h is not None
    if not graph_of(tensor.rule, tensor.h, clipped=tensor.clipped).reductions():
        return None
    if tensor.spec.parts == 2 and not _is_in_c_order(tensor.param):
        return (
            "its rule reduces whole arrays, and complex numbers in Fortran order are in neither order as pairs of reals"
        )
    return None


def warn_once(warned: dict[Any, Any], cause: str, message: str) -> None:
    here = object()
    if warned.setdefault(cause, here) is here:  # one thread's, of those that come at once
        warn(message)
