"""Optimizers inside scikit-learn's multi-layer perceptrons."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from sklearn import neural_network

from ..config import make_optimizer
from ..optimizers.base import OptimizerBase

__all__ = ["MLPClassifier", "MLPRegressor"]

_OF_SOLVERS = {
    *("solver", "learning_rate", "learning_rate_init", "power_t", "momentum", "nesterovs_momentum"),
    *("beta_1", "beta_2", "epsilon", "max_fun"),
}
"""Parameters of scikit-learn's class that only its own solvers use."""

_NESTED = "optimizer__"


class _Updates:
    """An optimizer with the methods that scikit-learn's training loop calls.

    Parameters
    ----------
    optimizer : OptimizerBase
        The optimizer that updates the weights.
    """

    def __init__(self, optimizer: OptimizerBase) -> None:
        self.optimizer = optimizer
        self.loss: float | None = None
        """The loss of the batch that the next gradients are of."""

    def update_params(self, params: list[Any], grads: list[Any]) -> None:
        """Update all weights in place.

        Parameters
        ----------
        params, grads : list of ndarray
            Weights of all layers, followed by the intercepts of all layers; and their gradients.
        """
        named, gradients = _named(params), _named(grads)
        self.optimizer.update_all(named, gradients, self.loss, out=named)

    def iteration_ends(self, time_step: int) -> None:
        """Do nothing at the end of an epoch, since schedules count updates.

        Parameters
        ----------
        time_step : int
            The number of samples seen.
        """

    def trigger_stopping(self, msg: str, verbose: bool) -> bool:
        """Let the training stop when there is no more improvement.

        Parameters
        ----------
        msg : str
            The reason.
        verbose : bool
            Whether to print it.

        Returns
        -------
        bool
            True.
        """
        if verbose:
            print(f"{msg} Stopping.")
        return True


def _named(arrays: list[Any]) -> dict[str, list[Any]]:
    """Return the arrays of all layers by kind: scikit-learn lists all weights, then all intercepts."""
    half = len(arrays) // 2
    return {"coefs": arrays[:half], "intercepts": arrays[half:]}


