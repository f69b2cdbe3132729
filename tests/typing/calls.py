"""Calls that a type checker takes, and calls that it refuses: ``nox -s types`` fails where one of these is not so.

Nothing here runs. A ``type: ignore`` stands where an error is wanted; one that hides none is an error itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, assert_type

import numpy as np

import xpopt
from xpopt import Range, setting
from xpopt.schedulers import Schedule, SchedulerBase, cosine, linear, maximum, warmup

# Every setting is known by name and type, the options among them

xpopt.Adam()
xpopt.Adam(0.1, 0.9, 0.999, 1e-8)
xpopt.Adam(lr=0.1, clip_norm=1.0, nonfinite="skip", master=True, seed=3)
xpopt.SGD(0.1, 0.9, rounding="stochastic", lr_scheduler="king")
xpopt.SGD(lr_scheduler={"id": "NoamScheduler", "model_dim": 64})
xpopt.RMSProp(decay=0.5, lr_scheduler=xpopt.NoamScheduler(model_dim=64))
xpopt.Adam(**xpopt.Adam().hyperparameters)
xpopt.AdamW(0.1, 0.9, 0.999, 1e-8, weight_decay=0.1, l2=0.01, cautious=True, maximize=True, lr_scale=0.5)
xpopt.Adam(average=xpopt.EMA(0.99, warmup=False), lookahead=xpopt.Lookahead(every=5, pull=0.5))
xpopt.Adam(average=xpopt.SWA(1000, 100), clip_global=1.0, agc=0.01)
xpopt.Adam(agc=xpopt.AGC(0.02, eps=1e-4))
xpopt.SGD(bounds=(0, None), clip_value=1.0, weight_decay=xpopt.WeightDecay(0.1, times_lr=False, towards="start"))

xpopt.Adam(learning_rate=0.1)  # type: ignore[call-arg]
xpopt.Adam(momentum=0.9)  # type: ignore[call-arg]
xpopt.SGD(mastr=True)  # type: ignore[call-arg]
xpopt.Adam(lr="0.1")  # type: ignore[arg-type]
xpopt.Adam(nonfinite="skipp")  # type: ignore[arg-type]
xpopt.Adam(rounding="down")  # type: ignore[arg-type]
xpopt.Adam(clip_norm="1")  # type: ignore[arg-type]
xpopt.Adam(lr_scheduler=0.1)  # type: ignore[arg-type]
xpopt.Adam(bounds=1.0)  # type: ignore[arg-type]
xpopt.Adam(transforms=[0.1])  # type: ignore[list-item]
xpopt.WeightDecay(decay=0.1)  # type: ignore[call-arg]
xpopt.Adam(average=0.99)  # type: ignore[arg-type]
xpopt.SWA()  # type: ignore[call-arg]
xpopt.SGD(0.1, 0.9, True)  # type: ignore[call-arg]

xpopt.KingScheduler(0.1, patience=100, decay=0.5)
xpopt.ExponentialScheduler(staircase=True)
xpopt.NoamScheduler(dim=512)  # type: ignore[call-arg]
xpopt.KingScheduler(patience="long")  # type: ignore[arg-type]

rate = warmup(steps=10) * 0.1 >> cosine(0.1, 0.0, steps=90) >> 0.01
assert_type(rate, Schedule)
xpopt.Adam(lr=rate, decay1=linear(0.8, 0.9, steps=9), weight_decay=maximum(rate, 0.02), clip_norm=2 * rate)
xpopt.Adam(weight_decay=xpopt.WeightDecay(rate), average=xpopt.EMA(rate))
linear(0.1, 0.0)  # type: ignore[call-arg]
cosine(step=3)  # type: ignore[call-arg]
xpopt.Adam(seed=rate)  # type: ignore[arg-type]

# What is read has a type too

adam = xpopt.Adam()
assert_type(adam.lr, float)
assert_type(adam.decay1, float)
assert_type(adam.clip_norm, float | None)
assert_type(adam.master, bool)
assert_type(adam.lr_scheduler, SchedulerBase)
adam.lr_scheduler = "NoamScheduler(model_dim=64)"
adam.lr_scheduler = None
adam.lr_scheduler = 0.1  # type: ignore[assignment]
adam.momentum  # type: ignore[attr-defined]

# Classes of one's own


class State(NamedTuple):
    total: Any


class Damped(xpopt.OptimizerBase):
    lr: float = setting(default=0.1)
    damping: float = setting(default=0.5, range=Range(low=0, high=1))
    late: bool = setting(default=False, kw_only=True)

    slots = State

    @staticmethod
    def rule(xp: Any, param: Any, grad: Any, s: State, h: Any) -> tuple[Any, State]:
        return param - h.lr * (1 - h.damping) * grad, s


Damped()
Damped(0.1, 0.25, late=True, nonfinite="raise")
Damped(0.1, 0.25, True)  # type: ignore[call-arg]
Damped(dampning=0.25)  # type: ignore[call-arg]


class Chosen(Damped):
    plain = xpopt.Rule(Damped.rule, State, where=lambda dtype, shape: len(shape) == 1 and dtype.startswith("float"))

    @classmethod
    def choose_rule(cls, settings: Mapping[str, Any]) -> tuple[xpopt.Rule, ...]:
        return cls.plain, xpopt.Rule(Damped.rule, State, lambda h: {"half": h.lr / 2})


xpopt.Rule(Damped.rule, State, None, True)  # type: ignore[call-arg, arg-type]
xpopt.kernel_source(Chosen(), shape=(2, 3))


class Faster(xpopt.Adam):
    lr: float = 0.01


Faster(decay1=0.5)
Faster(rate=0.5)  # type: ignore[call-arg]


class Explicit(xpopt.Adam):
    def __init__(self, lr: float = 0.1, **kwargs: Any) -> None:
        super().__init__(lr, **kwargs)


Explicit(0.1, decay1=0.5)


class Rate(SchedulerBase):
    rate: float = setting(range=Range(low=0))

    def learning_rate(self, step: Any, cur_loss: Any = None) -> float:
        return self.rate


Rate(0.1)
Rate()  # type: ignore[call-arg]


# Containers come back as they are


@dataclass
class Layer:
    W: np.ndarray[Any, Any]
    b: np.ndarray[Any, Any]


layer = Layer(np.ones(2), np.ones(1))
assert_type(xpopt.Adam().update_all(layer, {"W": np.ones(2), "b": np.ones(1)}), Layer)
assert_type(xpopt.Adam().update_all([layer], [layer]), list[Layer])
xpopt.Adam().update_all(np.ones(2), np.ones(2))  # type: ignore[type-var, arg-type]
xpopt.testing.check_optimizer(Damped, oracle=None, skip=["text"])
xpopt.testing.check_host(lambda optimizer, params, grads: params, loss=False)
