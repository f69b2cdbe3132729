"""Averages of parameters: their numbers, what `averaged` returns, and the block in which parameters hold them."""

import collections
import copy
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit import oracles, problems
from _kit.rows import on_numpy
from _kit.states import LossScheduler, writes
from _kit.trajectories import HAVE_16_BITS, low_dtypes

import xpopt
from xpopt import EMA, SGD, SWA, Adam

pytestmark = pytest.mark.any_immutable

NOT_WRITTEN = pytest.mark.backends("jax", "jax-x64", "dask")
DECAY = 0.875


def weighted(path, weights):
    """The mean of the parameters on a path, with weights."""
    weights = np.array(weights, np.float64)
    return np.tensordot(weights / weights.sum(), np.array(path[-len(weights) :]), 1)


def debiased(path):
    """Of all steps but the start, each with the weight of an exponential moving average."""
    return weighted(path, [DECAY**k for k in reversed(range(len(path) - 1))])


def from_the_first(path):
    """The textbook's, which begins at the first new parameter."""
    average = path[1]
    for x in path[2:]:
        average = DECAY * average + (1 - DECAY) * x
    return average


def of_some(path):
    """The mean of those of steps 4, 7, 10, ...; before, the parameter itself."""
    return np.mean(path[4::3], axis=0) if len(path) > 4 else path[-1]


AVERAGES = {
    "EMA": (EMA(DECAY), debiased),
    "EMA without memory": (EMA(0.0), lambda path: path[-1]),
    "EMA without warmup": (EMA(DECAY, warmup=False), from_the_first),
    "SWA": (SWA(start=4, every=3), of_some),
    "SWA of all": (SWA(start=0), lambda path: np.mean(path, axis=0)),
}
averages = pytest.mark.parametrize(("average", "expected"), AVERAGES.values(), ids=AVERAGES)


@on_numpy
@averages
@pytest.mark.parametrize("engine", ["eager", "blocked", pytest.param("compiled", marks=pytest.mark.llvmlite)])
def test_the_average_is_that_of_the_way(average, expected, engine):
    opt, plain = Adam(lr=0.125, average=average), Adam(lr=0.125)
    var = problems.variable(31, (4, 3), steps=14)
    path = [np.reshape(var.start, var.shape)]
    with xpopt.engine(engine):
        for gradient in var.gradients:
            grad = np.reshape(gradient, var.shape)
            path.append(opt.update(path[-1], grad, "W"))
            assert np.array_equal(path[-1], plain.update(path[-2], grad, "W"))
            np.testing.assert_allclose(opt.averaged({"W": path[-1]})["W"], expected(path), rtol=1e-13, atol=1e-13)


@pytest.mark.backends("torch")
@pytest.mark.parametrize("kind", ["EMA", "SWA"])
def test_beside_torch(backend, kind):
    """Its averaged models, over 50 steps of which every fifth from the tenth on is in the mean."""
    torch = pytest.importorskip("torch")
    swa_utils = torch.optim.swa_utils
    average = EMA(0.9, warmup=False) if kind == "EMA" else SWA(start=10, every=5)
    fn = {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9)} if kind == "EMA" else {}
    torch.manual_seed(3)
    model = torch.nn.Linear(5, 3).double()
    theirs = swa_utils.AveragedModel(model, **fn)
    params = dict(model.named_parameters())
    opt = Adam(lr=0.0625, average=average)
    for t in range(1, 51):
        grads = {name: torch.randn_like(x) for name, x in params.items()}
        opt.update_all(params, grads, out=params)
        if kind == "EMA" or (t >= 10 and t % 5 == 0):
            theirs.update_parameters(model)
    ours = opt.averaged(params)
    for name, x in theirs.module.named_parameters():
        assert torch.max(torch.abs(ours[name] - x)) <= 1e-14


