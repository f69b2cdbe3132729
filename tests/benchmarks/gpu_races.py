"""Steps on a GPU: xpopt's CUDA engine beside torch, beside CuPy's own kernels, and beside a copy of as many bytes.

A step is timed twice: until the device is done, and until the call returns while the device may still be at work. In
front of both the device is idle, and the gradients are handed over.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np
import single
import whole
from gpu_peers import PEERS, Copy, CopyOfOne, Cuda, Model, OnCard, TextbookCuPy, traffic
from measuring import Array, Race, Side, spread
from peers import Peer
from report import Begin, Section, marked
from works import M, Work

from xpopt._engine import pool

LARGEST = Work("1 x 1G", ((1000 * M,),), 1.0)
COUNTS = (1, 20, 200, 3000)
SIZES = [10**n for n in range(1, 9)]
FAILED = "failed:"
RETURNS = 0.005  # seconds of calls in a block where the device may be behind


def rehearse(sides: Sequence[Side], block_seconds: float = 0.1, share: float = 1.0) -> Race:
    """Do all that a `Stopwatch` does but look at the clock."""
    for side in sides:
        with side.around():
            for number in range(2):
                side.feed(number)
                side.step()
    return Race(np.ones((3, len(sides))), 0)


def beside(card: Any, work: Work, kinds: Sequence[type[Any]], timed: Any) -> tuple[Race, Race] | str:
    """Race peers until the device is done, and until the call returns; or say why not."""
    for kind in kinds:
        if problem := kind.why_not() or card.why_not(kind.runs):
            return str(problem)
    try:
        model = Model(card, work.shapes, work.clip_norm)
        peers = [kind(model, pool.threads()) for kind in kinds]
        done = timed([_until_done(peer, card) for peer in peers], 0.1)
        return done, timed([_until_returned(peer, card) for peer in peers], RETURNS)
    except Exception as error:
        if "out of memory" in str(error).lower():
            return "not enough memory"
        traceback.print_exc()
        return f"{FAILED} {type(error).__name__}: {error}"


def failed(row: Sequence[str]) -> bool:
    """Whether a row says that something failed."""
    return any(cell.startswith(FAILED) for cell in row)


def count(works: Sequence[Work], sizes: Sequence[int], only: Sequence[str]) -> int:
    """Return how many things are measured."""
    parts = {
        "models": sum(len(_kinds(work)) for work in works),
        "optimizers": len(whole.OPTIMIZERS),
        "update": len(single.CASES) * len(sizes),
        "host": len(COUNTS),
        "memory": 2,
    }
    return sum(number for name, number in parts.items() if name in only)


def _kinds(work: Work) -> list[type[OnCard]]:
    return [kind for kind in PEERS if work.clip_norm is None or kind.clips]


def _until_done(peer: Peer, card: Any) -> Side:
    def step() -> None:
        peer.step()
        card.wait()

    return Side(step, _fed(peer, card), peer.around)


def _until_returned(peer: Peer, card: Any) -> Side:
    return Side(peer.step, _fed(peer, card), peer.around)


def _fed(peer: Peer, card: Any) -> Any:
    def feed(number: int) -> None:
        peer.feed(number)
        card.wait()

    return feed


def check(card: Any) -> None:
    """Raise unless all compute the same."""
    model = Model(card, ((50, 7), (1000,), (1,)))
    wanted: list[Array] = []
    for kind in (Cuda, *PEERS):
        if kind is Copy or kind.why_not() or card.why_not(kind.runs):
            continue
        peer = kind(model, pool.threads())
        with peer.around():
            for number in range(4):
                peer.feed(number)
                peer.step()
        card.wait()
        wanted = wanted or peer.params()
        for got, x in zip(peer.params(), wanted, strict=True):
            np.testing.assert_allclose(got, x, rtol=kind.tolerance, atol=kind.tolerance / 10, err_msg=kind.name)


MODELS = """\
One step of Adam, in place, on a whole model. "Done" is until the device has finished, "returns" until the call is back
and the host can go on. The copy, on the device, reads and writes together as many bytes as an update has to. The last
columns are how many times as fast xpopt is, as the median of neighbouring blocks, and what it moves in a second."""


def models(card: Any, works: Sequence[Work], timed: Any, begin: Begin) -> Section:
    """Measure every library on every work, once it is known that all compute the same."""
    check(card)
    found = Section("Whole models", MODELS, ["model", "by", "done, ms", "returns, us", "xpopt is faster by", "GB/s"])
    for work in works:
        for kind in _kinds(work):
            begin(f"{work.name}, {kind.name}")
            result = beside(card, work, (Cuda, kind), timed)
            card.release()
            if isinstance(result, str):
                found.rows.append([work.name, kind.name, result, "", "", ""])
                continue
            done, returned = result
            rates = traffic(work.size, 2) / done.seconds / 1e9
            for k, name in enumerate((f"{Cuda.name}, beside it", marked(kind.name, done))):
                gain = spread(done.gain(0, 1), 2) if k else ""
                cells = [_ms(done.seconds[:, k]), _us(returned.seconds[:, k]), gain, spread(rates[:, k], 0)]
                found.rows.append([work.name, name, *cells])
    return found


def optimizers(card: Any, size: int, timed: Any, begin: Begin) -> Section:
    """Measure the other optimizers beside a copy of as many bytes."""
    found = Section("The other optimizers", f"{size / M:g}M elements, beside a copy of as many bytes as each moves.")
    found.headings = ["optimizer", "done, ms", "copy, ms", "copy / step"]
    for name, make in whole.OPTIMIZERS.items():
        begin(name)
        kind: Any = type(name, (Cuda,), {"make": staticmethod(make)})
        result = beside(card, Work(name, ((size,),), 1.0), (kind, CopyOfOne), timed)
        card.release()
        if isinstance(result, str):
            found.rows.append([name, result, "", ""])
        else:
            found.rows.append([name, *map(_ms, result[0].seconds.T), spread(result[0].gain(0, 1), 3)])
    return found


SINGLE = "One `update` of a new array, beside the textbook's expression on CuPy arrays."


def update(card: Any, sizes: Sequence[int], timed: Any, begin: Begin) -> Section:
    """Measure `update` beside the textbook on CuPy."""
    found = Section("One parameter", SINGLE, ["optimizer", "elements"])
    found.headings += [f"{who} {what}, us" for who in ("xpopt", "textbook") for what in ("done", "returns")]
    for name, (make, formula) in single.CASES.items():
        ours: Any = type(name, (_OneByOne,), {"make": staticmethod(make)})
        theirs: Any = type(f"textbook {name}", (TextbookCuPy,), {"make": staticmethod(formula)})
        for size in sizes:
            begin(f"{name}, {size:,}")
            result = beside(card, Work(name, ((size,),), 1.0), (ours, theirs), timed)
            card.release()
            if isinstance(result, str):
                found.rows.append([name, f"{size:,}", result, "", "", ""])
            else:
                cells = [_us(race.seconds[:, k]) for k in range(2) for race in result]
                found.rows.append([name, f"{size:,}", *cells])
    return found


class _OneByOne(Cuda):
    name = "xpopt, update"

    def step(self) -> None:
        self._params = {name: self._opt.update(x, self._now[name], name) for name, x in self._params.items()}
        self._opt.step()


HOST = "`update_all` in place of so many parameters of one element: what the host and the launch take."


def host(card: Any, timed: Any, begin: Begin) -> Section:
    """Measure `update_all` where there is next to nothing to compute."""
    found = Section("For each tensor", HOST, ["parameters", "done, us", "returns, us"])
    for count in COUNTS:
        begin(f"{count} x 1")
        result = beside(card, Work(f"{count} x 1", ((1,),) * count, 1.0), (Cuda,), timed)
        cells = [result, ""] if isinstance(result, str) else [_us(race.seconds[:, 0]) for race in result]
        found.rows.append([f"{count:,}", *cells])
        card.release()
    return found


MEMORY = "What three steps in place of Adam take from the device beside parameters, gradients and state."


def memory(card: Any, size: int, begin: Begin) -> Section:
    """Measure the memory of a step."""
    found = Section("Memory", MEMORY, ["elements", "", "MiB"])
    for clip_norm in (None, 1.0):
        what = "clipped" if clip_norm else "not clipped"
        begin(f"memory, {what}")
        card.filled((1,), 0), card.filled((1,), 1), card.filled((1,), 2)  # their tiles stay
        card.release()
        before = card.held()
        peer = Cuda(Model(card, ((size,),), clip_norm), pool.threads())
        for number in range(3):
            peer.feed(number)
            peer.step()
        card.wait()
        found.rows.append([f"{size:,}", what, f"{(card.held() - before - 5 * 4 * size) / 2**20:,.1f}"])
        del peer
        card.release()
    return found


def _ms(seconds: Array) -> str:
    return spread(1e3 * seconds, 3)


def _us(seconds: Array) -> str:
    return spread(1e6 * seconds, 1)
