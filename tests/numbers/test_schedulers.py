"""Schedules: their rates, their checks, their copies, and how they are made from text and dicts."""

import copy
import inspect
import json
import math
import pickle
import random
from typing import NamedTuple

import numpy as np
import pytest
from _kit import scheduler_oracles as oracles
from hypothesis import given
from hypothesis import strategies as st

from xpopt import SGD
from xpopt._settings.ranges import FLAG, NON_NEGATIVE, Range
from xpopt._settings.text import Call
from xpopt.schedulers import (
    ConstantScheduler,
    ExponentialScheduler,
    KingScheduler,
    NoamScheduler,
    SchedulerBase,
    SchedulerInitializer,
    make_scheduler,
)

RNG = random.Random(20180222)


class Row(NamedTuple):
    default: str  # str() of the defaults: names, order and values
    settings: list  # keywords to try, beside the defaults
    values: dict  # hypothesis, by keyword: anything in range
    bad: dict  # by keyword: out of range
    good: dict  # by keyword: the ends of the range, as they are kept


RATE = st.floats(0, 1e300)
ABOVE_0 = st.floats(1e-300, 1e300)
WHOLE_OR_NOT = st.integers(1, 10**300) | ABOVE_0
TABLE = {
    ConstantScheduler: Row(
        "ConstantScheduler(lr=0.01)",
        [{"lr": 0.0}, {"lr": 3.5}],
        {"lr": RATE},
        {"lr": [-1e-300, -1, math.nan, math.inf, -math.inf, 10**400]},
        {"lr": [0.0, 1.7e308]},
    ),
    ExponentialScheduler: Row(
        "ExponentialScheduler(initial_lr=0.01, stage_length=500, staircase=False, decay=0.1)",
        [
            {"staircase": True},
            {"initial_lr": 2.0, "stage_length": 7, "decay": 0.9},
            {"stage_length": 2.5, "staircase": True, "decay": 0.99},
            {"initial_lr": 0.0},
            {"stage_length": 1000, "decay": 1.5},
        ],
        {"initial_lr": RATE, "stage_length": WHOLE_OR_NOT, "staircase": st.booleans(), "decay": ABOVE_0},
        {
            "initial_lr": [-1e-300, math.nan, math.inf, 10**400],
            "stage_length": [0, 0.0, -1, math.nan, math.inf, 10**400],
            "staircase": [],
            "decay": [0, -0.1, math.nan, math.inf],
        },
        {"initial_lr": [0.0], "stage_length": [1, 0.5], "staircase": [True, False], "decay": [5e-324, 1.0, 2.0]},
    ),
    NoamScheduler: Row(
        "NoamScheduler(model_dim=512, scale_factor=1, warmup_steps=4000)",
        [{"model_dim": 64, "warmup_steps": 10}, {"scale_factor": 0.25, "warmup_steps": 499.5}, {"scale_factor": 0}],
        {"model_dim": WHOLE_OR_NOT, "scale_factor": st.integers(0, 10**300) | RATE, "warmup_steps": WHOLE_OR_NOT},
        {
            "model_dim": [0, -1, math.nan, math.inf, 10**400],
            "scale_factor": [-1, -1e-300, math.nan, math.inf],
            "warmup_steps": [0, -1, math.nan, math.inf],
        },
        {"model_dim": [1, 0.5], "scale_factor": [0, 0.0, 2], "warmup_steps": [1, 1.5]},
    ),
    KingScheduler: Row(
        "KingScheduler(initial_lr=0.01, patience=1000, decay=0.99)",
        [{"patience": 3, "decay": 0.5}, {"initial_lr": 0.0, "patience": 2}],
        {"initial_lr": RATE, "patience": st.integers(2, 10**12), "decay": st.floats(1e-300, 1)},
        {
            "initial_lr": [-1e-300, math.nan, math.inf],
            "patience": [1, 0, -5],
            "decay": [0, -0.5, 1.0000001, math.nan, math.inf],
        },
        {"initial_lr": [0.0], "patience": [2, 10**9], "decay": [5e-324, 1.0]},
    ),
}
FORMULAS = {
    ConstantScheduler: oracles.constant,
    ExponentialScheduler: oracles.exponential,
    NoamScheduler: oracles.noam,
}
KINDS = [pytest.param(kind, id=kind.__name__) for kind in TABLE]
SETTINGS = [
    pytest.param(kind, settings, id=f"{kind.__name__}-{settings}")
    for kind, row in TABLE.items()
    for settings in [{}, *row.settings]
]
READ_STEP = [ExponentialScheduler, NoamScheduler]
LOSSES = [RNG.gauss(0, 1) for _ in range(40)]
COPIES = [
    SchedulerBase.copy,
    copy.copy,
    copy.deepcopy,
    lambda scheduler: pickle.loads(pickle.dumps(scheduler)),
]


