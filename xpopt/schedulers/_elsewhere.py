"""What other libraries call schedules and their settings, and which of them are not here."""

from __future__ import annotations

from collections.abc import Iterable

from .._settings.suggest import rows, suggest

MEANT = {
    "base_lr": "initial_lr or lr",
    "init_value": "initial_lr or lr",
    "initial_learning_rate": "initial_lr or lr",
    "initial_lr": "lr",
    "learning_rate": "initial_lr or lr",
    "lr": "initial_lr",
    "max_lr": "initial_lr or lr",
    "value": "lr",
    "gamma": "decay",
    "factor": "decay or scale_factor",
    "decay_factor": "decay",
    "decay_rate": "decay",
    "scale": "scale_factor",
    "decay_steps": "stage_length",
    "period": "stage_length",
    "step_size": "stage_length",
    "steps": "stage_length",
    "transition_steps": "stage_length",
    "d_model": "model_dim",
    "dim_model": "model_dim",
    "hidden_size": "model_dim",
    "model_size": "model_dim",
    "num_warmup_steps": "warmup_steps",
    "warmup": "warmup_steps",
    "warmup_iters": "warmup_steps",
    "window": "patience",
}
"""The keywords that mean the same here, for `suggest`."""

MEANT_BY_VALUES = {
    **rows("init_value initial_lr initial_learning_rate base_lr lr max_lr value learning_rate begin", "start or peak"),
    **rows("end_value end eta_min min_lr final_lr lr_end", "stop or low"),
    **rows("peak_value peak_lr max_value", "peak or high"),
    **rows("gamma decay decay_rate decay_factor scale", "factor or rate"),
    **rows("transition_steps decay_steps total_iters total_steps t_max num_steps n length", "steps"),
    **rows("step_size transition_begin", "every"),
    **rows("milestones at boundaries_and_scales", "boundaries"),
    "values": "levels",
    "t_0": "period",
    **rows("t_mult t_mul", "stretch"),
    "m_mul": "shrink",
    **rows("step_size_up warmup_steps", "rise or warmup or steps"),
    "step_size_down": "fall",
    "threshold": "tol",
    "exponent": "power",
}
"""The keywords of schedules as values that mean the same here, for `suggest`."""

ABSENT = {
    "optimizer": "a schedule holds no optimizer: pass it to one, SGD(lr_scheduler=...)",
    "last_epoch": "the optimizer counts the steps: set its cur_step",
    **rows(
        "min_lr eta_min end_value", "the rate has no lower bound: derive a schedule that has one, or give one as lr"
    ),
}
"""What is not here, and the way out, for `suggest`."""

CLASSES = {
    **rows("exponential_lr exponential_decay step_lr step step_decay", "ExponentialScheduler"),
    **rows("plateau reduce_lr_on_plateau", "KingScheduler"),
    **rows("transformer inverse_sqrt rsqrt warmup", "NoamScheduler"),
}
"""The classes that are the same, or do the same, for `suggest`."""

ABSENT_CLASSES = rows(
    "cosine cosine_lr cosine_annealing cosine_annealing_lr cosine_decay cyclic cyclic_lr lambda_lr linear linear_lr "
    "multistep multi_step_lr one_cycle one_cycle_lr piecewise piecewise_constant poly polynomial polynomial_decay "
    "sgdr",
    "there is no such scheduler here: derive it from SchedulerBase, or pass one of xpopt.schedulers as lr",
)
"""The schedules that are not here, for `suggest`."""


def hint(keyword: str, known: Iterable[str]) -> str:
    """Say what an unknown keyword of a schedule was meant to be, of those that are `known`."""
    return suggest(keyword, known, MEANT, ABSENT)


def hint_of_class(name: str, known: Iterable[str]) -> str:
    """Say which schedule an unknown name was meant to be."""
    bare = name.lower().removesuffix("scheduler").removesuffix("schedule")
    return suggest(bare or name, known, CLASSES, ABSENT_CLASSES)
