"""`explain` says what `update_all` does, and changes nothing."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

import xpopt
from xpopt._engine.compiled.build import why_no_compiler

pytestmark = pytest.mark.backends("numpy")


def model() -> dict[str, object]:
    return {"W": np.zeros((300, 300), "f"), "b": np.zeros(3, "f"), "half": np.zeros(5, np.float16)}


def test_a_row_for_each_parameter(backend):
    with xpopt.engine("blocked"):
        explained = xpopt.Adam().explain({**model(), "s": np.zeros((4, 4))[:, ::2]})
    assert [row[:2] for row in explained] == [("W", "blocked"), ("b", "blocked"), ("half", "blocked"), ("s", "eager")]
    assert [row.state_bytes for row in explained] == [2 * 4 * 90_000, 24, 40, 2 * 8 * 8]
    assert explained[3].reason == "the arrays are not contiguous, or not in one order"
    assert len({row.launch for row in explained}) == 4


@pytest.mark.skipif(why_no_compiler() is not None, reason="llvmlite is not here")
def test_one_launch_for_each_dtype(backend):
    with xpopt.engine("compiled"):
        explained = xpopt.SGD().explain(model())
    assert [(row.engine, row.launch, row.reason) for row in explained] == [
        ("compiled", 1, ""),
        ("compiled", 1, ""),
        ("compiled", 2, ""),
    ]


def test_small_models_say_why_nothing_is_compiled(backend):
    class Fresh(xpopt.OptimizerBase):
        @staticmethod
        def rule(xp, param, grad, s, h):
            return param - h.lr * grad, s

    with xpopt.engine("auto"):
        (row,) = Fresh(0.1).explain([np.zeros(3)])
    assert row[:4] == (0, "blocked", 1, 0)
    few = "3 elements are fewer than the 65536 that are worth a compilation at once; they are compiled after "
    assert row.reason.startswith(few if why_no_compiler() is None else "llvmlite is not installed (pip install ")


def test_it_changes_nothing_and_reads_as_a_table(backend):
    opt = xpopt.Adam()
    with xpopt.engine("eager"):
        text = str(opt.explain({"net": {"W": np.zeros(2)}}))
    assert (opt.cache, opt.cur_step) == ({}, 0)
    assert text.splitlines() == [
        "parameter  engine  launch  state, bytes  why not a faster one",
        "'net/W'    eager   1       32            the eager engine was chosen",
    ]


def test_a_model_that_cannot_be_updated_cannot_be_explained(backend):
    with pytest.raises(TypeError, match="parameter 'W' has dtype int64"):
        xpopt.Adam().explain({"W": np.arange(3)})


@pytest.mark.parametrize("opt", [xpopt.Adam, "adam", None, xpopt.KingScheduler()], ids=repr)
def test_the_source_is_that_of_an_optimizer(opt):
    with pytest.raises(TypeError, match=f"^opt=.* is a {type(opt).__name__}; wanted an optimizer, such as"):
        xpopt.kernel_source(opt)


@pytest.mark.parametrize("wrong", ["x" * 10_000, np.float32, 3, None, ["numpy"]], ids=lambda value: repr(value)[:20])
def test_the_source_is_for_a_target_and_a_dtype(wrong):
    for keyword, known in [("target", "numpy, llvm, cuda"), ("dtype", "float16, bfloat16, float32, float64")]:
        with pytest.raises(ValueError, match=f"^{keyword}=.* is unknown; wanted one of {known}$") as raised:
            xpopt.kernel_source(xpopt.Adam(), **{keyword: wrong})
        assert len(str(raised.value)) < 300


def test_an_optimizer_is_a_table_in_a_notebook(backend):
    opt = xpopt.Adam(lr=0.25, groups={"<b>*": {"lr": 0.5}})
    html = opt._repr_html_()
    rows = [[cell.text for cell in row] for row in ElementTree.fromstring(html).iter("tr")]
    assert rows[:3] == [["setting", "value"], ["lr", "0.25"], ["decay1", "0.9"]]
    assert rows[-1] == ["groups", "{'<b>*': {'lr': 0.5}}"]
    assert "<caption>Adam: step 0, 0 parameters</caption>" in html
    for params in ([np.zeros(2)], [np.zeros(2), np.zeros(3)]):
        opt = xpopt.Adam()
        opt.update_all(params, params)
        assert f"step 1, {len(params)} parameter{'s' * (len(params) > 1)}<" in opt._repr_html_()


@pytest.mark.parametrize(("look", "copies"), [("_repr_html_", False), ("cache", True)])
def test_the_table_is_no_look_at_the_cache(backend, look, copies):
    """After a look at the cache, slots are new arrays."""
    opt, params, grads = xpopt.Adam(), [np.ones(8)], [np.ones(8)]
    with xpopt.engine("blocked"):
        opt.update_all(params, grads)
        before = opt._parts.state.names[0]["mean"]
        kept = opt._repr_html_() if look == "_repr_html_" else opt.cache
        opt.update_all(params, grads)
    assert (opt._parts.state.names[0]["mean"] is not before) == copies
    assert kept
