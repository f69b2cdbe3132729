"""Gradients of a loss that was multiplied."""

import pickle

import numpy as np
import pytest
from _kit.bits import cast, same_bits
from _kit.rows import on_numpy

import xpopt
from xpopt import SGD, Adam

pytestmark = [pytest.mark.any_immutable, pytest.mark.any_engine]

SCALE = 1024.0
OPTIONS = {
    "alone": {},
    "clipped": {"clip_norm": 0.5},
    "clipped by value and norm": {"clip_value": 0.25, "clip_norm": 0.5},
    "accumulated": {"accumulate": 2, "clip_norm": 0.5},
    "guarded": {"nonfinite": "raise", "clip_norm": 0.5, "l2": 0.125},
    "other groups": {"groups": {"b": SGD(lr=0.5, momentum=0.5), "W": {"clip_norm": 0.25}}},
}


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("engine", ["eager", "blocked", pytest.param("compiled", marks=pytest.mark.llvmlite)])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_power_of_two_changes_no_bit(options, engine):
    """Of the parameters of an optimizer that gets the gradients as they are."""
    scaled, plain = Adam(lr=0.125, loss_scale=SCALE, **options), Adam(lr=0.125, **options)
    rng = np.random.default_rng(4)
    params = want = {"W": rng.normal(size=(3, 2)), "b": rng.normal(size=4)}
    with xpopt.engine(engine):
        for _ in range(4):
            grads = {name: rng.normal(size=x.shape) for name, x in params.items()}
            params = scaled.update_all(params, {name: x * SCALE for name, x in grads.items()})
            want = plain.update_all(want, grads)
            assert same_bits(params, want)
        rows = zip(scaled.explain(params), plain.explain(params), strict=True)
    assert same_bits(scaled.cache, plain.cache)
    assert all(one.engine == other.engine for one, other in rows)


def test_on_every_library(backend):
    for way in ("update", "update_all"):
        opt, x = SGD(lr=0.5, loss_scale=8.0, clip_norm=1.0), backend.array([1.0, 2.0])
        grad = backend.array([0.0, 32.0])
        new = opt.update(x, grad, 0) if way == "update" else opt.update_all([x], [grad])[0]
        np.testing.assert_allclose(backend.numpy(new), [1.0, 1.5], rtol=1e-6)


@on_numpy
def test_a_gradient_that_16_bits_would_lose(backend):
    grad = cast([2.0**-26], "float32")  # below the least of float16
    lost = SGD(lr=1.0, master=True).update(cast([0.0], "float16"), cast(grad, "float16"), "W")
    opt = SGD(lr=1.0, loss_scale=2.0**16, master=True)
    opt.update(cast([0.0], "float16"), cast(grad * 2.0**16, "float16"), "W")
    assert lost.tolist() == [0.0]
    assert opt.cache["W"]["master"].tolist() == [-(2.0**-26)]


@pytest.mark.backends("numpy")
def test_the_limits_of_products_are_of_the_gradient_of_the_loss():
    zero = np.zeros(2, np.float32)
    for size, skipped in ((1e21, 0), (1e24, 1)):  # of which the first is 1e18 without the scale, and its square finite
        opt = Adam(nonfinite="skip", loss_scale=1000.0)
        opt.update(zero, np.full(2, size, np.float32), "W")
        assert opt.skipped == skipped


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), True, None])
def test_what_is_no_scale(value):
    opt = Adam(loss_scale=2.0)
    for make in (lambda: Adam(loss_scale=value), lambda: opt.set_params({"loss_scale": value})):
        with pytest.raises((ValueError, TypeError), match=r"Adam: loss_scale=.* wanted a finite number in \(0, inf\)"):
            make()
    with pytest.raises(TypeError, match=r"groups\['W'\] has loss_scale, which is for all parameters of a step"):
        Adam(groups={"W": {"loss_scale": 2.0}})
    assert opt.loss_scale == 2.0


