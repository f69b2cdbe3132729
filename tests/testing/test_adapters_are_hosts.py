"""The adapters use an optimizer as hosts are to. They copy it: each model is found by the optimizer that came."""

import numpy as np
import pytest

from xpopt.testing import check_host


@pytest.mark.backends("torch")
def test_torch(backend):
    torch = pytest.importorskip("torch")
    from xpopt.adapters.torch import Optimizer

    models = {}

    def update(optimizer, params, grads):
        if optimizer not in models:
            leaves = {name: torch.nn.Parameter(torch.tensor(x)) for name, x in params.items()}
            models[optimizer] = leaves, Optimizer(leaves.items(), optimizer)
        leaves, host = models[optimizer]
        for name, leaf in leaves.items():
            leaf.grad = torch.tensor(grads[name])
        host.step()
        return {name: leaf.detach().numpy().copy() for name, leaf in leaves.items()}

    check_host(update, skip=["resume"])


@pytest.mark.backends("numpy")
def test_thinc(backend):
    pytest.importorskip("thinc", reason="the host is thinc")
    from xpopt.adapters.thinc import Optimizer

    models = {}

    def update(optimizer, params, grads):
        host = models.setdefault(optimizer, Optimizer(optimizer))
        new = {name: np.array(host((0, name), x, grads[name].copy())[0]) for name, x in params.items()}
        host.step_schedules()
        return new

    check_host(update, skip=["resume", "errors"])
