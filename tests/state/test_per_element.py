"""Arrays in the place of one number: bounds and factors on the rate for each element of a parameter."""

import copy
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit import oracles
from _kit.bits import cast, same_bits
from _kit.rows import rows
from _kit.table import PROMISES

import xpopt
from xpopt import SGD, Adam, CheckpointError, OptimizerBase, ScheduleFreeSGD, setting, slot

pytestmark = pytest.mark.any_immutable

on_numpy = pytest.mark.backends("numpy")

LOW = [[-0.5, -np.inf, 0.125], [-0.25, 0.5, -1.0]]
HIGH = [[0.25, 0.0, np.inf], [-0.25, 0.75, 1.0]]
FACTORS = [[1.0, 0.0, 2.0], [0.5, 0.25, 1.0]]


def as_number(x):
    return None if np.isinf(x) else x


@pytest.mark.parametrize("way", ["update", "update_all"])
@pytest.mark.parametrize("row", rows(PROMISES, ["Adam", "SGD-momentum"]))
def test_each_element_walks_as_alone_with_its_numbers(backend, row, way):
    """Against the equations, of which each element has its own bounds and rate; given in any library's arrays."""
    bounds = tuple(backend.array(np.array(x), backend.widest) for x in (LOW, HIGH))
    opt = row.make(lr=0.25, bounds=bounds, lr_scale=backend.array(np.array(FACTORS), backend.widest))
    rng = np.random.default_rng(1)
    start, gradients = np.zeros((2, 3)), rng.normal(size=(8, 2, 3)).astype(np.float32).astype(float)
    x, walked = backend.array(start, backend.widest), []
    for grad in gradients:
        g = backend.array(grad, backend.widest)
        x = opt.update(x, g, "W") if way == "update" else opt.update_all({"W": x}, {"W": g})["W"]
        walked.append(backend.numpy(x))
    for at in np.ndindex(2, 3):
        options = {
            "bounds": tuple(as_number(end[at[0]][at[1]]) for end in (LOW, HIGH)),
            "lr_scale": FACTORS[at[0]][at[1]],
        }
        mine = [[grad[at]] for grad in gradients]
        path = oracles.walk(row.equation, [0.0], mine, [0.25] * 8, options=options, **row.arguments)
        tolerance = 1e-12 if backend.widest == "float64" else 1e-5
        np.testing.assert_allclose([new[at] for new in walked], [p for (p,), _ in path], rtol=tolerance, atol=tolerance)
    assert set(opt.cache["W"] if isinstance(opt.cache["W"], dict) else ()) <= {"t", *row.slots}


def in_order(values, dtype, order):
    return np.asarray(cast(values, dtype), order=order)


@on_numpy
@pytest.mark.parametrize(
    ("dtype", "order", "more"),
    [
        ("float16", "F", {"master": True, "weight_decay": 0.125}),
        ("float32", "C", {"slots_dtype": "float16"}),
        ("float64", "F", {}),
    ],
    ids=["float16", "float32", "float64"],
)
def test_engines_have_the_bits_of_eager(dtype, order, more):
    pytest.importorskip("llvmlite")
    rng = np.random.default_rng(2)
    start, high = (in_order(0.5 * rng.normal(size=(7, 5)), dtype, order) for _ in "ab")
    grads = [in_order(rng.normal(size=(7, 5)), dtype, order) for _ in range(4)]
    own = {"bounds": (-0.4, np.abs(high.astype(np.float64))), "lr_scale": rng.uniform(size=(7, 5))}
    ends = {}
    for engine in ("eager", "blocked", "compiled"):
        opt, params = Adam(lr=0.125, groups={"W": own}, **more), {"W": start, "b": start[0]}
        with xpopt.engine(engine):
            for grad in grads:
                params = opt.update_all(params, {"W": grad, "b": grad[0]})
            rows = opt.explain(params)
        assert engine == rows[0].engine or "slots_dtype" in more
        ends[engine] = {"params": params, "cache": opt.cache}
    assert same_bits(ends["compiled"], ends["eager"])
    assert same_bits(ends["blocked"], ends["eager"])


