"""What is true of JAX: no tracer gets into the cache, and arrays may be donated after the call."""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit.interrupts import interrupted_at
from _kit.states import KING, equal, every_optimizer, frozen, model, nothing_changes, same, train

import xpopt
from xpopt import SGD, Adam, OptimizerBase
from xpopt._arrays.namespace import library_of

pytestmark = pytest.mark.backends("jax", "jax-x64")


@pytest.fixture
def jax():
    import jax

    return jax


TRANSFORMS = {
    "jit": lambda jax, f, x: jax.jit(f)(x),
    "grad": lambda jax, f, x: jax.grad(lambda x: f(x).sum())(x),
    "vmap": lambda jax, f, x: jax.vmap(f)(x),
    "make_jaxpr": lambda jax, f, x: jax.make_jaxpr(f)(x),
    "scan": lambda jax, f, x: jax.lax.scan(lambda carry, _: (f(carry), None), x, None, length=2),
}


@pytest.mark.any_width
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@every_optimizer
def test_a_tracer_is_refused_by_name(jax, backend, make, transform):
    opt = make()
    x = backend.array([1.0, 2.0])
    train(backend, opt, 1)
    with nothing_changes(backend, opt, x):
        for call in (
            lambda y: opt.update(y, y, "new"),
            lambda y: opt.update(x if y.ndim else y, y, "new"),
            lambda y: opt.update_all({"new": y}, {"new": y})["new"],
        ):
            with pytest.raises(TypeError, match=r"'new'.*tracer.*jax\.jit"):
                transform(jax, call, x)


@every_optimizer
@pytest.mark.any_width
def test_arrays_that_a_traced_function_closes_over_are_refused_too(jax, backend, make):
    """Inside a trace even the arithmetic of plain arrays is recorded, and the cache would hold the recording."""
    opt = make(lr_scheduler=KING)
    train(backend, opt, 4)
    params, grads = model(backend)
    with nothing_changes(backend, opt, params, grads):
        for call in (
            lambda y: opt.update(params["W"], grads["W"], "W", 9.0) + y,
            lambda y: opt.update(params["W"], grads["W"], "new", 9.0) + y,
            lambda y: opt.update_all(params, grads, 9.0)["W"] + y,
        ):
            with pytest.raises(TypeError, match=r"tracer.*jax\.jit|jax\.jit.*trac"):
                jax.jit(call)(backend.array(1.0))


def test_tracing_elsewhere_does_no_harm(jax, backend):
    opt = Adam()
    f = jax.jit(lambda x: x * 2)
    W = backend.array([1.0])
    for _ in range(2):
        W = opt.update(f(W), jax.grad(lambda x: (x * x).sum())(W), "W")
    assert opt.cache["W"]["t"] == 2
    assert not any(isinstance(x, jax.core.Tracer) for x in opt.cache["W"].values())


def test_a_traced_loss_is_an_error_that_says_so(jax, backend):
    opt = SGD(lr_scheduler=KING)
    x = backend.array([1.0])
    with nothing_changes(backend, opt, x), pytest.raises((TypeError, ValueError)):
        jax.jit(lambda loss: opt.update(x, x, "W", loss))(backend.array(1.0))


@every_optimizer
def test_inputs_and_results_may_be_donated(jax, backend, make):
    opt, other = make(clip_norm=0.5), make(clip_norm=0.5)
    W = V = backend.array([1.0, 2.0])
    for step in range(3):
        g, h = backend.array([0.5 + step, 1.0]), backend.array([0.5 + step, 1.0])
        new, V = opt.update(backend.array(backend.numpy(W)), g, "W"), other.update(V, h, "W")
        g.delete()
        W = backend.array(backend.numpy(new))
        new.delete()
        assert frozen(backend, [W, opt.cache]) == frozen(backend, [V, other.cache])


class One(NamedTuple):
    slot: Any


