"""The pure form: its steps are those of `update_all`, whatever traces them, and its state comes back."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from _kit.backends import Backend
from _kit.bits import normal
from _kit.table import ROWS

import xpopt
from xpopt.transforms import Transform

pytestmark = pytest.mark.any_engine

on_numpy = pytest.mark.backends("numpy")
on_jax = pytest.mark.backends("jax")
on_torch = pytest.mark.backends("torch")

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"clip_norm": 0.5, "clip_value": 1.0},
    "global": {"clip_global": 0.5},
    "scheduled": {
        "lr": xpopt.schedulers.cosine(0.1, 0.01, steps=4),
        "weight_decay": xpopt.schedulers.linear(0.1, 0.0, steps=4),
    },
    "groups": {"groups": {"enc/*": {"lr": 0.3, "clip_norm": 0.1}, "b": "freeze"}},
    "skip": {"nonfinite": "skip", "clip_norm": 0.5},
    "around": {
        "average": xpopt.EMA(0.9),
        "lookahead": xpopt.Lookahead(every=2),
        "bounds": (-0.5, None),
        "maximize": True,
    },
}


class _ByLargest(Transform):
    """Divide by the largest element of all gradients."""

    @staticmethod
    def before(xp, param, grad, s, h):
        return grad / h.model.max(xp.abs(grad))


def model(backend: Any, seed: int = 0, dtype: str | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    values = {"b": normal(rng, (3,)), "W": normal(rng, (2, 3))}
    return {
        "b": backend.array(values["b"], dtype),
        "enc": {"W": backend.array(values["W"], dtype), "s": backend.array(0.75, dtype)},
    }


def flat(tree: Any) -> list[Any]:
    return [x for value in tree.values() for x in (flat(value) if isinstance(value, dict) else [value])]


def by_both(backend: Any, opt: Any, steps: int, dtype: str | None = None) -> tuple[Any, Any, Any, Any]:
    # parameters and slots of the pure form, compiled where that can be; those of `update_all` of NumPy's arrays, and
    # the copy of the optimizer that made them
    pure, eager, dtype = opt.pure(), opt.copy(), dtype or backend.widest
    params, others = model(backend, 0, dtype), model(Backend("numpy", np), 0, dtype)
    slots, update = pure.init(params), pure.update
    if backend.library == "jax":
        import jax

        update = jax.jit(update)
    for step in range(1, steps + 1):
        params, slots = update(params, model(backend, step, dtype), slots, pure.numbers(0.5))
        others = eager.update_all(others, model(Backend("numpy", np), step, dtype), 0.5)
    return params, slots, others, eager


def assert_near(backend: Any, found: Any, wanted: Any, ulps: float) -> None:
    """Compare with NumPy's arrays in roundings of their dtype, of the size of the largest element."""
    for x, y in zip(flat(found), flat(wanted), strict=True):
        assert str(x.dtype).rpartition(".")[2] == y.dtype.name
        unit = {"float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}[y.dtype.name]
        bound = ulps * unit * max(1.0, float(np.abs(y).max()))
        np.testing.assert_allclose(backend.numpy(x), y.astype(np.float64), rtol=0, atol=bound)


@pytest.mark.any_width
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_its_steps_are_those_of_update_all(backend, options):
    opt = xpopt.Adam(**{"lr": 0.1, **options})
    params, _, others, _ = by_both(backend, opt, 3)
    assert_near(backend, params, others, 4)
    assert opt.cur_step == 0
    assert opt.cache == {}


@on_numpy
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_algorithm_has_the_bits_of_update_all(backend, row):
    params, _, others, _ = by_both(backend, row.optimizer(**row.arguments, **row.chosen), 3)
    for x, y in zip(flat(params), flat(others), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.any_width
@pytest.mark.parametrize("options", [{}, {"clip_global": 0.5, "clip_norm": 0.4, "weight_decay": 0.1}], ids=str)
def test_products_of_matrices(backend, options):
    lr = xpopt.schedulers.cosine(0.1, 0.01, steps=4)
    opt = xpopt.Muon(lr=lr, groups={"b": xpopt.AdamW(lr=lr), "enc/s": "freeze"}, **options)
    params, _, others, _ = by_both(backend, opt, 3)
    assert_near(backend, params, others, 500)  # five products of matrices, each in an order of its library


@on_numpy
def test_it_is_adam_as_written_down(backend):
    """Kingma and Ba, algorithm 1, with eps outside of the root, in float64."""
    pure = xpopt.Adam(lr=0.1, decay1=0.8, decay2=0.9, eps=1e-3).pure()
    params, m, v = {"W": np.array([1.0, -2.0])}, np.zeros(2), np.zeros(2)
    slots, wanted = pure.init(params), np.array([1.0, -2.0])
    for t in range(1, 6):
        g = np.sin(t + wanted)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        wanted = wanted - 0.1 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3)
        params, slots = pure.update(params, {"W": np.sin(t + params["W"])}, slots, pure.numbers())
    np.testing.assert_allclose(params["W"], wanted, rtol=1e-13)
    np.testing.assert_allclose(slots["W"]["mean"], m, rtol=1e-13)


@on_jax
def test_the_optimizer_goes_on_beside_it(backend):
    """Its slots are copies, which a caller may donate, and a copy or a pickle of it has no pure form."""
    import jax

    opt, params = xpopt.Adam(lr=0.1), {"W": backend.array([1.0, -2.0])}
    params = opt.update_all(params, params)
    pure = opt.pure()
    step = jax.jit(pure.update, donate_argnums=2)
    first, slots = step(params, params, pure.init(params), pure.numbers())
    again, _ = step(params, params, pure.init(params), pure.numbers())
    twin = pickle.loads(pickle.dumps(opt))
    np.testing.assert_allclose(opt.update_all(params, params)["W"], first["W"], rtol=1e-6)
    with pytest.raises(RuntimeError, match="there is none"):
        twin.take(slots)
    assert again["W"].shape == (2,)


@pytest.mark.any_width
@pytest.mark.parametrize("options", [{"master": True}, {"rounding": "stochastic"}, {"slots_dtype": "float16"}], ids=str)
def test_parameters_of_16_bits(backend, options):
    if "float16" not in backend.dtypes:
        return
    params, slots, others, eager = by_both(backend, xpopt.Adam(lr=0.01, **options), 3, "float16")
    assert_near(backend, params, others, 1)
    for name, x in slots["enc"]["W"].items():
        assert_near(backend, {"x": x}, {"x": eager.cache["enc", "W"][name]}, 4)


@on_jax
def test_a_master_copy_holds_what_16_bits_do_not(backend):
    """Steps that are too small for the parameter add up, compiled as well, where products and sums are contracted."""
    import jax

    opt = xpopt.SGD(lr=1e-5, master=True)
    pure, params = opt.pure(), {"W": backend.array(normal(np.random.default_rng(0), (99,)), "bfloat16")}
    slots, step, start = pure.init(params), jax.jit(pure.update), backend.numpy(params["W"])
    for _ in range(20):
        params, slots = step(params, {"W": backend.array(np.ones(99), "bfloat16")}, slots, pure.numbers())
    np.testing.assert_allclose(backend.numpy(slots["W"]["master"]), start - 2e-4, rtol=0, atol=1e-5)


@on_numpy
def test_complex_parameters(backend):
    opt = xpopt.Adam(lr=0.1, clip_norm=1.0)
    pure, eager, z = opt.pure(), opt.copy(), {"z": np.array([1 + 2j, -0.5j])}
    slots, other = pure.init(z), z
    for _ in range(3):
        z, slots = pure.update(z, {"z": z["z"] * 1j}, slots, pure.numbers())
        other = eager.update_all(other, {"z": other["z"] * 1j})
    np.testing.assert_allclose(z["z"], other["z"], rtol=1e-14)


@pytest.mark.any_width
def test_its_state_comes_back(backend, tmp_path):
    """Training goes on from it as if there had been no pure form, and so does one that was in the midst of one."""
    opt = xpopt.Adam(lr=xpopt.schedulers.cosine(0.1, 0.01, steps=9), groups={"b": "freeze"}, nonfinite="skip")
    params, slots, others, eager = by_both(backend, opt, 2)
    opt.take(slots)
    assert (opt.cur_step, opt.skipped) == (2, 0)
    assert opt.cache["enc", "W"]["t"] == 2
    assert list(opt.cache) == list(eager.cache)
    grads = model(backend, 9)
    pure = opt.copy().pure()
    again, _ = pure.update(params, grads, pure.init(params), pure.numbers())
    wanted = eager.update_all(others, model(Backend("numpy", np), 9, backend.widest))
    assert_near(backend, opt.update_all(params, grads), wanted, 4)
    assert_near(backend, again, wanted, 4)


def test_a_step_that_is_not_finite_is_left_out(backend):
    opt = xpopt.Adam(lr=0.1, nonfinite="skip")
    pure, params = opt.pure(), model(backend)
    before, grads = pure.init(params), model(backend, 1)
    broken = {**grads, "b": backend.array([1.0, math.nan, 1.0])}
    same, slots = pure.update(params, broken, before, pure.numbers())
    for x, y in zip(flat(same), flat(params), strict=True):
        np.testing.assert_array_equal(backend.numpy(x), backend.numpy(y))
    assert [int(backend.numpy(slots["b"][name]).sum()) for name in ("mean", "var", "skipped")] == [0, 0, 1]
    new, slots = pure.update(params, grads, slots, pure.numbers())
    assert not np.array_equal(backend.numpy(new["b"]), backend.numpy(params["b"]))
    opt.take(slots)
    assert opt.skipped == 1


@on_jax
def test_one_compilation_in_100_steps_with_a_schedule(backend):
    import jax

    compiled = []
    opt = xpopt.Adam(lr=lambda step: 0.1 / (1 + step), clip_norm=1.0, nonfinite="skip")
    pure, eager, params = opt.pure(), opt.copy(), {"W": backend.array([1.0, -2.0])}
    slots, other = pure.init(params), {"W": np.array([1.0, -2.0], np.float32)}

    @jax.jit
    def step(params, slots, numbers):
        compiled.append(1)
        grads = jax.grad(lambda params: (params["W"] ** 2).sum())(params)
        return pure.update(params, grads, slots, numbers)

    for k in range(100):
        params, slots = step(params, slots, pure.numbers())
        if k < 10:
            other = eager.update_all(other, {"W": 2 * other["W"]})
            assert_near(backend, params, other, 4)
    assert len(compiled) == 1


@on_jax
def test_scan_and_vmap(backend):
    """Over numbers of several steps, and over several models at once: what loops do."""
    import jax

    pure = xpopt.Adam(lr=0.1, clip_global=1.0).pure()
    params = {"W": backend.array([[1.0, -2.0], [0.5, 4.0]])}
    slots = jax.vmap(pure.init)(params)
    assert slots["W"]["mean"].shape == (2, 2)
    steps = [pure.numbers() for _ in range(3)]

    def train(params, slots):
        def body(carry, numbers):
            params, slots = carry
            return pure.update(params, params, slots, numbers), None

        return jax.lax.scan(body, (params, slots), jax.tree.map(lambda *x: np.stack(x), *steps))[0]

    found, _ = jax.vmap(train)(params, slots)
    for k in range(2):
        one = {"W": params["W"][k]}
        state = pure.init(one)
        for numbers in steps:
            one, state = pure.update(one, one, state, numbers)
        assert_near(backend, {"W": found["W"][k]}, {"W": np.asarray(one["W"])}, 4)
    with pytest.raises(ValueError, match=r"slots of 'W' has 'mean' as jax float32 of shape \(2, 2\)"):
        pure.update(one, one, slots, steps[0])


def heavy_ball(steps: int, rate: float, momentum: float, curvature: float) -> float:
    """Return the derivative of a parameter after some steps in a parabola with respect to its start."""
    x, velocity = 1.0, 0.0
    for _ in range(steps):
        velocity = momentum * velocity - rate * curvature * x
        x += velocity
    return x


@on_jax
def test_gradients_go_through_it_in_jax(backend):
    import jax

    pure = xpopt.SGD(lr=0.1, momentum=0.9).pure()
    start = {"W": backend.array([1.0, 2.0])}
    slots, steps = pure.init(start), [pure.numbers() for _ in range(4)]

    def end(params):
        state = slots
        for numbers in steps:
            params, state = pure.update(params, {"W": 3 * params["W"]}, state, numbers)
        return params["W"].sum()

    np.testing.assert_allclose(jax.grad(end)(start)["W"], heavy_ball(4, 0.1, 0.9, 3.0), rtol=1e-5)


@on_torch
def test_gradients_go_through_it_in_torch(backend):
    """By torch.func, where tensors stand for others, and by the tape."""
    import torch

    pure = xpopt.SGD(lr=0.1, momentum=0.9).pure()
    start = {"W": backend.array([1.0, 2.0])}
    slots, steps = pure.init(start), [pure.numbers() for _ in range(4)]

    def end(params):
        state = slots
        for numbers in steps:
            params, state = pure.update(params, {"W": 3 * params["W"]}, state, numbers)
        return params["W"].sum()

    wanted = heavy_ball(4, 0.1, 0.9, 3.0)
    np.testing.assert_allclose(torch.func.grad(end)(start)["W"], wanted, rtol=1e-12)
    leaf = start["W"].clone().requires_grad_()
    (found,) = torch.autograd.grad(end({"W": leaf}), leaf)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    many = {"W": torch.stack([start["W"], 2 * start["W"]])}
    new, _ = torch.func.vmap(lambda p, s: pure.update(p, p, s, steps[0]))(many, torch.func.vmap(pure.init)(many))
    np.testing.assert_allclose(new["W"], 0.9 * many["W"], rtol=1e-12)


class _Sorted(Transform):
    """Something that no graph has."""

    @staticmethod
    def before(xp, param, grad, s, h):
        return xp.sort(grad)


@on_numpy
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"nonfinite": "raise"}, "nonfinite='raise'"),
        ({"accumulate": 2}, "accumulate=2"),
        ({"loss_scale": xpopt.DynamicLossScale(), "nonfinite": "skip"}, "DynamicLossScale"),
    ],
    ids=["raise", "accumulate", "scale"],
)
def test_options_that_need_a_host_are_named(backend, options, text):
    with pytest.raises(ValueError, match=f"Adam has no pure form with {text}"):
        xpopt.Adam(**options).pure()


