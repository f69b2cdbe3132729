"""What each rank runs: ``ranks.py mpi|torch TASK FOLDER [ARGUMENT]``. A check that fails ends all ranks."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import xpopt
from xpopt.sharded import Sharded, _files

SHAPES = {"a": (90, 101), "bias": (5003,), "scalar": (), "empty": (0, 3), "v": (7,)}
STEPS = 4
OPTIMIZERS = {
    "SGD": lambda **more: xpopt.SGD(lr=0.1, momentum=0.9, **more),
    "Adam": lambda **more: xpopt.Adam(lr=0.1, **more),
    "RMSProp": lambda **more: xpopt.RMSProp(lr=0.1, **more),
    "Lion": lambda **more: xpopt.Lion(lr=0.1, **more),
}
OPTIONS = {
    "clip": {"clip_norm": 0.5},
    "skip": {"nonfinite": "skip"},
    "master": {"master": True},
    "stochastic": {"rounding": "stochastic", "seed": 3},
}


class Mpi:
    """NumPy's arrays over MPI."""

    def __init__(self) -> None:
        from mpi4py import MPI

        self.comm = MPI.COMM_WORLD
        self.rank, self.size = self.comm.rank, self.comm.size

    def array(self, x, dtype):
        if dtype == "bfloat16":
            import ml_dtypes

            dtype = ml_dtypes.bfloat16
        return np.asarray(x, np.float32).astype(dtype)

    def wide(self, x):
        return np.asarray(x, np.float64 if x.dtype == np.float64 else np.float32)


class Torch:
    """Tensors over gloo."""

    def __init__(self) -> None:
        import torch
        from torch import distributed

        torch.set_num_threads(1)
        distributed.init_process_group("gloo")
        self.comm, self._torch = distributed.group.WORLD, torch
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def array(self, x, dtype):
        return self._torch.tensor(np.asarray(x, np.float32)).to(getattr(self._torch, dtype))

    def wide(self, x):
        return x.to(self._torch.float64 if x.dtype == self._torch.float64 else self._torch.float32)


def filled(on, seed, dtype):
    numbers = np.random.default_rng(seed)
    return {name: on.array(numbers.normal(0, 0.5, shape), dtype) for name, shape in SHAPES.items()}


def write(target, values):
    for name, x in values.items():
        target[name][...] = x


def mean(on, step, dtype):
    """Return the mean over ranks, added up in their order."""
    each = [filled(on, [step, rank], dtype) for rank in range(on.size)]
    sums = {name: sum((on.wide(x[name]) for x in each[1:]), on.wide(each[0][name])) for name in SHAPES}
    return {name: on.wide(x / on.size) for name, x in sums.items()}


def same(params, expected):
    for name, x in expected.items():
        assert (params[name] == x).all(), f"{name}: {params[name]}, and in one process {x}"


def bits(on, make, dtype):
    """In the order of the ranks there are the bits of one process."""
    opt, one = Sharded(make(), on.comm, order="ranks"), make()
    params, grads = opt.bind(filled(on, 0, dtype))
    alone = filled(on, 0, dtype)
    for step in range(STEPS):
        write(grads, filled(on, [step, on.rank], dtype))
        assert opt.update_all() is params
        alone = one.update_all(alone, mean(on, step, dtype))
    same(params, alone)
    return opt, params, grads


def short(on, folder, _):
    """A little of all: bits, a norm of the model, a step that is skipped, an error, a save and a load."""
    if isinstance(on, Torch):
        module(on, folder, _)
    make = OPTIMIZERS["Adam"]
    for dtype in ("float32", "bfloat16"):
        bits(on, make, dtype)
    opt, params, grads = bits(on, lambda: make(clip_norm=0.5, nonfinite="skip"), "float32")
    before = {name: on.array(x, "float32") for name, x in params.items()}
    write(grads, filled(on, 9, "float32"))
    if on.rank == 1:
        grads["bias"][0] = np.inf
    opt.update_all()
    same(params, before)
    assert opt.skipped == 1
    with pytest.raises(TypeError, match="rank 1: cur_loss is a str"):
        opt.update_all("none" if on.rank == 1 else 1.0)
    same(params, before)
    assert opt.cur_step == STEPS
    opt.save(folder)
    again = Sharded(make(clip_norm=0.5, nonfinite="skip"), on.comm, order="ranks")
    others, their_grads = again.bind(before)
    again.load(folder)
    for of in (grads, their_grads):
        write(of, filled(on, [7, on.rank], "float32"))
    opt.update_all()
    again.update_all()
    same(others, params)
    fast = Sharded(make(clip_global=0.5, average=xpopt.EMA(0.5)), on.comm)  # as the library adds up
    params, grads = fast.bind(filled(on, 0, "float32"))
    one, alone = make(clip_global=0.5, average=xpopt.EMA(0.5)), filled(on, 0, "float32")
    for step in range(STEPS):
        write(grads, filled(on, [step, on.rank], "float32"))
        fast.update_all()
        alone = one.update_all(alone, mean(on, step, "float32"))
    for found, expected in ((params, alone), (fast.averaged(), one.averaged(alone))):
        for name, x in expected.items():
            np.testing.assert_allclose(np.asarray(found[name]), np.asarray(x), rtol=1e-5, atol=1e-5)


