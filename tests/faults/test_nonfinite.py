"""Gradients that are not finite: a step with one goes on, is left out and counted, or is an error."""

from __future__ import annotations

import pickle
import signal
import threading
import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit.interrupts import interrupted_at
from _kit.rows import rows
from _kit.states import (
    KING,
    SCHEDULERS,
    CountingScheduler,
    advance,
    equal,
    every_optimizer,
    every_scheduler,
    frozen,
    held,
    model,
    nothing_changes,
    outlook,
    same,
    writes,
)

import xpopt
from xpopt._engine import choose

pytestmark = pytest.mark.any_width

ON_HOST = ("numpy", "numpy-readonly", "array-api-strict", "torch")
ON_DEVICE = ("jax", "jax-x64", "dask", "cupy")
on_host = pytest.mark.backends(*ON_HOST)
on_device = pytest.mark.backends(*ON_DEVICE)
not_dask = pytest.mark.backends(*ON_HOST, "jax", "jax-x64", "cupy")

BAD = pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=["nan", "inf", "-inf"])
ENORMOUS = {"float16": 65504.0, "bfloat16": 3.38e38, "float32": 3.4e38, "float64": 1.7e308}

SHAPES = {"number": (), "none": (0,), "one": (1,), "matrix": (3, 4), "blocks": (2, 40_000)}


@pytest.fixture(autouse=True)
def quiet_dask(request: pytest.FixtureRequest) -> Any:
    """Dask's arithmetic runs where its values are asked for: here, where NumPy warns of what is not finite."""
    with warnings.catch_warnings():
        if "backend" in request.fixturenames and request.getfixturevalue("backend").library == "dask":
            warnings.simplefilter("ignore", RuntimeWarning)
        yield


def spoilt(backend: Any, grad: Any, bad: float = np.nan, place: int = -1) -> Any:
    """The same gradient with one bad element, the last unless another is named."""
    values = backend.numpy(grad)
    values.reshape(-1)[place] = bad
    with np.errstate(all="ignore"):
        return backend.array(values, str(grad.dtype).rpartition(".")[2])


def some_bad(backend: Any, grads: dict[Any, Any], name: Any = "b", bad: float = np.nan) -> dict[Any, Any]:
    return {**grads, name: spoilt(backend, grads[name], bad)}


def walk(backend: Any, opt: Any, steps: Any, params: Any = None, dtype: Any = None, *, in_place: bool = False) -> Any:
    """Make steps of the small model: each number is the scale of its gradients; a string names one that is spoilt."""
    if params is None:
        params, _ = model(backend, dtype)
        if in_place:
            params = {name: backend.writable(backend.numpy(x), dtype) for name, x in params.items()}
    for loss, step in enumerate(steps):
        _, grads = model(backend, dtype, scale=1.0 if isinstance(step, str) else step)
        if isinstance(step, str):
            grads, loss = some_bad(backend, grads, step), float("nan")
        params = opt.update_all(params, grads, loss, out=params if in_place else None)
    return params


# Left out


@on_host
@every_optimizer
@pytest.mark.parametrize(
    "scheduler",
    rows({str(x).partition("(")[0]: x for x in (*SCHEDULERS, CountingScheduler())}, ["KingScheduler"]),
)
@BAD
def test_a_step_with_a_bad_gradient_changes_nothing(backend, make, scheduler, bad):
    """At the first step and at a later one, by every way to call; King's history takes in no loss, were it NaN."""
    opt = make(lr_scheduler=scheduler, nonfinite="skip")
    params, grads = model(backend)
    spoilt_grads = some_bad(backend, grads, bad=bad)
    for loss in (np.nan, 5.0):
        before = opt.skipped
        with nothing_changes(backend, opt, params, spoilt_grads):
            assert same(backend, opt.update_all(params, spoilt_grads, loss), params)
            assert same(backend, opt.update(params["b"], spoilt_grads["b"], "b", loss), params["b"])
            assert same(backend, opt(params["b"], spoilt_grads["b"], "new", loss), params["b"])
        assert opt.skipped == before + 3
        params = opt.update_all(params, grads, 1.0)
        params = {name: opt.update(x, grads[name], name, 2.0) for name, x in params.items()}
        opt.step()


@on_host
@every_optimizer
@pytest.mark.parametrize("in_place", [False, True])
def test_the_steps_around_it_have_the_bits_of_a_run_without_it(backend, make, in_place):
    for dtype in backend.dtypes:
        for clip_norm in (None, 0.5):
            ends = []
            for steps in ([1, 2, 3, 4, 5], ["W", 1, 2, "b", 3, "W", "b", 4, 5, "W"]):
                opt = make(lr_scheduler=SCHEDULERS[1], clip_norm=clip_norm, nonfinite="skip")
                params = walk(backend, opt, steps, dtype=dtype, in_place=in_place and backend.mutable)
                ends.append((frozen(backend, params), held(backend, opt)))
                assert opt.skipped == 5 * (len(steps) > 5)
            assert ends[0] == ends[1]


