"""Ask and tell, and the loop around them: the same for optimizers and for methods that need values."""

import math
import sys

import numpy as np
import pytest

import xpopt
from xpopt import stop

pytestmark = pytest.mark.any_width

METHODS = ["LBFGS", "NonlinearCG", "GradientDescent", "SGD(lr=0.1)", "Adam(lr=0.1)"]


def bowl(x):
    return float(x @ x), 2 * x


def solver_of(method, params, rule):
    return (getattr(xpopt, method)() if method[-1] != ")" else xpopt.make_optimizer(method)).solver(params, rule)


@pytest.mark.parametrize("optimizer", ["SGD(lr=0.1, momentum=0.9)", "Adam(lr=0.1, lr_scheduler='exponential')"])
def test_an_optimizer_makes_one_update_of_each_value(backend, optimizer):
    """The same bits as update_all."""
    start = {"x": backend.array([3.0, -1.0]), "deep": [backend.array([[0.5]])]}
    opt = xpopt.make_optimizer(optimizer)
    solver, params = opt.solver(start, stop=stop.steps(4)), start
    rates = []
    while not solver.done:
        asked = solver.ask()
        for got, want in ((asked["x"], params["x"]), (asked["deep"][0], params["deep"][0])):
            assert backend.numpy(got).tolist() == backend.numpy(want).tolist()
        grads = {"x": 2 * asked["x"], "deep": [2 * asked["deep"][0]]}
        loss = backend.xp.sum(asked["x"] * asked["x"])
        rates.append(opt.lr_scheduler(opt.cur_step))
        params = opt.update_all(params, grads, float(backend.numpy(loss)))
        solver.tell(loss, grads)
    assert solver.reason == "4 steps were made"
    assert [row.step for row in solver.history] == [0, 1, 2, 3, 4]
    assert [row.rate for row in solver.history] == rates
    norms = [row.gradient_norm for row in solver.history]
    assert norms[0] == 6
    assert solver.optimizer.cur_step == 4  # the fifth value stopped it, and opt went on
    assert solver.optimizer.cache.keys() == {"x", ("deep", 0)}


@pytest.mark.parametrize("method", METHODS)
def test_the_best_is_kept_and_all_arrays_are_new(method):
    start = np.array([3.0, -1.0])
    solver = solver_of(method, start, stop.steps(5))
    start[:] = math.nan  # the caller's own again
    while not solver.done:
        x = solver.ask()
        assert x.tolist() == solver.ask().tolist()
        value, grad = bowl(x)
        solver.tell(value, grad)
        x[:], grad[:] = math.nan, math.nan
    assert solver.step <= 5
    assert solver.evaluations >= solver.step + 1
    assert bowl(solver.best)[0] == solver.best_value == min(row.value for row in solver.history)
    assert solver.best_value < 10
    assert solver.ask().tolist() == solver.best.tolist()
    with pytest.raises(RuntimeError, match="the solver is done: "):
        solver.tell(1.0, np.ones(2))
    assert f"step {solver.step}, best value" in repr(solver)


@pytest.mark.parametrize("nothing", [math.nan, math.inf])
def test_an_optimizer_rejects_what_is_not_finite(nothing):
    solver = xpopt.Adam(lr=0.1).solver({"x": np.ones(2)}, stop=stop.steps(100))
    solver.tell(2.0, {"x": np.ones(2)})
    before, slots = solver.ask()["x"], {k: np.copy(v) for k, v in solver.optimizer.cache["x"].items()}
    for value, grad in ((nothing, 1.0), (1.0, nothing)):
        solver.tell(value, {"x": np.array([1.0, grad])})
    assert solver.ask()["x"].tolist() == before.tolist()
    assert {k: v.tolist() for k, v in solver.optimizer.cache["x"].items() if k != "t"} == {
        k: v.tolist() for k, v in slots.items() if k != "t"
    }
    assert (solver.optimizer.cache["x"]["t"], solver.optimizer.cur_step) == (1, 1)
    assert (solver.evaluations, len(solver.history)) == (3, 1)
    for _ in range(8):
        solver.tell(nothing, {"x": np.ones(2)})
    assert solver.reason == "10 values or gradients in a row were not finite"


def test_a_scale_of_the_loss_falls_where_a_step_is_rejected():
    scale = xpopt.DynamicLossScale(1024.0)
    solver = xpopt.SGD(lr=0.5, nonfinite="skip", loss_scale=scale).solver(np.array([3.0]), stop=stop.steps(5))
    solver.tell(1.0, np.array([np.inf]))
    assert solver.ask().tolist() == [3.0]
    assert (solver.optimizer.cur_loss_scale, solver.optimizer.skipped, len(solver.history)) == (512, 1, 0)
    solver.tell(1.0, np.array([512.0]))
    assert solver.ask().tolist() == [2.5]


