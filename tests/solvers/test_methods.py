"""Methods that need values, beside SciPy's, and beside their formulas."""

import importlib.util
import math

import numpy as np
import pytest
from _kit.backends import NAMESPACES, Backend
from _kit.functions import FUNCTIONS, LEAST, classify, rosenbrock, scipys

import xpopt
from xpopt import stop
from xpopt._arrays.namespace import library_of
from xpopt.solvers import LineSearch, constant, strong_wolfe
from xpopt.solvers.lbfgs import two_loops

pytestmark = pytest.mark.any_width

needs_scipy = pytest.mark.skipif(importlib.util.find_spec("scipy") is None, reason="what is compared is SciPy's")
END = stop.gradient_norm(1e-6) | stop.steps(3000)


def beside(function, start, method):
    """Return what SciPy finds, and at how many points it asks."""
    options = {"gtol": 1e-6, "maxiter": 10_000, **({"ftol": 0, "maxfun": 10**5} if method == "L-BFGS-B" else {})}
    return scipys(function, start, method=method, options=options)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("method", ["LBFGS", "NonlinearCG"])
def test_the_gradient_vanishes_where_it_ends(name, method):
    function, start = FUNCTIONS[name]
    found = xpopt.minimize(function, start, method, stop=END)
    value, grad = function(found.params)
    assert np.max(np.abs(grad)) <= 1e-6
    assert value == found.value == min(row.value for row in found.history)
    assert value <= LEAST.get(name, math.inf) + 1e-8
    assert found.evaluations >= found.step + 1 == len(found.history)


@needs_scipy
@pytest.mark.parametrize(("method", "other"), [("LBFGS", "L-BFGS-B"), ("NonlinearCG", "CG")])
def test_as_few_values_as_scipy(method, other):
    """At most 1.3 times as many in the median, and never 3 times."""
    ratios = {}
    for name, (function, start) in FUNCTIONS.items():
        if name == "rosenbrock-100" and other == "CG":  # thousands of values
            continue
        found, theirs = xpopt.minimize(function, start, method, stop=END), beside(function, start, other)
        ratios[name] = found.evaluations / theirs.nfev
        assert found.value <= theirs.fun + 1e-8 or name == "lennard-jones-13"  # which has many minima
    assert np.median(list(ratios.values())) <= 1.3, ratios
    assert max(ratios.values()) <= 3, ratios


@needs_scipy
def test_conjugate_gradients_of_a_thousand_unknowns():
    """To the end from near by; and from the usual start as far down the valley after as many values."""
    for start in (np.tile([0.9, 1.1], 500), np.full(1000, 0.9)):
        found, theirs = xpopt.minimize(rosenbrock, start, "NonlinearCG", stop=END), beside(rosenbrock, start, "CG")
        assert found.value <= theirs.fun + 1e-8
        assert found.evaluations <= 1.3 * theirs.nfev
    start = np.tile([-1.2, 1.0], 500)
    theirs = scipys(rosenbrock, start, method="CG", options={"gtol": 1e-6, "maxiter": 100})
    found = xpopt.minimize(rosenbrock, start, "NonlinearCG", stop=lambda info: info["evaluations"] >= theirs.nfev)
    assert found.value <= theirs.fun


@needs_scipy
def test_logistic_regression():
    datasets = pytest.importorskip("sklearn.datasets", reason="the digits are scikit-learn's")
    points, labels = datasets.load_digits(return_X_y=True)
    function, start = classify(points[::8] / 16, labels[::8]), np.zeros(640)
    found, theirs = xpopt.minimize(function, start, stop=END), beside(function, start, "L-BFGS-B")
    assert found.value <= theirs.fun + 1e-8
    assert found.evaluations <= 1.3 * theirs.nfev


def test_rosenbrock_100_to_ten_digits():
    found = xpopt.minimize(rosenbrock, np.tile([-1.2, 1.0], 50), stop=stop.gradient_norm(1e-9))
    assert found.value <= 1e-10
    assert np.max(np.abs(found.params - 1)) <= 1e-8


