"""What every proximal map is: a transform that comes after the rule, and a function of an array."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from .._arrays.elements import PerElement
from .._arrays.library import PAIRS, Library
from .._arrays.namespace import library_of
from .._arrays.parameter import dtype_text
from .._arrays.typing import Array, Namespace, Scalars
from .._graph.slots import Slot, state_class
from .._settings.setting import setting
from .._settings.text import format_call
from ..transforms.base import Transform
from ..transforms.bounds import projecting


class Proximal(Transform):
    """Base of the maps, which differ in `project` and in what they are set to."""

    keyword = "prox"

    @property
    def after(self) -> Any:
        """The map of what the rule returned."""
        return projecting(self.project)

    @classmethod
    def of(cls, value: Proximal) -> Transform:  # type: ignore[override]
        """Return the transform that a map is in an optimizer.

        Parameters
        ----------
        value : Proximal
            The map.

        Returns
        -------
        Transform
            What `transform` returns.
        """
        return value.transform()

    def transform(self) -> Transform:
        """Return the transform that it is in an optimizer."""
        return self

    def state(self) -> type[Any]:
        """Return the class of the arrays among its settings."""
        return _arrays(tuple(name for name, value in self.values().items() if isinstance(value, PerElement)))

    def check_dtype(self, dtype: str, what: str) -> None:
        """Raise a TypeError if it is a map of real numbers, and a parameter is complex.

        Parameters
        ----------
        dtype : str
            The parameter's.
        what : str
            What it is called, for the message.

        Raises
        ------
        TypeError
            It is.
        """
        if dtype in PAIRS and self.project_complex is None:
            raise TypeError(
                f"prox={self} is of real numbers, and {what} is {dtype}; leave it out by groups=, or hold its parts as "
                f"two parameters"
            )

    def __call__(self, xp: Namespace, x: Array, step: float = 1.0) -> Array:
        r"""Apply the map to an array.

        Parameters
        ----------
        xp : Namespace
            The functions of the array's library. A map of this package takes those that it needs by itself.
        x : array
            What is mapped; only read.
        step : float
            The step of the map of a function, by which its weight is multiplied. A projection has none.

        Returns
        -------
        array like `x`
            The nearest point of a set; or of a function :math:`f` the point :math:`y` with the smallest
            :math:`f(y) + \lVert y - x \rVert^2 / (2 s)`.

        Raises
        ------
        TypeError
            `x` is complex, and the map is of real numbers alone.
        """
        one, library = self.transform(), library_of(x)
        assert library is not None
        project = one.project
        if library.xp.isdtype(x.dtype, "complex floating"):
            project = self.project_complex
            if project is None:
                raise TypeError(f"{type(self).__name__} is of real numbers, and x is of {dtype_text(x.dtype)}")
        values = one.values()
        h = SimpleNamespace(**values, lr=step)
        xp = library.xp  # the caller's own, such as NumPy itself, may lack some
        mapped: Array = library.guard(lambda x: project(xp, x, _filled(library, one.state(), values, x), h))(x)
        return mapped


@functools.cache
def _arrays(names: tuple[str, ...]) -> type[Any]:
    return state_class("Arrays", {f"prox_{name}": Slot(name, constant=True) for name in names})


def _filled(library: Library, state: type[Any], values: dict[str, Any], x: Array) -> Any:
    """Return the arrays among the settings as arrays like `x`."""
    real = library.xp.abs(x)
    return state._make([library.from_numpy(values[name.partition("_")[2]].numbers(""), real) for name in state._fields])


def of_element(s: Any, h: Scalars, name: str) -> Any:
    """Return a setting that is a number, or an array like the parameter.

    Parameters
    ----------
    s : NamedTuple
        The arrays among the settings.
    h : Scalars
        The numbers.
    name : str
        The setting.

    Returns
    -------
    float or array
        Its value.
    """
    return getattr(s, f"prox_{name}") if f"prox_{name}" in s._fields else getattr(h, name)


class _Function:
    """A function of the user's own, whatever it does."""

    def check(self, owner: str, name: str, value: object) -> Any:
        """Return it.

        Parameters
        ----------
        owner, name : str
            The class and the keyword.
        value : callable
            The function.

        Returns
        -------
        callable
            The same.
        """
        return value


class function(Proximal):  # noqa: N801 - as the other maps are called
    """A map of one's own, called as it is: nothing is known of it.

    Parameters
    ----------
    call : callable
        ``call(xp, x)``, which returns an array like `x`. It must not write into `x`.
    """

    call: Any = setting(range=_Function())

    whole = "prox is a function, of which nothing is known"

    @property
    def project(self) -> Any:
        """The function, of an array alone."""
        return _of_array(self.call)

    project_complex = project

    def numbers(self) -> dict[str, Any]:
        """Return none."""
        return {}

    def __repr__(self) -> str:
        """Write its name; text does not hold what it does."""
        call = self.call
        name = getattr(call, "__qualname__", type(call).__qualname__)
        return format_call("function", {"call": f"{getattr(call, '__module__', '')}.{name}"})


@functools.cache
def _of_array(call: Callable[..., Array]) -> Callable[..., Array]:
    def project(xp: Namespace, x: Array, s: Any, h: Scalars) -> Array:
        return call(xp, xp.asarray(x))  # NumPy makes scalars of 0-d arrays

    return project
