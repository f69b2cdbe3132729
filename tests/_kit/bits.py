"""When two arrays have the same bits, and walks on this context's engine beside eager ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import xpopt

SPECIALS = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 1e-38, 3e38, -3e38])


def normal(rng: Any, shape: tuple[int, ...]) -> Any:
    return rng.standard_normal(shape)


def special(rng: Any, shape: tuple[int, ...]) -> Any:
    return rng.choice(SPECIALS, shape)


def dyadic(rng: Any, shape: tuple[int, ...]) -> Any:
    """Draw eighths, one of them 4 and none larger: every engine finds the same norm, whatever it adds up first."""
    values = np.array(rng.integers(-32, 33, shape) / 8)
    values.reshape(-1)[:1] = 4
    return values


WAYS: Mapping[str, Callable[..., dict[Any, Any]]] = {
    "update": lambda opt, params, grads: {name: opt.update(x, grads[name], name) for name, x in params.items()},
    "update in place": lambda opt, params, grads: {
        name: opt.update(x, grads[name], name, out=x) for name, x in params.items()
    },
    "update_all": lambda opt, params, grads: opt.update_all(params, grads),
    "update_all in place": lambda opt, params, grads: opt.update_all(params, grads, out=params),
    "update_all apart": lambda opt, params, grads: opt.update_all(
        params, grads, out={name: _another(x) for name, x in params.items()}
    ),
}
"""What a caller may write for one step of a model."""


def _another(x: Any) -> Any:
    """Return an array like one, with other values."""
    return np.full_like(x, 7) if isinstance(x, np.ndarray) else x.clone().fill_(7)


def compare(
    make: Any,
    shapes: Any,
    dtype: str,
    steps: int,
    draw: Any = normal,
    layout: Any = np.asarray,
    back: Any = lambda values: values,
) -> None:
    """Walk eagerly, and on this context's engine in every way; demand the same bits of parameters at every step.

    The state is looked at in the end alone: whoever looks at it sooner gets arrays of his own. The engine's arrays are
    what `layout` makes of NumPy's, and `back` makes NumPy's of them, in containers.
    """
    rng = np.random.default_rng(11)
    start = {shape: cast(draw(rng, shape), dtype) for shape in shapes}
    eager, params = make(), start
    walks = {way: (make(), {name: layout(x.copy()) for name, x in start.items()}) for way in WAYS}
    for _ in range(steps):
        grads = {shape: cast(draw(rng, shape), dtype) for shape in shapes}
        with xpopt.engine("eager"):
            params = eager.update_all(params, grads)
        grads = {name: layout(x) for name, x in grads.items()}
        for way, (opt, values) in walks.items():
            values.update(WAYS[way](opt, values, grads))
            assert same_bits(params, back(values)), way
    for way, (opt, _) in walks.items():
        assert same_bits(eager.cache, back(opt.cache)), way


def dtype_of(name: str) -> Any:
    """Return NumPy's dtype of that name."""
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def cast(values: Any, dtype: str) -> Any:
    """Return values as a new array of a dtype; those beyond it are infinite."""
    with np.errstate(all="ignore"):
        return np.array(values).astype(dtype_of(dtype))


def same_bits(a: Any, b: Any) -> bool:
    """Whether two arrays, or entries or containers of them, have the same bits; any NaN is as good as another."""
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(same_bits(a[key], b[key]) for key in a)
    if not isinstance(a, np.ndarray):
        return a == b
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    a, b = np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(b).reshape(-1)
    if a.dtype.kind == "c":
        a, b = (x.view(f"f{x.itemsize // 2}") for x in (a, b))
    bits = f"u{a.itemsize}"
    others = a.view(bits) != b.view(bits)
    return bool(np.all(np.isnan(a[others]) & np.isnan(b[others])))
