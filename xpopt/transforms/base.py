"""What every transform is: settings, and what it does before and after a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, ClassVar, NamedTuple, Never, Self

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import NoSlots
from .._settings.setting import Guard
from .._settings.text import short
from .._settings.value import Value
from ..schedulers.kinds.scheduled import Scheduled

Before = Callable[[Namespace, Array, Array, Any, Scalars], Any]
After = Callable[[Namespace, Array, Array, Array, Any, Scalars], tuple[Array, Any]]
Limit = Callable[[Scalars, Any, Callable[[], Any]], Any]
Bound = Callable[[Scalars, float], float]
Evaluated = Callable[[Namespace, Array, Any, Scalars], Array]
Project = Callable[[Namespace, Array, Any, Scalars], Array]


class Formula(NamedTuple):
    """What a transform does, whatever its numbers are: with equal formulas around it, a rule is one and the same."""

    name: str  # for messages
    prefix: str  # what its numbers are called among those of a step: this alone, or with their own name behind
    before: Before | None
    after: After | None
    scalars: Callable[[Scalars], Mapping[str, float]] | None
    limit: Limit | None
    rate: Callable[[Scalars], float] | None
    bound: Bound | None
    rates: Callable[[Any, Scalars], Array] | None
    evaluated: Evaluated | None
    slots: type[Any]
    measured: bool
    rounded: tuple[str, ...]
    module: str
    project: Project | None = None
    project_complex: Project | None = None
    whole: str = ""
    by_metric: bool = False

    @property
    def full_name(self) -> str:
        """What tells it from others of its name."""
        return f"{self.module}.{self.name}"

    def number(self, name: str, dtype: str = "") -> str:
        """Return what one of its numbers is called among the numbers of a step.

        Parameters
        ----------
        name : str
            By which the transform itself reads it.
        dtype : str
            Of the parameters; "" where it is the same for all.

        Returns
        -------
        str
            The name.
        """
        called = name if name == self.prefix else f"{self.prefix}_{name}"
        return f"{called}_{dtype}" if dtype and name in self.rounded else called


class _Fixed(Guard):
    """The attribute of a setting."""

    def __set__(self, instance: object, value: object) -> Never:
        raise AttributeError(
            f"{type(instance).__name__}.{self.name} cannot be changed to {short(value)}: a transform is a value; make "
            f"another one, and give it to the optimizer with set_params"
        )


class Transform(Scheduled, Value):
    """Base class of every transform: a subclass changes what a rule receives or returns.

    A subclass declares each number with `setting`, and has one or more of the static methods

    - ``before(xp, param, grad, s, h)``, which returns the gradient that is passed on, or the pair of the parameter and
      the gradient that are passed on;
    - ``after(xp, new, param, grad, s, h)``, which returns the new parameter and its slots. `new` is the result of the
      rule and of the transforms nearer to it; `param` and `grad` are the arguments of its own `before`;
    - ``scalars(h)``, further numbers computed on the host, as for an optimizer;
    - ``evaluated(xp, param, s, h)``, what `OptimizerBase.averaged` returns in the place of the parameter.

    `xp` is the namespace of the arrays, `s` the transform's own slots: an instance of `slots`, a NamedTuple class as
    for an optimizer. `h` has the transform's settings, what its `scalars` returns, the count `h.t` and the learning
    rate `h.lr`, but no number of the rule or of another transform. A transform is elementwise arithmetic like a rule,
    and runs in the same kernel.

    An instance is immutable, and equal to another one of its class with the same settings.

    Parameters
    ----------
    **settings : object
        The settings of the class.

    Raises
    ------
    TypeError
        An unknown keyword, a value that is not a number, or a class without `before` and `after`.
    ValueError
        A value out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> import xpopt
    >>> class Halved(xpopt.transforms.Transform):
    ...     share: float = xpopt.setting(default=0.5)
    ...
    ...     @staticmethod
    ...     def before(xp, param, grad, s, h):
    ...         return h.share * grad
    >>> Halved()
    Halved(share=0.5)
    """

    before: ClassVar[Any] = None  # static methods, which a type checker would bind if it knew more
    after: ClassVar[Any] = None
    scalars: ClassVar[Any] = None
    slots: ClassVar[type[Any]] = NoSlots
    limit: ClassVar[Any] = None
    """``limit(h, largest, size)``: how large a gradient's element may be so that `before` returns at most `largest`.

    ``size()`` bounds the magnitudes of the parameter. Without it, `before` is taken to leave magnitudes alone.
    """

    rate: ClassVar[Any] = None
    """``rate(h)``: the learning rate that rule and other transforms have, where it is not `h.lr`."""

    bound: ClassVar[Any] = None
    """``bound(h, norm)``: the largest norm of the gradient that comes, so that what `before` returns has `norm`.

    It is for a factor, which clipping by the norm may come before as well as after.
    """

    rates: ClassVar[Any] = None
    """``rates(s, h)``: the same for each element of the parameter, an array."""

    evaluated: ClassVar[Any] = None
    """``evaluated(xp, param, s, h)``: what the model is to be evaluated with, where it is not `param`."""

    project: ClassVar[Any] = None
    """``project(xp, x, s, h)``: what `after` does, for a rule that does it itself: see `OptimizerBase.proximal`."""

    project_complex: ClassVar[Any] = None
    """What `project` is for complex arrays: for pairs of their parts, along one more axis, the last; of size 1 in `s`.

    Without it, each part is an element.
    """

    whole: ClassVar[str] = ""
    """Why it is no elementwise arithmetic, so that no engine fuses it; empty where it is."""
    by_metric: ClassVar[bool] = False
    """Whether `after` reads as `h.lr` the rate of each element that the rule's `element_rate` says."""
    keyword: ClassVar[str] = ""
    """The option of every optimizer that it is; empty for a transform that is given in a list."""
    measured: ClassVar[bool] = False
    """Whether `clip_norm` measures what `before` returns; if not, it comes first."""
    rounded: ClassVar[tuple[str, ...]] = ()
    """Its numbers that are others for each dtype of 16 and 32 bits."""

    _kind = "transform"

    @classmethod
    def _attribute(cls, name: str) -> Any:
        return _Fixed(name)

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Refuse methods that would be called with an instance."""
        super().__init_subclass__(**keywords)
        for name in ("before", "after", "scalars", "limit", "rate", "rates", "bound", "evaluated", "project"):
            if isinstance(vars(cls).get(name), FunctionType):
                raise TypeError(f"{cls.__name__}.{name} takes no self: decorate it with @staticmethod")

    def _begin(self, given: dict[str, Any]) -> None:
        super()._begin(given)
        if self.before is self.after is self.rate is self.rates is None:
            raise TypeError(f"{type(self).__name__} has neither `before` nor `after`; write one of them")

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return the transform that a value of its option means.

        Parameters
        ----------
        value : object
            A transform of this class, or its first setting.

        Returns
        -------
        Transform
            Of this class.
        """
        return value if isinstance(value, cls) else cls(**{next(iter(cls.ranges)): value})

    def formula(self) -> Formula:
        """Return what it does; its numbers are those of `numbers`."""
        cls = type(self)
        return Formula(
            cls.__name__,
            self.keyword or cls.__name__,
            self.before,
            self.after,
            self.scalars,
            self.limit,
            self.rate,
            self.bound,
            self.rates,
            self.evaluated,
            self.state(),
            self.measured,
            self.rounded,
            cls.__module__,
            self.project,
            self.project_complex,
            self.whole,
            self.by_metric,
        )

    def state(self) -> type[Any]:
        """Return the class of its slots, as its settings have it: `slots`, or that of none of them."""
        return self.slots

    def numbers(self) -> dict[str, Any]:
        """Return its numbers by what they are called among the numbers of a step."""
        number = self.formula().number
        return {number(name): value for name, value in self.settings().items()}

    def check_dtype(self, dtype: str, what: str) -> None:
        """Raise a ValueError if its numbers mean nothing to a parameter of a dtype.

        Parameters
        ----------
        dtype : str
            The parameter's.
        what : str
            What it is called, for the message.

        Raises
        ------
        ValueError
            They do not.
        """
