"""The table: one row for every algorithm, from which all tests take their optimizers.

A row says what the algorithm is, not what is tested of it: its equation, state and hyperparameters, how far its
numbers may be off, where it finds the bottom of a valley, and its peer in another library. An algorithm without a row
fails the suite, and so does a row that says what is not so.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import xpopt
from xpopt._transforms.around import transformed

from . import oracles


class Interval(NamedTuple):
    """The numbers that a hyperparameter may be; each end belongs to it unless it is open."""

    low: float
    high: float = math.inf
    open: str = ""
    none: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number is in it."""
        above = value > self.low if "low" in self.open else value >= self.low
        return above and (value < self.high if "high" in self.open else value <= self.high) and math.isfinite(value)

    def some(self, value: float) -> float:
        """Return `value`, moved into it by its lower end where it does not hold it."""
        return value if self.holds(value) else self.low + value

    def inside(self) -> list[float | None]:
        """Return the first and the last that it holds, and None where that is a value."""
        low = math.nextafter(self.low, math.inf) if "low" in self.open else max(self.low, -1e300)
        high = math.nextafter(self.high, -math.inf) if "high" in self.open else min(self.high, 1e300)
        return [*([None] if self.none else []), low, math.nextafter(low, math.inf), high]

    def outside(self) -> list[float]:
        """Return the nearest that it does not hold, and some that are further away."""
        low = self.low if "low" in self.open else math.nextafter(self.low, -math.inf)
        high = self.high if "high" in self.open else math.nextafter(self.high, math.inf)
        below = [low, self.low - 1] if math.isfinite(self.low) else []
        return [*below, *([high, self.high + 1] if math.isfinite(self.high) else [])]


class Setting(NamedTuple):
    """A hyperparameter: its default, what it may be, and between which values problems are drawn for it.

    One that is `apart` is given by keyword alone, and text leaves it out at its default.
    """

    default: float | None
    range: Interval
    drawn: tuple[float, float] | None = None
    also: tuple[float, ...] = ()
    apart: bool = False


RATE = Interval(0)
DECAY = Interval(0, 1, open="high")
CLIP_NORM = Setting(None, Interval(0, open="low", none=True))


def eps(default: float = 1e-7) -> Setting:
    return Setting(default, Interval(0, open="low"), (1e-8, 1.0))


def decay(default: float) -> Setting:
    return Setting(default, DECAY, (0.01, 0.999), (0.0, 1 - 1e-6))


def signature(lr: float, **own: Setting) -> Mapping[str, Setting]:
    """Return a class's settings in the documented order, that of its arguments; all but `lr_scheduler` and options."""
    apart = {name: setting for name, setting in own.items() if setting.apart}
    return {
        "lr": Setting(lr, RATE),
        **{name: setting for name, setting in own.items() if name not in apart},
        "clip_norm": CLIP_NORM,
        **apart,
    }


def apart(low: float, high: float = math.inf, drawn: tuple[float, float] | None = None) -> Setting:
    """Return a setting that is apart and 0 by default."""
    return Setting(0.0, Interval(low, high), drawn, apart=True)


class Valley(NamedTuple):
    """Settings with which, after `steps` steps, Rosenbrock's function is below 1e-5; at the start it is 24.2."""

    settings: Mapping[str, Any]
    steps: int


class Peer(NamedTuple):
    """The same mathematics in `torch.optim`: its name, its settings, and ours that mean the same.

    `decays` says whether it has a decay of weights.
    """

    name: str
    theirs: Mapping[str, Any]
    ours: Mapping[str, Any]
    decays: bool = True


