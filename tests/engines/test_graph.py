"""A traced rule means what the rule does, and what cannot be traced says so."""

from __future__ import annotations

import cProfile
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _kit.engines import Two
from _kit.rules import NUMBERS, wild
from _kit.table import BY_RULE

import xpopt
from xpopt._graph.interpret import interpret
from xpopt._graph.rule import Rule
from xpopt._graph.trace import FUNCTIONS, InPlaceError, UntraceableError, trace
from xpopt._print.host import print_numbers
from xpopt._print.llvm import print_llvm
from xpopt._print.numpy import print_numpy

pytestmark = pytest.mark.any_width

GUIDE = Path(__file__).parents[2] / "docs/guide/own_rule.md"


def test_the_guide_lists_what_is_traced():
    if not GUIDE.exists():  # in a copy of the tests alone
        pytest.skip("the documentation is not here")
    page = GUIDE.read_text("utf-8")
    (listed,) = re.findall(r"^Engines fuse these functions(?:[^\n]+\n)+\n((?:> [^\n]*\n)+)", page, re.MULTILINE)
    assert set(re.findall(r"\w+", listed)) == {*FUNCTIONS, "clip"}


ADAM = BY_RULE["Adam"].rule()
RULES = [
    Rule(wild, Two),
    *(row.rule() for row in BY_RULE.values()),
]


def inputs_of(rule: Rule, backend: Any) -> dict[str, Any]:
    """Return seeded inputs; slots are positive, as running squares are."""
    rng = np.random.default_rng(7)
    draw = {"param": rng.standard_normal((3, 5)), "grad": rng.standard_normal((3, 5))}
    draw.update({f"s.{field}": np.abs(rng.standard_normal((3, 5))) for field in rule.fields})
    return {name: backend.array(values) for name, values in draw.items()}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_graph_means_what_the_rule_does(rule, backend):
    inputs = inputs_of(rule, backend)
    h = rule.scalars_at(NUMBERS, 0.1, 3)
    slots = rule.slots(*(inputs[f"s.{field}"] for field in rule.fields))
    new_param, new_slots = rule.function(backend.xp, inputs["param"], inputs["grad"], slots, h)
    got = interpret(trace(rule), backend.xp)(inputs, h)
    # by torch's operators, a number over a tensor is the number times the reciprocal, which is rounded twice
    near = 2.0**-51 if backend.library == "torch" else 0
    for want, have in zip((new_param, *new_slots), got, strict=True):
        assert have.dtype == inputs["param"].dtype
        np.testing.assert_allclose(backend.numpy(have), backend.numpy(want), rtol=near, atol=near)


def test_equal_values_are_one_node():
    def twice(xp, param, grad, s, h):
        return param - xp.sqrt(grad + 1) * xp.sqrt(grad + 1), s

    assert [node.op for node in trace(Rule(twice)).arrays()] == ["add", "sqrt", "multiply", "subtract"]


def test_signed_zeros_are_two_constants():
    def zeros(xp, param, grad, s, h):
        return xp.maximum(param, 0.0) + xp.maximum(param, -0.0), s

    assert sorted(map(repr, trace(Rule(zeros)).scalars())) == ["-0.0", "0.0"]


def test_numbers_alone_stay_on_the_host():
    numbers = trace(ADAM).scalars()
    assert "divide(lr, subtract(1, pow(decay1, t)))" in map(repr, numbers)
    assert "t" not in map(repr, numbers)


def branches_on_a_number(xp, param, grad, s, h):
    return (param, s) if h.t > 3 else (param - grad, s)


def branches_on_an_array(xp, param, grad, s, h):
    return (param, s) if grad > 0 else (param - grad, s)


def takes_a_float(xp, param, grad, s, h):
    return param - float(h.lr) * grad, s


def sums_rows(xp, param, grad, s, h):
    return param - xp.sum(grad, axis=0), s


def decomposes(xp, param, grad, s, h):
    return param - xp.linalg.qr(grad)[0], s


def sums_a_mask(xp, param, grad, s, h):
    return param - xp.sum(grad > 0), s


def asks_a_model_for_its_mean(xp, param, grad, s, h):
    return param - h.model.mean(grad), s


def asks_for_the_shape(xp, param, grad, s, h):
    return param - grad / grad.shape[0], s


def calls_numpy(xp, param, grad, s, h):
    return param - np.sqrt(grad), s


def brings_an_array(xp, param, grad, s, h):
    return param - np.ones(3), s


def roots_a_number(xp, param, grad, s, h):
    return param - xp.sqrt(h.lr) * grad, s


def returns_a_number(xp, param, grad, s, h):
    return h.lr, s


def combines_numbers(xp, param, grad, s, h):
    return param - ((h.t < 3) & (h.t > 1)) * grad, s


def looks_a_number_up(xp, param, grad, s, h):
    return param - {1: 0.5}.get(h.t, 0.1) * grad, s


