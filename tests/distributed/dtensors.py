"""DTensors on some processes of gloo: what `walk` and the others find is asserted in each of them."""

import contextlib
import copy
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from _kit.table import BY_RULE, ELSEWHERE, OF_MATRICES
from _kit.variants import VARIANTS
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

import xpopt
from xpopt.adapters.torch import Optimizer
from xpopt.sharded import DTensors

distributed.init_process_group("gloo")
RANK, SIZE = distributed.get_rank(), distributed.get_world_size()
MESH = init_device_mesh("cpu", (SIZE,))
SHAPES = {"W": (17, 4), "b": (3,), "one": (1,)}
"""Cut along their first axis: unevenly, and so that a process has nothing."""


def given(seed, dtype=torch.float32):
    numbers = np.random.default_rng(seed)
    return {name: torch.from_numpy(numbers.normal(size=shape)).to(dtype) for name, shape in SHAPES.items()}


def lay(tensors, *placements):
    return {name: distribute_tensor(x, MESH, placements or [Shard(0)]) for name, x in tensors.items()}


def check_same(found, wanted, **bounds):
    for name, x in wanted.items():
        whole = found[name].full_tensor() if isinstance(found[name], DTensor) else found[name]
        torch.testing.assert_close(whole.detach(), x, **(bounds or {"rtol": 0, "atol": 0}))


def walk(opt, steps, params, layout=()):
    """Make steps; return the parameters."""
    for k in range(opt.optimizer.cur_step, opt.optimizer.cur_step + steps):
        # the loss of one process is not that of another: their mean is 1 + k
        params = opt.update_all(params, lay(given(k + 1), *layout), 1.0 + k + (RANK - (SIZE - 1) / 2))
    return params


def check_walk(opt, params, layout=(), **bounds):
    """Make two steps, and the same on whole tensors; return the parameters."""
    plain, others = opt.optimizer.copy(), {name: x.full_tensor() for name, x in params.items()}
    params = walk(opt, 2, params, layout)
    for k in range(2):
        others = plain.update_all(others, given(k + 1), 1.0 + k)
    check_same(params, others, **bounds)
    return params


def every_method():
    """Each method and option steps as on whole tensors, or is refused by name; on whole copies all step."""
    cases = {label: row.make for label, row in BY_RULE.items()} | {
        cls.__name__: cls for cls in ELSEWHERE if cls not in OF_MATRICES
    }
    cases |= {f"Adam, {name}": lambda options=options: xpopt.Adam(**options) for name, options in VARIANTS.items()}
    refused = []
    for label, make in cases.items():
        params = given(0)
        with contextlib.suppress(ValueError):
            check_walk(DTensors(make(), lay(params)), lay(params), rtol=1e-6, atol=1e-9)
            continue
        with pytest.raises(ValueError, match=r"is cut, .*redistribute"):
            DTensors(make(), lay(params))
        refused.append(label)
    couples = {label for label, row in BY_RULE.items() if row.couples}
    assert couples <= set(refused), couples - set(refused)
    assert {"Adafactor", "Adam, clip_norm"} <= set(refused), refused
    assert {"Adam", "SGD", "Lion", "DoG"} <= set(cases) - set(refused), refused
    whole = lay(given(0), Replicate())
    check_walk(DTensors(xpopt.LAMB(clip_norm=0.5), whole), whole, [Replicate()])


def one_decision():
    """An element that is not finite on the last process: all leave the step out; a schedule reads one loss."""
    opt = DTensors(xpopt.Adam(nonfinite="skip", clip_global=0.5, lr_scheduler="king(patience=2)"), lay(given(0)))
    params = check_walk(opt, lay(given(0)), rtol=1e-6, atol=1e-8)
    broken = given(9)
    broken["W"][-1, -1] = torch.inf
    kept = opt.update_all(params, lay(broken), 1.0)
    check_same(kept, {name: x.full_tensor() for name, x in params.items()})
    assert opt.optimizer.skipped == 1
    rates = [None] * SIZE
    for k in range(8):
        kept = opt.update_all(kept, lay(given(k)), float(RANK + k % 3))
    distributed.all_gather_object(rates, opt.optimizer.lr_scheduler.state())
    assert all(rate == rates[0] for rate in rates), rates
    opt.optimizer.set_params({"nonfinite": "raise"})
    grads = lay(broken)
    with pytest.raises(FloatingPointError, match="'W'"):
        opt.update_all(kept, grads, 1.0)


