"""The array libraries as the tests see them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

NAMESPACES = {
    "numpy": "array_api_compat.numpy",
    "numpy-readonly": "array_api_compat.numpy",
    "array-api-strict": "array_api_strict",
    "torch": "array_api_compat.torch",
    "jax": "jax.numpy",
    "jax-x64": "jax.numpy",
    "dask": "array_api_compat.dask.array",
    "cupy": "array_api_compat.cupy",
}


@dataclass(frozen=True)
class Backend:
    """An array library as the tests see it."""

    name: str
    xp: Any

    @property
    def library(self) -> str:
        """The library's name in messages of the package."""
        return {"array-api-strict": "array_api_strict"}.get(self.name, self.name.partition("-")[0])

    @property
    def mutable(self) -> bool:
        """Whether its arrays can be written."""
        return self.library not in ("jax", "dask")

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The floating dtypes it has."""
        if self.library == "array_api_strict":
            return ("float32", "float64")
        if self.name == "jax":
            return ("float16", "bfloat16", "float32")
        if self.library == "dask":
            return ("float16", "float32", "float64")
        if self.library == "numpy" and importlib.util.find_spec("ml_dtypes") is None:
            return ("float16", "float32", "float64")
        return ("float16", "bfloat16", "float32", "float64")

    @property
    def widest(self) -> str:
        """The most precise dtype it has."""
        return self.dtypes[-1]

    def dtype(self, name: str) -> Any:
        """Return the library's dtype of that name."""
        if self.library not in ("numpy", "cupy", "jax", "dask"):
            return getattr(self.xp, name)
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)

    def array(self, values: Any, dtype: str | None = None) -> Any:
        """Return a new array of `values`; read-only where the backend is about that."""
        values = np.array(values, dtype=np.float64)
        wanted = self.dtype(dtype or self.widest)
        if self.library in ("numpy", "cupy", "jax", "dask"):
            values = values.astype(wanted)
            x = values if self.library == "numpy" else self.xp.asarray(values)
        elif self.library == "torch":
            x = self.xp.tensor(values, dtype=wanted)
        else:
            x = self.xp.asarray(values, dtype=wanted, copy=True)
        if self.name == "numpy-readonly":
            x.flags.writeable = False
        return x

    @property
    def widest_complex(self) -> str:
        """The most precise dtype of complex numbers that it has."""
        return "complex128" if self.widest == "float64" else "complex64"

    def complex(self, values: Any, dtype: str | None = None) -> Any:
        """Return a new array of complex numbers; read-only where the backend is about that."""
        values = np.array(values, dtype or self.widest_complex)
        if self.library == "numpy":
            values.flags.writeable = self.name != "numpy-readonly"
            return values
        return self.xp.tensor(values) if self.library == "torch" else self.xp.asarray(values, copy=True)

    def exactly(self, x: Any) -> np.ndarray[Any, Any]:
        """Return the values of an array in its own dtype, on the host."""
        if self.library == "cupy":
            return x.get()
        if self.library == "torch":
            return x.detach().numpy().copy()
        return np.array(np.from_dlpack(x) if self.library == "array_api_strict" else self.computed(x))

    def writable(self, values: Any, dtype: str | None = None) -> Any:
        """Return a new array of `values` that may be written, also where inputs are read-only."""
        x = self.array(values, dtype)
        if self.library == "numpy":
            x.flags.writeable = True
        return x

    def numpy(self, x: Any) -> np.ndarray[Any, Any]:
        """Return the values of an array in float64."""
        if self.library == "torch":
            return x.detach().to(dtype=self.xp.float64).numpy().copy()
        if self.library == "cupy":
            return x.get().astype(np.float64)
        if self.library == "array_api_strict":
            return np.array(np.from_dlpack(x), dtype=np.float64)
        return np.array(self.computed(x)).astype(np.float64)

    def computed(self, value: Any) -> Any:
        """Return the same containers, whose lazy arrays have their values: all in one go, which is far faster."""
        if self.library != "dask":
            return value
        with np.errstate(all="ignore"):  # its arithmetic runs here
            return importlib.import_module("dask").compute(value, scheduler="synchronous", optimize_graph=False)[0]