class Untouchable:
    """Fails whoever looks at its value."""

    def __float__(self):
        raise AssertionError("the loss was read")

    __bool__ = __int__ = __index__ = __eq__ = __lt__ = __gt__ = __array__ = __repr__ = __float__
    __hash__ = None


class Cosine(SchedulerBase):
    ranges = {"lr": NON_NEGATIVE, "steps": Range(low=1, kind="int"), "restart": FLAG}
    rate_name = "lr"

    def __init__(self, lr=0.01, steps=1000, restart=False):
        super().__init__(lr=lr, steps=steps, restart=restart)

    def learning_rate(self, step, cur_loss=None):
        done = step % self.steps if self.restart else min(step, self.steps)
        return self.lr * (1 + math.cos(math.pi * done / self.steps)) / 2


class Fails(SchedulerBase):
    """Counts its calls, then returns or raises what it was told."""

    reads_loss = True

    def __init__(self, result=0.0):
        super().__init__()
        self.result = result

    def reset(self):
        self.calls = 0

    def state(self):
        return {"calls": self.calls}

    def restore(self, state):
        self.calls = state["calls"]

    def learning_rate(self, step, cur_loss=None):
        self.calls += 1
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


def run(scheduler, losses):
    return [scheduler(step, loss) for step, loss in enumerate(losses)]


def history(scheduler):
    return scheduler.state()["losses"]


def test_every_scheduler_has_a_row():
    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    shipped = {kind for kind in below(SchedulerBase) if kind.__module__.startswith(SchedulerBase.__module__[:-4])}
    assert shipped - {SchedulerBase} == set(TABLE)


# Rates


@pytest.mark.parametrize(("kind", "settings"), [p for p in SETTINGS if p.values[0] in FORMULAS])
def test_rate_is_the_formula(kind, settings):
    scheduler = kind(**settings)
    for step in [*range(20), 499, 500, 501, 999, 1000, 3999, 4000, 4001, 10**5, 10**6]:
        if settings.get("decay", 0) > 1 and step > 10**4:
            continue
        want = FORMULAS[kind](step, **settings)
        got = scheduler(step)
        assert type(got) is float
        assert got == pytest.approx(want, rel=1e-12, abs=1e-300), step
        assert scheduler.learning_rate(step) == got


@pytest.mark.parametrize("kind", [ConstantScheduler, *READ_STEP])
def test_stateless_rates_do_not_depend_on_the_order_of_calls(kind):
    scheduler = kind()
    assert [scheduler(step) for step in (7, 3, 7, 0, 3)] == [kind()(step) for step in (7, 3, 7, 0, 3)]
    assert scheduler.state() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_values_become_plain_numbers(kind):
    row = TABLE[kind]
    for name, value in kind().hyperparameters.items():
        if name == "id":
            continue
        given_ = np.asarray(value)[()]
        kept = kind(**{name: given_}).hyperparameters[name]
        assert type(kept) is type(value), name
        assert kept == value
    assert str(kind(**{k: np.asarray(v[0])[()] for k, v in row.good.items()})) == str(
        kind(**{k: v[0] for k, v in row.good.items()})
    )


def test_a_whole_rate_is_kept_as_a_float_and_a_whole_step_count_as_an_int():
    assert str(ExponentialScheduler(1, 7, True, 2)) == (
        "ExponentialScheduler(initial_lr=1.0, stage_length=7, staircase=True, decay=2.0)"
    )


@pytest.mark.parametrize("step", [np.int8(7), np.uint64(7), np.int64(7)])
@pytest.mark.parametrize("kind", READ_STEP)
def test_numpy_steps_are_steps(kind, step):
    got = kind()(step)
    assert type(got) is float
    assert got == kind()(7)


@pytest.mark.parametrize("kind", READ_STEP)
@pytest.mark.parametrize(
    ("step", "error"),
    [(None, TypeError), (-1, ValueError), (2.0, TypeError), (True, TypeError), ("3", TypeError), (10**400, ValueError)],
)
def test_a_step_that_is_needed_must_be_one(kind, step, error):
    with pytest.raises(error, match=f"{kind.__name__}.*step"):
        kind()(step)


