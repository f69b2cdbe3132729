"""What this machine can do: which namespaces are usable, why others are not, and the one to use by default."""

from __future__ import annotations

import importlib
import os
from typing import Any

from .._settings.text import short
from .typing import Namespace

BACKENDS = ("numpy", "cupy")
"""What ``XPOPT_BACKEND`` may say."""


def default_namespace() -> Namespace:
    """Return CuPy if a CUDA device is usable, else NumPy.

    The environment variable ``XPOPT_BACKEND``, ``numpy`` or ``cupy``, chooses instead.

    Returns
    -------
    module
        ``array_api_compat.cupy`` or ``array_api_compat.numpy``.

    Raises
    ------
    ValueError
        ``XPOPT_BACKEND`` names something else.
    RuntimeError
        It asks for CuPy, and CuPy is not usable; the message says why.

    Examples
    --------
    >>> xp = default_namespace()
    >>> xp.ones(3).shape
    (3,)
    """
    choice = os.environ.get("XPOPT_BACKEND", "")
    if choice not in ("", *BACKENDS):
        raise ValueError(
            f"XPOPT_BACKEND={short(choice)}; wanted one of {', '.join(BACKENDS)}, or unset for an automatic choice"
        )
    if choice != "numpy":
        problem = why_not("cupy")
        if problem is None:
            return importlib.import_module("array_api_compat.cupy")
        if choice == "cupy":
            raise RuntimeError(f"XPOPT_BACKEND=cupy, and CuPy is not usable: {problem}. Unset it to run on NumPy")
    return importlib.import_module("array_api_compat.numpy")


def why_not(namespace: str) -> str | None:
    """Return why a namespace cannot be used here, or None if it can. Imports it.

    Parameters
    ----------
    namespace : str
        The name of its module.

    Returns
    -------
    str or None
        The reason and the way out.
    """
    try:
        module = importlib.import_module(namespace)
    except ModuleNotFoundError as error:
        if error.name == namespace.partition(".")[0]:
            return "not installed"
        return f"installed, but needs {error.name}"
    except Exception as error:  # CuPy's import writes to its cache folder, so that even an OSError may come
        return f"installed, but its import fails: {_first_line(error)}"
    return _why_no_cuda(module) if namespace == "cupy" else None


def _why_no_cuda(cupy: Any) -> str | None:
    try:
        if cupy.cuda.runtime.getDeviceCount() == 0:
            return "installed, but there is no CUDA device"
    except Exception as error:
        text = _first_line(error)
        reason = "there is no CUDA device" if "NoDevice" in text else "there is no usable CUDA driver"
        return f"installed, but {reason} ({text})"
    try:
        (cupy.ones(1) + 1).get()
    except Exception as error:
        return (
            f"installed, but it cannot compile for the device (pip install 'cupy-cuda13x[ctk]'): {_first_line(error)}"
        )
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
