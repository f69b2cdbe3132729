"""What is true of array-api-strict: it has several devices, and may wrap an array that is read-only."""

import numpy as np
import pytest
from _kit.states import KING, every_optimizer, model, nothing_changes, same, train

from xpopt import SGD, Adam

pytestmark = pytest.mark.backends("array-api-strict")


@pytest.fixture
def there(xp):
    """A device that is not the default one."""
    return xp.Device("device1")


def moved(x, device):
    return x.to_device(device)


@every_optimizer
def test_results_and_slots_stay_on_the_device(backend, xp, there, make):
    opt, other = make(clip_norm=0.5), make(clip_norm=0.5)
    params, grads = model(backend)
    here = params
    params = {name: moved(x, there) for name, x in params.items()}
    for step in range(2):
        params = opt.update_all(params, {name: moved(x, there) for name, x in grads.items()})
        here = other.update_all(here, grads)
        assert all(x.device == there for x in params.values())
        assert same(backend, {name: moved(x, xp.Device("CPU_DEVICE")) for name, x in params.items()}, here), step
    for entry in opt.cache.values():
        for slot in entry.values() if isinstance(entry, dict) else [entry]:
            assert isinstance(slot, int) or slot.device == there
    twin = opt.copy()
    for entry in twin.cache.values():
        for slot in entry.values() if isinstance(entry, dict) else [entry]:
            assert isinstance(slot, int) or slot.device == there


@every_optimizer
def test_a_gradient_on_another_device_is_refused_by_name(backend, there, make):
    opt = make(lr_scheduler=KING)
    train(backend, opt, 4)
    params, grads = model(backend)
    with nothing_changes(backend, opt, params, grads):
        for W, g in [(params["W"], moved(grads["W"], there)), (moved(params["W"], there), grads["W"])]:
            for name in ("new", "W"):
                with pytest.raises(ValueError, match=f"'{name}'") as error:
                    opt.update(W, g, name, 9.0)
                assert "device1" in str(error.value)
                assert "CPU_DEVICE" in str(error.value)
            with pytest.raises(ValueError, match="gradient of 'new' is on"):
                opt.update_all({**params, "new": W}, {**grads, "new": g}, 9.0)


@every_optimizer
def test_a_name_is_of_one_device(backend, there, make):
    opt = make()
    params = train(backend, opt, 1)
    W = moved(params["W"], there)
    with nothing_changes(backend, opt, W), pytest.raises(ValueError, match=r"'W'.*CPU_DEVICE.*device1"):
        opt.update(W, W, "W")
    del opt.cache["W"]
    assert opt.update(W, W, "W").device == there


def test_out_on_another_device_is_refused_by_name(backend, there):
    opt = Adam(lr_scheduler=KING)
    params, grads = model(backend)
    out = moved(backend.array(np.zeros((2, 3))), there)
    with nothing_changes(backend, opt, params, grads), pytest.raises(ValueError, match=r"out of 'W' is on .*device1"):
        opt.update(params["W"], grads["W"], "W", 1.0, out=out)


def test_out_on_a_device_of_its_own(backend, there):
    W, g = moved(backend.array([1.0, 2.0]), there), moved(backend.array([1.0, 1.0]), there)
    assert SGD(lr=0.5).update(W, g, "W", out=W) is W
    assert same(backend, moved(W, g.device), moved(backend.array([0.5, 1.5]), there))
    params = {"a": W, "b": backend.array([3.0])}
    SGD(lr=0.5).update_all(params, {"a": g, "b": backend.array([1.0])}, out=params)
    assert params["a"].device == there


def test_lists_go_to_the_device_of_the_other_argument(backend, there):
    x = moved(backend.array([1.0, 2.0]), there)
    assert SGD().update([1.0, 2.0], x, "a").device == there
    assert SGD().update(x, [1.0, 2.0], "a").device == there


@pytest.mark.parametrize("device", ["no_float64", "no_x64"])
@every_optimizer
def test_a_device_without_float64(backend, xp, make, device):
    there = xp.Device(device)
    W = xp.asarray([1.0, 2.0], dtype=xp.float32, device=there)
    opt = make(clip_norm=0.5)
    got = opt.update(opt.update(W, W, "W"), W, "W")
    assert got.device == there
    assert got.dtype == xp.float32


def test_state_on_another_device_is_refused_by_name(backend, there):
    opt = Adam()
    params = train(backend, opt, 1)
    before = opt.cache["W"]
    opt.cache["W"] = {**before, "var": moved(before["var"], there)}
    with pytest.raises(ValueError, match="cache of 'W'"):
        opt.update(params["W"], params["W"], "W")
    with pytest.raises(ValueError, match="cache of 'W'"):
        Adam().set_params(cache_dict={"W": opt.cache["W"]})
    entry = {key: value if key == "t" else moved(value, there) for key, value in before.items()}
    other = Adam()
    other.set_params(cache_dict={"W": entry})
    assert other.cache["W"]["mean"].device == there
    W = moved(params["W"], there)
    assert other.update(W, W, "W").device == there


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_out_around_a_read_only_array_is_refused_in_time(backend, xp):
    below = np.zeros(3)
    below.flags.writeable = False
    closed, target = xp.asarray(below, copy=False), xp.zeros((2, 3))
    opt = Adam(lr_scheduler=KING)
    train(backend, opt, 5)
    params, grads = model(backend)
    with nothing_changes(backend, opt, params, grads, target):
        with pytest.raises(ValueError, match="out of 'b' is read-only"):
            opt.update(params["b"], grads["b"], "b", 9.0, out=closed)
        with pytest.raises(ValueError, match="out of 'b' is read-only"):
            opt.update_all(params, grads, 9.0, out={"W": target, "b": closed})


def test_arrays_around_read_only_memory_are_parameters(backend, xp):
    below = np.ones(3)
    below.flags.writeable = False
    W = xp.asarray(below, copy=False)
    assert same(backend, SGD(lr=0.5).update(W, W, "W"), backend.array([0.5, 0.5, 0.5]))