@pytest.mark.parametrize("kind", READ_STEP)
def test_a_huge_step_is_a_step(kind):
    assert kind()(10**300) == pytest.approx(FORMULAS[kind](10**300), rel=1e-12)


@pytest.mark.parametrize("step", [None, -1, 2.5, "x"])
def test_a_step_that_is_not_needed_is_not_looked_at(step):
    assert ConstantScheduler(0.5)(step) == 0.5
    assert KingScheduler(0.5)(step, 1.0) == 0.5


@pytest.mark.parametrize("kind", [ConstantScheduler, *READ_STEP])
def test_a_loss_that_is_not_needed_is_not_looked_at(kind):
    assert kind()(3, Untouchable()) == kind()(3)


def test_what_depends_on_what():
    assert {kind: (kind.rate_name, kind.reads_step, kind.reads_loss) for kind in TABLE} == {
        ConstantScheduler: ("lr", False, False),
        ExponentialScheduler: ("initial_lr", True, False),
        NoamScheduler: (None, True, False),
        KingScheduler: ("initial_lr", False, True),
    }


# Checks


@pytest.mark.parametrize("kind", KINDS)
def test_values_out_of_range_are_refused_by_name(kind):
    row = TABLE[kind]
    assert row.bad.keys() == row.good.keys() == row.values.keys() == kind.ranges.keys()
    for name, values in row.bad.items():
        for value in values:
            scheduler = kind()
            error = TypeError if name == "patience" and isinstance(value, float) else ValueError
            with pytest.raises(error, match=rf"{kind.__name__}: {name}\b"):
                kind(**{name: value})
            with pytest.raises(error, match=rf"{kind.__name__}: {name}\b"):
                scheduler.set_params({name: value})
            assert str(scheduler) == row.default


@pytest.mark.parametrize("kind", KINDS)
def test_values_of_another_type_are_refused_by_name(kind):
    for name in kind.ranges:
        for value in [None, "0.1", [1], 1j, Call("x"), np.array([1.0])] + ([1, 0.0] if name == "staircase" else [True]):
            with pytest.raises(TypeError, match=rf"{kind.__name__}: {name}="):
                kind(**{name: value})


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_of_the_ranges_are_inside(kind):
    for name, values in TABLE[kind].good.items():
        for value in values:
            kept = kind(**{name: value}).hyperparameters[name]
            assert kept == value
            assert type(kept) is type(value)


def test_patience_is_whole():
    with pytest.raises(TypeError, match=r"patience=2\.0"):
        KingScheduler(patience=2.0)


def test_overflow_names_the_scheduler_and_the_step():
    scheduler = ExponentialScheduler(decay=10.0, stage_length=1)
    with pytest.raises(ValueError, match=r"ExponentialScheduler\(.*decay=10.0\).* at step 400"):
        scheduler(400)
    assert scheduler(2) == pytest.approx(1.0)


# Hyperparameters


@pytest.mark.parametrize("kind", KINDS)
def test_documented_names_order_and_defaults(kind):
    row = TABLE[kind]
    assert str(kind()) == repr(kind()) == row.default
    assert list(inspect.signature(kind).parameters) == list(kind.ranges) == list(kind().hyperparameters)[1:]


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_hyperparameters_are_a_fresh_dict_that_makes_the_same(kind, settings):
    scheduler = kind(**settings)
    shown = scheduler.hyperparameters
    assert type(shown) is dict
    assert next(iter(shown.items())) == ("id", kind.__name__)
    assert shown.items() >= settings.items()
    assert str(make_scheduler(shown)) == str(scheduler)
    assert json.loads(json.dumps(shown)) == shown
    shown.clear()
    assert scheduler.hyperparameters.items() >= settings.items()


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_set_params_takes_effect(kind, settings):
    scheduler, made = kind(), kind(**settings)
    run(scheduler, LOSSES)
    scheduler.set_params({"id": kind.__name__, **settings})
    scheduler.reset()
    assert str(scheduler) == str(made)
    assert run(scheduler, LOSSES) == run(made, LOSSES)


@pytest.mark.parametrize("kind", KINDS)
def test_set_params_changes_all_or_nothing(kind):
    scheduler = kind()
    run(scheduler, LOSSES)
    before = scheduler.state()
    *_, last = names = list(kind.ranges)
    good = {name: TABLE[kind].good[name][0] for name in names}
    with pytest.raises(TypeError, match=last):
        scheduler.set_params({**good, last: "x"})
    with pytest.raises(KeyError, match=f"'speed'.*nown: {', '.join(names)}"):
        scheduler.set_params({**good, "speed": 1})
    with pytest.raises(ValueError, match="id='SGD'"):
        scheduler.set_params({**good, "id": "SGD"})
    assert str(scheduler) == TABLE[kind].default
    assert scheduler.state() == before