@pytest.mark.parametrize("count", [1, 4])
def test_the_direction_is_that_of_two_loops(count):
    """Algorithm 7.4 of Nocedal and Wright, over vectors."""
    rng = np.random.default_rng(count)
    curvature = np.diag(rng.uniform(0.1, 10, 7))
    s, g = rng.normal(size=(count, 7)), rng.normal(size=7)
    y = s @ curvature
    q, alphas = g.copy(), []
    for i in reversed(range(count)):
        alphas.append(s[i] @ q / (s[i] @ y[i]))
        q -= alphas[-1] * y[i]
    r = s[-1] @ y[-1] / (y[-1] @ y[-1]) * q
    for i, alpha in enumerate(reversed(alphas)):
        r += s[i] * (alpha - y[i] @ r / (s[i] @ y[i]))
    of_s, of_y, scale = two_loops(s @ y.T, y @ y.T, s @ g, y @ g)
    assert of_s @ s + of_y @ y - scale * g == pytest.approx(-r, rel=1e-12)


@pytest.mark.parametrize("beta", ["hager-zhang", "polak-ribiere"])
def test_conjugate_gradients_end_on_a_quadratic_after_as_many_steps_as_unknowns(beta):
    """With exact line searches they are the linear method, which does."""
    rng = np.random.default_rng(3)
    root, target = rng.normal(size=(5, 5)), rng.normal(size=5)
    a = root @ root.T + np.eye(5)
    method = xpopt.NonlinearCG(beta=beta, line_search=strong_wolfe(decrease=1e-12, curvature=1e-9))
    found = xpopt.minimize(lambda x: (x @ a @ x / 2 - target @ x, a @ x - target), np.zeros(5), method, steps=5)
    assert found.params == pytest.approx(np.linalg.solve(a, target), rel=1e-6)


def test_gradient_descent_is_its_formula():
    method = xpopt.GradientDescent(line_search=constant(0.125))
    x = np.array([3.0, -1.0])
    found = xpopt.minimize(lambda x: (x @ (x * [1, 4]) / 2, x * [1, 4]), x, method, steps=5)
    for _ in range(5):
        x = x - 0.125 * x * [1, 4]
    assert found.params.tolist() == x.tolist()
    assert [row.rate for row in found.history] == [0, *[0.125] * 5]


def model(backend, dtype):
    """A valley over a tree."""
    values = [-1.2, 0.5], [[1.0], [2.0]], 0.5
    x, *deep = (backend.array(one, dtype) for one in values)
    params = {"x": x, "deep": deep}

    def function(params):
        xp, (y, z) = backend.xp, params["deep"]
        x, y = params["x"], xp.reshape(y, (2,))
        r, s = y - x * x, z - 1
        grads = {"x": -40 * x * r - 2 * (1 - x), "deep": [xp.reshape(20 * r, (2, 1)), 2 * s]}
        return xp.sum(10 * r * r + (1 - x) ** 2) + s * s, grads

    return function, params


QUICK = pytest.mark.backends("numpy", "array-api-strict", "torch", "cupy")


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("LBFGS(history=3)", marks=pytest.mark.backends(*NAMESPACES)),
        pytest.param("NonlinearCG", marks=QUICK),
        pytest.param("GradientDescent", marks=QUICK),
    ],
)
def test_trees_of_every_library(backend, method):
    """The same values as in NumPy's float64; each library sums in an order of its own."""
    function, start = model(backend, backend.widest)
    found = xpopt.minimize(function, start, method, steps=5)
    assert found.params["x"].dtype == start["x"].dtype
    assert tuple(found.params["deep"][0].shape) == (2, 1)
    assert library_of(found.params["deep"][1]) is library_of(start["x"])
    alike = Backend("numpy", np)
    ours = xpopt.minimize(*model(alike, "float64"), method, steps=5)
    values, wanted = ([row.value for row in one.history] for one in (found, ours))
    assert values == pytest.approx(wanted, rel=1e-9 if backend.widest == "float64" else 1e-3)
    assert found.evaluations == ours.evaluations


@pytest.mark.backends("array-api-strict", "torch", "jax", "cupy")  # on NumPy nothing waits
def test_one_read_of_the_host_for_a_value(backend, monkeypatch):
    function, params = model(backend, None)
    solver, reads = xpopt.LBFGS().solver(params, stop=stop.steps(12)), []
    kind = type(library_of(params["x"]))
    to_numpy = kind.to_numpy
    monkeypatch.setattr(kind, "to_numpy", lambda self, xs: reads.append(len(xs)) or to_numpy(self, xs))
    while not solver.done:
        solver.tell(*function(solver.ask()))
    assert reads == [1] * solver.evaluations


