"""Gradients that are not finite, or too large for a rule: whether a step has one, on the host or on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from .._arrays.namespace import library_of
from .._arrays.parameter import dtype_text
from .._arrays.tree import show
from .._arrays.typing import Array, Scalars
from .._engine.limits import limit
from .._engine.together import any_of_all, is_together
from .._graph.rule import Rule
from .magnitudes import SAFE, Place, all_true, by_place, compute_of, largest_of, stacked, within_limit
from .reduced import all_finite, sizes_of

_SHOWN = 10
"""Names in a message."""

Formula = tuple[Rule, Scalars]
"""A rule, and the numbers that it reads."""


class Guard:
    """Says of one step whether its gradients are finite, and what the rule multiplies them to.

    Gradients that are all on one asynchronous device are tested there, without a sync. Others are measured on the host;
    `refuses` says whether one of them is not finite. So are all where several processes decide together.

    Parameters
    ----------
    policy : {"skip", "raise"}
        What becomes of a step that is refused. The host waits once for each device to raise.
    gradients : mapping of hashable to array
        By parameter name, as a rule may see them.

    Raises
    ------
    FloatingPointError
        One is not finite, and that is to be raised.
    TypeError
        So it is, and one is a Dask array, which has no values yet.
    """

    def __init__(self, policy: str, gradients: Mapping[Hashable, Array]) -> None:
        self._policy = policy
        self._gradients = gradients
        self._sizes: dict[Hashable, float] = {}
        places = by_place(gradients)
        is_one = policy == "skip" and len(places) == 1 and not is_together()
        self._place = next(iter(places)) if is_one else None
        self.refuses = False
        if self._place is not None and self._place.lazy:
            return
        self._place = None
        for place, names in places.items():
            if policy == "raise" and place.library.name == "dask":
                raise TypeError(
                    f"gradient of {show(names[0])} is a Dask array, which has no values yet, and nonfinite='raise' "
                    f"needs them; use nonfinite='skip', which decides when it is computed"
                )
            self._sizes.update(zip(names, place.sizes([gradients[name] for name in names]), strict=True))
        infinite = [name for name, size in self._sizes.items() if not math.isfinite(size)]
        self.refuses = any_of_all(self._refuse(infinite, "not finite"))

    def proceed(
        self,
        formulas: Mapping[Any, Formula],
        of: Mapping[Hashable, Any],
        params: Callable[[], Mapping[Hashable, Array]],
        entries: Mapping[Hashable, Any],
    ) -> Any:
        """Say whether the step is to be made, one that is not refused so far.

        Parameters
        ----------
        formulas : mapping of object to (Rule, Scalars)
            The formula and the numbers of the step for each group and count.
        of : mapping of hashable to object
            Which of them each parameter has.
        params : callable
            Returns the parameters, of which the size matters to some transforms.
        entries : mapping of hashable to object
            What the cache holds, by name.

        Returns
        -------
        None, False or array of shape ()
            None to go on, False to leave the step out, an array of bool where the device decides.

        Raises
        ------
        FloatingPointError
            It is not, and that is to be raised.
        """
        each = [(one, h) for rule, h in formulas.values() for one in rule.among or (rule,)]
        finite = all_finite(formulas, of, self._gradients, entries) if any(sizes_of(one, h) for one, h in each) else {}
        own = (formulas[of[name]] for name in self._gradients)
        if self._place is not None:
            return self._decided_at(self._place, self._limits(own, params), finite)
        beyond: list[Hashable] = []
        if finite or not self._are_small(each):
            limits = self._limits(own, params)
            beyond = [
                name
                for name, size in self._sizes.items()
                if not self._is_within(name, size, *limits[name]) or not finite.get(name, True)
            ]
        rules = ", ".join(dict.fromkeys(formulas[of[name]][0].name for name in beyond))
        refused = self._refuse(beyond, f"too large for the products of {rules}")
        return False if any_of_all(refused) else None

    def _are_small(self, formulas: Sequence[Formula]) -> bool:
        """Return whether no gradient is larger than any of the formulas takes."""
        if any(rule.limit is not None for rule, _ in formulas):
            return False
        lowest = min((limit(rule, h, "float32") for rule, h in formulas), default=0.0)
        return max(self._sizes.values(), default=-1.0) <= lowest

    def _limits(
        self, formulas: Iterable[Formula], params: Callable[[], Mapping[Hashable, Array]]
    ) -> dict[Hashable, tuple[float | Array, float | None]]:
        """Return the largest magnitude that each gradient may have, and the norm to which it is clipped before."""
        each = zip(self._gradients, formulas, strict=True)
        return {name: (self._limit(rule, h, name, params), _bound_of(rule, h)) for name, (rule, h) in each}

    def _limit(
        self, rule: Rule, h: Scalars, name: Hashable, params: Callable[[], Mapping[Hashable, Array]]
    ) -> float | Array:
        """Return the largest magnitude that a gradient may have; on the device, where that depends on the parameter."""
        grad = self._gradients[name]
        rule = rule.chosen(dtype_text(grad.dtype), tuple(grad.shape))
        largest = limit(rule, h, compute_of(grad))
        return largest if rule.limit is None else rule.limit(h, largest, lambda: self._size(params()[name]))

    def _decided_at(self, place: Place, limits: Mapping[Hashable, Any], finite: Mapping[Hashable, Array]) -> Array:
        """Return what the device decides, an array of bool."""
        within = place.together(list(self._gradients.values()), *map(list, zip(*limits.values(), strict=True)))
        library = place.library
        return all_true(library)(stacked(library)(within, *finite.values())) if finite else within

    def _size(self, param: Array) -> float | Array:
        library = library_of(param)
        assert library is not None
        return largest_of(library)(param) if self._place is not None else float(largest_of(library)(param))

    def _is_within(self, name: Hashable, size: float, largest: Any, clip_norm: float | None) -> bool:
        if size <= largest or (clip_norm is not None and clip_norm * SAFE <= largest):
            return True
        grad = self._gradients[name]
        library = library_of(grad)
        assert library is not None
        if clip_norm is None:
            return float(largest_of(library)(grad)) <= largest
        return bool(within_limit(library)(grad, largest, clip_norm))

    def _refuse(self, names: Sequence[Hashable], what: str) -> bool:
        """Return whether there are any names, if that is no error."""
        if names and self._policy == "raise":
            listed = [show(name) for name in names]
            listed = [*listed[:_SHOWN], *(["..."] if len(listed) > _SHOWN else [])]
            raise FloatingPointError(
                f"{what}: the gradient of {', '.join(listed)} ({len(names)} of {len(self._gradients)}). Nothing has "
                f"changed; nonfinite='skip' skips such steps"
            )
        return bool(names)


def _bound_of(rule: Rule, h: Scalars) -> float | None:
    """Return the largest norm of a gradient, if a rule sees it clipped as it came."""
    # what a transform has made of it is smaller; as it came, it is within the limits, or refused
    measured = any(one.measured is not None for one in rule.among or (rule,))
    return None if measured else h.clip_norm
