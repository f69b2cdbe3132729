"""Run the suite on copies of the project: as it is, and with one line changed."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from listing import Mutant
from places import Place, changed

ROOT = Path(__file__).parents[2]

LEFT_OUT = re.compile(
    r"test_(demo|soak|mutants|gpu_benchmark|cuda_\w+|torch\w*|jax|dask|array_api_strict|convergence)\.py"
)
"""Files of tests that take long, or are about formulas, CUDA or other libraries."""

NEAR = {
    "_checkpoint|stored": "checkpoint|state_dict|hostile|resume",
    "_engine|group|model|pool|kernel": "backends/|update_all|transactions",
    "interrupt|once": "interrupts|transactions|threads|memory_errors",
    "finite|exclusive|skipped": "nonfinite|transactions|threads",
    "master|draws|rounding": "master|rounding|low_precision",
    "clock|loss|sched": "schedulers|passes|counts|set_params",
    "norm|clip|products|limits": "clipping|global_norm|products",
    "tree|whole|names": "update_all|names",
    "_arrays": "backends/test_numpy|update_all|transactions|pointers|errors",
    "_state|_step": "cache|set_params|hyperparameters|copies|counts|kept|transactions|update_all",
    "_settings": "hyperparameters|errors|config|text",
    "machine|cpus": "machine|pool",
    "rule": "own_optimizers|impure",
}
"""Words in a module's path, and in those of the tests that are likely to see a mistake in it."""

LEAST = 60.0
"""Seconds without a word from the tests that they always may take."""

MEMORY = 8 << 30
"""Bytes that the tests may hold: a mistake may ask for memory without end."""

NO_ANSWER = ": no answer"
"""After the name of a test that took too long."""

ANSWER = re.compile(r"^(tests/.+) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b")


@dataclass
class Outcome:
    """What a run of tests has said.

    Parameters
    ----------
    failed : list of str
        The tests that failed, or what else was wrong.
    seconds : dict of str to float
        What each test took.
    """

    failed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class Copy:
    """A copy of the project, in which the tests of one mutant after the other run.

    Parameters
    ----------
    folder : Path
        Where it goes.
    compiled : Path
        The folder of what is compiled for the clean package, which all copies start with.
    """

    def __init__(self, folder: Path, compiled: Path) -> None:
        self.folder = folder
        self.compiled = compiled
        self.outcome = Outcome()  # of the last run, or the one under way
        self._written = 0
        folder.mkdir()
        (folder / "cache").mkdir(mode=0o700)
        hidden = shutil.ignore_patterns(".*", "__pycache__", "_build", "*.egg-info")
        shutil.copytree(ROOT, folder / "clone", ignore=hidden)

    @contextmanager
    def changed(self, mutant: Mutant, place: Place) -> Iterator[None]:
        """Have the mistake inside the context."""
        path = self.folder / "clone" / place.path
        source = path.read_text(encoding="utf-8")
        shutil.rmtree(self.folder / "cache")
        shutil.copytree(self.compiled, self.folder / "cache")
        self._write(path, changed(source, place.number, mutant.becomes))
        try:
            yield
        finally:
            self._write(path, source)

    def _write(self, path: Path, source: str) -> None:
        """Write a file with a time of its own, so that nothing compiled before is taken for it."""
        path.write_text(source, encoding="utf-8")
        self._written += 1
        os.utime(path, (self._written, self._written))

    async def run(self, tests: Sequence[str], limit: float, *options: str) -> Outcome:
        """Run tests.

        Parameters
        ----------
        tests : sequence of str
            Files, or single tests.
        limit : float
            Seconds without an answer after which they have failed.
        *options : str
            Of pytest.

        Returns
        -------
        Outcome
            A process that ends otherwise than by having passed has failed.
        """
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        (self.folder / "tmp").mkdir()
        clone = str(self.folder / "clone")
        environment = {
            **os.environ,
            "PYTHONPATH": clone,
            "XPOPT_CACHE_DIR": str(self.folder / "cache"),
            "TMPDIR": str(self.folder / "tmp"),
            "COLUMNS": "300",
        }
        fixed = ["-v", "--tb=no", "-p", "no:cacheprovider", "-k", "not processes_fork", "--backend=numpy"]
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "pytest", *fixed, *options, *tests],
            cwd=clone,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with suppress(ProcessLookupError):
                resource.prlimit(process.pid, resource.RLIMIT_DATA, (MEMORY, MEMORY))
            self.outcome = Outcome()
            await _listen(process, limit, self.outcome)
            return self.outcome
        finally:
            with suppress(ProcessLookupError):  # with whatever it has started
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _listen(process: asyncio.subprocess.Process, limit: float, outcome: Outcome) -> None:
    rest, since = "", time.monotonic()
    assert process.stdout is not None
    while True:
        try:
            read = await asyncio.wait_for(process.stdout.read(1 << 16), limit)
        except TimeoutError:
            outcome.failed.append((rest.strip() or "no test") + f"{NO_ANSWER} for {limit:.0f} s")
            return
        if not read:
            break
        *lines, rest = (rest + read.decode(errors="replace")).split("\n")
        for line in lines:
            if answer := ANSWER.match(line):
                test, said = answer.groups()
                now = time.monotonic()
                outcome.seconds[test] = outcome.seconds.get(test, 0.0) + now - since
                since = now
                if said in ("FAILED", "ERROR"):
                    outcome.failed.append(test)
    code = await process.wait()
    if code not in (0, 5) and not outcome.failed:  # 5: no test was chosen
        outcome.failed.append(f"no test: pytest ends with {code}")


