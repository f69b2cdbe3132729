"""A CUDA device as the engine needs it: every call of CuPy that touches a device is here."""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..._settings.once import once

_SMALL, _LARGE = 4032, 32704
"""Bytes for a table in a launch, whose arguments may have 4096 bytes, or 32764 in a newer CUDA: multiples of 8."""

_LARGE_SINCE = 12010
"""The version of CUDA that is newer, of its driver as of its compiler."""


def _cupy() -> Any:
    return sys.modules["cupy"]  # imported by whoever has arrays of it


class Buffer:
    """Memory of the device, and memory of the host to fill it from.

    Parameters
    ----------
    size : int
        Bytes.
    """

    def __init__(self, size: int) -> None:
        cuda = _cupy().cuda
        self.size = size
        self._pinned = cuda.alloc_pinned_memory(size)
        self._memory = cuda.alloc(size)
        self._event = cuda.Event(disable_timing=True)

    @property
    def free(self) -> bool:
        """Whether the device has done all that it was told to do with it."""
        return bool(self._event.done)

    def fill(self, data: bytes) -> int:
        """Send `data` behind what is in the current stream; return the address where it arrives."""
        np.frombuffer(self._pinned, np.uint8, len(data))[:] = np.frombuffer(data, np.uint8)
        self._memory.copy_from_host_async(self._pinned.ptr, len(data))
        return int(self._memory.ptr)

    def mark(self) -> None:
        """Call it free once the current stream has come so far."""
        self._event.record()


class Device:
    """One device. Its work goes to the stream that is current for it, and the host waits for none of it.

    Parameters
    ----------
    number : int
        As CUDA counts devices.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._buffers: deque[Buffer] = deque()

    def current(self) -> Any:
        """Return a context manager that makes it the current device."""
        return _cupy().cuda.Device(self.number)

    @once
    def _rooms(self) -> tuple[int, ...]:
        cuda = _cupy().cuda
        major, minor = cuda.nvrtc.getVersion()
        large = min(cuda.runtime.driverGetVersion(), 1000 * major + 10 * minor) >= _LARGE_SINCE
        return (_SMALL, _LARGE) if large else (_SMALL,)

    def room(self, size: int) -> int:
        """Return the bytes that a launch reserves for a table of `size` bytes; 0 if it cannot travel with one."""
        return next((room for room in self._rooms if size <= room), 0)

    def compile(self, source: str, options: tuple[str, ...], names: Sequence[str]) -> list[Callable[..., None]]:
        """Return kernels of a source, to be called on this device with grid, block and arguments."""
        with self.current():
            module = _cupy().RawModule(code=source, options=options)
            return [module.get_function(name) for name in names]

    def true(self) -> Any:
        """Return an array of bool and of shape (), which is true."""
        with self.current():
            return _cupy().ones((), np.bool_)

    def empty_like(self, x: Any) -> Any:
        """Return a new array like `x`, in its order."""
        with self.current():
            return _cupy().empty_like(x)

    def zeros_like(self, x: Any, dtype: Any) -> Any:
        """Return zeros like `x`, in its order."""
        with self.current():
            return _cupy().zeros_like(x, dtype)

    def full(self, shape: tuple[int, ...], value: float, dtype: Any) -> Any:
        """Return a new array of one value."""
        with self.current():
            return _cupy().full(shape, value, dtype)

    def full_like(self, x: Any, value: complex, dtype: Any) -> Any:
        """Return an array like `x`, in its order, of one value."""
        with self.current():
            return _cupy().full_like(x, value, dtype)

    def copy(self, x: Any, dtype: Any = None) -> Any:
        """Return a copy of `x`, in its order; of another dtype where one is given."""
        with self.current():
            return _cupy().array(x, dtype, order="K")

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Return a new array."""
        with self.current():
            return _cupy().empty(shape, dtype)

    def take_buffer(self, size: int) -> Buffer:
        """Return a buffer of at least `size` bytes that nobody uses; give it back when it is marked."""
        for _ in range(len(self._buffers)):  # the oldest is the first to be free
            try:
                buffer = self._buffers.popleft()
            except IndexError:  # taken by other threads
                break
            if buffer.size >= size and buffer.free:
                return buffer
            self._buffers.append(buffer)
        with self.current():  # the device is behind: one more, so that the host need not wait
            return Buffer(1 << max(size - 1, 4095).bit_length())

    def give_buffer(self, buffer: Buffer) -> None:
        """Take a buffer back, for a table to come."""
        self._buffers.append(buffer)


class Table:
    """A table for the kernels of one launch. All that can fail is done here.

    Parameters
    ----------
    on : Device
        Where the kernels run.
    data : bytes
        The table.
    """

    def __init__(self, on: Device, data: bytes) -> None:
        self._on = on
        self._data = data
        self._room = on.room(len(data))
        self._buffer = None if self._room else on.take_buffer(len(data))

    @contextmanager
    def sent(self) -> Iterator[Any]:
        """Yield it as a kernel takes it: by value, or in a buffer that is given back behind what is launched then."""
        if self._buffer is None:
            yield np.frombuffer(self._data.ljust(self._room, b"\0"), f"V{self._room}")
            return
        yield self._buffer.fill(self._data)
        self._buffer.mark()
        self._on.give_buffer(self._buffer)


class Source:
    """A source that takes a table, compiled where it is first needed.

    Parameters
    ----------
    text : str
        CUDA C.
    names : sequence of str
        Of its kernels.
    options : tuple of str
        For the compiler.
    """

    def __init__(self, text: str, names: Sequence[str], options: tuple[str, ...]) -> None:
        self.text = text
        self._names = names
        self._options = options
        self._compiled: dict[tuple[Device, int], list[Callable[..., None]]] = {}
        self._failed: dict[tuple[Device, int], str] = {}

    def failure(self, on: Device, size: int) -> str | None:
        """Return why it could not be compiled for tables of `size` bytes on a device; None if it was, or may be."""
        if _cupy().cuda.runtime.is_hip:
            return "CUDA kernels cannot be compiled: this CuPy is for ROCm, and the sources are CUDA C"
        return self._failed.get((on, on.room(size)))

    def why_not(self, on: Device, size: int) -> str | None:
        """Return why it cannot be compiled for tables of `size` bytes on a device, or None if it is."""
        if (failure := self.failure(on, size)) is not None:
            return failure
        key = on, on.room(size)
        if key not in self._compiled:
            options = (*self._options, f"-DTABLE_BYTES={key[1]}") if key[1] else self._options
            try:
                self._compiled[key] = on.compile(self.text, options, self._names)
            except Exception as error:  # what is missing or too old is told by many types
                self._failed[key] = f"CUDA kernels cannot be compiled: {error}"
        return self._failed.get(key)

    def kernels(self, on: Device, size: int) -> dict[str, Callable[..., None]]:
        """Return its kernels by name for tables of `size` bytes, where nothing is against it."""
        return dict(zip(self._names, self._compiled[on, on.room(size)], strict=True))


@functools.cache
def device(number: int) -> Device:
    """Return the device of a number."""
    return Device(number)
