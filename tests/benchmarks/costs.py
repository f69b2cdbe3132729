"""What an update costs beside its arithmetic: on the host for each tensor, in memory, at the start of a process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import Array, Stopwatch, spread
from peers import Compiled
from report import Begin, Section, at_most, marked
from works import M, Model

COUNTS = (1, 20, 200, 3000)

HOST_TITLE, MEMORY_TITLE, START_TITLE = "For each tensor", "Memory", "The first step"

HOST = """\
`update_all` in place of so many parameters of one element on the compiled engine, with dicts of arrays: all that is not
arithmetic."""


def host(timed: Stopwatch, begin: Begin) -> Section:
    """Measure `update_all` where there is next to nothing to compute."""
    found = Section(HOST_TITLE, HOST, ["parameters", "us a step", "goal, us"])
    medians = []
    for count in COUNTS:
        begin(f"{count} x 1")
        if Compiled.why_not() is not None:
            continue
        result = timed([Compiled(Model(((1,),) * count), 1).side()], 0.05)
        us = 1e6 * result.seconds[:, 0]
        medians.append(np.median(us))
        found.rows.append([f"{count:,}", spread(us, 1), f"{20 + 0.2 * count:g}"])
        name = marked(f"`update_all`, {count} x 1", result)
        found.goals.append(at_most(name, 20 + 0.2 * count, us, "us", 1))
    if medians:
        slope, intercept = np.polyfit(COUNTS, medians, 1, w=1 / np.array(medians))
        found.text += f" That is {intercept:.0f} us a step and {1e3 * slope:.0f} ns a tensor."
    return found


MEMORY = """
import re, sys
import numpy as np
import xpopt

def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024

engine, size = sys.argv[1], int(sys.argv[2])
params = [np.ones(size, np.float32)]
grads = [np.ones(size, np.float32)]
with xpopt.engine(engine):
    small = [np.ones(10, np.float32)]
    warm = xpopt.Adam()
    for _ in range(3):
        warm.update_all(small, small, out=[np.ones(10, np.float32)])
    before = peak()
    opt = xpopt.Adam()
    for _ in range(3):
        opt.update_all(params, grads, out=params)
print(peak() - before - 2 * params[0].nbytes / 2**20)
"""


def memory(size: int, begin: Begin) -> Section:
    """Measure the most memory that a step takes beyond the state, each engine in a process of its own."""
    text = f"What three steps in place of Adam take beside the state, for {size // M}M elements: the rise of the peak."
    found = Section(MEMORY_TITLE, text, ["engine", "MiB"])
    for engine in ("blocked", "compiled"):
        begin(f"{size // M}M elements, {engine}")
        if engine == "blocked" or Compiled.why_not() is None:
            more = np.array([_python(MEMORY, engine, str(size)) for _ in range(3)], np.float64)
            found.rows.append([engine, spread(more, 1)])
            found.goals.append(at_most(f"memory of a step, {engine}", 8, more, "MiB", 1))
    return found


START = """
import sys, time
begin = time.perf_counter()
import numpy as np
(engine,) = sys.argv[1:]
p, g = np.ones((2, 1_000_000), np.float32)
import xpopt
opt = xpopt.Adam()
with xpopt.engine(engine):
    opt.update_all([p], [g], out=[p])
    print(time.perf_counter() - begin)
    opt.update_all([p], [g], out=[p])
    print(time.perf_counter() - begin)
"""

IMPORT = """
import time
begin = time.perf_counter()
import numpy
between = time.perf_counter()
import xpopt
end = time.perf_counter()
import array_api_compat.numpy
again = time.perf_counter()
xpopt.Adam()
print((end - between) / (between - begin), 1e3 * (end - between + time.perf_counter() - again))
"""

STARTS = {  # engine, whether the kernels are kept from before
    "NumPy alone": ("blocked", True),
    "compiled, kernels from disk": ("compiled", True),
    "compiled, nothing on disk": ("compiled", False),
}

START_TEXT = """\
Seconds in a new process: `import numpy`, `import xpopt`, and a first step of 1M elements; then a second one, which
makes the functions that look at all tensors of a model at once."""


def start(runs: int, begin: Begin) -> Section:
    """Measure the first step of a process, and the import."""
    found = Section(START_TITLE, START_TEXT, ["", "one step, s", "two steps, s"])
    with tempfile.TemporaryDirectory() as folder:
        seconds: dict[str, Array] = {}
        for name, (engine, warm) in STARTS.items():
            begin(name)
            if engine == "compiled" and Compiled.why_not() is not None:
                continue
            texts = []
            for run in range(runs + 1):  # the first one leaves the bytecode of every module, or the kernels, on disk
                kept = Path(folder, "warm" if warm else f"{engine}{run}")
                kept.mkdir(mode=0o700, exist_ok=True)
                texts.append(_python(START, engine, bytecode=folder, kernels=str(kept)))
            seconds[name] = np.array([text.split() for text in texts[1:]], np.float64).T
            found.rows.append([name, *(spread(x, 2) for x in seconds[name])])
        begin("import xpopt")
        texts = [_python(IMPORT, bytecode=folder) for _ in range(runs + 1)][1:]
        share, first_use = np.array([text.split() for text in texts], np.float64).T
    base = np.median(seconds["NumPy alone"][0])
    for name, (engine, warm) in STARTS.items():
        if engine == "compiled" and name in seconds:
            first = seconds[name][0]
            wanted = 0.3 if warm else 0.6
            what = f"first step, {name}"
            found.goals.append(
                at_most(what, wanted, first - base, "s more") if warm else at_most(what, wanted, first, "s")
            )
    found.goals.append(at_most("`import xpopt`, as a share of `import numpy`", 0.25, share, "x", 3))
    found.goals.append(at_most("`import xpopt; xpopt.Adam()`, over its dependencies", 20, first_use, "ms", 1))
    return found


def _python(source: str, *args: str, bytecode: str = "", kernels: str = "") -> str:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    if bytecode:
        environment["PYTHONPYCACHEPREFIX"] = bytecode
    if kernels:
        environment["XPOPT_CACHE_DIR"] = kernels
    return subprocess.check_output([sys.executable, "-c", source, *args], env=environment, text=True)
