"""An optimizer on several processes, each of which updates its share of the parameters."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, Literal, Never

from .._arrays.tree import flatten
from .._arrays.typing import Tree
from .._engine.together import together
from .._settings.text import short
from .._step.explanation import Explanation
from ..optimizers.base import OptimizerBase
from ._agreement import Agreement
from ._bound import Bound
from ._model import Model
from ._processes import processes_of
from ._settings import check_same, settings_text, trial_of

REDUCES = ("mean", "sum")
ORDERS = ("engine", "ranks")


class Sharded:
    """An optimizer that several processes share: each keeps and updates its part of the state.

    All ranks hold the whole parameters and compute gradients of their own data. A step adds the gradients up, each rank
    updates its share, and the new parameters go to all (ZeRO, stage 1 [1]_). Elementwise rules see pieces of
    parameters; a rule or an option that needs a whole parameter keeps it on one rank (see `whole`). Norms of the
    model, gradients that are not finite, the loss that a schedule reads, and errors are decided for all ranks together.

    Every rank makes the same calls in the same order.

    Parameters
    ----------
    opt : OptimizerBase
        An optimizer without state, the same on all ranks; copied.
    comm : mpi4py.MPI.Comm or torch.distributed.ProcessGroup
        The processes. Those of MPI take NumPy arrays, those of PyTorch tensors.
    reduce : {"mean", "sum"}
        What becomes of the gradients, and of the loss, of all ranks.
    order : {"engine", "ranks"}
        How gradients are added up: as the communication library does, or in the order of the ranks, which has the same
        bits on every network and takes memory for one more copy of the gradients. Of 16 bits, MPI's are always added
        in the order of the ranks, in float32.

    Raises
    ------
    TypeError
        `opt` is no optimizer, or `comm` is neither of the two.
    ValueError
        `opt` has state, or an option is unknown.

    References
    ----------
    .. [1] Rajbhandari, Rasley, Ruwase and He, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models",
       SC 2020, arXiv:1910.02054, section 5.1.
    """

    def __init__(
        self,
        opt: OptimizerBase,
        comm: Any,
        *,
        reduce: Literal["mean", "sum"] = "mean",
        order: Literal["engine", "ranks"] = "engine",
    ) -> None:
        if not isinstance(opt, OptimizerBase):
            raise TypeError(f"Sharded: opt is a {type(opt).__name__}; wanted an optimizer, such as xpopt.Adam()")
        for name, value, known in (("reduce", reduce, REDUCES), ("order", order, ORDERS)):
            if value not in known:
                raise ValueError(f"Sharded: {name}={short(value)}; wanted {' or '.join(map(repr, known))}")
        if opt._parts.state.names:
            raise ValueError(
                f"Sharded: opt has state of {len(opt._parts.state.names)} whole parameters; wanted an optimizer "
                f"without any. Save it with opt.save(path), and load that with Sharded.load(path)"
            )
        self._opt = opt.copy()
        self._processes = processes_of(comm)
        self._agreement = Agreement(self._processes)
        self._reduce, self._order = reduce, order
        self._bound: Bound | None = None

    @property
    def hyperparameters(self) -> Mapping[str, Any]:
        """The settings of the optimizer, as `OptimizerBase.hyperparameters`."""
        return self._opt.hyperparameters

    @property
    def cur_step(self) -> int:
        """How many steps have been made, the same on all ranks."""
        return self._opt.cur_step

    @property
    def skipped(self) -> int:
        """How many steps ``nonfinite="skip"`` has left out, the same on all ranks."""
        return self._opt.skipped

    @property
    def cur_loss_scale(self) -> Any:
        """What the next loss is to be multiplied by, as `OptimizerBase.cur_loss_scale`; the same on all ranks."""
        return self._opt.cur_loss_scale

    @property
    def whole(self) -> Mapping[Hashable, str]:
        """The parameters that are not cut, each of which one rank updates, and why."""
        return MappingProxyType({} if self._bound is None else self._bound.model.whole)

    @property
    def state_bytes(self) -> int:
        """The bytes of the slots that this rank keeps."""
        entries = self._opt._parts.state.cache.values()
        arrays = [x for entry in entries for x in (entry.values() if isinstance(entry, dict) else [entry])]
        return sum(x.nbytes for x in arrays if hasattr(x, "nbytes"))

    def __repr__(self) -> str:
        """Write the optimizer, and which rank this is."""
        return f"Sharded({self._opt!r}, rank {self._processes.rank} of {self._processes.size})"

    def __reduce__(self) -> Never:
        """Refuse copies and pickles: the other ranks know nothing of them."""
        raise TypeError(
            "Sharded: an optimizer on several processes is neither copied nor pickled; opt.save(folder) on all ranks "
            "writes its state, which another Sharded loads after bind, with load(folder)"
        )

    def set_params(self, hparam_dict: Mapping[str, Any]) -> None:
        """Change hyperparameters, on all ranks together.

        Parameters
        ----------
        hparam_dict : mapping
            New values by name, as for `OptimizerBase.set_params`; the same on all ranks.

        Raises
        ------
        KeyError, TypeError, ValueError
            As for `OptimizerBase.set_params`, on any rank; or the ranks have different values; or other parameters
            would be cut than those that are. Nothing has changed.
        """
        with self._agreement.all_or_none():
            trial = trial_of(self._opt)
            trial.set_params(hparam_dict)
            if self._bound is not None:
                self._bound.model.check_layout(trial._parts.settings)
            self._agreement.decide([])
            check_same(self._processes, "settings would differ", [settings_text(trial)])
            self._agreement.decide([])
            self._opt.set_params(hparam_dict)

    def explain(self) -> Explanation:
        """Return which engine updates what this rank has of each parameter, and why not a faster one.

        Returns
        -------
        tuple
            As `OptimizerBase.explain`, of the parameters of which this rank updates elements.

        Raises
        ------
        RuntimeError
            `bind` was not called.
        """
        own = self._bound_for("explain").model.own
        return Explanation(row for row in self._opt.explain(own) if 0 not in own[row.name].shape)

    def bind(self, params: Tree) -> tuple[Any, Any]:
        """Lay parameters out in one array for each dtype, of which all ranks get the values of rank 0.

        Parameters
        ----------
        params : container of array, nested at will
            The parameters, of the same names, shapes and dtypes on all ranks. Tensors of PyTorch that require a
            gradient are made to lie in these arrays, and their gradients with them; others are only read.

        Returns
        -------
        params : containers of the kinds of `params`
            Views of these arrays, which `update_all` writes.
        grads : the same
            Arrays of zeros like them, into which the gradients of this rank are to be written before each step. Those
            of such tensors get there by themselves.

        Raises
        ------
        RuntimeError
            There are parameters already.
        TypeError
            `params` is no container of arrays of the library that the processes send.
        ValueError
            Optimizers or parameters differ between ranks, or an option cannot be kept beside one that reads the whole
            model.
        """
        with self._agreement.all_or_none():
            if self._bound is not None:
                raise RuntimeError("Sharded: bind was called already; make another Sharded for another model")
            model = Model(self._processes, self._opt._parts.settings, flatten(params, "params"))
            self._agreement.decide([])
            settings = f"{settings_text(self._opt)} {self._reduce} {self._order}"
            check_same(self._processes, "optimizer or parameters differ", [settings, *model.described()])
            model.lay_out(mean=self._reduce == "mean", by_rank=self._order == "ranks")
            self._agreement.decide([])
        for flat in model.flats:
            self._processes.spread(flat.params)
        self._bound = Bound(self._processes, model, params)
        return self._bound.params, self._bound.grads

    def update_all(self, cur_loss: Any = None) -> Any:
        """Make one step with the gradients of all ranks.

        Parameters
        ----------
        cur_loss : float or array of shape (), optional
            The loss of this rank; schedules and rules that read it get that of all, reduced as gradients are.

        Returns
        -------
        containers of the kinds of the parameters
            Those that `bind` returned, with new values.

        Raises
        ------
        RuntimeError
            `bind` was not called.
        ValueError
            An array that `bind` returned was replaced by another one.
        Exception
            What the update raised on any rank, on all of them, with that rank's number. Nothing has changed.
        """
        bound = self._bound_for("update_all")
        model = bound.model
        with self._agreement.all_or_none():
            bound.collect()
            loss = self._agreement.loss(cur_loss, self._reduce)
            for flat in model.flats:
                flat.grads.reduce()
            with together(self._agreement.decide):
                self._opt.update_all(model.own, model.grads, loss, out=model.own)
        model.share([flat.params for flat in model.flats])
        return bound.params

    def shared_errors(self) -> AbstractContextManager[None]:
        """Return a context in which what one rank raises is raised by all of them, at their next call.

        It is for what comes between two steps, such as reading data and computing gradients. Without it, the other
        ranks wait in their next step for the one that has failed.

        Returns
        -------
        context manager
            Nothing is sent where nothing fails.

        Examples
        --------
        >>> with opt.shared_errors():  # doctest: +SKIP
        ...     loss = compute_gradients(params, grads, batch)
        >>> opt.update_all(loss)  # doctest: +SKIP
        """
        return self._agreement.all_or_none()

    def averaged(self) -> Any:
        """Return the parameters to evaluate the model with, as `OptimizerBase.averaged`.

        Returns
        -------
        containers of the kinds of the parameters
            Averages, in new arrays, the same on all ranks.

        Raises
        ------
        RuntimeError
            `bind` was not called.
        ValueError
            The optimizer has no `average`, or has made no step.
        """
        bound = self._bound_for("averaged")
        model = bound.model
        with self._agreement.all_or_none():
            found = [self._processes.zeros(len(flat.params), flat.params.dtype, flat.params) for flat in model.flats]
            mine = {name: x for name, x in model.own.items() if model.grads[name] is not None}
            averages = self._opt.averaged(mine) if mine else {}
            for flat, x in zip(model.flats, found, strict=True):
                x[...] = flat.params
                for name in flat.section.sizes:
                    if name in averages and flat.section.owns(name, self._processes.rank):
                        model.piece(name, flat, x)[...] = averages[name]
            self._agreement.decide([])
        model.share(found)
        return bound.built(found)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the state: a file for each rank, and an index that makes them one checkpoint.

        The index is written last, in one move. Whatever interrupts a save, an older checkpoint in the folder stays.

        Parameters
        ----------
        folder : path-like
            Where to, a folder that all ranks see; it is made if it is not there.

        Raises
        ------
        RuntimeError
            `bind` was not called.
        ImportError, OSError, TypeError, ValueError
            As for `OptimizerBase.save`, on all ranks.
        """
        model = self._bound_for("save").model
        from ._files import save

        with self._agreement.all_or_none():
            save(self._opt, model, self._processes, self._agreement, folder)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Load settings, schedule, step and state: what `save` wrote on any number of ranks, or one optimizer's file.

        Each rank reads its share alone, without the checksums, which are of whole files.

        Parameters
        ----------
        path : path-like
            A folder that `save` wrote, or a file of `OptimizerBase.save`.

        Raises
        ------
        RuntimeError
            `bind` was not called.
        FileNotFoundError, OSError
            There is no such checkpoint, or it cannot be read.
        ValueError
            It is damaged or does not fit, on any rank; nothing has changed.
        """
        model = self._bound_for("load").model
        from ._files import load

        with self._agreement.all_or_none():
            load(self._opt, model, self._processes, self._agreement, path)

    # Helpers

    def _bound_for(self, what: str) -> Bound:
        if self._bound is None:
            raise RuntimeError(f"Sharded: {what} needs parameters; call params, grads = opt.bind(params) first")
        return self._bound
