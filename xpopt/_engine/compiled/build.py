"""LLVM's assembly made machine code by llvmlite."""

from __future__ import annotations

import functools
import os
import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

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
    """Let a fork wait for a compilation: a child would find llvmlite's lock held, by a thread that it does not have.

    To be called when llvmlite has been imported. What was registered last is called first.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lambda: _lock.acquire(), after_in_parent=_let_go)


@functools.cache
def why_not_here() -> str | None:
    """Return why there is no compiler, or None if there may be one. Imports nothing."""
    from importlib.util import find_spec

    if sys.maxsize < 2**63 - 1:
        return "this Python is a 32-bit build"
    with suppress(Exception):  # of a finder, which the import says
        if find_spec("llvmlite") is None:
            return "llvmlite is not installed (pip install 'xpopt[cpu]')"
    return None


@functools.cache
def why_no_compiler() -> str | None:
    """Return why nothing can be compiled, or None if it can. Imports llvmlite."""
    if (reason := why_not_here()) is not None:
        return reason
    try:
        from llvmlite import __version__, binding
    except Exception as error:  # such as a library that is not there
        return f"llvmlite's import fails: {error}"
    if getattr(binding, "llvm_version_info", (0,)) < (16,):  # which reads other assembly
        return f"llvmlite {__version__} is too old; wanted 0.45 or newer (pip install 'xpopt[cpu]')"
    return None


@functools.cache
def why_no_float16() -> str | None:
    """Return why float16 cannot be converted in machine code, or None if it can."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    from llvmlite import binding

    return None if binding.get_host_cpu_features().get("f16c") else "this processor has no float16 conversions"


class NotOnDiskError(Exception):
    """What is wanted from the disk alone is not there."""


_from_disk: ContextVar[bool] = ContextVar("xpopt_from_disk", default=False)


@contextmanager
def from_disk() -> Iterator[None]:
    """Compile nothing in this context: what is not on disk is a `NotOnDiskError`."""
    token = _from_disk.set(True)
    try:
        yield
    finally:
        _from_disk.reset(token)


def build(source: str, name: str, prototype: Any) -> Any:
    """Compile a function, or load what an earlier process compiled.

    Parameters
    ----------
    source : str
        A module in LLVM's assembly with the function.
    name : str
        The function.
    prototype : ctypes function type
        Its types, and whether it runs without the interpreter's lock.

    Returns
    -------
    ctypes function
        The function. Its attribute `loaded` says whether it came from the disk.

    Raises
    ------
    NotOnDiskError
        It is not on disk, in the context of `from_disk`.
    """
    from .code_files import cache_dir, read, write  # here, for only what is compiled needs files

    _let_forks_wait()
    with _lock:
        folder, key = cache_dir(), _digest(source)
        path = None if folder is None else folder / f"xpopt_{key}.bin"
        header = f"xpopt {key}\n".encode()
        data = None if path is None else read(path)
        loaded = data is not None and data.startswith(header)  # the linker believes what it is given
        if not loaded and _from_disk.get():
            raise NotOnDiskError
        code = data[len(header) :] if data is not None and loaded else _compiled(source)
        if path is not None and not loaded:
            with suppress(Exception):  # such as a full disk: the next process compiles too
                write(path, header + code)
        return _linked(code, name, prototype, loaded=loaded)


def _digest(source: str) -> str:
    """Return a text that is another one where the machine code may be."""
    import hashlib

    import llvmlite
    from llvmlite import binding

    depends_on = source, llvmlite.__version__, binding.llvm_version_info, sys.byteorder, *_processor()
    return hashlib.sha256(repr(depends_on).encode()).hexdigest()[:32]


@functools.cache
def _processor() -> tuple[str, str, str]:
    """Return the kind of machine, the processor and its features, as LLVM calls them."""
    from llvmlite import binding

    triple = binding.get_process_triple()
    if sys.platform == "win32":
        triple += "-elf"  # the only objects that can be linked in memory there
    return triple, binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()


def _machine() -> Any:
    """Return what makes machine code for this processor; each engine takes one over."""
    from llvmlite import binding

    _start_llvm()
    triple, cpu, features = _processor()
    target = binding.Target.from_triple(triple)
    return target.create_target_machine(cpu=cpu, features=features, opt=3, reloc="pic", codemodel="jitdefault")


@functools.cache
def _start_llvm() -> None:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()


def _compiled(source: str) -> bytes:
    """Return a module as an object file in memory."""
    from llvmlite import binding

    machine = _machine()
    module = binding.parse_assembly(source)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = True
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    code: bytes = machine.emit_object(module)
    return code


def _linked(code: bytes, name: str, prototype: Any, *, loaded: bool) -> Any:
    """Return a function of an object file."""
    from llvmlite import binding

    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _machine())
    engine.add_object_file(binding.object_file.ObjectFileRef.from_data(code))
    engine.finalize_object()
    function = prototype(engine.get_function_address(name))
    function.engine = engine  # whose memory it is
    function.loaded = loaded
    return function
