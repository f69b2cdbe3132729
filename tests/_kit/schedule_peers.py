"""Schedules of other libraries, and what is the same here: facts that tests prove, and that the guide shows."""

from typing import NamedTuple

STEPS = 500
LR = 0.5
"""The rate of the optimizer that a schedule of torch multiplies."""


class Peer(NamedTuple):
    """Source that makes a schedule there and here, and what is to be known beside it."""

    library: str
    theirs: str
    ours: str
    differs: str = ""

    def __str__(self):
        return f"{self.library}.{self.theirs.partition('(')[0]}"


PEERS = [
    Peer("torch", "LambdaLR(opt, lambda t: 0.97**t)", "function(lambda t: 0.97**t) * 0.5"),
    Peer("torch", "MultiplicativeLR(opt, lambda t: 0.97)", "exponential(0.5, 0.97)"),
    Peer("torch", "StepLR(opt, step_size=30, gamma=0.5)", "staircase(0.5, 0.5, every=30)"),
    Peer("torch", "MultiStepLR(opt, milestones=[30, 80], gamma=0.1)", "multi_step(0.5, 0.1, boundaries=(30, 80))"),
    Peer("torch", "ConstantLR(opt, factor=0.1, total_iters=20)", "constant(0.05, steps=20) >> 0.5"),
    Peer("torch", "LinearLR(opt, start_factor=0.25, total_iters=100)", "linear(0.125, 0.5, steps=100)"),
    Peer("torch", "ExponentialLR(opt, gamma=0.99)", "exponential(0.5, 0.99)"),
    Peer("torch", "PolynomialLR(opt, total_iters=400, power=2.0)", "polynomial(0.5, 0.0, steps=400, power=2.0)"),
    Peer(
        "torch",
        "CosineAnnealingLR(opt, T_max=100, eta_min=0.01)",
        "repeat(cosine(0.5, 0.01, steps=100) >> cosine(0.01, 0.5, steps=100))",
        "goes up again after `T_max`; `cosine` stays at its end",
    ),
    Peer(
        "torch",
        "CosineAnnealingWarmRestarts(opt, T_0=50, T_mult=2, eta_min=0.01)",
        "cosine_restarts(0.5, 0.01, period=50, stretch=2)",
    ),
    Peer(
        "torch",
        "CyclicLR(opt, base_lr=0.1, max_lr=1.0, step_size_up=40, step_size_down=60, mode='triangular2', "
        "cycle_momentum=False)",
        "cyclic(0.1, 1.0, rise=40, fall=60, factor=0.5)",
        "moves the momentum too, unless told not to; here that is a schedule of `momentum`",
    ),
    Peer(
        "torch",
        "CyclicLR(opt, base_lr=0.1, max_lr=1.0, step_size_up=40, mode='exp_range', gamma=0.99, cycle_momentum=False)",
        "cyclic(0.1, 1.0, rise=40, factor=0.99, per='step')",
    ),
    Peer(
        "torch",
        "OneCycleLR(opt, max_lr=1.0, total_steps=501, cycle_momentum=False)",
        "one_cycle(1.0, rise=149.3, fall=350.7)",
        "the peak is at `pct_start * total_steps - 1`, the end at `total_steps - 1`; a further step is an error there",
    ),
    Peer(
        "torch",
        "SequentialLR(opt, [ConstantLR(opt, 0.1, total_iters=20), ExponentialLR(opt, 0.99)], milestones=[20])",
        "constant(0.05, steps=20) >> exponential(0.5, 0.99)",
    ),
    Peer(
        "torch",
        "ChainedScheduler([ConstantLR(opt, 0.1, total_iters=20), ExponentialLR(opt, 0.99)])",
        "(constant(0.1, steps=20) >> 1.0) * exponential(0.5, 0.99)",
    ),
    Peer(
        "torch",
        "ReduceLROnPlateau(opt, factor=0.5, patience=3, cooldown=2, min_lr=0.01, eps=0)",
        "plateau(0.5, factor=0.5, patience=3, cooldown=2, stop=0.01)",
        "the loss of a step changes the rate of the next one; here that of the same step. Changes below `eps` are left "
        "out there. Of negative losses, a relative threshold is on the other side there",
    ),
    Peer("optax", "constant_schedule(0.3)", "constant(0.3)"),
    Peer("optax", "linear_schedule(1.0, 0.1, 200)", "linear(1.0, 0.1, steps=200)"),
    Peer("optax", "polynomial_schedule(1.0, 0.1, 3.0, 200)", "polynomial(1.0, 0.1, steps=200, power=3.0)"),
    Peer(
        "optax",
        "cosine_decay_schedule(1.0, 200, alpha=0.1, exponent=2.0)",
        "cosine(1.0, 0.1, steps=200, power=2.0)",
        "`alpha` is a share of the start",
    ),
    Peer(
        "optax",
        "exponential_decay(1.0, 20, 0.5, end_value=0.01)",
        "exponential(1.0, 0.5, every=20, stop=0.01)",
        "`staircase=True` is `staircase` here",
    ),
    Peer(
        "optax",
        "piecewise_constant_schedule(1.0, {30: 0.5, 80: 0.1})",
        "piecewise(levels=(1.0, 0.5, 0.05), boundaries=(30, 80))",
        "boundaries come with factors; both have the new value at a boundary, where Keras's `PiecewiseConstantDecay` "
        "has the old one",
    ),
    Peer(
        "optax",
        "piecewise_interpolate_schedule('cosine', 1.0, {100: 0.5, 300: 0.1})",
        "cosine(1.0, 0.5, steps=100) >> cosine(0.5, 0.05, steps=200)",
    ),
    Peer(
        "optax",
        "linear_onecycle_schedule(500, 1.0)",
        "one_cycle(1.0, rise=150, fall=275, last=75, curve='linear')",
    ),
    Peer("optax", "cosine_onecycle_schedule(500, 1.0)", "one_cycle(1.0, rise=150, fall=350)"),
    Peer(
        "optax",
        "warmup_constant_schedule(0.0, 1.0, 50)",
        "linear(0.0, 1.0, steps=50)",
        "the first step of a warm-up may be 0; `warmup` has none of 0",
    ),
    Peer(
        "optax",
        "warmup_cosine_decay_schedule(0.1, 1.0, 50, 400, 0.01)",
        "linear(0.1, 1.0, steps=50) >> cosine(1.0, 0.01, steps=350)",
        "`decay_steps` counts the warm-up",
    ),
    Peer(
        "optax",
        "warmup_exponential_decay_schedule(0.1, 1.0, 50, 20, 0.5)",
        "linear(0.1, 1.0, steps=50) >> exponential(1.0, 0.5, every=20)",
    ),
    Peer(
        "optax",
        "sgdr_schedule([dict(init_value=0.1, peak_value=1.0, warmup_steps=10, decay_steps=100, end_value=0.0), "
        "dict(init_value=0.1, peak_value=0.5, warmup_steps=20, decay_steps=300, end_value=0.0)])",
        "linear(0.1, 1.0, steps=10) >> cosine(1.0, 0.0, steps=90) >> linear(0.1, 0.5, steps=20) "
        ">> cosine(0.5, 0.0, steps=280)",
    ),
    Peer(
        "optax",
        "join_schedules([linear_schedule(0.0, 1.0, 10), constant_schedule(1.0)], [20])",
        "(linear(0.0, 1.0, steps=10) * constant(1.0, steps=20)) >> 1.0",
        "boundaries are said apart from the schedules; here the length of a schedule is part of it",
    ),
]
