"""Compiled functions are kept on disk for the next process; whatever is wrong there, they are right."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import itertools
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _kit.engines import needs_llvmlite, of_rule

import xpopt
from xpopt._engine.compiled import build, code_files

pytestmark = [pytest.mark.backends("numpy"), needs_llvmlite]

_names = itertools.count()


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder chosen for kernels."""
    monkeypatch.setenv("XPOPT_CACHE_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def new_source() -> str:
    """Return a module that no other test has."""
    text = "define i64 @double(i64 %x) {\n  %twice = mul i64 %x, 2\n  ret i64 %twice\n}\n"
    return f"; number {next(_names)} of {os.getpid()}\n{text}"


def built(source: str) -> Any:
    """Build as another process would, and demand that the result is right."""
    function = build.build(source, "double", ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64))
    assert function(21) == 42
    return function


def loads(function: Any) -> bool:
    """Whether a function came from the disk."""
    loaded: bool = function.loaded
    return loaded


def files(folder: Path) -> list[Path]:
    """All that lies in the folder."""
    return sorted(folder.rglob("*"))


def test_what_was_built_is_loaded(backend, folder):
    source = new_source()
    assert not loads(built(source))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (path,) = files(folder)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert loads(built(source))
    assert not loads(built(new_source()))
    assert loads(built(source))
    assert len(files(folder)) == 2


