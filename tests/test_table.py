"""The table has a row for every algorithm, says of it what is so, and is the only list of them."""

import ast
from pathlib import Path

import numpy as np
import pytest
from _kit.table import BY_RULE, ELSEWHERE, PROMISES, ROWS, SIGNATURES

import xpopt
from xpopt import optimizers

FILES = sorted(Path(__file__).parent.rglob("test_*.py"))


def defined_by_the_package(cls):
    below = {cls}.union(*map(defined_by_the_package, cls.__subclasses__()))
    return {cls for cls in below if cls.__module__.startswith("xpopt.")} - {xpopt.OptimizerBase}


def test_every_optimizer_has_a_row_and_a_signature():
    public = {getattr(module, name) for module in (xpopt, optimizers) for name in module.__all__}
    shown = {x for x in public if isinstance(x, type) and issubclass(x, xpopt.OptimizerBase)} - {xpopt.OptimizerBase}
    rows = {row.optimizer for row in ROWS}
    here = shown | defined_by_the_package(xpopt.OptimizerBase)
    assert here - rows - set(ELSEWHERE) == set(), "no row in tests/_kit/table.py"
    assert shown == rows | set(ELSEWHERE) == set(SIGNATURES)


def test_labels_and_rules_are_told_apart():
    assert len({row.label for row in ROWS}) == len(ROWS)
    rules = {label: row.rule() for label, row in BY_RULE.items()}
    assert len(set(rules.values())) == len(rules)
    assert {row.rule() for row in ROWS} == set(rules.values())


@pytest.mark.parametrize("row", BY_RULE.values(), ids=BY_RULE)
def test_every_rule_has_all_that_a_row_has(row):
    assert row.promises in ("everywhere", "numpy", "nowhere")
    assert {row.optimizer for row in PROMISES.values()} <= set(SIGNATURES)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_says_what_is_so(row):
    settings = SIGNATURES[row.optimizer]
    for name in row.arguments:
        assert settings[name].drawn, f"between which values is {name} drawn?"
    opt, x = row.make(), np.ones(2)
    opt.update(x, x, "W")
    assert row.rule().fields == row.slots
    entry = opt.cache.get("W")
    assert isinstance(entry, dict) == row.counts
    if row.counts:
        assert list(entry) == ["t", *row.slots]
        assert entry["t"] == 1


def listed(node):
    """The optimizers that a list, tuple, set or dict in the source names, one in each of its elements."""
    if not isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
        return set()
    elements = node.keys + node.values if isinstance(node, ast.Dict) else node.elts
    parts = [x for e in elements if e and not isinstance(e, ast.List | ast.Tuple | ast.Dict) for x in ast.walk(e)]
    names = {x.id if isinstance(x, ast.Name) else getattr(x, "attr", getattr(x, "value", None)) for x in parts}
    return {cls for cls in SIGNATURES if cls.__name__ in names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_test_has_a_list_of_its_own(path):
    """Whoever adds an algorithm would not know of it, and nothing would fail."""
    lists = [node for node in ast.walk(ast.parse(path.read_text())) if listed(node) == set(SIGNATURES)]
    assert [node.lineno for node in lists] == []
