"""Python source made machine code by Numba."""

from __future__ import annotations

import functools
import os
import platform
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

from ..._print.numba import intrinsics_source

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
    from importlib.util import find_spec

    try:
        if find_spec("numba") is None:
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

    from .code_files import CodeFile, cache_dir  # here, for only what is compiled needs files

    _let_forks_wait()
    with _lock:
        module = ModuleType(f"xpopt_{_digest(source, name, signature)}")
        exec(compile(source, f"<{module.__name__}>", "exec"), module.__dict__)
        function = numba.njit(nogil=True, error_model="numpy")(getattr(module, name))
        folder = cache_dir()
        if folder is not None:  # else it keeps the cache of Numba that keeps nothing
            function._cache = CodeFile(folder / f"{module.__name__}.bin")
        sys.modules[module.__name__] = module  # where Numba looks for it, to write and to load
        try:
            function.compile(signature)
        finally:
            del sys.modules[module.__name__]
        function.disable_compile()
        return function


def _digest(source: str, name: str, signature: str) -> str:
    """Return a text that is another one where the machine code may be."""
    import hashlib

    import numba
    from numba.core.registry import cpu_target

    config = numba.config
    settings = config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE, config.BOUNDSCHECK, config.DEBUGINFO_DEFAULT
    processor = cpu_target.target_context.codegen().magic_tuple()
    versions = numba.__version__, sys.version, object.__basicsize__
    depends_on = source, intrinsics_source(), name, signature, versions, processor, settings
    return hashlib.sha256(repr(depends_on).encode()).hexdigest()[:32]


def source_of(module: str) -> str:
    """Return the source of a module beside this one, its imports written out, to be built."""
    from importlib import resources

    root = str(__package__).removesuffix("._engine.compiled")
    text = (resources.files(__package__) / f"{module}.py").read_text("utf-8")
    return text.replace("from ...", f"from {root}.")
