"""What is true of Dask: results are lazy, and its arrays may change what they stand for after the call."""

from contextlib import contextmanager

import numpy as np
import pytest
from _kit.states import equal, every_optimizer, frozen, nothing_changes

from xpopt import SGD, Adam

pytestmark = pytest.mark.backends("dask")


@pytest.mark.parametrize("which", ["parameter", "gradient of"])
def test_an_unknown_shape_is_refused_by_name(backend, which):
    opt = Adam()
    x = backend.array([1.0, 2.0, 3.0])
    unknown = x[x > 1.5]
    pair = (unknown, unknown) if which == "parameter" else (x, unknown)
    with nothing_changes(backend, opt, x), pytest.raises(ValueError, match=f"{which} 'W' has"):
        opt.update(*pair, "W")


@every_optimizer
def test_what_is_assigned_into_an_array_later_is_not_seen(backend, make):
    opt, other = make(), make()
    W, g = backend.array([1.0, 2.0]), backend.array([3.0, 4.0])
    new = opt.update(W, g, "W")
    W[0] = g[0] = 77.0
    want = other.update(backend.array([1.0, 2.0]), backend.array([3.0, 4.0]), "W")
    assert frozen(backend, [new, opt.cache]) == frozen(backend, [want, other.cache])
    before = frozen(backend, opt.cache)
    new[0] = 55.0
    assert frozen(backend, opt.cache) == before


@every_optimizer
def test_any_chunks(backend, xp, make):
    values = np.random.default_rng(9).normal(size=(4, 6))
    want = make(clip_norm=None).update(backend.array(values), backend.array(values), "W")
    W, g = xp.asarray(values).rechunk((3, 2)), xp.asarray(values).rechunk((1, 6))
    assert equal(backend, make(clip_norm=None).update(W, g, "W"), backend.numpy(want))


def test_a_model_is_one_graph(backend):
    """Nothing is computed until it is asked for, many steps later."""
    opt = SGD(lr=0.5)
    W = backend.array([8.0])
    for _ in range(3):
        W = opt.update_all([W], [W])[0]
    assert equal(backend, W, [1.0])


def test_whether_a_step_is_skipped_is_decided_when_it_is_computed(backend, xp):
    """By gradients that nobody knew at the call; the parameters and the count then agree."""
    import dask

    def refuse(*args, **kwargs):
        raise RuntimeError("computed")

    looked_at = []

    def gradient(block):
        looked_at.append(block.shape)
        return np.where(block > 2, np.nan, 1.0)

    opt = SGD(lr=0.5, nonfinite="skip")
    W, b = xp.asarray(np.ones((4, 6))).rechunk((2, 3)), backend.array([1.0])
    with dask.config.set(scheduler=refuse):
        for bad in (1.0, 3.0, 1.0, 3.0):  # the 3.0 lies in one block of four
            source = xp.asarray(np.pad([[bad]], ((3, 0), (5, 0)))).rechunk((2, 3))
            W, b = opt.update_all([W, b], [source.map_blocks(gradient, meta=np.ones((0, 0))), backend.array([1.0])])
        twin = opt.copy()
        assert opt.cur_step == 4
    assert not looked_at
    assert equal(backend, b, [0.0])
    assert equal(backend, W, np.zeros((4, 6)))
    assert looked_at
    assert (opt.skipped, twin.skipped) == (2, 2)
    looked_at.clear()
    assert opt.skipped == 2  # it is known now
    assert not looked_at


@contextmanager
def nothing_changes_in(opt):
    """As `nothing_changes` does, of an optimizer that cannot update what is there."""
    before = dict(opt.hyperparameters), opt.cache, opt.cur_step, opt.lr_scheduler.state(), opt.skipped
    yield
    assert before == (dict(opt.hyperparameters), opt.cache, opt.cur_step, opt.lr_scheduler.state(), opt.skipped)


