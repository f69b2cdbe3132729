"""Any shape, layout, dtype and settings, against the oracle."""

import itertools
import math

import numpy as np
from _kit import oracles, table
from _kit.strategies import drawn
from _kit.trajectories import UNIT, assert_close
from hypothesis import assume, given
from hypothesis import strategies as st

import xpopt
from xpopt._arrays.norms import clip_factor

RATE = st.floats(1e-3, 10.0)


# no smaller than what float32 squares without underflow, no larger than what leaves digits to the step
NUMBERS = st.one_of(st.just(0.0), st.floats(0.015625, 10, width=32), st.floats(-10, -0.015625, width=32))
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def layouts(draw, shape):
    """A function that lays values out in memory in some way: order of axes, direction, gaps, alignment."""
    axes = draw(st.permutations(range(len(shape))))
    back = [draw(st.booleans()) for _ in shape]
    gaps = [draw(st.integers(1, 3)) for _ in shape]
    shift = draw(st.sampled_from([0, 1]))
    read_only = draw(st.booleans())

    def lay(values):
        wide = [shape[axis] * gaps[axis] for axis in axes]
        raw = np.zeros(math.prod(wide) * values.itemsize + shift, np.uint8)[shift:]
        x = (
            raw.view(values.dtype).reshape(wide).transpose(np.argsort(axes))
            if shape
            else raw.view(values.dtype).reshape(())
        )
        x = x[tuple(slice(None, None, -gap if b else gap) for gap, b in zip(gaps, back, strict=True))] if shape else x
        assert x.shape == values.shape
        x[...] = values
        x.flags.writeable = not read_only
        return x

    return lay


@st.composite
def problems(draw):
    case = draw(st.sampled_from(list(table.BY_RULE.values())))
    shape = draw(SHAPES)
    dtype = draw(st.sampled_from(["float32", "float64"]))
    steps = draw(st.integers(1, 5))
    arrays = st.lists(NUMBERS, min_size=math.prod(shape), max_size=math.prod(shape))
    return (
        case,
        {name: draw(drawn(table.SIGNATURES[case.optimizer][name])) for name in case.arguments},
        shape,
        dtype,
        draw(arrays),
        [draw(arrays) for _ in range(steps)],
        [draw(RATE) for _ in range(steps)],
        draw(st.one_of(st.none(), st.floats(0.1, 20.0))),
        draw(layouts(shape)),
        draw(layouts(shape)),
    )


@given(problems())
def test_any_problem(problem):
    case, settings, shape, dtype, start, gradients, rates, clip_norm, lay_param, lay_grad = problem
    opt = case.make(lr=1.0, **settings, clip_norm=clip_norm)
    param = np.reshape(np.array(start, dtype), shape)
    rows = []
    for gradient, rate in zip(gradients, rates, strict=True):
        opt.set_params({"lr": rate})
        grad = lay_grad(np.reshape(np.array(gradient, dtype), shape))
        param = opt.update(lay_param(param), grad, "W")
        assert param.shape == shape
        assert param.dtype == dtype
        assert param.flags.writeable
        opt.step()
        rows.append(param.ravel().astype(np.float64))
    path = oracles.walk(case.equation, start, gradients, rates, clip_norm, **settings)
    if case.signs:  # a sign that hangs on the last digits is another in float32
        for way in (-1, 1):
            near = [[g * (1 + way * (-1) ** k * 1e-5) for g in gradient] for k, gradient in enumerate(gradients)]
            other = oracles.walk(case.equation, start, near, rates, clip_norm, **settings)
            assume([p for p, _ in other] == [p for p, _ in path])
    # five roundings for each of five steps, in each of the two means, and three for the clip factor; the rates differ
    # by up to 1e4, so that what is left of an early step may outlast a late one's length
    assert_close(rows, [p for p, _ in path], start, dtype, 100)


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20),
    st.integers(-180, 180),
    st.floats(1e-3, 1e3),
)
def test_any_clip_factor(values, exponent, ratio):
    """In float64, by the scaled sum, whatever the size."""
    values = [v * 10.0**exponent for v in values]
    length = oracles.norm(values)
    clip_norm = ratio * length if length > 0 else 1.0
    for x in (np.array(values), np.array(values)[::-1]):
        with np.errstate(all="ignore"):
            scale, factor = map(float, clip_factor(np, x, clip_norm, float64=True))
        assert 0 < factor <= 1 == scale
        if length > 0:
            assert abs(factor - min(1.0, ratio)) <= 40 * UNIT["float64"] * min(1.0, ratio)


@given(st.permutations(range(5)), st.integers(1, 4))
def test_names_are_independent(order, steps):
    """However the updates of many names are interleaved, each walks as it would alone."""
    many, results = xpopt.Adam(lr=0.1, eps=1e-7), {}
    params = {name: np.array([float(name)]) for name in order}
    for k, name in itertools.product(range(steps), order):
        params[name] = many.update(params[name], np.array([math.sin(k + name)]), name)
    for name in order:
        gradients = [[math.sin(k + name)] for k in range(steps)]
        path = oracles.walk(oracles.adam, [float(name)], gradients, [0.1] * steps, decay1=0.9, decay2=0.999, eps=1e-7)
        results[name] = path[-1][0][0]
        assert abs(params[name][0] - results[name]) <= 1e-14
