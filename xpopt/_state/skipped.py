"""How many steps were left out, on the host and on devices that have not been asked yet."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._arrays.library import Library
from .._arrays.namespace import library_of
from .._arrays.typing import Array


class Skipped(NamedTuple):
    """How many steps have been left out; never changed, but replaced."""

    on_host: int = 0
    on_devices: tuple[tuple[Library, str, Array], ...] = ()

    def one_more(self) -> Skipped:
        """Return the count after a step that was left out."""
        return self._replace(on_host=self.on_host + 1)

    def unless(self, proceed: Array) -> Skipped:
        """Return the count after a step that was made if `proceed`, an array of bool and of shape (), is true."""
        library = library_of(proceed)
        assert library is not None
        device, xp = library.place(proceed), library.xp
        others = [one for one in self.on_devices if one[:2] != (library, device)]
        before = [one[2] for one in self.on_devices if one[:2] == (library, device)]
        count = library.guard(lambda proceed: sum(before, xp.astype(xp.logical_not(proceed), xp.int32)))(proceed)
        return self._replace(on_devices=(*others, (library, device, count)))

    def read(self) -> Skipped:
        """Return the same count, all of it on the host; that waits for the devices."""
        values = [next(iter(library.to_numpy([count]))) for library, _, count in self.on_devices]
        return Skipped(self.on_host + sum(map(int, values)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Skipped:
        """Return the same: a copy of an optimizer waits for no device."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the count alone."""
        return Skipped, (self.read().on_host,)
