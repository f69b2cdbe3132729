"""Python source made machine code by Numba, and kept on disk for the next process."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

from .._print import intrinsics_source

_lock = threading.RLock()


def _new_lock() -> None:
    """Start over in a forked process, where another thread's hold on the lock would last for ever."""
    global _lock
    _lock = threading.RLock()


def _let_go() -> None:
    with suppress(RuntimeError):  # not held, if forks began to wait in the middle of this one
        _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def alone() -> threading.RLock:
    """Return the lock that is held while something is compiled."""
    return _lock


@functools.cache
def _let_forks_wait() -> None:
    """Let a fork wait for a compilation: a child would find Numba's locks held, by a thread that it does not have.

    To be called when Numba has been imported. What was registered last is called first: logging's locks, which a
    compilation may take, must not be held by a fork that waits.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lambda: _lock.acquire(), after_in_parent=_let_go)


@functools.cache
def why_no_numba() -> str | None:
    """Return why Numba cannot be used, or None if it can. Imports it."""
    try:
        if importlib.util.find_spec("numba") is None:
            return "Numba is not installed (pip install 'xpopt[cpu]')"
        import numba
    except Exception as error:  # such as a NumPy that it does not know
        return f"Numba's import fails: {error}"
    if numba.config.DISABLE_JIT:
        return "NUMBA_DISABLE_JIT is set"
    return None


@functools.cache
def why_no_float16() -> str | None:
    """Return why Numba cannot convert to and from float16, or None if it can."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    from llvmlite import binding

    return None if binding.get_host_cpu_features().get("f16c") else "this processor has no float16 conversions"


def build(source: str, name: str, signature: str) -> Callable[..., Any]:
    """Compile a function, or load what an earlier process compiled.

    Parameters
    ----------
    source : str
        A module with the function.
    name : str
        The function.
    signature : str
        Its types, for Numba.

    Returns
    -------
    callable
        The function; it runs without the interpreter's lock.
    """
    import numba

    _let_forks_wait()

    def compiled(function: Any, *, cache: bool) -> Any:
        return numba.njit(signature, nogil=True, error_model="numpy", cache=cache)(function)

    with _lock:
        folder = cache_dir()
        if folder is not None:
            try:
                path = _file(source, folder)
                _drop_if_changed(path)
                function = compiled(getattr(_module(source, path), name), cache=True)
                if function.stats.cache_misses:
                    _note(path)
                return function
            except Exception:  # a full disk, a file of another's or half a file: compile it again, in memory
                pass
        scope: dict[str, Any] = {}
        exec(compile(source, f"<{name}>", "exec"), scope)
        return compiled(scope[name], cache=False)


def source_of(module: str) -> str:
    """Return the source of a module beside this one, its imports written out, to be built."""
    root = str(__package__).rpartition(".")[0]
    text = (resources.files(__package__) / f"{module}.py").read_text("utf-8")
    return text.replace("from ..", f"from {root}.")


def cache_dir() -> Path | None:
    """Return the private folder that compiled kernels are kept in, or None if there can be none.

    It is ``XPOPT_CACHE_DIR``, else ``xpopt`` in the user's cache folder. What lies in it is run, so it must belong to
    this user, and nobody else may write to it.

    Returns
    -------
    Path or None
        The folder, which exists.
    """
    chosen = os.environ.get("XPOPT_CACHE_DIR")
    try:
        folder = Path(chosen) if chosen else _user_cache() / "xpopt"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "getuid"):
            status = folder.stat()
            if status.st_uid != os.getuid() or status.st_mode & 0o022:
                return None
        return folder.resolve() if os.access(folder, os.W_OK) else None
    except (OSError, RuntimeError):  # no permission, no home
        return None


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _file(source: str, folder: Path) -> Path:
    """Return the file of its own that a module has in `folder`; Numba keeps beside it what it makes of it."""
    digest = hashlib.sha256((source + intrinsics_source()).encode()).hexdigest()[:32]
    path = folder / f"xpopt_{digest}.py"
    if not path.exists() or path.read_bytes() != source.encode():
        _write(path, source)
    return path


def _module(source: str, path: Path) -> ModuleType:
    if path.stem not in sys.modules:
        module = ModuleType(path.stem)
        exec(compile(source, path, "exec"), module.__dict__)
        sys.modules[path.stem] = module  # where Numba looks for it
    return sys.modules[path.stem]


def _kept(path: Path) -> list[Path]:
    """Return the files in which Numba keeps what it made of a module."""
    return sorted(path.parent.glob(f"__pycache__/{path.stem}.*.nb[ci]"))


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    for file in _kept(path):
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()


def _note(path: Path) -> None:
    """Remember what Numba keeps of a module as it is now."""
    _write(path.with_suffix(".sha256"), _digest(path))


def _drop_if_changed(path: Path) -> None:
    """Delete what Numba keeps of a module unless it is as it was: nobody else looks before it is run."""
    noted = path.with_suffix(".sha256")
    if not noted.exists() or noted.read_bytes() != _digest(path).encode():
        for file in _kept(path):
            file.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    """Write a file as a whole, whoever else writes it at the same time."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
        os.utime(temporary, (0, 0))  # Numba goes by its time: one for all who write this at once
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
