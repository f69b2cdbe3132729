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
"""Parameters of the host that are about its own solvers."""

_NESTED = "optimizer__"


class _Updates:
    """An optimizer as the host's loop calls it.

    Parameters
    ----------
    optimizer : OptimizerBase
        What makes the updates.
    """

    def __init__(self, optimizer: OptimizerBase) -> None:
        self.optimizer = optimizer
        self.loss: float | None = None
        """Of the batch of which gradients come next."""

    def update_params(self, params: list[Any], grads: list[Any]) -> None:
        """Update all weights in place.

        Parameters
        ----------
        params, grads : list of ndarray
            Weights of all layers, and behind them their intercepts; and the gradients.
        """
        named, gradients = _named(params), _named(grads)
        self.optimizer.update_all(named, gradients, self.loss, out=named)

    def iteration_ends(self, time_step: int) -> None:
        """Do nothing at the end of an epoch: schedules count updates.

        Parameters
        ----------
        time_step : int
            Samples seen so far.
        """

    def trigger_stopping(self, msg: str, verbose: bool) -> bool:
        """Say that training stops where nothing gets better.

        Parameters
        ----------
        msg : str
            What did not.
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
    """Return the arrays of all layers by kind: the host puts the weights first, then as many intercepts."""
    half = len(arrays) // 2
    return {"coefs": arrays[:half], "intercepts": arrays[half:]}


class _Stepped:
    """What makes a perceptron of the host take its steps with an optimizer of xpopt."""

    optimizer: Any

    @property
    def _optimizer(self) -> _Updates:
        try:
            return vars(self)["_optimizer"]
        except KeyError:
            raise AttributeError("it has not been fitted, and so has no optimizer") from None

    @_optimizer.setter
    def _optimizer(self, theirs: Any) -> None:  # the host has made one of its own, for a training that begins
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
            Whether to return the settings of the optimizer too, as ``optimizer__lr``.

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
            New values by name. A setting of the optimizer, ``optimizer__lr``, goes to a copy of it.

        Returns
        -------
        object
            The estimator.

        Raises
        ------
        KeyError, TypeError, ValueError
            An unknown name, or a value that the optimizer does not take. Nothing has changed.
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
    """Return the settings of an optimizer as plain data; none of what is no optimizer, as `fit` will say."""
    try:
        settings = make_optimizer(optimizer).hyperparameters
    except (TypeError, ValueError):
        return {}
    groups = {pattern: dict(x) if isinstance(x, Mapping) else x for pattern, x in settings["groups"].items()}
    return {name: x for name, x in {**settings, "groups": groups}.items() if name != "id"}


def _constructor(host: type[Any]) -> Callable[..., None]:
    """Return an ``__init__`` with the host's parameters, but `optimizer` in place of those of its solvers."""
    own = inspect.Parameter("optimizer", inspect.Parameter.KEYWORD_ONLY, default="Adam")
    theirs = inspect.signature(host.__init__).parameters.values()
    signature = inspect.Signature([*(one for one in theirs if one.name not in _OF_SOLVERS), own])

    def __init__(*args: Any, **keywords: Any) -> None:  # noqa: N807
        for name in _OF_SOLVERS.intersection(keywords):
            raise TypeError(
                f"{host.__name__} takes no {name} here, which is a setting of scikit-learn's solvers; give it to the "
                f"optimizer, such as optimizer='Adam(lr=0.01)'"
            )
        given = signature.bind(*args, **keywords).arguments
        self = given.pop("self")
        self.optimizer = given.pop("optimizer", own.default)
        host.__init__(self, **given)

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    return __init__


class MLPClassifier(_Stepped, neural_network.MLPClassifier):  # type: ignore[misc]
    """The multi-layer perceptron of scikit-learn for classes, with an optimizer of xpopt.

    Parameters
    ----------
    optimizer : str, mapping or OptimizerBase
        As for `make_optimizer`; each training begins with a copy.
    **parameters : object
        Those of scikit-learn's class but for what is about its solvers: ``solver``, ``learning_rate``,
        ``learning_rate_init``, ``power_t``, ``momentum``, ``nesterovs_momentum``, ``beta_1``, ``beta_2``, ``epsilon``
        and ``max_fun``. Its ``alpha`` is the weight of a penalty in the gradient.

    Attributes
    ----------
    optimizer_ : OptimizerBase
        The optimizer, once there is a training. Parameters are named ``("coefs", 0)`` and ``("intercepts", 0)`` by
        layer, so that ``groups={"intercepts/*": {"weight_decay": 0}}`` is of the intercepts.

    Raises
    ------
    TypeError, ValueError
        Of ``fit`` and ``partial_fit``: `optimizer` is none; or as for `OptimizerBase.update_all`.

    Notes
    -----
    Settings of the optimizer are parameters too, such as ``optimizer__lr``, for `set_params` and for searches over
    them. A schedule counts updates, and not epochs; one that reads the loss gets that of the batch.

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
    """The multi-layer perceptron of scikit-learn for numbers, with an optimizer of xpopt.

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
