"""NVIDIA's compiler by itself: it needs neither a device nor a driver."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest


def _library() -> Any:
    pathfinder = pytest.importorskip("cuda.pathfinder", reason="cuda-pathfinder, which comes with CuPy, is missing")
    try:
        return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("nvrtc").abs_path)
    except pathfinder.DynamicLibNotFoundError:
        return pytest.skip("NVRTC is missing: install nvidia-cuda-nvrtc")


def _check(library: Any, status: int, log: str = "") -> None:
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    assert status == 0, f"{library.nvrtcGetErrorString(status).decode()}\n{log}"


def _text(library: Any, what: str, program: Any) -> str:
    size = ctypes.c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.value.decode(errors="replace")


def ptx(source: str, options: tuple[str, ...], arch: str) -> str:
    """Compile a source to the end for a device, and return the PTX on the way there; skips without NVRTC."""
    library, program = _library(), ctypes.c_void_p()
    _check(library, library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"update.cu", 0, None, None))
    flags = [option.encode() for option in (*options, "--std=c++17", f"-arch={arch}")]
    status = library.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*flags))
    _check(library, status, _text(library, "ProgramLog", program))
    text = _text(library, "PTX", program)
    _check(library, library.nvrtcDestroyProgram(ctypes.byref(program)))
    return text
