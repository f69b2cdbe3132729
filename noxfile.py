"""The project's tasks: ``nox -s demo``, ``nox -s tests``, ``nox -l`` for the rest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "tests_min", "soak", "distributed", "lint", "types", "docs"]

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
EXTRAS = PROJECT["optional-dependencies"]
DEMO = EXTRAS["demo"]  # with these, the suite tests the demo too

# Each: what to install beside xpopt, and the variants that the suite runs in one go.
BACKENDS = {
    "numpy": (["ml_dtypes", "autograd", "thinc", "array-api-strict", *DEMO], ["numpy", "numpy-readonly"]),
    "compiled": (["ml_dtypes", "llvmlite"], ["numpy"]),
    "array-api-strict": (["array-api-strict"], ["array-api-strict"]),
    # This exact release, for it comes as a CPU build; a plain torch pulls gigabytes of CUDA libraries.
    "torch": (["torch==2.13.0", "ml_dtypes", "llvmlite"], ["torch"]),
    "jax": (["jax", "optax"], ["jax", "jax-x64"]),
    "dask": (["dask[array]", "zarr>=3"], ["dask"]),
    # NVRTC compiles for a device where there is none.
    "cupy": (["cupy-cuda13x>=14", "nvidia-cuda-nvrtc==13.*", "ml_dtypes"], ["cupy"]),
}
# The engines that the suite runs on, one after the other; of itself, NumPy's session runs on the blocked one.
ENGINES = {"compiled": ["eager", "compiled"]}


# With MPI as a wheel, and its mpiexec. The torch of the tests, for it comes as a CPU build.
DISTRIBUTED = ["mpi4py", "mpich", *BACKENDS["torch"][0], *BACKENDS["jax"][0], "dask[array,distributed]", "zarr>=3"]

# Libraries that the guide names; numpy-ml needs SciPy and does not say so.
HOSTS = [*BACKENDS["torch"][0], *BACKENDS["jax"][0], *BACKENDS["numpy"][0], "dask[array]", "mpi4py", "mpich"]
HOSTS += ["keras>=3", "pennylane", "quimb", "numpy-ml", "scipy"]

# Seconds that each may take on two processors, installs apart; each says in the end what it took.
BUDGETS = {
    "tests(numpy)": 85,
    "tests(compiled)": 130,
    "tests(array-api-strict)": 20,
    "tests(torch)": 40,
    "tests(jax)": 130,
    "tests(dask)": 110,
    "tests(cupy)": 110,
    "tests_min": 60,
    "soak": 150,
    "distributed": 120,
    "distributed_full": 600,
    "hosts": 120,
    "mutants": 600,
    "lint": 10,
    "types": 30,
    "docs": 60,
}
PYTHONS = ("3.12", "3.13", "3.14", "3.14t")

SOAKED = ("array-api-strict", "torch", "jax")  # libraries that have a long run, alone in a process

# Rows and files that differ from others in no way that a version of NumPy could matter to: CUDA's source, which g++
# compiles; threads and processes, signals, failing allocations, bytes of files; text, and what long walks arrive at;
# combinations of options, each of which other files test.
ANY_NUMPY = ["backends/test_cuda_source", "backends/test_pool", "faults/test_interrupts", "faults/test_memory_errors"]
ANY_NUMPY += ["faults/test_threads", "files/test_hostile_files", "numbers/test_convergence", "numbers/test_schedulers"]
ANY_NUMPY += ["numbers/test_any_problem", "solvers/test_box", "solvers/test_methods", "test_public_names", "test_table"]
ANY_NUMPY += ["numbers/test_mutants", "numbers/test_pairwise", "state/test_scheduled", "text/test_machine"]
ANY_NUMPY += ["sharded/test_every_method", "testing/test_wrong_hosts", "testing/test_wrong_optimizers"]
ANY_NUMPY += [
    f"text/test_{name}" for name in ("capabilities", "config", "declarations", "hyperparameters", "registry", "text")
]
FEWER = ["-m", "not row_of_numpy", *(f"--ignore=tests/{name}.py" for name in ANY_NUMPY)]

# XLA's generator of code before the one of today: it compiles an operation in two thirds of the time.
QUICK_XLA = "--xla_cpu_use_fusion_emitters=false"

WORKERS = min(os.cpu_count() or 1, 4)  # processes that share a suite


@contextmanager
def budget(session: nox.Session) -> Iterator[None]:
    """Say how long what is inside took, of how many seconds; compiled code goes to one folder of this clone."""
    session.env.setdefault("XPOPT_CACHE_DIR", str(session.cache_dir.absolute() / "xpopt"))
    session.env["PYTHONDONTWRITEBYTECODE"] = ""  # else every process compiles the package and the tests again
    session.env["OPENBLAS_NUM_THREADS"] = "1"  # more would wait for one another: processes share the processors
    start = time.monotonic()
    try:
        yield
    finally:
        most = BUDGETS.get(session.name)
        session.log(f"{session.name} took {time.monotonic() - start:.0f} s" + (f" of {most} s" if most else ""))


def install(session: nox.Session, *requirements: str) -> None:
    """Install with pip, which compiles nothing: of all those modules a session imports a part."""
    session.install("--no-compile", *requirements)


def install_beside(session: nox.Session, extras: str, *requirements: str) -> None:
    """Install what the source tree needs, which runs where it is: to build it would take as long as all the rest."""
    of_extras = [line for extra in extras.split() for line in EXTRAS[extra]]
    install(session, *PROJECT["dependencies"], *of_extras, *requirements)
    session.env["PYTHONPATH"] = str(Path.cwd())


def run_suite(session: nox.Session, *command: str) -> None:
    """Run the suite in parallel, but for the tests that count what their process holds."""
    alone = ["--ignore=tests/test_soak.py", "--ignore=tests/distributed"]
    shared = ["-n", str(WORKERS), "--dist=worksteal", "--durations=10", *alone]
    session.run(*command, *shared, *session.posargs)


def takes_xla_flag(session: nox.Session, flag: str) -> bool:
    """Return whether XLA knows a flag: it ends a process at one that it does not know."""
    command = [str(Path(session.bin) / "python"), "-c", "import jax; jax.devices()"]
    return subprocess.run(command, env={**os.environ, "XLA_FLAGS": flag}, capture_output=True).returncode == 0


def cuda_extra() -> str | None:
    """Name the extra whose CuPy fits this machine's CUDA driver; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    shown = subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"CUDA (?:UMD )?Version\s*:\s*(\d+)", shown)
    return f"cuda{min(int(version[1]), 13)}" if version and int(version[1]) >= 12 else None


