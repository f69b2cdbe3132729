"""Transforms from text and dicts, and what an option may be that is one or several."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .. import prox, transforms
from .._arrays.elements import PerElement
from .._graph.rule import MASTER
from .._names import NAMES
from .._settings.declared import range_of
from .._settings.ranges import Range, number_of
from .._settings.registry import Registry, below
from .._settings.suggest import suggest
from .._settings.text import Call, naming, parse, short
from ..prox.base import Proximal, function
from ..schedulers.kinds.base import Schedule
from ..transforms.base import Transform
from ..transforms.bounds import Bounds, BoundsCheck, End


def make_transform(spec: Any) -> Transform:
    """Make a transform from what describes it, as `make_scheduler` makes schedules.

    Parameters
    ----------
    spec : str, mapping, Call or Transform
        A call, such as ``"WeightDecay(weight_decay=0.1, cautious=True)"``, or a dict with ``"id"``, the class name; a
        transform is returned as it is.

    Returns
    -------
    Transform
        The transform.

    Raises
    ------
    TypeError
        `spec` is none of the above, or a value is of the wrong type.
    ValueError
        A name or keyword is unknown, `spec` cannot be read, or a value is out of range.
    """
    if isinstance(spec, Transform):
        return spec
    if isinstance(spec, str | Mapping):
        spec = parse(spec)
    if not isinstance(spec, Call):
        way_out = f"; call it, {spec.__name__}()" if isinstance(spec, type) and issubclass(spec, Transform) else ""
        raise TypeError(f"{short(spec)} is not a transform; wanted a transform, a call string or a dict{way_out}")
    kind = TRANSFORMS.find(spec.name)
    if kind is None:
        hint = suggest(spec.name, TRANSFORMS.names())
        raise spec.error(f"unknown transform {short(spec.name)}; import the module that defines it first{hint}")
    for keyword in spec.keywords:
        if keyword not in kind.ranges:
            raise spec.error(f"{kind.__name__} has no keyword {short(keyword)}{suggest(keyword, kind.ranges)}", keyword)
    return kind(**spec.keywords)


def slots_of_all() -> set[str]:
    """Return the names of the slots that transforms may have."""
    return {MASTER}.union(*(kind.slots._fields for kind in below(Transform)))


def slots_of_transforms(slots: Collection[str]) -> set[str]:
    """Return which slots may be those of transforms that need not be there any more.

    Parameters
    ----------
    slots : collection of str
        The names of some slots that no algorithm is known to have.

    Returns
    -------
    set of str
        Master copies, and those of each transform that has all its slots among them.
    """
    if not slots:  # as it nearly always is
        return set()
    found = {MASTER}.intersection(slots)
    return found.union(*(of for kind in below(Transform) if (of := set(kind.slots._fields)) <= set(slots)))


def as_text(value: Any) -> Any:
    """Return a setting as JSON has it: a list for a tuple, text for what is a value, a dict if it has arrays.

    Parameters
    ----------
    value : object
        The setting.

    Returns
    -------
    object
        What JSON has, but for arrays.
    """
    if isinstance(value, tuple):
        return list(map(as_text, value))
    if isinstance(value, Schedule):
        return repr(value)
    if not isinstance(value, Transform):
        return value
    values = value.settings()
    if any(isinstance(one, PerElement) for one in values.values()):
        return {"id": type(value).__name__, **values}
    return repr(value)


@dataclass(frozen=True)
class NumberOr:
    """A number, or the transform whose first setting it is.

    Parameters
    ----------
    kind : type
        The transform's class.
    """

    kind: type[Transform]

    @property
    def number(self) -> Range | None:
        """What a schedule may draw."""
        first, *_ = self.kind.ranges
        return number_of(range_of(self.kind, first)) if self.kind.takes_schedules else None

    def check(self, owner: str, name: str, value: object) -> Any:
        """Return the number or the transform, or say what is wrong with it.

        Parameters
        ----------
        owner, name : str
            The class and the keyword, for the message.
        value : object
            What came; for a transform also text or a dict.

        Returns
        -------
        float or Transform
            What is to be kept.

        Raises
        ------
        TypeError, ValueError
            It is neither.
        """
        if not isinstance(value, str | Mapping | Call | Transform):
            first, *_ = self.kind.ranges
            try:
                return range_of(self.kind, first).check(owner, name, value)
            except TypeError as error:
                raise TypeError(f"{error}, or a {self.kind.__name__}") from None
        return OfKind(self.kind, f"a number, or a {self.kind.__name__}").check(owner, name, value)


@dataclass(frozen=True)
class OfKind:
    """A transform of some kind.

    Parameters
    ----------
    kind : type
        The transform's class, or a base of several.
    wanted : str
        How one is made, for messages.
    """

    kind: type[Transform]
    wanted: str

    def check(self, owner: str, name: str, value: object) -> Transform:
        """Return the transform, or say what is wrong with what came.

        Parameters
        ----------
        owner, name : str
            The class and the keyword, for the message.
        value : object
            What came: the transform, text or a dict.

        Returns
        -------
        Transform
            What is to be kept.

        Raises
        ------
        TypeError, ValueError
            It is none.
        """
        if not isinstance(value, str | Mapping | Call | Transform):
            way_out = f"; call it, {value.__name__}()" if isinstance(value, type) else ""
            raise TypeError(
                f"{owner}: {name}={short(value)} is a {type(value).__name__}; wanted {self.wanted}{way_out}"
            )
        with naming(f"{owner}: {name}"):
            made = make_transform(value)
            if not isinstance(made, self.kind):
                raise TypeError(f"{made} is a {type(made).__name__}; wanted {self.wanted}")
        return made


class Several:
    """A list of transforms of the user's own."""

    def check(self, owner: str, name: str, value: object) -> tuple[Transform, ...]:
        """Return them as a tuple, or say what is wrong with them.

        Parameters
        ----------
        owner, name : str
            The class and the keyword, for the message.
        value : object
            What came: a list or tuple, of transforms, texts or dicts.

        Returns
        -------
        tuple of Transform
            In the same order.

        Raises
        ------
        TypeError, ValueError
            It is no list, something in it is no transform, two are of one class, or one is an option.
        """
        if not isinstance(value, list | tuple):
            raise TypeError(f"{owner}: {name}={short(value)} is a {type(value).__name__}; wanted a list of transforms")
        with naming(f"{owner}: {name}"):
            made = tuple(map(make_transform, value))
            for i, one in enumerate(made):
                if one.keyword:
                    raise ValueError(f"{type(one).__name__} is an option of its own; give it as {one.keyword}=...")
                if type(one) in map(type, made[:i]):
                    raise ValueError(f"{type(one).__name__} is given twice; wanted at most one of each class")
        return made


