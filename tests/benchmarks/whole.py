"""Whole models: `update_all` beside the same step by other libraries."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from limit import Limit
from measuring import Array, Race, Side, Stopwatch, spread
from peers import PEERS, Blocked, Compiled, Fused, Peer, Textbook, Traffic
from report import Begin, Goal, Section, at_least, marked, near
from works import M, Model, Work

import xpopt

ALONE = {"1 x 10M": 3.3, "3000 x 3500": 1.25}
"""How many times as fast as the textbook the blocked engine should be."""

REDUCING = ("Adafactor", "DoG", "LAMB", "LARS", "Muon", "NovoGrad", "PolyakSGD", "Prodigy", "SOAP")
"""They read arrays more than once, so that their traffic alone is no measure of them."""

OPTIMIZERS = {
    **{
        name: getattr(xpopt, name)
        for name in xpopt.optimizers.__all__
        if name not in ("Adam", "OptimizerBase", *REDUCING)
    },
    "SGD, momentum": partial(xpopt.SGD, momentum=0.9),
    "Adam, l2, clip_value, decay, cautious, bounds": partial(
        xpopt.Adam, l2=1e-4, clip_value=1.0, weight_decay=0.01, cautious=True, bounds=(-3, 3)
    ),
    "Adam, average": partial(xpopt.Adam, average=xpopt.EMA(0.999)),
    "Adam, lookahead": partial(xpopt.Adam, lookahead=xpopt.Lookahead()),
}

TITLE = "Whole models"
OPTIMIZERS_TITLE = "The other optimizers"

TEXT = """\
One step of Adam, in place, on a whole model: all its parameters, so many of one size or those of GPT-2 small, in as
many calls as the library needs. No step sees the gradient arrays of the step before; handing them over (`p.grad = ...`)
is not timed. 3000 x 3500 is the case of PyTorch's issue 3929. The textbook is the expression further below, for each
parameter. The traffic alone is a loop that reads and writes what an update must, in arrays as long as the whole model,
with as many threads, and hardly computes. The last column is how many times as fast xpopt's compiled engine is, as the
median of neighbouring blocks."""


def count(works: Sequence[Work]) -> int:
    """Return how many races `section` runs."""
    return sum(len(_kinds(work)) + (work.name in ALONE) for work in works)


def _kinds(work: Work) -> list[type[Peer]]:
    return [kind for kind in PEERS if work.clip_norm is None or kind.clips]


def section(works: Sequence[Work], threads: int, timed: Stopwatch, begin: Begin) -> Section:
    """Measure every library on every work."""
    found = Section(TITLE, TEXT, ["model", "by", "ms a step", "compiled is faster by"])
    for work in works:
        model = Model(work.shapes, work.clip_norm)
        races: dict[type[Peer], Race | str] = {}
        for kind in _kinds(work):
            begin(f"{work.name}, {kind.name}")
            races[kind] = _beside(model, kind, Compiled, threads, timed)
        _report(found, work, races)
        if work.name in ALONE:
            begin(f"{work.name}, {Blocked.name} beside the textbook")
            alone = _beside(model, Textbook, Blocked, threads, timed)
            if isinstance(alone, Race):
                name = marked(f"{work.name}, blocked", alone)
                found.goals.append(at_least(name, ALONE[work.name], alone.gain(0, 1), Textbook.name))
        del model
    return found


def optimizers(threads: int, timed: Stopwatch, begin: Begin) -> Section:
    """Measure the other optimizers beside their own traffic."""
    found = Section(OPTIMIZERS_TITLE, "10M elements, compiled, beside the traffic of each with all its slots.")
    found.headings = ["optimizer", "ms a step", "traffic, ms", "traffic / step"]
    model = Model(((10 * M,),))
    for name, make in OPTIMIZERS.items():
        begin(name)
        if Compiled.why_not() is not None:
            continue
        kind: Any = type(name, (Compiled,), {"make": staticmethod(make)})
        (row,) = make().explain([np.zeros(1000, np.float32)])
        peer, limit = kind(model, threads), Limit(model, row.state_bytes // 4000, threads)  # not those of one number
        result = timed([peer.side(), Side(limit.step, limit.feed)], share=0.5)
        found.rows.append([marked(name, result), *(map(_ms, result.seconds.T)), spread(result.gain(0, 1), 3)])
        found.goals.append(near(marked(f"1 x 10M, {name}", result), 8, result.gain(0, 1), "its traffic alone"))
    return found


def _beside(model: Model, kind: type[Peer], ours: type[Peer], threads: int, timed: Stopwatch) -> Race | str:
    """Return a race of one of our engines with another library, or why there is none."""
    reason = ours.why_not() or kind.why_not()
    if reason is not None:
        return reason
    share = 1.0 if ours is Blocked else kind.share
    result = timed([ours(model, threads).side(), kind(model, threads).side()], share=share)
    gc.collect()
    return result


def _report(found: Section, work: Work, races: dict[type[Peer], Race | str]) -> None:
    timed = {kind: result for kind, result in races.items() if isinstance(result, Race)}
    if timed:
        ours = np.concatenate([result.seconds[:, 0] for result in timed.values()])
        found.rows.append([work.name, Compiled.name, _ms(ours), ""])
    for kind, result in races.items():
        if isinstance(result, Race):
            cells = [marked(kind.name, result), _ms(result.seconds[:, 1]), spread(result.gain(0, 1), 2)]
        else:
            cells = [kind.name, result, ""]
        found.rows.append([work.name, *cells])
    found.goals += list(_goals(work, timed))


def _goals(work: Work, races: dict[type[Peer], Race]) -> Iterator[Goal]:
    if Fused in races:
        noise = 0.97 if work.fused == 1 else 1.0
        beside = Fused.name + (" after clip_grad_norm_" if work.clip_norm else "")
        result = races[Fused]
        yield at_least(marked(work.name, result), work.fused, result.gain(0, 1), beside, noise=noise)
    if Traffic in races and work.limit is not None:
        result = races[Traffic]
        yield near(marked(work.name, result), 100 * (work.limit - 1), result.gain(0, 1), Traffic.name)


def _ms(seconds: Array) -> str:
    return spread(1e3 * seconds, 3 if np.median(seconds) < 1e-3 else 2)
