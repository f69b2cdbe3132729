"""Optimizers as transformations of optax: for what takes an `optax.GradientTransformation`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax

from ..config import make_optimizer
from ..optimizers.base import OptimizerBase

__all__ = ["State", "transformation"]


class State(NamedTuple):
    """The optimizer after some steps; no step changes it."""

    optimizer: OptimizerBase


# Without arrays of its own: nothing of a state is mapped or traced.
jax.tree_util.register_pytree_node(State, lambda state: ((), state.optimizer), lambda optimizer, _: State(optimizer))


def transformation(optimizer: str | Mapping[str, Any] | OptimizerBase = "Adam") -> Any:
    """Return what optax takes as a `GradientTransformation`.

    Parameters
    ----------
    optimizer : str, mapping or OptimizerBase
        As for `make_optimizer`; copied.

    Returns
    -------
    optax.GradientTransformation
        Its ``update`` needs the parameters. It composes with other transformations; it is not for `jax.jit`, which
        would trace it.

    Raises
    ------
    TypeError, ValueError
        `optimizer` is none; or, of ``update``, as for `OptimizerBase.update_all`; there are no parameters, or they are
        traced; or the state is of another transformation.

    Notes
    -----
    The update is the difference of the new parameters and the old, so that bounds and decay are in it; adding it
    rounds once more. Each step copies the state, for optax's states do not change.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from xpopt.adapters.optax import transformation
    >>> solver = optax.chain(optax.clip(1.0), transformation("SGD(lr=0.5)"))
    >>> params = {"w": jnp.ones(2)}
    >>> updates, state = solver.update({"w": jnp.array([0.5, 4.0])}, solver.init(params), params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [0.75, 0.5]
    """
    first = make_optimizer(optimizer).copy()

    def init(params: Any) -> State:
        return State(first.copy())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, State]:
        if not isinstance(state, State):
            raise TypeError(f"state is a {type(state).__name__}; wanted what init of this transformation returned")
        if params is None:
            raise ValueError("params is None; wanted the parameters, solver.update(grads, state, params)")
        named, gradients = _leaves(params), _leaves(updates)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in (*named.values(), *gradients.values())):
            raise TypeError("a traced array came; an optimizer counts on the host: call update outside jax.jit")
        after = state.optimizer.copy()
        moved = after.update_all(named, gradients)
        changes = [moved[name] - before for name, before in named.items()]
        return jax.tree.unflatten(jax.tree.structure(params), changes), State(after)

    return optax.GradientTransformation(init, update)


def _leaves(tree: Any) -> dict[str, Any]:
    """Return the arrays of a pytree by path, such as ``layers/0/w``."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
