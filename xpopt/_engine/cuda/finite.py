"""Whether gradients on a CUDA device are finite, tested there: one launch for each dtype and limit, without a sync."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._arrays.parameter import dtype_text
from ..._print.cuda import OPTIONS, THREADS, print_finite
from ..limits import LARGEST
from .device import Source, Table, device
from .kernel import table_of


def all_within(grads: Sequence[Any], limits: Sequence[float]) -> Any | None:
    """Say whether gradients are finite, and no element is larger than a limit.

    Parameters
    ----------
    grads : sequence of cupy.ndarray
        All on one device; at least one.
    limits : sequence of float
        Of the magnitudes in each.

    Returns
    -------
    cupy.ndarray of bool, shape (), or None
        On the device. None where an array is not contiguous, or no kernel can be compiled.
    """
    ndarray = sys.modules["cupy"].ndarray
    flags = [x.flags for x in grads if type(x) is ndarray]
    if len(flags) < len(grads) or not all(of.c_contiguous or of.f_contiguous for of in flags):
        return None
    on = device(grads[0].data.device_id)
    alike: dict[tuple[Any, Any], list[Any]] = {}
    for x, limit in zip(grads, limits, strict=True):
        compute = "float64" if x.dtype == np.float64 else "float32"
        largest = np.dtype(compute).type(min(limit, LARGEST[compute]))
        alike.setdefault((x.dtype, largest), []).append(x)
    launches = []
    for (dtype, largest), members in alike.items():
        addresses = np.array([[x.data.ptr for x in members]], np.int64)
        data, pieces = table_of(addresses, np.array([x.size for x in members], np.int64), 0)
        source = _source(dtype_text(dtype))
        if source.why_not(on, len(data)) is not None:
            return None
        if pieces:
            launches.append((source, data, pieces, len(members), largest))
    finite = on.true()
    for source, data, pieces, tensors, largest in launches:
        check_finite = source.kernels(on, len(data))["check_finite"]
        with on.current(), Table(on, data).sent() as table:
            check_finite((pieces,), (THREADS,), (table, np.int32(tensors), largest, finite))
    return finite


@functools.cache
def _source(dtype: str) -> Source:
    return Source(print_finite(dtype), ["check_finite"], OPTIONS)
