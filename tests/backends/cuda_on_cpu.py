"""CUDA C on the processor: g++ compiles a printed source, and a driver loops over blocks and threads.

A `Module` is called as `cupy.RawModule` is. Threads that wait for each other are fibers; the others run one after the
other. Two instructions of CUDA have a stand-in here; all else is the text that a device gets.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

COMPILER = shutil.which("g++")

OPTIONS = {"--fmad=false": "-ffp-contract=off"}

STAND_INS = {
    'asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));': "value = from_half(bits);",
    'asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));': "bits = to_half(value);",
}

SHIM = """
#include <math.h>
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

// A block whose threads wait: each is a fiber, and runs up to the next barrier when it is its turn.
static const int MOST = 1024;
static ucontext_t host, fibers[MOST];
static char stacks[MOST][32768];
static bool done[MOST];
static void (*kernel)(void **);
static void **arguments;

static void __syncthreads() { swapcontext(&fibers[threadIdx.x], &host); }

static void fiber()
{
    kernel(arguments);
    done[threadIdx.x] = true;
}

static void run_waiting(unsigned int threads)
{
    for (unsigned int i = 0; i < threads; ++i) {
        getcontext(&fibers[i]);
        fibers[i].uc_stack.ss_sp = stacks[i];
        fibers[i].uc_stack.ss_size = sizeof(stacks[i]);
        fibers[i].uc_link = &host;
        makecontext(&fibers[i], fiber, 0);
        done[i] = false;
    }
    while (!done[0])
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
            swapcontext(&host, &fibers[threadIdx.x]);
}

static void run_alone(unsigned int threads)
{
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
        kernel(arguments);
}
"""

DRIVER = """
static void call_{name}(void **args) {{ {name}({values}); }}
extern "C" void launch_{name}(unsigned int blocks, unsigned int threads, void **args)
{{
    kernel = call_{name};
    arguments = args;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        {run}(threads);
}}
"""


class Module:
    """A source, compiled.

    Parameters
    ----------
    source : str
        CUDA C without includes; kernels are ``extern "C"``.
    options : sequence of str
        As for NVRTC.
    folder : Path
        Where libraries go; what is there already is not compiled again.
    """

    def __init__(self, source: str, options: tuple[str, ...], folder: Path) -> None:
        for instruction, call in STAND_INS.items():
            source = source.replace(instruction, call)
        text = SHIM + source + "".join(_drivers(source))
        flags = [OPTIONS.get(option, option) for option in options]
        name = hashlib.sha256(" ".join([text, *flags]).encode()).hexdigest()[:20]
        library = folder / f"{name}.so"
        if not library.exists():
            assert COMPILER is not None
            command = [COMPILER, "-x", "c++", "-std=c++17", "-O2", "-w", *flags, "-shared", "-fPIC", "-", "-o", library]
            subprocess.run(command, input=text, text=True, check=True)
        self._library = ctypes.CDLL(str(library))

    def get_function(self, name: str) -> Kernel:
        """Return a kernel."""
        return Kernel(getattr(self._library, f"launch_{name}"))


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


def _drivers(source: str) -> list[str]:
    drivers = []
    for match in re.finditer(r'extern "C" __global__ void[^(]*\(\w+\)\s*(\w+)\(([^)]*)\)\s*\{(.*?)\n\}', source, re.S):
        name, parameters, body = match.groups()
        types = [
            re.sub(r"\w+$", "", text.replace("const __grid_constant__", "").strip()) for text in parameters.split(",")
        ]
        values = ", ".join(f"*({kind}*)args[{i}]" for i, kind in enumerate(types))
        run = "run_waiting" if "sum_of_block(" in body else "run_alone"
        drivers.append(DRIVER.format(name=name, values=values, run=run))
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
