"""What every proximal map is: a transform that comes after the rule, and a function of an array."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from .._arrays.elements import PerElement
from .._arrays.library import PAIRS, Library, is_complex
from .._arrays.namespace import library_of
from .._arrays.parameter import admit, dtype_text
from .._arrays.typing import Array, Namespace, Scalars
from .._graph.slots import Slot, state_class
from .._settings.ranges import NON_NEGATIVE
from .._settings.setting import setting
from .._settings.text import format_call
from ..schedulers.kinds.base import Schedule
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
        return _arrays(tuple(name for name, value in self.settings().items() if isinstance(value, PerElement)))

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
                f"prox={self} takes real numbers, and {what} is {dtype}; exclude it by groups=, or store its parts as "
                f"two parameters"
            )

    def __call__(self, xp: Namespace, x: Array, step: float = 1.0) -> Array:
        r"""Apply the map to an array.

        Parameters
        ----------
        xp : Namespace
            The namespace of the array's library. The maps of this package do not use it.
        x : array
            What is mapped; only read.
        step : float
            The step by which the weight of a penalty is multiplied. At least 0. Projections ignore it.

        Returns
        -------
        array like `x`
            A new array: the nearest point of a set; or, for a function :math:`f`, the point :math:`y` that minimizes
            :math:`f(y) + \lVert y - x \rVert^2 / (2 s)`.

        Raises
        ------
        TypeError
            `x` is not an array of floating-point numbers, or it is complex and the map takes only real numbers.
        ValueError
            `step` is negative or not finite; or an array among the settings has another shape.
        """
        owner, one, library = type(self).__name__, self.transform(), library_of(x)
        step = NON_NEGATIVE.check(owner, "step", step)
        if library is None:
            raise TypeError(f"{owner}: x is a {type(x).__name__}; wanted an array of floats, such as numpy.asarray(x)")
        x = admit(library, x, f"{owner}: x")
        pairs = is_complex(x.dtype)
        project = self.project_complex if pairs else one.project
        if project is None:
            raise TypeError(f"{owner} takes real numbers, and x has dtype {dtype_text(x.dtype)}")
        h = SimpleNamespace(**one.settings(), lr=step)
        for name, value in one.settings().items():
            if isinstance(value, Schedule):
                raise TypeError(
                    f"{owner}: {name}={value} is a schedule, which only an optimizer evaluates; pass a number"
                )
            if isinstance(value, PerElement) and value.shape != tuple(x.shape):
                raise ValueError(
                    f"{owner}: {name} is an array of shape {value.shape}, and x has shape {tuple(x.shape)}"
                )

        def mapped(x: Array) -> Array:
            reals: Any = library.reals(x)
            s = _filled(library, one.state(), h, reals[..., :1] if pairs else reals)
            new = project(library.xp, reals, s, h)  # the caller's xp may lack some functions
            return library.from_reals(library.copy(new) if new is reals else new, x)

        return library.guard(mapped)(x)


@functools.cache
def _arrays(names: tuple[str, ...]) -> type[Any]:
    return state_class("Arrays", {f"prox_{name}": Slot(name, constant=True) for name in names})


def _filled(library: Library, state: type[Any], h: Any, like: Array) -> Any:
    """Return the arrays among the settings as arrays of a shape."""
    values = (getattr(h, name.partition("_")[2]).numbers("") for name in state._fields)
    return state._make([library.from_numpy(x.reshape(like.shape), like) for x in values])


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
        ``call(xp, x)``, which returns an array like `x`, of which a copy is taken. It must not write into `x`.
    """

    call: Any = setting(range=_Function())

    whole = "prox is a function, which engines cannot fuse"

    @property
    def project(self) -> Any:
        """The function, of an array alone."""
        return _of_array(self.call)

    @property
    def project_complex(self) -> Any:
        """The function, of complex numbers."""
        return _of_array(self.call, complex_too=True)

    def numbers(self) -> dict[str, Any]:
        """Return none."""
        return {}

    def __repr__(self) -> str:
        """Write its name; text does not hold what it does."""
        return format_call("function", {"call": _named(self.call)})


def _named(call: Any) -> str:
    """Write the name of a function."""
    return f"{getattr(call, '__module__', '')}.{getattr(call, '__qualname__', type(call).__qualname__)}"


@functools.cache
def _of_array(call: Callable[..., Array], complex_too: bool = False) -> Callable[..., Array]:
    def project(xp: Namespace, x: Array, s: Any, h: Scalars) -> Array:
        x = xp.asarray(x)  # NumPy makes scalars of 0-d arrays
        library = library_of(x)
        assert library is not None
        given = library.joined(x) if complex_too else x
        what = f"{dtype_text(given.dtype)} and shape {tuple(given.shape)}"
        try:
            new = call(xp, given)
        except Exception as error:
            error.add_note(f"in prox={_named(call)}, called as (xp, x) with an array of {what}")
            raise
        new = xp.asarray(new) if isinstance(new, np.generic) else new
        if library_of(new) is not library or (new.dtype, new.shape) != (given.dtype, given.shape):
            came = f"a {type(new).__name__}"
            if hasattr(new, "dtype"):
                came += f" of {dtype_text(new.dtype)} and shape {tuple(new.shape)}"
            raise TypeError(f"prox={_named(call)} returned {came}; wanted an array like x, of {what}")
        new = library.copy(new) if library.mutable else new  # the memory may be the function's own
        return library.reals(new)

    return project
