"""The list of mutants, ``mutants.toml``: what each changes, and whether the suite refused it when last recorded."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

FILE = Path(__file__).with_name("mutants.toml")

RESULTS = ("", "killed", "survives", "equivalent")

HEAD = """\
# Mistakes of one line each in the machinery; `python tests/mutants --draw 5` adds some, drawn from the seed.
#
# function, line   where: the function's name within its module, wherever that lies, and the line's text
# beside           another line of the function, where several functions have that name
# becomes          the mistake
# result           when last recorded: "killed", "survives", or by hand "equivalent", where nobody could see it
# by               the test that failed
# reason           by hand: why it is equivalent, or may survive
"""


@dataclass(frozen=True)
class Mutant:
    """A line of the package with a mistake."""

    number: int
    function: str
    line: str
    becomes: str
    beside: str | None = None
    result: str = ""
    by: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.number:3} {self.function}: {self.line}  ->  {self.becomes}"

    def recorded(self, result: str, by: str | None) -> Mutant:
        """Return it with what a run has found."""
        return replace(self, result=result, by=by, reason=None if result == "killed" else self.reason)


@dataclass(frozen=True)
class Listing:
    """The list, and the seed that it is drawn from."""

    seed: int
    mutants: list[Mutant]

    def save(self) -> None:
        """Write it, in the order of the numbers."""
        blocks = [HEAD, f"seed = {self.seed}\n"]
        for mutant in sorted(self.mutants, key=lambda mutant: mutant.number):
            fields = {name: value for name, value in asdict(mutant).items() if value is not None}
            # a string of JSON, in letters as they are, is one of TOML
            lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items()]
            blocks.append("".join(["[[mutants]]\n", *lines]))
        FILE.write_text("\n".join(blocks), encoding="utf-8")


def load() -> Listing:
    """Return the list; raise a `ValueError` that names the mutant where something is wrong with one."""
    read = tomllib.loads(FILE.read_text(encoding="utf-8"))
    mutants = []
    for fields in read.get("mutants", []):
        try:
            mutant = Mutant(**fields)
        except TypeError as error:
            raise ValueError(f"mutants.toml, mutant {fields.get('number', '?')}: {error}") from None
        if mutant.result not in RESULTS:
            raise ValueError(f"mutants.toml, mutant {mutant.number}: result {mutant.result!r} is none of {RESULTS}")
        if mutant.result == "equivalent" and not mutant.reason:
            raise ValueError(f"mutants.toml, mutant {mutant.number} is equivalent: give the reason")
        mutants.append(mutant)
    numbers = [mutant.number for mutant in mutants]
    if twice := {number for number in numbers if numbers.count(number) > 1}:
        raise ValueError(f"mutants.toml: the numbers {sorted(twice)} stand there twice")
    return Listing(read["seed"], mutants)
