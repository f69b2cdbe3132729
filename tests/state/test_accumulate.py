"""Steps of several gradients: their mean, what stays between whole steps, and what is counted."""

import pickle

import numpy as np
import pytest
from _kit.bits import cast, same_bits
from _kit.rows import on_numpy
from _kit.states import held, nothing_changes
from _kit.trajectories import HAVE_16_BITS, low_dtypes

import xpopt
from xpopt import SGD, Adam

pytestmark = [pytest.mark.any_immutable, pytest.mark.any_engine]

HALVING = "ExponentialScheduler(initial_lr=0.125, stage_length=1, staircase=False, decay=0.5)"
SHAPES = {"W": (2, 3), "b": ()}


def call(opt, way, params, grads, last):
    """Make one pass; `step` is called after each, or after that of a whole step alone."""
    if way == "update_all":
        return opt.update_all(params, grads)
    new = {name: opt.update(x, grads[name], name) for name, x in params.items()}
    if last or way == "update, step":
        opt.step()
    return new


def draw(steps, length, dtype="float64"):
    """Eighths, of which sums are exact."""
    rng = np.random.default_rng(8)
    return [
        [{name: cast(rng.integers(-32, 33, shape) / 8, dtype) for name, shape in SHAPES.items()} for _ in range(length)]
        for _ in range(steps)
    ]


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("way", ["update_all", "update, step", "update"])
@pytest.mark.parametrize(
    ("engine", "dtype", "make"),
    [
        ("eager", "float64", lambda **kw: SGD(momentum=0.5, **kw)),
        ("blocked", "float32", lambda **kw: Adam(clip_norm=0.5, average=xpopt.EMA(0.5), **kw)),
        pytest.param(
            "compiled", "float16", lambda **kw: Adam(master=True, nonfinite="skip", **kw), marks=pytest.mark.llvmlite
        ),
    ],
    ids=["SGD", "Adam", "AdamW"],
)
def test_a_step_is_that_of_the_mean(way, engine, dtype, make):
    """Four gradients make a step, with the bits of an optimizer that gets their mean."""
    opt, plain = make(lr_scheduler=HALVING, accumulate=4), make(lr_scheduler=HALVING)
    params = want = {name: cast(np.full(shape, 0.5), dtype) for name, shape in SHAPES.items()}
    with xpopt.engine(engine):
        for step, gradients in enumerate(draw(3, 4, dtype), 1):
            mean = {name: cast(sum(g[name].astype(float) for g in gradients) / 4, "float32") for name in SHAPES}
            want = plain.update_all(want, {name: x.astype(dtype) for name, x in mean.items()})
            for grads in gradients[:-1]:
                before = params
                params = call(opt, way, params, grads, last=False)
                assert same_bits(params, before)
                assert opt.cur_step == step - 1
                assert {entry["t"] for entry in opt.cache.values()} == {step - 1}
            params = call(opt, way, params, gradients[-1], last=True)
            assert same_bits(params, want)
            assert opt.cur_step == plain.cur_step == step
    for name in SHAPES:
        entry = opt.cache[name]
        assert entry["t"] == 3
        assert not entry["grad_sum"].any()
        if isinstance(plain.cache[name], dict):
            assert same_bits({key: entry[key] for key in plain.cache[name]}, plain.cache[name])


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("engine", ["eager", "blocked"])
def test_a_model_that_nobody_looks_at_meanwhile(engine):
    """Then each step goes on with the groups of the last one."""
    opt, plain = Adam(lr=0.125, accumulate=4), Adam(lr=0.125)
    params = want = {name: np.full(shape, 0.5) for name, shape in SHAPES.items()}
    with xpopt.engine(engine):
        for gradients in draw(3, 4):
            want = plain.update_all(want, {name: sum(g[name] for g in gradients) / 4 for name in SHAPES})
            for grads in gradients:
                params = opt.update_all(params, grads)
    assert same_bits(params, want)
    assert {entry["t"] for entry in opt.cache.values()} == {3}


def test_on_every_library(backend):
    opt = SGD(lr=0.5, momentum=0.5, accumulate=2)
    params = {"W": backend.array([1.0, 2.0])}
    walked = []
    for grad in ([1.0, 3.0], [3.0, -1.0], [2.0, 0.0], [4.0, 0.0]):
        params = opt.update_all(params, {"W": backend.array(grad)})
        walked.append(backend.numpy(params["W"]).tolist())
    assert walked == [[1.0, 2.0], [0.0, 1.5], [0.0, 1.5], [-2.0, 1.25]]  # by means of (2, 1) and (3, 0)
    assert opt.cache["W"]["t"] == 2


