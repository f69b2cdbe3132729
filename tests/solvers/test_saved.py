"""A solver that is saved and loaded goes on bit for bit."""

import copy
import json
import pickle

import numpy as np
import pytest
from _kit.functions import rosenbrock

import xpopt
from xpopt import stop

METHODS = {
    "LBFGS": xpopt.LBFGS(history=3),
    "LBFGS-hager-zhang": xpopt.LBFGS(line_search="hager_zhang"),
    "NonlinearCG": xpopt.NonlinearCG(),
    "GradientDescent": xpopt.GradientDescent(),
    "Adam": xpopt.Adam(lr=0.05, lr_scheduler="exponential"),
}
START = {"x": np.tile([-1.2, 1.0], 3), "deep": [np.array(0.5)]}
END = stop.steps(25)


def evaluate(params):
    value, grad = rosenbrock(np.append(params["x"], params["deep"][0]))
    return value, {"x": grad[:-1], "deep": [grad[-1]]}


def bits(solver):
    best = solver.best
    return solver.history, solver.reason, solver.evaluations, best["x"].tobytes(), best["deep"][0].tobytes()


@pytest.mark.parametrize("name", METHODS)
def test_at_any_value(name):
    """Before the first, within a line search, between steps, at the end."""
    method = METHODS[name]
    whole = method.solver(START, END)
    whole.run(evaluate)
    first = method.solver(START, END)
    for told in range(whole.evaluations + 1):
        if told in (0, 1, 2, 7, 13, whole.evaluations - 1, whole.evaluations):
            state = first.state_dict()
            json.dumps(state["header"])
            again = method.solver(START, END)
            again.load_state_dict(state)
            assert again.done == (told == whole.evaluations)
            assert np.array_equal(again.ask()["x"], first.ask()["x"])
            again.run(evaluate)
            assert bits(again) == bits(whole)
        if not first.done:
            first.tell(*evaluate(first.ask()))
    assert bits(first) == bits(whole)


@pytest.mark.parametrize("name", METHODS)
def test_a_longer_run_goes_on_from_the_end_of_a_shorter_one(name):
    method = METHODS[name]
    short, whole = method.solver(START, stop.steps(10)), method.solver(START, END)
    short.run(evaluate)
    whole.run(evaluate)
    again = method.solver(START, END)
    again.load_state_dict(short.state_dict())
    found = again.run(evaluate)
    assert [row[:4] for row in found.history] == [row[:4] for row in whole.history]
    assert found.params["x"].tobytes() == whole.best["x"].tobytes()


@pytest.mark.any_immutable
@pytest.mark.backends("numpy", "torch", "jax", "dask", "cupy")
@pytest.mark.parametrize("method", ["LBFGS", "Adam"])
def test_files_of_every_library(backend, method, tmp_path):
    pytest.importorskip("safetensors", reason="files are safetensors'")

    def function(params):
        x = params["x"]
        return backend.xp.sum(x * x * x * x), {"x": 4 * x * x * x}

    start, kind = {"x": backend.array([1.5, -0.5, 1.0])}, METHODS[method]
    whole, first, again = (kind.solver(start, stop.steps(4)) for _ in range(3))
    whole.run(function)
    for _ in range(3):
        first.tell(*function(first.ask()))
    first.save(tmp_path / "solver.safetensors")
    again.load(tmp_path / "solver.safetensors")
    found = again.run(function)
    assert found.history == whole.history
    assert backend.numpy(found.params["x"]).tobytes() == backend.numpy(whole.best["x"]).tobytes()


@pytest.mark.parametrize("method", [xpopt.LBFGS(), xpopt.Adam(lr=0.1)], ids=lambda one: type(one).__name__)
def test_complex_parameters_in_a_file(method, tmp_path):
    pytest.importorskip("safetensors", reason="files are safetensors'")
    start = np.array([1 + 2j, -1j])

    def function(z):
        return float(np.sum(np.abs(z) ** 4)), 4 * np.abs(z) ** 2 * z

    whole, first, again = (method.solver(start, stop.steps(8)) for _ in range(3))
    whole.run(function)
    for _ in range(4):
        first.tell(*function(first.ask()))
    first.save(tmp_path / "solver.safetensors")
    again.load(tmp_path / "solver.safetensors")
    assert again.run(function).params.tobytes() == whole.best.tobytes()


