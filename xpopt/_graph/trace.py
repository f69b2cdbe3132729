"""The tracer: a small array-API namespace that a rule runs on unchanged, and that writes down what it does."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NoReturn

from .._arrays.reducing import is_whole
from .._arrays.typing import Scalars
from .node import COMPARISONS, LOGICAL, REDUCTIONS, TRUTHS, Graph, Kind, Node, Value
from .questions import OfModel, Question
from .rule import Rule, taken_apart
from .slots import one


class UntraceableError(TypeError):
    """A rule does what cannot be written down as elementwise work and sums; the message says what and where."""


class InPlaceError(TypeError):
    """A rule changes an array in place: no engine may run it."""


class Tape:
    """Makes nodes, each of its kind once.

    Parameters
    ----------
    code : code, optional
        Of the rule, whose local variables are asked for.
    """

    def __init__(self, code: CodeType | None = None) -> None:
        self._nodes: dict[tuple[Any, ...], Node] = {}
        self._code = code
        self._frames: dict[FrameType, None] = {}

    def node(self, op: str, kind: Kind, args: tuple[Node, ...] = (), value: Value = None) -> Node:
        key = (op, kind, args, type(value), repr(value))  # by repr: -0.0 is not 0.0, and nan is nan
        return self._nodes.get(key) or self._nodes.setdefault(key, Node(op, kind, args, value))

    def again(self) -> Tape:
        """Return a tape that makes the same nodes of what is equal, and looks for no variables."""
        twin = Tape()
        twin._nodes = self._nodes
        return twin

    def look(self) -> None:
        """Note the frame in which the rule runs, which is behind the calling one.

        It outlives the rule's return, and so do its variables. A profiler or debugger neither notices nor is disturbed.
        """
        frame: FrameType | None = sys._getframe(1) if self._code is not None else None
        while frame is not None and frame.f_code is not self._code:
            frame = frame.f_back
        if frame is not None:
            self._frames[frame] = None

    def take_variables(self) -> dict[str, Any]:
        """Return the variables of the frames that were noted, and let go of these."""
        variables = {name: x for frame in self._frames for name, x in frame.f_locals.items()}
        self._frames.clear()
        return variables


class _Traced:
    """Stands in for an array or a number, and writes down what is done with it."""

    __array_ufunc__ = None  # a NumPy function called by its own name is refused, not applied to an object
    __slots__ = ("node", "tape")

    def __init__(self, tape: Tape, node: Node) -> None:
        self.tape = tape
        self.node = node

    def _refuse(self, *args: Any) -> NoReturn:
        raise UntraceableError(
            f"it needs the value of {self.node!r}, which has none while the rule is traced; branch on numbers in "
            f"scalars(h), on arrays with xp.where, and write the root of a number as x**0.5"
        )

    __bool__ = __float__ = __int__ = __index__ = __complex__ = __len__ = __iter__ = __getitem__ = _refuse

    def __getattr__(self, name: str) -> NoReturn:
        raise UntraceableError(f"it reads .{name}; a rule knows neither shape, dtype nor device")

    __hash__ = _refuse  # a set or dict would look for the number that it stands for

    def _refuse_in_place(self, other: Any) -> NoReturn:
        raise InPlaceError("it changes an array in place, which may be the caller's; write x = x + y for x += y")

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = __setitem__ = _refuse_in_place


def _apply(tape: Tape, op: str, *values: Any) -> _Traced:
    """Write down the elementwise function `op` of arrays and numbers."""
    tape.look()
    args = tuple(_node(tape, value) for value in values)
    kinds = {arg.kind for arg in args}
    number, truth = _RESULTS[bool(kinds & {"array", "mask"})]
    if kinds == {"scalar"}:
        if op.startswith("logical"):
            raise UntraceableError(f"it combines numbers by {op}; do that in scalars(h)")
        return _Traced(tape, tape.node(op, "scalar", args))
    if op.startswith("logical"):
        if not kinds <= TRUTHS:
            raise UntraceableError(f"{op} of values that are not booleans")
    elif not TRUTHS.isdisjoint(arg.kind for arg in (args[1:] if op == "where" else args)):
        raise UntraceableError(f"{op} of booleans; choose numbers with xp.where")
    if op == "where" and args[0].kind not in TRUTHS:
        raise UntraceableError("where with a condition that is not an array of booleans")
    if op == "where" and args[1].kind == args[2].kind == "scalar":  # whose dtype depends on the library
        raise UntraceableError("where between two numbers; make one an array, as in 0 * grad + h.lr")
    if op == "pow" and args[1].op == "constant" and args[1].value in (2, 0.5):
        op, args = ("square", args[:1]) if args[1].value == 2 else ("sqrt", args[:1])
    return _Traced(tape, tape.node(op, truth if op in COMPARISONS + LOGICAL else number, args))


def _reduce(tape: Tape, op: str, x: Any, question: Question | None = None) -> _Traced:
    """Write down what makes one number of a whole array; of arrays of a model, which question it answers."""
    tape.look()
    node = _node(tape, x)
    if node.kind != "array":
        raise UntraceableError(f"it takes the {op.replace('_', ' ')} of {_CALLED[node.kind]}; wanted an array")
    return _Traced(tape, tape.node(op, "one", (node,), question))


_RESULTS: dict[bool, tuple[Kind, Kind]] = {True: ("array", "mask"), False: ("one", "flag")}
"""By whether an array is among the arguments, the kinds of a number and of a truth value."""


def _node(tape: Tape, value: Any) -> Node:
    if isinstance(value, _Traced):
        return value.node
    if type(value) is float or (type(value) is int and abs(value) < 2**53):
        return tape.node("constant", "scalar", value=value)
    raise UntraceableError(f"it computes with a {type(value).__name__}; wanted arrays, Python numbers and what h holds")


def _operator(op: str, *, reflected: bool = False) -> Callable[..., _Traced]:
    def unary_or_binary(self: _Traced, *others: Any) -> _Traced:
        values = (*others, self) if reflected else (self, *others)
        return _apply(self.tape, op, *values)

    return unary_or_binary


for _op, _dunder in {
    "add": "add",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "truediv",
    "pow": "pow",
    "logical_and": "and",
    "logical_or": "or",
    "logical_xor": "xor",
}.items():
    setattr(_Traced, f"__{_dunder}__", _operator(_op))
    setattr(_Traced, f"__r{_dunder}__", _operator(_op, reflected=True))
for _op, _dunder in {
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
    "equal": "eq",
    "not_equal": "ne",
    "negative": "neg",
    "abs": "abs",
    "logical_not": "invert",
}.items():
    setattr(_Traced, f"__{_dunder}__", _operator(_op))

FUNCTIONS = {
    **dict.fromkeys(("negative", "abs", "sign", "sqrt", "square", "exp", "log", "logical_not"), 1),
    **dict.fromkeys(("isnan", "isinf", "isfinite"), 1),
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "pow", "maximum", "minimum"), 2),
    **dict.fromkeys((*COMPARISONS, "logical_and", "logical_or", "logical_xor"), 2),
    "where": 3,
}
"""The functions of the namespace, and how many values each takes."""


class _Namespace:
    """What a rule calls as ``xp`` while it is traced."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def __getattr__(self, name: str) -> Any:
        if name == "linalg":
            return _Linalg(self._tape)
        if name in REDUCTIONS and name != "vector_norm":
            return functools.partial(_reduce_whole, self._tape, name)
        if name not in FUNCTIONS:
            known = ", ".join((*FUNCTIONS, "clip", *REDUCTIONS[:-1], "linalg.vector_norm"))
            raise UntraceableError(f"it calls xp.{name}, which is none of {known}")

        def function(*values: Any) -> _Traced:
            if len(values) != FUNCTIONS[name]:
                raise UntraceableError(f"it calls xp.{name} with {len(values)} arguments; wanted {FUNCTIONS[name]}")
            result = _apply(self._tape, name, *values)
            if result.node.kind == "scalar":
                raise UntraceableError(
                    f"it calls xp.{name} on numbers alone; use Python's arithmetic (x**0.5 for a root)"
                )
            return result

        return function

    def clip(self, x: Any, min: Any = None, max: Any = None) -> Any:  # noqa: A002 - the standard's names
        # a bound that equals x leaves x, whatever the sign of a zero; NaN stays, in x as in a bound
        x = x if min is None else self.where(self.logical_or(self.greater_equal(x, min), self.isnan(x)), x, min)
        return x if max is None else self.where(self.logical_or(self.less_equal(x, max), self.isnan(x)), x, max)


