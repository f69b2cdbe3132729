"""Train a two-layer network on handwritten digits with some optimizers and several schedules, and compare them.

    python docs/examples/train_digits.py [--optimizers NAME,NAME] [--schedule TEXT] [--backend numpy|cupy] [--epochs N]
                                         [--seed N] [--output PNG] [--resume]

Every image that a step sees has noise of its own, so gradients never agree, and a rate that stays keeps the loss up.

Forward and backward pass are written by hand, on `xp`: the array namespace that `xpopt.default_namespace()` finds,
CuPy on a machine with a CUDA device and NumPy elsewhere. Nothing in the mathematics knows which of the two it is.

All runs begin with the same weights and see the same batches: only the optimizer and the schedule differ. Until the end
a checkpoint is kept beside the plot: killed at any moment, the program goes on with `--resume` to the same figures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import xpopt
from xpopt.schedulers import (
    Schedule,
    constant,
    cosine,
    exponential,
    make_schedule,
    warmup,
)

HIDDEN = 64  # width of the hidden layer
BATCH = 32  # images in a step
TRAINING = 1437  # images to train with, four fifths of all
NOISE = np.float32(0.3)  # its standard deviation, of pixels from 0 to 1

OPTIMIZERS: dict[
    str, xpopt.OptimizerBase
] = {  # with the rates that suit them here; every run takes a copy
    "SGD": xpopt.SGD(lr=0.2, momentum=0.9),
    "AdaGrad": xpopt.AdaGrad(lr=0.3),
    "RMSProp": xpopt.RMSProp(lr=0.02),
    "Adam": xpopt.Adam(lr=0.03),
}
OTHERS: dict[
    str, dict[str, float]
] = {  # what others need here that their defaults are not
    "AdamW": {"lr": 0.005},
    "AMSGrad": {"lr": 0.005},
    "NAdam": {"lr": 0.005},
    "RAdam": {"lr": 0.005},
    "Adamax": {"lr": 0.01},
    "AdaBelief": {"lr": 0.005},
    "Yogi": {"lr": 0.02},
    "Adan": {"lr": 0.005},
    "ADOPT": {"lr": 0.005},
    "AdEMAMix": {"lr": 0.002},
    "Rprop": {
        "lr": 0.001,
        "up": 1.05,
        "most": 0.01,
    },  # which is made for gradients of all the data, not of batches
    "FTRL": {"lr": 0.5},
    "Lion": {"lr": 0.0005},
    "Signum": {"lr": 0.0005},
    "ScheduleFreeAdamW": {"lr": 0.01},
}
# The palette of Okabe and Ito, which colour-blind readers can tell apart, and dashes that survive printing in grey.
STYLES: dict[str, dict[str, Any]] = {
    "constant": {"color": "#000000", "linewidth": 1.4},
    "exponential": {"color": "#D55E00", "linewidth": 1.6, "linestyle": (0, (5, 1.5))},
    "noam": {"color": "#0072B2", "linewidth": 1.6, "linestyle": (0, (4, 1, 1, 1))},
    "king": {"color": "#009E73", "linewidth": 2.4, "linestyle": (0, (1, 1))},
    "cosine": {"color": "#CC79A7", "linewidth": 1.8},
    "yours": {"color": "#E69F00", "linewidth": 1.8, "linestyle": (0, (8, 1))},
}
Params = dict[str, Any]  # arrays by name
Report = Callable[[float], None]


@dataclass(frozen=True)
class Result:
    """What one run leaves."""

    optimizer: str
    schedule: str
    losses: list[float]  # the mean over each epoch
    rates: list[float]  # of each step
    accuracy: float
    seconds: float


def schedules(epoch: int, steps: int) -> dict[str, Schedule | xpopt.SchedulerBase]:
    """Return what a rate is multiplied by, with `epoch` steps in an epoch and `steps` in all."""
    rise = 3 * epoch
    peak = (
        HIDDEN * rise
    ) ** -0.5  # what Noam reaches with a factor of 1, at the end of its warm-up
    return {
        "constant": constant(1.0),
        "exponential": exponential(1.0, 0.1, every=steps),
        "noam": xpopt.NoamScheduler(
            model_dim=HIDDEN, scale_factor=1 / peak, warmup_steps=rise
        ),
        "king": xpopt.KingScheduler(initial_lr=1.0, patience=rise, decay=0.99),
        "cosine": warmup(steps=rise) >> cosine(steps=max(1, steps - rise)),
    }


def load(xp: Any, seed: int) -> list[Any]:
    """Return training and test images, (n, 64) in [0, 1], then training and test digits, (n, 10) one-hot."""
    digits = load_digits()
    one_hot = np.eye(10)[digits.target]
    parts = train_test_split(
        digits.data / 16,
        one_hot,
        test_size=0.2,
        random_state=seed,
        stratify=digits.target,
    )
    return [xp.asarray(part, dtype=xp.float32) for part in parts]


def first_weights(xp: Any, rng: np.random.Generator) -> Params:
    """Return the weights at the start, normal and scaled by the width that comes in, and biases of 0."""
    values = {
        "W1": rng.normal(size=(64, HIDDEN)) / 64**0.5,
        "b1": np.zeros(HIDDEN),
        "W2": rng.normal(size=(HIDDEN, 10)) / HIDDEN**0.5,
        "b2": np.zeros(10),
    }
    return {name: xp.asarray(value, dtype=xp.float32) for name, value in values.items()}


def forward(xp: Any, params: Params, x: Any) -> tuple[Any, Any]:
    """Return the hidden layer and the ten scores of each image of `x`."""
    hidden = xp.tanh(x @ params["W1"] + params["b1"])
    return hidden, hidden @ params["W2"] + params["b2"]


def loss_and_gradients(xp: Any, params: Params, x: Any, y: Any) -> tuple[Any, Params]:
    """Return the mean cross-entropy of the softmax, and its gradient with respect to each parameter."""
    hidden, z = forward(xp, params, x)
    z = z - xp.max(z, axis=1, keepdims=True)  # alters nothing, but exp cannot overflow
    log_p = z - xp.log(xp.sum(xp.exp(z), axis=1, keepdims=True))
    loss = -xp.sum(y * log_p) / x.shape[0]

    dz = (xp.exp(log_p) - y) / x.shape[0]
    da = (dz @ params["W2"].T) * (
        1 - hidden * hidden
    )  # the derivative of tanh is 1 - tanh**2
    grads = {
        "W1": x.T @ da,
        "b1": xp.sum(da, axis=0),
        "W2": hidden.T @ dz,
        "b2": xp.sum(dz, axis=0),
    }
    return loss, grads


def batches(
    xp: Any, x: Any, y: Any, rng: np.random.Generator
) -> Iterator[tuple[Any, Any]]:
    """Yield the batches of one epoch: `rng` draws order and noise, which are sent to the device once."""
    order = xp.asarray(rng.permutation(x.shape[0]))
    noise = xp.asarray(NOISE * rng.standard_normal(x.shape, dtype=np.float32))
    x, y = xp.take(x, order, axis=0) + noise, xp.take(y, order, axis=0)
    for start in range(0, x.shape[0] - BATCH + 1, BATCH):
        yield x[start : start + BATCH, :], y[start : start + BATCH, :]


def made(name: str) -> xpopt.OptimizerBase:
    """Return an optimizer by the name of its class, with a rate that suits it here."""
    return (
        OPTIMIZERS[name].copy()
        if name in OPTIMIZERS
        else xpopt.make_optimizer({"id": name, **OTHERS.get(name, {})})
    )


class Checkpoint:
    """One file with all that a run needs to go on, and the results of the runs before it; replaced as a whole."""

    def __init__(self, path: Path, every: int, settings: dict[str, Any]) -> None:
        self.path, self.every, self.settings = path, every, settings
        self.results: list[Result] = []
        self.run: dict[str, Any] | None = None  # the one that was under way
        self.arrays: dict[str, Any] = {}

    def save(
        self,
        opt: xpopt.OptimizerBase,
        params: Params,
        rng: np.random.Generator,
        **curves: Any,
    ) -> None:
        """Write where a run is."""
        state = opt.state_dict()
        run = {"optimizer": state["header"], "rng": rng.bit_generator.state, **curves}
        text = json.dumps(
            [self.settings, [asdict(result) for result in self.results], run]
        )
        arrays = {
            **state["arrays"],
            **{f"parameter {name}": x for name, x in params.items()},
        }
        part = self.path.with_suffix(".part")
        with open(part, "wb") as file:
            np.savez(
                file,
                text=text,
                **{
                    key: x.get() if hasattr(x, "get") else x
                    for key, x in arrays.items()
                },
            )
        part.replace(
            self.path
        )  # whenever the program is killed, there is the old file or the new one

    def load(self) -> None:
        """Read where a run was, if it was; a ValueError says that it had other settings."""
        if self.path.exists():
            with np.load(self.path) as file:
                self.arrays = dict(file)
            settings, results, self.run = json.loads(str(self.arrays.pop("text")))
            if settings != self.settings:
                raise ValueError(
                    f"{self.path} is of a program with {settings}; give it the same"
                )
            self.results = [Result(**result) for result in results]

    def resume(
        self,
        xp: Any,
        opt: xpopt.OptimizerBase,
        params: Params,
        rng: np.random.Generator,
    ) -> tuple[Any, ...]:
        """Bring a run that begins to where it was when the program ended; return its parameters and curves."""
        if self.run is None:
            return params, [], [], 0.0
        run, arrays, self.run = self.run, self.arrays, None
        params = {name: xp.asarray(arrays.pop(f"parameter {name}")) for name in params}
        opt.load_state_dict({"header": run["optimizer"], "arrays": arrays}, like=params)
        rng.bit_generator.state = run["rng"]
        return params, run["losses"], run["rates"], run["seconds"]


def train(
    xp: Any,
    data: list[Any],
    optimizer: str,
    schedule: str,
    epochs: int,
    seed: int,
    report: Report,
    checkpoint: Checkpoint | None = None,
    yours: str | None = None,
) -> Result:
    """Train from the start or from a checkpoint; `report` gets each epoch's loss."""
    x, x_test, y, y_test = data
    epoch = x.shape[0] // BATCH
    opt = made(optimizer)
    own = yours and schedule == "yours"
    factor = make_schedule(yours) if own else schedules(epoch, epochs * epoch)[schedule]
    opt.set_params({"lr": opt.lr * factor})
    rng = np.random.default_rng(seed)
    params = first_weights(xp, rng)
    losses, rates, seconds = [], [], 0.0
    if checkpoint is not None:
        params, losses, rates, seconds = checkpoint.resume(xp, opt, params, rng)
    for loss in losses:
        report(loss)
    begin = time.perf_counter() - seconds
    while len(losses) < epochs:
        total = 0.0
        # On a GPU the host never waits in this loop, but for King, who reads `loss` at
        # each step. The others leave it where it is; `total` is read after the epoch.
        for x_batch, y_batch in batches(xp, x, y, rng):
            loss, grads = loss_and_gradients(xp, params, x_batch, y_batch)
            # The rate, for the plot, is asked of a copy: to King each call is a step.
            rates.append(opt.lr_scheduler.copy()(opt.cur_step, loss))
            params = opt.update_all(params, grads, cur_loss=loss)
            total = total + loss
        losses.append(float(total) / epoch)
        seconds = time.perf_counter() - begin
        last = len(losses) == epochs
        if checkpoint is not None and (last or len(losses) % checkpoint.every == 0):
            checkpoint.save(
                opt, params, rng, losses=losses, rates=rates, seconds=seconds
            )
        report(losses[-1])
    _, z = forward(xp, params, x_test)
    right = xp.argmax(z, axis=1) == xp.argmax(y_test, axis=1)
    accuracy = float(xp.mean(xp.astype(right, xp.float32)))
    return Result(optimizer, schedule, losses, rates, accuracy, seconds)


