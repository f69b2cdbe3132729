"""Settings that schedules draw: at each step, all or nothing with it, kept in files, and told where they are wrong."""

import copy
import json
import pickle

import numpy as np
import pytest
from _kit.table import OF_LOSS, OF_MATRICES, SIGNATURES

import xpopt
from xpopt import schedulers
from xpopt._engine.compiled import build
from xpopt.schedulers import (
    constant,
    cosine,
    cosine_restarts,
    cyclic,
    exponential,
    function,
    inverse_time,
    linear,
    maximum,
    multi_step,
    one_cycle,
    piecewise,
    plateau,
    polynomial,
    repeat,
    staircase,
    warmup,
    wsd,
)

pytestmark = pytest.mark.any_engine

STEPS = 6
RNG = np.random.default_rng(7)
START = {"a": RNG.normal(size=3), "b": RNG.normal(size=(2, 2))}
GRADS = [{name: RNG.normal(size=x.shape) for name, x in START.items()} for _ in range(2 * STEPS)]
LOSSES = [3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def gone(opt, params=None, steps=range(STEPS), before=lambda step: None):
    """Return the parameters after some steps."""
    params = dict(START) if params is None else dict(params)
    for step in steps:
        before(step)
        params = opt.update_all(params, GRADS[step], cur_loss=LOSSES[step])
    return params


def bits(params):
    return {name: np.asarray(x).tobytes() for name, x in params.items()}


def floats_of(cls):
    """Yield the settings of a class that are floats, with two values."""
    for name, one in cls._settings.items():
        if getattr(one.allowed, "number", None) is None or name == "lr_scheduler":
            continue
        first = one.default if isinstance(one.default, float) and one.default > 0 else 0.25
        yield name, first, first * 0.9


OWN = [
    (cls, name, *ends)
    for cls in SIGNATURES
    if cls not in OF_MATRICES | OF_LOSS  # the model here has vectors, and no loss
    for name, *ends in floats_of(cls)
    if name in cls.ranges
]
OPTIONS = [(xpopt.Adam, *row) for row in floats_of(xpopt.Adam) if row[0] not in xpopt.Adam.ranges and row[0] != "lr"]
WRAPPED = {
    "WeightDecay": lambda x: {"weight_decay": xpopt.WeightDecay(x, towards="start", cautious=True)},
    "EMA": lambda x: {"average": xpopt.EMA(x)},
    "Lookahead": lambda x: {"lookahead": xpopt.Lookahead(every=2, pull=x)},
    "l1": lambda x: {"prox": xpopt.prox.l1(x)},
    "l2_ball": lambda x: {"prox": xpopt.prox.l2_ball(x)},
    "transforms": lambda x: {"transforms": [Shrunk(x)]},
}


class Shrunk(xpopt.Transform):
    share: float = xpopt.setting(default=0.5)

    @staticmethod
    def before(xp, param, grad, s, h):
        return h.share * grad


@pytest.mark.parametrize("row", [*OWN, *OPTIONS], ids=lambda row: f"{row[0].__name__}-{row[1]}")
def test_any_float_follows_its_schedule(row):
    """As one that `set_params` gives anew before each step."""
    cls, name, first, last = row
    values = [first + (last - first) * (step / 4) for step in range(STEPS - 1)] + [last]
    by_hand = cls(**{"lr": 0.01, name: values[0]})
    want = gone(by_hand, before=lambda step: by_hand.set_params({name: values[step]}))
    opt = cls(**{"lr": 0.01, name: linear(first, last, steps=4)})
    assert bits(gone(opt)) == bits(want)
    assert str(xpopt.make_optimizer(str(opt))) == str(opt)
    assert str(cls(**opt.hyperparameters)) == str(opt)


@pytest.mark.parametrize("make", WRAPPED.values(), ids=WRAPPED)
def test_floats_of_transforms_follow_theirs(make):
    values = [0.5 - 0.1 * (step / 4) for step in range(STEPS - 1)] + [0.4]
    by_hand = xpopt.SGD(lr=0.1, **make(values[0]))
    want = gone(by_hand, before=lambda step: by_hand.set_params(make(values[step])))
    opt = xpopt.SGD(lr=0.1, **make(linear(0.5, 0.4, steps=4)))
    found = gone(opt)
    assert bits(found) == bits(want)
    assert str(xpopt.make_optimizer(str(opt))) == str(opt)
    if opt.average:
        assert bits(opt.averaged(found)) == bits(by_hand.averaged(want))
    if opt.prox:
        assert opt.stationarity(found, GRADS[0]) == by_hand.stationarity(want, GRADS[0])


def test_what_remembers_follows_the_losses():
    """By hand: the loss of steps 2, 3 and 5 is no better than the one before; equal schedules are drawn once."""
    schedule = constant(0.5, steps=1) >> plateau(0.4, 0.5, patience=0)
    values = [0.5, 0.4, 0.2, 0.1, 0.1, 0.05]
    assert list(schedule.values(STEPS, LOSSES)) == values
    by_hand = xpopt.SGD(lr=0.5, momentum=0.5)
    want = gone(by_hand, before=lambda step: by_hand.set_params({"lr": values[step], "momentum": values[step]}))
    assert bits(gone(xpopt.SGD(lr=schedule, momentum=schedule))) == bits(want)


@pytest.mark.any_width
def test_they_are_the_same_on_every_library(backend):
    """Numbers of a step come from the host, and are float64 until an array takes them."""
    schedules_ = {
        "lr": warmup(steps=2) * 0.1,
        "decay1": linear(0.5, 0.9, steps=3),
        "weight_decay": linear(0.1, 0.0, steps=3),
    }
    opt, by_hand = xpopt.Adam(**schedules_), xpopt.Adam()
    params = want = {"a": backend.array([1.0, -2.0, 0.5])}
    for step in range(4):
        by_hand.set_params({name: one(step) for name, one in schedules_.items()})
        grads = {"a": backend.array([0.5, 0.25 * step, -1.0])}
        params, want = opt.update_all(params, grads), by_hand.update_all(want, grads)
    np.testing.assert_array_equal(backend.numpy(params["a"]), backend.numpy(want["a"]))


def test_the_rate_is_that_of_the_step():
    opt = xpopt.SGD(lr=warmup(steps=3) * 0.4 >> linear(0.4, 0.0, steps=2))
    params = {"a": np.zeros(1)}
    rates = []
    for _ in range(6):
        new = opt.update_all(params, {"a": -np.ones(1)})
        rates.append(float((new["a"] - params["a"])[0]))
        params = new
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.4, 0.2, 0.0], atol=1e-15)
    assert opt.lr_scheduler.copy()(step=1) == 0.2
    assert str(opt.lr) == "warmup(steps=3) * 0.4 >> linear(start=0.4, stop=0.0, steps=2)"
    assert opt.hyperparameters["lr_scheduler"] is None