def test_raise_is_refused_by_name(backend):
    """There is nothing to raise about yet; also in a model that is not all of Dask."""
    opt = Adam(nonfinite="raise", lr_scheduler="king")
    x = backend.array([1.0, 2.0])
    with nothing_changes_in(opt):
        for call in (
            lambda: opt.update(x, x, "W", 1.0),
            lambda: opt.update_all({"W": x}, {"W": x}, 1.0),
            lambda: opt.update_all({"b": np.ones(2), "W": x}, {"b": np.ones(2), "W": x}, 1.0),
        ):
            with pytest.raises(TypeError, match=r"gradient of 'W' is a Dask array.*nonfinite='raise'.*'skip'"):
                call()
    opt.update_all({"W": x}, {"W": None}, 1.0)
    assert opt.cur_step == 1


def test_results_have_the_chunks_of_the_parameter(backend, xp):
    """Whatever those of the gradient and of the state are."""
    values = np.random.default_rng(6).normal(size=(6, 10))
    for options in ({}, {"clip_norm": 0.5}, {"nonfinite": "skip"}):
        opt, plain = Adam(**options), Adam(**options)
        W, V, gradient = xp.asarray(values), values, xp.asarray(values)
        for chunks, others in (((2, 5), (4, 3)), ((2, 5), (6, 10)), ((3, 10), (2, 5))):
            W = opt.update(W.rechunk(chunks), gradient.rechunk(others), "W")
            V = plain.update(V, values, "W")
            wanted = xp.asarray(values).rechunk(chunks).chunks
            assert [x.chunks for x in (W, *list(opt.cache["W"].values())[1:])] == [wanted] * 3
        assert np.allclose(W.compute(scheduler="synchronous"), V, rtol=1e-15 if not options else 1e-12)
    low = opt.update(
        xp.asarray(values.astype(np.float16)).rechunk((2, 5)), xp.asarray(values.astype(np.float16)), "low"
    )
    drawn = SGD(rounding="stochastic").update(low, low.rechunk((4, 3)), "low")
    assert low.chunks == drawn.chunks == xp.asarray(values).rechunk((2, 5)).chunks


@pytest.mark.parametrize("like", [True, False], ids=["like=", "at the first update"])
def test_loaded_state_has_the_chunks_of_its_parameter(backend, xp, tmp_path, like):
    """Each of them alone in the graph: no entry holds more than one chunk."""
    pytest.importorskip("safetensors", reason="checkpoints need safetensors")
    opt, values = Adam(), np.arange(24.0).reshape(4, 6)
    W = xp.asarray(values).rechunk(((3, 1), (2, 2, 2)))
    opt.update(W, W, "W")
    opt.save(tmp_path / "opt")
    for way in ("file", "state"):
        again, options = Adam(), {"like": {"W": W}} if like else {}
        if way == "file":
            again.load(tmp_path / "opt", **options)
        else:
            again.load_state_dict(opt.state_dict(), **options)
        if like:
            slot = again.cache["W"]["mean"]
            assert slot.chunks == W.chunks
            held = [value for value in arrays_in(dict(slot.dask)) if value.size]
            assert way == "state" or max(value.size for value in held) == 6
            assert equal(backend, slot, opt.cache["W"]["mean"])
        new = again.update(W, W, "W")
        assert new.chunks == again.cache["W"]["var"].chunks == W.chunks
        assert equal(backend, new, opt.copy().update(W, W, "W"))


def arrays_in(task, seen=None):
    """The NumPy arrays that a graph holds."""
    seen = set() if seen is None else seen
    if id(task) in seen:
        return
    seen.add(id(task))
    if isinstance(task, np.ndarray):
        yield task
    elif isinstance(task, dict):
        for value in task.values():
            yield from arrays_in(value, seen)
    elif isinstance(task, list | tuple | set):
        for value in task:
            yield from arrays_in(value, seen)
    else:
        for name in ("value", "args", "kwargs"):
            yield from arrays_in(getattr(task, name, ()), seen)
