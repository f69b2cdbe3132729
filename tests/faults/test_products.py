"""A finite gradient whose products are not: with `nonfinite`, the step is refused like one with an infinite gradient.

Whether a product is finite is known beforehand: the powers of two at which it overflows are worked out by hand.
"""

from __future__ import annotations

import itertools
import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit.engines import of_rule
from _kit.rows import rows
from _kit.states import CountingScheduler, frozen, held, nothing_changes

import xpopt
from xpopt._graph.rule import NoSlots

pytestmark = pytest.mark.any_width

ON_HOST = ("numpy", "numpy-readonly", "array-api-strict", "torch")
on_host = pytest.mark.backends(*ON_HOST)
not_dask = pytest.mark.backends(*ON_HOST, "jax", "jax-x64", "cupy")

RANGES = {"bfloat16": 128, "float32": 128, "float64": 1024}
"""The power of two from which on a number of the arithmetic is infinite. float16 is too narrow to reach it."""

CASES = {
    "AdaGrad": (xpopt.AdaGrad, lambda of: of // 2),  # g * g
    "RMSProp": (lambda **kw: xpopt.RMSProp(decay=0.75, **kw), lambda of: of // 2 + 1),  # (g / 4) * g
    "Adam": (lambda **kw: xpopt.Adam(decay1=0.5, decay2=0.75, **kw), lambda of: of // 2 + 1),
    "momentum": (lambda **kw: xpopt.SGD(lr=2.0, momentum=0.5, **kw), lambda of: of - 1),  # 2 * g
}
cases = pytest.mark.parametrize("case", rows(CASES, ["Adam", "momentum"]))


@pytest.fixture(autouse=True)
def quiet_dask(request: pytest.FixtureRequest) -> Any:
    """Dask's arithmetic runs where its values are asked for: here, where NumPy warns of what is not finite."""
    with warnings.catch_warnings():
        if "backend" in request.fixturenames and request.getfixturevalue("backend").library == "dask":
            warnings.simplefilter("ignore", RuntimeWarning)
        yield


def ends(dtype: str, power: int) -> tuple[float, float]:
    """Return ``2**power``, and the number of a dtype before it."""
    digits = {"bfloat16": 8, "float32": 24, "float64": 53}[dtype]
    return 2.0**power, 2.0**power * (1 - 2.0**-digits)


def wide(backend: Any) -> list[str]:
    return [dtype for dtype in backend.dtypes if dtype in RANGES]


def steps(backend: Any, opt: Any, value: float, dtype: str, size: int = 3) -> Any:
    """Make one step with a gradient of 1, two with one element of `value` and two with its negative; the parameters."""
    params = {"W": backend.array(np.ones(size), dtype), "b": backend.array(np.ones(3), dtype)}
    good = {name: backend.array(np.ones(x.shape), dtype) for name, x in params.items()}
    params = opt.update_all(params, good)
    for sign in (1, 1, -1, -1):
        spoilt = np.ones(size)
        spoilt[size // 2] = sign * value
        params = opt.update_all(params, {**good, "W": backend.array(spoilt, dtype)})
    return params


def states(backend: Any, opt: Any) -> list[Any]:
    return [
        backend.numpy(x)
        for entry in opt.cache.values()
        for x in (entry.values() if isinstance(entry, dict) else [entry])
        if not isinstance(x, int)
    ]


@cases
@pytest.mark.parametrize("clip_norm", rows({"plain": None, "clipped": 1e300}, ["plain"]))
def test_the_least_that_is_not_finite_is_refused_and_what_is_below_is_not(backend, case, clip_norm):
    make, edge = case
    for dtype in wide(backend):
        if clip_norm is not None and dtype == "float64":
            continue  # its own norm would be clipped
        refused, made = ends(dtype, edge(RANGES[dtype]))
        opt = make(nonfinite="skip", clip_norm=clip_norm)
        params = steps(backend, opt, refused, dtype)
        assert opt.skipped == 4
        assert all(np.isfinite(x).all() for x in states(backend, opt))
        plain = make(clip_norm=clip_norm)
        one = {name: backend.array(np.ones(x.shape), dtype) for name, x in params.items()}
        assert frozen(backend, params) == frozen(backend, plain.update_all(one, one))
        opt, plain = make(nonfinite="skip", clip_norm=clip_norm), make(clip_norm=clip_norm)
        assert frozen(backend, steps(backend, opt, made, dtype)) == frozen(backend, steps(backend, plain, made, dtype))
        assert opt.skipped == 0
        assert frozen(backend, opt.cache) == frozen(backend, plain.cache)


@cases
def test_one_parameter_alone(backend, case):
    make, edge = case
    for dtype in wide(backend):
        refused, made = ends(dtype, edge(RANGES[dtype]))
        for options in ({}, {"master": True}, {"rounding": "stochastic"}):
            opt, W = make(nonfinite="skip", **options), backend.array([1.0, 2.0, 3.0], dtype)
            for value, skipped in [(1.0, 0), (refused, 1), (made, 1), (-refused, 2)]:
                new = opt.update(W, backend.array([0.0, value, 0.0], dtype), "W")
                assert opt.skipped == skipped
                if abs(value) == refused:
                    assert frozen(backend, new) == frozen(backend, W)


@pytest.mark.parametrize("size", [1, 70_000], ids=["one", "blocks"])
@pytest.mark.parametrize("place", [0, -1])
def test_wherever_the_element_is(backend, size, place):
    for dtype in wide(backend):
        refused, _ = ends(dtype, RANGES[dtype] // 2)
        values = np.ones((size, 2))
        values[place, place] = -refused
        opt, W = xpopt.AdaGrad(nonfinite="skip"), backend.array(np.ones((size, 2)), dtype)
        opt.update_all([W], [backend.array(values, dtype)])
        assert opt.skipped == 1
    if backend.library == "numpy":
        grad = np.ones((4, 6))
        grad[2, 2] = 2.0**512
        opt = xpopt.AdaGrad(nonfinite="skip")
        for x in (grad.T, grad[:, ::2], grad[::-1], np.asfortranarray(grad)):
            opt.update(np.ones(x.shape), x, str(x.strides))
        assert opt.skipped == 4


@pytest.mark.parametrize("options", [{}, {"master": True}, {"rounding": "stochastic"}], ids=str)
def test_16_bits_are_tested_in_the_arithmetic_of_32(backend, options):
    for dtype in {"float16", "bfloat16"}.intersection(backend.dtypes):
        largest = {"float16": 65504.0, "bfloat16": 2.0**63}[dtype]
        opt = xpopt.AdaGrad(nonfinite="skip", **options)
        steps(backend, opt, largest, dtype)
        assert opt.skipped == 0
        assert states(backend, opt)[0].max() > largest**2


def walk(backend: Any, opt: Any, values: list[float], dtype: str) -> list[Any]:
    """Make a step for each value, which is one element of a gradient of ones; return what the parameters were."""
    params = {"W": backend.array(np.ones(3), dtype), "b": backend.array([1.0, 2.0, 3.0], dtype)}
    seen = [params]
    for value in values:
        gradients = [np.ones(3), np.ones(3)]
        gradients[0][1] = value
        grads = {name: backend.array(x, dtype) for name, x in zip(params, gradients, strict=True)}
        params = opt.update_all(params, grads)
        seen.append(params)
    return seen


OPTIONS = [
    dict(zip(("master", "rounding", "clip_norm"), values, strict=True))
    for values in itertools.product([False, True], ["nearest", "stochastic"], [None, 2.0**100])
    if not (values[0] and values[1] == "stochastic")
]


@cases
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cause", rows({"nan": np.nan, "inf": np.inf, "product": 0.0}, ["product"]))
def test_a_refused_step_under_the_other_options(backend, case, options, cause):
    """On the host, the others have the bits of a run without it; on a device, it changes no parameter and no slot."""
    make, edge = case
    for dtype in {"bfloat16", "float32"}.intersection(backend.dtypes):
        refused = cause or 2.0 ** edge(128)
        if abs(refused) > 2.0**100 and np.isfinite(refused) and options["clip_norm"] is not None:
            continue  # it is clipped to where it is small enough
        opt, plain = make(nonfinite="skip", **options), make(**options)
        seen = walk(backend, opt, [1.0, 0.5, refused, 0.25, 0.5, refused], dtype)
        assert opt.skipped == 2
        for k in (3, 6):
            assert frozen(backend, seen[k]) == frozen(backend, seen[k - 1])
        assert all(np.isfinite(x).all() for x in states(backend, opt))
        if backend.name in ON_HOST:
            want = walk(backend, plain, [1.0, 0.5, 0.25, 0.5], dtype)
            assert frozen(backend, [seen[i] for i in (1, 2, 4, 5)]) == frozen(backend, want[1:])
            assert frozen(backend, opt.cache) == frozen(backend, plain.cache)


@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_it_is_the_clipped_gradient_that_counts(backend, policy):
    """Of one element, which is clipped to `clip_norm` exactly."""
    policy = "skip" if backend.library == "dask" else policy
    for dtype in {"bfloat16", "float32"}.intersection(backend.dtypes):
        for power, clip, refused in [
            (70, 64, True),
            (70, 63, False),
            (120, 0, False),
            (64, 100, True),
            (63, 100, False),
        ]:
            opt = xpopt.AdaGrad(nonfinite=policy, clip_norm=2.0**clip)
            W, grad = backend.array([1.0], dtype), backend.array([2.0**power], dtype)
            if refused and policy == "raise":
                with pytest.raises(FloatingPointError, match=r"too large .*AdaGrad.rule.*gradient of 'W'"):
                    opt.update(W, grad, "W")
                assert opt.cache == {}
            else:
                opt.update(W, grad, "W")
                assert opt.skipped == refused
                assert refused or np.isfinite(states(backend, opt)[0]).all()


@not_dask
def test_an_error_names_the_parameters_and_nothing_has_changed(backend):
    opt = xpopt.Adam(nonfinite="raise", lr_scheduler=CountingScheduler())
    good = backend.array([1.0, 1.0], "float32")
    opt.update_all({"x": good, "y": good}, {"x": good, "y": good})
    bad = backend.array([1.0, 1e22], "float32")
    says = (
        r"too large for the products of Adam.rule: the gradient of 'y' \(1 of 2\)\. Nothing has changed; nonfinite='s"
    )
    for _ in range(2):
        with nothing_changes(backend, opt, good, bad):
            with pytest.raises(FloatingPointError, match=says):
                opt.update_all({"x": good, "y": good}, {"x": good, "y": bad})
            with pytest.raises(FloatingPointError, match=r"too large .* 'y' \(1 of 1\)"):
                opt.update(good, bad, "y")


@on_host
def test_the_schedule_that_has_been_asked_is_as_it_was(backend):
    opt = xpopt.Adam(nonfinite="skip", lr_scheduler=CountingScheduler())
    good, bad = backend.array([1.0, 1.0], "float32"), backend.array([1.0, 1e22], "float32")
    opt.update_all({"x": good}, {"x": good}, 1.0)
    for _ in range(2):
        before = opt.skipped
        with nothing_changes(backend, opt, good, bad):
            opt.update_all({"x": good}, {"x": bad}, 2.0)
            opt.update(good, bad, "x", 3.0)
            opt.update(good, bad, "new", 3.0)
        assert opt.skipped == before + 3
    opt.update(good, good, "x", 4.0)
    assert opt.lr_scheduler.state() == {"losses": [1.0, 4.0]}


# Rules of one's own


class One(NamedTuple):
    slot: Any


def skipped(backend: Any, rule: Any, value: float, slots: Any = One, **settings: Any) -> int:
    """Return how many of two steps are refused, for a gradient of float32 with that element."""
    opt = of_rule(rule, slots)(nonfinite="skip", **settings)
    W, grad = backend.array([1.0, 1.0], "float32"), backend.array([1.0, value], "float32")
    for _ in range(2):
        opt.update_all([W], [grad])
    return opt.skipped


ROBUST = {
    "where": lambda xp, p, g, s, h: (p - g, One(xp.where(xp.abs(g) < 1, g * g / 2, xp.abs(g) - 0.5))),
    "minimum": lambda xp, p, g, s, h: (p - g, One(s.slot + xp.minimum(g * g, 1.0))),
    "a denominator": lambda xp, p, g, s, h: (p - g / 1e20, One(s.slot + 1 / (1 + g * g))),
    "a comparison": lambda xp, p, g, s, h: (p - xp.where(g * g > 1, 0.5, g), s),
    "an exponential": lambda xp, p, g, s, h: (p, One(s.slot + xp.exp(-(g * g)))),
    "a step": lambda xp, p, g, s, h: (p - 1e20 * g, s),
}


@pytest.mark.parametrize("rule", ROBUST.values(), ids=ROBUST)
def test_what_the_rule_copes_with_is_no_reason(backend, rule):
    assert skipped(backend, rule, 1e22) == 0


CUBES = {
    "a product": lambda xp, p, g, s, h: (p - g * g * g, s),
    "a power": lambda xp, p, g, s, h: (p - xp.abs(g) ** 3, s),
    "a square": lambda xp, p, g, s, h: (p - xp.square(g) * g, s),
    "under a root": lambda xp, p, g, s, h: (p - xp.sqrt(xp.abs(g * g * g)), s),
    "over a quotient": lambda xp, p, g, s, h: (p - g * g * g / (1 + xp.abs(g)), s),
    "with numbers": lambda xp, p, g, s, h: (p - (-g / 4) * (g * 4) * g, s),
    "in a slot": lambda xp, p, g, s, h: (p, One(s.slot / 2 + g * g * g)),
}


@pytest.mark.parametrize("rule", CUBES.values(), ids=CUBES)
def test_a_product_in_any_form(backend, rule):
    """Of three: 2**43 is too large, 2**42 is not."""
    for value, count in [(2.0**43, 2), (-(2.0**43), 2), (2.0**42, 0), (-(2.0**42), 0)]:
        assert skipped(backend, rule, value) == count


def test_a_part_of_a_product_may_be_what_is_not_finite(backend):
    assert skipped(backend, lambda xp, p, g, s, h: (p, One(s.slot + (g * 2.0**10) * 2.0**-20)), 2.0**120) == 2
    assert skipped(backend, lambda xp, p, g, s, h: (p, One(s.slot + (g * 2.0**-20) * 2.0**10)), 2.0**120) == 0


def test_a_number_that_is_not_finite_spoils_whatever_comes(backend):
    assert skipped(backend, lambda xp, p, g, s, h: (p - g * g * 1e300, s), 0.0, NoSlots) == 2


@pytest.mark.parametrize("reason", ["a branch", "a random number"])
def test_of_a_rule_that_cannot_be_traced_the_gradient_alone(backend, reason):
    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any, calls: Any = itertools.count()) -> Any:  # noqa: B008
        factor = 1.0 if reason == "a branch" and h.t > 0 else 1 / (2 + next(calls))
        return param - factor * grad, One(s.slot + factor * grad * grad)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert skipped(backend, rule, 1e22) == 0
        assert skipped(backend, rule, np.inf) == 2


def test_each_parameter_has_the_numbers_of_its_count(backend):
    """``t * g * g``: at the fourth update 2**63 is too large, at the third and before it is not."""
    opt = of_rule(lambda xp, p, g, s, h: (p - h.lr * g / 1e20, One(s.slot / 2 + h.t * g * g)), One)(nonfinite="skip")
    x, good, large = (backend.array([value], "float32") for value in (1.0, 1.0, 2.0**63))
    for _ in range(3):
        opt.update_all({"old": x}, {"old": good})
    for name, count in [("new", 0), ("old", 1)]:
        other = "old" if name == "new" else "new"
        opt.update_all({"old": x, "new": x}, {name: large, other: good})
        assert opt.skipped == count


@on_host
def test_a_rate_that_changes_is_the_one_of_the_step(backend):
    """Rates of 1/2, 1/4 and so on, times 8, in a slot."""
    rule = lambda xp, p, g, s, h: (p - g / 2.0**20, One(s.slot / 2 + (8 * h.lr) * g))  # noqa: E731
    opt = of_rule(rule, One)(nonfinite="skip", scheduler=CountingScheduler())
    x, large = backend.array([1.0], "float32"), backend.array([2.0**127], "float32")
    for wanted in (1, 2):  # 4 * 2**127
        opt.update_all([x], [large])
        assert opt.skipped == wanted
    for _ in range(2):
        opt.update_all([x], [x])
    for _ in range(2):  # 2**127
        opt.update_all([x], [large])
    assert (opt.skipped, held(backend, opt)["schedule"]) == (2, {"losses": [None] * 4})


@pytest.mark.backends("numpy")
@cases
def test_on_every_engine_that_fuses(fused, backend, case):
    make, edge = case
    for dtype, power in [("float32", 128), ("float64", 1024)]:
        refused, made = ends(dtype, edge(power))
        for value, count in [(refused, 4), (made, 0)]:
            opt = make(nonfinite="skip")
            steps(backend, opt, value, dtype, 300)
            assert opt.skipped == count
            assert opt.explain([np.ones(3, dtype)])[0].engine == fused
