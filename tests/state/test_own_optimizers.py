"""Optimizers that a user writes: one rule gives all the rest, and a wrong rule is an error that changes nothing."""

import copy
import math
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit.states import equal, frozen, held, model, nothing_changes, same, train, writes

from xpopt import SGD, OptimizerBase, Range, make_optimizer

pytestmark = [
    pytest.mark.any_immutable,
    pytest.mark.usefixtures("eager"),  # several rules here are not the same at each update
]


class One(NamedTuple):
    slot: Any


class Two(NamedTuple):
    first: Any
    second: Any


class Shortest(OptimizerBase):
    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - h.lr * grad, s


class Counted(OptimizerBase):
    """One slot, and the count read in `scalars`."""

    slots = One
    ranges = {"decay": Range(low=0, high=1)}

    def __init__(self, lr=0.5, decay=0.5, clip_norm=None, lr_scheduler=None, **kwargs):
        super().__init__(lr, lr_scheduler, decay=decay, clip_norm=clip_norm, **kwargs)

    @staticmethod
    def scalars(h):
        return {"weight": 1 - h.decay**h.t if h.t > 1 else math.sqrt(0.25)}

    @staticmethod
    def rule(xp, param, grad, s, h):
        slot = s.slot + h.weight * grad
        return param - h.lr * slot, One(slot)


def optimizer_of(rule, slots=One, entry="dict"):
    """An optimizer with that rule, whose class is nowhere to be imported from."""

    class Local(OptimizerBase):
        def __init__(self, lr=0.5, clip_norm=None, lr_scheduler=None):
            super().__init__(lr, lr_scheduler, clip_norm=clip_norm)

    Local.slots, Local.entry = slots, entry
    Local.rule = staticmethod(rule)
    return Local()


def test_a_rule_alone_is_an_optimizer(backend):
    opt = Shortest(0.5)
    assert opt.hyperparameters["id"] == "Shortest"
    assert opt.hyperparameters["lr"] == 0.5
    W = backend.array([1.0, 2.0])
    assert equal(backend, opt.update(W, W, "W"), [0.5, 1.0])
    assert opt.cache == {"W": {"t": 1}}
    opt.set_params({"lr": 0.25})
    assert equal(backend, opt.copy().update(W, W, "W"), [0.75, 1.5])
    scheduled = Shortest(0.5, "exponential")
    assert scheduled.hyperparameters["lr_scheduler"].startswith("ExponentialScheduler(initial_lr=0.5")
    for opt_again in (make_optimizer(str(scheduled)), make_optimizer({"hyperparameters": scheduled.hyperparameters})):
        assert opt_again.hyperparameters == scheduled.hyperparameters
    clipped = Shortest(1.0, clip_norm=1.0)
    assert equal(backend, clipped.update(W, backend.array([2.0, 0.0]), "W"), [0.0, 2.0])


@pytest.mark.parametrize("names", [["lr"], ["lr", "clip_norm"], ["clip_norm", "lr_scheduler"], []], ids="+".join)
def test_a_constructor_may_state_less(backend, names):
    """A keyword that is not its own is a fixed value; the rest works as ever."""

    class Fewer(Shortest):
        pass

    takes = ", ".join(f"{name}=None" if name != "lr" else "lr=0.5" for name in names)
    rate = "lr" if "lr" in names else "0.5"
    passed = ", ".join(f"{name}={name}" for name in names if name == "clip_norm")
    scheduler = "lr_scheduler" if "lr_scheduler" in names else "None"
    scope = {"base": Shortest}
    exec(f"def init(self, {takes}): base.__init__(self, {rate}, {scheduler}, {passed})", scope)
    Fewer.__init__ = scope["init"]
    opt = Fewer()
    W = backend.array([1.0, 2.0])
    assert equal(backend, opt.update(W, W, "W"), [0.5, 1.0])
    assert equal(backend, opt.update_all({"W": W}, {"W": W})["W"], [0.5, 1.0])
    for name in names:
        assert f"{name}=" in str(opt)
        assert name in opt.hyperparameters
    opt.step()
    assert str(opt.copy()) == str(opt)


def test_keywords_passed_on_act(backend):
    class Through(Shortest):
        def __init__(self, lr=0.5, **kwargs):
            super().__init__(lr, **kwargs)

    opt = Through(1.0, clip_norm=1.0)
    W = backend.array([2.0, 0.0])
    assert equal(backend, opt.update(W, W, "W"), [1.0, 0.0])
    with pytest.raises(TypeError, match="momentum"):
        Through(momentum=0.5)


