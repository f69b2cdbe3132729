"""Nothing waits for a device: under `jax.jit` a host read raises, and on Dask nothing may be computed."""

from types import SimpleNamespace

import numpy as np
import pytest
from _kit import schedules, table
from _kit.trajectories import UNIT

import xpopt
from xpopt._arrays.namespace import library_of
from xpopt._arrays.norms import clip, clip_factor
from xpopt._arrays.parameter import examine
from xpopt._engine.eager.kernel import update
from xpopt._graph.rule import Rule
from xpopt._state.skipped import Skipped
from xpopt._step.finite import Guard

RULES = [
    pytest.param(rule, row.make().hyperparameters, id=row.label)
    for row in table.BY_RULE.values()
    for rule in [row.rule()]
]


@pytest.mark.backends("jax")
@pytest.mark.parametrize(("rule", "settings"), RULES)
def test_rule_and_clip_under_jit(backend, rule, settings):
    """A tracer has no value: whoever asks for one, by `if`, `float` or NumPy, gets an error."""
    import jax

    dtype = backend.widest
    h = rule.scalars_at(settings, 0.1, 3)
    param, grad = backend.array([[1.0, -2.0]], dtype), backend.array([[3.0, 4.0]], dtype)
    state = tuple(backend.array([[0.5, 0.25]], dtype) for _ in rule.fields)

    def step(param, grad, state):
        grad = clip(backend.xp, grad, 0.5, float64=False)
        param, new = rule.function(backend.xp, param, grad, rule.make_slots(state), h)
        return param, tuple(new)

    traced, eager = jax.jit(step)(param, grad, state), step(param, grad, state)
    assert len(traced[1]) == len(state)
    for got, want in zip(jax.tree.leaves(traced), jax.tree.leaves(eager), strict=True):
        assert got.dtype == param.dtype
        # jit may contract a product and a sum
        assert np.all(np.abs(backend.numpy(got) - backend.numpy(want)) <= 8 * UNIT[dtype] * 2)


@pytest.mark.backends("jax", "jax-x64")
@pytest.mark.parametrize("gradient", [[3.0, 4.0], [0.0, 0.0], [0.3, 0.4], [np.nan, 1.0], [np.inf, 1.0], []])
@pytest.mark.any_width
def test_clip_factor_under_jit(backend, gradient):
    import jax

    for dtype in backend.dtypes:
        for float64 in {False, backend.name == "jax-x64"}:

            def factor(x, clip_norm=2.5, wide=float64):
                return clip_factor(backend.xp, x, clip_norm, float64=wide)

            x = backend.array(gradient, dtype)
            got, want = ([backend.numpy(number) for number in f(x)] for f in (jax.jit(factor), factor))
            assert np.allclose(got, want, rtol=1e-2 if "16" in dtype else 1e-6, equal_nan=True)


@pytest.mark.backends("jax", "jax-x64")
@pytest.mark.parametrize("bad", [None, np.nan, np.inf])
@pytest.mark.parametrize("noise", [None, (1, 2)], ids=["nearest", "stochastic"])
@pytest.mark.any_width
def test_a_step_that_may_be_skipped_under_jit(backend, bad, noise, monkeypatch):
    """The question, the choice, and the count: all of what `nonfinite="skip"` adds to a step."""
    import jax

    dtype = "float16" if noise else backend.widest
    param, other = backend.array([[1.0, -2.0]], dtype), backend.array([0.5], dtype)
    grad = backend.array([[3.0, 4.0 if bad is None else bad]], dtype)
    library, spec, *_ = examine(param, grad, "W")
    rule, h = Rule(xpopt.Adam.rule, xpopt.Adam.slots), SimpleNamespace(**table.BY_LABEL["Adam"].arguments, lr=0.1, t=1)
    h.clip_norm = 0.5
    monkeypatch.setattr(type(library), "admit", lambda self, x: x)  # a tracer is what is wanted here

    def step(param, grad, other):
        guard = Guard("skip", {"W": grad, "b": other})
        proceed = guard.proceed({1: (rule, h)}, {"W": 1, "b": 1}, lambda: {"W": param, "b": other}, {})
        param, slots = update(param, grad, None, library_of(param), spec, rule, h, noise, proceed)
        return param, tuple(slots), Skipped().unless(proceed).on_devices[0][2]

    new, slots, skipped = jax.jit(step)(param, grad, other)
    assert int(skipped) == (bad is not None)
    assert new.dtype == param.dtype
    assert (backend.numpy(new) == backend.numpy(param)).all() == (bad is not None)
    assert all((backend.numpy(x) == 0).all() == (bad is not None) for x in slots)


