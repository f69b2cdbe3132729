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
    """Return the values after each step, before which so much of the parameter is kept."""
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    opt = getattr(torch.optim, fact.name)([weight], lr=LR, foreach=False, **fact.theirs)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        weight.data *= kept
        opt.step()
        yield weight.detach().numpy().copy()


def of_optax(fact, start, gradients, kept=1.0):
    """Return the same of optax; JAX has to be told of float64 before."""
    optax, jax = pytest.importorskip("optax"), pytest.importorskip("jax")
    transform = functools.reduce(getattr, fact.name.split("."), optax)(**fact.theirs)
    param, step = jax.numpy.asarray(start), jax.jit(transform.update)
    state, rate = transform.init(param), LR
    if "learning_rate" in fact.theirs:  # whole optimizers return what is added
        rate = 1.0 if "scale_by" in fact.name else -1.0
    for gradient in gradients:
        update, state = step(jax.numpy.asarray(gradient), state, param)
        param = kept * param - rate * update
        yield np.asarray(param)


def walked_and_off(fact, theirs, shape, decayed):
    """Return the distance walked, and the largest distance between here and there, after each step."""
    var = problems.variable(51, shape)
    start, gradients = np.reshape(var.start, shape), [np.reshape(g, shape) for g in var.gradients]
    if decayed:
        opt = fact.optimizer(lr=LR, **fact.ours, clip_norm=CLIP, weight_decay=DECAY)
        clipped = [g * min(1, CLIP / np.sqrt(np.sum(g * g))) for g in gradients]
        wanted = theirs(fact, start, clipped, 1 - LR * DECAY)
    else:
        opt, wanted = fact.optimizer(lr=LR, **fact.ours), theirs(fact, start, gradients)
    param, before, walked = start, start, 0.0
    for gradient, want in zip(gradients, wanted, strict=True):
        param = opt.update(param, gradient, "W")
        opt.step()
        walked += np.max(np.abs(want - before))
        before = want
        yield walked, np.max(np.abs(param - want))


def compare(fact, theirs, shape, decayed=False):
    """Compare each step; what is not the same must be seen not to be."""
    steps = list(walked_and_off(fact, theirs, shape, decayed))
    assert len(steps) == 50
    if fact.same:
        assert all(off <= 1e-9 * walked for walked, off in steps)
    else:
        assert steps[-1][1] > 1e-3 * steps[-1][0], f"{fact.library} computes the same by now: correct the fact"


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
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("fact", TORCH, ids=lambda fact: fact.label)
def test_torch(fact, shape):
    compare(fact, of_torch, shape)
    if fact in DECAYED:
        compare(fact, of_torch, shape, decayed=True)


@pytest.mark.backends("jax-x64")
@pytest.mark.parametrize("fact", OPTAX if find_spec("optax") else OPTAX[:1], ids=lambda fact: fact.label)
def test_optax(backend, fact):
    """Where optax is missing, one of them says so."""
    for shape in SHAPES.values():
        compare(fact, of_optax, shape)
    if fact in DECAYED:
        compare(fact, of_optax, SHAPES["vector"], decayed=True)


@pytest.mark.parametrize("library", NOT_THERE)
def test_of_every_algorithm_it_is_said_what_a_library_has(library):
    told = {fact.optimizer for fact in FACTS if fact.library == library}
    assert told | NOT_THERE[library] == set(SIGNATURES)
    assert not told & NOT_THERE[library]
