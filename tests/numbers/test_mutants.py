"""Optimizers with one mistake each, and the proof that the suite's own comparisons refuse them."""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from _kit import oracles, problems, schedules, table
from _kit.trajectories import assert_close, spoil, verify, verify_clip, verify_low, verify_scalars, walk

import xpopt
from xpopt._graph.rule import Rule
from xpopt.optimizers.adagrad import AdaGradState
from xpopt.optimizers.adam import AdamState
from xpopt.optimizers.rmsprop import RMSPropState
from xpopt.optimizers.sgd import SGDState
from xpopt.schedulers import ExponentialScheduler, KingScheduler, NoamScheduler

pytestmark = [pytest.mark.backends("numpy"), pytest.mark.usefixtures("eager")]  # some mistakes cannot be traced


def mutant(base, rule):
    """A class like `base` with another rule."""
    return type(f"Wrong{base.__name__}", (base,), {"rule": staticmethod(rule), "__init__": base.__init__})


# One rule each, with one mistake


def eps_inside_the_root(xp, param, grad, s, h):
    mean = h.decay1 * s.mean + (1 - h.decay1) * grad
    var = h.decay2 * s.var + (1 - h.decay2) * grad * grad
    step = h.lr * (mean / (1 - h.decay1**h.t)) / xp.sqrt(var / (1 - h.decay2**h.t) + h.eps)
    return param - step, AdamState(mean, var)


def eps_before_bias_correction(xp, param, grad, s, h):
    mean = h.decay1 * s.mean + (1 - h.decay1) * grad
    var = h.decay2 * s.var + (1 - h.decay2) * grad * grad
    lr = h.lr * (1 - h.decay2**h.t) ** 0.5 / (1 - h.decay1**h.t)
    return param - lr * mean / (xp.sqrt(var) + h.eps), AdamState(mean, var)


def correction_without_the_count(xp, param, grad, s, h):
    mean = h.decay1 * s.mean + (1 - h.decay1) * grad
    var = h.decay2 * s.var + (1 - h.decay2) * grad * grad
    step = h.lr * (mean / (1 - h.decay1)) / (xp.sqrt(var / (1 - h.decay2)) + h.eps)
    return param - step, AdamState(mean, var)


def no_correction(xp, param, grad, s, h):
    mean = h.decay1 * s.mean + (1 - h.decay1) * grad
    var = h.decay2 * s.var + (1 - h.decay2) * grad * grad
    return param - h.lr * mean / (xp.sqrt(var) + h.eps), AdamState(mean, var)


def count_from_zero(xp, param, grad, s, h):
    return xpopt.Adam.rule(xp, param, grad, s, SimpleNamespace(**{**vars(h), "t": h.t + 1}))


def decays_swapped(xp, param, grad, s, h):
    swapped = SimpleNamespace(**{**vars(h), "decay1": h.decay2, "decay2": h.decay1})
    return xpopt.Adam.rule(xp, param, grad, s, swapped)


def corrected_mean_is_kept(xp, param, grad, s, h):
    param, new = xpopt.Adam.rule(xp, param, grad, s, h)
    return param, AdamState(new.mean / (1 - h.decay1**h.t), new.var)


def centred_variance(xp, param, grad, s, h):
    mean = h.decay1 * s.mean + (1 - h.decay1) * grad
    var = h.decay2 * s.var + (1 - h.decay2) * (grad - mean) * (grad - mean)
    step = h.lr * (mean / (1 - h.decay1**h.t)) / (xp.sqrt(var / (1 - h.decay2**h.t)) + h.eps)
    return param - step, AdamState(mean, var)


def scalars_in_float32(xp, param, grad, s, h):
    decay1, decay2 = np.float32(h.decay1), np.float32(h.decay2)
    mean = decay1 * s.mean + (1 - decay1) * grad
    var = decay2 * s.var + (1 - decay2) * grad * grad
    step = h.lr * (mean / (1 - decay1**h.t)) / (xp.sqrt(var / (1 - decay2**h.t)) + h.eps)
    return param - step, AdamState(mean, var)


ADAM = [
    eps_inside_the_root,
    eps_before_bias_correction,
    correction_without_the_count,
    no_correction,
    count_from_zero,
    decays_swapped,
    corrected_mean_is_kept,
    centred_variance,
    scalars_in_float32,
]


def rmsprop_eps_inside(xp, param, grad, s, h):
    var = h.decay * s.var + (1 - h.decay) * grad * grad
    return param - h.lr * grad / xp.sqrt(var + h.eps), RMSPropState(var)


def rmsprop_old_variance(xp, param, grad, s, h):
    var = h.decay * s.var + (1 - h.decay) * grad * grad
    return param - h.lr * grad / (xp.sqrt(s.var) + h.eps), RMSPropState(var)


