"""What has to hold on a GPU before its times mean anything: the test suite, the bits of NumPy, streams, no waiting."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from report import Begin, Section

import xpopt

ROOT = Path(__file__).parents[2]
CHECKS = ("suite", "bits", "streams", "waits")
HEADINGS = ["check", "found", "holds"]
YES, NO, UNKNOWN = "yes", "**no**", "?"

SHAPES = ((), (0,), (1,), (7, 5), (4097,), (3, 33_335))
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"clip_norm": 2.0},
    {"master": True},
    {"rounding": "stochastic", "seed": 7},
    {"nonfinite": "skip"},
)
NEEDS_CUPY = "nonfinite"  # the count of skipped steps is kept by CuPy's own kernels
WAYS = ("one by one", "new arrays", "in place")
STEPS = 4


class Walk:
    """A model on the card, and the same on the host, which NumPy updates eagerly."""

    def __init__(self, card: Any, opt: Any, arrays: dict[Any, Any], way: str = "in place") -> None:
        self._card, self._way = card, way
        self.opt, self._reference = opt, opt.copy()
        self.params = {name: card.array(x) for name, x in arrays.items()}
        self._want = arrays

    def step(self, grads: dict[Any, Any]) -> None:
        """Update both."""
        on = {name: self._card.array(x) for name, x in grads.items()}
        if self._way == "one by one":
            self.params = {name: self.opt.update(x, on[name], name) for name, x in self.params.items()}
            self.opt.step()
        else:
            out = self.params if self._way == "in place" else None
            self.params = self.opt.update_all(self.params, on, out=out)
        with xpopt.engine("eager"):
            self._want = self._reference.update_all(self._want, grads)

    def same(self) -> bool:
        """Whether parameters and state have the same bits."""
        from _kit.bits import same_bits

        params = {name: self._card.numpy(x) for name, x in self.params.items()}
        state = {name: self._entry(x) for name, x in self.opt.cache.items()}
        return same_bits(params, self._want) and same_bits(state, self._reference.cache)

    def _entry(self, entry: Any) -> Any:
        if isinstance(entry, dict):
            return {name: self._entry(x) for name, x in entry.items()}
        return self._card.numpy(entry) if hasattr(entry, "dtype") else entry


def why_no_tests(*needed: str) -> str | None:
    """Return what tests miss here, or None."""
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    return f"not run: {' and '.join(missing)} not installed" if missing else None


def suite() -> Iterator[list[str]]:
    """Yield the summary of the test suite on CuPy, in a process of its own; what it prints is shown as it comes."""
    if problem := why_no_tests("pytest", "hypothesis"):
        yield ["the test suite on CuPy", problem, UNKNOWN]
        return
    command = [sys.executable, "-m", "pytest", "--backend=cupy", "-q", "--color=no", "-p", "no:cacheprovider", "tests"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    last = "it printed nothing"
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            last = line.strip() or last
    yield ["the test suite on CuPy", last, _holds(running.returncode == 0)]


def bits(card: Any, quick: bool) -> Iterator[list[str]]:
    """Yield a row for each rule and dtype: with every option and in every way, beside NumPy."""
    if problem := why_no_tests("pytest"):
        yield ["the bits of every rule", problem, UNKNOWN]
        return
    from _kit.engines import MAKE

    dtypes = ["float16", "float32", "float64"]
    if problem := why_no_tests("ml_dtypes"):
        yield ["every rule, bfloat16", problem, UNKNOWN]
    else:
        dtypes.insert(1, "bfloat16")
    options = [x for x in OPTIONS if NEEDS_CUPY not in x or card.why_not("cupy") is None][: 2 if quick else None]
    for dtype in ["float16", "float32"] if quick else dtypes:
        for name in ["SGD-momentum"] if quick else MAKE:
            wrong = [
                f"{kwargs or 'plain'}, {way}"
                for kwargs in options
                for way in WAYS
                if not _walk(card, MAKE[name](**kwargs), dtype, way).same()
            ]
            card.release()
            good = f"NumPy's bits in {len(options)} x {len(WAYS)} walks"
            yield [f"{name}, {dtype}", "other bits: " + "; ".join(wrong) if wrong else good, _holds(not wrong)]


def _walk(card: Any, opt: Any, dtype: str, way: str) -> Walk:
    """Return a model of every shape after some steps."""
    from _kit.bits import cast, dyadic, normal

    rng, draw = np.random.default_rng(3), dyadic if opt.hyperparameters["clip_norm"] else normal
    first, *others = ({shape: cast(draw(rng, shape), dtype) for shape in SHAPES} for _ in range(1 + STEPS))
    walk = Walk(card, opt, first, way)
    for grads in others:
        walk.step(grads)
    return walk


def streams(card: Any) -> Iterator[list[str]]:
    """Yield whether two models that step in turns, each in a stream of its own, have NumPy's bits."""
    if problem := why_no_tests("pytest"):
        yield ["two streams at once", problem, UNKNOWN]
        return
    rng = np.random.default_rng(5)
    # so many tensors that their table travels through a buffer, and one to keep the device busy
    sizes = [*(k * 37 % 300 for k in range(700)), 200_000]
    walks = []
    for number in range(2):
        with card.stream(number):
            arrays = {k: rng.standard_normal(size, np.float32) for k, size in enumerate(sizes)}
            walks.append(Walk(card, xpopt.Adam(), arrays))
    for _ in range(8):
        grads = {k: rng.standard_normal(size, np.float32) for k, size in enumerate(sizes)}
        for number, walk in enumerate(walks):
            with card.stream(number):
                walk.step(grads)
    card.wait()
    wrong = [str(number) for number, walk in enumerate(walks) if not walk.same()]
    said = f"other bits in stream {' and '.join(wrong)}" if wrong else "NumPy's bits in both after 8 steps each"
    yield ["two streams at once", said, _holds(not wrong)]


