"""Train a model of PyTorch on several processes: torchrun --nproc-per-node=2 docs/examples/sharded_torch.py

Each process computes gradients of its own data, and keeps its share of the optimizer's state.
"""

import torch
from torch import distributed

import xpopt
from xpopt.sharded import Sharded

STEPS = 50


def main():
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank = distributed.get_rank()
    device = (
        torch.device("cuda", rank % torch.cuda.device_count())
        if torch.cuda.is_available()
        else "cpu"
    )
    if torch.cuda.is_available():
        torch.cuda.set_device(device)

    torch.manual_seed(rank)  # data differ; parameters are those of rank 0
    model = torch.nn.Sequential(
        torch.nn.Linear(20, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)
    ).to(device)

    opt = Sharded(xpopt.AdamW(lr=0.01, clip_global=1.0), distributed.group.WORLD)
    params, grads = opt.bind(dict(model.named_parameters()))
    for name, p in model.named_parameters():
        p.data, p.grad = (
            params[name],
            grads[name],
        )  # backward adds to p.grad where it lies

    for step in range(1, STEPS + 1):
        with opt.shared_errors():
            x = torch.randn(256, 20, device=device)
            model.zero_grad(set_to_none=False)  # else each gradient is copied
            loss = torch.nn.functional.mse_loss(model(x)[:, 0], torch.sin(x[:, 0]))
            loss.backward()
        opt.update_all(loss.detach())
        if step % 10 == 0 and rank == 0:
            print(f"step {step}: loss {loss.item():.4f}", flush=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
