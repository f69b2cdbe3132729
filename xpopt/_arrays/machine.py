"""What this machine can do: which namespaces are usable, why others are not, and the one to use by default."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from typing import Any

from .._settings.text import short
from .typing import Namespace

BACKENDS = ("numpy", "cupy")
"""What ``XPOPT_BACKEND`` may say."""

_DISTRIBUTIONS = {
    "numpy": ("numpy",),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
    "torch": ("torch",),
    "jax": ("jax",),
    "dask.array": ("dask",),
    "array_api_strict": ("array-api-strict",),
}


def default_namespace() -> Namespace:
    """Return CuPy if a CUDA device is usable, else NumPy, so that a program written for the GPU runs anywhere.

    The environment variable ``XPOPT_BACKEND``, ``numpy`` or ``cupy``, chooses instead.

    Returns
    -------
    module
        ``array_api_compat.cupy`` or ``array_api_compat.numpy``.

    Raises
    ------
    ValueError
        ``XPOPT_BACKEND`` names something else.
    RuntimeError
        It asks for CuPy, and CuPy is not usable; the message says why.

    Examples
    --------
    >>> xp = default_namespace()
    >>> xp.ones(3).shape
    (3,)
    """
    choice = os.environ.get("XPOPT_BACKEND", "")
    if choice not in ("", *BACKENDS):
        raise ValueError(
            f"XPOPT_BACKEND={short(choice)}; wanted one of {', '.join(BACKENDS)}, or unset to choose by itself"
        )
    if choice != "numpy":
        problem = why_not("cupy")
        if problem is None:
            return importlib.import_module("array_api_compat.cupy")
        if choice == "cupy":
            raise RuntimeError(f"XPOPT_BACKEND=cupy, and CuPy is not usable: {problem}. Unset it to run on NumPy")
    return importlib.import_module("array_api_compat.numpy")


def why_not(namespace: str) -> str | None:
    """Return why a namespace cannot be used here, or None if it can. Imports it.

    Parameters
    ----------
    namespace : str
        The name of its module.

    Returns
    -------
    str or None
        The reason and the way out.
    """
    try:
        module = importlib.import_module(namespace)
    except ModuleNotFoundError as error:
        if error.name == namespace.partition(".")[0]:
            return "not installed"
        return f"installed, but needs {error.name}"
    except Exception as error:  # CuPy's import writes to its cache folder, so that even an OSError may come
        return f"installed, but its import fails: {_first_line(error)}"
    return _why_no_cuda(module) if namespace == "cupy" else None


def _why_no_cuda(cupy: Any) -> str | None:
    try:
        if cupy.cuda.runtime.getDeviceCount() == 0:
            return "installed, but there is no CUDA device"
    except Exception as error:
        text = _first_line(error)
        reason = "there is no CUDA device" if "NoDevice" in text else "there is no usable CUDA driver"
        return f"installed, but {reason} ({text})"
    try:
        (cupy.ones(1) + 1).get()
    except Exception as error:
        return (
            f"installed, but it cannot compile for the device (pip install 'cupy-cuda13x[ctk]'): {_first_line(error)}"
        )
    return None


def report() -> str:
    """Return what this machine can do, as text for people: namespaces, versions, devices with memory."""
    from .. import __version__

    lines = [
        f"xpopt {__version__} on Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        "",
        f"{'namespace':<18}{'version':<16}state",
    ]
    for namespace, distributions in _DISTRIBUTIONS.items():
        problem = why_not(namespace)
        lines.append(f"{namespace:<18}{_version(distributions):<16}{problem or 'usable'}")
    lines += ["", "devices", *(f"  {line}" for line in _devices()), ""]
    chosen = os.environ.get("XPOPT_BACKEND") or "unset"
    try:
        lines.append(f"default_namespace() is {default_namespace().__name__} (XPOPT_BACKEND is {chosen})")
    except (RuntimeError, ValueError) as error:
        lines.append(f"default_namespace() fails: {error}")
    return "\n".join(lines)


def _devices() -> Iterator[str]:
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB of memory"
    yield f"CPU: {os.cpu_count()} cores{memory}"
    yield f"  {_threads()}"
    if why_not("cupy") is None:
        runtime = importlib.import_module("cupy").cuda.runtime
        here = runtime.getDevice()
        try:
            for number in range(runtime.getDeviceCount()):
                runtime.setDevice(number)
                free, total = runtime.memGetInfo()
                name = runtime.getDeviceProperties(number)["name"].decode()
                yield f"CUDA {number}: {name}, {total / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB free"
        finally:
            runtime.setDevice(here)


def _threads() -> str:
    from .._engine import cpus, pool

    settings = ", ".join(f"{name} is {os.environ.get(name) or 'unset'}" for name in ("XPOPT_NUM_THREADS", *cpus.SHARED))
    try:
        return f"threads for a large update: {pool.threads()} ({settings})"
    except ValueError as error:
        return f"threads for a large update: none can work, {error}"


def _version(distributions: tuple[str, ...]) -> str:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "-"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
