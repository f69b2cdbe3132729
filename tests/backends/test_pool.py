"""Threads that share an update: how many there are, and that nothing depends on it; forks, ends and interrupts."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _kit.bits import cast, same_bits
from _kit.engines import MAKE

import xpopt
from xpopt._engine import cpus, pool
from xpopt._engine.compiled import kernel as compiled
from xpopt._engine.compiled.build import why_no_compiler

pytestmark = [pytest.mark.backends("numpy"), pytest.mark.any_engine]

SIZE = 1_200_007  # more than any engine does alone


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool without threads, and no setting of the environment."""
    monkeypatch.setattr(pool, "_pool", pool._Pool())
    for name in ("XPOPT_NUM_THREADS", *cpus.SHARED):
        monkeypatch.delenv(name, raising=False)


def helpers() -> int:
    return pool._pool._threads


def trained(name: str = "Adam", dtype: str = "float32", **kwargs: Any) -> Any:
    """Return the parameters after some steps of a model with a large and small tensors."""
    opt, rng = MAKE[name](**kwargs), np.random.default_rng(2)
    params = {shape: cast(rng.standard_normal(shape), dtype) for shape in (SIZE, (3, 5), (), 40_000)}
    for _ in range(3):
        grads = {shape: cast(rng.standard_normal(shape), dtype) for shape in params}
        opt.update_all(params, grads, out=params)
    return params


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_numbers_do_not_depend_on_the_threads(backend, fused, dtype, clip_norm):
    """Clip factors of float64 neither."""
    with xpopt.num_threads(1):
        want = trained(dtype=dtype, clip_norm=clip_norm)
    assert helpers() == 0
    for n in (2, 5):
        with xpopt.num_threads(n):
            assert same_bits(trained(dtype=dtype, clip_norm=clip_norm), want)
        assert helpers() == (n - 1 if fused == "compiled" else 1)


def test_a_small_model_starts_no_thread(backend, fused):
    with xpopt.num_threads(5):
        opt, W = xpopt.Adam(), np.ones(100_000)
        for _ in range(2):
            opt.update_all([W], [W])
    assert helpers() == 0


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), (1.5, TypeError)])
def test_a_number_of_threads_that_is_none(backend, n, error):
    with pytest.raises(error, match="wanted an int of at least 1"), xpopt.num_threads(n):
        pass
    with pytest.raises(TypeError, match="'2' is a str"), xpopt.num_threads("2"):
        pass


def test_the_innermost_choice_counts(backend, monkeypatch):
    monkeypatch.setenv("XPOPT_NUM_THREADS", "3")
    assert pool.threads() == 3
    with xpopt.num_threads(np.int64(2)):
        with xpopt.num_threads(1):
            assert pool.threads() == 1
        assert pool.threads() == 2
    monkeypatch.delenv("XPOPT_NUM_THREADS")
    assert 1 <= pool.threads() <= 8


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("4", 4), (" 4 ", 4), ("4,2", 4), ("4, 2", 4), ("1", 1), ("000000003", 3)),
        *((text, None) for text in ("", " ", ",4", "0", "0,4", "-1", "+2", "1.5", "two", "4;2", "²", "9" * 5000)),
    ],
)
def test_the_first_of_a_list_of_numbers(backend, text, number):
    assert cpus.first_int(text) == number