def test_groups_have_schedules_of_their_own_and_share_the_optimizers():
    momentum, decay = linear(0.9, 0.5, steps=4), linear(0.1, 0.0, steps=4)
    groups = {
        "a": {"momentum": 0.3, "lr": linear(0.2, 0.1, steps=4)},
        "f": "freeze",
        "c": xpopt.Adam(lr=cosine(0.1, steps=9)),
    }
    opt = xpopt.SGD(lr=linear(0.1, 0.05, steps=4), momentum=momentum, weight_decay=decay, groups=groups)
    alone = {
        "a": xpopt.SGD(lr=linear(0.2, 0.1, steps=4), momentum=0.3, weight_decay=decay),
        "b": xpopt.SGD(lr=linear(0.1, 0.05, steps=4), momentum=momentum, weight_decay=decay),
        "c": xpopt.Adam(lr=cosine(0.1, steps=9)),
    }
    start = {name: np.arange(3.0) + 1 for name in "abcf"}
    grads = {name: np.cos(np.arange(3.0)) for name in "abcf"}
    params, want = dict(start), dict(start)
    for _ in range(STEPS):
        params = opt.update_all(params, grads)
        for name, one in alone.items():
            want |= one.update_all({name: want[name]}, {name: grads[name]})
    assert bits(params) == bits(want)
    assert str(xpopt.make_optimizer(str(opt))) == str(opt)
    # a rate that is a number does not follow the optimizer's schedule; a schedule goes before it
    rates = xpopt.SGD(lr=linear(1.0, 0.0, steps=4), groups={"a": {"lr": 0.25}, "b": {"lr_scheduler": "exponential"}})
    assert float(rates.update(np.zeros(1), -np.ones(1), "a")[0]) == 0.25
    assert float(rates.update(np.zeros(1), -np.ones(1), "b")[0]) == 0.01
    assert float(rates.update(np.zeros(1), -np.ones(1), "c")[0]) == 1.0


