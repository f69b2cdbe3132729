"""An update happens as a whole or not at all; what the caller gave is only read, and let go."""

import copy
import gc
import pickle
import warnings
import weakref
from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit.states import (
    KING,
    CountingScheduler,
    LossScheduler,
    equal,
    every_optimizer,
    frozen,
    held,
    model,
    nothing_changes,
    same,
    train,
    writes,
)

from xpopt import Adam, OptimizerBase, engine
from xpopt.schedulers import SchedulerBase

pytestmark = pytest.mark.any_immutable

FAILURES = [
    ValueError("mine"),
    MemoryError(),
    KeyboardInterrupt(),
    FloatingPointError("mine"),
    SystemExit(3),
    StopIteration(),
]


class Moments(NamedTuple):
    mean: Any
    var: Any


class Fragile(OptimizerBase):
    """A rule that works, until the fuse is set and the calls are counted down."""

    slots = Moments
    fuse: list = []

    def __init__(self, lr=0.125, clip_norm=None, lr_scheduler=None):
        super().__init__(lr, lr_scheduler, clip_norm=clip_norm)

    @staticmethod
    def rule(xp, param, grad, s, h):
        mean = 0.5 * s.mean + grad
        var = s.var + grad * grad / h.t
        Fragile.burn()
        return param - h.lr * mean / (xp.sqrt(var) + 1), Moments(mean, var)

    @classmethod
    def burn(cls):
        if cls.fuse:
            cls.fuse[1] -= 1
            if cls.fuse[1] < 0:
                raise cls.fuse[0]


class FragileScalars(Fragile):
    @staticmethod
    def scalars(h):
        Fragile.burn()
        return {"more": 1.0 / h.t}


@pytest.fixture
def fail():
    """Set the fuse: `failure` comes after `calls` that succeed."""
    yield lambda failure, calls: Fragile.fuse.extend([failure, calls])
    Fragile.fuse.clear()


def attempts(backend, opt, params, grads, loss):
    """Every way to call, with the number of rules each runs."""
    W, g = params["W"], grads["W"]
    ways = [
        (1, lambda: opt.update(W, g, "W", loss)),
        (1, lambda: opt(W, g, "new", loss)),
        (2, lambda: opt.update_all(params, grads, loss)),
        (2, lambda: opt.update_all([W, params["b"]], [g, grads["b"]], loss)),
    ]
    if backend.mutable:
        mine = {name: backend.writable(backend.numpy(x)) for name, x in params.items()}
        ways.append((1, lambda: opt.update(W, g, "W", loss, out=mine["W"])))
        ways.append((2, lambda: opt.update_all(mine, grads, loss, out=mine)))
        return ways, mine
    return ways, {}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("scheduler", [KING, CountingScheduler()], ids=["king", "own"])
def test_a_rule_that_fails_leaves_everything(backend, fail, scheduler):
    """At the first parameter and at the last, in the middle of a pass, for known names and new ones."""
    opt = Fragile(lr_scheduler=scheduler, clip_norm=2.0)
    train(backend, opt, 5)
    params, grads = model(backend)
    opt.update(params["b"], grads["b"], "b", 0.5)
    ways, mine = attempts(backend, opt, params, grads, 9.0)
    for failure, (calls, way) in zip(FAILURES, ways, strict=False):
        with nothing_changes(backend, opt, params, grads, mine):
            fail(failure, calls - 1)
            with pytest.raises(type(failure)):
                way()
            Fragile.fuse.clear()


def test_scalars_that_fail_leave_everything(backend, fail):
    opt = FragileScalars(lr_scheduler=KING)
    train(backend, opt, 5)
    params, grads = model(backend)
    ways, mine = attempts(backend, opt, params, grads, 9.0)
    for failure, (_, way) in zip(FAILURES, ways, strict=False):
        with nothing_changes(backend, opt, params, grads, mine):
            fail(failure, 0)
            with pytest.raises(type(failure)):
                way()
            Fragile.fuse.clear()


@every_optimizer
def test_a_schedule_that_fails_leaves_everything(backend, make):
    opt = make(lr_scheduler=LossScheduler())
    params = train(backend, opt, 2)
    _, grads = model(backend)
    ways, mine = attempts(backend, opt, params, grads, 9.0)
    for failure, (_, way) in zip([*FAILURES[1:], ArithmeticError("mine")], ways[::-1], strict=False):
        with nothing_changes(backend, opt, params, grads, mine):
            opt.lr_scheduler.failure = failure
            with pytest.raises(ValueError if isinstance(failure, ArithmeticError) else type(failure)):
                way()
            opt.lr_scheduler.failure = None