def rmsprop_never_forgets(xp, param, grad, s, h):
    var = s.var + (1 - h.decay) * grad * grad
    return param - h.lr * grad / (xp.sqrt(var) + h.eps), RMSPropState(var)


def rmsprop_scalars_in_float32(xp, param, grad, s, h):
    decay = np.float32(h.decay)
    var = decay * s.var + (1 - decay) * grad * grad
    return param - h.lr * grad / (xp.sqrt(var) + h.eps), RMSPropState(var)


def adagrad_without_eps(xp, param, grad, s, h):
    total = s.total + grad * grad
    return param - h.lr * grad / xp.sqrt(total), AdaGradState(total)


def adagrad_absolute(xp, param, grad, s, h):
    total = s.total + xp.abs(grad)
    return param - h.lr * grad / (xp.sqrt(total) + h.eps), AdaGradState(total)


def lr_outside_the_velocity(xp, param, grad, s, h):
    velocity = h.momentum * s.velocity + grad
    return param - h.lr * velocity, SGDState(velocity)


def velocity_as_a_mean(xp, param, grad, s, h):
    velocity = h.momentum * s.velocity + (1 - h.momentum) * h.lr * grad
    return param - velocity, SGDState(velocity)


def nesterov(xp, param, grad, s, h):
    velocity = h.momentum * s.velocity + h.lr * grad
    return param - (h.momentum * velocity + h.lr * grad), SGDState(velocity)


def velocity_before_the_step(xp, param, grad, s, h):
    return param - s.velocity, SGDState(h.momentum * s.velocity + h.lr * grad)


OTHERS = [
    ("RMSProp", rmsprop_eps_inside),
    ("RMSProp", rmsprop_old_variance),
    ("RMSProp", rmsprop_never_forgets),
    ("RMSProp", rmsprop_scalars_in_float32),
    ("AdaGrad", adagrad_without_eps),
    ("AdaGrad", adagrad_absolute),
    ("SGD-momentum", lr_outside_the_velocity),
    ("SGD-momentum", velocity_as_a_mean),
    ("SGD-momentum", nesterov),
    ("SGD-momentum", velocity_before_the_step),
]


def refused():
    return pytest.raises(AssertionError, match=r"off by|not finite|t=")


@pytest.mark.parametrize(
    ("label", "rule"), [*(("Adam", rule) for rule in ADAM), *OTHERS], ids=lambda x: getattr(x, "__name__", x)
)
def test_wrong_rules_are_refused(backend, label, rule):
    case = table.BY_LABEL[label]
    wrong = mutant(case.optimizer, rule)
    with refused():
        verify(backend, case, schedules.BY_LABEL["exponential"], None, "float64", optimizer=wrong)


@pytest.mark.parametrize("case", table.PROMISES.values(), ids=str)
def test_the_right_rule_in_a_new_class_is_not(backend, case):
    """What the mutants are made with spoils nothing by itself."""
    same = mutant(case.optimizer, case.optimizer.rule)
    verify(backend, case, schedules.BY_LABEL["exponential"], 0.8, "float64", optimizer=same)


@pytest.mark.parametrize("rule", [r for r in ADAM if r not in (eps_inside_the_root, scalars_in_float32)])
def test_wrong_rules_are_refused_in_float32(backend, rule):
    case = table.BY_LABEL["Adam-eps"]
    with refused():
        verify(backend, case, schedules.BY_LABEL["none"], None, "float32", optimizer=mutant(xpopt.Adam, rule))


# Counts, names, arrays


class CountsUpdatesOfAllNames(xpopt.Adam):
    __init__ = xpopt.Adam.__init__

    def update(self, param, grad, name, *args):
        if name in self.cache:
            self.cache[name]["t"] = sum(entry["t"] for entry in self.cache.values())
        return super().update(param, grad, name, *args)


class CountsSteps(xpopt.Adam):
    __init__ = xpopt.Adam.__init__

    def update(self, param, grad, name, *args):
        new = super().update(param, grad, name, *args)
        self.cache[name]["t"] = self.cur_step + 1
        return new


class SharesSlots(xpopt.Adam):
    __init__ = xpopt.Adam.__init__

    def update(self, param, grad, name, *args):
        new = super().update(param, grad, name, *args)
        self.cache[name]["var"] = self.cache[name]["mean"]
        return new


@pytest.mark.parametrize("wrong", [CountsUpdatesOfAllNames, CountsSteps, SharesSlots])
def test_shared_state_is_refused(backend, wrong):
    with refused():
        verify(backend, table.BY_LABEL["Adam"], schedules.BY_LABEL["none"], None, "float64", optimizer=wrong)


class Before(NamedTuple):
    grad: object


