"""The curves of the schedules, a function for each picture."""

import matplotlib.pyplot as plt
import numpy as np

from xpopt import schedulers as s


def draw(curves, steps=100, losses=None):
    """Draw schedules over some steps, each with its name if it has one."""
    _, axes = plt.subplots(figsize=(6.4, 2.2), layout="constrained")
    for label, schedule in curves.items():
        line = "-" if label in list(curves)[:1] else "--"
        axes.plot(schedule.values(steps, losses if schedule.reads_loss else None), line, label=label)
    axes.set(xlabel="step")
    axes.margins(x=0.01)
    if len(curves) > 1:
        axes.legend(fontsize="small")
    return axes


def warm_cosine():
    draw({"": s.warmup(steps=10) * 1e-3 >> s.cosine(1e-3, 1e-4, steps=80) >> 1e-4})


def constant():
    draw({"": s.constant(1.0, steps=40) >> 0.5})


def linear():
    draw({"linear": s.linear(1.0, 0.1, steps=80), "polynomial, power=3": s.polynomial(1.0, 0.1, steps=80, power=3)})


def warmup():
    draw({"": s.warmup(steps=20)}, steps=40)


def cosine():
    draw({"cosine": s.cosine(1.0, 0.1, steps=80), "power=2": s.cosine(1.0, 0.1, steps=80, power=2)})


def cosine_restarts():
    draw({"": s.cosine_restarts(1.0, 0.0, period=15, stretch=2, shrink=0.7)})


def exponential():
    draw(
        {
            "exponential": s.exponential(1.0, 0.5, every=20, stop=0.1),
            "inverse_time, rate=0.1": s.inverse_time(1.0, 0.1),
            "inverse_time, rate=0.1, power=0.5": s.inverse_time(1.0, 0.1, power=0.5),
        }
    )


def staircase():
    draw(
        {
            "staircase": s.staircase(1.0, 0.5, every=20),
            "multi_step": s.multi_step(1.0, 0.3, boundaries=(50, 75)),
            "piecewise": s.piecewise((0.2, 0.8, 0.4), (30, 70)),
        }
    )


def one_cycle():
    draw(
        {
            "cosine": s.one_cycle(1.0, rise=30, fall=70),
            "linear, last=15": s.one_cycle(1.0, rise=30, fall=55, last=15, curve="linear"),
        }
    )


def cyclic():
    draw(
        {"cyclic": s.cyclic(0.1, 1.0, rise=10), "factor=0.7, fall=15": s.cyclic(0.1, 1.0, rise=10, fall=15, factor=0.7)}
    )


def wsd():
    draw({curve: s.wsd(1.0, warmup=10, stable=50, decay=40, curve=curve) for curve in ("linear", "root", "cosine")})


LOSSES = np.exp(-np.minimum(np.arange(100), 40) / 15)


def plateau():
    axes = draw({"plateau": s.plateau(1.0, 0.5, patience=10)}, losses=LOSSES)
    axes.plot(LOSSES, "0.6", label="the loss")
    axes.legend(fontsize="small")


def function():
    draw({"": s.function(lambda t: 0.5 + 0.5 * np.sin(t / 8) * 0.98**t)})


def operators():
    draw(
        {
            "cyclic * exponential": s.cyclic(0.2, 1.0, rise=8) * s.exponential(1.0, 0.98),
            "maximum(linear, 0.3)": s.maximum(s.linear(1.0, 0.0, steps=100), 0.3),
        }
    )


def repeat():
    draw({"": s.repeat(s.linear(0.0, 1.0, steps=5) >> s.cosine(1.0, 0.0, steps=20), times=3)})
