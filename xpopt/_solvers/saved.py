"""What every solver is, as something that is saved and goes on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .._checkpoint.progress import Progress


class Saved:
    """The state of a solver, as plain data and in files."""

    def state_dict(self: Any) -> dict[str, Any]:
        """Return all that the solver has been told and has decided, as plain data and arrays.

        Returns
        -------
        dict
            ``"header"``, of what JSON has, and ``"arrays"`` by name, copies.
        """
        from .saving import state_dict

        state: dict[str, Any] = state_dict(self)
        return state

    def load_state_dict(self: Any, state: Mapping[str, Any]) -> None:
        """Become the solver of which a state was taken; it goes on bit for bit.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned, of a solver of the same method for parameters of the same names, shapes and
            dtypes. The rule when to stop stays that of this solver: where another one has stopped, it is asked
            whether it does as well.

        Raises
        ------
        CheckpointError
            It is damaged, or of another solver. Nothing is changed then.
        """
        from .saving import load_state_dict

        load_state_dict(self, state)

    def save(self: Any, path: str | os.PathLike[str], *, progress: Progress = None) -> None:
        """Write what `state_dict` returns to a safetensors file, which is complete or not there.

        Parameters
        ----------
        path : path-like
            Where to; an older file is replaced.
        progress : callable, bool or None
            As for `OptimizerBase.save`.

        Raises
        ------
        ImportError
            safetensors is not installed.
        OSError
            The file cannot be written; an older one is as it was.
        """
        from .saving import save

        save(self, path, progress)

    def load(self: Any, path: str | os.PathLike[str], *, progress: Progress = None) -> None:
        """Read a file that `save` wrote, and go on from there.

        Parameters
        ----------
        path : path-like
            The file.
        progress : callable, bool or None
            As for `OptimizerBase.save`.

        Raises
        ------
        ImportError
            safetensors is not installed.
        OSError
            There is no such file, or it cannot be read.
        CheckpointError
            As for `load_state_dict`.
        """
        from .saving import load

        load(self, path, progress)

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled or copied; make another solver and give it what state_dict() "
            f"returns, with load_state_dict()"
        )
