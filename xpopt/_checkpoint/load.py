"""The parts that a header and flat arrays describe, once everything in these has been checked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

from .._arrays.library import Library, compute_of
from .._arrays.namespace import copy_array, library_of
from .._arrays.parameter import Spec, dtype_text, examine
from .._arrays.tree import flatten
from .._arrays.typing import Array, Tree
from .._graph.rule import Rule
from .._graph.slots import LIKE, narrower
from .._settings.companion import OTHERS, takes_others
from .._settings.constructor import names
from .._settings.ranges import NON_NEGATIVE
from .._settings.text import short
from .._settings.values import check_values, names_of_step, neutral_values
from .._state.cache import State
from .._state.clock import Pass
from .._state.entry import Record, unpack
from .._state.following import Following
from .._state.names import array_key
from .._state.parts import Parts
from .._state.passes import Passes
from .._state.restored import check_entry, left_by
from .._state.scale import Scale
from .._state.schedules import Schedules
from .._state.settings import Group, Settings
from .._state.skipped import Skipped
from .._state.stored import Stored, dtype_of, moved
from .._transforms.make import as_text, slots_of_all, slots_of_transforms
from ..schedulers import SchedulerBase, make_scheduler
from ..schedulers.kinds.base import Schedule as Values
from .constants import with_arrays
from .header import LR, Grouped, Header, Parameter, Schedule, named, refusal
from .pairs import with_complex
from .reading import from_json
from .regrouping import regrouped, warn_of_others
from .renaming import Renaming

Home = tuple[Library, Spec, Array]
"""Where the state of a parameter goes: its library, its description, and the parameter."""


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
    homes = None if like is None else _homes(like)
    problems: list[str] = []
    written, constants = with_arrays(from_json(header, owned=owned), arrays, problems)
    kept = {key: x for key, x in arrays.items() if key not in constants}
    found = regrouped(written, renaming, problems) if rename and written.groups else written
    parameters = _renamed(found, renaming, problems)
    settings = _checked_settings(parts.settings, found, problems)
    kinds = {type(one).__name__: type(one) for one in (*parts.clock.others.values(), parts.clock.scheduler)}
    lr = None if settings is None else settings.values["lr"]
    rate = found.current and found.current.rate
    scheduler = _made_schedule(kinds, found.schedule, rate, parts.settings.cls, lr, problems)
    others: Schedules = {}
    states: dict[Any, Any] = {}
    if settings is not None:
        settings, others = _with_groups(settings, parts, found.groups, kinds, find, problems)
    if settings is not None and not problems:
        states = _states(settings, found, problems)
    if settings is not None and found.gathered is not None and found.gathered.passes >= settings.accumulate:
        problems.append(f"gathered has {found.gathered.passes} passes, and accumulate is {settings.accumulate}")
    if owned:
        most = _most_slots(settings or parts.settings)
        kept = with_complex([one for one in parameters.values() if len(one.slots) <= most], kept)
    faults = _faults(parts.settings, settings, parameters, kept, homes, cast)
    if owned:  # a file has the arrays that its header names, and no others
        problems += _missing_or_unknown(settings or parts.settings, parameters, kept)
    if problems or (strict and faults):
        raise refusal(dict.fromkeys([*problems, *(line for lines in faults.values() for line in lines)]))

    assert settings is not None and scheduler is not None
    loaded = {
        name: _settled(
            *(_entry(settings, parameter, name, kept), parameter, (homes or {}).get(name), owned),
            settings.of(name, _shape_of(parameter)).rule,
        )
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


def _homes(like: Tree) -> dict[Hashable, Home]:
    examined = {name: examine(leaf, leaf, name) for name, leaf in flatten(like, "like").items()}
    return {name: (library, spec, param) for name, (library, spec, param, _) in examined.items()}


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


def _checked_settings(now: Settings, header: Header, problems: list[str]) -> Settings | None:
    """Return the settings in a header, or None if they cannot be those of an optimizer of the same class."""
    cls = now.cls
    if header.rule != cls.__name__:
        problems.append(f"the checkpoint is of {header.rule!r}, and this is {cls.__name__}; see xpopt.load_optimizer")
        return None
    return _settings_of(cls, header.version, header.settings, problems, now.values)


def _settings_of(
    cls: type[Any], version: int, written: Mapping[str, Any], problems: list[str], held: Mapping[str, Any]
) -> Settings | None:
    """Return the settings of a class from those that were written, or None if they cannot be."""
    before = len(problems)
    if version != cls.version:
        problems.append(f"the checkpoint is of {cls.__name__}'s version {version}, and this is {cls.version}")
    apart = (*_APART, OTHERS) if takes_others(cls) else _APART
    known = [name for name in names(cls) if name not in apart]
    values = {name: value for name, value in neutral_values(cls).items() if name not in apart}
    lacking = [name for name in known if name not in values.keys() | written.keys()]
    problems += [f"{cls.__name__} has the hyperparameter {name!r}, and the checkpoint does not" for name in lacking]
    for name, value in written.items():
        if name not in known:
            problems.append(f"{cls.__name__} has no hyperparameter {name!r}, and the checkpoint has {short(value)}")
            continue
        if _is_text_of(held, name, value):
            values[name] = held[name]
            continue
        try:
            values.update(check_values(cls, {name: value}))
        except (TypeError, ValueError) as error:
            problems.append(str(error))
    if len(problems) > before:
        return None
    try:
        return Settings.checked(cls, values)
    except (TypeError, ValueError) as error:
        problems.append(str(error))
        return None


def _with_groups(
    settings: Settings,
    parts: Parts,
    groups: tuple[Grouped, ...],
    kinds: Mapping[str, type[SchedulerBase]],
    find: Callable[[str], type[Any] | None],
    problems: list[str],
) -> tuple[Settings, Schedules]:
    """Return settings with the groups in a header, and the schedules of these."""
    classes = {one.cls.__name__: one.cls for one in reversed(parts.settings.each)}
    held_by = {(group.pattern, group.others): group.settings.values for group in parts.settings.groups}
    first = len(named(groups))
    if len(groups) > first and not takes_others(settings.cls):
        problems.append(f"{settings.cls.__name__} has no {OTHERS}, and the checkpoint has")
    made: list[Group] = []
    schedules: Schedules = {}
    for number, written in enumerate(groups, 1):
        wrong: list[str] = []
        others = number > first
        under = next((one.settings for one in made if one.pattern is None), settings)
        own, mine = dict(written.settings or {}), under
        held = held_by.get((written.pattern, others), {})
        if written.rule is None:
            wrong += _check_own(under.cls, own, held)
        else:
            name, version = written.rule
            cls = classes.get(name) or find(name)
            if cls is None or cls.__name__ != name:
                wrong.append(f"unknown optimizer {name!r}; import the module that defines it first")
            else:
                mine = _settings_of(cls, version, own, wrong, held) or settings
        if written.schedule is not None:
            lr = own["lr"] if written.rule is None and "lr" in own else mine.values["lr"]
            scheduler = _made_schedule(kinds, written.schedule, written.rate, mine.cls, lr, wrong)
            schedules |= {} if scheduler is None else {number: scheduler}
        frozen = written.settings is None
        mine = Settings(mine.cls, mine.values, (), number, frozen)
        group = Group(written.pattern, mine, own if written.rule is None else None, others)
        try:
            made.append(group if wrong else group.under(under))
        except (TypeError, ValueError) as error:
            wrong.append(str(error))
        problems += [f"{group.place}: {line}" for line in wrong]
    return settings if problems else settings.with_groups(tuple(made)), schedules


def _is_text_of(held: Mapping[str, Any], name: str, value: Any) -> bool:
    """Whether a setting is written as the text of what there is: text does not hold a function of the user's own."""
    return isinstance(value, str) and name in held and as_text(held[name]) == value