ALIASES = {
    "the gradient as slot": lambda xp, p, g, s, h: (p - s.slot, One(g)),
    "the result as slot": lambda xp, p, g, s, h: (lambda new: (new, One(new)))(p - g - s.slot),
    "the parameter as result": lambda xp, p, g, s, h: (p, One(s.slot + g)),
    "the gradient through asarray": lambda xp, p, g, s, h: (p - s.slot, One(xp.asarray(g))),
}


@pytest.mark.parametrize("rule", ALIASES.values(), ids=ALIASES)
def test_what_a_rule_passes_through_may_be_donated(jax, backend, rule):
    class Local(OptimizerBase):
        slots = One
        entry = "array"

        def __init__(self, lr=0.5, clip_norm=None, lr_scheduler=None):
            super().__init__(lr, lr_scheduler, clip_norm=clip_norm)

    Local.rule = staticmethod(rule)
    opt = Local()
    W, g = backend.array([1.0, 2.0]), backend.array([3.0, 5.0])
    new = opt.update(W, g, "W")
    W.delete()
    g.delete()
    values = backend.numpy(new)
    new.delete()
    again = opt.update(backend.array(values), backend.array([3.0, 5.0]), "W")
    assert np.all(np.isfinite(backend.numpy(again)))
    assert np.all(np.isfinite(backend.numpy(opt.cache["W"])))


def test_weakly_typed_arrays_keep_their_dtype(jax, backend):
    W = jax.numpy.asarray(1.5)
    got = SGD(lr=0.5).update(W, W, "W")
    assert got.dtype == W.dtype
    assert equal(backend, got, 0.75)


def test_dtypes_of_python_scalars_are_not_taken_over(jax, backend):
    """float32 stays float32 also where float64 is at hand."""
    opt = Adam(clip_norm=0.5)
    W = opt.update(backend.array([1.0], "float32"), backend.array([1.0], "float32"), "W")
    assert W.dtype == np.float32
    assert {x.dtype for x in list(opt.cache["W"].values())[1:]} == {np.dtype(np.float32)}


# Gradients that are not finite


@every_optimizer
@pytest.mark.parametrize("policy", ["skip", "raise"])
@pytest.mark.any_width
def test_tracers_are_refused_whatever_becomes_of_bad_gradients(jax, backend, make, policy):
    """What is asked of a gradient that a traced function closes over is recorded, and has no answer yet."""
    opt = make(lr_scheduler=KING, nonfinite=policy)
    train(backend, opt, 4)
    params, grads = model(backend)
    with nothing_changes(backend, opt, params, grads):
        for call in (
            lambda y: opt.update(params["W"], grads["W"], "W", 9.0) + y,
            lambda y: opt.update_all(params, grads, 9.0)["W"] + y,
            lambda y: opt.update(y, y, "new", 9.0),
        ):
            with pytest.raises(TypeError, match=r"[Tt]rac"):
                jax.jit(call)(backend.array(1.0))
    assert opt.skipped == 0


def test_raise_reads_once(backend, monkeypatch):
    reads, of_jax = [], type(library_of(backend.array(1.0)))
    read = of_jax.to_numpy
    monkeypatch.setattr(of_jax, "to_numpy", lambda self, xs: reads.append(len(xs)) or read(self, xs))
    opt, x = Adam(nonfinite="raise"), backend.array([1.0, 2.0])
    opt.update_all([x] * 5, [x] * 5)
    assert reads == [1]
    with pytest.raises(FloatingPointError, match=r"the gradient of 1, 3 \(2 of 5\)"):
        opt.update_all([x] * 5, [x, x / 0, x, x * np.nan, x])
    assert reads == [1, 1]


def test_the_count_does_not_keep_what_it_was_counted_from(backend):
    """Nor does it grow: one number, however many steps."""
    opt, x = SGD(nonfinite="skip"), backend.array([1.0, np.inf])
    ref = weakref.ref(x)
    for _ in range(5):
        opt.update(x, x, "W")
    del x
    gc.collect()
    assert ref() is None
    (kept,) = opt._parts.skipped.on_devices
    assert kept[2].shape == ()
    assert opt.skipped == 5
    assert not opt._parts.skipped.on_devices


