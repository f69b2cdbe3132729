"""``python -m xpopt`` prints what this machine can do."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator

from ._arrays.machine import default_namespace, why_not
from ._engine import cpus, pool
from ._engine.compiled.break_even import WORTH
from ._engine.compiled.build import why_no_compiler
from ._engine.compiled.code_files import cache_dir
from ._version import __version__

_DISTRIBUTIONS = {
    "numpy": ("numpy",),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
    "torch": ("torch",),
    "jax": ("jax",),
    "dask.array": ("dask",),
    "array_api_strict": ("array-api-strict",),
}

_EXTRAS = {
    "llvmlite": ("compiles updates for the CPU", "cpu"),
    "safetensors": ("opt.save, xpopt.load_optimizer", "checkpoint"),
    "ml_dtypes": ("bfloat16 in NumPy arrays", None),
}
"""By package, what it is for, and the extra of xpopt that has it."""


def report() -> str:
    """Return what this machine can do, as text for people: namespaces, versions, engines, devices with memory."""
    lines = [
        f"xpopt {__version__} on Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        "",
        f"{'namespace':<18}{'version':<16}state",
    ]
    for namespace, distributions in _DISTRIBUTIONS.items():
        problem = why_not(namespace)
        lines.append(f"{namespace:<18}{_version(distributions):<16}{problem or 'usable'}")
    lines += ["", f"{'extra':<18}{'version':<16}for"]
    for package, (purpose, extra) in _EXTRAS.items():
        lines.append(f"{package:<18}{_version((package,)):<16}{purpose}{_problem(package, extra)}")
    lines += ["", "NumPy arrays", *(f"  {line}" for line in _engine_of_numpy())]
    lines += ["", "devices", *(f"  {line}" for line in _devices()), ""]
    chosen = os.environ.get("XPOPT_BACKEND") or "unset"
    try:
        lines.append(f"default_namespace() is {default_namespace().__name__} (XPOPT_BACKEND is {chosen})")
    except (RuntimeError, ValueError) as error:
        lines.append(f"default_namespace() fails: {error}")
    return "\n".join(lines)


def _problem(package: str, extra: str | None) -> str:
    problem = why_not(package)
    if problem is None:
        return ""
    way_out = f" (pip install '{f'xpopt[{extra}]' if extra else package}')" if problem == "not installed" else ""
    return f": {problem}{way_out}"


def _engine_of_numpy() -> Iterator[str]:
    problem = why_no_compiler()
    if problem is not None:
        yield "engine: blocked"
        return
    folder = cache_dir()
    kept = folder or "nowhere: there is no private folder to write to; XPOPT_CACHE_DIR may name one"
    yield f"engine: compiled where a step has {WORTH} elements, or after many smaller ones, else blocked"
    yield f"compiled code is kept in {kept}"


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


if __name__ == "__main__":
    print(report())