def _check_own(cls: type[Any], own: dict[str, Any], held: Mapping[str, Any]) -> list[str]:
    """Bring the changes of a group to the form that they have in memory; return what is wrong with them."""
    wrong, known = [], set(names(cls)).difference(names_of_step(cls))
    for name, value in own.items():
        try:
            if name not in known or (name == "lr_scheduler" and value is not None):
                raise ValueError(f"{cls.__name__} has no hyperparameter {name!r} in groups, and the checkpoint has")
            if name == "lr_scheduler":
                own[name] = None
            else:
                same = _is_text_of(held, name, value)
                own[name] = held[name] if same else check_values(cls, {name: value})[name]
        except (TypeError, ValueError) as error:
            wrong.append(str(error))
    return wrong


_APART = ("lr_scheduler", "groups")
"""Hyperparameters that are written apart from the others."""


def _made_schedule(
    kinds: Mapping[str, type[SchedulerBase]],
    written: Schedule,
    rate: float | None,
    cls: type[Any],
    lr: Any,
    problems: list[str],
) -> SchedulerBase | None:
    """Return the schedule that was written; of classes with one name, one in use, of `kinds`, goes before others."""
    name, keywords, state = written
    try:
        if name == LR and isinstance(lr, Values):
            scheduler: SchedulerBase = Following(cls, lr, f"{cls.__name__}: lr")
            scheduler.restore(state)
            return scheduler
        scheduler = kinds[name](**keywords) if name in kinds else make_scheduler({"id": name, **keywords})
        if type(scheduler).__name__ != name:
            raise ValueError(f"unknown scheduler {name!r}")
        if keywords.keys() != scheduler.ranges.keys():
            raise ValueError(f"has {', '.join(keywords)} in the checkpoint; wanted {', '.join(scheduler.ranges)}")
        scheduler.restore(state)
        if rate is not None:
            NON_NEGATIVE.check("pass", "rate", rate)
        return scheduler
    except Exception as error:  # whatever a schedule of the user's own makes of a state that is not its own
        problems.append(f"lr_scheduler, the schedule {short(name)}: {error}")
        return None


