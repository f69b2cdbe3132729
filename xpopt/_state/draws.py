"""Which settings of an optimizer and of its groups schedules draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._settings.declared import range_of
from .._settings.ranges import number_of
from ..schedulers.kinds.base import Schedule
from ..transforms.base import Transform
from .drawn import Draw

if TYPE_CHECKING:
    from .group import Group


def draws_of(cls: type[Any], transforms: Sequence[Transform], values: Mapping[str, Any], number: int) -> list[Draw]:
    """Return what schedules draw among the numbers of a step.

    Parameters
    ----------
    cls : type
        The optimizer's class.
    transforms : sequence of Transform
        Those around its rule.
    values : mapping
        The numbers, by name.
    number : int
        The group that they are of.

    Returns
    -------
    list of Draw
        The draw of each number that is a schedule.
    """
    scheduled = {name: value for name, value in values.items() if isinstance(value, Schedule)}
    if not scheduled:
        return []
    places = {name: (cls, name, name) for name in scheduled}
    for one in transforms:
        of_kind = [key for key, value in one.settings().items() if isinstance(value, Schedule)]
        name_of = one.formula().number
        for name in one.numbers().keys() & scheduled.keys():
            key = next((key for key in of_kind if name_of(key) == name), of_kind[0])
            shown = key if key == one.keyword else f"{one.keyword or type(one).__name__}: {key}"
            places[name] = type(one), key, shown
    draws = []
    for name, schedule in scheduled.items():
        kind, key, shown = places[name]
        allowed = number_of(range_of(kind, key))
        assert allowed is not None
        draws.append(Draw(number, name, f"{cls.__name__}: {shown}", schedule, allowed, {}))
    return draws


def draws_of_groups(cls: type[Any], groups: tuple[Group, ...]) -> Iterator[Draw]:
    """Yield what schedules draw for groups, with the pattern in the place that messages name."""
    for group in groups:
        own = f"{cls.__name__}: {group.place}"
        for draw in group.settings.drawn.draws if group.settings.drawn is not None else ():
            yield draw._replace(place=f"{own}: {draw.place.partition(': ')[2]}")