def refusals():
    params, before = lay(given(0)), given(0)
    opt = DTensors(xpopt.Adam(), params)
    grads = lay(given(1))
    part = DTensor.from_local(torch.ones(17, 4), MESH, [Partial()])
    with pytest.raises(TypeError, match=r"gradient of 'W' is Partial.*redistribute"):
        opt.update_all(params, {**grads, "W": part}, out=params)
    whole = distribute_tensor(torch.ones(17, 4), MESH, [Replicate()])
    with pytest.raises(ValueError, match="redistribute"):
        opt.update_all(params, {**grads, "W": whole}, out=params)
    with pytest.raises(TypeError, match=r"DTensors\(opt, params\)"):
        xpopt.Adam().update_all(params, grads)
    for take in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"neither copied nor pickled; state_dict\(\)"):
            take(opt)
    with pytest.raises(TypeError, match="wanted DTensors"):
        DTensors(xpopt.Adam(), given(0))
    if SIZE > 1:  # one of them fails: all say so
        with pytest.raises(ValueError, match="rank 1"):
            opt.update_all(params, grads if RANK == 0 else {"W": grads["W"]}, out=params)
        here = "'W' is" if RANK == 0 else "none is"
        for options in ({}, {"nonfinite": "skip"}, {"clip_global": 1.0}):
            for cur_loss in (None, 1.0):
                one, some = DTensors(xpopt.Adam(**options), params), {**grads, "W": None if RANK == 0 else grads["W"]}
                with pytest.raises(ValueError, match=f"None on some processes.*here {here}"):
                    one.update_all(params, some, cur_loss, out=params)
        assert (one.optimizer.cur_step, dict(one.optimizer.cache)) == (0, {})
    check_same(params, before)
    assert (opt.optimizer.cur_step, dict(opt.optimizer.cache)) == (0, {})


def fsdp():
    """An optimizer of PyTorch steps the parameters that FSDP2 has made."""
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    models = [torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    fully_shard(models[0], mesh=MESH)
    ours = Optimizer(models[0].parameters(), xpopt.Adam(lr=0.01, eps=1e-8))
    theirs = torch.optim.Adam(models[1].parameters(), lr=0.01, eps=1e-8)
    for k in range(3):
        x = torch.from_numpy(np.random.default_rng(k).normal(size=(4, 5))).float()
        for model, optimizer in zip(models, (ours, theirs), strict=True):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    for mine, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(mine.full_tensor(), other, rtol=1e-5, atol=1e-7)
    again = Optimizer(models[0].parameters(), xpopt.Adam())
    again.load_state_dict(ours.state_dict())
    assert again.optimizer.cache[(0, 0)]["t"] == 3


def save(folder):
    params = walk(opt := DTensors(xpopt.RMSProp(momentum=0.5), lay(given(0))), 3, lay(given(0)))
    dcp.save({"params": params, "optimizer": opt}, checkpoint_id=folder)
    final = {name: x.full_tensor() for name, x in walk(opt, 2, params).items()}
    if RANK == 0:
        torch.save(final, folder / "final.pt")


def load(folder):
    """Read what another number of processes has written, and go on as these did."""
    params = lay(given(5))
    opt = DTensors(xpopt.RMSProp(lr=0.5, momentum=0.1), params)
    dcp.load({"params": params, "optimizer": opt}, checkpoint_id=folder)
    assert opt.optimizer.cur_step == 3
    check_same(walk(opt, 2, params), torch.load(folder / "final.pt"))


PARTS = {"every_method": every_method, "one_decision": one_decision, "refusals": refusals, "fsdp": fsdp}
PARTS |= {"save": lambda: save(Path(sys.argv[1])), "load": lambda: load(Path(sys.argv[1]))}
for part in sys.argv[2:]:
    PARTS[part]()
distributed.destroy_process_group()