@pytest.mark.parametrize("method", ["LBFGS", "NonlinearCG", "GradientDescent"])
def test_complex_parameters(method):
    a, b = np.array([[1 + 1j, 2], [0.5j, 3 - 1j]]), np.array([1j, 2.0])

    def function(params):
        rest = a @ params["z"] - b
        return np.vdot(rest, rest).real, {"z": 2 * a.conj().T @ rest}

    start = {"z": np.array([1 + 2j, -3j])}
    found = xpopt.minimize(function, start, method, stop=stop.gradient_norm(1e-8) | stop.steps(500))
    assert found.params["z"].dtype == np.complex128
    assert found.params["z"] == pytest.approx(np.linalg.solve(a, b), abs=1e-7)
    start = {"z": np.linalg.solve(a, b + np.linalg.solve(a.conj().T, [1j, 2j]))}  # where the gradient is imaginary
    with pytest.raises(ValueError, match=r"the value rises along -gradient: .* is the conjugate of the one wanted"):
        xpopt.minimize(lambda p: (function(p)[0], {"z": function(p)[1]["z"].conj()}), start, method)
    with pytest.raises(TypeError, match="gradient of 'z' is complex128, the parameter is float64; take its real part"):
        xpopt.minimize(lambda p: (1.0, {"z": p["z"] + 1j}), {"z": np.ones(2)}, method)


@pytest.mark.parametrize("method", ["LBFGS", "NonlinearCG", "GradientDescent"])
def test_a_value_that_is_not_finite_is_a_rejected_step(method):
    """The logarithm has no value behind 0, where the first steps lead."""

    def function(x):
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sum(100 * x - np.log(x)), 100 - 1 / x

    found = xpopt.minimize(function, np.array([1.0, 0.2]), method, stop=stop.gradient_norm(1e-6) | stop.steps(500))
    assert found.params == pytest.approx(0.01, rel=1e-6)
    assert found.evaluations > found.step + 1
    lost = xpopt.minimize(function, np.array([1.0, -1.0]), method)
    assert (lost.reason, lost.step) == ("the value or the gradient at the start is not finite", 0)


def test_it_ends_where_values_can_fall_no_more():
    found = xpopt.minimize(rosenbrock, np.array([-1.2, 1.0]), stop=stop.gradient_norm(0))
    assert found.reason in (
        "the gradient is 0",
        "the gradient norm 0 is at most 0",
        "no lower value was found along the negative gradient, within the rounding of values",
    )
    assert found.value < 1e-18
    assert xpopt.minimize(lambda x: (0.0, 0 * x), np.ones(2), steps=3).reason == "the gradient is 0"


@pytest.mark.parametrize(
    ("bounds", "vectors"),
    [(None, 6), ((1e-4, None), 8), ((np.full(40_000, 1e-4), np.full(40_000, 2.0)), 10)],
    ids=["none", "a number", "arrays"],
)
def test_memory_is_two_vectors_a_pair_and_some_more(bounds, vectors):
    import tracemalloc

    size, history = 40_000, 5
    grad, scale = np.empty(size), np.linspace(1, 50, size)

    def function(x):  # allocates nothing that counts
        np.multiply(scale, x, out=grad)
        return float(x @ grad) / 2, grad

    start = np.ones(size)
    tracemalloc.start()
    found = xpopt.minimize(function, start, xpopt.LBFGS(history=history), steps=20, bounds=bounds)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.step == 20 or bounds  # where it ends sooner
    assert found.step > history
    assert peak <= (2 * history + vectors) * size * 8 + 200_000