@pytest.mark.parametrize("kind", KINDS)
def test_attributes_show_the_values_and_point_to_set_params(kind):
    scheduler = kind()
    for name in kind.ranges:
        assert getattr(scheduler, name) == scheduler.hyperparameters[name]
        with pytest.raises(AttributeError, match="set_params"):
            setattr(scheduler, name, 1)
    assert str(scheduler) == TABLE[kind].default


# Copies and state


@pytest.mark.parametrize("duplicate", COPIES, ids=["copy", "copy.copy", "deepcopy", "pickle"])
@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_a_copy_goes_on_alone(kind, settings, duplicate):
    scheduler = kind(**settings)
    run(scheduler, LOSSES[:10])
    before = scheduler.state()
    twin = duplicate(scheduler)
    assert type(twin) is kind
    assert str(twin) == str(scheduler)
    after = run(twin, LOSSES[10:])
    twin.set_params({name: values[0] for name, values in TABLE[kind].good.items()})
    assert scheduler.state() == before
    assert run(scheduler, LOSSES[10:]) == after


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_state_goes_through_json_and_back(kind, settings):
    scheduler, fresh = kind(**settings), kind(**settings)
    run(scheduler, LOSSES[:10])
    state = json.loads(json.dumps(scheduler.state()))
    after = run(scheduler, LOSSES[10:])
    fresh.restore(state)
    assert run(fresh, LOSSES[10:]) == after
    fresh.restore(state)  # not changed by what was run since
    assert run(fresh, LOSSES[10:]) == after
    fresh.reset()
    assert run(fresh, LOSSES) == run(kind(**settings), LOSSES)


@pytest.mark.parametrize("kind", [ConstantScheduler, *READ_STEP])
def test_a_schedule_without_state_restores_none(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__}.*rate"):
        kind().restore({"rate": 1.0})


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ({}, ValueError),
        ({"rate": 0.1}, ValueError),
        ({"rate": 0.1, "losses": [], "more": 1}, ValueError),
        ({"rate": -0.1, "losses": []}, ValueError),
        ({"rate": math.nan, "losses": []}, ValueError),
        ({"rate": 0.1, "losses": [1.0, math.inf]}, ValueError),
        ({"rate": 0.1, "losses": [1.0, "2"]}, TypeError),
        ({"rate": 0.1, "losses": 3}, TypeError),
        ({"rate": 0.1, "losses": [1.0] * 6}, ValueError),
    ],
)
def test_king_restores_nothing_but_its_state(state, error):
    scheduler = KingScheduler(patience=3)
    run(scheduler, LOSSES[:10])
    before = scheduler.state()
    with pytest.raises(error):
        scheduler.restore(state)
    assert scheduler.state() == before
    scheduler.restore({"rate": 0.1, "losses": [1.0] * 5})
    assert scheduler.state() == {"rate": 0.1, "losses": [1.0] * 5}


# King


def falling(count, noise=1.0):
    return [100 - 0.5 * i + RNG.gauss(0, noise) for i in range(count)]


def spiky(count):
    """Falls all the time, but for spikes that grow: one line through all of it rises."""
    return [100 - 0.01 * i + RNG.gauss(0, 0.1) + (5.0 * i if i % 17 == 16 else 0) for i in range(count)]