def trained(backend, average=EMA(0.5), dtype=None, **options):  # noqa: B008 - a value
    """Two steps of SGD from 3 by 1 and 2, on each library's own arrays: at 3, then 2, then 0."""
    opt = SGD(lr=1.0, average=average, **options)
    params = {"W": backend.writable([[3.0, 3.0]], dtype), "b": backend.writable(3.0, dtype)}
    for step in (1.0, 2.0):
        grads = {"W": backend.array([[step, step]], dtype), "b": backend.array(step, dtype)}
        params = dict(opt.update_all(params, grads))
    return opt, params


HALF = 2 / 3  # of 2 and 0, with the weights 1 and 2


def test_arrays_of_the_library_are_returned(backend):
    opt, params = trained(backend)
    for _ in range(2):
        found = opt.averaged(params)
        assert list(found) == ["W", "b"]
        for name, x in found.items():
            assert type(x) is type(params[name])
            assert (x.dtype, tuple(x.shape)) == (params[name].dtype, tuple(params[name].shape))
            np.testing.assert_allclose(backend.numpy(x), HALF, rtol=1e-6)
            if backend.mutable:
                x[...] = 7.0  # which is the caller's own
        assert float(backend.numpy(params["b"])) == 0.0


@on_numpy
def test_containers_are_of_the_kinds_of_the_parameters(backend):
    class Pair(NamedTuple):
        one: Any
        two: Any

    ones = backend.array(np.ones(2))
    for tree in (Pair(ones, ones), [ones, (ones, {"a": ones})], {"a": [ones], "b": Pair(ones, ones)}, (ones,)):
        opt = SGD(lr=1.0, average=EMA(0.5))
        new = opt.update_all(tree, tree)
        found = opt.averaged(new)
        for twin in (found, copy.copy(found), copy.deepcopy(found), opt.averaged(found)):
            assert str(twin) == str(new)
            assert isinstance(twin, type(tree))
        assert type(copy.copy(found)) is type(tree)
        if "Pair" not in str(tree):
            assert type(pickle.loads(pickle.dumps(found))) is type(tree)
    ordered = collections.OrderedDict(W=ones)
    opt.update_all(ordered, ordered)
    assert dict(opt.averaged(ordered)).keys() == {"W"}


@NOT_WRITTEN
def test_containers_of_arrays_that_cannot_be_written_are_plain(backend):
    opt, params = trained(backend)
    found = opt.averaged(params)
    assert type(found) is dict  # as `jax.jit` and `dask.compute` take it
    with pytest.raises(TypeError, match="context manager"), found:
        pass


@HAVE_16_BITS
@pytest.mark.parametrize("options", [{}, {"master": True}, {"slots_dtype": "float16"}], ids=str)
def test_in_16_bits_the_average_has_the_digits_of_float32(backend, options):
    for dtype in low_dtypes(backend):
        opt, params = trained(backend, dtype=dtype, **options)
        assert str(opt.cache["W"]["average"].dtype).endswith("float32")
        np.testing.assert_allclose(backend.numpy(opt.cache["W"]["average"]), HALF, rtol=1e-6)
        found = opt.averaged(params)["W"]
        assert found.dtype == params["W"].dtype
        assert np.array_equal(backend.numpy(found), backend.numpy(backend.array([[HALF, HALF]], dtype)))


# In the place of the parameters


@writes
def test_in_the_block_the_arrays_hold_the_average_and_after_it_their_own_bits(backend):
    opt, params = trained(backend)
    special = backend.writable([[-0.0, np.nan]])
    params["W"] = special
    before = backend.numpy(special).tobytes()
    arrays, cache = dict(params), str(opt.cache)
    with opt.averaged(params) as found:
        for name, x in params.items():
            assert x is arrays[name]
            np.testing.assert_allclose(backend.numpy(x), HALF, rtol=1e-6)
            np.testing.assert_array_equal(backend.numpy(found[name]), backend.numpy(x))
        opt.copy()
        opt.state_dict()
    assert backend.numpy(special).tobytes() == before
    assert float(backend.numpy(params["b"])) == 0.0
    assert str(opt.cache) == cache