def _reduce_whole(tape: Tape, name: str, *values: Any, **options: Any) -> _Traced:
    called = "linalg.vector_norm" if name == "vector_norm" else name
    if len(values) != 1:
        raise UntraceableError(
            f"it calls xp.{called} with {len(values)} arguments without a name; wanted one, the array, and options by "
            f"name, such as axis=0"
        )
    (x,) = values
    if not is_whole(options):
        listed = ", ".join(f"{option}={value!r}" for option, value in options.items())
        raise UntraceableError(f"it calls xp.{called} with {listed}; engines fuse only reductions of whole arrays")
    return _reduce(tape, name, x)


class _Linalg:
    """What a rule calls as ``xp.linalg`` while it is traced."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def __getattr__(self, name: str) -> Any:
        if name != "vector_norm":
            raise UntraceableError(
                f"it calls xp.linalg.{name}, which no engine fuses; vector_norm is the only one that they fuse"
            )
        return functools.partial(_reduce_whole, self._tape, name)


class _Numbers:
    """What a rule reads as ``h`` while it is traced."""

    def __init__(self, tape: Tape, h: Scalars | None) -> None:
        self._tape = tape
        self._h = h
        self.model = OfModel(lambda question, x: _reduce(tape, question.op, x, question))

    def __getattr__(self, name: str) -> _Traced:
        value = 0.0 if self._h is None else getattr(self._h, name)
        if name == "clip_norm" or isinstance(value, bool) or not isinstance(value, int | float):
            raise UntraceableError(f"it reads h.{name}, which may be something else than a number")
        return _Traced(self._tape, self._tape.node("number", "scalar", value=name))


def trace(rule: Rule, h: Scalars | None = None, *, clipped: bool = False, tape: Tape | None = None) -> Graph:
    """Write down what a rule computes.

    Parameters
    ----------
    rule : Rule
        The rule; it runs once, on stand-ins for arrays and numbers.
    h : Scalars, optional
        The numbers of some step: which there are. Without it any name is taken for one.
    clipped : bool
        Whether the rule sees its gradient multiplied by the two numbers that clip it.
    tape : Tape, optional
        Where it is written down; by default a new one.

    Returns
    -------
    Graph
        Its graph.

    Raises
    ------
    InPlaceError
        It changes an array in place.
    UntraceableError
        It branches on a value, uses a function that no engine fuses, or returns something else than
        its parameter and slots. The message names the rule and the line.
    """
    for field, spec in zip(rule.fields, rule.specs, strict=True):
        if spec.shape not in (None, one):
            raise UntraceableError(
                f"{rule.name} cannot be traced: its slot {field!r} has another shape than the parameter"
            )
    tape = tape or Tape(rule.code)
    kinds: list[Kind] = ["one" if k in rule.ones else "array" for k in range(len(rule.fields))]
    names = ("param", "grad", *(f"s.{field}" for field in rule.fields))
    inputs = tuple(
        tape.node("input", kind, value=name) for name, kind in zip(names, ["array", "array", *kinds], strict=True)
    )
    param, grad, *slots = (_Traced(tape, node) for node in inputs)
    xp, numbers = _Namespace(tape), _Numbers(tape, h)
    try:
        seen: Any = grad
        if clipped:
            seen = grad if rule.measured is None else rule.measured(xp, param, grad, rule.make_slots(slots), numbers)
            for name in ("clip_scale", "clip_factor"):
                seen = _apply(tape, "multiply", seen, _Traced(tape, tape.node("factor", "scalar", value=name)))
        returned = rule.function(xp, param, seen, rule.make_slots(slots), numbers)
        results = taken_apart(rule, returned)
    except InPlaceError as error:
        raise InPlaceError(f"{rule.name}{_place(rule, error)}: {error}") from None
    except Exception as error:
        raise UntraceableError(f"{rule.name} cannot be traced{_place(rule, error)}: {error}") from error
    finally:
        variables = tape.take_variables()
    for field, kind, result in zip(("param", *rule.fields), ["array", *kinds], results, strict=True):
        if not isinstance(result, _Traced) or result.node.kind != kind:
            came = called(result) or f"a {type(result).__name__}"
            raise UntraceableError(f"{rule.name} returned {came} as {field!r}; wanted {_CALLED[kind]}")
    names_of = {x.node: name for name, x in reversed(variables.items()) if isinstance(x, _Traced)}
    return Graph(rule.name, inputs, tuple(result.node for result in results), names_of)


_CALLED: dict[Kind, str] = {
    "array": "an array",
    "mask": "an array of booleans",
    "one": "an array of one number",
    "flag": "an array of one boolean",
    "scalar": "a number",
}
"""What values of each kind are, in messages."""


def called(x: Any) -> str | None:
    """Return what a stand-in is called in messages, such as ``"an array"``; None for what is none."""
    return _CALLED[x.node.kind] if isinstance(x, _Traced) else None


def _place(rule: Rule, error: Exception) -> str:
    """Return the line of the rule in which `error` was raised."""
    code = rule.code
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code is code]
    return f" (line {lines[-1]} of {code.co_filename})" if lines and code is not None else ""
