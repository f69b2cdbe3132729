"""State that was loaded and has met no parameter yet: it goes to where the parameter is, at the first update."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from .._arrays.library import Library, is_complex
from .._arrays.namespace import library_of
from .._arrays.parameter import Spec, dtype_text
from .._arrays.tree import show
from .._arrays.typing import Array
from .._graph.rule import Rule
from .._graph.slots import LIKE, narrower
from .entry import Record


class Stored(NamedTuple):
    """What a checkpoint says of one parameter.

    `shape` and `dtype` are the parameter's, None where they were not known; `entry` has the form of the cache, and is
    in the cache, or None where that holds another entry.
    """

    entry: Any
    shape: tuple[int, ...] | None
    dtype: str | None
    t: int

    def of(self, entry: Any) -> Stored:
        """Return what is known where the cache holds `entry`."""
        return self if self.entry is entry else self._replace(entry=None)

    def place(self, library: Library, spec: Spec, param: Array, name: Hashable, rule: Rule) -> Record:
        """Return the state in arrays of the library and on the device of a parameter.

        Parameters
        ----------
        library : Library
            Whose array the parameter is.
        spec : Spec
            What it is.
        param : array
            The parameter itself.
        name : hashable
            Its name.
        rule : Rule
            The rule that updates it.

        Returns
        -------
        Record
            An entry in the form of the cache, and the parameter's description. Arrays that are unlike the parameter are
            left as they are, for others to refuse.

        Raises
        ------
        ValueError
            The state is that of a parameter of another shape or dtype.
        """
        if self.shape not in (None, spec.shape) or self.dtype not in (None, library.dtype_name(spec.dtype)):
            raise ValueError(
                f"{show(name)} was loaded as the state of a parameter that is {self.dtype} of shape {self.shape}, and "
                f"this one is {spec.describe()}; load the checkpoint with like=, whose error lists the remedies"
            )

        converted = [] if self.dtype is None else narrower(dtype_text(spec.compute))

        def placed(x: Any, slot: str) -> Any:
            source = library_of(x)
            dtype = dtype_of(rule, slot, library, spec)
            if source is None or source.dtype_name(x.dtype) not in {library.dtype_name(dtype), *converted}:
                return x
            return moved(x, library, spec, param, dtype)

        entry = self.entry
        if isinstance(entry, dict):
            entry = {key: placed(x, key) for key, x in entry.items()}
        else:
            entry = placed(entry, next(iter(rule.fields), ""))
        return Record(entry, spec, self.t)


def dtype_of(rule: Rule, slot: str, library: Library, spec: Spec) -> Any:
    """Return the dtype that a rule keeps a slot of a parameter in, or one that is not its own any more."""
    stated = dict(zip(rule.fields, rule.specs, strict=True)).get(slot, LIKE)
    return spec.compute if stated.is_like else library.dtype(stated.dtype_for(dtype_text(spec.compute)))


def moved(x: Array, library: Library, spec: Spec, param: Array, dtype: Any) -> Array:
    """Return a slot as an array of a parameter's library and device, and of a dtype; `x` itself if it is one."""
    source = library_of(x)
    assert source is not None
    if source is library and x.dtype == dtype and library.place(x) == spec.device:
        return x
    (values,) = source.to_numpy([x])

    def like(param: Array) -> Array:
        if values.shape == spec.shape and is_complex(dtype) == is_complex(param.dtype):
            return library.xp.astype(param, dtype, copy=False)
        return library.full(values.shape, 0.0, dtype, param)

    return library.from_numpy(values, library.guard(like)(param))
