"""Optimizers of optax with their state, from there and to there."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from ..._arrays.library import is_complex
from ..._arrays.tree import flatten, rebuild, show_all
from ...config import make_optimizer
from ...optimizers.base import OptimizerBase
from . import rows
from .rows import Host, Remembered, Row

_RATE = {"learning_rate": "lr"}
_DECAY = {"weight_decay": "weight_decay"}
_MEANS = {**_RATE, "b1": "decay1", "b2": "decay2", "eps": "eps"}
_NO_MASK = {"mask": None}
_FEW = {"mu_dtype": None, "nesterov": False}


def _moments(state: str, of: Mapping[str, str] = {"mean": "mu", "var": "nu"}) -> dict[str, str]:
    return {ours: f"{state}.{theirs}" for ours, theirs in of.items()}


def _rms(*, centered: bool, momentum: bool, inside: bool) -> Row:
    state = "ScaleByRStdDevState" if centered else "ScaleByRmsState"
    slots = {"var": f"{state}.nu", **({"mean": f"{state}.mu"} if centered else {})}
    return Row(
        "rmsprop",
        ("RMSProp",),
        {**_RATE, "decay": "decay", "eps": "eps", **({"momentum": "momentum"} if momentum else {})},
        {**slots, **({"velocity": "TraceState.trace"} if momentum else {})},
        {
            "centered": centered,
            "eps_place": "inside" if inside else "outside",
            **({} if momentum else {"momentum": 0.0}),
        },
        {
            "centered": centered,
            "eps_in_sqrt": inside,
            "initial_scale": 0.0,
            "nesterov": False,
            "bias_correction": False,
            **({} if momentum else {"momentum": None}),
        },
        {"velocity": -1.0} if momentum else {},
    )


HOST = Host(
    "optax",
    (
        Row("sgd", ("SGD",), _RATE, there={"momentum": None, "nesterov": False, "accumulator_dtype": None}),
        Row(
            "sgd",
            ("SGD",),
            {**_RATE, "momentum": "momentum", "nesterov": "nesterov"},
            {"trace": "TraceState.trace"},
            {"lr_inside": False},
            {"accumulator_dtype": None},
        ),
        Row(
            "sgd",
            ("SGD",),
            {**_RATE, "momentum": "momentum", "nesterov": "nesterov"},
            {"velocity": "TraceState.trace"},
            there={"accumulator_dtype": None},
            factors={"velocity": "lr"},
        ),
        Row("adam", ("Adam",), _MEANS, _moments("ScaleByAdamState"), there={"eps_root": 0.0, **_FEW}),
        Row(
            "adamw",
            ("AdamW", "Adam"),
            {**_MEANS, **_DECAY},
            _moments("ScaleByAdamState"),
            there={"eps_root": 0.0, **_NO_MASK, **_FEW},
        ),
        *(
            _rms(centered=centered, momentum=momentum, inside=inside)
            for centered in (False, True)
            for momentum in (False, True)
            for inside in (False, True)
        ),
        Row(
            "adadelta",
            ("Adadelta",),
            {**_RATE, "rho": "decay", "eps": "eps", "weight_decay": "l2"},
            _moments("ScaleByAdaDeltaState", {"var": "e_g", "delta": "e_x"}),
            there={"weight_decay_mask": None},
        ),
        Row("adamax", ("Adamax",), _MEANS, _moments("ScaleByAdamState", {"mean": "mu", "top": "nu"})),
        Row(
            "adamaxw",
            ("Adamax",),
            {**_MEANS, **_DECAY},
            _moments("ScaleByAdamState", {"mean": "mu", "top": "nu"}),
            there=_NO_MASK,
        ),
        Row(
            "lion",
            ("Lion",),
            {**_RATE, **_DECAY, "b1": "decay1", "b2": "decay2"},
            _moments("ScaleByLionState", {"mean": "mu"}),
            there={"mu_dtype": None, **_NO_MASK},
        ),
        Row(
            "radam",
            ("RAdam",),
            {**_MEANS, "threshold": "threshold"},
            _moments("ScaleByAdamState"),
            there={"eps_root": 0.0, "nesterov": False},
        ),
        Row("yogi", ("Yogi",), _MEANS, _moments("ScaleByAdamState")),
        Row(
            "lamb",
            ("LAMB",),
            {**_MEANS, **_DECAY},
            _moments("ScaleByAdamState"),
            there={"eps_root": 0.0, **_NO_MASK},
        ),
    ),
    {
        "adagrad": "its eps is inside the square root",
        "amsgrad": "it takes the maximum of bias-corrected means",
        "adan": "its differences have the factor 1 - b2, where the paper has b2",
        "rprop": "it makes each step one update later",
        "nadam": "its momentum is constant, without a product of momenta",
        "nadamw": "its momentum is constant, without a product of momenta",
        "adabelief": "its two eps are two settings",
        "lars": "it takes norms of other arrays",
    },
    {
        "eps_root": "which is added inside the square root; here eps is outside",
        "nesterov": "which has another momentum",
        "mask": "which selects parameters; convert without it, and set groups instead",
        "weight_decay_mask": "which selects parameters; convert without it, and set groups instead",
        "mu_dtype": "which gives one mean another dtype; use the option slots_dtype here",
        "bias_correction": "which no formula here has",
    },
    frozenset(),
)

_BY_MODULUS = frozenset({"adam", "adamw", "rmsprop", "radam", "yogi", "adamax", "adamaxw"})
"""Optimizers with one second moment for both parts of a complex number, as with `modulus` here."""


def from_optax(name: str, state: Any, params: Any, **settings: Any) -> OptimizerBase:
    """Convert an optimizer of optax, with its counts and slots, to one of xpopt.

    Parameters
    ----------
    name : str
        The function of optax that made the optimizer: sgd, adam, adamw, rmsprop, adadelta, adamax, adamaxw, lion,
        radam, yogi or lamb.
    state : tuple
        The state of the optimizer, or one that contains it, such as that of a chain. It is only read.
    params : mapping, list or tuple of array, nested at will
        The parameters to which `state` belongs.
    **settings : object
        The arguments of that function, by keyword, since optax's states do not have them. The learning rate is a
        number or a schedule of xpopt. Arguments that are not given have optax's defaults.

    Returns
    -------
    OptimizerBase
        An optimizer that continues the training, with the names that `update_all` gives to `params`.

    Raises
    ------
    TypeError
        A setting is not an argument of optax's function, or a required one is missing.
    ValueError
        No optimizer of xpopt has its formula, or has it with these settings; the message gives the difference. Or
        `state` is that of another optimizer, or of another model.

    Warns
    -----
    UserWarning
        The formulas are the same only while the learning rate is constant.

    See Also
    --------
    to_optax : The reverse.

    Notes
    -----
    Some states, such as that of sgd, have no count. The count starts at 1, which only affects schedules. For complex
    parameters, optax has one second moment for both parts, which is ``modulus=True`` here. adadelta, lion, lamb and
    centered rmsprop have other formulas for complex parameters, and are refused.
    """
    import optax

    if not any(row.theirs == name for row in HOST.rows):
        HOST.read(name, {})
    bound = inspect.signature(getattr(optax, name)).bind(**settings)
    bound.apply_defaults()
    row, ours = HOST.read(name, bound.arguments)
    leaves = flatten(params, "params")
    if _has_complex(leaves) and _check_complex(row):
        ours["modulus"] = True
    found: dict[str, Any] = {}
    counts = []
    for slot, place in row.slots.items():
        kind, field = place.split(".")
        nodes = [node for node in _nodes(state) if type(node).__name__ == kind]
        if len(nodes) != 1:
            raise ValueError(
                f"state has {len(nodes)} {kind}, the state of {name} has one; wanted the state of {name}, or one that "
                f"contains it"
            )
        found[slot] = flatten(getattr(nodes[0], field), f"{field} of the state")
        counts += [int(nodes[0].count)] if "count" in nodes[0]._fields else []
    shapes = {name: tuple(x.shape) for name, x in leaves.items()}
    for each in found.values():
        rows.check_names({name: tuple(x.shape) for name, x in each.items()}, shapes)
        if missing := leaves.keys() - each.keys():
            raise ValueError(
                f"the state is that of another model: it has nothing for {show_all(missing)}; for a masked "
                f"transformation, pass the parameters that are not masked"
            )
    updates = max(counts, default=1)
    moments = type(make_optimizer(row.ours[0])).moments
    told = {}
    for name_of, param in leaves.items():
        theirs = {row.slots[slot]: each[name_of] for slot, each in found.items()}
        slots = rows.here(row, ours["lr"], theirs)
        if "modulus" in ours:
            slots |= {slot: x.real.copy() for slot, x in slots.items() if slot in moments}
        told[name_of] = Remembered(tuple(param.shape), str(param.dtype), updates, slots)
    rows.warn_of_rate(row, told.values())
    return rows.made(row, ours, told if updates and row.slots else {})


def to_optax(optimizer: OptimizerBase, params: Any) -> tuple[Any, Any]:
    """Convert an optimizer, with its settings, counts and slots, to one of optax.

    Parameters
    ----------
    optimizer : OptimizerBase
        An optimizer that optax has, without groups. It is only read.
    params : mapping, list or tuple of array, nested at will
        The parameters, in containers that give the names which they have in `cache`.

    Returns
    -------
    solver : optax.GradientTransformation
        The optimizer, with the same settings.
    state : tuple
        Its state, which continues the training.

    Raises
    ------
    ValueError
        optax is not known to have the formula or a setting; the learning rate follows a schedule; parameters have had
        different numbers of updates; or the state is that of another model.

    Warns
    -----
    UserWarning
        The formulas are the same only while the learning rate is constant.

    See Also
    --------
    from_optax : The reverse.
    """
    import jax.numpy as jnp
    import optax

    rows.check_rate(optimizer)
    rows.check_no_groups(optimizer)
    leaves = flatten(params, "params")
    known = rows.state_of(optimizer, {name: tuple(x.shape) for name, x in leaves.items()})
    row, settings = HOST.write(type(optimizer).__name__, {**optimizer.hyperparameters, "modulus": False})
    if _has_complex(leaves) and _check_complex(row) and not optimizer.hyperparameters["modulus"]:
        raise ValueError(
            f"{row.theirs} of optax has one second moment for both parts of a complex number, as with modulus=True here"
        )
    solver = getattr(optax, row.theirs)(**settings)
    state, updates = solver.init(params), rows.check_one_count(known.values())
    rows.warn_of_rate(row, known.values())
    slots = {name: rows.there(row, settings["learning_rate"], one.slots) for name, one in known.items()}
    for place in row.slots.values():
        kind, field = place.split(".")
        values = {
            name: jnp.asarray(slots[name][place], x.dtype) if place in slots.get(name, ()) else jnp.zeros_like(x)
            for name, x in leaves.items()
        }
        state = _with(state, kind, {field: rebuild(params, values.__getitem__), "count": jnp.int32(updates)})
    return solver, state


def _has_complex(leaves: Mapping[Any, Any]) -> bool:
    return any(is_complex(x.dtype) for x in leaves.values())


def _check_complex(row: Row) -> bool:
    """Return whether a formula for complex parameters is that of `modulus`; raise a ValueError if it is another."""
    if row.theirs == "sgd":
        return False
    if row.theirs not in _BY_MODULUS or row.here.get("centered"):
        raise ValueError(
            f"{row.theirs} of optax has another formula for complex parameters than {row.ours[0]}; in both, pass real "
            f"and imaginary parts as parameters"
        )
    return True


def _nodes(state: Any) -> Iterator[Any]:
    """Yield all tuples in a state, nested ones included."""
    if isinstance(state, tuple):
        yield state
        for part in state:
            yield from _nodes(part)
    elif isinstance(state, dict):
        for part in state.values():
            yield from _nodes(part)


def _with(state: Any, kind: str, changes: Mapping[str, Any]) -> Any:
    """Return a state in which the tuple of a kind has other fields."""
    if type(state).__name__ == kind:
        return state._replace(**{name: x for name, x in changes.items() if name in state._fields})
    if type(state) is tuple:
        return tuple(_with(part, kind, changes) for part in state)
    return state