class _Counts(xpopt.OptimizerBase):
    """Neither read nor without its count."""

    lr: float = xpopt.setting(default=0.1)
    fused = False

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - h.lr / h.t * grad, s


@on_numpy
def test_a_rule_that_is_called_reads_no_count(backend):
    pure, params = _Counts().pure(), {"W": np.ones(2)}
    slots = pure.init(params)
    with pytest.raises(TypeError, match=r"reads h\.t.*scalars\(h\)"):
        pure.update(params, params, slots, pure.numbers())


@on_numpy
def test_what_cannot_be_read_is_named(backend):
    pure = xpopt.Adam(transforms=[_Sorted()]).pure()
    with pytest.raises(TypeError, match=r"Adam has no pure form.*xp\.sort"):
        pure.init({"W": np.ones(2)})


@on_numpy
def test_a_gradient_may_be_a_scalar_of_numpy(backend):
    opt, params = xpopt.Adam(lr=0.1), {"s": np.array(0.75), "half": np.array(0.5, np.float16)}
    pure, grads = opt.pure(), {name: 2 * x for name, x in params.items()}
    assert all(isinstance(x, np.generic) for x in grads.values())
    new, _ = pure.update(params, grads, pure.init(params), pure.numbers())
    wanted = opt.update_all(params, grads)
    assert {name: x.tobytes() for name, x in new.items()} == {name: x.tobytes() for name, x in wanted.items()}