def test_the_largest_value_is_the_best_where_it_is_looked_for():
    found = xpopt.minimize(lambda x: (-float(x @ x), -2 * x), np.ones(2), "SGD(lr=0.1, maximize=True)", steps=9)
    assert found.value == max(row.value for row in found.history) > -0.1


@pytest.mark.parametrize("method", METHODS)
def test_minimize_calls_back_after_each_step(method):
    seen, asked = [], []

    def value(x):
        asked.append(x.tolist())
        return float(x @ x)

    found = xpopt.minimize(value, np.array([3.0, -1.0]), method, grad=lambda x: 2 * x, steps=3, callback=seen.append)
    assert [one["step"] for one in seen] == [row.step for row in found.history]
    assert all(float(one["params"] @ one["params"]) == one["value"] for one in seen)
    assert seen[0].keys() == {
        *("params", "step", "value", "gradient_norm", "rate", "evaluations", "best_value", "seconds")
    }
    assert all(type(one) is dict for one in seen)
    assert found.evaluations == len(asked)
    assert (found.step, asked[0]) == (found.history[-1].step, [3.0, -1.0])


def test_it_stops_of_itself():
    found = xpopt.minimize(bowl, np.array([3.0, -1.0]))
    assert found.reason.startswith("the gradient norm ")
    assert found.history[-1].gradient_norm <= 1e-5
    found = xpopt.minimize(lambda x: (1.0, np.ones(2)), np.zeros(2), "SGD")
    assert (found.reason, found.step) == ("the best value has improved by 0 in 100 steps", 100)


@pytest.mark.parametrize("method", ["LBFGS", "Adam"])
def test_an_interrupt_passes_on_with_the_best(method):
    calls = []

    def function(x):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return bowl(x)

    with pytest.raises(KeyboardInterrupt) as caught:
        xpopt.minimize(function, np.array([3.0, -1.0]), method)
    found = caught.value.result
    assert found.evaluations == 2
    assert bowl(found.params)[0] == found.value == min(row.value for row in found.history)
    assert found.reason == "it goes on"
    assert "this exception has it as .result" in caught.value.__notes__[0]


