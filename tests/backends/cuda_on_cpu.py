"""CUDA C on the processor: g++ compiles a printed source, and a driver loops over blocks and threads.

A `Module` is called as `cupy.RawModule` is. Threads that wait for each other are fibers; the others run one after the
other. Two instructions of CUDA have a stand-in here; all else is the text that a device gets.

Starting g++ takes longer than compiling a kernel, so that sources known beforehand are compiled as one: `build`. What
was compiled stays in a folder, for other processes too.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

COMPILER = shutil.which("g++")

FLAGS = ("-x", "c++", "-std=c++17", "-O1", "-w", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-shared", "-fPIC")

IMPLIED = ("--fmad=false",)
"""Options that need none here, for the flags have their like; others define a macro."""

STAND_INS = {
    'asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));': "value = from_half(bits);",
    'asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));': "bits = to_half(value);",
}

SHIM = """
#include <math.h>
#include <setjmp.h>
#include <string.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ static inline
#define __grid_constant__
#define __launch_bounds__(threads)
#define __shared__ static

static struct { unsigned int x; } threadIdx, blockIdx;

static float __uint_as_float(unsigned int bits) { float x; memcpy(&x, &bits, 4); return x; }
static unsigned int __float_as_uint(float x) { unsigned int bits; memcpy(&bits, &x, 4); return bits; }

static float from_half(unsigned short bits)
{
    const int exponent = bits >> 10 & 31, digits = bits & 1023;
    const float size = exponent == 31 ? (digits ? NAN : INFINITY)
                     : exponent == 0 ? ldexpf(digits, -24) : ldexpf(1024 + digits, exponent - 25);
    return bits >> 15 ? -size : size;
}

static unsigned short to_half(float x)
{
    const float size = fabsf(x);
    const int exponent = size < 0x1p-14f ? -14 : ilogbf(size);
    const unsigned short bits = isnan(x) ? 0x7E00 : size >= 65520 ? 0x7C00
                              : (exponent + 14) * 1024 + (int)nearbyintf(ldexpf(size, 10 - exponent));
    return bits | (signbit(x) ? 0x8000 : 0);
}

// A block whose threads wait: each is a fiber, and runs up to the next barrier when it is its turn. Fibers stay for the
// next block. They begin as contexts, and go on by jumps, which spare a call of the system each time.
static const int MOST = 1024;
static jmp_buf host, fibers[MOST];
static char stacks[MOST][32768];
static bool done[MOST];
static unsigned int begun;
static void (*kernel)(void **);
static void **arguments;

static __attribute__((noinline)) void __syncthreads()
{
    if (!_setjmp(fibers[threadIdx.x]))
        _longjmp(host, 1);
}

static void fiber()
{
    for (;;) {
        __syncthreads();
        kernel(arguments);
        done[threadIdx.x] = true;
    }
}

static void begin()
{
    static ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks[threadIdx.x];
    context.uc_stack.ss_size = sizeof(stacks[threadIdx.x]);
    makecontext(&context, fiber, 0);
    if (!_setjmp(host))
        setcontext(&context);
}

static void run_waiting(unsigned int threads)
{
    for (; begun < threads; ++begun) {
        threadIdx.x = begun;
        begin();
    }
    memset(done, 0, sizeof(done));
    while (!done[0])
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
            if (!_setjmp(host))
                _longjmp(fibers[threadIdx.x], 1);
}

