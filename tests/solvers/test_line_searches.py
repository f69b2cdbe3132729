"""Line searches alone: functions of one number. The step that is taken fulfils what its docstring promises."""

import itertools
import math

import numpy as np
import pytest

import xpopt
from xpopt.solvers import LineSearch, armijo, backtracking, constant, hager_zhang, strong_wolfe
from xpopt.solvers.linesearch import Trial

CURVES = {  # More and Thuente, section 5, eq. 5.1 and 5.2; a quartic, a narrow valley, a wall
    "more-thuente-1": lambda t: (-t / (t * t + 2), (t * t - 2) / (t * t + 2) ** 2),
    "more-thuente-2": lambda t: ((t + 0.004) ** 5 - 2 * (t + 0.004) ** 4, 5 * (t + 0.004) ** 4 - 8 * (t + 0.004) ** 3),
    "quartic": lambda t: (t**4 - t, 4 * t**3 - 1),
    "far": lambda t: ((t - 300.0) ** 2, 2 * (t - 300.0)),
    "wall": lambda t: (-math.log(1 - t) - 3 * t, 1 / (1 - t) - 3) if t < 1 else (math.nan, math.nan),
}
SEARCHES = [
    strong_wolfe(),
    strong_wolfe(curvature=0.1),
    strong_wolfe(decrease=0.01, curvature=0.02),
    hager_zhang(),
    hager_zhang(curvature=0.2),
    armijo(),
    backtracking(factor=0.3, decrease=0.1),
]


def searched(search, curve, first, most=100):
    """Return what was found at each step that was tried, and whether the last one is taken."""
    value, slope = curve(0.0)
    run, seen = search.trials(Trial(0.0, value, slope, 0.0), first), []
    step = next(run)
    try:
        while len(seen) < most:
            found = curve(step)
            if not math.isfinite(found[0]):
                found = math.inf, math.inf
            seen.append(Trial(step, *found, step * slope))
            step = run.send(seen[-1])
    except StopIteration as end:
        return seen, end.value
    raise AssertionError(f"{search} tried {most} steps")


def fulfilled(search, start, found):
    low = found.value <= start[0] + search.decrease * found.step * start[1]
    if isinstance(search, strong_wolfe):
        return low and abs(found.slope) <= search.curvature * abs(start[1])
    if isinstance(search, hager_zhang):
        flat = found.slope >= search.curvature * start[1]
        near = found.value <= start[0] + search.eps * abs(start[0])
        return flat and (low or (near and found.slope <= (2 * search.decrease - 1) * start[1]))
    return low


@pytest.mark.parametrize("search", SEARCHES, ids=str)
@pytest.mark.parametrize("name", CURVES)
def test_the_step_that_is_taken_is_as_promised(search, name):
    curve = CURVES[name]
    for first in (1e-3, 1.0, 1e3):
        seen, taken = searched(search, curve, first)
        assert taken is True
        assert fulfilled(search, curve(0.0), seen[-1])
        assert seen[0].step == first
        assert all(one.step > 0 for one in seen)
        if not isinstance(search, strong_wolfe):  # which first asks whether the value has risen again
            assert not any(fulfilled(search, curve(0.0), one) for one in seen[:-1])


def test_a_parabola_takes_its_bottom_in_two_trials():
    """A cubic through two points of a parabola is the parabola."""
    seen, taken = searched(strong_wolfe(curvature=0.01), lambda t: ((t - 3) ** 2, 2 * (t - 3)), 7.0)
    assert taken
    assert [one.step for one in seen] == [7.0, pytest.approx(3.0)]


def test_steps_are_shortened_as_stated():
    def wall(t):
        return (t * t - t if t < 0.02 else 1.0), -1.0 + 2 * t

    steps = [one.step for one in searched(backtracking(factor=0.3), wall, 1.0)[0]]
    assert steps == pytest.approx([1.0, 0.3, 0.09, 0.027, 0.0081])
    steps = [one.step for one in searched(armijo(), wall, 1.0)[0]]
    assert all(0.1 <= new / old <= 0.5 for old, new in itertools.pairwise(steps))


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_a_slope_that_lies_finds_nothing(search):
    _, taken = searched(search, lambda t: (t, -1.0 if t == 0 else 1.0), 1.0)
    assert taken is False


@pytest.mark.parametrize("search", [strong_wolfe(), armijo(), backtracking(factor=0.3)], ids=str)
def test_it_ends_where_a_fall_would_be_lost_in_rounding(search):
    seen, taken = searched(search, lambda t: (1.0 + t, -1.0), 1.0)
    assert taken is False
    assert all(one.step > 1e-18 for one in seen)


def test_a_constant_step_is_halved_where_nothing_is():
    seen, taken = searched(constant(1.7), CURVES["wall"], 1.0)
    assert taken
    assert [one.step for one in seen] == [1.7, 0.85]


def test_they_are_values_and_text():
    search = strong_wolfe(curvature=0.5)
    assert repr(search) == "strong_wolfe(decrease=0.0001, curvature=0.5)"
    assert search == strong_wolfe(1e-4, 0.5) != strong_wolfe()
    assert hash(search) == hash(strong_wolfe(1e-4, 0.5))
    method = xpopt.LBFGS(line_search="strong_wolfe(curvature=0.5)")
    assert method == xpopt.LBFGS(line_search=search)
    assert repr(method) == f"LBFGS(history=10, line_search={search})"
    with pytest.raises(AttributeError, match=r"strong_wolfe.curvature cannot be changed to 0.9: it is a value"):
        search.curvature = 0.9


def test_what_cannot_be_is_told():
    with pytest.raises(ValueError, match=r"strong_wolfe: decrease=0.4 must be less than curvature=0.1"):
        strong_wolfe(0.4, 0.1)
    with pytest.raises(ValueError, match=r"backtracking: factor=1.0 is out of range"):
        backtracking(factor=1.0)
    with pytest.raises(ValueError, match="LBFGS: line_search: unknown line search 'armijjo'; did you mean 'armijo'"):
        xpopt.LBFGS(line_search="armijjo")
    with pytest.raises(TypeError, match=r"GradientDescent: line_search: .*; call it, armijo\(\)"):
        xpopt.GradientDescent(line_search=armijo)
    with pytest.raises(TypeError, match=r"line_search: 0.1 is not a line search; wanted one of armijo, backtracking"):
        xpopt.GradientDescent(line_search=0.1)


def test_one_of_your_own():
    class twice(LineSearch):  # noqa: N801
        def trials(self, start, step):
            yield step
            yield step / 2
            return True

    method, steps = xpopt.GradientDescent(line_search=twice()), []
    solver = method.solver(np.array([1.0]), stop=xpopt.stop.steps(1))
    while not solver.done:
        x = solver.ask()
        steps.append(1 - x[0])
        solver.tell(x @ x, 2 * x)
    assert steps == [0, 1, 0.5]  # a length of 1 at first
    assert solver.best.tolist() == [0.5]
