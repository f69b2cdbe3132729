"""Methods and optimizers inside `scipy.optimize.minimize`."""

import numpy as np
import pytest
from _kit.functions import rosenbrock

import xpopt
from xpopt import stop
from xpopt.adapters.scipy import method

optimize = pytest.importorskip("scipy.optimize", reason="what is adapted to is SciPy's")
START = np.array([-1.2, 1.0])


@pytest.mark.parametrize("optimizer", ["LBFGS", "NonlinearCG", xpopt.Adam(lr=0.1)])
def test_the_same_steps_as_minimize(optimizer):
    rule, seen = stop.gradient_norm(1e-6) | stop.steps(60), []
    found = optimize.minimize(
        rosenbrock, START, jac=True, method=method(optimizer), callback=seen.append, options={"stop": rule}
    )
    ours = xpopt.minimize(rosenbrock, START, optimizer, stop=rule)
    assert found.x.tolist() == ours.params.tolist()
    assert (found.fun, found.nfev, found.nit, found.message) == (ours.value, ours.evaluations, ours.step, ours.reason)
    assert len(seen) == found.nit + 1


def test_bounds_tolerance_iterations_and_arguments():
    def scaled(x, factor):
        value, grad = rosenbrock(x)
        return factor * value, factor * grad

    for bounds in ([(None, 0.5), (0.2, None)], optimize.Bounds([-np.inf, 0.2], [0.5, np.inf])):
        found = optimize.minimize(
            scaled, [0.1, 0.5], args=(2.0,), jac=True, method=method("LBFGS"), bounds=bounds, tol=1e-8
        )
        assert found.x == pytest.approx([0.5, 0.25], abs=1e-6)
        assert found.fun == pytest.approx(2 * 0.25)
        assert found.success
    found = optimize.minimize(rosenbrock, START, jac=True, method=method("LBFGS"), options={"maxiter": 3})
    assert (found.nit, found.success) == (3, False)


def test_what_it_does_not_take_is_told():
    with pytest.raises(TypeError, match="needs the gradient; pass jac=True"):
        optimize.minimize(lambda x: x @ x, START, method=method("LBFGS"))
    with pytest.raises(TypeError, match="hessp, constraints: not supported"):
        optimize.minimize(
            rosenbrock, START, jac=True, method=method("LBFGS"), hessp=lambda x, p: p, constraints={"type": "eq"}
        )
    with pytest.raises(ValueError, match="unknown method or optimizer 'nobody'"):
        method("nobody")


@pytest.mark.parametrize(
    ("fun", "optimizer", "options", "status"),
    [
        (rosenbrock, "LBFGS", {}, 0),
        (rosenbrock, "LBFGS", {"stop": stop.value_below(1.0) | stop.steps(500)}, 0),
        (rosenbrock, "LBFGS", {"maxiter": 3}, 1),
        (rosenbrock, "SGD(lr=1e-5)", {"stop": stop.steps(20)}, 1),
        (rosenbrock, "SGD(lr=1e-5)", {"stop": stop.steps(20) & stop.seconds(0)}, 1),
        (lambda x: (np.nan, x), "LBFGS", {}, 2),
        (lambda x: (np.nan, x), "Adam", {}, 2),
        (lambda x: (5.0, np.ones(2)), "LBFGS", {}, 2),
        (lambda x: (5.0, 0 * x), "LBFGS", {"stop": stop.steps(5)}, 0),
    ],
)
def test_success_is_what_was_looked_for(fun, optimizer, options, status):
    found = optimize.minimize(fun, START, jac=True, method=method(optimizer), options=options)
    assert (found.status, found.success) == (status, status == 0)


@pytest.mark.parametrize("optimizer", ["LBFGS", "GradientDescent(line_search=constant(rate=0.003))", "Adam(lr=0.3)"])
def test_the_result_has_the_gradient_where_it_ends(optimizer):
    """At the best point, which is not the last one that was asked for; fun may have one array for all gradients."""
    grad = np.empty(2)

    def function(x):
        value, grad[:] = rosenbrock(x)
        return value, grad

    found = optimize.minimize(function, START, jac=True, method=method(optimizer), options={"stop": stop.steps(12)})
    assert found.jac.tolist() == rosenbrock(found.x)[1].tolist()


def test_a_function_may_overwrite_its_point():
    def function(x):
        found = rosenbrock(x.copy())
        x[:] = 7
        return found

    found = optimize.minimize(function, START, jac=True, method=method("LBFGS"))
    assert found.x == pytest.approx([1, 1], abs=1e-4)


def test_callbacks_are_scipys():
    seen = []

    def callback(intermediate_result):
        seen.append(intermediate_result)
        if len(seen) == 4:
            raise StopIteration

    found = optimize.minimize(rosenbrock, START, jac=True, method=method("LBFGS"), callback=callback)
    assert (found.nit, found.success, found.status) == (3, False, 99)
    assert [rosenbrock(one.x)[0] for one in seen] == [one.fun for one in seen]


def test_a_start_outside_of_bounds_is_brought_inside_as_by_scipy():
    seen = []

    def function(x):
        seen.append(x.tolist())
        return np.array([x @ x]), 2 * x  # of one element, which SciPy takes

    found = optimize.minimize(function, [3.0, 0.5], jac=True, method=method("LBFGS"), bounds=[(1, 2), (None, None)])
    assert seen[0] == [2, 0.5]
    assert found.x == pytest.approx([1, 0], abs=1e-6)


def test_what_scipy_cannot_have_is_told():
    with pytest.raises(TypeError, match=r"x0 is complex, .* use xpopt.minimize"):
        optimize.minimize(rosenbrock, np.ones(2, complex), jac=True, method=method("LBFGS"))
    with pytest.raises(ValueError, match="bounds has 3 pairs, x0 has 2 elements; wanted a pair for each"):
        optimize.minimize(rosenbrock, START, jac=True, method=method("LBFGS"), bounds=[(0, 1)] * 3)
