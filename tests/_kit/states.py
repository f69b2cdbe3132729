"""What the tests of names, state and errors share: optimizers to run, what they hold, and that nothing changed."""

from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from xpopt.schedulers import SchedulerBase

from .rows import KINDS, rows
from .table import PROMISES

OPTIMIZERS = {label: partial(row.make, lr=0.125) for label, row in PROMISES.items()}
SCHEDULERS = [
    "ConstantScheduler(lr=0.125)",
    "ExponentialScheduler(initial_lr=0.125, stage_length=2, staircase=False, decay=0.5)",
    "NoamScheduler(model_dim=16, scale_factor=2, warmup_steps=3)",
    "KingScheduler(initial_lr=0.125, patience=2, decay=0.5)",
]
KING = SCHEDULERS[3]
RISING = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]  # losses on which King decays at every step from the fourth on

writes = pytest.mark.backends("numpy", "numpy-readonly", "array-api-strict", "torch", "cupy")
"""For tests of `out=`: the others have no array that can be written."""

every_optimizer = pytest.mark.parametrize("make", rows(OPTIMIZERS, KINDS))
every_scheduler = pytest.mark.parametrize(
    "scheduler", rows({text.partition("(")[0]: text for text in SCHEDULERS}, ["KingScheduler"])
)
"""Elsewhere the one with the most state."""


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
    return _frozen(backend, value, backend.computed(value))


def _frozen(backend, value, computed):
    if isinstance(value, dict):
        return {key: _frozen(backend, value[key], computed[key]) for key in value}
    if isinstance(value, list | tuple):
        return [_frozen(backend, *pair) for pair in zip(value, computed, strict=True)]
    if hasattr(value, "dtype"):
        return kind(value), backend.numpy(computed).tobytes()
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


def advance(opt, steps):
    """Move the step and all counts of `opt` on, as a checkpoint has them, and nothing else."""
    state = opt.state_dict()
    state["header"]["cur_step"] += steps
    for parameter in state["header"]["parameters"]:
        parameter["updates"] += steps
    opt.load_state_dict(state)


MODEL = {"W": (2, 3), "b": (3,)}


def model(backend, dtype=None, scale=1.0):
    """Parameters and gradients of a small model, the same at every call."""
    rng = np.random.default_rng(20170814)
    params = {name: backend.array(rng.normal(size=shape), dtype) for name, shape in MODEL.items()}
    grads = {name: backend.array(scale * rng.normal(size=shape), dtype) for name, shape in MODEL.items()}
    return params, grads


def train(backend, opt, steps, params=None, dtype=None):
    """Make some steps on the small model, with another gradient at each, one `update` per parameter."""
    if params is None:
        params, _ = model(backend, dtype)
    for step in range(steps):
        _, grads = model(backend, dtype, scale=1 + step)
        params = {name: opt.update(params[name], grads[name], name, RISING[step % 6]) for name in params}
        opt.step()
    return params


def outlook(backend, opt, dtype=None):
    """What a copy of `opt` does from here: in this pass, and in those to come; of Dask's slow graphs in this alone."""
    opt = opt.copy()
    params, grads = model(backend, dtype)
    here = opt.update(params["b"], grads["b"], "a name of its own", 9.0)
    opt.step()
    ahead = train(backend, opt, 1, params, dtype) if backend.library != "dask" else {}
    return frozen(backend, [here, ahead, opt.cache]), opt.lr_scheduler.state()


@contextmanager
def nothing_changes(backend, opt, *arrays, dtype=None):
    """Whatever is tried inside, `opt` holds what it held, goes on as it would have, and `arrays` keep their values."""
    before, ahead = held(backend, opt), outlook(backend, opt, dtype)
    values = [frozen(backend, x) for x in arrays]
    yield
    assert held(backend, opt) == before
    assert [frozen(backend, x) for x in arrays] == values
    assert outlook(backend, opt, dtype) == ahead
