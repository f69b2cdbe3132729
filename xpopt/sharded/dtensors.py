"""An optimizer of tensors that are divided among processes: each updates its parts, and all decide together."""

from __future__ import annotations

import json
import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Never

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
    """An optimizer of PyTorch's DTensors, such as the parameters under FSDP2.

    Each process updates its parts of the parameters, with the engine for plain tensors, and keeps only the state of
    these parts. Norms of the model, non-finite gradients, the loss that a schedule reads, and errors are handled by all
    processes together. All processes of the mesh must make the same calls.

    Parameters
    ----------
    opt : OptimizerBase
        The optimizer. It is not copied, and its cache has the state of the parts.
    params : container of torch.Tensor, nested at will
        The parameters. At least one must be a DTensor, and all DTensors must be on the same mesh. A plain tensor must
        be the same on all processes, and so must its gradient. They are only read.

    Raises
    ------
    TypeError
        `opt` is not an optimizer, or no parameter is a DTensor.
    ValueError
        A parameter is divided among processes, and its rule or an option needs the whole parameter; a parameter is
        ``Partial``; or two are on different meshes.

    See Also
    --------
    xpopt.adapters.torch.Optimizer : A `torch.optim.Optimizer` that uses this class for DTensors.
    Sharded : Divides the state of parameters that each process has as a whole.

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
            raise TypeError(f"DTensors: params holds {kinds}; wanted DTensors; plain tensors need no wrapper")
        self._mesh = next(iter(self._layouts.values())).mesh
        for name, layout in self._layouts.items():
            if layout.mesh != self._mesh:
                raise ValueError(
                    f"DTensors: {show(name)} is on {layout.mesh}, others on {self._mesh}; wanted a single mesh"
                )
            if layout.is_partial:
                raise ValueError(f"DTensors: {show(name)} is Partial; wanted placements Shard or Replicate")
        self._parts = {name: _mesh.described(self._part(x, name, "parameter")) for name, x in leaves.items()}
        self._names = Layout(list(self._parts))
        self._check()
        self._agreement = Agreement(_mesh.processes_of(self._mesh))

    def __reduce__(self) -> Never:
        """Refuse copies and pickles: the other processes know nothing of them."""
        raise TypeError(
            "DTensors: an optimizer on several processes is neither copied nor pickled; state_dict() returns its state "
            "for torch.distributed.checkpoint, and load_state_dict() of another DTensors takes it"
        )

    def update_all(self, params: Tree, grads: Tree, cur_loss: Any = None, *, out: Tree | None = None) -> Any:
        """Make one step, as `OptimizerBase.update_all`.

        Parameters
        ----------
        params : container of torch.Tensor, nested at will
            The parameters, with the layouts of those that were passed to the constructor.
        grads : container with the names of `params`
            Their gradients, with the same layouts. A parameter whose gradient is None is not updated; the gradient must
            be None on all processes.
        cur_loss : float or tensor of shape (), optional
            The loss of this process. Schedules read the mean over all processes.
        out : container with the names of `params`, optional
            Where to write the results. ``out=params`` is fastest.

        Returns
        -------
        containers of the kinds of `params`
            The new values, with the layouts of the parameters; `out` if given.

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            As for `OptimizerBase.update_all`, raised on all processes if one of them fails; or a gradient is
            ``Partial``, has another layout than its parameter, or is None on some processes only. Nothing has changed.
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
            f"DTensors: some gradients are None on some processes and not on others; here {here}. If a process has "
            f"nothing to add to a gradient, pass zeros, or None on all processes. Nothing has changed",
        )

    def _own(self, tree: Tree, role: str, what: str) -> dict[Hashable, Any]:
        """Return the parts of tensors on this process, by name."""
        leaves = self._names.leaves(tree)
        if leaves is None:  # of other containers, or with other names
            found = matched(self._parts, flatten(tree, role), role)
            leaves = [found[name] for name in self._parts]
        return {name: self._part(x, name, what) for name, x in zip(self._parts, leaves, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for `torch.distributed.checkpoint`, which can load it on any number of processes.

        Returns
        -------
        dict
            ``"header"``, a text, and one entry for each slot: a DTensor, or a tensor that is the same on all processes.
            The tensors are the slots, not copies; do not write them. For an optimizer without state they are zeros,
            into which a checkpoint can be loaded.
        """
        state = self.optimizer.state_dict(copy=False)
        header, arrays = state["header"], state["arrays"]
        if not header["parameters"]:  # zeros in the shapes of the future slots
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
        """Load a state.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned, after `torch.distributed.checkpoint` has loaded into it.

        Raises
        ------
        CheckpointError
            The state does not fit. The message lists every reason, and nothing has changed.
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
        """Return the entries of a header for DTensors, by name."""
        rows = [(decode(row["name"]), row) for row in header["parameters"]]
        return [(name, row) for name, row in rows if name in self._layouts]

    def _begun(self) -> OptimizerBase:
        """Return a copy of the optimizer that has made a step, so that it has state."""
        twin = self.optimizer.copy()
        params, grads = ({name: part.zeros() for name, part in self._parts.items()} for _ in range(2))
        twin.update_all(params, grads, 0.0)
        return twin

    def _check(self) -> None:
        """Raise a ValueError unless each process can update its parts, with numbers of the whole model."""
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
                    f"DTensors: {show(name)} is cut, {layout.placements}, and {reason}; replicate it, "
                    f"x.redistribute(placements=[Replicate()]), or give it other settings with groups={{...}}; to clip "
                    f"the norm of the whole model, use clip_global"
                )
            rules.append(own.rule.of(dtype, shape))
            cuts.add(cut)
        if len(cuts) > 1 and asks_model(rules):
            raise ValueError(
                f"DTensors: {type(self.optimizer).__name__}, or an option of it, takes sums over the whole model, in "
                f"which some parameters are cut along other dimensions of the mesh than others; cut all along the same"
            )
        self._counts = len(cuts) != 1 or self._torch.is_first(self._mesh, next(iter(cuts)))
        self._checked = settings

    def _decide(self, numbers: Sequence[tuple[str, float]]) -> list[float]:
        """Combine numbers over all parts; a part that several processes have counts once in sums."""
        mine = [(join, x if self._counts or join != "add" else 0.0) for join, x in numbers]
        return self._agreement.decide(mine)

    def _part(self, x: Any, name: Hashable, what: str) -> Any:
        """Return the part of a tensor on this process; raise if it has another layout than its parameter."""
        wanted = self._layouts.get(name)
        if x is None or (wanted is not None and self._torch.is_laid_out(x, wanted)):
            return None if x is None else self._torch.part_of(x)
        layout = self._torch.layout_of(x)
        if (layout is None) != (wanted is None):
            kinds = ["a DTensor" if one is not None else f"a {type(x).__name__}" for one in (layout, wanted)]
            raise TypeError(f"{what} of {show(name)} is {kinds[0]}, the parameter was {kinds[1]}; wanted {kinds[1]}")
        if layout is None or wanted is None:
            return x
        if layout.is_partial:
            raise TypeError(
                f"{what} of {show(name)} is Partial: the processes have terms of a sum, and the rule needs the sum; "
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