@nox.session
def demo(session: nox.Session) -> None:
    """Train a network on handwritten digits with four optimizers; writes digits.png."""
    extras = ["demo", cuda_extra()]
    install(session, "-e", f".[{','.join(filter(None, extras))}]")
    session.run("python", "docs/examples/train_digits.py", *session.posargs)


@nox.session
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
def tests(session: nox.Session, backend: str) -> None:
    """Run the whole suite on one array library."""
    packages, variants = BACKENDS[backend]
    extra = cuda_extra() if backend == "cupy" else None
    if extra:  # with the CUDA toolkit: a driver alone compiles no kernel
        packages = ["ml_dtypes", *EXTRAS[extra]]
    install_beside(session, "test checkpoint", *packages)
    if backend == "jax" and takes_xla_flag(session, QUICK_XLA):
        session.env["XLA_FLAGS"] = QUICK_XLA
    pytest = ["python", "-m", "pytest", *(f"--backend={name}" for name in variants)]
    with budget(session):
        for engine in ENGINES.get(backend, ["auto"]):
            run_suite(session, *pytest, f"--engine={engine}")
        if backend in SOAKED and not session.posargs:
            session.run(*pytest, "tests/test_soak.py")


@nox.session(python="3.11")
def tests_min(session: nox.Session) -> None:
    """Run the suite on the built wheel with the oldest Python and core dependencies, and nothing optional."""
    oldest = [line.replace(">=", "==") for line in PROJECT["dependencies"]]
    install(session, ".[test]", *oldest)
    with budget(session):  # `pytest`, not `python -m pytest`: that would import the source tree in place of the wheel
        run_suite(session, "pytest", "--backend=numpy", *FEWER)


@nox.session
def soak(session: nox.Session) -> None:
    """Make hundreds of thousands of steps on each engine, alone in a process: they leave nothing behind."""
    install_beside(session, "test cpu")
    with budget(session):
        variants = [f"--backend={name}" for name in BACKENDS["numpy"][1]]
        session.run("python", "-m", "pytest", *variants, "--durations=10", "tests/test_soak.py", *session.posargs)


