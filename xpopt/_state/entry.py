"""The forms that a parameter's state takes in the cache, and the way from them to a rule's slots and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from operator import is_
from typing import Any

import numpy as np

from .._arrays.library import PAIRS, Library, is_complex
from .._arrays.namespace import copy_array, library_of
from .._arrays.parameter import Spec, dtype_text, is_slot
from .._arrays.tree import show
from .._arrays.typing import Array
from .._graph.rule import Rule
from .._graph.slots import narrower
from .._settings.ranges import LARGEST, LARGEST_TEXT, whole
from .._transforms.make import slots_of_transforms
from .ownership import SEEN

Slots = Any
"""An instance of a rule's own NamedTuple, one array per field."""


class Record:
    """What is remembered of a parameter beside its cache entry; only the count outlives the entry.

    Parameters
    ----------
    entry : array or dict, or None
        What was stored; None where the cache holds another entry.
    spec : Spec
        The parameter.
    t : int
        Its count, which the entry of a bare rule does not say.
    """

    __slots__ = ("count", "entry", "mark", "single", "slots", "spec")

    def __init__(self, entry: Any, spec: Spec, t: int) -> None:
        self.entry = entry
        self.spec = spec
        self.count = [t]  # parameters of a model that is kept share it, so that all of them are counted at once
        self.slots: Slots | None = None  # the state in `entry`, reused if the entry is unchanged
        self.mark = SEEN  # of `slots`, for `Ownership`
        self.single: Any = None  # the group of it alone, for `update`

    @property
    def t(self) -> int:
        """Its count."""
        return self.count[0]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the slots, whose class may be a local one."""
        return Record, (self.entry, self.spec, self.t)

    def of(self, entry: Any) -> Record:
        """Return what is known where the cache holds `entry`."""
        return self if self.entry is entry else Record(None, self.spec, self.t)

    def made_by(self, rule: Rule) -> bool:
        """Whether the slots in `entry` are of the class of a rule's: if not, other settings made them, or a file."""
        return type(self.slots) is rule.of(dtype_text(self.spec.dtype), self.spec.shape).slots

    def untouched(self, rule: Rule) -> bool:
        """Whether the entry still holds the very arrays that `rule` left there, of the shape and dtype they had."""
        entry, slots = self.entry, self.slots
        if slots is None or type(slots) is not rule.slots:
            return False
        _, _, shape, _, dtype = self.spec
        if rule.plain:
            for x in slots:
                if x.shape != shape or x.dtype != dtype:
                    return False
        else:
            forms = zip(slots, rule.shapes(shape), rule.dtypes(dtype_text(dtype)), strict=True)
            if any(x.shape != of or dtype_text(x.dtype) != name for x, of, name in forms):
                return False
        if type(entry) is not dict:
            return slots[0] is entry
        return tuple(entry) == rule.keys and all(map(is_, entry.values(), (self.t, *rule.state(slots))))


def pack(rule: Rule, t: int, slots: tuple[Array, ...]) -> Any:
    """Return what the cache holds: the slot itself if it is the whole state, else a dict of ``t`` and the slots."""
    if rule.bare:
        return slots[0]
    return dict(zip(rule.keys, (t, *rule.state(slots))))  # noqa: B905 - of one length, and `strict` is what costs most here


def unpack(rule: Rule, entry: Any, name: Hashable) -> tuple[int | None, Slots | None]:
    """Return the count and the slots in a cache entry.

    Parameters
    ----------
    rule : Rule
        Whose state the entry should be.
    entry : array or dict
        From the cache, or from a caller.
    name : hashable
        The parameter's name, for the message.

    Returns
    -------
    t : int or None
        Updates so far; None where the form does not say.
    slots : NamedTuple of array, or None
        None to start anew: a rule without slots left the entry, or reads it. A slot is None where the rule that left
        the entry has none of its name, or it is no state.

    Raises
    ------
    ValueError
        The entry has another form than the rule's.
    """
    t, slots = _taken_apart(rule, entry)
    if slots is None or any(x is None for x in slots.values()):
        raise ValueError(f"cache of {show(name)} is {outline(entry)}; {rule.owner} keeps {_wanted(rule)}")
    if rule.fields and not slots:
        return t, None
    found: list[Any] = [slots.get(field) for field in rule.fields]
    return t, rule.make_slots(found)