DAMAGE = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\0",
    "zeros": lambda data: bytes(len(data)),
    "noise": lambda data: np.random.default_rng(1).bytes(len(data)),
    **{
        f"a bit at {place}/8": lambda data, place=place: bytes(
            byte ^ (4 if i == place * len(data) // 8 else 0) for i, byte in enumerate(data)
        )
        for place in range(8)
    },
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_replaced(backend, folder, damage):
    """Also one whose time and size are what they were."""
    source = new_source()
    built(source)
    (path,) = files(folder)
    times = path.stat()
    path.write_bytes(damage(path.read_bytes()))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not loads(built(source))
    assert loads(built(source))


def test_a_lost_file_is_replaced(backend, folder):
    source = new_source()
    built(source)
    (path,) = files(folder)
    path.unlink()
    assert not loads(built(source))
    assert loads(built(source))


@pytest.mark.parametrize("digest", [b"", bytes(32), hashlib.sha256(b"").digest()], ids=["none", "zeros", "of nothing"])
def test_nothing_is_linked_that_has_no_digest(backend, folder, digest):
    """The linker ends the process at what is no object file."""
    source = new_source()
    built(source)
    (path,) = files(folder)
    path.write_bytes(digest + path.read_bytes()[32:-1])
    assert not loads(built(source))


def test_a_right_digest_of_something_else_is_replaced(backend, folder):
    """As another release might leave, or the code of another function."""
    source, other = new_source(), new_source()
    built(source)
    (path,) = files(folder)
    built(other)
    (of_other,) = set(files(folder)) - {path}
    for data in (b"no such thing", of_other.read_bytes()[32:]):
        code_files.write(path, data)
        assert not loads(built(source))
        assert loads(built(source))


def put_link(patch: pytest.MonkeyPatch, path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def seen(patch: pytest.MonkeyPatch, field: int, value: int) -> None:
    """Let the status of each open file be another one."""
    real = os.fstat
    patch.setattr(os, "fstat", lambda of: os.stat_result((*real(of)[:field], value, *real(of)[field + 1 :])))


NO_FILE = {
    "a pipe": lambda patch, path: (path.unlink(), os.mkfifo(path)),
    "a device": lambda patch, path: seen(patch, 0, stat.S_IFCHR | 0o600),
    "a link to a device": lambda patch, path: (path.unlink(), path.symlink_to(os.devnull)),
    "a link": put_link,
    "a folder": lambda patch, path: (path.unlink(), path.mkdir()),
    "others may write": lambda patch, path: path.chmod(0o606),
    "the group may write": lambda patch, path: path.chmod(0o660),
    "another's": lambda patch, path: seen(patch, 4, os.getuid() + 1),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and owners of files: this system has none")
@pytest.mark.parametrize("arrange", NO_FILE.values(), ids=NO_FILE)
def test_what_is_no_file_of_ones_own_is_not_read(backend, folder, monkeypatch, arrange):
    """Nor waited for."""
    source = new_source()
    built(source)
    (path,) = files(folder)
    with monkeypatch.context() as patch:
        arrange(patch, path)
        assert code_files.read(path) is None
        assert not loads(built(source))
    assert loads(built(source)) != path.is_dir()


def test_where_the_folder_is(backend, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XPOPT_CACHE_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert code_files.cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("XPOPT_CACHE_DIR")
    assert code_files.cache_dir() == tmp_path / "user" / "xpopt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert code_files.cache_dir() == tmp_path / "home" / ".cache" / "xpopt"


@pytest.mark.parametrize(
    ("platform", "variable", "where"),
    [
        ("win32", "LOCALAPPDATA", "mine/xpopt"),
        ("win32", None, "home/AppData/Local/xpopt"),
        ("darwin", "XDG_CACHE_HOME", "home/Library/Caches/xpopt"),
    ],
)
def test_where_the_folder_is_elsewhere(backend, monkeypatch, tmp_path, platform, variable, where):
    for name in ("XPOPT_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "mine"))
    monkeypatch.setattr(sys, "platform", platform)
    assert code_files.cache_dir() == tmp_path / where


def raising(error: Exception) -> Any:
    def function(*args: Any, **kwargs: Any) -> Any:
        raise error

    return function


NO_FOLDER = {
    "others may write": lambda patch, folder: (folder.mkdir(), folder.chmod(0o777)),
    "the group may write": lambda patch, folder: (folder.mkdir(), folder.chmod(0o770)),
    "another's": lambda patch, folder: patch.setattr(os, "getuid", lambda: os.geteuid() + 1),
    "a file is there": lambda patch, folder: folder.write_text(""),
    "not to be made": lambda patch, folder: patch.setattr(Path, "mkdir", raising(PermissionError(errno.EACCES, ""))),
    "not to be written": lambda patch, folder: patch.setattr(os, "access", lambda path, mode: False),
    "no home": lambda patch, folder: (
        [patch.delenv(name, raising=False) for name in ("XPOPT_CACHE_DIR", "XDG_CACHE_HOME")],
        patch.setattr(Path, "home", raising(RuntimeError("no home"))),
    ),
}


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="the owner and mode of a folder: this system has none")
@pytest.mark.parametrize("arrange", NO_FOLDER.values(), ids=NO_FOLDER)
def test_without_a_private_folder_kernels_are_built_in_memory(backend, folder, monkeypatch, arrange):
    arrange(monkeypatch, folder)
    assert code_files.cache_dir() is None
    built(new_source())
    assert not folder.is_dir() or not list(folder.iterdir())


@pytest.mark.parametrize("where", ["tempfile.mkstemp", "os.replace", "os.fdopen"])
def test_on_a_full_disk_kernels_are_built_in_memory(backend, folder, monkeypatch, where):
    with monkeypatch.context() as patch:
        patch.setattr(where, raising(OSError(errno.ENOSPC, "No space left on device")))
        source = new_source()
        built(source)
    assert not list(folder.rglob("*.tmp*"))
    built(source)
    assert loads(built(source))


STEP = """
import sys
import numpy as np
import xpopt
from xpopt._engine.compiled import kernel as compiled

opt, size = xpopt.Adam(lr=0.5), int(sys.argv[1])
params = {"W": np.zeros(size, np.float32), "b": np.zeros((), np.float32)}
for _ in range(3):
    opt.update_all(params, {name: x + 1 for name, x in params.items()}, out=params)
kernels = [one.call for one in opt._parts.settings.rule.made.values() if isinstance(one, compiled.Kernel)]
print(params["W"].sum(), "llvmlite" in sys.modules, [int(x.loaded) for x in kernels])
"""


def start(size: int, code: str = "", **environment: str) -> subprocess.Popen[str]:
    """Start a process that makes three steps, warnings being errors, after it has run `code`."""
    root = str(Path(xpopt.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([environment.pop("first", root), root]), **environment}
    command = [sys.executable, "-W", "error", "-c", code + STEP, str(size)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return out.strip()


def test_many_processes_may_build_at_once(backend, folder):
    """They all succeed; a later one compiles nothing."""
    answers = {said(process) for process in [start(100_000) for _ in range(3)]}
    assert len({answer.partition(" ")[0] for answer in answers}) == 1
    assert said(start(100_000)).endswith("True [1]")


def test_small_models_do_not_wait_for_llvm(backend, folder):
    assert said(start(1000)).endswith("False []")
    assert not folder.exists()


def test_without_llvmlite_blocks_do_the_same(backend, folder, tmp_path):
    """Not installed, without its library, or too old; nobody is warned."""
    (tmp_path / "broken" / "llvmlite").mkdir(parents=True)
    (tmp_path / "broken" / "llvmlite" / "__init__.py").write_text("raise OSError('libllvmlite.so: not there')")
    old = "import sys, types; x = sys.modules['llvmlite'] = types.ModuleType('llvmlite'); x.__version__ = '0.44.0'; "
    old += "x.__spec__ = types.SimpleNamespace(); x.binding = sys.modules['llvmlite.binding'] = types.ModuleType('b')"
    processes = [
        start(100_000),
        start(100_000, "import sys; sys.modules['llvmlite'] = None"),
        start(100_000, old),
        start(100_000, first=str(tmp_path / "broken")),
    ]
    first, *others = [said(process) for process in processes]
    assert first.endswith("True [0]")
    assert all(other.partition(" ")[0] == first.partition(" ")[0] and other.endswith("[]") for other in others)


@needs_llvmlite
def test_explain_compiles_nothing(backend, monkeypatch):
    opt = of_rule(lambda xp, param, grad, s, h: (param - h.lr * grad, s), xpopt._graph.rule.NoSlots)()
    monkeypatch.setattr("xpopt._engine.compiled.build.build", None)
    with xpopt.engine("compiled"):
        rows = opt.explain([np.ones(2), np.ones((3, 4))[:, ::2]])
    assert [row.engine for row in rows] == ["compiled", "eager"]


@needs_llvmlite
@pytest.mark.uncompiled
def test_what_cannot_be_compiled_runs_in_blocks(backend, monkeypatch):
    def fail(*args: Any) -> Any:
        raise NotImplementedError("no such intrinsic")

    monkeypatch.setattr("xpopt._engine.compiled.build.build", fail)
    opt = of_rule(lambda xp, param, grad, s, h: (param - h.lr * grad, s), xpopt._graph.rule.NoSlots)()
    with xpopt.engine("compiled"):
        assert opt.update(np.ones(2), np.ones(2), "W").tolist() == [0.9, 0.9]
        (row,) = opt.explain([np.ones(2)])
    assert (row.engine, row.reason) == ("blocked", "it cannot be compiled: no such intrinsic")
