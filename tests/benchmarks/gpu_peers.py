"""Adam on a whole model on a GPU, by xpopt, by torch and by CuPy, and a copy on the device of as many bytes."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

from measuring import Array
from peers import Compiled, Foreach, Fused, Peer, Textbook
from works import Shapes


class Model:
    """A model's numbers on the card, for `Peer`; two sets of gradients, which all share."""

    def __init__(self, card: Any, shapes: Shapes, clip_norm: float | None = None) -> None:
        self.card, self.shapes, self.clip_norm = card, shapes, clip_norm
        self.grads = [[card.filled(shape, seed) for shape in shapes] for seed in range(2)]

    @property
    def size(self) -> int:
        """Elements, all together."""
        return sum(map(prod, self.shapes))

    def params(self) -> list[Any]:
        """Return new parameters."""
        return [self.card.filled(shape, 2) for shape in self.shapes]


class OnCard(Peer):
    """A peer whose arrays are on the card."""

    runs: ClassVar[str]  # what of `Card.why_not` it needs

    def __init__(self, model: Any, threads: int) -> None:
        self._card = model.card
        super().__init__(model, threads)

    def params(self) -> list[Array]:
        return [self._card.numpy(x) for x in super().params()]

    def view(self, x: Any) -> Any:
        return self._card.tensor(x)


class Cuda(OnCard, Compiled):
    name, needs, engine, runs = "xpopt cuda", "cupy", "auto", "xpopt"


class EagerCuPy(OnCard, Compiled):
    name, needs, engine, runs, clips = "xpopt eager", "cupy", "eager", "cupy", False


class TextbookCuPy(OnCard, Textbook):
    name, needs, runs = "textbook CuPy", "cupy", "cupy"


class FusedCuda(OnCard, Fused):
    name, runs = Fused.name, "torch"


class ForeachCuda(OnCard, Foreach):
    name, runs = Foreach.name, "torch"


class Copy(OnCard):
    """A copy on the device that reads and writes together as much as a step does."""

    name, needs, runs = "a copy of as many bytes", "cupy", "xpopt"
    slots: ClassVar[int] = 2

    def __init__(self, model: Any, threads: int) -> None:
        self._card = model.card
        self.bytes = traffic(model.size, self.slots)
        self._arrays = [self._card.empty(-(-self.bytes // 8)) for _ in range(2)]

    def feed(self, number: int) -> None:
        """Do nothing: there are no gradients."""

    def step(self) -> None:
        self._card.copy(*self._arrays)


class CopyOfOne(Copy):
    slots = 1


PEERS: tuple[type[OnCard], ...] = (FusedCuda, ForeachCuda, TextbookCuPy, EagerCuPy, Copy)


def traffic(size: int, slots: int) -> int:
    """Return the bytes that a step has to move: param, grad and slots in, param and slots out."""
    return 4 * size * (3 + 2 * slots)
