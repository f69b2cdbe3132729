"""Bounds of methods and of optimizers."""

import importlib.util
import math

import numpy as np
import pytest
from _kit.functions import FUNCTIONS, scipys

import xpopt
from xpopt import stop


def quartic(x):
    """Its least value, of numbers up to 3, is in a corner."""
    r = x - 3
    return np.sum(r**4) + np.sum(r**2) / 2, 4 * r**3 + r


FUNCTIONS = {**FUNCTIONS, "quartic": (quartic, np.array([0.0, 0.5, -0.5]))}
BOXES = [
    ("rosenbrock-2", -np.inf, 0.5),
    ("rosenbrock-2", 1.2, 3.0),
    ("rosenbrock-2", -1.5, 0.8),
    ("rosenbrock-10", -0.5, 0.8),
    ("rosenbrock-10", 0.0, np.inf),
    ("beale", 0.6, 2.0),
    ("powell", 0.1, 5.0),
    ("wood", -4.0, 0.9),
    ("wood", -10.0, 10.0),
    ("himmelblau", 0.0, 2.5),
    ("himmelblau", -np.inf, 1.0),
    ("lennard-jones-13", -0.2, 2.6),
    ("quartic", -1.0, 1.0),
    ("quartic", -1.0, 2.0),
]
END = stop.gradient_norm(1e-6) | stop.steps(2000)


def bounded(name, *ends):
    function, start = FUNCTIONS[name]
    low, high = (np.full(start.shape, end) for end in ends)
    return function, np.clip(start, low, high), low, high


@pytest.fixture(scope="module")
def ends():
    """What is found in each box, where no point is outside."""
    found = {}
    for name, *box in BOXES:
        function, start, low, high = bounded(name, *box)

        def watched(x, function=function, low=low, high=high):
            assert np.all(x >= low)
            assert np.all(x <= high)
            return function(x)

        found[name, *box] = xpopt.minimize(watched, start, bounds=(low, high), stop=END)
    return found


def test_the_end_is_stationary_and_all_points_are_inside(ends):
    for box, found in ends.items():
        function, _, low, high = bounded(*box)
        x = found.params
        assert np.max(np.abs(np.clip(x - function(x)[1], low, high) - x)) <= 1e-6, box


@pytest.mark.skipif(importlib.util.find_spec("scipy") is None, reason="what is compared is SciPy's")
def test_as_few_values_as_scipy(ends):
    """At most 1.3 times as many in the median, and never 3 times."""
    ratios = {}
    for box, found in ends.items():
        function, start, low, high = bounded(*box)
        options = {"gtol": 1e-6, "ftol": 0, "maxfun": 10**5}
        pairs = list(zip(low, high, strict=True))
        theirs = scipys(function, start, method="L-BFGS-B", bounds=pairs, options=options)
        ratios[box] = found.evaluations / theirs.nfev
        assert found.value <= theirs.fun + 1e-8 or box[0] == "lennard-jones-13"  # another of its many minima
    assert np.median(list(ratios.values())) <= 1.3, ratios
    assert max(ratios.values()) <= 3, ratios


@pytest.mark.parametrize("bounds", [(-10.0, 10.0), (-3.0, None), (None, 0.9)])
def test_the_scale_of_the_value_changes_no_point(bounds):
    """Between bounds as well. A power of two changes no digit of anything."""
    function, start = FUNCTIONS["wood"]
    start, found = np.minimum(start, 0.5), []
    for factor in (1.0, 2.0**-50, 2.0**30):

        def scaled(x, factor=factor):
            value, grad = function(x)
            return factor * value, factor * grad

        found.append(xpopt.minimize(scaled, start, bounds=bounds, steps=12))
    assert found[0].evaluations == found[1].evaluations == found[2].evaluations
    assert found[0].params.tobytes() == found[1].params.tobytes() == found[2].params.tobytes()


def test_numbers_are_the_bounds_of_all_elements():
    """And take no memory: the points are those with arrays for bounds."""
    function, start, low, high = bounded("wood", -4.0, 0.9)
    found = [
        xpopt.minimize(function, start, bounds=ends, steps=8)
        for ends in ((low, high), (-4, 0.9), (low.tolist()[0], high))
    ]
    assert found[0].params.tobytes() == found[1].params.tobytes() == found[2].params.tobytes()


def test_where_all_elements_have_two_bounds_a_corner_is_tried_first():
    solver = xpopt.LBFGS().solver(np.array([0.0, 0.5, -0.5]), bounds=(-1, 2))
    solver.tell(*quartic(solver.ask()))
    assert solver.ask().tolist() == [2, 2, 2]
    solver = xpopt.LBFGS().solver(np.array([0.0, 0.5, -0.5]), bounds=(-1, None))
    start = solver.ask()
    solver.tell(*quartic(start))
    assert np.linalg.norm(solver.ask() - start) == pytest.approx(1)


