"""Each check of optimizers finds the mistake that it is for, and a right optimizer passes them all."""

import random
from typing import Any, NamedTuple

import numpy as np
import pytest

import xpopt
from xpopt import OptimizerBase, setting
from xpopt.testing import Check, CheckError, check_optimizer, optimizer_checks, parametrize
from xpopt.testing._arrays import installed


class Velocity(NamedTuple):
    velocity: Any


class Right(OptimizerBase):
    """Momentum."""

    lr: float = setting(default=0.125)
    momentum: float = setting(default=0.5)
    slots = Velocity

    @staticmethod
    def rule(xp, param, grad, s, h):
        velocity = h.momentum * s.velocity + h.lr * grad
        return param - velocity, Velocity(velocity)


def formula(param, grad, memory, t, lr, momentum):
    velocity = momentum * (0.0 if memory is None else memory) + lr * grad
    return param - velocity, velocity


class TwiceTheRate(Right):
    @staticmethod
    def rule(xp, param, grad, s, h):
        velocity = h.momentum * s.velocity + h.lr * grad
        return param - 2 * velocity, Velocity(velocity)


class Drawn(Right):
    """Its rate is drawn at each step."""

    @staticmethod
    def scalars(h):
        return {"rate": h.lr * random.random()}

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - h.rate * grad, s


class Outside(Right):
    """It reads a number that changes: a rule that is read sees the first."""

    factor = [1.0]

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - h.lr * grad * Outside.factor[0], s

    def update_all(self, params, grads, cur_loss=None, *, out=None):
        Outside.factor[0] = 1.0 + self.cur_step
        return super().update_all(params, grads, cur_loss, out=out)


class Wide(Right):
    """It computes in float64, whatever comes."""

    def update_all(self, params, grads, cur_loss=None, *, out=None):
        wide = [{name: x.astype(np.float64) for name, x in one.items()} for one in (params, grads)]
        return super().update_all(*wide, cur_loss)


class Viewed(Right):
    """It returns arrays of another class."""

    def update_all(self, params, grads, cur_loss=None, *, out=None):
        params = {name: np.asarray(x) for name, x in params.items()}
        new = super().update_all(params, grads, cur_loss, out=out)
        return {name: x.view(OtherArray) for name, x in new.items()}


class OtherArray(np.ndarray):
    pass


class WideState(Right):
    """It shows a state of more digits than its arithmetic has."""

    @property
    def cache(self):
        return {name: {"velocity": entry["velocity"].astype(np.float64)} for name, entry in super().cache.items()}


class Flat(Right):
    """It returns rows in the place of all else."""

    def update_all(self, params, grads, cur_loss=None, *, out=None):
        new = super().update_all(params, grads, cur_loss, out=out)
        return {name: x.reshape(1, -1) for name, x in new.items()}


class ByMemory(Right):
    """It takes elements in the order of memory for elements in the order of indices."""

    def update_all(self, params, grads, cur_loss=None, *, out=None):
        grads = {name: x.ravel("K").reshape(x.shape) for name, x in grads.items()}
        return super().update_all(params, grads, cur_loss, out=out)


class Whole(Right):
    """What update_all does and update does not."""

    def update_all(self, params, grads, cur_loss=None, *, out=None):
        return super().update_all(params, {name: 2 * np.asarray(x) for name, x in grads.items()}, cur_loss, out=out)


class Writes(Right):
    def update_all(self, params, grads, cur_loss=None, *, out=None):
        for x in grads.values():
            x *= 2
        return super().update_all(params, grads, cur_loss, out=out)


class Keeps(Right):
    """It goes on from the gradient of the last step, which is the caller's."""

    def update_all(self, params, grads, cur_loss=None, *, out=None):
        last = getattr(self, "last", grads)
        self.last = grads
        return super().update_all(params, last, cur_loss, out=out)


class Elsewhere(Right):
    """It writes nothing into out."""

    def update_all(self, params, grads, cur_loss=None, *, out=None):
        new = super().update_all(params, grads, cur_loss)
        return new if out is None else out


class ReturnsAnother(Right):
    """It returns other containers than out."""

    def update_all(self, params, grads, cur_loss=None, *, out=None):
        return dict(super().update_all(params, grads, cur_loss, out=out))


