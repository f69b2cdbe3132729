"""Schedules as values: their numbers, what is made of them, and their text."""

import math
import pickle
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from _kit.schedule_peers import LR, PEERS, STEPS
from hypothesis import given
from hypothesis import strategies as st

import xpopt
from xpopt import schedulers
from xpopt._names import NAMES
from xpopt.schedulers import (
    Schedule,
    constant,
    cosine,
    cosine_restarts,
    cyclic,
    epochs,
    exponential,
    function,
    inverse_time,
    linear,
    make_schedule,
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

KINDS = {name: getattr(schedulers, name) for name in NAMES["Schedules as values"] if name not in ("Schedule", "epochs")}
noise = random.Random(5)
LOSSES = [3 * 0.98**k + 0.3 + 0.1 * noise.random() for k in range(STEPS)]


def made(source):
    return eval(source, dict(KINDS))


# Beside other libraries


@pytest.mark.backends("torch")
@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.library == "torch"], ids=str)
def test_torch_has_the_same_numbers(peer):
    torch = pytest.importorskip("torch")
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = eval(peer.theirs, {"opt": opt, **vars(torch.optim.lr_scheduler)})
    opt.step()  # or there is a warning
    reads_loss = "Plateau" in peer.theirs
    want = []
    for loss in LOSSES:
        if reads_loss:
            scheduler.step(loss)
        want.append(opt.param_groups[0]["lr"])
        if not reads_loss and len(want) < STEPS:
            scheduler.step()
    ours = made(peer.ours)
    np.testing.assert_allclose(ours.values(STEPS, LOSSES if reads_loss else None), want, rtol=0, atol=1e-12)


@pytest.mark.backends("jax-x64")
@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.library == "optax"], ids=str)
def test_optax_has_the_same_numbers(backend, peer):
    optax, jax = pytest.importorskip("optax"), pytest.importorskip("jax")
    schedule = eval(peer.theirs, dict(vars(optax)))
    want = jax.vmap(lambda step: jax.numpy.asarray(schedule(step)))(jax.numpy.arange(STEPS))
    np.testing.assert_allclose(made(peer.ours).values(STEPS), want, rtol=0, atol=1e-12)


def test_peers_are_all_of_both():
    assert len({str(peer) for peer in PEERS if peer.library == "torch"}) == 15
    assert len({str(peer) for peer in PEERS if peer.library == "optax"}) == 14


# By their formulas


def of_wsd(curve):
    decay = {
        "linear": lambda u: 1 - u,
        "root": lambda u: 1 - u**0.5,
        "cosine": lambda u: math.cos(math.pi * u / 2) ** 2,
    }
    return lambda t: (t + 1) / 4 if t < 3 else 1.0 if t < 5 else 0.5 + 0.5 * decay[curve](min((t - 5) / 4, 1))