def chooses_between_numbers(xp, param, grad, s, h):
    return param - xp.where(grad > 0, h.lr, 0.3) * grad, s


def asks_whether_there_is_a_clip(xp, param, grad, s, h):
    return (param, s) if h.clip_norm is None else (param - grad, s)


def returns_a_list(xp, param, grad, s, h):
    return [param - grad, s]


def raises(xp, param, grad, s, h):
    raise RuntimeError("mine")


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (branches_on_a_number, "scalars"),
        (branches_on_an_array, "xp.where"),
        (takes_a_float, "value of lr"),
        (sums_rows, "xp.sum with axis=0"),
        (decomposes, "xp.linalg.qr"),
        (sums_a_mask, "an array of booleans"),
        (asks_a_model_for_its_mean, "h.model.mean"),
        (asks_for_the_shape, r"\.shape"),
        (calls_numpy, "calls_numpy"),
        (brings_an_array, "ndarray"),
        (roots_a_number, r"\*\*0.5"),
        (returns_a_number, "'param'"),
        (combines_numbers, "logical_and"),
        (looks_a_number_up, "value of t"),
        (chooses_between_numbers, "two numbers"),
        (asks_whether_there_is_a_clip, "clip_norm"),
        (returns_a_list, "a list"),
        (raises, "mine"),
    ],
)
def test_what_cannot_be_traced_says_where_and_why(function, says):
    with pytest.raises(UntraceableError, match=says) as caught:
        trace(Rule(function))
    assert function.__name__ in str(caught.value)
    if function not in (returns_a_number, returns_a_list):
        assert f"line {function.__code__.co_firstlineno + 1} of" in str(caught.value)


def test_what_is_shared_often_and_deeply_is_written_once():
    def doubling(xp, param, grad, s, h):
        number = h.lr
        for _ in range(200):
            number, grad = number + number, grad + grad
        return param - number * grad / (grad if h.lr is None else 1), s

    rule = Rule(doubling)
    graph = trace(rule)
    assert len(graph.arrays()) == 203
    assert len(repr(graph.outputs[0])) < 1000
    assert print_numbers(graph)(rule.scalars_at({}, 1.5, 1)) == (1.5 * 2.0**200, 1)
    assert len(print_numpy(graph).text) < 20_000


def test_a_rule_that_changes_an_array_in_place_is_an_error_for_every_engine():
    def rule(xp, param, grad, s, h):
        grad *= h.lr
        return param - grad, s

    with pytest.raises(InPlaceError, match=r"rule \(line .* in place"):
        trace(Rule(rule))


@contextmanager
def profiled() -> Iterator[Callable[[], set[str]]]:
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield lambda: {str(getattr(entry.code, "co_name", entry.code)) for entry in profile.getstats()}
    finally:
        profile.disable()


@contextmanager
def watched(name: str) -> Iterator[Callable[[], set[str]]]:
    seen: set[str] = set()

    def watch(frame: Any, event: str, arg: Any) -> Any:
        seen.add(frame.f_code.co_name)
        return watch

    before = getattr(sys, f"get{name}")()
    getattr(sys, f"set{name}")(watch)
    try:
        yield lambda: seen
        assert getattr(sys, f"get{name}")() is watch
    finally:
        getattr(sys, f"set{name}")(before)


def after_the_trace() -> None:
    """Be seen by whatever looks at calls."""


@pytest.mark.parametrize(
    "looking", [profiled, lambda: watched("profile"), lambda: watched("trace")], ids=["cProfile", "profile", "trace"]
)
def test_a_profiler_or_debugger_sees_the_rule_and_all_that_follows(looking):
    """And the kernel has the names that it has without."""
    plain = print_llvm(trace(ADAM), "float32")
    assert "%mean = fadd float" in plain
    with looking() as seen:
        graph = trace(ADAM)
        after_the_trace()
        assert {"rule", "after_the_trace"} <= seen()
    assert print_llvm(graph, "float32") == plain


def test_names_are_those_of_the_rule_behind_a_decorator():
    @functools.wraps(xpopt.Adam.rule)
    def decorated(*args: Any) -> Any:
        mean = args[2] * 2
        return xpopt.Adam.rule(args[0], args[1], mean, *args[3:])

    names = trace(Rule(decorated, xpopt.Adam.slots)).names.values()
    assert {"grad", "mean", "var"} <= set(names)


def test_a_program_under_cprofile_is_profiled_to_its_end(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import numpy as np, xpopt\n"
        "def at_the_end(): return 1\n"
        "opt, W = xpopt.Adam(), np.ones(3)\n"
        "opt.update(W, W, 'W')\n"
        "at_the_end()\n"
        "(row,) = opt.explain({'W': W})\n"
        "assert row.engine == 'blocked', row\n"
    )
    command = [sys.executable, "-W", "error", "-m", "cProfile", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "program.py:2(at_the_end)" in done.stdout
    assert "adam.py" in done.stdout