SERIES = {
    "falling": falling,
    "rising": lambda count: [0.1 * i + RNG.gauss(0, 1) for i in range(count)],
    "rising exactly": lambda count: [float(i) for i in range(count)],
    "plateau": lambda count: [RNG.gauss(0, 1) for _ in range(count)],
    "falling, then plateau": lambda count: falling(count // 2) + [RNG.gauss(0, 1) for _ in range(count - count // 2)],
    "spiky": spiky,
    "ties": lambda count: [float(RNG.randrange(3)) for _ in range(count)],
    "neighbours": lambda count: [1 + 2**-52 * RNG.randrange(4) for _ in range(count)],
    "negative": lambda count: [RNG.gauss(-1e3, 1e-3) for _ in range(count)],
    "1e300": lambda count: [RNG.choice([-1, 1]) * RNG.uniform(0.5, 1.5) * 1e300 for _ in range(count)],
    "1e300, level but for one": lambda count: [1.5e308] + [1e300] * (count - 1),
    "1e-300": lambda count: [RNG.uniform(0.5, 1.5) * 1e-300 for _ in range(count)],
    "all magnitudes": lambda count: [10.0 ** RNG.uniform(-320, 308) for _ in range(count)],
}


@pytest.mark.parametrize("patience", [2, 3, 9, 19, 20, 99, 100])
@pytest.mark.parametrize("series", SERIES)
def test_king_decays_when_the_oracle_does(series, patience):
    losses = SERIES[series](patience + 60)
    scheduler = KingScheduler(initial_lr=0.5, patience=patience, decay=0.9)
    with np.errstate(all="raise"):
        got = run(scheduler, losses)
    assert got[:patience] == [0.5] * patience
    assert got == oracles.king(losses, initial_lr=0.5, patience=patience, decay=0.9)


def test_the_oracle_sees_both_answers_where_it_matters():
    decays = [oracles.king_decays(SERIES["rising"](count), 99) for count in (99, 100, 111, 150)]
    assert decays == [False, False, True, True]  # a window of 100 out of the lower 90 % of 111
    one_line = [oracles.king_falling(spiky(160)[-101:]) < 0.51 for _ in range(5)]
    both = [oracles.king_decays(spiky(160), 100) for _ in range(5)]
    assert (any(one_line), any(both)) == (True, False)


def test_the_defaults_decay_on_a_noisy_rising_loss_by_step_1200():
    losses = [1 + 0.001 * i + RNG.gauss(0, 0.1) for i in range(1201)]
    rates = run(KingScheduler(), losses)
    assert rates[:1001] == [0.01] * 1001
    assert rates[1200] < 0.01
    for step in (1000, 1110, 1111, 1112, 1113, 1160, 1200):
        assert (rates[step] < rates[step - 1]) == oracles.king_decays(losses[: step + 1], 1000), step


@pytest.mark.parametrize("patience", [2, 19, 20, 99, 100])
@pytest.mark.parametrize("loss", [0.0, 0.1, -7.3, 1e300, -1.7e308, 5e-324])
def test_a_constant_loss_decays_every_step(loss, patience):
    rates = run(KingScheduler(1.0, patience, 0.5), [loss] * (patience + 20))
    assert rates == [1.0] * patience + [0.5**k for k in range(1, 21)]


def test_a_loss_that_falls_keeps_the_rate():
    scheduler = KingScheduler(patience=20)
    assert set(run(scheduler, [1.0 / (1 + i) for i in range(200)])) == {0.01}


@pytest.mark.parametrize("patience", [2, 3, 8, 9, 10, 19, 20, 99, 100])
def test_king_keeps_no_more_than_it_needs(patience):
    scheduler = KingScheduler(patience=patience)
    run(scheduler, [float(i) for i in range(3 * patience)])
    longest = oracles.king_history(patience)
    assert longest <= 10 * patience / 9 + 2
    assert history(scheduler) == [float(i) for i in range(3 * patience)][-longest:]


@pytest.mark.parametrize(
    "loss",
    [
        None,
        math.nan,
        math.inf,
        -math.inf,
        "1.0",
        b"1",
        [1.0],
        {},
        1j,
        object(),
        np.zeros(2),
        np.float32("nan"),
        10**400,
    ],
)
@pytest.mark.parametrize("call", [KingScheduler.__call__, KingScheduler.learning_rate])
def test_king_needs_a_finite_loss(loss, call):
    scheduler = KingScheduler(patience=3)
    run(scheduler, LOSSES[:10])
    before = scheduler.state()
    with pytest.raises(ValueError, match="KingScheduler needs a finite cur_loss"):
        call(scheduler, 10, loss)
    assert scheduler.state() == before


@pytest.mark.parametrize("loss", [2, np.float32(2), np.float64(2), np.int64(2), np.array(2.0), np.float16(2)])
def test_king_takes_every_kind_of_number(loss):
    scheduler = KingScheduler()
    scheduler(0, loss)
    assert history(scheduler) == [2.0]
    assert type(history(scheduler)[0]) is float


def test_a_state_that_was_taken_is_the_takers():
    scheduler = KingScheduler()
    run(scheduler, LOSSES)
    taken = scheduler.state()
    taken["losses"].clear()
    assert history(scheduler) == LOSSES
    scheduler.restore(taken)
    taken["losses"].append(1.0)
    assert history(scheduler) == []


def test_king_starts_over_with_a_new_initial_rate_only():
    scheduler = KingScheduler(1.0, patience=10, decay=0.5)
    run(scheduler, [float(i) for i in range(30)])
    rate, losses = scheduler.state().values()
    assert (rate < 1.0, len(losses)) == (True, 13)
    scheduler.set_params({"decay": 0.25})
    assert scheduler.state() == {"rate": rate, "losses": losses}
    assert scheduler(0, 30.0) == rate * 0.25
    scheduler.set_params({"patience": 5})
    assert history(scheduler) == [float(i) for i in range(24, 31)]
    scheduler.set_params({"patience": 50})
    assert history(scheduler) == [float(i) for i in range(24, 31)]
    scheduler.set_params({"initial_lr": 2.0, "decay": 0.5})
    assert scheduler.state() == {"rate": 2.0, "losses": []}


# Schedules of the user's own


def test_a_schedule_of_ones_own_has_everything():
    scheduler = Cosine(lr=np.float32(0.5), steps=np.int64(10))
    assert str(scheduler) == "Cosine(lr=0.5, steps=10, restart=False)"
    assert [scheduler(step) for step in (0, 10, 15)] == [0.5, 0.0, 0.0]
    assert str(make_scheduler(str(scheduler))) == str(make_scheduler(scheduler.hyperparameters)) == str(scheduler)
    assert make_scheduler("cosine(restart=True)", lr=0.25).hyperparameters == {
        "id": "Cosine", "lr": 0.25, "steps": 1000, "restart": True,
    }  # fmt: skip
    assert scheduler.copy()(5) == scheduler(np.int32(5))
    with pytest.raises(TypeError, match="Cosine: step=None"):
        scheduler()
    with pytest.raises(ValueError, match="Cosine: steps=0"):
        scheduler.set_params({"steps": 0})


@pytest.mark.parametrize("rate", [1, np.float64(1), np.float32(1), np.int64(1)])
def test_a_rate_of_ones_own_becomes_a_float(rate):
    got = Fails(rate)(0, 1.0)
    assert type(got) is float
    assert got == 1.0


@pytest.mark.parametrize(
    ("rate", "error"),
    [
        (-1e-9, ValueError), (math.nan, ValueError), (math.inf, ValueError), (np.float64("nan"), ValueError),
        (10**400, ValueError), (None, TypeError), ("1", TypeError), (1j, TypeError), (True, TypeError),
        (OverflowError("too much"), ValueError), (ZeroDivisionError("by 0"), ValueError),
    ],
)  # fmt: skip
def test_no_rate_is_an_error_that_names_scheduler_and_step(rate, error):
    scheduler = Fails(0.5)
    scheduler(0, 1.0)
    scheduler.result = rate
    with pytest.raises(error, match=r"Fails\(\).* at step 41"):
        scheduler(41, 1.0)
    assert scheduler.state() == {"calls": 1}


@pytest.mark.parametrize("raised", [RuntimeError("mine"), KeyboardInterrupt()])
def test_an_error_in_a_formula_passes_with_a_note_and_without_a_trace(raised):
    scheduler = Fails(raised)
    with pytest.raises(type(raised)) as caught:
        scheduler(41, 1.0)
    assert caught.value is raised
    assert raised.__notes__[-1] == "in Fails() at step 41"
    assert scheduler.state() == {"calls": 0}


def test_a_declaration_must_fit_the_keywords():
    class Careless(SchedulerBase):
        ranges = {"lr": NON_NEGATIVE}

        def __init__(self, rate=0.1):
            super().__init__(rate=rate)

        def learning_rate(self, step, cur_loss=None):
            return 0.0

    with pytest.raises(TypeError, match=r"Careless: got the keywords \(rate\), `ranges` declares \(lr\)"):
        Careless()


def test_the_base_is_no_schedule():
    with pytest.raises(TypeError, match="abstract"):
        SchedulerBase()
    with pytest.raises(ValueError, match="unknown scheduler"):
        make_scheduler("SchedulerBase")


# From text and dicts, and back


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_str_parses_back(kind, data):
    values = data.draw(st.fixed_dictionaries({}, optional=TABLE[kind].values))
    scheduler = kind(**values)
    values = scheduler.hyperparameters
    for spec in (str(scheduler), f" {scheduler}\n", values, {"hyperparameters": values}):
        again = make_scheduler(spec, lr=123.0)
        assert type(again) is kind
        assert str(again) == str(scheduler)
        assert again.hyperparameters == values


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("write", [str, str.lower, str.upper, str.swapcase])
def test_names_in_any_case_with_or_without_scheduler(kind, write):
    name = write(kind.__name__)
    for spec in (name, name[:-9], f"{name[:-9]}()", Call(name), {"id": name}, {"hyperparameters": {"id": name[:-9]}}):
        assert str(make_scheduler(spec)) == TABLE[kind].default


@pytest.mark.parametrize("kind", KINDS)
def test_lr_is_the_starting_rate_where_none_is_stated(kind):
    name = kind.rate_name
    want = kind(**{name: 0.75}) if name else kind()
    assert str(make_scheduler(kind.__name__, lr=0.75)) == str(want)
    assert str(make_scheduler({"id": kind.__name__}, lr=np.float64(0.75))) == str(want)
    assert str(SchedulerInitializer(kind.__name__, lr=0.75)()) == str(want)
    if name:
        stated = str(kind(**{name: 0.5}))
        assert str(make_scheduler(stated, lr=0.75)) == stated
        assert str(make_scheduler({"id": kind.__name__, name: 0.5}, 0.75)) == stated


def test_none_is_constant_and_an_object_passes_through():
    assert str(make_scheduler()) == str(SchedulerInitializer()()) == "ConstantScheduler(lr=0.01)"
    assert str(make_scheduler(None, 0.3)) == str(SchedulerInitializer(lr=0.3)()) == "ConstantScheduler(lr=0.3)"
    scheduler = KingScheduler()
    assert make_scheduler(scheduler, lr=0.3) is SchedulerInitializer(scheduler, 0.3)() is scheduler
    assert scheduler.initial_lr == 0.01


def test_a_spec_is_not_changed():
    spec = {"hyperparameters": {"id": "King", "patience": 5}, "cache": {}}
    kept = copy.deepcopy(spec)
    assert str(make_scheduler(spec, lr=1)) == "KingScheduler(initial_lr=1.0, patience=5, decay=0.99)"
    assert spec == kept


@pytest.mark.parametrize("spec", [3, 0.1, NoamScheduler, b"noam", ["noam"], True])
def test_what_describes_no_scheduler_is_a_type_error(spec):
    with pytest.raises(TypeError, match="is not a scheduler; wanted None, a scheduler object"):
        make_scheduler(spec)


@pytest.mark.parametrize(
    ("spec", "way_out"),
    [
        (0.1, "for a constant rate, lr=0.1"),
        (NoamScheduler, "call it, NoamScheduler()"),
        (lambda step: 0.1 / step, "derive a schedule of your own from SchedulerBase"),
    ],
    ids=["rate", "class", "function"],
)
def test_what_people_take_for_a_scheduler_gets_the_way_out(spec, way_out):
    with pytest.raises(TypeError) as caught:
        make_scheduler(spec)
    assert str(caught.value).endswith(way_out)


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("Exponential(gamma=0.9)", "'decay'"),
        ("Exponential(step_size=30)", "'stage_length'"),
        ("Exponential(decay_steps=30)", "'stage_length'"),
        ("King(factor=0.9)", "'decay'"),
        ("King(lr=0.9)", "'initial_lr'"),
        ("Constant(base_lr=0.9)", "'lr'"),
        ("Noam(factor=2)", "'scale_factor'"),
        ("Noam(d_model=64)", "'model_dim'"),
        ("Noam(num_warmup_steps=64)", "'warmup_steps'"),
        ("StepLR", "'ExponentialScheduler'"),
        ("ReduceLROnPlateau", "'KingScheduler'"),
    ],
)
def test_words_of_other_libraries_are_told_by_their_meaning(spec, meant):
    with pytest.raises(ValueError) as caught:
        make_scheduler(spec)
    first = str(caught.value).split("\n")[0]
    assert first.partition("; ")[2] == f"did you mean {meant}?"
    kind, _, keyword = spec.rstrip(")").partition("(")
    if keyword:
        with pytest.raises(KeyError) as caught:
            make_scheduler(kind).set_params({keyword.partition("=")[0]: 1})
        assert f"; did you mean {meant}?" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "keyword", "end"),
    [
        (ExponentialScheduler, "gamma", "did you mean 'decay'?"),
        (ExponentialScheduler, "step_size", "did you mean 'stage_length'?"),
        (NoamScheduler, "d_model", "did you mean 'model_dim'?"),
        (KingScheduler, "patince", "did you mean 'patience'? Known: initial_lr, patience, decay"),
        (KingScheduler, "zzz", "known: initial_lr, patience, decay"),
        (Cosine, "learning_rate", "did you mean 'lr'?"),
        (Cosine, "T_max", "known: lr, steps, restart"),
    ],
)
def test_an_unknown_keyword_of_a_class_is_told_by_its_meaning(kind, keyword, end):
    with pytest.raises(TypeError) as caught:
        kind(**{keyword: 1})
    assert str(caught.value) == f"{kind.__name__} takes no keyword {keyword!r}; {end}"


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimizer_in_the_place_of_the_rate(kind):
    for call in (lambda: kind(SGD()), lambda: kind(SGD(), 3), lambda: kind(SGD(), gamma=0.9)):
        with pytest.raises(TypeError, match=rf"^{kind.__name__}: \w+, the first argument, is a SGD; wanted a number"):
            call()


