"""The graph of each rule, for all engines: read twice, and once more for each optimizer that is made of the rule.

A rule must be a pure function of its arguments. One that draws random numbers, or reads a variable that changes, is
not, and what it computes cannot be in a kernel.
"""

from __future__ import annotations

from .._arrays.typing import Scalars
from .node import OF_MODEL, Graph, Node
from .rule import Rule
from .trace import InPlaceError, Tape, UntraceableError, trace


def graph_of(rule: Rule, h: Scalars, *, clipped: bool) -> Graph:
    """Return what a rule computes.

    Parameters
    ----------
    rule, h, clipped : as for `trace`
        The same.

    Returns
    -------
    Graph
        One for each rule and `clipped`, to be read.

    Raises
    ------
    InPlaceError, UntraceableError
        As for `trace`; the latter also where the rule computes something else when it is traced again.
    """
    key = "read", clipped
    found: tuple[Graph, Tape] | None = rule.made.get(key)
    if found is not None:
        return found[0]
    refused = "refused", clipped
    if refused in rule.made:
        kind, message = rule.made[refused]
        raise kind(message)
    tape = Tape(rule.code)
    try:
        graph = trace(rule, h, clipped=clipped, tape=tape)
        _check_same(graph, trace(rule, h, clipped=clipped, tape=tape.again()))
    except (InPlaceError, UntraceableError) as error:
        rule.made[refused] = type(error), str(error)
        raise
    found = rule.made.setdefault(key, (graph, tape))
    return found[0]


def read_again(rule: Rule) -> bool:
    """Return whether a rule reads as when it was traced; if not, it has no graph from now on."""
    read = [(*found, clipped) for clipped in (False, True) if (found := rule.made.get(("read", clipped))) is not None]
    try:
        for graph, tape, clipped in read:
            _check_same(graph, trace(rule, clipped=clipped, tape=tape.again()))
    except (InPlaceError, UntraceableError) as error:
        for clipped in (False, True):
            rule.made["refused", clipped] = type(error), str(error)
            rule.made.pop(("read", clipped), None)
        return False
    return True


def reads_model(rule: Rule) -> bool:
    """Return whether a rule reads ``h.model``; of several, whether all do. One that cannot be traced does not say."""
    found: bool | None = rule.made.get("reads model")
    if found is None:
        try:
            found = all(any(node.op in OF_MODEL for node in trace(one).reductions()) for one in rule.among or (rule,))
        except (InPlaceError, UntraceableError):
            found = False
        rule.made["reads model"] = found
    return found


def _check_same(graph: Graph, again: Graph) -> None:
    if graph.outputs != again.outputs:
        first, second = _difference(graph.outputs, again.outputs)
        raise UntraceableError(
            f"{graph.name} cannot be traced: it computed with {first!r}, and when it was traced again, with "
            f"{second!r}. A kernel would always use the first: draw random numbers, and read variables that change, "
            f"in scalars(h), which runs at each update"
        )


def _difference(first: tuple[Node, ...], second: tuple[Node, ...]) -> tuple[Node, Node]:
    """Return what differs itself, and not only in its arguments."""
    pairs = zip(first, second, strict=True)
    one, other = next(pair for pair in pairs if pair[0] is not pair[1])
    return (one, other) if one.op != other.op or not one.args else _difference(one.args, other.args)
