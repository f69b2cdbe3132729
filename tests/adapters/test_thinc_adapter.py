"""Optimizers in the place of thinc's."""

import copy
import doctest
import pickle
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import xpopt
from xpopt import optimizers

pytestmark = pytest.mark.backends("numpy")
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
POINTS = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]["thinc_optimizers"]
WHOLE = {"DoG", "Prodigy", "PolyakSGD"}
"""Those that read the whole model, or the loss."""


def test_each_optimizer_of_one_parameter_has_an_entry_point():
    found = {name for name in dir(optimizers) if isinstance(getattr(optimizers, name), type)}
    found -= {"OptimizerBase", *WHOLE}
    assert {f"xpopt.{name}.v1": f"xpopt.adapters.thinc:{name}" for name in found} == POINTS


@pytest.fixture
def adapter():
    pytest.importorskip("thinc", reason="what is adapted to is thinc's")
    from xpopt.adapters import thinc

    return thinc


@pytest.mark.parametrize(
    ("ours", "theirs", "settings", "dtype", "near"),
    [
        ("SGD(lr=0.125, clip_norm=2.0)", "SGD", {"learn_rate": 0.125, "grad_clip": 2.0}, "float64", 1e-12),
        (  # float32 alone there
            xpopt.Adam(lr=0.0625, eps=1e-8, eps_place="uncorrected", clip_norm=1.0),
            "Adam",
            {"learn_rate": 0.0625, "grad_clip": 1.0},
            "float32",
            1e-5,
        ),
    ],
)
def test_the_path_of_thinc(adapter, ours, theirs, settings, dtype, near):
    from thinc import optimizers as host

    random = np.random.default_rng(6)
    start, grads = random.normal(size=(3, 2)).astype(dtype), random.normal(size=(50, 3, 2)).astype(dtype)
    walks = []
    for optimizer in adapter.Optimizer(ours), getattr(host, theirs)(**settings, use_averages=False):
        assert isinstance(optimizer, host.Optimizer)
        weights = start.copy()
        for grad in grads:
            weights, gradient = optimizer((3, "W"), weights, grad.copy())
            assert not gradient.any()
            optimizer.step_schedules()
        walks.append(weights)
        assert optimizer.step == 50
    assert np.max(np.abs(walks[0] - walks[1])) < near


def test_a_model_a_config_and_averages(adapter):
    from thinc.api import Config, Linear, registry

    text = '[optimizer]\n@optimizers = "xpopt.Adam.v1"\nlr = "cosine(start=0.1, steps=10)"\ndecay1 = 0.5'
    registry.optimizers.register("xpopt.Adam.v1", func=adapter.Adam)
    optimizer = registry.resolve(Config().from_str(text))["optimizer"]
    assert (optimizer.optimizer.decay1, optimizer.optimizer.cur_step, optimizer.averages) == (0.5, 0, None)
    optimizer = adapter.Optimizer(xpopt.SGD(lr=1.0, average=xpopt.SWA(start=0)))
    model = Linear(2, 3).initialize()
    model.set_param("b", np.full(2, 3.0, np.float32))
    for grad in 1.0, 2.0:
        model.inc_grad("b", np.full(2, grad, np.float32))
        model.finish_update(optimizer)
        optimizer.step_schedules()
    assert model.get_param("b").tolist() == [0.0, 0.0]
    with model.use_params(optimizer.averages):  # of 2 and 0, with the start, 3
        assert np.allclose(model.get_param("b"), 5 / 3)
    assert model.get_param("b").tolist() == [0.0, 0.0]


def test_copies_and_pickles_go_on(adapter):
    optimizer = adapter.Optimizer(xpopt.SGD(lr=1.0, momentum=0.5))
    optimizer.last_score = 0.5
    optimizer((0, "W"), np.zeros(2), np.ones(2))
    optimizer.step_schedules()
    for twin in copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer)):
        weights, _ = twin((0, "W"), np.zeros(2), np.ones(2))
        assert (weights.tolist(), twin.step, twin.last_score) == ([-1.5, -1.5], 1, (0, 0.5))
    weights, _ = optimizer((0, "W"), np.zeros(2), np.ones(2))
    assert weights.tolist() == [-1.5, -1.5]


def test_what_it_does_not_take_is_told(adapter):
    with pytest.raises(TypeError, match="is not an optimizer"):
        adapter.Optimizer(3.0)
    with pytest.raises(AttributeError, match="has no attribute 'nobody'"):
        _ = adapter.nobody
    weights = np.ones(2)
    optimizer = adapter.Optimizer("SGD(lr=0.5)")
    with pytest.raises(ValueError, match=r"lr_scale=2\.0; wanted 1"):
        optimizer((0, "W"), weights, np.ones(2), lr_scale=2.0)
    with pytest.raises(ValueError, match="shape"):
        optimizer((0, "W"), weights, np.ones(3))
    assert weights.tolist() == [1.0, 1.0]


def test_the_example(adapter):
    assert doctest.testmod(sys.modules[adapter.Optimizer.__module__]) == (0, 6)
