"""The schedules once more, by hand: decimals of 50 digits, and fractions that round nothing."""

import math
import sys
from decimal import Decimal, localcontext
from fractions import Fraction
from statistics import NormalDist


def constant(step, lr=0.01):
    return lr


def exponential(step, initial_lr=0.01, stage_length=500, staircase=False, decay=0.1):
    with localcontext(prec=50):
        exponent = Decimal(step) / Decimal(stage_length)
        if staircase:
            exponent = Decimal(math.floor(Fraction(step) / Fraction(stage_length)))
        return float(Decimal(initial_lr) * Decimal(decay) ** exponent)


def noam(step, model_dim=512, scale_factor=1, warmup_steps=4000):
    with localcontext(prec=50):
        step, warmup = Decimal(max(step, 1)), Decimal(warmup_steps)
        falling = 1 / step.sqrt()
        rising = step / (warmup * warmup.sqrt())
        return float(Decimal(scale_factor) / Decimal(model_dim).sqrt() * min(falling, rising))


def king_history(patience):
    """How many losses are kept: the least length whose lower 90 % fill a window of patience + 1."""
    length = patience + 1
    while math.floor(Fraction(9, 10) * (length - 1)) + 1 < patience + 1:
        length += 1
    return length


def king_falling(losses):
    """The probability that the losses go down: normal equations of a line, in whole numbers until the last."""
    n = len(losses)
    x = range(n)
    ratios = [loss.as_integer_ratio() for loss in losses]
    unit = math.lcm(*(below for _, below in ratios))
    y = [above * (unit // below) for above, below in ratios]  # in units of 1 / unit, all are whole
    sum_x, sum_y = sum(x), sum(y)
    rise = n * sum(a * b for a, b in zip(x, y, strict=True)) - sum_x * sum_y
    run = n * sum(a * a for a in x) - sum_x**2
    start = run * sum_y - rise * sum_x  # the line is (start + n * rise * a) / (n * run)
    residuals = (n * run * b - start - n * rise * a for a, b in zip(x, y, strict=True))
    ssr = Fraction(sum(r * r for r in residuals), (n * run * unit) ** 2)
    slope = Fraction(rise, run * unit)
    variance = 12 * (ssr / (n - 2)) / (n**3 - n)
    ratio = float(min(slope**2 / (variance + Fraction(sys.float_info.epsilon)), Fraction(10**6)))
    return NormalDist().cdf(math.copysign(math.sqrt(ratio), -slope) if slope else 0.0)


def king_decays(losses, patience):
    """Whether the rate decays at the step that brought the last of `losses`."""
    kept = losses[-king_history(patience) :]
    window = patience + 1
    if len(kept) < window or king_falling(kept[-window:]) >= 0.51:
        return False
    ordered = sorted(kept)
    position = Fraction(9, 10) * (len(kept) - 1)
    below = math.floor(position)
    low, high = (Fraction(ordered[i]) for i in (below, min(below + 1, len(kept) - 1)))
    quantile = low + (high - low) * (position - below)
    lower = [loss for loss in kept if loss <= quantile]
    return len(lower) >= window and king_falling(lower[-window:]) < 0.51


def king(losses, initial_lr=0.01, patience=1000, decay=0.99):
    """The rate after each of `losses`."""
    rates, rate = [], initial_lr
    for count in range(1, len(losses) + 1):
        if king_decays(losses[:count], patience):
            rate *= decay
        rates.append(rate)
    return rates
