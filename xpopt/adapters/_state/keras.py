"""Convert optimizers of Keras with their state, and to Keras."""

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
        "Adagrad": "its epsilon is inside the square root",
        "Adamax": "its epsilon is added to the running maximum, not to each gradient",
        "Ftrl": "its learning rate has an exponent, learning_rate_power",
        "Adafactor": "its learning rate and its decay have other schedules",
        "Muon": "it scales and iterates the matrix of a step differently",
        "Lamb": "its trust ratio has other bounds",
        "LossScaleOptimizer": "it wraps another optimizer; pass its inner_optimizer",
    },
    {
        "amsgrad": "which adds epsilon after the bias correction",
        "use_ema": "whose average is not converted; use the option average here",
        "gradient_accumulation_steps": "whose sums are not converted; use the option accumulate here",
        "loss_scale_factor": "use the option loss_scale here",
    },
    frozenset({"name", "ema_momentum", "ema_overwrite_frequency"}),
)
_OFF = {"use_ema": False, "gradient_accumulation_steps": None, "loss_scale_factor": None}


def from_keras(optimizer: Any) -> OptimizerBase:
    """Convert an optimizer of Keras 3, with its settings, counts and slots, to one of xpopt.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        SGD, Adam, AdamW, RMSprop, Nadam, Adadelta or Lion, which has been built. It is only read.

    Returns
    -------
    OptimizerBase
        An optimizer that continues the training. The names of parameters are the paths of Keras's variables, such as
        ``"dense/kernel"``. State is moved to the library and device of a parameter at its first update.

    Raises
    ------
    TypeError
        `optimizer` is not an optimizer of Keras.
    ValueError
        No optimizer of xpopt has its formula, or has it with these settings; the message gives the difference. Or its
        learning rate follows a schedule of Keras.

    See Also
    --------
    to_keras : The reverse.
    """
    kind = type(optimizer).__name__
    if not hasattr(optimizer, "get_config") or not hasattr(optimizer, "iterations"):
        raise TypeError(f"optimizer is a {type(optimizer).__module__}.{kind}; wanted one of Keras, such as Adam")
    settings = optimizer.get_config()
    if not isinstance(settings["learning_rate"], float | int):
        raise ValueError(
            f"the learning rate of {kind} follows a schedule, which is not converted; set its learning_rate to the "
            f"rate of the next step, and set a schedule in the optimizer that is returned"
        )
    if getattr(optimizer, "_exclude_from_weight_decay_pattern", None) or getattr(
        optimizer, "_exclude_from_weight_decay", None
    ):
        raise ValueError(
            f"{kind} excludes variables from weight decay; convert it without weight_decay, and set groups instead"
        )
    row, ours = HOST.read(kind, {name: x for name, x in settings.items() if name not in _OFF or x != _OFF[name]})
    state = {}
    updates = int(optimizer.iterations.value)
    for variable in optimizer._trainable_variables if updates else ():
        slots = rows.here(row, ours["lr"], {name: x.value for name, x in _slots_of(optimizer, row, variable).items()})
        state[variable.path] = Remembered(tuple(variable.shape), str(variable.dtype), updates, slots)
    return rows.made(row, ours, state)


def to_keras(optimizer: OptimizerBase, variables: Iterable[Any]) -> Any:
    """Convert an optimizer, with its settings, counts and slots, to one of Keras 3.

    Parameters
    ----------
    optimizer : OptimizerBase
        An optimizer that Keras has, without groups. The names of its parameters must be the paths of the variables.
        It is only read.
    variables : iterable of keras.Variable
        The variables of the model, ``model.trainable_variables``.

    Returns
    -------
    keras.optimizers.Optimizer
        An optimizer that continues the training. It has been built.

    Raises
    ------
    ValueError
        Keras is not known to have the formula or a setting; the learning rate follows a schedule; parameters have had
        different numbers of updates; or the state is that of another model.

    See Also
    --------
    from_keras : The reverse.

    Notes
    -----
    Keras stores the learning rate in float32, and rounds some other settings to float32.
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
    """Return the optimizer's variables for a variable of the model, and those for all of them, by name."""
    prefix = f"{optimizer.name}/{variable.path.replace('/', '_')}_"
    found = {x.path.removeprefix(prefix): x for x in optimizer.variables if x.path.startswith(prefix)}
    if "u_product" in row.slots.values():
        found["u_product"] = optimizer._u_product
    return found
