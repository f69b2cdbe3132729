"""Rules of rules: what transforms do before and after a rule, as one function that is traced and printed like any."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._arrays.library import PAIRS
from .._arrays.parameter import dtype_text
from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import Rule, taken_apart
from .._graph.slots import Slot, specs_of, state_class
from .._graph.trace import InPlaceError, UntraceableError, called
from .._settings.caller import PACKAGE
from ..transforms.base import Formula
from .numbers import Numbers, OnHost, Projecting, Rated, read
from .pairs import on_pairs


def transformed(rule: Rule, transforms: tuple[Formula, ...], *, clipped: bool) -> Rule:
    """Return the rule with transforms around it, one and the same for equal formulas.

    Parameters
    ----------
    rule : Rule
        Any rule.
    transforms : tuple of Formula
        The outermost first: in this order they come before the rule, and in the reverse order after it.
    clipped : bool
        Whether the gradient is clipped by its norm, which is taken after the last transform that asks for it.

    Returns
    -------
    Rule
        `rule` itself where there are no transforms, unless it projects by itself.

    Raises
    ------
    TypeError
        Two slots have one name.
    ValueError
        A transform asks for the rate of each element, and the rule has none.
    """
    if not transforms and not rule.proximal:
        return rule
    if rule.proximal:
        transforms = tuple(map(_left_to_the_rule, transforms))
    first = 1 + max((i for i, transform in enumerate(transforms) if transform.measured), default=-1) if clipped else 0
    key = "transformed", transforms, first
    found: Rule | None = rule.made.get(key)
    if found is None:  # one, whichever thread makes it
        found = rule.made.setdefault(key, _transformed(rule, transforms, first, _scalars(rule, transforms, first)))
    return found


def _left_to_the_rule(transform: Formula) -> Formula:
    """Return a transform without what a rule does by itself that projects."""
    if transform.project is None:
        return transform
    return transform._replace(before=None, after=None, measured=False)


def _transformed(rule: Rule, transforms: tuple[Formula, ...], first: int, scalars: Any) -> Rule:
    if rule.among:
        *before, last = (_transformed(one, transforms, first, scalars) for one in rule.among)
        return dataclasses.replace(last, among=(*before, last))
    low = (
        {dtype: _around(rule, transforms, first, scalars, dtype) for dtype in _ROUNDED}
        if any(one.rounded for one in transforms)
        else {}
    )
    if any(one.project_complex is not None for one in transforms):
        of_pairs = tuple(map(on_pairs, transforms))
        low |= {dtype: _around(rule, of_pairs, first, scalars, part) for dtype, part in _PARTS.items()}
    return dataclasses.replace(_around(rule, transforms, first, scalars), low=low)


_ROUNDED = ("float16", "bfloat16", "float32")
"""The dtypes for which some numbers are others than in float64."""

_PARTS = {dtype: part if part in _ROUNDED else "" for dtype, part in PAIRS.items()}
"""By complex dtype, that of its parts among these."""


def _around(rule: Rule, transforms: tuple[Formula, ...], first: int, scalars: Any, dtype: str = "") -> Rule:
    """Return a rule with transforms around it, for parameters of a dtype where that matters."""
    function: Any = functools.wraps(rule.function)(_function(rule, transforms, first, dtype))
    for one in transforms:
        if one.by_metric and rule.element_rate is None:
            raise ValueError(
                f"{rule.owner} does not divide by the magnitude of gradients, so {one.name} has no rate of each "
                f"element for metric=True; leave it out, or use Adam"
            )
    whole = rule.whole or next((one.whole for one in transforms if one.whole), "")
    users = (one.module for one in transforms if not one.module.startswith(PACKAGE))
    function.__module__ = next(users, rule.function.__module__)
    return dataclasses.replace(
        rule,
        function=function,
        slots=_slots(rule, transforms),
        scalars=scalars,
        fused=rule.fused and not whole,
        whole=whole,
        added=rule.added + sum(len(transform.slots._fields) for transform in transforms),
        inner=rule,
        measured=_measured(rule, transforms, first, dtype) if first else None,
        limit=_limit(transforms),
        evaluated=_evaluated(rule, transforms, dtype),
    )


def _states(rule: Rule, transforms: Sequence[Formula], s: Any) -> list[Any]:
    """Return the slots of each transform, which come after those of the rule."""
    taken = iter(s[len(rule.fields) :])
    return [transform.slots._make([next(taken) for _ in transform.slots._fields]) for transform in transforms]


def _function(
    rule: Rule, transforms: Sequence[Formula], first: int, dtype: str
) -> Callable[..., tuple[Array, tuple[Array, ...]]]:
    """Return the function of a rule with transforms around it, of which the first have seen the gradient already."""
    own = len(rule.fields)
    projecting = [i for i, transform in enumerate(transforms) if transform.project is not None]

    def function(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Array, tuple[Array, ...]]:
        states = _states(rule, transforms, s)
        numbers, h = read(transforms, states, h, dtype)
        if rule.proximal:

            def project(x: Array) -> Array:
                for i in projecting:
                    x = _of(transforms[i], "project", xp, x, states[i], numbers[i])
                return x

            h = Projecting(h, project)
        given = []
        for i, transform in enumerate(transforms):
            given.append((param, grad))
            if transform.before is not None and i >= first:
                returned = _of(transform, "before", xp, param, grad, states[i], numbers[i])
                param, grad = _passed_on(transform, returned, param, grad)
        new, *slots = taken_apart(rule, rule.function(xp, param, grad, rule.make_slots(s[:own]), h))
        _check_like(param, new, rule.name, "param")
        for i, transform in reversed(list(enumerate(transforms))):
            if transform.after is not None:
                own_numbers = numbers[i]
                if transform.by_metric and rule.element_rate is not None:
                    own_numbers = Rated(own_numbers, rule.element_rate(xp, rule.make_slots(slots), h))
                returned = _of(transform, "after", xp, new, *given[i], states[i], own_numbers)
                new, states[i] = _taken_apart(transform, states[i], returned)
                _check_like(param, new, f"{transform.name}.after", "param")
        return new, (*slots, *(slot for state in states for slot in state))

    return function


def _measured(rule: Rule, transforms: Sequence[Formula], first: int, dtype: str) -> Callable[..., Array]:
    """Return what the first transforms make of a gradient."""

    def measured(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> Array:
        states = _states(rule, transforms, s)[:first]
        numbers, _ = read(transforms[:first], states, h, dtype)
        for transform, state, of in zip(transforms[:first], states, numbers, strict=True):
            if transform.before is not None:
                returned = _of(transform, "before", xp, param, grad, state, of)
                passed, grad = _passed_on(transform, returned, param, grad)
                if passed is not param:
                    raise TypeError(
                        f"{transform.name}.before returned a parameter too; wanted only the gradient, to clip its norm"
                    )
        return grad

    return measured


def _evaluated(rule: Rule, transforms: Sequence[Formula], dtype: str) -> Callable[..., Array] | None:
    """Return what the model is evaluated with: what the outermost transform says that says it, else the rule."""
    own = len(rule.fields)
    place = next((i for i, transform in enumerate(transforms) if transform.evaluated is not None), None)
    if place is None and rule.evaluated is None:
        return None

    def evaluated(xp: Namespace, param: Array, s: Any, h: Scalars) -> Array:
        if place is not None:
            transform, state = transforms[place], _states(rule, transforms, s)[place]
            found: Array = _of(transform, "evaluated", xp, param, state, Numbers(h, transform, dtype))
            return found
        assert rule.evaluated is not None
        return rule.evaluated(xp, param, rule.make_slots(s[:own]), h)

    return evaluated


def _of(transform: Formula, name: str, *args: Any) -> Any:
    """Return what a method of a transform returns; what cannot be traced in it is told of it."""
    try:
        return getattr(transform, name)(*args)
    except (InPlaceError, UntraceableError) as error:
        raise type(error)(f"{transform.name}.{name}: {error}") from error


def _passed_on(transform: Formula, returned: Any, param: Array, grad: Array) -> tuple[Array, Array]:
    """Return the parameter and the gradient that a transform passes on, if that is what it returned."""
    name = f"{transform.name}.before"
    if returned is None or (isinstance(returned, tuple) and len(returned) != 2):
        came = "None" if returned is None else f"a tuple of {len(returned)}"
        raise TypeError(f"{name} returned {came}; wanted the gradient, or (param, grad)")
    new, passed = returned if isinstance(returned, tuple) else (param, returned)
    _check_like(param, new, name, "param")
    _check_like(grad, passed, name, "grad")
    return new, passed


def _check_like(wanted: Array, x: Any, name: str, what: str) -> None:
    """Raise a TypeError unless `x` is like an array that came in, so that nothing is spread over the parameter."""
    if x is wanted:
        return
    text = called(wanted)
    if text is None:
        if hasattr(x, "dtype") and x.dtype == wanted.dtype and x.shape == wanted.shape:
            return
        text = _described(wanted)
    elif called(x) == text:
        return
    raise TypeError(f"{name} returned {called(x) or _described(x)} as {what!r}; wanted {text}")


def _described(x: Any) -> str:
    return f"{dtype_text(x.dtype)} of shape {tuple(x.shape)}" if hasattr(x, "dtype") else f"a {type(x).__name__}"


def _taken_apart(transform: Formula, state: Any, returned: Any) -> tuple[Array, Any]:
    """Return the new parameter and the slots that a transform returned, if that is what it returned."""
    fields = transform.slots._fields
    wanted = f"wanted (new, slots), with the slots {', '.join(fields) or '(none)'}"
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(f"{transform.name}.after returned a {type(returned).__name__}; {wanted}")
    new, slots = returned
    if not isinstance(slots, tuple | list) or len(slots) != len(fields):
        raise TypeError(f"{transform.name}.after returned a {type(slots).__name__} for the slots; {wanted}")
    for field, before, x in zip(fields, state, slots, strict=True):
        if isinstance(x, Slot):  # the default of the field
            raise TypeError(f"{transform.name}.after returned a {type(slots).__name__} without {field!r}; {wanted}")
        _check_like(before, x, f"{transform.name}.after", field)
    return new, slots


def _scalars(rule: Rule, transforms: Sequence[Formula], first: int) -> Callable[[Scalars], Mapping[str, float]] | None:
    """Return the further numbers of a rule and of what is around it, of which the first come before clipping."""
    having = [transform for transform in transforms if transform.scalars is not None]
    has_rates = any(transform.rates is not None for transform in transforms)
    rating = [transform for transform in transforms if transform.rate is not None]
    bounding = [transform for transform in transforms[first:] if transform.bound is not None]
    if not having and not rating and not bounding and not has_rates:
        return rule.scalars

    def scalars(h: Scalars) -> Mapping[str, float]:
        for transform in rating:  # first, so that what is derived from the rate has the new one
            assert transform.rate is not None
            h.lr = transform.rate(Numbers(h, transform))
        for transform in bounding:  # whose factors come after the norm is taken
            assert transform.bound is not None
            h.clip_norm = None if h.clip_norm is None else transform.bound(Numbers(h, transform), h.clip_norm)
        found = {}
        if rule.scalars is not None:
            found = dict(rule.scalars(OnHost(h, rule.owner) if has_rates else h))
        for transform in having:
            assert transform.scalars is not None
            of = OnHost(h, transform.name) if has_rates else h
            numbers = transform.scalars(Numbers(of, transform))
            if not isinstance(numbers, Mapping):
                raise TypeError(
                    f"{transform.name}.scalars returned a {type(numbers).__name__}; wanted a dict of numbers"
                )
            for name, value in numbers.items():
                found[transform.number(name)] = value
        return found

    return scalars


def _slots(rule: Rule, transforms: Sequence[Formula]) -> type[Any]:
    """Return the class of the state of a rule and of what is around it."""
    slots = dict(zip(rule.fields, rule.specs, strict=True))
    starts = [name for name, spec in slots.items() if getattr(spec, "start", None) == "lr"]
    if starts and any(transform.rates is not None for transform in transforms):
        raise ValueError(f"{rule.owner} starts the slot {starts[0]!r} at lr, one number; give lr_scale a number")
    for transform in transforms:
        for name, spec in zip(transform.slots._fields, specs_of(transform.slots), strict=True):
            if name in slots:
                raise TypeError(
                    f"{transform.name} has a slot {name!r}, and {rule.name} or another transform has one too"
                )
            slots[name] = spec.with_start(transform.number) if isinstance(spec, Slot) else spec
    return rule.slots if len(slots) == len(rule.fields) else state_class(rule.slots.__name__, slots)


def _limit(transforms: Sequence[Formula]) -> Callable[[Scalars, Any, Callable[[], Any]], Any] | None:
    """Return the way from a limit of what a rule may see to that of the gradient that comes from outside."""
    having = [transform for transform in reversed(transforms) if transform.limit is not None]
    if not having:
        return None

    def limit(h: Scalars, largest: Any, size: Callable[[], Any]) -> Any:
        for transform in having:
            assert transform.limit is not None
            largest = transform.limit(Numbers(h, transform), largest, size)
        return largest

    return limit