@pytest.mark.any_width
@pytest.mark.parametrize("whole", [False, True])
def test_an_interrupt_at_any_line_of_a_step_skipped_on_the_device(backend, whole):
    """Count, step and state move together or not at all."""
    start, outcomes = Adam(nonfinite="skip"), []
    x, bad = backend.array([1.0, 2.0]), backend.array([1.0, np.nan])
    start.update_all({"W": x}, {"W": x})
    for line in range(1, 5000):
        opt = start.copy()
        step = opt.update_all if whole else opt.update
        args = ({"W": x}, {"W": bad}) if whole else (x, bad, "W")
        if not interrupted_at(line, lambda step=step, args=args: step(*args)):
            break
        outcomes.append((opt.cache["W"]["t"], opt.cur_step, opt.skipped))
    before, after = (1, 1, 0), (2, 1 + whole, 1)
    assert len(outcomes) == line - 1 > 50
    assert set(outcomes) == {before, after}
    assert outcomes == sorted(outcomes)


DEVICES = """
import jax, numpy as np, xpopt
jax.config.update("jax_num_cpu_devices", 2)
one, two = jax.devices()
opt = xpopt.Adam(nonfinite="skip", lr_scheduler="king(patience=2)")
params = {"a": jax.device_put(np.ones(3), one), "b": jax.device_put(np.ones(2), two)}
good = {"a": jax.device_put(np.ones(3), one), "b": jax.device_put(np.ones(2), two)}

# on two devices: the host decides, and nothing advances
for name in params:
    got = opt.update_all(params, {**good, name: good[name] * np.inf}, float("nan"))
    assert all(got[key].tolist() == params[key].tolist() and got[key].device == params[key].device for key in params)
assert (opt.skipped, opt.cur_step, opt.cache) == (2, 0, {})
params = opt.update_all(params, good, 1.0)

# on one of them at a time: each decides, and each counts
for name in ("b", "a", "b"):
    got = opt.update_all(params, {"a": None, "b": None, name: good[name] * np.inf}, 1.0)
    assert all(got[key].tolist() == params[key].tolist() and got[key].device == params[key].device for key in params)
assert (len(opt._parts.skipped.on_devices), opt.cur_step) == (2, 4)
assert opt.skipped == 5

opt.set_params({"nonfinite": "raise"})
try:
    opt.update_all(params, {"a": good["a"] * np.nan, "b": good["b"] * np.nan}, 1.0)
except FloatingPointError as error:
    assert "'a', 'b' (2 of 2)" in str(error)
else:
    raise AssertionError
"""


SHARDED = """
import jax, jax.numpy as jnp, numpy as np, xpopt
from jax.sharding import NamedSharding, PartitionSpec as P
jax.config.update("jax_num_cpu_devices", 4)
mesh = jax.make_mesh((2, 2), ("x", "y"))
alike = [P("x"), P("x", None), P(("x",), None)]
values = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)

def put(x, spec):
    return jax.device_put(x, NamedSharding(mesh, spec))

# shardings that are written otherwise and put every element in the same place are one
opt, plain = xpopt.Adam(), xpopt.Adam()
W, V = put(values, alike[0]), jnp.asarray(values)
for spec in alike:
    W, V = opt.update(put(W, spec), put(values, alike[0]), "W"), plain.update(V, jnp.asarray(values), "W")
    assert W.tolist() == V.tolist()
    for slot in list(opt.cache["W"].values())[1:]:
        assert slot.sharding.is_equivalent_to(W.sharding, 2)

# others are still refused
for spec in (P("y"), P(None, "x"), P()):
    for call in (lambda: opt.update(W, put(values, spec), "W"), lambda: opt.update(*[put(values, spec)] * 2, "W")):
        try:
            call()
        except ValueError as error:
            assert "'W'" in str(error) and "NamedSharding" in str(error), error
        else:
            raise AssertionError(spec)

# stochastic rounding draws the same, wherever the elements are
for shape, spec in (((2, 4, 3), P("y", "x")), ((), P())):
    x = jnp.asarray(np.random.default_rng(2).normal(size=shape), jnp.bfloat16)
    opt, plain = (xpopt.SGD(lr=1e-3, rounding="stochastic", seed=3) for _ in range(2))
    W, V = put(x, spec), x
    for _ in range(2):
        W, V = opt.update(W, put(x, spec), "W"), plain.update(V, x, "W")
    assert W.tolist() == V.tolist()
    assert W.sharding.is_equivalent_to(NamedSharding(mesh, spec), len(shape))
"""


