"""Train a model that FSDP2 has cut: torchrun --nproc-per-node=2 docs/examples/dtensor.py

Parameters, gradients and state lie in parts on the processes.
"""

import tempfile

import torch
import torch.distributed.checkpoint as dcp
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import xpopt
from xpopt.adapters.torch import Optimizer

STEPS = 50


def main():
    distributed.init_process_group("gloo")
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(20, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)
    )
    fully_shard(model, mesh=init_device_mesh("cpu", (ranks,)))
    optimizer = Optimizer(model.parameters(), xpopt.AdamW(lr=0.01, clip_global=1.0))

    torch.manual_seed(1 + rank)  # each process has data of its own
    for step in range(1, STEPS + 1):
        x = torch.randn(256, 20)
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x)[:, 0], torch.sin(x[:, 0]))
        loss.backward()
        optimizer.step()
        if step % 10 == 0 and rank == 0:
            print(f"step {step}: loss {loss.item():.4f}", flush=True)

    folder = [tempfile.mkdtemp()]
    distributed.broadcast_object_list(folder, 0)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    dcp.save(state, checkpoint_id=folder[0])  # each process writes its parts
    if rank == 0:
        print("saved; any number of processes can load it", flush=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
