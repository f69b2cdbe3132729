"""The types that the public annotations are written in.

The array API standard has no nominal types, so `Array` and `Namespace` are structural: what every library has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar, runtime_checkable


@runtime_checkable
class Array(Protocol):
    """An array of some array-API library, as far as a rule may look at it."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __add__(self, other: Any, /) -> Any: ...
    def __radd__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __rsub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...
    def __rmul__(self, other: Any, /) -> Any: ...
    def __truediv__(self, other: Any, /) -> Any: ...
    def __rtruediv__(self, other: Any, /) -> Any: ...
    def __pow__(self, other: Any, /) -> Any: ...
    def __neg__(self) -> Any: ...
    def __abs__(self) -> Any: ...


Namespace: TypeAlias = Any
"""The module of functions that goes with an array: ``xp`` in ``xp.sqrt(x)``."""

Scalars: TypeAlias = Any
"""What a rule reads its numbers from: every hyperparameter by name, ``lr`` (this step's rate) and ``t``."""

ArrayT = TypeVar("ArrayT", bound=Array)
"""Arrays of one kind: what came is what goes back."""

TreeT = TypeVar("TreeT", bound="Tree")
"""Containers of one kind."""


class Dataclass(Protocol):
    """An object of any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class Flattened(Protocol):
    """An object of a class that JAX knows as a pytree by ``register_pytree_node_class``."""

    def tree_flatten(self) -> Any: ...


Tree: TypeAlias = Mapping[Any, Any] | Sequence[Any] | Dataclass | Flattened
"""Mappings, lists, tuples, dataclasses and registered pytrees, nested at will, with arrays as leaves."""
