"""One second moment of complex numbers: the walk turns with the problem, and is that of the published equation."""

import numpy as np
import pytest
from _kit.table import BY_RULE

import xpopt

pytestmark = [pytest.mark.backends("numpy"), pytest.mark.any_engine]

PHASE = np.exp(0.7j)
MOMENTS = {label: row for label, row in BY_RULE.items() if row.optimizer.moments}


def gradients(steps=6):
    """Of some elements, no two of one size, and each step's near the last one's, so that ADOPT clips none."""
    sizes = np.array([1.0, -0.5, 3.0, 0.25, -2.0])
    return [sizes * (1 + 0.1 * (-1) ** k + 0.05 * k) for k in range(steps)]


@pytest.mark.parametrize("case", MOMENTS.values(), ids=MOMENTS)
def test_every_phase_walks_as_real_numbers_do(backend, case):
    """Where all gradients have one phase, |g|^2 is the square of a real number, and the step has that phase."""
    opt, real = case.make(lr=0.1, modulus=True), case.make(lr=0.1)
    z, x = PHASE * gradients()[0], gradients()[0]
    for g in gradients():
        z, x = opt.update(z, PHASE * g, "z"), real.update(x, g, "x")
        opt.step(), real.step()
    assert np.max(np.abs(z - PHASE * x)) <= 1e-12 * np.max(np.abs(x))
    for slot in case.optimizer.moments:
        kept, want = (one.cache[name] for one, name in ((opt, "z"), (real, "x")))
        kept, want = (entry[slot] if isinstance(entry, dict) else entry for entry in (kept, want))
        assert (kept.dtype, kept.shape) == (np.float64, z.shape)
        assert np.max(np.abs(kept - want)) <= 1e-12 * np.max(np.abs(want))


def test_adam_as_it_is_written(backend):
    """Kingma and Ba's Algorithm 1 with |g|^2 for the square, of one complex number of Python's at a time."""
    rng = np.random.default_rng(4)
    start, grads = rng.normal(size=(5, 2)), rng.normal(size=(8, 5, 2))
    opt, z = xpopt.Adam(lr=0.1, modulus=True), start[:, 0] + 1j * start[:, 1]
    want, mean, var = z.tolist(), [0j] * 5, [0.0] * 5
    for t, pairs in enumerate(grads, 1):
        g = pairs[:, 0] + 1j * pairs[:, 1]
        z = opt.update(z, g, "z")
        for k, gk in enumerate(g.tolist()):
            mean[k] = 0.9 * mean[k] + 0.1 * gk
            var[k] = 0.999 * var[k] + 0.001 * abs(gk) ** 2
            want[k] -= 0.1 * (mean[k] / (1 - 0.9**t)) / ((var[k] / (1 - 0.999**t)) ** 0.5 + 1e-7)
        assert np.max(np.abs(z - want)) < 1e-13


@pytest.mark.backends("numpy", "array-api-strict", "torch", "jax", "dask")
@pytest.mark.parametrize("label", ["Adam", "AdaGrad", "NAdam"])
def test_every_library(backend, label):
    opt, twin = (MOMENTS[label].make(lr=0.1, modulus=True, clip_norm=1.0) for _ in range(2))
    dtype = backend.widest_complex
    start = (np.array([1 + 2j, -1j, 3]).reshape(3, 1)).astype(dtype)
    z, want = backend.complex(start, dtype), start
    for k in range(3):
        g = (start * 1j**k).astype(dtype)
        z, want = opt.update(z, backend.complex(g, dtype), "z"), twin.update(want, g, "z")
    assert np.max(np.abs(backend.exactly(z) - want)) <= 1e-6


def test_real_parameters_are_as_without(backend):
    opt, twin = xpopt.Adam(modulus=True), xpopt.Adam()
    x, z = np.array([1.0, -2.0]), np.ones(2, complex)
    assert np.array_equal(opt.update(x, x, "x"), twin.update(x, x, "x"))
    with xpopt.engine("blocked"):
        assert opt.explain({"x": x})[0].engine == "blocked"
        assert opt.explain({"z": z})[0].engine == "eager"
        assert opt.explain({"z": z})[0].reason.startswith("modulus=True computes with both parts")
    again = xpopt.make_optimizer(str(opt))
    assert (again.modulus, str(again)) == (True, str(opt))


def test_what_has_no_second_moment(backend):
    for cls in (xpopt.SGD, xpopt.Lion, xpopt.ScheduleFreeSGD):
        with pytest.raises(ValueError, match=f"{cls.__name__}: modulus=True needs a second moment"):
            cls(modulus=True)


def test_a_rule_that_orders_complex_numbers_is_told(backend):
    class Own(xpopt.Adam):
        @staticmethod
        def rule(xp, param, grad, s, h):
            return param - xp.maximum(grad, 0.0), s

    with pytest.raises(TypeError, match=r"xp\.maximum of complex numbers, which modulus=True"):
        Own(modulus=True).update(np.ones(2, complex), np.ones(2, complex), "z")


def test_a_moment_of_another_kind_is_refused(backend):
    opt, z = xpopt.Adam(), np.ones(2, complex)
    opt.update(z, z, "z")
    opt.set_params({"modulus": True})
    with pytest.raises(ValueError, match=r"holds 'var' as numpy complex128 .* the slot has dtype float64"):
        opt.update(z, z, "z")
