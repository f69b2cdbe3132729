"""What the tests of names, state and errors share: optimizers to run, what they hold, and that a failure changed none."""

from contextlib import contextmanager

import numpy as np
import pytest

from xpopt import SGD, AdaGrad, Adam, RMSProp
from xpopt.schedulers import SchedulerBase

OPTIMIZERS = {
    "SGD": lambda **kw: SGD(**{"lr": 0.125, **kw}),
    "SGD with momentum": lambda **kw: SGD(**{"lr": 0.125, "momentum": 0.5, **kw}),
    "AdaGrad": lambda **kw: AdaGrad(**{"lr": 0.125, **kw}),
    "RMSProp": lambda **kw: RMSProp(**{"lr": 0.125, **kw}),
    "Adam": lambda **kw: Adam(**{"lr": 0.125, **kw}),
}
SCHEDULERS = [
    "ConstantScheduler(lr=0.125)",
    "ExponentialScheduler(initial_lr=0.125, stage_length=2, staircase=False, decay=0.5)",
    "NoamScheduler(model_dim=16, scale_factor=2, warmup_steps=3)",
    "KingScheduler(initial_lr=0.125, patience=2, decay=0.5)",
]
KING = SCHEDULERS[3]
RISING = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]  # losses on which King decays at every step from the third on

every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


class CountingScheduler(SchedulerBase):
    """Halves the rate at every call, and raises what `failure` holds."""

    def __init__(self):
        super().__init__()
        self.failure = None

    def reset(self):
        self.losses = []

    def state(self):
        return {"losses": list(self.losses)}

    def restore(self, state):
        self.losses = list(state["losses"])

    def learning_rate(self, step, cur_loss=None):
        self.losses.append(cur_loss)
        if self.failure is not None:
            raise self.failure
        return 2.0 ** -len(self.losses)


class LossScheduler(CountingScheduler):
    """The same, standing still in the step: it may be called without a step."""

    reads_step = False


def kind(x):
    """What an array is, apart from its values."""
    return type(x).__name__, str(x.dtype), tuple(x.shape), str(getattr(x, "device", ""))


def frozen(backend, value):
    """`value` as plain data, bit for bit, to be compared later."""
    if isinstance(value, dict):
        return {key: frozen(backend, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [frozen(backend, item) for item in value]
    if hasattr(value, "dtype"):
        return kind(value), backend.numpy(value).tobytes()
    return value


def held(backend, opt):
    """Everything that an optimizer shows, as plain data."""
    return {
        "hyperparameters": dict(opt.hyperparameters),
        "cache": frozen(backend, opt.cache),
        "cur_step": opt.cur_step,
        "schedule": opt.lr_scheduler.state(),
        "str": str(opt),
    }


def same(backend, a, b):
    """Whether two arrays, or containers of them, agree bit for bit."""
    return frozen(backend, a) == frozen(backend, b)


def equal(backend, x, values):
    """Whether an array holds exactly these values."""
    return bool(np.array_equal(backend.numpy(x), np.asarray(values, dtype=np.float64), equal_nan=True))


@contextmanager
def nothing_changes(backend, opt, *arrays):
    """Whatever is tried inside, `opt` holds what it held, goes on as it would have, and `arrays` keep their values."""
    twin = opt.copy()
    before, values = held(backend, opt), [frozen(backend, x) for x in arrays]
    names = list(opt.cache)
    shapes = {name: shape_of(opt, name) for name in names}
    yield
    assert held(backend, opt) == before
    assert [frozen(backend, x) for x in arrays] == values
    for name in names:  # counts that the cache does not show act on what follows
        if shapes[name] is None:
            continue
        shape, dtype = shapes[name]
        W = backend.array(np.ones(shape), dtype)
        for loss in (7.0, 8.0):
            results = [one.copy_before(W, name, loss) for one in (_Going(opt), _Going(twin))]
            assert same(backend, *results)
    assert held(backend, opt) == before


class _Going:
    def __init__(self, opt):
        self.opt = opt.copy()

    def copy_before(self, W, name, loss):
        W = self.opt.update(W, W, name, loss)
        self.opt.step()
        return [self.opt.update(W, W, name, loss + 1), self.opt.cache]


def shape_of(opt, name):
    """Shape and dtype of the slots of `name`; None where the cache does not say."""
    entry = opt.cache[name]
    slots = [x for x in (entry.values() if isinstance(entry, dict) else [entry]) if hasattr(x, "shape")]
    return (tuple(slots[0].shape), str(slots[0].dtype).rpartition(".")[2]) if slots else None