@on_host
def test_king_goes_on_as_if_the_losses_of_skipped_steps_had_not_been(backend):
    ends = []
    for steps in ([1, 2, 3, 4, 5], [1, "W", 2, "b", 3, 4, "W", 5]):
        opt = xpopt.Adam(lr_scheduler=KING, nonfinite="skip")
        params, losses = model(backend)[0], iter([1.0, 4.0, 2.0, 8.0, 9.0])
        for step in steps:
            _, grads = model(backend, scale=1.0 if isinstance(step, str) else step)
            grads = some_bad(backend, grads, step) if isinstance(step, str) else grads
            params = opt.update_all(params, grads, np.inf if isinstance(step, str) else next(losses))
        ends.append((frozen(backend, params), held(backend, opt)))
    assert ends[0] == ends[1]


@on_host
@BAD
@pytest.mark.parametrize("shape", [shape for shape in SHAPES.values() if 0 not in shape], ids=str)
def test_one_bad_element_anywhere_is_enough(backend, bad, shape):
    for dtype in backend.dtypes:
        grad = backend.array(np.full(shape, 0.5), dtype)
        for place in {0, int(np.prod(shape)) // 2, -1}:
            opt, broken = xpopt.SGD(lr=0.5, nonfinite="skip"), spoilt(backend, grad, bad, place)
            assert same(backend, opt.update(grad, broken, "W"), grad)
            assert same(backend, opt.update_all([grad, grad], [grad, broken]), [grad, grad])
            assert (opt.skipped, opt.cur_step, opt.cache) == (2, 0, {})


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("policy", rows({"skip": "skip", "raise": "raise"}, ["skip"]))
@pytest.mark.parametrize("shape", SHAPES.values(), ids=str)
def test_what_is_finite_is_made_however_large_it_is(backend, clip_norm, policy, shape):
    """Its squares and its sum are not finite. Neither must the parameter be, nor the result."""
    for dtype in backend.dtypes:
        grad = backend.array(np.full(shape, ENORMOUS[dtype]), dtype)
        param = backend.array(np.full(shape, np.nan), dtype)
        opt, other = (xpopt.SGD(lr=4.0, clip_norm=clip_norm, nonfinite=way) for way in (policy, "propagate"))
        for x in (grad, param):
            assert same(backend, opt.update(x, grad, "W"), other.update(x, grad, "W"))
            assert same(backend, opt.update_all([x], [grad]), other.update_all([x], [grad]))
        assert (opt.skipped, opt.cur_step) == (0, 2)


def test_subnormal_gradients_and_zeros_of_both_signs_are_finite(backend):
    for dtype in backend.dtypes:
        grad = backend.array([0.0, -0.0, 1e-45, 5e-324, 6e-8], dtype)
        opt = xpopt.Adam(nonfinite="skip")
        opt.update_all([grad], [grad])
        assert opt.skipped == 0


@every_optimizer
def test_by_default_it_goes_through_the_formula(backend, make):
    opt, told = make(), make(nonfinite="propagate")
    params, grads = model(backend)
    grads = some_bad(backend, grads)
    got = opt.update_all(params, grads)
    assert same(backend, got, told.update_all(params, grads))
    assert np.isnan(backend.numpy(got["b"])).tolist() == [False, False, True]
    assert np.isfinite(backend.numpy(got["W"])).all()
    assert (opt.skipped, opt.cur_step) == (0, 1)


@on_host
def test_update_leaves_out_its_own_parameter_alone(backend):
    """The pass goes on, at its one rate, with one loss: that of the first update that is made."""
    ends = []
    for broken in (False, True):
        opt = xpopt.Adam(lr_scheduler=CountingScheduler(), nonfinite="skip")
        params, grads = model(backend)
        if broken:
            assert same(backend, opt.update(params["W"], spoilt(backend, grads["W"]), "W", float("nan")), params["W"])
        params["b"] = opt.update(params["b"], grads["b"], "b", 3.0)
        if broken:
            opt.update(params["b"], spoilt(backend, grads["b"]), "b", 7.0)
        params["W"] = opt.update(params["W"], grads["W"], "W", 5.0)
        opt.step()
        ends.append((frozen(backend, params), held(backend, opt), outlook(backend, opt)))
        assert opt.skipped == 2 * broken
    assert ends[0] == ends[1]


def test_a_gradient_of_none_is_no_gradient(backend):
    opt = xpopt.Adam(nonfinite="skip")
    params, grads = model(backend)
    for _ in range(2):
        params = opt.update_all(params, {"W": grads["W"], "b": None})
        params = opt.update_all(params, {"W": None, "b": None})
    assert (opt.skipped, opt.cur_step, list(opt.cache)) == (0, 4, ["W"])


@on_host
def test_a_parameter_without_a_gradient_comes_back_with_the_others(backend):
    opt = xpopt.Adam(nonfinite="skip")
    params, grads = model(backend)
    got = opt.update_all(params, {"W": spoilt(backend, grads["W"]), "b": None})
    assert same(backend, got, params)
    assert (opt.skipped, opt.cache) == (1, {})


# What comes back


@on_host
def test_the_results_are_copies_in_containers_of_the_same_kinds(backend):
    class Pair(NamedTuple):
        left: Any
        right: Any

    opt = xpopt.Adam(nonfinite="skip")
    x = backend.array([1.0, 2.0])
    params = {"a": [x, {"b": x}], "c": Pair(x, (x,))}
    good, bad = backend.array([1.0, 1.0]), backend.array([1.0, np.inf])
    got = opt.update_all(params, {"a": [good, {"b": good}], "c": (good, (bad,))})
    assert type(got["c"]) is Pair
    assert same(backend, got, params)
    leaves = [got["a"][0], got["a"][1]["b"], got["c"].left, got["c"].right[0]]
    assert not any(leaf is x for leaf in leaves)
    assert opt.skipped == 1
    single = opt.update(x, bad, "W")
    assert single is not x
    if backend.mutable:
        for leaf in (*leaves, single):
            leaf[...] = backend.array([7.0, 7.0])
    assert equal(backend, x, [1.0, 2.0])


@writes
@on_host
def test_out_gets_the_values_of_the_parameters(backend):
    opt = xpopt.Adam(nonfinite="skip")
    params, grads = model(backend)
    grads = some_bad(backend, grads)
    values = frozen(backend, params)
    for _ in range(3):  # the second and third have a model that was kept, where one is
        out = {name: backend.writable(np.full(x.shape, 7.0)) for name, x in params.items()}
        assert opt.update_all(params, grads, out=out) is out
        assert frozen(backend, out) == values
        listed = [backend.writable(np.full(x.shape, 7.0)) for x in params.values()]
        assert opt.update_all(list(params.values()), list(grads.values()), out=tuple(listed)) == tuple(listed)
        assert frozen(backend, listed) == list(values.values())
        one = backend.writable([7.0] * 3)
        assert opt.update(params["b"], grads["b"], "b", out=one) is one
        assert frozen(backend, one) == values["b"]
        assert frozen(backend, params) == values
        skipped = opt.skipped
        opt.update_all(params, model(backend)[1])
        assert opt.skipped == skipped
    assert opt.skipped == 9


@writes
@on_host
def test_out_may_be_the_parameter_or_the_gradient_or_lie_across_others(backend):
    opt = xpopt.SGD(lr=0.5, nonfinite="skip")
    W, b = backend.writable([1.0, 2.0]), backend.writable([3.0, 4.0])
    g, good = backend.writable([np.nan, 1.0]), backend.array([1.0, 1.0])
    params = {"W": W, "b": b}
    assert opt.update_all(params, {"W": g, "b": good}, out=params) is params
    assert opt.update(W, g, "W", out=W) is W
    assert equal(backend, W, [1.0, 2.0])
    assert equal(backend, b, [3.0, 4.0])
    # each into the other's place: all values are read before one is written
    got = opt.update_all(params, {"W": g, "b": good}, out={"W": b, "b": W})
    assert equal(backend, got["W"], [1.0, 2.0])
    assert equal(backend, got["b"], [3.0, 4.0])
    assert (got["W"] is b, got["b"] is W) == (True, True)
    assert opt.update(W, g, "W", out=g) is g
    assert equal(backend, g, [3.0, 4.0])
    assert opt.skipped == 4


@pytest.mark.backends("numpy", "torch")
def test_out_shifted_against_its_parameter(backend):
    flat = backend.writable([1.0, 2.0, 3.0, 4.0])
    opt = xpopt.SGD(nonfinite="skip")
    opt.update(flat[:3], backend.array([1.0, np.nan, 1.0]), "W", out=flat[1:])
    assert equal(backend, flat, [1.0, 1.0, 2.0, 3.0])


@writes
@on_host
def test_an_out_that_cannot_be_is_an_error_all_the_same(backend):
    opt = xpopt.SGD(nonfinite="skip")
    W, g = backend.writable([1.0, 2.0]), backend.array([np.nan, 1.0])
    with nothing_changes(backend, opt, W):
        with pytest.raises(ValueError, match="out of 'W' has shape"):
            opt.update(W, g, "W", out=backend.writable([1.0]))
        with pytest.raises(ValueError, match="share memory"):
            opt.update_all({"a": W, "b": W}, {"a": g, "b": g}, out={"a": W, "b": W})
        with pytest.raises(ValueError, match="gradient of 'W' has shape"):
            opt.update_all({"W": W}, {"W": backend.array([np.nan])})
    assert opt.skipped == 0


@on_host
def test_a_name_that_was_only_skipped_is_free(backend):
    opt = xpopt.Adam(nonfinite="skip")
    opt.update(backend.array([1.0]), backend.array([np.nan]), "W")
    assert opt.cache == {}
    opt.update(backend.array([1.0, 2.0]), backend.array([1.0, 2.0]), "W")
    assert list(opt.cache) == ["W"]


# An error


@not_dask
@every_optimizer
@BAD
def test_an_error_names_the_parameters_and_nothing_has_changed(backend, make, bad):
    opt = make(lr_scheduler=KING, nonfinite="raise")
    params, grads = model(backend)
    for loss in (np.nan, 5.0):  # it comes before the loss is looked at
        mine = {name: backend.writable(np.ones(x.shape)) for name, x in params.items()} if backend.mutable else None
        with nothing_changes(backend, opt, params, grads, *([mine] if mine else [])):
            with pytest.raises(FloatingPointError, match=r"^not finite: the gradient of 'b' \(1 of 2\)\. Nothing has"):
                opt.update_all(params, some_bad(backend, grads, bad=bad), loss, out=mine)
            both = some_bad(backend, some_bad(backend, grads, "W", bad))
            with pytest.raises(FloatingPointError, match=r"the gradient of 'W', 'b' \(2 of 2\)"):
                opt.update_all(params, both, loss)
            with pytest.raises(FloatingPointError, match=r"the gradient of 'W/0' \(1 of 1\)"):
                opt.update(params["W"], both["W"], ("W", 0), loss)
        params = opt.update_all(params, grads, 1.0)
    assert opt.skipped == 0


@not_dask
def test_many_names_are_not_all_listed(backend):
    opt = xpopt.SGD(nonfinite="raise")
    x, bad = backend.array([1.0]), backend.array([np.nan])
    listed = ", ".join(map(str, range(1, 11)))
    with pytest.raises(FloatingPointError, match=rf"the gradient of {listed} \(10 of 12\)"):
        opt.update_all([x] * 12, [x, *[bad] * 10, x])
    with pytest.raises(FloatingPointError, match=rf"the gradient of {listed}, \.\.\. \(11 of 12\)"):  # None is none
        opt.update_all([x] * 13, [x, *[bad] * 11, None])


@not_dask
def test_an_update_that_raised_can_be_made_again(backend):
    calm, shaken = (xpopt.Adam(lr_scheduler=KING, nonfinite="raise") for _ in range(2))
    params, _ = model(backend)
    want = dict(params)
    for loss in range(4):
        _, grads = model(backend, scale=1 + loss)
        with pytest.raises(FloatingPointError):
            shaken.update_all(params, some_bad(backend, grads, "W"), float(loss))
        params, want = shaken.update_all(params, grads, float(loss)), calm.update_all(want, grads, float(loss))
    assert same(backend, params, want)
    assert held(backend, shaken) == held(backend, calm)


# On a device that works by itself


@on_device
@every_optimizer
@every_scheduler
def test_on_a_device_the_step_is_made_of_nothing(backend, make, scheduler):
    """Step, counts and schedule advance, parameters and slots do not: the oracle counts by hand."""
    opt = make(lr_scheduler=scheduler, nonfinite="skip")
    other = make(lr_scheduler=scheduler)
    params, _ = model(backend)
    want = dict(params)
    for step, (loss, bad) in enumerate([(2.0, np.nan), (3.0, np.inf), (4.0, -np.inf), (5.0, np.nan)]):
        _, grads = model(backend, scale=1 + step)
        params = opt.update_all(params, grads, loss)
        want = other.update_all(want, grads, loss)
        assert same(backend, params, want)
        before = frozen(backend, params)
        params = opt.update_all(params, some_bad(backend, grads, bad=bad), loss + 0.5)
        assert frozen(backend, params) == before
        other.lr_scheduler(other.cur_step, loss + 0.5)
        advance(other, 1)
        assert frozen(backend, opt.cache) == frozen(backend, other.cache)
    assert (opt.skipped, opt.cur_step) == (4, 8)
    assert opt.lr_scheduler.state() == other.lr_scheduler.state()


@on_device
@every_optimizer
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_on_a_device_the_first_step_may_be_bad(backend, make, clip_norm):
    """Slots are zeros then; and `update` decides for its parameter alone."""
    for dtype in backend.dtypes:
        opt = make(nonfinite="skip", clip_norm=clip_norm)
        params, grads = model(backend, dtype)
        assert same(backend, opt.update_all(params, some_bad(backend, grads, "W")), params)
        assert same(backend, opt.update(params["b"], spoilt(backend, grads["b"]), "new"), params["b"])
        for entry in opt.cache.values():
            for x in entry.values() if isinstance(entry, dict) else [entry]:
                assert isinstance(x, int) or not backend.numpy(x).any()
        opt.update(params["W"], grads["W"], "new W")
        assert opt.skipped == 2
        opt.update(params["b"], spoilt(backend, grads["b"]), "new")
        assert opt.skipped == 3


@on_device
@pytest.mark.parametrize("options", [{}, {"master": True}, {"rounding": "stochastic"}], ids=str)
def test_on_a_device_every_bit_stays(backend, options):
    """Also of numbers that arithmetic would change: zeros with a sign, subnormal ones, those that are not finite."""
    for dtype in backend.dtypes:
        values = [0.0, -0.0, 1.0, np.inf, -np.inf, 6e-8, -6e-8, 1e-40, -1e-45, 5e-324, ENORMOUS[dtype], -0.1]
        with np.errstate(all="ignore"):
            param, grad = backend.array(values, dtype), backend.array([*values[:3], *[1.0] * 9], dtype)
        opt = xpopt.Adam(nonfinite="skip", **options)
        bad = spoilt(backend, grad)
        for _ in range(3):
            assert same(backend, opt.update_all([param], [bad]), [param])
        assert opt.skipped == 3


@on_device
@pytest.mark.parametrize("shape", SHAPES.values(), ids=str)
def test_on_a_device_arrays_of_every_shape(backend, shape):
    opt = xpopt.Adam(nonfinite="skip")
    x, y = backend.array(np.full(shape, 2.0)), backend.array([1.0, np.inf])
    assert same(backend, opt.update_all([x, y], [x, y]), [x, y])
    assert not same(backend, opt.update_all([x, y], [x, backend.array([1.0, 1.0])]), [x, y])
    if 0 not in shape:
        assert same(backend, opt.update(x, spoilt(backend, x), 0), x)
    assert opt.skipped == 1 + (0 not in shape)


@on_device
def test_on_a_device_the_schedule_is_asked_and_king_needs_its_loss(backend):
    opt = xpopt.Adam(lr_scheduler=KING, nonfinite="skip")
    params, grads = model(backend)
    with nothing_changes(backend, opt, params), pytest.raises(ValueError, match="loss"):
        opt.update_all(params, some_bad(backend, grads), float("nan"))
    assert opt.skipped == 0


# In several places


@pytest.mark.backends("torch", "jax", "jax-x64", "dask", "array-api-strict")
def test_a_model_in_several_places_is_decided_on_the_host(backend):
    opt = xpopt.Adam(lr_scheduler=KING, nonfinite="skip")
    params = {"here": np.array([1.0, 2.0]), "there": backend.array([3.0, 4.0])}
    good = {"here": np.array([1.0, 1.0]), "there": backend.array([1.0, 1.0])}
    calm = xpopt.Adam(lr_scheduler=KING)
    want = dict(params)
    for name in ("here", "there", "here"):
        bad = {**good, name: spoilt(backend, good[name]) if name == "there" else np.array([np.nan, 1.0])}
        got = opt.update_all(params, bad, float("nan"))
        assert same(backend, got["there"], params["there"])
        assert got["here"].tolist() == params["here"].tolist()
        params, want = opt.update_all(params, good, 1.0), calm.update_all(want, good, 1.0)
    assert same(backend, params["there"], want["there"])
    assert params["here"].tobytes() == want["here"].tobytes()
    assert (opt.skipped, opt.cur_step, opt.lr_scheduler.state()) == (3, 3, calm.lr_scheduler.state())


@on_device
def test_counts_of_the_host_and_of_the_device_add_up(backend):
    opt = xpopt.SGD(nonfinite="skip")
    here, there = np.array([np.nan]), backend.array([np.nan])
    opt.update(here, here, "here")
    opt.update(there, there, "there")
    opt.update_all([here, there], [here, there])
    opt.update(there, there, "there")
    assert opt.skipped == 4
    opt.update(there, there, "there")
    opt.update(here, here, "here")
    assert (opt.skipped, opt.skipped) == (6, 6)


# The setting


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("bad", ["Skip", "ignore", "", None, True, 1, ["skip"]], ids=repr)
@every_optimizer
def test_another_policy_is_an_error_that_lists_them(backend, make, bad):
    kind = ValueError if isinstance(bad, str) else TypeError
    with pytest.raises(kind, match=r"nonfinite=.*; wanted one of 'propagate', 'skip', 'raise'"):
        make(nonfinite=bad)
    opt = make(nonfinite="skip")
    with pytest.raises(kind, match="nonfinite="):
        opt.set_params({"nonfinite": bad})
    assert opt.hyperparameters["nonfinite"] == "skip"


@pytest.mark.backends("numpy")
def test_it_may_be_given_in_text():
    opt = xpopt.make_optimizer("adam(nonfinite='skip')")
    opt.update(np.ones(2), np.array([1.0, np.nan]), "W")
    assert (opt.skipped, opt.cache) == (1, {})


@pytest.mark.backends("numpy")
def test_what_was_skipped_cannot_be_assigned_nor_can_the_policy(backend):
    opt = xpopt.Adam(nonfinite="skip")
    with pytest.raises(AttributeError):
        opt.skipped = 0
    with pytest.raises(AttributeError, match="set_params"):
        opt.nonfinite = "raise"


@not_dask
def test_the_policy_may_change_in_the_middle(backend):
    opt, twin = xpopt.Adam(), xpopt.Adam()
    params, grads = model(backend)
    bad, want = some_bad(backend, grads, "W"), params
    for policy in ("propagate", "skip", "raise", "skip", "propagate", "raise"):
        opt.set_params({"nonfinite": policy})
        if policy == "skip":
            assert same(backend, opt.update_all(params, bad), params)
            if backend.name in ON_DEVICE:
                advance(twin, 1)
        if policy == "raise":
            with pytest.raises(FloatingPointError):
                opt.update_all(params, bad)
        for _ in range(2):
            params, want = opt.update_all(params, grads), twin.update_all(want, grads)
            assert same(backend, params, want)
    assert opt.skipped == 2
    opt.set_params({"nonfinite": "propagate"})
    assert np.isnan(backend.numpy(opt.update_all(params, bad)["W"])).any()
    assert opt.skipped == 2


class Own(xpopt.OptimizerBase):
    def __init__(self, lr=0.5, **kwargs):
        super().__init__(lr, **kwargs)

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - h.lr * grad, s


class Closed(Own):
    """One that hands nothing on."""

    def __init__(self, lr=0.5):
        super().__init__(lr)


def test_optimizers_of_ones_own_have_it_too(backend):
    x, bad = backend.array([1.0, 2.0]), backend.array([1.0, np.nan])
    opt, closed = Own(nonfinite="skip"), Closed()
    assert str(opt).startswith("Own(lr=0.5,")
    assert "nonfinite='skip'" in str(opt)
    with pytest.raises(TypeError):
        Closed(nonfinite="skip")
    closed.set_params({"nonfinite": "skip"})
    for one in (opt, closed, closed.copy(), pickle.loads(pickle.dumps(opt))):
        assert same(backend, one.update(x, bad, "W"), x)
        assert one.skipped == 1
        assert equal(backend, one.update(x, x, "W"), [0.5, 1.0])


@pytest.mark.backends("numpy")
def test_a_range_of_that_name_is_refused(backend):
    class Mine(Own):
        ranges = {"nonfinite": xpopt.Range()}

    with pytest.raises(TypeError, match="'nonfinite', which every optimizer has"):
        Mine()


# The count, kept


def test_the_header_has_the_count(backend):
    opt = xpopt.SGD(nonfinite="skip")
    assert opt.state_dict()["header"]["skipped"] == 0
    walk(backend, opt, ["W", 1, "b"])
    header = opt.state_dict()["header"]
    assert (header["skipped"], type(header["skipped"])) == (2, int)
    assert header["groups"][0]["settings"]["nonfinite"] == "skip"


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("bad", [-1, 1.5, "1", None, True])
def test_a_count_that_is_none_is_not_loaded(backend, bad):
    opt = xpopt.SGD(nonfinite="skip")
    walk(backend, opt, [1, "W"])
    state = opt.state_dict()
    state["header"]["skipped"] = bad
    with nothing_changes(backend, opt), pytest.raises(xpopt.CheckpointError, match="skipped"):
        opt.load_state_dict(state)
    assert opt.skipped == 1
    del state["header"]["skipped"]
    with pytest.raises(xpopt.CheckpointError, match="skipped"):
        opt.load_state_dict(state)


@pytest.mark.backends("numpy")
def test_a_policy_that_is_none_is_not_loaded(backend):
    opt = xpopt.SGD(nonfinite="skip")
    state = opt.state_dict()
    state["header"]["groups"][0]["settings"]["nonfinite"] = "sometimes"
    with pytest.raises(xpopt.CheckpointError, match="nonfinite='sometimes'"):
        opt.load_state_dict(state)
    assert opt.hyperparameters["nonfinite"] == "skip"


# NumPy's arrays, on every engine


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("out", ["new", "in place", "apart"])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_a_model_that_is_kept_is_kept_beyond_a_skipped_step(backend, fused, out, clip_norm, monkeypatch):
    """With several counts, a parameter that rests, both orders of memory, and every dtype."""
    dtypes = [backend.dtype(name) for name in backend.dtypes]

    def run(bad: tuple[int, ...]) -> Any:
        opt, rng = xpopt.Adam(lr_scheduler=KING, nonfinite="skip", clip_norm=clip_norm), np.random.default_rng(5)
        params = {str(dtype): np.ones((3, 4)).astype(dtype) for dtype in dtypes}
        params |= {"turned": np.asfortranarray(np.ones((5, 2))), "number": np.ones(()), "rests": np.ones(3)}
        params |= {"late": np.ones(2)}
        for step in range(8):
            grads: dict[str, Any] = {
                name: np.asarray(rng.normal(size=x.shape).astype(x.dtype), order="F" if name == "turned" else "C")
                for name, x in params.items()
            }
            grads["rests"] = None
            grads["late"] = None if step < 2 else grads["late"]
            into = {"new": None, "in place": params, "apart": {name: np.empty_like(x) for name, x in params.items()}}
            if step in bad:
                for name in ("turned", "number", str(dtypes[0])):
                    broken = {**grads, name: np.asarray(grads[name]).copy(order="K")}
                    broken[name][...] = np.inf
                    before = {name: x.copy() for name, x in params.items()}
                    got = opt.update_all(params, broken, np.nan, out=into[out])
                    assert frozen(backend, got) == frozen(backend, before) == frozen(backend, params)
            params = opt.update_all(params, grads, float(step), out=into[out])
        return frozen(backend, params), held(backend, opt), opt.skipped

    *want, none = run(())
    prepared = []
    of = choose.launch
    monkeypatch.setattr(choose, "launch", lambda tensors: prepared.append(tensors) or of(tensors))
    *got, skipped = run((0, 1, 4, 5, 7))
    assert got == want
    assert (none, skipped) == (0, 15)
    # no plan serves one that rests and goes elsewhere; else one is made at the first step, and at the first with "late"
    assert len(prepared) == (8 if out == "apart" else 2)


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_072, 131_073])
def test_the_last_element_of_a_block_and_the_first_of_the_next(backend, size):
    opt, grad = xpopt.SGD(nonfinite="skip"), np.ones(size, np.float32)
    places = sorted({0, 65_535, 65_536, 131_071, 131_072, size - 1} & set(range(size)))
    for k, place in enumerate(places):
        grad[place] = np.inf
        opt.update(grad, grad, "W")
        assert opt.skipped == k + 1
        grad[place] = 1.0
    opt.update(grad, grad, "W")
    assert opt.skipped == len(places)


