"""A rule: one update formula, with the names of its slots."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from types import CodeType
from typing import Any, NamedTuple

import numpy as np

from .._arrays.typing import Array, Scalars
from .._settings.once import once
from .slots import LIKE, Shape, Slot, one, specs_of

MASTER = "master"
"""The slot of a master copy."""


class NoSlots(NamedTuple):
    """The state of a rule that remembers nothing."""


class NeedsModelError(TypeError):
    """A rule asks for what is found of the whole model, where one parameter is known."""


class StepScalars:
    """The numbers of one step by name; an attribute of a plain class is what Python reads fastest."""

    def __getattr__(self, name: str) -> Any:
        if name == "model":
            raise NeedsModelError(
                "its rule, or an option such as clip_global, reads h.model, the whole model, and update has one "
                "parameter; use update_all"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        """Write the numbers."""
        return f"h({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class RateRows(Sequence[Scalars]):
    """The numbers of one step for several learning rates, which are all that differs.

    Parameters
    ----------
    first : Scalars
        Those for some rate.
    rates : list of float
        The rates.
    """

    __slots__ = ("first", "rates")

    def __init__(self, first: Scalars, rates: list[float]) -> None:
        self.first, self.rates = first, rates

    def __len__(self) -> int:
        return len(self.rates)

    def __getitem__(self, row: Any) -> Any:
        h = StepScalars()
        h.__dict__.update(vars(self.first), lr=self.rates[row])
        return h


def most_to_square(largest: float) -> float:
    """Return how large an element may be so that the sum of a million of its squares is finite."""
    return (largest / 2**20) ** 0.5


@dataclass(frozen=True, eq=False)
class Rule:
    """One update formula, for a class that has several: `OptimizerBase.choose_rule` returns those that are in use.

    A rule is told from others by what it is, not by what it says; make each once, where the class is defined.

    Parameters
    ----------
    function : callable
        ``function(xp, param, grad, s, h) -> (param, slots)``.
    slots : type
        The NamedTuple class of its state, one array per field. What a field's default, made by `slot`, does not say
        otherwise is like the parameter, and starts at 0.
    scalars : callable, optional
        ``scalars(h) -> dict`` of further numbers for `h`, computed on the host.
    where : callable, optional
        ``where(dtype, shape) -> bool``, of the name of a dtype and a tuple of int: whether the rule is for such
        parameters, of which it leaves the others to the rules that come after it.
    follows : type, optional
        The NamedTuple class of the state of another rule, from which it may go on: slots of the same name go on, others
        are dropped, and those that are missing start as in a new state.
    entry : {"dict", "array"}
        The form of its cache entry, and of the one from which it may go on: a dict of the count and the slots, or,
        where there is one slot, that array itself.
    fused : bool
        Whether engines may fuse its operations. False for one that cannot be, such as one with a matrix product: it
        runs eagerly, and nothing is said of that.
    proximal : bool
        Whether it applies the projection of its optimizer itself, as `h.project(x)`, in place of the optimizer, which
        applies it to what a rule returns.
    reads_loss : bool
        Whether it reads `h.cur_loss`, the loss of the step, which each update then needs.
    element_rate : callable, optional
        ``element_rate(xp, s, h) -> array``: the rate of each element, where it is `h.lr` divided by the size of its
        gradients; of the slots after an update, and of the numbers of its count.
    added : int
        How many of its slots, the last ones, are not of the formula but of transforms around it.
    low : mapping of str to Rule
        By dtype, the rules that take its place for parameters of these dtypes; for transforms.
    among : tuple of Rule
        The rules that it stands for; made by `one_of`.
    inner : Rule, optional
        The rule that there are transforms around, where there are; what follows is for these.
    measured : callable, optional
        ``measured(xp, param, grad, s, h) -> grad``: what is clipped by its norm, before `function` gets it.
    limit : callable, optional
        ``limit(h, largest, size) -> float``: how large an element of a gradient may be so that `inner` sees none above
        `largest`; ``size()`` is the largest magnitude in the parameter.
    most : callable, optional
        ``most(largest) -> float``, of a rule that cannot be traced: how large an element of a gradient may be so that
        all that it computes is finite, where `largest` is the largest number of the dtype of the arithmetic.
    whole : str
        Why `fused` is False, where the cause is not the formula but what is around it.
    evaluated : callable, optional
        ``evaluated(xp, param, s, h) -> array``: what the model is to be evaluated with, where that is not `param`;
        elementwise, of the parameter and the slots after an update, and of the numbers of its count.
    """

    function: Callable[..., tuple[Array, Any]]
    slots: type[Any] = NoSlots
    scalars: Callable[[Scalars], Mapping[str, float]] | None = None
    _: KW_ONLY
    where: Callable[[str, tuple[int, ...]], bool] | None = None
    follows: type[Any] | None = None
    entry: str = "dict"
    fused: bool = True
    proximal: bool = False
    reads_loss: bool = False
    element_rate: Callable[..., Array] | None = None
    added: int = 0
    low: Mapping[str, Rule] = field(default_factory=dict)
    among: tuple[Rule, ...] = ()
    inner: Rule | None = None
    measured: Callable[..., Array] | None = None
    limit: Callable[[Scalars, Any, Callable[[], Any]], Any] | None = None
    most: Callable[[float], float] | None = None
    whole: str = ""
    evaluated: Callable[..., Array] | None = None

    @once
    def made(self) -> dict[Any, Any]:
        """What has been made of it: graphs, kernels, and why there are none. Kept here, it goes with the rule."""
        return {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it is, without what was made of it: classes that are pickled by value hold their rule."""
        return functools.partial(Rule, **{one.name: getattr(self, one.name) for one in fields(self)}), ()

    @once
    def varies(self) -> bool:
        """Whether another rule takes its place for some parameters."""
        return bool(self.among or self.low)

    def chosen(self, dtype: str, shape: tuple[int, ...]) -> Rule:
        """Return that of the rules that it stands for which takes parameters of a dtype and a shape."""
        return next((one for one in self.among if one.where is None or one.where(dtype, shape)), self)

    def of(self, dtype: str, shape: tuple[int, ...]) -> Rule:
        """Return the rule that updates a parameter of a dtype and a shape."""
        rule = self.chosen(dtype, shape)
        return rule.low.get(dtype, rule)

    @property
    def name(self) -> str:
        """The function's qualified name, for messages."""
        return self.function.__qualname__

    @property
    def owner(self) -> str:
        """The name of the class that has the function, for messages about its state."""
        return self.name.removesuffix(".rule")

    @property
    def code(self) -> CodeType | None:
        """The code of the function that somebody wrote, whatever has been put around it."""
        return getattr(inspect.unwrap(self.function), "__code__", None)

    @once
    def fields(self) -> tuple[str, ...]:
        """The names of its slots."""
        return self.slots._fields

    @once
    def specs(self) -> tuple[Slot, ...]:
        """What each of its slots is."""
        return specs_of(self.slots)

    @once
    def plain(self) -> bool:
        """Whether all slots are like the parameter, of the dtype of the arithmetic, and start at 0."""
        return all(spec == LIKE for spec in self.specs)

    @once
    def narrow(self) -> bool:
        """Whether a slot states a dtype."""
        return any(spec.dtype is not None for spec in self.specs)

    def dtypes(self, compute: str) -> list[str]:
        """Return the names of the dtypes of its slots, of a parameter whose slots are of `compute`."""
        return [spec.dtype_for(compute) for spec in self.specs]

    @once
    def ones(self) -> tuple[int, ...]:
        """Which of its slots are one number."""
        return tuple(k for k, spec in enumerate(self.specs) if spec.shape is one)

    @once
    def wide(self) -> tuple[int, ...]:
        """Which of its slots are not."""
        return tuple(k for k, spec in enumerate(self.specs) if spec.shape is not one)

    def shapes(self, shape: Shape) -> list[Shape]:
        """Return the shapes of the slots of a parameter; a TypeError names a slot that has none."""
        if self.plain:
            return [shape] * len(self.fields)
        shapes = []
        for name, spec in zip(self.fields, self.specs, strict=True):
            try:
                shapes.append(spec.shape_for(shape))
            except TypeError as error:
                raise TypeError(f"{self.owner}: the slot {name!r}: {error}") from error.__cause__
        return shapes

    @once
    def make_slots(self) -> Callable[[Iterable[Array]], Any]:
        """Make its state of one array per field: what ``slots._make`` does, at half the cost."""
        return functools.partial(tuple.__new__, self.slots)

    @once
    def constants(self) -> tuple[int, ...]:
        """Which of its slots are numbers of a setting, and no state."""
        return tuple(k for k, spec in enumerate(self.specs) if spec.constant)

    @once
    def kept(self) -> tuple[str, ...]:
        """The names of the others."""
        return tuple(name for name, spec in zip(self.fields, self.specs, strict=True) if not spec.constant)

    def state(self, slots: tuple[Array, ...]) -> tuple[Array, ...]:
        """Return those of its slots that are kept."""
        return slots if not self.constants else tuple(x for k, x in enumerate(slots) if k not in self.constants)

    @once
    def keys(self) -> tuple[str, ...]:
        """The keys of its cache entry where that is a dict."""
        return ("t", *self.kept)

    @once
    def own(self) -> tuple[str, ...]:
        """The names of the slots of the formula, without those of transforms."""
        return self.fields[: len(self.fields) - self.added]

    @once
    def single(self) -> bool:
        """Whether its cache entry, but for slots of transforms, is an array."""
        return len(self.own) == 1 and self.entry == "array"

    @once
    def bare(self) -> bool:
        """Whether its cache entry is an array."""
        return self.single and len(self.kept) == 1

    def scalars_at(self, settings: Mapping[str, Any], lr: float, t: int) -> Scalars:
        """Return `h`: every hyperparameter, this step's `lr`, the count `t`, and what `scalars` derives from them."""
        h = StepScalars()
        numbers = h.__dict__
        numbers.update(settings)
        numbers["lr"] = lr
        numbers["t"] = t if t < 2**31 else float(t)  # which arrays take, whatever their integers hold
        if self.scalars is not None:
            for name, value in self.scalars(h).items():  # NumPy's scalars would promote arrays
                numbers[name] = value.item() if isinstance(value, np.generic) else value
        return h


