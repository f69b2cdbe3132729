"""What the measurements on a GPU run on: the GPU, or, without one, what the test suite has in its place.

Both have the same methods. A stand-in computes the bits that a GPU should; its times say nothing.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Array
from works import M

from xpopt._arrays.machine import why_not
from xpopt._engine.cuda import device

SPIN = r"""
extern "C" __global__ void spin(long long nanoseconds)
{
    long long begin, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
    do
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    while (now - begin < nanoseconds);
}
"""

BUSY = 0.2  # seconds


@cache
def tile(seed: int) -> Array:
    """Return the numbers of which a large array has as many copies as it takes."""
    return np.random.default_rng(seed).standard_normal(M, np.float32)


class Card:
    """The first GPU, by CuPy."""

    measures = True

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self._tiles: dict[int, Any] = {}
        self._streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
        self._spin = cupy.RawKernel(SPIN, "spin")

    def setting(self) -> list[str]:
        """Return what it is, and the versions of its software."""
        runtime = self._cupy.cuda.runtime
        name = runtime.getDeviceProperties(runtime.getDevice())["name"].decode()
        total = runtime.memGetInfo()[1]
        versions = f"driver for CUDA {runtime.driverGetVersion()}, runtime {runtime.runtimeGetVersion()}"
        return [f"{name}, {total / 2**30:.0f} GiB, {versions}, CuPy {self._cupy.__version__}"]

    def why_not(self, what: str) -> str | None:
        """Return why "xpopt", "cupy" or "torch" cannot run on it, or None if it can."""
        if what == "torch":
            import torch

            return None if torch.cuda.is_available() else "this torch finds no GPU"
        return None

    def array(self, values: Array) -> Any:
        """Return a new array of these values, sent behind what is in the current stream."""
        return self._cupy.array(values)

    def filled(self, shape: tuple[int, ...], seed: int) -> Any:
        """Return a new float32 array, large at will, of the numbers of `tile`."""
        if seed not in self._tiles:
            self._tiles[seed] = self.array(tile(seed))
        new = self._cupy.empty(shape, np.float32)
        flat = new.reshape(-1)
        for start in range(0, flat.size, M):
            part = flat[start : start + M]
            part[...] = self._tiles[seed][: part.size]
        return new

    def empty(self, size: int) -> Any:
        """Return a new float32 array."""
        return self._cupy.empty(size, np.float32)

    def copy(self, target: Any, source: Any) -> None:
        """Copy one array to another."""
        self._cupy.copyto(target, source)

    def numpy(self, x: Any) -> Any:
        """Return the values of an array, once the device has come so far."""
        return self._cupy.asnumpy(x)

    def tensor(self, x: Any) -> Any:
        """Return torch's view of an array."""
        import torch

        return torch.from_dlpack(x)

    def wait(self) -> None:
        """Wait until the device has nothing to do."""
        self._cupy.cuda.runtime.deviceSynchronize()

    def stream(self, number: int) -> AbstractContextManager[Any]:
        """Return a context whose work goes to one of two streams, which do not wait for each other."""
        return self._streams[number]

    def busy(self) -> Any:
        """Keep the device busy for a moment; return an event that is `done` once it no longer is."""
        self._spin((1,), (1,), (np.int64(BUSY * 1e9),))
        event = self._cupy.cuda.Event(disable_timing=True)
        event.record()
        return event

    def release(self) -> None:
        """Give back all memory that no array holds."""
        gc.collect()
        self._cupy.get_default_memory_pool().free_all_blocks()
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.cuda.empty_cache()

    def held(self) -> int:
        """Return the bytes that CuPy has taken from the device since `release`, given back or not."""
        return int(self._cupy.get_default_memory_pool().total_bytes())


class StandIn:
    """CuPy's arrays on the host's memory, and kernels that g++ compiles. Streams run where the host waits for them."""

    measures = False

    def __init__(self, folder: Path) -> None:
        import fake_cupy

        os.environ.setdefault("XPOPT_CACHE_DIR", str(folder))  # where what g++ compiles is kept
        self._fake = fake_cupy
        self._runtime = fake_cupy.FakeCuPy()
        self._runtime.deferred = True
        device._cupy = lambda: self._runtime  # in the place of the module, for this process

    @staticmethod
    def why_none() -> str | None:
        """Return why there is none here, or None."""
        try:
            import cuda_on_cpu
            import cupy  # noqa: F401
        except Exception as error:
            return f"the stand-in needs CuPy: {error}"
        return None if cuda_on_cpu.COMPILER else "the stand-in needs g++"

    def setting(self) -> list[str]:
        """Return what it is."""
        return [
            f"No GPU: CuPy is {why_not('cupy')}",
            "In its place is a stand-in on the processor. It can launch neither what NVRTC compiles nor CuPy's own"
            " kernels (the eager engine, the textbook, the count of skipped steps). It has no times to measure",
        ]

    def why_not(self, what: str) -> str | None:
        """Return why "xpopt", "cupy" or "torch" cannot run on it, or None if it can."""
        return "CuPy's own kernels have no stand-in" if what == "cupy" else None

    def array(self, values: Array) -> Any:
        """Return a new array of these values."""
        return self._fake.on_device(np.array(values))

    def filled(self, shape: tuple[int, ...], seed: int) -> Any:
        """Return a new float32 array of the numbers of `tile`."""
        return self.array(np.resize(tile(seed), shape))

    def empty(self, size: int) -> Any:
        """Return a new float32 array."""
        return self.array(np.zeros(size, np.float32))

    def copy(self, target: Any, source: Any) -> None:
        """Copy one array to another."""
        self._runtime.enqueue(lambda: ctypes.memmove(target.data.ptr, source.data.ptr, source.nbytes))

    def numpy(self, x: Any) -> Any:
        """Return the values of an array, once the device has come so far."""
        self.wait()
        return np.array(x if isinstance(x, np.ndarray) else self._fake.values_of(x))

    def tensor(self, x: Any) -> Any:
        """Return torch's view of an array."""
        import torch

        return torch.from_numpy(self._fake.values_of(x))

    def wait(self) -> None:
        """Do what is in the streams, the last one first."""
        for stream in reversed(list(self._runtime.streams)):
            self._runtime.run(stream)

    def stream(self, number: int) -> AbstractContextManager[Any]:
        """Return a context whose work goes to one of two streams."""
        using: AbstractContextManager[Any] = self._runtime.using(str(number))
        return using

    def busy(self) -> Any:
        """Return an event that is `done` once the stream has been run."""
        event = self._runtime.cuda.Event(disable_timing=True)
        event.record()
        return event

    def release(self) -> None:
        """Let go of all arrays."""
        self.wait()
        self._fake.KEPT_ALIVE.clear()

    def held(self) -> int:
        """Return the bytes that were allocated."""
        return int(self._runtime.allocated)