@pytest.mark.backends("numpy")
@BAD
def test_layouts_and_sizes(backend, fused, bad):
    """More than a block, one bad element, in every order of memory; and a view with steps, looked at as a whole."""
    layouts = {
        "C": np.ones,
        "F": lambda shape: np.ones(shape, order="F"),
        "steps": lambda shape: np.ones((2 * shape[0], 2 * shape[1]))[::2, ::-2],
        "broadcast": lambda shape: np.broadcast_to(np.ones((shape[0], 1)), shape),
    }
    param = np.ones((300, 700))
    for layout, make in layouts.items():
        for place in ((0, 0), (299, 699), (140, 350)):
            good, broken = make(param.shape), make(param.shape)
            (broken.base if layout == "broadcast" else broken)[place if layout != "broadcast" else place[0]] = bad
            opt = xpopt.SGD(nonfinite="skip")
            for skips, grad in enumerate((good, broken, good, broken)):
                new = opt.update_all([param], [grad])[0]
                assert opt.skipped == (skips + 1) // 2
                assert np.array_equal(new, param) == (grad is broken)


@pytest.mark.backends("numpy")
def test_a_callers_error_state_does_not_reach_the_question(backend):
    """Not even with NaNs that signal."""
    signalling = np.array([0x7F800001, 0x3F800000], np.uint32).view(np.float32)
    for policy, kind in (("skip", None), ("raise", FloatingPointError)):
        opt = xpopt.SGD(nonfinite=policy)
        with np.errstate(all="raise"):
            for bad in (signalling, np.array([1e308, np.inf]), np.array([1.0, np.nan], backend.dtype("float16"))):
                if kind is None:
                    opt.update(bad, bad, len(bad))
                else:
                    with pytest.raises(kind, match="the gradient of 2"):
                        opt.update(bad, bad, len(bad))