def one_of(rules: Any, owner: str) -> Rule:
    """Return the rule that stands for those of which the first that takes a parameter updates it.

    Parameters
    ----------
    rules : Rule or sequence of Rule
        What `OptimizerBase.choose_rule` returned.
    owner : str
        The name of the class, for messages.

    Returns
    -------
    Rule
        The rule itself if it is one.

    Raises
    ------
    TypeError
        They are no rules.
    ValueError
        No parameter would get one of them, or some would get none; or they read different numbers.
    """
    several = (rules,) if isinstance(rules, Rule) else tuple(rules) if isinstance(rules, tuple | list) else ()
    if not several or not all(isinstance(one, Rule) for one in several):
        came = f"a {type(rules).__name__}" if not several else "a tuple with something else in it"
        raise TypeError(f"{owner}.choose_rule returned {came}; wanted a Rule, or a tuple of rules")
    *before, last = several
    if last.where is not None or any(one.where is None for one in before):
        raise ValueError(f"{owner}.choose_rule: every rule but the last needs `where`, and the last must not have it")
    if any(one.scalars is not last.scalars for one in before):
        raise ValueError(f"{owner}.choose_rule: rules of one model read the same numbers; give each the same `scalars`")
    return replace(last, among=several) if before else last


def taken_apart(rule: Rule, returned: Any) -> list[Any]:
    """Return the new parameter and slots that a rule returned, if that is what it returned."""
    wanted = f"wanted (param, slots), with the slots {', '.join(rule.fields) or '(none)'}"
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(f"{rule.name} returned a {type(returned).__name__}; {wanted}")
    param, slots = returned
    if not isinstance(slots, tuple | list) or len(slots) != len(rule.fields):
        raise TypeError(f"{rule.name} returned a {type(slots).__name__} for the slots; {wanted}")
    for name, x in zip(rule.fields, () if rule.plain else slots):  # noqa: B905 - of one length
        if isinstance(x, Slot):  # the default of the field
            raise TypeError(f"{rule.name} returned a {type(slots).__name__} without {name!r}; {wanted}")
    return [param, *slots]
