"""The public names: the module that defines each and its heading in the API reference. A name loads when touched."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

NAMES = {
    "Optimizers": {
        "OptimizerBase": "optimizers.base",
        "SGD": "optimizers.sgd",
        "AdaGrad": "optimizers.adagrad",
        "Adadelta": "optimizers.adadelta",
        "RMSProp": "optimizers.rmsprop",
        "Rprop": "optimizers.rprop",
        "FTRL": "optimizers.ftrl",
        "Adam": "optimizers.adam",
        "AdamW": "optimizers.adamw",
        "AMSGrad": "optimizers.amsgrad",
        "NAdam": "optimizers.nadam",
        "RAdam": "optimizers.radam",
        "Adamax": "optimizers.adamax",
        "AdaBelief": "optimizers.adabelief",
        "Yogi": "optimizers.yogi",
        "Adan": "optimizers.adan",
        "ADOPT": "optimizers.adopt",
        "AdEMAMix": "optimizers.ademamix",
        "Lion": "optimizers.lion",
        "Signum": "optimizers.signum",
        "LAMB": "optimizers.lamb",
        "LARS": "optimizers.lars",
        "NovoGrad": "optimizers.novograd",
        "DoG": "optimizers.dog",
        "Prodigy": "optimizers.prodigy",
        "PolyakSGD": "optimizers.polyak_sgd",
        "Adafactor": "optimizers.adafactor",
        "Muon": "optimizers.muon",
        "SOAP": "optimizers.soap",
        "ScheduleFreeSGD": "optimizers.schedule_free",
        "ScheduleFreeAdamW": "optimizers.schedule_free",
        "FISTA": "optimizers.fista",
    },
    "Solvers": {
        "minimize": "solvers.minimize",
        "LBFGS": "solvers.lbfgs",
        "NonlinearCG": "solvers.nonlinear_cg",
        "GradientDescent": "solvers.gradient_descent",
        "Solver": "_solvers.solver",
        "Result": "_solvers.result",
        "Row": "_solvers.result",
    },
    "Line searches": {
        "LineSearch": "solvers.linesearch",
        "strong_wolfe": "solvers.linesearch",
        "hager_zhang": "solvers.linesearch",
        "armijo": "solvers.linesearch",
        "backtracking": "solvers.linesearch",
        "constant": "solvers.linesearch",
    },
    "When to stop": {
        "StopRule": "stop",
        "steps": "stop",
        "seconds": "stop",
        "gradient_norm": "stop",
        "no_progress": "stop",
        "value_below": "stop",
    },
    "Schedules": {
        "SchedulerBase": "schedulers.base",
        "ConstantScheduler": "schedulers.constant_scheduler",
        "ExponentialScheduler": "schedulers.exponential_scheduler",
        "NoamScheduler": "schedulers.noam",
        "KingScheduler": "schedulers.king",
    },
    "Schedules as values": {
        "Schedule": "schedulers.kinds.base",
        "constant": "schedulers.kinds.constant",
        "linear": "schedulers.kinds.lines",
        "polynomial": "schedulers.kinds.lines",
        "warmup": "schedulers.kinds.lines",
        "cosine": "schedulers.kinds.cosine",
        "cosine_restarts": "schedulers.kinds.cosine",
        "exponential": "schedulers.kinds.decays",
        "inverse_time": "schedulers.kinds.decays",
        "staircase": "schedulers.kinds.stairs",
        "multi_step": "schedulers.kinds.stairs",
        "piecewise": "schedulers.kinds.stairs",
        "one_cycle": "schedulers.kinds.cycles",
        "cyclic": "schedulers.kinds.cycles",
        "wsd": "schedulers.kinds.wsd",
        "plateau": "schedulers.kinds.plateau",
        "function": "schedulers.kinds.function",
        "maximum": "schedulers.kinds.joined",
        "repeat": "schedulers.kinds.joined",
        "epochs": "schedulers.kinds.epochs",
    },
    "Clipping": {
        "global_norm": "clipping",
        "clip_by_global_norm": "clipping",
    },
    "Sharpness": {
        "climb": "sharpness",
    },
    "From text and dicts": {
        "make_optimizer": "config",
        "make_scheduler": "schedulers.make",
        "make_schedule": "schedulers.kinds.make",
        "OptimizerInitializer": "config",
        "SchedulerInitializer": "schedulers.make",
    },
    "Checkpoints": {
        "load_optimizer": "checkpoint",
        "CheckpointError": "_checkpoint.header",
    },
    "Transforms": {
        "Transform": "transforms.base",
        "WeightDecay": "transforms.weight_decay",
        "AGC": "transforms.agc",
        "EMA": "transforms.average",
        "SWA": "transforms.average",
        "Lookahead": "transforms.lookahead",
        "DynamicLossScale": "transforms.loss_scale",
    },
    "Proximal maps": {
        "box": "prox.intervals",
        "nonnegative": "prox.intervals",
        "l1": "prox.shrink",
        "l2_ball": "prox.sets",
        "simplex": "prox.sets",
        "unit_rows": "prox.sets",
        "real_part": "prox.modulus",
        "magnitude": "prox.modulus",
    },
    "An optimizer of your own": {
        "setting": "_settings.setting",
        "Range": "_settings.ranges",
        "slot": "_graph.slots",
        "one": "_graph.slots",
        "rows": "_graph.slots",
        "cols": "_graph.slots",
        "Rule": "_graph.rule",
    },
    "Beyond one machine": {
        "Sharded": "sharded.sharded",
        "DTensors": "sharded.dtensors",
    },
    "Checks of optimizers and hosts": {
        "check_optimizer": "testing.optimizers",
        "optimizer_checks": "testing.optimizers",
        "check_host": "testing.hosts",
        "host_checks": "testing.hosts",
        "parametrize": "testing.parametrize",
        "Check": "testing.checks",
        "CheckError": "testing.checks",
    },
    "Engines": {
        "engine": "_engine.choice",
        "kernel_source": "explain",
        "num_threads": "_engine.pool",
    },
    "The machine and the version": {
        "default_namespace": "_arrays.machine",
        "__version__": "_version",
    },
}
"""By heading and name: the module. After a change, ``cd tests && python -m _kit.stubs`` writes what checkers read."""

APART = {
    **{room: room for room in ("clipping", "prox", "sharded", "solvers.linesearch", "stop", "testing")},
    "schedulers.kinds": "schedulers",
}
"""By module or package: the one through which alone its names are reached, as in ``xpopt.clipping.global_norm``."""

MODULES = (
    *("checkpoint", "clipping", "config", "explain", "optimizers", "prox", "schedulers", "sharded", "sharpness"),
    *("solvers", "stop", "testing", "transforms"),
)
"""The public modules."""


def names_of(package: str) -> dict[str, str]:
    """Return the names of a package of this project, by the module in it that defines each.

    Parameters
    ----------
    package : str
        Its ``__name__``.

    Returns
    -------
    dict of str to str
        The modules, as seen from the package.
    """
    rows = [(name, module) for names in NAMES.values() for name, module in names.items()]  # `constant` is there twice
    room = package[len(__package__) + 1 :]
    if not room:
        return {name: module for name, module in rows if not apart(module)}
    inside = f"{room}."
    return {name: module.removeprefix(inside) for name, module in rows if module.startswith(inside)}


def apart(module: str) -> str:
    """Return the module or package through which alone the names of a module are reached; "" if there is none."""
    return next((through for one, through in APART.items() if f"{module}.".startswith(f"{one}.")), "")


def attach(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return the ``__getattr__``, ``__dir__`` and ``__all__`` of a package whose names load when touched.

    Parameters
    ----------
    package : str
        Its ``__name__``.

    Returns
    -------
    tuple
        The three.
    """
    here, names = sys.modules[package], names_of(package)
    modules = MODULES if package == __package__ else ()

    def load(name: str) -> Any:
        if name not in names and name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=here)
        try:
            value = import_module(f"{package}.{names.get(name, name)}")
            if name in names:
                value = getattr(value, name)
        except AttributeError as error:  # which `hasattr` would take for a name that is not there
            raise ImportError(f"{package}.{name} cannot be loaded: {error}") from error
        except Exception as error:
            error.add_note(f"while {package}.{name} was loaded")
            raise
        setattr(here, name, value)
        return value

    return load, lambda: sorted({*vars(here), *names, *modules}), sorted(names)
