"""What is true of JAX: no tracer gets into the cache, and arrays may be donated after the call."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from states import KING, equal, every_optimizer, frozen, model, nothing_changes, train

from xpopt import SGD, Adam, OptimizerBase

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