def test_one_slot_with_a_count_is_a_dict_and_survives(backend):
    """`scalars` reads the count on the host; by hand: weights 1/2, 3/4, 7/8."""
    opt = Counted()
    W, g = backend.array([0.0]), backend.array([1.0])
    for t, slot in [(1, 0.5), (2, 1.25), (3, 2.125)]:
        W = opt.update(W, g, "W")
        assert list(opt.cache["W"]) == ["t", "slot"]
        assert opt.cache["W"]["t"] == t
        assert equal(backend, opt.cache["W"]["slot"], [slot])
        opt = [opt.copy, lambda opt=opt: pickle.loads(pickle.dumps(opt)), lambda opt=opt: copy.deepcopy(opt)][t - 1]()
    assert equal(backend, W, [-1.9375])


def read_by_a_helper(h):
    return 1 / h.t


COUNT_IN_ONE_BRANCH = {
    "a condition": lambda h: {"rate": 1 / h.t if h.late > 3 else 1.0},
    "a truth": lambda h: {"rate": (h.late > 3 and 1 / h.t) or 1.0},
    "a loop": lambda h: {"rate": sum((1 / h.t for _ in range(int(h.late) - 3)), 1.0 * (h.late < 4))},
    "a nested function": lambda h: {"rate": (lambda: 1 / h.t)() if h.late > 3 else 1.0},
    "another function": lambda h: {"rate": read_by_a_helper(h) if h.late > 3 else 1.0},
    "a name": lambda h: {"rate": 1 / getattr(h, "t") if h.late > 3 else 1.0},  # noqa: B009
    "its dict": lambda h: {"rate": 1 / vars(h)["t"] if h.late > 3 else 1.0},
    "a variable": lambda h: {"rate": next(1 / k.t if h.late > 3 else 1.0 for k in [h])},
}


@pytest.mark.parametrize("scalars", COUNT_IN_ONE_BRANCH.values(), ids=COUNT_IN_ONE_BRANCH)
@pytest.mark.parametrize("where", ["scalars", "rule"])
def test_a_count_that_some_settings_read_is_kept(backend, scalars, where):
    """Rates of 1, 1/2 and 1/3 by hand; the state comes back from the cache in the midst of them."""

    class Late(OptimizerBase):
        slots = One
        ranges = {"late": Range(low=0)}

        def __init__(self, lr=1.0, late=4.0, clip_norm=None, lr_scheduler=None, **kwargs):
            super().__init__(lr, lr_scheduler, late=late, clip_norm=clip_norm, **kwargs)

        @staticmethod
        def rule(xp, param, grad, s, h):
            rate = h.rate if where == "scalars" else scalars(h)["rate"]
            return param - rate * grad, One(s.slot + grad)

    if where == "scalars":
        Late.scalars = staticmethod(scalars)
    opt = Late()
    W, g = backend.array([0.0]), backend.array([6.0])
    for value, slot in [(-6.0, 6.0), (-9.0, 12.0), (-11.0, 18.0)]:
        W = opt.update(W, g, "W")
        assert equal(backend, W, [value])
        assert list(opt.cache["W"]) == ["t", "slot"]
        assert equal(backend, opt.cache["W"]["slot"], [slot])
        again = Late()
        again.set_params(opt.hyperparameters, opt.cache)
        opt = again
    opt.set_params({"late": 0})
    assert equal(backend, opt.update(W, g, "W"), [-17.0])


@pytest.mark.parametrize("method", [staticmethod, classmethod])
def test_a_class_may_keep_one_array(backend, method):
    """It says so; no rule is run or read for that."""

    class Weighted(OptimizerBase):
        slots = One
        entry = "array"

        def __init__(self, lr=0.5, clip_norm=None, lr_scheduler=None, **kwargs):
            super().__init__(lr, lr_scheduler, clip_norm=clip_norm, **kwargs)

    if method is classmethod:
        Weighted.scalars = classmethod(lambda cls, h: {"weight": h.lr if h.lr < 1 else math.sqrt(h.lr)})
        Weighted.rule = classmethod(lambda cls, xp, p, g, s, h: (p - h.weight * g, One(s.slot + h.lr * h.weight * g)))
    else:
        Weighted.scalars = staticmethod(lambda h: {"weight": h.lr if h.lr < 1 else math.sqrt(h.lr)})
        Weighted.rule = staticmethod(lambda xp, p, g, s, h: (p - h.weight * g, One(s.slot + h.lr * h.weight * g)))
    for options in ({}, {"master": True}):
        opt = Weighted(**options)
        W = backend.array([4.0], "float32")
        assert equal(backend, opt.update(W, W, "W"), [2.0])
        assert equal(backend, opt.cache["W"], [1.0])


def test_the_form_of_an_entry_is_declared(backend):
    """By default a dict, which holds the count; an array only where there is one slot."""

    def keep(xp, p, g, s, h):
        return p - g, s

    W = backend.array([4.0])
    for slots, entry, form in [(One, "dict", dict), (One, "array", type(W)), (Two, "array", dict)]:
        opt = optimizer_of(keep, slots, entry)
        opt.update(W, W, "W")
        assert isinstance(opt.cache["W"], form)
    with pytest.raises(ValueError, match=r"Local: entry='arrays'; wanted 'dict' or 'array'"):
        optimizer_of(keep, One, "arrays")


