"""Each check of hosts finds the mistake that it is for, and a right host passes them all."""

import numpy as np
import pytest

from xpopt.testing import CheckError, check_host, host_checks

pytestmark = pytest.mark.filterwarnings("ignore:'W' is updated again")


def right(optimizer, params, grads, loss=None):
    return optimizer.update_all(params, grads, loss, out=params)


def right_by_parameter(optimizer, params, grads):
    new = {name: optimizer.update(x, grads[name], name) for name, x in params.items()}
    optimizer.step()
    return new


def ascends(optimizer, params, grads):
    return optimizer.update_all(params, {name: -x for name, x in grads.items()})


def one_name(optimizer, params, grads):
    new = {
        name: optimizer.update(x.ravel(), grads[name].ravel(), len(x)).reshape(x.shape) for name, x in params.items()
    }
    optimizer.step()
    return new


def forgets_to_step(optimizer, params, grads):
    return {name: optimizer.update(x, grads[name], name) for name, x in params.items()}


def steps_for_each(optimizer, params, grads):
    new = {}
    for name, x in params.items():
        new[name] = optimizer.update(x, grads[name], name)
        optimizer.step()
    return new


def keeps_the_loss(optimizer, params, grads, loss):
    return optimizer.update_all(params, grads, 1.0)


class ComesLate:
    """It passes the loss of the step before."""

    def __init__(self):
        self.last = None

    def __call__(self, optimizer, params, grads, loss):
        told, self.last = self.last if optimizer.cur_step else loss, loss
        return optimizer.update_all(params, grads, told)


def leaves_out_zeros(optimizer, params, grads):
    some = [name for name, x in grads.items() if x.any()]
    new = optimizer.update_all({name: params[name] for name in some}, {name: grads[name] for name in some})
    return {**params, **new}


def makes_finite(optimizer, params, grads):
    return optimizer.update_all(params, {name: np.nan_to_num(x) for name, x in grads.items()})


def clears_gradients(optimizer, params, grads):
    new = optimizer.update_all(params, grads)
    for x in grads.values():
        x[...] = 0
    return new


def widens(optimizer, params, grads):
    return {name: np.asarray(x, np.float64) for name, x in optimizer.update_all(params, grads).items()}


def flattens(optimizer, params, grads):
    return {name: x.ravel() for name, x in optimizer.update_all(params, grads).items()}


def adds_a_penalty(optimizer, params, grads, loss):
    return optimizer.update_all(params, grads, loss + 0.25)


def takes_the_mean(optimizer, params, grads, loss):
    return optimizer.update_all(params, grads, loss / 2)


def takes_the_sum(optimizer, params, grads, loss):
    return optimizer.update_all(params, grads, loss * 2)


class CopiesOnce:
    """It has a copy of the first optimizer for each, and of copies none."""

    def __init__(self):
        self.own = None

    def __call__(self, optimizer, params, grads):
        if self.own is None or optimizer.cur_step == 0:
            self.own = optimizer
        return self.own.update_all(params, grads)


class OneForAll:
    """It has one optimizer, whatever it is given."""

    def __init__(self):
        self.own = None

    def __call__(self, optimizer, params, grads):
        self.own = self.own or optimizer.copy()
        return self.own.update_all(params, grads)


def hides_errors(optimizer, params, grads):
    try:
        return optimizer.update_all(params, grads)
    except ValueError:
        return params


def half_a_step(optimizer, params, grads):
    for name, x in params.items():
        optimizer.update(x, grads[name], name, out=x)
    optimizer.step()
    return params


WRONG = [
    ("numbers", ascends, "'W'"),
    ("names", one_name, "step 1"),
    ("steps", forgets_to_step, "step 2"),
    ("steps", steps_for_each, "step 1"),
    ("losses", keeps_the_loss, "KingScheduler"),
    ("losses", ComesLate(), "KingScheduler.*step 4"),
    ("losses", adds_a_penalty, "plateau.*step 2"),
    ("losses", takes_the_mean, "plateau.*step 5"),
    ("losses", takes_the_sum, "plateau.*step 6"),
    ("names", leaves_out_zeros, "step 3, 'b'"),
    ("inputs", clears_gradients, "the gradients"),
    ("dtypes", widens, "'W' is float64, not float32"),
    ("dtypes", flattens, r"'W' has shape \(6,\), not \(3, 2\)"),
    ("resume", CopiesOnce(), "the copy is at step 2, not 6"),
    ("two models", OneForAll(), "of two"),
    ("errors", hides_errors, "was accepted"),
    ("errors", makes_finite, "a gradient that is not finite was accepted"),
    ("errors", half_a_step, "the parameters after the error"),
]


@pytest.mark.parametrize(("name", "update", "found"), WRONG, ids=range(len(WRONG)))
def test_each_check_finds_its_mistake(name, update, found):
    check = next(check for check in host_checks(update, loss=name == "losses") if check.name == name)
    with pytest.raises(CheckError, match=rf"^{name}: expected that {check.promise}\. .*{found}"):
        check()


def test_there_is_a_mistake_for_each():
    assert {check.name for check in host_checks(right, loss=True)} == {name for name, _, _ in WRONG}


def test_right_ones_pass():
    assert check_host(right, loss=True) is None
    assert check_host(right_by_parameter, skip=["errors"]) is None


def test_what_is_asked_wrongly_is_told():
    with pytest.raises(CheckError, match=r"^ascends fails \d of 8 checks:\n- numbers: expected that steps are those"):
        check_host(ascends)
    with pytest.raises(CheckError, match="update returned a list; wanted a dict of the parameters by name"):
        check_host(lambda *args: [])
    with pytest.raises(
        TypeError, match="update is a dict; wanted a function with the arguments optimizer, params and grads"
    ):
        check_host({})
    with pytest.raises(ValueError, match=r"skip=\['loss'\]; wanted a list of names of checks"):
        host_checks(right, skip=["loss"])