@on_host
def test_numbers_lists_and_scalars_are_parameters_as_ever(backend):
    opt = xpopt.SGD(lr=0.5, nonfinite="skip")
    assert opt.update(1.5, float("nan"), "number") == 1.5
    assert opt.update([1.0, [2.0][0]], [np.inf, 1.0], "list").tolist() == [1.0, 2.0]
    assert opt.update([[1.0], [2.0]], [[np.inf], [1.0]], "nested").tolist() == [[1.0], [2.0]]
    assert equal(backend, opt.update([1.0, 2.0], backend.array([np.nan, 1.0]), "like the other"), [1.0, 2.0])
    assert opt.skipped == 4
    # NumPy's scalars: what comes back is what an update that is made returns
    for grad in (np.float64(1.0), backend.array(1.0)):
        bad = grad * float("nan")
        for params, good, broken in (({"s": np.float64(2.0)}, {"s": grad}, {"s": bad}),):
            made, skipped = opt.update_all(params, good)["s"], opt.update_all(params, broken)["s"]
            assert (type(skipped), skipped.shape, skipped.dtype) == (type(made), made.shape, made.dtype)
            assert float(skipped) == 2.0
        opt.cache.clear()


# At the wrong moment


def seen(opt: Any, params: dict[str, Any]) -> tuple[Any, ...]:
    """Return all that a step could change, without a look at the cache, after which slots are copied."""
    entries = {
        name: (entry["t"], entry["mean"].tobytes(), entry["var"].tobytes())
        for name, entry in opt._parts.state.cache.items()
    }
    return {name: x.tobytes() for name, x in params.items()}, entries, opt.cur_step, opt.lr_scheduler.state()


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_an_interrupt_at_any_line_of_a_skipped_step(backend, fused, whole, kept):
    """Nothing but the count and `out` changes, and both together."""

    def start() -> Any:
        opt = xpopt.Adam(lr_scheduler=KING, nonfinite="skip")
        params = {"W": np.linspace(-1, 1, 12).reshape(3, 4), "b": np.ones(3, np.float32)}
        for _ in range(2 * kept):
            opt.update_all(params, {name: np.cos(x) for name, x in params.items()}, 1.0, out=params)
        return opt, params, {name: np.full_like(x, 7) for name, x in params.items()}

    def step(opt: Any, params: Any, out: Any) -> None:
        grads = {name: np.full_like(x, np.nan) for name, x in params.items()}
        if whole:
            opt.update_all(params, grads, np.nan, out=out)
        else:
            opt.update(params["W"], grads["W"], "W", np.nan, out=out["W"])

    opt, params, out = start()
    before, apart = seen(opt, params), {name: x.tobytes() for name, x in out.items()}
    step(opt, params, out)
    after = {name: x.tobytes() for name, x in out.items()}
    assert after["W"] == params["W"].tobytes()
    counts = []
    for line in range(1, 5000):
        opt, params, out = start()
        if not interrupted_at(line, lambda opt=opt, params=params, out=out: step(opt, params, out)):
            break
        assert seen(opt, params) == before, line
        assert {name: x.tobytes() for name, x in out.items()} == (after if opt.skipped else apart), line
        counts.append(opt.skipped)
        step(opt, params, out)
        assert opt.skipped == counts[-1] + 1
        opt.update_all(params, {name: np.cos(x) for name, x in params.items()}, 1.0)
    assert len(counts) == line - 1 > 30
    assert counts == sorted(counts)
    assert set(counts) == {0, 1}