class Forgets(Right):
    """It counts in an attribute, which no file has."""

    seen = 0

    def update_all(self, params, grads, cur_loss=None, *, out=None):
        self.seen += 1
        scaled = {name: x / self.seen if hasattr(x, "shape") else x for name, x in grads.items()}
        return super().update_all(params, scaled, cur_loss, out=out)


class Shared(Right):
    """Copies share what is counted."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.counted = Counted()

    def update_all(self, params, grads, cur_loss=None, *, out=None):
        self.counted.number += 1
        scaled = {name: x / self.counted.number if hasattr(x, "shape") else x for name, x in grads.items()}
        return super().update_all(params, scaled, cur_loss, out=out)


class Counted:
    number = 0

    def __deepcopy__(self, memo):
        return self

    __copy__ = __deepcopy__


class CopiesItsBase(Right):
    def copy(self):
        return Right()


class Pickled(Right):
    """A pickle of it has no state."""

    def __reduce_ex__(self, protocol):
        return Pickled, ()


class Rounds(Right):
    """Its text is that of another rate."""

    def __str__(self):
        return "Rounds(lr=0.1)"


class Misnamed(Right):
    """Its text is that of another one."""

    def __str__(self):
        return "SGD(lr=0.125)"


class Believes(Right):
    """It takes what is there, and leaves out what is not."""

    def update_all(self, params, grads, cur_loss=None, *, out=None):
        found = {name: grads.get(name) for name in params}
        return super().update_all(params, found, cur_loss, out=out)


class Tries(Right):
    """It has changed something by the time of an error."""

    def update_all(self, params, grads, cur_loss=None, *, out=None):
        self.cur_step += 1
        new = super().update_all(params, grads, cur_loss, out=out)
        self.cur_step -= 1
        return new


class OfNumPy(Right):
    """It calls NumPy, and not the namespace that it is given."""

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - h.lr * grad + np.float64(0.0) * xp.asarray(np.asarray(grad)), s


class FewerDigits(Right):
    """On other libraries than NumPy it computes with fewer digits."""

    def update_all(self, params, grads, cur_loss=None, *, out=None):
        if not isinstance(next(iter(params.values())), np.ndarray):
            grads = {name: x * 1.001 for name, x in grads.items()}
        return super().update_all(params, grads, cur_loss, out=out)


class Looks(Right):
    """It asks for a value."""

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - h.lr * grad * (2.0 if float(xp.sum(grad)) > 0 else 1.0), s


class DividesByZero(Right):
    """It counts from 0."""

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - h.lr * grad / (h.t - 1), s


WRONG = [
    ("closed form", TwiceTheRate, "step 1, 'matrix'"),
    ("engines", DividesByZero, "compared with -?(inf|nan), which is not finite"),
    ("determinism", Drawn, "the second run"),
    ("engines", Outside, "compared with 'eager'"),
    ("dtypes", Wide, "'matrix' is float64, not float16"),
    ("dtypes", Viewed, "'matrix' is a OtherArray, not ndarray"),
    ("dtypes", WideState, "of 'matrix' is float64, and 'matrix' is float16"),
    ("shapes", Flat, r"'matrix' has shape \(1, 6\), not \(3, 2\)"),
    ("shapes", ByMemory, "transposed"),
    ("one by one", Whole, "compared with update_all"),
    ("inputs", Writes, "the arrays that were passed"),
    ("inputs", Keeps, "after the arrays that were passed were overwritten"),
    ("in place", Elsewhere, "with out=params"),
    ("in place", ReturnsAnother, "the return value is not out"),
    ("resume", Forgets, "the loaded one"),
    ("copies", Shared, "a copy"),
    ("copies", CopiesItsBase, "a copy is a Right"),
    ("copies", Pickled, "a pickle, after 6 steps"),
    ("text", Misnamed, r"SGD\(lr=0.125\) makes a xpopt.*SGD"),
    ("text", Rounds, r"makes Rounds\(lr=0.1\)"),
    ("bad input", Believes, "a missing gradient was accepted"),
    ("bad input", Tries, "after a gradient of another shape"),
]


def named(checks, name):
    return next(check for check in checks if check.name == name)


@pytest.mark.parametrize(("name", "cls", "found"), WRONG, ids=[f"{cls.__name__}" for _, cls, _ in WRONG])
def test_each_check_finds_its_mistake(name, cls, found):
    check = named(optimizer_checks(cls, oracle=formula, libraries=["numpy"]), name)
    with pytest.raises(CheckError, match=rf"^{name}: expected that {check.promise}\. .*{found}"):
        check()


def test_there_is_a_mistake_for_each():
    names = {check.name for check in optimizer_checks(Right, oracle=formula, libraries=["numpy"])}
    assert names == {name for name, _, _ in WRONG}


def test_a_right_one_passes():
    assert check_optimizer(Right, oracle=formula, libraries=["numpy"]) is None
    opt = Right(lr=xpopt.schedulers.cosine(0.5, 0.0, steps=9), groups={"number": "freeze"}, average=xpopt.EMA(0.5))
    assert check_optimizer(opt, libraries=["numpy"]) is None


@pytest.mark.backends("array-api-strict", "torch", "jax", "dask")
def test_mistakes_that_only_other_libraries_see(backend):
    checks = optimizer_checks(FewerDigits, libraries=["numpy", backend.library])
    check = named(checks, f"{backend.library}: as on NumPy")
    assert [one.name for one in checks if "as on NumPy" in one.name] == [check.name]
    with pytest.raises(CheckError, match="compared with NumPy"):
        check()
    named(optimizer_checks(Right, libraries=[backend.library]), "as on NumPy")()


@pytest.mark.backends("jax", "dask")
@pytest.mark.filterwarnings("ignore:Looks")
def test_what_waits_for_a_value_is_found(backend):
    with pytest.raises(CheckError, match=r"^no wait: expected that an update never waits for a value"):
        named(optimizer_checks(Looks, libraries=[backend.library]), "no wait")()
    named(optimizer_checks(Right, libraries=[backend.library]), "no wait")()


def test_all_failures_are_told_in_one_error():
    with pytest.raises(CheckError, match=r"^TwiceTheRate fails 1 of 12 checks:\n- closed form: expected that"):
        check_optimizer(TwiceTheRate, oracle=formula, libraries=["numpy"])
    with pytest.raises(CheckError, match=r"fails 2 of 10 checks:\n- resume: .*\n- bad input: "):
        check_optimizer(Forgets, libraries=["numpy"], skip=["one by one"])


def test_an_optimizer_is_left_as_it_is():
    opt = Right(lr=0.5)
    opt.update(np.ones(2), np.ones(2), "mine")
    check_optimizer(opt.copy(), libraries=["numpy"], skip=["determinism"])
    for check in optimizer_checks(opt, libraries=["numpy"]):
        check()
    assert list(opt.cache) == ["mine"]


def test_what_is_asked_wrongly_is_told():
    with pytest.raises(TypeError, match="optimizer is a int; wanted an optimizer, or its class"):
        optimizer_checks(3)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'lr'"):
        optimizer_checks(OptimizerBase)
    with pytest.raises(ValueError, match=r"libraries=\['nunpy'\]; wanted some of numpy, "):
        optimizer_checks(Right, libraries=["nunpy"])
    with pytest.raises(ValueError, match=r"shapes=\{\}; wanted at least one shape"):
        optimizer_checks(Right, shapes={})
    with pytest.raises(ValueError, match=r"skip=\['texts'\]; wanted a list of names of checks, some of 'determinism'"):
        optimizer_checks(Right, libraries=["numpy"], skip=["texts"])


def test_without_a_choice_it_is_of_all_libraries_that_are_installed(monkeypatch):
    import xpopt.testing.optimizers as module

    assert installed("numpy")
    assert not installed("no_library_of_this_name")
    monkeypatch.setattr(module, "installed", {"numpy", "dask", "jax"}.__contains__)
    monkeypatch.setattr(module, "Arrays", lambda name: name)
    names = [check.name for check in optimizer_checks(Right)]
    assert names[-6:] == [f"{library}: {check}" for library in ("jax", "dask") for check in OF_LIBRARIES]


OF_LIBRARIES = ("dtypes", "as on NumPy", "no wait")


def test_the_tests_of_pytest():
    mark = parametrize(Right, xpopt.SGD(momentum=0.5), libraries=["numpy"], skip=["engines"])
    name, rows = mark.mark.args
    assert name == "check"
    assert all(isinstance(row.values[0], Check) for row in rows)
    assert rows[0].id == "Right-determinism"
    assert "SGD(" in rows[-1].id
    assert len({row.id for row in rows}) == len(rows)
