"""Shares of a model: how much each rank keeps, what all decide together, and errors that all raise."""

import copy
import math
import pickle

import numpy as np
import pytest
from _kit.ranks import filled, leaves, of_all, run_ranks, write

import xpopt
from xpopt.sharded import Sharded

pytestmark = [pytest.mark.backends("numpy"), pytest.mark.any_engine]

BLOCK = 4096
MODELS = {
    "uneven": {"a": (90, 101), "b": {"c": (5003,), "d": (), "e": (0, 3)}, "f": (7,)},
    "small": [(3,), ()],
    "one": {"W": (3 * BLOCK,)},
    "empty": {"W": (0,)},
}


@pytest.mark.parametrize("ranks", [1, 2, 4, 7])
@pytest.mark.parametrize("model", MODELS)
def test_each_rank_keeps_its_share(model, ranks, monkeypatch):
    shapes = MODELS[model]

    def work(comm):
        opt = Sharded(xpopt.Adam(), comm)
        params, grads = opt.bind(filled(shapes, 0))
        before = [x.copy() for x in leaves(params)]
        write(grads, filled(shapes, 1 + comm.rank))
        opt.update_all()
        assert all((x != y).all() for x, y in zip(leaves(params), before, strict=True))
        return opt.state_bytes

    kept = of_all(ranks, work, monkeypatch)
    total = sum(x.size for x in leaves(filled(shapes, 0)))
    assert sum(kept) == 2 * 4 * total
    assert max(kept) <= 2 * 4 * BLOCK * math.ceil(total / ranks / BLOCK)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "complex64"])
@pytest.mark.parametrize("kind", ["Adam", "SGD"])
def test_every_dtype(kind, dtype, ranks, monkeypatch):
    """The sum in the order of the ranks, of 16 bits in float32, has the bits of one process."""
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    dtype, shapes = np.dtype(dtype), MODELS["uneven"]
    wide = np.dtype(np.float32) if dtype.itemsize == 2 else dtype

    def make():
        return getattr(xpopt, kind)(lr=0.125, nonfinite="skip", **({"momentum": 0.9} if kind == "SGD" else {}))

    def work(comm):
        opt = Sharded(make(), comm, order="ranks")
        params, grads = opt.bind(filled(shapes, 0, dtype))
        for step in range(3):
            write(grads, filled(shapes, [step, comm.rank], dtype))
            assert opt.update_all() is params
        return params

    one, params = make(), filled(shapes, 0, dtype)
    for step in range(3):
        each = [leaves(filled(shapes, [step, rank], dtype)) for rank in range(ranks)]
        sums = [sum((x.astype(wide) for x in xs[1:]), xs[0].astype(wide)) for xs in zip(*each, strict=True)]
        grads = filled(shapes, 0, wide)
        write(grads, [x / wide.type(ranks) for x in sums])
        params = one.update_all(params, grads)
    for found in of_all(ranks, work, monkeypatch):
        for x, y in zip(leaves(found), leaves(params), strict=True):
            assert x.dtype == y.dtype
            assert x.tobytes() == y.tobytes()


@pytest.mark.parametrize(("reduce", "factor"), [("mean", 1.0), ("sum", 3.0)])
def test_gradients_are_reduced(reduce, factor, monkeypatch):
    def work(comm):
        opt = Sharded(xpopt.SGD(lr=1.0), comm, reduce=reduce)
        params, grads = opt.bind({"W": np.zeros(5000)})
        grads["W"][...] = comm.rank
        opt.update_all()
        return params["W"]

    for found in of_all(3, work, monkeypatch):
        np.testing.assert_array_equal(found, np.full(5000, -factor))


def test_all_begin_with_the_parameters_of_rank_0(monkeypatch):
    def work(comm):
        params, _ = Sharded(xpopt.SGD(), comm).bind([np.full(3, comm.rank), np.full((2, 2), 7.0 + comm.rank)])
        return params

    with pytest.raises(TypeError, match="int"):
        of_all(2, work, monkeypatch)

    def floats(comm):
        params, _ = Sharded(xpopt.SGD(), comm).bind([np.full(3, 1.0 + comm.rank), np.full((2, 2), 7.0 + comm.rank)])
        return params

    for first, second in of_all(2, floats, monkeypatch):
        assert (first == 1).all()
        assert (second == 7).all()