@dataclass(frozen=True)
class Row:
    """One algorithm.

    `arguments` are the optimizer's and the equation's, `chosen` those of the optimizer that are words or truths: they
    choose the equation. `slots` are the names in the cache, in the order of the equation's memory; `counts` says
    whether an entry of the cache is a dict with the count `t` before them, else the one slot is the entry.
    `roundings` bounds the error of one step in float32, in roundings (2**-24) of its size: the reason is beside each
    row. In float64 every row has the same bound, see `trajectories.bound`. At the rate `plane`, 250 steps fit a plane
    through points. An element takes so many `divisions`. `signs` says whether its steps have a length of their own
    and the sign of something. `promises` says where all promises are tested of it, and not only its numbers and
    pairs: on every library, on NumPy, or nowhere. `settings` are those of the class; its first row has them.
    """

    label: str
    optimizer: type
    arguments: Mapping[str, float]
    equation: Callable[..., Any]
    slots: tuple[str, ...]
    roundings: float
    counts: bool = False
    valleys: tuple[Valley, ...] = ()
    plane: float = 0.3
    peer: Peer | None = None
    signs: bool = False
    promises: Literal["everywhere", "numpy", "nowhere"] = "nowhere"
    settings: Mapping[str, Setting] | None = None
    divisions: int = 1
    chosen: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.label

    @property
    def couples(self) -> bool:
        """Whether an element's step depends on the other elements of its parameter."""
        return inspect.isgeneratorfunction(self.equation)

    def make(self, **settings: Any) -> xpopt.OptimizerBase:
        """Return an optimizer of this row, with other settings or more where they are given."""
        return self.optimizer(**{**self.arguments, **self.chosen, **settings})

    def rule(self) -> Any:
        """Return the rule that its optimizers run."""
        opt = self.make()
        return transformed(opt.choose_rule(opt.hyperparameters), (), clipped=False)  # of one that projects by itself

    def entry(self, t: int, slots: Sequence[Any]) -> Any:
        """Return an entry of the cache after `t` updates, as users write one; of `slots` it takes as many as it has."""
        named = dict(zip(self.slots, slots, strict=False))
        return {"t": t, **named} if self.counts else slots[0]


NOAM = "NoamScheduler(model_dim=16, scale_factor=4, warmup_steps=400)"

