"""Arrays that are not where, or what, they were at the last step: the update is right, or it is refused."""

from __future__ import annotations

import contextlib
import pickle
import tempfile
from typing import Any

import numpy as np
import pytest
from _kit.bits import cast, same_bits
from _kit.engines import MAKE

import xpopt

pytestmark = [pytest.mark.backends("numpy"), pytest.mark.usefixtures("fused")]

Tree = dict[str, Any]
paths = pytest.mark.parametrize("steps", [0, 1, 3], ids=["first step", "second step", "later step"])
wholes = pytest.mark.parametrize("whole", [True, False], ids=["update_all", "update"])


def start(dtype: str = "float32", **options: Any) -> tuple[Any, Tree, Tree]:
    """Return an optimizer and a model in one buffer with room between: two matrices and a vector."""
    rng = np.random.default_rng(9)
    memory = rng.standard_normal(4000).astype(dtype)
    params = {"a": memory[:600].reshape(20, 30), "b": memory[1000:1600].reshape(20, 30), "c": memory[2000:2007]}
    grads = {name: cast(rng.standard_normal(x.shape), dtype) for name, x in params.items()}
    return MAKE["Adam"](**options), params, grads


def step(opt: Any, params: Tree, grads: Tree, out: Tree | None, whole: bool) -> Tree:
    if whole:
        return opt.update_all(params, grads, out=out)
    new = {name: opt.update(x, grads[name], name, out=out and out[name]) for name, x in params.items()}
    opt.step()
    return new


def shifted(params: Tree, by: int) -> Tree:
    """Return arrays that overlap the parameters, each shifted by so many elements."""
    memory = params["a"].base
    return {
        name: memory[by + (x.ctypes.data - memory.ctypes.data) // x.itemsize :][: x.size].reshape(x.shape)
        for name, x in params.items()
    }


def strange_grad(make: Any) -> Any:
    """Replace the gradient of the first parameter."""
    return lambda opt, p, g: (p, {**g, "a": make(p["a"], g["a"])}, p)


def memmapped(x: Any) -> Any:
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, x.dtype, "w+", shape=x.shape)
    mapped[...] = x
    return mapped


def frozen(x: Any) -> Any:
    x = x.copy()
    x.flags.writeable = False
    return x


def another_dtype_object(x: Any) -> Any:
    unpickled = pickle.loads(pickle.dumps(x))
    assert unpickled.dtype == x.dtype
    assert unpickled.dtype is not x.dtype
    return unpickled