@pytest.fixture
def six_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of which this process may use six, with no other limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    monkeypatch.setattr(cpus, "_allotted", lambda: math.inf)


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({}, 6),
        ({"OMP_NUM_THREADS": "2"}, 2),
        ({"NUMBA_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "4,2", "NUMBA_NUM_THREADS": "5"}, 4),
        ({"OMP_NUM_THREADS": "5", "NUMBA_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "64"}, 6),
        ({"OMP_NUM_THREADS": "nonsense", "NUMBA_NUM_THREADS": "0"}, 6),
        ({"XPOPT_NUM_THREADS": "5", "OMP_NUM_THREADS": "1"}, 5),
        ({"XPOPT_NUM_THREADS": "12", "OMP_NUM_THREADS": "1"}, 12),
        ({"XPOPT_NUM_THREADS": "", "OMP_NUM_THREADS": "2"}, 2),
    ],
    ids=str,
)
def test_what_a_worker_was_given_counts(backend, monkeypatch, six_cpus, environment, threads):
    """But less than what was said to this package."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert pool.threads() == threads
    with xpopt.num_threads(7):
        assert pool.threads() == 7


def test_a_control_group_and_the_cpus_count(backend, monkeypatch, six_cpus):
    monkeypatch.setattr(cpus, "_allotted", lambda: 2)
    assert pool.threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert pool.threads() == 2
    monkeypatch.setattr(cpus, "_allotted", lambda: 99)
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(99)))
    assert pool.threads() == 8
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert pool.threads() == 4
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert pool.threads() == 1


V1, V2 = "4:cpu,cpuacct:/a/b\n3:memory:/a/b\n0::/a/b\n", "0::/a/b\n"
GROUPS = {
    "no groups": ({}, math.inf),
    "no limit, version 2": ({"proc/self/cgroup": V2, "a/b/cpu.max": "max 100000\n"}, math.inf),
    "a limit, version 2": ({"proc/self/cgroup": V2, "a/b/cpu.max": "300000 100000\n"}, 3),
    "a part of a CPU more": ({"proc/self/cgroup": V2, "a/b/cpu.max": "250000 100000\n"}, 3),
    "less than a CPU": ({"proc/self/cgroup": V2, "a/b/cpu.max": "1000 100000\n"}, 1),
    "a limit above, version 2": (
        {"proc/self/cgroup": V2, "a/b/cpu.max": "400000 100000\n", "a/cpu.max": "200000 100000\n"},
        2,
    ),
    "in a container, version 2": ({"proc/self/cgroup": "0::/\n", "cpu.max": "200000 100000\n"}, 2),
    "in a container of the host's path": ({"proc/self/cgroup": V2, "cpu.max": "200000 100000\n"}, 2),
    "no limit, version 1": (
        {"proc/self/cgroup": V1, "cpu/a/b/cpu.cfs_quota_us": "-1\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"},
        math.inf,
    ),
    "a limit, version 1": (
        {"proc/self/cgroup": V1, "cpu/a/b/cpu.cfs_quota_us": "150000\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"},
        2,
    ),
    "in a container, version 1": (
        {"proc/self/cgroup": V1, "cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "50000\n"},
        2,
    ),
    "both versions": (
        {
            "proc/self/cgroup": V1,
            "cpu/a/cpu.cfs_quota_us": "500000\n",
            "cpu/a/cpu.cfs_period_us": "100000\n",
            "a/b/cpu.max": "400000 100000\n",
        },
        4,
    ),
    "nonsense": (
        {"proc/self/cgroup": f"nonsense\n{V2}", "a/b/cpu.max": "200000 100000\n"},
        math.inf,
    ),
    "files of nonsense": (
        {"proc/self/cgroup": V2, "a/b/cpu.max": "", "a/cpu.max": "1 2 3", "cpu.max": "100000 0"},
        math.inf,
    ),
}


@pytest.mark.parametrize(("files", "cpus_allowed"), GROUPS.values(), ids=GROUPS)
def test_limits_of_control_groups(backend, tmp_path, files, cpus_allowed):
    """With the files as Linux has them."""
    for name, text in files.items():
        path = tmp_path / name if name.startswith("proc") else tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cpus.quota(tmp_path) == cpus_allowed


def test_no_more_helpers_are_called_than_there_is_work(backend, monkeypatch):
    called = []
    monkeypatch.setattr(pool._pool, "invite", lambda job, helpers: called.append(helpers))
    opt, W, pieces = xpopt.SGD(), np.zeros(SIZE), -(-SIZE // compiled.PIECE)
    with xpopt.engine("compiled"), xpopt.num_threads(100_000):
        opt.update(W, W, "W")
    with xpopt.engine("blocked"), xpopt.num_threads(100_000):
        opt.update(W, W, "W")
    assert called == ([pieces - 1, 1] if why_no_compiler() is None else [1, 1])


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", " ", "4,2", pytest.param("9" * 5000, id="long")])
@pytest.mark.parametrize("whole", [True, False])
def test_an_environment_that_makes_no_sense_is_told_before_anything_is_written(
    backend, fused, monkeypatch, text, whole
):
    opt, params = xpopt.Adam(), {"W": np.zeros(SIZE, np.float32)}
    opt.update_all(params, {"W": params["W"] + 1}, out=params)
    monkeypatch.setenv("XPOPT_NUM_THREADS", text)
    before = params["W"].copy()
    arguments = (params, {"W": before + 1}) if whole else (params["W"], before + 1, "W")
    with pytest.raises(ValueError, match=f"XPOPT_NUM_THREADS={text[:100]!r}; wanted an int"):
        (opt.update_all if whole else opt.update)(*arguments, out=arguments[0])
    assert same_bits(params["W"], before)
    assert (opt.cur_step, opt.cache["W"]["t"]) == (1, 1)


def test_where_no_thread_can_be_started_the_caller_does_it_all(backend, fused, monkeypatch):
    with xpopt.num_threads(1):
        want = trained()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with xpopt.num_threads(4):
        assert same_bits(trained(), want)
    assert (helpers(), pool._pool._jobs.qsize()) == (0, 0)


def test_an_error_in_a_helper_is_the_callers(backend):
    caller = threading.get_ident()
    helped = threading.Event()

    def work() -> None:
        if threading.get_ident() != caller:
            helped.set()
            raise MemoryError("mine")
        helped.wait(10)

    with pytest.raises(MemoryError, match="mine"):
        pool.run(work, 1)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="an alarm: this system has none")
def test_an_interrupt_waits_for_the_helpers(backend):
    """They write to memory that is the caller's."""
    caller = threading.get_ident()
    helping, done = threading.Event(), threading.Event()

    def work() -> None:
        if threading.get_ident() == caller:
            helping.wait(10)
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            helping.set()
            time.sleep(0.1)
            done.set()

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            pool.run(work, 1)
        assert done.is_set()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# Processes

TRAIN = """
import os, sys, threading, time, traceback
import numpy as np
import xpopt

def train(steps=3):
    with xpopt.engine(sys.argv[1]), xpopt.num_threads(3):
        opt, params = xpopt.Adam(lr=0.5), {"W": np.zeros(1_200_007, np.float32)}
        for _ in range(steps):
            opt.update_all(params, {"W": params["W"] + 1}, out=params)
    return params["W"]

def busy():
    global going
    while going:
        train(1)

def in_child(function):
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if function() else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
"""
BEGIN = "want, going = train(), True\n"
EACH = """
if sys.argv[1] == "compiled":
    import llvmlite
for code in sys.argv[2:]:  # in a process of its own, which has this one's imports
    if in_child(lambda: exec(code, globals()) is None):
        sys.exit(code)
"""

FORKS = {
    "after an update": "assert in_child(lambda: (train() == want).all()) == 0",
    "while others update": """
once = train(1)
others = [threading.Thread(target=busy) for _ in range(2)]
for thread in others:
    thread.start()
for _ in range(5):
    assert in_child(lambda: (train(1) == once).all()) == 0
going = False
for thread in others:
    thread.join()
""",
    "of a fork": "assert in_child(lambda: in_child(lambda: (train() == want).all()) == 0) == 0",
    "with a model whose plan is kept": """
with xpopt.engine(sys.argv[1]), xpopt.num_threads(3):
    opt, params = xpopt.Adam(lr=0.5), {"W": np.zeros(1_200_007, np.float32)}
    def step():
        opt.update_all(params, {"W": params["W"] + 1}, out=params)
    step(), step()
    def child():
        step()
        return (params["W"] == want).all() and opt.cur_step == opt.cache["W"]["t"] == 3
    assert in_child(child) == 0
    assert in_child(lambda: in_child(child) == 0 and child()) == 0
    assert opt.cur_step == opt.cache["W"]["t"] == 2
    assert child()
""",
    "while another thread reads a rule": """
inside, forked = threading.Event(), threading.Event()

def first_use(wait):
    class Own(xpopt.OptimizerBase):
        @staticmethod
        def rule(xp, param, grad, s, h):
            if wait and not inside.is_set():
                inside.set()
                forked.wait()
            return param - h.lr * grad, s
    with xpopt.engine("blocked"):
        return Own(0.5).update(np.ones(3), np.ones(3), "W").tolist() == [0.5] * 3

thread = threading.Thread(target=first_use, args=(True,))
thread.start()
inside.wait()
assert in_child(lambda: first_use(False)) == 0
forked.set()
thread.join()
""",
    "while others use rules for the first time": """
os.environ["XPOPT_CACHE_DIR"] = os.devnull  # no folder: each is compiled

def first_use():
    class Own(xpopt.OptimizerBase):
        @staticmethod
        def rule(xp, param, grad, s, h):
            return param - h.lr * grad, s
    with xpopt.engine(sys.argv[1]):
        return Own(0.5).update(np.ones(3), np.ones(3), "W").tolist() == [0.5] * 3

def use_others():
    while going:
        assert first_use()

others = [threading.Thread(target=use_others) for _ in range(2)]
for thread in others:
    thread.start()
for _ in range(3):
    assert in_child(first_use) == 0
going = False
for thread in others:
    thread.join()
""",
    "by another thread, while the main one is in an update and holds signals back": """
import signal

def handle(number, frame):
    raise TimeoutError

handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGALRM: handle}
signal.signal(signal.SIGALRM, handle)

def signals_are_handled():
    raised = 0
    for number in handlers:
        try:
            signal.raise_signal(number)
        except (KeyboardInterrupt, TimeoutError):
            raised += 1
    return raised == 2 and (train(1) == once).all()

once = train(1)
lines, codes = 0, []

def fork_in_another(frame, event, arg):
    global lines
    lines += 1
    if lines % 53 == 0:
        thread = threading.Thread(target=lambda: codes.append(in_child(signals_are_handled)))
        thread.start()
        thread.join()
    return fork_in_another

sys.settrace(fork_in_another)
new = train(1)
sys.settrace(None)
assert len(codes) > 10 and not any(codes), codes
assert (new == once).all()
assert all(signal.getsignal(number) is handler for number, handler in handlers.items())
""",
    "while another thread updates with the same optimizer": """
inside, forked = threading.Event(), threading.Event()

class Waiting(xpopt.SchedulerBase):
    def learning_rate(self, step, cur_loss=None):
        inside.set()
        forked.wait()
        return 0.5

opt = xpopt.SGD(lr_scheduler=Waiting())

def in_turn():
    forked.set()
    return opt.update_all([np.ones(3)], [np.ones(3)])[0].tolist() == [0.5] * 3

thread = threading.Thread(target=in_turn)
thread.start()
inside.wait()
assert in_child(in_turn) == 0
forked.set()
thread.join()
assert in_turn()
""",
}
ENDS = {
    "of a parent and of its child": """
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
assert (train() == want).all()
""",
    "at once": "",
    "while a daemon updates": "threading.Thread(target=busy, daemon=True).start(); time.sleep(0.05)",
    "while a daemon updates, by sys.exit": (
        "threading.Thread(target=busy, daemon=True).start(); time.sleep(0.05); sys.exit(0)"
    ),
    "while a daemon updates, by an error": """
def quiet(*args):
    os.write(1, b"an error")
sys.excepthook = quiet
threading.Thread(target=busy, daemon=True).start()
train()
raise RuntimeError
""",
    "while daemons update, with an update at the end": """
import atexit
def at_end():
    assert (train() == want).all()
    os.write(1, b"updated")
atexit.register(at_end)
for _ in range(2):
    threading.Thread(target=busy, daemon=True).start()
train()
""",
    "while a thread that is no daemon updates": """
def at_last():
    threading.main_thread().join()
    assert (train() == want).all()
    os.write(1, b"updated")
threading.Thread(target=at_last).start()
""",
}
SAYS = {"while a daemon updates, by an error": (1, "an error")} | dict.fromkeys(list(ENDS)[-2:], (0, "updated"))


def python(code: str, *arguments: str) -> tuple[str, int, str]:
    """Return what it says as an error, its exit status, and what it says; a hang is an error after some time."""
    environment = {**os.environ, "PYTHONPATH": str(Path(xpopt.__file__).parents[1])}
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    return done.stderr, done.returncode, done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork: this system has none")
def test_processes_fork(backend, fused):
    assert python(TRAIN + EACH, fused, *(BEGIN + code for code in FORKS.values())) == ("", 0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork: this system has none")
@pytest.mark.parametrize("case", ENDS)
def test_processes_end(backend, fused, case):
    assert python(TRAIN + BEGIN + ENDS[case], fused) == ("", *SAYS.get(case, (0, "")))


MEMORY = r"""
import re, sys, tracemalloc
import numpy as np
import xpopt

def resident(what):
    with open("/proc/self/status") as file:
        return 1024 * int(re.search(what + r":\s*(\d+) kB", file.read())[1])

engine, clip_norm = sys.argv[1], float(sys.argv[2]) or None
with xpopt.engine(engine), xpopt.num_threads(2):
    opt = xpopt.Adam(clip_norm=clip_norm)
    params = {i: np.ones(size, np.float32) for i, size in enumerate([8_000_000, 4_000_000, *[10_000] * 200])}
    grads = {name: np.ones_like(x) for name, x in params.items()}
    for _ in range(2):
        opt.update_all(params, grads, out=params)
    before = resident("VmRSS")
    tracemalloc.start()
    for _ in range(2):
        opt.update_all(params, grads, out=params)
    traced = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(traced, resident("VmHWM") - before, sum(x.nbytes for x in params.values()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of resident memory: Linux says it")
@pytest.mark.parametrize("clip_norm", [0, 0.5], ids=["unclipped", "clipped"])
def test_a_step_in_place_allocates_next_to_nothing(backend, fused, clip_norm):
    """Of a model of 56 MB, with 112 MB of state: less than 8 MiB, by Python's count and by the system's."""
    *failed, said = python(MEMORY, fused, str(clip_norm))
    assert failed == ["", 0]
    traced, resident, model = map(int, said.split())
    assert model > 50e6
    assert max(traced, resident) < 8 * 2**20, (traced, resident)