@pytest.mark.backends("jax", "jax-x64")
def test_jit_would_tell(backend):
    """What reads a value raises there: a branch on the norm, a float of it."""
    import jax

    def branches(x):
        return x * 2 if backend.xp.sum(x * x) > 1 else x

    def reads(x):
        return x * float(backend.xp.max(x))

    for guilty in (branches, reads):
        with pytest.raises(jax.errors.ConcretizationTypeError):
            jax.jit(guilty)(backend.array([1.0, 2.0]))


def refuse(*args, **kwargs):
    raise RuntimeError("computed")


KING = schedules.BY_LABEL["king"]
LAZY = [(case, KING) for case in table.ROWS] + [
    (table.BY_LABEL["SGD"], schedule) for schedule in schedules.SCHEDULES if schedule is not KING
]


@pytest.mark.backends("dask")
@pytest.mark.parametrize(("case", "schedule"), LAZY, ids=str)
def test_dask_computes_nothing(backend, case, schedule):
    """At the first step and at one with a state: all algorithms under King, and SGD under all schedules.

    Every second one is clipped, and left out where a gradient is not finite.
    """
    import dask

    clip_norm, nonfinite = [(None, "propagate"), (0.5, "skip")][LAZY.index((case, schedule)) % 2]
    options = {"clip_norm": clip_norm, "lr_scheduler": schedule.given, "nonfinite": nonfinite}
    opt = case.make(lr=0.1, **options)
    params = {
        name: backend.array(np.ones(shape), dtype)
        for name, shape, dtype in (("W", (3, 2), "float32"), ("b", (), "float64"), ("h", (4,), "float16"))
    }
    params["chunks"] = backend.array(np.ones((6, 5))).rechunk((2, 5))
    grads = {name: x * 0.25 for name, x in params.items()}
    with dask.config.set(scheduler=refuse):
        params = {name: opt.update(x, grads[name], name, 1.0) for name, x in params.items()}
        opt.step()
        params = opt.update_all(params, grads, 2.0)
        opt.copy().set_params(cache_dict=opt.cache)
        opt.explain(params)
        with pytest.raises(RuntimeError, match="computed"):
            params["W"].compute()
    assert np.all(np.isfinite(np.asarray(params["chunks"])))


@pytest.mark.backends("dask")
def test_dask_computes_nothing_for_what_is_remembered(backend):
    """Neither where a step is whole, nor for the scale of the loss, nor the average."""
    import dask

    memory = {"accumulate": 2, "average": xpopt.EMA(0.5), "lookahead": xpopt.Lookahead(every=2)}
    opt = xpopt.Adam(nonfinite="skip", loss_scale=xpopt.DynamicLossScale(8.0, every=2), **memory)
    params = {"W": backend.array(np.ones((3, 2))), "b": backend.array(1.0)}
    grads = {name: x * 0.25 for name, x in params.items()}
    with dask.config.set(scheduler=refuse):
        params = {name: opt.update(x, grads[name], name) for name, x in params.items()}
        opt.step()
        for _ in range(3):
            params = opt.update_all(params, grads)
        averages, scale = opt.averaged(params), opt.cur_loss_scale
    assert float(backend.computed(scale)) == 32.0
    assert np.all(np.isfinite(backend.numpy(averages["W"])))


@pytest.mark.backends("dask")
def test_dask_computes_no_loss_that_no_schedule_reads(backend):
    import dask

    x, loss = [backend.array([1.0])], backend.array([1.0, 2.0])
    opt = xpopt.SGD(lr_scheduler="noam")
    with dask.config.set(scheduler=refuse):
        x = opt.update_all(x, x, loss.sum())
        opt.update(x[0], x[0], 0, loss[0])
        with pytest.raises(TypeError, match=r"cur_loss is a Array of float64 and shape \(2,\)"):
            opt.update_all(x, x, loss)
    assert opt.cur_step == 1
