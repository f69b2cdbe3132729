"""Whichever allocation fails, and however near the limit of recursion a call is made, it leaves nothing half done."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from _kit.engines import FUSED
from _kit.interrupts import one, seen, start, step

import xpopt

pytestmark = pytest.mark.backends("numpy")

CHANGES = {
    "update_all": step,
    "update": one,
    "set_params": lambda opt, params: opt.set_params({"lr": 0.7, "decay1": 0.1}, {"z": opt._parts.state.cache["W"]}),
    "load_state_dict": lambda opt, params: opt.load_state_dict(STATE),
}
STATE = xpopt.Adam(lr=0.5, decay1=0.3).state_dict()
CASES = [
    *(pytest.param(change, False, {}, id=name) for name, change in CHANGES.items()),
    *(pytest.param(CHANGES[name], True, {}, id=f"{name}-looked at") for name in ("update_all", "set_params")),
    # a kernel that chooses, between elements, what it writes last
    pytest.param(CHANGES["update_all"], False, {"bounds": (-0.9, 0.9)}, id="update_all-bounds"),
]


def every(opt: Any, params: dict[str, Any]) -> tuple[Any, ...]:
    return seen(opt, params), str(opt)


def in_a_fork(check: Callable[[], None]) -> str:
    """Run a check in a fork of this process, where no other thread is; return its traceback, and how a crash ended."""
    ours, childs = os.pipe()
    child = os.fork()
    if not child:
        try:
            check()
        except BaseException:
            os.write(childs, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(childs)
    with open(ours) as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return said if code == 0 else f"exit code {code}"


@pytest.mark.skipif(
    sys.version_info >= (3, 12),
    reason="CPython 3.12 and 3.13 crash where the frame of any generator expression cannot be allocated",
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork: this system has none")
@pytest.mark.parametrize("engine", ["eager", *FUSED])
@pytest.mark.parametrize(("change", "looked_at", "options"), CASES)
def test_each_allocation_in_turn(backend, engine, change, looked_at, options):
    """In a fork, for in all threads of a process allocations fail: those of the test runner could not go on."""
    testcapi = pytest.importorskip("_testcapi", reason="it makes allocations fail, and is part of CPython's own tests")

    def begin(undone: Any = None) -> Any:
        opt, params = undone or start(**options)
        if looked_at:
            _ = opt.cache  # so that slots are copied
        return opt, params

    def check() -> None:
        passed, k, undone = 0, 0, None
        while passed < 30:
            k += 1
            opt, params = begin(undone)
            testcapi.set_nomemory(k, k + 1)
            try:
                change(opt, params)
                passed += 1
            except Exception:  # what some make of a MemoryError
                pass
            finally:
                testcapi.remove_mem_hooks()
            found = every(opt, params)
            assert found in (before, after), k
            # what is undone is where the next begins, but for an update that takes the parameter out of a kept plan
            undone = (opt, params) if found == before and change is not one and k % 8 else None
        assert k > 100

    with xpopt.engine(engine), xpopt.num_threads(1):
        opt, params = begin()
        before = every(opt, params)
        change(opt, params)
        after = every(opt, params)
        assert before != after
        assert in_a_fork(check) == ""


@pytest.mark.parametrize("engine", ["eager", *FUSED])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_each_depth_below_the_limit_of_recursion(backend, engine, change):
    def below(depth: int, call: Any) -> None:
        below(depth - 1, call) if depth else call()

    deepest = 0
    with contextlib.suppress(RecursionError):
        for deepest in range(10, 100_000, 10):
            below(deepest, lambda: None)
    with xpopt.engine(engine), xpopt.num_threads(1):
        opt, params = start()
        before = every(opt, params)
        change(opt, params)
        after = every(opt, params)
        failed = 0
        for room in range(80):
            opt, params = start()
            try:
                below(deepest - room, lambda opt=opt, params=params: change(opt, params))
            except Exception:  # what some make of a RecursionError
                failed += 1
            assert every(opt, params) in (before, after), room
        assert 3 < failed < 80


class Name:
    """Raises when it is hashed or compared, after so many times."""

    left = 10**9

    def __hash__(self) -> int:
        Name.count()
        return 1

    def __eq__(self, other: object) -> bool:
        Name.count()
        return self is other

    @classmethod
    def count(cls) -> None:
        cls.left -= 1
        if cls.left < 0:
            raise ZeroDivisionError("no hash")


@pytest.mark.parametrize("engine", ["eager", *FUSED])
@pytest.mark.parametrize("looked_at", [False, True])
@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("make", [xpopt.Adam, lambda: xpopt.SGD(momentum=0.5)], ids=["Adam", "SGD"])
def test_names_that_fail_to_be_hashed(backend, engine, looked_at, new, make):
    def begin() -> Any:
        Name.left = 10**9
        opt, params = make(), {Name(): np.ones(3), Name(): np.ones(2), "W": np.ones(2)}
        if not new:
            opt.update_all(params, params, out=params)
            for name in params:
                opt.update(params[name], params[name], name, out=params[name])
        if looked_at:
            _ = opt.cache
        return opt, params, list(params)

    def found(opt: Any, params: Any) -> Any:
        Name.left = 10**9
        entries = opt._parts.state.cache.values()
        slots = [
            [x if isinstance(x, int) else x.tolist() for x in dict(enumerate(e)).values()]
            if not isinstance(e, dict)
            else [np.asarray(x).tolist() for x in e.values()]
            for e in entries
        ]
        return [x.tolist() for x in params.values()], slots, opt.cur_step

    with xpopt.engine(engine):
        for change in (
            lambda opt, params, names: opt.update_all(params, params, out=params),
            lambda opt, params, names: opt.update(params[names[1]], np.ones(2), names[1], out=params[names[1]]),
        ):
            opt, params, names = begin()
            before = found(opt, params)
            change(opt, params, names)
            after = found(opt, params)
            failed = 0
            for k in range(10_000):
                opt, params, names = begin()
                Name.left = k
                try:
                    change(opt, params, names)
                    break
                except ZeroDivisionError:
                    failed += 1
                assert found(opt, params) == before, k
            assert found(opt, params) == after
            assert failed > 2
    Name.left = 10**9
