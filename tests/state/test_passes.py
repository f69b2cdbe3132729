"""One call of the schedule for each pass over the parameters; when a pass begins; and the two warnings."""

import math
import sys
import warnings

import pytest
from _kit.rows import rows
from _kit.states import (
    KING,
    RISING,
    CountingScheduler,
    LossScheduler,
    equal,
    every_optimizer,
    frozen,
    model,
    nothing_changes,
    outlook,
    train,
)

from xpopt import SGD, Adam, ExponentialScheduler, NoamScheduler
from xpopt.schedulers import SchedulerBase

pytestmark = pytest.mark.any_immutable

HALVING = "ExponentialScheduler(initial_lr=1.0, stage_length=1, decay=0.5)"


class Driver:
    """Reads off the rate of each update: with parameter 0 and gradient -1, SGD returns the rate itself."""

    def __init__(self, backend, scheduler, **kwargs):
        self.backend = backend
        self.opt = SGD(lr_scheduler=scheduler, **kwargs)

    def rate(self, name, loss=None, step=False):
        x = self.opt.update(self.backend.array([0.0]), self.backend.array([-1.0]), name, loss)
        if step:
            self.opt.step()
        return float(self.backend.numpy(x)[0])

    def whole(self, *names, loss=None):
        x = self.opt.update_all(
            dict.fromkeys(names, self.backend.array([0.0])), dict.fromkeys(names, self.backend.array([-1.0])), loss
        )
        return [float(self.backend.numpy(value)[0]) for value in x.values()]

    @property
    def losses(self):
        return self.opt.lr_scheduler.state()["losses"]


@pytest.fixture
def drive(backend):
    return lambda scheduler, **kwargs: Driver(backend, scheduler, **kwargs)


def test_one_call_for_all_parameters_of_a_pass(drive):
    d = drive(CountingScheduler())
    for step in range(4):
        assert {d.rate(name) for name in "abcde"} == {2.0 ** -(step + 1)}
        d.opt.step()
    assert len(d.losses) == 4


def test_the_first_loss_of_a_pass_counts(drive):
    d = drive(LossScheduler())
    for first in (1.0, 2.0):
        d.rate("a", first)
        d.rate("b", 77.0)
        d.rate("c")
        d.opt.step()
    assert d.losses == [1.0, 2.0]


def test_king_takes_one_loss_and_one_rate_for_each_step(drive):
    """Patience 2 keeps four losses; it decays from the fourth rising one on."""
    d = drive(KING)
    for loss, want in zip(RISING, [0.125, 0.125, 0.125, 0.0625, 0.03125, 0.015625], strict=True):
        assert [d.rate(name, loss) for name in "abc"] == [want] * 3
        d.opt.step()
    assert d.losses == RISING[2:]


@pytest.mark.parametrize(
    "begin",
    [
        lambda opt: opt.step(),
        lambda opt: opt.reset_step(),
        lambda opt: setattr(opt, "cur_step", 5),
        lambda opt: setattr(opt, "cur_step", opt.cur_step),
        lambda opt: opt.set_params({"lr_scheduler": LossScheduler()}),
    ],
    ids=["step", "reset_step", "cur_step", "the same cur_step", "another schedule"],
)
def test_a_pass_begins_at_the_first_update_after(drive, begin):
    d = drive(LossScheduler())
    d.rate("a", 1.0)
    d.rate("b", 2.0)
    begin(d.opt)
    before = list(d.losses)
    d.rate("c", 3.0)  # a name that had not come in the pass before
    d.rate("a", 4.0)
    d.rate("b", 5.0)
    assert d.losses == [*before, 3.0]


def test_a_pass_begins_when_a_name_comes_round(drive):
    d = drive(LossScheduler())
    for loss, name in enumerate("abcabdcaa"):
        d.rate(name, float(loss))
    assert d.losses == [0.0, 3.0, 7.0, 8.0]


@pytest.mark.parametrize(
    "change", [{"momentum": 0.5}, {"clip_norm": 2.0}, {"id": "SGD"}, {}], ids=["momentum", "clip_norm", "id", "nothing"]
)
def test_a_pass_goes_on_through_other_changes(drive, change):
    d = drive(LossScheduler())
    d.rate("a", 1.0)
    d.opt.set_params(change)
    d.opt.cache.pop("a")
    d.rate("b", 2.0)
    assert d.losses == [1.0]


