"""A signal at any moment leaves an update undone or done; two updates of one optimizer at once are an error."""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from _kit.interrupts import interrupted_at, one, seen, signalled_at, start, step
from _kit.variants import NARROW, VARIANTS

import xpopt

pytestmark = pytest.mark.backends("numpy")


def test_lines_of_others_are_not_interrupted():
    """Also where the package and all that it needs lie in a folder of its name."""
    theirs: dict[str, Any] = {}
    exec(compile("def call(): pass", "/xpopt/lib/kernels.py", "exec"), theirs)
    assert not interrupted_at(1, theirs["call"])


@pytest.mark.parametrize("options", [VARIANTS[name] for name in ("plain", *NARROW)], ids=str)
@pytest.mark.parametrize("change", [step, one])
def test_an_interrupt_at_any_line_leaves_it_undone_or_done(backend, fused, change, options):
    """At each line as it is, and with an option at every seventh."""
    stride = 7 if options else 1
    opt, params = start(**options)
    before = seen(opt, params)
    change(opt, params)
    after = seen(opt, params)
    outcomes, undone, earlier = defaultdict(list), None, 0
    for line in range(1, 5000, stride):
        earlier = 0 if undone is None else earlier + 1  # what they have left may do more at the next step, or less
        opt, params = undone or start(**options)
        if not interrupted_at(line, lambda opt=opt, params=params: change(opt, params)):
            break
        found = seen(opt, params)
        assert found in (before, after), line
        outcomes[earlier].append(found == after)
        # what is undone is where the next begins, but for an update that takes the parameter out of a kept plan
        undone = (opt, params) if found == before and change is step and line // stride % 8 else None
        if found == before and undone is None:
            change(opt, params)  # it can still be used
            assert seen(opt, params) == after
    assert line > 50 * stride
    assert set(outcomes[0]) == {False, True}
    assert all(of == sorted(of) for of in outcomes.values())


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that interrupt")
def test_interrupts_at_random_moments(backend, fused):
    opt, params = start()
    want, twin = start()
    rng = np.random.default_rng(3)
    previous = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))

    def step_until_interrupted() -> None:
        signal.setitimer(signal.ITIMER_REAL, float(rng.uniform(2e-5, 5e-4)))
        for _ in range(100_000):
            step(opt, params)

    gc.disable()  # Python drops what is raised in a callback of the collector, and Hypothesis has one
    try:
        for _ in range(100):
            with pytest.raises(KeyboardInterrupt):
                step_until_interrupted()
    finally:
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    step(opt, params)
    while want.cur_step < opt.cur_step:
        step(want, twin)
    assert seen(opt, params) == seen(want, twin)


def test_the_programs_own_handler_is_called_once_and_stays(backend):
    calls = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
    try:

        class Interrupted(xpopt.OptimizerBase):
            @staticmethod
            def rule(xp, param, grad, s, h):
                return param - h.lr * grad, s

        opt, W = Interrupted(0.5), np.ones(3)
        handler = signal.getsignal(signal.SIGINT)
        interrupted_at(60, lambda: opt.update(W, W, "W", out=W))
        assert calls == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is handler
        assert W.tolist() == [0.5] * 3
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def handled(number: int, handler: Any) -> Iterator[None]:
    previous = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, previous)


def whole(opt: Any) -> tuple[Any, ...]:
    """Return what an optimizer remembers, of one that is only read."""
    return seen(opt, {})[1:]


SNAPSHOTS = {
    "copy": lambda opt: opt.copy(),
    "pickle": lambda opt: pickle.loads(pickle.dumps(opt)),
    "state_dict": lambda opt: restored(opt.state_dict()),
}


def restored(state: Any) -> Any:
    opt = xpopt.Adam()
    opt.load_state_dict(state)
    return opt