def run_distributed(session: nox.Session, *options: str) -> None:
    """Run the tests that start processes of their own, which speak to each other on this machine alone."""
    install_beside(session, "test checkpoint", *DISTRIBUTED)
    with budget(session):
        session.run("python", "-m", "pytest", "--backend=numpy", "--durations=10", *options, *session.posargs)


@nox.session
def distributed(session: nox.Session) -> None:
    """Run what several processes do together: a short walk with each library."""
    run_distributed(session, "-m", "not long", "tests/distributed")


@nox.session
def distributed_full(session: nox.Session) -> None:
    """Run all of it: every dtype and option, processes that are killed, other numbers of processes (opt-in)."""
    run_distributed(session, "tests/distributed")


@nox.session
def hosts(session: nox.Session) -> None:
    """Run the samples of all pages, and the tests of some adapters, with every library that they name (opt-in)."""
    install_beside(session, "test checkpoint cpu", *HOSTS)
    adapters = [f"tests/adapters/test_{name}.py" for name in ("sklearn_adapter", "state_keras", "thinc_adapter")]
    variants = ["--backend=numpy", "--backend=torch"]
    with budget(session):
        session.run("python", "-m", "pytest", *variants, "tests/text/test_samples.py", *adapters, *session.posargs)


@nox.session(python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """Run the suite on NumPy with another Python (opt-in)."""
    install_beside(session, "test checkpoint", "ml_dtypes")
    with budget(session):
        run_suite(session, "python", "-m", "pytest", "--backend=numpy")


@nox.session
def coverage(session: nox.Session) -> None:
    """Say which lines of the package the suite on NumPy never runs, compiled and not (opt-in)."""
    install_beside(session, "test checkpoint cpu", "ml_dtypes", "pytest-cov")
    with budget(session):
        for more in ([], ["--engine=eager", "--cov-append"], ["--engine=compiled", "--cov-append"]):
            run_suite(session, "python", "-m", "pytest", "--backend=numpy", "--cov", "--cov-report=", *more)
    session.run("coverage", "report")


@nox.session
def mutants(session: nox.Session) -> None:
    """Make mistakes of one line each in the package, and see that tests refuse them (opt-in)."""
    install_beside(session, "test checkpoint cpu", "ml_dtypes")
    with budget(session):
        session.run("python", "tests/mutants", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, the docstrings of the public API, and which part of the package imports which."""
    install(session, *EXTRAS["lint"])
    public = [str(path) for path in Path("xpopt").rglob("*.py") if not re.search(r"/_(?!_)", path.as_posix())]
    with budget(session):
        session.run("ruff", "check", *session.posargs)
        session.run("ruff", "format", "--check")
        session.run("numpydoc", "lint", *sorted(public))
        session.run("lint-imports", "--no-cache")


@nox.session
def types(session: nox.Session) -> None:
    """Check the annotations with mypy, strictly, beside the oldest NumPy and the newest that this Python has."""
    install_beside(session, "types")
    for numpy in ("numpy==2.0.*", "numpy"):
        install(session, "--upgrade", numpy)
        with budget(session):
            session.run("mypy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, warnings as errors, and run the examples in it and in the docstrings."""
    install_beside(session, "docs checkpoint cpu")  # of what is printed, engines are a part
    shutil.rmtree("docs/api", ignore_errors=True)  # pages of names that are gone
    examples = ["--doctest-modules", "--doctest-glob=*.md", "--ignore-glob=docs/*.py", "--durations=10"]
    # the tests of these run their examples, where the libraries are
    examples += [f"--ignore=xpopt/adapters/{host}.py" for host in ("torch", "optax", "sklearn", "thinc")]
    examples += [f"--ignore=xpopt/sharded/{host}.py" for host in ("_mpi", "_torch", "_mesh")]
    with budget(session):
        session.run("sphinx-build", "-q", "-W", "--keep-going", "-E", "-j", str(WORKERS), "docs", "docs/_build/html")
        session.run("python", "-m", "pytest", *examples, "xpopt", "docs", "README.md")
    session.log(f"the first page: {Path('docs/_build/html/index.html').resolve().as_uri()}")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure xpopt beside its peers and textbook NumPy (opt-in)."""
    peers = ["numba", *BACKENDS["torch"][0], "jax", "optax", "thinc", "rich", "mpi4py", "mpich"]
    install(session, "-e", ".[cpu]", *peers)
    session.run("python", "tests/benchmarks", *session.posargs)
