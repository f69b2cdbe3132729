"""Transforms: what goes with every rule, given as options; how they are told, kept and shared."""

import contextlib
import inspect
import json
import math
import pickle
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit import oracles
from _kit.bits import cast, same_bits
from _kit.table import PROMISES, SIGNATURES
from _kit.variants import AROUND

import xpopt
from xpopt import Adam, AdamW, OptimizerBase, Range, Rule, setting, slot
from xpopt.transforms import Transform, WeightDecay

pytestmark = pytest.mark.backends("numpy")

ROWS = pytest.mark.parametrize("row", PROMISES.values(), ids=PROMISES)


def rule_of(opt):
    return opt._parts.settings.rule


def update(opt, start=(1.0, -2.0, 0.5), grad=(0.5, 0.25, -1.0)):
    return opt.update(np.array(start), np.array(grad), "W")


def an_option(row):
    """The decay, or the scale of the rate where a class has a decay of its own; and its default."""
    return ("lr_scale", 1.0) if "weight_decay" in SIGNATURES[row.optimizer] else ("weight_decay", 0)


@ROWS
def test_at_its_default_a_transform_is_not_there(row):
    """The same rule, so the same kernel; and what is set to the default by hand is not there either."""
    plain = row.make(weight_decay=0.0)
    rule = rule_of(plain)
    assert rule is plain.choose_rule(plain.hyperparameters)
    assert rule.inner is None
    name, default = an_option(row)
    opt = row.make(**{"weight_decay": 0.0, name: 0.5})
    assert rule_of(opt).inner is rule
    opt.set_params({name: default})
    assert rule_of(opt) is rule


@ROWS
def test_rules_with_the_same_transforms_are_one(row):
    name, default = an_option(row)
    one, other = (row.make(**{name: value, "l2": 0.5}) for value in (0.25, 0.5))
    assert rule_of(one) is rule_of(other)
    assert rule_of(row.make(**{"l2": 0.5, name: 0.25})) is rule_of(one)
    assert rule_of(row.make(**{"l2": 0.5, name: default})) is not rule_of(one)


class OwnDecay(OptimizerBase):
    """Its decay is inside its step."""

    lr: float = setting(default=0.5)
    weight_decay: float = setting(default=0.25, range=Range(low=0, high=1))

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - h.lr * (grad + h.weight_decay * param), s


class OwnRange(OptimizerBase):
    """The same without declarations."""

    ranges: Mapping = {"weight_decay": Range(low=0, high=1)}
    rule = OwnDecay.rule

    def __init__(self, lr=0.5, weight_decay=0.25, **options):
        super().__init__(lr, weight_decay=weight_decay, **options)


@pytest.mark.parametrize("cls", [OwnDecay, OwnRange])
def test_a_class_that_declares_the_name_keeps_its_own(cls):
    opt = cls()
    assert rule_of(opt).inner is None
    assert opt.hyperparameters["weight_decay"] == 0.25
    assert list(opt.hyperparameters)[:4] == ["id", "lr", "weight_decay", "clip_norm"]
    assert "weight_decay=0.25" in str(opt)
    assert update(opt).tolist() == [1 - 0.5 * (0.5 + 0.25), -2 - 0.5 * (0.25 - 0.5), 0.5 - 0.5 * (-1 + 0.125)]
    with pytest.raises(ValueError, match=r"weight_decay=2.0 is out of range; wanted a finite number in \[0, 1\]"):
        cls(weight_decay=2)
    assert xpopt.make_optimizer(str(opt)).hyperparameters == opt.hyperparameters
    again = cls(weight_decay=0.5)
    again.load_state_dict(opt.state_dict())
    assert again.hyperparameters == opt.hyperparameters
    decayed = cls(l2=0.5)  # others go with it all the same
    assert rule_of(decayed).inner is rule_of(opt)


def test_a_plain_value_is_another_default():
    class Decayed(Adam):
        weight_decay = 0.5

    assert Decayed().weight_decay == 0.5
    assert update(Decayed(lr=0.1)).tolist() == update(Adam(lr=0.1, weight_decay=0.5)).tolist()
    assert "weight_decay" not in inspect.signature(Decayed).parameters


def test_adamw_is_adam_with_another_default():
    assert AdamW().weight_decay == 0.01
    assert str(AdamW()) == str(Adam()).replace("Adam", "AdamW")
    assert str(AdamW(weight_decay=0)).endswith(", weight_decay=0.0)")
    assert update(AdamW(lr=0.1)).tolist() == update(Adam(lr=0.1, weight_decay=0.01)).tolist()
    assert update(AdamW(lr=0.1, weight_decay=0)).tolist() == update(Adam(lr=0.1)).tolist()
    for decay in (0.0, 0.01, 0.5):
        again = AdamW(weight_decay=0.25)
        again.load_state_dict(AdamW(weight_decay=decay).state_dict())
        assert again.weight_decay == decay


@pytest.mark.parametrize("name", AROUND)
def test_a_checkpoint_that_lacks_a_transform_has_none(name):
    state = Adam().state_dict()
    (group,) = state["header"]["groups"]
    assert name not in group["settings"]
    opt = AdamW(l2=0.5)
    opt.load_state_dict({**state, "header": {**state["header"], "rule": {"name": "AdamW", "version": 1}}})
    assert rule_of(opt).inner is None