def test_update_all_is_a_pass_of_its_own(drive):
    d = drive(LossScheduler())
    assert d.whole("a", "b", loss=1.0) == [0.5, 0.5]
    assert d.whole("a", "b", loss=2.0) == [0.25, 0.25]
    assert d.rate("a", 3.0) == 0.125
    assert d.rate("b", 4.0) == 0.125
    assert d.whole("c", "d", loss=5.0) == [0.0625, 0.0625]
    assert d.losses == [1.0, 2.0, 3.0, 5.0]
    assert d.opt.cur_step == 3


def test_both_read_the_schedule_before_the_step_moves(drive):
    d = drive(HALVING)
    assert [d.rate("W", step=True) for _ in range(3)] == [1.0, 0.5, 0.25]
    assert d.opt.cur_step == 3
    assert [d.whole("W") for _ in range(3)] == [[0.125], [0.0625], [0.03125]]
    assert d.opt.cur_step == 6


def test_update_never_moves_the_step(drive):
    d = drive(None, lr=0.5)
    for name in "abab":
        d.rate(name)
    assert d.opt.cur_step == 0
    d.opt.step()
    assert d.opt.cur_step == 1


def test_the_step_may_be_set(drive):
    d = drive(HALVING)
    for step in (4, 0, 2, True + 1):
        d.opt.cur_step = step
        assert d.opt.cur_step == step
        assert type(d.opt.cur_step) is int
        assert d.rate("W") == 0.5**step


@pytest.mark.parametrize("step", [-1, 1.0, "1", None, True, [1], 0.5, 1j, float("nan"), -(10**400)], ids=repr)
def test_the_step_is_a_count(backend, step):
    opt = SGD(lr_scheduler=KING)
    train(backend, opt, 4)
    with nothing_changes(backend, opt), pytest.raises((TypeError, ValueError), match="cur_step"):
        opt.cur_step = step


def test_a_huge_step_is_a_step(drive):
    d = drive("NoamScheduler(model_dim=1, warmup_steps=1)")
    d.opt.cur_step = 4**500
    assert d.rate("W") == 2.0**-500 or "float32" in str(d.backend.widest)
    d = drive("ConstantScheduler(lr=0.5)")
    d.opt.cur_step = int(sys.float_info.max)
    assert d.rate("W", step=True) == 0.5
    assert d.opt.cur_step == int(sys.float_info.max) + 1


def test_a_step_that_the_schedule_cannot_take_is_refused_and_may_be_mended(drive):
    class ShortScheduler(SchedulerBase):
        def learning_rate(self, step, cur_loss=None):
            return [1.0, 0.5, -1.0][step]

    d = drive(ShortScheduler())
    d.rate("W")
    d.opt.cur_step = 2
    with pytest.raises(ValueError, match="ShortScheduler"):
        d.rate("W")
    d.opt.cur_step = 1
    assert d.rate("W") == 0.5


def test_reset_step_restarts_king_and_keeps_the_state(backend):
    opt = Adam(lr_scheduler=KING)
    train(backend, opt, 5)
    cache = frozen(backend, opt.cache)
    assert opt.lr_scheduler.state() == {"rate": 0.125 / 4, "losses": RISING[1:5]}
    opt.reset_step()
    assert opt.cur_step == 0
    assert opt.lr_scheduler.state() == {"rate": 0.125, "losses": []}
    assert frozen(backend, opt.cache) == cache
    train(backend, opt, 1)
    assert opt.cache["W"]["t"] == 6


def test_step_keeps_the_schedules_history(backend):
    opt = SGD(lr_scheduler=KING)
    train(backend, opt, 5)
    state = opt.lr_scheduler.state()
    opt.step()
    opt.cur_step = 0
    assert opt.lr_scheduler.state() == state


