"""The sum of an array as its description says, number by number, in Python's floats, which are float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

PIECE, LANES = 4096, 256


def added_up(values: Sequence[float], join: Callable[[float, float], float] = lambda a, b: a + b) -> float:
    """Add up: in pieces, each of lanes that are folded in halves; and the sums of the pieces in the same way."""
    while True:
        values = [_piece(values[start : start + PIECE], join) for start in range(0, len(values), PIECE)]
        if len(values) == 1:
            return values[0]


def _piece(values: Sequence[float], join: Callable[[float, float], float]) -> float:
    lanes = [0.0] * LANES
    for i, value in enumerate(values):
        lanes[i % LANES] = join(lanes[i % LANES], value)
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [join(lanes[j], lanes[half + j]) for j in range(half)]
    return lanes[0]
