"""One parameter: `update` beside the textbook expression, both returning new arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import textbook
from measuring import Array, Race, Side, Stopwatch, spread
from peers import Compiled
from report import Begin, Goal, Section, at_least, at_most, marked

import xpopt

CASES: dict[str, tuple[Callable[[], xpopt.OptimizerBase], Callable[[Array], textbook.Step]]] = {
    "Adam": (xpopt.Adam, textbook.adam),
    "SGD with momentum": (partial(xpopt.SGD, momentum=0.9), textbook.sgd),
    "AdaGrad": (xpopt.AdaGrad, textbook.adagrad),
    "RMSProp": (xpopt.RMSProp, textbook.rmsprop),
}

SIZES = [10**n for n in range(1, 8)]
ENGINES = ("blocked", "compiled")
NAMES, EACH = 200, 1000  # of the loop

TITLE = "One parameter"

TEXT = """\
One `update` beside the textbook NumPy expression for the same step, which allocates its temporaries just as a program
without an optimizer library would. Both return a new parameter. For Adam the expression is

```python
m = b1 * m + (1 - b1) * g
v = b2 * v + (1 - b2) * g**2
p = p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
```

"In a loop" is an update of each of so many parameters by name, and one `step()`; the figures are for one of them."""


def section(sizes: list[int], timed: Stopwatch, begin: Begin) -> Section:
    """Measure every optimizer on every size."""
    engines = [name for name in ENGINES if name != "compiled" or Compiled.why_not() is None]
    found = Section(TITLE, TEXT, ["optimizer", "elements", "textbook, us"])
    found.headings += [f"{name}{what}" for name in engines for what in (", us", ", difference")]
    adam: dict[int, Race] = {}
    for name, (make, formula) in CASES.items():
        for size in sizes:
            begin(f"{name}, {size:,}")
            result = timed(list(_sides(make, formula, size, 1, engines)), 0.03)
            found.rows.append([marked(name, result), f"{size:,}", *_cells(result, engines, 1)])
            if name == "Adam":
                adam[size] = result
    begin(f"Adam, {NAMES} x {EACH:,} in a loop")
    loop = timed(list(_sides(*CASES["Adam"], EACH, NAMES, engines)), 0.03)
    found.rows.insert(
        len(sizes), [marked("Adam", loop), f"{NAMES} x {EACH:,} in a loop", *_cells(loop, engines, NAMES)]
    )
    for k, engine in enumerate(engines, 1):
        found.goals += _goals(f"`update`, {engine}", adam, loop, k)
    return found


def _sides(
    make: Callable[[], xpopt.OptimizerBase],
    formula: Callable[[Array], textbook.Step],
    size: int,
    names: int,
    engines: list[str],
) -> Iterator[Side]:
    """Yield the textbook's side and one of each engine, which must compute the same."""
    rng = np.random.default_rng(size)
    start = list(rng.standard_normal((names, size), np.float32))
    grads = [list(rng.standard_normal((names, size), np.float32)) for _ in range(2)]
    steps = [formula(p) for p in start]
    now = grads[0]
    last: list[Array] = []

    def feed(number: int) -> None:
        nonlocal now
        now = grads[number % 2]

    def by_textbook() -> None:
        last[:] = [step(g) for step, g in zip(steps, now, strict=True)]

    def by_xpopt(opt: xpopt.OptimizerBase, params: list[Array]) -> None:
        for k, (p, g) in enumerate(zip(params, now, strict=True)):
            params[k] = opt.update(p, g, k)
        opt.step()

    ours = [(partial(by_xpopt, make(), params := list(start)), params, engine) for engine in engines]
    for number in range(3):
        feed(number)
        by_textbook()
        for step, params, engine in ours:
            with xpopt.engine(engine):
                step()
            if number == 2:
                np.testing.assert_allclose(params, last, rtol=1e-5, atol=1e-6)
    yield Side(by_textbook, feed)
    for step, _, engine in ours:
        yield Side(step, feed, partial(xpopt.engine, engine))


def _cells(result: Race, engines: list[str], names: int) -> list[str]:
    scale = 1e6 / names
    cells = [_us(scale * result.seconds[:, 0])]
    for k, _ in enumerate(engines, 1):
        more = scale * result.more(k, 0)
        cells += [_us(scale * result.seconds[:, k]), _us(more, "+")]
    return cells


def _us(values: Array, sign: str = "") -> str:
    return spread(values, 2 if abs(np.median(values)) < 100 else 0, sign)


def _goals(what: str, adam: dict[int, Race], loop: Race, k: int) -> Iterator[Goal]:
    """Yield the goals of one engine: for the small sizes and for the others, of each the worst."""
    small = [size for size in adam if size < 10**4]
    large = [size for size in adam if size >= 10**4]
    if small:
        worst = max(small, key=lambda size: float(np.median(adam[size].more(k, 0))))
        name = f"{what}, up to {max(small):,} elements, worst at {worst:,}"
        yield at_most(marked(name, adam[worst]), 5, 1e6 * adam[worst].more(k, 0), "us more")
    if large:
        worst = min(large, key=lambda size: float(np.median(adam[size].gain(k, 0))))
        name = f"{what}, from {min(large):,} elements, worst at {worst:,}"
        yield at_least(marked(name, adam[worst]), 1, adam[worst].gain(k, 0), "textbook NumPy")
    name = f"{what}, {NAMES} x {EACH:,} in a loop"
    yield at_most(marked(name, loop), 5, 1e6 / NAMES * loop.more(k, 0), "us more each")
