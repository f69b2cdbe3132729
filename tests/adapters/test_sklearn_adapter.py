"""Optimizers inside scikit-learn's perceptrons."""

import doctest
import pickle
import sys

import numpy as np
import pytest
from _kit import states

import xpopt

pytest.importorskip("sklearn", reason="what is adapted to is scikit-learn's")
pytestmark = pytest.mark.backends("numpy")
from sklearn import neural_network  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402

from xpopt.adapters.sklearn import MLPClassifier, MLPRegressor  # noqa: E402

RANDOM = np.random.default_rng(5)
X = RANDOM.normal(size=(12, 3))
PLANE, CLASSES = X @ [1.0, -2.0, 0.5], (X[:, 0] > X[:, 1]).astype(int)
SHAPE = {"hidden_layer_sizes": (4,), "random_state": 7}


def weights(model):
    return [*model.coefs_, *model.intercepts_]


def far(model, other):
    return max(np.max(np.abs(a - b)) for a, b in zip(weights(model), weights(other), strict=True))


@pytest.mark.parametrize(
    ("own", "y", "ours", "theirs"),
    [
        (
            MLPClassifier,
            CLASSES,
            xpopt.Adam(lr=0.02, eps=1e-8, eps_place="uncorrected"),
            {"solver": "adam", "learning_rate_init": 0.02},
        ),
        (
            MLPRegressor,
            PLANE,
            "SGD(lr=0.05, momentum=0.9, nesterov=True)",
            {"solver": "sgd", "learning_rate_init": 0.05},
        ),
    ],
)
def test_the_path_of_scikit_learn(own, y, ours, theirs):
    models = own(**SHAPE, optimizer=ours), getattr(neural_network, own.__name__)(**SHAPE, **theirs)
    for model in models:
        model.partial_fit(X, y, **({"classes": [0, 1]} if y is CLASSES else {}))
        for _ in range(49):
            model.partial_fit(X, y)
    assert far(*models) < 1e-12
    assert models[0].optimizer_.cur_step == 50


def test_a_fit_with_batches_groups_and_a_schedule_that_reads_the_loss():
    optimizer = xpopt.Adam(lr_scheduler=states.CountingScheduler(), groups={"intercepts/*": "freeze"})
    settings = {"batch_size": 4, "max_iter": 9, "n_iter_no_change": 1, "tol": 100.0, "shuffle": False}
    model = MLPRegressor(**SHAPE, **settings, optimizer=optimizer).fit(X, PLANE)
    losses = model.optimizer_.lr_scheduler.losses
    assert np.allclose(np.reshape(losses, (-1, 3)).mean(axis=1), model.loss_curve_, rtol=1e-12)
    assert model.optimizer_.cur_step == len(losses) == 3 * model.n_iter_
    assert list(model.optimizer_.cache) == [("coefs", 0), ("coefs", 1)]
    assert (optimizer.cur_step, optimizer.cache) == (0, {})


def test_parameters_copies_and_searches():
    model = MLPClassifier(**SHAPE, optimizer=xpopt.Adam(lr=0.1))
    assert "solver" not in model.get_params()
    twin = clone(model).set_params(optimizer__lr=0.5, alpha=0.0)
    assert (twin.optimizer.lr, model.optimizer.lr, twin.alpha) == (0.5, 0.1, 0.0)
    text = clone(MLPClassifier(optimizer="SGD(lr=0.1)")).set_params(optimizer__momentum=0.5)
    assert (text.optimizer.lr, text.optimizer.momentum) == (0.1, 0.5)
    model.partial_fit(X, CLASSES, classes=[0, 1])
    loaded = pickle.loads(pickle.dumps(model))
    for each in (model, loaded):
        each.partial_fit(X, CLASSES)
    assert far(model, loaded) == 0.0
    assert loaded.optimizer_.cur_step == 2
    search = GridSearchCV(
        make_pipeline(MLPRegressor(**SHAPE, max_iter=40, tol=1.0, n_iter_no_change=30, optimizer="Adam")),
        {"mlpregressor__optimizer__lr": [1e-6, 0.1]},
        cv=2,
    )
    assert search.fit(X, PLANE).best_params_ == {"mlpregressor__optimizer__lr": 0.1}


def test_what_it_does_not_take_is_told():
    with pytest.raises(TypeError, match=r"momentum is a parameter of scikit-learn's solvers.*optimizer='Adam\(lr"):
        MLPClassifier(momentum=0.5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'layers'"):
        MLPRegressor(layers=3)
    model = MLPClassifier(optimizer="nobody")
    assert "optimizer__lr" not in model.get_params()
    with pytest.raises(ValueError, match="nobody"):
        model.fit(X, CLASSES)
    model.set_params(optimizer="SGD(lr=0.1)")
    for wrong, kind in ({"optimizer__lr": -1.0}, ValueError), ({"optimizer__rate": 1.0}, KeyError):
        with pytest.raises(kind):
            model.set_params(**wrong, alpha=5.0)
    with pytest.raises(ValueError, match="nobody"):
        model.set_params(alpha=5.0, nobody=1)
    assert (model.optimizer, model.alpha) == ("SGD(lr=0.1)", 0.0001)


def test_the_example():
    assert doctest.testmod(sys.modules[MLPClassifier.__module__]) == (0, 7)