def _states(settings: Settings, header: Header, problems: list[str]) -> dict[Any, Any]:
    """Return what schedules remember, as the header says."""
    states = {}
    draws = {one[:2]: one for one in settings.drawn.draws} if settings.drawn is not None else {}
    for group, number, state in header.remembered:
        draw = draws.get((group, number))
        try:
            if draw is None:
                raise ValueError("it is no schedule here, and the checkpoint has the state of one")
            states[draw.schedule] = draw.schedule.restored(state)
        except Exception as error:  # as for those of the learning rate
            problems.append(f"{short(number)} of group {group}: {error}")
    return states


def _faults(
    now: Settings,
    settings: Settings | None,
    parameters: Mapping[Hashable, Parameter],
    arrays: Mapping[str, Any],
    homes: Mapping[Hashable, Home] | None,
    cast: bool,
) -> dict[Hashable, list[str]]:
    """Return what is wrong with single parameters and arrays, by name or key."""
    faults: dict[Hashable, list[str]] = {}
    now = settings or now
    most = _most_slots(now)
    for name, parameter in parameters.items():
        if len(parameter.slots) > most:
            of = now.of(name, _shape_of(parameter)).cls.__name__
            faults[name] = [f"{name!r} has {len(parameter.slots)} slots; {of} keeps {most} at most"]
            continue
        lines = _faults_of_arrays(parameter, arrays, now.of(name, _shape_of(parameter)).rule)
        if homes is not None and name not in homes:
            lines.append(f"{name!r} has state in the checkpoint and is not in like")
        elif homes is not None:
            lines += _faults_of_home(parameter, name, arrays, homes[name][1], cast)
        if settings is not None and not lines:
            try:
                _entry(settings, parameter, name, arrays)
                if homes is not None:
                    settings.of(name, homes[name][1].shape).check_in_dtype(homes[name][1], name)
            except ValueError as error:
                lines.append(str(error))
        if lines:
            faults[name] = lines
    for name in homes or ():
        if parameters and name not in parameters:  # before the first update no parameter has any
            faults[name] = [f"{name!r} has no state in the checkpoint; leave it out of like if it was never updated"]
    known = _keys(now, parameters)
    faults.update({key: [f"array {key!r} is not in the header"] for key in arrays if key not in known})
    return faults


def _shape_of(parameter: Parameter) -> tuple[int, ...]:
    """Return the shape of a parameter as far as it is known, or else that of its largest slot."""
    shapes = (slot.shape for slot in parameter.slots.values())
    return parameter.shape if parameter.shape is not None else max(shapes, key=len, default=())


def _missing_or_unknown(
    now: Settings, parameters: Mapping[Hashable, Parameter], arrays: Mapping[str, Any]
) -> list[str]:
    """Say which arrays are in the header or among the arrays, and not in the other."""
    keys = _keys(now, parameters)
    missing = [f"array {key!r} is missing" for key in keys if key not in arrays]
    return missing + [f"array {key!r} is not in the header" for key in arrays if key not in keys]


def _keys(now: Settings, parameters: Mapping[Hashable, Parameter]) -> dict[str, None]:
    """Return the keys of the arrays in a header, but of parameters that have too many."""
    return {
        array_key(parameter.name, slot): None
        for parameter in parameters.values()
        if len(parameter.slots) <= _most_slots(now)
        for slot in parameter.slots
    }


def _most_slots(now: Settings) -> int:
    """Return how many slots a parameter may have: the keys of more could be longer than the file."""
    kept = [slots for one in now.each for slots in (one.cls.slots, *(rule.slots for rule in one.rule.among))]
    return max(len(slots._fields) for slots in kept) + len(slots_of_all())


