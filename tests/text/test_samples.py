"""The samples of the pages that are no doctests run too: each with the names that its page takes as given."""

from __future__ import annotations

import collections.abc
import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
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
    made = {"AdamState": AdamState, "Momentum": OfSamples, "NDArray": npt.NDArray, "json": json, "hashlib": hashlib}
    return formula | decays | given | made | {"np": np, "xpopt": xpopt}


def tensors():
    """Names of PyTorch: a model, its loss, and an optimizer of it that has made a step."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    loss = model(torch.ones(4, 3)).square().mean()
    loss.backward(retain_graph=True)
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=1e-3, weight_decay=0.01)
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


def optax_state():
    """Names of a training with optax."""
    given = jax_arrays()
    return given | {"state": given["optax"].adamw(1e-3).init(given["params"])}


def keras_model():
    """Names of Keras: a model that has made a step."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    optimizer = keras.optimizers.Adam()
    variables = model.trainable_variables
    grads = [keras.ops.ones(x.shape) for x in variables]
    optimizer.apply(grads, variables)
    return {"keras": keras, "model": model, "optimizer": optimizer, "grads": grads, "variables": variables}


def thinc_layer():
    """Names of thinc: a layer, and one of its weights."""
    thinc = pytest.importorskip("thinc.api")
    given = {name: np.ones((2, 3), np.float32) for name in ("W", "dW")}
    return given | {"thinc": sys.modules["thinc"], "layer": thinc.Linear(2, 3)}


def autograd_loss():
    """Names of autograd, and a loss."""
    autograd = pytest.importorskip("autograd")
    return arrays() | {"autograd": autograd, "loss": lambda params: (params["W"] ** 2).sum()}


def numpy_ml():
    """Names of numpy-ml, whose last release imports a name that Python 3.10 has removed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collections, "Hashable", collections.abc.Hashable, raising=False)
        pytest.importorskip("numpy_ml.neural_nets.layers")
    return arrays() | {"numpy_ml": sys.modules["numpy_ml"]}


def circuit():
    """Names of PennyLane, and a circuit of one qubit."""
    qml = pytest.importorskip("pennylane")

    @qml.qnode(qml.device("default.qubit", wires=1))
    def circuit(x):
        qml.RX(x[0], wires=0)
        return qml.expval(qml.PauliZ(0))

    return arrays() | {"qml": qml, "circuit": circuit, "x": np.array([0.1])}


def tensor_network():
    """Names of quimb: the overlap of two tensor networks, to be optimized."""
    quimb = pytest.importorskip("quimb.tensor")
    pytest.importorskip("autograd")

    def loss(state, target):
        return -((state @ target) ** 2) / (state @ state)

    constants = {"target": quimb.MPS_rand_state(4, 2, seed=1)}
    start = quimb.MPS_rand_state(4, 2, seed=2)
    return arrays() | {"tnopt": quimb.TNOptimizer(start, loss, loss_constants=constants, autodiff_backend="autograd")}


def process_group():
    """Names of PyTorch, in a process group of one process."""
    given = tensors()
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available():
        pytest.skip("this PyTorch has no process groups")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    return given


def communicator():
    """Names of a training over MPI, of one process."""
    pytest.importorskip("mpi4py")

    def compute_gradients(params, grads, batch):
        grads["W"][...] = params["W"] * batch
        return 1.0

    return {"params": {"W": np.ones(3)}, "batches_of_this_rank": [1.0, 2.0], "compute_gradients": compute_gradients}


def torchrun():
    """Names of PyTorch; the sample makes the process group."""
    from xpopt.sharded import Sharded

    return tensors() | {"Sharded": Sharded}


def sharded():
    """Names of an optimizer that has bound its parameters."""
    pytest.importorskip("safetensors")
    given = process_group()
    from torch import distributed

    from xpopt.sharded import Sharded

    opt = Sharded(xpopt.Adam(), distributed.group.WORLD)
    opt.bind({"W": given["torch"].ones(3)})
    opt.update_all()
    return {"opt": opt}


def fsdp():
    """Names of PyTorch, and the function that shards a model."""
    pytest.importorskip("torch.distributed.fsdp", reason="this PyTorch has no FSDP2")
    return process_group()


def dtensors():
    """Names of DTensors, and an optimizer of them."""
    torch = process_group()["torch"]
    tensor = pytest.importorskip("torch.distributed.tensor")
    from xpopt.sharded import DTensors

    mesh = tensor.init_device_mesh("cpu", (1,))
    params = {"W": tensor.distribute_tensor(torch.ones(3), mesh, [tensor.Shard(0)])}
    grads = {"W": tensor.distribute_tensor(torch.ones(3), mesh, [tensor.Shard(0)])}
    opt = DTensors(xpopt.Adam(), params)
    return {"xpopt": xpopt, "opt": opt, "params": params, "grads": grads, "loss": 1.0}


def shardings():
    """Names of JAX, with the loss as a number."""
    return jax_arrays() | {"loss": 1.0}


def chunks():
    """Names of Dask."""
    da = pytest.importorskip("dask.array")
    arrays_of = {name: da.ones(4, chunks=2) for name in ("params", "grads")}
    return {"opt": xpopt.Adam()} | {name: {"W": x} for name, x in arrays_of.items()}


# By page, in order: what gives the names of each sample. Without their libraries, samples are skipped.
SAMPLES = {
    "README.md": [first_page, arrays],
    "docs/benchmarks.md": [arrays],
    "docs/guide/backends.md": [of("ml_dtypes"), arrays, tensors, jax_arrays, of("dask.array")],
    "docs/guide/beyond_one_machine.md": [
        *(communicator, torchrun, sharded, fsdp),
        *(dtensors, dtensors, shardings, chunks),
    ],
    "docs/guide/checkpoints.md": [arrays, arrays],
    "docs/guide/coming_from.md": [tensors, tensors, jax_arrays, keras_model, thinc_layer, arrays],
    "docs/guide/complex.md": [jax_arrays],
    "docs/guide/embedding.md": [arrays],
    "docs/guide/hosts.md": [
        *(tensors, tensors, jax_arrays, jax_arrays),
        *(of("sklearn.neural_network"), of("sklearn.neural_network"), of("scipy.optimize"), of("scipy.optimize")),
        *(tensors, optax_state, keras_model, autograd_loss, numpy_ml, circuit, arrays, tensor_network),
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
    assert {page: n for page, n in found.items() if n} == {page: len(names) for page, names in SAMPLES.items()}


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """Run in an empty folder, as the only process; end a process group that a sample has made."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 0}.items():
        monkeypatch.setenv(name, str(value))
    yield
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras's variables
@pytest.mark.parametrize(("page", "number"), [(page, k) for page, names in SAMPLES.items() for k in range(len(names))])
def test_a_sample_runs(page, number, alone):
    names = SAMPLES[page][number]()
    exec(compile(samples(page)[number], f"{page}, sample {number}", "exec"), names)
