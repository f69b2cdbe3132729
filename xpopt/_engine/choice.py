"""Which engine a caller has chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .._settings.text import short

ENGINES = ("auto", "eager", "blocked", "compiled", "cuda")

_choice: ContextVar[str] = ContextVar("xpopt_engine", default="auto")


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Select the engine that runs updates in this context, for tests and debugging.

    Parameters
    ----------
    name : {"auto", "eager", "blocked", "compiled", "cuda"}
        ``"auto"`` takes the fastest that can run each update. Another one takes what it can run, whatever its size;
        ``"compiled"`` leaves what only it cannot run to ``"blocked"``, and the rest goes to ``"eager"``.

    Yields
    ------
    None
        Nothing; use it as ``with xpopt.engine("eager"):``.

    Raises
    ------
    ValueError
        There is no such engine.
    """
    if name not in ENGINES:
        raise ValueError(f"engine {short(name)}; wanted one of {', '.join(ENGINES)}")
    token = _choice.set(name)
    try:
        yield
    finally:
        _choice.reset(token)


def chosen() -> str:
    """Return the engine chosen in this context."""
    return _choice.get()
