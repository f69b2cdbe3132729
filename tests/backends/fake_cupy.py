"""CuPy without a device: its own arrays over the host's memory, and a runtime that runs kernels on the processor.

`FakeCuPy` has what the package calls of CuPy to reach a device, and nothing that waits. Work goes to the current stream
and is done at once, or, while `deferred`, when the stream is run. So whoever changes memory too early is found out.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import cuda_on_cpu
import cupy
import numpy as np
from cupy.cuda import MemoryPointer, UnownedMemory

KEPT_ALIVE: list[Any] = []
"""Memory that work in a stream may still need: CuPy too hands it on behind that work alone."""


def on_device(values: Any, number: int = 0) -> Any:
    """Return a CuPy array over the memory of a NumPy array, which keeps its layout."""
    KEPT_ALIVE.append(values)
    below = sum(min(0, (size - 1) * step) for size, step in zip(values.shape, values.strides, strict=True))
    memory = UnownedMemory(values.ctypes.data + below, max(values.nbytes, 1), values, number)
    return cupy.ndarray(values.shape, values.dtype, MemoryPointer(memory, -below), values.strides)


def values_of(x: Any) -> Any:
    """Return a NumPy array over the memory of a CuPy array that is contiguous."""
    memory = (ctypes.c_char * max(x.nbytes, 1)).from_address(x.data.ptr)
    return np.ndarray(x.shape, x.dtype, memory, strides=x.strides)


class Event:
    """Done once whatever was in the streams when it was last recorded is done."""

    def __init__(self, runtime: FakeCuPy) -> None:
        self._runtime = runtime
        self._pending = 0

    @property
    def done(self) -> bool:
        return self._pending == 0

    def record(self) -> None:
        self._pending += 1
        self._runtime.enqueue(self._finish)

    def _finish(self) -> None:
        self._pending -= 1


class Memory:
    """Memory of the device."""

    def __init__(self, runtime: FakeCuPy, size: int) -> None:
        self._runtime = runtime
        self._bytes = ctypes.create_string_buffer(size)
        self.ptr = ctypes.addressof(self._bytes)

    def copy_from_host_async(self, source: int, size: int) -> None:
        self._runtime.enqueue(lambda: ctypes.memmove(self.ptr, source, size))


class FakeCuPy:
    """What stands in for the module."""

    def __init__(self) -> None:
        self.deferred = False
        self.streams: dict[str, list[Callable[[], Any]]] = {"null": []}
        self.stream = "null"
        self.number = -1  # of the current device
        self.buffers = 0
        self.allocated = 0
        self.launches: list[tuple[str, int, str, int]] = []  # kernel, device, stream, blocks
        self.driver = 13000
        self.cuda = SimpleNamespace(
            Device=self._device,
            Event=lambda disable_timing: Event(self),
            alloc=lambda size: Memory(self, size),
            alloc_pinned_memory=self._pinned,
            nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
            runtime=SimpleNamespace(driverGetVersion=lambda: self.driver, is_hip=False),
        )

    # Streams

    @contextmanager
    def using(self, stream: str) -> Iterator[None]:
        """Make a stream current."""
        before, self.stream = self.stream, stream
        self.streams.setdefault(stream, [])
        yield
        self.stream = before

    def enqueue(self, work: Callable[[], Any]) -> None:
        if self.deferred:
            self.streams[self.stream].append(work)
        else:
            work()

    def run(self, stream: str, most: int | None = None) -> None:
        """Do what is in a stream, or the first pieces of it."""
        queue = self.streams[stream]
        for work in queue[:most]:
            work()
        del queue[:most]

    # What the package calls

    @contextmanager
    def _device(self, number: int) -> Iterator[None]:
        before, self.number = self.number, number
        yield
        self.number = before

    def _pinned(self, size: int) -> Any:
        self.buffers += 1
        memory = type("Pinned", (ctypes.c_char * size,), {})()
        memory.ptr = ctypes.addressof(memory)
        return memory

    def RawModule(self, *, code: str, options: tuple[str, ...]) -> Any:
        module, here = cuda_on_cpu.module(code, options), self.number
        return SimpleNamespace(get_function=lambda name: self._kernel(module, name, here))

    def _kernel(self, module: cuda_on_cpu.Module, name: str, compiled_for: int) -> Callable[..., None]:
        kernel = module.get_function(name)

        def launch(grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
            assert self.number == compiled_for, "launched on another device"
            self.launches.append((name, self.number, self.stream, grid[0]))
            self.enqueue(kernel.bind(grid, block, args))

        return launch

    def _new(self, values: Any) -> Any:
        assert self.number >= 0, "allocated on no device"
        self.allocated += values.nbytes
        return on_device(values, self.number)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        return self._new(np.full(shape, np.nan, dtype))

    def ones(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        new = self._new(np.zeros(shape, dtype))
        self.enqueue(lambda: values_of(new).fill(1))
        return new

    def empty_like(self, x: Any) -> Any:
        new = np.empty_like(values_of(x))
        new.fill(np.nan)
        return self._new(new)

    def zeros_like(self, x: Any, dtype: Any) -> Any:
        return self._new(np.zeros_like(values_of(x), dtype))

    def full(self, shape: tuple[int, ...], value: float, dtype: Any) -> Any:
        return self._new(np.full(shape, value, dtype))

    def full_like(self, x: Any, value: float, dtype: Any) -> Any:
        return self._new(np.full_like(values_of(x), value, dtype))

    def array(self, x: Any, dtype: Any = None, *, order: str) -> Any:
        if isinstance(x, np.ndarray):
            return self._new(np.array(x, dtype, order=order))
        new = self._new(np.empty_like(values_of(x), dtype, order=order))
        self.enqueue(lambda: np.copyto(values_of(new), values_of(x)))
        return new
