"""FISTA beside a transcription of the paper, SciPy's least squares without negative numbers, and optimality."""

import importlib.util
import itertools
import math

import numpy as np
import pytest
from _kit.bits import same_bits

import xpopt
from xpopt import FISTA, SGD, OptimizerBase, prox, setting

pytestmark = pytest.mark.any_width

on_numpy = pytest.mark.backends("numpy")


NNLS = importlib.import_module("scipy.optimize").nnls if importlib.util.find_spec("scipy") else None


def sparse_problem(seed, rows=20, columns=40):
    """A least-squares problem of fewer rows than columns: its gradient, the reciprocal of its Lipschitz constant."""
    rng = np.random.default_rng(seed)
    A, b = rng.normal(size=(rows, columns)), rng.normal(size=rows)
    return A, b, 1 / np.linalg.norm(A, 2) ** 2


def transcribed(gradient, project, start, lr, steps, restarts=lambda *points: False):
    """Beck and Teboulle, eqs. 4.1 to 4.3, line by line; y and x after each step, starting over where one says so."""
    x_before, y, t, path = start, start, 1.0, []
    for _ in range(steps):
        x = project(y - lr * gradient(y))
        if restarts(y, x, x_before):
            t = 1.0
        after = (1 + math.sqrt(1 + 4 * t**2)) / 2
        y, x_before, t = x + (t - 1) / after * (x - x_before), x, after
        path.append((y, x))
    return path


def soft(x, threshold):
    return np.sign(x) * np.maximum(np.abs(x) - threshold, 0)


WEIGHT = 0.5
LOW, HIGH = np.full(40, -0.1), np.linspace(0, 1, 40)
SETS = {
    "l1": (prox.l1(WEIGHT), lambda x, lr: soft(x, lr * WEIGHT)),
    "nonnegative": (prox.nonnegative, lambda x, lr: np.maximum(x, 0)),
    "box of arrays": (prox.box(LOW, HIGH), lambda x, lr: np.clip(x, LOW, HIGH)),
    "ball": (prox.l2_ball(0.5), lambda x, lr: x * min(1.0, 0.5 / np.linalg.norm(x))),
    "none": (None, lambda x, lr: x),
}


@pytest.mark.parametrize(
    ("one", "project"),
    [
        pytest.param(*SETS[name], id=name, marks=[pytest.mark.row_of_numpy] * (name not in ("l1", "ball")))
        for name in SETS
    ],
)
def test_the_walk_is_that_of_the_paper(backend, one, project):
    """Both points, of which the second is inside the set. Elsewhere over fewer steps: the text is the same."""
    A, b, lr = sparse_problem(1)
    opt, tolerance = FISTA(lr=lr, prox=one), 1e-12 if backend.widest == "float64" else 1e-4
    y = backend.array(np.zeros(40))
    steps = 60 if backend.library == "numpy" else 4
    walk = transcribed(lambda y: A.T @ (A @ y - b), lambda x: project(x, lr), np.zeros(40), lr, steps)
    for k, (y_wanted, x_wanted) in enumerate(walk):
        y = opt.update(y, backend.array(A.T @ (A @ backend.numpy(y) - b)), "x")
        if k % 20 == 19 or k == steps - 1:
            x = backend.numpy(opt.averaged({"x": y})["x"])
            assert np.allclose(backend.numpy(y), y_wanted, rtol=tolerance, atol=tolerance)
            assert np.allclose(x, x_wanted, rtol=tolerance, atol=tolerance)


RESTARTS = {
    "value": lambda A, b: Risen(A, b),
    "gradient": lambda A, b: lambda y, x, before: float((y - x) @ (x - before)) > 0,
}


class Risen:
    """Whether the sum of squares and the penalty is larger than at the step before, at the points y."""

    def __init__(self, A, b):
        self.A, self.b, self.last = A, b, None

    def loss(self, y):
        return 0.5 * float(np.sum((self.A @ y - self.b) ** 2)) + WEIGHT * float(np.abs(y).sum())

    def __call__(self, y, x, before):
        now = self.loss(y)
        last, self.last = self.last, now
        return last is not None and now > last