def test_the_loss_of_all_is_what_a_schedule_reads(monkeypatch):
    """Each rank's own loss would let replicas drift apart."""
    spec = "KingScheduler(patience=3, decay=0.5)"
    losses = 1 / (1 + np.arange(60) * 0.02) + np.random.default_rng(3).normal(0, 0.2, (2, 60))

    def work(comm):
        opt = Sharded(xpopt.SGD(lr=0.1, lr_scheduler=spec), comm)
        params, grads = opt.bind([np.ones(4)])
        for loss in losses[comm.rank]:
            grads[0][...] = 0.1
            opt.update_all(loss)
        return params[0].copy()

    one, params = xpopt.SGD(lr=0.1, lr_scheduler=spec), [np.ones(4)]
    for loss in (losses[0] + losses[1]) / 2:
        params = one.update_all(params, [np.full(4, 0.1)], loss)
    first, second = of_all(2, work, monkeypatch)
    assert (first == second).all()
    np.testing.assert_array_equal(first, params[0])
    own, alone = xpopt.SGD(lr=0.1, lr_scheduler=spec), [np.ones(4)]
    for loss in losses[0]:
        alone = own.update_all(alone, [np.full(4, 0.1)], loss)
    assert (alone[0] != first).any()  # the schedule has lowered the rate at other steps


