"""The tool that makes mistakes of one line: each stays where it is when its file moves, and each is one."""

import importlib
import textwrap
from pathlib import Path

import pytest

SOURCE = """
class Clock:
    def move(self, step):
        if step < 2:
            return None
        self.step = step
        return step

    def reset(self):
        def inner():
            self.step = 0
        inner()
"""


@pytest.fixture
def tool(monkeypatch):
    """What imports a module of the tool."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "mutants")
    return importlib.import_module


def write(folder, name, source):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(source)


def place(tool, folder, *wanted):
    places = tool("places")
    found = places.find(places.functions(folder), *wanted)
    return found.path.relative_to(folder).as_posix(), found.number


@pytest.mark.parametrize("name", ["_clock.py", "_step/time.py"])
def test_a_line_is_found_wherever_its_file_lies(tool, tmp_path, name):
    write(tmp_path, name, SOURCE)
    assert place(tool, tmp_path, "Clock.move", "if step < 2:", None) == (name, 4)
    assert place(tool, tmp_path, "Clock.reset.inner", "self.step = 0", None) == (name, 11)


def test_another_line_tells_functions_of_one_name_apart(tool, tmp_path):
    write(tmp_path, "a.py", "def run():\n    call()\n    one()\n")
    write(tmp_path, "b.py", "def run():\n    call()\n    two()\n")
    assert place(tool, tmp_path, "run", "call()", "two()") == ("b.py", 2)
    with pytest.raises(tool("places").NotFoundError, match="several functions"):
        place(tool, tmp_path, "run", "call()", None)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("Clock.go", "if step < 2:", r"no such function, but the line stands in Clock.move \(_clock.py:4\)"),
        ("Clock.move", "if step < 3:", "the function has no such line$"),
        ("Clock.reset", "self.step = 0", r"no such line, but the line stands in Clock.reset.inner"),
    ],
)
def test_what_is_gone_is_named(tool, tmp_path, name, line, message):
    write(tmp_path, "_clock.py", SOURCE)
    with pytest.raises(tool("places").NotFoundError, match=message):
        place(tool, tmp_path, name, line, None)


@pytest.mark.parametrize(
    ("line", "mistakes"),
    [
        ("if a < b: call()", {"if not (a < b): call()", "if a <= b: call()"}),
        ("call(a)", {"pass"}),
        ("while not a or b: pass", {"while not (not a or b): pass", "while not a and b: pass"}),
        ("self.x = y[0]", {"pass", "self.x = y[1]"}),
        ("new = min(a, -1)", {"new = max(a, -1)", "new = min(a, -2)"}),
        ("a += b", {"pass"}),
        (
            "return f(a, b) if True else None",
            {"return None", "return f(b, a) if True else None", "return f(a, b) if False else None"},
        ),
        ("raise ValueError(f'{a < b}')", {"pass"}),
        ("assert a < b", set()),
    ],
)
def test_what_a_line_may_become(tool, line, mistakes):
    source = f"def f(self, a: int, b: int, y: list) -> int | None:\n    {line}\n"
    assert {text.strip() for text in tool("drawing").Changes(source).of.get(2, [])} == mistakes


def test_a_draw_is_the_seeds(tool, tmp_path):
    write(
        tmp_path,
        "_clock.py",
        SOURCE
        + textwrap.dedent("""
        def count(self, n):
            self.n = n + 1
            return self.n > 3
    """),
    )
    drawn = tool("drawing").draw(tmp_path, 7, 3, [])
    assert [mutant.number for mutant in drawn] == [1, 2, 3]
    assert tool("drawing").draw(tmp_path, 7, 3, []) == drawn
    again = tool("drawing").draw(tmp_path, 7, 1, drawn)
    assert again[0].number == 4
    assert (again[0].function, again[0].line) not in {(mutant.function, mutant.line) for mutant in drawn}