# One that follows from the steps

MOVING = xpopt.DynamicLossScale(64.0, growth=4.0, backoff=0.25, every=2)


def expected(events):
    """The scale after each of some steps, finite or not, as GradScaler has it."""
    scale, good, found = 64.0, 0, []
    for ok in events:
        good = good + 1 if ok else 0
        if not ok:
            scale *= 0.25
        elif good == 2:
            scale, good = scale * 4, 0
        found.append(scale)
    return found


EVENTS = (True, True, False, True, True, True, False, False, True)


def gradient(backend, opt, value, ok):
    """Of a loss that was multiplied by the present scale; where it is not to be finite, of another one."""
    grad = backend.array([value]) * opt.cur_loss_scale
    return grad if ok else grad * np.inf


@pytest.mark.parametrize("way", ["update_all", "update"])
def test_the_scale_follows_from_the_steps(backend, way):
    opt, x = SGD(lr=0.5, loss_scale=MOVING, nonfinite="skip"), backend.array([0.0])
    scales, steps = [], 0
    for ok in EVENTS:
        grad = gradient(backend, opt, 1.0, ok)
        if way == "update_all":
            (x,) = opt.update_all([x], [grad])
        else:
            before = float(opt.cur_loss_scale)
            x = opt.update(x, grad, 0)
            assert float(opt.cur_loss_scale) == before  # in a pass it stays
            opt.step()
        scales.append(float(opt.cur_loss_scale))
        steps += ok
        assert backend.numpy(x).tolist() == [-0.5 * steps]
    assert scales == expected(EVENTS)
    assert opt.skipped == EVENTS.count(False)


@pytest.mark.backends("jax")
def test_a_lazy_library_keeps_it_as_an_array(backend):
    opt, x = Adam(loss_scale=MOVING, nonfinite="skip", accumulate=2), backend.array([0.0])
    assert opt.cur_loss_scale == 64.0
    opt.update_all([x], [x])
    assert type(opt.cur_loss_scale) is type(x)
    assert opt.copy().cur_loss_scale == 64.0


def test_it_goes_on_from_a_state(backend):
    """Between two passes, and within one of `update`."""
    for cut in (1, 3):
        opt, x = SGD(lr=0.5, loss_scale=MOVING, nonfinite="skip"), backend.array([0.0])
        for k, ok in enumerate(EVENTS[:5]):
            for name in "ab":
                opt.update(x, gradient(backend, opt, 1.0, ok or name == "b"), name)
                if k == cut and name == "a":
                    twin = SGD()
                    twin.load_state_dict(opt.state_dict())
                    assert twin.cur_loss_scale == pickle.loads(pickle.dumps(opt)).cur_loss_scale == opt.cur_loss_scale
                    assert str(twin) == str(opt)
                    opt = twin
            opt.step()
        assert float(opt.cur_loss_scale) == expected(EVENTS[:5])[-1]


@pytest.mark.backends("numpy")
def test_it_stays_between_two_ends():
    up = SGD(loss_scale=xpopt.DynamicLossScale(2.0**59, every=1), nonfinite="skip")
    down = SGD(loss_scale=xpopt.DynamicLossScale(2.0**-59), nonfinite="skip")
    for _ in range(3):
        up.update_all([np.zeros(1)], [np.zeros(1)])
        down.update_all([np.zeros(1)], [np.full(1, np.nan)])
    assert (up.cur_loss_scale, down.cur_loss_scale) == (2.0**60, 2.0**-60)
    up.set_params({"loss_scale": 4.0})
    assert up.cur_loss_scale == up.loss_scale == 4.0
    up.set_params({"loss_scale": "DynamicLossScale(loss_scale=8)"})
    assert up.cur_loss_scale == 8.0