@pytest.mark.parametrize("name", ["weight_decay", "l2"])
@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf"), True, None])
def test_what_is_no_decay_is_refused(name, value):
    with pytest.raises((ValueError, TypeError), match=rf"Adam: {name}=.* wanted a finite number in \[0, inf\)"):
        Adam(**{name: value})


LARGE, ZERO = np.full(3, 1e21, np.float32), np.zeros(3, np.float32)
BEYOND = {
    "gradient, decayed": (ZERO, LARGE, {"weight_decay": 0.5}),
    "gradient": (ZERO, LARGE, {"l2": 0.5}),
    "penalty": (LARGE, ZERO, {"l2": 1.0}),
    "penalty, clipped": (LARGE, ZERO, {"l2": 1.0, "clip_norm": 1.0}),
}
"""Parameters and gradients of which Adam's squares are beyond float32."""


@pytest.mark.parametrize("policy", ["skip", "raise"])
@pytest.mark.parametrize("way", ["update", "update_all"])
@pytest.mark.parametrize("case", BEYOND.values(), ids=BEYOND)
def test_what_the_rule_makes_of_a_gradient_with_its_penalty_is_tested(policy, way, case):
    param, grad, options = case
    opt = Adam(nonfinite=policy, **options)

    def call():
        return opt.update(param, grad, 0) if way == "update" else opt.update_all([param], [grad])[0]

    if policy == "raise":
        with pytest.raises(FloatingPointError, match=r"products of Adam.rule: the gradient of "):
            call()
    else:
        assert np.array_equal(call(), param)
    assert opt.skipped == (policy == "skip")
    assert opt.cache == {}


@pytest.mark.parametrize("options", [{"l2": 1e-2}, {"weight_decay": 0.5}, {"l2": 1e-2, "clip_norm": 1.0}], ids=str)
def test_a_penalty_that_is_within_the_limits_passes(options):
    opt = Adam(nonfinite="raise", **options)
    opt.update(LARGE, ZERO, "W")
    assert np.isfinite(opt.cache["W"]["var"]).all()


class Either(OptimizerBase):
    """One formula for matrices, another for the rest."""

    lr: float = setting(default=0.5)
    of_matrices = Rule(lambda xp, p, g, s, h: (p - 2 * h.lr * g, s), where=lambda dtype, shape: len(shape) == 2)
    of_others = Rule(lambda xp, p, g, s, h: (p - h.lr * g, s))

    @staticmethod
    def rule(xp, param, grad, s, h):
        raise AssertionError

    @classmethod
    def choose_rule(cls, settings):
        return cls.of_matrices, cls.of_others


def test_each_of_several_rules_has_them():
    opt = Either(weight_decay=0.25, l2=0.5)
    ones = {"matrix": np.ones((2, 2)), "vector": np.ones(3)}
    new = opt.update_all(ones, ones)
    assert np.unique(new["matrix"]).tolist() == [1 - 1.5 - 0.125]
    assert np.unique(new["vector"]).tolist() == [1 - 0.75 - 0.125]


# Where clip_norm measures


def test_a_norm_is_taken_of_values_that_have_been_clipped():
    grad = np.array([30.0, 0.5, -0.5])
    opt = xpopt.SGD(lr=1.0, clip_value=1.0, clip_norm=0.5)
    want = np.array([1.0, 0.5, -0.5]) * (0.5 / np.sqrt(1.5))
    np.testing.assert_allclose(-opt.update(np.zeros(3), grad, "W"), want, rtol=1e-15)
    up = xpopt.SGD(lr=1.0, clip_value=1.0, clip_norm=0.5, maximize=True)
    np.testing.assert_allclose(up.update(np.zeros(3), grad, "W"), want, rtol=1e-15)
    (row,) = opt.explain([np.zeros(3)])
    assert (row.engine, row.reason) == ("eager", "clip_norm is computed after another option has changed the gradients")
    for other in ({"clip_value": 1.0}, {"clip_norm": 1.0, "l2": 0.5, "maximize": True}):  # which it does not concern
        assert xpopt.SGD(lr=1.0, **other).explain([np.zeros(3)])[0].engine != "eager"


def test_the_source_clips_values_before_the_norm():
    source = xpopt.kernel_source(xpopt.SGD(clip_value=1.0, clip_norm=1.0))
    calls = [line.split("(")[0].strip() for line in source.splitlines() if line.endswith(")")]
    assert calls.index("greater") < calls.index("less") < calls.index("multiply")
    assert "less(x0, c1, m0)" in source


@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_values_that_are_clipped_pass_and_others_do_not(policy):
    opt = Adam(nonfinite=policy, clip_value=1.0)
    opt.update(ZERO, LARGE, "W")
    assert opt.skipped == 0
    for grad, clip_value in ((LARGE, 1e21), (np.full(3, np.inf, np.float32), 1.0)):
        for more in ({}, {"clip_norm": 1e21}):
            opt = Adam(nonfinite=policy, clip_value=clip_value, **more)
            try:
                opt.update(ZERO, grad, "W")
                left_out = opt.skipped
            except FloatingPointError:
                left_out = policy == "raise"
            assert left_out == 1


def test_a_gradient_at_a_bound_has_no_part_in_the_norm():
    opt = xpopt.SGD(lr=1.0, bounds=(0.0, None), clip_norm=1.0)
    assert opt.update(np.array([0.0, 1.0]), np.array([100.0, 0.5]), "W").tolist() == [0.0, 0.5]


# Up, and with care