@pytest.mark.parametrize(
    "loss", rows({"None": None, "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "10**400": 10**400}, ["nan"])
)
@every_optimizer
def test_king_without_a_finite_loss_says_so(backend, make, loss):
    opt = make(lr_scheduler=KING)
    train(backend, opt, 4)
    params, grads = model(backend)
    with nothing_changes(backend, opt, params, grads):
        with pytest.raises(ValueError, match="KingScheduler needs a finite cur_loss"):
            opt.update(params["W"], grads["W"], "W", loss)
        with pytest.raises(ValueError, match="KingScheduler needs a finite cur_loss"):
            opt.update_all(params, grads, loss)
    with pytest.raises(
        ValueError, match="KingScheduler needs a finite cur_loss; got None: give update or update_all the"
    ):
        opt.update(params["W"], grads["W"], "W")


def test_a_loss_may_be_an_array_of_the_library(drive):
    d = drive(KING)
    d.rate("a", d.backend.array(1.5), step=True)
    d.rate(
        "a", d.backend.array([2.5]).sum() if d.backend.name != "array-api-strict" else d.backend.array(2.5), step=True
    )
    assert d.losses == [1.5, 2.5]
    assert all(type(loss) is float for loss in d.losses)


@pytest.mark.parametrize("loss", [None, float("nan"), 10**400], ids=str)
def test_the_value_of_a_loss_that_no_schedule_reads_is_not_looked_at(drive, loss):
    for scheduler in (None, HALVING, "noam"):
        d = drive(scheduler)
        d.rate("W", loss, step=True)
        d.whole("W", loss=loss)


@every_optimizer
def test_a_refused_update_takes_no_part_in_the_pass(backend, make):
    """Refused at the start of a pass, in it, and where a name would come round."""
    opt = make(lr_scheduler=LossScheduler())
    params, grads = model(backend)
    wrong = backend.array([1.0])
    for prepare in (
        lambda: opt.step(),
        lambda: opt.update(params["b"], grads["b"], "b", 1.0),
        lambda: opt.update(params["W"], grads["W"], "W", 2.0),
        lambda: opt.update_all(params, grads, 3.0),
    ):
        prepare()
        with nothing_changes(backend, opt, params, grads):
            for name in ("W", "b", "new"):
                with pytest.raises(ValueError, match="shape"):
                    opt.update(params["W"], wrong, name, 7.0)
            with pytest.raises(ValueError, match="shape"):
                opt.update_all(params, {"W": grads["W"], "b": wrong}, 7.0)


def test_the_rate_of_a_pass_stands_after_a_refusal(drive):
    d = drive(LossScheduler())
    assert d.rate("a", 1.0) == 0.5
    with pytest.raises(ValueError, match="'a'"):
        d.opt.update(d.backend.array([1.0, 2.0]), d.backend.array([1.0, 2.0]), "a", 9.0)
    assert d.rate("b", 2.0) == 0.5
    assert d.rate("a", 3.0) == 0.25
    assert d.losses == [1.0, 3.0]


# The two warnings


@pytest.mark.parametrize("scheduler", [HALVING, "noam", CountingScheduler()], ids=["exponential", "noam", "own"])
def test_a_forgotten_step_is_said_once(drive, scheduler):
    d = drive(scheduler)
    d.rate("W")
    d.rate("b")
    with pytest.warns(UserWarning, match=r"'W' is updated again.*step\(\)") as caught:
        d.rate("W")
    assert [w.filename for w in caught] == [__file__]
    for name in "WbWW":
        d.rate(name)
    other = d.opt.copy()
    other.update(d.backend.array([0.0]), d.backend.array([-1.0]), "W")


class Verbose(SGD):
    """An optimizer of the user's own, which leads each call on to the base."""

    def update(self, *args, **kwargs):
        return super().update(*args, **kwargs)

    def update_all(self, *args, **kwargs):
        return super().update_all(*args, **kwargs)


def line_of(function):
    """The number of the line on which a function begins; those below are all on one line."""
    return function.__code__.co_firstlineno


@pytest.mark.backends("numpy")
@pytest.mark.parametrize(
    "update",
    [
        lambda opt, x: opt(x, x, "W"),
        lambda opt, x: opt.update(x, x, "W"),
        lambda opt, x: opt.update(param=x, param_grad=x, param_name="W"),
        lambda opt, x: list(map(opt, [x], [x], ["W"])),
    ],
    ids=["call", "update", "keywords", "map"],
)
def test_the_warning_of_a_forgotten_step_points_at_the_call(backend, update):
    opt, x = SGD(lr_scheduler=HALVING), backend.array([1.0])
    update(opt, x)
    with pytest.warns(UserWarning, match="updated again") as caught:
        update(opt, x)
    assert [(w.filename, w.lineno) for w in caught] == [(__file__, line_of(update))]


@pytest.mark.backends("numpy")
@pytest.mark.parametrize(
    ("method", "update"),
    [
        (Verbose.update, lambda opt, x: opt.update(x, x, "W")),
        (Verbose.update, lambda opt, x: opt(x, x, "W")),
        (Verbose.update_all, lambda opt, x: (opt.update_all([x], [x]), opt.step())),
    ],
    ids=["update", "call", "update_all"],
)
def test_a_warning_to_a_subclass_points_into_it(backend, method, update):
    opt, x = Verbose(lr_scheduler=HALVING), backend.array([1.0])
    update(opt, x)
    with pytest.warns(UserWarning, match=r"step\(\)") as caught:
        update(opt, x)
    assert [(w.filename, w.lineno) for w in caught] == [(__file__, line_of(method) + 1)]


@pytest.mark.parametrize("scheduler", [None, KING, LossScheduler()], ids=["constant", "king", "own"])
def test_a_schedule_that_does_not_read_the_step_may_stand(drive, scheduler):
    d = drive(scheduler)
    for loss in range(4):
        d.rate("W", float(loss))


@pytest.mark.parametrize(
    "move",
    [lambda opt: opt.step(), lambda opt: setattr(opt, "cur_step", 0), lambda opt: opt.reset_step()],
    ids=["step", "cur_step", "reset_step"],
)
def test_who_moves_the_step_is_not_told_to(drive, move):
    d = drive(HALVING)
    for _ in range(3):
        d.rate("W")
        d.rate("b")
        move(d.opt)


def test_different_names_are_no_reason_to_warn(drive):
    d = drive(HALVING)
    for name in "abcdefgh":
        d.rate(name)


def test_a_step_counted_twice_is_said_once(drive):
    for scheduler in (None, HALVING, LossScheduler()):
        d = drive(scheduler)
        d.whole("W")
        d.opt.step()
        with pytest.warns(UserWarning, match=r"step\(\) was called between two calls of update_all") as caught:
            d.whole("W")
        assert [w.filename for w in caught] == [__file__]
        assert d.opt.cur_step == 3
        for _ in range(3):
            d.opt.step()
            d.whole("W")


def test_update_all_alone_or_step_around_update_is_no_reason_to_warn(drive):
    d = drive(HALVING)
    for _ in range(3):
        d.whole("W")
    d.opt.step()
    d.rate("W")
    d.opt.step()
    d.rate("W")
    d.opt.step()
    d.whole("W")
    d.whole("W")
    d.opt.reset_step()
    d.whole("W")
    d.opt.cur_step = 7
    d.whole("W")


def test_a_warning_that_is_an_error_changes_nothing(backend):
    opt = Adam(lr_scheduler=LossScheduler())
    params, grads = model(backend)
    opt.update_all(params, grads, 1.0)
    opt.step()
    before = frozen(backend, opt.cache), opt.cur_step, opt.lr_scheduler.state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="update_all"):
            opt.update_all(params, grads, 2.0)
    assert (frozen(backend, opt.cache), opt.cur_step, opt.lr_scheduler.state()) == before


@pytest.mark.parametrize("scheduler", [ExponentialScheduler(), NoamScheduler()], ids=str)
def test_copies_and_pickles_keep_the_pass(backend, scheduler):
    """In the middle of one, the copy goes on with its rate, and warns as the original would."""
    opt = SGD(lr_scheduler=LossScheduler())
    params, grads = model(backend)
    opt.update(params["W"], grads["W"], "W", 1.0)
    twin = opt.copy()
    for one in (opt, twin):
        one.update(params["b"], grads["b"], "b", 2.0)
        assert one.lr_scheduler.state()["losses"] == [1.0]
        one.update(params["W"], grads["W"], "W", 3.0)
        assert one.lr_scheduler.state()["losses"] == [1.0, 3.0]
    opt = SGD(lr_scheduler=scheduler)
    opt.update(params["W"], grads["W"], "W")
    with pytest.warns(UserWarning, match="step"):
        opt.copy().update(params["W"], grads["W"], "W")


def test_the_rate_used_is_the_schedules(drive):
    d = drive("NoamScheduler(model_dim=4, scale_factor=1, warmup_steps=4)")
    for step, want in [(0, 1 / 16), (1, 1 / 16), (2, 1 / 8), (4, 1 / 4), (16, 1 / 8), (64, 1 / 16)]:
        d.opt.cur_step = step
        assert d.rate("W") == want


def test_a_rate_of_0_stops(backend):
    opt = SGD(lr=0)
    params, grads = model(backend)
    assert frozen(backend, opt.update_all(params, grads)) == frozen(backend, params)
    assert equal(backend, opt.update(backend.array([1.5]), backend.array([3.0]), "x"), [1.5])
    assert outlook(backend, opt) == outlook(backend, opt.copy())