class Lookback(xpopt.OptimizerBase):
    """A rule by a user, whose slot is the very gradient that came in."""

    slots = Before
    entry = "array"

    def __init__(self, lr=0.01, lr_scheduler=None, clip_norm=None):
        super().__init__(lr, lr_scheduler, clip_norm=clip_norm)

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - h.lr * (grad + s.grad), Before(grad)


class KeepsWhatCameIn(Lookback):
    """As if the library kept the caller's array for the slot."""

    def update(self, param, grad, name, *args):
        new = super().update(param, grad, name, *args)
        self.cache[name] = grad
        return new


class ReturnsWhatCameIn(Lookback):
    """As if an update wrote into the caller's parameter."""

    def update(self, param, grad, name, *args):
        param[...] = super().update(param, grad, name, *args)
        return param


LOOKBACK = table.Row("Lookback", Lookback, {}, oracles.lookback, ("grad",), 4)


def verify_lookback(backend, optimizer):
    var = problems.variable(51, (4, 3), steps=9)
    got = walk(backend, optimizer(lr=0.1), {"W": var}, "float64")["W"]
    path = oracles.walk(oracles.lookback, var.start, var.gradients, [0.1] * 9)
    assert_close(got, [p for p, _ in path], var.start, "float64", 4)


def test_an_aliased_slot_is_copied(backend):
    verify_lookback(backend, Lookback)


@pytest.mark.parametrize("wrong", [KeepsWhatCameIn, ReturnsWhatCameIn])
def test_arrays_of_the_caller_are_refused(backend, wrong):
    with pytest.raises(AssertionError, match="not finite"):
        verify_lookback(backend, wrong)


def test_spoiling_spoils(backend):
    x = backend.array([1.0, 2.0])
    spoil(backend, x)
    assert np.all(np.isnan(x))


# Schedules


class OneLate(ExponentialScheduler):
    __init__ = ExponentialScheduler.__init__

    def learning_rate(self, step, cur_loss=None):
        return super().learning_rate(step + 1, cur_loss)


class NoamOneLate(NoamScheduler):
    __init__ = NoamScheduler.__init__

    def learning_rate(self, step, cur_loss=None):
        return super().learning_rate(step + 1, cur_loss)


class TakesEveryLossTwice(KingScheduler):
    """As if the schedule were asked once per parameter."""

    __init__ = KingScheduler.__init__

    def learning_rate(self, step, cur_loss=None):
        super().learning_rate(step, cur_loss)
        return super().learning_rate(step, cur_loss)


class DecaysOneStepLate(KingScheduler):
    __init__ = KingScheduler.__init__

    def learning_rate(self, step, cur_loss=None):
        before = self.state()["rate"]
        super().learning_rate(step, cur_loss)
        return before