def make_table(results: list[Result], backend: str) -> Table:
    """Return one line for each run."""
    table = Table(
        "optimizer",
        "schedule",
        title=f"Handwritten digits, epochs: {len(results[0].losses)}",
    )
    for heading in ("final loss", "test accuracy", "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("backend")
    for r in results:
        figures = f"{r.losses[-1]:.5f}", f"{r.accuracy:.2%}", f"{r.seconds:.2f}"
        table.add_row(
            r.optimizer,
            r.schedule,
            *figures,
            backend,
            end_section=r.schedule == results[-1].schedule,
        )
    return table


def plot(results: list[Result], output: Path) -> None:
    """Draw a column for each optimizer, with the loss above and the learning rate below."""
    optimizers = list(dict.fromkeys(r.optimizer for r in results))
    figure = Figure(figsize=(max(6.5, 3.25 * len(optimizers)), 7), layout="constrained")
    axes = figure.subplots(2, len(optimizers), sharex=True, sharey="row", squeeze=False)
    for optimizer, (above, below) in zip(optimizers, axes.T, strict=True):
        for r in (r for r in results if r.optimizer == optimizer):
            epochs = len(r.losses)
            above.plot(
                range(1, epochs + 1), r.losses, label=r.schedule, **STYLES[r.schedule]
            )
            below.plot(
                np.linspace(0, epochs, len(r.rates), endpoint=False),
                r.rates,
                **STYLES[r.schedule],
            )
        above.set(title=optimizer, yscale="log")
        below.set(xlabel="epoch", yscale="log")
        above.grid(color="0.9")
        below.grid(color="0.9")
    axes[0, 0].set_ylabel("training loss (cross-entropy)")
    # Warm-ups start near 0, and the cosine ends there: what is below a hundredth of the peaks is left out.
    axes[1, 0].set(
        ylabel="learning rate", ylim=(min(max(r.rates) for r in results) / 100, None)
    )
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        handlelength=4,
    )
    figure.suptitle(
        "Handwritten digits with noise: what ends with a small rate ends with a smaller loss"
    )
    figure.savefig(output, dpi=120, format="png")