@pytest.mark.parametrize("beta", ["hager-zhang", "polak-ribiere"])
def test_conjugate_gradients_are_their_formulas(beta):
    """Steps of one length, so that no line search hides a share that is wrong."""
    a, rate = np.diag([1.0, 4.0, 9.0, 2.0]), 0.05
    x = np.array([3.0, -1.0, 0.5, 2.0])
    method = xpopt.NonlinearCG(beta=beta, line_search=constant(rate))
    seen = []
    xpopt.minimize(
        lambda x: (x @ a @ x / 2, a @ x), x, method, steps=12, callback=lambda info: seen.append(info["params"])
    )
    g = a @ x
    d = -g
    for got in seen[1:]:
        x = x + rate * d
        new = a @ x
        y = new - g
        if beta == "hager-zhang":
            share = (y - 2 * d * (y @ y) / (d @ y)) @ new / (d @ y)
            share = max(share, -1 / (np.linalg.norm(d) * min(0.01, np.linalg.norm(g))))
        else:
            share = max(0, y @ new / (g @ g)) if abs(new @ g) < 0.2 * (new @ new) else 0
        d, g = share * d - new, new
        if d @ g >= 0:
            d = -g
        assert got == pytest.approx(x, rel=1e-9)


def test_a_pair_of_negative_curvature_is_left_out():
    solver = xpopt.LBFGS(line_search="backtracking").solver(np.array([0.3]))
    for _ in range(2):
        x = solver.ask()
        solver.tell(float(np.cos(x[0])), -np.sin(x))
    assert solver.step == 1
    assert abs(x[0]) < math.pi / 2  # the cosine is concave up to here
    assert solver.ask()[0] == pytest.approx(x[0] + 1)  # a step of length 1, as at first


def test_a_direction_that_leads_nowhere_is_followed_by_the_gradient():
    class shy(LineSearch):  # noqa: N801
        def trials(self, start, step):
            yield step
            return step != 1  # which methods with a memory try first

    solver, asked = xpopt.LBFGS(line_search=shy()).solver(np.array([4.0, -3.0])), []
    for _ in range(4):
        x = solver.ask()
        asked.append(x)
        solver.tell(float(x @ (x * [1, 9])) / 2, x * [1, 9])
    start, first, _, after = asked
    length = np.hypot(*(first * [1, 9]))
    assert first == pytest.approx(start - start * [1, 9] / np.hypot(*(start * [1, 9])))
    assert after == pytest.approx(first - first * [1, 9] / length)


