"""How the JSON of a header is built, seen before anything is made of it."""

from __future__ import annotations

import numpy as np

from .header import CheckpointError

DEEPEST = 100
"""How many lists and dicts may lie in each other."""

_FREE = 1000
_APART = 8


def check_structure(text: str) -> None:
    """Raise a CheckpointError for JSON that would take far more memory than its text.

    An empty list is two characters, and in memory a hundred bytes. So there may be one list or dict for each eight
    characters, and a thousand more.

    Parameters
    ----------
    text : str
        JSON, or anything else.

    Raises
    ------
    CheckpointError
        There are too many lists and dicts, or they lie too deeply in each other.
    """
    count, depth = measured(text)
    if count > _FREE + len(text) // _APART:
        raise CheckpointError(f"the header has {count} lists and dicts in {len(text)} characters")
    if depth > DEEPEST:
        raise CheckpointError(f"the header is nested too deeply: more than {DEEPEST} lists and dicts in each other")


def measured(text: str) -> tuple[int, int]:
    """Return how many lists and dicts there are in JSON, and how many lie in each other; in the time of its length.

    Parameters
    ----------
    text : str
        JSON; of anything else, some numbers.

    Returns
    -------
    count, depth : int
        The two numbers.
    """
    escaped = text.replace("\\\\", "").replace('\\"', "")
    found = np.frombuffer(escaped.encode(errors="replace"), np.uint8)
    found = found[np.add.accumulate(found == ord('"'), dtype=np.uint8) % 2 == 0]  # an even number of quotes in front
    opening = (found == ord("[")) | (found == ord("{"))
    closing = (found == ord("]")) | (found == ord("}"))
    steps = opening.view(np.int8) - closing.view(np.int8)
    depth = np.add.accumulate(steps, dtype=np.int32).max(initial=0)
    return int(np.count_nonzero(opening)), int(depth)