class _Stepped:
    """A mixin that makes a perceptron of scikit-learn use an optimizer of xpopt."""

    optimizer: Any

    @property
    def _optimizer(self) -> _Updates:
        try:
            return vars(self)["_optimizer"]
        except KeyError:
            raise AttributeError(
                "the estimator has no optimizer before it is fitted; call fit or partial_fit first"
            ) from None

    @_optimizer.setter
    def _optimizer(self, theirs: Any) -> None:  # scikit-learn assigns one of its own when a training starts
        self.optimizer_ = make_optimizer(self.optimizer).copy()
        vars(self)["_optimizer"] = _Updates(self.optimizer_)

    def _backprop(self, *args: Any, **keywords: Any) -> Any:
        found = super()._backprop(*args, **keywords)  # type: ignore[misc]
        self._optimizer.loss = float(found[0])
        return found

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters.

        Parameters
        ----------
        deep : bool
            Whether to include the settings of the optimizer, as ``optimizer__lr``.

        Returns
        -------
        dict
            Values by name.
        """
        found = super().get_params(deep)  # type: ignore[misc]
        if deep:
            found |= {f"{_NESTED}{name}": value for name, value in _settings(self.optimizer).items()}
        return found

    def set_params(self, **params: Any) -> Any:
        """Change parameters.

        Parameters
        ----------
        **params : object
            New values by name. Settings of the optimizer, such as ``optimizer__lr``, are set on a copy of it.

        Returns
        -------
        object
            The estimator.

        Raises
        ------
        KeyError, TypeError, ValueError
            A name is unknown, or the optimizer does not accept a value. Nothing has changed.
        """
        changes = {name.removeprefix(_NESTED): params.pop(name) for name in [*params] if name.startswith(_NESTED)}
        optimizer = params.pop("optimizer", self.optimizer)
        if changes:
            optimizer = make_optimizer(optimizer).copy()
            optimizer.set_params(changes)
        if params:
            known = super().get_params(deep=False)  # type: ignore[misc]
            unknown_first = dict(sorted(params.items(), key=lambda item: item[0] in known))  # refused before any is set
            super().set_params(**unknown_first)  # type: ignore[misc]
        self.optimizer = optimizer
        return self


def _settings(optimizer: Any) -> dict[str, Any]:
    """Return the settings of an optimizer as plain data; an empty dict if it is not one, for which `fit` raises."""
    try:
        settings = make_optimizer(optimizer).hyperparameters
    except (TypeError, ValueError):
        return {}
    groups = {pattern: dict(x) if isinstance(x, Mapping) else x for pattern, x in settings["groups"].items()}
    return {name: x for name, x in {**settings, "groups": groups}.items() if name != "id"}


def _constructor(host: type[Any]) -> Callable[..., None]:
    """Return an ``__init__`` with the parameters of `host`, and `optimizer` instead of those of its solvers."""
    own = inspect.Parameter("optimizer", inspect.Parameter.KEYWORD_ONLY, default="Adam")
    theirs = inspect.signature(host.__init__).parameters.values()
    signature = inspect.Signature([*(one for one in theirs if one.name not in _OF_SOLVERS), own])

    def __init__(*args: Any, **keywords: Any) -> None:  # noqa: N807
        for name in _OF_SOLVERS.intersection(keywords):
            raise TypeError(
                f"{name} is a parameter of scikit-learn's solvers, which this {host.__name__} does not have; set it in "
                f"the optimizer instead, for example optimizer='Adam(lr=0.01)'"
            )
        given = signature.bind(*args, **keywords).arguments
        self = given.pop("self")
        self.optimizer = given.pop("optimizer", own.default)
        host.__init__(self, **given)

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    return __init__


class MLPClassifier(_Stepped, neural_network.MLPClassifier):  # type: ignore[misc]
    """The multi-layer perceptron classifier of scikit-learn with an optimizer of xpopt.

    Parameters
    ----------
    optimizer : str, mapping or OptimizerBase
        As for `make_optimizer`. Each training starts with a copy.
    **parameters : object
        As for scikit-learn's class, without those of its solvers: ``solver``, ``learning_rate``,
        ``learning_rate_init``, ``power_t``, ``momentum``, ``nesterovs_momentum``, ``beta_1``, ``beta_2``, ``epsilon``
        and ``max_fun``. ``alpha`` is still the weight of the L2 penalty, which is part of the gradient.

    Attributes
    ----------
    optimizer_ : OptimizerBase
        The optimizer of the training. Parameters are named ``("coefs", 0)`` and ``("intercepts", 0)`` by layer, so
        ``groups={"intercepts/*": {"weight_decay": 0}}`` applies to the intercepts.

    Raises
    ------
    TypeError, ValueError
        Of ``fit`` and ``partial_fit``: `optimizer` is not an optimizer; or as for `OptimizerBase.update_all`.

    Notes
    -----
    Settings of the optimizer are parameters as well, such as ``optimizer__lr``, so `set_params` and parameter searches
    can change them. Schedules count updates, not epochs. A schedule that reads the loss gets the loss of the batch.

    Examples
    --------
    >>> import numpy as np
    >>> from xpopt.adapters.sklearn import MLPClassifier
    >>> x = np.linspace(-1, 1, 40).reshape(20, 2)
    >>> y = x.sum(axis=1) > 0
    >>> model = MLPClassifier(hidden_layer_sizes=(4,), optimizer="Adam(lr=0.1)", max_iter=500, random_state=0)
    >>> model.fit(x, y).score(x, y)
    1.0
    >>> model.set_params(optimizer__lr=0.05).get_params()["optimizer__lr"]
    0.05
    """

    __init__ = _constructor(neural_network.MLPClassifier)


class MLPRegressor(_Stepped, neural_network.MLPRegressor):  # type: ignore[misc]
    """The multi-layer perceptron regressor of scikit-learn with an optimizer of xpopt.

    Parameters
    ----------
    optimizer : str, mapping or OptimizerBase
        As for `MLPClassifier`.
    **parameters : object
        As for `MLPClassifier`.

    Attributes
    ----------
    optimizer_ : OptimizerBase
        As for `MLPClassifier`.

    Raises
    ------
    TypeError, ValueError
        As for `MLPClassifier`.
    """

    __init__ = _constructor(neural_network.MLPRegressor)
