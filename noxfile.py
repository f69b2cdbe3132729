"""The project's tasks: ``nox -s demo``, ``nox -s tests``, ``nox -l`` for the rest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "tests_min", "lint", "types", "docs"]

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
DEMO = PROJECT["optional-dependencies"]["demo"]  # with these, the suite tests the demo too

# Each: what to install beside xpopt, and the variants that the suite runs in one go.
BACKENDS = {
    "numpy": (["ml_dtypes", *DEMO], ["numpy", "numpy-readonly"]),
    "numba": (["ml_dtypes", "numba"], ["numpy"]),
    "array-api-strict": (["array-api-strict", *DEMO], ["array-api-strict"]),
    # This exact release, for it comes as a CPU build; a plain torch pulls gigabytes of CUDA libraries.
    "torch": (["torch==2.13.0"], ["torch"]),
    "jax": (["jax"], ["jax", "jax-x64"]),
    "dask": (["dask[array]"], ["dask"]),
    # NVRTC compiles for a device where there is none.
    "cupy": (["cupy-cuda13x>=14", "nvidia-cuda-nvrtc==13.*", "ml_dtypes"], ["cupy"]),
}
# The engines that the suite runs on, one after the other; of itself, NumPy's session runs on the blocked one.
ENGINES = {"numba": ["eager", "compiled"]}


WORKERS = min(os.cpu_count() or 1, 4)  # processes that share a suite


def run_suite(session: nox.Session, *command: str) -> None:
    """Run the suite in parallel, and then, alone in their process, the tests that count what it holds."""
    command = (*command, *session.posargs)
    session.run(*command, "-n", str(WORKERS), "--dist=worksteal", "--ignore=tests/test_soak.py")
    if not any(arg.startswith("tests") for arg in session.posargs):
        session.run(*command, "tests/test_soak.py", success_codes=[0, 5])  # 5: none was chosen


def cuda_extra() -> str | None:
    """Name the extra whose CuPy fits this machine's CUDA driver; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    shown = subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"CUDA (?:UMD )?Version\s*:\s*(\d+)", shown)
    return f"cuda{min(int(version[1]), 13)}" if version and int(version[1]) >= 12 else None


@nox.session
def demo(session: nox.Session) -> None:
    """Train a network on handwritten digits with every optimizer; writes digits.png."""
    extras = ["demo", cuda_extra()]
    session.install("-e", f".[{','.join(filter(None, extras))}]")
    session.run("python", "docs/examples/train_digits.py", *session.posargs)


@nox.session
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
def tests(session: nox.Session, backend: str) -> None:
    """Run the whole suite on one array library."""
    packages, variants = BACKENDS[backend]
    extra = cuda_extra() if backend == "cupy" else None
    if extra:  # with the CUDA toolkit: a driver alone compiles no kernel
        session.install("-e", f".[test,checkpoint,{extra}]", "ml_dtypes")
    else:
        session.install("-e", ".[test,checkpoint]", *packages)
    for engine in ENGINES.get(backend, ["auto"]):
        chosen = [f"--engine={engine}", *(f"--backend={name}" for name in variants)]
        run_suite(session, "python", "-m", "pytest", *chosen)


@nox.session(python="3.11")
def tests_min(session: nox.Session) -> None:
    """Run the suite on the built wheel with the oldest Python and core dependencies, and nothing optional."""
    oldest = [line.replace(">=", "==") for line in PROJECT["dependencies"]]
    session.install(".[test]", *oldest)
    # `pytest`, not `python -m pytest`: the latter would import the source tree in place of the wheel.
    session.run("pytest", "--backend=numpy", "-n", str(WORKERS), "--ignore=tests/test_soak.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, import order, format, and the docstrings of the public API."""
    session.install(*PROJECT["optional-dependencies"]["lint"])
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    public = [str(path) for path in Path("xpopt").rglob("*.py") if not re.search(r"/_(?!_)", path.as_posix())]
    session.run("numpydoc", "lint", *sorted(public))


@nox.session
def types(session: nox.Session) -> None:
    """Check the annotations with mypy, strictly."""
    session.install("-e", ".[types]")
    session.run("mypy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, warnings as errors, and run the examples in it and in the docstrings."""
    session.install("-e", ".[docs,checkpoint]")
    shutil.rmtree("docs/api", ignore_errors=True)  # pages of names that are gone
    session.run("sphinx-build", "-q", "-W", "--keep-going", "-E", "docs", "docs/_build/html")
    examples = ["--doctest-modules", "--doctest-glob=*.md", "--ignore-glob=docs/*.py"]
    examples += ["--ignore=xpopt/_engine/fields.py", "--ignore=xpopt/_print/intrinsics.py"]  # they need Numba
    session.run("python", "-m", "pytest", *examples, "xpopt", "docs", "README.md")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure xpopt beside its peers and textbook NumPy (opt-in)."""
    session.install("-e", ".[cpu]", *BACKENDS["torch"][0], "jax", "optax", "thinc", "rich")
    session.run("python", "tests/benchmarks", *session.posargs)
