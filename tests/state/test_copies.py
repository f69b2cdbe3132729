"""Copies and pickles, taken in the middle of a training, go on alone and bit for bit."""

import copy
import pickle

import numpy as np
import pytest
from _kit.rows import rows
from _kit.states import (
    KING,
    RISING,
    CountingScheduler,
    LossScheduler,
    every_optimizer,
    every_scheduler,
    frozen,
    held,
    model,
    outlook,
    same,
    train,
    writes,
)

from xpopt import SGD, Adam, OptimizerBase, Range
from xpopt.schedulers import SchedulerBase

pytestmark = pytest.mark.any_immutable

COPIES = {
    "copy": lambda opt: opt.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda opt, protocol=protocol: pickle.loads(pickle.dumps(opt, protocol))
        for protocol in (2, pickle.HIGHEST_PROTOCOL)
    },
    "a copy of a copy of a pickle": lambda opt: pickle.loads(pickle.dumps(opt)).copy().copy(),
}

every_copy = pytest.mark.parametrize("duplicate", rows(COPIES, ["copy", f"pickle {pickle.HIGHEST_PROTOCOL}"]))
"""The others differ only on the host."""


@every_scheduler
@every_optimizer
def test_a_copy_goes_on_bit_for_bit(backend, make, scheduler):
    """Each copy makes the steps that the original makes, and neither feels the other's."""
    opt = make(lr_scheduler=scheduler)
    params = train(backend, opt, 3)
    before = held(backend, opt)
    copies = {name: duplicate(opt) for name, duplicate in COPIES.items()}
    for twin in copies.values():
        assert type(twin) is type(opt)
        assert held(backend, twin) == before
    last = copies.popitem()[1]
    train(backend, last, 1, params)
    assert held(backend, opt) == before
    want = train(backend, opt, 1, params), opt.cache
    after = held(backend, opt)
    assert after != before
    for name, twin in copies.items():
        if backend.name != "numpy" and name not in ("copy", f"pickle {pickle.HIGHEST_PROTOCOL}"):
            continue  # the others differ only on the host
        assert held(backend, twin) == before
        assert same(backend, (train(backend, twin, 1, params), twin.cache), want)
        assert held(backend, twin) == after
    assert held(backend, last) == after


@every_copy
def test_a_copy_keeps_the_dtype(backend, duplicate):
    for dtype in backend.dtypes:
        opt = Adam(lr_scheduler=KING)
        params = train(backend, opt, 2, dtype=dtype)
        twin = duplicate(opt)
        assert same(backend, train(backend, twin, 1, params, dtype), train(backend, opt, 1, params, dtype))


@every_copy
def test_a_copy_in_the_middle_of_a_pass_is_in_its_middle(backend, duplicate):
    opt = Adam(lr_scheduler=LossScheduler())
    params = train(backend, opt, 2)
    opt.update(params["W"], params["W"], "W", 9.0)
    twin = duplicate(opt)
    assert outlook(backend, twin) == outlook(backend, opt)
    for one in (opt, twin):
        one.update(params["b"], params["b"], "b", 10.0)
        one.update(params["W"], params["W"], "W", 11.0)
        assert one.lr_scheduler.state()["losses"] == [*RISING[:2], 9.0, 11.0]


@every_copy
@pytest.mark.parametrize("make", [Adam, lambda **kwargs: SGD(momentum=0.5, **kwargs)], ids=["Adam", "SGD"])
def test_a_copy_shares_nothing(backend, make, duplicate):
    opt = make(lr_scheduler=KING)
    train(backend, opt, 3)
    before = held(backend, opt), outlook(backend, opt)
    twin = duplicate(opt)
    assert twin.lr_scheduler is not opt.lr_scheduler
    assert twin.cache is not opt.cache
    for entry in twin.cache.values():
        for slot in [x for x in (entry.values() if isinstance(entry, dict) else [entry]) if hasattr(x, "shape")]:
            if backend.mutable:
                slot[...] = 77.0
        if isinstance(entry, dict):
            entry["t"] = 77
    twin.cache.clear()
    twin.set_params({"lr": 0.5, "clip_norm": 3.0})
    twin.lr_scheduler.set_params({"patience": 5})
    twin.reset_step()
    assert (held(backend, opt), outlook(backend, opt)) == before


@every_copy
def test_a_copy_keeps_the_count_that_a_bare_slot_does_not_show(backend, duplicate):
    opt = SGD(momentum=0.5)
    train(backend, opt, 3)
    twin = duplicate(opt)
    twin.set_params({"momentum": 0})
    train(backend, twin, 1)
    assert twin.cache == {"W": {"t": 4}, "b": {"t": 4}}


