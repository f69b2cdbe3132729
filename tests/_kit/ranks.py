"""Ranks in the threads of one process: what `Sharded` does is tested without the cost of processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpopt.sharded import sharded


class InThreads:
    """One of several ranks that share a list."""

    library = "numpy"

    def __init__(self, rank: int, size: int, given: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self._given, self._barrier = rank, size, given, barrier

    def _all(self, mine: Any, then: Callable[[list[Any]], Any]) -> Any:
        self._given[self.rank] = mine
        self._barrier.wait()
        found = then(list(self._given))
        self._barrier.wait()
        return found

    def gather(self, numbers: Sequence[float]) -> Any:
        return self._all(list(numbers), np.array)

    def broadcast(self, text: str, rank: int) -> str:
        return self._all(text, lambda given: given[rank])

    def spread(self, flat: Any) -> None:
        flat[...] = self._all(flat, lambda given: given[0].copy())

    def zeros(self, count: int, dtype: Any, like: Any) -> Any:
        return np.zeros(count, dtype)

    def lay(self, leaf: Any, param: Any, grad: Any) -> bool:
        return False

    def collect(self, leaf: Any, param: Any, grad: Any) -> str:
        return ""

    def can_reduce(self, flat: Any, borders: Sequence[int]) -> bool:
        return flat.itemsize > 2

    def reduce(self, flat: Any, own: Any, borders: Sequence[int]) -> None:
        mine = slice(borders[self.rank], borders[self.rank + 1])
        own[...] = self._all(flat, lambda given: sum(x[mine] for x in given[::-1]))

    def exchange(self, flat: Any, received: Any, borders: Sequence[int]) -> None:
        mine = slice(borders[self.rank], borders[self.rank + 1])
        received[...] = self._all(flat, lambda given: np.concatenate([x[mine] for x in given]))

    def share(self, flat: Any, borders: Sequence[int]) -> None:
        def of_all(given: list[Any]) -> Any:
            return np.concatenate([given[k][borders[k] : borders[k + 1]] for k in range(self.size)])

        found = self._all(flat, of_all)
        flat[: borders[-1]] = found


def run_ranks(size: int, work: Callable[[InThreads], Any], monkeypatch: Any, timeout: float = 60) -> list[Any]:
    """Call a function on each of so many ranks; return what each returned, or the exception that it raised."""
    monkeypatch.setattr(sharded, "processes_of", lambda comm: comm)
    barrier, given, found = threading.Barrier(size, timeout=timeout), [None] * size, [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = work(InThreads(rank, size, given, barrier))
        except Exception as error:
            found[rank] = error
            if isinstance(error, threading.BrokenBarrierError | AssertionError):
                barrier.abort()  # the others would wait

    threads = [threading.Thread(target=run, args=[rank]) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def filled(tree, seed, dtype=np.float32):
    """Return arrays of normal numbers of the shapes in a tree."""
    numbers = np.random.default_rng(seed)

    def fill(x):
        if isinstance(x, dict):
            return {name: fill(value) for name, value in x.items()}
        if isinstance(x, list):
            return [fill(value) for value in x]
        return numbers.normal(0, 1, x).astype(dtype)

    return fill(tree)


def leaves(tree):
    if isinstance(tree, dict | list):
        return [x for value in (tree.values() if isinstance(tree, dict) else tree) for x in leaves(value)]
    return [tree]


def write(grads, values):
    for target, x in zip(leaves(grads), leaves(values), strict=True):
        target[...] = x


def of_all(ranks, work, monkeypatch):
    """Return what each rank returns, where none raises."""
    results = run_ranks(ranks, work, monkeypatch)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results