@pytest.mark.backends("numpy", "array-api-strict", "torch", "jax", "cupy")
@pytest.mark.parametrize("method", ["LBFGS", "SGD(lr=0.2)"])
def test_least_squares_of_numbers_that_are_not_negative(backend, method):
    """The nearest point of the quadrant, in closed form."""
    start, target = {"x": backend.array([1.0, 1.0, 0.5])}, backend.array([2.0, -1.0, 0.0])
    bounds = (0, None) if method.startswith("SGD") else ({"x": backend.array([0.0, 0.0, 0.0])}, None)

    def function(params):
        rest = params["x"] - target
        return backend.xp.sum(rest * rest), {"x": 2 * rest}

    found = xpopt.minimize(function, start, method, bounds=bounds, stop=stop.gradient_norm(1e-6) | stop.steps(30))
    tolerance = 1e-5 if backend.widest == "float64" else 1e-3  # the root of what a value is rounded by
    assert backend.numpy(found.params["x"]) == pytest.approx([2, 0, 0], abs=tolerance)
    assert np.min(backend.numpy(found.params["x"])) >= 0


@pytest.mark.parametrize("opt", [xpopt.SGD(lr=0.25), xpopt.FISTA(lr=0.25), xpopt.SGD(lr=0.25, prox="nonnegative")])
def test_an_optimizer_stops_where_its_projected_gradient_vanishes(opt):
    """At a bound the gradient does not."""
    target, bounds = np.array([2.0, -1.0]), None if opt.hyperparameters["prox"] else (0, None)
    end = stop.gradient_norm(1e-8) | stop.steps(500)
    found = xpopt.minimize(
        lambda x: ((x - target) @ (x - target), 2 * (x - target)), np.ones(2), opt, bounds=bounds, stop=end
    )
    assert found.reason.startswith("the gradient norm ")
    assert found.params == pytest.approx([2, 0], abs=1e-7)


@pytest.mark.parametrize("options", [{}, {"restart": "gradient"}, {"groups": {"*": {"lr": 0.0078125}}}])
def test_the_result_of_fista_is_inside_the_set(options):
    """The points where it asks for values are not, and have lower values."""
    scale, end = np.array([1.0, 10.0, 100.0]), stop.steps(300)
    opt = xpopt.FISTA(lr=0.0078125, bounds=(0, 0.2), **options)
    found = xpopt.minimize(lambda x: (0.5 * x @ (scale * x) - x.sum(), scale * x - 1), np.zeros(3), opt, stop=end)
    assert found.params == pytest.approx([0.2, 0.1, 0.01], abs=1e-6)
    assert np.max(found.params) <= 0.2
    assert found.value == found.history[-1].value == pytest.approx(-0.235, abs=1e-3)
    assert min(row.value for row in found.history) < found.value - 1e-3


@pytest.mark.parametrize(
    ("method", "bounds", "error", "words"),
    [
        ("LBFGS", (1.0, 0.0), ValueError, "LBFGS: bounds are crossed in 2 elements"),
        ("LBFGS", (None, 0.5), ValueError, "LBFGS: params starts outside of bounds in 2 elements; start inside"),
        ("LBFGS", 1.0, TypeError, r"LBFGS: bounds=1.0 is not a pair; wanted \(low, high\)"),
        ("LBFGS", (np.zeros(3), None), ValueError, r"low end of bounds, of 'params': \(3,\); wanted a number, or"),
        ("LBFGS", (math.nan, 1), ValueError, r"LBFGS: bounds are NaN in 2 elements; wanted .* \(of 'params'\)"),
        ("GradientDescent", (0, np.array([2, math.nan])), ValueError, "bounds are NaN in 1 elements"),
        ("LBFGS", (np.zeros(2), np.ones(2, complex)), TypeError, "high end .* is complex128; wanted real numbers"),
        ("LBFGS", [(0, 1), (0, 1)], TypeError, r"low end of bounds is a tuple; .* not a pair for each element"),
        ("LBFGS", ("low", None), ValueError, "low end of bounds, of 'params': str; wanted a number"),
        ("NonlinearCG", (0, None), ValueError, "NonlinearCG takes no bounds; LBFGS and GradientDescent do"),
        ("Adam", (1.0, 0.0), ValueError, "Adam: bounds=.* are crossed"),
        ("Adam", (None, 0.5), ValueError, "Adam: params starts outside of bounds"),
    ],
)
def test_what_cannot_be_is_told(method, bounds, error, words):
    with pytest.raises(error, match=words):
        xpopt.minimize(lambda x: (x @ x, 2 * x), np.ones(2), method, bounds=bounds)


def test_the_parameter_with_the_wrong_bound_is_named():
    start = {"a": np.ones(2), "b": np.ones((2, 2))}
    for bounds, words in (
        (({"a": None, "b": 1.5}, None), r"params starts outside of bounds in 4 elements; .* \(of 'b'\)"),
        (({"a": 0.0, "b": 2.0}, 1.0), r"bounds are crossed in 4 elements; .* \(of 'b'\)"),
    ):
        with pytest.raises(ValueError, match=words):
            xpopt.LBFGS().solver(start, bounds=bounds)


def test_complex_parameters_have_none():
    with pytest.raises(TypeError, match="bounds are for real parameters"):
        xpopt.minimize(lambda z: (1.0, z), np.ones(2, complex), bounds=(0, 1))
