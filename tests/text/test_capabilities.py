"""The tables of what goes with what: they name all there is, and the engine that they name is the one that runs."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from _kit.engines import needs_llvmlite

import xpopt
from xpopt._engine import choose
from xpopt._engine.eager.group import EagerGroup

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = [
    pytest.mark.any_engine,
    pytest.mark.backends("numpy"),
    pytest.mark.skipif(not DOCS.is_dir(), reason="the pages are in the source tree alone"),
]


@pytest.fixture(scope="module")
def tables():
    """The tables of methods, of options and of libraries, each by its rows."""
    pytest.importorskip("ml_dtypes")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        module = importlib.import_module("capabilities")
    of_methods = module.methods(lambda name, module: name)
    return module.OPTIONS, *(map(cells, (of_methods, module.options(), module.libraries())))


def cells(table):
    """Return what is under each heading, by the first cell of the row."""
    return {row[0].strip("`"): dict(zip(table.headings, row, strict=True)) for row in table.rows}


@pytest.fixture
def cases(tables):
    """What makes an optimizer, the dtype of its parameters, and the row of the tables."""
    options, of_methods, of_options, _ = tables
    assert of_methods.keys() == {*xpopt.optimizers.__all__} - {"OptimizerBase"}
    assert of_options.keys() == options.keys()
    found = [(getattr(xpopt, name), np.float32, said) for name, said in of_methods.items()]
    for option, said in of_options.items():
        dtype = np.float16 if option in ("master", "rounding") else np.float32
        found.append((partial(xpopt.Adam, **{option: options[option]}), dtype, said))
    return found


def test_blocks_take_what_the_tables_say(cases, monkeypatch):
    seen = []

    class Spy(EagerGroup):
        def __init__(self, members, tensors):
            seen.extend(tensors)
            super().__init__(members, tensors)

    monkeypatch.setitem(choose._GROUPS, "eager", Spy)
    for make, dtype, said in cases:
        params, grads = {"W": np.ones((3, 2), dtype)}, {"W": np.ones((3, 2), dtype)}
        with xpopt.engine("blocked"):
            make().update_all(params, grads, 1.0)
        assert said["blocked"].startswith("eager" if seen else "yes"), make
        seen.clear()


@needs_llvmlite
def test_what_is_compiled_is_what_the_tables_say(cases):
    for make, dtype, said in cases:
        with xpopt.engine("compiled"):
            (row,) = make().explain({"W": np.ones((3, 2), dtype)})
        assert said["compiled"].startswith("yes" if row.engine == "compiled" else "eager"), make


def test_cells_that_are_known(tables):
    _, methods, options, libraries = tables
    assert methods["DoG"]["`update`"].startswith("no&nbsp;[")  # its step is made of the whole model
    assert methods["Adam"]["`update`"] == methods["Adam"]["`modulus`"] == methods["Adam"]["complex"] == "yes"
    assert methods["Lion"]["`modulus`"] == "no"  # it has no second moment
    assert methods["RAdam"]["rates by element"] == "no"
    assert options["bounds"]["complex"].startswith("no&nbsp;[")  # they have no order
    assert options["accumulate"]["pure form"].startswith("no&nbsp;[")
    assert {libraries[name]["`out=`"] for name in ("JAX", "Dask")} == {"no: immutable"}
