"""What this machine can do: the default namespace, the variable that chooses, and `python -m xpopt`."""

import importlib
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import array_api_compat.numpy
import pytest

import xpopt
from xpopt.__main__ import report
from xpopt._arrays.machine import why_not


class CUDARuntimeError(RuntimeError):
    """As CuPy raises it."""


def fake_cupy(count=1, compiles=None):
    """A module with what is asked of CuPy; `count` and `compiles` are an answer or what is raised instead."""

    def answer(value):
        if isinstance(value, Exception):
            raise value
        return value

    class Array:
        def __add__(self, other):
            answer(compiles)
            return self

        def get(self):
            return [2.0]

    runtime = SimpleNamespace(
        getDeviceCount=lambda: answer(count),
        getDevice=lambda: 0,
        setDevice=lambda number: None,
        memGetInfo=lambda: (2**30, 2**34),
        getDeviceProperties=lambda number: {"name": b"Fake %d" % number},
    )
    cupy = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(runtime=runtime, is_available=lambda: isinstance(count, int) and count > 0)
    cupy.ones = lambda shape: Array()
    cupy.__version__ = "99.0"
    return cupy


def broken_package(folder, source):
    (folder / "cupy").mkdir()
    (folder / "cupy" / "__init__.py").write_text(source)


NO_DRIVER = CUDARuntimeError(
    "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
)
NO_DEVICE = CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
NO_NVRTC = RuntimeError('Failure finding "libnvrtc.so": no such file\nand a long list of where it was looked for')
PROBLEMS = {
    "not installed": (None, ["not installed"]),
    "needs another package": ("import fastrlock_that_is_missing", ["fastrlock_that_is_missing"]),
    "import raises OSError": (
        "raise FileNotFoundError(2, 'No such file or directory', '/nowhere/.cupy')",
        ["/nowhere/.cupy"],
    ),
    "import raises ImportError": ("raise ImportError('libcudart.so.13: cannot open')", ["libcudart.so.13"]),
    "import raises without a word": ("raise RuntimeError", ["RuntimeError"]),
    "no driver": (fake_cupy(NO_DRIVER), ["driver", "cudaErrorInsufficientDriver"]),
    "no device": (fake_cupy(NO_DEVICE), ["no CUDA device"]),
    "no device counted": (fake_cupy(0), ["no CUDA device"]),
    "no NVRTC": (fake_cupy(1, NO_NVRTC), ["libnvrtc", "[ctk]"]),
}


@pytest.fixture(params=PROBLEMS)
def problem(request, monkeypatch, tmp_path):
    """A CuPy that cannot be used, and the words that say why."""
    fake, words = PROBLEMS[request.param]
    if isinstance(fake, str):
        broken_package(tmp_path, fake)
        monkeypatch.delitem(sys.modules, "cupy", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
    else:
        monkeypatch.setitem(sys.modules, "cupy", fake)
    importlib.invalidate_caches()
    monkeypatch.delenv("XPOPT_BACKEND", raising=False)
    yield words
    if isinstance(fake, str):
        sys.modules.pop("cupy", None)


@pytest.fixture
def usable(monkeypatch):
    """A CuPy that works, with two devices."""
    namespace = ModuleType("array_api_compat.cupy")
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(2))
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", namespace)
    monkeypatch.delenv("XPOPT_BACKEND", raising=False)
    return namespace


def test_a_problem_is_told_and_numpy_taken(problem):
    reason = why_not("cupy")
    for word in problem:
        assert word in reason
    assert "\n" not in reason
    assert xpopt.default_namespace() is array_api_compat.numpy


def test_asking_for_what_cannot_be_is_an_error_that_says_why(problem, monkeypatch):
    monkeypatch.setenv("XPOPT_BACKEND", "cupy")
    with pytest.raises(RuntimeError, match="XPOPT_BACKEND=cupy") as error:
        xpopt.default_namespace()
    for word in problem:
        assert word in str(error.value)
    monkeypatch.setenv("XPOPT_BACKEND", "numpy")
    assert xpopt.default_namespace() is array_api_compat.numpy


def test_the_report_tells_it_too(problem, monkeypatch):
    for choice in ("", "numpy", "cupy", "garbage"):
        monkeypatch.setenv("XPOPT_BACKEND", choice)
        text = report()
        line = next(line for line in text.splitlines() if line.startswith("cupy"))
        for word in problem:
            assert word in line
        last = text.splitlines()[-1]
        if choice in ("", "numpy"):
            assert "array_api_compat.numpy" in last
        else:
            assert f"XPOPT_BACKEND={choice}" in last.replace("'", "")