RIGHT = {
    "in place": lambda opt, p, g: (p, g, p),
    "new arrays": lambda opt, p, g: (p, g, None),
    "elsewhere": lambda opt, p, g: (p, g, {name: np.zeros_like(x) for name, x in p.items()}),
    "moved": lambda opt, p, g: (shifted(p, 700), g, None),
    "out one ahead of params": lambda opt, p, g: (p, g, shifted(p, 1)),
    "out one row ahead": lambda opt, p, g: (p, g, shifted(p, 30)),
    "params one ahead of out": lambda opt, p, g: (shifted(p, 1), g, p),
    "out crosswise": lambda opt, p, g: (p, g, {"a": p["b"], "b": p["a"], "c": p["c"]}),
    "out over a gradient": lambda opt, p, g: (p, g, {**p, "a": g["b"]}),
    "out over its own gradient": lambda opt, p, g: (p, g, {**p, "a": g["a"]}),
    "out behind its own gradient": lambda opt, p, g: (p, {**g, "a": shifted(p, 1)["a"]}, p),
    "gradient is its parameter": lambda opt, p, g: (p, {**g, "a": p["a"]}, p),
    "gradient is its parameter, new arrays": lambda opt, p, g: (p, {**g, "a": p["a"]}, None),
    "gradient is a view of its parameter": lambda opt, p, g: (p, {**g, "a": p["a"][::-1]}, p),
    "gradient is another's parameter": lambda opt, p, g: (p, {**g, "a": p["b"]}, p),
    "gradient in common": lambda opt, p, g: (p, {**g, "a": g["b"]}, p),
    "parameter in common": lambda opt, p, g: ({**p, "b": p["a"]}, g, None),
    "gradient in F order": strange_grad(lambda p, g: np.asfortranarray(g)),
    "gradient transposed": strange_grad(lambda p, g: np.ascontiguousarray(g.T).T),
    "gradient with gaps": strange_grad(lambda p, g: np.repeat(g, 2, axis=1)[:, ::2]),
    "gradient backwards": strange_grad(lambda p, g: g[::-1, ::-1]),
    "gradient broadcast": strange_grad(lambda p, g: np.broadcast_to(g[:1], g.shape)),
    "gradient read-only": strange_grad(lambda p, g: frozen(g)),
    "gradient of an unpickled dtype": strange_grad(lambda p, g: another_dtype_object(g)),
    "gradient in a memory map": strange_grad(lambda p, g: memmapped(g)),
    "parameter in F order": lambda opt, p, g: ({**p, "a": np.asfortranarray(p["a"])}, g, None),
    "all of one in F order": lambda opt, p, g: (
        {**p, "a": np.asfortranarray(p["a"])},
        {**g, "a": np.asfortranarray(g["a"])},
        None,
    ),
    "parameter read-only": lambda opt, p, g: ({**p, "a": frozen(p["a"])}, g, None),
    "parameter of an unpickled dtype": lambda opt, p, g: ({**p, "a": another_dtype_object(p["a"])}, g, None),
    "parameter in a memory map": lambda opt, p, g: ({**p, "a": memmapped(p["a"])}, g, None),
    "gradient on a slot": lambda opt, p, g: (p, {**g, "a": slot(opt, g)}, p),
    "gradient on a slot's bytes": lambda opt, p, g: (p, {**g, "a": np.asarray(memoryview(slot(opt, g)))}, p),
    "parameter on a slot": lambda opt, p, g: ({**p, "a": slot(opt, p)}, g, None),
    "out on a slot": lambda opt, p, g: (p, g, {**p, "a": slot(opt, p)}),
    "out behind a slot": lambda opt, p, g: (p, {**g, "a": slot(opt, g)[::-1]}, {**p, "a": slot(opt, p)}),
}


def slot(opt: Any, tree: Tree) -> Any:
    """Return a slot of the first parameter, once it has one; before that, an array of `tree`."""
    return opt.cache["a"]["mean"] if "a" in opt.cache else tree["a"]


COPIED = {what: arrange for what, arrange in RIGHT.items() if "slot" not in what}
"""What can be done to arrays of 16 bits, which no slot is."""


@wholes
@paths
@pytest.mark.parametrize(
    ("arrange", "model"),
    [*((x, ("float32", {})) for x in RIGHT.values()), *((x, ("float16", {"master": True})) for x in COPIED.values())],
    ids=[*RIGHT, *(f"{what}, with copies" for what in COPIED)],
)
def test_arrays_wherever_they_are(backend, arrange, model, steps, whole):
    dtype, options = model
    ends = []
    for engine in (contextlib.nullcontext(), xpopt.engine("eager")):
        with engine:
            opt, params, grads = start(dtype, **options)
            for _ in range(steps):
                step(opt, params, grads, params, whole)
            trees = arrange(opt, params, grads)
            for _ in range(2):
                new = step(opt, *trees, whole)
            ends.append((new, params, grads, opt.cache, {"memory": params["a"].base}))
    assert all(same_bits(x, want) for x, want in zip(*ends, strict=True))


def set_flags(x: Any) -> Any:
    x.setflags(write=False)
    return x


def reshape(x: Any) -> Any:
    return x.reshape(30, 20)


def retype(x: Any) -> Any:
    return x.view(np.int32)


def shrink(x: Any) -> Any:
    x = x.copy()
    x.resize((20, 3), refcheck=False)
    return x