@on_numpy
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    "options", [{}, {"master": True}, {"rounding": "stochastic"}, {"slots_dtype": "float16"}], ids=str
)
def test_no_rounding_leads_out_of_an_array(backend, dtype, options):
    """Each bound is rounded inward to the parameter's dtype, to its nearest number inside."""
    rng = np.random.default_rng(3)
    low = rng.uniform(-1, 0, 40)
    high = low + rng.uniform(0.05, 1, 40)
    opt, x = SGD(lr=0.5, momentum=0.5, bounds=(low, high), **options), cast(0.5 * (low + high), dtype)
    for push, end in ((-1.0, high), (1.0, low)):
        for _ in range(6):
            x = opt.update(x, cast(np.full(40, push), dtype), "W")
            values = x.astype(np.float64)
            assert np.all((low <= values) & (values <= high))
        assert np.all(np.abs(values - end) < [oracles.ulp(value, dtype) for value in end])


@pytest.mark.parametrize("way", ["update", "update_all"])
def test_what_is_set_anew_counts_from_the_next_step_on(backend, way):
    """Arrays for arrays, for numbers, and for none; state goes on."""
    one, x, up = SGD(lr=1.0, momentum=0.5), backend.array([0.0, 0.0]), backend.array([-1.0, -1.0])

    def step(opt, x):
        return opt.update(x, up, "W") if way == "update" else opt.update_all({"W": x}, {"W": up})["W"]

    def array(*values):
        return backend.array(list(values))

    for bounds, want in (
        ((None, array(0.25, 9.0)), [0.25, 1.0]),
        ((None, array(0.5, 2.0)), [0.5, 2.0]),
        ((array(1.0, -9.0), None), None),
        ((None, 1.0), [1.0, 1.0]),
        (None, None),
    ):
        one.set_params({"bounds": bounds})
        x = step(one, x)
        if want is not None:
            assert backend.numpy(x).tolist() == want
    assert not isinstance(one.cache["W"], dict)
    still = SGD(lr=1.0, lr_scale=array(0.0, 0.5))
    x = step(still, array(0.0, 0.0))
    assert backend.numpy(x).tolist() == [0.0, 0.5]
    still.set_params({"lr": 2.0, "lr_scale": array(0.25, 0.0)})
    assert backend.numpy(step(still, x)).tolist() == [0.5, 0.5]


def from_state(opt):
    twin = Adam()
    twin.load_state_dict(opt.state_dict())
    return twin


def from_settings(opt):
    twin = xpopt.make_optimizer(opt.hyperparameters)
    twin.set_params(cache_dict=opt.cache)
    return twin


TWINS = {
    "copy": copy.copy,
    **{f"pickle {k}": lambda opt, k=k: pickle.loads(pickle.dumps(opt, k)) for k in (0, 2, 5)},
    "state": from_state,
    "settings": from_settings,
}


@on_numpy
@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_a_twin_has_the_numbers_exactly(backend, twin):
    own = {"bounds": (np.array([0.1, -np.inf]), np.float32([0.3, 0.7])), "lr_scale": np.array([1, 3])}
    opt = Adam(lr=0.1, groups={"a": own, "b": SGD(lr=0.1, lr_scale=np.array([0.1]))})
    params = {"a": np.array([0.2, 0.2]), "b": np.zeros(1), "c": np.zeros(3)}
    grads = {name: np.ones(x.shape) for name, x in params.items()}
    params = opt.update_all(params, grads)
    other = twin(opt)
    assert other.hyperparameters == opt.hyperparameters
    low, high = other.hyperparameters["groups"]["a"]["bounds"]
    assert np.array_equal(low, own["bounds"][0])
    assert (np.asarray(high).dtype, np.asarray(high).tolist()) == (np.float32, own["bounds"][1].tolist())
    assert same_bits(other.update_all(params, grads), opt.update_all(params, grads))


