"""The parameters of a model as one real vector, on their device; and the vectors that a method keeps."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._arrays.library import is_complex
from .._arrays.parameter import dtype_text
from .._arrays.typing import Array
from .._solvers.model import Model
from .._solvers.numbers import parts, read

_WIDE = {"float64", "complex128"}


class Space:
    """The real vectors that parameters are.

    A complex number is two elements, so that the inner product of two vectors is Re<x, y>.

    Parameters
    ----------
    model : Model
        The parameters.
    like : array
        The first of them.
    """

    def __init__(self, model: Model, like: Array) -> None:
        self._model = model
        self.library, self.xp = model.library, model.library.xp
        wide = any(dtype_text(dtype) in _WIDE for dtype in model.dtypes)
        self.dtype = self.xp.float64 if wide else self.xp.float32
        self.eps = 2.0**-52 if wide else 2.0**-23
        pairs = zip(model.shapes, model.dtypes, strict=True)
        self._sizes = [math.prod(shape) * (2 if is_complex(dtype) else 1) for shape, dtype in pairs]
        self.size = sum(self._sizes)
        self._device = self.library.device(like)
        self.like = self.zeros()
        """An array of shape () on their device."""

    def flat(self, leaves: Sequence[Array]) -> Array:
        """Return a vector of arrays like the parameters; it shares nothing with them."""
        xp = self.xp
        each = [xp.astype(xp.reshape(x, (-1,)), self.dtype, copy=False) for leaf in leaves for x in parts(xp, leaf)]
        return xp.concat(each) if len(each) > 1 else self.library.copy(each[0])

    def leaves(self, vector: Array) -> list[Array]:
        """Return arrays like the parameters, which may share memory with the vector."""
        found = []
        xp = self.xp
        for piece, shape, dtype in zip(self.pieces(vector), self._model.shapes, self._model.dtypes, strict=True):
            x: Any = piece
            if is_complex(dtype):
                half = x.shape[0] // 2
                x = xp.astype(x[:half], dtype) + xp.astype(x[half:], dtype) * 1j
            found.append(xp.reshape(xp.astype(x, dtype, copy=False), shape))
        return found

    def conjugate(self, vector: Any) -> Array:
        """Return the vector of the conjugates of what a vector is."""
        leaves = self.leaves(vector)
        return self.flat([self.xp.conj(leaf) if is_complex(leaf.dtype) else leaf for leaf in leaves])

    def pieces(self, vector: Any) -> list[Array]:
        """Return the part of a vector that belongs to each parameter, which may share memory with it."""
        ends = list(itertools.accumulate(self._sizes, initial=0))
        return [vector] if len(ends) == 2 else [vector[a:b] for a, b in itertools.pairwise(ends)]

    def zeros(self, *shape: int) -> Array:
        """Return zeros on the device of the parameters."""
        return self.xp.zeros(shape, dtype=self.dtype, device=self._device)

    def of(self, numbers: Any, like: Array) -> Array:
        """Return a vector of some numbers."""
        return self.library.from_numpy(np.asarray(numbers, np.float64), like)

    def dot(self, x: Array, y: Array) -> Any:
        """Return the inner product of two vectors, an array of shape ()."""
        return self.xp.vecdot(x, y)

    def read(self, items: Sequence[Any], like: Array) -> np.ndarray[Any, Any]:
        """Return numbers on the host, all at once."""
        return read(self.library, like, items)

    def settled(self, *arrays: Any) -> tuple[Any, ...]:
        """Return the same arrays, of which lazy ones have been computed, together."""
        if self.library.name != "dask":
            return arrays
        return tuple(sys.modules["dask"].persist(*arrays))

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of a first array, set up to compute on arrays of the library."""
        return self.library.guard(function)


class Pairs:
    """Rows of vectors, two to a pair: steps and the changes of the gradient over them.

    Where arrays can be written they are one matrix, of which products with vectors are one operation.

    Parameters
    ----------
    space : Space
        Of the vectors.
    most : int
        The largest number of pairs.
    """

    def __init__(self, space: Space, most: int) -> None:
        self._space = space
        self._matrix: Any = space.zeros(2 * most, space.size) if space.library.mutable else None
        self._rows: list[Any] = [None] * (2 * most)

    def put(self, place: int, x: Any, new: Any, change: Array) -> None:
        """Keep the step from a point to a new one, and a change, in a place, of which those before it are taken."""
        if self._matrix is None:
            self._rows[2 * place : 2 * place + 2] = new - x, change
            return
        self._matrix[2 * place, :] = new
        self._matrix[2 * place, :] -= x
        self._matrix[2 * place + 1, :] = change

    def rows(self, count: int) -> list[Any]:
        """Return the vectors of the first pairs."""
        return self._rows[: 2 * count] if self._matrix is None else [self._matrix[i, :] for i in range(2 * count)]

    def dots(self, count: int, x: Array) -> Array:
        """Return the inner products of a vector with those of the first pairs."""
        xp = self._space.xp
        if self._matrix is None:
            return xp.stack([self._space.dot(row, x) for row in self.rows(count)])
        return xp.matmul(self._matrix[: 2 * count, :], x)

    def combined(self, numbers: Any, like: Array) -> Array:
        """Return the sum of the vectors of the first pairs, each times its number."""
        factors = self._space.of(numbers, like)
        if self._matrix is None:
            return sum(factors[i] * row for i, row in enumerate(self.rows(len(numbers) // 2)))  # type: ignore[index,return-value]
        return self._space.xp.matmul(factors, self._matrix[: len(numbers), :])
