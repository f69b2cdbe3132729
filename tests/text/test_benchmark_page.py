"""The page of benchmarks says in words, and draws, what its tables say."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
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
        "A step of Adam takes this many times as long as with the compiled engine:"
        " 0.98 to 9 (torch, fused), 12 to 12 (textbook NumPy)."
    )
    assert conclusion([]) == "No other library was measured."


def test_the_page_says_what_its_table_says(conclusion):
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    table = page.split("\n## Whole models\n")[1].split("\n## ")[0]
    rows = [re.split(r" *\| *", line)[1:5] for line in table.splitlines() if line.startswith("| ")][2:]
    assert conclusion(rows) in page
    assert page.index(".. plot:: pictures/benchmarks.py peers") < page.index("\n## Goals\n")


def test_a_section_takes_its_place_and_the_others_stay(conclusion, tmp_path):
    page, report = (importlib.import_module(name) for name in ("page", "report"))
    path, order = tmp_path / "page.md", ["Whole models", "Memory", "The first step"]
    first, memory = report.Section("The first step", "In a new process."), report.Section("Memory", "The peak.")
    first.headings, first.rows = ["", "s"], [["NumPy alone", "0.15"]]
    memory.headings, memory.rows = ["engine", "MiB"], [["blocked", "1.9"]]
    first.goals = [report.at_most("import", 20, np.array([17.0]), "ms")]
    for section, date in ((first, "2026-01-01"), (memory, "2026-01-02")):
        written = page.Page.read(path)
        written.take(section, ["this machine", "2", date, "", "xpopt"])
        written.write(path, order)
    before = path.read_text(encoding="utf-8")
    assert before.index("## Memory") < before.index("## The first step\n\nIn a new process.\n\n|  | s |")
    assert "| The first step | import | at most 20 ms | 17.00 [17.00, 17.00] | yes |" in before
    memory.rows, memory.goals = [["blocked", "2.5"]], [report.at_most("memory", 2, np.array([2.5]), "MiB")]
    written = page.Page.read(path)
    written.take(memory, ["this machine", "2", "2026-01-03", "", "xpopt"])
    written.write(path, order)
    after = path.read_text(encoding="utf-8")
    gone, new = (set(one.splitlines()) - set(other.splitlines()) for one, other in ((before, after), (after, before)))
    assert gone == {"| blocked | 1.9 |", "| Memory | this machine | 2 | 2026-01-02 |  | xpopt |"}
    assert new == {
        "| blocked | 2.5 |",
        "| Memory | memory | at most 2 MiB | 2.50 [2.50, 2.50] | **no** |",
        "| Memory | this machine | 2 | 2026-01-03 |  | xpopt |",
    }


def test_what_is_written_is_read_again(conclusion, tmp_path):
    page = importlib.import_module("page").Page.read(ROOT / "docs" / "benchmarks.md")
    page.write(tmp_path / "page.md", list(page.sections))
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
