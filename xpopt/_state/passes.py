"""Where a step of several gradients is: the passes over the parameters that are over, and the one under way."""

from __future__ import annotations

from collections.abc import Hashable, Iterable


class Passes:
    """Counts passes over the parameters, of which so many make a step.

    A pass of `update_all` is one call. One of `update` begins when a name comes again, or after `step`. What is counted
    for an update is confirmed when it has succeeded, or taken back when it has not.

    Parameters
    ----------
    done : int
        The passes that are over since the last whole step.
    names : iterable of hashable
        The parameters that the pass under way has reached.
    """

    def __init__(self, done: int = 0, names: Iterable[Hashable] = ()) -> None:
        self.done = done
        self.names: dict[Hashable, None] = dict.fromkeys(names)
        self._before: tuple[int, dict[Hashable, None]] | None = None
        self._joined = False  # whether the last of `names` waits to be confirmed

    def copy(self) -> Passes:
        """Return the same, as it was before what is not confirmed."""
        done, names = self._before or (self.done, self.names)
        return Passes(done, list(names)[: len(names) - self._joined])

    @property
    def is_settled(self) -> bool:
        """Whether all is confirmed."""
        return self._before is None and not self._joined

    def begin(self, name: Hashable, length: int) -> bool:
        """Count an update of a name; return whether it belongs to the last pass of `length`. To be confirmed."""
        if name in self.names:
            self._before = self.done, self.names
            self.done, self.names = self._next(length), {name: None}
        else:
            self.names[name] = None
            self._joined = True
        return self.done + 1 >= length

    def begin_whole(self, length: int) -> bool:
        """Count a pass of the whole model; return whether it is the last of `length`. To be confirmed."""
        self._before = self.done, self.names
        ends = (self._next(length) if self.names else self.done) + 1
        self.done, self.names = ends % length, {}
        return ends >= length

    def end(self, length: int) -> bool:
        """End the pass under way, if there is one; return whether a step is whole now."""
        if self.names:
            self.done, self.names = self._next(length), {}
        return self.done == 0

    def is_between(self, length: int) -> bool:
        """Whether gradients have been added up of which no step has been taken yet."""
        return bool(self.done or self.names) and not (self.names and self._next(length) == 0)

    def confirm(self) -> None:
        """The update has succeeded; nothing in it can fail."""
        self._before, self._joined = None, False

    def take_back(self) -> None:
        """The update has failed."""
        if self._joined:
            self.names.popitem()
        elif self._before is not None:
            self.done, self.names = self._before
        self._before, self._joined = None, False

    def _next(self, length: int) -> int:
        return (self.done + 1) % length