def test_up_is_down_with_the_negative_gradient():
    up, down = Adam(lr=0.1, maximize=True, l2=0.5, weight_decay=0.5), Adam(lr=0.1, l2=0.5, weight_decay=0.5)
    assert update(up).tolist() == update(down, grad=(-0.5, -0.25, 1.0)).tolist()
    for opt in (xpopt.SGD(lr=0.1, maximize=True), xpopt.RMSProp(lr=0.1, maximize=True)):
        assert np.all((update(opt) - [1.0, -2.0, 0.5]) * [0.5, 0.25, -1.0] > 0)


def test_a_step_against_the_gradient_is_left_out_and_the_state_goes_on():
    plain, cautious = xpopt.SGD(lr=0.5, momentum=0.5), xpopt.SGD(lr=0.5, momentum=0.5, cautious=True)
    for opt in (plain, cautious):
        opt.update(np.zeros(4), np.array([4.0, 4.0, 4.0, 4.0]), "W")
    grad = np.array([1.0, -1.0, 0.0, -3.0])  # the velocity is 1 + grad / 2
    assert plain.update(np.zeros(4), grad, "W").tolist() == [-1.5, -0.5, -1.0, 0.5]
    assert cautious.update(np.zeros(4), grad, "W").tolist() == [-1.5, 0.0, 0.0, 0.5]
    assert plain.cache["W"].tolist() == cautious.cache["W"].tolist()


def test_decay_is_no_step_that_caution_leaves_out():
    opt = xpopt.SGD(lr=0.5, cautious=True, weight_decay=0.5)
    assert opt.update(np.array([2.0, 2.0]), np.array([0.0, -1.0]), "W").tolist() == [1.5, 2.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_value": 0}, r"clip_value=0.0 is out of range; wanted a finite number in \(0, inf\)"),
        ({"clip_value": -1.0}, "clip_value=-1.0 is out of range"),
        ({"clip_value": float("nan")}, "clip_value=nan is out of range"),
        ({"cautious": 1}, "cautious=1 is a int; wanted True or False"),
        ({"maximize": None}, "maximize=None is a NoneType; wanted True or False"),
    ],
    ids=str,
)
def test_what_they_are_not(options, message):
    opt = Adam()
    for make in (lambda: Adam(**options), lambda: opt.set_params(options)):
        with pytest.raises((ValueError, TypeError), match=message):
            make()
    assert str(opt) == str(Adam())


class Safe(Transform):
    floor: float = setting(default=1e-60, range=Range(low=0, open_low=True, in_dtype=True))

    @staticmethod
    def before(xp, param, grad, s, h):
        return grad / (xp.abs(grad) + h.floor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_value": 1e-60}, "Adam: clip_value=1e-60 rounds to 0 in float32, the compute dtype of 'W'"),
        ({"transforms": [Safe()]}, "Adam: Safe: floor=1e-60 rounds to 0 in float32, the compute dtype of 'W'"),
    ],
    ids=str,
)
def test_what_rounds_to_zero_in_the_arithmetic_is_refused(options, message):
    opt = Adam(**options)
    for dtype in (np.float32, np.float16):
        with pytest.raises(ValueError, match=message):
            opt.update(np.ones(2, dtype), np.ones(2, dtype), "W")
    assert opt.cache == {}
    opt.update(np.ones(2), np.ones(2), "W")


# Between bounds


@ROWS
@pytest.mark.parametrize("bounds", [(-0.25, 0.5), (0.0, None), (None, 0.0)], ids=str)
@pytest.mark.parametrize("engine", ["eager", "blocked", "compiled"])
def test_a_projected_gradient_walk(row, bounds, engine):
    """Of a quadratic whose bottom lies outside in most directions, against the equations with a projection."""
    if engine == "compiled":
        pytest.importorskip("llvmlite")
    bottom = np.array([1.0, -1.0, 0.125, 0.0, -0.5])
    opt = row.make(lr=0.05, bounds=bounds)
    x, gradients, walked = np.zeros(5), [], []
    with xpopt.engine(engine):
        for _ in range(40):
            gradients.append((x - bottom).tolist())
            x = opt.update(x, x - bottom, "W")
            walked.append(x)
    path = oracles.walk(row.equation, [0.0] * 5, gradients, [0.05] * 40, options={"bounds": bounds}, **row.arguments)
    np.testing.assert_allclose(walked, [p for p, _ in path], rtol=1e-12, atol=1e-12)
    low, high = (-np.inf if bounds[0] is None else bounds[0], np.inf if bounds[1] is None else bounds[1])
    assert np.all((low <= np.array(walked)) & (np.array(walked) <= high))