@pytest.mark.parametrize("rate", [float("nan"), -1.0, float("inf"), "0.1", None, 1j], ids=repr)
def test_a_schedule_without_a_rate_leaves_everything(backend, rate):
    class Bad(SchedulerBase):
        rate_now = 0.5

        def learning_rate(self, step, cur_loss=None):
            return self.rate_now

    opt = Adam(lr_scheduler=Bad())
    train(backend, opt, 2)
    params, grads = model(backend)
    with nothing_changes(backend, opt, params, grads):
        opt.lr_scheduler.rate_now = rate
        with pytest.raises((TypeError, ValueError), match="Bad"):
            opt.update_all(params, grads)
        with pytest.raises((TypeError, ValueError), match="Bad"):
            opt.update(params["W"], grads["W"], "W")
        opt.lr_scheduler.rate_now = 0.5


@pytest.mark.usefixtures("eager")
def test_the_next_update_after_a_failure_is_the_one_that_failed(backend, fail):
    """Failing in between is as if it never happened, for values and state."""
    calm, shaken = Fragile(lr_scheduler=KING), Fragile(lr_scheduler=KING)
    params, _ = model(backend)
    want = dict(params)
    for loss in range(6):
        _, grads = model(backend, scale=1 + loss)
        fail(RuntimeError("mine"), 1)
        with pytest.raises(RuntimeError):
            shaken.update_all(params, grads, float(loss))
        Fragile.fuse.clear()
        params = shaken.update_all(params, grads, float(loss))
        want = calm.update_all(want, grads, float(loss))
    assert same(backend, params, want)
    assert held(backend, shaken) == held(backend, calm)


# The user's code in the midst of an update


class Calls(SchedulerBase):
    """Does something else at each step."""

    def __init__(self, rate=0.5):
        super().__init__()
        self.rate = rate
        self.action = lambda: None

    def learning_rate(self, step, cur_loss=None):
        self.action()
        return self.rate


