"""Training that began with optax's optimizer goes on with one of xpopt, and the other way."""

import numpy as np
import pytest

import xpopt

optax = pytest.importorskip("optax", reason="what is converted is optax's")
jax = pytest.importorskip("jax")
pytestmark = pytest.mark.backends("jax-x64")
from xpopt.adapters.state import from_optax, to_optax  # noqa: E402

ROWS = [
    ("sgd", "SGD", {"learning_rate": 0.1}),
    ("sgd", "SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    ("sgd", "SGD", {"learning_rate": 0.1, "momentum": 0.0}),
    ("adam", "Adam", {"learning_rate": 0.1, "eps": 1e-3, "b1": 0.8}),
    ("adamw", "AdamW", {"learning_rate": 0.1, "weight_decay": 0.1}),
    ("rmsprop", "RMSProp", {"learning_rate": 0.1}),
    ("rmsprop", "RMSProp", {"learning_rate": 0.1, "centered": True, "momentum": 0.5, "eps_in_sqrt": False}),
    ("adadelta", "Adadelta", {"learning_rate": 1.0, "weight_decay": 0.1}),
    ("adamax", "Adamax", {"learning_rate": 0.1}),
    ("adamaxw", "Adamax", {"learning_rate": 0.1, "weight_decay": 0.1}),
    ("lion", "Lion", {"learning_rate": 0.01}),
    ("radam", "RAdam", {"learning_rate": 0.1, "threshold": 4.5}),
    ("yogi", "Yogi", {"learning_rate": 0.1}),
    ("lamb", "LAMB", {"learning_rate": 0.1, "weight_decay": 0.1}),
]


@pytest.fixture
def model(backend):
    """Parameters, and the gradients of 25 steps."""
    random = np.random.default_rng(8)
    draw = lambda: {"a": {"w": random.normal(size=2)}, "b": [random.normal(size=2)], "n": random.normal()}  # noqa: E731
    first, *grads = [jax.tree.map(lambda x: backend.array(x, "float64"), draw()) for _ in range(26)]
    return first, grads


def train(solver, state, params, grads):
    for each in grads:
        updates, state = solver.update(each, state, params)
        params = jax.tree.map(lambda x, y: x + y, params, updates)
    return state, params


def far(tree, other):
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return max(float(np.max(np.abs(np.asarray(x) - np.asarray(y)))) for x, y in pairs)


def assert_it_goes_on(solver, theirs, settings, params, grads):
    """After five steps of optax, ours and what is made of ours walk as optax does; return ours."""
    state, params = train(solver, solver.init(params), params, grads[:5])
    own = from_optax(theirs, state, params, **settings)
    back, told = to_optax(own, params)
    values = jax.tree.map(np.asarray, params)
    for each in grads[5:]:
        values = own.update_all(values, jax.tree.map(np.asarray, each))
    _, wanted = train(solver, state, params, grads[5:])
    assert far(wanted, values) < 1e-12
    assert far(wanted, train(back, told, params, grads[5:])[1]) < 1e-12
    return own


@pytest.mark.parametrize(("theirs", "ours", "settings"), ROWS)
def test_training_goes_on_in_both_directions(model, theirs, ours, settings):
    params, grads = model
    solver = optax.chain(optax.clip(10.0), getattr(optax, theirs)(**settings))
    own = assert_it_goes_on(solver, theirs, settings, params, grads)
    assert type(own).__name__ == ours


def test_what_is_another_formula_is_told(model):
    params, _ = model
    state = optax.adam(0.1).init(params)
    for name, settings, message in (
        ("adam", {"eps_root": 1e-8}, "adam of optax cannot be converted with eps_root=1e-08: which is added inside"),
        ("adagrad", {}, "adagrad of optax cannot be converted: its eps is inside the square root"),
        ("nobody", {}, "wanted one of sgd, adam"),
        ("sgd", {"momentum": 0.5}, "state has 0 TraceState, the state of sgd has one"),
    ):
        with pytest.raises(ValueError, match=message):
            from_optax(name, state, params, learning_rate=0.1, **settings)
    with pytest.raises(TypeError, match="'beta'"):
        from_optax("adam", state, params, learning_rate=0.1, beta=0.9)
    with pytest.raises(ValueError, match=r"no parameter 'b/0'; .* parameter 'n'; 'a/w' has shape \(1,\), .* \(2,\)$"):
        from_optax("adam", state, {"a": {"w": np.ones(1)}, "c": np.ones(1)}, learning_rate=0.1)
    own = xpopt.Adam(groups={"b/*": {"lr": 0.1}})
    with pytest.raises(ValueError, match="make an optimizer for each group"):
        to_optax(own, params)
    own = xpopt.Adam()
    own.update(np.ones(2), np.ones(2), ("b", 0))
    own.update_all(jax.tree.map(np.asarray, params), jax.tree.map(np.asarray, params))
    with pytest.raises(ValueError, match=r"different numbers of updates, \[1, 2\]"):
        to_optax(own, params)


COMPLEX = [
    ("sgd", {"learning_rate": 0.1, "momentum": 0.9}),
    ("adam", {"learning_rate": 0.1}),
    ("rmsprop", {"learning_rate": 0.1, "momentum": 0.5}),
    ("adamax", {"learning_rate": 0.1}),
    ("yogi", {"learning_rate": 0.1}),
]


@pytest.mark.parametrize(("theirs", "settings"), COMPLEX)
def test_complex_parameters(backend, theirs, settings):
    random = np.random.default_rng(8)
    draw = lambda: {"z": random.normal(size=3) + 1j * random.normal(size=3), "r": random.normal(size=2)}  # noqa: E731
    params, *grads = [jax.tree.map(jax.numpy.asarray, draw()) for _ in range(11)]
    solver = getattr(optax, theirs)(**settings)
    assert_it_goes_on(solver, theirs, settings, params, grads)


def test_complex_parameters_of_another_formula_are_refused(backend):
    params = {"z": jax.numpy.ones(2, dtype="complex128")}
    for theirs in ("lion", "lamb", "adadelta"):
        with pytest.raises(ValueError, match=f"{theirs} of optax has another formula for complex parameters"):
            from_optax(theirs, getattr(optax, theirs)(0.1).init(params), params, learning_rate=0.1)
    with pytest.raises(ValueError, match="as with modulus=True here"):
        to_optax(xpopt.Adam(), params)


def test_a_state_without_some_of_the_parameters(model):
    params, _ = model
    mask = {"a": True, "b": False, "n": True}
    state = optax.masked(optax.adam(0.1), mask).init(params)
    with pytest.raises(ValueError, match="it has nothing for 'b/0'"):
        from_optax("adam", state, params, learning_rate=0.1)
    part = {name: x for name, x in params.items() if name != "b"}
    assert set(from_optax("adam", *train_once(optax.masked(optax.adam(0.1), True), part), learning_rate=0.1).cache)


def train_once(solver, params):
    return train(solver, solver.init(params), params, [params])
