"""The samples of the pages that are no doctests run too: each with the names that its page takes as given."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import xpopt

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.any_engine,
    pytest.mark.backends("numpy", "torch", "jax"),
    pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the pages are in the source tree alone"),
]


class AdamState(NamedTuple):
    mean: Any
    var: Any


class OfSamples(xpopt.OptimizerBase):
    lr: float = xpopt.setting(default=0.01)

    @staticmethod
    def rule(xp, param, grad, s, h):
        return param - h.lr * grad, s


def arrays():
    """Names of NumPy arrays, and of what is made without a framework."""
    W, dW = np.ones(2), np.full(2, 0.5)
    formula = dict.fromkeys(("m", "v", "p", "g"), W) | {"t": 1, "eps": 1e-8, "lr": 0.1}
    decays = dict.fromkeys(("b1", "beta1"), 0.9) | dict.fromkeys(("b2", "beta2"), 0.999)
    given = {"W": W, "dW": dW, "opt": xpopt.Adam(), "params": {"W": W}, "grads": {"W": dW}, "x0": W, "start": W}
    given |= {"weights": [W], "averaged": [dW], "fun": lambda x: (float(x @ x), 2 * x)}
    made = {"AdamState": AdamState, "Momentum": OfSamples, "NDArray": np.ndarray, "json": json, "hashlib": hashlib}
    return formula | decays | given | made | {"np": np, "xpopt": xpopt}


def tensors():
    """Names of PyTorch: a model, its loss, and an optimizer of it that has made a step."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    loss = model(torch.ones(4, 3)).square().mean()
    loss.backward(retain_graph=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    optimizer.step()
    return arrays() | {"torch": torch, "model": model, "loss": loss, "optimizer": optimizer}


def first_page():
    """Names of PyTorch, and gradients of a model of two arrays."""
    return tensors() | {"grads": {"W": np.ones((2, 3)), "b": np.ones(3)}}


def jax_arrays():
    """Names of JAX and optax: parameters, gradients, a loss, and a pure form."""
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    params = {"W": jax.numpy.ones(3)}
    pure = xpopt.Adam().pure()
    slots = pure.init(params)
    given = {"params": params, "grads": {"W": params["W"] / 2}, "pure": pure, "slots": slots, "batches": [1.0, 2.0]}
    given["loss"] = lambda params, batch=1.0: batch * (params["W"] ** 2).sum()
    return arrays() | given | {"jax": jax, "optax": optax}


def models():
    """Names of JAX, four models at once."""
    given = jax_arrays()
    return given | {"models": {"W": np.ones((4, 3), np.float32)}, "grads": {"W": np.ones((4, 3), np.float32)}}


def of(*libraries):
    """Return what gives the names of NumPy arrays, and skips without the libraries."""

    def given():
        for name in libraries:
            pytest.importorskip(name)
        return arrays() | {(root := name.partition(".")[0]): sys.modules[root] for name in libraries}

    return given


# Its samples need several processes or devices.
APART = "docs/guide/beyond_one_machine.md"

# By page, in order: what gives the names of each sample; None for one that needs a library that no session installs.
SAMPLES = {
    "README.md": [first_page, arrays],
    "docs/benchmarks.md": [arrays],
    "docs/guide/backends.md": [of("ml_dtypes"), arrays, tensors, jax_arrays, of("dask.array")],
    "docs/guide/checkpoints.md": [arrays, arrays],
    "docs/guide/coming_from.md": [tensors, tensors, jax_arrays, None, None, arrays],
    "docs/guide/complex.md": [jax_arrays],
    "docs/guide/embedding.md": [None],
    "docs/guide/hosts.md": [
        *(tensors, tensors, jax_arrays, jax_arrays),
        *(of("sklearn.neural_network"), of("sklearn.neural_network"), of("scipy.optimize"), of("scipy.optimize")),
        *(None, None, None, None, arrays, None),
    ],
    "docs/guide/own_rule.md": [arrays],
    "docs/guide/precision.md": [arrays],
    "docs/guide/pure.md": [jax_arrays, jax_arrays, models],
    "docs/guide/solvers.md": [of("scipy.optimize")],
}


def samples(page):
    """Return the samples of a page that are no doctests."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block for block in blocks if ">>>" not in block]


def test_each_sample_is_known():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "guide").glob("*.md")]
    found = {page.relative_to(ROOT).as_posix(): len(samples(page)) for page in pages}
    assert {page: n for page, n in found.items() if n and page != APART} == {
        page: len(names) for page, names in SAMPLES.items()
    }


@pytest.mark.parametrize(
    ("page", "number"), [(page, k) for page, names in SAMPLES.items() for k, given in enumerate(names) if given]
)
def test_a_sample_runs(page, number):
    names = SAMPLES[page][number]()
    exec(compile(samples(page)[number], f"{page}, sample {number}", "exec"), names)
