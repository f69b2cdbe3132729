"""Complex parameters are pairs of reals: the walk of the real view, bit for bit, on every library and engine."""

import itertools

import numpy as np
import pytest
from _kit.bits import same_bits
from _kit.engines import MAKE, needs_llvmlite
from _kit.rows import not_read_only, rows
from _kit.table import BY_RULE, PROMISES
from _kit.variants import VARIANTS

import xpopt
from xpopt import SGD, Adam, clipping

on_numpy = pytest.mark.backends("numpy")

PART = {"complex64": "float32", "complex128": "float64"}
ALONE = ("bounded", "narrow slots", "plain")  # what real numbers have alone, and what comes last
OPTIONS = [name for name in VARIANTS if name not in ALONE] + ["plain"]
TURNS = list(zip(itertools.cycle(OPTIONS), itertools.cycle(["complex64", "complex128", "complex64"]), range(31)))
ENGINES = ["eager", "blocked"]
SHAPES = {"matrix": (5, 3), "number": (), "vector": (7,), "none": (0, 2)}


def pairs(z):
    """The real view of an array of NumPy."""
    return z[..., np.newaxis].view(PART[z.dtype.name])


def as_reals(model):
    return {name: pairs(z) for name, z in model.items()}


def draw(seed, dtype, shapes=SHAPES, steps=4):
    """Parameters, and a gradient of each step, in eighths: their norms are the same in every order."""
    rng = np.random.default_rng(seed)

    def eighths(shape):
        z = (rng.integers(-32, 33, shape) + 1j * rng.integers(-32, 33, shape)) / 8
        return np.asarray(z, dtype)

    start = {name: eighths(shape) for name, shape in shapes.items()}
    return start, [{name: eighths(shape) for name, shape in shapes.items()} for _ in range(steps)]


def walk(opt, params, gradients, way):
    """Update a model by each of some gradients, in one of the ways there are."""
    for k, grads in enumerate(gradients):
        if way == "update":
            params = {name: opt.update(x, grads[name], name) for name, x in params.items()}
            opt.step()
        else:
            out = params if way == "in place" and k else None
            params = opt.update_all(params, grads, out=out)
    return params


def assert_alike(opt, params, twin, reals):
    """The complex walk has the bits of the real one, and so has its state, in which one number is real."""
    for name, z in params.items():
        assert same_bits(pairs(z), reals[name]), name
    for name, entry in opt.cache.items():
        slots, others = (x if isinstance(x, dict) else {"": x} for x in (entry, twin.cache[name]))
        assert slots.keys() == others.keys()
        for slot, x in slots.items():
            like = isinstance(x, np.ndarray) and x.shape == params[name].shape and others[slot].shape != x.shape
            assert same_bits(pairs(x) if like else x, others[slot]), (name, slot)
            assert not like or x.dtype == params[name].dtype


@on_numpy
@pytest.mark.parametrize(("case", "turn"), list(zip(BY_RULE.values(), TURNS, strict=False)), ids=str)
def test_every_rule_sees_the_real_view(backend, case, turn):
    """Each with one of the options, dtypes, ways and engines, in turn."""
    option, dtype, k = turn
    start, grads = draw(k, dtype)
    with xpopt.engine(ENGINES[k % 2]):
        options = {**VARIANTS[option], "prox": None}  # a map sees complex numbers whole
        opt, twin = (case.make(lr=0.125, **options) for _ in range(2))
        params = walk(opt, start, grads, ["update", "new", "in place"][k % 3])
        reals = walk(twin, as_reals(start), map(as_reals, grads), "new")
    assert_alike(opt, params, twin, reals)


@needs_llvmlite
@on_numpy
@pytest.mark.parametrize("name", ["SGD-momentum", "Adam"])
def test_compiled(backend, name):
    clip_norm = 0.8 if name == "Adam" else None
    start, grads = draw(5, "complex64")
    with xpopt.engine("compiled"):
        opt, twin = (MAKE[name](clip_norm=clip_norm) for _ in range(2))
        params = walk(opt, start, grads, "in place")
        reals = walk(twin, as_reals(start), map(as_reals, grads), "new")
        assert {row.engine for row in opt.explain(params)} == {"compiled"}
    assert_alike(opt, params, twin, reals)


