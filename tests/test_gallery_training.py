"""The gallery's programs that train: their gradients are right, and what they show is so."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

import xpopt

GALLERY = Path(__file__).parents[1] / "docs" / "gallery"

pytestmark = [
    pytest.mark.any_engine,
    pytest.mark.backends("numpy"),
    pytest.mark.skipif(not GALLERY.is_dir(), reason="the gallery is in the source tree alone"),
]


@pytest.fixture
def program(monkeypatch):
    """Import a program, which may import others; it runs on NumPy."""
    monkeypatch.setenv("XPOPT_BACKEND", "numpy")
    monkeypatch.syspath_prepend(GALLERY)

    def program(name):
        if name in ("digits", "groups", "precision", "schedules"):
            pytest.importorskip("sklearn", reason="the digits are scikit-learn's: pip install 'xpopt[demo]'")
        return importlib.import_module(name)

    return program


def assert_gradients(function, params, grads):
    """Compare some elements with central differences."""
    rng = np.random.default_rng(3)
    for name, grad in grads.items():
        for place in rng.integers(grad.size, size=4):
            values = []
            for step in (1e-6, -1e-6):
                moved = {key: x.copy() for key, x in params.items()}
                moved[name].flat[place] += step
                values.append(function(moved))
            assert abs((values[0] - values[1]) / 2e-6 - grad.flat[place]) < 1e-6 * max(1, np.abs(grad).max())


def test_the_network_of_the_digits_has_its_gradients(program):
    digits = program("digits")
    rng = np.random.default_rng(1)
    xp = xpopt.default_namespace()
    params = {name: np.asarray(w, np.float64) for name, w in digits.weights(xp, rng).items()}
    x, y = rng.uniform(size=(5, 64)), np.eye(10)[rng.integers(10, size=5)]
    loss, grads, right = digits.network(xp, params, x, y)
    hidden = np.tanh(x @ params["W1"] + params["b1"])
    z = np.exp(hidden @ params["W2"] + params["b2"])
    assert np.isclose(loss, -np.mean(np.log((z / z.sum(axis=1, keepdims=True))[y > 0])))
    assert right == np.mean(z.argmax(axis=1) == y.argmax(axis=1))
    assert_gradients(lambda p: digits.network(xp, p, x, y)[0], params, grads)


def test_training_on_digits_is_the_loop_that_one_writes(program):
    digits, xp = program("digits"), xpopt.default_namespace()
    losses, _ = digits.train(xp, xpopt.SGD(lr=0.2), epochs=1, batch=256)
    rng, (x, y), total = np.random.default_rng(0), digits.digits(xp), 0.0
    params = digits.weights(xp, rng)
    for some in digits.batches(xp, rng, x, y, 256):
        loss, grads, _ = digits.network(xp, params, *some)
        params = {name: w - np.float32(0.2) * grads[name] for name, w in params.items()}
        total += float(loss)
    assert np.isclose(losses[0], total / 5, rtol=1e-5)


def test_each_schedule_reaches_the_same_rate_at_most(program):
    for name, rate in program("schedules").schedules(0.5, 200).items():
        rates = rate.values(200)
        assert np.isclose(max(rates), 0.5, rtol=1e-3), name
        assert name == "constant" or rates[-1] < 0.01, name


def test_groups_clipping_and_an_average_help_where_labels_are_wrong(program):
    plain, helped = program("groups").main(epochs=2).values()
    assert helped[-1, 1] > plain[-1, 0]


def test_float16_alone_loses_steps(program):
    wide, half, stochastic, master = program("precision").main(epochs=3).values()
    fall = wide[0] - wide[-1]
    assert half[-1] - wide[-1] > 0.2 * fall
    assert max(abs(stochastic[-1] - wide[-1]), abs(master[-1] - wide[-1])) < 0.05 * fall


def test_a_training_that_is_killed_ends_as_one_that_is_not(program, tmp_path, monkeypatch):
    resume = program("resume")
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    killed.mkdir()
    params, losses = resume.train(alone, steps=40, every=10)
    monkeypatch.setattr(resume.os, "kill", lambda *_: (_ for _ in ()).throw(InterruptedError))
    with pytest.raises(InterruptedError):
        resume.train(killed, steps=40, every=10, kill_at=25)
    again, resumed = resume.train(killed, steps=40, every=10)
    assert len(losses) == len(resumed) == 40
    assert losses == resumed
    assert np.array_equal(params["w"], again["w"])
    A, b = resume.problem(np)
    assert losses[0] == float(b @ b)
    assert np.sum((A @ params["w"] - b) ** 2) < losses[-1]


def test_himmelblau_has_four_minima(program):
    valley = program("valley")
    for point in valley.LOWEST:
        value, slopes = valley.himmelblau(np.array(point))
        assert abs(value) < 1e-10
        assert max(map(abs, slopes)) < 1e-4
    p = {"p": np.array([0.3, -1.2])}
    assert_gradients(lambda q: valley.himmelblau(q["p"])[0], p, {"p": np.array(valley.himmelblau(p["p"])[1])})
    ends = valley.main(methods={"LBFGS": xpopt.LBFGS()})["LBFGS"][:, -1]
    assert min(np.linalg.norm(ends - point) for point in np.array(valley.LOWEST)) < 1e-5


def test_neighbours_are_counted_by_their_distance(program):
    words, counts = program("words").neighbours([["a", "b", "a"], ["b", "c", "x", "a"]], most=2, window=2)
    assert words == ["a", "b"]
    assert counts.tolist() == [
        [1.0, 2.0],
        [2.0, 0.0],
    ]  # a and a are two apart, twice counted; b and a next to each other


def test_the_vectors_of_words_have_their_gradients_and_find_what_is_alike(program):
    words = program("words")
    rng, xp = np.random.default_rng(0), xpopt.default_namespace()
    p = {"w": rng.normal(size=(4, 3)), "c": rng.normal(size=(4, 3)), "b": rng.normal(size=4), "d": rng.normal(size=4)}
    weight, logs = rng.uniform(size=(4, 4)), rng.normal(size=(4, 4))
    _, grads = words.loss_and_gradients(xp, p, weight, logs)
    assert_gradients(lambda q: words.loss_and_gradients(xp, q, weight, logs)[0], p, grads)
    kinds = {"red": 0, "green": 0, "blue": 0, "one": 1, "two": 1, "three": 1}
    texts = []
    for _ in range(200):  # colours are among some words, numbers among others
        name = str(rng.choice(list(kinds)))
        around = [f"{'xyz'[k]}{kinds[name]}" for k in rng.integers(3, size=4)]
        texts.append([*around[:2], name, *around[2:]])
    names, vectors, losses = words.main(most=12, texts=texts)
    assert losses[-1] < 0.1 * losses[0]
    for name, kind in kinds.items():
        others = [other for other in kinds if other != name]
        near = max(others, key=lambda other: vectors[names.index(name)] @ vectors[names.index(other)])
        assert kinds[near] == kind, (name, near)