def _taken_apart(rule: Rule, entry: Any) -> tuple[int | None, dict[str, Array] | None]:
    """Take an entry apart, with or without slots of transforms.

    Returns
    -------
    t : int or None
        Updates so far; None where the form does not say.
    slots : dict of str to array, or None
        Those of its slots that the rule goes on from; None where it is another rule's entry.
    """
    own, left = rule.own, () if rule.follows is None else rule.follows._fields
    if not isinstance(entry, dict):
        if library_of(entry) is None:
            return None, None
        if rule.single:
            return None, {own[0]: entry}
        return None, {} if rule.entry == "array" and len(left) == 1 and not own else None
    slots = {field: x for field, x in entry.items() if field != "t"}
    added = {*rule.kept[len(own) :], *slots_of_transforms(slots.keys() - {*own, *left})}
    of_transforms = {field: slots.pop(field) for field in list(slots) if field in added}
    kept = {field: x for field, x in of_transforms.items() if field in rule.fields}
    t = whole(entry.get("t"))
    if t is None or not 0 <= t <= LARGEST:
        return None, None
    if slots.keys() == set(own) and not (rule.bare and not of_transforms):
        return t, slots | kept
    is_array = rule.entry == "array" and len(slots) == 1 and not of_transforms  # where the entry is this array alone
    if rule.follows is None or slots.keys() != set(left) or is_array:
        return t, None
    return t, {field: x for field, x in slots.items() if field in own} | kept


def in_dtypes(rule: Rule, library: Library, spec: Spec, slots: Slots) -> Slots:
    """Return slots that other settings made, in the dtypes that these keep them in; others are left to be refused."""
    compute = dtype_text(spec.compute)
    left = narrower(compute)
    return rule.make_slots(
        [
            library.astype(x, library.dtype(name))
            if library_of(x) is library
            and name != library.dtype_name(x.dtype) in left
            and (name in PAIRS) == is_complex(x.dtype)
            else x
            for x, name in zip(slots, rule.dtypes(compute), strict=True)
        ]
    )


def check_slots(rule: Rule, library: Library, spec: Spec, slots: Slots, name: Hashable) -> None:
    """Raise a ValueError unless slots, of which some may be None, can be those of the parameter that is described."""
    compute = dtype_text(spec.compute)
    forms = zip(rule.fields, slots, rule.shapes(spec.shape), rule.dtypes(compute), strict=True)
    for field, x, shape, dtype in forms:
        if x is not None and not is_slot(library, spec, x, shape, dtype):
            wanted = [f"dtype {dtype}"] * (dtype != compute) + [f"shape {shape}"] * (shape != spec.shape)
            of_slot = f", for which the slot has {' and '.join(wanted)}" if wanted else ""
            raise ValueError(
                f"cache of {show(name)} holds {field!r} as {outline(x)}, and the parameter is {spec.describe()}"
                f"{of_slot}; use another name, or delete the old state with del opt.cache[...]"
            )


def copy_entry(entry: Any) -> Any:
    """Return an entry of the same form that shares no array with `entry`."""
    if isinstance(entry, Mapping):
        return {key: copy_entry(value) for key, value in entry.items()}
    return entry if library_of(entry) is None else copy_array(entry)


def outline(value: Any) -> str:
    """Write what stands in an entry, for a message."""
    library = library_of(value)
    if library is not None:
        kind = type(value).__name__
        kind = "" if library.name != "numpy" or kind == "ndarray" else f", a {kind}"
        return f"{library.name} {dtype_text(value.dtype)} of shape {tuple(value.shape)}{kind}"
    if isinstance(value, Mapping):
        return "a dict of " + ", ".join(f"{key}: {outline(item)}" for key, item in value.items())
    if type(value) is int and abs(value) > LARGEST:
        return f"an int beyond {LARGEST_TEXT}"
    if isinstance(value, np.generic):
        return f"a scalar of {value.dtype}, which is not an array (np.asarray converts it)"
    return repr(value) if isinstance(value, int | float | None) else f"a {type(value).__name__}"


def _wanted(rule: Rule) -> str:
    if rule.bare:
        return f"one array, {rule.fields[0]!r}"
    return f"a dict of 't', an int in [0, {LARGEST_TEXT}]" + "".join(f", the array {field!r}" for field in rule.kept)
