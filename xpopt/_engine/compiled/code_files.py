"""Compiled code on disk. What is read here is run, so all of it is verified first."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path

_DIGEST = hashlib.sha256().digest_size


def cache_dir() -> Path | None:
    """Return the private folder that compiled kernels are kept in, or None if there can be none.

    It is ``XPOPT_CACHE_DIR``, else ``xpopt`` in the user's cache folder. It must belong to this user, and nobody else
    may write to it.

    Returns
    -------
    Path or None
        The folder, which exists.
    """
    chosen = os.environ.get("XPOPT_CACHE_DIR")
    try:
        folder = Path(chosen) if chosen else _user_cache() / "xpopt"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(folder.stat()):
            return None
        return folder.resolve() if os.access(folder, os.W_OK) else None
    except (OSError, RuntimeError):  # no permission, no home
        return None


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def read(path: Path) -> bytes | None:
    """Return what `write` wrote, or None: of what is not this user's own regular file, or not as it was written.

    Parameters
    ----------
    path : Path
        The file. A pipe or a device there is not waited for, and a link is not followed.

    Returns
    -------
    bytes or None
        The data.
    """
    flags = os.O_RDONLY
    for name in ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"):  # as far as the system has them
        flags |= getattr(os, name, 0)
    try:
        descriptor = os.open(path, flags)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or not _is_private(status):
                return None
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read()
        finally:
            os.close(descriptor)
    except OSError:
        return None
    digest, data = content[:_DIGEST], content[_DIGEST:]
    return data if digest == hashlib.sha256(data).digest() else None


def write(path: Path, data: bytes) -> None:
    """Write a file as a whole, whoever else writes it at the same time."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(data).digest() + data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _is_private(status: os.stat_result) -> bool:
    """Whether something belongs to this user, and nobody else may write to it; True where files have no owners."""
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
