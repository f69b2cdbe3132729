"""Every optimizer walks where its published equation does: with every schedule, clipped and not, in every shape."""

import itertools

import numpy as np
import pytest
from _kit import oracles, problems, schedules, table, trajectories
from _kit.rows import everywhere_else, on_numpy, rows
from _kit.trajectories import assert_close, verify

import xpopt
from xpopt import schedulers

CASES = pytest.mark.parametrize("case", table.ROWS, ids=str)
FEW = pytest.mark.parametrize("case", rows(table.PROMISES, ["SGD-momentum", "Adam"]))
CLIP = 0.8  # the gradients of the matrices are 6 long, those of the scalars 1


def public(module, base):
    return {x for x in map(module.__dict__.get, module.__all__) if isinstance(x, type) and issubclass(x, base)} - {base}


def test_every_schedule_has_a_row():
    here = public(schedulers, xpopt.SchedulerBase) | public(xpopt, xpopt.SchedulerBase)
    made = {type(schedulers.make_scheduler(schedule.given, lr=0.1)) for schedule in schedules.SCHEDULES}
    assert here == made


@pytest.mark.parametrize("label", ["exponential", "staircase", "noam", "king"])
def test_the_rates_change(label):
    rates = schedules.BY_LABEL[label].rates
    assert len(rates) == schedules.STEPS
    assert max(rates) > 1.5 * min(rates)


def test_the_clip_bites_and_does_not():
    norms = [oracles.norm(g) for var in problems.PROBLEMS["two"].values() for g in var.gradients]
    assert min(norms) < 0.5 * CLIP
    assert max(norms) > 2 * CLIP


FALLING = schedules.BY_LABEL["exponential"]
RATES = [
    *itertools.product(table.PROMISES.values(), schedules.SCHEDULES),
    *(
        pytest.param(case, FALLING, marks=pytest.mark.row_of_numpy)
        for case in table.ROWS
        if case.label not in table.PROMISES
    ),
]


@on_numpy
@pytest.mark.parametrize(("case", "schedule"), RATES, ids=str)
@pytest.mark.parametrize("clip_norm", [None, CLIP])
def test_schedules_and_clips(backend, case, schedule, clip_norm):
    for dtype in {backend.widest, "float32"}:
        verify(backend, case, schedule, clip_norm, dtype)


@everywhere_else
@CASES
def test_five_steps(backend, case):
    """Of a matrix, and of a number that joins late, at a rate that changes; every second row is clipped."""
    clip_norm = CLIP if table.ROWS.index(case) % 2 else None
    for dtype in {backend.widest} if backend.name in ("jax-x64", "dask") else {backend.widest, "float32"}:
        verify(backend, case, FALLING, clip_norm, dtype, problem="five")


@FEW
@pytest.mark.parametrize("dtype", rows({"float32": "float32", "float64": "float64"}, ["float32"]))
@pytest.mark.parametrize("whole", [False, True], ids=["update", "update_all"])
def test_shapes(backend, case, dtype, whole):
    clip_norm = CLIP if whole else None
    verify(backend, case, FALLING, clip_norm, dtype, problem="shapes", whole=whole)


def transposed(backend, values, dtype):
    return backend.array(values.T, dtype).T


def flipped(backend, values, dtype):
    return backend.array(values[::-1, ::-1], dtype)[::-1, ::-1]


def strided(backend, values, dtype):
    wide = np.full((3 * values.shape[0], 2 * values.shape[1] + 1), np.nan)
    wide[::3, 1::2] = values
    return backend.array(wide, dtype)[::3, 1::2]


def broadcast(backend, values, dtype):
    return backend.xp.broadcast_to(backend.array(values[0], dtype), values.shape)


def unaligned(backend, values, dtype):
    aligned = values.astype(dtype)
    x = np.frombuffer(b"." + aligned.tobytes(), aligned.dtype, offset=1).reshape(values.shape)
    assert not x.flags.aligned
    return x


def rechunked(backend, values, dtype):
    return backend.array(values, dtype).rechunk((3, 2))


def check_layout(backend, case, dtype, lay_param, lay_grad, alike=False):
    var = problems.variable(31, (7, 5), steps=4)
    start = np.reshape(var.start, var.shape)
    gradients = np.reshape(var.gradients, (4, *var.shape))
    if alike:  # along the first axis
        start, gradients = np.tile(start[:1], (7, 1)), np.tile(gradients[:, :1], (1, 7, 1))
    opt = case.make(lr=0.1, clip_norm=CLIP)
    rows, param = [], lay_param(backend, start, dtype)
    for k, gradient in enumerate(gradients):
        if k > 0:
            param = lay_param(backend, rows[-1].reshape(var.shape), dtype)
        param = opt.update(param, lay_grad(backend, gradient, dtype), "W")
        opt.step()
        rows.append(backend.numpy(param).ravel())
    flat = [g.ravel().tolist() for g in gradients]
    path = oracles.walk(case.equation, start.ravel().tolist(), flat, [0.1] * 4, CLIP, **case.arguments)
    assert_close(rows, [p for p, _ in path], start.ravel(), dtype, case.roundings + 40)


@FEW
@pytest.mark.parametrize("lay", [transposed, flipped, strided])
def test_strides(backend, case, lay):
    if lay is flipped and backend.library == "torch":
        lay = transposed  # torch has no negative strides
    check_layout(backend, case, "float32", lay, lay)
    check_layout(backend, case, "float32", lay, lambda backend, values, dtype: backend.array(values, dtype))


@FEW
def test_broadcast_views(backend, case):
    check_layout(backend, case, "float32", broadcast, broadcast, alike=True)


@CASES
@pytest.mark.backends("numpy")
def test_unaligned(backend, case):
    check_layout(backend, case, "float32", unaligned, unaligned)


@FEW
@pytest.mark.backends("dask")
def test_chunks(backend, case):
    check_layout(backend, case, "float64", rechunked, rechunked)
    check_layout(backend, case, "float64", rechunked, lambda backend, values, dtype: backend.array(values, dtype))


def test_the_comparison_is_exact_where_it_can_be(backend):
    """One step of SGD by hand, in numbers that round nowhere."""
    param = backend.array([1.0, -2.0, 0.5], "float32")
    new = xpopt.SGD(lr=0.25).update(param, backend.array([4.0, 1.0, -2.0], "float32"), "W")
    assert backend.numpy(new).tolist() == [0.0, -2.25, 1.0]
    assert backend.numpy(param).tolist() == [1.0, -2.0, 0.5]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bound_is_sharp(dtype):
    """It grants the last digits only: 1e-5 of the distance walked is refused in float32, 1e-8 in float64."""
    want = np.cumsum(np.full((50, 3), 0.1), axis=0)
    assert_close(want, want, np.zeros(3), dtype, 20)
    with pytest.raises(AssertionError, match="off by"):
        assert_close(want * (1 + {"float32": 1e-5, "float64": 1e-8}[dtype]), want, np.zeros(3), dtype, 20)
    with pytest.raises(AssertionError, match="not finite"):
        assert_close(want * np.nan, want, np.zeros(3), dtype, 20)
    assert trajectories.bound(want, np.zeros(3), "float64", 20)[-1] <= 1e-12 * 5