class OddError(Exception):
    pass


@on_numpy
def test_an_error_in_the_block_brings_them_back(backend):
    opt, params = trained(backend)

    def evaluate():
        with opt.averaged(params):
            params["W"][...] = 7.0
            raise OddError

    with pytest.raises(OddError):
        evaluate()
    assert backend.numpy(params["W"]).tolist() == [[0.0, 0.0]]
    opt.update_all(params, params)


@on_numpy
def test_in_the_block_nothing_is_updated(backend):
    opt, params = trained(backend)
    again = opt.averaged(params)
    calls = {
        "update": lambda: opt.update(params["W"], params["W"], "W"),
        "update_all": lambda: opt.update_all(params, params),
        "set_params": lambda: opt.set_params({"lr": 0.5}),
        "step": opt.step,
        "averaged": lambda: opt.averaged(params),
        "again": again.__enter__,
    }
    with again:
        for call in calls.values():
            message = "the parameters of this SGD are averaged, in a block that has not ended: .*; leave the block"
            with pytest.raises(RuntimeError, match=message):
                call()
        np.testing.assert_allclose(backend.numpy(params["b"]), HALF)
    assert float(backend.numpy(params["b"])) == 0.0
    with again:  # not twice at once, but once more
        np.testing.assert_allclose(backend.numpy(params["b"]), HALF)
    opt.update_all(params, params)


@pytest.mark.backends("numpy")
def test_what_cannot_be_written_is_told_before_anything_is():
    opt = SGD(average=EMA(0.5))
    params = [np.ones(2), np.ones(3), 1.0]
    opt.update_all(params, params)
    params[1].flags.writeable = False
    message = "parameter 1 is read-only; use the arrays that averaged returns, or pass a writable one"
    with pytest.raises(ValueError, match=message), opt.averaged(params):
        pass
    params[1] = np.ones(3)
    message = "parameter 2 is a float, which cannot be written; use the arrays that averaged returns"
    with pytest.raises(TypeError, match=message), opt.averaged(params):
        pass
    assert isinstance(opt.averaged(params)[2], float)
    assert [x.tolist() for x in params[:2]] == [[1.0, 1.0], [1.0, 1.0, 1.0]]
    opt.update_all(params, params)


# Parameters that have none


@on_numpy
def test_what_has_no_average_comes_as_it_is(backend):
    groups = {"frozen": "freeze", "bias": {"average": None}}
    opt = SGD(lr=1.0, average=EMA(0.5), groups=groups)
    params = {name: backend.array([3.0]) for name in ("W", "frozen", "bias", "resting")}
    params["count"] = np.arange(2)
    for _ in range(2):
        grads = {name: None if name in ("resting", "count") else backend.array([1.0]) for name in params}
        params = dict(opt.update_all(params, grads))
    found = opt.averaged(params)
    values = {name: np.ravel(backend.numpy(x) if name != "count" else x).tolist() for name, x in found.items()}
    assert values.pop("W") == [pytest.approx(4 / 3)]
    assert values == {"frozen": [3.0], "bias": [1.0], "resting": [3.0], "count": [0, 1]}
    assert found["bias"] is not params["bias"]
    (row, *_, bias, _) = opt.explain({name: params[name] for name in ("W", "frozen", "bias", "resting")})
    assert (row.slots, bias.slots) == (("average",), ())


@pytest.mark.backends("numpy")
def test_an_average_that_comes_later_begins_at_the_parameter():
    opt, x = SGD(lr=1.0), np.array([3.0])
    x = opt.update(x, np.ones(1), "W")
    opt.set_params({"average": EMA(0.75)})
    assert opt.averaged({"W": x})["W"].tolist() == [2.0]
    opt.set_params({"average": SWA(start=1)})
    x = opt.update(x, np.ones(1), "W")
    assert opt.averaged({"W": x})["W"].tolist() == [1.5]