@writes
@every_optimizer
def test_the_originals_slots_may_be_written(backend, make):
    opt = make()
    train(backend, opt, 2)
    twin = opt.copy()
    before = frozen(backend, twin.cache)
    for entry in opt.cache.values():
        for slot in [x for x in (entry.values() if isinstance(entry, dict) else [entry]) if hasattr(x, "shape")]:
            slot[...] = 77.0
    assert frozen(backend, twin.cache) == before


class Odd:
    """A name equal to itself alone, that cannot be copied."""

    def __deepcopy__(self, memo):
        raise TypeError("no copies")

    __copy__ = __reduce__ = __reduce_ex__ = __deepcopy__


@pytest.mark.parametrize("duplicate", [COPIES["copy"], copy.copy, copy.deepcopy], ids=["copy", "copy.copy", "deepcopy"])
@pytest.mark.parametrize("name", [object(), Odd(), (object(), 1)], ids=["object", "uncopyable", "in a tuple"])
def test_names_are_not_copied(backend, name, duplicate):
    """A name means the same to the copy: its state, and its part in the pass."""
    opt = Adam(lr_scheduler=LossScheduler())
    x = backend.array([1.0])
    opt.update(x, x, name, 1.0)
    twin = duplicate(opt)
    assert list(twin.cache) == [name]
    for one in (opt, twin):
        one.update(x, x, "b", 2.0)
        one.update(x, x, name, 3.0)
        assert one.cache[name]["t"] == 2
        assert one.lr_scheduler.state()["losses"] == [1.0, 3.0]


class Looks(SchedulerBase):
    """Knows its optimizer."""

    ranges = {"lr": Range(low=0)}
    rate_name = "lr"

    def __init__(self, lr=0.5):
        super().__init__(lr=lr)
        self.opt = None

    def learning_rate(self, step, cur_loss=None):
        return self.lr / (1 + len(self.opt.cache))


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_a_schedule_that_knows_its_optimizer_knows_the_copy(backend, duplicate):
    opt = Adam(lr_scheduler=Looks())
    opt.lr_scheduler.opt = opt
    x = backend.array([1.0])
    opt.update(x, x, "W")
    twin = duplicate(opt)
    assert twin.lr_scheduler.opt is twin
    twin.update(x, x, "b")
    assert list(opt.cache) == ["W"]


def test_a_schedule_that_knows_its_optimizer_keeps_it_when_settings_change(backend):
    opt = Adam(lr_scheduler=Looks())
    opt.lr_scheduler.opt = opt
    for change in (lambda: opt.set_params({"lr": 0.25}), lambda: setattr(opt, "lr_scheduler", opt.lr_scheduler)):
        before = opt.lr_scheduler
        change()
        assert opt.lr_scheduler is not before
        assert opt.lr_scheduler.opt is opt
    assert opt.lr_scheduler.lr == 0.25


def test_what_a_user_hangs_on_it_is_copied_too(backend):
    opt = SGD()
    opt.note = {"run": [1]}
    for duplicate in COPIES.values():
        twin = duplicate(opt)
        twin.note["run"].append(2)
        assert opt.note == {"run": [1]}


def test_two_in_one_container_stay_two(backend):
    opt = Adam()
    train(backend, opt, 1)
    first, second, other = copy.deepcopy([opt, opt, Adam()])
    assert first is second
    assert other is not first
    unpickled = pickle.loads(pickle.dumps({"a": opt, "b": opt}))
    assert unpickled["a"] is unpickled["b"]


def test_a_warning_given_is_given(backend):
    opt = SGD(lr_scheduler=CountingScheduler())
    params, grads = model(backend)
    opt.update(params["W"], grads["W"], "W")
    with pytest.warns(UserWarning, match="step"):
        opt.update(params["W"], grads["W"], "W")
    for duplicate in COPIES.values():
        duplicate(opt).update(params["W"], grads["W"], "W")


def test_a_copy_is_of_its_class(backend):
    class Mine(SGD):
        pass

    assert type(Mine().copy()) is Mine
    assert isinstance(Mine().copy(), OptimizerBase)


@pytest.mark.backends("numpy")
def test_a_rule_that_was_used_may_be_pickled(backend, fused):
    """As libraries do that pickle a class by value; what was made of it stays behind."""
    opt, W = Adam(), np.ones(3)
    opt.update(W, W, "W")
    rule = opt._parts.settings.rule
    assert rule.made
    again = pickle.loads(pickle.dumps(rule))
    assert (again.function, again.slots, again.made) == (rule.function, rule.slots, {})