def module(on, folder, _):
    """Gradients of a module are found wherever `zero_grad` lets them lie."""
    import torch

    for keep in (True, False):
        torch.manual_seed(0)
        sides = [torch.nn.Linear(5, 3) for _ in range(2)]
        sides[1].load_state_dict(sides[0].state_dict())
        opt, one = Sharded(xpopt.SGD(lr=0.1), on.comm), torch.optim.SGD(sides[1].parameters(), lr=0.1)
        opt.bind(dict(sides[0].named_parameters()))
        for step in range(3):
            x = torch.tensor(np.random.default_rng(step).normal(0, 1, (on.size, 4, 5)).astype(np.float32))
            sides[0].zero_grad(set_to_none=not keep)
            sides[1].zero_grad()
            (sides[0](x[on.rank]) ** 2).mean().backward()
            (sides[1](x) ** 2).mean().backward()
            opt.update_all()
            one.step()
        for mine, other in zip(sides[0].parameters(), sides[1].parameters(), strict=True):
            torch.testing.assert_close(mine, other)
            assert (mine.grad != 0).any()
    misplaced(on)


def misplaced(on):
    """What would not be updated, or not be sent, is an error on all ranks."""
    import torch

    def raises(text, tensors, disturb=lambda: None):
        opt, raised = Sharded(xpopt.SGD(), on.comm), None
        try:
            opt.bind(tensors)
            disturb()
            opt.update_all()
        except ValueError as error:
            raised = error
        assert text in str(raised), raised

    layer = torch.nn.Linear(2, 2)
    raises("rank 1: Sharded: parameter 'weight' is no longer", dict(layer.named_parameters()), lambda: moved(on, layer))
    table = torch.nn.Embedding(3, 2, sparse=True)
    raises("layout torch.sparse_coo", {"E": table.weight}, lambda: sparse(torch, table))
    bias = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    raises("'b' is no longer a view", {"W": torch.nn.Parameter(torch.ones(3)), "b": bias}, bias.requires_grad_)
    raises("'a' and 'b' are the same tensor", {"a": layer.weight, "b": layer.weight})


def sparse(torch, table):
    table.zero_grad()
    table(torch.tensor([1])).sum().backward()


def moved(on, layer):
    if on.rank == 1:
        layer.weight.data = layer.weight.data.clamp(-0.1, 0.1)


def grid(on, folder, _):
    """Every optimizer, dtype and option."""
    for optimizer in OPTIMIZERS.values():
        for dtype in ("float32", "float64", "float16", "bfloat16"):
            for options in OPTIONS.values():
                bits(on, lambda optimizer=optimizer, options=options: optimizer(**options), dtype)


def trained(on, steps):
    opt = Sharded(OPTIMIZERS["Adam"](), on.comm)
    params, grads = opt.bind(filled(on, 0, "float32"))
    for step in steps:
        write(grads, filled(on, step, "float32"))  # the same on all: the mean is exact
        opt.update_all()
    return opt, params, grads


def save(on, folder, _):
    opt, params, _ = trained(on, range(2))
    opt.save(folder)
    if on.rank == 0:
        np.savez(Path(folder) / "params.npz", **{name: np.asarray(x) for name, x in params.items()})


def load(on, folder, _):
    """Any number of ranks goes on as those that never stopped."""
    opt = Sharded(OPTIMIZERS["Adam"](), on.comm)
    with np.load(Path(folder) / "params.npz") as file:
        params, grads = opt.bind({name: on.array(file[name], "float32") for name in SHAPES})
    opt.load(folder)
    write(grads, filled(on, 2, "float32"))
    opt.update_all()
    if on.size != 3:  # the mean of three equal numbers is not exact
        one, alone = OPTIMIZERS["Adam"](), filled(on, 0, "float32")
        for step in range(3):
            alone = one.update_all(alone, filled(on, step, "float32"))
        same(params, alone)


PHASES = {
    "reduce": ("processes", "reduce"),
    "decide": ("processes", "gather"),
    "write": ("opt", "update_all"),
    "share": ("processes", "share"),
    "file": ("files", "write"),
    "index": ("files", "sync_folder"),
}


def kill(on, folder, phase):
    """The last rank is killed in a phase of a step or of a save, after a save that was complete."""
    opt, _, grads = trained(on, range(2))
    where, name = PHASES[phase]
    target = {"processes": opt._processes, "opt": opt._opt, "files": _files.file}[where]
    whole = getattr(target, name)

    def killed(*given, **more):
        if phase in ("write", "file"):  # after what it does: others have not come as far
            whole(*given, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    if on.rank == (0 if phase == "index" else on.size - 1):
        setattr(target, name, killed)
    write(grads, filled(on, 2, "float32"))
    print("killing", flush=True)
    opt.update_all()
    opt.save(folder)
    print("not killed", flush=True)


def fail(on, folder, _):
    """One rank fails between two steps; all raise, and end."""
    opt, _, _ = trained(on, range(2))
    with opt.shared_errors():
        if on.rank == 1:
            raise OSError("no such batch")
    opt.update_all()


if __name__ == "__main__":
    library, task, folder, *argument = sys.argv[1:]
    on = {"mpi": Mpi, "torch": Torch}[library]()
    globals()[task](on, folder, *(argument or [None]))
    if library == "torch":
        from torch import distributed

        distributed.barrier()
        distributed.destroy_process_group()
        sys.stdout.flush()
        os._exit(0)  # threads of gloo may abort a process that ends by itself, after all is done