@pytest.mark.parametrize(("bounds", "push"), [((0.0, None), 1.0), ((None, 0.0), -1.0)])
def test_momentum_does_not_wind_up(bounds, push):
    """Ten steps against a bound; when the gradient turns, the parameter leaves it at once."""
    opt, x = xpopt.SGD(lr=0.25, momentum=0.5, bounds=bounds), np.zeros(1)
    for _ in range(10):
        x = opt.update(x, np.array([push]), "W")
    assert (x.tolist(), opt.cache["W"].tolist()) == ([0.0], [0.0])
    assert opt.update(x, np.array([-push]), "W").tolist() == [0.25 * push]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize(
    "options",
    [{}, {"master": True}, {"rounding": "stochastic"}, {"clip_norm": 8.0}, {"clip_norm": 8.0, "master": True}],
    ids=str,
)
@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_no_rounding_leads_out(dtype, options, engine):
    """Bounds that the dtype does not have are rounded inward, to its nearest numbers inside."""
    if engine == "compiled":
        pytest.importorskip("llvmlite")
    number = cast(np.zeros(1), dtype).dtype.type
    bounds = (-0.1, 0.3)
    opt = xpopt.SGD(lr=0.05, bounds=bounds, **options)
    x = cast(np.zeros((8, 8)), dtype)
    ends = []
    with xpopt.engine(engine):
        for k in range(30):
            x = opt.update(x, cast(np.linspace(-3, 3, 64).reshape(8, 8), dtype) * number(1 if k < 15 else -1), "W")
            values = x.astype(np.float64)
            assert np.all((values >= bounds[0]) & (values <= bounds[1]))
            ends.append((values.min(), values.max()))
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    step = oracles.ulp(0.1, dtype), oracles.ulp(0.3, dtype)
    assert low - step[0] < bounds[0] <= low
    assert high <= bounds[1] < high + step[1]


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ((1.0, 0.0), r"Adam: bounds=\(1.0, 0.0\) are crossed; wanted \(low, high\), the lower one first"),
        (1.0, r"Adam: bounds=1.0 is not a pair; wanted \(low, high\), with None for an open side, or None"),
        ((0.0,), "is not a pair"),
        (("a", None), "Adam: low end of bounds='a' is a str; wanted a finite number"),
        ((0.0, float("nan")), "Adam: high end of bounds=nan is out of range; wanted a finite number"),
        ((float("inf"), None), "Adam: low end of bounds=inf is out of range"),
    ],
    ids=str,
)
def test_what_are_no_bounds(bounds, message):
    opt = Adam(bounds=(0, 1))
    for make in (lambda: Adam(bounds=bounds), lambda: opt.set_params({"bounds": bounds})):
        with pytest.raises((ValueError, TypeError), match=message):
            make()
    assert opt.bounds == (0.0, 1.0)


def test_open_on_both_sides_is_no_bound():
    for bounds in (None, (None, None), (-np.inf, np.inf), [None, None], (np.float32(-np.inf), np.float16(np.inf))):
        opt = Adam(bounds=bounds)
        assert opt.bounds is None
        assert rule_of(opt) is rule_of(Adam())


def test_bounds_without_a_number_of_the_dtype_between_them():
    opt = Adam(bounds=(0.1, 0.1))
    opt.update(np.ones(1), np.ones(1), "wide")
    with pytest.raises(
        ValueError, match=r"bounds=\(0.1, 0.1\) have no number of float32 between them, the dtype of 'W'"
    ):
        opt.update(np.ones(1, np.float32), np.ones(1, np.float32), "W")
    assert list(opt.cache) == ["wide"]
    assert opt.update(np.ones(1), np.ones(1), "wide").tolist() == [0.1]


@pytest.mark.parametrize("bounds", [(1e6, None), (None, -1e6)], ids=str)
def test_an_open_bound_that_no_number_of_the_dtype_reaches_is_told(bounds):
    W = np.ones(2, np.float16)
    opt = xpopt.SGD(bounds=bounds)
    with pytest.raises(ValueError, match="have no number of float16 between them, the dtype of 'W'; widen them"):
        opt.update(W, W, "W")
    assert opt.cache == {}


def test_the_penalty_of_a_limit_passes_a_bound():
    """An element that pushes through a bound is still tested: it is in the gradient that came."""
    opt = Adam(nonfinite="skip", bounds=(0.0, None))
    opt.update(ZERO, LARGE, "W")
    assert opt.skipped == 1


# Of one's own


class Halved(Transform):
    share: float = setting(default=0.5, range=Range(low=0))

    @staticmethod
    def before(xp, param, grad, s, h):
        return h.share * grad


class Shifted(Transform):
    """Moves the parameter on the way in, and adds a number of its own that grows with the count on the way out."""

    by: float = setting(default=0.25)

    @staticmethod
    def before(xp, param, grad, s, h):
        return param + h.by, grad

    @staticmethod
    def after(xp, new, param, grad, s, h):
        return new - h.late * param, s

    @staticmethod
    def scalars(h):
        return {"late": h.by * (1 if h.t == 1 else 2) * h.lr}


BOTH = (Halved(share=0.25), Shifted(by=0.5))


@pytest.mark.parametrize("engine", ["eager", "blocked", "compiled"])
def test_they_come_before_in_order_and_after_in_reverse(engine):
    if engine == "compiled":
        pytest.importorskip("llvmlite")
    opt = xpopt.SGD(lr=0.5, momentum=0.5, l2=2.0, transforms=BOTH)
    x, velocity = np.array([1.0, -2.0]), np.zeros(2)
    with xpopt.engine(engine):
        for t in (1, 2):
            new = opt.update(x, np.array([4.0, 8.0]), "W")
            velocity = 0.5 * velocity + 0.5 * 0.25 * (np.array([4.0, 8.0]) + 2 * x)
            x = x + 0.5 - velocity - 0.5 * 0.5 * t * x
            assert new.tolist() == x.tolist()


def test_their_order_matters_as_it_is_given():
    class Squared(Transform):
        @staticmethod
        def before(xp, param, grad, s, h):
            return grad * grad

    one = xpopt.SGD(lr=1.0, transforms=[Halved(), Squared()])
    other = xpopt.SGD(lr=1.0, transforms=[Squared(), Halved()])
    assert one.update(np.zeros(1), np.full(1, 4.0), "W").tolist() == [-4.0]
    assert other.update(np.zeros(1), np.full(1, 4.0), "W").tolist() == [-8.0]
    assert "Squared()" in str(one)