EVERY = [
    constant(0.3, steps=3) >> 0.2,
    linear(0.5, 0.1, steps=5),
    polynomial(0.5, 0.1, steps=5, power=2.0),
    warmup(steps=3) * 0.3,
    cosine(0.5, 0.1, steps=5),
    cosine_restarts(0.5, 0.1, period=2, stretch=2),
    exponential(0.5, 0.9),
    inverse_time(0.5, 0.1),
    staircase(0.5, 0.5, every=2),
    multi_step(0.5, 0.5, boundaries=(2, 5)),
    piecewise((0.5, 0.25), (4,)),
    one_cycle(0.5, rise=2, fall=4),
    cyclic(0.1, 0.5, rise=2),
    wsd(0.5, warmup=2, stable=2, decay=3),
    plateau(0.5, 0.5, patience=1),
    warmup(steps=2) * 0.5 >> plateau(0.5, 0.5, patience=0),
    maximum(plateau(0.5, 0.5, patience=0), 0.2),
    plateau(0.5, 0.5, patience=0) * linear(1.0, 0.5, steps=8) + xpopt.KingScheduler(0.1, patience=3, decay=0.5),
    repeat(linear(0.5, 0.1, steps=3)),
    xpopt.NoamScheduler(1, 0.5, 4) * 1.0,
]


def test_every_kind_is_in_the_table():
    kinds = {type(part) for one in EVERY for part in (one, *getattr(one, "_parts", ()))}
    shipped = {getattr(schedulers, name) for name in xpopt._names.NAMES["Schedules as values"]}
    assert shipped - kinds == {schedulers.Schedule, schedulers.epochs, function}


@pytest.mark.parametrize("schedule", EVERY, ids=str)
def test_it_goes_on_bit_for_bit_from_every_step(schedule):
    def made():
        return xpopt.SGD(lr=schedule, momentum=schedule, groups={"b": {"weight_decay": schedule, "lr": 0.1 * schedule}})

    opt = made()
    want = bits(gone(opt))
    again, params = made(), dict(START)
    for step in range(STEPS):
        params = gone(again, params, [step])
        state = again.state_dict()
        state["header"] = json.loads(json.dumps(state["header"]))
        loaded = xpopt.SGD()
        loaded.load_state_dict(state)
        ways = [loaded, again.copy(), pickle.loads(pickle.dumps(again))]
        for way in ways if step == 2 else ways[:1]:
            assert str(way) == str(opt)
            assert bits(gone(way, params, range(step + 1, STEPS))) == want
    assert again.state_dict()["header"] == opt.state_dict()["header"]


def test_it_goes_on_in_the_middle_of_a_pass():
    schedule = plateau(0.5, 0.5, patience=0)
    ends = []
    for cut in (False, True):
        opt, params = xpopt.SGD(lr=schedule, momentum=schedule), dict(START)
        for step in range(4):
            for name in params:
                params[name] = opt.update(params[name], GRADS[step][name], name, cur_loss=LOSSES[step])
                if cut:
                    state, opt = opt.state_dict(), xpopt.SGD()
                    opt.load_state_dict(state)
            opt.step()
        ends.append(bits(params))
    assert ends[0] == ends[1]


