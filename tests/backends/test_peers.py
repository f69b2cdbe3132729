"""Beside other libraries, where they can compute the same: 50 steps in float64, with a clip and a decay and without."""

import functools
from importlib.util import find_spec

import numpy as np
import pytest
from _kit import problems
from _kit.peers import FACTS, NOT_THERE, OPTAX, TORCH
from _kit.table import SIGNATURES

import xpopt

SHAPES = {"number": (), "matrix": (7, 5), "vector": (131,)}
LR, CLIP, DECAY = 0.1, 0.8, 0.0625
DECAYED = [  # where the step does not hang on the parameter, and decay is no part of the algorithm
    fact
    for fact in FACTS
    if fact.same
    and "lr_decay" not in fact.ours  # which makes the decay fall too
    and "weight_decay" not in SIGNATURES[fact.optimizer]
    and not issubclass(fact.optimizer, xpopt.AdamW | xpopt.FTRL)
]


def of_torch(fact, start, gradients, kept=1.0):
    """Return the values after each step, before which so much of each parameter is kept."""
    torch = pytest.importorskip("torch")
    weights = {name: torch.nn.Parameter(torch.tensor(x, dtype=torch.float64)) for name, x in start.items()}
    opt = getattr(torch.optim, fact.name)(weights.values(), lr=LR, foreach=False, **fact.theirs)
    for of_step in gradients:
        for name, weight in weights.items():
            weight.grad = torch.tensor(of_step[name], dtype=torch.float64)
            weight.data *= kept
        opt.step()
        yield {name: weight.detach().numpy().copy() for name, weight in weights.items()}


def of_optax(fact, start, gradients, kept=1.0):
    """Return the same of optax; JAX has to be told of float64 before."""
    optax, jax = pytest.importorskip("optax"), pytest.importorskip("jax")
    transform = functools.reduce(getattr, fact.name.split("."), optax)(**fact.theirs)
    rate = LR
    if "learning_rate" in fact.theirs:  # whole optimizers return what is added
        rate = 1.0 if "scale_by" in fact.name else -1.0

    @jax.jit
    def step(params, gradient, state):
        updates, state = transform.update(gradient, state, params)
        return {name: kept * x - rate * updates[name] for name, x in params.items()}, state

    params = {name: jax.numpy.asarray(x) for name, x in start.items()}
    state = transform.init(params)
    for of_step in gradients:
        params, state = step(params, of_step, state)
        yield {name: np.asarray(x) for name, x in params.items()}


def walked_and_off(fact, theirs, decayed):
    """Return the distance walked by each parameter, and the largest between here and there, after each step."""
    drawn = {name: problems.variable(51, shape) for name, shape in SHAPES.items()}
    start = {name: np.reshape(var.start, SHAPES[name]) for name, var in drawn.items()}
    gradients = [
        {name: np.reshape(var.gradients[k], SHAPES[name]) for name, var in drawn.items()}
        for k in range(len(drawn["number"].gradients))
    ]
    if decayed:
        opt = fact.optimizer(lr=LR, **fact.ours, clip_norm=CLIP, weight_decay=DECAY)
        clipped = [
            {name: g * min(1, CLIP / np.sqrt(np.sum(g * g))) for name, g in of_step.items()} for of_step in gradients
        ]
        wanted = theirs(fact, start, clipped, 1 - LR * DECAY)
    else:
        opt, wanted = fact.optimizer(lr=LR, **fact.ours), theirs(fact, start, gradients)
    params, before, walked = start, start, dict.fromkeys(SHAPES, 0.0)
    for of_step, want in zip(gradients, wanted, strict=True):
        params = opt.update_all(params, of_step)
        for name in SHAPES:
            walked[name] += np.max(np.abs(want[name] - before[name]))
        before = want
        yield dict(walked), {name: np.max(np.abs(params[name] - want[name])) for name in SHAPES}


def compare(fact, theirs, decayed=False):
    """Compare each step; what is not the same must be seen not to be."""
    steps = list(walked_and_off(fact, theirs, decayed))
    assert len(steps) == 50
    for name in SHAPES:
        if fact.same:
            assert all(off[name] <= 1e-9 * walked[name] for walked, off in steps), name
        else:
            walked, off = steps[-1]
            other = f"{fact.library} computes the same of a {name} by now: correct the fact"
            assert off[name] > 1e-3 * walked[name], other


@pytest.fixture
def wide_numbers():
    """Let torch keep numbers beside tensors, such as NAdam's product, in float64."""
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.backends("torch")
@pytest.mark.usefixtures("wide_numbers")
@pytest.mark.parametrize("fact", TORCH, ids=lambda fact: fact.label)
def test_torch(fact):
    compare(fact, of_torch)
    if fact in DECAYED:
        compare(fact, of_torch, decayed=True)


@pytest.mark.backends("jax-x64")
@pytest.mark.parametrize("fact", OPTAX if find_spec("optax") else OPTAX[:1], ids=lambda fact: fact.label)
def test_optax(backend, fact):
    """Where optax is missing, one of them says so."""
    compare(fact, of_optax)
    if fact in DECAYED:
        compare(fact, of_optax, decayed=True)


@pytest.mark.parametrize("library", NOT_THERE)
def test_of_every_algorithm_it_is_said_what_a_library_has(library):
    told = {fact.optimizer for fact in FACTS if fact.library == library}
    assert told | NOT_THERE[library] == set(SIGNATURES)
    assert not told & NOT_THERE[library]
