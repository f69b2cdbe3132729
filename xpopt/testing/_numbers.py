"""Checks of numbers: against the formula, on every engine and library, in every dtype, shape and layout."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import numpy as np

from .._engine.choice import engine
from ..optimizers.base import OptimizerBase
from ._arrays import Arrays, assert_close, assert_same
from ._subject import STEPS, Subject, loss

ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-22, "float64": 2.0**-50}
"""The largest relative difference between two ways to compute a step: four roundings."""


def closed_form(subject: Subject, oracle: Callable[..., Any], tolerance: float) -> None:
    """Compare each step with the oracle."""
    opt, params = subject.make(), subject.params()
    settings = _settings_of(oracle, opt.hyperparameters)
    arrays = subject.arrays
    want = {name: arrays.numpy(x) for name, x in params.items()}
    memories = dict.fromkeys(want)
    for t in range(1, 2 * STEPS + 1):
        grads = subject.grads(t)
        params = opt.update_all(params, grads, loss(t))
        for name in want:
            pair = oracle(want[name], arrays.numpy(grads[name]), memories[name], t, **settings)
            want[name], memories[name] = np.asarray(pair[0], float), pair[1]
        assert_close(arrays.values(params), want, tolerance, f"step {t}")


def _settings_of(oracle: Callable[..., Any], settings: Any) -> dict[str, Any]:
    """Return the settings that the signature of an oracle names."""
    taken = inspect.signature(oracle).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in taken):
        return dict(settings)
    return {one.name: settings[one.name] for one in taken if one.name in settings}


def determinism(subject: Subject) -> None:
    """Train twice, and compare bits."""
    first, second = (subject.outcome(opt, subject.train(opt, subject.params())) for opt in _two(subject))
    assert_same(second, first, "the second run")


def _two(subject: Subject) -> Iterator[Any]:
    yield subject.make()
    yield subject.make()


def engines(subject: Subject) -> None:
    """Compare the engines that trace the rule with the eager one."""
    for dtype in ("float32", "float64"):
        found = {}
        for name in ("eager", "blocked", "compiled"):
            with engine(name), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a rule that cannot be traced warns, and runs eagerly
                found[name] = subject.arrays.values(subject.train(subject.make(), subject.params(dtype)))
        for name in ("blocked", "compiled"):
            tolerance = STEPS * ROUNDING[dtype]
            assert_close(
                found[name], found["eager"], tolerance, f"{dtype} on the engine {name!r}, compared with 'eager'"
            )


def as_on_numpy(subject: Subject) -> None:
    """Compare with NumPy's arrays."""
    beside = Subject(subject.make(), Arrays("numpy"), subject.shapes)
    dtype = subject.arrays.dtypes[-1]
    got = subject.train(subject.make(), subject.params(dtype))
    want = beside.train(beside.make(), beside.params(dtype))
    tolerance = 4 * STEPS * ROUNDING[dtype]  # libraries contract products and sums
    assert_close(subject.arrays.values(got), beside.arrays.values(want), tolerance, "compared with NumPy")


def dtypes(subject: Subject) -> None:
    """Check the results and the state in each dtype; 16 bits are computed in float32 and rounded."""
    arrays = subject.arrays
    for dtype in arrays.dtypes:
        opt, params = subject.make(), subject.params(dtype)
        new = subject.train(opt, params, last=2)
        for name, x in new.items():
            assert type(x) is type(params[name]), f"{name!r} is a {type(x).__name__}, not {type(params[name]).__name__}"
            assert x.dtype == params[name].dtype, f"{name!r} is {x.dtype}, not {params[name].dtype}"
        allowed = [arrays.dtype(one) for one in arrays.dtypes if one != "float64" or dtype == "float64"]
        for name, slot, x in _slots(opt, params):
            assert type(x) is type(params[name]), f"{slot!r} of {name!r} is a {type(x).__name__}"
            assert x.dtype in allowed, f"{slot!r} of {name!r} is {x.dtype}, and {name!r} is {dtype}"
    for dtype in arrays.dtypes[: arrays.dtypes.index("float32")]:
        start, grads = subject.params(dtype), subject.grads(1, dtype)
        got = arrays.values(subject.make().update_all(start, grads, loss(1)))
        start, grads = (_in_float32(arrays, one) for one in (start, grads))
        want = arrays.values(subject.make().update_all(start, grads, loss(1)))
        assert_close(got, want, 1.5 * ROUNDING[dtype], f"{dtype}, compared with float32")


def _slots(opt: OptimizerBase, params: Mapping[Hashable, Any]) -> Iterator[tuple[Hashable, str, Any]]:
    """Yield all arrays of the state, with the names of parameter and slot."""
    for name in params:
        entry = opt.cache.get(name, {})
        for slot, x in entry.items() if isinstance(entry, Mapping) else [("state", entry)]:
            if hasattr(x, "dtype"):
                yield name, slot, x


def _in_float32(arrays: Arrays, tree: dict[Hashable, Any]) -> dict[Hashable, Any]:
    return {name: arrays.array(arrays.numpy(x), "float32") for name, x in tree.items()}


def shapes(subject: Subject) -> None:
    """Check the shapes of results, and the values for arrays in other orders and with other strides."""
    arrays, xp = subject.arrays, subject.arrays.xp
    params = subject.params()
    opt, new = subject.make(), params
    for k in (1, 2):
        new = opt.update_all(new, subject.grads(k), loss(k))
        for name, x in params.items():
            came, wanted = tuple(new[name].shape), tuple(x.shape)
            assert came == wanted, f"{name!r} has shape {came}, not {wanted}"
    for how, lay in (("transposed", _transposed), ("a slice", _sliced)):
        other = subject.make()
        laid: Any = params
        for k in (1, 2):
            laid, grads = ({name: lay(xp, x) for name, x in one.items()} for one in (laid, subject.grads(k)))
            laid = other.update_all(laid, grads, loss(k))
        tolerance = STEPS * ROUNDING[arrays.dtypes[-1]]
        assert_close(arrays.values(laid), arrays.values(new), tolerance, f"{how}, compared with contiguous arrays")


def _transposed(xp: Any, x: Any) -> Any:
    """Return an array with the same values and the axes in reverse order in memory."""
    turned = xp.permute_dims(x, tuple(reversed(range(len(x.shape)))))
    laid = xp.reshape(xp.reshape(turned, (-1,)), turned.shape)  # reshaping copies, in the order of the axes
    return xp.permute_dims(laid, tuple(reversed(range(len(x.shape)))))


def _sliced(xp: Any, x: Any) -> Any:
    """Return an array with the same values that is a view of every second element of another."""
    if not math.prod(x.shape) or not x.shape:
        return x
    return xp.stack([x, x], axis=-1)[..., 0]
