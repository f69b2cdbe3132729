"""An optimizer on several processes, each of which updates its share of the parameters."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager
from math import prod
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from .._arrays.namespace import library_of
from .._arrays.parameter import Spec, dtype_text, examine
from .._arrays.tree import flatten, rebuild, show, show_all
from .._arrays.typing import Tree
from .._engine.together import together
from .._settings.text import short
from .._state.settings import Settings
from .._step.loss import check_loss
from ..optimizers.base import OptimizerBase
from ._agreement import Agreement
from ._cutting import asks_model, why_whole
from ._gradients import Gradients
from ._layout import Section
from ._processes import processes_of

REDUCES = ("mean", "sum")
ORDERS = ("engine", "ranks")


class _Flat(NamedTuple):
    """The arrays of a section."""

    section: Section
    params: Any
    grads: Gradients


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
        self._tree: Any = None
        self._params: Any = None
        self._specs: dict[Hashable, Spec] = {}
        self._whole: dict[Hashable, str] = {}
        self._asks = False  # whether something is found of the whole model
        self._flats: list[_Flat] = []
        self._own: dict[Hashable, Any] = {}
        self._grads: dict[Hashable, Any] = {}

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
        return MappingProxyType(self._whole)

    @property
    def state_bytes(self) -> int:
        """The bytes of the slots that this rank keeps."""
        entries = self._opt._parts.state.cache.values()
        arrays = [x for entry in entries for x in (entry.values() if isinstance(entry, dict) else [entry])]
        return sum(x.nbytes for x in arrays if hasattr(x, "nbytes"))

    def __repr__(self) -> str:
        """Write the optimizer, and which rank this is."""
        return f"Sharded({self._opt!r}, rank {self._processes.rank} of {self._processes.size})"

    def bind(self, params: Tree) -> tuple[Any, Any]:
        """Lay parameters out in one array for each dtype, of which all ranks get the values of rank 0.

        Parameters
        ----------
        params : container of array, nested at will
            The parameters, of the same names, shapes and dtypes on all ranks; only read.

        Returns
        -------
        params : containers of the kinds of `params`
            Views of these arrays, which `update_all` writes.
        grads : the same
            Arrays of zeros like them, into which the gradients of this rank are to be written before each step.

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
            if self._tree is not None:
                raise RuntimeError("Sharded: bind was called already; make another Sharded for another model")
            leaves = flatten(params, "params")
            specs = {name: self._examined(name, leaf) for name, leaf in leaves.items()}
            whole, asks = self._why_whole(self._opt._parts.settings, specs)
            self._check_same(specs)
            self._specs, self._whole, self._asks = specs, whole, asks
            self._flats = self._laid_out(leaves)
            self._agreement.decide([])
        for flat in self._flats:
            self._processes.spread(flat.params)
        self._own = {name: self._piece(name, flat, flat.params) for flat in self._flats for name in flat.section.sizes}
        self._own = {name: self._own[name] for name in leaves}
        self._grads = self._own_gradients()
        self._tree = params
        self._params = self._views([flat.params for flat in self._flats])
        return self._params, self._views([flat.grads.flat for flat in self._flats])

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
        Exception
            What the update raised on any rank, on all of them, with that rank's number. Nothing has changed.
        """
        self._check_bound("update_all")
        with self._agreement.all_or_none():
            loss = self._loss_of_all(cur_loss)
            for flat in self._flats:
                flat.grads.reduce()
            with together(self._agreement.decide):
                self._opt.update_all(self._own, self._grads, loss, out=self._own)
        for flat in self._flats:
            self._share(flat, flat.params)
        return self._params

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
        self._check_bound("averaged")
        with self._agreement.all_or_none():
            rank = self._processes.rank
            flats = [self._processes.zeros(len(flat.params), flat.params.dtype, flat.params) for flat in self._flats]
            mine = {name: x for name, x in self._own.items() if self._grads[name] is not None}
            averages = self._opt.averaged(mine) if mine else {}
            for flat, found in zip(self._flats, flats, strict=True):
                found[...] = flat.params
                for name in flat.section.sizes:
                    if name in averages and flat.section.owns(name, rank):
                        self._piece(name, flat, found)[...] = averages[name]
            self._agreement.decide([])
        for flat, found in zip(self._flats, flats, strict=True):
            self._share(flat, found)
        return self._views(flats)

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
        self._check_bound("save")
        from ._files import save

        with self._agreement.all_or_none():
            save(self, folder)

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
        self._check_bound("load")
        from ._files import load

        with self._agreement.all_or_none():
            load(self, path)

    # Helpers

    def _check_bound(self, what: str) -> None:
        if self._tree is None:
            raise RuntimeError(f"Sharded: {what} needs parameters; call params, grads = opt.bind(params) first")

    def _examined(self, name: Hashable, leaf: Any) -> Spec:
        library = library_of(leaf)
        wanted = self._processes.library
        if library is None or library.name != wanted:
            raise TypeError(
                f"Sharded: parameter {show(name)} is a {type(leaf).__name__}; these processes send arrays of {wanted}. "
                f"MPI takes NumPy's, a process group of PyTorch takes tensors"
            )
        return examine(leaf, leaf, name)[1]

    def _why_whole(self, settings: Settings, specs: Mapping[Hashable, Spec]) -> tuple[dict[Hashable, str], bool]:
        """Return the parameters that stay whole under some settings, and why; and whether a rule reads the model."""
        found, rules = {}, []
        for name, spec in specs.items():
            own, dtype = settings.of(name, spec.shape), dtype_text(spec.dtype)
            if why := why_whole(own, dtype, spec.shape):
                found[name] = why
            rules.append(own.rule.of(dtype, spec.shape))
        asks = asks_model(dict.fromkeys(rules))
        for name in found if asks else ():
            if settings.of(name, specs[name].shape).constants:
                raise ValueError(
                    f"Sharded: {found[name]}, for {show(name)}, beside an option or a rule that may read the whole model; "
                    f"give numbers in the place of arrays, or leave that out"
                )
        return found, asks

    def _check_layout(self, settings: Settings) -> None:
        """Raise a ValueError if settings would cut other parameters than those that are cut."""
        whole, asks = self._why_whole(settings, self._specs)
        others = whole.keys() ^ self._whole.keys()
        if others or asks != self._asks:
            raise ValueError(
                f"Sharded: with the settings that come, {show_all(others) or 'the model'} would be laid out in another "
                f"way; make the optimizer with these settings before Sharded: {settings.values}"
            )

    def _section(self, name: Hashable) -> Section:
        return next(flat.section for flat in self._flats if name in flat.section.sizes)

    def _check_same(self, specs: Mapping[Hashable, Spec]) -> None:
        """Raise a ValueError if another rank has other settings or parameters than rank 0."""
        settings = f"{type(self._opt).__name__} {self._opt._parts.keywords()} {self._reduce} {self._order}"
        parameters = [f"{show(name)}: {dtype_text(one.dtype)} {one.shape}" for name, one in specs.items()]
        mine = "\n".join([settings, *parameters])
        first = self._processes.broadcast(mine, 0)
        if mine != first:
            pairs = zip(mine.split("\n") + [""] * first.count("\n"), first.split("\n") + [""] * mine.count("\n"))
            here, there = next(pair for pair in pairs if pair[0] != pair[1])
            raise ValueError(
                f"Sharded: optimizer or parameters differ from those of rank 0: {here or 'nothing'}, where rank 0 has "
                f"{there or 'nothing'}; make them alike on all ranks"
            )

    def _laid_out(self, leaves: Mapping[Hashable, Any]) -> list[_Flat]:
        """Return the arrays of all sections, with the values of the parameters."""
        sections: dict[Any, dict[Hashable, int]] = {}
        for name, spec in self._specs.items():
            key = dtype_text(spec.dtype), str(getattr(leaves[name], "device", "")), name not in self._whole
            sections.setdefault(key, {})[name] = prod(spec.shape)
        flats = []
        for (_, _, cut), sizes in sections.items():
            section = Section(sizes, self._processes.size, cut=cut)
            first = next(iter(sizes))
            spec, like = self._specs[first], leaves[first]
            flat = self._processes.zeros(section.length, spec.dtype, like)
            mean, by_rank = self._reduce == "mean", self._order == "ranks"
            grads = Gradients(self._processes, section.borders, flat, spec.compute, mean=mean, by_rank=by_rank)
            for name in sizes:
                self._view(name, section, flat)[...] = examine(leaves[name], leaves[name], name)[2]
            flats.append(_Flat(section, flat, grads))
        return flats

    def _view(self, name: Hashable, section: Section, flat: Any) -> Any:
        start = section.starts[name]
        return flat[start : start + section.sizes[name]].reshape(self._specs[name].shape)

    def _views(self, flats: list[Any]) -> Any:
        """Return all parameters as the caller has them, out of one array for each section."""
        views = {
            name: self._view(name, flat.section, found)
            for flat, found in zip(self._flats, flats, strict=True)
            for name in flat.section.sizes
        }
        return rebuild(self._tree, views.__getitem__)

    def _piece(self, name: Hashable, flat: _Flat, x: Any, first: int = 0) -> Any:
        """Return what this rank updates of a parameter, out of an array that begins at element `first` of the flat one.

        A whole parameter that another rank updates is empty, and so are pieces that lie in the regions of others.
        """
        section, shape = flat.section, self._specs[name].shape
        at, count = section.piece(name, self._processes.rank)
        start = section.starts[name] + at - first if count else 0
        piece = x[start : start + count]
        if section.cut:
            return piece
        return piece.reshape(shape if section.owns(name, self._processes.rank) else (0, *shape[1:]))

    def _own_gradients(self) -> dict[Hashable, Any]:
        """Return the gradients of all pieces; None where there is nothing to do.

        Where something is found of the whole model, every rank asks for all parameters, though it has no element of
        some: so all ask the same.
        """
        rank, found = self._processes.rank, {}
        for flat in self._flats:
            first = flat.section.borders[rank] if self._processes.size > 1 else 0
            for name in flat.section.sizes:
                rests = not flat.section.cut and not self._asks and not flat.section.owns(name, rank)
                found[name] = None if rests else self._piece(name, flat, flat.grads.own, first)
        return {name: found[name] for name in self._own}

    def _share(self, flat: _Flat, x: Any) -> None:
        if self._processes.size > 1 and flat.section.length:
            self._processes.share(x, flat.section.borders)

    def _loss_of_all(self, cur_loss: Any) -> float | None:
        """Return the loss of all ranks; None if none has one."""
        check_loss(cur_loss, "")
        mine = 0.0 if cur_loss is None else float(cur_loss)
        total, given = self._agreement.decide([("add", mine), ("add", float(cur_loss is not None))])
        ranks = self._processes.size
        if 0 < given < ranks:
            raise ValueError(f"Sharded: cur_loss is None on {ranks - int(given)} of {ranks} ranks; give it on all, or none")
        if not given:
            return None
        return total / ranks if self._reduce == "mean" else total
