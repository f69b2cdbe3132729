"""Beside torch.optim, where the mathematics is the same."""

import importlib

import numpy as np
import pytest
from _kit import problems

import xpopt

# torch keeps the rate outside SGD's velocity: at a constant rate that is the same.
PAIRS = [
    (xpopt.SGD(lr=0.1), "SGD", {"lr": 0.1}),
    (xpopt.SGD(lr=0.1, momentum=0.9), "SGD", {"lr": 0.1, "momentum": 0.9}),
    (xpopt.AdaGrad(lr=0.1, eps=1e-3), "Adagrad", {"lr": 0.1, "eps": 1e-3}),
    (xpopt.RMSProp(lr=0.1, decay=0.8, eps=1e-3), "RMSprop", {"lr": 0.1, "alpha": 0.8, "eps": 1e-3}),
    (
        xpopt.Adam(lr=0.1, decay1=0.8, decay2=0.99, eps=1e-3),
        "Adam",
        {"lr": 0.1, "betas": (0.8, 0.99), "eps": 1e-3},
    ),
]


@pytest.mark.backends("torch")
@pytest.mark.parametrize(
    ("opt", "theirs", "settings"), PAIRS, ids=[str(opt).partition(", clip")[0] for opt, _, _ in PAIRS]
)
@pytest.mark.parametrize("clip_norm", [None, 0.8])
@pytest.mark.parametrize("arrays", ["tensors", "ndarrays"])
def test_the_same_path(backend, opt, theirs, settings, clip_norm, arrays):
    torch = importlib.import_module("torch")
    make = backend.array if arrays == "tensors" else np.array
    opt = opt.copy()
    opt.set_params({"clip_norm": clip_norm})
    var = problems.variable(41, (7, 5))
    weight = torch.nn.Parameter(torch.tensor(var.start, dtype=torch.float64))
    reference = getattr(torch.optim, theirs)([weight], foreach=False, **settings)
    param, walked = make(var.start, "float64"), 0.0
    for gradient in var.gradients:
        before = weight.detach().numpy().copy()
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        if clip_norm is not None and float(weight.grad.norm()) > clip_norm:
            weight.grad *= clip_norm / weight.grad.norm()
        reference.step()
        param = opt.update(param, make(gradient, "float64"), "W")
        opt.step()
        want = weight.detach().numpy()
        walked += np.max(np.abs(want - before))
        error = np.max(np.abs(np.asarray(param) - want))
        assert error <= min(1e-12 * np.max(np.abs(want)), 1e-9 * walked)
