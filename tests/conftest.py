"""One behavioural suite, many array libraries: ``pytest --backend torch --backend jax``.

And every engine: ``pytest --backend numpy --engine compiled``.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import os
import signal
from typing import Any

import hypothesis
import pytest
from _kit.backends import NAMESPACES, Backend
from _kit.engines import FUSED
from _kit.rows import FULL

import xpopt
from xpopt._arrays.machine import why_not
from xpopt._engine import kernels
from xpopt._engine.choice import ENGINES
from xpopt._engine.compiled.build import why_no_compiler

JAX_CACHE = {
    "JAX_COMPILATION_CACHE_DIR": "{}/jax",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
"""JAX compiles each operation for each shape anew in each process: they share what one of them compiled."""

hypothesis.settings.register_profile("xpopt", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.load_profile("xpopt")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--backend`` and ``--engine``."""
    parser.addoption(
        "--backend", action="append", choices=list(NAMESPACES), help="array library to test; may be given again"
    )
    parser.addoption("--engine", default="auto", choices=ENGINES, help="what runs updates where a test does not say")
    parser.addoption("--reverse", action="store_true", help="run the tests in reverse order")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers; refuse an engine that is not here, in whose place another would be tested.

    What is compiled goes to a folder of this clone, unless the environment names one; other processes inherit it.
    """
    if not os.environ.get("XPOPT_CACHE_DIR"):
        os.environ["XPOPT_CACHE_DIR"] = str(config.rootpath / ".pytest_cache" / "xpopt")
    for name, value in JAX_CACHE.items():
        os.environ.setdefault(name, value.format(os.environ["XPOPT_CACHE_DIR"]))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for what a shell runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--engine") == "compiled" and (problem := why_no_compiler()):
        raise pytest.UsageError(f"--engine=compiled: {problem}")
    config.addinivalue_line("markers", "backends(*names): what is true of these backends only; others leave it out")
    config.addinivalue_line("markers", "row_of_numpy: a row of a table that libraries with one engine leave out")
    config.addinivalue_line("markers", "any_width: what is the same in all dtypes, and left out of jax-x64")
    immutable = "what is the same of all arrays that cannot be written, and tested with JAX's of its usual widths"
    config.addinivalue_line("markers", f"any_immutable: {immutable}")
    config.addinivalue_line("markers", "any_engine: what no engine bears on, or names its own; left out with --engine")
    config.addinivalue_line("markers", "llvmlite: what needs llvmlite, which compiles")
    config.addinivalue_line("markers", "uncompiled: where a kernel cannot be compiled, which is an error elsewhere")
    config.addinivalue_line("markers", "long: of several processes, what the short session leaves out")


def _chosen(config: pytest.Config) -> list[str]:
    return config.getoption("--backend") or ["numpy", "numpy-readonly"]


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: Any, name: str, obj: Any) -> list[Any] | None:
    """Make no items of a function that none of the backends chosen runs, nor of one that no engine bears on."""
    if not (name.startswith("test_") and inspect.isfunction(obj)):
        return None
    marks = {mark.name: mark for of in (collector.obj, obj) for mark in _marks_of(of)}
    if "backends" in marks and not set(marks["backends"].args).intersection(_chosen(collector.config)):
        return []
    chosen = collector.config.getoption("--engine") != "auto"
    return [] if chosen and "any_engine" in marks and "llvmlite" not in marks else None


def _marks_of(obj: Any) -> list[Any]:
    marks = getattr(obj, "pytestmark", [])
    return marks if isinstance(marks, list) else [marks]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run whatever takes `backend` or `xp` over the backends chosen."""
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", _chosen(metafunc.config), indirect=True, scope="function")


def _backend_of(item: pytest.Item) -> str | None:
    return item.callspec.params.get("backend") if hasattr(item, "callspec") else None


