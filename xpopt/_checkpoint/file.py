"""Headers and arrays as safetensors files: written whole or not at all, and read with suspicion."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np

from .._settings.ranges import LARGEST, LARGEST_TEXT
from .header import CheckpointError, check_format
from .pairs import as_pairs
from .progress import Progress, reporter
from .structure import check_structure

Host = np.ndarray[Any, np.dtype[Any]]

_SIZES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
"""The dtypes of slots, as safetensors writes them, and their sizes in bytes."""

_DIGITS = len(str(-LARGEST))

_LINKS = 40  # at the end of a path, as Linux follows


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
        By key.
    progress : callable, bool or None
        Called with the bytes done and all bytes, or True for a line on stderr.

    Raises
    ------
    ImportError
        safetensors is not installed.
    OSError
        The file cannot be written.
    """
    safetensors = safetensors_module()
    with _naming_errors(path):
        target = _target(path)
    report = reporter(progress, f"saving {target.name}")
    text = json.dumps(header)
    check_structure(text)  # nothing is written that could not be read
    arrays = {key: np.asarray(x, order="C") for key, x in as_pairs(arrays).items()}
    total = sum(x.nbytes for x in arrays.values())
    checksum = _Checksum(text)
    done = 0
    for key in sorted(arrays):
        checksum.add(arrays[key])
        done += arrays[key].nbytes
        if done:
            report(done // 2, total)  # the other half of the work is to write them
    # The folder is the writer's own, so that whatever it leaves there goes with it.
    with (
        _naming_errors(path),
        TemporaryDirectory(prefix=".saving-", dir=target.parent, ignore_cleanup_errors=True) as folder,
    ):
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
        sync_folder(target.parent)
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
        By key; of floats, writable, in memory of their own. Complex ones are pairs of them still.

    Raises
    ------
    ImportError
        safetensors is not installed.
    OSError
        The file is missing or cannot be read.
    CheckpointError
        It is damaged, of a newer format, or not of xpopt.
    """
    safetensors = safetensors_module()
    report = reporter(progress, f"loading {Path(path).name}")
    arrays: dict[str, Host] = {}
    # To open it here says in the usual way what is missing or forbidden.
    with _opened(path) as raw, damage(safetensors.SafetensorError):
        file = safetensors.safe_open(path, framework="np")
        _refuse_duplicates(raw)
    with file:
        with damage(safetensors.SafetensorError):
            text, digest, header = read_metadata(file.metadata() or {})
            views = {key: file.get_slice(key) for key in sorted(file.keys())}
            kinds = {view.get_dtype() for view in views.values()}
        if not kinds <= _SIZES.keys():
            raise CheckpointError(
                f"damaged: there are arrays of {', '.join(sorted(kinds))}; wanted {', '.join(_SIZES)} only"
            )
        total = sum(_SIZES[view.get_dtype()] * math.prod(view.get_shape()) for view in views.values())
        checksum = _Checksum(text)
        done = 0
        for key in views:
            with damage(safetensors.SafetensorError):
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


def read_metadata(metadata: dict[str, str]) -> tuple[str, str, Any]:
    """Return the header's text, the checksum, and the header, of this format."""
    if "xpopt" not in metadata:
        raise CheckpointError("a safetensors file without the header of an optimizer")
    check_structure(metadata["xpopt"])
    header = json.loads(metadata["xpopt"], object_pairs_hook=_unique, parse_int=_parse_int)
    check_format(header)
    if metadata.keys() != {"xpopt", "sha256"}:
        raise CheckpointError(f"damaged: metadata {', '.join(sorted(metadata))}; wanted sha256, xpopt")
    return metadata["xpopt"], metadata["sha256"], header


def _refuse_duplicates(file: BinaryIO) -> None:
    """Raise if a key is there twice in what safetensors reads, which would take either; its length has been checked."""
    text = file.read(int.from_bytes(file.read(8), "little"))
    check_structure(text.decode())
    json.loads(text, object_pairs_hook=_only_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise CheckpointError("damaged: a key is repeated")
    return found


def _only_unique(pairs: list[tuple[str, Any]]) -> None:
    """Look at keys, and keep nothing."""
    _unique(pairs)


def _parse_int(text: str) -> int:
    """Read an int, which takes the square of its length, so that what no count can be is not read."""
    if len(text) > _DIGITS:
        raise CheckpointError(f"damaged: an int of {len(text)} digits; this format has none above {LARGEST_TEXT}")
    return int(text)


@contextmanager
def damage(error: type[Exception]) -> Iterator[None]:
    """Say in one way what the readers of safetensors, of JSON and of arrays raise for what is none."""
    try:
        yield
    except CheckpointError:
        raise
    except RecursionError:
        raise CheckpointError("damaged: nested too deeply") from None
    except (error, ValueError, TypeError, ArithmeticError) as problem:
        raise CheckpointError(f"damaged: {problem}") from problem


@contextmanager
def _naming_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let the errors of the system name the file that was asked for, whatever was in work."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error


def _target(path: str | os.PathLike[str]) -> Path:
    """Return the file that a path leads to, as the system takes it; what lies there may be replaced."""
    target, links = os.fspath(path), 0
    while os.path.islink(target):
        target, links = os.path.join(os.path.dirname(target), os.readlink(target)), links + 1
        if links > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    folder, name = os.path.split(target)
    if name in ("", os.curdir, os.pardir):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    os.stat(folder or os.curdir)  # by which the system says what is missing, or is no folder
    found = Path(os.path.realpath(folder), name)
    if found.exists() and not found.is_file():
        raise OSError(f"{os.fspath(path)} is not a regular file")
    return found


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file, and wait for no pipe or device in its place."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{os.fspath(path)} is not a regular file")
    return open(descriptor, "rb")


def sync_folder(folder: Path) -> None:
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


def safetensors_module() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError('save and load need safetensors: pip install "xpopt[checkpoint]"') from error
    return safetensors