def names(text: str) -> list[str]:
    """Return the names of classes in a text, each once; an error says which there are."""
    known = [name for name in xpopt.optimizers.__all__ if name != "OptimizerBase"]
    found = list(dict.fromkeys(text.split(",")))
    for name in found:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return found


def schedule(text: str) -> str:
    """Return the text of a schedule; an error says what is wrong with it."""
    try:
        return str(make_schedule(text))
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_arguments() -> tuple[argparse.Namespace, Any, Checkpoint]:
    """Return the command line, the namespace that it asks for, and the checkpoint; what cannot be ends the program."""
    parser = argparse.ArgumentParser(
        description="Train a network on handwritten digits with some optimizers."
    )
    parser.add_argument(
        "--optimizers",
        type=names,
        default=list(OPTIMIZERS),
        metavar="NAME,NAME",
        help=f"classes of xpopt; default: {','.join(OPTIMIZERS)}",
    )
    parser.add_argument(
        "--schedule",
        type=schedule,
        metavar="TEXT",
        help="what the rates are multiplied by in one run more, such as 'warmup(steps=20) >> cosine(steps=2620)'; an "
        f"epoch has {TRAINING // BATCH} steps",
    )
    parser.add_argument(
        "--backend",
        choices=["numpy", "cupy"],
        help="default: CuPy on a CUDA device, else NumPy",
    )
    parser.add_argument("--epochs", type=int, default=60, help="default: %(default)s")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of weights, split and batches; default: %(default)s",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("digits.png"),
        help="the plot; default: %(default)s",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint, if any"
    )
    parser.add_argument(
        "--save-every",
        type=int,
        default=10,
        metavar="EPOCHS",
        help="default: %(default)s",
    )
    args = parser.parse_args()
    if (
        min(args.epochs, args.save_every) < 1
        or args.seed < 0
        or not args.output.parent.is_dir()
    ):
        parser.error(
            "wanted --save-every and --epochs of at least 1, --seed of at least 0 and --output in a folder that exists"
        )
    if args.backend:
        os.environ["XPOPT_BACKEND"] = args.backend
    try:
        xp = xpopt.default_namespace()
        settings = {
            "epochs": args.epochs,
            "seed": args.seed,
            "backend": xp.__name__,
            "optimizers": args.optimizers,
        }
        settings |= {"schedule": args.schedule} if args.schedule else {}
        checkpoint = Checkpoint(
            args.output.with_suffix(".checkpoint"), args.save_every, settings
        )
        if args.resume:
            checkpoint.load()
        return args, xp, checkpoint
    except (RuntimeError, ValueError) as error:
        parser.error(str(error))


