"""Optimizers of Keras with their state, from there and to there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...optimizers.base import OptimizerBase
from . import rows
from .rows import Host, Remembered, Row

_COMMON = {
    "learning_rate": "lr",
    "weight_decay": "weight_decay",
    "clipnorm": "clip_norm",
    "global_clipnorm": "clip_global",
    "clipvalue": "clip_value",
}
_MEANS = {**_COMMON, "beta_1": "decay1", "beta_2": "decay2", "epsilon": "eps"}
_ADAM = {"mean": "momentum", "var": "velocity"}
_RMS = {**_COMMON, "rho": "decay", "epsilon": "eps", "momentum": "momentum", "centered": "centered"}
_INSIDE = {"eps_place": "inside"}

HOST = Host(
    "Keras",
    (
        Row(
            "SGD",
            ("SGD",),
            {**_COMMON, "momentum": "momentum", "nesterov": "nesterov"},
            {"velocity": "momentum"},
            factors={"velocity": -1.0},
        ),
        Row("Adam", ("Adam",), _MEANS, _ADAM, {"eps_place": "uncorrected"}, {"amsgrad": False}),
        Row("AdamW", ("AdamW",), _MEANS, _ADAM, {"eps_place": "uncorrected"}, {"amsgrad": False}),
        Row(
            "RMSprop",
            ("RMSProp",),
            _RMS,
            {"var": "velocity", "mean": "average_gradient", "velocity": "momentum"},
            _INSIDE,
        ),
        Row("Nadam", ("NAdam",), _MEANS, {**_ADAM, "product": "u_product"}, {"momentum_decay": 1.0}),
        Row(
            "Adadelta",
            ("Adadelta",),
            {**_COMMON, "rho": "decay", "epsilon": "eps"},
            {"var": "accumulated_grad", "delta": "accumulated_delta_var"},
        ),
        Row("Lion", ("Lion",), {**_COMMON, "beta_1": "decay1", "beta_2": "decay2"}, {"mean": "momentum"}),
    ),
    {
        "Adagrad": "epsilon is inside the root there",
        "Adamax": "epsilon is added to the largest gradient there, and not to each",
        "Ftrl": "its rate has a power of its own there",
        "Adafactor": "its rate and its means have other schedules there",
        "Muon": "the matrix of a step is scaled and iterated otherwise there",
        "Lamb": "its trust has other bounds there",
        "LossScaleOptimizer": "it is around another one; give its inner_optimizer",
    },
    {
        "amsgrad": "whose largest mean is divided before epsilon is added",
        "use_ema": "whose average stays there: see average",
        "gradient_accumulation_steps": "whose sums stay there: see accumulate",
        "loss_scale_factor": "see loss_scale",
    },
    frozenset({"name", "ema_momentum", "ema_overwrite_frequency"}),
)
_OFF = {"use_ema": False, "gradient_accumulation_steps": None, "loss_scale_factor": None}


def from_keras(optimizer: Any) -> OptimizerBase:
    """Return the optimizer that goes on from one of Keras 3, with its settings, counts and slots.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        SGD, Adam, AdamW, RMSprop, Nadam, Adadelta or Lion, which has been built; only read.

    Returns
    -------
    OptimizerBase
        A parameter has the path that its variable has there, such as ``"dense/kernel"``. State goes to the library and
        device of a parameter at its first update.

    Raises
    ------
    TypeError
        It is no optimizer of Keras.
    ValueError
        It computes something else than any optimizer here, or with such a setting; the message says what. Or its rate
        follows a schedule of Keras.

    See Also
    --------
    to_keras : The way back.
    """
    kind = type(optimizer).__name__
    if not hasattr(optimizer, "get_config") or not hasattr(optimizer, "iterations"):
        raise TypeError(f"optimizer is a {type(optimizer).__module__}.{kind}; wanted one of Keras, such as Adam")
    settings = optimizer.get_config()
    if not isinstance(settings["learning_rate"], float | int):
        raise ValueError(
            f"the rate of {kind} follows a schedule, which stays there; set its learning_rate to that of the next "
            f"step, and give lr=... to the optimizer that is made"
        )
    if getattr(optimizer, "_exclude_from_weight_decay_pattern", None) or getattr(
        optimizer, "_exclude_from_weight_decay", None
    ):
        raise ValueError(f"{kind} leaves variables out of the decay; convert it without weight_decay, and give groups")
    row, ours = HOST.read(kind, {name: x for name, x in settings.items() if name not in _OFF or x != _OFF[name]})
    state = {}
    updates = int(optimizer.iterations.value)
    for variable in optimizer._trainable_variables if updates else ():
        slots = rows.here(row, ours["lr"], {name: x.value for name, x in _slots_of(optimizer, row, variable).items()})
        state[variable.path] = Remembered(tuple(variable.shape), str(variable.dtype), updates, slots)
    return rows.made(row, ours, state)


def to_keras(optimizer: OptimizerBase, variables: Iterable[Any]) -> Any:
    """Return the optimizer of Keras 3 that goes on from one of xpopt, with its settings, counts and slots.

    Parameters
    ----------
    optimizer : OptimizerBase
        One that Keras has, without groups, of which parameters have the paths of variables as names; only read.
    variables : iterable of keras.Variable
        The variables, ``model.trainable_variables``.

    Returns
    -------
    keras.optimizers.Optimizer
        It has been built.

    Raises
    ------
    ValueError
        Keras is not known to have the formula, or a setting; the rate follows a schedule; parameters have had different
        numbers of updates; or the state is of another model. Every reason is listed.

    See Also
    --------
    from_keras : The way back.

    Notes
    -----
    Keras keeps the learning rate in float32, and rounds some other settings to it.
    """
    import keras

    rows.check_rate(optimizer)
    rows.check_no_groups(optimizer)
    named = {variable.path: variable for variable in variables}
    known = rows.state_of(optimizer, {name: tuple(x.shape) for name, x in named.items()})
    row, settings = HOST.write(type(optimizer).__name__, optimizer.hyperparameters)
    made = getattr(keras.optimizers, row.theirs)(**{**settings, "weight_decay": settings["weight_decay"] or None})
    made.build([*named.values()])
    made.iterations.assign(rows.check_one_count(known.values()))
    for name, one in known.items():
        theirs = _slots_of(made, row, named[name])
        for slot, x in rows.there(row, settings["learning_rate"], one.slots).items():
            theirs[slot].assign(x)
    return made


def _slots_of(optimizer: Any, row: Row, variable: Any) -> Mapping[str, Any]:
    """Return the variables of an optimizer that belong to one of the model, and those that are of all, by name."""
    prefix = f"{optimizer.name}/{variable.path.replace('/', '_')}_"
    found = {x.path.removeprefix(prefix): x for x in optimizer.variables if x.path.startswith(prefix)}
    if "u_product" in row.slots.values():
        found["u_product"] = optimizer._u_product
    return found
