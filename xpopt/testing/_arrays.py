"""The array libraries that are installed, and models made of their arrays."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

Shapes = Mapping[Hashable, tuple[int, ...]]

MODULES = {
    "numpy": "array_api_compat.numpy",
    "array_api_strict": "array_api_strict",
    "torch": "array_api_compat.torch",
    "jax": "jax.numpy",
    "dask": "array_api_compat.dask.array",
    "cupy": "array_api_compat.cupy",
}
"""The namespace of the array API standard of each library."""


class Arrays:
    """The arrays of one library.

    Parameters
    ----------
    name : str
        The library, one of `MODULES`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.xp: Any = importlib.import_module(MODULES[name])

    @property
    def is_mutable(self) -> bool:
        """Whether arrays can be written."""
        return self.name not in ("jax", "dask")

    @property
    def dtypes(self) -> list[str]:
        """The floating dtypes of the library, from narrow to wide."""
        if self.name == "array_api_strict":
            return ["float32", "float64"]
        has_bfloat16 = self.name != "dask" and (self.name == "torch" or importlib.util.find_spec("ml_dtypes"))
        wide = self.name != "jax" or importlib.import_module("jax").config.jax_enable_x64
        return ["float16", *(["bfloat16"] if has_bfloat16 else []), "float32", *(["float64"] if wide else [])]

    def dtype(self, name: str) -> Any:
        """Return the library's dtype of that name."""
        if self.name in ("torch", "array_api_strict"):
            return getattr(self.xp, name)
        return np.dtype(importlib.import_module("ml_dtypes").bfloat16 if name == "bfloat16" else name)

    def array(self, values: Any, dtype: str = "") -> Any:
        """Return a new array, by default of the widest dtype."""
        wanted = self.dtype(dtype or self.dtypes[-1])
        if self.name == "torch":
            return self.xp.tensor(np.array(values), dtype=wanted)
        if self.name == "array_api_strict":
            return self.xp.asarray(np.array(values), dtype=wanted)
        host = np.array(values).astype(wanted)
        return host if self.name == "numpy" else self.xp.asarray(host)

    def numpy(self, x: Any) -> Any:
        """Return the values of an array in float64."""
        if self.name == "torch":
            x = x.detach().cpu().to(self.xp.float64).numpy()
        elif self.name == "cupy":
            x = x.get()
        elif self.name == "array_api_strict":
            x = np.from_dlpack(x)
        elif self.name == "dask" and not isinstance(x, np.ndarray | np.generic):
            x = x.compute()
        return np.asarray(x).astype(np.float64)  # a copy

    def model(self, shapes: Shapes, seed: int, dtype: str = "") -> dict[Hashable, Any]:
        """Return an array of each shape, of random numbers that depend on the seed only."""
        rng = np.random.default_rng([20170814, seed])
        return {name: self.array(rng.normal(size=shape), dtype) for name, shape in shapes.items()}

    def values(self, tree: Any) -> Any:
        """Return dicts with all arrays converted to NumPy's float64; lazy arrays are computed together."""
        if self.name == "dask":
            (tree,) = importlib.import_module("dask").compute(tree)
        return self._values(tree)

    def _values(self, tree: Any) -> Any:
        if isinstance(tree, Mapping):
            return {key: self._values(x) for key, x in tree.items()}
        return self.numpy(tree) if hasattr(tree, "dtype") and not isinstance(tree, np.generic) else tree


def installed(name: str) -> bool:
    """Return whether a library is installed; for CuPy, also whether there is a device."""
    if importlib.util.find_spec(name) is None:
        return False
    return name != "cupy" or _has_device()


def _has_device() -> bool:
    try:
        return bool(importlib.import_module("cupy").cuda.runtime.getDeviceCount())
    except Exception:
        return False


def assert_same(got: Any, want: Any, what: str) -> None:
    """Assert that dicts of NumPy arrays have equal names and values."""
    if isinstance(want, Mapping):
        assert list(got) == list(want), f"{what}: the names are {list(got)} instead of {list(want)}"
        for key in want:
            assert_same(got[key], want[key], f"{what}, {key!r}")
    else:
        assert np.array_equal(got, want, equal_nan=True), f"{what}: {_difference(got, want)}"


def assert_close(got: Mapping[Any, Any], want: Mapping[Any, Any], tolerance: float, what: str) -> None:
    """Assert that arrays differ by no more than the tolerance times the largest number of each."""
    for name, x in want.items():
        assert np.shape(got[name]) == np.shape(x), f"{what}, {name!r}: shape {np.shape(got[name])}, not {np.shape(x)}"
        with np.errstate(invalid="ignore", over="ignore"):  # of numbers that are not finite
            allowed = tolerance * np.max(np.abs(x), initial=0.0)
            assert np.all(np.abs(got[name] - x) <= allowed), f"{what}, {name!r}: {_difference(got[name], x)}"


def _difference(got: Any, want: Any) -> str:
    if np.shape(got) != np.shape(want) or not np.size(want):
        return f"{got!r} instead of {want!r}"
    distance = np.abs(np.subtract(got, want, dtype=float))
    place = np.unravel_index(int(np.argmax(np.nan_to_num(distance, nan=np.inf))), np.shape(want))
    found, wanted = float(np.asarray(got)[place]), float(np.asarray(want)[place])
    at = tuple(map(int, place))
    if not math.isfinite(wanted):
        return f"{found:.17g}, compared with {wanted:.17g}, which is not finite, at {at}"
    return f"{found:.17g} instead of {wanted:.17g} at {at}"