def test_it_is_found_by_name_and_ranges_are_checked(backend):
    opt = make_optimizer("counted(lr=0.25, decay=1, lr_scheduler=NoamScheduler(model_dim=4))")
    assert type(opt) is Counted
    assert str(make_optimizer(str(opt))) == str(opt)
    with pytest.raises(ValueError, match="Counted: decay"):
        Counted(decay=2)
    with pytest.raises(TypeError, match=r"Counted .*'decoy'.*'decay'"):
        Counted(decoy=2)
    with pytest.raises(ValueError, match="SGD"):
        Counted(id="SGD")
    assert Counted(id="Counted").hyperparameters["id"] == "Counted"


def test_a_subclass_of_a_shipped_one_is_one_too(backend):
    class Slow(SGD):
        def __init__(self, lr=0.25, **kwargs):
            super().__init__(lr, **kwargs)

    W = backend.array([1.0])
    opt = Slow(momentum=0.5)
    for want in (0.75, 0.625 - 0.25):
        W = opt.update(W, backend.array([1.0]), "W")
        assert equal(backend, W, [want])
    assert opt.hyperparameters["id"] == "Slow"


@pytest.mark.parametrize("slots", [One, Two], ids=["one slot", "two slots"])
def test_a_local_one_copies(backend, slots):
    def rule(xp, param, grad, s, h):
        new = slots(*(0.5 * x + grad for x in s))
        return param - h.lr * new[0], new

    opt = optimizer_of(rule, slots)
    train(backend, opt, 2)
    for twin in (opt.copy(), copy.copy(opt), copy.deepcopy(opt)):
        assert held(backend, twin) == held(backend, opt)
        train(backend, twin, 1)
        assert held(backend, twin) != held(backend, opt)


def test_slots_may_come_back_as_any_sequence(backend):
    for make in (tuple, list, lambda slots: Two(*slots)):
        opt = optimizer_of(lambda xp, p, g, s, h, make=make: (p - g, make([s.first + g, s.second - g])), Two)
        W = backend.array([1.0, 2.0])
        for factor in (1, 2):
            opt.update(W, W, "W")
            entry = opt.cache["W"]
            entry = entry if isinstance(entry, dict) else pytest.fail("two slots make a dict")
            assert equal(backend, entry["first"], np.array([1.0, 2.0]) * factor)
            assert equal(backend, entry["second"], np.array([-1.0, -2.0]) * factor)


ALIASES = {
    "the gradient as slot": lambda xp, p, g, s, h: (p - g, One(g)),
    "the parameter as slot": lambda xp, p, g, s, h: (p - g, One(p)),
    "the slot as it was": lambda xp, p, g, s, h: (p - g, One(s.slot)),
    "the result as slot": lambda xp, p, g, s, h: (lambda new: (new, One(new)))(p - g),
    "the parameter as result": lambda xp, p, g, s, h: (p, One(s.slot + g)),
    "the gradient as result": lambda xp, p, g, s, h: (g, One(s.slot + g)),
    "everything the gradient": lambda xp, p, g, s, h: (g, One(g)),
    "a view of the gradient": lambda xp, p, g, s, h: (p - g, One(g[...])),
    "the gradient reshaped": lambda xp, p, g, s, h: (p - g, One(xp.reshape(g, tuple(g.shape)))),
    "the gradient through asarray": lambda xp, p, g, s, h: (p - g, One(xp.asarray(g))),
    "a broadcast": lambda xp, p, g, s, h: (p - g, One(xp.broadcast_to(xp.sum(g), tuple(g.shape)))),
    "a view of the result": lambda xp, p, g, s, h: (lambda new: (new, One(xp.reshape(new, tuple(new.shape)))))(p - g),
    "one view twice": lambda xp, p, g, s, h: (lambda new: (new[:2], One(new[1:])))(xp.concat([p - g, p[:1]])),
}


@writes
@pytest.mark.parametrize("rule", ALIASES.values(), ids=ALIASES)
def test_results_that_are_inputs_or_each_other_are_taken_apart(backend, rule):
    opt = optimizer_of(rule)
    W, g = backend.writable([1.0, 2.0]), backend.writable([3.0, 5.0])
    opt.update(W, g, "W")
    new = opt.update(W, g, "W")
    results = frozen(backend, [new, opt.cache])
    for x in (W, g):
        x[...] = backend.array([77.0, 77.0])
    assert frozen(backend, [new, opt.cache]) == results
    new[...] = backend.array([55.0, 55.0])
    assert frozen(backend, opt.cache) == results[1]
    entry = opt.cache["W"]
    slot = entry["slot"] if isinstance(entry, dict) else entry
    slot[...] = backend.array([33.0, 33.0])
    assert equal(backend, new, [55.0, 55.0])
    assert equal(backend, W, [77.0, 77.0])
    assert equal(backend, g, [77.0, 77.0])