class Watching(SchedulerBase):
    """Takes whatever it watches; no declared value comes first."""

    def __init__(self, watched, **more):
        super().__init__()
        self.watched, self.step, self.more = watched, 0.5, more

    def learning_rate(self, step, cur_loss=None):
        return self.step


def test_a_schedule_of_ones_own_may_take_and_have_what_it_likes():
    opt = SGD()
    scheduler = Watching(opt, gamma=3)
    assert scheduler.watched is opt
    assert scheduler.more == {"gamma": 3}
    assert scheduler(1) == scheduler.copy()(1) == 0.5
    assert "step" in dir(scheduler)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("step", "opt.step()"),
        ("get_last_lr", "scheduler(step)"),
        ("get_lr", "scheduler(step)"),
        ("state_dict", "state()"),
        ("load_state_dict", "restore(state)"),
    ],
)
def test_what_schedules_elsewhere_have_is_not_there(name, words):
    for scheduler in (KingScheduler(), Cosine()):
        with pytest.raises(AttributeError) as caught:
            getattr(scheduler, name)
        assert str(caught.value).startswith(f"{type(scheduler).__name__} has no attribute {name!r}: ")
        assert words in str(caught.value)
        assert not hasattr(scheduler, name)
        assert name not in dir(scheduler)
        assert {"state", "restore", "learning_rate", "ranges"} <= set(dir(scheduler))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("CosineAnnealingLR(T_max=3)", "no such scheduler here: derive it from SchedulerBase"),
        ("linear", "no such scheduler here: derive it from SchedulerBase"),
        ("Exponential(optimizer=None)", "pass it to one, SGD"),
        ("Noam(last_epoch=3)", "set its cur_step"),
        ("King(min_lr=0.1)", "no lower bound"),
    ],
)
def test_what_is_not_here_is_said(spec, words):
    with pytest.raises(ValueError, match=words) as caught:
        make_scheduler(spec)
    assert "did you mean" not in str(caught.value)
    assert "Known: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("exponentail", 0, "unknown scheduler 'exponentail'; did you mean 'ExponentialScheduler'?"),
        ("Sgd(lr=1)", 0, "known: .*ConstantScheduler.*ExponentialScheduler.*KingScheduler.*NoamScheduler"),
        ("Noam(model_dim=512, warmup=40)", 20, "no keyword 'warmup'; did you mean 'warmup_steps'?"),
        ("Exponential(learning_rate=1)", 12, "'learning_rate'; did you mean 'initial_lr'?"),
        ("Constant(learning_rate=1)", 9, "'learning_rate'; did you mean 'lr'?"),
        ("King(patience=3, patience=4)", 17, "'patience' is given twice"),
        ("King(0.1)", 5, "without its keyword"),
        ("King(patience=__import__('os').getpid())", 14, "not a name"),
        ("King(patience=2+2)", 14, "not a literal"),
    ],
)
def test_errors_in_text_point_at_the_place(text, column, words):
    with pytest.raises(ValueError, match=words) as caught:
        make_scheduler(text)
    _, shown, caret = str(caught.value).split("\n")
    assert (shown, caret) == (f"    {text}", f"    {' ' * column}^")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"id": "Nope"}, "unknown scheduler 'Nope'"),
        ({"id": "King", "patince": 3}, "KingScheduler has no keyword 'patince'; did you mean 'patience'?"),
        ({"hyperparameters": {"id": "King"}, "cache": {"W": 1}}, "KingScheduler has no cache.*'W'.*leave it out"),
    ],
)
def test_errors_in_dicts_name_the_key(spec, words):
    with pytest.raises(ValueError, match=words):
        make_scheduler(spec)