FORBIDDEN = {
    "copy": lambda opt, folder: opt.copy(),
    "copy.copy": lambda opt, folder: copy.copy(opt),
    "pickle": lambda opt, folder: pickle.dumps(opt),
    "state_dict": lambda opt, folder: opt.state_dict(copy=False),
    "save": lambda opt, folder: opt.save(folder / "opt"),
    "load": lambda opt, folder: opt.load(folder / "older"),
    "load_state_dict": lambda opt, folder: opt.load_state_dict({"header": {}, "arrays": {}}),
    "set_params": lambda opt, folder: opt.set_params({"decay1": 0.5}),
    "lr_scheduler": lambda opt, folder: setattr(opt, "lr_scheduler", "noam"),
    "cache": lambda opt, folder: setattr(opt, "cache", {}),
    "cur_step": lambda opt, folder: setattr(opt, "cur_step", 9),
    "step": lambda opt, folder: opt.step(),
    "reset_step": lambda opt, folder: opt.reset_step(),
    "update": lambda opt, folder: opt.update(np.ones(2), np.ones(2), "new"),
    "update_all": lambda opt, folder: opt.update_all({"new": np.ones(2)}, {"new": np.ones(2)}),
}


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("engine_name", ["eager", "blocked", "compiled"])
@pytest.mark.parametrize("action", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_schedule_cannot_copy_or_change_the_optimizer_that_updates(backend, engine_name, action, tmp_path):
    pytest.importorskip("safetensors", reason="save and load need it")
    opt = Adam(lr_scheduler=Calls())
    with engine(engine_name):
        for _ in range(2):  # the second time, its plan is kept
            params, grads = model(backend)
            opt.update_all(params, grads, out=params)
    opt.save(tmp_path / "older")
    for way in (
        lambda: opt.update_all(params, grads, out=params),
        lambda: opt.update(params["W"], grads["W"], "W", out=params["W"]),
        lambda: opt.update(params["W"], grads["W"], "V"),
    ):
        with engine(engine_name), nothing_changes(backend, opt, params, grads):
            opt.lr_scheduler.action = lambda: action(opt, tmp_path)
            with pytest.raises(RuntimeError, match=r"this Adam is in the middle of another update.*in schedules"):
                way()
            opt.lr_scheduler.action = lambda: None
    assert not (tmp_path / "opt").exists()


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("engine_name", ["eager", "blocked", "compiled"])
def test_a_schedule_that_reads_the_cache_sees_the_state_before_and_keeps_it(backend, engine_name):
    def train(action):
        opt, seen = Adam(lr_scheduler=Calls()), []
        opt.lr_scheduler.action = (
            (lambda: seen.append({name: dict(x) for name, x in opt.cache.items()})) if action else (lambda: None)
        )
        params, grads = model(backend)
        with engine(engine_name):
            for _ in range(3):
                opt.update_all(params, grads, out=params)
            for _ in range(2):
                opt.update(params["W"], grads["W"], "W", out=params["W"])
        return opt, params, seen

    calm, want, _ = train(False)
    opt, params, seen = train(True)
    assert same(backend, params, want)
    assert held(backend, opt)["cache"] == held(backend, calm)["cache"]
    assert [entries.get("W", {}).get("t", 0) for entries in seen] == [0, 1, 2, 3, 4]
    again = Adam(lr_scheduler=Calls())
    params, grads = model(backend)
    for entries in seen[:4]:
        assert same(backend, dict(again.cache), entries)
        again.update_all(params, grads, out=params)


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("engine_name", ["eager", "blocked", "compiled"])
def test_a_schedule_may_update_with_another_optimizer_of_the_same_rule(backend, engine_name):
    outer, inner = Adam(lr_scheduler=Calls()), Adam()
    alone, other = Adam(lr_scheduler=Calls()), Adam()
    with engine(engine_name):
        params, grads = model(backend)
        mine, _ = model(backend)
        outer.lr_scheduler.action = lambda: inner.update_all(mine, grads, out=mine)
        for _ in range(3):
            outer.update_all(params, grads, out=params)
        want, _ = model(backend)
        theirs, _ = model(backend)
        for _ in range(3):
            alone.update_all(want, grads, out=want)
            other.update_all(theirs, grads, out=theirs)
    assert same(backend, [params, mine], [want, theirs])
    assert same(backend, [outer.cache, inner.cache], [alone.cache, other.cache])


@pytest.mark.backends("numpy")
def test_a_finalizer_cannot_copy_the_optimizer_that_updates(backend):
    """It runs wherever the collector does; its error is reported, and the update goes on."""
    opt, errors = Adam(lr_scheduler=Calls()), []

    class Dies:
        def __del__(self):
            try:
                opt.copy()
            except RuntimeError as error:
                errors.append(str(error))

    def leave_garbage():
        x = Dies()
        x.itself = x
        del x
        gc.collect()

    opt.lr_scheduler.action = leave_garbage
    W = np.ones(2)
    assert opt.update(W, W, "W").shape == (2,)
    assert len(errors) == 1
    assert "in the middle of another update" in errors[0]


@every_optimizer
def test_inputs_are_never_written(backend, make):
    for dtype in backend.dtypes:
        opt = make(clip_norm=0.5)
        params, grads = model(backend, dtype)
        before = frozen(backend, [params, grads])
        for _ in range(2):
            opt.update(params["W"], grads["W"], "W")
            opt.update_all({"W": params["W"], "b": params["b"]}, grads)
            opt.step() if opt.cur_step == 0 else None
            opt.update_all([params], [grads])
        assert frozen(backend, [params, grads]) == before


@writes
@every_optimizer
def test_the_caller_may_overwrite_its_buffers_after_the_call(backend, make):
    """One buffer for the gradient and one for the parameter, filled anew for each step."""
    for dtype in backend.dtypes:
        opt, other = make(clip_norm=0.5), make(clip_norm=0.5)
        W, g = (backend.writable(np.ones((2, 3)), dtype) for _ in range(2))
        for step in range(3):
            values = np.random.default_rng(step).normal(size=(2, 2, 3))
            W[...], g[...] = (backend.array(value, dtype) for value in values)
            got = opt.update(W, g, "W")
            whole = opt.update_all({"V": W}, {"V": g}) if step % 2 else None
            W[...] = g[...] = backend.array(np.full((2, 3), 77.0), dtype)
            plain = [backend.array(value, dtype) for value in values]
            assert same(backend, got, other.update(*plain, "W"))
            if whole is not None:
                assert same(backend, whole, other.update_all({"V": plain[0]}, {"V": plain[1]}))
            assert held(backend, opt) == held(backend, other)


@writes
@every_optimizer
def test_the_result_is_the_callers(backend, make):
    """Written to, it changes nothing that comes; and it is no input."""
    opt, other = make(), make()
    params, grads = model(backend)
    for _ in range(2):
        got = opt.update(params["W"], grads["W"], "W")
        other.update(params["W"], grads["W"], "W")
        values = frozen(backend, [params, grads])
        got[...] = backend.array(np.full((2, 3), 77.0))
        assert frozen(backend, [params, grads]) == values
    assert held(backend, opt) == held(backend, other)


@pytest.mark.backends("numpy", "numpy-readonly", "array-api-strict", "torch", "jax", "jax-x64", "cupy")
@every_optimizer
def test_nothing_of_the_callers_is_kept(backend, make):
    """Not even after an error; Dask is left out, since a lazy result is made of its inputs."""
    refs = []
    opts = []  # what keeps nothing keeps nothing while it lives
    for dtype in backend.dtypes:
        opt = make(lr_scheduler=KING, clip_norm=0.5)
        opts.append(opt)
        for call in (
            lambda W, g, opt=opt: opt.update(W, g, "W", 1.0),
            lambda W, g, opt=opt: opt.update_all({"W": W, "b": g}, {"W": g, "b": None}, 2.0),
            lambda W, g, opt=opt: opt.update_all({"W": W}, {"W": g}, 2.0, out={"W": g}) if backend.mutable else None,
        ):
            W, g = (backend.writable(np.ones((2, 3)), dtype) for _ in range(2))
            refs += [weakref.ref(W), weakref.ref(g)]
            call(W, g)
            del W, g
        W, g = backend.array(np.ones((2, 3)), dtype), backend.array(np.ones(3), dtype)
        refs += [weakref.ref(W), weakref.ref(g)]
        with pytest.raises(ValueError, match="shape"):
            opt.update(W, g, "W", 1.0)
        del W, g
    gc.collect()
    assert [ref() for ref in refs] == [None] * len(refs)


@pytest.mark.backends("numpy", "torch")
def test_a_loss_is_not_kept(backend):
    opt = Adam(lr_scheduler=KING)
    x = backend.array([1.0])
    loss = backend.array(2.0)
    ref = weakref.ref(loss)
    opt.update(x, x, "W", loss)
    del loss
    gc.collect()
    assert ref() is None


@every_optimizer
def test_a_callers_error_state_cannot_stop_an_update(backend, make):
    """Values that overflow, underflow and divide by 0 pass through, whatever `numpy.seterr` says."""
    for dtype in backend.dtypes:
        big = {"float16": 6e4, "bfloat16": 3e38, "float32": 3e38, "float64": 1e308}[dtype]
        values = [big, -big, np.inf, -np.inf, np.nan, 0.0, 1.0]
        for clip_norm in (None, 1.0):
            results = []
            for setting in ("ignore", "raise"):
                with np.errstate(all="ignore"):
                    W, g = backend.array(values, dtype), backend.array(values[::-1], dtype)
                opt = make(lr=1e30, clip_norm=clip_norm)
                with np.errstate(all=setting):
                    W = opt.update(W, g, "W")
                    W = opt.update_all({"W": W}, {"W": g})["W"]
                    state = np.geterr()
                assert set(state.values()) == {setting}
                with np.errstate(all="ignore"):
                    results.append(frozen_quietly(backend, [W, opt.cache]))
            assert results[0] == results[1]


def frozen_quietly(backend, value):
    if backend.library == "dask":  # whose arithmetic runs here, in its own threads
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return frozen(backend, value)
    return frozen(backend, value)


@every_optimizer
def test_a_gradient_that_is_not_finite_stays_visible(backend, make):
    opt = make()
    W = backend.array([1.0, 2.0])
    got = backend.numpy(opt.update(W, backend.array([float("nan"), 1.0]), "W"))
    assert np.isnan(got[0])
    assert np.isfinite(got[1])
    assert equal(backend, W, [1.0, 2.0])


@pytest.mark.backends("numpy")
def test_a_rule_that_reads_the_cache_is_an_error(backend):
    """Each look at it asks for slots that are left alone, so that no update could ever write one."""
    looked = []

    class Looks(OptimizerBase):
        @staticmethod
        def scalars(h):
            looked.append(len(opt.cache))
            return {}

        @staticmethod
        def rule(xp, param, grad, s, h):
            return param - h.lr * grad, s

    opt, W = Looks(0.5), np.ones(3)
    for update in (lambda: opt.update(W, W, "W"), lambda: opt.update_all({"W": W}, {"W": W})):
        with pytest.raises(RuntimeError, match=r"reads opt.cache in each update.* read them from s"):
            update()
    assert opt.cache == {}
    assert opt.cur_step == 0
    assert looked
