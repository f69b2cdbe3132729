"""Walk with the library, walk with the oracle, compare. What `test_mutants` shows to be able to fail."""

import math

import numpy as np
import pytest

from . import oracles, problems, schedules

# Decorates what is about float16 and bfloat16; the standard knows neither.
HAVE_16_BITS = pytest.mark.backends("numpy", "numpy-readonly", "torch", "jax", "jax-x64", "dask", "cupy")

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}


def low_dtypes(backend):
    """The dtypes of 16 bits that a backend has."""
    found = [dtype for dtype in backend.dtypes if dtype in ("float16", "bfloat16")]
    assert found
    return found


def bound(want, start, dtype, roundings):
    """The largest error allowed after each step, of `want` with a row per step."""
    # In float64, 1e-12 of the largest element and 1e-9 of the distance walked, whichever is less. In float32 each step
    # adds to the error already there half an ulp of the element, where the step is subtracted, and the step's own
    # error: `roundings` half ulps of its length.
    before = np.vstack([start, want[:-1]])
    walked = np.cumsum(np.max(np.abs(want - before), axis=1))
    if dtype == "float64":
        return np.minimum(1e-12 * np.max(np.abs(want), axis=1), 1e-9 * walked)
    largest = np.maximum.accumulate(np.max(np.maximum(np.abs(want), np.abs(before)), axis=1))
    return UNIT["float32"] * (np.arange(1, len(want) + 1) * largest + roundings * walked)


def assert_close(got, want, start, dtype, roundings, what=""):
    """Compare the elements after each step, a row per step."""
    got, want, start = np.asarray(got), np.asarray(want), np.asarray(start)
    assert got.shape == want.shape, f"{what}: {got.shape} instead of {want.shape}"
    if want.size == 0:
        return
    assert np.all(np.isfinite(want)), f"{what}: the oracle left the numbers; choose others"
    assert np.all(np.isfinite(got)), f"{what}: not finite"
    error, allowed = np.max(np.abs(got - want), axis=1), bound(want, start, dtype, roundings)
    worst = int(np.argmax(error - allowed))
    assert np.all(error <= allowed), (
        f"{what}, step {worst + 1}: off by {error[worst]:.3g}, allowed {allowed[worst]:.3g}"
    )


def assert_slots_close(got, want, dtype, roundings, what=""):
    """Compare one slot at the end, a number per element."""
    if len(want):
        allowed = 1e-12 if dtype == "float64" else UNIT["float32"] * roundings
        error, largest = np.max(np.abs(np.ravel(got) - np.asarray(want))), np.max(np.abs(want))
        assert error <= allowed * largest, f"{what}: off by {error:.3g} of {largest:.3g}"


def spoil(backend, *arrays):
    """Overwrite what was handed in: whoever kept it walks into NaN."""
    for x in arrays:
        if backend.mutable and 0 not in x.shape:
            if backend.library == "numpy":
                x.flags.writeable = True
            x[...] = math.nan


def read(backend, x):
    """The values of an array; a lazy one is computed only here, so the caller has to quieten NumPy."""
    with np.errstate(all="ignore"):
        return backend.numpy(x)


def fetch(backend, arrays):
    """The values of many arrays, flat; computed together where they are lazy."""
    return [np.ravel(backend.numpy(x)) for x in backend.computed(arrays)]


def walk(backend, optimizer, problem, dtype, *, losses=None, whole=False):
    """Update every variable of a problem at every step, one by one or as a whole; return the elements after each."""
    # Every array is overwritten once it was handed in.
    params = {}
    results = {name: [] for name in problem}
    for k in range(max(var.joins + len(var.gradients) for var in problem.values())):
        loss = None if losses is None else losses[k]
        grads = {}
        for name, var in problem.items():
            if k == var.joins:
                params[name] = backend.array(np.reshape(var.start, var.shape), dtype)
            if name in params:
                grads[name] = backend.array(np.reshape(var.gradients[k - var.joins], var.shape), dtype)
        if whole:
            new = optimizer.update_all(params, grads, loss)
        else:
            new = {name: optimizer.update(params[name], grads[name], name, loss) for name in params}
            optimizer.step()
        for name, x in new.items():
            results[name].append(fetch(backend, [x])[0] if backend.mutable else x)
            if backend.name == "numpy-readonly":
                x.flags.writeable = False
        spoil(backend, *params.values(), *grads.values())
        params = dict(new)
    if not backend.mutable:
        flat = iter(fetch(backend, [x for xs in results.values() for x in xs]))
        results = {name: [next(flat) for _ in xs] for name, xs in results.items()}
    return {name: np.reshape(xs, (len(xs), math.prod(problem[name].shape))) for name, xs in results.items()}