@pytest.mark.parametrize("rich", [True, False])
def test_progress_goes_to_stderr(rich, monkeypatch, capsys):
    if rich:
        pytest.importorskip("rich", reason="the progress is rich's")
    else:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    xpopt.minimize(bowl, np.array([3.0, -1.0]), "SGD(lr=0.1)", steps=2, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    if not rich:
        assert "step 2: value 4.096, gradient norm 3.8, 3 evaluations" in err


def test_the_result_is_drawn():
    matplotlib = pytest.importorskip("matplotlib", reason="the picture is matplotlib's")
    matplotlib.use("agg")
    found = xpopt.minimize(bowl, np.array([3.0, -1.0]), "SGD(lr=0.1)", steps=3)
    axes = found.plot()
    assert [list(line.get_xdata()) for line in axes.lines] == [[1, 2, 3, 4]] * 2
    assert list(axes.lines[1].get_ydata()) == [row.gradient_norm for row in found.history]
    matplotlib.pyplot.close("all")


def test_methods_by_name_text_and_value():
    for spec in ("lbfgs", "LBFGS(history=10)", {"id": "LBFGS"}, xpopt.LBFGS()):
        assert xpopt.minimize(bowl, np.array([3.0, -1.0]), spec).evaluations == 3
    opt = xpopt.Adam(lr=0.1)
    xpopt.minimize(bowl, np.array([3.0, -1.0]), opt, steps=3)
    assert (opt.cur_step, opt.cache) == (0, {})  # it was copied


@pytest.mark.parametrize("method", ["LBFGS", "Adam"])
@pytest.mark.parametrize(
    ("found", "error", "words"),
    [
        (1.0, TypeError, r"fun returned 1.0, a float; wanted the pair \(value, grads\), or give a function .* grad="),
        ((np.ones(2), {"x": np.ones(2)}), ValueError, r"the value has shape \(2,\); wanted a real number"),
        ((1j, {"x": np.ones(2)}), TypeError, "the value is a complex; wanted a real number"),
        (("low", {"x": np.ones(2)}), TypeError, "the value is a str; wanted a real number"),
        ((1.0, np.ones(2)), TypeError, "grads is a ndarray; wanted a mapping"),
        ((1.0, {"y": np.ones(2)}), ValueError, "grads lacks 'x' and has 'y', not in params"),
        ((1.0, {"x": np.ones(3)}), ValueError, r"gradient of 'x' has shape \(3,\), the parameter has \(2,\)"),
        ((1.0, {"x": None}), TypeError, "gradient of 'x' is a NoneType; wanted an array"),
        ((1.0, {"x": np.ones(2, int)}), TypeError, "gradient of 'x' has dtype int64; convert it to float32"),
    ],
)
def test_what_a_function_may_not_return(method, found, error, words):
    with pytest.raises(error, match=words):
        xpopt.minimize(lambda params: found, {"x": np.ones(2)}, method)


@pytest.mark.parametrize(
    ("params", "method", "error", "words"),
    [
        ({}, "LBFGS", ValueError, "params has no arrays; wanted one at least"),
        ({"x": np.ones(2, int)}, "LBFGS", TypeError, "parameter 'x' has dtype int64; convert it to float32"),
        ({"x": "one"}, "LBFGS", TypeError, "parameter 'x' is a str; wanted an array"),
        (np.ones(2), "LBFSG", ValueError, "unknown method or optimizer 'LBFSG'; did you mean 'LBFGS'"),
        (np.ones(2), "LBFGS(memory=3)", ValueError, "LBFGS has no keyword 'memory'"),
        (np.ones(2), xpopt.LBFGS, TypeError, r"wanted a method, an optimizer, or the name of one; call it, LBFGS\(\)"),
        (np.ones(2), 3, TypeError, "optimizer=3 is a int; wanted a method"),
    ],
)
def test_what_minimize_may_not_be_given(params, method, error, words):
    with pytest.raises(error, match=words):
        xpopt.minimize(bowl, params, method)


@pytest.mark.parametrize(
    ("fun", "keywords", "words"),
    [
        (5, {}, "fun=5 is a int; wanted a function"),
        (bowl, {"grad": True}, r"grad=True is a bool; .* leave it out where fun returns the pair \(value, grads\)"),
        (bowl, {"callback": 5}, "callback=5 is a int; wanted a function"),
        (bowl, {"grad": lambda x: 2 * x}, "fun returned a tuple, and there is grad=; return the value alone"),
    ],
)
def test_what_is_no_function_is_told(fun, keywords, words):
    with pytest.raises(TypeError, match=words):
        xpopt.minimize(fun, np.ones(2), **keywords)


def test_nothing_is_known_before_a_value():
    with pytest.raises(RuntimeError, match="no value yet; call tell first"):
        xpopt.LBFGS().solver(np.ones(2)).info()


def test_functions_may_overwrite_their_point():
    def value(x):
        found = float(x @ x)
        x[:] = 7
        return found

    assert xpopt.minimize(value, np.array([3.0, -1.0]), grad=lambda x: 2 * x).params.tolist() == [0, 0]


@pytest.mark.parametrize("method", ["LBFGS", "NonlinearCG", "GradientDescent"])
def test_a_gradient_of_the_wrong_sign_is_told(method):
    with pytest.raises(ValueError, match=r"the value rises along -gradient: .* it has the wrong sign"):
        xpopt.minimize(lambda x: (float(x @ x), -2 * x), np.ones(3), method)


def test_an_error_of_an_update_changes_nothing():
    solver = xpopt.SGD(lr=0.1, groups={"nobody": "freeze"}).solver({"x": np.ones(2)})
    with pytest.raises(ValueError, match="nobody"):
        solver.tell(2.0, {"x": np.ones(2)})
    assert (solver.evaluations, solver.step, solver.history, solver.done) == (0, 0, [], False)


@pytest.mark.parametrize("method", ["LBFGS", "Adam"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_start_that_is_not_finite_is_named(method, wrong):
    start = {"a": np.ones(2), "b": np.array([1.0, wrong, wrong])}

    def function(params):
        return sum(float(x @ x) for x in params.values()), {name: 2 * x for name, x in params.items()}

    with pytest.raises(ValueError, match=r"params starts from 2 elements that are not finite \(of 'b'\); start from"):
        xpopt.minimize(function, start, method)
    if method == "LBFGS" and np.isnan(wrong):
        with pytest.raises(ValueError, match=r"LBFGS: params starts from NaN in 2 elements; start .* \(of 'b'\)"):
            xpopt.minimize(function, start, method, bounds=(0, None))