# A rounding in a running mean lives on for 1 / (1 - decay) steps, or as many as were taken.
ROWS = [
    Row(
        "SGD",
        xpopt.SGD,
        {},
        oracles.sgd,
        (),
        2,  # the rate, and its product
        counts=True,
        valleys=(Valley({"lr": 2e-3}, 7000),),
        plane=0.1,
        peer=Peer("SGD", {}, {}),
        promises="everywhere",  # no state
        settings=signature(
            0.01, momentum=Setting(0.0, Interval(0, 1), (0.01, 1.0)), dampening=apart(0, 1, (0.01, 1.0))
        ),
        divisions=0,
    ),
    Row(
        "SGD-momentum",
        xpopt.SGD,
        {"momentum": 0.9},
        oracles.sgd_momentum,
        ("velocity",),
        60,  # two products and a sum, for 10 steps; the sum may cancel to less than its terms
        valleys=(
            Valley({"lr": 1e-3, "momentum": 0.9}, 5000),
            Valley({"lr": 2e-3, "momentum": 0.9, "clip_norm": 10.0}, 3000),
        ),
        plane=0.1,
        # torch keeps the rate outside SGD's velocity: at a constant rate that is the same
        peer=Peer("SGD", {"momentum": 0.9}, {"momentum": 0.9}),
        promises="everywhere",  # an array
        divisions=0,
    ),
    Row(
        "SGD-nesterov",
        xpopt.SGD,
        {"momentum": 0.9},
        oracles.sgd_nesterov,
        ("velocity",),
        80,  # as the momentum, and once more
        peer=Peer("SGD", {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "nesterov": True}),
        plane=0.1,
        chosen={"nesterov": True},
        divisions=0,
    ),
    Row(
        "SGD-dampened",
        xpopt.SGD,
        {"momentum": 0.9, "dampening": 0.5},
        oracles.sgd_dampened,
        ("velocity",),
        60,
        counts=True,
        plane=0.1,
        divisions=0,
    ),
    Row(
        "SGD-outside",
        xpopt.SGD,
        {"momentum": 0.9, "dampening": 0.25},
        oracles.sgd_outside,
        ("trace",),
        80,  # as the momentum, and a product
        counts=True,
        plane=0.1,
        peer=Peer(
            "SGD",
            {"momentum": 0.9, "dampening": 0.25},
            {"momentum": 0.9, "dampening": 0.25, "lr_inside": False},
        ),
        chosen={"lr_inside": False},
        divisions=0,
    ),
    Row(
        "SGD-outside-nesterov",
        xpopt.SGD,
        {"momentum": 0.9},
        oracles.sgd_outside_nesterov,
        ("trace",),
        100,
        counts=True,
        plane=0.1,
        peer=Peer(
            "SGD",
            {"momentum": 0.9, "nesterov": True},
            {"momentum": 0.9, "nesterov": True, "lr_inside": False},
        ),
        chosen={"lr_inside": False, "nesterov": True},
        divisions=0,
    ),
    Row(
        "AdaGrad",
        xpopt.AdaGrad,
        {"eps": 1e-7},
        oracles.adagrad,
        ("total",),
        # a square and a sum of positive numbers for each of 50 steps, halved by the root;
        # rate, root, eps, sum, quotient
        55,
        valleys=(Valley({"lr": 0.7}, 8000),),
        plane=1.0,
        peer=Peer("Adagrad", {"eps": 1e-3}, {"eps": 1e-3}),
        promises="numpy",  # what is kept is of RMSProp's kind
        settings=signature(0.01, eps=eps(), initial=apart(0, drawn=(0.01, 2.0)), lr_decay=apart(0, drawn=(0.01, 2.0))),
    ),
    Row(
        "AdaGrad-initial",
        xpopt.AdaGrad,
        {"eps": 1e-7, "initial": 0.1},
        oracles.adagrad_initial,
        ("total",),
        55,
        plane=1.0,
        peer=Peer(
            "Adagrad",
            {"eps": 1e-3, "initial_accumulator_value": 0.5, "lr_decay": 0.1},
            {"eps": 1e-3, "initial": 0.5, "lr_decay": 0.1},
        ),
    ),
    Row(
        "AdaGrad-decay",
        xpopt.AdaGrad,
        {"eps": 1e-7, "lr_decay": 0.1},
        oracles.adagrad_decaying,
        ("total",),
        55,
        counts=True,
        plane=3.0,
        peer=Peer("Adagrad", {"eps": 1e-3, "lr_decay": 0.1}, {"eps": 1e-3, "lr_decay": 0.1}),
    ),
    Row(
        "RMSProp",
        xpopt.RMSProp,
        {"decay": 0.9, "eps": 1e-7},
        oracles.rmsprop,
        ("var",),
        25,  # two products, a square and a sum of positive numbers, for 10 steps, halved by the root; and as above
        valleys=(Valley({"lr": 0.01, "lr_scheduler": "ExponentialScheduler(stage_length=1500)"}, 5000),),
        peer=Peer("RMSprop", {"alpha": 0.8, "eps": 1e-3}, {"decay": 0.8, "eps": 1e-3}),
        promises="everywhere",  # an array under a root
        settings=signature(0.001, decay=decay(0.9), eps=eps(), momentum=apart(0, 1, (0.01, 1.0))),
    ),
    Row(
        "RMSProp-centered",
        xpopt.RMSProp,
        {"decay": 0.9, "eps": 1e-2},
        oracles.rmsprop_centered,
        ("var", "mean"),
        100,  # the variance is a difference, which eps keeps from cancelling to nothing
        counts=True,
        chosen={"centered": True, "eps_place": "inside"},
    ),
    Row(
        "RMSProp-momentum",
        xpopt.RMSProp,
        {"decay": 0.9, "eps": 1e-4, "momentum": 0.9},
        oracles.rmsprop_momentum,
        ("var", "velocity"),
        80,  # as RMSProp, and the momentum of SGD
        counts=True,
        plane=0.1,
        chosen={"eps_place": "inside"},
    ),
    Row(
        "RMSProp-centered-momentum",
        xpopt.RMSProp,
        {"decay": 0.9, "eps": 0.1, "momentum": 0.9},
        oracles.rmsprop_centered_momentum,
        ("var", "mean", "velocity"),
        160,
        counts=True,
        plane=0.1,
        peer=Peer(
            "RMSprop",
            {"alpha": 0.8, "eps": 1e-3, "centered": True, "momentum": 0.9},
            {"decay": 0.8, "eps": 1e-3, "centered": True, "momentum": 0.9},
        ),
        chosen={"centered": True},
    ),
    Row(
        "Adam",
        xpopt.Adam,
        {"decay1": 0.9, "decay2": 0.999, "eps": 1e-7},
        oracles.adam,
        ("mean", "var"),
        # the mean as SGD's momentum; the variance as RMSProp's for 50 steps;
        # two corrections, each a number and a product
        160,
        counts=True,
        valleys=(
            Valley({"lr": 0.02}, 3000),
            Valley({"lr_scheduler": NOAM}, 6000),
            Valley({"lr": 0.05, "lr_scheduler": "KingScheduler(patience=50, decay=0.95)"}, 3000),
        ),
        peer=Peer("Adam", {"betas": (0.8, 0.99), "eps": 1e-3}, {"decay1": 0.8, "decay2": 0.99, "eps": 1e-3}),
        promises="everywhere",  # two arrays and a count
        settings=signature(0.001, decay1=decay(0.9), decay2=decay(0.999), eps=eps()),
    ),
    Row(
        "Adam-eps",
        xpopt.Adam,
        {"decay1": 0.5, "decay2": 0.9, "eps": 0.1},
        oracles.adam,
        ("mean", "var"),
        60,  # the same with an eps that counts
        counts=True,
    ),
    Row(
        "Adam-uncorrected",
        xpopt.Adam,
        {"decay1": 0.9, "decay2": 0.999, "eps": 1e-7},
        oracles.adam_uncorrected,
        ("mean", "var"),
        160,  # as Adam
        counts=True,
        chosen={"eps_place": "uncorrected"},
    ),
    Row(
        "AdamW",
        xpopt.AdamW,
        {"decay1": 0.9, "decay2": 0.999, "eps": 1e-7},
        oracles.adamw,
        ("mean", "var"),
        160,  # as Adam; the decay is a product and a difference more, of numbers that are far smaller
        counts=True,
        valleys=(Valley({"lr": 0.02, "weight_decay": 1e-5}, 3000),),
        peer=Peer(
            "AdamW",
            {"betas": (0.8, 0.99), "eps": 1e-3, "weight_decay": 0.01},
            {"decay1": 0.8, "decay2": 0.99, "eps": 1e-3},
        ),
        settings=signature(0.001, decay1=decay(0.9), decay2=decay(0.999), eps=eps()),
    ),
    Row(
        "AMSGrad",
        xpopt.AMSGrad,
        {"decay1": 0.9, "decay2": 0.999, "eps": 1e-7},
        oracles.amsgrad,
        ("mean", "var", "top"),
        160,  # as Adam: the larger of two numbers is one of them
        counts=True,
        valleys=(Valley({"lr": 0.05}, 3000),),
        peer=Peer(
            "Adam",
            {"betas": (0.8, 0.99), "eps": 1e-3, "amsgrad": True},
            {"decay1": 0.8, "decay2": 0.99, "eps": 1e-3},
        ),
        settings=signature(0.001, decay1=decay(0.9), decay2=decay(0.999), eps=eps()),
    ),
    Row(
        "Lion",
        xpopt.Lion,
        {"decay1": 0.9, "decay2": 0.99},
        oracles.lion,
        ("mean",),
        160,  # the step is the rate, rounded; the mean as SGD's momentum, for 50 steps
        counts=True,
        valleys=(Valley({"lr": 0.01, "lr_scheduler": "ExponentialScheduler(stage_length=800)"}, 3000),),
        plane=0.1,
        signs=True,
        settings=signature(1e-4, decay1=decay(0.9), decay2=decay(0.99)),
        divisions=0,
    ),
    Row(
        "RAdam",
        xpopt.RAdam,
        {"decay1": 0.9, "decay2": 0.999, "eps": 1e-7, "threshold": 4.0},
        oracles.radam,
        ("mean", "var"),
        170,  # as Adam, and of two kinds of step the sum, of which one is 0
        counts=True,
        valleys=(Valley({"lr": 0.01, "clip_norm": 1.0}, 2500),),
        # torch adds eps before the correction
        peer=Peer("RAdam", {"betas": (0.8, 0.99), "eps": 0.0}, {"decay1": 0.8, "decay2": 0.99, "eps": 1e-30}),
        settings=signature(
            0.001,
            decay1=decay(0.9),
            decay2=decay(0.999),
            eps=eps(),
            threshold=Setting(5.0, Interval(4), (4.0, 6.0)),
        ),
    ),
    Row(
        "Adamax",
        xpopt.Adamax,
        {"decay1": 0.9, "decay2": 0.999, "eps": 1e-7},
        oracles.adamax,
        ("mean", "top"),
        120,  # the mean as SGD's momentum; the largest may be 50 products old
        counts=True,
        valleys=(Valley({"lr": 0.1}, 4000),),
        peer=Peer("Adamax", {"betas": (0.8, 0.99), "eps": 1e-3}, {"decay1": 0.8, "decay2": 0.99, "eps": 1e-3}),
        settings=signature(0.002, decay1=decay(0.9), decay2=decay(0.999), eps=eps()),
    ),
    Row(
        "AdaBelief",
        xpopt.AdaBelief,
        {"decay1": 0.9, "decay2": 0.999, "eps": 1e-16},
        oracles.adabelief,
        ("mean", "var"),
        200,  # as Adam; the distance from the mean may cancel to a part of its terms
        counts=True,
        valleys=(Valley({"lr": 0.05}, 3000),),
        # with less decay the mean is nearly the gradient, and of their distance no digits are left
        settings=signature(
            0.001,
            decay1=Setting(0.9, DECAY, (0.3, 0.999), (1 - 1e-6,)),
            decay2=Setting(0.999, DECAY, (0.3, 0.999), (1 - 1e-6,)),
            eps=eps(1e-16),
        ),
    ),
    Row(
        "Adadelta",
        xpopt.Adadelta,
        {"decay": 0.95, "eps": 1e-3},  # so that float16 holds the square of a step
        oracles.adadelta,
        ("var", "delta"),
        200,  # an update is made of those before it, three roundings more at each of 50 steps; the root as RMSProp's
        counts=True,
        valleys=(Valley({"lr": 1.0, "eps": 1e-4, "lr_scheduler": "ExponentialScheduler(stage_length=2000)"}, 6000),),
        plane=30.0,  # first steps are of the length of eps
        peer=Peer("Adadelta", {"rho": 0.8, "eps": 1e-3}, {"decay": 0.8, "eps": 1e-3}),
        settings=signature(1.0, decay=decay(0.95), eps=eps(1e-6)),
    ),
    Row(
        "Signum",
        xpopt.Signum,
        {"momentum": 0.9},
        oracles.signum,
        ("mean",),
        60,  # the step is the rate, rounded; the mean as SGD's momentum
        counts=True,
        valleys=(Valley({"lr": 0.01, "lr_scheduler": "ExponentialScheduler(stage_length=800)"}, 3000),),
        plane=0.1,
        signs=True,
        settings=signature(1e-4, momentum=decay(0.9)),
        divisions=0,
    ),
    Row(
        "Adan",
        xpopt.Adan,
        {"decay1": 0.98, "decay2": 0.92, "decay3": 0.99, "eps": 1e-8},
        oracles.adan,
        ("mean", "slope", "var", "last"),
        300,  # as Adam, and once more for the slope; the two may cancel
        counts=True,
        valleys=(Valley({"lr": 0.01, "decay1": 0.9}, 4000),),
        plane=1.0,
        settings=signature(0.001, decay1=decay(0.98), decay2=decay(0.92), decay3=decay(0.99), eps=eps(1e-8)),
    ),
    Row(
        "ADOPT",
        xpopt.ADOPT,
        {"decay1": 0.9, "decay2": 0.9999, "eps": 1e-6},
        oracles.adopt,
        ("mean", "var"),
        160,  # as Adam, without corrections
        counts=True,
        valleys=(Valley({"lr": 0.05, "decay2": 0.9, "lr_scheduler": "ExponentialScheduler(stage_length=1500)"}, 3000),),
        settings=signature(0.001, decay1=decay(0.9), decay2=decay(0.9999), eps=eps(1e-6)),
    ),
    Row(
        "AdEMAMix",
        xpopt.AdEMAMix,
        {
            "decay1": 0.9,
            "decay2": 0.999,
            "decay3": 0.99,
            "alpha": 5.0,
            "eps": 1e-8,
            "alpha_steps": 20.0,
            "decay3_steps": 20.0,
        },
        oracles.ademamix,
        ("mean", "long_mean", "var"),
        300,  # as Adam, and once more for the slow mean; the two may cancel
        counts=True,
        valleys=(Valley({"lr": 0.01, "decay3": 0.99, "alpha": 1.0, "alpha_steps": 1000, "decay3_steps": 1000}, 4000),),
        settings=signature(
            0.001,
            decay1=decay(0.9),
            decay2=decay(0.999),
            decay3=Setting(0.9999, DECAY, (0.01, 0.999), (1 - 1e-6,)),
            alpha=Setting(5.0, Interval(0), (0.0, 8.0)),
            eps=eps(1e-8),
            alpha_steps=Setting(0.0, Interval(0), (0.0, 8.0)),
            decay3_steps=Setting(0.0, Interval(0), (0.0, 8.0)),
        ),
    ),
    Row(
        "Yogi",
        xpopt.Yogi,
        {"decay1": 0.9, "decay2": 0.999, "eps": 1e-3, "initial": 1e-6},
        oracles.yogi,
        ("mean", "var"),
        200,  # as Adam; the variance is a difference where the gradient is smaller
        counts=True,
        valleys=(Valley({"lr": 0.05}, 3000),),
        # with less decay a variance may lose most of itself in a step, and with it its digits
        settings=signature(
            0.01,
            decay1=decay(0.9),
            decay2=Setting(0.999, DECAY, (0.3, 0.999), (1 - 1e-6,)),
            eps=eps(1e-3),
            initial=Setting(1e-6, Interval(0), (0.0, 1.0)),
        ),
    ),
    Row(
        "NAdam",
        xpopt.NAdam,
        {"decay1": 0.9, "decay2": 0.999, "eps": 1e-7, "momentum_decay": 0.004},
        oracles.nadam,
        ("mean", "var", "product"),
        170,  # as Adam, and two numbers for the corrections
        counts=True,
        valleys=(
            Valley({"lr": 0.02, "decay2": 0.99, "lr_scheduler": "ExponentialScheduler(stage_length=1500)"}, 4000),
        ),
        peer=Peer(
            "NAdam",
            {"betas": (0.8, 0.99), "eps": 1e-3, "momentum_decay": 0.02},
            {"decay1": 0.8, "decay2": 0.99, "eps": 1e-3, "momentum_decay": 0.02},
        ),
        settings=signature(
            0.002,
            decay1=decay(0.9),
            decay2=decay(0.999),
            eps=eps(1e-8),
            momentum_decay=Setting(0.004, Interval(0), (0.0, 1.0)),
        ),
    ),
    Row(
        "FTRL",
        xpopt.FTRL,
        {"l1": 0.01, "l2": 0.1, "beta": 1.0, "initial": 0.1},
        oracles.ftrl,
        ("leader", "total"),
        200,  # the leader as AdaGrad's parameter, and four roundings more of what is left of it
        counts=True,
        valleys=(Valley({"lr": 0.7, "beta": 1e-7}, 8000),),
        plane=1.0,
        settings=signature(
            0.1,
            l1=Setting(0.0, Interval(0), (0.0, 1.0)),
            l2=Setting(0.0, Interval(0), (0.0, 1.0)),
            beta=eps(1.0),
            initial=Setting(0.0, Interval(0), (0.0, 1.0)),
        ),
        divisions=2,
    ),
    Row(
        "ScheduleFreeSGD",
        xpopt.ScheduleFreeSGD,
        {"momentum": 0.9},
        oracles.schedule_free,
        ("fast", "weights", "top"),
        200,  # the fast point, the distance from it and the step: 4 roundings for each of 50 steps
        counts=True,
        plane=1.0,
        divisions=0,
        settings=signature(
            1.0,
            momentum=Setting(0.9, Interval(0, 1, open="low"), (0.3, 1.0)),
            weight_decay=apart(0),
        ),
    ),
    Row(
        "ScheduleFreeAdamW",
        xpopt.ScheduleFreeAdamW,
        {"momentum": 0.9, "decay2": 0.999, "eps": 1e-7},
        oracles.schedule_free_adamw,
        ("var", "fast", "weights", "top"),
        260,  # as both
        counts=True,
        plane=1.0,
        settings=signature(
            0.0025,
            momentum=Setting(0.9, Interval(0, 1, open="low"), (0.3, 1.0)),
            decay2=decay(0.999),
            eps=eps(1e-8),
            weight_decay=apart(0),
        ),
    ),
    Row(
        "FISTA",
        xpopt.FISTA,
        {},
        oracles.fista,
        ("point", "pace"),
        200,  # the momentum as SGD's, of nearly 1 after 50 steps
        counts=True,
        valleys=(Valley({"lr": 1e-3}, 3000),),
        plane=0.1,
        settings=signature(0.01),
        divisions=0,
    ),
    Row(
        "Rprop",
        xpopt.Rprop,
        {"down": 0.5, "up": 1.2, "least": 1e-6, "most": 50.0},
        oracles.rprop,
        ("direction", "size"),
        60,  # a length may be 50 products old
        counts=True,
        valleys=(Valley({"lr": 0.01}, 5000),),
        peer=Peer("Rprop", {"etas": (0.4, 1.3)}, {"down": 0.4, "up": 1.3}, decays=False),
        signs=True,
        settings=signature(
            0.01,
            down=Setting(0.5, Interval(0, 1), (0.1, 0.9), (1.0,)),
            up=Setting(1.2, Interval(1), (1.0, 2.0)),
            least=Setting(1e-6, Interval(0, open="low"), (1e-6, 0.01)),
            most=Setting(50.0, Interval(0, open="low"), (0.1, 50.0)),
        ),
        divisions=0,
    ),
    Row(
        "LAMB",
        xpopt.LAMB,
        {"decay1": 0.9, "decay2": 0.999, "eps": 1e-6},
        oracles.lamb,
        ("mean", "var"),
        170,  # as Adam, and a ratio of two norms
        counts=True,
        valleys=(Valley({"lr": 0.3, "lr_scheduler": "ExponentialScheduler(stage_length=300)"}, 3000),),
        plane=0.1,
        settings=signature(0.001, decay1=decay(0.9), decay2=decay(0.999), eps=eps(1e-6), weight_decay=apart(0)),
        divisions=2,
    ),
    Row(
        "LARS",
        xpopt.LARS,
        {"momentum": 0.9, "trust": 0.01},
        oracles.lars,
        ("velocity",),
        80,  # as SGD's momentum, and a ratio of two norms
        counts=True,
        valleys=(Valley({"lr": 0.5, "trust": 0.01, "lr_scheduler": "ExponentialScheduler(stage_length=800)"}, 4000),),
        plane=10.0,
        settings=signature(
            0.1,
            momentum=Setting(0.9, Interval(0, 1), (0.01, 1.0)),
            trust=Setting(0.001, Interval(0), (0.001, 0.1)),
            weight_decay=apart(0),
        ),
    ),
    Row(
        "NovoGrad",
        xpopt.NovoGrad,
        {"decay1": 0.95, "decay2": 0.98, "eps": 1e-8},
        oracles.novograd,
        ("mean", "var"),
        120,  # a sum of 20 steps, of quotients by one root
        counts=True,
        valleys=(Valley({"lr": 0.002, "lr_scheduler": "ExponentialScheduler(stage_length=800)"}, 4000),),
        plane=0.1,
        settings=signature(0.01, decay1=decay(0.95), decay2=decay(0.98), eps=eps(1e-8), weight_decay=apart(0)),
    ),
]
BY_LABEL = {row.label: row for row in ROWS}
SLOTTED = [BY_LABEL[label] for label in ("FTRL", "NAdam", "ScheduleFreeSGD")]
"""Rows with slots that start elsewhere than at 0, or are one number."""
OF_MODEL = {
    xpopt.DoG: signature(1.0, initial=Setting(1e-6, Interval(0, open="low")), eps=eps(1e-8)),
    xpopt.Prodigy: signature(
        1.0,
        decay1=decay(0.9),
        decay2=decay(0.999),
        eps=eps(1e-8),
        initial=Setting(1e-6, Interval(0, open="low")),
        weight_decay=apart(0),
    ),
}
"""By class, the settings of those that `update_all` alone updates: tested in tests/numbers/test_model_methods.py."""
OF_MATRICES = {
    xpopt.Muon: signature(0.02, momentum=Setting(0.95, Interval(0, 1)), eps=eps(1e-7)),
    xpopt.SOAP: signature(0.003, decay1=decay(0.95), decay2=decay(0.95), eps=eps(1e-8)),
}
"""By class, the settings of those that update matrices alone: tested in tests/numbers/test_muon.py and test_soap.py."""
OF_OTHER_KINDS: Mapping[type, Mapping[str, Any]] = {
    xpopt.Muon: {"others": None},
    xpopt.SOAP: {"every": 10, "others": None},
}
"""By class, its settings that are no floats, words or truths, and their defaults. They are apart."""
OF_LOSS = {
    xpopt.PolyakSGD: signature(
        1.0, lowest=Setting(0.0, Interval(-math.inf)), most=Setting(1.0, Interval(0, open="low"))
    )
}
"""By class, the settings of those that need the loss at each update: tested in tests/numbers/test_polyak_sgd.py."""
OF_SHAPES = {
    xpopt.Adafactor: signature(
        0.01,
        power=Setting(0.8, Interval(0)),
        threshold=Setting(1.0, Interval(0, open="low")),
        least=Setting(1e-3, Interval(0, open="low")),
        eps=eps(1e-30),
        decay1=Setting(0.0, DECAY, apart=True),
    )
}
"""By class, the settings of those whose state depends on the shape: tested in tests/numbers/test_adafactor.py."""
ELSEWHERE = OF_MODEL | OF_MATRICES | OF_LOSS | OF_SHAPES
"""The classes without a row."""
SIGNATURES = {row.optimizer: row.settings for row in ROWS if row.settings is not None} | ELSEWHERE
"""By class, its settings."""
ONE_BY_ONE = [cls for cls in SIGNATURES if cls not in ELSEWHERE]
"""The classes of which `update` updates one parameter, of any shape."""
PROMISES = {row.label: row for row in ROWS if row.promises != "nowhere"}
"""The rows of which all promises are tested."""

