"""Optimizers of xpopt as an `optax.GradientTransformation`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..config import make_optimizer
from ..optimizers.base import OptimizerBase

__all__ = ["State", "transformation"]


class State(NamedTuple):
    """The state of a transformation: arrays only, so that it can be traced, sharded and saved like any pytree."""

    count: Any
    """The number of steps made, int32 of shape ()."""
    slots: Any
    """A dict of the slots of each parameter, by the path of the parameter."""


def transformation(optimizer: str | Mapping[str, Any] | OptimizerBase = "Adam") -> Any:
    """Return an optimizer as an `optax.GradientTransformation`.

    Parameters
    ----------
    optimizer : str, mapping or OptimizerBase
        As for `make_optimizer`. It is copied.

    Returns
    -------
    optax.GradientTransformation
        Its ``update`` requires the parameters. It can be chained with other transformations, also under ``jax.jit``.

    Raises
    ------
    TypeError, ValueError
        `optimizer` is not an optimizer, or has no pure form. Of ``update``: as for `OptimizerBase.pure`; the parameters
        are missing, two of them have the same path, or the state is that of another transformation or model.

    See Also
    --------
    OptimizerBase.pure : The form of the optimizer that makes the steps.

    Notes
    -----
    The update is the difference between the new parameters and the old ones, so it includes bounds and decay. Adding
    it rounds a second time. The numbers of a step, such as its learning rate, are computed on the host from the count
    in the state. Under ``jax.jit``, a callback computes them, and the device waits for it. `OptimizerBase.pure` takes
    them as an argument instead. Schedules are evaluated without a loss.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from xpopt.adapters.optax import transformation
    >>> solver = optax.chain(optax.clip(1.0), transformation("SGD(lr=0.5)"))
    >>> params = {"w": jnp.ones(2)}
    >>> updates, state = jax.jit(solver.update)({"w": jnp.array([0.5, 4.0])}, solver.init(params), params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [0.75, 0.5]
    """
    models = _Models(make_optimizer(optimizer).copy())

    def init(params: Any) -> State:
        named = _leaves(params)
        return State(jnp.zeros((), jnp.int32), models.of(named).start(named))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, State]:
        if not isinstance(state, State):
            raise TypeError(
                f"state is a {type(state).__name__}; wanted the state that init of this transformation returned"
            )
        if params is None:
            raise ValueError("params is None; wanted the parameters, solver.update(grads, state, params)")
        named = _leaves(params)
        model = models.of(named)
        moved, slots = model.pure.update(named, _leaves(updates), state.slots, model.numbers(state.count))
        changes = [moved[name] - before for name, before in named.items()]
        return jax.tree.unflatten(jax.tree.structure(params), changes), State(state.count + 1, slots)

    return optax.GradientTransformation(init, update)


class _Model:
    """The pure form of an optimizer, for the parameters of one model.

    Parameters
    ----------
    optimizer : OptimizerBase
        The optimizer at the first step.
    named : dict
        The parameters by path.
    """

    def __init__(self, optimizer: OptimizerBase, named: dict[str, Any]) -> None:
        self.pure = optimizer.pure()
        self._first, self._turn = optimizer.cur_step, threading.Lock()  # callbacks come in threads of their own
        self.start(named)

    def start(self, named: dict[str, Any]) -> Any:
        """Return the slots at the first step.

        Parameters
        ----------
        named : dict
            The parameters by path.

        Returns
        -------
        dict
            The slots, by path.
        """
        with self._turn:
            self.pure.steps = 0
            return self.pure.init(named)

    def numbers(self, count: Any) -> dict[str, Any]:
        """Return the numbers of the next step.

        Parameters
        ----------
        count : array of int, shape ()
            The number of steps made; it may be traced.

        Returns
        -------
        dict of array
            As `numbers` of the pure form returns them.
        """
        if not isinstance(count, jax.core.Tracer):
            return self._numbers_at(count)
        like = self._numbers_at(0)
        dtypes = {name: jax.dtypes.canonicalize_dtype(x.dtype) for name, x in like.items()}
        shapes = {name: jax.ShapeDtypeStruct(x.shape, dtypes[name]) for name, x in like.items()}

        def found(count: Any) -> dict[str, Any]:
            return {name: x.astype(dtypes[name]) for name, x in self._numbers_at(count).items()}

        return jax.pure_callback(found, shapes, count, vmap_method="sequential")

    def _numbers_at(self, count: Any) -> dict[str, Any]:
        with self._turn:
            self.pure.steps = int(count)
            self.pure.clock.move(self._first + int(count))
            return self.pure.numbers()


class _Models:
    """The models that a transformation has been used for, which differ in names, shapes or dtypes.

    Parameters
    ----------
    optimizer : OptimizerBase
        The optimizer at the first step.
    """

    def __init__(self, optimizer: OptimizerBase) -> None:
        self._optimizer = optimizer
        optimizer.pure()  # raises early if there is no pure form
        self._seen: dict[Any, _Model] = {}

    def of(self, named: dict[str, Any]) -> _Model:
        """Return the model that has these parameters.

        Parameters
        ----------
        named : dict
            The parameters by path.

        Returns
        -------
        _Model
            The same object for the same names, shapes and dtypes.
        """
        key = tuple((name, x.shape, str(x.dtype)) for name, x in named.items())
        if key not in self._seen:
            self._seen[key] = _Model(self._optimizer, named)
        return self._seen[key]


def _leaves(tree: Any) -> dict[str, Any]:
    """Return the arrays of a pytree by path, such as ``layers/0/w``; raise a ValueError if two have the same path."""
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in named:
            raise ValueError(f"two parameters have the path {name!r}; rename one of the keys in the path")
        named[name] = leaf
    return named