FAILURES = {
    "loss": ("TypeError", "cur_loss is a str"),
    "missing loss": ("ValueError", "cur_loss is None on 1 of 3 ranks"),
    "gradient": ("FloatingPointError", "not finite: the gradient of 'W'"),
    "user": ("KeyError", "no batch"),
    "end": ("RuntimeError", "rank 1: StopIteration: "),
    "several": ("RuntimeError", "rank 1: ExceptionGroup: two workers (2 sub-exceptions)"),
}
RAISED = {
    "user": KeyError("no batch"),
    "end": StopIteration(),
    "several": ExceptionGroup("two workers", [OSError("a"), OSError("b")]),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_one_rank_raises_all_raise_and_nothing_changes(failure, monkeypatch):
    kind, message = FAILURES[failure]

    def work(comm):
        opt = Sharded(xpopt.Adam(lr=0.1, nonfinite="raise", clip_global=5.0), comm)
        params, grads = opt.bind({"W": np.ones(9000), "b": np.ones(3)})

        def step(k, *, fails):
            bad = fails and comm.rank == 1
            with opt.shared_errors():
                if bad and failure in RAISED:
                    raise RAISED[failure]
                write(grads, filled({"W": (9000,), "b": (3,)}, [k, comm.rank]))
            if bad and failure == "gradient":
                grads["W"][-1] = np.inf
            loss = {"loss": "low", "missing loss": None}.get(failure, 1.0) if bad else 1.0
            opt.update_all(loss)

        step(0, fails=False)
        before, raised = {name: x.tobytes() for name, x in params.items()}, None
        try:
            step(1, fails=True)
        except Exception as error:
            raised = error
        assert {name: x.tobytes() for name, x in params.items()} == before
        assert (opt.cur_step, opt.skipped) == (1, 0)
        step(1, fails=False)
        return raised, {name: x.copy() for name, x in params.items()}

    results = of_all(3, work, monkeypatch)
    texts = {(type(error).__name__, str(error)) for error, _ in results}
    assert len(texts) == 1
    [(found, text)] = texts
    assert found == kind
    assert message in text
    assert "rank " in text
    one, params = xpopt.Adam(lr=0.1, clip_global=5.0), {"W": np.ones(9000), "b": np.ones(3)}
    for k in range(2):
        each = [filled({"W": (9000,), "b": (3,)}, [k, rank]) for rank in range(3)]
        params = one.update_all(params, {name: sum(x[name].astype(float) for x in each) / 3 for name in params}, 1.0)
    for _, after in results:
        for name, x in params.items():
            np.testing.assert_allclose(after[name], x, rtol=1e-6, atol=1e-7)


def test_an_error_after_one_that_was_handled_is_raised_by_all(monkeypatch):
    def work(comm):
        opt = Sharded(xpopt.Adam(nonfinite="raise"), comm)
        _, grads = opt.bind({"W": np.ones(5)})
        grads["W"][...] = np.nan
        with opt.shared_errors():
            with pytest.raises(FloatingPointError):
                opt.update_all()
            if comm.rank == 1:
                raise OSError("no batch")
        opt.update_all()

    for result in run_ranks(2, work, monkeypatch, timeout=10):
        assert isinstance(result, OSError)
        assert str(result) == "rank 1: no batch"


@pytest.mark.parametrize("what", ["params", "grads"])
def test_an_array_that_was_replaced_is_told(what, monkeypatch):
    """A gradient that is bound to the name, and not written into the array, would never be sent."""

    def work(comm):
        opt = Sharded(xpopt.Adam(), comm)
        params, grads = opt.bind({"W": np.ones(5), "b": np.ones(2)})
        if comm.rank == 1:
            {"params": params, "grads": grads}[what]["b"] = np.ones(2)
        opt.update_all()

    for result in run_ranks(2, work, monkeypatch):
        assert isinstance(result, ValueError)
        assert f"rank 1: Sharded: 'b' of the {what} that bind returned was replaced" in str(result)


def test_averages_are_those_of_one_process(monkeypatch):
    shapes = MODELS["uneven"]

    def make():
        return xpopt.Adam(lr=0.1, average=xpopt.EMA(0.5), groups={"f": {"clip_norm": 1.0}})

    def work(comm):
        opt = Sharded(make(), comm)
        params, grads = opt.bind(filled(shapes, 0))
        for k in range(3):
            write(grads, filled(shapes, 1 + k))
            opt.update_all()
        averages = opt.averaged()
        assert (averages["a"] != params["a"]).any()
        return averages

    one, params = make(), filled(shapes, 0)
    for k in range(3):
        params = one.update_all(params, filled(shapes, 1 + k))
    expected = one.averaged(params)
    for found in of_all(2, work, monkeypatch):
        for x, y in zip(leaves(found), leaves(expected), strict=True):
            np.testing.assert_array_equal(x, y)


def test_settings_change_on_all_ranks_together(monkeypatch):
    """Between two steps, with state; after an error on any of them, or other values, each is as it was."""
    shapes = MODELS["uneven"]
    wrong = [
        (lambda rank: {"lr": -1.0 if rank == 1 else 0.5}, "rank 1: Adam: lr=-1.0"),
        (lambda rank: {"lr": 0.5 + rank}, r"rank 1: .*settings would differ.*'lr': 1\.5.* rank 0 has .*'lr': 0\.5"),
        (lambda rank: {"clip_norm": 1.0}, "the new settings need another layout of"),
        (lambda rank: {"momentum": 1.0}, "no hyperparameter .*momentum"),
    ]

    def work(comm):
        opt = Sharded(xpopt.Adam(lr=0.125), comm, order="ranks")
        params, grads = opt.bind(filled(shapes, 0))
        write(grads, filled(shapes, 1))
        opt.update_all()
        before = repr(opt)
        for changes, message in wrong:
            with pytest.raises((ValueError, KeyError), match=message):
                opt.set_params(changes(comm.rank))
            assert repr(opt) == before
        opt.set_params({"lr": 0.25, "weight_decay": 0.5, "lr_scheduler": "exponential"})
        opt.update_all()
        return params, opt.hyperparameters

    one, params, grads = xpopt.Adam(lr=0.125), filled(shapes, 0), filled(shapes, 1)
    params = one.update_all(params, grads)
    one.set_params({"lr": 0.25, "weight_decay": 0.5, "lr_scheduler": "exponential"})
    params = one.update_all(params, grads)
    for found, settings in of_all(2, work, monkeypatch):
        assert settings == one.hyperparameters
        for x, y in zip(leaves(found), leaves(params), strict=True):
            assert x.tobytes() == y.tobytes()


def test_each_rank_explains_what_it_updates(monkeypatch):
    shapes = {"W": (3 * BLOCK,), "b": (3,), "empty": (0,)}

    def work(comm):
        opt = Sharded(xpopt.Adam(), comm)
        with pytest.raises(RuntimeError, match=r"explain was called before bind.*opt\.bind"):
            opt.explain()
        _, grads = opt.bind(filled(shapes, 0))
        explained = opt.explain()
        write(grads, filled(shapes, 1))
        opt.update_all()
        assert sum(row.state_bytes for row in explained) == opt.state_bytes
        return [row.name for row in explained]

    names = of_all(2, work, monkeypatch)
    assert names[0] == ["W"]
    assert names[1] == ["W", "b"]


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies_and_pickles_are_refused(take, monkeypatch):
    def work(comm):
        with pytest.raises(TypeError, match=r"cannot be copied or pickled; opt\.save\(folder\).*load\(folder\)"):
            take(Sharded(xpopt.Adam(), comm))

    of_all(1, work, monkeypatch)


def test_what_is_whole_and_why(monkeypatch):
    def work(comm):
        opt = Sharded(xpopt.Adam(groups={"b": {"clip_norm": 1.0}}), comm)
        opt.bind({"W": np.ones(3), "b": np.ones(3)})
        return dict(opt.whole), repr(opt)

    for rank, (whole, text) in enumerate(of_all(2, work, monkeypatch)):
        assert whole == {"b": "clip_norm takes the norm of each parameter"}
        assert text.startswith("Sharded(Adam(")
        assert text.endswith(f"rank {rank} of 2)")


def with_state():
    opt = xpopt.Adam()
    opt.update(np.ones(2), np.ones(2), "W")
    return opt


WRONG = {
    "optimizer": (lambda comm: Sharded("adam", comm), TypeError, "opt is a str"),
    "state": (lambda comm: Sharded(with_state(), comm), ValueError, "opt has state of 1 parameter"),
    "reduce": (lambda comm: Sharded(xpopt.Adam(), comm, reduce="max"), ValueError, "reduce='max'; wanted 'mean' or"),
    "order": (lambda comm: Sharded(xpopt.Adam(), comm, order=1), ValueError, "order=1; wanted 'engine' or 'ranks'"),
    "not bound": (lambda comm: Sharded(xpopt.Adam(), comm).update_all(), RuntimeError, "opt.bind"),
    "array": (lambda comm: Sharded(xpopt.Adam(), comm).bind(np.ones(3)), TypeError, "params is a ndarray"),
    "list": (lambda comm: Sharded(xpopt.Adam(), comm).bind({"W": [1.0]}), TypeError, "W"),
    "float": (lambda comm: Sharded(xpopt.Adam(), comm).bind({"W": 1.0}), TypeError, "'W' is a float"),
    "one rank's array": (
        lambda comm: Sharded(xpopt.Adam(), comm).bind({"W": 1.0 if comm.rank else np.ones(3)}),
        TypeError,
        "rank 1: .*'W' is a float",
    ),
    "settings": (
        lambda comm: Sharded(xpopt.Adam(lr=0.1 + comm.rank), comm).bind({"W": np.ones(3)}),
        ValueError,
        r"differ from those of rank 0: Adam .*1\.1",
    ),
    "shapes": (
        lambda comm: Sharded(xpopt.Adam(), comm).bind({"W": np.ones(3 + comm.rank)}),
        ValueError,
        r"'W': float64 \(4,\), rank 0 has 'W': float64 \(3,\)",
    ),
    "elements beside the model": (
        lambda comm: Sharded(xpopt.Adam(clip_global=1.0, lr_scale=np.ones(3)), comm).bind({"W": np.ones(3)}),
        ValueError,
        "use numbers instead of arrays",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_refused(wrong, monkeypatch):
    make, kind, message = WRONG[wrong]
    results = run_ranks(2, make, monkeypatch)
    for result in results:
        assert type(result) is kind, results
    with pytest.raises(kind, match=message):
        raise results[1]


def test_a_second_bind_is_refused(monkeypatch):
    def work(comm):
        opt = Sharded(xpopt.Adam(), comm)
        opt.bind({"W": np.ones(3)})
        opt.bind({"W": np.ones(3)})

    for result in run_ranks(2, work, monkeypatch):
        assert isinstance(result, RuntimeError)
        assert "bind was already called" in str(result)


def test_other_communicators_are_refused():
    with pytest.raises(TypeError, match=r"comm is a int; wanted a communicator of mpi4py"):
        Sharded(xpopt.Adam(), 3)
