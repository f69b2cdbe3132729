"""Several formulas in one class: settings choose among them, and so do a parameter's dtype and shape."""

import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit.states import equal, held, nothing_changes
from _kit.variants import DEFAULTS

import xpopt
from xpopt import CheckpointError, OptimizerBase, Rule, setting

pytestmark = [pytest.mark.any_immutable, pytest.mark.any_engine]


class NoState(NamedTuple):
    pass


class One(NamedTuple):
    last: Any


class Two(NamedTuple):
    last: Any
    total: Any


def plain(xp, param, grad, s, h):
    return param - h.lr * grad, s


def with_last(xp, param, grad, s, h):
    return param - h.lr * (grad + s.last), One(grad)


def with_total(xp, param, grad, s, h):
    total = s.total + grad
    return param - h.lr * h.weight * total, Two(grad, total)


def weight(h):
    return {"weight": 2.0 if h.t < 3 else 1.0}


VECTORS = Rule(with_last, One, weight, where=lambda dtype, shape: len(shape) == 1)
HALVES = Rule(plain, scalars=weight, where=lambda dtype, shape: dtype in ("float16", "bfloat16"))
OTHERS = Rule(with_total, Two, weight)


class ByShape(OptimizerBase):
    lr: float = setting(default=0.5)
    slots = Two
    rule = staticmethod(with_total)

    @classmethod
    def choose_rule(cls, settings):
        return VECTORS, OTHERS


class ByDtype(ByShape):
    @classmethod
    def choose_rule(cls, settings):
        return HALVES, OTHERS


class BySetting(OptimizerBase):
    """One that adds the last gradient, or the plain rule."""

    lr: float = setting(default=0.5)
    memory: bool = setting(default=True)
    slots = One
    follows = NoState
    rule = staticmethod(with_last)
    plain_rule = Rule(plain, NoState, follows=One)

    @classmethod
    def choose_rule(cls, settings):
        return super().choose_rule(settings) if settings["memory"] else cls.plain_rule


def by_hand(shape, dtype, steps, opt):
    """The same in Python's numbers, for parameters of zeros and gradients of ones, at a rate of 1/2."""
    value, last, total = 0.0, 0.0, 0.0
    for t in range(1, steps + 1):
        total += 1.0
        if opt is ByDtype and dtype in ("float16", "bfloat16"):
            value -= 0.5
        elif opt is ByShape and len(shape) == 1:
            value, last = value - 0.5 * (1.0 + last), 1.0
        else:
            value -= 0.5 * (2.0 if t < 3 else 1.0) * total
    return value


SHAPES = {"W": (2, 3), "b": (3,), "n": (), "k": (1,)}
NUMPY = ["eager", "blocked", pytest.param("compiled", marks=pytest.mark.llvmlite)]


def start(backend, dtype):
    zeros = {name: backend.array(np.zeros(shape), dtype) for name, shape in SHAPES.items()}
    ones = {name: backend.array(np.ones(shape), dtype) for name, shape in SHAPES.items()}
    return zeros, ones


@pytest.mark.parametrize("cls", [ByShape, ByDtype])
@pytest.mark.parametrize("way", ["update", "update_all"])
def test_each_parameter_gets_its_rule(backend, cls, way):
    for dtype in backend.dtypes:
        opt = cls()
        params, grads = start(backend, dtype)
        for step in range(1, 5):
            if way == "update_all":
                params = opt.update_all(params, grads)
            else:
                params = {name: opt.update(params[name], grads[name], name) for name in params}
                opt.step()
            for name, shape in SHAPES.items():
                want = by_hand(shape, dtype, step, cls)
                assert equal(backend, params[name], np.full(shape, want)), (dtype, name, step)
        for name, shape in SHAPES.items():
            one = len(shape) == 1 if cls is ByShape else dtype in ("float16", "bfloat16")
            slots = (["last"] if cls is ByShape else []) if one else ["last", "total"]
            assert list(opt.cache[name]) == ["t", *slots]


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("engine", NUMPY)
def test_every_engine_that_fuses_gets_it_too(backend, engine):
    opt, (params, grads) = ByShape(), start(backend, "float32")
    with xpopt.engine(engine):
        for _ in range(4):
            params = opt.update_all(params, grads)
    for name, shape in SHAPES.items():
        assert (params[name] == by_hand(shape, "float32", 4, ByShape)).all()


@pytest.mark.parametrize("cls", [ByShape, ByDtype])
@pytest.mark.parametrize("options", [{}, {"nonfinite": "skip"}, {"master": True}], ids=str)
def test_it_goes_on_from_what_was_kept(backend, cls, options):
    for dtype in backend.dtypes:
        opt = cls(**options)
        params, grads = start(backend, dtype)
        params = opt.update_all(params, grads)
        params = opt.update_all(params, grads)
        copied = "master" in options and dtype in ("float16", "bfloat16")
        assert {"master" in entry for entry in opt.cache.values()} == {copied}
        wanted = held(backend, opt)
        loaded, like, by_hand_too = cls(), cls(), cls(**options)
        loaded.load_state_dict(opt.state_dict())
        like.load_state_dict(opt.state_dict(), like=params)
        by_hand_too.set_params(opt.hyperparameters, opt.cache)
        by_hand_too.cur_step = 2
        for twin in (opt.copy(), pickle.loads(pickle.dumps(opt)), loaded, like, by_hand_too):
            assert held(backend, twin)["cache"] == wanted["cache"]
            new = twin.update_all(params, grads)
            for name, shape in SHAPES.items():
                assert equal(backend, new[name], np.full(shape, by_hand(shape, dtype, 3, cls)))


