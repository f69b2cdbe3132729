"""Python floats, NumPy scalars and nested lists become arrays like the other argument, or of NumPy's float64."""

import numpy as np
import pytest
from _kit.rows import rows
from _kit.states import equal, nothing_changes, same, writes

from xpopt import SGD, Adam

pytestmark = pytest.mark.any_width

VALUES = {
    "float": 1.5,
    "float64": np.float64(1.5),
    "float32": np.float32(1.5),
    "float16": np.float16(1.5),
    "list": [1.5, -2.5],
    "tuple": (1.5, -2.5),
    "nested list": [[1.5, 2.5, 3.5], [0.5, 0.25, 0.125]],
    "list of tuples": [(1.5,), [2.5]],
    "ints among floats": [1, 2.5],
    "list of scalars": [np.float32(1.5), 2.5],
    "list of arrays": [np.array([1.5, 2.5]), np.array([3.5, 4.5])],
    "empty list": [],
    "list of empty lists": [[], []],
}


@pytest.mark.parametrize("value", rows(VALUES, ["float", "float32", "list", "nested list", "empty list"]))
def test_like_the_other_argument(backend, value):
    """Namespace, dtype and device; the results are those of the array itself."""
    for dtype in backend.dtypes:
        x = backend.array(value, dtype)
        plain = Adam()
        want = [plain.update(x, x, "W") for _ in range(2)]
        for pair in [(x, value), (value, x)]:
            opt = Adam()
            got = [opt.update(*pair, "W") for _ in range(2)]
            assert type(got[0]) is type(want[0])
            assert same(backend, [got, opt.cache], [want, plain.cache])


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_without_an_array_numpys_float64(backend, value):
    opt, other = Adam(), Adam()
    x = np.asarray(value, dtype=np.float64)
    for _ in range(2):
        got = opt.update(value, value, "W")
        assert type(got) is np.ndarray
        assert got.dtype == np.float64
        assert got.shape == np.shape(value)
        assert same(backend, got, other.update(x, x, "W"))
    assert opt.cache["W"]["mean"].dtype == np.float64


def test_a_list_is_not_written_and_not_kept(backend):
    value = [[1.5, 2.5]]
    opt = SGD(lr=0.5, momentum=0.5)
    x = backend.array([[1.0, 1.0]])
    opt.update(x, value, "W")
    assert value == [[1.5, 2.5]]
    value[0][0] = 77.0
    assert equal(backend, opt.cache["W"], [[0.75, 1.25]])


def test_a_value_too_large_for_the_dtype_is_infinite(backend):
    """As when the array is made; the caller's error state does not matter."""
    x = backend.array([1.0, 1.0], "float32")
    with np.errstate(all="raise"):
        got = SGD(lr=1.0).update(x, [1e300, 0.5], "W")
    assert equal(backend, got, [-np.inf, 0.5])


def test_shapes_must_still_agree(backend):
    opt = Adam()
    x = backend.array([1.0, 2.0])
    with nothing_changes(backend, opt, x):
        for value in (1.5, [1.5], [[1.5, 2.5]], []):
            with pytest.raises(ValueError, match="gradient of 'W' has shape"):
                opt.update(x, value, "W")
            with pytest.raises(ValueError, match="gradient of 'W' has shape"):
                opt.update(value, x, "W")


def test_a_converted_parameter_keeps_its_name_to_itself(backend):
    opt = SGD(momentum=0.5)
    opt.update(backend.array(2.5), 1.5, "x")
    opt.update(1.5, backend.array(2.5), "x")
    with pytest.raises(ValueError, match="'x'"):
        opt.update([1.5], backend.array([2.5]), "x")


@writes
def test_a_converted_parameter_may_go_into_out(backend):
    out = backend.writable([0.0, 0.0])
    assert SGD(lr=0.5).update([1.5, 2.5], backend.array([1.0, 1.0]), "W", out=out) is out
    assert equal(backend, out, [1.0, 2.0])
