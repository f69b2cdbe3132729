"""What is wrong with the parameters and arrays of a checkpoint: with each, of what the header says."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from .._arrays.library import compute_of, is_complex
from .._arrays.namespace import library_of
from .._arrays.parameter import Spec, dtype_text
from .._graph.rule import Rule
from .._graph.slots import LIKE, narrower
from .._settings.text import short
from .._state.names import array_key
from .._state.settings import Settings
from .._transforms.make import slots_of_all
from .header import Parameter
from .placing import Home, entry_of


def faults_of(
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
    most = most_slots(now)
    for name, parameter in parameters.items():
        if len(parameter.slots) > most:
            of = now.of(name, parameter.known_shape).cls.__name__
            faults[name] = [f"{name!r} has {len(parameter.slots)} slots; {of} keeps {most} at most"]
            continue
        lines = _faults_of_arrays(parameter, arrays, now.of(name, parameter.known_shape).rule)
        if homes is not None and name not in homes:
            lines.append(f"{name!r} has state in the checkpoint and is not in like")
        elif homes is not None:
            lines += _faults_of_home(parameter, name, arrays, homes[name][1], cast)
        if settings is not None and not lines:
            try:
                entry_of(settings, parameter, name, arrays)
                if homes is not None:
                    settings.of(name, homes[name][1].shape).check_fit(homes[name][1], name)
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


def missing_or_unknown(now: Settings, parameters: Mapping[Hashable, Parameter], arrays: Mapping[str, Any]) -> list[str]:
    """Say which arrays are in the header or among the arrays, and not in the other."""
    keys = _keys(now, parameters)
    missing = [f"array {key!r} is missing" for key in keys if key not in arrays]
    return missing + [f"array {key!r} is not in the header" for key in arrays if key not in keys]


def _keys(now: Settings, parameters: Mapping[Hashable, Parameter]) -> dict[str, None]:
    """Return the keys of the arrays in a header, but of parameters that have too many."""
    return {
        array_key(parameter.name, slot): None
        for parameter in parameters.values()
        if len(parameter.slots) <= most_slots(now)
        for slot in parameter.slots
    }


def most_slots(now: Settings) -> int:
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
    differs = f"{name!r} is {found[0]} in the checkpoint, and {dtype_text(wanted)} in like" if found else ""
    if parameter.dtype is not None and is_complex(parameter.dtype) != is_complex(spec.dtype):
        lines.append(f"{differs}; no state of complex numbers is one of real numbers")
    elif not cast and any(dtype != dtype_text(wanted) for dtype in found):
        lines.append(f"{differs}; cast=True converts it")
    return lines