@pytest.mark.backends("numpy", "array-api-strict", "torch", "jax-x64")
@pytest.mark.parametrize(("restart", "way"), [("value", "update"), ("value", "update_all"), ("gradient", "update")])
def test_it_starts_over_as_asked(backend, restart, way):
    A, b, lr = sparse_problem(2)
    restarts = []
    ask = RESTARTS[restart](A, b)

    def noted(*points):
        restarts.append(ask(*points))
        return restarts[-1]

    def gradient(y):
        return A.T @ (A @ y - b)

    walk = transcribed(gradient, lambda x: soft(x, lr * WEIGHT), np.zeros(40), lr, 80, noted)
    assert 1 <= sum(restarts) < 20
    opt, y = FISTA(lr=lr, prox=prox.l1(WEIGHT), restart=restart), np.zeros(40)
    losses = Risen(A, b)
    for y_wanted, _ in walk:
        given = backend.array(y), backend.array(gradient(y))
        loss = backend.array(losses.loss(y)) if restart == "value" else None
        if way == "update":
            new = opt.update(*given, "x", loss)
            opt.step()
        else:
            new = opt.update_all({"x": given[0]}, {"x": given[1]}, loss)["x"]
        y = backend.numpy(new)
        assert np.allclose(y, y_wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.any_engine
@pytest.mark.parametrize("way", ["update", "update_all", "in a group"])
def test_a_loss_that_is_to_rise_restarts_where_it_falls(way):
    """Upwards on the negative function is the same walk, restarts and all."""
    A, b, lr = sparse_problem(4)
    ends = []
    for sign in (1.0, -1.0):
        opt, x, paces = FISTA(lr=lr, restart="value", maximize=sign < 0, prox=prox.l1(WEIGHT)), np.zeros(40), []
        if way == "in a group":
            opt = SGD(groups={"x": opt})
        losses = Risen(A, b)
        for _ in range(60):
            given = x, sign * A.T @ (A @ x - b), sign * losses.loss(x)
            if way == "update":
                x = opt.update(*given[:2], "x", given[2])
            else:
                x = opt.update_all({"x": given[0]}, {"x": given[1]}, given[2])["x"]
            paces.append(float(opt.cache["x"]["pace"]))
        ends.append((x.tolist(), paces))
    assert ends[0] == ends[1]
    assert 1 <= sum(later < before for before, later in itertools.pairwise(ends[0][1])) < 20
    assert max(ends[0][1]) > 5


@on_numpy
@pytest.mark.parametrize(("restart", "dtype"), [("never", "float16"), ("value", "float32")])
def test_engines_have_the_bits_of_eager(backend, fused, restart, dtype):
    rng, ends = np.random.default_rng(3), []
    start, grads = rng.normal(size=(4, 5)).astype(dtype), rng.normal(size=(6, 4, 5)).astype(dtype)
    for engine in ("eager", fused):
        opt, params, outside = FISTA(lr=0.25, bounds=(-0.3, 0.7), restart=restart), {"W": start, "b": start[0]}, 0
        with xpopt.engine(engine):
            for loss, grad in zip((3.0, 2.0, 2.5, 1.0, 0.9, 1.5), grads, strict=True):
                params = opt.update_all(params, {"W": grad, "b": grad[0]}, loss)
                outside += np.count_nonzero(np.abs(params["W"].astype(np.float64)) > 0.71)
            assert opt.explain(params)[0].engine == engine
        x = opt.averaged(params)["W"].astype(np.float64)
        assert np.all((x >= -0.3) & (x <= 0.7))
        assert outside
        ends.append({**params, "cache": opt.cache})
    assert same_bits(*ends)


@pytest.mark.any_engine
def test_least_squares_without_negative_numbers():
    """Ten problems: each of its two conditions, and an active-set method where there is one."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        A, b = rng.normal(size=(30, 12)) * rng.uniform(0.2, 2.0, 12), rng.normal(size=30)
        opt = FISTA(lr=1 / np.linalg.norm(A, 2) ** 2, bounds=(0, None), restart="gradient")
        params = {"x": np.zeros(12)}
        for _ in range(300):
            params = opt.update_all(params, {"x": A.T @ (A @ params["x"] - b)})
        x = opt.averaged(params)["x"]
        grad = A.T @ (A @ x - b)
        assert np.all(np.abs(grad[x > 0]) < 1e-8), seed
        assert np.all(grad[x == 0] > 0)
        assert np.all(x >= 0)
        assert float(opt.stationarity({"x": x}, {"x": grad})) < 1e-8
        if NNLS is not None:
            assert np.allclose(x, NNLS(A, b)[0], rtol=1e-9, atol=1e-9), seed


@pytest.mark.any_engine
def test_the_lasso_solution_has_exact_zeros():
    """The optimality conditions: the gradient is the weight where an element is not 0, and smaller where it is."""
    A, b, lr = sparse_problem(1)
    opt, params = FISTA(lr=lr, prox=prox.l1(WEIGHT), restart="gradient"), {"x": np.zeros(40)}
    for _ in range(600):
        params = opt.update_all(params, {"x": A.T @ (A @ params["x"] - b)})
    x = opt.averaged(params)["x"]
    g = A.T @ (A @ x - b)
    assert 0 < np.count_nonzero(x) < 20
    assert np.allclose(g[x != 0], -WEIGHT * np.sign(x[x != 0]), atol=1e-9)
    assert np.all(np.abs(g[x == 0]) <= WEIGHT + 1e-9)


@pytest.mark.any_engine
def test_bounds_after_the_rule_leave_momentum_at_rest():
    """A parameter against its bound leaves it at once when the gradient turns; by hand it waits for the momentum."""

    def steps_until_it_leaves(opt, by_hand):
        x = np.array([0.5])
        for k in range(600):
            x = opt.update(x, np.array([-1.0 if k < 300 else 0.2]), "x")
            x = np.clip(x, 0, 1) if by_hand else x
            if k >= 300 and x[0] < 1:
                return k - 300
        raise AssertionError

    assert steps_until_it_leaves(xpopt.Adam(lr=0.01), by_hand=True) > 5
    assert steps_until_it_leaves(xpopt.Adam(lr=0.01, prox=prox.box(0, 1)), by_hand=False) == 0


# Settings and state


@pytest.mark.any_engine
def test_a_loss_is_needed_by_the_restart_that_reads_it():
    opt = FISTA(restart="value")
    for call in (lambda: opt.update(np.ones(2), np.ones(2), "x"), lambda: opt.update_all([np.ones(2)], [np.ones(2)])):
        with pytest.raises(ValueError, match="FISTA reads the loss, and cur_loss is None; give it the loss of"):
            call()
    assert opt.cache == {}
    mixed = SGD(groups={"x": FISTA(restart="value")})
    with pytest.raises(ValueError, match="cur_loss is None"):
        mixed.update_all({"x": np.ones(2), "y": np.ones(2)}, {"x": np.ones(2), "y": np.ones(2)})
    with pytest.raises(ValueError, match="FISTA: restart='loss' is unknown; wanted one of 'never', 'value'"):
        FISTA(restart="loss")
    assert FISTA(restart="gradient").explain([np.ones(2)])[0].reason == "restart='gradient' is a sum over a parameter"


@pytest.mark.parametrize("before", ["never", "value", "gradient"])
@pytest.mark.parametrize("after", ["never", "value", "gradient"])
@pytest.mark.any_engine
def test_a_restart_may_be_asked_for_later(before, after):
    """The pace goes on, and so do copies and checkpoints."""
    opt, x = FISTA(lr=0.1, bounds=(0, None), restart=before), np.ones(3)
    for loss in (3.0, 2.0, 1.0):
        x = opt.update(x, 0.1 * x, "x", loss)
    pace = float(opt.cache["x"]["pace"])
    opt.set_params({"restart": after})
    twin = FISTA()
    twin.load_state_dict(opt.state_dict())
    for one in (opt.copy(), twin, opt):
        new = one.update(x, 0.1 * x, "x", 0.5)
        assert float(one.cache["x"]["pace"]) == 0.5 + math.sqrt(0.25 + pace**2)
        assert str(one) == str(opt)
    assert new.shape == (3,)


@pytest.mark.any_engine
def test_a_rule_of_ones_own_projects_where_it_likes():
    """At the gradient's point and at the end; the option does nothing else."""

    class Twice(OptimizerBase):
        lr: float = setting(default=1.0)
        proximal = True

        @staticmethod
        def rule(xp, param, grad, s, h):
            return h.project(h.project(param) - h.lr * grad) - 1.0, s

    x = np.array([-3.0, 0.5, 2.0])
    for engine in ("eager", "blocked"):
        with xpopt.engine(engine):
            assert Twice(bounds=(0, 1)).update(x, np.full(3, 0.25), "x").tolist() == [-1.0, -0.75, -0.25]
            assert Twice(prox=prox.l1(0.5)).update(x, np.zeros(3), "x").tolist() == [-3.0, -1.0, 0.0]
            assert Twice().update(x, np.full(3, 0.25), "x").tolist() == [-4.25, -0.75, 0.75]
            assert Twice(bounds=(0, 1), clip_norm=1.0).update(x, np.full(3, 0.25), "x").tolist() == [-1.0, -0.75, -0.25]
    assert Twice(bounds=(0, 1), clip_norm=1.0).explain([x])[0].engine == "blocked"  # no gradient is blocked before
