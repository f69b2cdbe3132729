"""What is true of NumPy: memory maps, unaligned and strided arrays, and 0-d results."""

import pickle

import numpy as np
import pytest
from _kit.states import KING, equal, every_optimizer, frozen, model, nothing_changes, same, train

from xpopt import SGD, Adam, RMSProp
from xpopt._engine.eager.group import EagerGroup

pytestmark = pytest.mark.backends("numpy", "numpy-readonly")


@every_optimizer
def test_results_are_plain_writable_arrays(backend, make):
    """Of shape () too, where NumPy's arithmetic makes scalars; and whatever the inputs were."""
    for dtype in backend.dtypes:
        for shape in [(), (3,), (0,), (2, 3)]:
            opt = make(clip_norm=0.5)
            x = backend.array(np.ones(shape), dtype)
            for _ in range(2):
                got = opt.update(x, x, "W")
                whole = opt.update_all({"V": x}, {"V": x})["V"]
                for y in (got, whole):
                    assert type(y) is np.ndarray
                    assert y.shape == shape
                    assert y.dtype == x.dtype
                    assert y.flags.writeable
                    assert y.flags.owndata
            for entry in opt.cache.values():
                for slot in entry.values() if isinstance(entry, dict) else [entry]:
                    assert type(slot) in (np.ndarray, int)


def test_memory_maps(backend, tmp_path):
    """Read as arrays; written through `out=`; the result is no map."""
    values = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "W.npy", values)
    read = np.load(tmp_path / "W.npy", mmap_mode="r")
    opt, other = Adam(), Adam()
    g = backend.array(np.ones((2, 3)))
    for _ in range(2):
        got = opt.update(read, read, "W")
        assert type(got) is np.ndarray
        assert same(backend, got, other.update(backend.array(values), backend.array(values), "W"))
    assert type(opt.update_all([read], [None])[0]) in (np.ndarray, np.memmap)
    for mode in ("r", "r+"):
        mapped = np.load(tmp_path / "W.npy", mmap_mode=mode)
        if mode == "r":
            with nothing_changes(backend, SGD()), pytest.raises(ValueError, match="out of 'W' is read-only"):
                SGD().update(mapped, g, "W", out=mapped)
        else:
            assert SGD(lr=0.5).update(mapped, g, "W", out=mapped) is mapped
            mapped.flush()
    assert np.array_equal(np.load(tmp_path / "W.npy"), values - 0.5)


def unaligned(values):
    raw = np.zeros(values.nbytes + 1, dtype=np.uint8)
    x = raw[1:].view(values.dtype).reshape(values.shape)
    x[...] = values
    assert not x.flags.aligned or values.size == 0
    return x


@every_optimizer
def test_unaligned_arrays_are_arrays_like_others(backend, make):
    values = np.random.default_rng(7).normal(size=(2, 3))
    opt, other = make(), make()
    x, out = unaligned(values), unaligned(np.zeros((2, 3)))
    for _ in range(2):
        want = other.update(backend.array(values), backend.array(values), "W")
        assert opt.update(x, x, "W", out=out) is out
        assert same(backend, out, want)


@every_optimizer
def test_every_memory_order(backend, make):
    values = np.random.default_rng(8).normal(size=(4, 6))
    want = make().update(backend.array(values), backend.array(values), "W")
    opt = make()
    f = np.asfortranarray(values)
    wide = np.zeros((8, 12))
    wide[::2, ::2] = values
    got = [make().update(f, values, "W"), make().update(values, f, "W"), make().update(wide[::2, ::2], f, "W")]
    for x in got:
        assert same(backend, x, want)
    assert opt.update(wide[::2, ::2], f, "W", out=wide[1::2, 1::2]) is not None
    assert same(backend, wide[1::2, 1::2], want)
    assert np.array_equal(wide[::2, ::2], values)