@on_numpy
@pytest.mark.parametrize("way", ["in place", "apart"])
def test_between_whole_steps_out_gets_the_parameter(backend, way):
    opt = SGD(lr=1.0, accumulate=2)
    params = {"W": backend.writable([1.0, 2.0])}
    out = params if way == "in place" else {"W": backend.writable([7.0, 7.0])}
    walked = []
    for _ in range(2):
        assert opt.update_all(params, {"W": backend.array([1.0, 1.0])}, out=out) is out
        walked.append(backend.numpy(out["W"]).tolist())
    assert walked == [[1.0, 2.0], [0.0, 1.0]]


@HAVE_16_BITS
def test_sums_of_16_bits_have_the_digits_of_float32(backend):
    for dtype in low_dtypes(backend):
        opt, x = SGD(lr=1.0, accumulate=3), backend.array([0.0], dtype)
        for grad in (256.0, 1.0, -256.0):
            x = opt.update(x, backend.array([grad], dtype), "W")
        np.testing.assert_allclose(backend.numpy(x), -1 / 3, rtol=2**-8)


def test_it_goes_on_from_anywhere(backend):
    """Cut after each call, also within a pass, and gone on from a copy, a pickle, and a state."""
    (gradients,) = draw(1, 6)

    def walk(cut):
        opt, params = Adam(lr=0.125, accumulate=2, lr_scheduler=HALVING), {}
        for name, shape in SHAPES.items():
            params[name] = backend.array(np.ones(shape))
        for k, grads in enumerate(gradients):
            for part, name in enumerate(SHAPES):
                params[name] = opt.update(params[name], backend.array(grads[name]), name)
                if (k, part) == cut:
                    state, other = opt.state_dict(), Adam()
                    other.load_state_dict(state)
                    opt = [opt.copy(), pickle.loads(pickle.dumps(opt)), other][(2 * k + part) % 3]
            if k % 2:
                opt.step()
        return held(backend, opt), [backend.numpy(x).tobytes() for x in params.values()]

    want = walk(None)
    for cut in (
        [(k, part) for k in range(5) for part in (0, 1)] if backend.name == "numpy" else [(0, 0), (1, 1), (2, 0)]
    ):
        assert walk(cut) == want


@on_numpy
def test_a_gradient_that_is_left_out_is_not_added(backend):
    opt, x = SGD(lr=1.0, accumulate=2, nonfinite="skip"), backend.array([4.0])
    for grad in (1.0, np.nan, np.inf, 3.0):
        x = opt.update_all([x], [backend.array([grad])])[0]
    assert backend.numpy(x).tolist() == [2.0]
    assert (opt.skipped, opt.cur_step) == (2, 1)
    raising = SGD(accumulate=2, nonfinite="raise")
    with pytest.raises(FloatingPointError, match="not finite: the gradient of 0"):
        raising.update_all([x], [backend.array([np.nan])])
    assert raising.cache == {}


@pytest.mark.backends("numpy")
def test_a_mean_is_within_the_limits_of_products_as_each_of_its_gradients_is():
    opt, x = Adam(accumulate=2, nonfinite="skip"), np.zeros(2, np.float32)
    large = np.full(2, 1e21, np.float32)  # whose squares are infinite
    opt.update(x, large, "W")
    assert opt.skipped == 1
    assert opt.cache == {}


@pytest.mark.backends("numpy")
def test_groups_of_any_algorithm_step_together():
    groups = {"frozen": "freeze", "b*": {"lr": 0.25}, "W": Adam(lr=0.125, weight_decay=0.5)}
    opt = SGD(lr=0.5, accumulate=2, groups=groups)
    again = xpopt.make_optimizer(str(opt))
    params = want = {name: np.ones(2) for name in ("W", "b", "frozen", "rest")}
    adam = Adam(lr=0.125, weight_decay=0.5)
    for k in range(4):
        grads = {name: np.array([2.0, 4.0]) * (1 + k % 2) / 1.5 for name in params}
        params = opt.update_all(params, grads)
        again.update_all(want, grads)
        if k % 2:
            mean = np.array([2.0, 4.0])
            want = {
                "W": adam.update(want["W"], mean, "W"),
                "b": want["b"] - 0.25 * mean,
                "frozen": want["frozen"],
                "rest": want["rest"] - 0.5 * mean,
            }
        for name, x in params.items():
            np.testing.assert_allclose(x, want[name], rtol=1e-12)
    opt.set_params({"accumulate": 1})
    assert "grad_sum" not in opt.explain(params)[0].slots
    for name in ("W", "b"):
        before = params[name]
        assert not np.array_equal(opt.update(before, np.ones(2), name), before)
    with pytest.raises(TypeError, match=r"groups\['W'\] has accumulate, which is for all parameters of a step"):
        SGD(groups={"W": {"accumulate": 2}})


