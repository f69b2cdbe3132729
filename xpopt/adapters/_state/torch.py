"""Convert optimizers of torch.optim with their state, and to torch.optim."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from ...optimizers.base import OptimizerBase
from . import rows
from .rows import Host, Remembered, Row

_RATE = {"lr": "lr", "maximize": "maximize"}
_L2, _DECAY = {**_RATE, "weight_decay": "l2"}, {**_RATE, "weight_decay": "weight_decay"}
_MEANS = {"beta1": "decay1", "beta2": "decay2", "eps": "eps"}
_MOMENTUM = {"momentum": "momentum", "nesterov": "nesterov", "dampening": "dampening"}
_RMS = {"alpha": "decay", "eps": "eps", "centered": "centered", "momentum": "momentum"}


def _adam(theirs: str, ours: tuple[str, ...], *, decoupled: bool, amsgrad: bool = False) -> Row:
    there = {"amsgrad": amsgrad, "decoupled_weight_decay": decoupled}
    slots = {"mean": "exp_avg", "var": "exp_avg_sq", **({"top": "max_exp_avg_sq"} if amsgrad else {})}
    return Row(theirs, ours, {**(_DECAY if decoupled else _L2), **_MEANS}, slots, there=there, counted="step")


def _nadam(*, decoupled: bool) -> Row:
    same = {**(_DECAY if decoupled else _L2), **_MEANS, "momentum_decay": "momentum_decay"}
    slots = {"mean": "exp_avg", "var": "exp_avg_sq", "product": "mu_product"}
    return Row("NAdam", ("NAdam",), same, slots, there={"decoupled_weight_decay": decoupled}, counted="step")


HOST = Host(
    "torch.optim",
    (
        Row("SGD", ("SGD",), {**_L2, **_MOMENTUM}, {"trace": "momentum_buffer"}, {"lr_inside": False}),
        Row("SGD", ("SGD",), {**_L2, **_MOMENTUM}, {"velocity": "momentum_buffer"}, factors={"velocity": "lr"}),
        _adam("Adam", ("Adam",), decoupled=False),
        _adam("AdamW", ("AdamW", "Adam"), decoupled=True),
        _adam("Adam", ("AdamW",), decoupled=True),
        _adam("Adam", ("AMSGrad",), decoupled=False, amsgrad=True),
        _adam("AdamW", ("AMSGrad",), decoupled=True, amsgrad=True),
        _nadam(decoupled=False),
        _nadam(decoupled=True),
        Row("Adamax", ("Adamax",), {**_L2, **_MEANS}, {"mean": "exp_avg", "top": "exp_inf"}, counted="step"),
        Row(
            "RMSprop",
            ("RMSProp",),
            {**_L2, **_RMS},
            {"var": "square_avg", "mean": "grad_avg", "velocity": "momentum_buffer"},
            factors={"velocity": "lr"},
            counted="step",
        ),
        Row(
            "Adagrad",
            ("AdaGrad",),
            {**_L2, "eps": "eps", "lr_decay": "lr_decay", "initial_accumulator_value": "initial"},
            {"total": "sum"},
            counted="step",
        ),
        Row(
            "Adadelta",
            ("Adadelta",),
            {**_L2, "rho": "decay", "eps": "eps"},
            {"var": "square_avg", "delta": "acc_delta"},
            counted="step",
        ),
        Row(
            "Rprop",
            ("Rprop",),
            {**_RATE, "eta1": "down", "eta2": "up", "size1": "least", "size2": "most"},
            {"direction": "prev", "size": "step_size"},
            factors={"direction": "sign"},
            counted="step",
        ),
    ),
    {
        "RAdam": "its eps is added before the bias correction, which no setting of RAdam here does",
        "ASGD": "its average of the parameters has a rate of its own; SGD(average=SWA(...)) is similar",
        "Adafactor": "its learning rate and its decay have other schedules",
        "Muon": "it scales and iterates the matrix of a step differently",
        "LBFGS": "its pairs of points belong to a search in progress; start one with xpopt.minimize",
        "SparseAdam": "it does not update elements without a gradient",
    },
    {},
    frozenset({"foreach", "fused", "capturable", "differentiable"}),
)
_PAIRS = {"betas": ("beta1", "beta2"), "etas": ("eta1", "eta2"), "step_sizes": ("size1", "size2")}


def from_torch(optimizer: Any) -> OptimizerBase:
    """Convert an optimizer of `torch.optim`, with its settings, counts and slots, to one of xpopt.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        SGD, Adam, AdamW, NAdam, Adamax, RMSprop, Adagrad, Adadelta or Rprop. It is only read.

    Returns
    -------
    OptimizerBase
        An optimizer that continues the training. The name of a parameter is its name there, or its index if it has
        none. With several groups, which become `groups`, it is the pair of the index of the group and that name. State
        is moved to the library and device of a parameter at its first update.

    Raises
    ------
    TypeError
        `optimizer` is not an optimizer of `torch.optim`.
    ValueError
        No optimizer of xpopt has its formula, or has it with these settings; the message gives the difference. Or two
        parameters of a group have the same name.

    Warns
    -----
    UserWarning
        The formulas are the same only while the learning rate is constant.

    See Also
    --------
    to_torch : The reverse.

    Notes
    -----
    PyTorch's SGD does not count updates. The count starts at 1, which only affects schedules.
    """
    kind = type(optimizer).__name__
    is_theirs = f"{type(optimizer).__module__}.".startswith("torch.optim.")
    if not is_theirs or not hasattr(optimizer, "param_groups"):
        raise TypeError(f"optimizer is a {type(optimizer).__module__}.{kind}; wanted one of torch.optim, such as Adam")
    several = len(optimizer.param_groups) > 1
    state: dict[Hashable, Remembered] = {}
    read = []
    for index, group in enumerate(optimizer.param_groups):
        known = {name: x for name, x in group.items() if name in optimizer.defaults}
        row, settings = HOST.read(kind, _apart(known))
        read.append((row, settings))
        for name, param in zip(names_of(group), group["params"], strict=True):
            theirs = optimizer.state.get(param) or {}
            if not theirs:
                continue
            updates = int(theirs[row.counted]) if row.counted else 1
            slots = rows.here(row, settings["lr"], theirs)
            dtype = str(param.dtype).rpartition(".")[2]
            state[(index, name) if several else name] = Remembered(tuple(param.shape), dtype, updates, slots)
    (first, settings), *others = read
    if any(row is not first for row, _ in others):
        kinds = ", ".join(f"{row.ours[0]}" for row, _ in read)
        raise ValueError(f"the groups of {kind} need several formulas, {kinds}; wanted groups with one formula")
    rows.warn_of_rate(first, state.values())
    groups = {
        f"{index}/*": {name: x for name, x in own.items() if x != settings[name]}
        for index, (_, own) in enumerate(read)
        if own != settings
    }
    return rows.made(first, settings, state, groups)


def to_torch(optimizer: OptimizerBase, params: Mapping[Hashable, Any] | Iterable[tuple[Hashable, Any]]) -> Any:
    """Convert an optimizer, with its settings, counts and slots, to one of `torch.optim`.

    Parameters
    ----------
    optimizer : OptimizerBase
        An optimizer that PyTorch has. It is only read.
    params : mapping of str to tensor, or iterable of pairs
        The parameters by their names in `cache`, such as ``model.named_parameters()``.

    Returns
    -------
    torch.optim.Optimizer
        An optimizer that continues the training, with a group for each of `groups`. Frozen parameters are in no group.

    Raises
    ------
    TypeError
        `params` are tensors without names.
    ValueError
        Two parameters have the same name; PyTorch is not known to have the formula or a setting; the learning rate
        follows a schedule; or the state is that of another model.

    Warns
    -----
    UserWarning
        The formulas are the same only while the learning rate is constant.

    See Also
    --------
    from_torch : The reverse.
    """
    import torch

    pairs = [*(params.items() if isinstance(params, Mapping) else params)]
    if any(isinstance(pair, torch.Tensor) for pair in pairs):
        raise TypeError(
            "params has tensors without names; wanted pairs (name, tensor), such as model.named_parameters()"
        )
    check_once([name for name, _ in pairs])
    named = dict(pairs)
    rows.check_rate(optimizer)
    state = rows.state_of(optimizer, {name: tuple(x.shape) for name, x in named.items()})
    bare = optimizer.copy()
    bare.cache = {}  # which may be in arrays of another library
    patterns = {one.name: one.group for one in bare.explain(named)}
    whole = optimizer.hyperparameters
    members: dict[Any, list[Hashable]] = {}
    for name, pattern in patterns.items():
        if not pattern or optimizer.groups.get(pattern) != "freeze":
            members.setdefault(pattern, []).append(name)
    groups: list[dict[str, Any]] = []
    states: list[dict[str, Any]] = []
    kinds: dict[str, Row] = {}
    for pattern, names in members.items():
        own = optimizer.groups.get(pattern, {})  # of none where an optimizer has others for some shapes
        if "id" in own:
            raise ValueError(
                f"group {pattern!r} has an optimizer of its own, {own['id']}; wanted a group with other settings only"
            )
        row, settings = HOST.write(type(optimizer).__name__, {**whole, **own})
        kinds[row.theirs] = row
        groups.append({"params": [named[name] for name in names], **_together(settings)})
        states += [_there(row, settings["lr"], state.get(name)) for name in names]
    if len(kinds) != 1:
        raise ValueError(f"the groups need {len(kinds)} optimizers of PyTorch, {', '.join(kinds)}; wanted one")
    ((kind, row),) = kinds.items()
    cls = getattr(torch.optim, kind)
    takes = {"params", *inspect.signature(cls).parameters}
    made = cls([{name: x for name, x in group.items() if name in takes} for group in groups])
    told = {index: one for index, one in enumerate(states) if one}
    rows.warn_of_rate(row, state.values())
    made.load_state_dict({**made.state_dict(), "state": told})
    return made


def names_of(group: Mapping[str, Any]) -> Sequence[Hashable]:
    """Return the names of the parameters of a group, or their indices; raise a ValueError if two are the same.

    Parameters
    ----------
    group : mapping
        A group of an optimizer of `torch.optim`.

    Returns
    -------
    sequence
        Of as many as there are parameters.
    """
    names: Sequence[Hashable] = group.get("param_names") or range(len(group["params"]))
    check_once(names)
    return names


def check_once(names: Sequence[Hashable]) -> None:
    """Raise a ValueError if two parameters have the same name.

    Parameters
    ----------
    names : sequence
        Of all parameters.
    """
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"two parameters are named {twice!r}, as happens with the named_parameters() of two models; wanted unique "
            f"names, such as those of named_parameters(prefix='first')"
        )


def _there(row: Row, lr: float, known: Remembered | None) -> dict[str, Any]:
    """Return the state of a parameter in PyTorch's form."""
    import torch

    if known is None:
        return {}
    count = {row.counted: torch.tensor(float(known.updates))} if row.counted else {}
    return count | {name: torch.from_numpy(x) for name, x in rows.there(row, lr, known.slots).items()}


def _apart(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in which each number has a name of its own."""
    found = {name: x for name, x in settings.items() if name not in _PAIRS}
    for pair, names in _PAIRS.items():
        found.update(zip(names, settings.get(pair, ()), strict=False))
    return found


def _together(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in PyTorch's form."""
    found = dict(settings)
    for pair, names in _PAIRS.items():
        if names[0] in found:
            found[pair] = tuple(found.pop(name) for name in names)
    return found
