"""A training in moves, to be cut after any of them; as a program, it goes on with what `save_all` has left.

Each cut is a file of xpopt, the parameters beside it. ``python -m _kit.resumption FOLDER BACKEND ENGINE`` finishes
them all.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np

import xpopt

from .backends import NAMESPACES, Backend
from .states import OPTIMIZERS, RISING, SCHEDULERS, model
from .variants import NARROW, VARIANTS

# Three steps of one `update` for each parameter and a `step`, then three of `update_all`.
MOVES = [(step, name) for step in range(3) for name in ("W", "b", "step")] + [(step, "all") for step in (3, 4, 5)]
CUTS = (0, 1, 4, 8, 10)  # before the first move, in the middle of passes, before a step, between two steps
FEW = (1, 8, 10)


def make(backend, case):
    """An optimizer and the parameters at the start."""
    optimizer, scheduler, clip_norm, dtype, options = case
    return OPTIMIZERS[optimizer](lr_scheduler=scheduler, clip_norm=clip_norm, **options), model(backend, dtype)[0]


def cuts(backend):
    """The moves to cut before: elsewhere than on NumPy one of each kind."""
    return CUTS if backend.name == "numpy" else FEW


def cases(backend):
    """On NumPy all pairs of optimizer and schedule, clipped in turn; dtypes; and 16 bits in both ways to keep more.

    Elsewhere each optimizer, schedule, dtype and way is there once: what is saved is the same on every library.

    Returns
    -------
    list of (optimizer, scheduler, clip_norm, dtype, options)
    """
    narrow = [dtype for dtype in backend.dtypes if dtype in ("float16", "bfloat16")]
    ways = [VARIANTS[name] for name in NARROW]
    if backend.name == "numpy":
        pairs = [(optimizer, scheduler) for optimizer in OPTIMIZERS for scheduler in SCHEDULERS]
        some = [(*pair, (None, 0.5)[i % 2], backend.widest, {}) for i, pair in enumerate(pairs)]
        some += [("Adam", SCHEDULERS[3], 0.5, dtype, {}) for dtype in backend.dtypes]
        kept = [(optimizer, dtype, way) for optimizer in OPTIMIZERS for dtype in narrow for way in ways]
    else:
        dtypes = backend.dtypes[::-1]
        some = [
            (optimizer, SCHEDULERS[i % 4], (None, 0.5)[i % 2], dtypes[i % len(dtypes)], {})
            for i, optimizer in enumerate(OPTIMIZERS)
        ]
        kept = [
            (optimizer, dtype, way) for dtype in narrow for optimizer, way in zip(("SGD", "Adam"), ways, strict=True)
        ]
    return some + [
        (name, SCHEDULERS[i % 4], (None, 0.5)[i % 2], dtype, way) for i, (name, dtype, way) in enumerate(kept)
    ]


def go_on(backend, opt, params, moves, dtype):
    """Make some of the moves."""
    for step, what in moves:
        _, grads = model(backend, dtype, scale=1 + step)
        if what == "all":
            params = opt.update_all(params, grads, RISING[step])
        elif what == "step":
            opt.step()
        else:
            params = {**params, what: opt.update(params[what], grads[what], what, RISING[step])}
    return params


def outcome(backend, opt, params):
    """All that is left at the end, as JSON has it."""
    state = opt.state_dict()
    arrays = backend.computed({**state["arrays"], **{f"parameter {name}": x for name, x in params.items()}})
    bits = {key: [str(x.dtype), list(x.shape), backend.numpy(x).tobytes().hex()] for key, x in arrays.items()}
    return json.loads(json.dumps({"header": state["header"], "bits": bits}))


def save_all(backend, folder):
    """Cut every training everywhere, and go on after each cut; return what comes out in the end."""
    outcomes = []
    for case in cases(backend):
        opt, params = make(backend, case)
        for i, move in enumerate([*MOVES, None]):
            if i in cuts(backend):
                path = Path(folder, f"{len(outcomes)}-{i}.safetensors")
                opt.save(path)
                values = backend.computed(params)
                np.savez(path.with_suffix(".npz"), **{name: backend.numpy(x) for name, x in values.items()})
            params = params if move is None else go_on(backend, opt, params, [move], case[3])
        outcomes.append(outcome(backend, opt, params))
    return outcomes


def finish_all(backend, folder):
    """Go on from every cut; return what comes out, by case and cut."""
    outcomes = {}
    for number, case in enumerate(cases(backend)):
        for cut in cuts(backend):
            path = Path(folder, f"{number}-{cut}.safetensors")
            values = np.load(path.with_suffix(".npz"))
            params = {name: backend.array(values[name], case[3]) for name in values.files}
            if cut % 2:
                opt, _ = make(backend, case)
                opt.load(path, strict=False, like=params)  # after the first move, b has no state
            else:
                opt = xpopt.load_optimizer(path)
            params = go_on(backend, opt, params, MOVES[cut:], case[3])
            outcomes[f"{number}-{cut}"] = outcome(backend, opt, params)
    return outcomes


if __name__ == "__main__":
    folder, name, engine = sys.argv[1:]
    if name == "jax-x64":
        importlib.import_module("jax").config.update("jax_enable_x64", True)
    with xpopt.engine(engine):
        print(json.dumps(finish_all(Backend(name, importlib.import_module(NAMESPACES[name])), folder)))