def _faults_of_arrays(parameter: Parameter, arrays: Mapping[str, Any], rule: Rule) -> list[str]:
    rule = rule.chosen(parameter.dtype or "float32", parameter.shape or ())
    try:
        shapes = _shapes(parameter, rule)
    except (TypeError, ValueError) as error:
        return [f"slots of {parameter.name!r} are {short(list(parameter.slots))}: {error}"]
    lines = []
    computes = ["float32", "float64"] if parameter.dtype is None else [compute_of(parameter.dtype)]
    stated = dict(zip(rule.fields, rule.specs, strict=True))
    for slot, described in parameter.slots.items():
        wanted = list(dict.fromkeys(stated.get(slot, LIKE).dtype_for(compute) for compute in computes))
        likely = " or ".join(map(str, wanted))
        if parameter.dtype is not None and described.dtype is not None:  # other settings than these may have made it
            wanted = narrower(compute_of(parameter.dtype))
        key = array_key(parameter.name, slot)
        if key not in arrays:
            lines.append(f"array {key!r} is missing")
            continue
        x = arrays[key]
        library = library_of(x)
        if library is None:
            lines.append(f"array {key!r} is a {type(x).__name__}")
            continue
        dtype = library.dtype_name(x.dtype)
        came = f"{dtype_text(x.dtype)} of shape {tuple(x.shape)}"
        if tuple(x.shape) != described.shape or described.dtype not in (None, dtype):
            lines.append(f"array {key!r} is {came}; by the header {described.dtype or likely} of {described.shape}")
        elif described.shape != shapes[slot] or dtype not in wanted:
            lines.append(f"array {key!r} is {came}; by the header {likely} of {shapes[slot]}")
    return lines


def _shapes(parameter: Parameter, rule: Rule) -> dict[str, tuple[int, ...]]:
    """Return the shape that each slot of a parameter has; its own, if no slot is like the parameter, may be unknown."""
    if parameter.shape is not None:
        own = dict(zip(rule.fields, rule.shapes(parameter.shape), strict=True))
        return {slot: own.get(slot, described.shape) for slot, described in parameter.slots.items()}
    shaped = [field for field, spec in zip(rule.fields, rule.specs, strict=True) if spec.shape is not None]
    if any(slot not in shaped for slot in parameter.slots):
        raise ValueError("of a parameter of shape None; wanted a shape")
    return {slot: described.shape for slot, described in parameter.slots.items()}


def _faults_of_home(
    parameter: Parameter, name: Hashable, arrays: Mapping[str, Any], spec: Spec, cast: bool
) -> list[str]:
    lines = []
    if parameter.shape not in (None, spec.shape):
        lines.append(f"{name!r} has shape {parameter.shape} in the checkpoint, and {spec.shape} in like")
    keys = [array_key(parameter.name, slot) for slot in parameter.slots]
    found, wanted = [parameter.dtype], spec.dtype
    if parameter.dtype is None:  # then its slots must be what those of `like` would be
        found, wanted = [dtype_text(arrays[key].dtype) for key in keys if library_of(arrays.get(key))], spec.compute
    if not cast and any(dtype != dtype_text(wanted) for dtype in found):
        lines.append(
            f"{name!r} is {found[0]} in the checkpoint, and {dtype_text(wanted)} in like; cast=True converts it"
        )
    return lines


def _entry(settings: Settings, parameter: Parameter, name: Hashable, arrays: Mapping[str, Any]) -> Any:
    """Return what the cache holds of a parameter, or raise a ValueError if no rule of the optimizer left it."""
    settings = settings.of(name, _shape_of(parameter))
    cls = settings.cls
    fields = cls.slots._fields
    slots = {slot: arrays[array_key(parameter.name, slot)] for slot in parameter.slots}
    rule = left_by(settings.rule, slots, parameter.dtype, parameter.shape)
    left = () if rule.follows is None else rule.follows._fields
    around = slots_of_transforms(slots.keys() - {*fields, *rule.own, *left})
    own = tuple(slot for slot in slots if slot not in around)
    if own and own not in (rule.own, fields, tuple(left)):
        kept = ", ".join(fields) or "none"
        raise ValueError(f"{name!r} has the slots {', '.join(slots)}; {cls.__name__} keeps {kept}")
    entry: Any = {"t": parameter.updates, **slots}
    if own and len(slots) == 1:
        try:
            unpack(rule, entry, name)
        except ValueError:  # then the one slot is the entry
            (entry,) = slots.values()
    check_entry(rule, entry, name, None if parameter.dtype is None else compute_of(parameter.dtype))
    return entry


def _settled(entry: Any, parameter: Parameter, home: Home | None, owned: bool, rule: Rule) -> Record | Stored:
    """Return state in arrays of the optimizer's own, where the parameter is if that is known."""
    if home is not None:
        rule = rule.of(dtype_text(home[1].dtype), home[1].shape)

    def own(x: Any, slot: str) -> Any:
        if library_of(x) is None:
            return x
        y = x if home is None else moved(x, *home, dtype_of(rule, slot, *home[:2]))
        return copy_array(y) if y is x and not owned else y

    if isinstance(entry, dict):
        entry = {key: own(x, key) for key, x in entry.items()}
    else:
        entry = own(entry, next(iter(rule.fields), ""))
    if home is None:
        return Stored(entry, parameter.shape, parameter.dtype, parameter.updates)
    return Record(entry, home[1], parameter.updates)
