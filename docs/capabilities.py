"""What can be used with what, as tables: each cell is asked of the package, by a small update or by its source."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np
from _kit import pairwise
from _kit.backends import NAMESPACES, Backend
from _kit.variants import DEFAULTS

import xpopt
from xpopt._arrays.library import LOW, SUPPORTED
from xpopt._engine.refusals import _FUSED
from xpopt._names import NAMES
from xpopt.explain import TARGETS

METHODS = [name for name in NAMES["Optimizers"] if name != "OptimizerBase"]

ENGINES = dict(zip(("blocked", "compiled", "cuda"), TARGETS, strict=True))
"""By engine that fuses: what its source is called."""

OPTIONS: dict[str, Any] = {
    "clip_norm": 1.0,
    "nonfinite": "skip",
    "master": True,
    "rounding": "stochastic",
    "slots_dtype": "float16",
    "modulus": True,
    "loss_scale": 2.0,
    "accumulate": 2,
    "lr_scale": 0.5,
    "maximize": True,
    "bounds": (0.0, 1.0),
    "prox": xpopt.prox.l1(0.5),
    "clip_value": 1.0,
    "clip_global": 1.0,
    "agc": xpopt.AGC(0.1),
    "centralize": True,
    "l2": 0.1,
    "cautious": True,
    "weight_decay": 0.1,
    "lookahead": xpopt.Lookahead(),
    "average": xpopt.EMA(0.9),
    "groups": {"W": {"lr": 0.5}},
}
"""A value of each option that is not its default."""
assert OPTIONS.keys() == {"clip_norm", *DEFAULTS} - {
    "seed",
    "transforms",
}  # the first needs `rounding`, the other a class

LIBRARIES = {"numpy": "NumPy", "cupy": "CuPy", "torch": "PyTorch", "jax": "JAX", "dask": "Dask"}

Make = Callable[[], xpopt.OptimizerBase]


def zeros(dtype: str, shape: tuple[int, ...] = (3, 2)) -> Any:
    """Return an array of zeros."""
    return np.zeros(shape, getattr(ml_dtypes, dtype, dtype))


def problem(call: Callable[[], object]) -> str:
    """Return what an error of a call says, or "" if there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except (TypeError, ValueError) as error:
            return str(error).partition("; ")[0]
    return ""


def why_eager(make: Make, engine: str, dtype: str = "float32") -> str:
    """Return why an engine does not fuse an update, or "" if it does."""
    with xpopt.engine("blocked"):
        ((_, chosen, _, _, reason),) = make().explain({"W": zeros(dtype)})
    if chosen == "eager" and (engine == "blocked" or not reason.startswith("the blocked engine does not ")):
        return reason
    return problem(lambda: xpopt.kernel_source(make(), ENGINES[engine], dtype, shape=(3, 2)))


def uses(make: Make) -> Iterable[str]:
    """Yield why it has no update of one parameter, none of complex ones, and no pure form; "" where it has."""
    x, z = zeros("float32"), zeros("complex64")
    yield problem(lambda: make().update(x, x, "W", 1.0))
    yield problem(lambda: make().update_all({"W": z}, {"W": z}, 1.0))

    def pure() -> None:
        form = make().pure()
        form.update({"W": x}, {"W": x}, form.init({"W": x}), form.numbers(1.0))

    yield problem(pure)


class Table:
    """A table in Markdown, with what its cells refer to below it."""

    def __init__(self, *headings: str) -> None:
        self.headings, self.rows, self.notes = headings, list[list[str]](), list[str]()

    def cell(self, why_not: str, no: str = "no") -> str:
        """Return what a cell says, of which the reason is a note."""
        if not why_not:
            return "yes"
        if why_not not in self.notes:
            self.notes.append(why_not)
        return f"{no}&nbsp;[{self.notes.index(why_not) + 1}]"

    def __str__(self) -> str:
        """Write it."""
        lines = [self.headings, ["---"] * len(self.headings), *self.rows]
        notes = [f"{number}. {text}" for number, text in enumerate(self.notes, 1)]
        return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), "", *notes, ""])