def test_a_model_of_numbers(backend):
    params = {"s": backend.array(0.75)}
    pure = xpopt.SGD(lr=1.0, maximize=True, clip_global=0.5).pure()
    new, _ = pure.update(params, params, pure.init(params), pure.numbers())
    assert float(new["s"]) == pytest.approx(1.25, rel=1e-6)


@pytest.mark.parametrize("options", [{"clip_global": 0.5}, {"transforms": [_ByLargest()]}], ids=["norm", "largest"])
def test_sums_over_a_model_without_elements(backend, options):
    pure, params = xpopt.SGD(lr=1.0, **options).pure(), {"W": backend.array(np.ones((0, 3))), "b": backend.array([])}
    new, _ = pure.update(params, params, pure.init(params), pure.numbers())
    assert {name: tuple(x.shape) for name, x in new.items()} == {"W": (0, 3), "b": (0,)}


@on_numpy
def test_what_is_not_of_its_model_is_told(backend):
    opt = xpopt.Adam()
    with pytest.raises(RuntimeError, match="there is none; call pure"):
        opt.take({})
    pure, params = opt.pure(), {"W": np.ones(2), "b": np.ones(1)}
    with pytest.raises(RuntimeError, match=r"has none; call its init"):
        opt.take({})
    with pytest.raises(RuntimeError, match="call init"):
        pure.numbers()
    slots = pure.init(params)
    numbers = pure.numbers()
    for bad, kind, text in [
        ((params, {"W": np.ones(2)}, slots, numbers), ValueError, "grads lacks 'b'"),
        (({"W": np.ones(2)}, {"W": np.ones(2)}, slots, numbers), ValueError, "params lacks 'b'"),
        (({**params, "b": np.ones(3)}, params, slots, numbers), ValueError, "'b' is numpy float64 of shape (3,)"),
        ((params, {**params, "b": None}, slots, numbers), TypeError, "gradient of 'b' is None"),
        ((params, {**params, "b": np.ones(3)}, slots, numbers), ValueError, "gradient of 'b' has shape (3,)"),
        ((params, params, {"W": slots["W"]}, numbers), ValueError, "slots has no dict of arrays for 'b'"),
        ((params, params, {**slots, "b": {}}, numbers), ValueError, "slots of 'b' has none; wanted mean, var"),
        ((params, params, slots, {}), ValueError, "numbers"),
    ]:
        with pytest.raises(kind) as caught:
            pure.update(*bad)
        assert text in str(caught.value)
    with pytest.raises(ValueError, match="slots of 'W' has mean; wanted mean, var"):
        opt.take({**slots, "W": {"mean": np.ones(2)}})
    assert (opt.cache, opt.cur_step) == ({}, 0)
    with pytest.raises(TypeError, match="'W' is a float; wanted an array"):
        pure.init({"W": 1.0})


@on_numpy
@pytest.mark.parametrize(
    "changes", [{"lr": 0.5}, {"groups": {"W": {"lr": 0.3}}}, {"groups": {"b": {"lr_scale": np.array([2.0])}}}]
)
def test_settings_that_changed_meanwhile(backend, changes):
    opt, params = xpopt.Adam(groups={"b": {"lr_scale": np.array([0.5])}}), {"W": np.ones(2), "b": np.ones(1)}
    pure = opt.pure()
    slots = pure.init(params)
    _, slots = pure.update(params, params, slots, pure.numbers())
    before = opt.hyperparameters
    opt.set_params(changes)
    with pytest.raises(ValueError, match=r"settings of this Adam have changed since pure\(\)"):
        opt.take(slots)
    assert (opt.cur_step, opt.cache) == (0, {})
    opt.set_params({name: before[name] for name in changes})
    opt.take(slots)
    assert opt.cache["W"]["t"] == 1