WINDOWS = {
    "sliding window": lambda x: np.lib.stride_tricks.sliding_window_view(x, 3, writeable=True),
    "stride 0": lambda x: np.lib.stride_tricks.as_strided(x, (2, 3), (0, 8)),
    "broadcast of an element": lambda x: np.lib.stride_tricks.as_strided(x, (4,), (0,)),
    "bytes in common": lambda x: np.lib.stride_tricks.as_strided(x, (3,), (4,)),
}


@pytest.mark.parametrize("view", WINDOWS.values(), ids=WINDOWS)
def test_out_that_overlaps_itself_is_refused_by_name(backend, view):
    x = np.arange(12.0)
    out = view(x)
    W = backend.array(np.ones(out.shape))
    opt = Adam(lr_scheduler=KING)
    with nothing_changes(backend, opt, x):
        with pytest.raises(ValueError, match="out of 'V' overlaps itself"):
            opt.update(W, W, "V", 1.0, out=out)
        with pytest.raises(ValueError, match="out of 'V' overlaps itself"):
            opt.update_all({"V": W}, {"V": W}, 1.0, out={"V": out})


def test_out_with_strides_that_do_not_overlap_is_taken(backend):
    for view in (
        lambda x: x[::-1],
        lambda x: x.reshape(3, 4).T,
        lambda x: x.reshape(3, 4)[::-1, ::2],
        lambda x: x.reshape(3, 1, 4)[:, :, ::-1],
        lambda x: np.lib.stride_tricks.as_strided(x, (1, 5), (0, 16)),  # the 0 of one row is never taken
        lambda x: np.lib.stride_tricks.as_strided(x, (0, 5), (0, 0)),
    ):
        x = np.arange(12.0)
        out = view(x)
        W = backend.array(np.ones(out.shape))
        assert SGD(lr=0.5).update(W, W, "W", out=out) is out
        assert equal(backend, out, np.full(out.shape, 0.5))


def test_a_view_of_the_cache_may_be_out(backend):
    """The state is what it would have been."""
    opt, other = SGD(lr=0.5, momentum=0.5), SGD(lr=0.5, momentum=0.5)
    params, grads = model(backend)
    for one in (opt, other):
        one.update(params["W"], grads["W"], "W")
    opt.update(params["W"], grads["W"], "W", out=opt.cache["W"])
    other.update(params["W"], grads["W"], "W")
    assert frozen(backend, opt.cache) == frozen(backend, other.cache)


def test_arrays_of_foreign_memory(backend):
    x = np.frombuffer(np.arange(4.0).tobytes())
    assert not x.flags.writeable
    opt = Adam()
    assert equal(backend, SGD(lr=0.5).update(x, x, "W"), [0.0, 0.5, 1.0, 1.5])
    with pytest.raises(ValueError, match="out of 'W' is read-only"):
        opt.update(x, x, "W", out=x)
    assert opt.cache == {}


def test_unpickled_dtypes_are_dtypes(backend):
    """Equal, though another object: the state goes on."""
    opt, other = Adam(), Adam()
    for dtype in ("float32", "float64"):
        params = train(backend, opt, 1, dtype=dtype)
        other.cache = pickle.loads(pickle.dumps(opt.cache))
        again = {name: pickle.loads(pickle.dumps(x)) for name, x in params.items()}
        assert same(backend, train(backend, other, 1, again, dtype), train(backend, opt, 1, params, dtype))
        opt.cache, other.cache = {}, {}


# `out=` in the parameter's own memory, seen through another object


def on_disk(path, values):
    """A writable map of a new file with these values."""
    values = np.asarray(values)
    mapped = np.memmap(path, dtype=values.dtype, mode="w+", shape=values.shape)
    mapped[...] = values
    return mapped