def test_what_does_not_fit_is_told_and_changes_nothing():
    solver = xpopt.LBFGS().solver(START, END)
    solver.tell(*evaluate(solver.ask()))
    state, before = solver.state_dict(), bits(solver)
    data = state["header"]["solver"]
    damaged = [
        ({}, "wanted what state_dict returns"),
        (xpopt.LBFGS(history=3).solver(START).state_dict(), "is of LBFGS.history=3.* and this is LBFGS.history=10"),
        (xpopt.Adam().solver(START).state_dict(), "the checkpoint is of Adam, and this is LBFGS"),
        (xpopt.LBFGS().solver(np.ones(3)).state_dict(), "parameters are 'params' in the checkpoint, and 'x', 'deep/0'"),
        (
            xpopt.LBFGS().solver({**START, "x": np.ones(3)}).state_dict(),
            r"'x' is float64 of shape \(3,\) in the checkpoint, and float64 of shape \(6,\) here",
        ),
        ({**state, "header": {**state["header"], "format_version": 2}}, "this xpopt reads 1; update xpopt"),
        ({**state, "header": {"format_version": 1}}, "no state of a solver, or a damaged one: KeyError"),
        ({**state, "header": {**state["header"], "solver": {**data, "search": {"start": [1]}}}}, "a damaged one"),
        ({**state, "arrays": {k: x for k, x in state["arrays"].items() if k != "g"}}, "a damaged one"),
    ]
    for wrong, words in damaged:
        with pytest.raises(xpopt.CheckpointError, match=words):
            solver.load_state_dict(wrong)
        assert bits(solver) == before
    with pytest.raises(xpopt.CheckpointError):
        xpopt.Adam().load_state_dict(state)


SIX = np.ones(6)
TWO = {"a": np.ones(2), "b": np.full(2, 2.0)}


@pytest.mark.parametrize("method", ["LBFGS", "Adam"])
@pytest.mark.parametrize(
    ("saved", "here", "words"),
    [
        (SIX, np.ones((2, 3)), r"'params' is float64 of shape \(6,\) in the checkpoint, and float64 of shape \(2, 3\)"),
        (np.ones(3, complex), SIX, r"'params' is complex128 of shape \(3,\) in the checkpoint, and float64"),
        (TWO, {"x": np.ones(2), "y": np.ones(2)}, "parameters are 'a', 'b' in the checkpoint, and 'x', 'y' here"),
        (TWO, {"b": np.ones(2), "a": np.ones(2)}, "parameters are 'a', 'b' in the checkpoint, and 'b', 'a' here"),
        ({**TWO, "a": np.ones(2, np.float32)}, TWO, "'a' is float32 of .* in the checkpoint, and float64"),
    ],
    ids=["shape", "complex", "names", "order", "dtype"],
)
def test_the_parameters_of_a_state_are_those_of_the_solver(method, saved, here, words):
    state = METHODS[method].solver(saved).state_dict()
    with pytest.raises(xpopt.CheckpointError, match=words):
        METHODS[method].solver(here).load_state_dict(state)


def test_a_state_outside_of_the_bounds_is_told():
    state = xpopt.LBFGS().solver(np.array([0.2, 3.0])).state_dict()
    inside = xpopt.LBFGS().solver(np.full(2, 0.1), bounds=(0, 0.5))
    with pytest.raises(xpopt.CheckpointError, match="outside of the bounds of this solver in 1 elements"):
        inside.load_state_dict(state)
    assert inside.ask().tolist() == [0.1, 0.1]


def test_a_header_does_not_grow_with_the_pairs():
    solver = xpopt.LBFGS(history=200).solver(np.linspace(0, 1, 40), stop=stop.steps(30))
    solver.run(rosenbrock)
    assert len(json.dumps(solver.state_dict()["header"])) < 2000


def test_a_solver_is_copied_by_its_state():
    solver = xpopt.LBFGS().solver(np.ones(3))
    for copied in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"cannot be pickled or copied; .* state_dict\(\) returns"):
            copied(solver)