def test_state_of_another_of_the_rules_is_refused(backend):
    opt, (params, grads) = ByShape(), start(backend, None)
    opt.update_all(params, grads)
    with nothing_changes(backend, opt):
        state = opt.state_dict()
        first = next(p for p in state["header"]["parameters"] if p["name"] == "W")
        del first["slots"]["total"], state["arrays"]["W/total"]
        with pytest.raises(CheckpointError, match="'W'"):
            ByShape().load_state_dict(state)
    other = ByShape()
    other.set_params(cache_dict={"W": opt.cache["b"]})  # whose rule is not known before there is a parameter
    with pytest.raises(ValueError, match="cache of 'W'"):
        other.update(params["W"], grads["W"], "W")


def test_too_large_products_are_those_of_a_parameters_own_rule(backend):
    """The square of 1e30 is too large in float32 for one of the rules, and the other does not form it."""

    def squares(xp, param, grad, s, h):
        return param - h.lr * (grad * grad), s

    square = Rule(squares, where=lambda dtype, shape: len(shape) == 1)

    class Own(OptimizerBase):
        rule = staticmethod(plain)

        @classmethod
        def choose_rule(cls, settings):
            return square, cls.other

        other = Rule(plain)

    for shape, skipped in [((2,), 1), ((1, 2), 0)]:
        opt = Own(1.0, nonfinite="skip")
        x = backend.array(np.full(shape, 1e30), "float32")
        opt.update_all({"W": x}, {"W": x})
        assert opt.skipped == skipped


def test_settings_choose(backend):
    opt, x = BySetting(), backend.array([1.0, 2.0])
    W = backend.array([0.0, 0.0])
    for memory, want in [(True, -0.5), (True, -1.5), (False, -2.0), (True, -2.5), (True, -3.5)]:
        opt.set_params({"memory": memory})
        W = opt.update(W, x, "W")
        assert equal(backend, W, np.array([1.0, 2.0]) * want)
        opt = pickle.loads(pickle.dumps(opt))


def test_slots_of_the_same_name_go_on(backend):
    """From two slots to the one that both keep, and back: the total starts over."""

    class Shared(OptimizerBase):
        total: bool = setting(default=True)
        slots, follows = Two, One
        fewer = Rule(with_last, One, weight, follows=Two)
        rule, scalars = staticmethod(with_total), staticmethod(weight)

        @classmethod
        def choose_rule(cls, settings):
            return super().choose_rule(settings) if settings["total"] else cls.fewer

    opt, x, W = Shared(1.0), backend.array([1.0]), backend.array([0.0])
    for total, want in [(True, -2.0), (False, -4.0), (False, -6.0), (True, -7.0), (True, -9.0)]:
        opt.set_params({"total": total})
        W = opt.update(W, x, "W")
        assert equal(backend, W, [want])


def test_settings_are_shown_to_it_to_read():
    seen = []

    class Curious(BySetting):
        @classmethod
        def choose_rule(cls, settings):
            seen.append(dict(settings))
            with pytest.raises(TypeError):
                settings["lr"] = 3.0
            return super().choose_rule(settings)

    opt = Curious(0.25, clip_norm=2.0)
    opt.set_params({"lr": 0.75})
    wanted = {"memory": True, "clip_norm": 2.0, **DEFAULTS}
    del wanted["groups"]  # each has settings of its own, for which it is asked again
    assert seen == [{"lr": rate, **wanted} for rate in (0.25, 0.75)]


SOME = Rule(plain, where=lambda dtype, shape: True)


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        (None, TypeError, r"Own.choose_rule returned a NoneType; wanted a Rule, or a tuple of rules"),
        (plain, TypeError, "Own.choose_rule returned a function"),
        ((), TypeError, "Own.choose_rule returned a tuple"),
        ((SOME, plain), TypeError, "Own.choose_rule returned a tuple with something else in it"),
        (SOME, ValueError, "every rule but the last needs `where`"),
        ((SOME, SOME), ValueError, "every rule but the last needs `where`"),
        ((OTHERS, OTHERS), ValueError, "every rule but the last needs `where`"),
        ((SOME, OTHERS), ValueError, "give each the same `scalars`"),
    ],
)
def test_what_is_no_choice_is_refused(returned, error, words):
    class Own(OptimizerBase):
        rule = staticmethod(plain)

        @classmethod
        def choose_rule(cls, settings):
            return returned

    with pytest.raises(error, match=words):
        Own(0.1)


def test_the_source_is_that_of_the_rule_for_a_shape():
    assert "with_last" in xpopt.kernel_source(ByShape())
    assert "with_total" in xpopt.kernel_source(ByShape(), shape=(2, 3))
    assert "plain" in xpopt.kernel_source(ByDtype(), "llvm", "float16")


def test_explain_tells_them_apart():
    rows = ByShape().explain({name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()})
    assert {row.name: row.state_bytes for row in rows} == {"W": 48, "b": 12, "n": 8, "k": 4}
