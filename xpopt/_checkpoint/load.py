"""The parts that a header and flat arrays describe, once everything in these has been checked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

from .._arrays.typing import Tree
from .._state.cache import State
from .._state.clock import Pass
from .._state.parts import Parts
from .._state.passes import Passes
from .._state.scale import Scale
from .._state.schedules import Schedules
from .._state.skipped import Skipped
from .checking import faults_of, missing_or_unknown, most_slots
from .constants import with_arrays
from .header import Header, Parameter, refusal
from .pairs import with_complex
from .placing import homes_of, placed
from .reading import from_json
from .regrouping import regrouped, warn_of_others
from .renaming import Renaming
from .settings import checked_settings, made_schedule, remembered_states, with_groups


class LoadReport(NamedTuple):
    """What became of a checkpoint."""

    loaded: tuple[Hashable, ...]  # names of parameters
    not_loaded: dict[Hashable, str]  # name of a parameter, or key of an array: why


def load(
    parts: Parts,
    header: Any,
    arrays: Mapping[str, Any],
    *,
    strict: bool,
    rename: Mapping[Hashable, Hashable] | None,
    like: Tree | None,
    cast: bool,
    owned: bool,
    find: Callable[[str], type[Any] | None],
) -> tuple[Parts, LoadReport]:
    """Make the parts that a checkpoint describes.

    Parameters
    ----------
    parts : Parts
        Those of the optimizer that is to become it; only looked at.
    header : object
        As JSON has it; not trusted.
    arrays : mapping of str to array
        By key; not trusted either.
    strict, rename, like, cast
        As for `OptimizerBase.load_state_dict`.
    owned : bool
        Whether no caller holds the arrays.
    find : callable
        Returns the optimizer's class of a name, or None.

    Returns
    -------
    parts : Parts
        The new ones.
    report : LoadReport
        What became of each parameter.

    Raises
    ------
    CheckpointError
        Any of it is damaged or does not fit.
    TypeError, ValueError
        Another argument is of the wrong kind.
    """
    if cast and like is None:
        raise TypeError("cast=True needs like=, the parameters whose dtypes are wanted")
    renaming = Renaming(rename)
    homes = None if like is None else homes_of(like)
    problems: list[str] = []
    written, constants = with_arrays(from_json(header, owned=owned), arrays, problems)
    kept = {key: x for key, x in arrays.items() if key not in constants}
    found = regrouped(written, renaming, problems) if rename and written.groups else written
    parameters = _renamed(found, renaming, problems)
    settings = checked_settings(parts.settings, found, problems)
    kinds = {type(one).__name__: type(one) for one in (*parts.clock.others.values(), parts.clock.scheduler)}
    lr = None if settings is None else settings.values["lr"]
    rate = found.current and found.current.rate
    scheduler = made_schedule(kinds, found.schedule, rate, parts.settings.cls, lr, problems)
    others: Schedules = {}
    states: dict[Any, Any] = {}
    if settings is not None:
        settings, others = with_groups(settings, parts, found.groups, kinds, find, problems)
    if settings is not None and not problems:
        states = remembered_states(settings, found, problems)
    if settings is not None and found.gathered is not None and found.gathered.passes >= settings.accumulate:
        problems.append(f"gathered has {found.gathered.passes} passes, and accumulate is {settings.accumulate}")
    if owned:
        most = most_slots(settings or parts.settings)
        kept = with_complex([one for one in parameters.values() if len(one.slots) <= most], kept)
    faults = faults_of(parts.settings, settings, parameters, kept, homes, cast)
    if owned:  # a file has the arrays that its header names, and no others
        problems += missing_or_unknown(settings or parts.settings, parameters, kept)
    if problems or (strict and faults):
        raise refusal(dict.fromkeys([*problems, *(line for lines in faults.values() for line in lines)]))

    assert settings is not None and scheduler is not None
    loaded = {
        name: placed(settings, parameter, name, kept, (homes or {}).get(name), owned)
        for name, parameter in parameters.items()
        if name not in faults
    }
    rates = {number: one.rate for number, one in enumerate(found.groups, 1) if one.rate is not None}
    current = found.current and Pass(found.current.rate, rates, tuple(map(renaming, found.current.names)))
    passes = Passes() if found.gathered is None else Passes(found.gathered.passes, map(renaming, found.gathered.names))
    clock = parts.clock.at(scheduler, others, found.cur_step, current, passes, settings.drawn, states)
    state = State.of(loaded)
    if found is not written:
        warn_of_others(written, found, {name: one for name, one in parameters.items() if name in loaded})
    report = LoadReport(tuple(loaded), {name: "; ".join(lines) for name, lines in faults.items()})
    scale = None if found.loss_scale is None else Scale(*found.loss_scale)
    return Parts(settings, clock, state, Skipped(found.skipped), scale), report


def _renamed(header: Header, renaming: Renaming, problems: list[str]) -> dict[Hashable, Parameter]:
    parameters: dict[Hashable, Parameter] = {}
    for parameter in header.parameters:
        name = renaming(parameter.name)
        if name in parameters:
            first = parameters[name].name
            problems.append(f"{first!r} and {parameter.name!r} would both be the parameter {name!r}")
        parameters[name] = parameter
    problems += renaming.problems()
    return parameters