@on_numpy
def test_a_file_has_the_numbers_before_any_update(backend, tmp_path):
    pytest.importorskip("safetensors", reason="checkpoints need safetensors: pip install 'xpopt[checkpoint]'")
    opt = Adam(bounds=(np.array([0.1, 0.2]), None))
    opt.save(tmp_path / "file")
    again = xpopt.load_optimizer(tmp_path / "file")
    assert again.hyperparameters == opt.hyperparameters
    assert np.asarray(again.bounds[0]).tolist() == [0.1, 0.2]
    state = opt.state_dict()
    for arrays, message in (
        ({}, "array 'settings/0' is missing"),
        ({"settings/0": np.array([np.nan])}, "low end of bou"),
    ):
        with pytest.raises(CheckpointError, match=message):
            again.load_state_dict({**state, "arrays": arrays})
    assert again.hyperparameters == opt.hyperparameters


@on_numpy
def test_text_says_that_it_does_not_hold_them(backend):
    opt = Adam(lr_scale=np.ones((2, 3)), bounds=(np.zeros(2, np.float32), None))
    assert "lr_scale=PerElement(shape=(2, 3), dtype='float64')" in str(opt)
    assert "bounds=(PerElement(shape=(2,), dtype='float32'), None)" in str(opt)
    with pytest.raises(
        ValueError, match="is text that stands for an array, which cannot be read back; pass the array itself"
    ):
        xpopt.make_optimizer(str(opt))


@on_numpy
def test_they_are_the_optimizers_own(backend):
    low = np.zeros(2)
    opt = SGD(lr=1.0, bounds=(low, None))
    low[:] = 9.0
    x = opt.update(np.ones(2), np.full(2, 3.0), "W")
    assert x.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(opt.bounds[0])[:] = 1.0


NOT_RIGHT = {
    "crossed": ({"bounds": (np.ones(3), np.array([1, 2, 0.5]))}, r"low=1.0 is above high=0.5 at \(2,\); wanted"),
    "crossed with a number": ({"bounds": (2, np.array([3, 1.0]))}, r"low=2.0 is above high=1.0 at \(1,\); wanted"),
    "two shapes": ({"bounds": (np.ones(3), np.ones(2))}, r"low end is of shape \(3,\), and the high end of \(2,\)"),
    "NaN": ({"bounds": (np.array([0, np.nan]), None)}, r"low end of bounds is nan at \(1,\); wanted a finite number"),
    "infinite": ({"bounds": (np.array([np.inf]), None)}, r"low end of bounds is inf at \(0,\); wanted a finite number"),
    "booleans": (
        {"bounds": (None, np.array([True]))},
        "high end of bounds=.* is an array of bool; wanted one of floats",
    ),
    "list": (
        {"bounds": ([0.0], None)},
        "low end of bounds=.* is a list; wanted a finite number .*, or an array like the",
    ),
    "by name": ({"bounds": {"W": (0, 1)}}, "is not a pair; .*; by name: groups={'W': {'bounds': ...}}"),
    "negative": (
        {"lr_scale": np.array([[1.0, -1.0]])},
        r"lr_scale is -1.0 at \(0, 1\); wanted a finite number in \[0, inf",
    ),
    "rates by name": ({"lr_scale": {"W": 0.5}}, "lr_scale={.*} is a dict; .*; by name: groups={'enc/\\*': {'lr_scale'"),
}


