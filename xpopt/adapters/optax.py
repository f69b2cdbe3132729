"""Optimizers as transformations of optax: for what takes an `optax.GradientTransformation`."""

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
    """What is remembered after some steps: arrays alone, so that it is traced, sharded and saved as any other."""

    count: Any
    """How many steps, int32 of shape ()."""
    slots: Any
    """By the path of each parameter, a dict of its slots."""


def transformation(optimizer: str | Mapping[str, Any] | OptimizerBase = "Adam") -> Any:
    """Return what optax takes as a `GradientTransformation`.

    Parameters
    ----------
    optimizer : str, mapping or OptimizerBase
        As for `make_optimizer`; copied.

    Returns
    -------
    optax.GradientTransformation
        Its ``update`` needs the parameters. It composes with other transformations, also under ``jax.jit``.

    Raises
    ------
    TypeError, ValueError
        `optimizer` is none, or one without a pure form; or, of ``update``, as for `OptimizerBase.pure`; there are no
        parameters, or two of one path, or the state is of another transformation, or of another model.

    See Also
    --------
    OptimizerBase.pure : What makes the steps.

    Notes
    -----
    The update is the difference of the new parameters and the old, so that bounds and decay are in it; adding it
    rounds once more. The numbers of a step, such as its rate, are computed on the host from the count in the state:
    under ``jax.jit`` by a callback, for which a device waits. `OptimizerBase.pure` has them as an argument. A schedule
    is asked for a step, and gets no loss.

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
            raise TypeError(f"state is a {type(state).__name__}; wanted what init of this transformation returned")
        if params is None:
            raise ValueError("params is None; wanted the parameters, solver.update(grads, state, params)")
        named = _leaves(params)
        model = models.of(named)
        moved, slots = model.pure.update(named, _leaves(updates), state.slots, model.numbers(state.count))
        changes = [moved[name] - before for name, before in named.items()]
        return jax.tree.unflatten(jax.tree.structure(params), changes), State(state.count + 1, slots)

    return optax.GradientTransformation(init, update)


class _Model:
    """The pure form of an optimizer for the parameters of one model.

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
            By path.
        """
        with self._turn:
            self.pure.steps = 0
            return self.pure.init(named)

    def numbers(self, count: Any) -> dict[str, Any]:
        """Return the numbers of the step after so many.

        Parameters
        ----------
        count : array of int, shape ()
            How many; it may be traced.

        Returns
        -------
        dict of array
            As of the pure form.
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
    """The models that a transformation has seen, which differ in names, shapes or dtypes.

    Parameters
    ----------
    optimizer : OptimizerBase
        The optimizer at the first step.
    """

    def __init__(self, optimizer: OptimizerBase) -> None:
        self._optimizer = optimizer
        optimizer.pure()  # says at once that there is none
        self._seen: dict[Any, _Model] = {}

    def of(self, named: dict[str, Any]) -> _Model:
        """Return the one that has these parameters.

        Parameters
        ----------
        named : dict
            The parameters by path.

        Returns
        -------
        _Model
            It.
        """
        key = tuple((name, x.shape, str(x.dtype)) for name, x in named.items())
        if key not in self._seen:
            self._seen[key] = _Model(self._optimizer, named)
        return self._seen[key]


def _leaves(tree: Any) -> dict[str, Any]:
    """Return the arrays of a pytree by path, such as ``layers/0/w``; a ValueError says that two have one."""
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in named:
            raise ValueError(f"two parameters are named {name!r}; give one of the keys on their way another name")
        named[name] = leaf
    return named
