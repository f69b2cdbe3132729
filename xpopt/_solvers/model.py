"""The parameters of a solver: a tree of arrays of one library, or one array; and what a function returns for them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from .._arrays.containers import is_container
from .._arrays.library import Library, is_complex
from .._arrays.namespace import library_of
from .._arrays.parameter import convert, dtype_text, is_number
from .._arrays.tree import flatten, matched, rebuild, show, show_all
from .._arrays.typing import Array
from .numbers import read

ALONE = "params"
"""The name of an array that is no leaf of a tree."""


class Model:
    """What the parameters are, their values left out.

    Parameters
    ----------
    params : tree of array, or array
        The parameters; only looked at.

    Raises
    ------
    TypeError
        A leaf is no array of floating-point numbers, or of another library than the first.
    ValueError
        There is no leaf, or one is on another device than the first.
    """

    def __init__(self, params: Any) -> None:
        self._tree = rebuild(params, lambda name: 0.0) if is_container(params) else None
        leaves = self._flat(params, "params")
        if not leaves:
            raise ValueError("params has no arrays; wanted one at least")
        self.names = list(leaves)
        self.alone = self._tree is None
        self._like: Any = next((x for x in leaves.values() if library_of(x) is not None), None)
        library = library_of(np.zeros(()) if self._like is None else self._like)
        assert library is not None
        self.library: Library = library
        taken = [self._taken(x, f"parameter {show(name)}") for name, x in leaves.items()]
        self.place = library.place(taken[0])
        for name, x in zip(self.names, taken, strict=True):
            if library.place(x) != self.place:
                first = show(self.names[0])
                raise ValueError(
                    f"parameter {show(name)} is on {library.place(x)}, {first} on {self.place}; move one of them"
                )
        self.shapes = [tuple(map(int, x.shape)) for x in taken]
        self.dtypes = [x.dtype for x in taken]
        self._floats = [is_number(x) for x in leaves.values()]
        self._first = taken
        self._like = library.full((), 0.0, taken[0].dtype, taken[0])  # like which numbers become arrays

    def described(self) -> list[list[Any]]:
        """Return the name of each, as text, its shape and its dtype, as JSON has them."""
        each = zip(self.names, self.shapes, self.dtypes, strict=True)
        return [[show(name), list(shape), dtype_text(dtype)] for name, shape, dtype in each]

    def start(self) -> list[Array]:
        """Return the leaves that came, once; after that they are the caller's alone."""
        first, self._first = self._first, []
        return first

    def gradients(self, grads: Any) -> list[Array]:
        """Return the leaves of a gradient, checked.

        Parameters
        ----------
        grads : tree of array, or array
            What came.

        Returns
        -------
        list of array
            In the order of the parameters.

        Raises
        ------
        TypeError
            A leaf is no array, or of another library, or complex where its parameter is not.
        ValueError
            It has other names than the parameters, another shape, or is on another device.
        """
        found = self._flat(grads, "grads")
        matched(dict.fromkeys(self.names), found, "grads")
        taken = []
        for name, shape, dtype in zip(self.names, self.shapes, self.dtypes, strict=True):
            what = f"gradient of {show(name)}"
            grad = self._taken(found[name], what)
            if tuple(grad.shape) != shape:
                raise ValueError(f"{what} has shape {tuple(grad.shape)}, the parameter has {shape}")
            if is_complex(grad.dtype) and not is_complex(dtype):
                raise TypeError(
                    f"{what} is {dtype_text(grad.dtype)}, the parameter is {dtype_text(dtype)}; take its real part"
                )
            if self.library.place(grad) != self.place:
                raise ValueError(f"{what} is on {self.library.place(grad)}, the parameter on {self.place}; move it")
            taken.append(grad)
        return taken

    def value(self, value: Any) -> Any:
        """Return what came as a value: a float, or an array of shape () of the library of the parameters.

        Parameters
        ----------
        value : object
            What came.

        Returns
        -------
        float or array
            The value; not read where it is an array.

        Raises
        ------
        TypeError
            It is no real number.
        ValueError
            It is an array of another shape than ().
        """
        wanted = "wanted a real number, or an array of shape ()"
        library = library_of(value)
        if library is not None:
            if tuple(value.shape):
                raise ValueError(f"the value has shape {tuple(value.shape)}; {wanted}, such as the sum or the mean")
            if is_complex(value.dtype):
                raise TypeError(f"the value is {dtype_text(value.dtype)}; {wanted}, such as its real part")
            if library is self.library:
                return library.guard(lambda x: self.library.admit(x))(value)
            (value,) = library.to_numpy([value])
            return float(value)
        if isinstance(value, bool) or not isinstance(value, float | int | np.floating | np.integer):
            raise TypeError(f"the value is a {type(value).__name__}; {wanted}")
        return float(value)

    def check_start(self, leaves: Sequence[Array]) -> None:
        """Raise a ValueError if parameters are not finite; to be asked where the first value is not.

        Parameters
        ----------
        leaves : sequence of array
            The parameters.
        """
        xp = self.library.xp

        def counted(first: Array) -> Any:
            wrong = [~xp.isfinite(x) for x in leaves]
            return read(self.library, first, [xp.sum(xp.astype(x, xp.float32)) for x in wrong])

        counts = self.library.guard(counted)(leaves[0])
        if counts.any():
            of = show_all(name for name, count in zip(self.names, counts, strict=True) if count)
            count = f"{counts.sum():.0f} elements that are not finite (of {of})"
            raise ValueError(f"params starts from {count}; start from finite numbers")

    def tree(self, leaves: Sequence[Any]) -> Any:
        """Return containers like those that came, or the array alone.

        Parameters
        ----------
        leaves : sequence of array
            In the order of the parameters.

        Returns
        -------
        tree of array, or array
            With floats where floats came.
        """
        values = {
            name: float(x) if as_float else x
            for name, x, as_float in zip(self.names, leaves, self._floats, strict=True)
        }
        return values[ALONE] if self._tree is None else rebuild(self._tree, values.__getitem__)

    def _flat(self, tree: Any, what: str) -> dict[Hashable, Any]:
        return {ALONE: tree} if self._tree is None else flatten(tree, what)

    def _taken(self, x: Any, what: str) -> Array:
        """Return a leaf as it may be computed with."""
        if library_of(x) is None:
            x = convert(x, None if self._like is None else self.library, self._like, what)
        own = library_of(x)
        assert own is not None
        if own is not self.library:
            raise TypeError(f"{what} is an array of {own.name}, params are of {self.library.name}; convert one of them")
        try:
            x = own.admit(x)
        except TypeError as error:
            raise TypeError(f"{what} {error}") from None
        if own.dtype_name(x.dtype) is None:
            raise TypeError(f"{what} has dtype {dtype_text(x.dtype)}; convert it to float32 or float64")
        return x
