"""An optimizer on several processes, each of which updates a share of the parameters."""

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
    """An optimizer on several processes, among which its state is divided.

    Each process, called a rank, has all parameters and computes gradients of its own data. A step sums the gradients
    over the ranks, each rank updates its share of the parameters, and the new values are sent to all ranks (ZeRO,
    stage 1 [1]_). An elementwise rule updates pieces of parameters. If a rule or an option needs a whole parameter, one
    rank updates that parameter (see `whole`). Norms of the model, non-finite gradients, the loss that a schedule reads,
    and errors are handled by all ranks together.

    Every rank must make the same calls in the same order.

    Parameters
    ----------
    opt : OptimizerBase
        An optimizer without state, with the same settings on all ranks. It is copied.
    comm : mpi4py.MPI.Comm or torch.distributed.ProcessGroup
        The processes. With MPI, parameters are NumPy arrays; with PyTorch, tensors.
    reduce : {"mean", "sum"}
        How the gradients and the losses of the ranks are combined.
    order : {"engine", "ranks"}
        The order in which gradients are summed: that of the communication library, or that of the ranks. The latter
        gives the same bits on every network, and takes memory for one more copy of the gradients. Over MPI, gradients
        of 16 bits are always summed in the order of the ranks, in float32.

    Raises
    ------
    TypeError
        `opt` is not an optimizer, or `comm` is neither a communicator nor a process group.
    ValueError
        `opt` has state, or `reduce` or `order` has an unknown value.

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
                f"Sharded: opt has state of {len(opt._parts.state.names)} parameters; wanted an optimizer without "
                f"state. Save this one with opt.save(path), and read the file with Sharded.load(path) after bind"
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
        """The number of steps made, the same on all ranks."""
        return self._opt.cur_step

    @property
    def skipped(self) -> int:
        """The number of steps skipped by ``nonfinite="skip"``, the same on all ranks."""
        return self._opt.skipped

    @property
    def cur_loss_scale(self) -> Any:
        """The factor for the next loss, as `OptimizerBase.cur_loss_scale`; the same on all ranks."""
        return self._opt.cur_loss_scale

    @property
    def whole(self) -> Mapping[Hashable, str]:
        """The parameters that are updated whole, each by one rank, with the reasons."""
        return MappingProxyType({} if self._bound is None else self._bound.model.whole)

    @property
    def state_bytes(self) -> int:
        """The size of the state on this rank, in bytes."""
        entries = self._opt._parts.state.cache.values()
        arrays = [x for entry in entries for x in (entry.values() if isinstance(entry, dict) else [entry])]
        return sum(x.nbytes for x in arrays if hasattr(x, "nbytes"))

    def __repr__(self) -> str:
        """Return the text of the optimizer, with the rank."""
        return f"Sharded({self._opt!r}, rank {self._processes.rank} of {self._processes.size})"

    def __reduce__(self) -> Never:
        """Refuse copies and pickles, which would be made on one rank only."""
        raise TypeError(
            "Sharded: an optimizer on several processes cannot be copied or pickled; opt.save(folder) on all ranks "
            "writes its state, which load(folder) of another Sharded reads after bind"
        )

    def set_params(self, hparam_dict: Mapping[str, Any]) -> None:
        """Change hyperparameters on all ranks.

        Parameters
        ----------
        hparam_dict : mapping
            New values by name, as for `OptimizerBase.set_params`. They must be the same on all ranks.

        Raises
        ------
        KeyError, TypeError, ValueError
            As for `OptimizerBase.set_params`, on any rank; or the values differ between ranks; or the new settings
            would cut other parameters than now. Nothing has changed.
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
        """Return which engine updates the piece of each parameter on this rank, and why not a faster one.

        Returns
        -------
        tuple
            As `OptimizerBase.explain`, for the parameters of which this rank updates elements.

        Raises
        ------
        RuntimeError
            `bind` was not called before.
        """
        own = self._bound_for("explain").model.own
        return Explanation(row for row in self._opt.explain(own) if 0 not in own[row.name].shape)

    def bind(self, params: Tree) -> tuple[Any, Any]:
        """Copy the parameters of rank 0 into one flat array for each dtype, on all ranks.

        Parameters
        ----------
        params : container of array, nested at will
            The parameters, with the same names, shapes and dtypes on all ranks. PyTorch tensors that require a
            gradient become views of the flat arrays, and so do their gradients. Other arrays are only read.

        Returns
        -------
        params : containers of the kinds of `params`
            Views of the flat arrays, into which `update_all` writes.
        grads : the same
            Arrays of the same shapes, which are 0. Write the gradients of this rank into them before each step. For
            PyTorch tensors that require a gradient, ``backward`` does this.

        Raises
        ------
        RuntimeError
            `bind` was already called.
        TypeError
            `params` is not a container of arrays of the library that `comm` needs.
        ValueError
            The optimizers or the parameters differ between ranks; or an option with a number for each element is used
            together with a rule or an option that reads the whole model.
        """
        with self._agreement.all_or_none():
            if self._bound is not None:
                raise RuntimeError("Sharded: bind was already called; make a new Sharded for another model")
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
            The loss of this rank. Schedules and rules get the losses of all ranks, combined according to `reduce`.

        Returns
        -------
        containers of the kinds of the parameters
            The parameters that `bind` returned, with new values.

        Raises
        ------
        RuntimeError
            `bind` was not called before.
        ValueError
            An array that `bind` returned was replaced by another array.
        Exception
            If the update raises on one rank, all ranks raise its error, with the number of that rank. Nothing has
            changed.
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
        """Return a context in which an error of one rank is raised by all ranks, in their next call.

        Use it for code between two steps, such as reading data and computing gradients. Without it, the other ranks
        would wait in their next step for the rank that has failed.

        Returns
        -------
        context manager
            If no rank fails, no message is sent.

        Examples
        --------
        >>> with opt.shared_errors():  # doctest: +SKIP
        ...     loss = compute_gradients(params, grads, batch)
        >>> opt.update_all(loss)  # doctest: +SKIP
        """
        return self._agreement.all_or_none()

    def averaged(self) -> Any:
        """Return the averaged parameters, as `OptimizerBase.averaged`.

        Returns
        -------
        containers of the kinds of the parameters
            Averages, in new arrays, the same on all ranks.

        Raises
        ------
        RuntimeError
            `bind` was not called before.
        ValueError
            The optimizer keeps no averages, or has made no step.
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
        """Write the state: a file for each rank, and an index of the files.

        The index is written last, in one move, so that an interrupted save leaves an older checkpoint in the folder
        valid.

        Parameters
        ----------
        folder : path-like
            A folder that all ranks can write. It is created if it does not exist.

        Raises
        ------
        RuntimeError
            `bind` was not called before.
        ImportError, OSError, TypeError, ValueError
            As for `OptimizerBase.save`, raised on all ranks.
        """
        model = self._bound_for("save").model
        from ._files import save

        with self._agreement.all_or_none():
            save(self._opt, model, self._processes, self._agreement, folder)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Load settings, schedule, step count and state, saved by any number of ranks or by a single optimizer.

        Each rank reads only its share. It does not verify the checksums, which are those of whole files.

        Parameters
        ----------
        path : path-like
            A folder that `save` wrote, or a file of `OptimizerBase.save`.

        Raises
        ------
        RuntimeError
            `bind` was not called before.
        FileNotFoundError, OSError
            The checkpoint does not exist or cannot be read.
        ValueError
            The checkpoint is damaged or does not fit, on any rank. Nothing has changed.
        """
        model = self._bound_for("load").model
        from ._files import load

        with self._agreement.all_or_none():
            load(self._opt, model, self._processes, self._agreement, path)

    # Helpers

    def _bound_for(self, what: str) -> Bound:
        if self._bound is None:
            raise RuntimeError(f"Sharded: {what} was called before bind; call params, grads = opt.bind(params) first")
        return self._bound