def test_they_are_shown_and_come_back():
    opt = Adam(transforms=BOTH, weight_decay=WeightDecay(0.125, times_lr=False, cautious=True), bounds=(0, None))
    shown = opt.hyperparameters
    assert shown["transforms"] == ["Halved(share=0.25)", "Shifted(by=0.5)"]
    assert shown["weight_decay"] == "WeightDecay(weight_decay=0.125, times_lr=False, towards=0, cautious=True)"
    for spec in (str(opt), shown, json.loads(json.dumps(shown))):
        again = xpopt.make_optimizer(spec)
        assert (again.transforms, again.weight_decay, again.bounds) == (BOTH, opt.weight_decay, (0.0, None))
        assert rule_of(again) is rule_of(opt)
    update(opt, start=(1.0, 2.0, 0.5))
    other = Adam()
    other.load_state_dict(opt.state_dict())
    for twin in (other, opt.copy(), pickle.loads(pickle.dumps(opt))):
        assert str(twin) == str(opt)
        assert np.array_equal(update(twin), update(opt.copy()))
    opt.set_params({"transforms": ["Halved(share=0.5)"], "weight_decay": 0})
    assert opt.transforms == (Halved(),)
    opt.set_params({"transforms": [], "bounds": None})
    assert rule_of(opt) is rule_of(Adam())


def test_a_transform_is_a_value():
    one = Halved(share=0.25)
    assert one == Halved(share=0.25) != Halved()
    assert {one: 1}[Halved(share=0.25)] == 1
    assert one != Shifted(by=0.25)
    with pytest.raises(AttributeError, match=r"Halved.share cannot be changed to 0.5: a transform is a value"):
        one.share = 0.5
    with pytest.raises(ValueError, match=r"Halved: share=-1.0 is out of range; wanted a finite number in \[0, inf\)"):
        Halved(share=-1)
    with pytest.raises(TypeError, match="Halved takes no keyword 'shar'; did you mean 'share'"):
        Halved(shar=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Halved(), r"transforms=Halved\(share=0.5\) is a Halved; wanted a list of transforms"),
        ([Halved], "is not a transform; wanted a transform, a call string or a dict; call it, Halved()"),
        ([Halved(), Halved(share=0.25)], "transforms: Halved is given twice; wanted at most one of each class"),
        ([WeightDecay()], "transforms: WeightDecay is an option of its own; give it as weight_decay="),
        (["Doubled()"], "transforms: unknown transform 'Doubled'; import the module that defines it first"),
        (["Halved(shar=1)"], "transforms: Halved has no keyword 'shar'; did you mean 'share'"),
        (3, "transforms=3 is a int; wanted a list of transforms"),
    ],
    ids=str,
)
def test_what_is_no_list_of_transforms(given, message):
    opt = Adam(transforms=BOTH)
    for make in (lambda: Adam(transforms=given), lambda: opt.set_params({"transforms": given})):
        with pytest.raises((ValueError, TypeError), match=message):
            make()
    assert opt.transforms == BOTH


def test_what_cannot_be_traced_in_a_transform_is_told_of_it():
    class Summed(Transform):
        @staticmethod
        def before(xp, param, grad, s, h):
            return xp.sum(grad, axis=0) * grad

    class Alone(Transform):
        @staticmethod
        def after(xp, new, param, grad, s, h):
            return new

    class Written(Transform):
        @staticmethod
        def before(xp, param, grad, s, h):
            grad += 1
            return grad

    with pytest.warns(
        UserWarning, match=r"SGD.plain_rule cannot be traced: Summed.before: it calls xp.sum with axis=0"
    ):
        assert update(xpopt.SGD(lr=1.0, transforms=[Summed()]), grad=(1.0, 1.0, 2.0)).tolist() == [-3.0, -6.0, -7.5]
    with (
        pytest.warns(UserWarning, match="cannot be traced"),
        pytest.raises(TypeError, match=r"Alone.after returned a ndarray; wanted \(new, slots\)"),
    ):
        update(xpopt.SGD(transforms=[Alone()]))
    with pytest.raises(TypeError, match=r"Written.before: it changes an array in place"):
        update(xpopt.SGD(transforms=[Written()]))


def of_functions(**functions):
    return type("Odd", (Transform,), {name: staticmethod(function) for name, function in functions.items()})()