@pytest.mark.backends("jax")
def test_arrays_on_several_devices(backend):
    run(SHARDED)


def run(program):
    environment = {**os.environ, "PYTHONPATH": str(Path(xpopt.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.backends("jax")
def test_two_devices(backend):
    run(DEVICES)


# Settings of JAX, and its own kinds of array


OPTIONS = {
    "plain": {},
    "clip_norm": {"clip_norm": 0.5},
    "skip": {"nonfinite": "skip"},
    "raise": {"nonfinite": "raise"},
    "master": {"master": True},
    "stochastic": {"rounding": "stochastic"},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
SHAPES = [(), (3,), (2, 3), (2, 0, 3)]


@pytest.mark.any_width
@every_option
def test_strict_settings(jax, backend, options):
    """No NaN is made of finite numbers, and no shape is left to broadcasting."""
    strict = {"jax_debug_nans": True, "jax_numpy_rank_promotion": "raise"}
    before = {name: getattr(jax.config, name) for name in strict}
    try:
        for name, value in strict.items():
            jax.config.update(name, value)
        for dtype in ("bfloat16", "float32"):
            params = {str(shape): backend.array(np.full(shape, 2.0), dtype) for shape in SHAPES}
            params = Adam(**options).update_all(params, params)
            assert {x.dtype for x in params.values()} == {backend.dtype(dtype)}
            assert all(np.isfinite(backend.numpy(x)).all() for x in params.values())
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.mark.any_width
@every_option
@pytest.mark.parametrize("weak_gradient", [True, False])
def test_a_weak_type_stays(jax, backend, options, weak_gradient):
    """Otherwise a jitted function of the parameters is traced twice."""
    opt, other = Adam(**options), Adam(**options)
    params = {str(shape): jax.numpy.full(shape, 1.5) for shape in SHAPES}
    strong = {name: jax.numpy.asarray(np.asarray(x)) for name, x in params.items()}
    for _ in range(3):
        grads = {name: x * 2 if weak_gradient else jax.numpy.asarray(np.asarray(x) * 2) for name, x in params.items()}
        assert {x.weak_type for x in grads.values()} == {weak_gradient}
        params = opt.update_all(params, grads)
        strong = other.update_all(strong, {name: jax.numpy.asarray(np.asarray(x)) for name, x in grads.items()})
        assert all(x.weak_type for x in params.values())
        assert not any(x.weak_type for x in strong.values())
        assert same(backend, params, strong)


def test_keys_are_refused_by_name(jax, backend):
    """They are arrays to JAX, and without a gradient they rest."""
    opt, x, key = Adam(), backend.array(1.0), jax.random.key(0)
    for call in (
        lambda: opt.update(key, key, "k"),
        lambda: opt.update(x, key, "k"),
        lambda: opt.update(key, x, "k"),
        lambda: opt.update_all({"k": key}, {"k": key}),
    ):
        with nothing_changes(backend, opt), pytest.raises(TypeError, match=r"'k' has dtype key<fry>"):
            call()
    assert opt.update_all({"W": x, "k": key}, {"W": x, "k": None})["k"] is key