def low(xp, x):
    return xp.astype(x, xp.float32)


WRONG = {
    "nothing": lambda xp, p, g, s, h: None,
    "the parameter alone": lambda xp, p, g, s, h: p - g,
    "no slots": lambda xp, p, g, s, h: (p - g, None),
    "too few slots": lambda xp, p, g, s, h: (p - g, ()),
    "too many slots": lambda xp, p, g, s, h: (p - g, (s.slot, s.slot)),
    "a bare slot": lambda xp, p, g, s, h: (p - g, s.slot),
    "a dict of slots": lambda xp, p, g, s, h: (p - g, {"slot": s.slot}),
    "three things": lambda xp, p, g, s, h: (p - g, One(g), h),
    "a number": lambda xp, p, g, s, h: (1.0, One(g)),
    "a number as slot": lambda xp, p, g, s, h: (p - g, One(0.0)),
    "None as slot": lambda xp, p, g, s, h: (p - g, One(None)),
    "another shape": lambda xp, p, g, s, h: (xp.sum(p), One(g)),
    "another shape of slot": lambda xp, p, g, s, h: (p - g, One(xp.sum(g))),
    "another dtype": lambda xp, p, g, s, h: (p < g, One(g)),
    "another dtype of slot": lambda xp, p, g, s, h: (p - g, One(g > 0)),
    "integers": lambda xp, p, g, s, h: (xp.astype(p, xp.int32), One(g)),
}


@pytest.mark.parametrize("rule", WRONG.values(), ids=WRONG)
def test_a_rule_that_returns_something_else_is_an_error_that_names_it(backend, rule):
    opt = optimizer_of(lambda xp, p, g, s, h: (rule if broken else right)(xp, p, g, s, h))
    right, broken = ALIASES["the gradient as slot"], False
    train(backend, opt, 1)
    params, grads = model(backend)
    with nothing_changes(backend, opt, params, grads):
        broken = True
        with pytest.raises((TypeError, ValueError), match=r"rule|lambda|returned"):
            opt.update(params["W"], grads["W"], "W")
        with pytest.raises((TypeError, ValueError), match=r"rule|lambda|returned"):
            opt.update_all(params, grads)
        broken = False


@pytest.mark.backends("torch", "jax", "jax-x64", "dask", "array-api-strict", "cupy")
@pytest.mark.parametrize("what", ["param", "slot"])
def test_a_rule_that_returns_arrays_of_another_library_is_an_error(backend, what):
    """Of the right shape and, where NumPy's dtypes are the library's own, of the right dtype."""

    def rule(xp, p, g, s, h):
        foreign = np.zeros(tuple(p.shape), dtype=backend.widest)
        return (foreign, One(s.slot)) if what == "param" else (p - g, One(foreign))

    opt = optimizer_of(rule)
    W = backend.array([1.0, 2.0])
    with pytest.raises(TypeError, match="returned"):
        opt.update(W, W, "W")
    assert opt.cache == {}


@pytest.mark.backends("numpy", "torch", "array-api-strict")
def test_a_rule_may_not_change_precision(backend):
    W = backend.array([1.0, 2.0], "float32")
    opt = optimizer_of(lambda xp, p, g, s, h: (xp.astype(p, xp.float64), One(g)))
    with pytest.raises(TypeError, match=r"returned float64 .*'param'; wanted float32"):
        opt.update(W, W, "W")
    opt = optimizer_of(lambda xp, p, g, s, h: (p - g, One(xp.astype(g, xp.float64))))
    with pytest.raises(TypeError, match=r"returned float64 .*'slot'; wanted float32"):
        opt.update(W, W, "W")


def test_two_local_ones_of_one_name_do_not_mix(backend):
    """Classes are told apart by what they are, not by what they are called."""
    plus = optimizer_of(lambda xp, p, g, s, h: (p + g, One(s.slot)))
    minus = optimizer_of(lambda xp, p, g, s, h: (p - g, One(s.slot)))
    W = backend.array([1.0])
    assert equal(backend, plus.update(W, W, "W"), [2.0])
    assert equal(backend, minus.update(W, W, "W"), [0.0])
    assert same(backend, plus.copy().update(W, W, "V"), backend.array([2.0]))


def test_update_overridden_is_what_a_call_means(backend):
    class Loud(SGD):
        def update(self, *args, **kwargs):
            self.calls = getattr(self, "calls", 0) + 1
            return super().update(*args, **kwargs)

    opt = Loud()
    W = backend.array([1.0])
    opt(W, W, "W")
    assert opt.calls == 1
