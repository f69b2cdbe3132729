"""The models whose update is measured, and what is aimed at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from measuring import Array

Shapes = tuple[tuple[int, ...], ...]


def gpt2(vocabulary: int = 50_257, context: int = 1024, width: int = 768, layers: int = 12) -> Shapes:
    """Return the shapes of GPT-2's parameters; by default of the small one, with 124 million elements."""
    norm = ((width,), (width,))
    attention = ((width, 3 * width), (3 * width,), (width, width), (width,))
    mlp = ((width, 4 * width), (4 * width,), (4 * width, width), (width,))
    return ((vocabulary, width), (context, width), *(norm + attention + norm + mlp) * layers, *norm)


@dataclass(frozen=True)
class Work:
    """A model and its goals.

    Parameters
    ----------
    name : str
        What it is called.
    shapes : tuple of tuple of int
        Of its parameters.
    fused : float
        How many times as fast as torch's fused Adam the compiled engine should be.
    limit : float, optional
        How many times as long as its traffic it may take.
    clip_norm : float, optional
        The largest norm of each gradient.
    """

    name: str
    shapes: Shapes
    fused: float
    limit: float | None = None
    clip_norm: float | None = None

    @property
    def size(self) -> int:
        """Elements, all together."""
        return sum(map(prod, self.shapes))


M = 10**6

WORKS = (
    Work("1 x 10M", ((10 * M,),), 1.0, 1.05),
    Work("1 x 100M", ((100 * M,),), 1.0, 1.05),
    Work("GPT-2 small", gpt2(), 1.0, 1.05),
    Work("GPT-2 small, clipped", gpt2(), 1.3, clip_norm=1.0),
    Work("100 x 100k", ((100_000,),) * 100, 1.1, 1.05),
    Work("3000 x 3500", ((3500,),) * 3000, 4.0, 1.2),
    Work("200 x 1000", ((1000,),) * 200, 4.0),
    Work("20 x 5000", ((5000,),) * 20, 2.5),
    Work("10 x 50k", ((50_000,),) * 10, 1.0),
    Work("1 x 100k", ((100_000,),), 1.0),
    Work("1 x 300k", ((300_000,),), 1.0),
)


class Model:
    """A model's numbers: parameters, and two sets of gradients, so that no step sees the objects of the last.

    Parameters
    ----------
    shapes : tuple of tuple of int
        Of the parameters.
    clip_norm : float, optional
        The largest norm of each gradient.
    """

    def __init__(self, shapes: Shapes, clip_norm: float | None = None) -> None:
        rng = np.random.default_rng(0)
        self.shapes = shapes
        self.clip_norm = clip_norm
        self._values = [[rng.standard_normal(shape, np.float32) for shape in shapes] for _ in range(3)]

    @property
    def grads(self) -> list[list[Array]]:
        """The sets of gradients."""
        return self._values[:2]

    def params(self) -> Iterator[Array]:
        """Copy the parameters."""
        return (x.copy() for x in self._values[2])