def snapshot(opt):
    header = opt.state_dict()["header"]
    return json.dumps(header), {key: x.tobytes() for key, x in opt.state_dict()["arrays"].items()}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": linear(0.2, -0.2, steps=4)}, r"SGD: lr=-0.1.* is out of range; .*; that is linear\(.* at step 3"),
        (
            {"momentum": linear(0.5, 1.25, steps=3)},
            r"SGD: momentum=1.25 is out of range; wanted .* \[0, 1\]; that is linear",
        ),
        (
            {"weight_decay": lambda step: 3 - step**2 / 2},
            r"SGD: weight_decay=-1.5 is out .* function\(call='.* at step 3",
        ),
        (
            {"weight_decay": xpopt.WeightDecay(lambda step: 1 / (3 - step))},
            r"SGD: weight_decay: function\(.* no value at step 3",
        ),
        (
            {"groups": {"a": {"l2": linear(0.3, -0.1, steps=3)}}},
            r"SGD: groups\['a'\]: l2=-0.1.* is out of range; .* at step 3",
        ),
        ({"clip_norm": function(lambda step: [1.0, 1.0, 1.0, "no"][step])}, r"SGD: clip_norm.*at step 3"),
    ],
    ids=["lr", "momentum", "decay", "division", "group", "text"],
)
def test_a_value_out_of_range_changes_nothing(settings, words):
    opt = xpopt.SGD(**{"lr": 0.1, "l2": plateau(0.1, 0.5, patience=0), **settings})
    params = gone(opt, steps=range(3))
    before, kept = snapshot(opt), bits(params)
    for update in (
        lambda: opt.update_all(params, GRADS[3], cur_loss=1.0, out=params),
        lambda: opt.update(params["a"], GRADS[3]["a"], "a", cur_loss=1.0, out=params["a"]),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            update()
        assert snapshot(opt) == before
        assert bits(params) == kept


def test_a_step_that_is_left_out_draws_nothing():
    opt = xpopt.SGD(lr=plateau(0.1, 0.5, patience=0), l2=plateau(0.2, 0.5, patience=0), nonfinite="skip")
    params = gone(opt, steps=range(3))
    states = opt._parts.clock.states, opt.lr_scheduler.state()
    params = opt.update_all(params, {**GRADS[0], "a": np.full(3, np.nan)}, cur_loss=9.0)
    assert (opt._parts.clock.states, opt.lr_scheduler.state(), opt.skipped, opt.cur_step) == (*states, 1, 3)
    with pytest.raises(ValueError, match="SGD: lr: plateau needs a finite cur_loss; got None"):
        opt.update_all(params, GRADS[0])


def test_a_function_need_have_no_hash():
    class Rate:
        __hash__ = None

        def __call__(self, step):
            return 0.5**step

    rate = Rate()
    opt = xpopt.SGD(lr=rate, clip_value=rate)
    assert moved(opt, 3) == [1.0, 0.25, 0.0625]


@pytest.mark.parametrize("groups", [{}, {"a": {"lr": 1}, "b": {"lr": 1, "l2": 1}}], ids=["alone", "groups"])
def test_equal_functions_are_called_once_a_step(groups):
    asked = []

    def rate(step):
        asked.append(step)
        return 0.1 + step / 100

    groups = {name: dict.fromkeys(own, rate) for name, own in groups.items()}
    opt = xpopt.SGD(lr=rate, momentum=rate, l2=2 * function(rate), groups=groups)
    asked.clear()
    gone(opt, steps=range(3))
    assert asked == [0, 0, 1, 1, 2, 2]  # twice: a product is another schedule
    opt.set_params({"lr": 0.1, "l2": 0.0})
    asked.clear()
    gone(opt, steps=range(2))
    assert asked == [3, 4]


def test_they_are_drawn_once_a_step():
    asked = []
    l2 = function(lambda step: asked.append(step) or 0.1)
    opt = xpopt.SGD(lr=0.1, l2=l2, groups={"b": {"lr": 0.2}}, accumulate=2)
    asked.clear()
    for step in range(3):
        for _ in range(2):
            opt.update_all(START, GRADS[step])
    assert asked == [0, 1, 2]
    opt = xpopt.SGD(lr=0.1, l2=l2, groups={"b": {"lr": 0.2}})
    asked.clear()
    for _ in range(2):
        for name, x in START.items():
            opt.update(x, GRADS[0][name], name)
        opt.step()
    assert asked == [0, 1]


@pytest.mark.parametrize("alone", [False, True], ids=["update_all", "update"])
def test_between_whole_steps_they_have_no_part(alone):
    """Clipping is of the mean, at the bound of the step."""
    schedule = linear(1.0, 0.5, steps=2)

    def settings(step):
        return {"clip_norm": schedule(step), "momentum": schedule(step), "clip_value": 2 * schedule(step)}

    def gone_half_steps(opt, before=lambda step: None):
        params = dict(START)
        for half in range(6):
            if half % 2 == 0:
                before(half // 2)
            if not alone:
                params = opt.update_all(params, GRADS[half])
                continue
            for name, x in params.items():
                params[name] = opt.update(x, GRADS[half][name], name)
            opt.step()
        return params

    by_hand = xpopt.SGD(lr=0.1, accumulate=2, **settings(0))
    want = gone_half_steps(by_hand, lambda step: by_hand.set_params(settings(step)))
    opt = xpopt.SGD(lr=0.1, accumulate=2, clip_norm=schedule, momentum=schedule, clip_value=2 * schedule)
    assert bits(gone_half_steps(opt)) == bits(want)


def test_nothing_is_compiled_when_a_value_changes(fused, monkeypatch):
    settings = {
        "lr": linear(0.1, 0.0, steps=9),
        "decay1": linear(0.9, 0.5, steps=9),
        "eps": linear(1e-3, 1e-6, steps=9),
    }
    opt = xpopt.Adam(**settings)
    params = gone(opt, steps=range(2))
    rule = opt._parts.settings.rule
    made, plan = len(rule.made), opt._parts.state.ownership.plan()
    if fused == "compiled":
        monkeypatch.delattr(build, "build")
    params = gone(opt, params, range(2, 6))
    assert len(rule.made) == made
    assert opt._parts.state.ownership.plan() is plan
    assert xpopt.Adam(lr=0.1)._parts.settings.rule is rule  # the kernel of settings that are numbers


def test_settings_change_to_schedules_and_back():
    opt = xpopt.SGD(lr_scheduler="ExponentialScheduler()")
    with pytest.raises(
        ValueError, match=r"SGD: lr=linear.* and lr_scheduler=Exp.* are two schedules; add 'lr_scheduler': None"
    ):
        opt.set_params({"lr": linear(0.1, 0.0, steps=4)})
    opt.set_params({"lr": linear(0.1, 0.0, steps=4), "lr_scheduler": None})
    opt.lr_scheduler = None
    assert opt.lr == linear(0.1, 0.0, steps=4)
    with pytest.raises(
        ValueError, match=r"SGD: lr_scheduler='king' and lr=linear.* are two schedules; give one of them"
    ):
        opt.lr_scheduler = "king"
    with pytest.raises(ValueError, match="are two schedules"):
        xpopt.SGD(lr=warmup(steps=2), lr_scheduler="king")
    with pytest.raises(ValueError, match=r"groups\['a'\]: lr_scheduler='king' and lr=warmup.* are two schedules"):
        xpopt.SGD(groups={"a": {"lr": warmup(steps=2), "lr_scheduler": "king"}})
    gone(opt, steps=range(2))
    opt.set_params({"lr": 0.5, "momentum": linear(0.5, 0.0, steps=4)})
    assert (opt.lr, opt.lr_scheduler.hyperparameters) == (0.5, {"id": "ConstantScheduler", "lr": 0.5})
    gone(opt, steps=range(2))
    opt.set_params({"momentum": 0.25})
    assert opt._parts.clock.numbers_of(0) is None
    other = xpopt.SGD(lr_scheduler="king")
    other.set_params(xpopt.SGD(lr=warmup(steps=2)).hyperparameters)
    assert other.lr == warmup(steps=2)


def test_to_start_over_is_to_forget():
    opt = xpopt.SGD(lr=0.1, l2=plateau(0.2, 0.5, patience=0))
    first = gone(opt)
    opt.reset_step()
    assert bits(gone(opt)) == bits(first)


def moved(opt, steps):
    """Return by how much each of some steps moves a parameter whose gradient is 9, at a loss that stays."""
    return [-float(opt.update_all([np.zeros(1)], [np.full(1, 9.0)], cur_loss=1.0)[0][0]) for _ in range(steps)]


@pytest.mark.parametrize(
    ("first", "without"),
    [
        ({"clip_value": plateau(1.0, 0.5, patience=1)}, {"clip_value": 1.0}),
        ({"groups": {"0": {"clip_value": plateau(1.0, 0.5, patience=1)}}}, {"groups": {}}),
        ({"groups": {"0": {"lr": plateau(1.0, 0.5, patience=1)}}}, {"groups": {}}),
        ({"lr": plateau(1.0, 0.5, patience=1)}, {"lr": 1.0}),
    ],
    ids=["setting", "group", "rate of a group", "rate"],
)
def test_a_schedule_that_is_set_again_later_begins(first, without):
    """Also where the training was saved in between."""
    schedule = plateau(1.0, 0.5, patience=1)
    opt = xpopt.SGD(**{"lr": 1.0, "clip_value": 1.0, **first})
    assert moved(opt, 6) == list(schedule.values(6, [1.0] * 6))
    opt.set_params(without)
    assert moved(opt, 2) == [1.0, 1.0]
    again = xpopt.SGD()
    again.load_state_dict(opt.state_dict())
    for one in opt, again, copy.deepcopy(opt):
        one.set_params({"clip_value": schedule})
        assert moved(one, 3) == list(schedule.values(3, [1.0] * 3))


@pytest.mark.parametrize("name", ["lr", "clip_value"])
@pytest.mark.parametrize("between", [None, 1.0], ids=["at once", "later"])
@pytest.mark.parametrize("where", ["optimizer", "group", "its rate"])
def test_equal_schedules_stay_one_where_they_are_set_again(name, between, where):
    """A step is the rate times the bound: the square of what the schedule says, whichever was set last."""
    schedule = plateau(1.0, 0.5, patience=1)
    both = {"lr": schedule, "clip_value": schedule}

    def given(value):
        if where == "optimizer" or (where == "its rate" and name == "clip_value"):
            return {name: value}
        return {"groups": {"0": {**({"clip_value": schedule} if name == "lr" else {}), name: value}}}

    opt = xpopt.SGD(**{**both, **given(schedule)})
    want = schedule.values(9, [1.0] * 9)
    assert moved(opt, 4) == list(want[:4] ** 2)
    if between is not None:
        opt.set_params(given(between))
        assert moved(opt, 2) == list(want[4:6] * between)
    opt.set_params(given(schedule))
    done = opt.cur_step
    assert moved(opt, 9 - done) == list(want[done:] ** 2)


def test_a_header_is_json_also_before_a_loss_was_seen():
    opt = xpopt.SGD(lr=plateau(0.5, maximize=True), l2=constant(0.5, steps=2) >> plateau(0.5))
    for _ in range(2):
        header = json.loads(json.dumps(opt.state_dict()["header"], allow_nan=False))
        again = xpopt.SGD()
        again.load_state_dict({"header": header, "arrays": opt.state_dict()["arrays"]})
        assert moved(again, 4) == moved(copy.deepcopy(opt), 4)
        moved(opt, 1)


def test_the_equal_ones_of_a_schedule_that_starts_over_do_too():
    schedule = plateau(1.0, 0.5, patience=1)
    opt = xpopt.SGD(lr=schedule, clip_value=schedule, groups={"0": {"lr": schedule}})
    want = list(schedule.values(5, [1.0] * 5) ** 2)
    assert moved(opt, 5) == want
    opt.lr_scheduler.reset()
    assert moved(opt, 5) == want


def test_a_function_goes_on_where_there_is_one():
    def halved(step):
        return 0.5 ** (step + 1)

    opt = xpopt.SGD(lr=halved, l2=warmup(steps=2) * halved)
    assert "lr=function(call='test_scheduled.test_a_function" in str(opt)
    params = gone(opt, steps=range(2))
    again = xpopt.SGD(lr=halved, l2=warmup(steps=2) * halved)
    again.load_state_dict(opt.state_dict())
    assert bits(gone(again, params, [2])) == bits(gone(opt, params, [2]))
    with pytest.raises(
        ValueError, match="is text that stands for a function, which cannot be read back; pass the function itself"
    ):
        xpopt.SGD().load_state_dict(opt.state_dict())
    with pytest.raises(ValueError, match="is text that stands for a function, which cannot be read back"):
        xpopt.make_optimizer(str(opt))


def test_a_function_cannot_change_the_optimizer_that_updates():
    def rude(step):
        if step == 1:
            opt.set_params({"l2": 0.5})
        return 0.1

    opt = xpopt.SGD(l2=rude)
    params = gone(opt, steps=range(1))
    with pytest.raises(RuntimeError, match="SGD"):
        gone(opt, params, [1])


def test_eps_that_rounds_to_0_at_a_step():
    opt = xpopt.Adam(eps=exponential(1e-3, 1e-30))
    params = {"a": np.ones(3, np.float32)}
    params = opt.update_all(params, params)
    params = opt.update_all(params, params)
    with pytest.raises(
        ValueError, match=r"Adam: eps=1e-63 rounds to 0 in float32, .* of 'a'; that is exponential\(.* at step 2"
    ):
        opt.update_all(params, params)


def test_a_setting_that_selects_a_rule_counts_as_not_0():
    opt = xpopt.SGD(lr=0.1, momentum=piecewise((0.0, 0.9), (2,)))
    rms = xpopt.RMSProp(lr=0.1, momentum=constant(0.0))
    assert opt._parts.settings.rule is xpopt.SGD(momentum=0.5)._parts.settings.rule
    assert rms._parts.settings.rule is xpopt.RMSProp(momentum=0.5)._parts.settings.rule
    with pytest.raises(ValueError, match="nesterov=True and dampening=warmup"):
        xpopt.SGD(nesterov=True, momentum=0.9, dampening=warmup(steps=2))
    plain = xpopt.SGD(lr=0.1)
    np.testing.assert_array_equal(gone(opt, steps=range(2))["a"], gone(plain, steps=range(2))["a"])


def test_a_solver_asks_for_the_rate_of_its_steps():
    schedule = warmup(steps=3) * 0.2 >> 0.1
    values = iter([1.0, np.nan, 0.9, 0.8, 0.7])

    def function_(x):
        return next(values), x

    found = xpopt.minimize(
        function_, np.ones(2), xpopt.SGD(lr=schedule, momentum=linear(0.1, 0, steps=3)), stop=xpopt.stop.steps(3)
    )
    assert [row.rate for row in found.history] == [schedule(step) for step in range(4)]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss_scale": linear(1, 2, steps=3)}, "SGD: loss_scale=linear.* is a linear; wanted a finite number"),
        ({"seed": linear(1, 2, steps=3)}, "SGD: seed=linear.* is a linear; wanted an int"),
        ({"bounds": (linear(1, 2, steps=3), None)}, "SGD: low end of bounds=linear"),
        ({"prox": xpopt.prox.l1(linear(1, 2, steps=3)), "lr": linear}, r"SGD: lr: .* call it, linear\(...\)"),
        (
            {"lr_scheduler": linear(1, 2, steps=3)},
            r"SGD: lr_scheduler: .* not a scheduler; .*; pass it as lr=linear",
        ),
    ],
    ids=lambda x: "",
)
def test_what_takes_none(settings, words):
    with pytest.raises(TypeError, match=words):
        xpopt.SGD(**settings)
    with pytest.raises(TypeError, match=r"l1: weight=linear.* is a schedule, which only an optimizer evaluates"):
        xpopt.prox.l1(linear(1, 2, steps=3))(np, np.ones(2))


def test_a_damaged_memory():
    opt = xpopt.SGD(l2=plateau(0.2, 0.5, patience=0))
    gone(opt, steps=range(2))
    for remembered, words in [
        ([{"group": 0, "number": "l2", "state": {"value": 1.0}}], "'l2' of group 0: plateau: state is"),
        ([{"group": 1, "number": "l2", "state": None}], "'l2' of group 1: it is no schedule here"),
        ([{"group": 0, "number": "l2"}], "what a schedule remembers is"),
        ({}, "remembered is"),
    ]:
        state = copy.deepcopy(opt.state_dict())
        state["header"]["remembered"] = remembered
        with pytest.raises(xpopt.CheckpointError, match=words):
            xpopt.SGD().load_state_dict(state)
    state["header"]["remembered"] = []
    state["header"]["schedule"]["name"] = "lr"
    with pytest.raises(xpopt.CheckpointError, match="lr"):
        xpopt.SGD().load_state_dict(state)