@pytest.mark.backends("numpy")
def test_without_a_gradient_in_the_last_pass_a_parameter_waits():
    opt, params = SGD(lr=1.0, accumulate=2), [np.zeros(1), np.zeros(1)]
    for second in (1.0, None, 3.0, 4.0):
        params = opt.update_all(params, [np.ones(1), None if second is None else np.array([second])])
    assert [x.tolist() for x in params] == [[-2.0], [-4.0]]
    assert (opt.cache[0]["t"], opt.cache[1]["t"]) == (2, 1)


@pytest.mark.backends("numpy")
def test_an_error_counts_nothing(backend):
    opt, x = SGD(lr=1.0, accumulate=2), np.zeros((2, 3))
    x = opt.update(x, np.ones((2, 3)), "W")
    for name in ("W", "V"):
        with pytest.raises(ValueError, match="shape"), nothing_changes(backend, opt):
            opt.update(x, np.ones(3), name)
        with pytest.raises(ValueError, match="shape"), nothing_changes(backend, opt):
            opt.update_all({name: x}, {name: np.ones(3)})
    assert np.array_equal(opt.update(x, np.ones((2, 3)), "V"), x)  # in the first pass still
    assert opt.update(x, np.full((2, 3), 3.0), "W").tolist() == 2 * [3 * [-2.0]]


@pytest.mark.backends("numpy")
def test_step_counts_whole_steps():
    opt, x = SGD(lr=1.0, accumulate=2), np.zeros(1)
    for grad, steps in ((1.0, 0), (1.0, 1), (1.0, 1), (1.0, 2)):
        x = opt.update_all([x], [np.array([grad])])[0]
        assert opt.cur_step == steps
    opt.update(x, x, "other")
    opt.step()
    assert opt.cur_step == 2
    opt.update(x, x, "other")
    opt.step()
    opt.step()  # of nothing: as without accumulation
    assert opt.cur_step == 4


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("value", [0, -1, 1.5, True, None])
def test_what_is_no_number_of_gradients(value):
    opt = Adam(accumulate=2)
    for make in (lambda: Adam(accumulate=value), lambda: opt.set_params({"accumulate": value})):
        with pytest.raises((ValueError, TypeError), match=r"Adam: accumulate=.* wanted an int in \[1"):
            make()
    assert opt.accumulate == 2


@pytest.mark.backends("numpy")
def test_it_changes_between_steps_alone():
    opt, x = SGD(lr=1.0, accumulate=2), np.zeros(1)
    opt.update(x, x, "W")
    message = "SGD: accumulate=3 comes in the middle of a step of 2 gradients; complete the step first"
    with pytest.raises(ValueError, match=message):
        opt.set_params({"accumulate": 3})
    opt.set_params({"accumulate": 2, "lr": 0.5})
    opt.update(x, x, "W")
    opt.set_params({"accumulate": 3})
    for _ in range(3):
        x = opt.update(x, np.full(1, 3.0), "W")
    assert x.tolist() == [-1.5]


@pytest.mark.backends("numpy")
def test_a_header_that_cannot_be(backend):
    opt = Adam(accumulate=2)
    opt.update(np.zeros((2, 3)), np.zeros((2, 3)), "W")
    state = opt.state_dict()
    assert state["header"]["gathered"] == {"passes": 0, "names": ["W"]}
    for gathered, message in (
        ({"passes": 2, "names": []}, "gathered has 2 passes, and accumulate is 2"),
        ({"passes": -1, "names": []}, "passes is -1; wanted an int of at least 0"),
        ({"passes": 0, "names": ["W", "W"]}, "gathered names .*, one of them twice"),
        ({"passes": 0}, "gathered is .*; wanted a dict of passes, names"),
        (1, "gathered is 1; wanted a dict of passes, names"),
    ):
        wrong = {**state, "header": {**state["header"], "gathered": gathered}}
        with pytest.raises(xpopt.CheckpointError, match=message), nothing_changes(backend, opt):
            opt.load_state_dict(wrong)
    assert "gathered" not in Adam().state_dict()["header"]
