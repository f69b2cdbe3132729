"""A kept plan: the tensors of a model's last update, whose next update costs far less than the first.

Nothing of the caller's is kept. At every call, each array is asked again for its type, dtype, shape, layout, flags and
address. If one is not as it was, the plan does not fit, and the update is prepared tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._arrays.namespace import address_of
from .._graph.rule import Rule
from .group import Group, Step


class KeptPlan:
    """What a launch for the same tensors needs again.

    Parameters
    ----------
    group : type of Group
        The engine's.
    rules : sequence of Rule
        The formula for each tensor.
    params : sequence of ndarray
        The parameters, each contiguous; not kept.
    slots : sequence of NamedTuple of ndarray
        The optimizer's own state of each, contiguous in the same order.
    rows : sequence of int
        Which of the plan's counts each tensor has.
    """

    def __init__(
        self,
        group: type[Group],
        rules: Sequence[Rule],
        params: Sequence[Any],
        slots: Sequence[Any],
        rows: Sequence[int],
    ) -> None:
        by_kind: dict[tuple[Rule, Any], list[int]] = {}
        for i, (rule, x) in enumerate(zip(rules, params, strict=True)):
            by_kind.setdefault((rule, group.kind(x)), []).append(i)
        self._groups = [
            group(rule, members, [params[i] for i in members], [slots[i] for i in members], [rows[i] for i in members])
            for (rule, _), members in by_kind.items()
        ]
        # the last addresses to be written; these and the ends in ascending order; whether they overlap each other
        self._last: tuple[bytes, Any, Any, bool] = b"", _NONE, np.zeros(1, np.int64), False

    def gather(
        self, params: list[Any], grads: list[Any], outs: list[Any] | None, resting: list[Any]
    ) -> list[Any] | None:
        """Find where everything lies now.

        Parameters
        ----------
        params, grads : list
            As many as the plan has tensors; what they are is found out here.
        outs : list or None
            Where the results go: `params` itself, other arrays, or None for new ones.
        resting : list
            The parameters that are not to change: where results go to `params`, results of their own.

        Returns
        -------
        list of ndarray or None
            The results' arrays. None if the plan does not fit, or something is to be written where something else is
            read or written.
        """
        groups = self._groups
        resting = [] if outs is None else resting
        if resting and not all(type(x) is np.ndarray and x.flags.forc for x in resting):
            return None
        for group in groups:
            if not group.gather(params, grads, outs):
                return None
        results = [None] * len(params) if outs is None else outs
        if outs is None:
            for group in groups:
                group.allocate(params, results)
        elif outs is not params and all(np.array_equal(group.table[0], group.table[2]) for group in groups):
            outs = params
        # what may overlap something: the results' arrays only if they are the caller's, and params only if they stay
        spans = [group.spans(written=3 if outs is None else 2, read=1 if outs is params else 0) for group in groups]
        if resting:
            spans.append((_NONE, _NONE, *np.array([(address_of(x), x.nbytes) for x in resting], np.int64).T))
        joined = spans[0] if len(spans) == 1 else [np.concatenate(of) for of in zip(*spans, strict=True)]
        return None if self._overlap(*joined) else results

    def prepare(self, step: Step, params: list[Any], grads: list[Any], outs: list[Any]) -> list[Callable[[], None]]:
        """Return what updates the tensors gathered; nothing in it can fail.

        Parameters
        ----------
        step : Step
            With numbers for each of the plan's counts, and a key for each of its tensors.
        params, grads, outs : list of ndarray
            What was gathered.

        Returns
        -------
        list of callable
            To be called while the arrays are alive.
        """
        return [group.prepare(step, params, grads, outs) for group in self._groups]

    def _overlap(self, starts: Any, sizes: Any, others: Any, lengths: Any) -> bool:
        """Whether one of the spans written overlaps another one, or one of the `others`; empty ones never do."""
        addresses = starts.tobytes()
        if addresses != self._last[0]:
            order = np.argsort(starts, kind="stable")
            order = order[sizes[order] > 0]
            starts = starts[order]
            ends = starts + sizes[order]
            self._last = addresses, starts, np.concatenate([[0], ends]), bool((ends[:-1] > starts[1:]).any())
        _, starts, ends, crossing = self._last
        # the last span that starts before the end of each other one; in front of the first, one that is empty
        before = np.searchsorted(starts, others + lengths)
        return crossing or bool(((ends[before] > others) & (lengths > 0)).any())


_NONE = np.zeros(0, np.int64)