def seen_twice(tmp_path, dtype):
    """Pairs of a parameter and an `out` in the same memory."""
    flat = np.arange(12, dtype=dtype)
    locked = flat[6:9]
    locked.flags.writeable = False
    turned = np.asfortranarray(np.ones((2, 3), dtype))
    mapped = on_disk(tmp_path / "W", np.ones((2, 2), dtype))
    return {
        "slices": (flat[:6], flat[:6]),
        "shapes": (flat.reshape(3, 4), flat.reshape(3, 4)),
        "a read-only view": (locked, flat[6:9]),
        "F order": (turned, turned[:, :]),
        "a map itself": (mapped, mapped),
        "a map and its array": (mapped, np.asarray(mapped)),
    }


SEEN = ["slices", "shapes", "a read-only view", "F order", "a map itself", "a map and its array"]


@pytest.mark.parametrize("case", SEEN)
def test_the_same_memory_is_updated_in_place(backend, fused, tmp_path, monkeypatch, case):
    """No engine copies, and the eager one is not asked."""
    monkeypatch.setattr(EagerGroup, "launch", None)
    for dtype in ("float32", "float64"):
        param, out = seen_twice(tmp_path, dtype)[case]
        grad = np.linspace(-1, 1, param.size, dtype=dtype).reshape(param.shape)
        grad = np.asfortranarray(grad) if case == "F order" else grad
        whole, single, plain = Adam(lr=0.125), Adam(lr=0.125), Adam(lr=0.125)
        want = np.array(param, copy=True, subok=False)
        for _ in range(2):
            want = plain.update(want, np.array(grad), "W")
            assert single.update(param, grad, "W", out=out) is out
            assert same(backend, np.asarray(out), want)
            want = plain.update(want, np.array(grad), "W")
            whole.cache = single.cache
            outs = {"W": out}
            assert whole.update_all({"W": param}, {"W": grad}, out=outs) is outs
            assert outs["W"] is out
            assert same(backend, np.asarray(out), want)
            single.cache = whole.cache


def test_explain_says_what_runs_a_map(backend, fused, tmp_path):
    (row,) = Adam().explain([on_disk(tmp_path / "W", np.ones(3))])
    assert (row.engine, "eager" in row.reason) == (fused, False)


# State in arrays of a subclass


class Named(np.ndarray):
    """A subclass with an attribute, and an ndarray's arithmetic."""

    name = "mine"


@pytest.mark.parametrize("kind", ["memmap", "Named"])
def test_slots_of_a_subclass_are_taken_by_value(backend, tmp_path, kind):
    def make(values):
        return on_disk(tmp_path / f"{values.sum()}", values) if kind == "memmap" else values.copy().view(Named)

    for optimizer in (Adam, RMSProp):
        opt, plain = optimizer(lr=0.1), optimizer(lr=0.1)
        W, g = np.ones(3, np.float32), np.array([0.5, -1.0, 2.0], np.float32)
        for one in (opt, plain):
            one.update(W, g, "W")
        entry = opt.cache["W"]
        own = {key: make(x) for key, x in entry.items() if key != "t"} if isinstance(entry, dict) else make(entry)
        opt.cache["W"] = {"t": 1, **own} if isinstance(entry, dict) else own
        before = frozen(backend, opt.cache)
        got, want = opt.update(W, g, "W"), plain.update(W, g, "W")
        assert same(backend, got, want)
        assert same(backend, opt.cache, plain.cache)
        assert frozen(backend, {"W": {"t": 1, **own} if isinstance(entry, dict) else own}) == before
        opt.set_params(cache_dict={"V": {"t": 1, **own} if isinstance(entry, dict) else own})
        assert same(backend, opt.update(W, g, "V"), want)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("make", [np.ma.masked_array, np.asmatrix], ids=["MaskedArray", "matrix"])
def test_slots_with_another_arithmetic_are_refused_by_kind(backend, make):
    opt, W = RMSProp(), np.ones((2, 3))
    opt.update(W, W, "W")
    opt.cache["W"] = make(np.ones((2, 3)))
    with pytest.raises(ValueError, match=f"a {type(opt.cache['W']).__name__}, and the parameter"):
        opt.update(W, W, "W")
