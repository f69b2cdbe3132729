"""Checks of state: copies, files and text, errors, and arrays of the caller."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..config import make_optimizer
from ._arrays import assert_same
from ._subject import STEPS, Subject, loss

HALF = STEPS // 2


def resume(subject: Subject) -> None:
    """Save in the middle of a training, and continue with another optimizer."""
    opt = subject.make()
    middle = subject.train(opt, subject.params(), last=HALF)
    state = opt.state_dict()
    state["header"] = json.loads(json.dumps(state["header"]))
    loaded = subject.make()
    loaded.load_state_dict(state)
    _go_on(subject, opt, {"the loaded one": loaded}, middle)


def copies(subject: Subject) -> None:
    """Copy in the middle of a training, and continue with each copy."""
    opt = subject.make()
    middle = subject.train(opt, subject.params(), last=HALF)
    twins = {"a copy": opt.copy(), "a deep copy": copy.deepcopy(opt)}
    if getattr(sys.modules.get(subject.cls.__module__), subject.cls.__qualname__, None) is subject.cls:
        twins["a pickle"] = pickle.loads(pickle.dumps(opt))
    for what, twin in twins.items():
        assert type(twin) is subject.cls, f"{what} is a {type(twin).__name__}"
    _go_on(subject, opt, twins, middle)


def _go_on(subject: Subject, opt: Any, others: Mapping[str, Any], middle: Any) -> None:
    ends = {what: subject.outcome(one, subject.train(one, middle, HALF + 1)) for what, one in others.items()}
    want = subject.outcome(opt, subject.train(opt, middle, HALF + 1))
    for what, end in ends.items():
        assert_same(end, want, f"{what}, after {STEPS} steps")


def text(subject: Subject) -> None:
    """Make an optimizer from the text of another."""
    opt = subject.make()
    again = make_optimizer(str(opt))
    assert type(again) is subject.cls, f"{opt} makes a {type(again).__module__}.{type(again).__qualname__}"
    assert again.hyperparameters == opt.hyperparameters, f"{opt} makes {again}"


def one_by_one(subject: Subject) -> None:
    """Call `update` for each parameter, and `step`."""
    opt, params = subject.make(), subject.params()
    for k in range(1, HALF + 1):
        grads = subject.grads(k)
        try:
            params = {name: opt.update(x, grads[name], name, loss(k)) for name, x in params.items()}
        except TypeError as error:
            if "update_all" in str(error):  # a rule that reads the whole model, and says so
                return
            raise
        opt.step()
    whole = subject.make()
    want = subject.outcome(whole, subject.train(whole, subject.params(), last=HALF))
    assert_same(subject.outcome(opt, params), want, "with update and step, compared with update_all")


def inputs(subject: Subject) -> None:
    """Compare parameters and gradients before and after a step, and overwrite them between steps."""
    opt, params = subject.make(), subject.params()
    arrays = subject.arrays
    for k in range(1, HALF + 1):
        grads = subject.grads(k)
        before = arrays.values({"params": params, "grads": grads})
        new = opt.update_all(params, grads, loss(k))
        assert_same(arrays.values({"params": params, "grads": grads}), before, "the arrays that were passed")
        if arrays.is_mutable:
            for x in [*params.values(), *grads.values()]:
                if not any(x is one for one in new.values()):  # such as a frozen parameter
                    x[...] = np.nan
        params = new
    other = subject.make()
    want = subject.outcome(other, subject.train(other, subject.params(), last=HALF))
    assert_same(subject.outcome(opt, params), want, "after the arrays that were passed were overwritten")


def in_place(subject: Subject) -> None:
    """Write the results into the parameters."""
    opt, params = subject.make(), subject.params()
    for k in range(1, HALF + 1):
        new = opt.update_all(params, subject.grads(k), loss(k), out=params)
        assert new is params, "the return value is not out"
    other = subject.make()
    want = subject.outcome(other, subject.train(other, subject.params(), last=HALF))
    assert_same(subject.outcome(opt, params), want, "with out=params")


def bad_input(subject: Subject) -> None:
    """Pass invalid gradients at the first step and in the middle, and continue."""
    arrays = subject.arrays
    opt, params = subject.make(), subject.params()
    for k in range(1, HALF + 1):
        good = subject.grads(k)
        last = list(good)[-1]
        wrong = {
            "a gradient of another shape": {**good, last: arrays.array(np.ones((7, 7)))},
            "a gradient of integers": {**good, last: arrays.xp.zeros(params[last].shape, dtype=arrays.xp.int32)},
            "a gradient that is text": {**good, last: "gradient"},
            "a missing gradient": {name: x for name, x in good.items() if name != last},
            "a gradient without a parameter": {**good, "unknown": arrays.array(np.ones(1))},
        }
        for what, grads in wrong.items():
            before = subject.outcome(opt, params)
            _refused(partial(opt.update_all, params, grads, loss(k)), what)
            assert_same(subject.outcome(opt, params), before, f"after {what}")
        params = opt.update_all(params, good, loss(k))
    other = subject.make()
    want = subject.outcome(other, subject.train(other, subject.params(), last=HALF))
    assert_same(subject.outcome(opt, params), want, "after invalid gradients")


def _refused(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except (TypeError, ValueError):
        return
    raise AssertionError(f"{what} was accepted")


def no_wait(subject: Subject) -> None:
    """Update Dask arrays that cannot be computed, or trace the update with JAX."""
    if subject.arrays.name == "jax":
        jax: Any = sys.modules["jax"]
        pure, params = subject.make().pure(), subject.params()
        slots = pure.init(params)
        jax.eval_shape(pure.update, params, subject.grads(1), slots, pure.numbers(loss(1)))
        return
    dask: Any = sys.modules["dask.array"]

    def refuse(block: Any) -> Any:
        raise AssertionError("an update computed values of a lazy array")

    opt, params = subject.make(), subject.params()
    for k in (1, 2):
        grads = {
            name: dask.map_blocks(refuse, x, dtype=x.dtype, meta=np.empty((0,) * x.ndim, x.dtype))
            for name, x in subject.grads(k).items()
        }
        params = opt.update_all(params, grads, loss(k))
