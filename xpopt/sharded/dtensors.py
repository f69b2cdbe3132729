"""An optimizer of tensors that lie on several processes: each updates its part, and all decide as one."""

from __future__ import annotations

import json
import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from .._arrays.layout import Layout
from .._arrays.parameter import dtype_text
from .._arrays.tree import flatten, matched, rebuild, show, show_all
from .._arrays.typing import Tree
from .._engine.together import together
from .._state.names import array_key, decode
from ..optimizers.base import OptimizerBase
from ._agreement import Agreement
from ._cutting import asks_model, why_whole


class DTensors:
    """An optimizer of PyTorch's DTensors, as FSDP2 makes them of parameters.

    Each process updates the parts of the parameters that it has, on the engine that would update a plain tensor, and
    keeps the state of these alone. What is found of all of them is decided together: norms of the model, gradients that
    are not finite, the loss that a schedule reads, and errors. All processes of the mesh make the same calls.

    Parameters
    ----------
    opt : OptimizerBase
        The optimizer. It is not copied: its cache holds the parts.
    params : container of torch.Tensor, nested at will
        The parameters, of which at least one is a DTensor, all on one mesh; only looked at. A plain tensor is the same
        on all processes, and so is its gradient.

    Raises
    ------
    TypeError
        `opt` is no optimizer, or no parameter is a DTensor.
    ValueError
        A parameter is cut, and its rule or an option needs the whole of it; or it is ``Partial``; or two are on
        different meshes.

    See Also
    --------
    xpopt.adapters.torch.Optimizer : An optimizer of PyTorch, which does this by itself.
    Sharded : State on several processes of parameters that each of them has.

    Examples
    --------
    >>> opt = DTensors(xpopt.AdamW(lr=1e-3), params)  # doctest: +SKIP
    >>> opt.update_all(params, grads, out=params)  # doctest: +SKIP
    """

    def __init__(self, opt: OptimizerBase, params: Tree) -> None:
        if not isinstance(opt, OptimizerBase):
            raise TypeError(f"DTensors: opt is a {type(opt).__name__}; wanted an optimizer, such as xpopt.Adam()")
        from . import _mesh  # here, for it imports PyTorch

        self.optimizer, self._torch = opt, _mesh
        leaves = flatten(params, "params")
        found = {name: _mesh.layout_of(x) for name, x in leaves.items()}
        self._layouts = {name: layout for name, layout in found.items() if layout is not None}
        if not self._layouts:
            kinds = ", ".join(dict.fromkeys(type(x).__name__ for x in leaves.values())) or "nothing"
            raise TypeError(f"DTensors: params holds {kinds}; wanted DTensors, for plain tensors need no wrapper")
        self._mesh = next(iter(self._layouts.values())).mesh
        for name, layout in self._layouts.items():
            if layout.mesh != self._mesh:
                raise ValueError(f"DTensors: {show(name)} is on {layout.mesh}, others on {self._mesh}; wanted one mesh")
            if layout.is_partial:
                raise ValueError(f"DTensors: {show(name)} is Partial; wanted parameters that are Shard or Replicate")
        self._parts = {name: _mesh.described(self._part(x, name, "parameter")) for name, x in leaves.items()}
        self._names = Layout(list(self._parts))
        self._check()
        self._agreement = Agreement(_mesh.processes_of(self._mesh))

    def update_all(self, params: Tree, grads: Tree, cur_loss: Any = None, *, out: Tree | None = None) -> Any:
        """Update the whole model, as `OptimizerBase.update_all`.

        Parameters
        ----------
        params : container of torch.Tensor, nested at will
            The parameters, in the layouts that the first ones had.
        grads : container with the names of `params`
            Their gradients, in the same layouts; None, on all processes, leaves a parameter alone.
        cur_loss : float or tensor of shape (), optional
            The loss of this process; a schedule reads the mean of all.
        out : container with the names of `params`, optional
            Where to write the results; may be `params`, which is the fastest.

        Returns
        -------
        containers of the kinds of `params`
            The new values, in the layouts of the parameters: `out` if given.

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            As for `OptimizerBase.update_all`, on all processes what one of them raised; a gradient that is ``Partial``
            or in another layout than its parameter, or None on some processes alone. Nothing has changed.
        """
        with self._torch.no_grad(), self._agreement.all_or_none():
            if self.optimizer._parts.settings is not self._checked:
                self._check()
            own = self._own(params, "params", "parameter")
            mine = self._own(grads, "grads", "gradient")
            self._expect_same_gradients(mine)
            targets = None if out is None else own if out is params else self._own(out, "out", "out")
            loss = None if cur_loss is None else self._agreement.loss(self._torch.whole_of(cur_loss), "mean")
            with together(self._decide):
                new = self.optimizer.update_all(own, mine, loss, out=targets)
            if out is not None:
                return out
            return rebuild(params, lambda name: self._whole(new[name], name))

    def _expect_same_gradients(self, grads: Mapping[Hashable, Any]) -> None:
        """Let the next decision raise a ValueError unless each gradient is None on all processes or on none."""
        absent = [name for name in self._updated if grads[name] is None]
        number, here = 0.0, "none is"
        if absent:
            number = 1.0 + zlib.crc32(bytes(grads[name] is None for name in self._updated))
            here = f"{show_all(absent)} {'is' if len(absent) == 1 else 'are'}"
        self._agreement.expect_alike(
            number,
            f"DTensors: some gradients are None on some processes, and not on others; here {here}. Pass zeros where a "
            f"process adds nothing to a gradient, or None on all processes. Nothing has changed",
        )

    def _own(self, tree: Tree, role: str, what: str) -> dict[Hashable, Any]:
        """Return the parts of tensors that this process has, by name."""
        leaves = self._names.leaves(tree)
        if leaves is None:  # of other containers, or with other names
            found = matched(self._parts, flatten(tree, role), role)
            leaves = [found[name] for name in self._parts]
        return {name: self._part(x, name, what) for name, x in zip(self._parts, leaves, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Return the state as `torch.distributed.checkpoint` saves and loads it, on any number of processes.

        Returns
        -------
        dict
            ``"header"``, text; and by the flat name of each slot a DTensor, or a tensor that all processes have. They
            are the slots themselves, to be read only. Of an optimizer without state they are zeros to load into.
        """
        state = self.optimizer.state_dict(copy=False)
        header, arrays = state["header"], state["arrays"]
        if not header["parameters"]:  # zeros of the slots that there will be
            arrays = self._begun().state_dict(copy=False)["arrays"] | arrays
        for name, described in self._described(header):
            for of in (described, *described["slots"].values()):
                is_part = tuple(of["shape"]) == self._parts[name].shape
                of["shape"] = list(self._layouts[name].shape) if is_part else of["shape"]
        names = {array_key(name, ""): name for name in self._layouts}
        found = {"header": json.dumps(header)}
        for key, x in arrays.items():
            name = names.get(f"{key.rpartition('/')[0]}/")
            is_part = name is not None and tuple(x.shape) == self._parts[name].shape
            found[key] = self._whole(x, name) if is_part else x
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become the optimizer that a state describes.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned, here or on another number of processes, once it has been loaded.

        Raises
        ------
        CheckpointError
            It does not fit; every reason is listed, and nothing has changed.
        """
        header = json.loads(state["header"])
        known = {decode(row["name"]) for row in header["parameters"]}
        unused = {array_key(name, "") for name in self._parts if name not in known}
        for name, described in self._described(header):
            for of in (described, *described["slots"].values()):
                is_whole = tuple(of["shape"]) == self._layouts[name].shape
                of["shape"] = list(self._parts[name].shape) if is_whole else of["shape"]
        arrays = {
            key: x if self._torch.layout_of(x) is None else self._torch.part_of(x)
            for key, x in state.items()
            if key != "header" and f"{key.rpartition('/')[0]}/" not in unused
        }
        like = {name: part.zeros() for name, part in self._parts.items() if name in known}
        self.optimizer.load_state_dict({"header": header, "arrays": arrays}, like=like)

    def _described(self, header: Mapping[str, Any]) -> list[tuple[Hashable, Any]]:
        """Return what a header says of each DTensor."""
        rows = [(decode(row["name"]), row) for row in header["parameters"]]
        return [(name, row) for name, row in rows if name in self._layouts]

    def _begun(self) -> OptimizerBase:
        """Return an optimizer with the state that this one will have."""
        twin = self.optimizer.copy()
        params, grads = ({name: part.zeros() for name, part in self._parts.items()} for _ in range(2))
        twin.update_all(params, grads, 0.0)
        return twin

    def _check(self) -> None:
        """Raise a ValueError unless each process can update its parts alone, with what it is told of the model."""
        settings = self.optimizer._parts.settings
        rules, cuts = [], set()
        self._updated: list[Hashable] = []
        for name, part in self._parts.items():
            layout, dtype = self._layouts.get(name), dtype_text(part.dtype)
            shape, cut = (part.shape, frozenset[int]()) if layout is None else (layout.shape, layout.cut)
            own = settings.of(name, shape)
            if own.frozen:
                continue
            self._updated.append(name)
            if layout is not None and cut and (reason := why_whole(own, dtype, shape)):
                raise ValueError(
                    f"DTensors: {show(name)} is cut, {layout.placements}, and {reason}; make it whole on each process, "
                    f"x.redistribute(placements=[Replicate()]), or give it other settings, groups={{...}}; a norm of "
                    f"the whole model is clipped by clip_global"
                )
            rules.append(own.rule.of(dtype, shape))
            cuts.add(cut)
        if len(cuts) > 1 and asks_model(rules):
            raise ValueError(
                f"DTensors: {type(self.optimizer).__name__}, or an option of it, reads what is found of the whole "
                f"model, of which some parameters are on more processes than others; lay all out alike"
            )
        self._counts = len(cuts) != 1 or self._torch.is_first(self._mesh, next(iter(cuts)))
        self._checked = settings

    def _decide(self, numbers: Sequence[tuple[str, float]]) -> list[float]:
        """Return what numbers of all parts come to: sums count what several processes have once."""
        mine = [(join, x if self._counts or join != "add" else 0.0) for join, x in numbers]
        return self._agreement.decide(mine)

    def _part(self, x: Any, name: Hashable, what: str) -> Any:
        """Return the part of a tensor that this process has, of a layout that is its parameter's."""
        wanted = self._layouts.get(name)
        if x is None or (wanted is not None and self._torch.is_laid_out(x, wanted)):
            return None if x is None else self._torch.part_of(x)
        layout = self._torch.layout_of(x)
        if (layout is None) != (wanted is None):
            kinds = ["a DTensor" if one is not None else f"a {type(x).__name__}" for one in (layout, wanted)]
            raise TypeError(f"{what} of {show(name)} is {kinds[0]}, and the parameter was {kinds[1]}; pass such a one")
        if layout is None or wanted is None:
            return x
        if layout.is_partial:
            raise TypeError(
                f"{what} of {show(name)} is Partial: the processes have terms of a sum, of which a rule needs the sum; "
                f"pass x.redistribute(placements=param.placements)"
            )
        if layout[:3] != wanted[:3]:
            raise ValueError(
                f"{what} of {show(name)} has shape {layout.shape} and placements {layout.placements}, the parameter "
                f"has {wanted.shape} and {wanted.placements}; pass x.redistribute(placements=param.placements)"
            )
        return self._torch.part_of(x)

    def _whole(self, part: Any, name: Hashable) -> Any:
        layout = self._layouts.get(name)
        return part if layout is None else layout.whole(part)