@pytest.mark.filterwarnings("ignore:.*cannot be traced")
@pytest.mark.parametrize("engine", ["eager", "auto"])
@pytest.mark.parametrize(
    ("functions", "message"),
    [
        (
            {"before": lambda xp, param, grad, s, h: grad[:1]},
            r"Odd.before returned .* of shape \(1,\) as 'grad'; wanted",
        ),
        ({"before": lambda xp, param, grad, s, h: xp.sum(grad)}, r"Odd.before returned .* of shape \(\) as 'grad'"),
        (
            {"before": lambda xp, param, grad, s, h: 1.0},
            r"Odd.before returned a float as 'grad'; wanted float64 of shape",
        ),
        ({"before": lambda xp, param, grad, s, h: grad > 0}, r"Odd.before returned bool of shape \(3,\) as 'grad'"),
        ({"before": lambda xp, param, grad, s, h: (1.0, grad)}, r"Odd.before returned a float as 'param'; wanted"),
        (
            {"before": lambda xp, param, grad, s, h: None},
            r"Odd.before returned None; wanted the gradient, or \(param, gra",
        ),
        (
            {"before": lambda xp, param, grad, s, h: (param, grad, s)},
            r"Odd.before returned a tuple of 3; wanted the grad",
        ),
        (
            {"after": lambda xp, new, param, grad, s, h: (new[:1], s)},
            r"Odd.after returned .* of shape \(1,\) as 'param'",
        ),
        (
            {"after": lambda xp, new, param, grad, s, h: (0.0, s)},
            r"Odd.after returned a float as 'param'; wanted float64",
        ),
    ],
    ids=["part", "sum", "number", "mask", "number as param", "None", "three", "part after", "number after"],
)
def test_what_a_transform_returns_is_not_spread_over_the_parameter(functions, message, engine):
    """Decay is outside of it, and would spread what it returned."""
    opt = xpopt.SGD(momentum=0.5, weight_decay=0.25, transforms=[of_functions(**functions)])
    with xpopt.engine(engine), pytest.raises(TypeError, match=message):
        update(opt)
    assert opt.cache == {}


@pytest.mark.parametrize("engine", ["eager", "auto"])
def test_what_a_rule_returns_is_not_spread_over_the_parameter_by_a_transform(engine):
    class Mine(OptimizerBase):
        lr: float = setting(default=0.5)

        @staticmethod
        def rule(xp, param, grad, s, h):
            return h.lr, s

    with (
        xpopt.engine(engine),
        pytest.warns(UserWarning, match="cannot be traced") if engine == "auto" else contextlib.nullcontext(),
        pytest.raises(TypeError, match=r"Mine.rule returned a float as 'param'; wanted float64 of shape \(3,\)"),
    ):
        update(Mine(weight_decay=0.25))


def test_a_gradient_that_is_measured_comes_alone():
    class Measured(Transform):
        measured = True

        @staticmethod
        def before(xp, param, grad, s, h):
            return 2 * param, grad

    assert update(xpopt.SGD(lr=1.0, transforms=[Measured()])).tolist() == [1.5, -4.25, 2.0]
    with pytest.raises(TypeError, match=r"Measured.before returned a parameter too; wanted only the gradient"):
        update(xpopt.SGD(transforms=[Measured()], clip_norm=1.0))


def test_numbers_that_a_transform_does_not_have():
    with pytest.raises(TypeError, match=r"Odd.scalars returned a NoneType; wanted a dict of numbers"):
        update(xpopt.SGD(transforms=[of_functions(before=Shifted.before, scalars=lambda h: None)]))
    reading = of_functions(before=lambda xp, param, grad, s, h: h.momentum * grad)
    message = (
        r"Odd reads h.momentum, which is none of its numbers; declare a setting 'momentum', or return it from `sca"
    )
    with pytest.warns(UserWarning, match=message), pytest.raises(AttributeError, match=message):
        update(xpopt.SGD(momentum=0.5, transforms=[reading]))


def test_a_class_that_is_none():
    with pytest.raises(TypeError, match=r"Bound.before takes no self: decorate it with @staticmethod"):

        class Bound(Transform):
            def before(self, xp, param, grad, s, h):
                return grad

    class Nothing(Transform):
        pass

    with pytest.raises(TypeError, match=r"Nothing has neither `before` nor `after`; write one of them"):
        Nothing()


def test_numbers_with_the_name_of_a_setting_are_refused():
    class Same(OptimizerBase):
        ranges: Mapping = {"Halved_share": Range(low=0)}
        rule = OwnDecay.rule

        def __init__(self, **options):
            super().__init__(0.1, Halved_share=1.0, weight_decay=0.0, **options)

    with pytest.raises(TypeError, match="Same has a hyperparameter 'Halved_share', and Halved a number of that name"):
        Same(transforms=[Halved()])


# Decay with more settings


@pytest.mark.parametrize("times_lr", [True, False])
@pytest.mark.parametrize("cautious", [True, False])
def test_decay_with_settings_of_its_own(times_lr, cautious):
    """The parameter goes towards zero in the first, away from it in the second, and stays in the third."""
    decay = WeightDecay(0.25, times_lr=times_lr, cautious=cautious)
    opt = xpopt.SGD(lr=0.5, weight_decay=decay)
    share = 0.125 if times_lr else 0.25
    want = [2 - 0.5 - 2 * share, 2 + 0.5 - (0 if cautious else 2 * share), 2 - 2 * share]
    assert opt.update(np.full(3, 2.0), np.array([1.0, -1.0, 0.0]), "W").tolist() == want