@pytest.mark.backends("numpy")
def test_a_skipped_step_is_not_left_half_way_by_the_programs_own_handler(backend):
    """It is called after the write that it fell into, once."""
    met = []
    opt, W, out = xpopt.SGD(nonfinite="skip"), np.ones(3), np.zeros(3)
    previous = signal.signal(signal.SIGINT, lambda *_: met.append((opt.skipped, out.tolist())))
    try:
        for line in range(1, 500):
            opt, out = xpopt.SGD(nonfinite="skip"), np.zeros(3)
            met.clear()
            opt.update(W, np.full(3, np.nan), "W", out=out) if line == 1 else interrupted_at(
                line, lambda opt=opt, out=out: opt.update(W, np.full(3, np.nan), "W", out=out)
            )
            assert out.tolist() == [1.0] * 3
            assert opt.skipped == 1
            assert met in ([], [(0, [0.0] * 3)], [(1, [1.0] * 3)])
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("whole", [False, True])
def test_two_threads_at_once_are_an_error_and_one_after_the_other_are_not(backend, whole):
    """The first stands in its schedule; the second's bad gradient is not even looked at."""
    inside, go_on = threading.Event(), threading.Event()

    class Waiting(xpopt.SchedulerBase):
        def learning_rate(self, step: int, cur_loss: float | None = None) -> float:
            inside.set()
            assert go_on.wait(60)
            return 0.5

    opt, W, bad = xpopt.SGD(lr_scheduler=Waiting(), nonfinite="skip"), np.ones(3), np.full(3, np.nan)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(opt.update(W, W, "W")))
    thread.start()
    assert inside.wait(60)
    try:
        with pytest.raises(RuntimeError, match="in the middle of another update"):
            opt.update_all({"b": W}, {"b": bad}) if whole else opt.update(W, bad, "b")
        assert opt.skipped == 0
    finally:
        go_on.set()
        thread.join()
    assert results[0].tolist() == [0.5] * 3
    others = [threading.Thread(target=opt.update, args=(W, bad, "b")) for _ in range(3)]
    for other in others:
        other.start()
        other.join()
    assert (opt.skipped, list(opt.cache)) == (3, ["W"])


