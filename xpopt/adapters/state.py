"""Convert optimizers with their state from other libraries, and to them."""

from ._state.keras import from_keras, to_keras
from ._state.optax import from_optax, to_optax
from ._state.torch import from_torch, to_torch

__all__ = ["from_keras", "from_optax", "from_torch", "to_keras", "to_optax", "to_torch"]
