"""Every method, with every option, does on three ranks what it does in one process: nothing is done by the piece."""

from types import SimpleNamespace

import numpy as np
import pytest
from _kit.ranks import run_ranks
from _kit.table import BY_RULE, OF_LOSS, OF_MATRICES, OF_MODEL, OF_SHAPES
from _kit.variants import VARIANTS

import xpopt
from xpopt.sharded import Sharded

pytestmark = [pytest.mark.backends("numpy"), pytest.mark.any_engine]

RANKS, STEPS = 3, 3
SHAPES = {"v": (7,), "a": (64, 65), "bias": (5003,), "scalar": (), "empty": (0, 3)}
"""Three blocks of 4096, one for each rank: the two large ones lie across borders, and are cut where they may be."""

OF_TENSORS = {
    "clip_global": {"clip_global": 0.5},
    "of both": {"clip_global": 0.5, "clip_norm": 0.25, "nonfinite": "skip"},
    "agc": {"agc": 0.01},
    "agc of units": {"agc": xpopt.AGC(0.01, units="last"), "clip_global": 0.5},
    "centralize": {"centralize": True},
    "rows": {"groups": {"a": {"prox": xpopt.prox.unit_rows()}}},
    "ball": {"prox": xpopt.prox.l2_ball(3.0)},
    "sum": {"prox": xpopt.prox.simplex()},
    "elements": {"groups": {"a": {"bounds": (-np.ones(SHAPES["a"]), 0.5), "lr_scale": np.full(SHAPES["a"], 0.5)}}},
    "dynamic": {"loss_scale": xpopt.DynamicLossScale(), "nonfinite": "skip"},
    "frozen": {"groups": {"a": "freeze"}},
}
OPTIONS = {**VARIANTS, **OF_TENSORS}
KINDS = {"SGD": xpopt.SGD, "Adam": xpopt.Adam}

METHODS = {
    **{label: row.make for label, row in BY_RULE.items()},
    **{cls.__name__: cls for cls in (*OF_MODEL, *OF_LOSS, *OF_SHAPES)},
    **{cls.__name__: lambda cls=cls, **more: cls(others=xpopt.AdamW(), **more) for cls in OF_MATRICES},
}
PAIRS = [
    *((name, method, "plain") for name, method in METHODS.items()),
    *((name, method, "of both") for name, method in METHODS.items()),
    *((name, kind, option) for name, kind in KINDS.items() for option in OPTIONS if option not in ("plain", "of both")),
    *((name, METHODS[name], "clip_global") for name in ("LAMB", "NovoGrad", "Muon", "SOAP", "Adafactor", "Prodigy")),
    ("Adam", lambda **more: xpopt.Adam(lr_scheduler="king(patience=2)", **more), "skip"),
]


def gradients(step, rank, dtype, *, whole):
    """Return those of a rank: multiples of a third have no exact mean."""
    numbers = np.random.default_rng([step, rank])
    found = {name: numbers.normal(0, 0.1, shape).astype(dtype) for name, shape in SHAPES.items()}
    if step == 1 and whole and rank == 1:
        found["bias"][-1] = np.inf
    return found


def mean(step, dtype, whole):
    """Return the mean over ranks, added up in their order, in the dtype of the arithmetic."""
    of_ranks = [gradients(step, rank, dtype, whole=whole) for rank in range(RANKS)]
    wide = np.result_type(dtype, np.float32)
    return {
        name: sum((x[name].astype(wide) for x in of_ranks[1:]), of_ranks[0][name].astype(wide)) / wide.type(RANKS)
        for name in SHAPES
    }


def start(dtype):
    numbers = np.random.default_rng(1)
    return {name: numbers.normal(0, 0.3, shape).astype(dtype) for name, shape in SHAPES.items()}


def alone(opt, dtype, infinite):
    params = start(dtype)
    for step in range(STEPS):
        params = opt.update_all(params, mean(step, dtype, infinite), 1.0 + step)
    return params, opt


def on_ranks(make, dtype, infinite, monkeypatch, **more):
    def work(comm):
        opt = Sharded(make(), comm, order="ranks", **more)
        params, grads = opt.bind(start(dtype))
        for step in range(STEPS):
            for name, x in gradients(step, comm.rank, dtype, whole=infinite).items():
                grads[name][...] = x
            opt.update_all(1.0 + step + 0.5 * (comm.rank - 1))
        return SimpleNamespace(params=params, opt=opt)

    return run_ranks(RANKS, work, monkeypatch)


@pytest.mark.parametrize(("name", "method", "option"), PAIRS, ids=[f"{name}-{option}" for name, _, option in PAIRS])
def test_as_in_one_process(name, method, option, monkeypatch):
    dtype = np.float16 if option in ("master", "stochastic", "narrow slots") else np.float32
    infinite = OPTIONS[option].get("nonfinite") == "skip"

    def make():
        return method(**OPTIONS[option])

    expected, one = alone(make(), dtype, infinite)
    results = on_ranks(make, dtype, infinite, monkeypatch)
    for result in results:
        if isinstance(result, Exception):
            raise result
    assert {result.opt.skipped for result in results} == {one.skipped} == {int(infinite)}
    assert {result.opt.cur_step for result in results} == {one.cur_step}
    model = results[0].opt._bound.model
    cut = {name for name in SHAPES if 0 < model.section(name).piece(name, 1).size < np.prod(SHAPES[name])}
    assert cut == {"a", "bias"} - model.whole.keys()  # so that what is done by the piece would be seen
    exact = not model.asks
    for result in results:
        for key, x in expected.items():
            found = result.params[key]
            assert found.dtype == x.dtype
            np.testing.assert_allclose(found, x, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6)
        assert (result.params["bias"] != start(dtype)["bias"]).any()