def waits(card: Any) -> Iterator[list[str]]:
    """Yield a row for each kind of update: in how many of ten the host waited for a device kept busy before it."""
    ones = {count: {k: np.ones(1 + k % 300, np.float32) for k in range(count)} for count in (3, 700)}
    half = {k: x.astype(np.float16) for k, x in ones[3].items()}

    def whole(arrays: dict[int, Any], **kwargs: Any) -> Callable[[], object]:
        opt = xpopt.Adam(**kwargs)
        params, grads = ({k: card.array(x) for k, x in arrays.items()} for _ in range(2))
        return lambda: opt.update_all(params, grads, out=params)

    def single() -> Callable[[], object]:
        opt, x, grad = xpopt.Adam(), card.array(np.ones(1000)), card.array(np.ones(1000))
        return lambda: (opt.update(x, grad, "W"), opt.step())

    kinds = {
        "update": single(),
        "update_all of 3 parameters": whole(ones[3]),
        "update_all of 700 parameters": whole(ones[700]),
        "update_all, clipped": whole(ones[3], clip_norm=1.0),
        "update_all, rounded stochastically": whole(half, rounding="stochastic"),
    }
    if card.why_not("cupy") is None:
        kinds["update_all, nonfinite='skip'"] = whole(ones[3], nonfinite="skip")
    x = card.array(np.ones(3))
    told = _waited(card, lambda: card.numpy(x))
    yield ["a read of an array, which has to wait", f"waits in {told} of 10", _holds(told == 10)]
    for name, step in kinds.items():
        for _ in range(3):  # compiles, and makes what is kept
            step()
        waited = _waited(card, step)
        yield [name, f"waits in {waited} of 10", _holds(waited == 0)]


def _waited(card: Any, step: Callable[[], object]) -> int:
    count = 0
    for _ in range(10):
        card.wait()
        event = card.busy()
        step()
        count += event.done
    card.wait()
    return count


def _holds(good: bool) -> str:
    return YES if good else NO


TEXT = """\
Bits are compared with NumPy's, eagerly, for parameters of six sizes and for the state. To find out whether the host
waits, a kernel keeps the device busy for a while before an update; if it is done when the update returns, the host has
waited."""


def section(card: Any, only: Sequence[str], quick: bool, begin: Begin) -> Section:
    """Check what was chosen; a check that fails is told, and the others run."""
    found = Section("Correctness", TEXT, HEADINGS)
    parts: dict[str, Callable[[], Iterable[list[str]]]] = {
        "suite": suite,
        "bits": lambda: bits(card, quick),
        "streams": lambda: streams(card),
        "waits": lambda: waits(card),
    }
    for name in only:
        begin(name)
        try:
            found.rows += parts[name]()
        except Exception as error:
            traceback.print_exc()
            found.rows.append([name, f"{type(error).__name__}: {error}", NO])
    return found
