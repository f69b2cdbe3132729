"""Beside torch.optim, where the mathematics is the same."""

import importlib
from types import MappingProxyType

import numpy as np
import pytest
from _kit import problems
from _kit.table import BY_RULE

NOTHING = MappingProxyType({})
PEERS = {label: row for label, row in BY_RULE.items() if row.peer}
DECAYING = {label: row for label, row in PEERS.items() if row.peer.decays}


@pytest.fixture
def wide_numbers():
    """Let torch keep numbers beside tensors, such as NAdam's product, in float64."""
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.backends("torch")
@pytest.mark.usefixtures("wide_numbers")
@pytest.mark.parametrize("case", PEERS.values(), ids=PEERS)
@pytest.mark.parametrize("clip_norm", [None, 0.8])
@pytest.mark.parametrize("arrays", ["tensors", "ndarrays"])
def test_the_same_path(backend, case, clip_norm, arrays):
    walk_beside(backend.array if arrays == "tensors" else np.array, case, clip_norm)


@pytest.mark.backends("torch")
@pytest.mark.usefixtures("wide_numbers")
@pytest.mark.parametrize("case", DECAYING.values(), ids=DECAYING)
def test_what_goes_with_it(case):
    """What torch calls weight_decay is an L2 penalty, but for AdamW, where it is decoupled."""
    ours = "weight_decay" if case.peer.name == "AdamW" else "l2"
    walk_beside(
        np.array, case, 0.8, ours={ours: 0.125, "maximize": True}, theirs={"weight_decay": 0.125, "maximize": True}
    )


COMPLEX = {label: row for label, row in PEERS.items() if row.peer.name != "Rprop"}  # which orders gradients there


@pytest.mark.backends("torch")
@pytest.mark.usefixtures("wide_numbers")
@pytest.mark.parametrize("case", COMPLEX.values(), ids=COMPLEX)
def test_complex_numbers(case):
    """Pairs of reals there, too; and the norm is that of complex numbers."""
    walk_beside(lambda values, dtype: values, case, 0.8, form=lambda x: np.array(x[:34:2]) + 1j * np.array(x[1:34:2]))


def walk_beside(make, case, clip_norm, ours=NOTHING, theirs=NOTHING, form=np.array):
    """Walk here and in torch; `ours` and `theirs` are more options; `form` makes arrays of the numbers of a problem."""
    torch = importlib.import_module("torch")
    opt = case.optimizer(lr=0.1, **case.peer.ours, **ours, clip_norm=clip_norm)
    var = problems.variable(41, (7, 5))
    weight = torch.nn.Parameter(torch.tensor(form(var.start)))
    reference = getattr(torch.optim, case.peer.name)([weight], lr=0.1, foreach=False, **{**case.peer.theirs, **theirs})
    param, walked = make(form(var.start), "float64"), 0.0
    for gradient in var.gradients:
        before = weight.detach().numpy().copy()
        weight.grad = torch.tensor(form(gradient))
        if clip_norm is not None and float(weight.grad.norm()) > clip_norm:
            weight.grad *= clip_norm / weight.grad.norm()
        reference.step()
        param = opt.update(param, make(form(gradient), "float64"), "W")
        opt.step()
        want = weight.detach().numpy()
        walked += np.max(np.abs(want - before))
        error = np.max(np.abs(np.asarray(param) - want))
        assert error <= min(1e-12 * np.max(np.abs(want)), 1e-9 * walked)