def test_the_best_is_kept_where_values_rise():
    method = xpopt.GradientDescent(line_search=constant(1.1))
    found = xpopt.minimize(lambda x: (float(x @ x), 2 * x), np.array([1.0, 2.0]), method, steps=3)
    assert found.history[-1].value > found.value == found.history[0].value
    assert found.params.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("method", ["LBFGS", "LBFGS(line_search='hager_zhang')", "GradientDescent"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_scale_of_the_value_changes_no_point(method, dtype):
    """A power of two changes no digit of anything."""
    start, found = np.tile([-1.2, 1.0], 3).astype(dtype), []
    for factor in (1.0, 2.0**-50, 2.0**30):

        def function(x, factor=factor):
            value, grad = rosenbrock(x)
            return factor * value, (factor * grad).astype(dtype)

        found.append(xpopt.minimize(function, start, method, stop=stop.gradient_norm(1e-2 * factor) | stop.steps(60)))
    assert found[0].evaluations == found[1].evaluations == found[2].evaluations
    assert found[0].params.tobytes() == found[1].params.tobytes() == found[2].params.tobytes()


@pytest.mark.parametrize("method", ["LBFGS", "LBFGS(line_search='hager_zhang')", "NonlinearCG"])
def test_it_ends_where_values_fall_for_ever(method):
    for function in (lambda x: (x.sum(), np.ones(2)), lambda x: (-(x @ x), -2 * x)):
        found = xpopt.minimize(function, np.array([1.0, 2.0]), method)
        assert found.reason == "the value falls without bound along a direction"
        assert found.value < -1e6
        assert found.evaluations <= 40


@pytest.mark.parametrize("method", ["LBFGS", "NonlinearCG", "GradientDescent"])
def test_it_ends_where_nothing_changes(method):
    found = xpopt.minimize(lambda x: (1.0, np.full(2, 1e-20)), np.ones(2), method, stop=stop.gradient_norm(0))
    assert found.reason.startswith("no lower value was found")
    assert (found.step, found.value) == (0, 1.0)


@pytest.mark.parametrize(("factor", "dtype"), [(1e200, "float64"), (1e-200, "float64"), (1e30, "float32")])
def test_a_gradient_whose_square_is_out_of_range_is_told(factor, dtype):
    def function(x):
        return float(factor) * float(x @ x), (factor * 2 * x).astype(dtype)

    with np.errstate(over="ignore", under="ignore"):
        found = xpopt.minimize(function, np.ones(2, dtype), stop=stop.gradient_norm(0))
    assert "is out of range; scale value and gradient" in found.reason


def test_rounding_does_not_accuse_a_gradient():
    """Near the least value, with arithmetic of float32 and parameters of float64; and where there are kinks."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 10)).astype(np.float32), rng.normal(size=50).astype(np.float32)
    least = np.linalg.lstsq(a.astype(float), b.astype(float), rcond=None)[0]

    def rounded(x):
        rest = a @ x.astype(np.float32) - b
        return float(rest @ rest), (2 * a.T @ rest).astype(float)

    for i in range(30):
        start = least + 10.0 ** rng.uniform(-9, -3) * rng.normal(size=10)
        found = xpopt.minimize(rounded, start, ["LBFGS", "NonlinearCG", "GradientDescent"][i % 3], steps=20)
        assert "gradient is not" not in found.reason
    found = xpopt.minimize(lambda x: (np.abs(x).sum(), np.where(x >= 0, 1.0, -1.0)), np.array([0.0, 0.0, 2.0]))
    assert found.reason.startswith("no lower value was found")


@pytest.mark.parametrize("method", ["LBFGS", "NonlinearCG", "GradientDescent", "Adam(lr=0.05)", "SGD(lr=0.001)"])
@pytest.mark.parametrize("seed", range(3))
def test_a_conjugate_is_told_whatever_the_problem(method, seed):
    rng = np.random.default_rng(seed)
    a, b, z = rng.normal(size=(4, 4, 2)) @ [1, 1j], rng.normal(size=(4, 2)) @ [1, 1j], rng.normal(size=(4, 2)) @ [1, 1j]

    def function(z, turned=np.conj):
        rest = a @ z - b
        return np.vdot(rest, rest).real, turned(2 * a.conj().T @ rest)

    try:
        reason = xpopt.minimize(function, z, method, steps=30).reason
    except ValueError as error:
        reason = str(error)
    assert "is the conjugate of the one wanted" in reason
    right = xpopt.minimize(lambda z: function(z, np.positive), z, method, steps=100)
    assert "conjugate" not in right.reason


@pytest.mark.parametrize("method", ["LBFGS", "NonlinearCG", "GradientDescent", "Adam"])
def test_a_kink_accuses_no_conjugate(method):
    """Where the imaginary part is 0 the value rises both ways, whatever the gradient says."""
    found = xpopt.minimize(
        lambda z: (np.abs(z.imag).sum(), np.where(z.imag >= 0, 1j, -1j)), np.array([1 + 0j, 2, 0.5]), method, steps=30
    )
    assert "conjugate" not in found.reason


def test_a_conjugate_is_told_after_steps_that_went_well():
    found = xpopt.minimize(lambda z: (np.vdot(z - 1j, z - 1j).real, 2 * (z - 1j).conj()), np.array([1 + 0j, 2]))
    assert found.step == 1
    assert "the value rises along -gradient" in found.reason
    assert "is the conjugate of the one wanted" in found.reason


@pytest.mark.parametrize(
    ("trials", "error", "words"),
    [
        (lambda self, start, step: 0.1, TypeError, "trials of own.. returned 0.1; wanted a generator"),
        (lambda self, start, step: (one for one in ()), ValueError, "own.. ended before it tried a step"),
        (lambda self, start, step: (one for one in [-1.0]), ValueError, "own.. wants to try the step -1.0; steps are"),
        (lambda self, start, step: (one for one in [math.nan]), ValueError, "own.. wants to try the step nan"),
    ],
)
def test_a_line_search_of_ones_own_that_cannot_be_is_told(trials, error, words):
    own = type("own", (LineSearch,), {"trials": trials})
    with pytest.raises(error, match=words):
        xpopt.minimize(lambda x: (x @ x, 2 * x), np.ones(2), xpopt.LBFGS(line_search=own()))


def test_a_value_that_is_not_finite_is_never_taken():
    class trusting(LineSearch):  # noqa: N801
        def trials(self, start, step):
            yield step
            return True

    def function(x):
        return (math.nan if x[0] < 0.9 else x @ x), 2 * x

    found = xpopt.minimize(function, np.ones(2), xpopt.LBFGS(line_search=trusting()))
    assert [row.value for row in found.history] == [2.0]