LAYOUTS = {
    "C": (lambda z: z, True),
    "Fortran": (np.asfortranarray, True),
    "strided": (lambda z: np.repeat(z, 2, 1)[:, ::2], False),
    "reversed": (lambda z: np.ascontiguousarray(z[::-1])[::-1], False),
    "row": (lambda z: z[1], True),
    "number": (lambda z: np.array(z[1, 2]), True),
    "empty": (lambda z: z[:0], True),
}


@on_numpy
@pytest.mark.parametrize("engine", ["blocked", pytest.param("compiled", marks=needs_llvmlite)])
@pytest.mark.parametrize(("lay", "fuses"), LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(backend, engine, lay, fuses):
    """Contiguous arrays fuse, and are written where they are; all others are updated eagerly, with the same bits."""
    start, (grad, *_) = draw(9, "complex128", {"z": (5, 3)})
    z, g = lay(start["z"]), lay(grad["z"])
    with xpopt.engine("eager"):
        want = Adam().update(pairs(np.array(z)), pairs(np.array(g)), "z")
    with xpopt.engine(engine):
        opt = Adam()
        assert opt.explain({"z": z})[0].engine == (engine if fuses else "eager")
        new = opt.update(z, g, "z")
        assert opt.update(z, g, "again", out=z) is z
    assert same_bits(pairs(np.array(new)), want)
    assert same_bits(pairs(np.array(z)), want)


@pytest.mark.parametrize("case", rows(PROMISES, ["SGD", "Adam"]), ids=str)
def test_every_library(backend, case):
    """Beside NumPy's walk of the real view, in the roundings of the row."""
    dtype = backend.widest_complex
    shapes = ["matrix", "number"] if backend.library == "jax" else SHAPES  # which compiles for each shape
    start, grads = draw(3, dtype, {name: SHAPES[name] for name in shapes})
    opt, twin = case.make(lr=0.125, clip_norm=2.0), case.make(lr=0.125, clip_norm=2.0)
    params = {name: backend.complex(z, dtype) for name, z in start.items()}
    for g in grads:
        params = opt.update_all(params, {name: backend.complex(z, dtype) for name, z in g.items()})
    reals = walk(twin, as_reals(start), map(as_reals, grads), "new")
    unit = {"complex64": 2.0**-24, "complex128": 2.0**-53}[dtype]
    for name, z in params.items():
        got = backend.exactly(z)
        assert (got.dtype, got.shape) == (np.dtype(dtype), start[name].shape)
        moved = np.max(np.abs(reals[name] - pairs(start[name])), initial=0.0)
        assert np.all(np.abs(pairs(got) - reals[name]) <= unit * (8 * np.abs(reals[name]) + case.roundings * 8 * moved))


SPECIAL = [np.inf, -np.inf, np.nan, -0.0, 0.0, 1.0]


def test_parts_do_not_meet(backend):
    """What is not finite in one part leaves the other alone, and a zero keeps its sign."""
    both = np.array([complex(a, b) for a in SPECIAL for b in SPECIAL]).reshape(6, 6)
    for dtype in {"complex64", backend.widest_complex}:
        z = both.astype(dtype)
        new = backend.exactly(
            SGD(lr=0.0).update(backend.complex(z, dtype), backend.complex(np.ones((6, 6)), dtype), "z")
        )
        assert same_bits(pairs(new), pairs(z) - np.zeros(2, PART[dtype]))
        moved = SGD(lr=1.0).update(backend.complex(np.zeros((6, 6)), dtype), backend.complex(z, dtype), "z")
        assert same_bits(pairs(backend.exactly(moved)), 0 - pairs(z))


@pytest.mark.any_width
def test_norms_are_of_complex_numbers(backend):
    """3, 4j and 12: a norm of 13."""
    grads = {"a": backend.complex([3, 4j]), "b": backend.complex(12)}
    assert abs(float(backend.numpy(clipping.global_norm(grads))) - 13) < 1e-5
    clipped = clipping.clip_by_global_norm(grads, 1.3)
    assert np.allclose(backend.exactly(clipped["a"]), [0.3, 0.4j], rtol=1e-6)
    above = xpopt.climb({"a": backend.complex([1j, 0])}, {"a": backend.complex([3, 4j])}, rho=5.0)
    assert np.allclose(backend.exactly(above["a"]), [3 + 1j, 4j], rtol=1e-6)
    new = SGD(lr=1.0, clip_norm=0.5).update(backend.complex([0, 0]), grads["a"], "a")
    assert np.allclose(backend.exactly(new), [-0.3, -0.4j], rtol=1e-6)


@pytest.mark.any_width
@not_read_only
@pytest.mark.parametrize("options", [{"nonfinite": "skip"}, {"nonfinite": "skip", "clip_norm": 1.0}], ids=str)
def test_one_part_that_is_not_finite_leaves_the_step_out(backend, options):
    opt, z = Adam(**options), {"z": backend.complex([1, 1j])}
    for bad in (complex(np.nan, 1), complex(1, np.inf), complex(-np.inf, 0)):
        z = opt.update_all(z, {"z": backend.complex([1, bad])})
    assert opt.skipped == 3
    assert backend.exactly(z["z"]).tolist() == [1, 1j]
    assert backend.exactly(opt.update_all(z, {"z": backend.complex([1, 1j])})["z"]).tolist() != [1, 1j]


@on_numpy
def test_large_parts_are_too_large_for_the_products(backend):
    """Of each part the square is taken: 1e21 has none in float32."""
    opt = Adam(nonfinite="raise")
    z = np.zeros(2, np.complex64)
    with pytest.raises(FloatingPointError, match="too large"):
        opt.update(z, np.array([1, 1e21j], np.complex64), "z")
    opt.update(z, np.array([1, 1e10j], np.complex64), "z")


@pytest.mark.any_width
def test_climb_takes_no_mixture(backend):
    with pytest.raises(TypeError, match=r"gradient of 'W' has dtype complex\d+, and .*grad.real"):
        xpopt.climb({"W": backend.array([1.0])}, {"W": backend.complex([1j])}, 0.5)


@on_numpy
def test_numbers(backend):
    """A complex number of Python's comes back as one from `update_all`; a real number is a complex gradient, too."""
    new, twin = SGD(lr=0.5).update_all([1 + 2j, 3.0], [2 + 2j, 2.0])
    assert (new, twin) == (1j, 2.0)
    assert type(new) is complex
    assert SGD(lr=0.5).update_all([1 + 2j], [2.0]) == [2j]
    with pytest.raises(TypeError, match=r"gradient of 0 has dtype complex128.*grad.real"):
        SGD().update_all([1.0], [1j])
    assert SGD(lr=0.5).update([1j, 2], [2j, 2.0], "z").tolist() == [0, 1]


@on_numpy
def test_what_complex_numbers_have_not(backend):
    z = np.ones(3, np.complex64)
    with pytest.raises(TypeError, match="no order, and 'z' is complex64"):
        Adam(bounds=(0, 1)).update(z, z, "z")
    with pytest.raises(TypeError, match=r"kept in bfloat16, which has no complex dtype; .*groups="):
        Adam(slots_dtype="bfloat16").update(z, z, "z")
    opt = Adam(slots_dtype="float32")
    opt.update(np.ones(3, complex), np.ones(3, complex), "z")
    assert opt.cache["z"]["var"].dtype == np.complex64
    for options in ({"master": True}, {"rounding": "stochastic"}):
        Adam(**options).update(z, z, "z")


@pytest.mark.any_width
def test_fista_shrinks_moduli(backend):
    """The minimum of |z - a|^2 / 2 + |z| has the modulus less 1; there, nothing is left to descend."""
    a = backend.complex([3 + 4j, 0.5j])
    opt, params = xpopt.FISTA(lr=0.5, prox=xpopt.prox.l1(1.0)), {"z": backend.complex([0, 0])}
    for _ in range(40):
        params = opt.update_all(params, {"z": params["z"] - a})
    found = opt.averaged(params)
    assert np.allclose(backend.exactly(found["z"]), [2.4 + 3.2j, 0], atol=1e-5)
    assert float(backend.numpy(opt.stationarity(found, {"z": found["z"] - a}))) < 1e-4
    start = {"z": backend.complex([0, 0])}
    assert abs(float(backend.numpy(opt.stationarity(start, {"z": start["z"] - a}))) - 4) < 1e-5
