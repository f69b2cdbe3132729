"""The forms that a parameter's state takes in the cache, and the way from them to a rule's slots and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from operator import is_
from typing import Any

import numpy as np

from .._arrays.library import Library
from .._arrays.namespace import copy_array, library_of
from .._arrays.parameter import Spec, dtype_text, is_slot
from .._arrays.tree import show
from .._arrays.typing import Array
from .._graph.rule import MASTER, Rule
from .._graph.slots import LIKE, narrower
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
        raise ValueError(f"cache of {show(name)} is {_outline(entry)}; {rule.owner} keeps {_wanted(rule)}")
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
            if library_of(x) is library and name != library.dtype_name(x.dtype) in left
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
                f"cache of {show(name)} holds {field!r} as {_outline(x)}, and the parameter is {spec.describe()}"
                f"{of_slot}; use another name, or forget the old one with del opt.cache[...]"
            )


def copy_entry(entry: Any) -> Any:
    """Return an entry of the same form that shares no array with `entry`."""
    if isinstance(entry, Mapping):
        return {key: copy_entry(value) for key, value in entry.items()}
    return entry if library_of(entry) is None else copy_array(entry)


def left_by(rule: Rule, entry: Any, dtype: str | None, shape: tuple[int, ...] | None) -> Rule:
    """Return the rule that left an entry: of those that `rule` stands for, the one for its parameter.

    Parameters
    ----------
    rule : Rule
        The optimizer's.
    entry : array or dict
        Of a parameter.
    dtype, shape
        Of the parameter; None where they are not known, and taken to be those of the slots.

    Returns
    -------
    Rule
        The rule, for parameters of 16 bits without a master copy.
    """
    if not rule.among:
        return rule
    for x in entry.values() if isinstance(entry, dict) else [entry]:
        if library_of(x) is not None:
            dtype, shape = dtype or dtype_text(x.dtype), tuple(x.shape) if shape is None else shape
    return rule.chosen(dtype or "float32", shape or ())


def check_entry(rule: Rule, entry: Any, name: Hashable, converted: str | None = None) -> None:
    """Raise unless an entry can be restored as the state of a parameter: its form, its arrays, and these alike.

    Parameters
    ----------
    rule : Rule
        Of which it is to be the state.
    entry : array or dict
        The entry.
    name : hashable
        The parameter's name, for messages.
    converted : str, optional
        The dtype of the parameter's arithmetic, where the next update converts what other settings made. Then the
        arrays may be of any dtype that is no wider.

    Raises
    ------
    ValueError
        It cannot.
    """
    for one in rule.among[:-1]:  # which of them, its parameter says
        try:
            check_entry(one, entry, name, converted)
        except ValueError:
            continue
        return
    if rule.low and isinstance(entry, dict) and MASTER in entry:
        rule, *_ = rule.low.values()
    _, slots = unpack(rule, entry, name)
    held = {field: x for field, x in zip(rule.fields, slots or (), strict=slots is not None) if x is not None}
    if isinstance(entry, dict):  # what is to be dropped may be saved before that
        held |= {field: x for field, x in entry.items() if field not in held and field != "t"}
    for field, slot in held.items():
        library, wanted = library_of(slot), ["float32", "float64"]
        if field in rule.fields and (dtype := rule.specs[rule.fields.index(field)].dtype) is not None:
            wanted = [dtype]
        if converted is not None:
            wanted = narrower(converted)
        if library is None or library.dtype_name(slot.dtype) not in wanted:
            raise ValueError(
                f"cache of {show(name)} holds {field!r} as {_outline(slot)}; wanted an array of {' or '.join(wanted)}"
            )
    alike = {field: x for field, x in held.items() if field in rule.fields or field == MASTER}
    _check_alike(rule, alike, name, of_one_dtype=converted is None)


def _check_alike(rule: Rule, held: Mapping[str, Any], name: Hashable, *, of_one_dtype: bool) -> None:
    """Raise a ValueError unless some slots are of one library, dtype and device, and their shapes fit together.

    A slot may state a shape, a dtype or both, which are then its own.
    """
    specs = dict(zip(rule.fields, rule.specs, strict=True))
    usual = [field for field in held if of_one_dtype and specs.get(field, LIKE).dtype is None]
    like = next((field for field in held if specs.get(field, LIKE).shape is None), None)
    shapes = None if like is None else dict(zip(rule.fields, rule.shapes(tuple(held[like].shape)), strict=True))
    first: str | None = like
    for field, slot in held.items():
        first = first or field
        shape = tuple(slot.shape)
        wanted = shape if shapes is None else shapes.get(field, tuple(held[first].shape))
        apart = _home(held[first]) != _home(slot)  # asked first, for dtypes of two libraries do not compare
        if apart or shape != wanted or (field in usual and slot.dtype != held[usual[0]].dtype):
            raise ValueError(
                f"cache of {show(name)} holds {first!r} as {_outline(held[first])} on {_home(held[first])[1]}, and "
                f"{field!r} as {_outline(slot)} on {_home(slot)[1]}; wanted slots of one library, dtype and device, "
                f"and of {'one shape' if wanted == tuple(held[first].shape) else f'shape {wanted}'}"
            )


def _home(x: Any) -> tuple[Library, str]:
    """Return library and device of an array."""
    library = library_of(x)
    assert library is not None
    return library, "several devices" if library.is_spread(x) else library.place(x)


def _outline(value: Any) -> str:
    library = library_of(value)
    if library is not None:
        kind = type(value).__name__
        kind = "" if library.name != "numpy" or kind == "ndarray" else f", a {kind}"
        return f"{library.name} {dtype_text(value.dtype)} of shape {tuple(value.shape)}{kind}"
    if isinstance(value, Mapping):
        return "a dict of " + ", ".join(f"{key}: {_outline(item)}" for key, item in value.items())
    if type(value) is int and abs(value) > LARGEST:
        return f"an int beyond {LARGEST_TEXT}"
    if isinstance(value, np.generic):
        return f"a scalar of {value.dtype}, which is no array (np.asarray makes one of it)"
    return repr(value) if isinstance(value, int | float | None) else f"a {type(value).__name__}"


def _wanted(rule: Rule) -> str:
    if rule.bare:
        return f"one array, {rule.fields[0]!r}"
    return f"a dict of 't', an int in [0, {LARGEST_TEXT}]" + "".join(f", the array {field!r}" for field in rule.kept)
