"""Optimizers of xpopt as a `torch.optim.Optimizer`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import torch

from ..config import make_optimizer
from ..optimizers.base import OptimizerBase
from ..schedulers import ConstantScheduler
from ..sharded import DTensors
from ._state.torch import from_torch, names_of

__all__ = ["Optimizer"]

_APART = ("id", "groups", "lr_scheduler", "nonfinite")
"""Settings that groups do not show: those of the whole optimizer, and what is shown as ``lr``."""


_FOLLOWS = "lr follows a schedule of xpopt; to write it, make the optimizer with a number as lr"


class Optimizer(torch.optim.Optimizer):  # type: ignore[misc]
    """An optimizer of xpopt with the interface of `torch.optim.Optimizer`.

    Parameters
    ----------
    params : iterable
        Parameters, pairs of name and parameter, or groups of them: dicts with ``"params"`` and the settings in which
        the group differs.
    optimizer : str, mapping or OptimizerBase
        As for `make_optimizer`. It is copied.

    Attributes
    ----------
    optimizer : OptimizerBase
        The wrapped optimizer. The name of a parameter in it is the pair of the index of its group and its own name or
        index.

    Raises
    ------
    TypeError, ValueError
        `optimizer` is not an optimizer; a parameter is not a tensor, or not a leaf; there are no parameters; two
        parameters of a group have the same name; or both `optimizer` and `params` have groups.
    KeyError
        A group has a setting that the optimizer does not have.

    See Also
    --------
    OptimizerBase.update_all : The method that makes the steps.

    Notes
    -----
    `param_groups` shows the learning rate and the other settings. A change of ``"lr"`` in a group, as by a scheduler
    of PyTorch, applies from the next step. Writing another setting raises a TypeError, and so does writing ``"lr"`` if
    the rate follows a schedule of xpopt. `set_params` of the wrapped optimizer can change all settings.

    A step updates all groups in one call of `update_all`: after an error nothing has changed, and `clip_global` is
    the norm of all gradients. A parameter whose gradient is None is not updated.

    Examples
    --------
    >>> import torch
    >>> from xpopt.adapters.torch import Optimizer
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> optimizer = Optimizer([w], "SGD(lr=0.5)")
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.tolist()
    [0.0, 0.0]
    """

    param_groups: list[Any]

    # What was read from the groups, until they change
    _sizes: list[int] = []
    _names: list[tuple[int, Any]] = []
    _rates: list[float | None] = []
    _together: OptimizerBase | DTensors | None = None

    def __init__(self, params: Iterable[Any], optimizer: str | Mapping[str, Any] | OptimizerBase = "Adam") -> None:
        self.optimizer = make_optimizer(optimizer).copy()
        self._grouped, self._first = bool(self.optimizer.groups), frozenset[str]()
        super().__init__(params, self._settings())

    @classmethod
    def from_torch(cls, optimizer: Any) -> Self:
        """Return an optimizer that continues from one of `torch.optim`, over the same parameters.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            As for `xpopt.adapters.state.from_torch`. It is only read.

        Returns
        -------
        Optimizer
            An optimizer with the same groups, settings, counts and slots.

        Raises
        ------
        TypeError, ValueError
            As for `xpopt.adapters.state.from_torch`.

        Warns
        -----
        UserWarning
            The formulas are the same only while the learning rate is constant.
        """
        known = from_torch(optimizer)
        groups = [
            {
                "params": [*zip(group["param_names"], group["params"], strict=True)]
                if "param_names" in group
                else group["params"],
                **known.groups.get(f"{index}/*", {}),
            }
            for index, group in enumerate(optimizer.param_groups)
        ]
        state = known.state_dict()
        if len(groups) == 1:  # then names have no index of a group
            known.load_state_dict(state, rename={name: (0, name) for name in known.cache})
            state = known.state_dict()
        known.cache = {}
        known.set_params({"groups": {}})
        made = cls(groups, known)
        header = {**made.optimizer.state_dict()["header"], "parameters": state["header"]["parameters"]}
        made.optimizer.load_state_dict({**state, "header": header})
        return made

    def _settings(self) -> dict[str, Any]:
        return {name: value for name, value in self.optimizer.hyperparameters.items() if name not in _APART}

    def _free(self, group: Mapping[str, Any]) -> bool:
        """Return whether the rate of a group is a number that xpopt does not change."""
        constant = isinstance(self.optimizer.lr_scheduler, ConstantScheduler)
        return constant and "lr_scheduler" not in group and isinstance(group["lr"], float | int | torch.Tensor)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; see `torch.optim.Optimizer.add_param_group`.

        Parameters
        ----------
        param_group : dict
            ``"params"``, and the settings in which the group differs.

        Raises
        ------
        TypeError, ValueError, KeyError
            As for the class; nothing has changed.
        """
        super().add_param_group(dict(param_group))
        index = len(self.param_groups) - 1
        group = self.param_groups.pop()
        own = {name: value for name, value in param_group.items() if name not in ("params", "param_names")}
        for name, parameter in _named(group).items():
            if not parameter.is_leaf:
                raise ValueError(
                    f"parameter {name!r} of group {index} is not a leaf; pass the tensor from which it is computed"
                )
        if not index:
            self.optimizer.set_params(own)
            self._first = frozenset(own)
        elif self._grouped:
            raise ValueError(
                "both the optimizer and params have groups; wanted groups in one of them: patterns such as '*bias' in "
                "the optimizer, with params as pairs (name, parameter), or groups of PyTorch in params"
            )
        else:
            own = {name: group[name] for name in {*self._first, *own}}
            if self._free(group):
                own["lr"] = group["lr"]
            self.optimizer.set_params({"groups": {**self.optimizer.groups, f"{index}/*": own}})
        self.param_groups.append(self._guarded(group))
        self._forget()

    def _guarded(self, group: Mapping[str, Any]) -> _Group:
        return _Group(group, frozenset(self._settings()) - ({"lr"} if self._free(group) else set()))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step with the gradients of the parameters.

        Parameters
        ----------
        closure : callable, optional
            A function that computes the gradients and returns the loss, which schedules may read.

        Returns
        -------
        object
            The return value of `closure`; None without one.

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            As for `OptimizerBase.update_all`; or the learning rate in a group is out of range. Nothing has changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._take_rates()
        params = self._all()
        grads = {name: x.grad for name, x in params.items()}
        told = loss.detach() if isinstance(loss, torch.Tensor) else loss
        self._stepping(params).update_all(params, grads, told, out=params)
        return loss

    def _stepping(self, params: Mapping[tuple[int, Any], Any]) -> OptimizerBase | DTensors:
        """Return what updates the parameters: `DTensors` if some of them are DTensors, else the optimizer."""
        if self._together is None:
            spread = any(hasattr(x, "to_local") for x in params.values())
            self._together = DTensors(self.optimizer, params) if spread else self.optimizer
        return self._together

    def _all(self) -> dict[tuple[int, Any], Any]:
        """Return the parameters of all groups by name."""
        tensors = [x for group in self.param_groups for x in group["params"]]
        return dict(zip(self._all_names(), tensors, strict=True))

    def _all_names(self) -> list[tuple[int, Any]]:
        """Return the names of the parameters of all groups."""
        sizes = [len(group["params"]) for group in self.param_groups]
        if sizes != self._sizes:
            named = [group.get("param_names") or range(len(group["params"])) for group in self.param_groups]
            self._names = [(index, name) for index, names in enumerate(named) for name in names]
            self._sizes = sizes
        return self._names

    def _take_rates(self) -> None:
        """Set the rates of the optimizer to those that were written to the groups."""
        first, *rates = shown = [None if "lr" in group.fixed else float(group["lr"]) for group in self.param_groups]
        before = self._rates
        if shown == before and (first is None or first == self.optimizer.lr):
            return
        if rates != before[1:]:
            groups = self.optimizer.groups
            own = {f"{index}/*": rate for index, rate in enumerate(rates, 1) if rate is not None}
            changed = {name: {**groups[name], "lr": rate} for name, rate in own.items() if rate != groups[name]["lr"]}
            if changed:
                self.optimizer.set_params({"groups": {**groups, **changed}})
        if first is not None and first != self.optimizer.lr:
            is_written = before[:1] != [first]
            if not isinstance(self.optimizer.lr_scheduler, ConstantScheduler):  # set by set_params of the optimizer
                if is_written and before:
                    raise TypeError(_FOLLOWS)
            elif is_written:  # cheaper for a large model than set_params of the optimizer
                self.optimizer.lr_scheduler.set_params({"lr": first})
            else:
                shown[0] = self.param_groups[0]["lr"] = self.optimizer.lr
        self._rates = shown

    # Copies and checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Return the state: ``"param_groups"`` as in PyTorch, and ``"state"`` as from `OptimizerBase.state_dict`.

        Returns
        -------
        dict
            Plain data, and copies of tensors.
        """
        self._take_rates()
        return {**super().state_dict(), "state": self._stepping(self._all()).state_dict()}

    def load_state_dict(self, state_dict: Any) -> None:
        """Load what `state_dict` returned.

        Parameters
        ----------
        state_dict : mapping
            The state of an optimizer with groups of the same sizes. It is copied.

        Raises
        ------
        TypeError
            It is not a state of this class.
        ValueError
            It is the state of another model. The message lists every reason, and nothing has changed.
        """
        state = state_dict.get("state") if isinstance(state_dict, Mapping) else None
        if not isinstance(state, Mapping) or "header" not in state or "param_groups" not in state_dict:
            raise TypeError(
                "this is not a state dict of xpopt.adapters.torch.Optimizer; wanted what its state_dict() returned, "
                "with 'state' and 'param_groups'; to continue from torch.optim, use Optimizer.from_torch(optimizer)"
            )
        both = self.param_groups, state_dict["param_groups"]
        here, there = ([group.get("param_names") or len(group["params"]) for group in groups] for groups in both)
        reasons = (
            [] if here == there else [f"its groups have the parameters {there}, those of this optimizer have {here}"]
        )
        together = self._stepping(self._all())
        try:
            if not isinstance(together, DTensors):
                target = self.optimizer.copy() if reasons else self.optimizer
                target.load_state_dict(state, like=self._updated(state))
            elif not reasons:
                together.load_state_dict(state)
        except ValueError as error:
            reasons.append(str(error))
        if reasons:
            raise ValueError("the state dict is that of another model: " + "; ".join(reasons))
        self._grouped = len(here) == 1 and bool(self.optimizer.groups)
        super().load_state_dict({**state_dict, "state": {}})
        self.param_groups = [self._guarded(group) for group in self.param_groups]
        self._forget()

    def _updated(self, state: Mapping[str, Any]) -> list[dict[Any, Any]]:
        """Return the parameters of each group for which a state has an entry."""
        known = [tuple(row["name"]) for row in state["header"]["parameters"] if isinstance(row["name"], list)]
        return [
            {name: x for name, x in _named(group).items() if (index, name) in known}
            for index, group in enumerate(self.param_groups)
        ]

    def _forget(self) -> None:
        """Read the groups again at the next step."""
        self._sizes, self._rates, self._together = [], [], None

    def __getstate__(self) -> dict[str, Any]:
        """Include the wrapped optimizer in copies and pickles."""
        own = ("optimizer", "_grouped", "_first", "_rates")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}


class _Group(dict[str, Any]):
    """A group of parameters whose settings, except the rate, cannot be written; other keys belong to PyTorch."""

    def __init__(self, items: Mapping[str, Any], fixed: frozenset[str]) -> None:
        super().__init__(items)
        self.fixed = fixed

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self.fixed:
            if name == "lr":
                raise TypeError(_FOLLOWS)
            raise TypeError(
                f"{name!r} of a group cannot be written, only 'lr' can; use optimizer.optimizer.set_params, or make "
                f"the group with that setting"
            )
        super().__setitem__(name, value)

    def update(self, *args: Any, **values: Any) -> None:
        for name, value in dict(*args, **values).items():
            self[name] = value

    def __ior__(self, other: Any) -> _Group:  # type: ignore[override, misc]
        self.update(other)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self), self.fixed)


def _named(group: Mapping[str, Any]) -> dict[Any, Any]:
    """Return the parameters of a group by name, or by index."""
    return dict(zip(names_of(group), group["params"], strict=True))
