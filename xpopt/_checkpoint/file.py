"""Headers and arrays as safetensors files: written whole or not at all, and read with suspicion."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .header import CheckpointError, check_format

Host = npt.NDArray[Any]
Report = Callable[[int, int], object]
Progress = Report | bool | None

_SIZES = {"F32": 4, "F64": 8}
"""The dtypes of slots, as safetensors writes them, and their sizes in bytes."""


def write(
    path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Mapping[str, Host], progress: Progress
) -> None:
    """Write a file, or leave the one that is there.

    Parameters
    ----------
    path : path-like
        Where to. A link is followed.
    header : mapping
        As JSON has it.
    arrays : mapping of str to ndarray
        By key; float32 or float64.
    progress : callable, bool or None
        Called with the bytes done and all bytes, or True for a line on stderr.

    Raises
    ------
    ImportError
        safetensors is not installed.
    OSError
        The file cannot be written.
    """
    safetensors = _safetensors()
    target = Path(os.path.realpath(path))
    _check_regular(target)
    report = _reporter(progress, f"saving {target.name}")
    text = json.dumps(header)
    arrays = {key: np.asarray(x, order="C") for key, x in arrays.items()}
    total = sum(x.nbytes for x in arrays.values())
    checksum = _Checksum(text)
    done = 0
    for key in sorted(arrays):
        checksum.add(arrays[key])
        done += arrays[key].nbytes
        if done:
            report(done // 2, total)  # the other half of the work is to write them
    # The folder is the writer's own, so that whatever it leaves there goes with it.
    with TemporaryDirectory(prefix=".saving-", dir=target.parent, ignore_cleanup_errors=True) as folder:
        file = Path(folder, target.name)
        file.touch()
        mode = (target if target.exists() else file).stat().st_mode  # what was chosen, or what the umask leaves
        try:
            safetensors.numpy.save_file(arrays, file, metadata={"xpopt": text, "sha256": checksum.digest()})
        except safetensors.SafetensorError as error:  # of arrays and text that are sound: so the disk
            raise OSError(f"cannot write {path}: {error}") from error
        file.chmod(stat.S_IMODE(mode))
        with file.open("rb+") as written:
            os.fsync(written.fileno())
        file.replace(target)
        _sync_folder(target.parent)
    report(total, total)


def read(path: str | os.PathLike[str], progress: Progress) -> tuple[Any, dict[str, Host]]:
    """Read a file that `write` has written.

    Parameters
    ----------
    path : path-like
        The file.
    progress : callable, bool or None
        As for `write`.

    Returns
    -------
    header : object
        As JSON has it; of this format, and otherwise unchecked.
    arrays : dict of str to ndarray
        By key; float32 or float64, writable, in memory of their own.

    Raises
    ------
    ImportError
        safetensors is not installed.
    OSError
        The file is missing or cannot be read.
    CheckpointError
        It is damaged, of a newer format, or not of xpopt.
    """
    safetensors = _safetensors()
    _check_regular(Path(path))
    report = _reporter(progress, f"loading {Path(path).name}")
    arrays: dict[str, Host] = {}
    # To open it here says in the usual way what is missing or forbidden.
    with open(path, "rb") as raw, _damage(safetensors.SafetensorError):
        file = safetensors.safe_open(path, framework="np")
        _refuse_duplicates(raw)
    with file:
        with _damage(safetensors.SafetensorError):
            text, digest, header = _read_metadata(file.metadata() or {})
            views = {key: file.get_slice(key) for key in sorted(file.keys())}
            kinds = {view.get_dtype() for view in views.values()}
        if not kinds <= _SIZES.keys():
            raise CheckpointError(f"damaged: there are arrays of {', '.join(sorted(kinds))}; wanted F32 and F64 alone")
        total = sum(_SIZES[view.get_dtype()] * math.prod(view.get_shape()) for view in views.values())
        checksum = _Checksum(text)
        done = 0
        for key in views:
            with _damage(safetensors.SafetensorError):
                arrays[key] = file.get_tensor(key)
            checksum.add(arrays[key])
            done += arrays[key].nbytes
            if done < total:
                report(done, total)
    if checksum.digest() != digest:
        raise CheckpointError("damaged: the checksum is not that of header and arrays")
    report(total, total)
    return header, arrays


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Begin the message of a CheckpointError with the file that it is about."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error.__cause__


class _Checksum:
    """SHA-256 of the header's text, and then of the arrays' bytes as they stand in the file, in the order of keys."""

    def __init__(self, text: str) -> None:
        self._hash = hashlib.sha256(text.encode())

    def add(self, x: Host) -> None:
        self._hash.update(x.astype(x.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data)

    def digest(self) -> str:
        return self._hash.hexdigest()


def _read_metadata(metadata: dict[str, str]) -> tuple[str, str, Any]:
    """Return the header's text, the checksum, and the header, of this format."""
    if "xpopt" not in metadata:
        raise CheckpointError("a safetensors file without the header of an optimizer")
    header = json.loads(metadata["xpopt"], object_pairs_hook=_unique)
    check_format(header)
    if metadata.keys() != {"xpopt", "sha256"}:
        raise CheckpointError(f"damaged: metadata {', '.join(sorted(metadata))}; wanted sha256, xpopt")
    return metadata["xpopt"], metadata["sha256"], header


def _refuse_duplicates(file: BinaryIO) -> None:
    """Raise if a key is there twice in what safetensors reads, which would take either; its length has been checked."""
    json.loads(file.read(int.from_bytes(file.read(8), "little")), object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise CheckpointError("damaged: a key is there twice")
    return found


@contextmanager
def _damage(error: type[Exception]) -> Iterator[None]:
    """Say in one way what the readers of safetensors, of JSON and of arrays raise for what is none."""
    try:
        yield
    except CheckpointError:
        raise
    except RecursionError:
        raise CheckpointError("damaged: nested too deeply") from None
    except (error, ValueError, TypeError, ArithmeticError) as problem:
        raise CheckpointError(f"damaged: {problem}") from problem


def _check_regular(path: Path) -> None:
    """Raise an OSError for a folder, a device or a pipe, which may not be replaced nor read to the end."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no regular file")


def _sync_folder(folder: Path) -> None:
    """Bring a new name in a folder to the disk, where folders can be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # of file systems that cannot do so with folders
            raise
    finally:
        os.close(descriptor)


def _safetensors() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError('save and load need safetensors: pip install "xpopt[checkpoint]"') from error
    return safetensors


def _reporter(progress: Progress, what: str) -> Report:
    if callable(progress):
        return progress
    if not progress:
        return lambda done, total: None

    def show(done: int, total: int) -> None:
        share = done / total if total else 1
        print(f"\r{what}: {share:4.0%}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show