@pytest.mark.backends("numpy")
def test_a_look_at_the_count_from_another_thread_loses_none(backend, monkeypatch):
    """While one reads, the other skips: what was read is older, and does not take the new count's place."""
    opt, W, bad = xpopt.SGD(nonfinite="skip"), np.ones(3), np.full(3, np.nan)
    read = xpopt._state.skipped.Skipped.read

    def slowly(count: Any) -> Any:
        found = read(count)
        thread = threading.Thread(target=opt.update, args=(W, bad, "W"))
        thread.start()
        thread.join()
        return found

    monkeypatch.setattr(xpopt._state.skipped.Skipped, "read", slowly)
    assert [opt.skipped, opt.skipped] == [0, 1]
    monkeypatch.undo()
    assert opt.skipped == 2


@pytest.mark.backends("numpy")
def test_memory_that_lacks_for_the_copies_leaves_everything(backend, monkeypatch):
    opt = xpopt.Adam(lr_scheduler=KING, nonfinite="skip")
    params, grads = model(backend)
    opt.update_all(params, grads, 1.0)

    def fail(x: Any) -> Any:
        raise MemoryError

    with nothing_changes(backend, opt, params), monkeypatch.context() as patch:
        patch.setattr("xpopt._step.skip.copy_array", fail)
        with pytest.raises(MemoryError):
            opt.update_all(params, some_bad(backend, grads), 1.0)
        with pytest.raises(MemoryError):
            opt.update(params["b"], some_bad(backend, grads)["b"], "b", 1.0)
    assert opt.skipped == 0
    opt.update_all(params, some_bad(backend, grads), 1.0)
    assert opt.skipped == 1


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("size", [2, 70_000])
def test_a_signaling_nan_is_not_finite_and_no_warning(backend, size):
    """ml_dtypes reports one where NumPy's own dtypes are silent."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = {ml_dtypes.bfloat16: 0x7F81, np.float16: 0x7D01, np.float32: 0x7F800001, np.float64: 0x7FF0000000000001}
    for dtype, pattern in bits.items():
        good = np.ones(size, dtype)
        bad = good.copy()
        bad.view(f"u{good.itemsize}")[-1] = pattern
        opt = xpopt.Adam(nonfinite="skip")
        with np.errstate(all="raise"):
            assert equal(backend, opt.update(good, bad, "W"), good)
            assert equal(backend, opt.update_all([good], [bad])[0], good)
        assert (opt.skipped, opt.cache) == (2, {})
        opt = xpopt.Adam(nonfinite="raise")
        with np.errstate(all="raise"), pytest.raises(FloatingPointError, match="the gradient of 'W'"):
            opt.update(good, bad, "W")