@pytest.mark.parametrize(
    ("label", "given"),
    [
        ("exponential", OneLate(initial_lr=0.1, stage_length=20, decay=0.3)),
        ("staircase", OneLate(initial_lr=0.2, stage_length=7, staircase=True, decay=0.5)),
        ("noam", NoamOneLate(model_dim=16, scale_factor=2, warmup_steps=20)),
        ("king", TakesEveryLossTwice(initial_lr=0.1, patience=6, decay=0.8)),
        ("king", DecaysOneStepLate(initial_lr=0.1, patience=6, decay=0.8)),
        ("none", "ExponentialScheduler(decay=0.9)"),
        ("exponential", None),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wrong_schedules_are_refused(backend, label, given, dtype):
    right = schedules.BY_LABEL[label]
    wrong = schedules.Schedule(label, given, right.lr, right.rates)
    with refused():
        verify(backend, table.BY_LABEL["SGD-momentum"], wrong, None, dtype)


class ForgetsToStep(xpopt.SGD):
    __init__ = xpopt.SGD.__init__

    def step(self):
        if self.cur_step < 30:
            super().step()


def test_a_standing_step_is_refused(backend):
    with refused():
        verify(backend, table.BY_LABEL["SGD"], schedules.BY_LABEL["noam"], None, "float64", optimizer=ForgetsToStep)


# Precision and clipping


def in_float16(xp, param, grad, s, h):
    half = grad.astype(np.float16)
    return (param.astype(np.float16) - np.float16(h.lr) * half).astype(np.float32), s


def rounds_the_step(xp, param, grad, s, h):
    param, new = xpopt.Adam.rule(xp, param, grad, s, h)
    return param, AdamState(*(x.astype(np.float16).astype(np.float32) for x in new))


def float16_accumulator(xp, param, grad, s, h):
    total = s.total + (grad.astype(np.float16) ** 2).astype(np.float32)
    return param - h.lr * grad / (xp.sqrt(total) + h.eps), AdaGradState(total)


def truncates(xp, param, grad, s, h):
    """Rounds down on the way out: the last 13 bits of float32 are what float16 lacks."""
    param, new = xpopt.AdaGrad.rule(xp, param, grad, s, h)
    return (param.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32), new


@pytest.mark.parametrize(
    ("label", "rule"), [("Adam", rounds_the_step), ("AdaGrad", float16_accumulator), ("AdaGrad", truncates)]
)
def test_16_bits_within_a_rule_are_refused(backend, label, rule):
    case = table.BY_LABEL[label]
    with pytest.raises(AssertionError):
        verify_low(backend, case, "float16", optimizer=mutant(case.optimizer, rule))


def test_16_bit_arithmetic_is_refused(backend):
    class Wrong(xpopt.SGD):
        __init__ = xpopt.SGD.__init__

        @classmethod
        def choose_rule(cls, settings):
            return Rule(in_float16)

    with pytest.raises(AssertionError):
        verify_low(backend, table.BY_LABEL["SGD"], "float16", optimizer=Wrong)


@pytest.mark.parametrize(("label", "rule"), [("Adam", scalars_in_float32), ("RMSProp", rmsprop_scalars_in_float32)])
@pytest.mark.parametrize("decay", [0.999, 0.9999])
def test_scalars_in_float32_are_refused_in_float32(backend, label, rule, decay):
    case = table.BY_LABEL[label]
    with pytest.raises(AssertionError, match="off by"):
        verify_scalars(backend, case, decay, optimizer=mutant(case.optimizer, rule))


def clipping_by(factor):
    """Plain descent that scales the gradient by ``factor(grad, clip_norm)`` itself."""

    class Wrong(xpopt.SGD):
        def __init__(self, lr, clip_norm):
            super().__init__(lr)
            self.bound = clip_norm

        def update(self, param, grad, name):
            with np.errstate(all="ignore"):
                scaled = grad * np.asarray(factor(grad, self.bound)).astype(grad.dtype)
            return super().update(param, scaled, name)

    return Wrong


def right(grad, bound):
    scale = np.max(np.abs(grad))
    return min(1.0, bound / scale / float(np.linalg.norm((grad / scale).astype(np.float64))))


CLIPPED = [
    ([6e4, -6e4, 6e4], 1e4, "float16", lambda g, c: min(1.0, c / np.sqrt(np.sum(g * g)))),  # sums in float16
    ([1e-3, 2e-3], 1e-3, "float16", lambda g, c: min(1.0, c / np.sqrt(np.sum(g * g)))),
    ([1e25, -1e25], 1.0, "float32", lambda g, c: min(1.0, c / np.sqrt(np.sum(g * g)))),
    ([1e-25, -1e-25], 1e-26, "float32", lambda g, c: min(1.0, c / np.sqrt(np.sum(g * g)))),
    ([3e200, 4e200], 1.0, "float64", lambda g, c: min(1.0, c / np.sqrt(np.sum(g * g)))),
    ([0.3, 0.4], 1.0, "float64", lambda g, c: c / np.sqrt(np.sum(g * g))),  # scales up
    ([3.0, 4.0], 1.0, "float64", lambda g, c: min(1.0, c / np.sum(np.abs(g)))),  # another norm
    ([3.0, 4.0], 1.0, "float64", lambda g, c: min(1.0, c / np.max(np.abs(g)))),
    ([3.0, 4.0], 1.0, "float64", lambda g, c: min(1.0, c / (np.linalg.norm(g) + 1e-6))),  # an eps of its own
    ([3.0, 4.0], 10.0, "float64", lambda g, c: c / (c + 1e-12)),  # not quite 1
    ([3.0, 4.0], 1.0, "float64", lambda g, c: np.float32(0.2)),
]


@pytest.mark.parametrize(("gradient", "bound", "dtype", "factor"), CLIPPED)
def test_wrong_clips_are_refused(backend, gradient, bound, dtype, factor):
    with pytest.raises(AssertionError, match="instead of"):
        verify_clip(backend, gradient, bound, dtype, sgd=clipping_by(factor))
    if dtype != "float16":
        verify_clip(backend, gradient, bound, dtype, sgd=clipping_by(right))


@pytest.mark.parametrize("clip_norm", [0.5, 1.0])
def test_a_clip_of_all_names_together_is_refused(backend, clip_norm):
    """The bound holds for each parameter's own gradient."""

    class Together(xpopt.SGD):
        __init__ = xpopt.SGD.__init__

        def update_all(self, params, grads, cur_loss=None):
            length = np.sqrt(sum(np.sum(g * g) for g in grads.values()))
            factor = min(1.0, self.hyperparameters["clip_norm"] / length)
            return super().update_all(params, {name: g * factor for name, g in grads.items()}, cur_loss)

    case, schedule = table.BY_LABEL["SGD"], schedules.BY_LABEL["none"]
    verify(backend, case, schedule, clip_norm, "float64", problem="shapes", whole=True)
    with refused():
        verify(backend, case, schedule, clip_norm, "float64", problem="shapes", whole=True, optimizer=Together)