WRONG = {
    "gradient is another shape": (strange_grad(lambda p, g: reshape(g)), ValueError, "gradient of 'a'"),
    "gradient is another dtype": (strange_grad(lambda p, g: retype(g)), TypeError, "gradient of 'a'"),
    "gradient is other bytes": (strange_grad(lambda p, g: g.astype(">f4")), TypeError, "gradient of 'a'"),
    "gradient has shrunk": (strange_grad(lambda p, g: shrink(g)), ValueError, "gradient of 'a'"),
    "gradient is a matrix": (strange_grad(lambda p, g: g.view(np.matrix)), TypeError, "gradient of 'a'"),
    "gradient is masked": (strange_grad(lambda p, g: np.ma.masked_array(g)), TypeError, "gradient of 'a'"),
    "gradient is a list": (strange_grad(lambda p, g: [[1.0]]), (TypeError, ValueError), "'a"),
    "parameter is another shape": (
        lambda opt, p, g: ({**p, "a": reshape(p["a"].copy())}, {**g, "a": reshape(g["a"])}, None),
        ValueError,
        "'a' names a parameter",
    ),
    "parameter is another dtype": (
        lambda opt, p, g: ({**p, "a": retype(p["a"].copy())}, g, None),
        TypeError,
        "parameter 'a'",
    ),
    "parameter is a matrix": (
        lambda opt, p, g: ({**p, "a": p["a"].view(np.matrix)}, g, None),
        TypeError,
        "parameter 'a'",
    ),
    "out is read-only": (
        lambda opt, p, g: (p, g, {**p, "a": set_flags(p["a"].copy())}),
        ValueError,
        "out of 'a' is read-only",
    ),
    "params are read-only": (
        lambda opt, p, g: ((p := {**p, "a": set_flags(p["a"][:])}), g, p),
        ValueError,
        "out of 'a' is read-only",
    ),
    "out is another shape": (
        lambda opt, p, g: (p, g, {**p, "a": reshape(p["a"].copy())}),
        ValueError,
        "out of 'a'",
    ),
    "out is a matrix": (
        lambda opt, p, g: (p, g, {**p, "a": p["a"].copy().view(np.matrix)}),
        TypeError,
        "out of 'a'",
    ),
}


@wholes
@pytest.mark.parametrize(("arrange", "error", "says"), WRONG.values(), ids=WRONG)
def test_what_is_refused_changes_nothing(backend, arrange, error, says, whole):
    opt, params, grads = start()
    for _ in range(3):
        step(opt, params, grads, params, whole)
    twin, before = opt.copy(), pickle.loads(pickle.dumps(params))
    arranged = arrange(opt, params, pickle.loads(pickle.dumps(grads)))
    with pytest.raises(error, match=says):
        step(opt, *arranged, whole)
    assert same_bits(params, before)
    assert (opt.cur_step, opt.cache["a"]["t"]) == (3, 3)
    step(opt, params, grads, params, whole)
    step(twin, before, grads, before, whole)
    assert same_bits(params, before)
    assert same_bits(opt.cache, twin.cache)


SHARED = {
    "two parameters are one": lambda p: {**p, "b": p["a"]},
    "two parameters overlap": lambda p: {**p, "b": shifted(p, 300)["a"]},
    "one element in common": lambda p: {**p, "c": p["a"].reshape(-1)[-1:].base[599:606]},
}


@paths
@pytest.mark.parametrize("rests", [(), ("b", "c")], ids=["all move", "some rest"])
@pytest.mark.parametrize("arrange", SHARED.values(), ids=SHARED)
def test_results_that_share_memory_are_refused(backend, arrange, steps, rests):
    """Also the results of parameters at rest, which are what they were."""
    opt, params, grads = start()
    grads = {name: None if name in rests else x for name, x in grads.items()}
    for _ in range(steps):
        opt.update_all(params, grads, out=params)
    shared, memory = arrange(params), params["a"].base.copy()
    with pytest.raises(ValueError, match="share memory"):
        opt.update_all(shared, grads, out=shared)
    assert same_bits(params["a"].base, memory)
    assert opt.cur_step == steps


def test_a_parameter_at_rest_is_left_alone(backend):
    """Nor is it looked at: it may have become anything, and in `out` it may be the same object or fit."""
    opt, params, grads = start()
    grads["b"] = None
    for _ in range(2):
        opt.update_all(params, grads, out=params)
    gone = {**params, "b": "gone"}
    assert opt.update_all(gone, grads)["b"] == "gone"
    assert opt.update_all(gone, grads, out=gone)["b"] == "gone"
    locked, before = {**params, "b": set_flags(params["b"][:])}, params["b"].copy()
    assert opt.update_all(locked, grads)["b"] is locked["b"]
    opt.update_all(locked, grads, out=locked)
    assert same_bits(params["b"], before)
    for out, says in ((locked["b"], "out of 'b' is read-only"), (np.ones(3, np.float32), "out of 'b'")):
        with pytest.raises(ValueError, match=says):
            opt.update_all(params, grads, out={**params, "b": out})
    assert same_bits(params["b"], before)
    assert opt.cache["a"]["t"] == opt.cur_step == 6