class Suite:
    """The tests of the clean package, and the order in which they look for a mistake.

    Parameters
    ----------
    seconds : dict of str to float
        What each test took.
    """

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._files: dict[str, float] = {}
        for test, taken in seconds.items():
            file = test.partition("::")[0]
            self._files[file] = self._files.get(file, 0.0) + taken
        self._limit = max(LEAST, 10 * max(seconds.values()))

    def __str__(self) -> str:
        slowest = sorted(self._files, key=self._files.__getitem__)[-5:]
        shown = ", ".join(f"{file} {self._files[file]:.0f} s" for file in reversed(slowest))
        return f"{len(self._seconds)} tests pass; the longest: {shown}"

    def stages(self, mutant: Mutant, place: Place) -> Iterator[tuple[list[str], float]]:
        """Yield tests, and the limit for each: the one that has seen it, the files that are near, all others."""
        by = (mutant.by or "").partition(NO_ANSWER)[0]
        if by in self._seconds:
            yield [by], max(LEAST, 10 * self._seconds[by])
        words = [tests for modules, tests in NEAR.items() if re.search(modules, place.path.as_posix())]
        files = sorted(self._files, key=self._files.__getitem__)
        near = [file for file in files if words and re.search("|".join(words), file)]
        for stage in (near, [file for file in files if file not in near]):
            if stage:
                yield stage, self._limit


def test_files() -> list[str]:
    """Return the files of tests that are run, the largest first."""
    paths = [path for path in (ROOT / "tests").rglob("test_*.py") if not LEFT_OUT.fullmatch(path.name)]
    paths.sort(key=lambda path: path.stat().st_size, reverse=True)
    return [path.relative_to(ROOT).as_posix() for path in paths]


async def run_clean(copies: list[Copy]) -> Suite:
    """Run all tests on the package as it is; exit if one fails."""
    files = test_files()
    parts = [sorted(files[i :: len(copies)]) for i in range(len(copies))]
    saying = asyncio.create_task(_say_how_far(copies))
    outcomes = await asyncio.gather(*(copy.run(part, 900.0) for copy, part in zip(copies, parts, strict=True)))
    saying.cancel()
    if failed := [test for outcome in outcomes for test in outcome.failed]:
        raise SystemExit("The tests must pass before they can tell a mistake; these fail:\n" + "\n".join(failed))
    for copy in copies:  # each is named by what it depends on
        shutil.copytree(copy.folder / "cache", copy.compiled, dirs_exist_ok=True)
    return Suite({test: taken for outcome in outcomes for test, taken in outcome.seconds.items()})


async def _say_how_far(copies: list[Copy]) -> None:
    while True:
        await asyncio.sleep(20)
        print(f"  {sum(len(copy.outcome.seconds) for copy in copies)} tests so far", flush=True)


async def refuse(copy: Copy, suite: Suite, mutant: Mutant, place: Place) -> str | None:
    """Return the test that fails with a mutant; None if all pass."""
    with copy.changed(mutant, place):
        for tests, limit in suite.stages(mutant, place):
            outcome = await copy.run(tests, limit, "-x")
            if outcome.failed:
                return outcome.failed[0]
    return None