def test_a_usable_device_is_taken(usable, monkeypatch):
    assert why_not("cupy") is None
    assert xpopt.default_namespace() is usable
    monkeypatch.setenv("XPOPT_BACKEND", "cupy")
    assert xpopt.default_namespace() is usable
    monkeypatch.setenv("XPOPT_BACKEND", "")
    assert xpopt.default_namespace() is usable
    monkeypatch.setenv("XPOPT_BACKEND", "numpy")
    assert xpopt.default_namespace() is array_api_compat.numpy


def test_the_report_lists_devices_with_memory(usable):
    text = report()
    assert "Fake 0, 16.0 GiB of memory, 1.0 GiB free" in text
    assert "Fake 1" in text
    assert text.splitlines()[-1].startswith("default_namespace() is array_api_compat.cupy")


@pytest.mark.parametrize("choice", ["garbage", "CUPY", "torch", " numpy", "numpy,cupy", "0"])
def test_an_unknown_choice_is_an_error_that_lists_the_known(monkeypatch, choice):
    monkeypatch.setenv("XPOPT_BACKEND", choice)
    with pytest.raises(ValueError, match="XPOPT_BACKEND") as error:
        xpopt.default_namespace()
    assert repr(choice) in str(error.value)
    assert "numpy" in str(error.value)
    assert "cupy" in str(error.value)


def test_choosing_numpy_asks_nobody(monkeypatch):
    monkeypatch.setenv("XPOPT_BACKEND", "numpy")
    monkeypatch.setattr("xpopt.__main__.why_not", lambda name: pytest.fail("CuPy was asked for"))
    assert xpopt.default_namespace() is array_api_compat.numpy


@pytest.mark.parametrize("library", ["torch", "jax", "dask.array", "array_api_strict"])
def test_a_library_that_fails_to_import_is_told(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    line = next(line for line in report().splitlines() if line.startswith(library))
    assert "not installed" in line or "needs" in line


def test_the_report_says_how_many_threads_there_are(monkeypatch):
    for name in ("XPOPT_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    wanted = "1 (XPOPT_NUM_THREADS is unset, OMP_NUM_THREADS is 1, NUMBA_NUM_THREADS is unset)"
    assert f"threads for a large update: {wanted}" in report()
    monkeypatch.setenv("XPOPT_NUM_THREADS", "5")
    assert "large update: 5 (XPOPT_NUM_THREADS is 5, OMP_NUM_THREADS is 1" in report()
    monkeypatch.setenv("XPOPT_NUM_THREADS", "many")
    assert "none can work, XPOPT_NUM_THREADS='many'; wanted an int" in report()


@pytest.mark.parametrize("choice", ["", "numpy", "garbage"])
def test_python_m_xpopt(choice):
    environment = {**os.environ, "XPOPT_BACKEND": choice}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "xpopt"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"xpopt {xpopt.__version__} on Python {sys.version.split()[0]}")
    for namespace in ("numpy", "cupy", "torch", "jax", "dask.array", "array_api_strict"):
        assert any(line.startswith(f"{namespace} ") for line in lines)
    line = next(line for line in lines if line.startswith("numpy "))
    assert importlib.import_module("numpy").__version__ in line
    assert line.endswith("usable")
    assert any("cores" in line for line in lines)
    assert ("XPOPT_BACKEND='garbage'" in lines[-1]) == (choice == "garbage")


def lines_of_report():
    return [line.strip() for line in report().splitlines()]


def test_the_report_says_what_numpy_arrays_get(monkeypatch, tmp_path):
    """The engine, and where compiled code is kept; without llvmlite, why not."""
    monkeypatch.setenv("XPOPT_CACHE_DIR", str(tmp_path / "code"))
    monkeypatch.setattr("xpopt.__main__.why_no_compiler", lambda: None)
    wanted = "engine: compiled where a step has 65536 elements, or after many smaller ones, else blocked"
    assert wanted in lines_of_report()
    assert f"compiled code is kept in {tmp_path / 'code'}" in lines_of_report()
    monkeypatch.setenv("XPOPT_CACHE_DIR", str(tmp_path / "code" / "file"))
    (tmp_path / "code" / "file").touch()
    assert any(line.startswith("compiled code is kept in nowhere") for line in lines_of_report())
    monkeypatch.setattr("xpopt.__main__.why_no_compiler", lambda: "llvmlite is not installed")
    assert "engine: blocked" in lines_of_report()


@pytest.mark.parametrize(
    ("package", "way_out"),
    [("llvmlite", "xpopt[cpu]"), ("safetensors", "xpopt[checkpoint]"), ("ml_dtypes", "ml_dtypes")],
)
def test_an_extra_that_is_missing_is_named_with_the_way_to_it(monkeypatch, package, way_out):
    monkeypatch.setattr("xpopt.__main__.why_not", lambda name: None if name == "numpy" else "not installed")
    line = next(line for line in lines_of_report() if line.startswith(package))
    assert line.endswith(f"not installed (pip install '{way_out}')")
