"""What is true of the blocked engine alone, and of choosing an engine."""

from __future__ import annotations

import numpy as np
import pytest
from _kit.engines import of_rule

import xpopt
from xpopt._graph.rule import NoSlots, Rule
from xpopt._graph.trace import trace
from xpopt._print.numpy import print_numpy

pytestmark = pytest.mark.backends("numpy")


def test_an_engine_that_is_none_is_an_error(backend):
    with pytest.raises(ValueError, match=r"engine 'gpu'; wanted one of auto, eager, blocked"), xpopt.engine("gpu"):
        pass


def test_the_printed_kernel_reads_as_the_rule(backend):
    assert (
        print_numpy(trace(Rule(xpopt.AdaGrad.rule, xpopt.AdaGrad.slots))).text
        == '''\
def kernel(param, grad, total, new_param, new_total, x0, x1, c0, c1):
    """AdaGrad.rule, as calls of NumPy's ufuncs."""
    # c0 = h.lr
    # c1 = h.eps
    multiply(c0, grad, x0)
    multiply(grad, grad, x1)
    add(total, x1, new_total)
    sqrt(new_total, x1)
    add(x1, c1, x1)
    divide(x0, x1, x1)
    subtract(param, x1, new_param)
'''
    )


POWER = of_rule(lambda xp, p, g, s, h: (p - 0.1 * xp.pow(xp.abs(p), h.lr) * g, s), NoSlots)


KINDS = {
    "Adam": xpopt.Adam,
    "clipped": lambda **own: xpopt.Adam(clip_norm=1.0, **own),
    "options": lambda **own: xpopt.Adam(l2=0.1, clip_value=0.5, bounds=(-2, 2), cautious=True, **own),
    "momentum": lambda **own: xpopt.SGD(momentum=0.5, **own),
    "power": POWER,
}


DTYPES = ("float16", "float32", "float64")
CASES = {(kind, dtype) for kind in KINDS for dtype in DTYPES} | {("Adam", "complex64")}


@pytest.mark.parametrize(("kind", "dtype"), sorted(CASES - {("clipped", "float64")}))  # whose norms differ by engine
def test_small_tensors_of_several_groups_share_a_block_with_the_bits_of_optimizers_apart(backend, kind, dtype):
    """Also where one has missed a step. Powers stay apart: NumPy may compute squares for the exponent 2."""
    make = KINDS[kind]
    rng = np.random.default_rng(0)

    def draw():
        x = {f"{of}{k}": rng.normal(size=(3, k + 1)) for k in range(5) for of in "abc"}
        return {name: (v + 1j * v[::-1] if dtype == "complex64" else v).astype(dtype) for name, v in x.items()}

    rates = {"a": 1.5, "b": 2.0, "c": 3.0}
    opt = make(lr=rates["a"], groups={f"{of}*": {"lr": rates[of]} for of in "bc"})
    apart = {of: make(lr=lr) for of, lr in rates.items()}
    params = draw()
    alone = {name: x.copy() for name, x in params.items()}
    for step in range(5):
        grads: dict[str, object] = draw()
        if step == 2:
            grads["b1"] = None
        with xpopt.engine("blocked"):
            opt.update_all(params, grads, out=params)
        with xpopt.engine("eager"):
            for of, one in apart.items():
                mine = {name: x for name, x in alone.items() if name[0] == of}
                alone |= one.update_all(mine, {name: grads[name] for name in mine})
        for name, x in params.items():
            np.testing.assert_array_equal(x, alone[name], name)
    (group,) = opt._parts.state.ownership.plan().model.groups
    assert [len(bundle.tensors) for bundle in group._bundles] == ([] if kind == "power" else [15])


@pytest.mark.parametrize("shape", [(2, 3), ()])
@pytest.mark.parametrize("order", ["C", "F"])
def test_complex_arrays_may_stay_and_move(backend, shape, order):
    """`update` keeps no array that it has seen: what comes to lie in its place is read anew."""
    rng = np.random.default_rng(0)

    def draw():
        return np.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape), order=order)

    opt, wanted = xpopt.Adam(lr=0.1), xpopt.Adam(lr=0.1)
    param, grad = draw(), draw()
    real = np.stack([param.real, param.imag])
    for what in ("stays",) * 4 + ("grad",) * 2 + ("param",) * 2 + ("new",) * 2 + ("stays",) * 3:
        if what == "grad":
            grad = draw()
        else:
            grad[...] = draw()
        if what == "param":
            param = param.copy(order="K")
        with xpopt.engine("blocked"):
            param = opt.update(param, grad, "W", out=None if what == "new" else param)
        opt.step()
        with xpopt.engine("eager"):
            real = wanted.update(real, np.stack([grad.real, grad.imag]), "W")
        wanted.step()
        np.testing.assert_array_equal(np.stack([param.real, param.imag]), real)


def test_numbers_that_differ_in_the_sign_of_a_zero_are_not_the_same(backend):
    opt = xpopt.SGD(lr=1.0, bounds=(0.0, 1.0), groups={"b*": {"bounds": (-0.0, 1.0)}})
    params = {name: np.ones(3, np.float32) for name in ("a0", "b0", "a1", "b1")}
    with xpopt.engine("blocked"):
        for _ in range(2):
            params = opt.update_all(params, {name: np.full(3, 2, np.float32) for name in params})
    assert {name: np.signbit(x).tolist() for name, x in params.items()} == {
        name: [name[0] == "b"] * 3 for name in params
    }
