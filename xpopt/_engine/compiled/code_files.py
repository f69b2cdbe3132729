"""Compiled code on disk. What is read here is run, so nothing is unpickled that has not been verified."""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

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


class CodeFile:
    """The file of one compiled function, in the place of Numba's cache, whose folder and trust are Numba's settings.

    Parameters
    ----------
    path : Path
        The file. Its name must tell all that the code depends on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.cache_path = str(path.parent)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return what Numba compiled, or None if it must be compiled now.

        Parameters
        ----------
        signature : Signature
            What Numba asks for, which the name of the file tells.
        context : BaseContext
            Numba's.

        Returns
        -------
        CompileResult or None
            What `save_overload` was given.
        """
        from numba.core.compiler import CompileResult

        context.refresh()
        data = read(self._path)
        if data is None:
            return None
        try:
            return CompileResult._rebuild(context, *pickle.loads(data))
        except Exception:  # of a Numba that calls itself the same and is another
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Write what Numba compiled.

        Parameters
        ----------
        signature : Signature
            As above.
        result : CompileResult
            What was compiled.
        """
        from numba.core.serialize import dumps

        if result.library.has_dynamic_globals:  # addresses of this process
            return
        with suppress(Exception):  # a full disk, or a folder where the file should be: the next process compiles too
            write(self._path, dumps(result._reduce()))


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