def methods(link: Callable[[str, str], str]) -> Table:
    """Return the table of methods."""
    table = Table("method", *ENGINES, "`update`", "complex", "pure form", "`modulus`", "rates by element", "slots")
    for name in METHODS:
        make = getattr(xpopt, name)
        (row,) = make().explain({"W": zeros("float32")})
        x, z = zeros("float32"), zeros("complex64")
        more = (
            problem(lambda make=make, z=z: make(modulus=True).update_all({"W": z}, {"W": z}, 1.0)),
            problem(lambda make=make, x=x: make(lr_scale=x).update_all({"W": x}, {"W": x}, 1.0)),
        )
        cells = [table.cell(plain(why_eager(make, engine), name), "eager") for engine in ENGINES]
        cells += [table.cell(plain(why_not, name)) for why_not in uses(make)]
        cells += ["no" if why_not else "yes" for why_not in more]
        slots = ",&nbsp;".join(row.slots) or "none"
        table.rows.append([link(name, NAMES["Optimizers"][name]), *cells, slots])
    return table


def options() -> Table:
    """Return the table of options, each on Adam."""
    table = Table("option", *ENGINES, "`update`", "complex", "pure form")
    for option, value in OPTIONS.items():

        def make(option: str = option, value: object = value) -> xpopt.OptimizerBase:
            return xpopt.Adam(**{option: value})

        dtype = "float16" if option in ("master", "rounding") else "float32"  # of which 16 bits know
        cells = [table.cell(plain(why_eager(make, engine, dtype), "Adam"), "eager") for engine in ENGINES]
        table.rows.append([f"`{option}`", *cells, *(table.cell(plain(why_not, "Adam")) for why_not in uses(make))])
    return table


def plain(reason: str, name: str) -> str:
    """Return a reason without the names of this optimizer and this parameter."""
    for said, text in (
        (f"{name}: ", ""),
        (f"{name} has", "it has"),
        ("'W' is complex, which a rule sees", "a rule sees complex parameters"),
        (", and 'W' is complex64", ""),
        ("bounds=(0.0, 1.0): ", ""),
    ):
        reason = reason.replace(said, text)
    return reason


def dtypes() -> Table:
    """Return how many methods each engine fuses in each dtype."""
    table = Table("dtype", "computed in", *ENGINES)
    for dtype in SUPPORTED:
        fused = [sum(not why_eager(getattr(xpopt, name), engine, dtype) for name in METHODS) for engine in ENGINES]
        cells = ["all" if count == len(METHODS) else f"{count} of {len(METHODS)}" for count in fused]
        table.rows.append([f"`{dtype}`", "`float32`" if dtype in LOW else f"`{dtype}`", *cells])
    return table


def libraries() -> Table:
    """Return which dtypes and engines array libraries have, and whether their arrays can be written."""
    table = Table("arrays", "dtypes", "engines", "`out=`")
    for name, title in LIBRARIES.items():
        one = Backend("jax-x64" if name == "jax" else name, None)
        engines = [engine for engine in _FUSED.get(name, ()) if engine != "auto"]
        cells = [", ".join(f"`{x}`" for x in one.dtypes), ", ".join([*engines, "eager"])]
        table.rows.append([title, *cells, "yes" if one.mutable else "no: immutable"])
    return table


def capabilities(link: Callable[[str, str], str]) -> dict[str, str]:
    """Return the text of each table by its name, and of what the suite runs."""
    assert {*LIBRARIES} <= NAMESPACES.keys()
    words = "formulas", "options", "dtypes", "engines", "kinds of `out`", "ways to call"
    axes = ", ".join(f"{len(values)} {text}" for values, text in zip(pairwise.AXES.values(), words, strict=True))
    tested = f"The suite has {len(pairwise.read())} cases, in which each two values of these meet: {axes}.\n"
    tables = {"methods": methods(link), "options": options(), "dtypes": dtypes(), "libraries": libraries()}
    return {**{name: str(table) for name, table in tables.items()}, "tested": tested}