def verify(backend, case, schedule, clip_norm, dtype, *, optimizer=None, problem="two", whole=False):
    """Assert that an optimizer, or the class `optimizer` in place of it, walks as the oracle of `case` does."""
    opt = (optimizer or case.optimizer)(
        lr=schedule.lr, **case.arguments, **case.chosen, clip_norm=clip_norm, lr_scheduler=schedule.given
    )
    variables = problems.PROBLEMS[problem]
    paths = problems.expected(case.label, schedule.label, clip_norm, problem)
    got = walk(backend, opt, variables, dtype, losses=schedules.LOSSES, whole=whole)
    for name, var in variables.items():
        # the norm of n numbers, where there is no float64 to sum in, and the factor: n + 5 roundings
        roundings = case.roundings + (0 if clip_norm is None else len(var.start) + 5)
        what = f"{case}, {schedule}, clip_norm={clip_norm}, {dtype}, {name!r}"
        assert_close(got[name], [p for p, _ in paths[name]], var.start, dtype, roundings, what)
        if case.slots:
            entry, (_, memories) = opt.cache[name], paths[name][-1]
            entry = entry if isinstance(entry, dict) else {case.slots[0]: entry}
            if "t" in entry:
                assert entry["t"] == len(var.gradients), f"{what}: t={entry['t']}"
            for i, (slot, values) in enumerate(
                zip(case.slots, fetch(backend, [entry[s] for s in case.slots]), strict=True)
            ):
                assert_slots_close(values, [m[i] for m in memories], dtype, roundings, f"{what}, {slot}")


def verify_low(backend, case, dtype, *, optimizer=None, steps=12):
    """Assert that a parameter of 16 bits is computed in float32 and rounded once on the way out.

    What these methods remember is a function of the gradients alone, so the oracle knows each step from where the
    parameter is; what comes out must be within half an ulp of that, give or take the error of float32.
    """
    var = problems.variable(21, (37,), steps=steps)
    opt = (optimizer or case.optimizer)(lr=0.1, **case.arguments, **case.chosen)

    def rounded(values):
        return backend.numpy(backend.array(values, dtype)).ravel()

    param = backend.array(var.start, dtype)
    gradients = [rounded(g) for g in var.gradients]
    places = [backend.numpy(param).ravel()]
    for gradient in gradients:
        param = opt.update(param, backend.array(gradient, dtype), "W")
        opt.step()
        places.append(backend.numpy(param).ravel())
    flat = [g.tolist() for g in gradients]
    path = oracles.walk(case.equation, var.start, flat, [0.1] * steps, places=places[:-1], **case.arguments)
    moves = [np.asarray(exact) - before for (exact, _), before in zip(path, places[:-1], strict=True)]
    for k, (exact, _) in enumerate(path):
        half = np.array([oracles.ulp(x, dtype) / 2 for x in exact])
        float32 = UNIT["float32"] * (np.abs(exact) + case.roundings * np.max(np.abs(moves[: k + 1])))
        assert np.all(np.abs(places[k + 1] - exact) <= half + float32), f"{case}, {dtype}, step {k + 1}"
    if case.slots:
        entry = opt.cache["W"]
        entry = entry if isinstance(entry, dict) else {case.slots[0]: entry}
        for i, slot in enumerate(case.slots):
            assert entry[slot].dtype == backend.dtype("float32")
            want = [m[i] for m in path[-1][1]]
            assert_slots_close(backend.numpy(entry[slot]), want, "float32", case.roundings, f"{case}, {dtype}, {slot}")


def verify_scalars(backend, case, decay, *, optimizer=None):
    """Assert that numbers computed of `decay` alone are right in float32: all else is kept from rounding much."""
    settings = {name: decay if name.startswith("decay") else 1e-8 for name in case.arguments}
    opt = (optimizer or case.optimizer)(lr=0.05, **settings)
    gradient, param = [1.0, -0.5, 3.0], backend.array([0.0] * 3, "float32")
    path = oracles.walk(case.equation, [0.0] * 3, [gradient] * 3, [0.05] * 3, **settings)
    for t, (want, _) in enumerate(path, start=1):
        param = opt.update(param, backend.array(gradient, "float32"), "W")
        # a dozen roundings a step, of steps no longer than the parameter is by then
        error = np.abs(backend.numpy(param) - want) / np.abs(want)
        assert np.all(error <= 12 * t * UNIT["float32"]), f"{case}, decay={decay}, step {t}: off by {error}"
    entry = opt.cache["W"]
    for i, slot in enumerate(case.slots):
        want = np.array([memory[i] for memory in path[-1][1]])
        error = np.abs(backend.numpy(entry[slot] if isinstance(entry, dict) else entry) - want) / np.abs(want)
        assert np.all(error <= 16 * UNIT["float32"]), f"{case}, decay={decay}, {slot}: off by {error}"


def verify_clip(backend, gradient, clip_norm, dtype, *, sgd, roundings=None):
    """Assert that the gradient that the rule sees is scaled as the oracle says; `sgd` is a class of plain descent."""
    x = backend.array(gradient, dtype)
    held = backend.numpy(x).ravel().tolist()  # what the dtype made of it
    start = backend.array(np.zeros(np.shape(gradient)), dtype)
    with np.errstate(all="raise"):
        new = sgd(lr=1.0, clip_norm=clip_norm).update(start, x, "W")
    got = -read(backend, new).ravel()
    want = np.array(oracles.clipped(held, clip_norm))
    compute = dtype if dtype in UNIT else "float32"
    # n products and sums of the norm where it is summed in the compute dtype, and 7 more: two scalings, a root, two
    # quotients, the cast and the product
    roundings = roundings or len(held) + 7
    # JAX and CuPy take subnormal numbers for 0; elsewhere a factor may be one, and meets numbers below 4
    least = float(np.finfo(compute).tiny) if backend.library in ("jax", "cupy") else 3 * oracles.ulp(5e-324, compute)
    allowed = [roundings * UNIT[compute] * abs(w) + oracles.ulp(w, dtype) / 2 + least for w in want]
    assert np.all(np.abs(got - want) <= allowed), f"clip_norm={clip_norm}, {dtype}: {got} instead of {want}"
    return got, held