def test_the_simplest_decay_is_a_number():
    assert rule_of(Adam(weight_decay=WeightDecay(0.125))) is rule_of(Adam(weight_decay=0.125))
    for bad, message in (
        ("WeightDecay(weight_decay=-1)", r"weight_decay=-1.0 is out of range"),
        (Halved(), "Adam: weight_decay: Halved.* is a Halved; wanted a number, or a WeightDecay"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            Adam(weight_decay=bad)


# Slots of transforms


class Averaged(Transform):
    """Keeps a running mean of the parameter, which begins where the parameter is."""

    share: float = setting(default=0.5)

    class slots(NamedTuple):  # noqa: N801 - the attribute's name
        average: Any = slot(start="param")
        seen: Any = slot(start="share")

    @staticmethod
    def after(xp, new, param, grad, s, h):
        return new, (s.average + h.share * (new - s.average), s.seen + 1.0)


def averaged(path, share):
    average = path[0]
    for x in path[1:]:
        average = average + share * (x - average)
    return average


@ROWS
@pytest.mark.parametrize("engine", ["eager", "blocked", "compiled"])
def test_slots_of_transforms_are_beside_those_of_the_rule(row, engine):
    if engine == "compiled":
        pytest.importorskip("llvmlite")
    opt, plain = row.make(lr=0.5, weight_decay=0, transforms=[Averaged()]), row.make(lr=0.5, weight_decay=0)
    rng = np.random.default_rng(1)
    path, twin = [rng.normal(size=(3, 2))], None
    with xpopt.engine(engine):
        for step in range(6):
            grad = rng.normal(size=(3, 2))
            path.append(opt.update(path[-1], grad, "W"))
            assert np.array_equal(path[-1], plain.update(path[-2], grad, "W"))
            if step == 2:
                twin = row.make()
                twin.load_state_dict(opt.state_dict())
            elif twin is not None:
                assert np.array_equal(twin.update(path[-2], grad, "W"), path[-1])
    for one in (opt, twin):
        entry = one.cache["W"]
        assert list(entry) == ["t", *row.slots, "average", "seen"]
        np.testing.assert_allclose(entry["average"], averaged(path, 0.5), rtol=1e-14)
        assert np.unique(entry["seen"]).tolist() == [6.5]
    assert opt.explain([path[-1]])[0].state_bytes == 8 * sum(
        map(math.prod, [*row.rule().shapes((3, 2)), (3, 2), (3, 2)])
    )


@ROWS
def test_a_transform_that_comes_later_begins_then_and_one_that_goes_takes_its_slots(row):
    opt, plain = row.make(lr=0.5, weight_decay=0), row.make(lr=0.5, weight_decay=0)
    rng = np.random.default_rng(2)
    path, grads = [rng.normal(size=4)], rng.normal(size=(6, 4))
    for step, grad in enumerate(grads):
        if step == 2:
            opt.set_params({"transforms": [Averaged()]})
        if step == 4:
            np.testing.assert_allclose(opt.cache["W"]["average"], averaged(path[2:], 0.5), rtol=1e-14)
            opt.set_params({"transforms": []})
            again = row.make()
            again.load_state_dict(opt.state_dict())  # with slots that are about to go
            assert np.array_equal(again.update(path[-1], grad, "W"), plain.copy().update(path[-1], grad, "W"))
        path.append(opt.update(path[-1], grad, "W"))
        assert np.array_equal(path[-1], plain.update(path[-2], grad, "W"))
    assert str(opt.cache["W"]) == str(plain.cache["W"])


class Shrinking(Transform):
    """Keeps one number, whatever the parameter."""

    class slots(NamedTuple):  # noqa: N801
        left: Any = slot(start=1, shape=xpopt.one)

    @staticmethod
    def after(xp, new, param, grad, s, h):
        return new, (s.left * 0.5,)


def test_a_slot_of_its_own_shape_that_is_about_to_go_is_loaded():
    opt = Adam(transforms=[Shrinking()])
    x = update(opt)
    opt.set_params({"transforms": []})
    again = Adam()
    again.load_state_dict(opt.state_dict())
    assert np.array_equal(update(again, x), update(opt, x))


def test_a_slot_of_two_is_refused():
    class Meaning(Transform):
        class slots(NamedTuple):  # noqa: N801
            mean: Any

        @staticmethod
        def after(xp, new, param, grad, s, h):
            return new, s

    with pytest.raises(TypeError, match=r"Meaning has a slot 'mean', and Adam.rule or another transform has one too"):
        Adam(transforms=[Meaning()])
    assert rule_of(xpopt.SGD(momentum=0.5, transforms=[Meaning()])).fields == ("velocity", "mean")


def test_what_no_transform_has_is_no_state():
    opt = Adam()
    x = np.ones(2)
    with pytest.raises(ValueError, match=r"cache of 'W' is a dict of .*; Adam keeps a dict"):
        opt.set_params(cache_dict={"W": {"t": 1, "mean": x, "var": x, "nobody's": x}})


class Same(Transform):
    """Has slots with the names of Adam's, and of SGD's."""

    class slots(NamedTuple):  # noqa: N801
        mean: Any
        var: Any
        velocity: Any

    @staticmethod
    def after(xp, new, param, grad, s, h):
        return new, s


def test_state_of_an_algorithm_is_not_dropped_for_a_transform_that_has_slots_of_its_names():
    x = np.ones(2)
    for momentum in (0.0, 0.5):
        with pytest.raises(ValueError, match=r"cache of 'W' is a dict of t: 1, mean: .*; SGD.* keeps"):
            xpopt.SGD(momentum=momentum).set_params(cache_dict={"W": {"t": 1, "mean": x, "var": x}})
    opt = xpopt.SGD(groups={"W": Adam()})
    opt.update(x, x, "W")
    with pytest.raises(ValueError, match=r"SGD: groups give 'W' to SGD, which cannot continue from the state of Adam"):
        opt.set_params({"groups": {}})
    assert list(opt.cache["W"]) == ["t", "mean", "var"]
    opt = xpopt.SGD(momentum=0.5, transforms=[Halved()], master=True)
    opt.update(x.astype(np.float16), x.astype(np.float16), "W")
    again = xpopt.SGD()
    again.load_state_dict(opt.state_dict())
    assert list(again.cache["W"]) == ["t", "velocity", "master"]


@pytest.mark.filterwarnings("ignore:.*cannot be traced")
@pytest.mark.parametrize("engine", ["eager", "auto"])
@pytest.mark.parametrize(
    ("slots", "message"),
    [
        (
            lambda new, s: (s.seen, s.seen),
            r"Odd.after returned float64 of shape \(\) as 'average'; wanted float64",
        ),
        (lambda new, s: (s.average, new), r"Odd.after returned float64 of shape \(3,\) as 'seen'; wanted float64"),
        (lambda new, s: (0.5, s.seen), r"Odd.after returned a float as 'average'; wanted float64"),
        (lambda new, s: OddState(new), r"Odd.after returned a OddState without 'seen'; wanted \(new, slots\)"),
    ],
    ids=["one number", "array", "number", "left out"],
)
def test_a_wrong_slot_of_a_transform_is_told_of_it(slots, message, engine):
    odd = type(
        "Odd",
        (Transform,),
        {"slots": OddState, "after": staticmethod(lambda xp, new, param, grad, s, h: (new, slots(new, s)))},
    )
    opt = Adam(transforms=[odd()])
    with xpopt.engine(engine), pytest.raises(TypeError, match=message):
        update(opt)
    assert opt.cache == {}


class OddState(NamedTuple):
    average: Any
    seen: Any = slot(shape=xpopt.one)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_decay_towards_the_start(dtype):
    start = cast([1.0, -2.0, 0.5], dtype)
    opt = xpopt.SGD(lr=0.5, weight_decay=WeightDecay(0.25, towards="start"), master=True)
    x, none = start, np.zeros(3, dtype)
    x = opt.update(x, cast([1.0, 1.0, -1.0], dtype), "W")
    assert x.tolist() == [0.5, -2.5, 1.0]
    for step in range(1, 4):
        x = opt.update(x, none, "W")
        np.testing.assert_allclose(x, start - np.array([0.5, 0.5, -0.5]) * 0.875**step, rtol=1e-3)
    assert opt.cache["W"]["origin"].tolist() == start.tolist()
    assert opt.cache["W"]["origin"].dtype == np.float32
    with pytest.raises(ValueError, match=r"WeightDecay: towards=1 is unknown; wanted 0, or 'start'"):
        WeightDecay(0.25, towards=1)
    with pytest.raises(ValueError, match=r"WeightDecay: towards=array\(\[0., 0.\]\) is unknown; wanted 0, or 'start'"):
        WeightDecay(0.25, towards=np.zeros(2))


def test_the_rate_is_scaled_for_all_that_reads_it():
    class Derived(OptimizerBase):
        """The rate by way of a number that the host derives of it."""

        lr: float = setting(default=0.5)

        @staticmethod
        def rule(xp, param, grad, s, h):
            return param - h.half * grad, s

        @staticmethod
        def scalars(h):
            return {"half": h.lr / 2}

    assert update(Derived(lr_scale=0.5)).tolist() == update(Derived(lr=0.25)).tolist()
    opt = xpopt.SGD(lr=0.5, weight_decay=0.25, lr_scale=0.5, lr_scheduler="ExponentialScheduler(initial_lr=0.5)")
    assert update(opt).tolist() == update(xpopt.SGD(lr=0.25, weight_decay=0.25)).tolist()
    assert opt.lr == 0.5
    assert update(Adam(lr_scale=0)).tolist() == [1.0, -2.0, 0.5]
    with pytest.raises(ValueError, match=r"Adam: lr_scale=-1.0 is out of range"):
        Adam(lr_scale=-1)


# All together


ALL = {
    "l2": 0.0625,
    "clip_value": 0.75,
    "weight_decay": WeightDecay(0.125, towards="start", cautious=True),
    "cautious": True,
    "bounds": (-0.5, 0.625),
    "maximize": True,
    "lr_scale": 0.5,
    "transforms": [Averaged(), Halved()],
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_all_together_are_one_kernel_with_the_bits_of_eager(dtype):
    pytest.importorskip("llvmlite")
    shapes = {"W": (7, 5), "b": (), "long": (131,)}
    rng = np.random.default_rng(3)
    start = {name: cast(0.5 * rng.normal(size=shape), dtype) for name, shape in shapes.items()}
    steps = [{name: cast(rng.normal(size=shape), dtype) for name, shape in shapes.items()} for _ in range(6)]
    ends = {}
    for engine in ("eager", "blocked", "compiled"):
        opt, params = Adam(lr=0.25, **ALL), start
        with xpopt.engine(engine):
            for k, grads in enumerate(steps):
                if k == 3:
                    again = Adam()
                    again.load_state_dict(opt.state_dict())
                    assert str(again) == str(opt)
                    opt = again
                params = opt.update_all(params, grads)
            launches = {row.launch for row in opt.explain(params)}
        ends[engine] = {"params": params, "cache": opt.cache}
        assert [list(entry) for entry in opt.cache.values()] == 3 * [["t", "mean", "var", "origin", "average", "seen"]]
    assert len(launches) == 1
    assert same_bits(ends["compiled"], ends["eager"])
    assert same_bits(ends["blocked"], ends["eager"])
    moved = np.concatenate([np.ravel(ends["eager"]["params"][name]) - np.ravel(start[name]) for name in shapes])
    assert np.count_nonzero(moved) > 100