@pytest.mark.backends("numpy")
def test_what_is_no_average():
    x = {"W": np.ones(2)}
    with pytest.raises(ValueError, match=r"Adam has no average; give it one, Adam\(average=EMA\(0.999\)\)"):
        Adam().averaged(x)
    opt = Adam(average=EMA())
    message = "params has 'W', of which this Adam has updated none; call averaged after the first update, with the"
    with pytest.raises(ValueError, match=message):
        opt.averaged(x)
    opt.update_all(x, x)
    with pytest.raises(ValueError, match="params has 'V', of which this Adam has updated none"):
        opt.averaged({"V": x["W"]})
    with pytest.raises(TypeError, match="params is a ndarray; wanted a mapping, list or tuple of arrays"):
        opt.averaged(x["W"])
    with pytest.raises(ValueError, match=r"'W' names a parameter that is .* and this one is .* of shape \(3,\)"):
        opt.averaged({"W": np.ones(3)})

    class Looking(LossScheduler):
        def learning_rate(self, step, cur_loss):
            opt.averaged(x)
            return 0.5

    opt.lr_scheduler = Looking()
    with pytest.raises(RuntimeError, match="this Adam is in the middle of another update"):
        opt.update_all(x, x)


@pytest.mark.backends("numpy")
@pytest.mark.parametrize(
    ("average", "message"),
    [
        (0.999, r"Adam: average=0.999 is a float; wanted EMA\(0.999\), SWA\(start=1000\), or None"),
        (EMA, r"Adam: average=.*; wanted EMA\(0.999\), SWA\(start=1000\), or None; call it, EMA\(\)"),
        ("Lookahead()", r"Adam: average: Lookahead\(every=6, pull=0.5\) is a Lookahead; wanted EMA"),
        ("EMA(decay=1)", r"Adam: average: EMA: decay=1.0 is out of range; wanted a finite number in \[0, 1\)"),
        ("EMA(decay=-0.5)", r"EMA: decay=-0.5 is out of range"),
        ("SWA(start=-1)", r"SWA: start=-1 is out of range; wanted an int in \[0"),
        ("SWA(start=1, every=0)", r"SWA: every=0 is out of range; wanted an int in \[1"),
        ("SWA()", "SWA needs start, which has no default"),
        ("Mean()", "unknown transform 'Mean'"),
    ],
    ids=str,
)
def test_an_average_that_cannot_be(average, message):
    opt = Adam(average=EMA(0.5))
    for make in (lambda: Adam(average=average), lambda: opt.set_params({"average": average})):
        with pytest.raises((ValueError, TypeError), match=message):
            make()
    assert opt.average == EMA(0.5)


# What a class is evaluated with


def test_a_class_may_say_what_it_is_evaluated_with(backend):
    """Schedule-free: the parameter is y, and x is, at a constant rate, the mean of all z, the way of SGD."""
    var = problems.variable(5, (6,), steps=5)
    opt, param = xpopt.ScheduleFreeSGD(lr=0.125), backend.array(var.start)
    path = oracles.walk(oracles.schedule_free, var.start, var.gradients, [0.125] * 5, momentum=0.9)
    for gradient in var.gradients:
        param = opt.update(param, backend.array(gradient), "W")
    tolerance = 1e-13 if backend.widest == "float64" else 2e-6
    want = np.mean([[z for z, _, _ in memories] for _, memories in path], axis=0)
    np.testing.assert_allclose(backend.numpy(opt.averaged({"W": param})["W"]), want, rtol=tolerance, atol=tolerance)


@pytest.mark.backends("numpy")
def test_of_a_class_and_a_transform_the_transform_counts():
    opt, x = xpopt.ScheduleFreeSGD(lr=0.5, average=SWA(start=0)), np.array([2.0])
    path = [x]
    for _ in range(3):
        path.append(opt.update(path[-1], np.ones(1), "W"))
    np.testing.assert_allclose(opt.averaged({"W": path[-1]})["W"], np.mean(path, axis=0), rtol=1e-15)