@on_numpy
@pytest.mark.parametrize(("options", "message"), NOT_RIGHT.values(), ids=NOT_RIGHT)
def test_what_are_no_numbers_for_each_element(backend, options, message):
    opt = Adam(bounds=(0, 1), lr_scale=np.ones(2))
    before = opt.hyperparameters
    for make in (lambda: Adam(**options), lambda: opt.set_params(options), lambda: Adam(groups={"W": options})):
        with pytest.raises((ValueError, TypeError), match=message):
            make()
    assert opt.hyperparameters == before


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [("lr_scale", (3,), "lr_scale"), ("bounds", (3,), "bounds: low"), ("bounds", (1, 2), "bounds: low")],
)
def test_an_array_of_another_shape_is_an_error_that_names_the_parameter(backend, key, value, what):
    array = backend.array(np.ones(value))
    given = array if key == "lr_scale" else (array, None)
    x = backend.array([1.0, 2.0])
    message = rf"SGD: {what} is an array of shape .*, and 'enc/w' has shape \(2,\); .*groups={{'enc/w': {{'{key}'"
    opt = SGD(**{key: given})
    for call in (
        opt.update_all,
        lambda params, grads: opt.update(x, x, ("enc", "w")),
        lambda params, _: opt.explain(params),
    ):
        with pytest.raises(ValueError, match=message):
            call({"enc": {"w": x}}, {"enc": {"w": x}})
    assert opt.cache == {}
    opt = SGD(momentum=0.5)
    opt.update(x, x, ("enc", "w"))
    with pytest.raises(ValueError, match=message):
        opt.set_params({key: given})
    assert opt.bounds is None
    assert opt.lr_scale == 1.0


@on_numpy
def test_bounds_between_which_the_dtype_has_no_number(backend):
    opt, x = SGD(bounds=(np.array([0.0, 0.1]), np.array([1.0, 0.1]))), np.ones(2, np.float16)
    with pytest.raises(ValueError, match="have no number of float16 between them, the dtype of 'W'; widen them"):
        opt.update(x, x, "W")
    assert opt.cache == {}
    assert opt.update(np.ones(2), np.ones(2), "wide").tolist() == [0.99, 0.1]


class OnHost(OptimizerBase):
    lr: float = setting(default=0.5)

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - h.half * grad, s

    @staticmethod
    def scalars(h):
        return {"half": h.lr / 2}


class StartedState(NamedTuple):
    step: Any = slot(start="lr")


class Started(OptimizerBase):
    lr: float = setting(default=0.5)
    slots = StartedState

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - s.step * grad, s


@on_numpy
def test_a_rule_that_has_one_rate_alone_says_so(backend):
    x = np.ones(2)
    opt = OnHost(lr_scale=np.ones(2))
    with pytest.raises(TypeError, match=r"OnHost.scalars reads h.lr, which is an array here, for lr_scale is one"):
        opt.update(x, x, "W")
    assert opt.cache == {}
    opt = ScheduleFreeSGD(lr_scale=np.ones(2))
    with (
        xpopt.engine("eager"),
        pytest.raises(TypeError, match=r"'weights'; .* of shape \(\); where it is .* lr_scale must be a number"),
    ):
        opt.update(x, x, "W")
    assert opt.cache == {}
    with pytest.raises(ValueError, match=r"Started starts the slot 'step' at lr, one number; give lr_scale a number"):
        Started(lr_scale=x)


@on_numpy
@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_products_with_the_largest_rate_are_tested(backend, policy):
    large = np.full(2, 1e20, np.float32)
    for factors, passes in (([1.0, 1.0], True), ([1e20, 0.0], False)):
        opt = SGD(lr=1.0, nonfinite=policy, lr_scale=np.array(factors))
        try:
            left_out = not np.array_equal(opt.update(large, large, "W"), large - large)
        except FloatingPointError:
            left_out = True
        assert left_out != passes
        assert opt.skipped == (policy == "skip" and not passes)


@on_numpy
def test_no_engine_writes_them(backend, fused):
    """They are no state: neither copied by a kernel nor kept in the cache, but counted among the bytes."""
    opt, x = SGD(lr=1.0, bounds=(np.zeros(70_000), None)), np.ones(70_000)
    x = opt.update_all({"W": x}, {"W": x})
    assert opt.cache["W"] == {"t": 1}
    assert opt.explain(x)[0].state_bytes == 8 * 70_000
    (record,) = opt._parts.state.records.values()
    before = record.slots.bounds_low
    opt.update_all(x, x, out=x)
    assert record.slots.bounds_low is before
    assert not before.any()
