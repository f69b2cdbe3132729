"""The page of benchmarks says in words, and draws, what its tables say."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.any_engine,
    pytest.mark.backends("numpy"),
    pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the page is in the source tree alone"),
]


@pytest.fixture
def conclusion(monkeypatch):
    """What writes the sentence."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "benchmarks")
    return importlib.import_module("report").conclusion


def test_the_sentence_has_the_least_and_the_largest_gain_of_each(conclusion):
    rows = [
        ["small", "xpopt compiled", "1.00 [1.00, 1.00]", ""],
        ["small", "torch, fused", "9.00 [8.00, 9.00]", "9.00 [8.00, 9.50]"],
        ["small", "xpopt blocked", "5.00 [5.00, 5.00]", "5.00 [5.00, 5.00]"],
        ["small", "thinc", "not installed", ""],
        ["large", "torch, fused *", "0.98 [0.97, 0.99]", "0.98 [0.97, 0.99]"],
        ["large", "textbook NumPy", "12.00 [1.00, 2.00]", "12.00 [1.00, 2.00]"],
        ["large", "the traffic alone", "0.90 [0.90, 0.90]", "0.90 [0.90, 0.90]"],
    ]
    assert conclusion(rows) == (
        "The compiled engine makes a step of Adam so many times as fast as others:"
        " 0.98 to 9 (torch, fused), 12 to 12 (textbook NumPy)."
    )
    assert conclusion([]) == "No other library was measured."


def test_the_page_says_what_its_table_says(conclusion):
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    table = page.split("\n## Whole models\n")[1].split("\n## ")[0]
    rows = [re.split(r" *\| *", line)[1:5] for line in table.splitlines() if line.startswith("| ")][2:]
    assert conclusion(rows) in page
    assert page.index(".. plot:: pictures/benchmarks.py peers") < page.index("\n## Goals\n")