FORMULAS = [
    (warmup(steps=4), lambda t: min((t + 1) / 5, 1)),
    (inverse_time(2.0, 0.25), lambda t: 2 / (1 + t / 4)),
    (inverse_time(2.0, 3.0, power=0.5), lambda t: 2 / math.sqrt(1 + 3 * t)),
    *((wsd(1.0, warmup=3, stable=2, decay=4, stop=0.5, curve=c), of_wsd(c)) for c in ("linear", "root", "cosine")),
    (one_cycle(1.0, rise=2, fall=2, start=0.0, stop=0.0, curve="linear"), lambda t: max(0, 1 - abs(t - 2) / 2)),
    (cosine_restarts(1.0, 0.0, period=3, shrink=0.5), lambda t: 0.5 ** (t // 3) * math.cos(math.pi * (t % 3) / 6) ** 2),
    (exponential(1.0, 2.0, stop=3.0), lambda t: min(2.0**t, 3.0)),
    (exponential(-1.0, 0.5, stop=-0.25), lambda t: max(-1, min(-(0.5**t), -0.25))),
    (linear(1.0, 0.0, steps=2) >> constant(2.0, steps=2) >> 3.0, lambda t: [1, 0.5, 2, 2, 3][min(t, 4)]),
    (2 * linear(1.0, 0.0, steps=2) + 1, lambda t: 1 + max(2 - t, 0)),
    (1 + linear(1.0, 0.0, steps=2) * 2, lambda t: 1 + max(2 - t, 0)),
    (maximum(linear(1.0, 0.0, steps=4), 0.4), lambda t: max(1 - t / 4, 0.4)),
    (repeat(linear(1.0, 0.0, steps=2) >> constant(5.0, steps=1)), lambda t: [1, 0.5, 5][t % 3]),
    (repeat(linear(1.0, 0.0, steps=2), times=2), lambda t: [1, 0.5, 1, 0.5, 0][min(t, 4)]),
    (warmup(steps=2) * (lambda t: 3.0 * t), lambda t: min((t + 1) / 3, 1) * 3 * t),
    ((lambda t: 3.0 * t) + warmup(steps=2), lambda t: min((t + 1) / 3, 1) + 3 * t),
    (np.float64(2) * warmup(steps=2), lambda t: 2 * min((t + 1) / 3, 1)),
    (constant(1.0, steps=2) >> xpopt.ExponentialScheduler(1.0, 1, decay=0.5), lambda t: 0.5 ** max(t - 2, 0)),
    (xpopt.ExponentialScheduler(1.0, 1, decay=0.5) * 2, lambda t: 2 * 0.5**t),
    (2 + xpopt.NoamScheduler(1, 1, 4), lambda t: 2 + min(max(t, 1) ** -0.5, max(t, 1) / 8)),
]


@pytest.mark.parametrize(("schedule", "formula"), FORMULAS, ids=lambda x: str(x) if isinstance(x, Schedule) else "")
def test_numbers_are_those_of_the_formula(schedule, formula):
    want = [formula(t) for t in range(14)]
    np.testing.assert_allclose(schedule.values(14), want, rtol=1e-14, atol=1e-16)
    assert [schedule(t) for t in (9, 2, 0)] == list(schedule.values([9, 2, 0]))
    assert schedule.values(14).dtype == np.float64


FAR = [1.0, 1.7e308, -1.7e308, 1e-300]


@pytest.mark.parametrize("start", FAR)
@pytest.mark.parametrize("stop", [1e-17, 0.01, 1.7e308, -1e-20])
@pytest.mark.parametrize("steps", [1, 4, 10])
def test_the_ends_have_no_rounding(start, stop, steps):
    for schedule in (
        linear(start, stop, steps),
        polynomial(start, stop, steps, power=2.0),
        cosine(start, stop, steps=steps, power=0.5),
        repeat(linear(start, stop, steps), times=1),
    ):
        assert [schedule(t) for t in (0, steps, 10**9)] == [start, stop, stop], schedule
    for curve in ("linear", "cosine"):
        cycle = one_cycle(stop, rise=steps, fall=1, start=start, stop=0.0, curve=curve)
        assert [cycle(t) for t in (0, steps, steps + 1)] == [start, stop, 0.0]
        down = wsd(start, stable=2, decay=steps, stop=stop, curve=curve)
        assert [down(t) for t in (0, 2, steps + 2)] == [start, start, stop]
    again = cosine_restarts(start, stop, period=steps)
    assert [again(t) for t in (0, steps, 5 * steps)] == [start] * 3
    waves = cyclic(start, stop, rise=steps)
    assert [waves(t) for t in (0, steps, 2 * steps)] == [start, stop, start]


@pytest.mark.parametrize(
    ("schedule", "far"),
    [
        (exponential(1e-3, 1.1, stop=0.1), 0.1),
        (exponential(-1e-3, 1.1, stop=-0.1), -0.1),
        (exponential(0.0, 2.0), 0.0),
        (exponential(1.0, 0.5), 0.0),
        (inverse_time(1.0, 1.0, power=100.0), 0.0),
        (cyclic(0.0, 1.0, rise=2, factor=2.0), 0.0),
    ],
    ids=str,
)
def test_a_power_that_no_float_holds_stops_nothing(schedule, far):
    assert schedule(10**6) == far


def test_a_rate_that_has_grown_to_where_it_stays_goes_on():
    opt = xpopt.SGD(lr=exponential(1e-3, 1.1, stop=0.125))
    opt.cur_step = 10**6
    assert opt.update_all([np.ones(1)], [np.ones(1)])[0] == [0.875]


@pytest.mark.parametrize(
    "schedule",
    [
        exponential(1.0, 2.0),
        staircase(1.0, 2.0, every=1),
        multi_step(1.0, 1e300, boundaries=(1, 2)),
        cosine_restarts(period=1, shrink=2.0),
        cyclic(0.0, 1.0, rise=2, factor=2.0),
    ],
    ids=str,
)
def test_what_is_beyond_floats_is_told(schedule):
    with pytest.raises(ValueError, match="at step 10001: value=inf is out of range; wanted a finite number"):
        schedule(10001)


def test_of_a_loss_that_falls_and_stays():
    """By hand: the best loss, and how many have come since."""
    losses = [5.0, 4.0, 4.0, 4.0, 3.99999, 3.0, 3.0, 3.0, 3.0]
    want = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert list(plateau(1.0, 0.5, patience=1, cooldown=1).values(9, losses)) == want
    rising = [-loss for loss in losses]
    assert list(plateau(1.0, 0.5, patience=1, cooldown=1, maximize=True).values(9, rising)) == want
    assert list(plateau(1.0, 0.5, patience=0, stop=0.4).values(3, [1.0, 1.0, 1.0])) == [1.0, 0.5, 0.4]
    king = xpopt.KingScheduler(0.1, patience=4, decay=0.5)
    late = constant(0.3, steps=2) >> king
    fallen = [5, 4, 3, 2, 1, 1, 1, 1, 1, 1, 1]
    assert list(late.values(13, [9, 9, *fallen])) == [0.3, 0.3, *(king(cur_loss=loss) for loss in fallen)]
    with pytest.raises(ValueError, match="reads the loss of each step; give 3 losses"):
        late.values(3)
    with pytest.raises(TypeError, match="depends on earlier steps, not only on the step; call values"):
        late(3)
    with pytest.raises(ValueError, match="plateau needs a finite cur_loss; got nan"):
        plateau(1.0).values(1, [math.nan])


# What the state is


STATEFUL = [
    plateau(1.0, 0.5, patience=1),
    warmup(steps=3) * 0.5 >> plateau(0.5, 0.5, patience=1),
    plateau(1.0, 0.5, patience=1) * linear(1.0, 0.1, steps=9) + xpopt.KingScheduler(1.0, patience=3, decay=0.5),
    maximum(plateau(1.0, 0.5, patience=0), 0.2),
]


@pytest.mark.parametrize("schedule", STATEFUL, ids=str)
def test_it_goes_on_from_what_it_remembers(schedule):
    losses = LOSSES[:4] + [1.0] * 10
    want = schedule.values(14, losses)
    state, twin, kept = schedule.begin(), make_schedule(repr(schedule)), []
    assert twin == schedule
    for step, loss in enumerate(losses):
        value, new = schedule.draw(step, loss, state)
        again, _ = twin.draw(step, loss, twin.restored(state))
        assert value == again == want[step]
        state = new
        assert schedule.seen(step, state) == value
        kept.append((state, pickle.dumps(state)))
    assert all(pickle.dumps(state) == before for state, before in kept)  # nothing is changed in place
    for bad in ([], {}, {"value": 1.0}, 3, [None], "x"):
        with pytest.raises((TypeError, ValueError), match="state"):
            schedule.restored(bad)


def test_others_remember_nothing():
    for schedule, _ in FORMULAS:
        assert schedule.begin() is None
        with pytest.raises(ValueError, match="keeps no state; got"):
            schedule.restored({"value": 1.0})


# Text

NUMBERS = st.floats(-1e6, 1e6)
STEPS_ = st.integers(1, 40)
BOUNDARIES = st.lists(STEPS_, min_size=1, max_size=3, unique=True).map(lambda x: tuple(sorted(x)))
ENDING = st.one_of(
    st.builds(linear, NUMBERS, NUMBERS, steps=STEPS_),
    st.builds(polynomial, NUMBERS, NUMBERS, STEPS_, st.floats(0.1, 5)),
    st.builds(warmup, STEPS_),
    st.builds(cosine, NUMBERS, NUMBERS, steps=STEPS_, power=st.floats(0.1, 5)),
    st.builds(constant, NUMBERS, steps=STEPS_),
    st.builds(multi_step, NUMBERS, st.floats(0.1, 2), boundaries=BOUNDARIES),
    BOUNDARIES.map(lambda at: piecewise(tuple(range(len(at) + 1)), at)),
    st.builds(one_cycle, NUMBERS, rise=st.floats(0.5, 9), fall=STEPS_, curve=st.sampled_from(["cosine", "linear"])),
    st.builds(wsd, NUMBERS, warmup=STEPS_, stable=STEPS_, decay=STEPS_),
)
WITHOUT_END = st.one_of(
    st.builds(constant, NUMBERS),
    st.builds(exponential, NUMBERS, st.floats(0.5, 1), every=STEPS_),
    st.builds(staircase, NUMBERS, st.floats(0.5, 1), every=STEPS_),
    st.builds(inverse_time, NUMBERS, st.floats(0, 1)),
    st.builds(cyclic, NUMBERS, NUMBERS, rise=STEPS_),
    st.builds(cosine_restarts, NUMBERS, NUMBERS, period=STEPS_, stretch=st.integers(1, 3)),
    st.builds(lambda every: xpopt.ExponentialScheduler(0.1, every) * 1.0, STEPS_),
)


def grown(inner):
    return st.one_of(
        st.builds(lambda a, b: a >> b, ENDING, inner),
        st.builds(lambda a, b, c: (a >> b) >> c, ENDING, ENDING, inner),
        st.builds(lambda a, b: a * b, inner, inner),
        st.builds(lambda a, b: a + b, inner, inner),
        st.builds(lambda a, b: b * a + b, inner, NUMBERS),
        st.builds(maximum, inner, inner),
        st.builds(repeat, ENDING, st.none() | st.integers(1, 3)),
    )


@given(st.recursive(ENDING | WITHOUT_END, grown, max_leaves=6))
def test_text_makes_an_equal_one(schedule):
    twin = make_schedule(repr(schedule))
    assert twin == schedule
    assert hash(twin) == hash(schedule)
    assert repr(twin) == repr(schedule)
    steps = [0, 1, 3, 17, 100]
    assert [twin.seen(t, None) for t in steps] == [schedule.seen(t, None) for t in steps]


def test_text_leaves_out_what_need_not_be_said():
    assert str(warmup(steps=100) * 1e-3 >> cosine(1e-3, 0, steps=900) >> 1e-5) == (
        "warmup(steps=100) * 0.001 >> cosine(start=0.001, stop=0.0, steps=900) >> 1e-05"
    )
    assert str(plateau(1.0)) == "plateau(start=1.0, factor=0.1)"
    assert str(warmup(steps=2) * (warmup(steps=3) + 1)) == "warmup(steps=2) * (warmup(steps=3) + 1.0)"
    assert make_schedule({"id": "linear", "start": 1, "stop": 0, "steps": 3}) == linear(1, 0, steps=3)
    assert make_schedule(0.5) == constant(0.5)


def test_a_long_row_is_not_deep_and_a_deep_one_is_refused():
    row = sum((warmup(steps=2) for _ in range(299)), warmup(steps=1))
    assert row(2) == 300
    assert make_schedule(repr(row)) == row
    deep = warmup(steps=1)
    for _ in range(99):
        deep = maximum(deep, 0.0)
    with pytest.raises(ValueError, match="nested too deeply, more than 100"):
        maximum(deep, 0.0)
    with pytest.raises(ValueError, match="nested too deeply"):
        make_schedule("repeat(schedule=" * 100 + "warmup(steps=3)" + ")" * 100)
    with pytest.raises(ValueError, match="more than 10000"):
        make_schedule(" + ".join(["warmup(steps=1)"] * 1000))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: constant(1.0) >> 2.0, ValueError, r"constant\(value=1.0\) has no end, after which .* give it steps="),
        (lambda: exponential(1.0, 0.5) >> 2.0, ValueError, "has no end, after which"),
        (lambda: repeat(constant(1.0)), ValueError, r"repeat: constant\(value=1.0\) has no end"),
        (lambda: linear(1, 0, steps=-3), ValueError, "linear: steps=-3 is out of range; wanted an int in"),
        (lambda: linear(1, 0, steps=0), ValueError, "linear: steps=0 is out of range"),
        (lambda: linear(1, math.nan, steps=3), ValueError, "linear: stop=nan is out of range; wanted a finite number"),
        (lambda: piecewise((1.0, 2.0), (3, 4)), ValueError, "2 levels and 2 boundaries; wanted one level more"),
        (lambda: multi_step(1.0, boundaries=(4, 3)), ValueError, "wanted steps in rising order"),
        (lambda: cosine(T_max=3), TypeError, "cosine takes no keyword 'T_max'; did you mean 'steps'"),
        (lambda: maximum(linear, 0.0), TypeError, r"maximum: first: .* call it, linear\(...\)"),
        (lambda: warmup(steps=2) * "x", TypeError, "unsupported operand|can't multiply"),
        (lambda: warmup(steps=2) * True, TypeError, "unsupported operand"),
        (lambda: warmup(steps=2)(-1), ValueError, "warmup: step=-1 is out of range"),
        (lambda: warmup(steps=2)(1.0), TypeError, "warmup: step=1.0 is a float"),
        (lambda: function(lambda t: math.inf)(3), ValueError, r"lambda>'\) at step 3: value=inf is out of range"),
        (lambda: function(3), TypeError, "function: call=3 is a int; wanted a function of the step"),
        (
            lambda: make_schedule(repr(function(len))),
            ValueError,
            "is text that stands for a function, which cannot be read back",
        ),
        (lambda: make_schedule("wormup(steps=3)"), ValueError, r"unknown schedule 'wormup'; did you mean 'warmup'"),
        (lambda: make_schedule("warmup(step=3)"), ValueError, "warmup has no keyword 'step'; did you mean 'steps'"),
        (lambda: make_schedule("warmup(3)"), ValueError, "a value without its keyword"),
        (lambda: make_schedule("warmup(steps=3) - 1"), ValueError, "not a literal, and nothing is computed here"),
        (lambda: make_schedule("warmup(steps=1 + 2)"), ValueError, "not a literal, and nothing is computed here"),
        (lambda: make_schedule("2 * 3"), ValueError, "not a literal, and nothing is computed here"),
        (lambda: make_schedule("__import__('os').system('x') >> 1"), ValueError, "wanted Name"),
        (lambda: make_schedule(object()), TypeError, "is not a schedule; wanted a schedule, a number, or a function"),
        (lambda: setattr(warmup(steps=2), "steps", 3), AttributeError, r"it is a value; make another one"),
        (lambda: exponential(1.0, 0.5, stop=2.0), ValueError, "exponential: stop=2.0 is not reached .* at most 1.0"),
        (lambda: exponential(1.0, 1.5, stop=0.5), ValueError, "exponential: stop=0.5 is not reached .* at least 1.0"),
        (lambda: exponential(-1.0, 0.5, stop=-2.0), ValueError, "does not fall with factor=0.5; wanted at least -1.0"),
        (lambda: plateau(0.01, 0.5, stop=0.1), ValueError, "plateau: stop=0.1 is not reached .* at most 0.01"),
        (lambda: plateau(-0.01, 0.5, stop=-0.1), ValueError, "plateau: stop=-0.1 is not reached .* at least -0.01"),
        (lambda: epochs(1e308, steps_per_epoch=100), ValueError, r"epochs: n \* steps_per_epoch=inf is out of range"),
        (lambda: warmup(steps=2).values(3.0), TypeError, "warmup: steps=3.0 is a float"),
        (lambda: warmup(steps=2).values(True), TypeError, "warmup: steps=True is a bool"),
        (
            lambda: xpopt.SGD(lr=type("bare", (Schedule,), {})()),
            NotImplementedError,
            r"bare has no formula; .* at\(step",
        ),
        (lambda: epochs(2, steps_per_epoch=0), ValueError, "epochs: steps_per_epoch=0 is out of range"),
    ],
)
def test_what_cannot_be_is_told(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_epochs():
    assert epochs(3, steps_per_epoch=7) == 21
    assert epochs(0.5, steps_per_epoch=7) == 4
    assert epochs(0.01, steps_per_epoch=7) == 1


def test_the_plot_draws_the_values(monkeypatch):
    lines = []
    axes = SimpleNamespace(plot=lines.append, set=lambda **names: lines.append(names))
    monkeypatch.setitem(sys.modules, "matplotlib", SimpleNamespace(pyplot=SimpleNamespace(gca=lambda: axes)))
    assert constant(0.5).plot() is axes
    assert list(lines[0]) == [0.5] * 1000
    lines.clear()
    assert linear(1.0, 0.0, steps=4).plot(axes=axes) is axes
    assert list(lines[0]) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert lines[1] == {"xlabel": "step"}
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"plot needs matplotlib: pip install 'xpopt\[plot\]'"):
        constant(0.5).plot()
    plateau(1.0, 0.5, patience=0).plot(3, [1.0, 1.0, 1.0], axes)
    assert list(lines[2]) == [1.0, 0.5, 0.25]


class Halved(Schedule):
    start: float = xpopt.setting(default=1.0)

    def at(self, step):
        return self.start / (step + 1)


def test_one_of_ones_own():
    schedule = warmup(steps=1) >> Halved(4.0)
    assert repr(schedule) == "warmup(steps=1) >> Halved(start=4.0)"
    assert make_schedule(repr(schedule)) == schedule
    assert list(schedule.values(3)) == [0.5, 4.0, 2.0]