def main() -> None:
    """Train, print the table, write the plot."""
    args, xp, checkpoint = parse_arguments()
    data, console, results = load(xp, args.seed), Console(), checkpoint.results
    labels = [label for label in STYLES if args.schedule or label != "yours"]
    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs"),
    )
    # In a file or a pipe nobody watches a bar move: there, each run leaves a line.
    live = console.is_terminal
    with Progress(
        *columns,
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        disable=not live,
    ) as progress:
        task = progress.add_task(
            "", total=len(args.optimizers) * len(labels) * args.epochs, loss=""
        )

        def report(loss: float) -> None:
            progress.update(task, advance=1, loss=f"loss {loss:.5f}")

        for loss in (loss for result in results for loss in result.losses):
            report(loss)
        for optimizer, schedule in list(itertools.product(args.optimizers, labels))[
            len(results) :
        ]:
            progress.update(task, description=f"{optimizer}, {schedule}")
            run = (
                xp,
                data,
                optimizer,
                schedule,
                args.epochs,
                args.seed,
                report,
                checkpoint,
                args.schedule,
            )
            results.append(train(*run))
            if not live:
                print(
                    f"{optimizer}, {schedule}: {results[-1].seconds:.2f} s", flush=True
                )
    console.print(make_table(results, xp.__name__.rpartition(".")[2]))
    best = max(results, key=lambda r: (r.accuracy, -r.losses[-1]))
    print(
        f"Best: {best.accuracy:.2%} of the test images, by {best.optimizer}; schedule: {best.schedule}."
    )
    plot(results, args.output)
    print(f"Curves of loss and rate: {args.output}")
    checkpoint.path.unlink()


if __name__ == "__main__":
    main()
