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
    with pytest.raises(TypeError, match="needs the gradient: jac=True"):
        optimize.minimize(lambda x: x @ x, START, method=method("LBFGS"))
    with pytest.raises(TypeError, match="takes no hessp, constraints"):
        optimize.minimize(
            rosenbrock, START, jac=True, method=method("LBFGS"), hessp=lambda x, p: p, constraints={"type": "eq"}
        )
    with pytest.raises(ValueError, match="unknown method or optimizer 'nobody'"):
        method("nobody")