static void run_alone(unsigned int threads)
{
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
        kernel(arguments);
}
"""

DRIVER = """
static void call_{name}(void **args) {{ {name}({values}); }}
extern "C" void launch_{module}_{name}(unsigned int blocks, unsigned int threads, void **args)
{{
    kernel = call_{name};
    arguments = args;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        {run}(threads);
}}
"""


Source = tuple[str, tuple[str, ...]]
"""CUDA C without includes, whose kernels are ``extern "C"``, and options as for NVRTC."""

_modules: dict[Source, Module] = {}


def build(sources: Iterable[Source]) -> None:
    """Compile sources as one translation unit, each in a namespace of its own, unless another process has done it."""
    sources = [source for source in dict.fromkeys(sources) if source not in _modules]
    if sources:
        library = _library(SHIM + "".join(_unit(f"k{i}", *source) for i, source in enumerate(sources)))
        _modules.update({source: Module(library, f"k{i}") for i, source in enumerate(sources)})


def module(text: str, options: tuple[str, ...]) -> Module:
    """Return a source, compiled."""
    build([(text, options)])
    return _modules[text, options]


def _library(text: str) -> ctypes.CDLL:
    import fcntl  # which Windows has not

    of_package = Path(os.environ["XPOPT_CACHE_DIR"])
    of_package.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = of_package / "g++"
    folder.mkdir(exist_ok=True)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.so"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            new = path.with_suffix(".new")
            assert COMPILER is not None
            subprocess.run([COMPILER, *FLAGS, "-", "-o", new], input=text, text=True, check=True)
            new.rename(path)
    return ctypes.CDLL(str(path))


def _unit(name: str, text: str, options: tuple[str, ...]) -> str:
    """Return a source in a namespace, with its drivers: names of kernels occur again, functions of C may not."""
    defined = [option.removeprefix("-D").partition("=") for option in options if option not in IMPLIED]
    for instruction, call in STAND_INS.items():
        text = text.replace(instruction, call)
    inside = (text + "".join(_drivers(name, text))).replace('extern "C" __global__', "__global__")
    before = "".join(f"#define {macro} {value}\n" for macro, _, value in defined)
    after = "".join(f"#undef {macro}\n" for macro, _, _ in defined)
    return f"{before}namespace {name} {{\n{inside}\n}}\n{after}"


class Module:
    """A source, compiled.

    Parameters
    ----------
    library : CDLL
        What it was compiled into.
    name : str
        Its own among the sources there.
    """

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self._library = library
        self._name = name

    def get_function(self, name: str) -> Kernel:
        """Return a kernel."""
        return Kernel(getattr(self._library, f"launch_{self._name}_{name}"))


class Kernel:
    """A kernel, to be called with grid, block and arguments."""

    def __init__(self, launch: Any) -> None:
        self._launch = launch

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
        self.bind(grid, block, args)()

    def bind(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> Callable[[], None]:
        """Return the launch with its arguments as they are now: to run it later, as a stream does."""
        values = [_value(arg) for arg in args]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        return lambda: self._launch(grid[0], block[0], pointers) and values


def _drivers(module: str, text: str) -> list[str]:
    drivers = []
    for match in re.finditer(r'extern "C" __global__ void[^(]*\(\w+\)\s*(\w+)\(([^)]*)\)\s*\{(.*?)\n\}', text, re.S):
        name, parameters, body = match.groups()
        types = [
            re.sub(r"\w+$", "", text.replace("const __grid_constant__", "").strip()) for text in parameters.split(",")
        ]
        values = ", ".join(f"*({kind}*)args[{i}]" for i, kind in enumerate(types))
        run = "run_waiting" if "fold_block<" in body or "total_of<" in body else "run_alone"
        drivers.append(DRIVER.format(module=module, name=name, values=values, run=run))
    return drivers


def _value(arg: Any) -> Any:
    """Return an argument as CuPy passes it: arrays of CuPy as addresses, NumPy's arrays of one element by value."""
    if arg is None or isinstance(arg, int):
        return ctypes.c_int64(arg or 0)
    if isinstance(arg, float):
        return ctypes.c_double(arg)
    if isinstance(arg, np.generic | np.ndarray):
        assert arg.size == 1, "CuPy passes no larger array of NumPy's"
        return (ctypes.c_char * arg.nbytes).from_buffer_copy(arg.tobytes())
    return ctypes.c_int64(arg.data.ptr)
