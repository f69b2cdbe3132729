"""The parameters of a model in flat arrays, and the pieces that this rank updates."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from .._arrays.namespace import library_of
from .._arrays.parameter import Spec, dtype_text, examine
from .._arrays.tree import show, show_all
from .._state.settings import Settings
from ._cutting import asks_model, why_whole
from ._gradients import Gradients
from ._layout import Section
from ._processes import Processes


class Flat(NamedTuple):
    """The arrays of a section."""

    section: Section
    params: Any
    grads: Gradients


class Model:
    """Parameters on several ranks.

    Parameters
    ----------
    processes : Processes
        The ranks.
    settings : Settings
        The settings of the optimizer.
    leaves : mapping of hashable to array
        The parameters by name.

    Raises
    ------
    TypeError
        A parameter is not an array of the library that the processes send.
    ValueError
        An option with a number for each element is used with one that reads the whole model.
    """

    def __init__(self, processes: Processes, settings: Settings, leaves: Mapping[Hashable, Any]) -> None:
        self._processes, self._leaves = processes, leaves
        by_id: dict[int, Hashable] = {}
        for name, leaf in leaves.items():
            if (other := by_id.setdefault(id(leaf), name)) is not name and processes.library == "torch":
                raise ValueError(f"Sharded: {show(other)} and {show(name)} are the same tensor; pass it once")
        examined = {name: self._examined(name, leaf) for name, leaf in leaves.items()}
        self.specs: dict[Hashable, Spec] = {name: spec for name, (spec, _) in examined.items()}
        self._values = {name: value for name, (_, value) in examined.items()}
        self.whole, self.asks = self._cut(settings)
        self.flats: list[Flat] = []
        self.own: dict[Hashable, Any] = {}
        self.grads: dict[Hashable, Any] = {}

    def _examined(self, name: Hashable, leaf: Any) -> tuple[Spec, Any]:
        library, wanted = library_of(leaf), self._processes.library
        if library is None:
            raise TypeError(
                f"Sharded: parameter {show(name)} is a {type(leaf).__name__}; wanted a writable array of {wanted}, "
                f"of shape () for a number"
            )
        if library.name != wanted:
            raise TypeError(
                f"Sharded: parameter {show(name)} is an array of {library.name}; wanted one of {wanted}: over MPI, "
                f"parameters are NumPy arrays, over a process group of PyTorch, tensors"
            )
        _, spec, value, _ = examine(leaf, leaf, name)
        return spec, value

    def _cut(self, settings: Settings) -> tuple[dict[Hashable, str], bool]:
        """Return the parameters that settings need whole, with the reasons; and whether a rule may read the model."""
        found, rules = {}, []
        for name, spec in self.specs.items():
            own, dtype = settings.of(name, spec.shape), dtype_text(spec.dtype)
            if why := why_whole(own, dtype, spec.shape):
                found[name] = why
            if not own.frozen:
                rules.append(own.rule.of(dtype, spec.shape))
        asks = asks_model(dict.fromkeys(rules))
        for name, why in found.items() if asks else ():
            if settings.of(name, self.specs[name].shape).constants:
                raise ValueError(
                    f"Sharded: {why}, for {show(name)}, and another option or the rule may read the whole model, which "
                    f"cannot be combined; use numbers instead of arrays, or leave one of them out"
                )
        return found, asks

    def check_layout(self, settings: Settings) -> None:
        """Raise a ValueError if settings would cut other parameters than now.

        Parameters
        ----------
        settings : Settings
            The new settings of the optimizer.
        """
        whole, asks = self._cut(settings)
        others = [name for name in self.specs if (name in whole) != (name in self.whole)]
        if others or asks != self.asks:
            raise ValueError(
                f"Sharded: the new settings need another layout of {show_all(others) or 'the model'}; make an "
                f"optimizer with these settings, and a new Sharded: {settings.values}"
            )

    def described(self) -> list[str]:
        """Return a line about each parameter."""
        return [f"{show(name)}: {dtype_text(one.dtype)} {one.shape}" for name, one in self.specs.items()]

    def lay_out(self, *, mean: bool, by_rank: bool) -> None:
        """Make the flat arrays, with the values of the parameters.

        Parameters
        ----------
        mean, by_rank : bool
            As for `Gradients`.
        """
        sections: dict[Any, dict[Hashable, int]] = {}
        for name, spec in self.specs.items():
            device = str(getattr(self._leaves[name], "device", ""))
            key = dtype_text(spec.dtype), device, name not in self.whole
            sections.setdefault(key, {})[name] = prod(map(int, spec.shape))
        for (_, _, cut), sizes in sections.items():
            section, first = Section(sizes, self._processes.size, cut=cut), next(iter(sizes))
            spec = self.specs[first]
            flat = self._processes.zeros(section.length, spec.dtype, self._leaves[first])
            grads = Gradients(self._processes, section.borders, flat, spec.compute, mean=mean, by_rank=by_rank)
            for name in sizes:
                self._view(name, section, flat)[...] = self._values[name]
            self.flats.append(Flat(section, flat, grads))
        self._leaves = self._values = {}
        pieces = {name: self.piece(name, flat, flat.params) for flat in self.flats for name in flat.section.sizes}
        self.own = {name: pieces[name] for name in self.specs}
        self.grads = self._own_gradients()

    def section(self, name: Hashable) -> Section:
        """Return the section of a parameter."""
        return next(flat.section for flat in self.flats if name in flat.section.sizes)

    def _view(self, name: Hashable, section: Section, x: Any) -> Any:
        start = section.starts[name]
        return x[start : start + section.sizes[name]].reshape(self.specs[name].shape)

    def views(self, arrays: Sequence[Any]) -> dict[Hashable, Any]:
        """Return views of all parameters by name, of one array for each section."""
        pairs = list(zip(self.flats, arrays, strict=True))
        return {name: self._view(name, flat.section, x) for flat, x in pairs for name in flat.section.sizes}

    def piece(self, name: Hashable, flat: Flat, x: Any, first: int = 0) -> Any:
        """Return the piece of a parameter that this rank updates; it is empty if other ranks update all of it.

        Parameters
        ----------
        name : hashable
            The parameter.
        flat : Flat
            The flat array of its section.
        x : array
            An array like the flat array, or a part of it.
        first : int
            The index of the first element of `x` in the flat array.

        Returns
        -------
        array
            A view.
        """
        section, rank, shape = flat.section, self._processes.rank, self.specs[name].shape
        at, count = section.piece(name, rank)
        start = section.starts[name] + at - first if count else 0
        piece = x[start : start + count]
        if section.cut:
            return piece
        return piece.reshape(shape if section.owns(name, rank) else (0, *shape[1:]))

    def _own_gradients(self) -> dict[Hashable, Any]:
        """Return the gradients of all pieces; None for those that are not updated.

        If something is computed over the whole model, each rank updates all parameters, including those of which it has
        no element, so that all ranks make the same calls.

        Returns
        -------
        dict
            The gradients, by name.
        """
        rank, found = self._processes.rank, {}
        for flat in self.flats:
            first = flat.section.borders[rank] if self._processes.size > 1 else 0
            for name in flat.section.sizes:
                rests = not flat.section.cut and not self.asks and not flat.section.owns(name, rank)
                found[name] = None if rests else self.piece(name, flat, flat.grads.own, first)
        return {name: found[name] for name in self.own}

    def share(self, arrays: Sequence[Any]) -> None:
        """Exchange the regions of all ranks, in one array for each section."""
        for flat, x in zip(self.flats, arrays, strict=True):
            if self._processes.size > 1 and flat.section.length:
                self._processes.share(x, flat.section.borders)