CHOICES: Mapping[type, Mapping[str, tuple[Any, ...]]] = {
    xpopt.SGD: {"nesterov": (False, True), "lr_inside": (True, False)},
    xpopt.RMSProp: {"centered": (False, True), "eps_place": ("outside", "inside")},
    xpopt.Muon: {"nesterov": (True, False)},
    xpopt.FISTA: {"restart": ("never", "value", "gradient")},
    xpopt.Adam: {"eps_place": ("corrected", "uncorrected")},
    xpopt.AdamW: {"eps_place": ("corrected", "uncorrected")},
}
"""By class, its settings that are words or truths: the default, and the others. They are apart."""


def apart_of(cls: type) -> dict[str, Any]:
    """Return the settings that a class takes by keyword alone, and which text leaves out at their defaults."""
    numbers = {name: setting.default for name, setting in SIGNATURES[cls].items() if setting.apart}
    chosen = {name: values[0] for name, values in CHOICES.get(cls, {}).items()}
    return {**numbers, **chosen, **OF_OTHER_KINDS.get(cls, {})}


_FIRST = {(row.optimizer, row.slots, row.equation): row for row in reversed(ROWS)}.values()
BY_RULE = {row.label: row for row in ROWS if row in _FIRST}
"""One row for each rule: the others differ in numbers alone."""