class Map:
    """What `prox` may be: a map, or a function of the user's own."""

    def check(self, owner: str, name: str, value: object) -> Proximal:
        """Return the map, or say what is wrong with what came.

        Parameters
        ----------
        owner, name : str
            The class and the keyword, for the message.
        value : object
            What came: a map, or its class, which is called; text or a dict; or a function.

        Returns
        -------
        Proximal
            What is to be kept.

        Raises
        ------
        TypeError, ValueError
            It is none.
        """
        if isinstance(value, type) and issubclass(value, Proximal):
            with naming(f"{owner}: {name}"):
                return value()
        if callable(value) and not isinstance(value, type | Transform):
            return function(call=value)
        if isinstance(value, str | Mapping):
            with naming(f"{owner}: {name}"):
                value = parse(value)
        if isinstance(value, Call) and value.name == function.__name__:
            raise ValueError(
                f"{owner}: {name}={value} is text that stands for a function, which cannot be read back; pass "
                f"the function itself, to the constructor or to set_params, or load a checkpoint into an optimizer "
                f"that has it"
            )
        made = OfKind(Proximal, "a map of xpopt.prox, such as l1(0.1), a function of (xp, x), or None").check(
            owner, name, value
        )
        assert isinstance(made, Proximal)
        return made


class BoundsOrMap(BoundsCheck):
    """What `bounds` may be: a pair, a map to an interval, or None."""

    def check(self, owner: str, name: str, value: object) -> tuple[End, End] | None:
        """Return the pair, or say what is wrong with what came.

        Parameters
        ----------
        owner, name : str
            The class and the keyword, for the message.
        value : object
            What came.

        Returns
        -------
        tuple or None
            The pair; None without any bound.

        Raises
        ------
        TypeError, ValueError
            It is none.
        """
        if isinstance(value, str | Call | type | Proximal) or (isinstance(value, Mapping) and "id" in value):
            made = Map().check(owner, name, value)
            bounds = made.transform()
            if not isinstance(bounds, Bounds):
                raise TypeError(f"{owner}: {name}={made} is not an interval; pass it as prox={made}")
            value = bounds.low, bounds.high
        return super().check(owner, name, value)


def _load(name: str) -> Any:
    return getattr(prox if name in NAMES["Proximal maps"] else transforms, name)


TRANSFORMS: Registry[Transform] = Registry(
    Transform,
    [*NAMES["Transforms"], *NAMES["Proximal maps"]],
    _load,
    lambda kind: kind.before is not None or kind.after is not None,
)
"""The transforms by name."""