def _skipped_once(items: list[pytest.Item], reason: str) -> list[pytest.Item]:
    """Make the first a skip that says why; return the others, to be left out."""
    for item in items[:1]:
        item.add_marker(pytest.mark.skip(reason=reason))
    return items[1:]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what another session runs; make a missing GPU, or llvmlite, one skip that says so."""
    chosen = _chosen(config)
    dropped: list[pytest.Item] = []
    for item in items:
        marker, name = item.get_closest_marker("backends"), _backend_of(item)
        if name is None:  # it needs no backend, and runs with those that it names, or with NumPy's
            if not set(marker.args if marker else ["numpy"]).intersection(chosen):
                dropped.append(item)
        elif (
            (marker is not None and name not in marker.args)
            or (name not in FULL and item.get_closest_marker("row_of_numpy"))
            or (name == "jax-x64" and item.get_closest_marker("any_width"))
            or (name in ("jax-x64", "dask") and item.get_closest_marker("any_immutable"))
        ):
            dropped.append(item)
    if config.getoption("--engine") != "auto":  # what knows no backend, or chooses the engine itself, runs without it
        dropped += [item for item in items if _chooses_itself(item, config.getoption("--engine"))]
        dropped += [item for item in items if item.get_closest_marker("row_of_numpy")]  # bits are the same on all
    if "cupy" in chosen and (problem := why_not("cupy")):
        of_cupy = [item for item in items if _backend_of(item) == "cupy" and item not in dropped]
        dropped += _skipped_once(of_cupy, f"no CuPy test can run: CuPy is {problem}")
    if problem := why_no_compiler():
        of_compiled = [item for item in items if item.get_closest_marker("llvmlite") and item not in dropped]
        dropped += _skipped_once(of_compiled, f"no test of the compiled engine can run: {problem}")
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        gone = set(map(id, dropped))
        items[:] = [item for item in items if id(item) not in gone]
    if config.getoption("--reverse"):
        items.reverse()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the garbage collector, which tests call, look at what they make alone, and not at the tests each time."""
    gc.collect()
    gc.freeze()


def _chooses_itself(item: pytest.Item, engine: str) -> bool:
    if item.get_closest_marker("llvmlite"):
        return engine != "compiled"
    if _backend_of(item) is None or "fused" in item.fixturenames or item.get_closest_marker("any_engine"):
        return True
    return "engine" in item.callspec.params  # type: ignore[attr-defined]


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Any:
    """The array library under test."""
    name = request.param
    if name.startswith("jax"):
        jax = importlib.import_module("jax")
        jax.config.update("jax_enable_x64", name == "jax-x64")
    elif name == "torch":
        importlib.import_module("torch").set_num_threads(1)  # more would wait for one another: processes share the CPUs
    yield Backend(name, importlib.import_module(NAMESPACES[name]))
    if name == "jax-x64":
        jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest) -> Any:
    """Run each test on the engine chosen, until it chooses another; its name."""
    name = request.config.getoption("--engine")
    with xpopt.engine(name):
        yield name


@pytest.fixture(autouse=True)
def _compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an error of a kernel that cannot be compiled: blocks would run in its place, and have the same bits."""

    class Unwanted(kernels.Refusal):
        def __new__(cls, reason: str) -> Unwanted:
            raise AssertionError(reason)

    if request.node.get_closest_marker("uncompiled") is None:
        monkeypatch.setattr(kernels, "Refusal", Unwanted)


@pytest.fixture(params=FUSED)
def fused(request: pytest.FixtureRequest) -> Any:
    """Run on each engine that fuses the operations of NumPy arrays; its name."""
    with xpopt.engine(request.param):
        yield request.param


@pytest.fixture
def eager() -> Any:
    """Run rules themselves: for rules that do at each update what a traced one would do once."""
    with xpopt.engine("eager"):
        yield


@pytest.fixture
def xp(backend: Backend) -> Any:
    """The namespace of the array library under test."""
    return backend.xp