@pytest.mark.backends("torch")
def test_beside_torch(backend):
    torch = pytest.importorskip("torch")
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_factor=4.0, backoff_factor=0.25, growth_interval=2)
    theirs = torch.nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([theirs], lr=0.5)
    opt, x = SGD(lr=0.5, loss_scale=MOVING, nonfinite="skip"), backend.array([0.0], "float32")
    for k, ok in enumerate(EVENTS):
        loss = scaler.scale(theirs.sum() * (k + 1.0))
        sgd.zero_grad()
        loss.backward()
        theirs.grad *= 1.0 if ok else float("inf")
        scaler.step(sgd)
        scaler.update()
        grad = backend.array([k + 1.0], "float32") * opt.cur_loss_scale * (1.0 if ok else float("inf"))
        (x,) = opt.update_all([x], [grad])
        assert torch.equal(x, theirs.detach())
        assert opt.cur_loss_scale == scaler.get_scale()


@pytest.mark.backends("numpy")
def test_what_cannot_be_with_it(backend):
    with pytest.raises(ValueError, match=r"Adam: a DynamicLossScale needs nonfinite='skip', .*; it is 'propagate'"):
        Adam(loss_scale=MOVING)
    with pytest.raises(ValueError, match=r"unknown transform 'dynamic'.*; did you mean 'DynamicLossScale'"):
        Adam(loss_scale="dynamic", nonfinite="skip")
    for text, message in (
        ("DynamicLossScale(growth=0.5)", "growth=0.5 is out of range"),
        ("DynamicLossScale(backoff=1.0)", "backoff=1.0 is out of range"),
        ("DynamicLossScale(every=0)", "every=0 is out of range"),
        ("DynamicLossScale(loss_scale=0)", "loss_scale=0.0 is out of range"),
    ):
        with pytest.raises(ValueError, match=f"DynamicLossScale: {message}"):
            Adam(loss_scale=text, nonfinite="skip")
    opt = SGD(loss_scale=MOVING, nonfinite="skip")
    opt.update_all([np.zeros(1)], [np.zeros(1)])
    state = opt.state_dict()
    assert state["header"]["loss_scale"] == {"value": 64.0, "steps": 1, "failed": None}
    for wrong, message in (
        ({"value": 0.0, "steps": 1, "failed": None}, "loss_scale is 0.0; wanted a finite number above 0"),
        ({"value": 1.0, "steps": -1, "failed": None}, "steps of loss_scale is -1; wanted an int"),
        ({"value": 1.0, "steps": 1, "failed": 1}, "failed is 1; wanted a bool"),
        ([], "loss_scale is .*; wanted a dict of value, steps, failed"),
    ):
        with pytest.raises(xpopt.CheckpointError, match=message):
            opt.load_state_dict({**state, "header": {**state["header"], "loss_scale": wrong}})
    assert "loss_scale" not in SGD().state_dict()["header"]


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("kind", ["groups", "others"])
def test_a_model_with_another_optimizer_is_loaded(kind, tmp_path):
    pytest.importorskip("safetensors", reason="files need safetensors")

    def make():
        options = {"loss_scale": xpopt.DynamicLossScale(), "nonfinite": "skip"}
        if kind == "others":
            return xpopt.Muon(others=xpopt.AdamW(), **options)
        return xpopt.Adam(groups={"b": xpopt.AdamW()}, **options)

    opt = make()
    params = {"W": np.ones((2, 2)), "b": np.ones(2)}
    grads = {name: x * 0.1 * opt.cur_loss_scale for name, x in params.items()}
    params = opt.update_all(params, grads)
    opt.save(tmp_path / "opt")
    loaded, stated, told = make(), make(), make()
    loaded.load(tmp_path / "opt")
    stated.load_state_dict(opt.state_dict())
    told.set_params(opt.hyperparameters, opt.cache)
    expected = opt.update_all(params, grads)
    for other in (loaded, stated, told):
        found = other.update_all(params, grads)
        assert all((found[name] == x).all() for name, x in expected.items())
        assert all((found[name] != params[name]).all() for name in params)