NAMES = ["SIGTERM", "SIGUSR1", "SIGALRM"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("snapshot", SNAPSHOTS)
@pytest.mark.parametrize("change", [step, one])
def test_a_handler_at_any_line_sees_a_whole_step(backend, fused, change, snapshot, name):
    """It may read all that there is, and what it takes goes on as from before the update, or after it.

    The signals share the lines: each comes at every third.
    """
    number = getattr(signal, name, signal.SIGTERM)
    taken: list[Any] = []
    with handled(number, lambda *_: taken.append(SNAPSHOTS[snapshot](opt))):
        opt, params = start()
        before = whole(opt)
        change(opt, params)
        after = whole(opt)
        done, want = seen(opt, params), (before, after)
        stride = 1 if snapshot == "copy" else 7
        for line in range(1 + stride * NAMES.index(name), 5000, stride * len(NAMES)):
            opt, params = start()
            taken.clear()
            if not signalled_at(line, lambda opt=opt, params=params: change(opt, params), number):
                break
            (twin,) = taken
            assert whole(twin) in want, line
            assert seen(opt, params) == done, line
        assert line > 50


@pytest.mark.parametrize("change", [step, one])
def test_a_handler_may_change_the_optimizer(backend, fused, change):
    """It does so before the update, or after it."""
    with handled(signal.SIGTERM, lambda *_: opt.set_params({"decay1": 0.5})):
        for line in range(1, 5000, 3):
            opt, params = start()
            if not signalled_at(line, lambda opt=opt, params=params: change(opt, params), signal.SIGTERM):
                break
            assert opt.hyperparameters["decay1"] == 0.5
            assert opt._parts.state.cache["W"]["t"] == 4
        assert line > 50


def test_a_handler_that_raises_leaves_an_update_undone_or_done(backend, fused):
    class Stop(BaseException):
        pass

    def stop(number: int, frame: Any) -> None:
        raise Stop

    opt, params = start()
    before = seen(opt, params)
    step(opt, params)
    after = seen(opt, params)
    with handled(signal.SIGTERM, stop):
        undone = None
        for line in range(1, 5000):
            opt, params = undone or start()
            try:
                signalled_at(line, lambda opt=opt, params=params: step(opt, params), signal.SIGTERM)
                break
            except Stop:
                found = seen(opt, params)
            assert found in (before, after), line
            undone = (opt, params) if found == before and line % 8 else None  # where the next begins
            if found == before and undone is None:
                step(opt, params)
                assert seen(opt, params) == after
        assert line > 50


class Signals(xpopt.SchedulerBase):
    """Raises a signal when it is asked."""

    number: int | None = None

    def __init__(self) -> None:
        super().__init__()

    def reset(self) -> None:
        self.calls = 0

    def state(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def restore(self, state: Any) -> None:
        self.calls = state["calls"]

    def learning_rate(self, step: int, cur_loss: float | None = None) -> float:
        self.calls += 1
        if self.number is not None:
            signal.raise_signal(self.number)
        self.calls += 1
        return 0.5


@pytest.mark.parametrize("change", [step, one])
@pytest.mark.parametrize("snapshot", SNAPSHOTS)
def test_a_handler_within_a_schedule_sees_the_step_before(backend, fused, change, snapshot):
    """It runs at once, for a schedule may take long; and the schedule's history is that of before too."""
    opt, params = start()
    opt.lr_scheduler = Signals()
    before = whole(opt)
    taken: list[Any] = []
    opt.lr_scheduler.number = signal.SIGTERM
    with handled(signal.SIGTERM, lambda *_: taken.append((opt.lr_scheduler.calls, SNAPSHOTS[snapshot](opt)))):
        change(opt, params)
    ((calls, twin),) = taken
    assert calls == 1
    assert whole(twin) == before
    assert opt._parts.state.cache["W"]["t"] == 4


def test_a_handler_that_the_schedule_sets_stays(backend):
    calls: list[int] = []

    class Sets(Signals):
        def learning_rate(self, step: int, cur_loss: float | None = None) -> float:
            signal.signal(signal.SIGTERM, theirs)
            return 0.5

    def theirs(number: int, frame: Any) -> None:
        calls.append(number)

    opt, W = xpopt.SGD(lr_scheduler=Sets()), np.ones(3)
    with handled(signal.SIGTERM, lambda *_: None):
        opt.update(W, W, "W")
        assert signal.getsignal(signal.SIGTERM) is theirs
        signal.raise_signal(signal.SIGTERM)
        assert calls == [signal.SIGTERM]


# by default, the system ignores signals of children
NO_HANDLERS = {"SIGTERM": [signal.SIG_IGN], "SIGCHLD": [signal.SIG_IGN, signal.SIG_DFL]}


@pytest.mark.parametrize(
    ("first", "name", "since"),
    [
        (1 + 5 * k, name, since)
        for k, (name, since) in enumerate((name, since) for name, those in NO_HANDLERS.items() for since in those)
        if hasattr(signal, name)
    ],
)
def test_a_signal_that_is_handled_no_more(backend, fused, first, name, since):
    """Handlers of some signals are not asked about at each update, so what is known of them may be old.

    They share the lines, of which each takes every fifteenth.
    """
    number, calls = getattr(signal, name), []
    opt, params = start()
    with handled(number, since):
        for line in range(first, 5000, 15):
            signal.signal(number, lambda *_: calls.append(number))
            for _ in range(30):
                one(opt, params)
            signal.signal(number, since)
            if not signalled_at(line, lambda: step(opt, params), number):
                break
            assert signal.getsignal(number) == since
        assert line > 50
    assert not calls


@pytest.mark.skipif(not hasattr(faulthandler, "register"), reason="faulthandler registers no signals on this system")
@pytest.mark.parametrize("chain", [False, True])
def test_a_handler_in_c_stays_and_is_called(backend, fused, chain, tmp_path):
    """Python is told nothing of it, and has a handler of its own for the same signal."""
    with (tmp_path / "tracebacks").open("w+") as file, handled(signal.SIGINT, lambda *_: None):
        faulthandler.register(signal.SIGINT, file=file, chain=chain)
        try:
            for line in (1, 60, 10_000):
                opt, params = start()
                size = os.fstat(file.fileno()).st_size
                signalled_at(line, lambda opt=opt, params=params: step(opt, params), signal.SIGINT)
                if line == 10_000:
                    signal.raise_signal(signal.SIGINT)
                assert os.fstat(file.fileno()).st_size > size
        finally:
            faulthandler.unregister(signal.SIGINT)


@pytest.mark.parametrize("whole", [False, True])
def test_one_optimizer_in_two_threads_at_once_is_an_error(backend, whole):
    inside, go_on = threading.Event(), threading.Event()

    class Waiting(xpopt.SchedulerBase):
        def learning_rate(self, step: int, cur_loss: float | None = None) -> float:
            inside.set()
            assert go_on.wait(10)
            return 0.5

    opt, W = xpopt.SGD(lr_scheduler=Waiting()), np.ones(3)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(opt.update(W, W, "W")))
    thread.start()
    assert inside.wait(10)
    try:
        with pytest.raises(RuntimeError, match=r"this SGD is in the middle of another update.*copy\(\)"):
            opt.update_all({"b": W}, {"b": W}) if whole else opt.update(W, W, "b")
    finally:
        go_on.set()
        thread.join()
    assert results[0].tolist() == [0.5] * 3
    assert list(opt.cache) == ["W"]
    opt.step()
    assert opt.update(W, W, "W").tolist() == [0.5] * 3


def test_an_interpreter_that_handles_no_signals(backend, monkeypatch):
    def refuse(*args: Any) -> None:
        raise ValueError("signal only works in main thread of the main interpreter")

    monkeypatch.setattr("xpopt._state.interrupts._set", refuse)
    W = np.ones(3)
    assert xpopt.SGD(lr=0.5).update(W, W, "W").tolist() == [0.5] * 3


OTHER = {"decay1": 0.7, "lr_scheduler": "noam"}, {"Z": {"t": 3, "mean": np.ones(3), "var": np.ones(3)}}
STATE = xpopt.Adam(decay1=0.5, lr_scheduler="exponential").state_dict()
CHANGES = {
    "set_params": lambda opt: opt.set_params(*OTHER),
    "load_state_dict": lambda opt: opt.load_state_dict(STATE),
    "cache": lambda opt: setattr(opt, "cache", OTHER[1]),
    "cur_step": lambda opt: setattr(opt, "cur_step", 9),
    "reset_step": lambda opt: opt.reset_step(),
    "step": lambda opt: opt.step(),
}


@pytest.mark.any_engine
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_interrupt_at_any_line_of_a_change_leaves_it_undone_or_done(backend, change):
    def held(opt: Any) -> str:
        return str(opt.state_dict())

    begun, _ = start()
    opt = begun.copy()
    before = held(opt)
    change(opt)
    after, outcomes = held(opt), []
    assert after != before
    for line in range(1, 5000):
        opt = begun.copy()
        if not interrupted_at(line, lambda opt=opt: change(opt)):
            break
        found = held(opt)
        assert found in (before, after), line
        outcomes.append(found == after)
    assert len(outcomes) == line - 1 > 3
    assert outcomes == sorted(outcomes)
